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

static void check_conv(const struct conv_case *c)
{
    ek_conv g = conv_of(c);
    int64_t x_count = (int64_t)g.ci * g.hi * g.wi * EK_LANES, map = (int64_t)g.ho * g.wo * EK_LANES,
            y_count = g.co * map;
    int64_t w_count = weight_count(&g);
    float *x = noise(x_count), *w = noise(w_count), *dy = noise(y_count), *bias = noise(g.co),
          *before = noise(w_count);
    float *y = zeros(y_count), *dx = zeros(x_count), *dw = zeros(w_count), *dbias = zeros(g.co);
    float *forward = zeros((int64_t)ek_conv_packed_forward(&g)),
          *backward = zeros((int64_t)ek_conv_packed_backward(&g));
    float *scratch = zeros((int64_t)ek_conv_scratch(&g));
    reference y_ref = new_reference(y_count), dx_ref = new_reference(x_count),
              dw_ref = new_reference(w_count);
    reference dbias_ref = new_reference(g.co);
    conv_reference(&g, x, w, dy, &y_ref, &dx_ref, &dw_ref);
    for (int64_t i = 0; i < y_count; i++) add_to(&dbias_ref, i / map, dy[i]);
    for (int64_t i = 0; i < w_count; i++) add_to(&dw_ref, i, before[i]);

    FOR_EACH_TABLE(k)
    {
        /* Whatever scratch and outputs held before must not show. */
        for (size_t i = 0; i < ek_conv_scratch(&g); i++) scratch[i] = NAN;
        for (int64_t i = 0; i < y_count; i++) y[i] = NAN;
        for (int64_t i = 0; i < x_count; i++) dx[i] = NAN;
        k->conv_pack_forward(&g, w, forward);
        k->conv_forward(&g, x, forward, NULL, y, scratch);
        check_sums(k, "y", &y_ref, y);
        k->conv_pack_backward(&g, w, backward);
        k->conv_backward_data(&g, dy, backward, dx, scratch);
        check_sums(k, "dx", &dx_ref, dx);
        memset(dbias, 0, (size_t)g.co * sizeof *dbias);
        memcpy(dw, before, (size_t)w_count * sizeof *dw);
        k->conv_backward_weights(&g, x, dy, dw, dbias, scratch);
        check_sums(k, "dw", &dw_ref, dw);
        check_sums(k, "dbias", &dbias_ref, dbias);
        memcpy(dw, before, (size_t)w_count * sizeof *dw);
        k->conv_backward_weights(&g, x, dy, dw, NULL, scratch);
        check_sums(k, "dw without dbias", &dw_ref, dw);
    }
    for (int64_t i = 0; i < y_count; i++) add_to(&y_ref, i, bias[i / map]);
    FOR_EACH_TABLE(k)
    {
        k->conv_pack_forward(&g, w, forward);
        k->conv_forward(&g, x, forward, bias, y, scratch);
        check_sums(k, "y with bias", &y_ref, y);
    }
    guarded_free();
}

static void convolution_matches_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(conv_cases); i++) check_conv(&conv_cases[i]);
}

/* --- pooling */

/* c hi wi, window, stride, padding, count_pad */
static const struct window_case {
    int c, hi, wi, kh, kw, sh, sw, ph, pw;
    bool count_pad;
} window_cases[] = {
    {3, 8, 6, 2, 2, 2, 2, 0, 0, true},   {1, 1, 1, 1, 1, 1, 1, 0, 0, true},
    {2, 9, 7, 3, 3, 2, 2, 1, 1, true},   {2, 9, 7, 3, 3, 2, 2, 1, 1, false},
    {1, 7, 11, 3, 2, 1, 1, 1, 1, false}, {5, 8, 8, 8, 8, 8, 8, 0, 0, true},
    {2, 10, 5, 2, 1, 4, 3, 0, 0, true},
};

