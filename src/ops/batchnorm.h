/* Batch normalization in a net: what the passes around a batchnorm node share with it. */
#ifndef EK_OPS_BATCHNORM_H
#define EK_OPS_BATCHNORM_H

#include "ops/op.h"

/* Where the producer of its input leaves the moments [block][channel]; NULL: not wanted in this pass. */
ek_moments *ek_batchnorm_moments(const ek_pass *pass, const ek_node *node);
/* Where its readers leave the sums (ek_grad_out.sums) of every block. */
double *ek_batchnorm_sums(const ek_node *node);

/* Channels [first, first + count): what the output is made with, from the moments in `parts` blocks or the running
 * statistics. */
void ek_batchnorm_prepare(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts);
/* What the last forward pass normalized by, in the reference too: by batch statistics (*batch), or by running ones. */
ek_batch_norm_saved ek_batchnorm_saved(const ek_pass *pass, const ek_node *node, bool *batch);
/* The output as its readers read it, from x. */
ek_map_in ek_batchnorm_map(const ek_node *node, const float *x);
/* The output in the last forward pass, ghost batches' too, of a lane row x of `channel` in `block`. */
void ek_batchnorm_row(const ek_pass *pass, const ek_node *node, int64_t block, int64_t channel, const float x[EK_LANES],
                      float y[EK_LANES]);

/* Channels [first, first + count): gradients of gamma and beta, and what dx is made with, from the sums in
 * `parts` blocks. */
void ek_batchnorm_prepare_backward(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts);
/* dx, from x and the output's gradient g. */
ek_grad_in ek_batchnorm_gradient(const ek_pass *pass, const ek_node *node, const float *x, const float *g);

/* --- ghost batches (src/ops/ghost.c): each `ghost` samples that follow each other are normalized by themselves, in training;
 * a rest of fewer too, but one value a channel, which has no variance, goes with the ghost batch before. Statistics are kept by
 * sample, in lanes, since a ghost batch may begin anywhere in a block. */

/* Samples of one; 0: there are none. Of a batchnorm alone. */
int64_t ek_ghost_size(const ek_node *node);
/* Where, of n samples (of these lengths; NULL: none), the ghost batch ends that begins with `first`. */
int64_t ek_ghost_end(const ek_node *node, const int32_t *length, int64_t n, int64_t first);
/* Refuses a ghost batch of one value a channel, which sequences of unequal lengths can make. */
ek_status ek_ghost_check(const ek_pass *pass, const ek_node *node);
/* Floats of what the passes keep in `room`. */
size_t ek_ghost_workspace(const ek_node *node, int64_t samples);
/* saved gets the statistics of the whole batch, merged from those of the ghost batches, for the running ones. */
void ek_ghost_forward(const ek_pass *pass, ek_node *node, const ek_flow *flow, void *room, const ek_batch_norm_saved *saved,
                      double eps);
void ek_ghost_row(const ek_pass *pass, const ek_node *node, void *room, int64_t block, int64_t channel,
                  const float x[EK_LANES], float y[EK_LANES]);
void ek_ghost_backward(const ek_pass *pass, ek_node *node, const ek_flow *flow, void *room);
/* A channel's moments, saved. */
void ek_batchnorm_save(const ek_batch_norm_saved *saved, int64_t channel, ek_moments all, double eps);

/* --- shards of a batch */

/* moments [count] become those of all shards. */
void ek_moments_of_all_shards(const ek_shard *shard, ek_moments *moments, int64_t count);
/* By channel, of what was normalized in the last forward pass of a shard that normalizes by itself; and, for the commit, what all
 * shards' are, in gather->moments. */
void ek_batchnorm_own_moments(const ek_pass *pass, const ek_node *node, ek_moments *out);
void ek_batchnorm_take_moments(ek_node *node, ek_gather *gather);

/* Whether its statistics in training are those of a batch, which a batch that is run in parts must gather. */
bool ek_batchnorm_gathers(const ek_node *node);

#endif
