/* A step over a batch that is run in parts: gradient accumulation, with the batch normalization of the whole batch. */
#ifndef EK_TRAIN_PARTS_H
#define EK_TRAIN_PARTS_H

#include "train/loss.h"
#include "train/phases.h"

typedef struct ek_parts ek_parts;

/* Refuses a net that cannot be run so: the reference's, and one with ghost batches, which parts would cut elsewhere than
 * the whole batch does. */
ek_status ek_parts_check(const ek_net *net);

/* For a net; one at a time. */
ek_status ek_parts_create(ek_net *net, ek_parts **out);
void ek_parts_destroy(ek_parts *parts);

/* A batch of n samples that is run `part` at a time; or cut into shards (train/sharding.h), where part says nothing. */
typedef struct ek_parted_batch {
    int64_t n, part;
    /* Puts samples [first, first + n) into the input of a net. Shards call it at the same time, each with its net. */
    ek_status (*fill)(void *user, ek_net *net, int64_t first, int64_t n);
    void *user;
    const int32_t *labels;
    uint64_t seed, step;
    ek_observer *observer; /* sees the first part or shard, with the statistics of the whole, where the loss is finite; NULL: none */
    ek_phases *phases;     /* begun; takes the times */
    bool stop;             /* in shards: this rank wants no more steps */
} ek_parted_batch;

/* The sum of the losses, with *correct counted; where it is finite, the gradients of the mean loss, and what
 * ek_net_commit needs. The net and `loss` have room for a part. */
ek_status ek_parts_run(ek_parts *parts, ek_loss *loss, const ek_parted_batch *batch, double *sum, int64_t *correct);
/* After ek_parts_run and ek_net_commit: passes are of whole batches again. */
void ek_parts_end(ek_parts *parts);

#endif
