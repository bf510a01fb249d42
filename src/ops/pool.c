/* avgpool, maxpool and globalavgpool: the mean or the largest of each window of a map, or of a sequence, which to the passes
 * is a map of one row. */
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { KERNEL, STRIDE, PADDING, PADDING_END, DILATION, CEIL, COUNT_PAD };

extern const ek_op ek_op_maxpool, ek_op_globalavgpool;

/* --- windows along an axis, whose taps are `dilation` apart */

typedef struct axis {
    int64_t in, out, kernel, stride, begin, end, dilation;
    bool ceil; /* a last window may reach beyond the padding */
} axis;

static bool is_sequence(const ek_node *node) { return node->in[0].rank == 2; }

/* d: 0 down, 1 across; a sequence has one row. */
static axis axis_of(const ek_node *node, int d)
{
    const ek_attr *a = node->attr;
    if (is_sequence(node) && d == 0) return (axis){1, 1, 1, 1, 0, 0, 1, false};
    int at = is_sequence(node) ? 1 : d + 1;
    int64_t in = node->in[0].dim[at], out = node->out.dim[at];
    if (node->op == &ek_op_globalavgpool) return (axis){in, out, in, in, 0, 0, 1, false};
    axis of = {.in = in,
               .out = out,
               .kernel = (int64_t)a[KERNEL].v[d],
               .stride = (int64_t)a[STRIDE].v[d],
               .begin = (int64_t)a[PADDING].v[d],
               .end = ek_attr_end(node, PADDING, PADDING_END, d),
               .dilation = (int64_t)a[DILATION].v[d],
               .ceil = ek_attr_bool(node, CEIL)};
    if (of.stride == 0) of.stride = of.kernel; /* the fallback */
    return of;
}

static int64_t reach_of(const axis *a) { return a->dilation * (a->kernel - 1) + 1; }

/* Windows over `in` positions. With `ceil` what is left over makes one more, which begins before the end of the input,
 * as in PyTorch. */
static int64_t places(const axis *a, int64_t in)
{
    int64_t left = in + a->begin + a->end - reach_of(a);
    if (left < 0) return 0;
    int64_t count = (left + (a->ceil ? a->stride - 1 : 0)) / a->stride + 1;
    return a->ceil && (count - 1) * a->stride >= in + a->begin ? count - 1 : count;
}

/* Of window q those taps that lie in the `in` positions, and how many lie in these or the padding. */
typedef struct taps {
    int64_t start; /* where the first of all lies */
    int64_t first, last, padded;
} taps;

static int64_t taps_before(const axis *a, int64_t start, int64_t position)
{
    int64_t count = position <= start ? 0 : (position - start + a->dilation - 1) / a->dilation;
    return count < a->kernel ? count : a->kernel;
}

static taps taps_of(const axis *a, int64_t q, int64_t in)
{
    taps t = {.start = q * a->stride - a->begin};
    t.first = taps_before(a, t.start, 0);
    t.last = taps_before(a, t.start, in);
    t.padded = taps_before(a, t.start, in + a->end);
    if (t.last < t.first) t.last = t.first;
    return t;
}

static int64_t length(const ek_node *node, int64_t in)
{
    axis a = axis_of(node, 1);
    return node->op == &ek_op_globalavgpool ? 1 : places(&a, in);
}

/* A window without a cell of the input has neither mean nor largest. Those between begin within it. */
static bool has_empty_window(const axis *a, int64_t count)
{
    for (int64_t q = 0; q < count; q++) {
        taps t = taps_of(a, q, a->in);
        if (t.first == t.last) return true;
        if (t.start >= 0 && q < count - 1) q = count - 2;
    }
    return false;
}

static ek_status axis_shape(const axis *a, const char *name, int64_t *out)
{
    *out = places(a, a->in);
    if (*out < 1)
        return ek_fail(EK_E_SHAPE, "the window reaches over %lld %s, the padded input has %lld", (long long)reach_of(a),
                       name, (long long)(a->in + a->begin + a->end));
    if (has_empty_window(a, *out))
        return ek_fail(EK_E_SHAPE, "a window over %lld %s would lie in the padding alone, which is %lld before and %lld behind",
                       (long long)reach_of(a), name, (long long)a->begin, (long long)a->end);
    return EK_OK;
}

