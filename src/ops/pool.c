/* avgpool, maxpool and globalavgpool: the mean or the largest of each window of a map, or of a sequence, which to the passes
 * is a map of one row. */
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { KERNEL, STRIDE, PADDING, COUNT_PAD };

extern const ek_op ek_op_maxpool, ek_op_globalavgpool;

static ek_window window_of(const ek_node *node)
{
    const ek_attr *a = node->attr;
    ek_shape in = node->in[0], out = node->out;
    bool sequence = in.rank == 2;
    ek_window g = {.c = (int)in.dim[0],
                   .hi = sequence ? 1 : (int)in.dim[1],
                   .wi = (int)in.dim[sequence ? 1 : 2],
                   .ho = sequence ? 1 : (int)out.dim[1],
                   .wo = (int)out.dim[sequence ? 1 : 2]};
    if (node->op == &ek_op_globalavgpool) {
        g.kh = g.stride_h = g.hi;
        g.kw = g.stride_w = g.wi;
        return g;
    }
    g.kh = sequence ? 1 : (int)a[KERNEL].v[0];
    g.kw = (int)a[KERNEL].v[1];
    /* stride 0, the fallback, means the kernel's size. */
    g.stride_h = a[STRIDE].v[0] > 0 && !sequence ? (int)a[STRIDE].v[0] : g.kh;
    g.stride_w = a[STRIDE].v[1] > 0 ? (int)a[STRIDE].v[1] : g.kw;
    g.pad_h = sequence ? 0 : (int)a[PADDING].v[0];
    g.pad_w = (int)a[PADDING].v[1];
    g.count_pad = node->op != &ek_op_maxpool && ek_attr_bool(node, COUNT_PAD);
    return g;
}

/* Windows along a sequence of `in` positions. */
static int64_t length(const ek_node *node, int64_t in)
{
    ek_window g = window_of(node);
    if (node->op == &ek_op_globalavgpool) return 1;
    int64_t left = in + 2 * g.pad_w - g.kw;
    return left < 0 ? 0 : left / g.stride_w + 1;
}

static ek_status sequence_shape(ek_node *node)
{
    ek_window g = window_of(node);
    for (int i = KERNEL; node->op != &ek_op_globalavgpool && i <= PADDING; i++) {
        const ek_attr *a = &node->attr[i];
        if (a->v[0] != a->v[1])
            return ek_fail(EK_E_SHAPE,
                           "along a sequence a window has one dimension: %s of %s is one number, not %gx%g",
                           node->op->attrs[i].name, node->op->name, a->v[0], a->v[1]);
    }
    if (g.pad_w > g.kw / 2)
        return ek_fail(EK_E_SHAPE, "padding=%d is more than half of the window of %d", g.pad_w, g.kw);
    if (g.wi + 2 * g.pad_w < g.kw)
        return ek_fail(EK_E_SHAPE, "the window of %d is larger than the padded sequence of %d", g.kw,
                       g.wi + 2 * g.pad_w);
    node->out = (ek_shape){2, {g.c, length(node, g.wi)}};
    return EK_OK;
}

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    if (node->in[0].rank == 2) return sequence_shape(node);
    if (node->in[0].rank != 3)
        return ek_fail(EK_E_SHAPE, "%s works on maps CxHxW and sequences CxL, its input has %s features",
                       node->op->name, ek_shape_text(node->in[0], text));
    ek_window g = window_of(node);
    if (g.pad_h > g.kh / 2 || g.pad_w > g.kw / 2)
        return ek_fail(EK_E_SHAPE, "padding=%dx%d is more than half of the window %dx%d", g.pad_h, g.pad_w,
                       g.kh, g.kw);
    if (g.hi + 2 * g.pad_h < g.kh || g.wi + 2 * g.pad_w < g.kw)
        return ek_fail(EK_E_SHAPE, "the window %dx%d is larger than the padded input %dx%d", g.kh, g.kw,
                       g.hi + 2 * g.pad_h, g.wi + 2 * g.pad_w);
    node->out = (ek_shape){
        3, {g.c, (g.hi + 2 * g.pad_h - g.kh) / g.stride_h + 1, (g.wi + 2 * g.pad_w - g.kw) / g.stride_w + 1}};
    return EK_OK;
}

/* maxpool keeps where each window's largest was. */
static size_t index_workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)training;
    return (size_t)ek_value_floats(node->out, samples);
}

/* Of a sequence also a channel of the input or of the gradient, and the factors of the windows (sequence_room). */
static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    ek_window g = window_of(node);
    size_t map = ek_pool_scratch(&g), windows = (size_t)g.wo * EK_LANES;
    return node->in[0].rank == 2 ? 2 * map + 2 * windows : map;
}

typedef struct work {
    const ek_pass *pass;
    const ek_kernels *kernels;
    const ek_flow *flow;
    ek_window g;
    bool max;
    int64_t x_block, y_block;
    int32_t *index;
    const int32_t *length; /* of sequences of unequal lengths */
} work;