static ek_window window_of(const struct window_case *c)
{
    return (ek_window){
        .c = c->c,
        .hi = c->hi,
        .wi = c->wi,
        .ho = (c->hi + 2 * c->ph - c->kh) / c->sh + 1,
        .wo = (c->wi + 2 * c->pw - c->kw) / c->sw + 1,
        .kh = c->kh,
        .kw = c->kw,
        .stride_h = c->sh,
        .stride_w = c->sw,
        .pad_h = c->ph,
        .pad_w = c->pw,
        .count_pad = c->count_pad,
    };
}

/* The cells of output o: offsets of their lane rows, in order; how many. */
static int window_cells(const ek_window *g, int64_t o, int64_t *offset)
{
    int c = (int)(o / (g->ho * g->wo)), oh = (int)(o / g->wo % g->ho), ow = (int)(o % g->wo), count = 0;
    for (int kh = 0; kh < g->kh; kh++)
        for (int kw = 0; kw < g->kw; kw++) {
            int h = oh * g->stride_h + kh - g->pad_h, w = ow * g->stride_w + kw - g->pad_w;
            if (h >= 0 && h < g->hi && w >= 0 && w < g->wi)
                offset[count++] = (((int64_t)c * g->hi + h) * g->wi + w) * EK_LANES;
        }
    return count;
}

static void check_avgpool(const ek_window *g)
{
    int64_t outputs = (int64_t)g->c * g->ho * g->wo, x_count = (int64_t)g->c * g->hi * g->wi * EK_LANES;
    float *x = noise(x_count), *dy = noise(outputs * EK_LANES), *y = zeros(outputs * EK_LANES),
          *dx = noise(x_count);
    reference y_ref = new_reference(outputs * EK_LANES), dx_ref = new_reference(x_count);
    int64_t cell[64];
    for (int64_t o = 0; o < outputs; o++) {
        int count = window_cells(g, o, cell), divisor = g->count_pad ? g->kh * g->kw : count;
        for (int i = 0; i < count; i++)
            for (int lane = 0; lane < EK_LANES; lane++) {
                add_to(&y_ref, o * EK_LANES + lane, (double)x[cell[i] + lane] / divisor);
                add_to(&dx_ref, cell[i] + lane, (double)dy[o * EK_LANES + lane] / divisor);
            }
    }
    FOR_EACH_TABLE(k)
    {
        k->avgpool_forward(g, x, y);
        check_sums(k, "avgpool y", &y_ref, y);
        k->avgpool_backward(g, dy, dx);
        check_sums(k, "avgpool dx", &dx_ref, dx);
    }
    guarded_free();
}

