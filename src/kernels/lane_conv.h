/* Convolution of one lane block. */

#include "kernels/conv_plan.h"

#include "kernels/lane_conv_tile.h"
#include "kernels/lane_conv_rows.h"
#include "kernels/lane_conv_direct.h"
#include "kernels/lane_winograd_points.h"
#include "kernels/lane_winograd.h"
#include "kernels/lane_winograd_weights.h"
#include "kernels/lane_winograd_passes.h"

static void conv_pack_forward(const ek_conv *g, const float *w, float *packed)
{
    conv_winograd s = ek_conv_winograd(g);
    if (s.used) winograd_pack(g, &s, false, w, packed);
    else memcpy(packed, w, ek_conv_packed_forward(g) * sizeof *w);
}

static void conv_pack_backward(const ek_conv *g, const float *w, float *packed)
{
    conv_winograd s = ek_conv_winograd(g);
    if (s.used) winograd_pack(g, &s, true, w, packed);
    else pack_direct_backward(g, w, packed);
}

static void conv_forward(const ek_conv *g, const ek_map_in *x, const float *packed, const float *bias, float *y, int live, ek_moments *moments_out, float *scratch)
{
    conv_winograd s = ek_conv_winograd(g);
    if (s.used) winograd_forward(g, &s, x, packed, bias, y, live, moments_out, scratch);
    else direct_forward(g, x, packed, bias, y, live, moments_out, scratch);
}

/* dbias += the sums of dy; `row` is room for one row. */
static void add_bias_gradient(const ek_conv *g, const ek_grad_in *dy, float *dbias, float *row)
{
    int64_t count = (int64_t)g->wo * EK_LANES, at = 0;
    for (int o = 0; o < g->co; o++) {
        double sum = 0;
        for (int r = 0; r < g->ho; r++, at += count) {
            read_gradient(dy, o, at, count, row);
            sum += sum_of(count, row);
        }
        dbias[o] += (float)sum;
    }
}

static void conv_backward(const ek_conv *g, const ek_map_in *x, const ek_grad_in *dy, const float *packed, float *dw, float *dbias, const ek_grad_out *dx, float *scratch)
{
    conv_winograd s = ek_conv_winograd(g);
    if (dbias) add_bias_gradient(g, dy, dbias, scratch);
    if (dx) clear_sums(dx);
    if (s.used) winograd_backward(g, &s, x, dy, packed, dw, dx, scratch);
    else direct_backward(g, x, dy, packed, dw, dx, scratch);
}
