#include "kernels/kernels.h"

#include "kernels/conv_axis.h"

/* Floats of `channels` maps of height x width pixels with these borders around; 0 where there are none,
 * because then the maps are read in place. */
static size_t bordered(int channels, int height, int width, conv_border h, conv_border w)
{
    if (h.before + h.after + w.before + w.after == 0) return 0;
    return (size_t)channels * (size_t)(height + h.before + h.after) * (size_t)(width + w.before + w.after) *
           EK_LANES;
}

/* The weight gradient wants borders on both axes, so its need covers the forward pass; the gradient of the
 * input skips rows outside and wants them on the width alone. One group at a time. */
size_t ek_conv_scratch(const ek_conv *g)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    conv_axis back = conv_backward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    size_t weights = bordered(g->ci / g->groups, g->hi, g->wi, conv_axis_border(&h), conv_axis_border(&w));
    size_t data = bordered(g->co / g->groups, g->ho, g->wo, (conv_border){0, 0}, conv_axis_border(&back));
    return weights > data ? weights : data;
}

static size_t weight_count(const ek_conv *g)
{
    return (size_t)g->co * (size_t)(g->ci / g->groups) * (size_t)g->kh * (size_t)g->kw;
}

size_t ek_conv_packed_forward(const ek_conv *g) { return weight_count(g); }
size_t ek_conv_packed_backward(const ek_conv *g) { return weight_count(g); }

size_t ek_pool_scratch(const ek_window *g) { return (size_t)g->hi * (size_t)g->wi * EK_LANES; }
