/* conv OUT kernel=K: 2-D convolution (cross-correlation, as in every framework), weights [out, in/groups, kh, kw]:
 *
 *   y[o, p, q] = bias[o] + sum over i, k, l of w[o, i, k, l] * x[i, p*stride + k*dilation - padding, ...]
 *
 * conv1d OUT kernel=K: the same along sequences [c, l], weights [out, in/groups, k]; to the passes they are maps of one
 * row.
 *
 * convtranspose OUT kernel=K, convtranspose1d: what takes a convolution's gradient dy to its dx, plus a bias; weights
 * [in, out/groups, kh, kw]. Its passes are those of that convolution, which goes from its output to its input: forward
 * the gradient of the data, backward the forward pass, and the weights' gradient with both sides changed.
 */
#include "ops/batchnorm.h"

#include <string.h>

enum { OUT, KERNEL, STRIDE, PADDING, PADDING_END, DILATION, GROUPS, BIAS, OUTPUT_PADDING };

extern const ek_op ek_op_conv1d, ek_op_convtranspose, ek_op_convtranspose1d;

static bool is_1d(const ek_node *node) { return node->op == &ek_op_conv1d || node->op == &ek_op_convtranspose1d; }
static bool is_transposed(const ek_node *node)
{
    return node->op == &ek_op_convtranspose || node->op == &ek_op_convtranspose1d;
}

/* Of a map, or of a sequence as a map of one row. */
static int height(ek_shape shape) { return shape.rank == 3 ? (int)shape.dim[1] : 1; }
static int width(ek_shape shape) { return (int)shape.dim[shape.rank - 1]; }

/* Of a transposed one: of the convolution that it is the transpose of. */
static ek_conv geometry(const ek_node *node)
{
    const ek_attr *a = node->attr;
    ek_shape in = is_transposed(node) ? node->out : node->in[0], out = is_transposed(node) ? node->in[0] : node->out;
    ek_conv g = {.ci = (int)in.dim[0],
                 .hi = height(in),
                 .wi = width(in),
                 .co = (int)out.dim[0],
                 .ho = height(out),
                 .wo = width(out),
                 .kh = (int)a[KERNEL].v[0],
                 .kw = (int)a[KERNEL].v[1],
                 .stride_h = (int)a[STRIDE].v[0],
                 .stride_w = (int)a[STRIDE].v[1],
                 .pad_h = (int)a[PADDING].v[0],
                 .pad_w = (int)a[PADDING].v[1],
                 .dilation_h = (int)a[DILATION].v[0],
                 .dilation_w = (int)a[DILATION].v[1],
                 .groups = (int)a[GROUPS].v[0]};
    if (is_1d(node)) {
        g.kw = g.kh, g.stride_w = g.stride_h, g.pad_w = g.pad_h, g.dilation_w = g.dilation_h;
        g.kh = g.stride_h = g.dilation_h = 1;
        g.pad_h = 0;
    }
    return g;
}

/* Positions that the kernel's cells span along axis `d`. */
static int64_t reach_of(const ek_node *node, int d)
{
    return (int64_t)node->attr[DILATION].v[d] * ((int64_t)node->attr[KERNEL].v[d] - 1) + 1;
}

/* Zeros at both ends of axis `d`. */
static int64_t paddings(const ek_node *node, int d)
{
    return (int64_t)node->attr[PADDING].v[d] + ek_attr_end(node, PADDING, PADDING_END, d);
}

/* Positions of the output along axis `d`, for `in` of the input; below 1: there are none. */
static int64_t places(const ek_node *node, int d, int64_t in)
{
    int64_t stride = (int64_t)node->attr[STRIDE].v[d];
    if (is_transposed(node))
        return (in - 1) * stride + reach_of(node, d) + (int64_t)node->attr[OUTPUT_PADDING].v[d] - paddings(node, d);
    int64_t left = in + paddings(node, d) - reach_of(node, d);
    return left < 0 ? 0 : left / stride + 1;
}

static int64_t length(const ek_node *node, int64_t in) { return places(node, 0, in); }

