/* relu, leakyrelu, sigmoid, tanh, silu: y = f(x), number by number. */
#include "ops/elementwise.h"

#include <math.h>

static ek_activation kind_of(const ek_node *node);

static float slope_of(const ek_node *node)
{
    return kind_of(node) == EK_LEAKY_RELU ? (float)ek_attr_real(node, 0) : 0.0f;
}

typedef struct work {
    const ek_kernels *kernels;
    ek_activation kind;
    float slope;
    int64_t count;
    const float *x, *y, *dy;
    float *out;
} work;

static work make_work(const ek_pass *pass, const ek_node *node)
{
    return (work){.kernels = pass->context->kernels,
                  .kind = kind_of(node),
                  .slope = slope_of(node),
                  .count = ek_value_floats(node->out, pass->n)};
}

static void forward_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t at = piece * EK_CHUNK;
    w->kernels->activation_forward(w->kind, w->slope, ek_chunk_size(w->count, piece), w->x + at, w->out + at);
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    work w = make_work(pass, node);
    w.x = x[0];
    w.out = y;
    ek_pool_run(pass->context->pool, ek_chunks(w.count), forward_piece, &w);
}

static void backward_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t at = piece * EK_CHUNK;
    w->kernels->activation_backward(w->kind, w->slope, ek_chunk_size(w->count, piece), w->x + at, w->y + at,
                                    w->dy + at, w->out + at);
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    if (!dx[0]) return;
    work w = make_work(pass, node);
    w.x = x[0];
    w.y = y;
    w.dy = dy;
    w.out = dx[0];
    ek_pool_run(pass->context->pool, ek_chunks(w.count), backward_piece, &w);
}

static double value(ek_activation kind, double slope, double x)
{
    switch (kind) {
    case EK_RELU: return x < 0 ? 0 : x; /* a NaN stays one */
    case EK_LEAKY_RELU: return x < 0 ? slope * x : x;
    case EK_SIGMOID: return 1 / (1 + exp(-x));
    case EK_TANH: return tanh(x);
    case EK_SILU: return x / (1 + exp(-x));
    }
    return 0;
}

static double derivative(ek_activation kind, double slope, double x)
{
    double s = 1 / (1 + exp(-x)), t = tanh(x);
    switch (kind) {
    case EK_RELU: return x > 0 ? 1 : 0;
    case EK_LEAKY_RELU: return x > 0 ? 1 : slope;
    case EK_SIGMOID: return s * (1 - s);
    case EK_TANH: return 1 - t * t;
    case EK_SILU: return s * (1 + x * (1 - s));
    }
    return 0;
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++) y[i] = value(kind_of(node), slope_of(node), x[0][i]);
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    if (!dx[0]) return;
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++)
        dx[0][i] += dy[i] * derivative(kind_of(node), slope_of(node), x[0][i]);
}

#define PASSES                                                                     \
    .inputs = 1, .shape = ek_same_shape, .forward = forward, .backward = backward, \
    .reference_forward = reference_forward, .reference_backward = reference_backward

const ek_op ek_op_relu = {.name = "relu", PASSES};
const ek_op ek_op_leakyrelu = {.name = "leakyrelu",
                               .attrs = {{"slope", EK_ATTR_REAL, .positional = true, .fallback = 0.01,
                                          .min = -1e6, .max = 1e6, .help = "factor below 0"}},
                               PASSES};
const ek_op ek_op_sigmoid = {.name = "sigmoid", PASSES};
const ek_op ek_op_tanh = {.name = "tanh", PASSES};
const ek_op ek_op_silu = {.name = "silu", PASSES};

static ek_activation kind_of(const ek_node *node)
{
    return node->op == &ek_op_relu        ? EK_RELU
           : node->op == &ek_op_leakyrelu ? EK_LEAKY_RELU
           : node->op == &ek_op_sigmoid   ? EK_SIGMOID
           : node->op == &ek_op_tanh      ? EK_TANH
                                          : EK_SILU;
}
