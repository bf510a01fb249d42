/* Every table of lane kernels that this machine runs, against plain loops in double. */
#include "testing.h"

#include "guarded.h"

#include "core/threads.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const ek_kernels *tables[3];
static int table_count;

static int find_tables(void **state)
{
    (void)state;
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < COUNT(names); i++)
        if (ek_kernels_choose(names[i], &tables[table_count]) == EK_OK) table_count++;
    return table_count > 0 ? 0 : -1;
}

static int free_memory(void **state)
{
    (void)state;
    guarded_free();
    return 0;
}

#define FOR_EACH_TABLE(k) \
    for (const ek_kernels *const *k##_ = tables, *k; k##_ < tables + table_count && (k = *k##_, true); k##_++)

/* --- data */

static uint32_t seed = 1;

static float uniform(void) /* [-1, 1) */
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1.0f;
}

static float *zeros(int64_t count) { return guarded((size_t)count * sizeof(float)); }
static double *doubles(int64_t count) { return guarded((size_t)count * sizeof(double)); }

static float *noise(int64_t count)
{
    float *x = zeros(count);
    for (int64_t i = 0; i < count; i++) x[i] = uniform();
    return x;
}

static float *copy(int64_t count, const float *x)
{
    float *y = zeros(count);
    memcpy(y, x, (size_t)count * sizeof *x);
    return y;
}

static void check(const ek_kernels *k, const char *what, int64_t i, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance) && !(isnan(got) && isnan(want)) && got != want)
        fail_msg("%s, %s[%lld]: %.9g, not %.9g (within %.3g)", k->name, what, (long long)i, got, want,
                 tolerance);
}

/* A sum of products in float against double: within 2e-6 of the sum of the products' magnitudes. */
typedef struct reference {
    int64_t count;
    double *sum, *magnitude;
} reference;

static reference new_reference(int64_t count) { return (reference){count, doubles(count), doubles(count)}; }

static void add_to(reference *r, int64_t i, double product)
{
    r->sum[i] += product;
    r->magnitude[i] += fabs(product);
}

static void check_sums(const ek_kernels *k, const char *what, const reference *r, const float *got)
{
    for (int64_t i = 0; i < r->count; i++) check(k, what, i, got[i], r->sum[i], 2e-6 * r->magnitude[i]);
}

/* --- convolution */

/* ci hi wi co, then kernel, stride, padding, dilation by axis, groups; the output is computed. */
static const struct conv_case {
    int ci, hi, wi, co, kh, kw, sh, sw, ph, pw, dh, dw, groups;
} conv_cases[] = {
    {1, 28, 28, 6, 5, 5, 1, 1, 0, 0, 1, 1, 1}, /* LeNet */
    {6, 12, 12, 16, 5, 5, 1, 1, 0, 0, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1},
    {3, 8, 9, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1}, /* odd everything */
    {13, 5, 7, 11, 1, 1, 1, 1, 0, 0, 1, 1, 1},  {4, 9, 11, 8, 3, 2, 1, 1, 0, 1, 1, 1, 1},
    {3, 9, 9, 5, 3, 3, 2, 2, 1, 1, 1, 1, 1},   /* strides */
    {4, 8, 8, 4, 1, 1, 2, 2, 0, 0, 1, 1, 1},   /* most of the input never read */
    {2, 11, 13, 3, 3, 5, 3, 2, 0, 2, 1, 1, 1}, /* a rest at the edge never read */
    {2, 10, 10, 3, 2, 2, 5, 4, 0, 0, 1, 1, 1}, /* stride beyond the kernel */
    {3, 12, 11, 4, 3, 3, 1, 1, 2, 2, 2, 2, 1}, /* dilation */
    {2, 13, 14, 3, 3, 3, 2, 3, 2, 3, 2, 3, 1}, /* stride and dilation with common divisors */
    {2, 13, 14, 3, 3, 4, 4, 6, 3, 2, 2, 4, 1},  {2, 15, 9, 3, 3, 2, 3, 2, 1, 0, 2, 3, 1},
    {2, 3, 4, 3, 3, 3, 1, 1, 4, 5, 1, 1, 1}, /* outputs that see only padding */
    {1, 2, 2, 2, 5, 5, 1, 1, 2, 2, 1, 1, 1}, /* kernel larger than the input */
    {8, 6, 7, 8, 3, 3, 1, 1, 1, 1, 1, 1, 8}, /* depthwise */
    {5, 7, 6, 10, 3, 3, 2, 2, 1, 1, 1, 1, 5},   {6, 6, 6, 9, 3, 3, 1, 1, 1, 1, 1, 1, 3}, /* groups */
    {17, 4, 4, 19, 3, 3, 1, 1, 1, 1, 1, 1, 1},
    /* minimal filtering: tiles that reach beyond the edges, several bands, one channel, more than a vector of them */
    {16, 32, 32, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1}, {20, 13, 10, 37, 3, 3, 1, 1, 0, 2, 1, 1, 1},
    {3, 17, 34, 70, 3, 3, 1, 1, 2, 0, 1, 1, 1},  {6, 8, 7, 6, 3, 3, 1, 1, 1, 1, 1, 1, 2},
    {34, 9, 9, 18, 3, 3, 1, 1, 1, 1, 1, 1, 2},   {7, 9, 14, 5, 5, 5, 1, 1, 2, 2, 1, 1, 1},
    {12, 40, 41, 9, 5, 5, 1, 1, 4, 6, 1, 1, 1},  {10, 30, 29, 10, 5, 3, 1, 1, 1, 0, 1, 1, 1},
    {5, 6, 21, 9, 1, 5, 1, 1, 0, 1, 1, 1, 1},    {9, 11, 12, 8, 7, 3, 1, 1, 5, 1, 1, 1, 1},
    {4, 6, 9, 6, 2, 5, 1, 1, 2, 3, 1, 1, 2},
};

static ek_conv conv_of(const struct conv_case *c)
{
    return (ek_conv){
        .ci = c->ci,
        .hi = c->hi,
        .wi = c->wi,
        .co = c->co,
        .ho = (c->hi + 2 * c->ph - c->dh * (c->kh - 1) - 1) / c->sh + 1,
        .wo = (c->wi + 2 * c->pw - c->dw * (c->kw - 1) - 1) / c->sw + 1,
        .kh = c->kh,
        .kw = c->kw,
        .stride_h = c->sh,
        .stride_w = c->sw,
        .pad_h = c->ph,
        .pad_w = c->pw,
        .dilation_h = c->dh,
        .dilation_w = c->dw,
        .groups = c->groups,
    };
}

static int64_t weight_count(const ek_conv *g) { return (int64_t)g->co * (g->ci / g->groups) * g->kh * g->kw; }

/* All three passes: each product of an input, a weight and an output gradient that meet. */
static void conv_reference(const ek_conv *g, const float *x, const float *w, const float *dy, reference *y,
                           reference *dx, reference *dweight)
{
    int in = g->ci / g->groups, out = g->co / g->groups;
    for (int o = 0; o < g->co; o++)
        for (int i = 0; i < in; i++)
            for (int kh = 0; kh < g->kh; kh++)
                for (int kw = 0; kw < g->kw; kw++) {
                    int64_t wi = (((int64_t)o * in + i) * g->kh + kh) * g->kw + kw;
                    for (int oh = 0; oh < g->ho; oh++)
                        for (int ow = 0; ow < g->wo; ow++) {
                            int h = oh * g->stride_h + kh * g->dilation_h - g->pad_h;
                            int v = ow * g->stride_w + kw * g->dilation_w - g->pad_w;
                            if (h < 0 || h >= g->hi || v < 0 || v >= g->wi) continue;
                            int64_t xi = (((int64_t)(o / out * in + i) * g->hi + h) * g->wi + v) * EK_LANES;
                            int64_t yi = (((int64_t)o * g->ho + oh) * g->wo + ow) * EK_LANES;
                            for (int lane = 0; lane < EK_LANES; lane++, xi++, yi++) {
                                add_to(y, yi, (double)x[xi] * w[wi]);
                                add_to(dx, xi, (double)dy[yi] * w[wi]);
                                add_to(dweight, wi, (double)dy[yi] * x[xi]);
                            }
                        }
                }
}

/* Minimal filtering takes sums and differences of neighbours, so an element's rounding error goes with the magnitudes around
 * it, not with its own alone. */
#define NEAR 2e-6
static void check_near(const ek_kernels *k, const char *what, const reference *r, const float *got)
{
    double largest = 0;
    for (int64_t i = 0; i < r->count; i++) largest = fmax(largest, r->magnitude[i]);
    for (int64_t i = 0; i < r->count; i++) check(k, what, i, got[i], r->sum[i], NEAR * largest);
}

/* A map that is read through BN and ReLU, its dead lanes as 0, and a gradient through a BN's formula: what the kernels make
 * of them on the way is made here in float beforehand. */
typedef struct conv_input {
    ek_map_in x;
    ek_grad_in dy;
    float *x_seen, *dy_seen;
} conv_input;