static ek_status check_place(const ek_node *node, int d, const char *axis)
{
    int64_t in = node->in[0].dim[d + 1];
    if (is_transposed(node) && node->attr[OUTPUT_PADDING].v[d] >= node->attr[STRIDE].v[d] &&
        node->attr[OUTPUT_PADDING].v[d] >= node->attr[DILATION].v[d])
        return ek_fail(EK_E_SHAPE, "output_padding=%g must be smaller than the stride or the dilation",
                       node->attr[OUTPUT_PADDING].v[d]);
    if (places(node, d, in) >= 1) return EK_OK;
    if (is_transposed(node))
        return ek_fail(EK_E_SHAPE, "the padding takes %lld %s away, the output would have %lld with them",
                       (long long)paddings(node, d), axis, (long long)(places(node, d, in) + paddings(node, d)));
    return ek_fail(EK_E_SHAPE, "the kernel reaches over %lld %s, the padded input has %lld",
                   (long long)reach_of(node, d), axis, (long long)(in + paddings(node, d)));
}

/* The operator that this one is along sequences, or along maps. */
static const char *other_rank(const ek_node *node)
{
    if (is_transposed(node)) return is_1d(node) ? "convtranspose" : "convtranspose1d";
    return is_1d(node) ? "conv" : "conv1d";
}

static ek_status shape(ek_node *node)
{
    static const char *const axes[][2] = {{"rows", "columns"}, {"positions"}};
    char text[EK_SHAPE_TEXT];
    ek_shape in = node->in[0];
    int rank = is_1d(node) ? 2 : 3;
    if (in.rank == 1)
        return ek_fail(EK_E_SHAPE, "%s works on %s, its input has %s features", node->op->name,
                       rank == 2 ? "sequences CxL" : "maps CxHxW", ek_shape_text(in, text));
    if (in.rank != rank)
        return ek_fail(EK_E_SHAPE, "%s works on %s%s: use %s", node->op->name,
                       rank == 2 ? "sequences CxL, its input is the map "
                                 : "maps CxHxW, its input is the sequence ",
                       ek_shape_text(in, text), other_rank(node));
    int64_t out = ek_attr_int(node, OUT), groups = ek_attr_int(node, GROUPS);
    if (in.dim[0] % groups || out % groups)
        return ek_fail(EK_E_SHAPE, "groups=%lld must divide the %lld input and the %lld output channels",
                       (long long)groups, (long long)in.dim[0], (long long)out);
    node->out = (ek_shape){.rank = rank, .dim = {out}};
    for (int d = 0; d < rank - 1; d++) {
        EK_TRY(check_place(node, d, axes[rank == 2][d]));
        node->out.dim[d + 1] = places(node, d, in.dim[d + 1]);
    }
    return EK_OK;
}

static void params(ek_node *node)
{
    ek_conv g = geometry(node);
    int64_t taps = (int64_t)g.kh * g.kw, in = g.ci / g.groups, out = g.co / g.groups;
    ek_shape weights = is_1d(node) ? (ek_shape){3, {g.co, in, g.kw}} : (ek_shape){4, {g.co, in, g.kh, g.kw}};
    /* PyTorch counts the fans of a transposed one as it does those of the convolution. */
    ek_node_add_weights(node, weights, in * taps, out * taps, ek_attr_bool(node, BIAS) ? node->out.dim[0] : 0);
}

/* Gradients of the weights are summed in parts, a part over neighbouring blocks. Their number depends on the
 * number of blocks alone, and bounds the memory. */
enum { MAX_PARTS = 16 };
static int64_t parts_of(int64_t blocks) { return blocks < MAX_PARTS ? blocks : MAX_PARTS; }

/* The node's workspace: weights packed for both directions, then the parts [weights, biases]. */
typedef struct room {
    float *forward, *backward, *parts;
    size_t part, bias; /* floats of a part, and where in it the biases begin */
} room;

static size_t part_floats(const ek_node *node)
{
    return ek_lane_rows((size_t)node->param[0].count) + ek_lane_rows((size_t)node->out.dim[0]);
}

