/* Convolution of one lane block, directly: no im2col. Output channels times pixels stand in registers,
 * weights are broadcast. */

#include "kernels/conv_axis.h"

/* The register tile, output channels x pixels: accumulators, one weight and CONV_P pixels fit the
 * 32 (AVX-512) or 16 registers. */
#if VL == 16
#define CONV_T 6
#define CONV_P 4
#elif VL == 8
#define CONV_T 4
#define CONV_P 3
#else
#define CONV_T 2
#define CONV_P 4
#endif

static inline int least(int a, int b) { return a < b ? a : b; }

/* --- weights: [group][tile of T output channels][in][kh][kw][T], the last tile of a group as wide as
 * what is left */

static void pack_tiles(const ek_conv *g, bool backward, const float *w, float *packed)
{
    int forward_in = g->ci / g->groups, forward_out = g->co / g->groups, taps = g->kh * g->kw;
    int in = backward ? forward_out : forward_in, out = backward ? forward_in : forward_out;
    for (int group = 0; group < g->groups; group++, w += (int64_t)in * out * taps)
        for (int first = 0; first < out; first += CONV_T)
            for (int i = 0; i < in; i++)
                for (int tap = 0; tap < taps; tap++)
                    for (int o = first; o < least(first + CONV_T, out); o++)
                        *packed++ = backward ? w[((int64_t)i * out + o) * taps + taps - 1 - tap]
                                             : w[((int64_t)o * in + i) * taps + tap];
}

static void conv_pack_forward(const ek_conv *g, const float *w, float *packed) { pack_tiles(g, false, w, packed); }
static void conv_pack_backward(const ek_conv *g, const float *w, float *packed) { pack_tiles(g, true, w, packed); }

/* --- the source */

/* Channels of rows of pixels; strides in floats. */
typedef struct lane_maps {
    const float *data; /* row 0, column 0: borders lie before it */
    int64_t channel, row;
} lane_maps;

/* The maps with zeros around, in scratch; in place where no border is wanted. */
static lane_maps with_border(const float *x, int channels, int height, int width, conv_border h, conv_border w, float *scratch)
{
    if (h.before + h.after + w.before + w.after == 0)
        return (lane_maps){x, (int64_t)height * width * EK_LANES, (int64_t)width * EK_LANES};
    size_t inner = (size_t)width * EK_LANES, row = (size_t)(w.before + width + w.after) * EK_LANES;
    size_t before = (size_t)w.before * EK_LANES, after = (size_t)w.after * EK_LANES;
    float *to = scratch;
    for (int c = 0; c < channels; c++) {
        memset(to, 0, (size_t)h.before * row * sizeof *to);
        to += (size_t)h.before * row;
        for (int y = 0; y < height; y++, x += inner, to += row) {
            memset(to, 0, before * sizeof *to);
            memcpy(to + before, x, inner * sizeof *to);
            memset(to + before + inner, 0, after * sizeof *to);
        }
        memset(to, 0, (size_t)h.after * row * sizeof *to);
        to += (size_t)h.after * row;
    }
    return (lane_maps){scratch + (size_t)h.before * row + before,
                       (int64_t)((size_t)(h.before + height + h.after) * row), (int64_t)row};
}

/* --- forward and input gradient: the same engine along the axes of conv_axis.h */

/* The taps first, first + step, ... that output o meets; the first reads source position `position`, each
 * next one `move` further. */
typedef struct tap_run {
    int first, step, count, position, move;
} tap_run;

/* inside: without the taps that fall outside of the source. */
static tap_run find_taps(const conv_axis *a, int o, bool inside)
{
    int step = 1;
    while (step * a->dilation % a->unstride != 0) step++;
    tap_run run = {.step = step, .move = step * a->dilation / a->unstride};
    int start = o * a->stride - a->offset;
    while (run.first < step && (start + run.first * a->dilation) % a->unstride != 0) run.first++;
    if (run.first == step || run.first >= a->taps) return run;
    run.count = (a->taps - run.first + step - 1) / step;
    run.position = (start + run.first * a->dilation) / a->unstride;
    if (!inside) return run;
    while (run.count > 0 && run.position < 0) {
        run.first += step;
        run.position += run.move;
        run.count--;
    }
    while (run.count > 0 && run.position + (run.count - 1) * run.move >= a->in) run.count--;
    return run;
}

