/* Batches in the order and layout that a net wants. */
#ifndef EK_DATA_BATCHES_H
#define EK_DATA_BATCHES_H

#include "data/dataset.h"

/* Which samples train and which validate: by seed alone. *train and *valid (ek_free) are sorted. Of many samples that is
 * 8 bytes each, and while it runs one more, and 8 for each that validates. */
ek_status ek_split_indices(int64_t count, double valid_fraction, uint64_t seed, int64_t **train,
                           int64_t *train_count, int64_t **valid, int64_t *valid_count);
/* Puts `index`, distinct numbers from 0 on, into the order of an epoch (from 1): sorted, then shuffled by (seed, epoch)
 * alone. */
ek_status ek_epoch_order(int64_t *index, int64_t count, uint64_t seed, int64_t epoch, bool shuffle);

/* Where batches begin: `batch` samples each; a last batch of one is joined to the one before it (or
 * dropped with drop_last, as is any short one). */
int64_t ek_batch_count(int64_t count, int64_t batch, bool drop_last);
void ek_batch_range(int64_t count, int64_t batch, bool drop_last, int64_t number, int64_t *first,
                    int64_t *size);
int64_t ek_batch_largest(int64_t count, int64_t batch, bool drop_last); /* samples; 0: there is no batch */

/* Samples index[0] to index[n-1] into the input of a net prepared for n: pixels normalized, in lane blocks, dead
 * lanes zero; and their lengths. The dataset fits the net, which uses lengths (ek_net_use_lengths) where it has them. */
ek_status ek_batch_fill(ek_net *net, const ek_dataset *dataset, const int64_t *index, int64_t n);

/* The batches of an order, one after the other. Filling one from memory is work for the net's pool, spread like the first
 * layer's, which finds its part in its cache; a thread of its own would take a core from the pool at every step. Items that
 * are not in memory are read by the pool too, and where that takes long, by threads of their own, ahead of the steps. */
typedef struct ek_batches {
    ek_net *net; /* prepared for the largest batch */
    const ek_dataset *dataset;
    const int64_t *index;
    int64_t count, batch;     /* samples in all and in a batch */
    bool drop_last, in_parts; /* in_parts: who runs a batch puts it in part by part, by ek_batches_fill */
    bool none_ahead;          /* items are always read when they are put in */
    /* Of a batch of n only samples from n * share_first / shares up to n * share_end / shares, rounded down, are wanted
     * here: others are not read. 0 shares: all are wanted. */
    int share_first, share_end, shares;
    int64_t stride;         /* only every so many-th batch is wanted, from `next` on; 0: every one */
    int64_t next;           /* number of the next batch */
    int64_t begin, turn;    /* the first one's, and how many were put in */
    int64_t first;          /* where the present one begins in `index` */
    int32_t *labels;        /* and its labels, of all its samples */
    struct ek_ahead *ahead; /* reads the items; NULL: they are in memory, or read when wanted, into `items` */
    unsigned char *scratch, *items; /* with room for so many */
    int64_t room;
    double began, reading; /* seconds: the time of the first batch, and how long reading took when wanted */
} ek_batches;

/* Items are read ahead when reading them takes more than this share of the time; 0: from the first batch on. For tests. */
extern double ek_read_ahead_above;

/* Room for the labels, and the net for lengths, or not, as the dataset is; all else is set, and stays where it is and as it
 * is up to ek_batches_end, the order too. */
ek_status ek_batches_start(ek_batches *batches);
/* Puts the next batch, or the share of it that is wanted, into the net's input and its labels, where there are any, into batches->labels: *n samples, 0 after
 * the last. */
ek_status ek_batches_next(ek_batches *batches, int64_t *n);
/* Samples [first, first + n) of the present batch, which are within the share, into the input of a net, the batches' own or one
 * like it; batches: an ek_batches. Several nets may be filled at the same time, where there are shares. */
ek_status ek_batches_fill(void *batches, ek_net *net, int64_t first, int64_t n);
void ek_batches_end(ek_batches *batches);

#endif
