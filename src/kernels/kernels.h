/*
 * The lane kernels. One source is compiled for each instruction set; each object exports one table.
 *
 * A lane is a sample: feature maps live in blocks of EK_LANES samples, [block][channel][h][w][lane].
 * EK_LANES is the same for every instruction set (AVX-512 takes a lane row in one vector, AVX2 in two,
 * the 16-byte baseline in four), so that layouts and models never depend on the machine. In the last
 * block, lanes past the last sample are dead: they hold finite values, their gradient is zero, and they
 * never enter a statistic.
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

/* A window: in [c, hi, wi] -> out [c, ho, wo]. Padding counts as nothing: averages divide by the cells
 * inside only when count_pad is false, by kh*kw otherwise. */
typedef struct ek_window {
    int c, hi, wi, ho, wo, kh, kw, stride_h, stride_w, pad_h, pad_w;
    bool count_pad;
} ek_window;

typedef enum ek_activation {
    EK_RELU,
    EK_LEAKY_RELU, /* x > 0 ? x : slope*x */
    EK_SIGMOID,    /* 1/(1 + exp(-x)) */
    EK_TANH,
    EK_SILU,       /* x*sigmoid(x) */
} ek_activation;

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

/* `rows` rows of `channels` runs beside each other, each of `length` floats; rows are `stride` floats apart. live:
 * see slab_moments. stream: what is written goes past the caches. */
