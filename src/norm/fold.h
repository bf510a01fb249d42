/* The arithmetic of folding, in double, on plain arrays. A normalization in inference mode is, by channel,
 *
 *   y = a*x + b        a = gamma/sqrt(var + eps)        b = beta - mean*a
 */
#ifndef EK_NORM_FOLD_H
#define EK_NORM_FOLD_H

#include <stdbool.h>
#include <stdint.h>

/* gamma and beta may be NULL: 1 and 0. All [channels]. */
void ek_fold_terms(int64_t channels, double eps, const double *gamma, const double *beta, const float *mean,
                   const float *var, double *a, double *b);

/* Weights [out, in/groups, cells], transposed ones [in, out/groups, cells]; a linear layer's have one cell. Output o belongs to
 * group o/(out/groups), and reads the inputs of its group. */
typedef struct ek_fold_weights {
    int64_t in, out, groups, cells;
    bool transposed;
} ek_fold_weights;

static inline int64_t ek_fold_count(const ek_fold_weights *g)
{
    return g->out * (g->in / g->groups) * g->cells;
}

/* Into the layer before: w[o, i, k] becomes a[o]*w[o, i, k]. */
void ek_fold_outputs(const ek_fold_weights *g, const double *a, double *weight);
/* Into the layer after: w[o, i, k] becomes w[o, i, k]*a[i]. */
void ek_fold_inputs(const ek_fold_weights *g, const double *a, double *weight);
/* What the constant b of the inputs adds: sum[o, k] = sum over i of w[o, i, k]*b[i], [out, cells]. These are the weights of
 * the same layer with one input a group: run on ones, it gives what b adds to each number of the output, zero padding
 * and all. */
void ek_fold_sums(const ek_fold_weights *g, const double *b, const double *weight, double *sum);

#endif
