/*
 * The lane kernels. One source is compiled for each instruction set; each object exports one table.
 *
 * A lane is a sample: values live in blocks of EK_LANES samples, maps as [block][channel][h][w][lane], features as
 * [block][feature][lane]. EK_LANES is the same for every instruction set (AVX-512 takes a lane row in one vector,
 * AVX2 in two, the 16-byte baseline in four), so that layouts and models never depend on the machine. In the last
 * block, lanes past the last sample are dead: they hold finite values, their gradient is zero, and they never enter
 * a statistic.
 *
 * Kernels are single-threaded and work on one piece. Buffers may lie anywhere, best at multiples of 64 bytes,
 * and are never read past their end. Sums run in an order fixed by the shapes.
 */
#ifndef EK_KERNELS_KERNELS_H
#define EK_KERNELS_KERNELS_H

#include "evenkeel.h"
#include "kernels/moments.h"

#define EK_LANES 16

/* Rounded up to whole lane rows, which are 64 bytes. */
static inline size_t ek_lane_rows(size_t floats) { return (floats + EK_LANES - 1) / EK_LANES * EK_LANES; }

static inline int64_t ek_blocks(int64_t samples) { return (samples + EK_LANES - 1) / EK_LANES; }

/* How many lanes of block `block` are alive. */
static inline int ek_live(int64_t samples, int64_t block)
{
    int64_t left = samples - block * EK_LANES;
    return left < EK_LANES ? (int)left : EK_LANES;
}

/* A convolution: in [ci, hi, wi] -> out [co, ho, wo], weights [co, ci/groups, kh, kw] as in PyTorch. */
typedef struct ek_conv {
    int ci, hi, wi, co, ho, wo;
    int kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
} ek_conv;

/* A linear layer, weights [out, in]. */
typedef struct ek_linear {
    int64_t in, out;
} ek_linear;

/* A window: in [c, hi, wi] -> out [c, ho, wo]. It begins pad before the input, and may reach over the end. Averages divide
 * by its cells inside; with count_pad also by those in the padding, pad before and end behind. */
typedef struct ek_window {
    int c, hi, wi, ho, wo, kh, kw, stride_h, stride_w, pad_h, pad_w, end_h, end_w;
    bool count_pad;
} ek_window;

typedef enum ek_activation {
    EK_IDENTITY,
    EK_RELU,
    EK_LEAKY_RELU, /* x > 0 ? x : slope*x */
    EK_SIGMOID,    /* 1/(1 + exp(-x)) */
    EK_TANH,
    EK_SILU,       /* x*sigmoid(x) */
} ek_activation;

/*
 * Maps and their gradients, as kernels read and write them. What BN and an activation do to a map is not a pass
 * of its own where the next reader can do it: it is given the stored x and the recipe.
 */

/* Where the numbers of a value lie: `channels` runs of `length` floats, whole lane rows, in each of `blocks` blocks that are
 * `block` floats apart. All lanes are alive but in the last block, where the first `live` are. */
typedef struct ek_slab {
    int64_t channels, length, blocks, block;
    int live;
} ek_slab;

/* v = f((x - mean)*a + b), with mean, a and b of each channel; v = f(x) where mean is NULL. Lanes past the
 * first `live` give 0, so that nothing grows in them. */
typedef struct ek_map_in {
    const float *x;
    const float *mean, *a, *b;
    ek_activation activation;
    float slope;
    int live;
} ek_map_in;

/* dy = a*g + b*(x - mean) + c, the gradient of the x of a BN whose output has the gradient g; dy = g where x
 * is NULL. Lanes past the first `live` give 0. */
typedef struct ek_grad_in {
    const float *g, *x;
    const float *mean, *a, *b, *c;
    int live;
} ek_grad_in;

/* A reader of v has its gradient dv and writes
 *
 *   g = (dv + addend) * f'
 *
 * by value's recipe; f' from the stored v in y where y is given (identity, relu, sigmoid and tanh), else from value's x.
 * With sums, [2][c]: those of g and of g*(x - mean) over the block, which value's BN wants. */
typedef struct ek_grad_out {
    float *g;
    const float *addend; /* what other readers gave; may be g; or NULL */
    ek_map_in value;
    const float *y;
    double *sums;
    int channels; /* c */
} ek_grad_out;

/* Constants of one optimizer step; docs of the formulas stand in src/train/optimizer.c. */
typedef struct ek_sgd_step {
    float lr, momentum, weight_decay, grad_scale;
    bool nesterov, first;
} ek_sgd_step;
typedef struct ek_adam_step {
    double lr, beta1, beta2, eps, weight_decay, grad_scale; /* double: 1 - 0.999 of floats is 1e-5 off */
    double correction1, correction2_sqrt;                   /* 1 - beta1^t, sqrt(1 - beta2^t) */
    bool decoupled;                      /* AdamW */
} ek_adam_step;