static work make_work(const ek_pass *pass, const ek_node *node, const ek_flow *flow)
{
    return (work){.pass = pass,
                  .kernels = pass->kernels,
                  .flow = flow,
                  .g = window_of(node),
                  .max = node->op == &ek_op_maxpool,
                  .x_block = ek_block_floats(node->in[0]),
                  .y_block = ek_block_floats(node->out),
                  .index = (int32_t *)(void *)node->workspace,
                  .length = ek_input_length(pass->length, node)};
}

/* --- sequences of unequal lengths. What is beyond a length is 0, which a maximum must not see, and is not to count in a
 * mean that leaves the padding out. */

typedef struct sequence_room {
    float *pool, *channel, *factor; /* a map of the input; a channel of x or dy; [windows][lane] */
} sequence_room;

static sequence_room sequence_rooms(const work *w, int thread)
{
    float *pool = ek_scratch(w->pass, thread), *channel = pool + ek_pool_scratch(&w->g);
    return (sequence_room){pool, channel, channel + (int64_t)(w->g.wi + w->g.wo) * EK_LANES};
}

static bool counts_alive(const work *w) { return w->length && !w->max && !w->g.count_pad; }

/* From the mean over all cells of a window to that over its live ones. */
static void find_factors(const work *w, const int32_t *length, float *factor)
{
    for (int q = 0; q < w->g.wo; q++) {
        int begin = q * w->g.stride_w - w->g.pad_w, end = begin + w->g.kw, from = begin > 0 ? begin : 0;
        for (int lane = 0; lane < EK_LANES; lane++) {
            int alive = (end < length[lane] ? end : length[lane]) - from;
            factor[q * EK_LANES + lane] = alive > 0 ? (float)w->g.kw / (float)alive : 0;
        }
    }
}

static void scale(const work *w, const float *factor, const float *from, float *to)
{
    for (int64_t i = 0; i < w->g.wo; i++)
        for (int64_t lane = i * EK_LANES; lane < i * EK_LANES + w->kernels->lanes; lane++)
            to[lane] = from[lane] * factor[lane];
}

static void max_of_alive(const work *w, int64_t block, sequence_room room)
{
    ek_window one = w->g;
    one.c = 1;
    int64_t in = (int64_t)w->g.wi * EK_LANES, out = (int64_t)w->g.wo * EK_LANES;
    for (int64_t c = 0; c < w->g.c; c++) {
        int64_t at = block * w->y_block + c * out;
        ek_map_in x = {.x = room.channel, .live = ek_live(w->pass->n, block)};
        memcpy(room.channel, w->flow->x[0].x + block * w->x_block + c * in, (size_t)in * sizeof(float));
        w->kernels->sequence_cut(1, w->g.wi, w->length + block * EK_LANES, -INFINITY, room.channel);
        w->kernels->maxpool_forward(&one, &x, w->flow->y + at, w->index + at, room.pool);
    }
}

static void mean_of_alive(const work *w, int64_t block, sequence_room room)
{
    ek_window all = w->g;
    all.count_pad = true;
    ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], block, w->x_block);
    float *y = w->flow->y + block * w->y_block;
    w->kernels->avgpool_forward(&all, &x, y, room.pool);
    find_factors(w, w->length + block * EK_LANES, room.factor);
    for (int64_t c = 0; c < w->g.c; c++, y += w->g.wo * EK_LANES) scale(w, room.factor, y, y);
}

static void mean_of_alive_backward(const work *w, int64_t block, sequence_room room)
{
    ek_window one = w->g;
    one.count_pad = true;
    one.c = 1;
    const float *dy = w->flow->dy.g + block * w->y_block;
    ek_grad_out dx = ek_grad_out_block(w->pass, &w->flow->dx[0], block, w->x_block, w->g.c);
    find_factors(w, w->length + block * EK_LANES, room.factor);
    for (int64_t c = 0; c < w->g.c; c++, dy += w->g.wo * EK_LANES) {
        ek_grad_out of_channel = ek_grad_out_channels(&dx, c, (int64_t)w->g.wi * EK_LANES, w->g.c);
        scale(w, room.factor, dy, room.channel);
        w->kernels->avgpool_backward(&one, room.channel, &of_channel, room.pool);
    }
}

/* --- the passes */

static void forward_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], block, w->x_block);
    float *y = w->flow->y + block * w->y_block, *room = ek_scratch(w->pass, thread);
    if (w->length && w->max)
        max_of_alive(w, block, sequence_rooms(w, thread));
    else if (counts_alive(w))
        mean_of_alive(w, block, sequence_rooms(w, thread));
    else if (w->max)
        w->kernels->maxpool_forward(&w->g, &x, y, w->index + block * w->y_block, room);
    else
        w->kernels->avgpool_forward(&w->g, &x, y, room);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), forward_piece, &w);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    const float *dy = w->flow->dy.g + block * w->y_block;
    ek_grad_out dx = ek_grad_out_block(w->pass, &w->flow->dx[0], block, w->x_block, w->g.c);
    float *room = ek_scratch(w->pass, thread);
    if (counts_alive(w))
        mean_of_alive_backward(w, block, sequence_rooms(w, thread));
    else if (w->max)
        w->kernels->maxpool_backward(&w->g, dy, w->index + block * w->y_block, &dx, room);
    else
        w->kernels->avgpool_backward(&w->g, dy, &dx, room);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (!flow->dx[0].g) return;
    work w = make_work(pass, node, flow);
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), backward_piece, &w);
}