static ek_status check_sequence(const ek_node *node)
{
    for (int i = KERNEL; node->op != &ek_op_globalavgpool && i <= DILATION; i++) {
        const ek_attr *a = &node->attr[i];
        if (a->v[0] != a->v[1])
            return ek_fail(EK_E_SHAPE,
                           "along a sequence a window has one dimension: %s of %s is one number, not %gx%g",
                           node->op->attrs[i].name, node->op->name, a->v[0], a->v[1]);
    }
    return EK_OK;
}

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    ek_shape in = node->in[0];
    if (in.rank != 2 && in.rank != 3)
        return ek_fail(EK_E_SHAPE, "%s works on maps CxHxW and sequences CxL, its input has %s features",
                       node->op->name, ek_shape_text(in, text));
    if (is_sequence(node)) EK_TRY(check_sequence(node));
    ek_shape out = {.rank = in.rank, .dim = {in.dim[0]}};
    for (int d = is_sequence(node); d < 2; d++) {
        axis a = axis_of(node, d);
        EK_TRY(axis_shape(&a, is_sequence(node) ? "positions" : d ? "columns" : "rows", &out.dim[in.rank - 2 + d]));
    }
    node->out = out;
    return EK_OK;
}

static ek_window window_of(const ek_node *node)
{
    axis h = axis_of(node, 0), w = axis_of(node, 1);
    return (ek_window){.c = (int)node->in[0].dim[0],
                       .hi = (int)h.in,
                       .wi = (int)w.in,
                       .ho = (int)h.out,
                       .wo = (int)w.out,
                       .kh = (int)h.kernel,
                       .kw = (int)w.kernel,
                       .stride_h = (int)h.stride,
                       .stride_w = (int)w.stride,
                       .pad_h = (int)h.begin,
                       .pad_w = (int)w.begin,
                       .end_h = (int)h.end,
                       .end_w = (int)w.end,
                       .count_pad = node->op != &ek_op_maxpool && node->op != &ek_op_globalavgpool &&
                                    ek_attr_bool(node, COUNT_PAD)};
}

/* maxpool keeps where each window's largest was. */
static size_t index_workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)training;
    return (size_t)ek_value_floats(node->out, samples);
}

/* A map, and of sequences and dilated windows the shares of its cells (plain_room). */
static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    ek_window g = window_of(node);
    return ek_pool_scratch(&g) + (size_t)g.wo * EK_LANES;
}

typedef struct work {
    const ek_pass *pass;
    const ek_kernels *kernels;
    const ek_flow *flow;
    ek_window g;
    axis h, w;
    bool max, plain;
    int64_t x_block, y_block;
    int32_t *index;
    const int32_t *length; /* of sequences of unequal lengths */
} work;

static work make_work(const ek_pass *pass, const ek_node *node, const ek_flow *flow)
{
    work w = {.pass = pass,
              .kernels = pass->kernels,
              .flow = flow,
              .g = window_of(node),
              .h = axis_of(node, 0),
              .w = axis_of(node, 1),
              .max = node->op == &ek_op_maxpool,
              .x_block = ek_block_floats(node->in[0]),
              .y_block = ek_block_floats(node->out),
              .index = (int32_t *)(void *)node->workspace,
              .length = ek_input_length(pass->length, node)};
    w.plain = w.length || w.h.dilation > 1 || w.w.dilation > 1;
    return w;
}

/* --- what the kernels do not do, in plain loops, a channel at a time: dilated windows, and sequences of unequal lengths, of
 * which what is beyond is 0, which a maximum must not see, and is not to count in a mean. */

typedef struct plain_room {
    int columns[EK_LANES]; /* that are alive */
    float *map;            /* of the input */
    float *share;          /* of a cell in the mean of a window's row, [window across][lane] */
} plain_room;

static float share_of(const work *w, taps t)
{
    int64_t count = w->g.count_pad ? t.padded : t.last - t.first;
    return count > 0 ? 1.0f / (float)count : 0;
}

static plain_room make_room(const work *w, int64_t block, int thread)
{
    plain_room room = {.map = ek_scratch(w->pass, thread)};
    room.share = room.map + ek_pool_scratch(&w->g);
    for (int lane = 0; lane < EK_LANES; lane++) {
        room.columns[lane] = w->length ? w->length[block * EK_LANES + lane] : w->g.wi;
        for (int64_t q = 0; q < w->w.out; q++)
            room.share[q * EK_LANES + lane] = share_of(w, taps_of(&w->w, q, room.columns[lane]));
    }
    return room;
}

static int64_t channel_floats(const work *w) { return (int64_t)w->g.hi * w->g.wi * EK_LANES; }

static const float *read_channel(const work *w, int64_t block, int64_t c, const plain_room *room)
{
    int64_t each = channel_floats(w);
    ek_map_in x = ek_map_channels(ek_map_block(w->pass, &w->flow->x[0], block, w->x_block), c, each);
    if (!x.mean && x.activation == EK_IDENTITY) return x.x;
    ek_slab slab = {1, each, 1, each, x.live};
    w->kernels->map_read(&slab, &x, room->map);
    return room->map;
}

