/* elu, prelu, clip, hardsigmoid, hardswish: activations with passes of their own, in plain loops.
 *
 *   elu          x > 0 ? x : alpha*(exp(x) - 1)
 *   prelu        x > 0 ? x : w*x                     w learned: one, or one for each channel
 *   clip         min(max(x, min), max)
 *   hardsigmoid  min(max(alpha*x + beta, 0), 1)
 *   hardswish    x * min(max(x/6 + 1/2, 0), 1)
 *
 * A NaN stays one. At a corner the derivative is that outside: of clip and hardsigmoid 0, of hardswish 0 and 1; of elu and
 * prelu that below 0. */
#include "ops/elementwise.h"

#include <float.h>
#include <math.h>

extern const ek_op ek_op_elu, ek_op_prelu, ek_op_clip, ek_op_hardsigmoid, ek_op_hardswish;

/* --- the functions. a, b: alpha; w; min and max; alpha and beta. Each choice is between values that are both at hand, so that
 * the loops below take several numbers at once. */

typedef double (*function)(double a, double b, double x);

static inline double between(double low, double high, double x)
{
    double v = x < low ? low : x;
    return v > high ? high : v;
}

static inline double elu(double a, double b, double x) { return (void)b, x > 0 ? x : a * expm1(x); }
static inline double elu_slope(double a, double b, double x) { return (void)b, x > 0 ? 1 : a * exp(x); }

static inline double prelu(double a, double b, double x)
{
    double v = a * x;
    return (void)b, x > 0 ? x : v;
}
static inline double prelu_slope(double a, double b, double x) { return (void)b, x > 0 ? 1 : a; }

static inline double clip(double a, double b, double x) { return between(a, b, x); }
static inline double clip_slope(double a, double b, double x)
{
    double v = x > a ? 1 : 0;
    return x < b ? v : 0;
}

static inline double hardsigmoid(double a, double b, double x) { return between(0, 1, a * x + b); }
static inline double hardsigmoid_slope(double a, double b, double x) { return a * clip_slope(0, 1, a * x + b); }

static inline double hardswish(double a, double b, double x) { return (void)a, (void)b, x * between(0, 1, x * (1.0 / 6) + 0.5); }
static inline double hardswish_slope(double a, double b, double x)
{
    double v = x * (1.0 / 3) + 0.5;
    v = x > -3 ? v : 0;
    return (void)a, (void)b, x < 3 ? v : 1;
}

/* Of `count` floats, the first `lanes` of each lane row; the function is written into the loop. */
typedef void (*forward_loop)(double a, double b, int64_t count, int lanes, const float *restrict x, float *restrict y);
typedef void (*backward_loop)(double a, double b, int64_t count, const float *restrict x, const float *restrict dy,
                              float *restrict dx);

