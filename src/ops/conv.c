/* conv OUT kernel=K: 2-D convolution (cross-correlation, as in every framework), weights [out, in/groups, kh, kw]:
 *
 *   y[o, p, q] = bias[o] + sum over i, k, l of w[o, i, k, l] * x[i, p*stride + k*dilation - padding, ...]
 *
 * conv1d OUT kernel=K: the same along sequences [c, l], weights [out, in/groups, k]; to the passes they are maps of one
 * row.
 */
#include "ops/batchnorm.h"

#include <string.h>

enum { OUT, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS };

extern const ek_op ek_op_conv1d;

static bool is_1d(const ek_node *node) { return node->op == &ek_op_conv1d; }

/* Of a map, or of a sequence as a map of one row. */
static int height(ek_shape shape) { return shape.rank == 3 ? (int)shape.dim[1] : 1; }
static int width(ek_shape shape) { return (int)shape.dim[shape.rank - 1]; }

static ek_conv geometry(const ek_node *node)
{
    const ek_attr *a = node->attr;
    ek_conv g = {.ci = (int)node->in[0].dim[0],
                 .hi = height(node->in[0]),
                 .wi = width(node->in[0]),
                 .co = (int)node->out.dim[0],
                 .ho = height(node->out),
                 .wo = width(node->out),
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

/* Windows along axis `d` of an input of `in` positions; below 1: the kernel reaches over it. */
static int64_t places(const ek_node *node, int d, int64_t in)
{
    int64_t left = in + 2 * (int64_t)node->attr[PADDING].v[d] - reach_of(node, d);
    return left < 0 ? 0 : left / (int64_t)node->attr[STRIDE].v[d] + 1;
}

static int64_t length(const ek_node *node, int64_t in) { return places(node, 0, in); }

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
                       ek_shape_text(in, text), rank == 2 ? "conv" : "conv1d");
    int64_t out = ek_attr_int(node, OUT), groups = ek_attr_int(node, GROUPS);
    if (in.dim[0] % groups || out % groups)
        return ek_fail(EK_E_SHAPE, "groups=%lld must divide the %lld input and the %lld output channels",
                       (long long)groups, (long long)in.dim[0], (long long)out);
    node->out = (ek_shape){.rank = rank, .dim = {out}};
    for (int d = 0; d < rank - 1; d++) {
        node->out.dim[d + 1] = places(node, d, in.dim[d + 1]);
        if (node->out.dim[d + 1] < 1)
            return ek_fail(EK_E_SHAPE, "the kernel reaches over %lld %s, the padded input has %lld",
                           (long long)reach_of(node, d), axes[rank == 2][d],
                           (long long)(in.dim[d + 1] + 2 * (int64_t)node->attr[PADDING].v[d]));
    }
    return EK_OK;
}

static void params(ek_node *node)
{
    ek_conv g = geometry(node);
    int64_t taps = (int64_t)g.kh * g.kw, in = g.ci / g.groups, out = g.co / g.groups;
    ek_shape weights = is_1d(node) ? (ek_shape){3, {g.co, in, g.kw}} : (ek_shape){4, {g.co, in, g.kh, g.kw}};
    ek_node_add_weights(node, weights, in * taps, out * taps, ek_attr_bool(node, BIAS));
}

/* Gradients of the weights are summed in parts, a part over neighbouring blocks. Their number depends on the
 * number of blocks alone, and bounds the memory. */
enum { MAX_PARTS = 16 };
static int64_t parts_of(int64_t blocks) { return blocks < MAX_PARTS ? blocks : MAX_PARTS; }

/* The node's workspace: weights packed for both directions, then the parts [weights, biases]. */
typedef struct room {
    float *forward, *backward, *parts;
    size_t part; /* floats */
} room;

static room rooms(const ek_node *node)
{
    ek_conv g = geometry(node);
    room r = {.forward = node->workspace,
              .part = ek_lane_rows((size_t)node->param[0].count) + ek_lane_rows((size_t)g.co)};
    r.backward = r.forward + ek_lane_rows(ek_conv_packed_forward(&g));
    r.parts = r.backward + ek_lane_rows(ek_conv_packed_backward(&g));
    return r;
}

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    ek_conv g = geometry(node);
    size_t part = ek_lane_rows((size_t)node->param[0].count) + ek_lane_rows((size_t)g.co);
    size_t backward = ek_lane_rows(ek_conv_packed_backward(&g)) + part * (size_t)parts_of(ek_blocks(samples));
    return ek_lane_rows(ek_conv_packed_forward(&g)) + (training ? backward : 0);
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
                  .kernels = pass->kernels,
                  .flow = flow,
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

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    if (flow->norm) w.moments = ek_batchnorm_moments(pass, flow->norm);
    w.kernels->conv_pack_forward(&w.g, node->param[0].data, w.room.forward);
    ek_pool_run(pass->context->pool, w.blocks, forward_piece, &w);
}