static conv_input make_input(const ek_conv *g, bool through, int live)
{
    int64_t x_map = (int64_t)g->hi * g->wi * EK_LANES, y_map = (int64_t)g->ho * g->wo * EK_LANES;
    conv_input in = {.x = {.x = noise(g->ci * x_map), .live = EK_LANES}, .dy = {.g = noise(g->co * y_map), .live = EK_LANES}};
    in.x_seen = copy(g->ci * x_map, in.x.x);
    in.dy_seen = copy(g->co * y_map, in.dy.g);
    if (!through) return in;
    in.x.mean = noise(g->ci);
    in.x.a = noise(g->ci);
    in.x.b = noise(g->ci);
    in.x.activation = EK_RELU;
    in.x.live = in.dy.live = live;
    in.dy.x = noise(g->co * y_map);
    in.dy.mean = noise(g->co);
    in.dy.a = noise(g->co);
    in.dy.b = noise(g->co);
    in.dy.c = noise(g->co);
    for (int64_t i = 0; i < g->ci * x_map; i++) {
        int64_t c = i / x_map;
        float v = (in.x.x[i] - in.x.mean[c]) * in.x.a[c] + in.x.b[c];
        in.x_seen[i] = i % EK_LANES < live && v > 0 ? v : 0;
    }
    for (int64_t i = 0; i < g->co * y_map; i++) {
        int64_t c = i / y_map;
        float v = in.dy.a[c] * in.dy.g[i] + (in.dy.b[c] * (in.dy.x[i] - in.dy.mean[c]) + in.dy.c[c]);
        in.dy_seen[i] = i % EK_LANES < live ? v : 0;
    }
    return in;
}

static void fill_nan(int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i++) x[i] = NAN;
}

static void check_map_moments(const ek_kernels *k, int channels, int64_t map, int live, const float *y, const ek_moments *got)
{
    for (int c = 0; c < channels; c++, y += map) {
        double sum = 0, squares = 0, n = (double)(map / EK_LANES * live);
        for (int64_t i = 0; i < map; i++)
            if (i % EK_LANES < live) sum += y[i];
        for (int64_t i = 0; i < map; i++)
            if (i % EK_LANES < live) squares += (y[i] - sum / n) * (y[i] - sum / n);
        check(k, "count", c, got[c].count, n, 0);
        check(k, "mean", c, got[c].mean, sum / n, 1e-6 * (fabs(sum / n) + sqrt(squares / n)));
        check(k, "m2", c, got[c].m2, squares, 1e-5 * squares);
    }
}

/* g = (dx + addend) * f' for x read through BN and ReLU, and its sums. Where v is all but 0 the sign may differ. */
static void check_written(const ek_kernels *k, const ek_conv *g, const conv_input *in, const reference *dx, const float *addend,
                          const float *got, const double *sums)
{
    int64_t map = (int64_t)g->hi * g->wi * EK_LANES;
    double largest = 0;
    for (int64_t i = 0; i < g->ci * map; i++) largest = fmax(largest, dx->magnitude[i]);
    for (int c = 0; c < g->ci; c++) {
        double sum = 0, product = 0, magnitude = 0;
        for (int64_t i = c * map; i < (c + 1) * map; i++) {
            double want = in->x_seen[i] > 0 ? dx->sum[i] + addend[i] : 0;
            check(k, "g", i, got[i], want, NEAR * (largest + fabs(addend[i])));
            sum += got[i];
            product += got[i] * ((double)in->x.x[i] - in->x.mean[c]);
            magnitude += fabs(got[i]) * 3;
        }
        check(k, "sum of g", c, sums[c], sum, 1e-6 * magnitude);
        check(k, "sum of g x", c, sums[g->ci + c], product, 1e-6 * magnitude);
    }
}

static void check_conv(const struct conv_case *c, bool through)
{
    ek_conv g = conv_of(c);
    int64_t x_count = (int64_t)g.ci * g.hi * g.wi * EK_LANES, map = (int64_t)g.ho * g.wo * EK_LANES,
            y_count = g.co * map, w_count = weight_count(&g);
    int live = through ? 11 : EK_LANES;
    conv_input in = make_input(&g, through, live);
    float *w = noise(w_count), *bias = noise(g.co), *before = noise(w_count), *addend = noise(x_count);
    float *y = zeros(y_count), *dx = zeros(x_count), *dw = zeros(w_count), *dbias = zeros(g.co);
    float *forward = zeros((int64_t)ek_conv_packed_forward(&g)),
          *backward = zeros((int64_t)ek_conv_packed_backward(&g));
    float *scratch = zeros((int64_t)ek_conv_scratch(&g));
    double *sums = doubles(2 * g.ci);
    ek_moments *got = guarded((size_t)g.co * sizeof *got);
    reference y_ref = new_reference(y_count), dx_ref = new_reference(x_count),
              dw_ref = new_reference(w_count), dbias_ref = new_reference(g.co);
    conv_reference(&g, in.x_seen, w, in.dy_seen, &y_ref, &dx_ref, &dw_ref);
    for (int64_t i = 0; i < y_count; i++) add_to(&dbias_ref, i / map, in.dy_seen[i]);
    for (int64_t i = 0; i < w_count; i++) add_to(&dw_ref, i, before[i]);
    for (int64_t i = 0; i < x_count; i++)
        if (i % EK_LANES >= live) addend[i] = 0;

    FOR_EACH_TABLE(k)
    {
        /* Whatever scratch and outputs held before must not show. */
        fill_nan((int64_t)ek_conv_scratch(&g), scratch);
        fill_nan(y_count, y);
        k->conv_pack_forward(&g, w, forward);
        k->conv_forward(&g, &in.x, forward, NULL, y, live, got, scratch);
        check_near(k, "y", &y_ref, y);
        check_map_moments(k, g.co, map, live, y, got);

        k->conv_pack_backward(&g, w, backward);
        ek_grad_out plain = {.g = dx, .channels = g.ci};
        fill_nan((int64_t)ek_conv_scratch(&g), scratch);
        fill_nan(x_count, dx);
        memset(dbias, 0, (size_t)g.co * sizeof *dbias);
        memcpy(dw, before, (size_t)w_count * sizeof *dw);
        k->conv_backward(&g, &in.x, &in.dy, backward, dw, dbias, &plain, scratch);
        check_near(k, "dx", &dx_ref, dx);
        check_near(k, "dw", &dw_ref, dw);
        check_sums(k, "dbias", &dbias_ref, dbias);
        memcpy(dw, before, (size_t)w_count * sizeof *dw);
        k->conv_backward(&g, &in.x, &in.dy, NULL, dw, NULL, NULL, scratch);
        check_near(k, "dw alone", &dw_ref, dw);

        if (!through) continue;
        ek_grad_out full = {.g = dx, .addend = addend, .value = in.x, .sums = sums, .channels = g.ci};
        fill_nan(x_count, dx);
        k->conv_backward(&g, &in.x, &in.dy, backward, dw, NULL, &full, scratch);
        check_written(k, &g, &in, &dx_ref, addend, dx, sums);
    }
    for (int64_t i = 0; i < y_count; i++) add_to(&y_ref, i, bias[i / map]);
    FOR_EACH_TABLE(k)
    {
        k->conv_pack_forward(&g, w, forward);
        k->conv_forward(&g, &in.x, forward, bias, y, live, NULL, scratch);
        check_near(k, "y with bias", &y_ref, y);
    }
    guarded_free();
}

static void convolution_matches_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(conv_cases); i++) check_conv(&conv_cases[i], false);
}

static void convolution_reads_and_writes_through_batch_norm(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(conv_cases); i++) check_conv(&conv_cases[i], true);
}

/* --- pooling */

/* c hi wi ho wo, window, stride, padding before and behind, count_pad. The last ones reach beyond the padding. */
static const struct window_case {
    int c, hi, wi, ho, wo, kh, kw, sh, sw, ph, pw, eh, ew;
    bool count_pad;
} window_cases[] = {
    {3, 8, 6, 4, 3, 2, 2, 2, 2, 0, 0, 0, 0, true},   {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, true},
    {2, 9, 7, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, true},   {2, 9, 7, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, false},
    {1, 7, 11, 7, 12, 3, 2, 1, 1, 1, 1, 1, 1, false}, {5, 8, 8, 1, 1, 8, 8, 8, 8, 0, 0, 0, 0, true},
    {2, 10, 5, 3, 2, 2, 1, 4, 3, 0, 0, 0, 0, true},  {2, 5, 6, 6, 5, 3, 2, 1, 1, 2, 0, 1, 0, true},
    {1, 5, 7, 3, 4, 2, 3, 2, 2, 0, 1, 0, 0, true},   {3, 8, 5, 3, 2, 3, 3, 3, 3, 0, 0, 0, 1, true},
    {3, 8, 5, 3, 2, 3, 3, 3, 3, 0, 0, 0, 0, false},
};

static ek_window window_of(const struct window_case *c)
{
    return (ek_window){
        .c = c->c,
        .hi = c->hi,
        .wi = c->wi,
        .ho = c->ho,
        .wo = c->wo,
        .kh = c->kh,
        .kw = c->kw,
        .stride_h = c->sh,
        .stride_w = c->sw,
        .pad_h = c->ph,
        .pad_w = c->pw,
        .end_h = c->eh,
        .end_w = c->ew,
        .count_pad = c->count_pad,
    };
}

/* The cells of output o: offsets of their lane rows, in order; how many, and with the padding. */
static int window_cells(const ek_window *g, int64_t o, int64_t *offset, int *padded)
{
    int c = (int)(o / (g->ho * g->wo)), oh = (int)(o / g->wo % g->ho), ow = (int)(o % g->wo), count = 0;
    *padded = 0;
    for (int kh = 0; kh < g->kh; kh++)
        for (int kw = 0; kw < g->kw; kw++) {
            int h = oh * g->stride_h + kh - g->pad_h, w = ow * g->stride_w + kw - g->pad_w;
            *padded += h < g->hi + g->end_h && w < g->wi + g->end_w;
            if (h >= 0 && h < g->hi && w >= 0 && w < g->wi)
                offset[count++] = (((int64_t)c * g->hi + h) * g->wi + w) * EK_LANES;
        }
    return count;
}