#define LOOPS(name)                                                                                             \
    static void name##_forward(double a, double b, int64_t count, int lanes, const float *restrict x,           \
                               float *restrict y)                                                               \
    {                                                                                                           \
        for (; lanes == EK_LANES && count > 0; count -= EK_LANES, x += EK_LANES, y += EK_LANES)                 \
            for (int lane = 0; lane < EK_LANES; lane++) y[lane] = (float)name(a, b, x[lane]);                   \
        for (; count > 0; count -= EK_LANES, x += EK_LANES, y += EK_LANES)                                      \
            for (int lane = 0; lane < lanes; lane++) y[lane] = (float)name(a, b, x[lane]);                      \
    }                                                                                                           \
    static void name##_backward(double a, double b, int64_t count, const float *restrict x,                     \
                                const float *restrict dy, float *restrict dx)                                   \
    {                                                                                                           \
        for (; count > 0; count -= EK_LANES, x += EK_LANES, dy += EK_LANES, dx += EK_LANES)                     \
            for (int lane = 0; lane < EK_LANES; lane++) dx[lane] = (float)(dy[lane] * name##_slope(a, b, x[lane])); \
    }
LOOPS(elu)
LOOPS(prelu)
LOOPS(clip)
LOOPS(hardsigmoid)
LOOPS(hardswish)

static const struct kind {
    const ek_op *op;
    function value, slope;
    forward_loop forward;
    backward_loop backward;
} kinds[] = {
    {&ek_op_elu, elu, elu_slope, elu_forward, elu_backward},
    {&ek_op_prelu, prelu, prelu_slope, prelu_forward, prelu_backward},
    {&ek_op_clip, clip, clip_slope, clip_forward, clip_backward},
    {&ek_op_hardsigmoid, hardsigmoid, hardsigmoid_slope, hardsigmoid_forward, hardsigmoid_backward},
    {&ek_op_hardswish, hardswish, hardswish_slope, hardswish_forward, hardswish_backward},
};

static const struct kind *kind_of(const ek_node *node)
{
    const struct kind *kind = kinds;
    while (kind->op != node->op) kind++;
    return kind;
}

/* --- options. The first two are a and b; prelu's first is how many weights it has. */

enum { A, B };

static bool is_prelu(const ek_node *node) { return node->op == &ek_op_prelu; }

static double a_of(const ek_node *node)
{
    double a = ek_attr_real(node, A);
    return node->op == &ek_op_clip && isnan(a) ? -INFINITY : a;
}

static double b_of(const ek_node *node)
{
    double b = ek_attr_real(node, B);
    return node->op == &ek_op_clip && isnan(b) ? INFINITY : b;
}

/* Which weight a channel has. */
static int64_t weight_of(const ek_node *node, int64_t channel)
{
    return ek_attr_int(node, A) > 1 ? channel : 0;
}

static ek_status clip_shape(ek_node *node)
{
    if (a_of(node) > b_of(node)) return ek_fail(EK_E_SHAPE, "min=%g is above max=%g", a_of(node), b_of(node));
    return ek_same_shape(node);
}

static ek_status prelu_shape(ek_node *node)
{
    int64_t n = ek_attr_int(node, A), channels = node->in[0].dim[0];
    if (n != 1 && n != channels)
        return ek_fail(EK_E_SHAPE, "prelu has one weight or one for each of the %lld channels, not %lld",
                       (long long)channels, (long long)n);
    return ek_same_shape(node);
}

static void prelu_params(ek_node *node)
{
    ek_param *weight =
        ek_node_add_param(node, EK_ROLE_WEIGHT, "weight", (ek_shape){1, {ek_attr_int(node, A)}});
    weight->start = 0.25f;
}

/* --- passes. A piece is a lane block; of prelu's backward pass a channel of all blocks. */

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const struct kind *kind = kind_of(w->node);
    const float *x = w->flow->x[0].x + block * w->block;
    float *y = w->flow->y + block * w->block;
    int64_t channels = is_prelu(w->node) ? w->channels : 1, count = w->block / channels;
    for (int64_t c = 0; c < channels; c++) {
        double a = is_prelu(w->node) ? w->node->param[0].data[weight_of(w->node, c)] : a_of(w->node);
        kind->forward(a, b_of(w->node), count, w->kernels->lanes, x + c * count, y + c * count);
    }
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t at = block * w->block;
    kind_of(w->node)->backward(a_of(w->node), b_of(w->node), w->block, w->flow->x[0].x + at,
                               w->flow->dy.g + at, w->flow->dx[0].g + at);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

/* Of prelu: the gradient of each channel's weight. */
static double *sums_of(const ek_node *node) { return (double *)(void *)node->workspace; }

static size_t prelu_workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)samples;
    return training ? (size_t)node->out.dim[0] * sizeof(double) / sizeof(float) : 0;
}

static void add_products(int64_t count, const float *x, const float *dy, double sum[EK_LANES])
{
    for (int64_t i = 0; i < count; i += EK_LANES) {
        for (int lane = 0; lane < EK_LANES; lane++)
            sum[lane] += x[i + lane] > 0 ? 0 : (double)x[i + lane] * dy[i + lane];
    }
}