static void backward_piece(void *argument, int64_t piece, int thread)
{
    const work *w = argument;
    int64_t parts = parts_of(w->blocks);
    float *part = w->room.parts + w->room.part * (size_t)piece;
    memset(part, 0, w->room.part * sizeof *part);
    float *bias = w->bias ? part + w->room.part - ek_lane_rows((size_t)w->g.co) : NULL;
    for (int64_t b = piece * w->blocks / parts; b < (piece + 1) * w->blocks / parts; b++) {
        ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], b, w->x_block);
        ek_grad_in dy = ek_grad_in_block(w->pass, &w->flow->dy, b, w->y_block);
        ek_grad_out dx = ek_grad_out_block(w->pass, &w->flow->dx[0], b, w->x_block, w->g.ci);
        w->kernels->conv_backward(&w->g, &x, &dy, w->room.backward, part, bias, w->flow->dx[0].g ? &dx : NULL,
                                  ek_scratch(w->pass, thread));
    }
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
    if (flow->dx[0].g) w.kernels->conv_pack_backward(&w.g, node->param[0].data, w.room.backward);
    ek_pool_run(pass->context->pool, parts_of(w.blocks), backward_piece, &w);
    ek_pool_run(pass->context->pool, chunks(w.room.part), sum_piece, &w);
    memcpy(node->param[0].grad, w.room.parts, (size_t)node->param[0].count * sizeof(float));
    if (bias)
        memcpy(bias->grad, w.room.parts + w.room.part - ek_lane_rows((size_t)w.g.co),
               (size_t)w.g.co * sizeof(float));
}

/* Calls `visit` for each product of the sum above, with positions in x, w and y. */
typedef void (*visit)(void *state, int64_t x, int64_t w, int64_t y);
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
    const double *x, *w, *dy;
    double *y, *dx, *dw;
} arrays;

static void add_forward(void *state, int64_t x, int64_t w, int64_t y)
{
    const arrays *a = state;
    a->y[y] += a->w[w] * a->x[x];
}

static void add_backward(void *state, int64_t x, int64_t w, int64_t y)
{
    const arrays *a = state;
    if (a->dx) a->dx[x] += a->w[w] * a->dy[y];
    if (a->dw) a->dw[w] += a->x[x] * a->dy[y];
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t map = ek_shape_count(node->out) / node->out.dim[0], count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++) y[i] = ref->param[1] ? ref->param[1][i / map % node->out.dim[0]] : 0;
    each_product(ref, node, add_forward, &(arrays){.x = x[0], .w = ref->param[0], .y = y});
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    int64_t map = ek_shape_count(node->out) / node->out.dim[0], count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; ref->grad[1] && i < count; i++) ref->grad[1][i / map % node->out.dim[0]] += dy[i];
    each_product(ref, node, add_backward,
                 &(arrays){.x = x[0], .w = ref->param[0], .dy = dy, .dx = dx[0], .dw = ref->grad[0]});
}

#define OPTIONS(one_or_two, kernel_help, zeros_help)                                                     \
    .attrs = {                                                                                           \
        {"out", EK_ATTR_COUNT, .positional = true, .required = true, .min = 1, .max = 1 << 20,           \
         .help = "output channels"},                                                                     \
        {"kernel", one_or_two, .required = true, .min = 1, .max = 1 << 12, .help = kernel_help},         \
        {"stride", one_or_two, .fallback = 1, .min = 1, .max = 1 << 12, .help = "step between windows"}, \
        {"padding", one_or_two, .fallback = 0, .min = 0, .max = 1 << 12, .help = zeros_help},            \
        {"dilation", one_or_two, .fallback = 1, .min = 1, .max = 1 << 12,                                \
         .help = "distance between the kernel's cells"},                                                 \
        {"groups", EK_ATTR_COUNT, .fallback = 1, .min = 1, .max = 1 << 20,                               \
         .help = "channels are connected within groups only"},                                           \
        {"bias", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "add a bias"}}
#define PASSES                                                                                    \
    .inputs = 1, .shape = shape, .params = params, .workspace = workspace, .scratch = scratch,    \
    .multiply_adds = multiply_adds, .forward = forward, .backward = backward, .reads_maps = true, \
    .reads_gradients = true, .writes = EK_WRITES_ALL, .gives_moments = true,                      \
    .reference_forward = reference_forward, .reference_backward = reference_backward

const ek_op ek_op_conv = {.name = "conv", OPTIONS(EK_ATTR_PAIR, "K or HxW", "zeros around the map"), PASSES};
const ek_op ek_op_conv1d = {
    .name = "conv1d", OPTIONS(EK_ATTR_COUNT, "its width", "zeros at either end"), .length = length, PASSES};