/* Values of few levels, so that many are equal; a NaN and windows of -infinity among them. */
static void check_maxpool(const ek_window *g)
{
    int64_t outputs = (int64_t)g->c * g->ho * g->wo, x_count = (int64_t)g->c * g->hi * g->wi * EK_LANES;
    float *x = noise(x_count), *dy = noise(outputs * EK_LANES), *y = zeros(outputs * EK_LANES),
          *dx = noise(x_count);
    int32_t *index = guarded((size_t)outputs * EK_LANES * sizeof *index);
    for (int64_t i = 0; i < x_count; i++) x[i] = i % EK_LANES == 3 ? -INFINITY : floorf(x[i] * 3);
    x[x_count / 2] = NAN;
    FOR_EACH_TABLE(k)
    {
        k->maxpool_forward(g, x, y, index);
        k->maxpool_backward(g, dy, index, dx);
        reference dx_ref = new_reference(x_count);
        int64_t cell[64], map = (int64_t)g->hi * g->wi * EK_LANES;
        for (int64_t i = 0; i < outputs * EK_LANES; i++) {
            int64_t count = window_cells(g, i / EK_LANES, cell), lane = i % EK_LANES, best = cell[0] + lane;
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
    case EK_RELU: return x > 0;
    case EK_LEAKY_RELU: return x > 0 ? 1 : slope;
    case EK_SIGMOID: return s * (1 - s);
    case EK_TANH: return 1 - tanh(x) * tanh(x);
    case EK_SILU: return s * (1 + x * (1 - s));
    }
    return NAN;
}

static void activations_match_at_every_length_and_in_place(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (int kind = EK_RELU; kind <= EK_SILU; kind++)
        for (int64_t count = 0; count <= 35; count++) {
            float *x = noise(count), *dy = noise(count), *y = zeros(count);
            for (int64_t i = 0; i < count; i++) x[i] *= 8;
            k->activation_forward((ek_activation)kind, 0.2f, count, x, y);
            float *dx = copy(count, dy), *same = copy(count, x);
            k->activation_backward((ek_activation)kind, 0.2f, count, x, y, dx, dx);
            k->activation_forward((ek_activation)kind, 0.2f, count, same, same);
            for (int64_t i = 0; i < count; i++) {
                check(k, "activation", i, y[i], activation((ek_activation)kind, 0.2f, x[i]),
                      3e-7 * fabs(y[i]));
                check(k, "derivative", i, dx[i], dy[i] * derivative((ek_activation)kind, 0.2f, x[i]), 1e-6);
                check(k, "activation in place", i, same[i], y[i], 0);
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

/* Sigmoid within 4 ulp where exp is within 2; tanh within 4. */
static void check_accuracy(const ek_kernels *k, ek_activation kind, float from, float to)
{
    enum { STEPS = 4096 };
    float *x = zeros(STEPS), *y = zeros(STEPS);
    for (int i = 0; i < STEPS; i++) x[i] = from + (to - from) * (float)i / STEPS;
    k->activation_forward(kind, 0, STEPS, x, y);
    for (int i = 0; i < STEPS; i++) {
        double want = activation(kind, 0, x[i]);
        check(k, kind == EK_TANH ? "tanh" : "sigmoid", i, y[i], want, 4 * ulp(want));
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
    static const float x[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX};
    static const float want[][5] = {
        {INFINITY, 0, NAN, FLT_MAX, 0},
        {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX / 2},
        {1, 0, NAN, 1, 0},
        {1, -1, NAN, 1, -1},
    };
    FOR_EACH_TABLE(k)
    {
        float y[5];
        for (int kind = EK_RELU; kind <= EK_TANH; kind++) {
            k->activation_forward((ek_activation)kind, 0.5f, 5, x, y);
            for (int i = 0; i < 5; i++) check(k, "extreme", kind * 5 + i, y[i], want[kind][i], 0);
        }
        const float zero = -0.0f;
        k->activation_forward(EK_TANH, 0, 1, &zero, y);
        assert_true(y[0] == 0 && signbit(y[0]));
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

/* rows, length, stride, live */
static const struct slab_case {
    int64_t rows, length, stride;
    int live;
} slab_cases[] = {
    {1, 1, 1, 16},      {1, 16, 16, 1},      {3, 5, 11, 16},   {7, 1, 3, 16},
    {2, 37, 40, 16},    {1, 9216, 9216, 16}, {2, 64, 96, 13},  {1, 4096, 4096, 15},
    {3, 1040, 1056, 7}, {2, 5000, 5003, 16}, {1, 176, 176, 9},
};

static bool slab_alive(const struct slab_case *s, int64_t i)
{
    return s->live == EK_LANES || i % EK_LANES < s->live;
}
static int64_t slab_floats(const struct slab_case *s) { return (s->rows - 1) * s->stride + s->length; }

static ek_moments moments_of(const struct slab_case *s, const float *x)
{
    ek_moments m = {0};
    for (int pass = 0; pass < 2; pass++)
        for (int64_t r = 0; r < s->rows; r++)
            for (int64_t i = 0; i < s->length; i++) {
                if (!slab_alive(s, i)) continue;
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

static void slab_moments_hold_where_the_mean_dwarfs_the_deviation(void **state)
{
    (void)state;
    static const float mean[] = {0, 1, 1e4f, -1e4f, 1e6f}, deviation[] = {1, 1e-2f, 1e-2f, 10, 1};
    for (int c = 0; c < COUNT(slab_cases); c++)
        for (int d = 0; d < COUNT(mean); d++)
            for (int outlier = 0; outlier < 2; outlier++) {
                const struct slab_case *s = &slab_cases[c];
                int64_t count = slab_floats(s);
                float *x = noise(count);
                for (int64_t i = 0; i < count; i++)
                    x[i] = slab_alive(s, i % s->stride) ? mean[d] + deviation[d] * x[i] : 1e30f;
                if (outlier) x[0] = -1e3f; /* the first value must not spoil the rest */
                ek_moments want = moments_of(s, x);
                FOR_EACH_TABLE(k)
                {
                    ek_moments got;
                    k->slab_moments(s->rows, s->length, s->stride, s->live, x, &got);
                    check_moments(k, c, got, want);
                }
                guarded_free();
            }
}

static void moments_of_what_is_constant_or_not_finite(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        float *x = zeros(5000);
        ek_moments m;
        for (int i = 0; i < 5000; i++) x[i] = 0.1f;
        k->slab_moments(1, 5000, 5000, EK_LANES, x, &m);
        assert_true(m.m2 == 0 && m.mean == 0.1f);
        static const float bad[] = {NAN, INFINITY, -INFINITY};
        for (int i = 0; i < 3; i++)
            for (int at = 0; at < 5000; at += 1249) {
                x[at] = bad[i];
                k->slab_moments(1, 5000, 5000, EK_LANES, x, &m);
                assert_false(isfinite(m.mean) && isfinite(m.m2));
                ek_moments columns[5];
                k->columns_moments(1000, 5, 5, x, columns);
                assert_false(isfinite(columns[at % 5].mean) && isfinite(columns[at % 5].m2));
                assert_true(columns[(at + 1) % 5].m2 == 0);
                x[at] = 0.1f;
            }
        guarded_free();
    }
}

static void slab_passes_match_the_formulas(void **state)
{
    (void)state;
    const float mean = 0.3f, a = 1.7f, b = -0.4f, c = 0.9f;
    for (int s_i = 0; s_i < COUNT(slab_cases); s_i++) {
        const struct slab_case *s = &slab_cases[s_i];
        int64_t count = slab_floats(s);
        float *x = noise(count), *g = noise(count), *untouched = noise(count);
        reference sums = new_reference(2);
        for (int64_t r = 0; r < s->rows; r++)
            for (int64_t i = 0; i < s->length; i++) {
                int64_t at = r * s->stride + i;
                if (!slab_alive(s, i)) g[at] = 0;
                add_to(&sums, 0, g[at]);
                add_to(&sums, 1, g[at] * ((double)x[at] - mean));
            }
        FOR_EACH_TABLE(k)
        {
            float *y = copy(count, untouched), *dx = copy(count, untouched);
            double got[2];
            k->slab_backward_sums(s->rows, s->length, s->stride, x, g, mean, &got[0], &got[1]);
            for (int i = 0; i < 2; i++)
                check(k, "slab sum", i, got[i], sums.sum[i], 3e-7 * sums.magnitude[i]);
            k->slab_apply(s->rows, s->length, s->stride, s->live, x, mean, a, b, y);
            k->slab_backward_apply(s->rows, s->length, s->stride, s->live, x, g, mean, a, b, c, dx);
            for (int64_t i = 0; i < count; i++) {
                bool inside = i % s->stride < s->length, alive = slab_alive(s, i % s->stride);
                double centred = (double)x[i] - mean;
                double v = alive ? centred * a + b : 0, d = alive ? a * (double)g[i] + b * centred + c : 0;
                check(k, "slab y", i, y[i], inside ? v : untouched[i], inside ? 1e-6 : 0);
                check(k, "slab dx", i, dx[i], inside ? d : untouched[i], inside ? 1e-6 : 0);
            }
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
            k->columns_moments(s->n, s->c, s->stride, x, got);
            for (int64_t j = 0; j < s->c; j++)
                check_moments(k, j, got[j],
                              moments_of(&(struct slab_case){s->n, 1, s->stride, EK_LANES}, x + j));
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
        ek_norm_piece piece = {s->n, s->c, 1, s->stride, EK_LANES, case_i % 2};
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

/* rows, channels, length, stride; length 1: by columns. Ends, and where lines begin, are odd. */
static const struct fused_case {
    int64_t rows, channels, length, stride;
} fused_cases[] = {
    {1, 1, 3, 3},    {2, 3, 17, 51},     {3, 2, 100, 211},  {1, 5, 1029, 5145}, {2, 1, 4133, 4133},
    {70, 3, 1, 3},   {300, 7, 1, 7},     {9, 15, 1, 20},    {67, 16, 1, 16},    {150, 37, 1, 37},
    {40, 65, 1, 70}, {5, 1030, 1, 1030}, {66, 130, 1, 130},
};

typedef struct fused_problem {
    const struct fused_case *at;
    int64_t count;
    ek_norm_terms terms;
    float *x, *dy;
} fused_problem;

static int64_t channel_at(const struct fused_case *s, int64_t i)
{
    int64_t ch = i % s->stride / s->length;
    return ch < s->channels ? ch : -1; /* between rows */
}

static double fused_z(const fused_problem *p, int64_t i)
{
    int64_t ch = channel_at(p->at, i);
    return ((double)p->x[i] - p->terms.mean[ch]) * p->terms.a[ch] + p->terms.b[ch];
}

static fused_problem fused_problem_create(const struct fused_case *s, bool relu)
{
    int64_t c = s->channels;
    fused_problem p = {s, (s->rows - 1) * s->stride + c * s->length, {0}, NULL, NULL};
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
    const struct fused_case *s = p->at;
    bool columns = s->length == 1, relu = p->terms.floor == 0;
    ek_norm_piece piece = {s->rows, s->channels, s->length, s->stride, EK_LANES, streamed};
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

/* --- matrices */

static const struct gemm_case {
    int64_t m, n, k;
} gemm_cases[] = {
    {1, 1, 1},    {1, 10, 84},   {128, 10, 84},  {64, 120, 256}, {5, 7, 3},
    {97, 65, 33}, {13, 33, 641}, {100, 200, 17}, {3, 2, 0},      {12, 32, 320},
};

enum { BY_ROW, BY_COLUMN, SPREAD, LAYOUTS }; /* SPREAD: neither step is 1 */

static void gemm_steps(int layout, int64_t rows, int64_t columns, int64_t *row, int64_t *column)
{
    *row = layout == BY_ROW ? columns : layout == BY_COLUMN ? 1 : 2;
    *column = layout == BY_ROW ? 1 : layout == BY_COLUMN ? rows : 2 * rows + 1;
}

static int64_t extent(int64_t rows, int64_t columns, int64_t row, int64_t column)
{
    return rows && columns ? (rows - 1) * row + (columns - 1) * column + 1 : 0;
}

static void check_gemm(const struct gemm_case *s, int a_layout, int b_layout, ek_pool *pool, bool bias)
{
    ek_gemm g = {.m = s->m, .n = s->n, .k = s->k, .ldc = s->n + 3};
    gemm_steps(a_layout, g.m, g.k, &g.a_row, &g.a_col);
    gemm_steps(b_layout, g.k, g.n, &g.b_row, &g.b_col);
    int64_t c_count = extent(g.m, g.n, g.ldc, 1);
    g.a = noise(extent(g.m, g.k, g.a_row, g.a_col));
    g.b = noise(extent(g.k, g.n, g.b_row, g.b_col));
    g.bias = bias ? noise(g.n) : NULL;
    float *before = noise(c_count),
          *scratch = zeros((int64_t)ek_gemm_thread_scratch(g.k) * ek_pool_threads(pool));
    reference r = new_reference(c_count);
    for (int64_t at = 0; at < c_count; at++) {
        int64_t i = at / g.ldc, j = at % g.ldc;
        if (j >= g.n) add_to(&r, at, before[at]);
        if (j >= g.n) continue;
        if (bias) add_to(&r, at, g.bias[j]);
        for (int64_t k = 0; k < g.k; k++)
            add_to(&r, at, (double)g.a[i * g.a_row + k * g.a_col] * g.b[k * g.b_row + j * g.b_col]);
    }
    FOR_EACH_TABLE(k)
    {
        g.c = copy(c_count, before);
        ek_gemm_run(k, pool, &g, scratch);
        check_sums(k, "gemm", &r, g.c);
    }
    guarded_free();
}

static void products_match_in_every_layout(void **state)
{
    (void)state;
    ek_pool *pool;
    assert_ok(ek_pool_create(2, &pool));
    for (int s = 0; s < COUNT(gemm_cases); s++)
        for (int layout = 0; layout < LAYOUTS * LAYOUTS; layout++)
            for (int bias = 0; bias < 2; bias++)
                check_gemm(&gemm_cases[s], layout / LAYOUTS, layout % LAYOUTS, pool, bias);
    ek_pool_destroy(pool);
}

static void a_tile_touches_only_itself(void **state)
{
    (void)state;
    enum { M = 29, N = 53, K = 40 };
    static const int64_t tile[][4] = {{0, 29, 0, 53}, {3, 4, 5, 6}, {12, 29, 32, 53}, {7, 20, 1, 34}};
    FOR_EACH_TABLE(k)
    for (int t = 0; t < COUNT(tile); t++) {
        int64_t m0 = tile[t][0], m1 = tile[t][1], n0 = tile[t][2], n1 = tile[t][3];
        float *whole = zeros(M * N), *part = zeros(M * N);
        float *scratch = zeros((int64_t)ek_gemm_scratch(K, m1 - m0, n1 - n0)),
              *large = zeros((int64_t)ek_gemm_scratch(K, M, N));
        ek_gemm g = {.m = M,
                     .n = N,
                     .k = K,
                     .a = noise(M * K),
                     .a_row = K,
                     .a_col = 1,
                     .b = noise(K * N),
                     .b_row = N,
                     .b_col = 1,
                     .c = whole,
                     .ldc = N};
        k->gemm_tile(&g, 0, M, 0, N, large);
        g.c = part;
        k->gemm_tile(&g, m0, m1, n0, n1, scratch);
        for (int64_t i = 0; i < M * N; i++) {
            bool inside = i / N >= m0 && i / N < m1 && i % N >= n0 && i % N < n1;
            check(k, "tile", i, part[i], inside ? whole[i] : 0, inside ? 1e-5 : 0);
        }
        guarded_free();
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
            float *x = noise(N * wide), *p = zeros(N * wide), *dx = zeros(N * wide);
            int32_t label[N];
            double loss[N];
            for (int64_t i = 0; i < N * wide; i++) x[i] *= size;
            for (int i = 0; i < N; i++) label[i] = (int32_t)(i * 5 % wide);
            k->softmax(N, wide, x, p);
            k->cross_entropy(N, wide, x, label, 0.25f, loss, &correct, dx);
            for (int i = 0; i < N; i++) {
                const float *row = x + i * wide;
                double sum = 0, max = -INFINITY;
                for (int64_t j = 0; j < wide; j++) max = fmax(max, row[j]);
                for (int64_t j = 0; j < wide; j++) sum += exp(row[j] - max);
                right += row[label[i]] == max;
                check(k, "loss", i, loss[i], log(sum) + max - row[label[i]], 1e-6 * (1 + loss[i]));
                for (int64_t j = 0; j < wide; j++) {
                    double want = exp(row[j] - max) / sum;
                    check(k, "softmax", i * wide + j, p[i * wide + j], want,
                          1e-6 * want + 1e-6 * size * want + 3e-45);
                    check(k, "dlogits", i * wide + j, dx[i * wide + j], 0.25 * (want - (j == label[i])),
                          1e-6);
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
    FOR_EACH_TABLE(k)
    {
        double loss[3];
        int64_t correct;
        k->cross_entropy(3, 3, x[0], label, 1, loss, &correct, NULL);
        assert_int_equal(correct, 1); /* of equals the first is the answer; a NaN is never right */
        assert_true(isfinite(loss[0]) && isfinite(loss[1]) && isnan(loss[2]));
    }
}

/* --- optimizers */

static void check_sgd(const ek_kernels *k, int64_t count, float momentum, bool nesterov, float decay)
{
    float *w = noise(count), *buffer = momentum != 0 ? zeros(count) : NULL;
    double *w_ref = doubles(count), *b_ref = doubles(count);
    for (int64_t i = 0; i < count; i++) w_ref[i] = w[i];
    for (int step = 0; step < 3; step++) {
        float *grad = noise(count);
        ek_sgd_step s = {0.1f, momentum, decay, 0.5f, nesterov, step == 0};
        k->sgd(&s, count, w, grad, buffer);
        for (int64_t i = 0; i < count; i++) {
            double g = (double)grad[i] * s.grad_scale + s.weight_decay * w_ref[i];
            b_ref[i] = step == 0 ? g : s.momentum * b_ref[i] + g;
            w_ref[i] -= s.lr * (momentum == 0 ? g : nesterov ? g + s.momentum * b_ref[i] : b_ref[i]);
            check(k, "sgd", i, w[i], w_ref[i], 1e-6);
        }
    }
}

static void check_adam(const ek_kernels *k, int64_t count, bool decoupled, double decay)
{
    float *w = noise(count), *m = zeros(count), *v = zeros(count);
    double *w_ref = doubles(count), *m_ref = doubles(count), *v_ref = doubles(count);
    for (int64_t i = 0; i < count; i++) w_ref[i] = w[i];
    for (int step = 1; step <= 3; step++) {
        float *grad = noise(count);
        ek_adam_step s = {
            0.01, 0.9, 0.999, 1e-8, decay, 0.5, 1 - pow(0.9, step), sqrt(1 - pow(0.999, step)), decoupled};
        k->adam(&s, count, w, grad, m, v);
        for (int64_t i = 0; i < count; i++) {
            double g = grad[i] * s.grad_scale;
            if (decoupled)
                w_ref[i] *= 1 - s.lr * decay;
            else
                g += decay * w_ref[i];
            m_ref[i] = s.beta1 * m_ref[i] + (1 - s.beta1) * g;
            v_ref[i] = s.beta2 * v_ref[i] + (1 - s.beta2) * g * g;
            w_ref[i] -= s.lr / s.correction1 * m_ref[i] / (sqrt(v_ref[i]) / s.correction2_sqrt + s.eps);
            check(k, "adam", i, w[i], w_ref[i], 5e-7);
            check(k, "exp_avg_sq", i, v[i], v_ref[i], 1e-6 * v_ref[i]);
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
        TEST(pooling_matches_the_definition),
        TEST(activations_match_at_every_length_and_in_place),
        TEST(sigmoid_and_tanh_are_accurate),
        TEST(activations_at_the_extremes),
        TEST(sums_of_two_arrays),
        TEST(sums_and_finiteness),
        TEST(slab_moments_hold_where_the_mean_dwarfs_the_deviation),
        TEST(moments_of_what_is_constant_or_not_finite),
        TEST(slab_passes_match_the_formulas),
        TEST(columns_moments_match),
        TEST(columns_passes_match_the_formulas),
        TEST(lanes_and_rows_are_transposes),
        TEST(products_match_in_every_layout),
        TEST(a_tile_touches_only_itself),
        TEST(cross_entropy_and_softmax_match),
        TEST(cross_entropy_of_ties_and_nan),
        TEST(optimizers_follow_pytorch),
        TEST(the_choice_is_by_name_or_the_best),
        TEST(fused_passes_match_the_formulas),
    };
    return cmocka_run_group_tests(tests, find_tables, NULL);
}