/* One window of all lanes, of the taps `down` and `across`. */
static void largest_in_window(const work *w, taps down, taps across, const plain_room *room, const float *map, float *y, int32_t *index)
{
    float best[EK_LANES] = {0};
    int32_t at[EK_LANES];
    for (int lane = 0; lane < EK_LANES; lane++) at[lane] = -1;
    for (int64_t i = down.first; i < down.last; i++)
        for (int64_t j = across.first; j < across.last; j++) {
            int32_t column = (int32_t)(across.start + j * w->w.dilation);
            int32_t position = (int32_t)(down.start + i * w->h.dilation) * w->g.wi + column;
            const float *v = map + (int64_t)position * EK_LANES;
            for (int lane = 0; lane < EK_LANES; lane++) { /* without a branch, so that lanes go together */
                int larger = (at[lane] < 0) | (v[lane] > best[lane]) | (v[lane] != v[lane]);
                larger &= column < room->columns[lane];
                best[lane] = larger ? v[lane] : best[lane];
                at[lane] = larger ? position : at[lane];
            }
        }
    memcpy(y, best, (size_t)w->kernels->lanes * sizeof *y);
    memcpy(index, at, (size_t)w->kernels->lanes * sizeof *index);
}

static void mean_of_window(const work *w, taps down, taps across, const float *share, const float *map, float *y)
{
    float sum[EK_LANES] = {0}, row = share_of(w, down);
    for (int64_t i = down.first; i < down.last; i++)
        for (int64_t j = across.first; j < across.last; j++) {
            const float *v = map + ((down.start + i * w->h.dilation) * w->g.wi + across.start + j * w->w.dilation) * EK_LANES;
            for (int lane = 0; lane < EK_LANES; lane++) sum[lane] += v[lane];
        }
    for (int lane = 0; lane < w->kernels->lanes; lane++) y[lane] = sum[lane] * row * share[lane];
}

static void plain_forward(const work *w, int64_t block, int thread)
{
    plain_room room = make_room(w, block, thread);
    int64_t at = block * w->y_block;
    for (int64_t c = 0; c < w->g.c; c++) {
        const float *map = read_channel(w, block, c, &room);
        for (int64_t p = 0; p < w->h.out; p++)
            for (int64_t q = 0; q < w->w.out; q++, at += EK_LANES) {
                taps down = taps_of(&w->h, p, w->h.in), across = taps_of(&w->w, q, w->w.in);
                float *y = w->flow->y + at;
                if (w->max)
                    largest_in_window(w, down, across, &room, map, y, w->index + at);
                else
                    mean_of_window(w, down, across, room.share + q * EK_LANES, map, y);
            }
    }
}

static void spread_mean(const work *w, taps down, taps across, const float *share, const float *dy, float *map)
{
    float each[EK_LANES], row = share_of(w, down);
    for (int lane = 0; lane < EK_LANES; lane++) each[lane] = dy[lane] * row * share[lane];
    for (int64_t i = down.first; i < down.last; i++)
        for (int64_t j = across.first; j < across.last; j++) {
            float *to = map + ((down.start + i * w->h.dilation) * w->g.wi + across.start + j * w->w.dilation) * EK_LANES;
            for (int lane = 0; lane < EK_LANES; lane++) to[lane] += each[lane];
        }
}

static void give_to_largest(const float *dy, const int32_t *index, float *map)
{
    for (int lane = 0; lane < EK_LANES; lane++) {
        if (index[lane] >= 0) map[(int64_t)index[lane] * EK_LANES + lane] += dy[lane];
    }
}

static void plain_backward(const work *w, int64_t block, int thread)
{
    plain_room room = make_room(w, block, thread);
    ek_grad_out dx = ek_grad_out_block(w->pass, &w->flow->dx[0], block, w->x_block, w->g.c);
    int64_t at = block * w->y_block, each = channel_floats(w);
    ek_slab slab = {1, each, 1, each, ek_live(w->pass->n, block)};
    for (int64_t c = 0; c < w->g.c; c++) {
        memset(room.map, 0, (size_t)each * sizeof *room.map);
        for (int64_t p = 0; p < w->h.out; p++)
            for (int64_t q = 0; q < w->w.out; q++, at += EK_LANES) {
                const float *dy = w->flow->dy.g + at;
                if (w->max)
                    give_to_largest(dy, w->index + at, room.map);
                else
                    spread_mean(w, taps_of(&w->h, p, w->h.in), taps_of(&w->w, q, w->w.in), room.share + q * EK_LANES, dy, room.map);
            }
        ek_grad_out of_channel = ek_grad_out_channels(&dx, c, each, w->g.c);
        w->kernels->grad_write(&slab, &of_channel, room.map);
    }
}