/* A piece of a matrix: `rows` rows of `channels` runs beside each other, each of `length` floats; rows are `stride` floats
 * apart. stream: what is written goes past the caches. */
typedef struct ek_norm_piece {
    int64_t rows, channels, length, stride;
    bool stream;
} ek_norm_piece;

/* What normalization computes with, arrays over the channels:
 *
 *   z = (x - mean)*a + b              y = z <= floor ? 0 : z
 *   g = z <= floor ? 0 : dy           dx = a*g + slope*(x - mean) + constant
 *
 * floor is 0 where a ReLU follows, NaN elsewhere: nothing is below it. Without slope and constant dx = a*g. */
typedef struct ek_norm_terms {
    const float *mean, *a, *b, *slope, *constant;
    float floor;
} ek_norm_terms;

/* Normalization of each sample by itself, of one lane block: x is [groups][channels][rows][lane], and each group of each
 * lane has statistics of its own. */
typedef struct ek_sample_slab {
    int64_t groups, channels, rows;
    int live; /* lanes past the first `live` count nowhere, and are written as 0 */
    /* [EK_LANES]: how many of each channel's leading rows are alive in a lane; those after them are as dead lanes are.
     * NULL: all. */
    const int32_t *length;
    bool row_gains; /* gains and offsets are [groups][channels][rows]; else [groups][channels] */
} ek_sample_slab;

/* How many of each channel's rows are alive in a lane. */
static inline int64_t ek_sample_rows(const ek_sample_slab *s, int lane)
{
    if (lane >= s->live) return 0;
    return s->length && s->length[lane] < s->rows ? s->length[lane] : s->rows;
}

/* By group and lane; a lane without a number has zeros. */
typedef struct ek_sample_moments {
    double count[EK_LANES], mean[EK_LANES], m2[EK_LANES];
} ek_sample_moments;

/* What it computes with:
 *
 *   xhat = (x - mean)*a + b           mean, a, b, slope, constant [groups][EK_LANES]
 *   y    = gain*xhat + offset         either NULL: 1, 0
 *   dx   = a*h + slope*(x - mean) + constant, where h = gain*dy */
typedef struct ek_sample_terms {
    const float *mean, *a, *b, *slope, *constant;
    const float *gain, *offset;
} ek_sample_terms;

