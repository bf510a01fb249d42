/*
 * Shards: the parts of a batch that are computed as if each had a machine to itself. All of a run are numbered through the ranks;
 * a rank has the same number of them as any other, one after the other, each on a thread of its own.
 *
 * What they exchange is merged by the pairwise tree over all shards of the run. A rank's shards are a subtree of it, so their
 * number is a power of two where there are several ranks; then the result does not depend on how many ranks there are.
 */
#ifndef EK_COMM_SHARDS_H
#define EK_COMM_SHARDS_H

#include "comm/comm.h"

typedef struct ek_shards ek_shards;

/* `local` shards of this process; comm NULL: there is no other. At most `threads` of them compute at once.
 * EK_E_ARGUMENT  local is no power of two, with several ranks */
ek_status ek_shards_create(ek_comm *comm, int local, int threads, ek_shards **out);
void ek_shards_destroy(ek_shards *shards);

/* Runs `run` for each local shard, each on its thread (shard 0 on the caller's), until all are done.
 * Whatever failed first in one of them comes out: then nobody waited for the others any more. */
typedef ek_status (*ek_shard_work)(void *argument, int shard);
ek_status ek_shards_run(ek_shards *shards, ek_shard_work run, void *argument);

/* Whether one has failed in the present work: what they exchange is of no use then. */
bool ek_shards_failed(ek_shards *shards);

/* Seconds that shard 0 took to meet the others and to merge, since it was asked last; by shard 0. */
double ek_shards_meeting_seconds(ek_shards *shards);

/* One of them, for what runs on its thread. */
typedef struct ek_shard {
    ek_shards *of;
    int index; /* among the local ones */
} ek_shard;

/* Until all local shards are there. */
void ek_shard_meet(const ek_shard *shard);
/* data [count] becomes the merge of all shards', of all ranks. All shards call it alike. After a failure it changes nothing. */
void ek_shard_merge(const ek_shard *shard, double *data, int64_t count, ek_merge merge);

#endif
