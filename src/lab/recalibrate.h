/* New running statistics for a net, and the helpers that an audit shares. */
#ifndef EK_LAB_RECALIBRATE_H
#define EK_LAB_RECALIBRATE_H

#include "lab/sweep.h"

/* The net's batch normalizations with running statistics, by depth: no normalization lies between two of one depth on
 * any way through the net, so that the statistics of both can be taken in one sweep. */
typedef struct ek_norm_list {
    int count, depths;
    int *layer; /* [count], in the order of the net */
    int *depth; /* [count], from 0 */
} ek_norm_list;

EK_MUST_CHECK ek_status ek_norm_list_create(const ek_net *net, ek_norm_list *out);
void ek_norm_list_free(ek_norm_list *list);

/* Running statistics, [channels] each; none may be NULL. */
typedef struct ek_running {
    int64_t channels;
    float *mean, *var;
    int64_t *batches;
} ek_running;
ek_running ek_net_running(const ek_net *net, int layer);

/* That what was read gives statistics: two values at least, all finite. */
EK_MUST_CHECK ek_status ek_norm_stats_check(const ek_net *net, const ek_norm_stats *stats);
/* The variance by the layer's convention. */
double ek_norm_stats_var(const ek_net *net, const ek_norm_stats *stats, int64_t channel);
/* running = (1-blend)*running + blend*measured; what is there counts as nothing where it is not finite or negative. */
void ek_norm_stats_write(const ek_net *net, const ek_norm_stats *stats, double blend);
/* Gives the normalizations of a depth (-1: all) the statistics of what they read, in one sweep: of sweep, its stats are set
 * here. */
EK_MUST_CHECK ek_status ek_mend_depth(ek_sweep *sweep, const ek_norm_list *norms, int depth, double blend);

#endif
