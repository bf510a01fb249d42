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

/* Channels [first, first + count): gradients of gamma and beta, and what dx is made with, from the sums in
 * `parts` blocks. */
void ek_batchnorm_prepare_backward(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts);
/* dx, from x and the output's gradient g. */
ek_grad_in ek_batchnorm_gradient(const ek_pass *pass, const ek_node *node, const float *x, const float *g);

#endif
