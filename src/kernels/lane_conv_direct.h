/* Convolution of one lane block, directly: no im2col. For the shapes that minimal filtering does not serve. */

#include "kernels/conv_axis.h"

/* Channels of rows of pixels; strides in floats. */
typedef struct lane_maps {
    const float *data; /* row 0, column 0: borders lie before it */
    int64_t channel, row;
} lane_maps;

/* Channels [first, first + channels) with zeros around, in scratch; in place where nothing is to be done to them. */
static lane_maps with_border(const row_source *x, int first, int channels, int height, int width, conv_border h, conv_border w, float *scratch)
{
    size_t inner = (size_t)width * EK_LANES, row = (size_t)(w.before + width + w.after) * EK_LANES;
    int64_t at = (int64_t)first * height * (int64_t)inner;
    if (h.before + h.after + w.before + w.after == 0 && as_it_is(x))
        return (lane_maps){as_it_is(x) + at, height * (int64_t)inner, (int64_t)inner};
    size_t before = (size_t)w.before * EK_LANES, after = (size_t)w.after * EK_LANES;
    float *to = scratch;
    for (int c = 0; c < channels; c++) {
        memset(to, 0, (size_t)h.before * row * sizeof *to);
        to += (size_t)h.before * row;
        for (int y = 0; y < height; y++, at += (int64_t)inner, to += row) {
            memset(to, 0, before * sizeof *to);
            read_row(x, first + c, at, (int64_t)inner, to + before);
            memset(to + before + inner, 0, after * sizeof *to);
        }
        memset(to, 0, (size_t)h.after * row * sizeof *to);
        to += (size_t)h.after * row;
    }
    return (lane_maps){scratch + (size_t)h.before * row + before,
                       (int64_t)((size_t)(h.before + height + h.after) * row), (int64_t)row};
}

/* --- weights: [group][out][in][kh][kw]; backward the group's inputs are the outputs, and the taps run backwards */

static void pack_direct_backward(const ek_conv *g, const float *w, float *packed)
{
    int in = g->ci / g->groups, out = g->co / g->groups, taps = g->kh * g->kw;
    for (int group = 0; group < g->groups; group++, w += (int64_t)in * out * taps)
        for (int i = 0; i < in; i++)
            for (int o = 0; o < out; o++)
                for (int tap = taps - 1; tap >= 0; tap--) *packed++ = w[((int64_t)o * in + i) * taps + tap];
}

/* --- forward and input gradient: the same engine along the axes of conv_axis.h */

/* The taps first, first + step, ... that output o meets; the first reads source position `position`, each
 * next one `move` further. */
typedef struct tap_run {
    int first, step, count, position, move;
} tap_run;

/* inside: without the taps that fall outside of the source. Nothing is divided where unstride is 1. */
static tap_run find_taps(const conv_axis *a, int o, bool inside)
{
    int step = 1, start = o * a->stride - a->offset;
    tap_run run = {.step = 1, .move = a->dilation, .count = a->taps, .position = start};
    if (a->unstride > 1) {
        while (step * a->dilation % a->unstride != 0) step++;
        while (run.first < step && (start + run.first * a->dilation) % a->unstride != 0) run.first++;
        if (run.first == step || run.first >= a->taps) return (tap_run){.step = 1};
        run.step = step;
        run.move = step * a->dilation / a->unstride;
        run.count = (a->taps - run.first + step - 1) / step;
        run.position = (start + run.first * a->dilation) / a->unstride;
    }
    if (!inside) return run;
    while (run.count > 0 && run.position < 0) {
        run.first += run.step;
        run.position += run.move;
        run.count--;
    }
    while (run.count > 0 && run.position + (run.count - 1) * run.move >= a->in) run.count--;
    return run;
}

/* Row o_h of the `out` outputs of one group, for the columns phase, phase + unstride, ...: they meet the same taps. Output
 * channels lie y_channel floats apart. */
static void conv_output_row(const conv_axis *h, const conv_axis *w, lane_maps source, int in, int out, int o_h, int phase,
                            const float *packed, const float *bias, float *y, int64_t y_channel)
{
    tap_run rows = find_taps(h, o_h, true), columns = find_taps(w, phase, false);
    int taps = h->taps * w->taps;
    conv_run run = {
        .channels = rows.count && columns.count ? in : 0,
        .rows = rows.count,
        .columns = columns.count,
        .x_channel = source.channel,
        .x_row = rows.move * source.row,
        .x_column = columns.move * EK_LANES,
        .x_pixel = w->stride * EK_LANES,
        .w_out = (int64_t)in * taps,
        .w_channel = taps,
        .w_row = rows.step * w->taps,
        .w_column = columns.step,
        .y_channel = y_channel,
        .y_pixel = w->unstride * EK_LANES,
        .pixels = (w->out - phase + w->unstride - 1) / w->unstride,
    };
    const float *x = source.data;
    if (run.channels) {
        x += rows.position * source.row + columns.position * EK_LANES;
        packed += rows.first * w->taps + columns.first;
    }
    if (run.rows == 1 && run.columns == 1) { /* the inmost loop should be a long one */
        run.x_column = run.x_channel;
        run.w_column = run.w_channel;
        run.columns = run.channels;
        run.channels = 1;
    }
    conv_outputs(out, &run, x, packed, bias, y + phase * EK_LANES);
}

