#include "kernels/kernels.h"

#include "kernels/conv_axis.h"
#include "kernels/conv_plan.h"

/* --- the choice */

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Multiply-adds of one block and group, a lane row each; a transform costs a tile of a channel about four for each of its
 * points, and the one in both directions twice that. */
static bool winograd_pays(const ek_conv *g, const conv_winograd *s)
{
    double tiles = (double)s->down * s->across, products = (double)s->in * s->out;
    double transform = s->points_down > 1 ? 8 : 4;
    double transformed = tiles * s->points * (products * s->rows + transform * (s->in + s->out));
    return transformed < products * g->ho * g->wo * g->kh * g->kw;
}

/* As many rows of tiles as make V and Z about as large as a second-level cache, 1.2 MB together; at most all. */
static int band_rows(const conv_winograd *s)
{
    const int64_t most = 300 * 1024; /* floats */
    int64_t row = (int64_t)s->points * s->across * EK_LANES * (s->in + s->out), fit = most / row;
    if (fit < 1) fit = 1;
    return (int)divide_up(s->down, divide_up(s->down, fit)); /* bands of like size */
}

static void count_scratch(conv_winograd *s)
{
    size_t row = (size_t)s->points * (size_t)s->across * EK_LANES, in = (size_t)s->in, out = (size_t)s->out;
    size_t line = (size_t)s->line * EK_LANES, more = (size_t)s->rows - 1;
    s->v = row * in * ((size_t)s->band + more);
    s->z = row * out * ((size_t)s->band + more);
    s->lines = line * WINOGRAD_MOST_ROWS * 2;
    s->carry = s->points_down > 1 ? 2 * in * line : 0;
    s->turned = out >= EK_LANES && s->points_down > 1;
    size_t outs = s->turned ? ek_lane_rows(out) : out;
    s->weights = ek_lane_rows((size_t)s->points * in * (size_t)s->rows * outs);
    if (s->turned) s->weights += (size_t)s->band * (size_t)s->across * EK_LANES * outs;
    s->room = s->v + s->z + s->lines + s->carry + s->weights;
}

conv_winograd ek_conv_winograd(const ek_conv *g)
{
    conv_winograd s = {.in = g->ci / g->groups, .out = g->co / g->groups};
    if ((g->kw != 3 && g->kw != 5) || g->stride_h != 1 || g->stride_w != 1 || g->dilation_h != 1 || g->dilation_w != 1) return s;
    bool both = g->kw == 3 && g->kh == 3;
    s.tile_rows = both ? WINOGRAD_TILE : 1;
    s.points_down = both ? 6 : 1;
    s.points_across = g->kw + WINOGRAD_TILE - 1;
    s.points = s.points_down * s.points_across;
    s.rows = both ? 1 : g->kh;
    s.down = (int)divide_up(g->ho, s.tile_rows);
    s.across = (int)divide_up(g->wo, WINOGRAD_TILE);
    s.line = s.across * WINOGRAD_TILE + g->kw - 1;
    s.band = band_rows(&s);
    s.used = winograd_pays(g, &s);
    count_scratch(&s);
    return s;
}

/* --- sizes */

/* Floats of `channels` maps of height x width pixels with these borders around. */
static size_t bordered(int channels, int height, int width, conv_border h, conv_border w)
{
    return (size_t)channels * (size_t)(height + h.before + h.after) * (size_t)(width + w.before + w.after) * EK_LANES;
}

conv_direct_room ek_conv_direct_room(const ek_conv *g)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    conv_axis back = conv_backward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    return (conv_direct_room){
        .source = bordered(g->ci / g->groups, g->hi, g->wi, conv_axis_border(&h), conv_axis_border(&w)),
        .gradient = bordered(g->co / g->groups, g->ho, g->wo, (conv_border){0, 0}, conv_axis_border(&back)),
        .row = (size_t)(g->ci / g->groups) * (size_t)g->wi * EK_LANES,
    };
}

size_t ek_conv_scratch(const ek_conv *g)
{
    conv_winograd s = ek_conv_winograd(g);
    conv_direct_room room = ek_conv_direct_room(g);
    return s.used ? s.room : room.source + room.gradient + room.row;
}

static size_t packed(const ek_conv *g)
{
    conv_winograd s = ek_conv_winograd(g);
    size_t products = (size_t)g->co * (size_t)(g->ci / g->groups);
    return products * (s.used ? (size_t)s.points * (size_t)s.rows : (size_t)g->kh * (size_t)g->kw);
}

size_t ek_conv_packed_forward(const ek_conv *g) { return packed(g); }
size_t ek_conv_packed_backward(const ek_conv *g) { return packed(g); }