/* What the tiles of one output row share; strides in floats, those of weights in taps. */
typedef struct conv_row {
    int channels, rows, columns; /* to sum over */
    int64_t x_channel, x_row, x_column, x_pixel;
    int64_t w_channel, w_row, w_column;
    int64_t y_channel, y_pixel;
    int pixels;
} conv_row;

/* y[t][p] = bias[t] + sum over channels, rows and columns of weight[t] * x[p] */
TEMPLATE void conv_tile(const int T, const int P, const conv_row *g, const float *x, const float *w, const float *bias, float *y)
{
    vf sum[CONV_T][CONV_P];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < P; p++) sum[t][p] = splat(bias ? bias[t] : 0.0f);
    for (int i = 0; i < g->channels; i++)
        for (int r = 0; r < g->rows; r++) {
            const float *pixel = x + i * g->x_channel + r * g->x_row;
            const float *weight = w + (i * g->w_channel + r * g->w_row) * T;
            for (int c = 0; c < g->columns; c++, pixel += g->x_column, weight += g->w_column * T) {
                vf v[CONV_P];
                UNROLL for (int p = 0; p < P; p++) v[p] = load(pixel + p * g->x_pixel);
                UNROLL for (int t = 0; t < T; t++)
                    UNROLL for (int p = 0; p < P; p++) sum[t][p] += v[p] * weight[t];
            }
        }
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < P; p++) store(y + t * g->y_channel + p * g->y_pixel, sum[t][p]);
}

TEMPLATE void conv_pixels(const int T, const conv_row *g, const float *x, const float *w, const float *bias, float *y)
{
    int left = g->pixels;
    for (; left >= CONV_P; left -= CONV_P, x += CONV_P * g->x_pixel, y += CONV_P * g->y_pixel)
        conv_tile(T, CONV_P, g, x, w, bias, y);
    switch (left) {
#if CONV_P > 3
    case 3: conv_tile(T, 3, g, x, w, bias, y); break;
#endif
    case 2: conv_tile(T, 2, g, x, w, bias, y); break;
    case 1: conv_tile(T, 1, g, x, w, bias, y); break;
    default: break;
    }
}

static void conv_row_tile(int T, const conv_row *g, const float *x, const float *w, const float *bias, float *y)
{
    switch (T) {
#if CONV_T > 4
    case 6: conv_pixels(6, g, x, w, bias, y); break;
    case 5: conv_pixels(5, g, x, w, bias, y); break;
#endif
#if CONV_T > 2
    case 4: conv_pixels(4, g, x, w, bias, y); break;
    case 3: conv_pixels(3, g, x, w, bias, y); break;
#endif
    case 2: conv_pixels(2, g, x, w, bias, y); break;
    default: conv_pixels(1, g, x, w, bias, y); break;
    }
}

/* One output row of one group, for the outputs phase, phase + unstride, ...: they meet the same taps. */
static void conv_output_row(const conv_axis *h, const conv_axis *w, lane_maps source, int in, int out, int o_h, int phase,
                            const float *packed, const float *bias, float *y)
{
    tap_run rows = find_taps(h, o_h, true), columns = find_taps(w, phase, false);
    int taps = h->taps * w->taps;
    const conv_row row = {
        .channels = rows.count && columns.count ? in : 0,
        .rows = rows.count,
        .columns = columns.count,
        .x_channel = source.channel,
        .x_row = rows.move * source.row,
        .x_column = columns.move * EK_LANES,
        .x_pixel = w->stride * EK_LANES,
        .w_channel = taps,
        .w_row = rows.step * w->taps,
        .w_column = columns.step,
        .y_channel = (int64_t)h->out * w->out * EK_LANES,
        .y_pixel = w->unstride * EK_LANES,
        .pixels = (w->out - phase + w->unstride - 1) / w->unstride,
    };
    const float *x = source.data;
    if (row.channels) x += rows.position * source.row + columns.position * EK_LANES;
    int first_tap = row.channels ? rows.first * w->taps + columns.first : 0;
    y += ((int64_t)o_h * w->out + phase) * EK_LANES;
    for (int part = 0; part < EK_LANES; part += VL)
        for (int first = 0; first < out; first += CONV_T) {
            int T = least(CONV_T, out - first);
            conv_row_tile(T, &row, x + part, packed + (int64_t)first * in * taps + first_tap * T,
                          bias ? bias + first : NULL, y + first * row.y_channel + part);
        }
}