/* Rows outside of the source are left out, columns outside are zeros. */
static void direct_row(const conv_axis *h, const conv_axis *w, lane_maps source, int in, int out, int o_h,
                       const float *packed, const float *bias, float *y, int64_t y_channel)
{
    for (int phase = 0; phase < least(w->unstride, w->out); phase++)
        conv_output_row(h, w, source, in, out, o_h, phase, packed, bias, y, y_channel);
}

static void direct_forward(const ek_conv *g, const ek_map_in *x, const float *packed, const float *bias, float *y, int live, ek_moments *moments_out, float *scratch)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    int in = g->ci / g->groups, out = g->co / g->groups;
    int64_t y_row = (int64_t)g->wo * EK_LANES, y_map = g->ho * y_row;
    const row_source from = {.map = x};
    for (int group = 0; group < g->groups; group++) {
        lane_maps source = with_border(&from, group * in, in, g->hi, g->wi, (conv_border){0, 0}, conv_axis_border(&w), scratch);
        for (int r = 0; r < g->ho; r++)
            direct_row(&h, &w, source, in, out, r, packed, bias ? bias + group * out : NULL,
                       y + group * out * y_map + r * y_row, y_map);
        packed += (int64_t)out * in * g->kh * g->kw;
    }
    ek_slab slab = {g->co, y_map, 1, 0, live};
    if (moments_out) moments(&slab, y, moments_out);
}

/* dx, a row at a time: `room` holds a row of a group's channels. */
static void direct_data_gradient(const ek_conv *g, int group, lane_maps dy, const float *packed, const ek_grad_out *dx, float *room)
{
    conv_axis h = conv_backward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_backward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    int in = g->ci / g->groups, out = g->co / g->groups;
    int64_t row = (int64_t)g->wi * EK_LANES;
    for (int r = 0; r < g->hi; r++) {
        direct_row(&h, &w, dy, out, in, r, packed, NULL, room, row);
        for (int i = 0; i < in; i++) {
            int c = group * in + i;
            lane_sums place, *sums = begin_sums(dx, &place);
            write_gradient(dx, c, ((int64_t)c * g->hi + r) * row, row, room + i * row, sums);
            add_sums(dx, c, sums);
        }
    }
}

/* x with borders on both axes; dw [out][in*kh*kw]. */
static void direct_weight_gradient(const ek_conv *g, lane_maps x, lane_maps dy, float *dw)
{
    const weight_run run = {
        .height = g->ho,
        .width = g->wo,
        .x_row = g->stride_h * x.row,
        .x_pixel = (int64_t)g->stride_w * EK_LANES,
        .dy_row = dy.row,
        .dy_map = dy.channel,
    };
    const tap_grid grid = {g->kh, g->kw, x.channel, g->dilation_h * x.row, (int64_t)g->dilation_w * EK_LANES};
    const float *corner = x.data - g->pad_h * x.row - g->pad_w * EK_LANES;
    weight_gradient(g->co / g->groups, g->ci / g->groups * g->kh * g->kw, &grid, &run, corner, dy.data, dw);
}

static void direct_backward(const ek_conv *g, const ek_map_in *x, const ek_grad_in *dy, const float *packed, float *dw, const ek_grad_out *dx, float *scratch)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    conv_axis back = conv_backward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    int in = g->ci / g->groups, out = g->co / g->groups;
    int64_t weights = (int64_t)out * in * g->kh * g->kw;
    const row_source x_rows = {.map = x}, dy_rows = {.gradient = dy};
    conv_direct_room room = ek_conv_direct_room(g);
    float *dy_room = scratch + room.source, *row = dy_room + room.gradient;
    for (int group = 0; group < g->groups; group++) {
        lane_maps gradient = with_border(&dy_rows, group * out, out, g->ho, g->wo, (conv_border){0, 0}, conv_axis_border(&back), dy_room);
        if (dw) {
            lane_maps source = with_border(&x_rows, group * in, in, g->hi, g->wi, conv_axis_border(&h), conv_axis_border(&w), scratch);
            direct_weight_gradient(g, source, gradient, dw + group * weights);
        }
        if (dx) direct_data_gradient(g, group, gradient, packed + group * weights, dx, row);
    }
}
