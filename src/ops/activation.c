/* relu, leakyrelu, sigmoid, tanh, silu: y = f(x), number by number. */
#include "ops/elementwise.h"

#include <math.h>

static ek_activation kind_of(const ek_node *node);

static float slope_of(const ek_node *node)
{
    return kind_of(node) == EK_LEAKY_RELU ? (float)ek_attr_real(node, 0) : 0.0f;
}

bool ek_is_activation(const ek_node *node, ek_activation *kind, float *slope)
{
    *kind = kind_of(node);
    *slope = slope_of(node);
    return *kind != EK_IDENTITY;
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_map_in m = ek_elementwise_in(w, 0, block);
    ek_is_activation(w->node, &m.activation, &m.slope);
    w->kernels->map_read(&slab, &m, w->flow->y + block * w->block);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

/* f' takes the place of that of dx's recipe, which therefore has none, nor an addend. */
static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_grad_out o = ek_elementwise_out(w, 0, block);
    ek_is_activation(w->node, &o.value.activation, &o.value.slope);
    o.y = w->flow->y + block * w->block;
    w->kernels->grad_write(&slab, &o, w->flow->dy.g + block * w->block);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

static double value(ek_activation kind, double slope, double x)
{
    switch (kind) {
    case EK_IDENTITY: return x;
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
    case EK_IDENTITY: return 1;
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
    .inputs = 1, .any_rank = true, .activates = true, .shape = ek_same_shape,      \
    .forward = forward, .backward = backward,                                      \
    .reads_maps = true, .writes = EK_WRITES_SUMS,                                        \
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
    static const ek_op *const ops[] = {
        [EK_RELU] = &ek_op_relu, [EK_LEAKY_RELU] = &ek_op_leakyrelu, [EK_SIGMOID] = &ek_op_sigmoid,
        [EK_TANH] = &ek_op_tanh, [EK_SILU] = &ek_op_silu,
    };
    for (ek_activation kind = EK_RELU; kind <= EK_SILU; kind++) {
        if (node->op == ops[kind]) return kind;
    }
    return EK_IDENTITY;
}
