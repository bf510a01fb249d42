#ifndef EK_TRAIN_TRAINER_H
#define EK_TRAIN_TRAINER_H

#include "train/loss.h"
#include "train/optimizer.h"
#include "train/parts.h"
#include "train/phases.h"
#include "train/sharding.h"

/* Somebody who looks on at a run: src/lab/observe.c makes one. */
struct ek_observer {
    /* Before the first step, with the event of the start: all its memory is taken here. */
    ek_status (*begin)(ek_observer *observer, ek_net *net, const ek_event *start);
    /* Between the forward and the backward pass of each step, of n samples: what the normalizations read is there, and
     * nothing is updated yet. Of a batch in parts it sees the first, and nothing where the loss is not finite. It changes
     * nothing in the net. */
    void (*forward)(ek_observer *observer, const ek_net *net, int64_t n);
    /* What the listener is told, before it. */
    void (*event)(ek_observer *observer, const ek_event *event);
};

struct ek_trainer {
    ek_net *net;
    ek_optimizer_state *optimizer;
    double lr;
    uint64_t seed;
    int64_t step; /* steps done, skipped ones too: chooses the dropout masks */
    ek_loss loss;
    ek_parts *parts;       /* NULL: no batch was run in parts yet */
    ek_sharding *sharding; /* NULL: no batch was cut into shards yet */
    ek_observer *observer; /* NULL: none */
    ek_phases phases;      /* of the last step, without EK_PHASE_DATA where its input was in place */
};

/* Room for steps of `samples`. */
ek_status ek_trainer_reserve(ek_trainer *trainer, int64_t samples);

/* ek_trainer_step for an input that is in place (ek_net_input), with room reserved and labels known to be in
 * range. */
ek_status ek_trainer_run(ek_trainer *trainer, int64_t n, const int32_t *labels, ek_step_result *result);

/* The same in parts, for which room is reserved: of `batch` all but seed, step, observer and phases is given. */
ek_status ek_trainer_reserve_parts(ek_trainer *trainer, int64_t part);
ek_status ek_trainer_run_parts(ek_trainer *trainer, const ek_parted_batch *batch, ek_step_result *result);
/* The same in shards, of batches of up to `samples`. *stop: a rank gave batch->stop. */
ek_status ek_trainer_reserve_shards(ek_trainer *trainer, int shards, bool local_bn, int64_t samples);
ek_status ek_trainer_run_shards(ek_trainer *trainer, const ek_parted_batch *batch, ek_step_result *result, bool *stop);

#endif
