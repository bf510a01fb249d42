/* A net run over a data set without a change to either: what its normalizations read, and what it answers. */
#ifndef EK_LAB_SWEEP_H
#define EK_LAB_SWEEP_H

#include "data/batches.h"
#include "norm/batch_norm.h"

/* How far a long work is; `all` and `done` count samples run through. */
typedef struct ek_work {
    ek_watch progress; /* NULL: nobody asks */
    void *user;
    double done, all;
} ek_work;

/* What one normalization read over a sweep, by channel. */
typedef struct ek_norm_stats {
    int layer; /* 0: the net's input */
    int64_t channels;
    ek_moments *all;        /* of all values */
    ek_moments *batch_mean; /* of the means of whole batches, each counted once */
    double *batch_var;      /* the batches' variances M2/(m-1), averaged as means are */
} ek_norm_stats;

EK_MUST_CHECK ek_status ek_norm_stats_create(const ek_net *net, int layer, ek_norm_stats *out);
void ek_norm_stats_free(ek_norm_stats *stats);

/* One sweep over samples index[0..count); begins as zeros but for what is set. */
typedef struct ek_sweep {
    ek_net *net;
    const ek_dataset *dataset;
    const int64_t *index;
    int64_t count, batch;
    ek_mode mode;
    ek_norm_stats *stats; /* those to fill, [stats_count] */
    int stats_count;
    bool stats_only; /* each pass ends at the last of their layers, and nothing below is measured */
    float *logits;   /* NULL, or [count][outputs]: what was there is compared with, then replaced */
    ek_work *work;

    /* Measured. Without labels loss and correct are NaN and -1. */
    double loss; /* mean */
    int64_t correct;
    double
        change; /* rms of the difference from the logits before, over the rms of these about their sample's mean */
    int64_t decided; /* samples whose largest logit is another than before */
} ek_sweep;

/* EK_E_INTERRUPTED: the progress said so */
EK_MUST_CHECK ek_status ek_sweep_run(ek_sweep *sweep);

#endif
