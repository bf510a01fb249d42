/* A checkpoint: a model file that also holds the optimizer's state, where the run stands, and what the run
 * is, so that another run is not taken for it. It opens as a model too. */
#ifndef EK_TRAIN_CHECKPOINT_H
#define EK_TRAIN_CHECKPOINT_H

#include "train/trainer.h"

/* Where a run stands, beside its net and optimizer. Random numbers are functions of seed, epoch and step
 * (core/random.h), so that there is no generator's state. */
typedef struct ek_progress {
    int64_t epoch;   /* epochs done */
    int64_t step;    /* steps done of the present epoch */
    int64_t skipped; /* steps skipped in the whole run */
    /* Of the present epoch's steps that were not skipped: */
    int64_t samples, correct;
    double loss_sum;
} ek_progress;

typedef struct ek_run {
    ek_trainer *trainer;
    const ek_train_options *options;
    int shards; /* that a batch is cut into; 1: none */
    int64_t data_count;  /* training samples before the split */
    int64_t train_count; /* and after it */
    int64_t steps_per_epoch;
    ek_progress progress;
} ek_run;

/* Steps done in the whole run. */
static inline int64_t ek_run_steps(const ek_run *run)
{
    return run->progress.epoch * run->steps_per_epoch + run->progress.step;
}

/* What tells runs, and nets, from each other: of the options that the result depends on, and of all parameters and statistics. */
uint64_t ek_run_options_hash(const ek_run *run);
uint64_t ek_net_hash(const ek_net *net);

ek_status ek_checkpoint_write(const ek_run *run, const char *path);

/* Restores the net, the trainer and run->progress; the rest of the run says what to expect.
 * EK_E_ARGUMENT  of another run; the message says which option differs
 * EK_E_FORMAT    not a checkpoint, or not a valid one
 * On error the net is as it was. */
ek_status ek_checkpoint_read(ek_run *run, const char *path);

#endif