typedef struct ek_norm_piece {
    int64_t rows, channels, length, stride;
    int live;
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

struct ek_gemm;

typedef struct ek_kernels {
    const char *name;

    /* --- convolution, one lane block. `scratch`: ek_conv_scratch() floats. */
    /* y = conv(x, w) + bias; bias may be NULL. w is packed by conv_pack_forward. */
    void (*conv_pack_forward)(const ek_conv *g, const float *w, float *packed);
    void (*conv_forward)(const ek_conv *g, const float *x, const float *packed, const float *bias, float *y, float *scratch);
    /* dx = the gradient of x; w is packed by conv_pack_backward. */
    void (*conv_pack_backward)(const ek_conv *g, const float *w, float *packed);
    void (*conv_backward_data)(const ek_conv *g, const float *dy, const float *packed, float *dx, float *scratch);
    /* dw += the gradient of w from this block; dbias += sums of dy (NULL: not wanted). */
    void (*conv_backward_weights)(const ek_conv *g, const float *x, const float *dy, float *dw, float *dbias, float *scratch);

    /* --- pooling, one lane block */
    void (*avgpool_forward)(const ek_window *g, const float *x, float *y);
    void (*avgpool_backward)(const ek_window *g, const float *dy, float *dx);
    /* `index` [c, ho, wo, lane]: the winner's position in its map (the first of equals; a NaN wins, as
     * in PyTorch). */
    void (*maxpool_forward)(const ek_window *g, const float *x, float *y, int32_t *index);
    void (*maxpool_backward)(const ek_window *g, const float *dy, const int32_t *index, float *dx);

    /* --- elementwise; any count; y may be x, dx may be dy */
    void (*activation_forward)(ek_activation kind, float slope, int64_t count, const float *x, float *y);
    /* From x and y, whichever is cheaper. */
    void (*activation_backward)(ek_activation kind, float slope, int64_t count, const float *x, const float *y, const float *dy, float *dx);
    void (*add)(int64_t count, const float *a, const float *b, float *y); /* y = a + b; y may be a or b */

    /* --- normalization; a slab is `rows` runs of `length` floats, `stride` apart. Where `live` < EK_LANES
     * the slab is made of lane rows and only the first `live` lanes of each EK_LANES count (length is then
     * a multiple of EK_LANES). */
    void (*slab_moments)(int64_t rows, int64_t length, int64_t stride, int live, const float *x, ek_moments *out);
    /* y = (x - mean)*a + b in live lanes, 0 in dead ones: theirs would grow from layer to layer, where the live
     * ones' deviation is small. */
    void (*slab_apply)(int64_t rows, int64_t length, int64_t stride, int live, const float *x, float mean, float a, float b, float *y);
    /* *sum_g = sum(g), *sum_gx = sum(g*(x - mean)), in double; dead lanes have g = 0. */
    void (*slab_backward_sums)(int64_t rows, int64_t length, int64_t stride, const float *x, const float *g, float mean, double *sum_g, double *sum_gx);
    /* dx = a*g + b*(x - mean) + c in live lanes, 0 in dead ones. */
    void (*slab_backward_apply)(int64_t rows, int64_t length, int64_t stride, int live, const float *x, const float *g, float mean, float a, float b, float c, float *dx);
    /* The same with the terms of ek_norm_terms over a piece of a matrix, its channels beside each other. `out` may
     * be x or g itself unless it is streamed. Dead lanes of y and dx are 0. */
    void (*runs_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y);
    void (*runs_backward_sums)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx);
    void (*runs_backward_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx);
    /* The same where a channel is a column: runs of one float. The terms are periodic: after those of the last
     * channel stand EK_LANES more, which begin again with the first. */
    void (*columns_moments)(int64_t n, int64_t c, int64_t stride, const float *x, ek_moments *out);
    void (*columns_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y);
    void (*columns_backward_sums)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx);
    void (*columns_backward_apply)(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx);

    /* --- layout. rows [n][f] with f = c*h*w, against lanes [f][EK_LANES] of one block. */
    void (*lanes_to_rows)(int64_t features, int live, const float *lanes, float *rows);
    void (*rows_to_lanes)(int64_t features, int live, const float *rows, float *lanes); /* dead lanes 0 */

    /* --- matrices. One tile of C [m, n] = op(A) op(B) (+ bias over the columns) for rows [m0, m1) and
     * columns [n0, n1); element (i, k) of op(A) is a[i*a_row + k*a_col], likewise b[k*b_row + j*b_col].
     * `scratch`: ek_gemm_scratch(k, m1-m0, n1-n0) floats. */
    void (*gemm_tile)(const struct ek_gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *scratch);

    /* --- cross-entropy from logits [n, classes], stable (the largest logit subtracted).
     * losses [n] (double), *correct; dlogits = (softmax - onehot)*scale, NULL: not wanted. */
    void (*cross_entropy)(int64_t n, int64_t classes, const float *logits, const int32_t *labels, float scale, double *losses, int64_t *correct, float *dlogits);
    void (*softmax)(int64_t n, int64_t classes, const float *x, float *y);

    /* --- optimizers, elementwise; `state` as the optimizer's formula wants them */
    void (*sgd)(const ek_sgd_step *step, int64_t count, float *w, const float *grad, float *momentum);
    void (*adam)(const ek_adam_step *step, int64_t count, float *w, const float *grad, float *exp_avg, float *exp_avg_sq);
    double (*sum_squares)(int64_t count, const float *x);
    bool (*all_finite)(int64_t count, const float *x);
} ek_kernels;

typedef struct ek_gemm {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t b_row, b_col;
    const float *bias; /* [n] or NULL */
    float *c;
    int64_t ldc;
} ek_gemm;

size_t ek_conv_scratch(const ek_conv *g);        /* floats, the most that any of the three passes needs */
size_t ek_conv_packed_forward(const ek_conv *g); /* floats */
size_t ek_conv_packed_backward(const ek_conv *g);
size_t ek_gemm_scratch(int64_t k, int64_t rows, int64_t columns); /* enough for smaller k too */

/* C = op(A) op(B), cut into tiles by m and n alone and run on the pool. `scratch` holds, for each thread,
 * ek_gemm_thread_scratch(k) floats. */
struct ek_pool;
size_t ek_gemm_thread_scratch(int64_t k);
void ek_gemm_run(const ek_kernels *kernels, struct ek_pool *pool, const ek_gemm *g, float *scratch);

/* The table for "baseline", "avx2", "avx512"; NULL name: the best that this machine has.
 * EK_E_ARGUMENT: no such name (the message lists them). EK_E_UNSUPPORTED: the machine lacks it. */
EK_MUST_CHECK ek_status ek_kernels_choose(const char *name, const ek_kernels **out);

#endif
