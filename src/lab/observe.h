/* What an observer has seen of a run: filled by observe.c, shown by report_training.c and events_training.c. */
#ifndef EK_LAB_OBSERVE_H
#define EK_LAB_OBSERVE_H

#include "formats/tfevents.h"
#include "train/trainer.h"

/* Numbers kept of each batchnorm at each look. Groups are quantiles: EK_SEEN_SEVEN or EK_SEEN_FIVE of them. */
enum {
    EK_SEEN_SEVEN = 7,
    EK_SEEN_FIVE = 5,
    EK_SEEN_BEFORE = 0,                             /* 1, 5, 25, 50, 75, 95, 99 % of the inputs */
    EK_SEEN_AFTER = EK_SEEN_BEFORE + EK_SEEN_SEVEN, /* and of the outputs */
    EK_SEEN_GAMMA = EK_SEEN_AFTER + EK_SEEN_SEVEN,  /* 0, 25, 50, 75, 100 % of the channels' */
    EK_SEEN_BETA = EK_SEEN_GAMMA + EK_SEEN_FIVE,
    EK_SEEN_MEAN_GAP =
        EK_SEEN_BETA + EK_SEEN_FIVE, /* |running_mean - mean|/deviation, mean and var the batch's */
    EK_SEEN_VAR_RATIO = EK_SEEN_MEAN_GAP + EK_SEEN_FIVE,    /* running_var/var */
    EK_SEEN_GAMMA_MOVED = EK_SEEN_VAR_RATIO + EK_SEEN_FIVE, /* root of the mean square of gamma - its first */
    EK_SEEN_BETA_MOVED,
    EK_SEEN_MEASURES,
};
_Static_assert((int)EK_SEEN_MEASURES == (int)EK_LOOK_MEASURES, "evenkeel.h says what they are");

/* One batchnorm. */
typedef struct ek_seen_norm {
    char label[EK_LABEL_MAX];
    int layer;
    int64_t channels, positions;
    const float *gamma, *beta, *running_mean, *running_var; /* of the net, during the run; NULL: has none */
    float *first_gamma, *first_beta;                        /* at the first look */
    double *measure;                                        /* [EK_SEEN_MEASURES][looks in all] */
    ek_histogram inputs;                                    /* at the last look */
    bool batch;                                             /* it normalizes by the batch's statistics */
} ek_seen_norm;

/* Steps in runs of equal length: a run of 1000 steps or fewer has each by itself. */
typedef struct ek_seen_steps {
    int64_t each;              /* steps a run */
    int64_t count;             /* runs begun */
    double *step;              /* its last */
    double *loss, *low, *high; /* mean, least and most of the finite ones; NaN: none */
    double *lr;
    int64_t finite; /* losses in the last run */
    double *memory; /* of them all */
} ek_seen_steps;

typedef struct ek_seen {
    ek_observer base;
    ek_event start, last; /* last: of a step or an epoch */
    ek_seen_steps steps;
    ek_event *epoch;
    int64_t epochs, epoch_room;
    ek_status status;    /* not EK_OK: an epoch is missing */
    int64_t step;        /* the present one, from 1 over the whole run */
    int64_t next;        /* the one to look at next */
    int64_t look, looks; /* done, and in all */
    double *at;          /* [looks]: their steps */
    ek_seen_norm *norm;
    int norms;
    /* Each thread's own room for one batchnorm. */
    int64_t room_values;
    float *room;
    uint32_t *sort_room;
    const ek_net *net; /* during the run */
    int64_t n;         /* samples of the present step */
} ek_seen;

static inline const ek_seen *ek_seen_of(const ek_observer *observer) { return (const ek_seen *)observer; }
static inline const double *ek_seen_measure(const ek_seen *seen, const ek_seen_norm *norm, int measure)
{
    return norm->measure + measure * seen->looks;
}

#endif