/* --- the passes */

static void forward_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    ek_map_in x = ek_map_block(w->pass, &w->flow->x[0], block, w->x_block);
    float *y = w->flow->y + block * w->y_block, *room = ek_scratch(w->pass, thread);
    if (w->plain)
        plain_forward(w, block, thread);
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
    if (w->plain)
        plain_backward(w, block, thread);
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

/* One window of the reference: its taps down and across, of columns those alive, and the share of each cell in a mean. */
typedef struct cells {
    axis h, w;
    taps down, across;
    double share;
} cells;

/* Of the map's, those that are alive. */
static int64_t live_columns(const ek_ref *ref, const ek_node *node, int64_t map)
{
    const int32_t *length = ek_input_length(ref->length, node);
    return length ? length[map / node->in[0].dim[0]] : node->in[0].dim[node->in[0].rank - 1];
}

static cells cells_of(const ek_ref *ref, const ek_node *node, int64_t map, int64_t p, int64_t q)
{
    cells c = {.h = axis_of(node, 0), .w = axis_of(node, 1)};
    c.down = taps_of(&c.h, p, c.h.in);
    c.across = taps_of(&c.w, q, live_columns(ref, node, map));
    int64_t inside = (c.down.last - c.down.first) * (c.across.last - c.across.first);
    c.share = 1.0 / (double)(window_of(node).count_pad ? c.down.padded * c.across.padded : inside);
    return c;
}

static int64_t cell_at(const cells *c, int64_t i, int64_t j)
{
    return (c->down.start + i * c->h.dilation) * c->w.in + c->across.start + j * c->w.dilation;
}

static bool is_empty(const cells *c) { return c->down.first == c->down.last || c->across.first == c->across.last; }

static int64_t largest(const cells *c, const double *map)
{
    int64_t best = cell_at(c, c->down.first, c->across.first);
    for (int64_t i = c->down.first; i < c->down.last; i++) {
        for (int64_t j = c->across.first; j < c->across.last; j++) {
            int64_t at = cell_at(c, i, j);
            if (map[at] > map[best] || isnan(map[at])) best = at;
        }
    }
    return best;
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    ek_window g = window_of(node);
    for (int64_t m = 0; m < ref->n * g.c; m++) {
        const double *map = x[0] + m * g.hi * g.wi;
        for (int64_t p = 0; p < g.ho; p++) {
            for (int64_t q = 0; q < g.wo; q++) {
                cells c = cells_of(ref, node, m, p, q);
                double *to = &y[(m * g.ho + p) * g.wo + q], sum = 0;
                for (int64_t i = c.down.first; i < c.down.last; i++)
                    for (int64_t j = c.across.first; j < c.across.last; j++) sum += map[cell_at(&c, i, j)];
                if (is_empty(&c))
                    *to = 0; /* beyond the length */
                else
                    *to = node->op == &ek_op_maxpool ? map[largest(&c, map)] : sum * c.share;
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
        for (int64_t p = 0; p < g.ho; p++) {
            for (int64_t q = 0; q < g.wo; q++) {
                cells c = cells_of(ref, node, m, p, q);
                double d = dy[(m * g.ho + p) * g.wo + q];
                if (is_empty(&c)) continue;
                if (node->op == &ek_op_maxpool) {
                    out[largest(&c, map)] += d;
                    continue;
                }
                for (int64_t i = c.down.first; i < c.down.last; i++)
                    for (int64_t j = c.across.first; j < c.across.last; j++) out[cell_at(&c, i, j)] += d * c.share;
            }
        }
    }
}

#define WINDOW                                                                                                  \
    {"kernel", EK_ATTR_PAIR, .positional = true, .required = true, .min = 1, .max = 1 << 12, .help = "K or HxW"}, \
        {"stride", EK_ATTR_PAIR, .fallback = 0, .min = 0, .max = 1 << 12,                                       \
         .help = "step between windows; 0: the kernel's size"},                                                 \
        {"padding", EK_ATTR_PAIR, .fallback = 0, .min = 0, .max = 1 << 12,                                      \
         .help = "cells around the map; each window must keep a cell of its own"},                              \
        {"padding_end", EK_ATTR_PAIR, .fallback = EK_AS_BEGIN, .min = 0, .max = 1 << 12,                        \
         .help = "those below and right, where they differ from those above and left"},                         \
        {"dilation", EK_ATTR_PAIR, .fallback = 1, .min = 1, .max = 1 << 12,                                     \
         .help = "distance between a window's cells"},                                                          \
    {                                                                                                           \
        "ceil", EK_ATTR_BOOL, .fallback = 0, .max = 1, .help = "a last window may reach beyond the padding"      \
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