static room rooms(const ek_node *node)
{
    ek_conv g = geometry(node);
    room r = {.forward = node->workspace, .part = part_floats(node), .bias = ek_lane_rows((size_t)node->param[0].count)};
    r.backward = r.forward + ek_lane_rows(ek_conv_packed_forward(&g));
    r.parts = r.backward + ek_lane_rows(ek_conv_packed_backward(&g));
    return r;
}

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    ek_conv g = geometry(node);
    size_t parts = part_floats(node) * (size_t)parts_of(ek_blocks(samples));
    size_t backward = ek_lane_rows(ek_conv_packed_backward(&g));
    return ek_lane_rows(ek_conv_packed_forward(&g)) + (training || is_transposed(node) ? backward : 0) + (training ? parts : 0);
}

static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    ek_conv g = geometry(node);
    return ek_conv_scratch(&g);
}

static int64_t multiply_adds(const ek_node *node)
{
    ek_conv g = geometry(node);
    return (int64_t)g.co * g.ho * g.wo * (g.ci / g.groups) * g.kh * g.kw;
}

typedef struct work {
    const ek_pass *pass;
    const ek_kernels *kernels;
    const ek_flow *flow;
    bool transposed;
    ek_conv g;
    room room;
    int64_t blocks, x_block, y_block; /* floats of a block */
    const float *bias;                /* forward; backward: whether there is one */
    ek_moments *moments;
} work;

static work make_work(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_param *bias = ek_node_live_bias(node);
    return (work){.pass = pass,
                  /* those for few samples have no gradients, which is what a transposed one takes forward */
                  .kernels = is_transposed(node) ? pass->context->kernels : pass->kernels,
                  .flow = flow,
                  .transposed = is_transposed(node),
                  .g = geometry(node),
                  .room = rooms(node),
                  .blocks = ek_blocks(pass->n),
                  .x_block = ek_block_floats(node->in[0]),
                  .y_block = ek_block_floats(node->out),
                  .bias = bias ? bias->data : NULL};
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], block, w->x_block);
    w->kernels->conv_forward(&w->g, &x, w->room.forward, w->bias, w->flow->y + block * w->y_block,
                             ek_live(w->pass->n, block), w->moments ? w->moments + block * w->g.co : NULL,
                             ek_scratch(w->pass, thread));
}

/* y is where the gradient of the data goes; each of its maps gets its bias. */
static void forward_transposed_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    int64_t map = w->y_block / w->g.ci;
    ek_grad_in x = {.g = w->flow->x[0].x + block * w->x_block, .live = ek_live(w->pass->n, block)};
    ek_grad_out y = {.g = w->flow->y + block * w->y_block};
    w->kernels->conv_backward(&w->g, NULL, &x, w->room.backward, NULL, NULL, &y, ek_scratch(w->pass, thread));
    for (int64_t i = 0; w->bias && i < w->y_block; i++) y.g[i] += w->bias[i / map];
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    if (flow->norm) w.moments = ek_batchnorm_moments(pass, flow->norm);
    if (w.transposed)
        w.kernels->conv_pack_backward(&w.g, node->param[0].data, w.room.backward);
    else
        w.kernels->conv_pack_forward(&w.g, node->param[0].data, w.room.forward);
    ek_pool_run(pass->context->pool, w.blocks, w.transposed ? forward_transposed_piece : forward_piece, &w);
}

static void backward_block(const work *w, int64_t b, float *part, int thread)
{
    ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], b, w->x_block);
    ek_grad_in dy = ek_grad_in_block(w->pass, &w->flow->dy, b, w->y_block);
    ek_grad_out dx = ek_grad_out_block(w->pass, &w->flow->dx[0], b, w->x_block, w->g.ci);
    w->kernels->conv_backward(&w->g, &x, &dy, w->room.backward, part, w->bias ? part + w->room.bias : NULL,
                              w->flow->dx[0].g ? &dx : NULL, ek_scratch(w->pass, thread));
}

/* dbias += the sums of dy, by channel. */
static void add_bias_gradient(const work *w, const float *dy, float *dbias)
{
    int64_t map = w->y_block / w->g.ci;
    for (int64_t c = 0; c < w->g.ci; c++, dy += map) {
        double sum[EK_LANES] = {0};
        for (int64_t i = 0; i < map; i += EK_LANES)
            for (int lane = 0; lane < EK_LANES; lane++) sum[lane] += dy[i + lane];
        for (int lane = 1; lane < EK_LANES; lane++) sum[0] += sum[lane];
        dbias[c] += (float)sum[0];
    }
}