static void check_avgpool(const ek_window *g)
{
    int64_t outputs = (int64_t)g->c * g->ho * g->wo, x_count = (int64_t)g->c * g->hi * g->wi * EK_LANES;
    float *x = noise(x_count), *dy = noise(outputs * EK_LANES), *y = zeros(outputs * EK_LANES),
          *dx = noise(x_count), *scratch = noise((int64_t)ek_pool_scratch(g));
    reference y_ref = new_reference(outputs * EK_LANES), dx_ref = new_reference(x_count);
    int64_t cell[64];
    for (int64_t o = 0; o < outputs; o++) {
        int padded, count = window_cells(g, o, cell, &padded), divisor = g->count_pad ? padded : count;
        for (int i = 0; i < count; i++)
            for (int lane = 0; lane < EK_LANES; lane++) {
                add_to(&y_ref, o * EK_LANES + lane, (double)x[cell[i] + lane] / divisor);
                add_to(&dx_ref, cell[i] + lane, (double)dy[o * EK_LANES + lane] / divisor);
            }
    }
    FOR_EACH_TABLE(k)
    {
        k->avgpool_forward(g, &(ek_map_in){.x = x, .live = EK_LANES}, y, scratch);
        check_sums(k, "avgpool y", &y_ref, y);
        k->avgpool_backward(g, dy, &(ek_grad_out){.g = dx, .channels = g->c}, scratch);
        check_sums(k, "avgpool dx", &dx_ref, dx);
    }
    guarded_free();
}

/* Values of few levels, so that many are equal; a NaN and windows of -infinity among them. */
static void check_maxpool(const ek_window *g)
{
    int64_t outputs = (int64_t)g->c * g->ho * g->wo, x_count = (int64_t)g->c * g->hi * g->wi * EK_LANES;
    float *x = noise(x_count), *dy = noise(outputs * EK_LANES), *y = zeros(outputs * EK_LANES),
          *dx = noise(x_count), *scratch = noise((int64_t)ek_pool_scratch(g));
    int32_t *index = guarded((size_t)outputs * EK_LANES * sizeof *index);
    for (int64_t i = 0; i < x_count; i++) x[i] = i % EK_LANES == 3 ? -INFINITY : floorf(x[i] * 3);
    x[x_count / 2] = NAN;
    FOR_EACH_TABLE(k)
    {
        k->maxpool_forward(g, &(ek_map_in){.x = x, .live = EK_LANES}, y, index, scratch);
        k->maxpool_backward(g, dy, index, &(ek_grad_out){.g = dx, .channels = g->c}, scratch);
        reference dx_ref = new_reference(x_count);
        int64_t cell[64], map = (int64_t)g->hi * g->wi * EK_LANES;
        for (int64_t i = 0; i < outputs * EK_LANES; i++) {
            int padded;
            int64_t count = window_cells(g, i / EK_LANES, cell, &padded), lane = i % EK_LANES, best = cell[0] + lane;
            for (int64_t j = 1; j < count; j++)
                if (x[cell[j] + lane] > x[best] || isnan(x[cell[j] + lane])) best = cell[j] + lane;
            check(k, "maxpool y", i, y[i], x[best], 0);
            check(k, "maxpool index", i, index[i], (double)(best % map / EK_LANES), 0);
            add_to(&dx_ref, best, dy[i]);
        }
        check_sums(k, "maxpool dx", &dx_ref, dx);
    }
    guarded_free();
}

static void pooling_matches_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(window_cases); i++) {
        ek_window g = window_of(&window_cases[i]);
        check_avgpool(&g);
        check_maxpool(&g);
    }
}

/* --- elementwise */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double activation(ek_activation kind, double slope, double x)
{
    switch (kind) {
    case EK_IDENTITY: return x;
    case EK_RELU: return x <= 0 ? 0 : x;
    case EK_LEAKY_RELU: return x > 0 ? x : slope * x;
    case EK_SIGMOID: return sigmoid(x);
    case EK_TANH: return tanh(x);
    case EK_SILU: return x * sigmoid(x);
    }
    return NAN;
}

static double derivative(ek_activation kind, double slope, double x)
{
    double s = sigmoid(x);
    switch (kind) {
    case EK_IDENTITY: return 1;
    case EK_RELU: return x > 0;
    case EK_LEAKY_RELU: return x > 0 ? 1 : slope;
    case EK_SIGMOID: return s * (1 - s);
    case EK_TANH: return 1 - tanh(x) * tanh(x);
    case EK_SILU: return s * (1 + x * (1 - s));
    }
    return NAN;
}

/* f over `rows` lane rows, all alive. */
static void activate(const ek_kernels *k, ek_activation kind, float slope, int64_t rows, const float *x, float *y)
{
    ek_slab slab = {1, rows * EK_LANES, 1, 0, EK_LANES};
    k->map_read(&slab, &(ek_map_in){.x = x, .activation = kind, .slope = slope}, y);
}

/* Three channels of two blocks, the second with dead lanes, for every recipe of ek_map_in and ek_grad_out. */
enum { C = 3, BLOCKS = 2, LIVE = 5 };

typedef struct recipe {
    ek_slab slab;
    int64_t count;
    ek_map_in value;
    float *addend, *dv;
    bool scaled, added, from_y;
} recipe;

static bool alive(const recipe *r, int64_t i) { return i < r->slab.block || i % EK_LANES < LIVE; }

static int channel_of(const recipe *r, int64_t i) { return (int)(i % r->slab.block / r->slab.length); }

/* (x - mean)*a + b */
static double scaled_x(const recipe *r, int64_t i)
{
    int c = channel_of(r, i);
    double x = r->value.x[i];
    return r->scaled ? (x - r->value.mean[c]) * r->value.a[c] + r->value.b[c] : x;
}

static recipe make_recipe(ek_activation kind, int64_t rows, int variant)
{
    recipe r = {.slab = {C, rows * EK_LANES, BLOCKS, C * rows * EK_LANES, LIVE},
                .count = BLOCKS * C * rows * EK_LANES,
                .scaled = variant & 1,
                .added = variant & 2,
                .from_y = (variant & 4) && kind != EK_LEAKY_RELU && kind != EK_SILU};
    float *x = noise(r.count);
    for (int64_t i = 0; i < r.count; i++) x[i] *= 8;
    r.value = (ek_map_in){.x = x, .activation = kind, .slope = 0.2f};
    if (r.scaled) r.value.mean = noise(C), r.value.a = noise(C), r.value.b = noise(C);
    r.dv = noise(r.count);
    r.addend = noise(r.count);
    for (int64_t i = 0; i < r.count; i++)
        if (!alive(&r, i)) r.dv[i] = r.addend[i] = 0;
    return r;
}

static void check_reading(const ek_kernels *k, const recipe *r, float *y)
{
    k->map_read(&r->slab, &r->value, y);
    for (int64_t i = 0; i < r->count; i++) {
        double want = alive(r, i) ? activation(r->value.activation, 0.2f, scaled_x(r, i)) : 0;
        /* A bare value is read as it stands, its dead lanes too. */
        if (!r->scaled && r->value.activation == EK_IDENTITY) want = r->value.x[i];
        check(k, "v", i, y[i], want, 4e-6 * (1 + fabs(want)));
    }
}

static void check_writing(const ek_kernels *k, const recipe *r, const float *y)
{
    double *sums = guarded(2 * C * sizeof *sums), want_g[C] = {0}, want_gx[C] = {0};
    float *g = copy(r->count, r->dv);
    ek_grad_out o = {.g = g, .addend = r->added ? r->addend : NULL, .value = r->value, .y = r->from_y ? y : NULL, .channels = C};
    if (r->scaled) o.sums = sums;
    k->grad_write(&r->slab, &o, g);
    for (int64_t i = 0; i < r->count; i++) {
        double dv = r->dv[i] + (r->added ? (double)r->addend[i] : 0), z = scaled_x(r, i);
        bool kink = fabs(z) < 1e-5; /* float and double may stand on either side of it */
        double want = dv * derivative(r->value.activation, 0.2f, z);
        if (!kink) check(k, "g", i, g[i], want, 4e-6 * (1 + fabs(dv)));
        want_g[channel_of(r, i)] += g[i];
        if (r->scaled) want_gx[channel_of(r, i)] += g[i] * ((double)r->value.x[i] - r->value.mean[channel_of(r, i)]);
    }
    for (int c = 0; o.sums && c < C; c++) {
        check(k, "sum of g", c, sums[c], want_g[c], 1e-4);
        check(k, "sum of g*x", c, sums[C + c], want_gx[c], 1e-3);
    }
}

static void recipes_match_the_formulas(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int kind = EK_IDENTITY; kind <= EK_SILU; kind++)
        for (int64_t rows = 1; rows <= 70; rows += rows < 4 ? 1 : 33)
            for (int variant = 0; variant < 8; variant++) {
                recipe r = make_recipe((ek_activation)kind, rows, variant);
                float *y = zeros(r.count);
                check_reading(k, &r, y);
                check_writing(k, &r, y);
                guarded_free();
            }
}

static void gradients_are_read_through_batch_norm(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        recipe r = make_recipe(EK_IDENTITY, 5, 1);
        float *c = noise(C), *dx = copy(r.count, r.dv);
        ek_grad_in d = {.g = dx, .x = r.value.x, .mean = r.value.mean, .a = r.value.a, .b = r.value.b, .c = c};
        k->grad_read(&r.slab, &d, dx);
        for (int64_t i = 0; i < r.count; i++) {
            int at = channel_of(&r, i);
            double want = (double)d.a[at] * r.dv[i] + d.b[at] * ((double)d.x[i] - d.mean[at]) + c[at];
            check(k, "dx", i, dx[i], alive(&r, i) ? want : 0, 1e-5);
        }
        guarded_free();
    }
}

