/* A step over a batch that is cut into shards: by one process, or by the ranks of a comm. */
#ifndef EK_TRAIN_SHARDING_H
#define EK_TRAIN_SHARDING_H

#include "train/parts.h"

typedef struct ek_sharding ek_sharding;

/* Samples [*first, *first + the result) of n are shard `index`'s. */
int64_t ek_shard_samples(int64_t n, int shards, int64_t index, int64_t *first);

/* Whether the net can be run so by these shards (0: one a rank), in batches of n. */
ek_status ek_sharding_check(const ek_net *net, int shards, bool local_bn, int64_t n);

/* For batches of up to `samples`. local_bn: each shard normalizes by its own samples. */
ek_status ek_sharding_create(ek_net *net, int shards, bool local_bn, int64_t samples, ek_sharding **out);
void ek_sharding_destroy(ek_sharding *sharding);
/* Whether it can run this. */
bool ek_sharding_fits(const ek_sharding *sharding, int shards, bool local_bn, int64_t samples);

/* The sum of the losses, with *correct counted; where it is finite, the gradients of the mean loss in the net. *stop: one of the ranks
 * gave it. */
ek_status ek_sharding_run(ek_sharding *sharding, const ek_parted_batch *batch, double *sum, int64_t *correct, bool *stop);
/* The running statistics, in the net. */
void ek_sharding_commit(ek_sharding *sharding);
/* After these: passes are of whole batches again. */
void ek_sharding_end(ek_sharding *sharding);

#endif