static void backward_transposed_block(const work *w, int64_t b, float *part, int thread)
{
    const ek_flow *flow = w->flow;
    float *scratch = ek_scratch(w->pass, thread);
    ek_map_in dy = {.x = flow->dy.g + b * w->y_block, .live = ek_live(w->pass->n, b)};
    ek_grad_in x = {.g = flow->x[0].x + b * w->x_block, .live = dy.live};
    w->kernels->conv_backward(&w->g, &dy, &x, w->room.backward, part, NULL, NULL, scratch);
    if (w->bias) add_bias_gradient(w, dy.x, part + w->room.bias);
    if (flow->dx[0].g)
        w->kernels->conv_forward(&w->g, &dy, w->room.forward, NULL, flow->dx[0].g + b * w->x_block, dy.live, NULL, scratch);
}

static void backward_piece(void *argument, int64_t piece, int thread)
{
    const work *w = argument;
    int64_t parts = parts_of(w->blocks);
    float *part = w->room.parts + w->room.part * (size_t)piece;
    memset(part, 0, w->room.part * sizeof *part);
    for (int64_t b = piece * w->blocks / parts; b < (piece + 1) * w->blocks / parts; b++)
        (w->transposed ? backward_transposed_block : backward_block)(w, b, part, thread);
}

/* Chunk `chunk` of all parts, added pairwise into the first. */
enum { CHUNK = 16384 };
static int64_t chunks(size_t part) { return ((int64_t)part + CHUNK - 1) / CHUNK; }

static void sum_piece(void *argument, int64_t chunk, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t parts = parts_of(w->blocks), left = (int64_t)w->room.part - chunk * CHUNK;
    for (int64_t step = 1; step < parts; step *= 2) {
        for (int64_t i = 0; i + step < parts; i += 2 * step) {
            float *a = w->room.parts + (size_t)i * w->room.part + chunk * CHUNK;
            w->kernels->add(left < CHUNK ? left : CHUNK, a, a + (size_t)step * w->room.part, a);
        }
    }
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    ek_param *bias = ek_node_live_bias(node);
    if (flow->dx[0].g && w.transposed)
        w.kernels->conv_pack_forward(&w.g, node->param[0].data, w.room.forward);
    else if (flow->dx[0].g)
        w.kernels->conv_pack_backward(&w.g, node->param[0].data, w.room.backward);
    ek_pool_run(pass->context->pool, parts_of(w.blocks), backward_piece, &w);
    ek_pool_run(pass->context->pool, chunks(w.room.part), sum_piece, &w);
    memcpy(node->param[0].grad, w.room.parts, (size_t)node->param[0].count * sizeof(float));
    if (bias)
        memcpy(bias->grad, w.room.parts + w.room.bias, (size_t)bias->count * sizeof(float));
}

/* Calls `visit` for each product of the convolution's sum, with positions in its input, w and its output. */
typedef void (*visit)(void *state, int64_t from, int64_t w, int64_t to);
static void each_product(const ek_ref *ref, const ek_node *node, visit call, void *state)
{
    ek_conv g = geometry(node);
    int in_each = g.ci / g.groups, out_each = g.co / g.groups;
    for (int64_t n = 0; n < ref->n; n++)
        for (int o = 0; o < g.co; o++)
            for (int p = 0; p < g.ho; p++)
                for (int q = 0; q < g.wo; q++)
                    for (int i = 0; i < in_each; i++)
                        for (int k = 0; k < g.kh; k++)
                            for (int l = 0; l < g.kw; l++) {
                                int r = p * g.stride_h + k * g.dilation_h - g.pad_h,
                                    s = q * g.stride_w + l * g.dilation_w - g.pad_w;
                                if (r < 0 || r >= g.hi || s < 0 || s >= g.wi) continue;
                                int channel = o / out_each * in_each + i;
                                call(state, ((n * g.ci + channel) * g.hi + r) * g.wi + s,
                                     ((o * in_each + (int64_t)i) * g.kh + k) * g.kw + l,
                                     ((n * g.co + o) * g.ho + p) * g.wo + q);
                            }
}

typedef struct arrays {
    bool transposed;
    const double *x, *w, *dy;
    double *y, *dx, *dw;
} arrays;