/* Also where the first row's mean is far from the others'. */
static void moments_of_lanes_match(void **state)
{
    (void)state;
    static const float mean[] = {0, 1e4f, -1e6f}, deviation[] = {1, 1e-2f, 1};
    FOR_EACH_TABLE(k)
    for (int d = 0; d < COUNT(mean); d++)
        for (int64_t rows = 1; rows <= 70; rows += 23)
            for (int outlier = 0; outlier < 2; outlier++) {
                recipe r = make_recipe(EK_IDENTITY, rows, 0);
                float *x = noise(r.count);
                for (int64_t i = 0; i < r.count; i++) x[i] = alive(&r, i) ? mean[d] + deviation[d] * x[i] : 1e30f;
                if (outlier) x[0] = -1e3f;
                ek_moments got[C];
                k->moments(&r.slab, x, got);
                for (int c = 0; c < C; c++) {
                    ek_moments want = {0};
                    for (int64_t i = 0; i < r.count; i++)
                        if (channel_of(&r, i) == c && alive(&r, i)) ek_moments_merge(&want, (ek_moments){1, x[i], 0});
                    check(k, "count", c, got[c].count, want.count, 0);
                    check(k, "mean", c, got[c].mean, want.mean, 1e-6 * sqrt(want.m2 / want.count) + 1e-13 * fabs(want.mean));
                    check(k, "m2", c, got[c].m2, want.m2, 2e-5 * want.m2);
                }
                guarded_free();
            }
}

static void sums_of_maps_match(void **state)
{
    (void)state;
    static const ek_activation kinds[] = {EK_IDENTITY, EK_RELU, EK_SIGMOID, EK_TANH};
    FOR_EACH_TABLE(k)
    for (int f = 0; f < COUNT(kinds); f++)
        for (int variant = 0; variant < 2; variant++) {
            recipe a = make_recipe(EK_IDENTITY, 35, 1), b = make_recipe(EK_RELU, 35, variant);
            float *y = zeros(a.count);
            k->map_add(&a.slab, &a.value, &b.value, kinds[f], y);
            for (int64_t i = 0; i < a.count; i++) {
                double sum = scaled_x(&a, i) + activation(EK_RELU, 0, scaled_x(&b, i)), want = activation(kinds[f], 0, sum);
                check(k, "sum", i, y[i], alive(&a, i) ? want : 0, 1e-5 * (1 + fabs(sum)));
            }
            guarded_free();
        }
}

/* The distance from one float to the next. */
static double ulp(double y)
{
    float f = fabsf((float)y);
    return f >= FLT_MAX ? 0 : (double)nextafterf(f, INFINITY) - (double)f;
}

/* Sigmoid within 4 ulp where exp is within 2 and the result is a normal number; tanh within 4. */
static void check_accuracy(const ek_kernels *k, ek_activation kind, float from, float to)
{
    enum { STEPS = 4096 };
    float *x = zeros(STEPS), *y = zeros(STEPS);
    for (int i = 0; i < STEPS; i++) x[i] = from + (to - from) * (float)i / STEPS;
    activate(k, kind, 0, STEPS / EK_LANES, x, y);
    for (int i = 0; i < STEPS; i++) {
        double want = activation(kind, 0, x[i]);
        check(k, kind == EK_TANH ? "tanh" : "sigmoid", i, y[i], want, 4 * ulp(want) + 1e-38);
    }
    guarded_free();
}

static void sigmoid_and_tanh_are_accurate(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int kind = EK_SIGMOID; kind <= EK_TANH; kind++) {
        static const float to[] = {1e-40f, 1e-20f, 1e-3f, 0.7f, 3, 20, 110, 1e30f};
        for (int i = 0; i < COUNT(to); i++) {
            check_accuracy(k, (ek_activation)kind, -to[i], 0);
            check_accuracy(k, (ek_activation)kind, 0, to[i]);
        }
    }
}

static void activations_at_the_extremes(void **state)
{
    (void)state;
    static const float x[EK_LANES] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, -0.0f};
    static const float want[][5] = {
        {INFINITY, 0, NAN, FLT_MAX, 0},
        {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX / 2},
        {1, 0, NAN, 1, 0},
        {1, -1, NAN, 1, -1},
    };
    FOR_EACH_TABLE(k)
    {
        float y[EK_LANES];
        for (int kind = EK_RELU; kind <= EK_TANH; kind++) {
            activate(k, (ek_activation)kind, 0.5f, 1, x, y);
            for (int i = 0; i < 5; i++) check(k, "extreme", kind * 5 + i, y[i], want[kind - EK_RELU][i], 1e-38);
        }
        assert_true(y[5] == 0 && signbit(y[5]));
        activate(k, EK_SILU, 0, 1, x, y);
        assert_true(fabsf(y[4]) < 1e-36f && isnan(y[2]) && y[3] == FLT_MAX);
    }
}

static void sums_of_two_arrays(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int64_t count = 0; count <= 35; count++) {
        float *a = noise(count), *b = noise(count), *y = zeros(count), *same = copy(count, b);
        k->add(count, a, b, y);
        k->add(count, a, same, same);
        for (int64_t i = 0; i < count; i++) {
            check(k, "add", i, y[i], a[i] + b[i], 0);
            check(k, "add in place", i, same[i], y[i], 0);
        }
        guarded_free();
    }
}

/* Tables for few samples leave the other lanes as they are. */
static void sequences_are_cut_at_their_lengths(void **state)
{
    (void)state;
    enum { CHANNELS = 3, MOST = 9 };
    FOR_EACH_TABLE(k)
    for (int positions = 1; positions <= MOST; positions++) {
        float *x = noise(CHANNELS * positions * EK_LANES), *y = copy(CHANNELS * positions * EK_LANES, x);
        int32_t length[EK_LANES];
        for (int lane = 0; lane < EK_LANES; lane++)
            length[lane] = lane < 13 ? 1 + (lane * 7 + 3) % positions : 0;
        x[EK_LANES / 2 + (positions - 1) * EK_LANES] = y[EK_LANES / 2 + (positions - 1) * EK_LANES] = NAN;
        k->sequence_cut(CHANNELS, positions, length, -INFINITY, y);
        for (int i = 0; i < CHANNELS * positions * EK_LANES; i++) {
            int lane = i % EK_LANES;
            bool beyond = lane < k->lanes && i / EK_LANES % positions >= length[lane];
            check(k, "cut", i, y[i], beyond ? -INFINITY : x[i], 0);
        }
        guarded_free();
    }
}

static void sums_and_finiteness(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        for (int64_t count = 0; count <= 3000; count = count < 40 ? count + 1 : count * 3) {
            float *x = noise(count);
            double want = 0;
            for (int64_t i = 0; i < count; i++) want += (double)x[i] * x[i];
            check(k, "sum of squares", count, k->sum_squares(count, x), want, 1e-6 * want);
            assert_true(k->all_finite(count, x));
            for (int64_t i = 0; i < count && count < 40; i++) {
                static const float bad[] = {NAN, INFINITY, -INFINITY};
                float good = x[i];
                x[i] = bad[i % 3];
                assert_false(k->all_finite(count, x));
                x[i] = good;
            }
            guarded_free();
        }
        static const float edge[] = {FLT_MAX, -FLT_MAX, 1e-45f, 0};
        assert_true(k->all_finite(COUNT(edge), edge));
    }
}

/* --- normalization */

/* rows, channels, length, stride */
typedef struct piece_case {
    int64_t rows, channels, length, stride;
} piece_case;

static int64_t piece_floats(const piece_case *s) { return (s->rows - 1) * s->stride + s->channels * s->length; }

static const piece_case moments_cases[] = {
    {1, 1, 1, 1},       {1, 1, 16, 16},     {3, 2, 5, 11},      {7, 3, 1, 3},       {2, 1, 37, 40},  {1, 1, 9216, 9216},
    {2, 1, 64, 96},     {1, 2, 4096, 8192}, {3, 1, 1040, 1056}, {2, 1, 5000, 5003}, {1, 3, 176, 528},
};

static ek_moments moments_of(const piece_case *s, int64_t channel, const float *x)
{
    ek_moments m = {0};
    x += channel * s->length;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t r = 0; r < s->rows; r++)
            for (int64_t i = 0; i < s->length; i++) {
                double d = x[r * s->stride + i] - m.mean * pass;
                if (pass)
                    m.m2 += d * d;
                else
                    m.mean += (d - m.mean) / ++m.count;
            }
    return m;
}

/* Mean within 1e-6 of the deviation (or an ulp of a double), m2 within 1e-5. */
static void check_moments(const ek_kernels *k, int64_t i, ek_moments got, ek_moments want)
{
    check(k, "count", i, got.count, want.count, 0);
    check(k, "mean", i, got.mean, want.mean, 1e-6 * sqrt(want.m2 / want.count) + 1e-14 * fabs(want.mean));
    check(k, "m2", i, got.m2, want.m2, 1e-5 * want.m2);
    assert_true(got.m2 >= 0);
}

static void moments_hold_where_the_mean_dwarfs_the_deviation(void **state)
{
    (void)state;
    static const float mean[] = {0, 1, 1e4f, -1e4f, 1e6f}, deviation[] = {1, 1e-2f, 1e-2f, 10, 1};
    for (int c = 0; c < COUNT(moments_cases); c++)
        for (int d = 0; d < COUNT(mean); d++)
            for (int outlier = 0; outlier < 2; outlier++) {
                const piece_case *s = &moments_cases[c];
                ek_norm_piece piece = {s->rows, s->channels, s->length, s->stride, false};
                int64_t count = piece_floats(s);
                float *x = noise(count);
                for (int64_t i = 0; i < count; i++) /* between rows nothing counts */
                    x[i] = i % s->stride < s->channels * s->length ? mean[d] + deviation[d] * x[i] : 1e30f;
                if (outlier) x[0] = -1e3f; /* the first value must not spoil the rest */
                FOR_EACH_TABLE(k)
                {
                    ek_moments got[3];
                    k->runs_moments(&piece, x, got);
                    for (int64_t ch = 0; ch < s->channels; ch++) check_moments(k, ch, got[ch], moments_of(s, ch, x));
                }
                guarded_free();
            }
}

