/* Options of layers: the windows of convolutions and pools, whatever their options are called, and axes. */
#include "ccode/ccode.h"

#include <string.h>

double ek_cc_option(const ek_node *node, const char *name, int d, double fallback)
{
    int i = ek_op_attr(node->op, name);
    if (i < 0) return fallback;
    bool pair = node->op->attrs[i].type == EK_ATTR_PAIR;
    return node->attr[i].v[pair ? d : 0];
}

ek_cc_axis ek_cc_axis_of(const ek_node *node)
{
    int at = (int)ek_cc_option(node, "axis", 0, 0);
    ek_cc_axis axis = {1, (int)node->out.dim[at], 1};
    for (int d = 0; d < at; d++) axis.outer *= (int)node->out.dim[d];
    for (int d = at + 1; d < node->out.rank; d++) axis.step *= (int)node->out.dim[d];
    return axis;
}

static int pick(const ek_node *node, const char *name, int d, int fallback)
{
    return (int)ek_cc_option(node, name, d, fallback);
}

/* What is not given is as the padding above and left. */
static int end_of(const ek_node *node, int d)
{
    int i = ek_op_attr(node->op, "padding_end");
    return i >= 0 && node->attr[i].given ? pick(node, "padding_end", d, 0) : pick(node, "padding", d, 0);
}

static bool has_taps_outside(const ek_cc_window *g)
{
    int last_h = (g->ho - 1) * g->stride_h - g->pad_h + (g->kh - 1) * g->dilation_h;
    int last_w = (g->wo - 1) * g->stride_w - g->pad_w + (g->kw - 1) * g->dilation_w;
    return g->pad_h || g->pad_w || last_h >= g->hi || last_w >= g->wi;
}

ek_cc_window ek_cc_window_of(const ek_node *node)
{
    ek_shape in = node->in[0], out = node->out;
    bool row = in.rank == 2, global = !strcmp(node->op->name, "globalavgpool");
    int d = row ? 0 : 1; /* of the columns' numbers; of a window of a row both are the same */
    ek_cc_window g = {.ci = (int)in.dim[0],
                   .hi = row ? 1 : (int)in.dim[1],
                   .wi = (int)in.dim[in.rank - 1],
                   .co = (int)out.dim[0],
                   .ho = row ? 1 : (int)out.dim[1],
                   .wo = (int)out.dim[out.rank - 1],
                   .kh = 1, .kw = 1, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1,
                   .groups = pick(node, "groups", 0, 1)};
    if (global) {
        g.kh = g.hi;
        g.kw = g.wi;
        return g;
    }
    g.kw = pick(node, "kernel", d, 1);
    g.stride_w = pick(node, "stride", d, 0);
    if (g.stride_w == 0) g.stride_w = g.kw; /* a pool's default */
    g.pad_w = pick(node, "padding", d, 0);
    g.end_w = end_of(node, d);
    g.dilation_w = pick(node, "dilation", d, 1);
    if (!row) {
        g.kh = pick(node, "kernel", 0, 1);
        g.stride_h = pick(node, "stride", 0, 0);
        if (g.stride_h == 0) g.stride_h = g.kh;
        g.pad_h = pick(node, "padding", 0, 0);
        g.end_h = end_of(node, 0);
        g.dilation_h = pick(node, "dilation", 0, 1);
    }
    g.padded = has_taps_outside(&g);
    return g;
}