/* `in` and `out` are a group's channels. Rows outside of the source are left out, columns outside are zeros. */
static void convolve(const conv_axis *h, const conv_axis *w, int groups, int in, int out, const float *x,
                     const float *packed, const float *bias, float *y, float *scratch)
{
    conv_border none = {0, 0}, border = conv_axis_border(w);
    for (int group = 0; group < groups; group++) {
        lane_maps source = with_border(x, in, h->in, w->in, none, border, scratch);
        for (int o_h = 0; o_h < h->out; o_h++)
            for (int phase = 0; phase < least(w->unstride, w->out); phase++)
                conv_output_row(h, w, source, in, out, o_h, phase, packed, bias, y);
        x += (int64_t)in * h->in * w->in * EK_LANES;
        y += (int64_t)out * h->out * w->out * EK_LANES;
        packed += (int64_t)out * in * h->taps * w->taps;
        if (bias) bias += out;
    }
}

static void conv_forward_plain(const ek_conv *g, const float *x, const float *packed, const float *bias, float *y, float *scratch)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    convolve(&h, &w, g->groups, g->ci / g->groups, g->co / g->groups, x, packed, bias, y, scratch);
}

static void conv_backward_data(const ek_conv *g, const float *dy, const float *packed, float *dx, float *scratch)
{
    conv_axis h = conv_backward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_backward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    convolve(&h, &w, g->groups, g->co / g->groups, g->ci / g->groups, dy, packed, NULL, dx, scratch);
}

/* --- weight gradient: output channels times taps stand in registers while the pixels pass */

typedef struct weight_run {
    int height, width;              /* of dy */
    int64_t x_row, x_pixel, dy_map; /* floats: a step down, a step right; from channel to channel */
} weight_run;

/* dw[t][k] += sum over pixels and lanes of dy[t] * x[tap k]; dw rows are `stride` apart. */
TEMPLATE void weight_tile(const int T, const int K, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    enum { VECTORS = (CONV_T * CONV_P + VL - 1) / VL * VL };
    vf sum[CONV_T][CONV_P];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int k = 0; k < K; k++) sum[t][k] = splat(0.0f);
    for (int r = 0; r < g->height; r++, x += g->x_row) {
        const float *pixel = x;
        for (int c = 0; c < g->width; c++, pixel += g->x_pixel)
            for (int part = 0; part < EK_LANES; part += VL, dy += VL) {
                vf v[CONV_P];
                UNROLL for (int k = 0; k < K; k++) v[k] = load(pixel + tap[k] + part);
                UNROLL for (int t = 0; t < T; t++) {
                    vf d = load(dy + t * g->dy_map);
                    UNROLL for (int k = 0; k < K; k++) sum[t][k] += d * v[k];
                }
            }
    }
    vf each[VECTORS] = {{0}};
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int k = 0; k < K; k++) each[t * K + k] = sum[t][k];
    float total[VECTORS];
    for (int i = 0; i < T * K; i += VL) store(total + i, sum_each(each + i));
    for (int t = 0; t < T; t++)
        for (int k = 0; k < K; k++) dw[t * stride + k] += total[t * K + k];
}

TEMPLATE void weight_taps(const int T, int K, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    switch (K) {
#if CONV_P > 3
    case 4: weight_tile(T, 4, g, x, tap, dy, dw, stride); break;
#endif
    case 3: weight_tile(T, 3, g, x, tap, dy, dw, stride); break;
    case 2: weight_tile(T, 2, g, x, tap, dy, dw, stride); break;
    default: weight_tile(T, 1, g, x, tap, dy, dw, stride); break;
    }
}

static void weight_channels(int T, int K, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    switch (T) {
#if CONV_T > 4
    case 6: weight_taps(6, K, g, x, tap, dy, dw, stride); break;
    case 5: weight_taps(5, K, g, x, tap, dy, dw, stride); break;
#endif
#if CONV_T > 2
    case 4: weight_taps(4, K, g, x, tap, dy, dw, stride); break;
    case 3: weight_taps(3, K, g, x, tap, dy, dw, stride); break;
#endif
    case 2: weight_taps(2, K, g, x, tap, dy, dw, stride); break;
    default: weight_taps(1, K, g, x, tap, dy, dw, stride); break;
    }
}