static void moments_of_what_is_constant_or_not_finite(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        const ek_norm_piece run = {1, 1, 5000, 5000, false}, rows = {1000, 5, 1, 5, false};
        float *x = zeros(5000);
        ek_moments m;
        for (int i = 0; i < 5000; i++) x[i] = 0.1f;
        k->runs_moments(&run, x, &m);
        assert_true(m.m2 == 0 && m.mean == 0.1f);
        static const float bad[] = {NAN, INFINITY, -INFINITY};
        for (int i = 0; i < 3; i++)
            for (int at = 0; at < 5000; at += 1249) {
                x[at] = bad[i];
                k->runs_moments(&run, x, &m);
                assert_false(isfinite(m.mean) && isfinite(m.m2));
                ek_moments columns[5];
                k->columns_moments(&rows, x, columns);
                assert_false(isfinite(columns[at % 5].mean) && isfinite(columns[at % 5].m2));
                assert_true(columns[(at + 1) % 5].m2 == 0);
                x[at] = 0.1f;
            }
        guarded_free();
    }
}

/* n, c, stride */
static const struct columns_case {
    int64_t n, c, stride;
} columns_cases[] = {{1, 1, 1},    {2, 3, 3},     {128, 120, 120}, {64, 84, 90},
                     {65, 17, 17}, {200, 33, 40}, {3, 16, 16},     {7, 100, 100}};

static void columns_moments_match(void **state)
{
    (void)state;
    for (int c = 0; c < COUNT(columns_cases); c++) {
        const struct columns_case *s = &columns_cases[c];
        int64_t count = (s->n - 1) * s->stride + s->c;
        float *x = noise(count);
        for (int64_t i = 0; i < count; i++) x[i] = i % s->stride % 2 ? 1e4f + 1e-2f * x[i] : x[i];
        if (s->n > 100) x[1] = -1e3f;
        ek_moments *got = guarded((size_t)s->c * sizeof *got);
        FOR_EACH_TABLE(k)
        {
            k->columns_moments(&(ek_norm_piece){s->n, s->c, 1, s->stride, false}, x, got);
            for (int64_t j = 0; j < s->c; j++)
                check_moments(k, j, got[j], moments_of(&(piece_case){s->n, s->c, 1, s->stride}, j, x));
        }
        guarded_free();
    }
}

/* Terms of c columns, as the kernels want them. */
static float *periodic_noise(int64_t c)
{
    float *once = noise(c), *terms = guarded((size_t)(c + EK_LANES) * sizeof *terms);
    for (int64_t j = 0; j < c + EK_LANES; j++) terms[j] = once[j % c];
    return terms;
}

static void columns_passes_match_the_formulas(void **state)
{
    (void)state;
    for (int case_i = 0; case_i < COUNT(columns_cases); case_i++) {
        const struct columns_case *s = &columns_cases[case_i];
        int64_t count = (s->n - 1) * s->stride + s->c;
        float *x = noise(count), *g = noise(count), *untouched = noise(count);
        float *mean = periodic_noise(s->c), *a = periodic_noise(s->c), *b = periodic_noise(s->c);
        float *c = periodic_noise(s->c);
        double *sum_g = doubles(s->c), *sum_gx = doubles(s->c);
        ek_norm_piece piece = {s->n, s->c, 1, s->stride, case_i % 2};
        ek_norm_terms forward = {mean, a, b, NULL, NULL, NAN}, backward = {mean, a, a, b, c, NAN};
        FOR_EACH_TABLE(k)
        {
            float *y = copy(count, untouched), *dx = copy(count, untouched);
            k->columns_backward_sums(&piece, &backward, x, g, sum_g, sum_gx);
            k->columns_apply(&piece, &forward, x, y);
            k->columns_backward_apply(&piece, &backward, x, g, dx);
            reference ref_g = new_reference(s->c), ref_gx = new_reference(s->c);
            for (int64_t i = 0; i < count; i++) {
                int64_t j = i % s->stride;
                bool inside = j < s->c;
                double centred = inside ? (double)x[i] - mean[j] : 0;
                check(k, "columns y", i, y[i], inside ? centred * a[j] + b[j] : untouched[i],
                      inside ? 1e-6 : 0);
                check(k, "columns dx", i, dx[i],
                      inside ? a[j] * (double)g[i] + b[j] * centred + c[j] : untouched[i], inside ? 1e-6 : 0);
                if (!inside) continue;
                add_to(&ref_g, j, g[i]);
                add_to(&ref_gx, j, g[i] * centred);
            }
            for (int64_t j = 0; j < s->c; j++) {
                check(k, "columns sum", j, sum_g[j], ref_g.sum[j], 2e-6 * ref_g.magnitude[j]);
                check(k, "columns product", j, sum_gx[j], ref_gx.sum[j], 2e-6 * ref_gx.magnitude[j]);
            }
        }
        guarded_free();
    }
}

/* Length 1: by columns. Ends, and where lines begin, are odd. */
static const piece_case fused_cases[] = {
    {1, 1, 3, 3},    {2, 3, 17, 51},     {3, 2, 100, 211},  {1, 5, 1029, 5145}, {2, 1, 4133, 4133},
    {70, 3, 1, 3},   {300, 7, 1, 7},     {9, 15, 1, 20},    {67, 16, 1, 16},    {150, 37, 1, 37},
    {40, 65, 1, 70}, {5, 1030, 1, 1030}, {66, 130, 1, 130},
};

typedef struct fused_problem {
    const piece_case *at;
    int64_t count;
    ek_norm_terms terms;
    float *x, *dy;
} fused_problem;

static int64_t channel_at(const piece_case *s, int64_t i)
{
    int64_t ch = i % s->stride / s->length;
    return ch < s->channels ? ch : -1; /* between rows */
}

static double fused_z(const fused_problem *p, int64_t i)
{
    int64_t ch = channel_at(p->at, i);
    return ((double)p->x[i] - p->terms.mean[ch]) * p->terms.a[ch] + p->terms.b[ch];
}

static fused_problem fused_problem_create(const piece_case *s, bool relu)
{
    int64_t c = s->channels;
    fused_problem p = {s, piece_floats(s), {0}, NULL, NULL};
    p.x = noise(p.count);
    p.dy = noise(p.count);
    p.terms = (ek_norm_terms){periodic_noise(c), periodic_noise(c), periodic_noise(c),
                              periodic_noise(c), periodic_noise(c), relu ? 0 : NAN};
    for (int64_t i = 0; i < p.count; i++) /* where rounding may open or shut the ReLU */
        if (channel_at(s, i) >= 0 && fabs(fused_z(&p, i)) < 1e-5) p.dy[i] = 0;
    return p;
}

static void check_fused(const ek_kernels *k, const fused_problem *p, bool streamed, bool frozen)
{
    const piece_case *s = p->at;
    bool columns = s->length == 1, relu = p->terms.floor == 0;
    ek_norm_piece piece = {s->rows, s->channels, s->length, s->stride, streamed};
    ek_norm_terms terms = p->terms;
    if (frozen) terms.slope = terms.constant = NULL;
    float *y = zeros(p->count), *dx = zeros(p->count);
    double *sum_g = doubles(s->channels), *sum_gx = doubles(s->channels);
    (columns ? k->columns_apply : k->runs_apply)(&piece, &terms, p->x, y);
    (columns ? k->columns_backward_apply : k->runs_backward_apply)(&piece, &terms, p->x, p->dy, dx);
    (columns ? k->columns_backward_sums : k->runs_backward_sums)(&piece, &terms, p->x, p->dy, sum_g, sum_gx);

    reference ref_g = new_reference(s->channels), ref_gx = new_reference(s->channels);
    for (int64_t i = 0; i < p->count; i++) {
        int64_t ch = channel_at(s, i);
        if (ch < 0) {
            assert_true(y[i] == 0 && dx[i] == 0);
            continue;
        }
        double z = fused_z(p, i), g = relu && z <= 0 ? 0 : p->dy[i],
               centred = (double)p->x[i] - p->terms.mean[ch];
        double through = frozen ? 0 : centred * p->terms.slope[ch] + p->terms.constant[ch];
        check(k, "fused y", i, y[i], relu && z <= 0 ? 0 : z, 1e-6);
        check(k, "fused dx", i, dx[i], g * p->terms.a[ch] + through, 1e-6);
        add_to(&ref_g, ch, (float)g);
        add_to(&ref_gx, ch, g * centred);
    }
    for (int64_t ch = 0; ch < s->channels; ch++) {
        check(k, "fused sum", ch, sum_g[ch], ref_g.sum[ch], 2e-6 * ref_g.magnitude[ch]);
        check(k, "fused product", ch, sum_gx[ch], ref_gx.sum[ch], 2e-6 * ref_gx.magnitude[ch]);
    }
}

static void fused_passes_match_the_formulas(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(fused_cases); i++) FOR_EACH_TABLE(k)
    for (int bits = 0; bits < 8; bits++) {
        fused_problem p = fused_problem_create(&fused_cases[i], bits & 1);
        check_fused(k, &p, bits & 2, bits & 4);
        guarded_free();
    }
}

/* --- normalization of each sample */

/* groups, channels, rows; whether gains go by row */
static const struct sample_case {
    int64_t groups, channels, rows;
    bool row_gains;
} sample_cases[] = {
    {1, 1, 2, false},   {1, 3, 5, true},   {1, 1, 200, true},  {4, 2, 9, false}, {7, 1, 1, false}, {2, 5, 1, true},
    {3, 1, 100, false}, {1, 37, 1, false}, {2, 2, 33, true},   {1, 4, 70, false},
};
static const int32_t sample_lengths[EK_LANES] = {3, 1, 0, 1000, 5, 2, 7, 33, 32, 31, 64, 1, 9, 100, 99, 8};