static void add_forward(void *state, int64_t from, int64_t w, int64_t to)
{
    const arrays *a = state;
    int64_t x = a->transposed ? to : from, y = a->transposed ? from : to;
    a->y[y] += a->w[w] * a->x[x];
}

static void add_backward(void *state, int64_t from, int64_t w, int64_t to)
{
    const arrays *a = state;
    int64_t x = a->transposed ? to : from, y = a->transposed ? from : to;
    if (a->dx) a->dx[x] += a->w[w] * a->dy[y];
    if (a->dw) a->dw[w] += a->x[x] * a->dy[y];
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t map = ek_shape_count(node->out) / node->out.dim[0], count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++) y[i] = ref->param[1] ? ref->param[1][i / map % node->out.dim[0]] : 0;
    each_product(ref, node, add_forward, &(arrays){.transposed = is_transposed(node), .x = x[0], .w = ref->param[0], .y = y});
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    int64_t map = ek_shape_count(node->out) / node->out.dim[0], count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; ref->grad[1] && i < count; i++) ref->grad[1][i / map % node->out.dim[0]] += dy[i];
    arrays all = {.transposed = is_transposed(node), .x = x[0], .w = ref->param[0], .dy = dy, .dx = dx[0], .dw = ref->grad[0]};
    each_product(ref, node, add_backward, &all);
}

#define OPTIONS(one_or_two, kernel_help, zeros_help, ...)                                                \
    .attrs = {                                                                                           \
        {"out", EK_ATTR_COUNT, .positional = true, .required = true, .min = 1, .max = 1 << 20,           \
         .help = "output channels"},                                                                     \
        {"kernel", one_or_two, .required = true, .min = 1, .max = 1 << 12, .help = kernel_help},         \
        {"stride", one_or_two, .fallback = 1, .min = 1, .max = 1 << 12, .help = "step between windows"}, \
        {"padding", one_or_two, .fallback = 0, .min = 0, .max = 1 << 12, .help = zeros_help},            \
        {"padding_end", one_or_two, .fallback = EK_AS_BEGIN, .min = 0, .max = 1 << 12,                   \
         .help = "the same at the end (below and right), where it differs from that at the beginning"},  \
        {"dilation", one_or_two, .fallback = 1, .min = 1, .max = 1 << 12,                                \
         .help = "distance between the kernel's cells"},                                                 \
        {"groups", EK_ATTR_COUNT, .fallback = 1, .min = 1, .max = 1 << 20,                               \
         .help = "channels are connected within groups only"},                                           \
        {"bias", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "add a bias"}, __VA_ARGS__}
#define OUTPUT_PADDING_OPTION(one_or_two)                                              \
    {"output_padding", one_or_two, .fallback = 0, .min = 0, .max = 1 << 12,            \
     .help = "further positions at the end of the output, fewer than stride or dilation"}
#define PASSES                                                                                 \
    .inputs = 1, .shape = shape, .params = params, .workspace = workspace, .scratch = scratch, \
    .multiply_adds = multiply_adds, .forward = forward, .backward = backward,                  \
    .reference_forward = reference_forward, .reference_backward = reference_backward
#define FUSES .reads_maps = true, .reads_gradients = true, .writes = EK_WRITES_ALL, .gives_moments = true

const ek_op ek_op_conv = {
    .name = "conv", OPTIONS(EK_ATTR_PAIR, "K or HxW", "zeros around the map", {0}), PASSES, FUSES};
const ek_op ek_op_conv1d = {
    .name = "conv1d", OPTIONS(EK_ATTR_COUNT, "its width", "zeros at either end", {0}), .length = length, PASSES, FUSES};
const ek_op ek_op_convtranspose = {
    .name = "convtranspose",
    OPTIONS(EK_ATTR_PAIR, "K or HxW", "what is left out around the map", OUTPUT_PADDING_OPTION(EK_ATTR_PAIR)), PASSES};
const ek_op ek_op_convtranspose1d = {
    .name = "convtranspose1d",
    OPTIONS(EK_ATTR_COUNT, "its width", "what is left out at either end", OUTPUT_PADDING_OPTION(EK_ATTR_COUNT)),
    .length = length, PASSES};