/* One group: x its source with borders, dw [out][in*kh*kw]. */
static void weight_group(const ek_conv *g, lane_maps x, const float *dy, float *dw)
{
    const weight_run run = {
        .height = g->ho,
        .width = g->wo,
        .x_row = g->stride_h * x.row,
        .x_pixel = (int64_t)g->stride_w * EK_LANES,
        .dy_map = (int64_t)g->ho * g->wo * EK_LANES,
    };
    int out = g->co / g->groups, taps = g->kh * g->kw, all = g->ci / g->groups * taps;
    const float *corner = x.data - g->pad_h * x.row - g->pad_w * EK_LANES;
    for (int o = 0; o < out; o += CONV_T)
        for (int first = 0; first < all; first += CONV_P) {
            int T = least(CONV_T, out - o), K = least(CONV_P, all - first);
            int64_t tap[CONV_P];
            for (int k = 0; k < K; k++) {
                int in = (first + k) / taps, row = (first + k) % taps / g->kw, column = (first + k) % g->kw;
                tap[k] = in * x.channel + row * g->dilation_h * x.row + (int64_t)column * g->dilation_w * EK_LANES;
            }
            weight_channels(T, K, &run, corner, tap, dy + o * run.dy_map, dw + (int64_t)o * all + first, all);
        }
}

static void add_channel_sums(int channels, int64_t map, const float *dy, float *sums)
{
    for (int c = 0; c < channels; c++, dy += map) sums[c] += (float)sum_of(map, dy);
}

static void conv_backward_weights(const ek_conv *g, const float *x, const float *dy, float *dw, float *dbias, float *scratch)
{
    conv_axis h = conv_forward_axis(g->ho, g->hi, g->kh, g->stride_h, g->dilation_h, g->pad_h);
    conv_axis w = conv_forward_axis(g->wo, g->wi, g->kw, g->stride_w, g->dilation_w, g->pad_w);
    int in = g->ci / g->groups, out = g->co / g->groups;
    int64_t x_map = (int64_t)g->hi * g->wi * EK_LANES, dy_map = (int64_t)g->ho * g->wo * EK_LANES;
    for (int group = 0; group < g->groups; group++) {
        lane_maps source = with_border(x + group * in * x_map, in, g->hi, g->wi, conv_axis_border(&h), conv_axis_border(&w), scratch);
        weight_group(g, source, dy + group * out * dy_map, dw + (int64_t)group * out * in * g->kh * g->kw);
    }
    if (dbias) add_channel_sums(g->co, dy_map, dy, dbias);
}

static void conv_forward(const ek_conv *g, const ek_map_in *x, const float *packed, const float *bias, float *y, int live, ek_moments *out, float *scratch)
{
    int64_t in = (int64_t)g->hi * g->wi * EK_LANES, outl = (int64_t)g->ho * g->wo * EK_LANES;
    float *map = __builtin_malloc((size_t)(in * g->ci) * 4);
    ek_slab sx = {g->ci, in, 1, 0, x->live}, sy = {g->co, outl, 1, 0, live};
    map_read(&sx, x, map);
    conv_forward_plain(g, map, packed, bias, y, scratch);
    if (out) moments(&sy, y, out);
    __builtin_free(map);
}
static void conv_backward(const ek_conv *g, const ek_map_in *x, const ek_grad_in *dy, const float *packed, float *dw, float *dbias, const ek_grad_out *dx, float *scratch)
{
    int64_t in = (int64_t)g->hi * g->wi * EK_LANES, outl = (int64_t)g->ho * g->wo * EK_LANES;
    float *map = __builtin_malloc((size_t)(in * g->ci) * 4), *d = __builtin_malloc((size_t)(outl * g->co) * 4), *dv = __builtin_malloc((size_t)(in * g->ci) * 4);
    ek_slab sx = {g->ci, in, 1, 0, x->live}, sy = {g->co, outl, 1, 0, dy->live};
    map_read(&sx, x, map);
    grad_read(&sy, dy, d);
    conv_backward_weights(g, map, d, dw, dbias, scratch);
    if (dx) {
        conv_backward_data(g, d, packed, dv, scratch);
        grad_write(&sx, dx, dv);
    }
    __builtin_free(map), __builtin_free(d), __builtin_free(dv);
}