typedef struct sample_problem {
    ek_sample_slab s;
    ek_sample_terms terms;
    float *x, *dy;
    int64_t rows, gains; /* of all groups and channels; their gains */
} sample_problem;

static bool sample_alive(const ek_sample_slab *s, int64_t row, int lane)
{
    return lane < s->live && (!s->length || row % s->rows < s->length[lane]);
}

static int64_t gain_of(const ek_sample_slab *s, int64_t row) { return s->row_gains ? row : row / s->rows; }

/* What is dead is NaN: it must not get anywhere. */
static sample_problem sample_problem_of(const struct sample_case *c, int live, bool lengths, float mean, float deviation)
{
    ek_sample_slab s = {c->groups, c->channels, c->rows, live, lengths ? sample_lengths : NULL, c->row_gains};
    int64_t rows = c->groups * c->channels * c->rows, gains = c->row_gains ? rows : c->groups * c->channels;
    sample_problem p = {.s = s, .x = noise(rows * EK_LANES), .dy = noise(rows * EK_LANES), .rows = rows, .gains = gains};
    for (int64_t i = 0; i < rows * EK_LANES; i++) {
        bool alive = sample_alive(&s, i / EK_LANES, (int)(i % EK_LANES));
        p.x[i] = alive ? mean + deviation * p.x[i] : NAN;
        if (!alive) p.dy[i] = NAN;
    }
    return p;
}

static void add_noisy_terms(sample_problem *p, bool with_gains)
{
    int64_t lanes = p->s.groups * EK_LANES;
    p->terms = (ek_sample_terms){noise(lanes), noise(lanes), noise(lanes), noise(lanes), noise(lanes), NULL, NULL};
    if (with_gains) p->terms.gain = noise(p->gains);
    if (with_gains) p->terms.offset = noise(p->gains);
}

/* f for each table of this machine, those for few samples among them, lanes that these do not compute left out. */
static void for_each_sample_case(float mean, float deviation, void (*f)(const ek_kernels *k, sample_problem *p))
{
    static const int lives[] = {EK_LANES, 13, 1};
    for (int c = 0; c < COUNT(sample_cases); c++)
        for (int i = 0; i < COUNT(lives); i++)
            for (int lengths = 0; lengths < 2; lengths++)
                FOR_EACH_TABLE(k)
                {
                    const ek_kernels *both[2] = {k, ek_kernels_few(k)};
                    for (int few = 0; few < 2; few++) {
                        int live = lives[i] < both[few]->lanes ? lives[i] : both[few]->lanes;
                        sample_problem p = sample_problem_of(&sample_cases[c], live, lengths, mean, deviation);
                        f(both[few], &p);
                        guarded_free();
                    }
                }
}

static void check_sample_moments(const ek_kernels *k, sample_problem *p)
{
    ek_sample_moments got[8];
    k->sample_moments(&p->s, p->x, got);
    int64_t rows = p->s.channels * p->s.rows;
    for (int64_t g = 0; g < p->s.groups; g++)
        for (int lane = 0; lane < k->lanes; lane++) {
            const float *x = p->x + g * rows * EK_LANES + lane;
            ek_moments want = {0};
            for (int64_t r = 0; r < rows; r++)
                if (sample_alive(&p->s, r, lane)) want.mean += x[r * EK_LANES], want.count++;
            if (want.count > 0) want.mean /= want.count;
            for (int64_t r = 0; r < rows; r++)
                if (sample_alive(&p->s, r, lane)) want.m2 += pow(x[r * EK_LANES] - want.mean, 2);
            if (want.count > 0)
                check_moments(k, lane, (ek_moments){got[g].count[lane], got[g].mean[lane], got[g].m2[lane]}, want);
            else
                assert_true(got[g].count[lane] == 0 && got[g].mean[lane] == 0 && got[g].m2[lane] == 0);
        }
}

static void sample_moments_match(void **state)
{
    (void)state;
    for_each_sample_case(0, 1, check_sample_moments);
    for_each_sample_case(1e3f, 0.1f, check_sample_moments);
    for_each_sample_case(5, 0, check_sample_moments);
}

static void check_sample_passes(const ek_kernels *k, sample_problem *p, bool with_gains)
{
    add_noisy_terms(p, with_gains);
    const ek_sample_terms *t = &p->terms;
    int64_t count = p->rows * EK_LANES, group = p->s.channels * p->s.rows;
    float *y = zeros(count), *dx = copy(count, p->dy);
    k->sample_apply(&p->s, t, p->x, y);
    if (k->sample_backward_apply) k->sample_backward_apply(&p->s, t, p->x, dx, dx);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = i / EK_LANES, at = row / group * EK_LANES + i % EK_LANES;
        if (i % EK_LANES >= k->lanes) continue;
        double gain = t->gain ? t->gain[gain_of(&p->s, row)] : 1, offset = t->offset ? t->offset[gain_of(&p->s, row)] : 0;
        double centred = (double)p->x[i] - t->mean[at];
        bool alive = sample_alive(&p->s, row, (int)(i % EK_LANES));
        check(k, "y", i, y[i], alive ? (centred * t->a[at] + t->b[at]) * gain + offset : 0, 2e-6);
        if (k->sample_backward_apply) /* tables for few samples have none */
            check(k, "dx", i, dx[i], alive ? t->a[at] * gain * p->dy[i] + t->slope[at] * centred + t->constant[at] : 0, 2e-6);
    }
}

static void check_sample_sums(const ek_kernels *k, sample_problem *p, bool with_gains, bool with_gradients)
{
    if (!k->sample_backward_sums) return;
    add_noisy_terms(p, with_gains);
    const ek_sample_terms *t = &p->terms;
    int64_t group = p->s.channels * p->s.rows;
    double *got = doubles(p->s.groups * 2 * EK_LANES);
    reference sums = new_reference(p->s.groups * 2 * EK_LANES), dgain = new_reference(p->gains), doffset = new_reference(p->gains);
    float *got_gain = noise(p->gains), *got_offset = noise(p->gains); /* added to */
    for (int64_t i = 0; i < p->gains; i++) {
        add_to(&dgain, i, got_gain[i]);
        add_to(&doffset, i, got_offset[i]);
    }
    for (int64_t i = 0; i < p->rows * EK_LANES; i++) {
        int lane = (int)(i % EK_LANES);
        int64_t row = i / EK_LANES, g = row / group, gain = gain_of(&p->s, row), at = g * EK_LANES + lane;
        if (!sample_alive(&p->s, row, lane)) continue;
        double centred = (double)p->x[i] - t->mean[at], h = (t->gain ? t->gain[gain] : 1) * p->dy[i];
        add_to(&sums, g * 2 * EK_LANES + lane, h);
        add_to(&sums, (g * 2 + 1) * EK_LANES + lane, h * centred);
        add_to(&dgain, gain, p->dy[i] * centred * t->a[at]);
        add_to(&dgain, gain, p->dy[i] * t->b[at]);
        add_to(&doffset, gain, p->dy[i]);
    }
    k->sample_backward_sums(&p->s, t, p->x, p->dy, got, with_gradients ? got_gain : NULL, with_gradients ? got_offset : NULL);
    for (int64_t i = 0; i < sums.count; i++) check(k, "sum", i, got[i], sums.sum[i], 2e-6 * sums.magnitude[i]);
    if (!with_gradients) return;
    check_sums(k, "dgain", &dgain, got_gain);
    check_sums(k, "doffset", &doffset, got_offset);
}

static void check_plain_passes(const ek_kernels *k, sample_problem *p)
{
    check_sample_passes(k, p, false);
    check_sample_sums(k, p, false, false);
}
static void check_passes_with_gains(const ek_kernels *k, sample_problem *p)
{
    check_sample_passes(k, p, true);
    check_sample_sums(k, p, true, true);
}
static void check_sums_for_gains(const ek_kernels *k, sample_problem *p)
{
    check_sample_sums(k, p, true, false);
    check_sample_sums(k, p, false, true);
}

static void sample_passes_match_the_formulas(void **state)
{
    (void)state;
    for_each_sample_case(0, 1, check_plain_passes);
    for_each_sample_case(0, 1, check_passes_with_gains);
    for_each_sample_case(0, 1, check_sums_for_gains);
}

/* --- layout */

static void lanes_and_rows_are_transposes(void **state)
{
    (void)state;
    static const int64_t features[] = {1, 3, 16, 33, 784};
    FOR_EACH_TABLE(k)
    for (int f = 0; f < COUNT(features); f++)
        for (int live = 1; live <= EK_LANES; live++) {
            int64_t count = features[f];
            float *rows = noise(live * count), *lanes = noise(count * EK_LANES), *back = zeros(live * count);
            k->rows_to_lanes(count, live, rows, lanes);
            for (int64_t i = 0; i < count * EK_LANES; i++)
                check(k, "lanes", i, lanes[i],
                      i % EK_LANES < live ? rows[i % EK_LANES * count + i / EK_LANES] : 0, 0);
            k->lanes_to_rows(count, live, lanes, back);
            assert_memory_equal(back, rows, (size_t)(live * count) * sizeof *rows);
            guarded_free();
        }
}

/* --- linear layers */

static const struct linear_case {
    int64_t samples, in, out;
} linear_cases[] = {
    {1, 1, 1},     {128, 84, 10},  {64, 128, 64},  {50, 120, 84}, /* the shipped nets' sizes */
    {16, 16, 8},   {17, 2, 13},    {33, 15, 5},    {300, 3, 9},    /* rows narrower than a vector */
    {100, 17, 31}, {600, 41, 19},  {47, 33, 7},    {5, 63, 6},     /* odd everything, long sums over samples */
    {20, 700, 3},  {40, 7, 701},   {400, 50, 330},                 /* long sums over features; many blocks */
};