static void prelu_backward_piece(void *argument, int64_t channel, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t count = ek_channel_floats(w->node->out);
    double a = w->node->param[0].data[weight_of(w->node, channel)], sum[EK_LANES] = {0};
    for (int64_t b = 0; b < ek_blocks(w->pass->n); b++) {
        int64_t at = b * w->block + channel * count;
        const float *x = w->flow->x[0].x + at, *dy = w->flow->dy.g + at;
        add_products(count, x, dy, sum);
        if (w->flow->dx[0].g) prelu_backward(a, 0, count, x, dy, w->flow->dx[0].g + at);
    }
    for (int lane = 1; lane < EK_LANES; lane++) sum[0] += sum[lane];
    sums_of(w->node)[channel] = sum[0];
}

static void prelu_pass_backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_elementwise w = ek_elementwise_of(pass, node, flow);
    ek_pool_run(pass->context->pool, w.channels, prelu_backward_piece, &w);
    double sum = 0;
    for (int64_t c = 0; c < w.channels; c++) {
        sum = (weight_of(node, c) ? 0 : sum) + sums_of(node)[c];
        node->param[0].grad[weight_of(node, c)] = (float)sum;
    }
}

/* --- reference */

static double reference_a(const ek_ref *ref, const ek_node *node, int64_t i)
{
    int64_t map = ek_shape_count(node->out) / node->out.dim[0];
    return is_prelu(node) ? ref->param[0][weight_of(node, i / map % node->out.dim[0])] : a_of(node);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++)
        y[i] = kind_of(node)->value(reference_a(ref, node, i), b_of(node), x[0][i]);
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    int64_t count = ek_shape_count(node->out) * ref->n, map = ek_shape_count(node->out) / node->out.dim[0];
    for (int64_t i = 0; i < count; i++) {
        if (dx[0]) dx[0][i] += dy[i] * kind_of(node)->slope(reference_a(ref, node, i), b_of(node), x[0][i]);
        if (is_prelu(node) && ref->grad[0] && !(x[0][i] > 0))
            ref->grad[0][weight_of(node, i / map % node->out.dim[0])] += dy[i] * x[0][i];
    }
}

#define REAL(option, standard, words)                                                              \
    {                                                                                              \
        option, EK_ATTR_REAL, .fallback = standard, .min = -FLT_MAX, .max = FLT_MAX, .help = words \
    }
#define BOUND(option, words)                                                                        \
    {                                                                                               \
        option, EK_ATTR_REAL, .fallback = NAN, .allow_none = true, .min = -FLT_MAX, .max = FLT_MAX, \
                              .help = words                                                         \
    }
#define PASSES                                                                                  \
    .inputs = 1, .any_rank = true, .activates = true, .forward = forward, .reference_forward = reference_forward, \
    .reference_backward = reference_backward

const ek_op ek_op_elu = {
    .name = "elu",
    .attrs = {{"alpha", EK_ATTR_REAL, .positional = true, .fallback = 1, .min = -FLT_MAX, .max = FLT_MAX,
               .help = "what it comes near to far below 0, taken negative"}},
    .shape = ek_same_shape,
    .backward = backward,
    PASSES};
const ek_op ek_op_prelu = {.name = "prelu",
                           .attrs = {{"n", EK_ATTR_COUNT, .positional = true, .fallback = 1, .min = 1,
                                      .max = 1 << 24, .help = "weights: 1, or the number of channels"}},
                           .shape = prelu_shape,
                           .params = prelu_params,
                           .workspace = prelu_workspace,
                           .backward = prelu_pass_backward,
                           PASSES};
const ek_op ek_op_clip = {.name = "clip",
                          .attrs = {BOUND("min", "the least, or none"), BOUND("max", "the most, or none")},
                          .shape = clip_shape,
                          .backward = backward,
                          PASSES};
const ek_op ek_op_hardsigmoid = {
    .name = "hardsigmoid",
    .attrs = {REAL("alpha", 1.0 / 6, "the slope between 0 and 1"), REAL("beta", 0.5, "the value at 0")},
    .shape = ek_same_shape,
    .backward = backward,
    PASSES};
const ek_op ek_op_hardswish = {.name = "hardswish", .shape = ek_same_shape, .backward = backward, PASSES};
