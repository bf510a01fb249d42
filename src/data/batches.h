/* Batches in the order and layout that a net wants, made ahead of their use by a thread of their own. */
#ifndef EK_DATA_BATCHES_H
#define EK_DATA_BATCHES_H

#include "data/dataset.h"

/* Which samples train and which validate: by seed alone. *train and *valid (ek_free) are sorted. */
ek_status ek_split_indices(int64_t count, double valid_fraction, uint64_t seed, int64_t **train,
                           int64_t *train_count, int64_t **valid, int64_t *valid_count);
/* Puts `index` into the order of an epoch (from 1): sorted, then shuffled by (seed, epoch) alone. */
void ek_epoch_order(int64_t *index, int64_t count, uint64_t seed, int64_t epoch, bool shuffle);

/* Where batches begin: `batch` samples each; a last batch of one is joined to the one before it (or
 * dropped with drop_last, as is any short one). */
int64_t ek_batch_count(int64_t count, int64_t batch, bool drop_last);
void ek_batch_range(int64_t count, int64_t batch, bool drop_last, int64_t number, int64_t *first,
                    int64_t *size);
int64_t ek_batch_largest(int64_t count, int64_t batch, bool drop_last); /* samples; 0: there is no batch */

typedef struct ek_batches ek_batches;

/* One sample range as the net's input: pixels normalized, lane blocks (dead lanes zero) or rows. */
void ek_batch_fill(const ek_dataset *dataset, const ek_pixels *pixels, ek_shape input, const int64_t *index,
                   int64_t n, float *x, int32_t *labels);

/* Starts making batches `first_batch`, ... of the given order (borrowed till the end). */
ek_status ek_batches_start(const ek_dataset *dataset, const ek_pixels *pixels, ek_shape input,
                           const int64_t *index, int64_t count, int64_t batch, bool drop_last,
                           int64_t first_batch, ek_batches **out);
/* The next batch; false after the last. x and labels are valid until the next call. */
bool ek_batches_next(ek_batches *batches, int64_t *n, const float **x, const int32_t **labels);
void ek_batches_end(ek_batches *batches); /* at any time; NULL is fine */

#endif