/* Lane rows of `features` features: dead lanes hold `dead`. */
static float *lane_noise(int64_t samples, int64_t features, float dead)
{
    float *x = noise(ek_blocks(samples) * features * EK_LANES);
    for (int64_t i = 0; i < ek_blocks(samples) * features * EK_LANES; i++)
        if (i % EK_LANES >= ek_live(samples, i / EK_LANES / features)) x[i] = dead;
    return x;
}

static int64_t lane_at(int64_t sample, int64_t feature, int64_t features)
{
    return (sample / EK_LANES * features + feature) * EK_LANES + sample % EK_LANES;
}

typedef struct linear_data {
    ek_linear g;
    int64_t samples, blocks, x_count, y_count, w_count;
    float *x, *rows, *w, *bias, *dy;
} linear_data;

static linear_data linear_data_of(const struct linear_case *c)
{
    linear_data d = {.g = {c->in, c->out}, .samples = c->samples, .blocks = ek_blocks(c->samples)};
    d.x_count = d.blocks * c->in * EK_LANES;
    d.y_count = d.blocks * c->out * EK_LANES;
    d.w_count = c->in * c->out;
    d.x = lane_noise(c->samples, c->in, 0.5f);
    d.dy = lane_noise(c->samples, c->out, 0);
    d.w = noise(d.w_count);
    d.bias = noise(c->out);
    d.rows = zeros(c->samples * c->in);
    for (int64_t i = 0; i < c->samples * c->in; i++) d.rows[i] = d.x[lane_at(i / c->in, i % c->in, c->in)];
    return d;
}

/* NaN, so that what a kernel leaves unwritten shows. */
static float *unwritten(int64_t count)
{
    float *y = zeros(count);
    for (int64_t i = 0; i < count; i++) y[i] = NAN;
    return y;
}

static void check_linear(const struct linear_case *c)
{
    linear_data d = linear_data_of(c);
    reference y = new_reference(d.y_count), y_bias = new_reference(d.y_count), dx = new_reference(d.x_count),
              dw = new_reference(d.w_count), dbias = new_reference(c->out);
    for (int64_t s = 0; s < d.blocks * EK_LANES; s++)
        for (int64_t o = 0; o < c->out; o++) {
            int64_t at = lane_at(s, o, c->out);
            add_to(&y_bias, at, d.bias[o]);
            add_to(&dbias, o, d.dy[at]);
            for (int64_t i = 0; i < c->in; i++) {
                int64_t x_at = lane_at(s, i, c->in), w_at = o * c->in + i;
                add_to(&y, at, (double)d.x[x_at] * d.w[w_at]);
                add_to(&y_bias, at, (double)d.x[x_at] * d.w[w_at]);
                add_to(&dx, x_at, (double)d.dy[at] * d.w[w_at]);
                add_to(&dw, w_at, (double)d.dy[at] * d.x[x_at]);
            }
        }
    FOR_EACH_TABLE(k)
    {
        float *got_y = unwritten(d.y_count), *got_dx = unwritten(d.x_count), *got_dw = unwritten(d.w_count),
              *got_dbias = unwritten(c->out);
        k->linear_forward(&d.g, d.blocks, 0, c->out, d.x, d.w, NULL, got_y);
        check_sums(k, "linear y", &y, got_y);
        k->linear_forward(&d.g, d.blocks, 0, c->out, d.x, d.w, d.bias, got_y);
        check_sums(k, "linear y with bias", &y_bias, got_y);
        k->linear_backward_data(&d.g, d.blocks, 0, c->in, d.dy, d.w, got_dx);
        check_sums(k, "linear dx", &dx, got_dx);
        k->linear_backward_weights(&d.g, d.samples, 0, c->out, d.rows, d.dy, got_dw, got_dbias);
        check_sums(k, "linear dw", &dw, got_dw);
        check_sums(k, "linear dbias", &dbias, got_dbias);
    }
    guarded_free();
}

static void linear_layers_match_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(linear_cases); i++) check_linear(&linear_cases[i]);
}

static void check_linear_cut(const ek_kernels *k, const linear_data *d, int64_t piece)
{
    int64_t in = d->g.in, out = d->g.out;
    float *y = zeros(d->y_count), *dx = zeros(d->x_count), *dw = zeros(d->w_count), *dbias = zeros(out);
    float *y_cut = unwritten(d->y_count), *dx_cut = unwritten(d->x_count), *dw_cut = unwritten(d->w_count),
          *dbias_cut = unwritten(out);
    k->linear_forward(&d->g, d->blocks, 0, out, d->x, d->w, d->bias, y);
    k->linear_backward_data(&d->g, d->blocks, 0, in, d->dy, d->w, dx);
    k->linear_backward_weights(&d->g, d->samples, 0, out, d->rows, d->dy, dw, dbias);
    for (int64_t o = 0; o < out; o += piece) {
        int64_t count = out - o < piece ? out - o : piece;
        k->linear_forward(&d->g, d->blocks, o, count, d->x, d->w, d->bias, y_cut);
        k->linear_backward_weights(&d->g, d->samples, o, count, d->rows, d->dy, dw_cut, dbias_cut);
    }
    for (int64_t i = 0; i < in; i += piece)
        k->linear_backward_data(&d->g, d->blocks, i, in - i < piece ? in - i : piece, d->dy, d->w, dx_cut);
    assert_memory_equal(y_cut, y, (size_t)d->y_count * sizeof *y);
    assert_memory_equal(dx_cut, dx, (size_t)d->x_count * sizeof *dx);
    assert_memory_equal(dw_cut, dw, (size_t)d->w_count * sizeof *dw);
    assert_memory_equal(dbias_cut, dbias, (size_t)out * sizeof *dbias);
}

/* What a feature's bits are must not hang on the other features of a call, nor on the other blocks. */
static void linear_layers_have_the_same_bits_however_cut(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int c = 0; c < COUNT(linear_cases); c++)
        for (int64_t piece = 1; piece <= 11; piece += piece < 3 ? 1 : 4) {
            linear_data d = linear_data_of(&linear_cases[c]);
            check_linear_cut(k, &d, piece);
            float *y = zeros(d.y_count), *alone = zeros(d.y_count / d.blocks);
            k->linear_forward(&d.g, d.blocks, 0, d.g.out, d.x, d.w, d.bias, y);
            for (int64_t block = 0; block < d.blocks; block++) {
                k->linear_forward(&d.g, 1, 0, d.g.out, d.x + block * d.g.in * EK_LANES, d.w, d.bias, alone);
                assert_memory_equal(alone, y + block * d.g.out * EK_LANES, (size_t)d.g.out * EK_LANES * sizeof *y);
            }
            guarded_free();
        }
}

/* Features [first, first + count) as in `whole`, the others left unwritten; feature i / inner % features has element i. */
static void check_range(const ek_kernels *k, const char *what, int64_t first, int64_t count, int64_t features, int64_t inner,
                        int64_t floats, const float *got, const float *whole)
{
    for (int64_t i = 0; i < floats; i++) {
        int64_t feature = i / inner % features;
        check(k, what, i, got[i], feature >= first && feature < first + count ? whole[i] : NAN, 0);
    }
}

static void a_range_of_a_linear_layer_touches_only_itself(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int c = 0; c < COUNT(linear_cases); c++) {
        linear_data d = linear_data_of(&linear_cases[c]);
        int64_t in = d.g.in, out = d.g.out, o = out / 3, outs = (out + 2) / 3, i = in / 3, ins = (in + 2) / 3;
        float *whole_y = zeros(d.y_count), *whole_dx = zeros(d.x_count), *whole_dw = zeros(d.w_count), *whole_dbias = zeros(out);
        float *y = unwritten(d.y_count), *dx = unwritten(d.x_count), *dw = unwritten(d.w_count), *dbias = unwritten(out);
        k->linear_forward(&d.g, d.blocks, 0, out, d.x, d.w, d.bias, whole_y);
        k->linear_forward(&d.g, d.blocks, o, outs, d.x, d.w, d.bias, y);
        check_range(k, "range of y", o, outs, out, EK_LANES, d.y_count, y, whole_y);
        k->linear_backward_data(&d.g, d.blocks, 0, in, d.dy, d.w, whole_dx);
        k->linear_backward_data(&d.g, d.blocks, i, ins, d.dy, d.w, dx);
        check_range(k, "range of dx", i, ins, in, EK_LANES, d.x_count, dx, whole_dx);
        k->linear_backward_weights(&d.g, d.samples, 0, out, d.rows, d.dy, whole_dw, whole_dbias);
        k->linear_backward_weights(&d.g, d.samples, o, outs, d.rows, d.dy, dw, dbias);
        check_range(k, "range of dw", o, outs, out, in, d.w_count, dw, whole_dw);
        check_range(k, "range of dbias", o, outs, out, 1, out, dbias, whole_dbias);
        guarded_free();
    }
}

/* In one chain of 20,000 sums the rounding would be an order of magnitude more. */
static void long_sums_of_linear_layers_are_accurate(void **state)
{
    (void)state;
    enum { LONG = 20000 };
    linear_data wide = linear_data_of(&(struct linear_case){2, LONG, 2}),
                tall = linear_data_of(&(struct linear_case){2, 2, LONG}),
                many = linear_data_of(&(struct linear_case){LONG, 16, 2});
    float *const all[] = {wide.x, wide.w, tall.dy, tall.w, many.rows, many.dy};
    const int64_t counts[] = {wide.x_count, wide.w_count, tall.y_count, tall.w_count, LONG * 16, many.y_count};
    for (int a = 0; a < COUNT(all); a++)
        for (int64_t i = 0; i < counts[a]; i++) all[a][i] = 0.7f;
    double want = LONG * (double)0.7f * (double)0.7f;
    float *y = zeros(wide.y_count), *dx = zeros(tall.x_count), *dw = zeros(many.w_count);
    FOR_EACH_TABLE(k)
    {
        k->linear_forward(&wide.g, 1, 0, 2, wide.x, wide.w, NULL, y);
        k->linear_backward_data(&tall.g, 1, 0, 2, tall.dy, tall.w, dx);
        k->linear_backward_weights(&many.g, LONG, 0, 2, many.rows, many.dy, dw, NULL);
        for (int64_t i = 0; i < wide.y_count; i++) check(k, "long y", i, y[i], want, 3e-6 * want);
        for (int64_t i = 0; i < tall.x_count; i++) check(k, "long dx", i, dx[i], want, 3e-6 * want);
        for (int64_t i = 0; i < many.w_count; i++) check(k, "long dw", i, dw[i], want, 3e-6 * want);
    }
}