/* One window of the reference: its borders, clipped to `columns`, and, from a map, its largest cell. */
typedef struct cells {
    int r0, r1, s0, s1;
    double share; /* of each cell in an average */
} cells;

static cells cells_of(const ek_window *g, int columns, int p, int q)
{
    int r = p * g->stride_h - g->pad_h, s = q * g->stride_w - g->pad_w;
    cells c = {r > 0 ? r : 0, r + g->kh < g->hi ? r + g->kh : g->hi, s > 0 ? s : 0,
               s + g->kw < columns ? s + g->kw : columns, 0};
    c.share = 1.0 / (g->count_pad ? g->kh * g->kw : (c.r1 - c.r0) * (c.s1 - c.s0));
    return c;
}

/* Of the map's, those that are alive. */
static int live_columns(const ek_ref *ref, const ek_node *node, const ek_window *g, int64_t map)
{
    const int32_t *length = ek_input_length(ref->length, node);
    return length ? length[map / g->c] : g->wi;
}

static int64_t largest(const ek_window *g, cells c, const double *map)
{
    int64_t best = (int64_t)c.r0 * g->wi + c.s0;
    for (int r = c.r0; r < c.r1; r++) {
        for (int s = c.s0; s < c.s1; s++) {
            double v = map[(int64_t)r * g->wi + s];
            if (v > map[best] || isnan(v)) best = (int64_t)r * g->wi + s;
        }
    }
    return best;
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    ek_window g = window_of(node);
    for (int64_t m = 0; m < ref->n * g.c; m++) {
        const double *map = x[0] + m * g.hi * g.wi;
        for (int p = 0; p < g.ho; p++) {
            for (int q = 0; q < g.wo; q++) {
                cells c = cells_of(&g, live_columns(ref, node, &g, m), p, q);
                y[(m * g.ho + p) * g.wo + q] = 0;
                if (c.s1 <= c.s0) continue; /* beyond the length */
                double sum = 0;
                for (int r = c.r0; r < c.r1; r++)
                    for (int s = c.s0; s < c.s1; s++) sum += map[(int64_t)r * g.wi + s];
                y[(m * g.ho + p) * g.wo + q] =
                    node->op == &ek_op_maxpool ? map[largest(&g, c, map)] : sum * c.share;
            }
        }
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    ek_window g = window_of(node);
    for (int64_t m = 0; dx[0] && m < ref->n * g.c; m++) {
        const double *map = x[0] + m * g.hi * g.wi;
        double *out = dx[0] + m * g.hi * g.wi;
        for (int p = 0; p < g.ho; p++) {
            for (int q = 0; q < g.wo; q++) {
                cells c = cells_of(&g, live_columns(ref, node, &g, m), p, q);
                if (c.s1 <= c.s0) continue; /* beyond the length */
                double d = dy[(m * g.ho + p) * g.wo + q];
                if (node->op == &ek_op_maxpool) {
                    out[largest(&g, c, map)] += d;
                    continue;
                }
                for (int r = c.r0; r < c.r1; r++)
                    for (int s = c.s0; s < c.s1; s++) out[(int64_t)r * g.wi + s] += d * c.share;
            }
        }
    }
}

#define WINDOW                                                                            \
    {"kernel", EK_ATTR_PAIR,   .positional = true, .required = true,                      \
     .min = 1, .max = 1 << 12, .help = "K or HxW"},                                       \
        {"stride", EK_ATTR_PAIR,   .fallback = 0,                                         \
         .min = 0, .max = 1 << 12, .help = "step between windows; 0: the kernel's size"}, \
    {                                                                                     \
        "padding", EK_ATTR_PAIR, .fallback = 0, .min = 0, .max = 1 << 12,                 \
                                 .help = "cells around the map, at most half the kernel"  \
    }
#define PASSES                                                                                               \
    .inputs = 1, .shape = shape, .length = length, .forward = forward, .backward = backward,                 \
    .scratch = scratch, .reads_maps = true, .writes = EK_WRITES_ALL, .reference_forward = reference_forward, \
    .reference_backward = reference_backward

const ek_op ek_op_avgpool = {.name = "avgpool",
                             .attrs = {WINDOW,
                                       {"count_pad", EK_ATTR_BOOL, .fallback = 1, .max = 1,
                                        .help = "padding counts as zeros in the mean"}},
                             PASSES};
const ek_op ek_op_maxpool = {.name = "maxpool", .attrs = {WINDOW}, .workspace = index_workspace, PASSES};
const ek_op ek_op_globalavgpool = {.name = "globalavgpool", PASSES};