typedef struct ek_kernels {
    const char *name;
    int lanes; /* that it computes: EK_LANES, or fewer in a table for few samples, where what is beyond stays as it is */

    /* --- convolution, one lane block. `scratch`: ek_conv_scratch() floats. */
    /* y = conv(x, w) + bias; bias may be NULL. w is packed by conv_pack_forward. `moments` [co]: those of y over
     * the block's `live` lanes; NULL: not wanted. */
    void (*conv_pack_forward)(const ek_conv *g, const float *w, float *packed);
    void (*conv_forward)(const ek_conv *g, const ek_map_in *x, const float *packed, const float *bias, float *y, int live, ek_moments *moments, float *scratch);
    /* dw += the gradient of w from this block; dbias += sums of dy; the gradient of x goes to dx. NULL: not wanted;
     * x is read for dw alone, and w, packed by conv_pack_backward, for dx. */
    void (*conv_pack_backward)(const ek_conv *g, const float *w, float *packed);
    void (*conv_backward)(const ek_conv *g, const ek_map_in *x, const ek_grad_in *dy, const float *packed, float *dw, float *dbias, const ek_grad_out *dx, float *scratch);

    /* --- linear layers, of `blocks` lane blocks; w [out, in]. Values do not depend on how features are cut. */
    /* Outputs [first, first+count) of y = x w^T + bias; bias may be NULL. */
    void (*linear_forward)(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *x, const float *w, const float *bias, float *y);
    /* Inputs [first, first+count) of dx = dy w. */
    void (*linear_backward_data)(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *dy, const float *w, float *dx);
    /* Rows [first, first+count) of dw = dy^T x over `samples` samples, x as rows [sample][in]; and of dbias, the sums of
     * dy (NULL: not wanted). */
    void (*linear_backward_weights)(const ek_linear *g, int64_t samples, int64_t first, int64_t count, const float *x_rows, const float *dy, float *dw, float *dbias);

    /* --- pooling, one lane block. `scratch`: ek_pool_scratch() floats. */
    void (*avgpool_forward)(const ek_window *g, const ek_map_in *x, float *y, float *scratch);
    void (*avgpool_backward)(const ek_window *g, const float *dy, const ek_grad_out *dx, float *scratch);
    /* `index` [c, ho, wo, lane]: the winner's position in its map (the first of equals; a NaN wins, as
     * in PyTorch). */
    void (*maxpool_forward)(const ek_window *g, const ek_map_in *x, float *y, int32_t *index, float *scratch);
    void (*maxpool_backward)(const ek_window *g, const float *dy, const int32_t *index, const ek_grad_out *dx, float *scratch);

    /* --- values; a recipe's `live` is the slab's here */
    void (*map_read)(const ek_slab *s, const ek_map_in *m, float *y);       /* y = v; y may be x */
    void (*grad_read)(const ek_slab *s, const ek_grad_in *d, float *dx);    /* dx may be g */
    void (*grad_write)(const ek_slab *s, const ek_grad_out *o, const float *dv); /* dv may be g */
    void (*moments)(const ek_slab *s, const float *x, ek_moments *out);     /* [channels] */
    /* y = f(a + b), f one that can be told from y: identity, relu, sigmoid or tanh */
    void (*map_add)(const ek_slab *s, const ek_map_in *a, const ek_map_in *b, ek_activation f, float *y);
    void (*add)(int64_t count, const float *a, const float *b, float *y); /* y = a + b; y may be a or b */

    /* --- sequences [channels][positions] of unequal lengths, one lane block: of lane i the first length[i] positions are
     * alive, and in dead lanes none; what is beyond becomes `with`. */
    void (*sequence_cut)(int64_t channels, int64_t positions, const int32_t *length, float with, float *x);

    /* --- normalization of plain arrays: by a channel's runs, with the terms of ek_norm_terms. What is written may be x or
     * dy itself unless it is streamed. Sums are in double. */
    void (*runs_moments)(const ek_norm_piece *p, const float *x, ek_moments *out); /* [channels] */
    void (*runs_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y);
    void (*runs_backward_sums)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx);
    void (*runs_backward_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx);
    /* The same where a channel is a column: runs of one float. The terms are periodic: after those of the last
     * channel stand EK_LANES more, which begin again with the first. */
    void (*columns_moments)(const ek_norm_piece *p, const float *x, ek_moments *out);
    void (*columns_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y);
    void (*columns_backward_sums)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx);
    void (*columns_backward_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx);

    /* --- normalization of each sample, one lane block. y may be x, dx may be dy. */
    void (*sample_moments)(const ek_sample_slab *s, const float *x, ek_sample_moments *out); /* [groups] */
    void (*sample_apply)(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, float *y);
    /* sums [groups][2][EK_LANES]: those of h and of h*(x - mean). dgain += the sums over the lanes of dy*xhat, doffset +=
     * those of dy, by row or channel as the gains are; NULL: not wanted. */
    void (*sample_backward_sums)(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, const float *dy, double *sums, float *dgain, float *doffset);
    void (*sample_backward_apply)(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, const float *dy, float *dx);

    /* --- layout. rows [n][f] with f = c*h*w, against lanes [f][EK_LANES] of one block. */
    void (*lanes_to_rows)(int64_t features, int live, const float *lanes, float *rows);
    void (*rows_to_lanes)(int64_t features, int live, const float *rows, float *lanes); /* dead lanes 0 */

    /* --- one lane block of logits [classes], stable (the largest logit subtracted), and its live lanes' labels. */
    /* losses [live] (double) of the cross-entropy, *correct; dlogits = (softmax - onehot)*scale, 0 in dead lanes; NULL:
     * not wanted. */
    void (*cross_entropy)(int live, int64_t classes, const float *logits, const int32_t *labels, float scale, double *losses, int64_t *correct, float *dlogits);
    void (*softmax)(int live, int64_t classes, const float *x, float *y);
    /* dx_i = y_i*(dy_i - sum_j dy_j*y_j) */
    void (*softmax_backward)(int64_t classes, const float *y, const float *dy, float *dx);

    /* --- optimizers, elementwise; `state` as the optimizer's formula wants them */
    void (*sgd)(const ek_sgd_step *step, int64_t count, float *w, const float *grad, float *momentum);
    void (*adam)(const ek_adam_step *step, int64_t count, float *w, const float *grad, float *exp_avg, float *exp_avg_sq);
    double (*sum_squares)(int64_t count, const float *x);
    bool (*all_finite)(int64_t count, const float *x);
} ek_kernels;

/* Floats: a map of the input. */
static inline size_t ek_pool_scratch(const ek_window *g) { return (size_t)g->hi * (size_t)g->wi * EK_LANES; }
size_t ek_conv_scratch(const ek_conv *g);        /* floats, the most that any of the three passes needs */
size_t ek_conv_packed_forward(const ek_conv *g); /* floats */
size_t ek_conv_packed_backward(const ek_conv *g);

/* The table for "baseline", "avx2", "avx512"; NULL name: the best that this machine has.
 * EK_E_ARGUMENT: no such name (the message lists them). EK_E_UNSUPPORTED: the machine lacks it. */
EK_MUST_CHECK ek_status ek_kernels_choose(const char *name, const ek_kernels **out);
/* The table that goes with it for passes of inference over no more samples than it computes lanes: without the kernels of
 * backward passes, of plain arrays, of the loss and of the optimizers, which are NULL. */
const ek_kernels *ek_kernels_few(const ek_kernels *kernels);

#endif