/* --- losses */

static void cross_entropy_and_softmax_match(void **state)
{
    (void)state;
    static const int64_t classes[] = {1, 2, 10, 17, 100};
    enum { N = 7 };
    FOR_EACH_TABLE(k)
    for (int c = 0; c < COUNT(classes); c++)
        for (float size = 1; size < 1e5f; size *= 30) {
            int64_t wide = classes[c], right = 0, correct = -1;
            float *x = noise(EK_LANES * wide), *p = zeros(EK_LANES * wide), *dx = zeros(EK_LANES * wide),
                  *dp = zeros(EK_LANES * wide);
            int32_t label[N];
            double loss[N];
            for (int64_t i = 0; i < EK_LANES * wide; i++) x[i] *= size;
            for (int i = 0; i < N; i++) label[i] = (int32_t)(i * 5 % wide);
            k->softmax(N, wide, x, p);
            k->cross_entropy(N, wide, x, label, 0.25f, loss, &correct, dx);
            k->softmax_backward(wide, p, x, dp);
            for (int i = 0; i < EK_LANES; i++) {
                double sum = 0, max = -INFINITY, dot = 0;
                for (int64_t j = 0; j < wide; j++) max = fmax(max, x[j * EK_LANES + i]);
                for (int64_t j = 0; j < wide; j++) sum += exp(x[j * EK_LANES + i] - max);
                for (int64_t j = 0; j < wide; j++) dot += (double)p[j * EK_LANES + i] * x[j * EK_LANES + i];
                if (i < N) {
                    double own = x[label[i] * EK_LANES + i];
                    right += own == max;
                    check(k, "loss", i, loss[i], log(sum) + max - own, 1e-6 * (1 + loss[i]));
                }
                for (int64_t j = 0; j < wide; j++) {
                    int64_t at = j * EK_LANES + i;
                    double want = i < N ? exp(x[at] - max) / sum : 0;
                    check(k, "softmax", at, p[at], want, 1e-6 * want + 1e-6 * size * want + 3e-45);
                    check(k, "dlogits", at, dx[at], i < N ? 0.25 * (want - (j == label[i])) : 0, 1e-6);
                    check(k, "softmax dx", at, dp[at], p[at] * (x[at] - dot), 1e-6 * size * 10);
                }
            }
            assert_int_equal(correct, right);
            k->cross_entropy(N, wide, x, label, 1, loss, &correct, NULL);
            assert_int_equal(correct, right);
            guarded_free();
        }
}

static void cross_entropy_of_ties_and_nan(void **state)
{
    (void)state;
    static const float x[3][3] = {{1, 2, 2}, {2, 2, 1}, {NAN, 0, 5}};
    static const int32_t label[] = {2, 0, 2};
    float lanes[3][EK_LANES] = {{0}};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) lanes[j][i] = x[i][j];
    FOR_EACH_TABLE(k)
    {
        double loss[3];
        int64_t correct;
        k->cross_entropy(3, 3, lanes[0], label, 1, loss, &correct, NULL);
        assert_int_equal(correct, 1); /* of equals the first is the answer; a NaN is never right */
        assert_true(isfinite(loss[0]) && isfinite(loss[1]) && isnan(loss[2]));
    }
}

/* --- optimizers */

/* Each step is held to the formula from the floats before it, within ten roundings of the magnitudes that were added:
 * terms may cancel, and a gradient that is left of such has no digits to hold it to. */
#define STEP (5 * (double)FLT_EPSILON)

static void check_sgd(const ek_kernels *k, int64_t count, float momentum, bool nesterov, float decay)
{
    float *w = noise(count), *buffer = momentum != 0 ? zeros(count) : NULL;
    for (int step = 0; step < 3; step++) {
        float *grad = noise(count), *w_before = copy(count, w), *before = buffer ? copy(count, buffer) : NULL;
        ek_sgd_step s = {0.1f, momentum, decay, 0.5f, nesterov, step == 0};
        k->sgd(&s, count, w, grad, buffer);
        for (int64_t i = 0; i < count; i++) {
            double scaled = (double)grad[i] * s.grad_scale, decayed = (double)w_before[i] * s.weight_decay;
            double carried = buffer && step > 0 ? (double)before[i] * s.momentum : 0;
            double g = scaled + decayed, b = carried + g;
            double g_size = fabs(scaled) + fabs(decayed), b_size = fabs(carried) + g_size;
            double move = s.lr * (nesterov ? g + s.momentum * b : b);
            double size = fabs(w_before[i]) + s.lr * (nesterov ? g_size + s.momentum * b_size : b_size);
            if (buffer) check(k, "momentum", i, buffer[i], b, STEP * b_size);
            check(k, "sgd", i, w[i], w_before[i] - move, STEP * size);
        }
    }
}

static void check_adam(const ek_kernels *k, int64_t count, bool decoupled, double decay)
{
    float *w = noise(count), *m = zeros(count), *v = zeros(count);
    for (int step = 1; step <= 3; step++) {
        float *grad = noise(count), *w_before = copy(count, w), *m_before = copy(count, m), *v_before = copy(count, v);
        ek_adam_step s = {
            0.01, 0.9, 0.999, 1e-8, decay, 0.5, 1 - pow(0.9, step), sqrt(1 - pow(0.999, step)), decoupled};
        k->adam(&s, count, w, grad, m, v);
        for (int64_t i = 0; i < count; i++) {
            double scaled = grad[i] * s.grad_scale, decayed = decoupled ? 0 : decay * w_before[i];
            double g = scaled + decayed, size = fabs(scaled) + fabs(decayed); /* of what g was added from */
            check(k, "exp_avg", i, m[i], s.beta1 * m_before[i] + (1 - s.beta1) * g,
                  STEP * (s.beta1 * fabs(m_before[i]) + (1 - s.beta1) * size));
            check(k, "exp_avg_sq", i, v[i], s.beta2 * v_before[i] + (1 - s.beta2) * g * g,
                  STEP * (s.beta2 * v_before[i] + (1 - s.beta2) * size * (2 * fabs(g) + STEP * size)));
            /* The move is m's and v's as they were stored: where g all but cancels it hangs on their last digits. */
            double weight = decoupled ? w_before[i] * (1 - s.lr * decay) : w_before[i];
            double move = s.lr / s.correction1 * m[i] / (sqrt(v[i]) / s.correction2_sqrt + s.eps);
            check(k, "adam", i, w[i], weight - move, STEP * (fabs(weight) + fabs(move)));
        }
    }
}

static void optimizers_follow_pytorch(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int64_t count = 0; count <= 35; count += 5) {
        check_sgd(k, count, 0, false, 0);
        check_sgd(k, count, 0.9f, false, 0.01f);
        check_sgd(k, count, 0.9f, true, 0.01f);
        guarded_free();
        check_adam(k, count, false, 0);
        check_adam(k, count, false, 0.1);
        check_adam(k, count, true, 0.1);
        guarded_free();
    }
}

/* --- the choice */

static void the_choice_is_by_name_or_the_best(void **state)
{
    (void)state;
    const ek_kernels *best, *named;
    assert_ok(ek_kernels_choose(NULL, &best));
    assert_ptr_equal(best, tables[table_count - 1]);
    for (int i = 0; i < table_count; i++) {
        assert_ok(ek_kernels_choose(tables[i]->name, &named));
        assert_ptr_equal(named, tables[i]);
    }
    assert_fails(EK_E_ARGUMENT, "baseline, avx2, avx512", ek_kernels_choose("avx3", &named));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, free_memory)
    const struct CMUnitTest tests[] = {
        TEST(convolution_matches_the_definition),
        TEST(convolution_reads_and_writes_through_batch_norm),
        TEST(pooling_matches_the_definition),
        TEST(recipes_match_the_formulas),
        TEST(gradients_are_read_through_batch_norm),
        TEST(moments_of_lanes_match),
        TEST(sums_of_maps_match),
        TEST(sigmoid_and_tanh_are_accurate),
        TEST(activations_at_the_extremes),
        TEST(sums_of_two_arrays),
        TEST(sequences_are_cut_at_their_lengths),
        TEST(sums_and_finiteness),
        TEST(moments_hold_where_the_mean_dwarfs_the_deviation),
        TEST(moments_of_what_is_constant_or_not_finite),
        TEST(columns_moments_match),
        TEST(columns_passes_match_the_formulas),
        TEST(sample_moments_match),
        TEST(sample_passes_match_the_formulas),
        TEST(lanes_and_rows_are_transposes),
        TEST(linear_layers_match_the_definition),
        TEST(linear_layers_have_the_same_bits_however_cut),
        TEST(a_range_of_a_linear_layer_touches_only_itself),
        TEST(long_sums_of_linear_layers_are_accurate),
        TEST(cross_entropy_and_softmax_match),
        TEST(cross_entropy_of_ties_and_nan),
        TEST(optimizers_follow_pytorch),
        TEST(the_choice_is_by_name_or_the_best),
        TEST(fused_passes_match_the_formulas),
    };
    return cmocka_run_group_tests(tests, find_tables, NULL);
}
