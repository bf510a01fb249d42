/* Batch normalization: the public operations against the oracle in double, against PyTorch's numbers, and
 * against what must hold exactly. */
#include "testing.h"

#include "guarded.h"

#include "core/memory.h"
#include "core/random.h"
#include "norm/batch_norm.h"
#include "oracles/batch_norm_golden.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* --- helpers */

#define COUNT_OF(array) ((int)(sizeof(array) / sizeof *(array)))

static const char *const isas[] = {"reference", "baseline", "avx2", "avx512"};

/* NULL where this machine lacks the instruction set. */
static ek_context *context_of(const char *isa, int threads)
{
    ek_context *context = NULL;
    ek_status status = ek_context_create(&(ek_context_options){.threads = threads, .isa = isa}, &context);
    if (status != EK_E_UNSUPPORTED) assert_ok(status);
    return context;
}

static void *must(void *memory)
{
    assert_non_null(memory);
    return memory;
}

static float *floats(int64_t count) { return must(ek_calloc((size_t)count, sizeof(float))); }
static double *doubles(int64_t count) { return must(ek_calloc((size_t)count, sizeof(double))); }
static int64_t count_of(ek_ncs shape) { return shape.n * shape.c * shape.s; }
static bool is_large(ek_ncs shape) { return count_of(shape) > 1 << 20; }

/* What an operation is given. */
typedef struct problem {
    ek_ncs shape;
    int64_t count;
    float *x, *dy, *gamma, *beta, *running_mean, *running_var;
} problem;

/* Values of mean up to 3 and deviation 0.5 to 2, another for each channel. */
static problem problem_create(ek_ncs shape, uint64_t seed)
{
    int64_t count = count_of(shape);
    problem p = {shape,           count,           floats(count),   floats(count),
                 floats(shape.c), floats(shape.c), floats(shape.c), floats(shape.c)};
    ek_random random = ek_random_start(seed, EK_STREAM_TEST, 0);
    for (int64_t c = 0; c < shape.c; c++) {
        double mean = 6 * ek_random_uniform(&random) - 3, deviation = 0.5 + 1.5 * ek_random_uniform(&random);
        p.gamma[c] = (float)(2 * ek_random_uniform(&random) - 1);
        p.beta[c] = (float)ek_random_normal(&random);
        p.running_mean[c] = (float)ek_random_normal(&random);
        p.running_var[c] = (float)(0.5 + ek_random_uniform(&random));
        for (int64_t n = 0; n < shape.n; n++)
            for (int64_t s = 0; s < shape.s; s++) {
                int64_t i = (n * shape.c + c) * shape.s + s;
                p.x[i] = (float)(mean + deviation * ek_random_normal(&random));
                p.dy[i] = (float)ek_random_normal(&random);
            }
    }
    return p;
}

static void problem_destroy(problem *p)
{
    float *all[] = {p->x, p->dy, p->gamma, p->beta, p->running_mean, p->running_var};
    for (int i = 0; i < COUNT_OF(all); i++) ek_free(all[i]);
}

/* All that comes out of a training pass, an inference pass after it, and both backward passes, in one
 * block, so that two runs are compared at once. */
enum { Y, DX, INFERENCE, INFERENCE_DX, FULL }; /* [n, c, s] each */
enum {
    MEAN,
    MEAN_LOW,
    VAR,
    INV_STD,
    DGAMMA,
    DBETA,
    RUNNING_MEAN,
    RUNNING_VAR,
    INFERENCE_DGAMMA,
    CHANNEL
}; /* [c] */

static int64_t results_size(const problem *p) { return FULL * p->count + CHANNEL * p->shape.c; }
static int64_t full_at(const problem *p, int which) { return which * p->count; }
static int64_t channel_at(const problem *p, int which) { return FULL * p->count + which * p->shape.c; }

enum { BATCHES_BEFORE = 4 };

static float *run_library(ek_context *context, const ek_batch_norm_options *options, const problem *p)
{
    float *out = floats(results_size(p)), *saved_inference = floats(4 * p->shape.c);
    int64_t c = p->shape.c, batches = BATCHES_BEFORE;
    float *channel[CHANNEL];
    for (int i = 0; i < CHANNEL; i++) channel[i] = out + channel_at(p, i);
    memcpy(channel[RUNNING_MEAN], p->running_mean, (size_t)c * sizeof(float));
    memcpy(channel[RUNNING_VAR], p->running_var, (size_t)c * sizeof(float));
    ek_batch_norm_arrays arrays = {p->gamma, p->beta, channel[RUNNING_MEAN], channel[RUNNING_VAR], &batches};
    ek_batch_norm_saved saved = {channel[MEAN], channel[MEAN_LOW], channel[VAR], channel[INV_STD]};
    ek_batch_norm_saved used = {saved_inference, saved_inference + c, saved_inference + 2 * c,
                                saved_inference + 3 * c};

    assert_ok(
        ek_batch_norm_forward_train(context, options, p->shape, p->x, &arrays, out + full_at(p, Y), &saved));
    assert_int_equal(batches, BATCHES_BEFORE + (options->track && !options->frozen));
    assert_ok(ek_batch_norm_backward(
        context, options, EK_MODE_TRAINING, p->shape, p->x, p->dy, &arrays, &saved,
        &(ek_batch_norm_gradients){out + full_at(p, DX), channel[DGAMMA], channel[DBETA]}));
    assert_ok(ek_batch_norm_forward_inference(context, options, p->shape, p->x, &arrays,
                                              out + full_at(p, INFERENCE), &used));
    assert_ok(ek_batch_norm_backward(
        context, options, EK_MODE_INFERENCE, p->shape, p->x, p->dy, &arrays, &used,
        &(ek_batch_norm_gradients){out + full_at(p, INFERENCE_DX), channel[INFERENCE_DGAMMA], NULL}));
    ek_free(saved_inference);
    return out;
}

static double *widened(const float *from, int64_t count)
{
    double *to = doubles(count);
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
    return to;
}

/* Forward and backward from given statistics. */
static void oracle_pass(const ek_batch_norm_options *o, const problem *p, bool batch_statistics,
                        const double *mean, const double *var, double *y, double *dx, double *dgamma,
                        double *dbeta)
{
    double *x = widened(p->x, p->count), *dy = widened(p->dy, p->count);
    double *gamma = widened(p->gamma, p->shape.c), *beta = widened(p->beta, p->shape.c);
    const double *scale = o->scale ? gamma : NULL, *shift = o->shift ? beta : NULL;
    ek_batch_norm_reference_forward(p->shape, NULL, o->eps, x, mean, var, scale, shift, y);
    if (o->relu) {
        ek_batch_norm_reference_relu_backward(p->count, y, dy);
        ek_batch_norm_reference_relu(p->count, y);
    }
    ek_batch_norm_reference_backward(p->shape, NULL, o->eps, batch_statistics, x, dy, mean, var, scale, dx,
                                     dgamma, dbeta);
    ek_free(x);
    ek_free(dy);
    ek_free(gamma);
    ek_free(beta);
}

/* The same by the oracle and the text's formulas. */
static double *run_oracle(const ek_batch_norm_options *o, const problem *p)
{
    ek_ncs shape = p->shape;
    double *out = doubles(results_size(p)), *channel[CHANNEL];
    for (int i = 0; i < CHANNEL; i++) channel[i] = out + channel_at(p, i);
    double *x = widened(p->x, p->count);
    double *mean = channel[MEAN], *var = channel[VAR];
    double *running_mean = channel[RUNNING_MEAN], *running_var = channel[RUNNING_VAR];
    double m = (double)(shape.n * shape.s);

    if (!o->frozen) ek_batch_norm_reference_statistics(shape, NULL, x, mean, var);
    for (int64_t c = 0; c < shape.c; c++) {
        running_mean[c] = p->running_mean[c];
        running_var[c] = p->running_var[c];
        if (o->frozen) {
            mean[c] = running_mean[c];
            var[c] = running_var[c];
        } else if (o->track) {
            double a = o->cumulative ? 1.0 / (BATCHES_BEFORE + 1) : o->momentum;
            double share = o->unbiased_running_var ? var[c] * m / (m - 1) : var[c];
            running_mean[c] = (1 - a) * running_mean[c] + a * mean[c];
            running_var[c] = (1 - a) * running_var[c] + a * share;
        }
        channel[MEAN_LOW][c] = mean[c] - (float)mean[c];
        channel[INV_STD][c] = 1 / sqrt(var[c] + o->eps);
    }
    oracle_pass(o, p, !o->frozen, mean, var, out + full_at(p, Y), out + full_at(p, DX), channel[DGAMMA],
                channel[DBETA]);
    const double *used_mean = o->track ? running_mean : mean, *used_var = o->track ? running_var : var;
    oracle_pass(o, p, !o->track, used_mean, used_var, out + full_at(p, INFERENCE),
                out + full_at(p, INFERENCE_DX), channel[INFERENCE_DGAMMA], NULL);
    ek_free(x);
    return out;
}

/* Where a ReLU's input is within rounding of 0, oracle and kernels may disagree on whether it is open: there dy
 * becomes 0. */
static void spare_the_kink(const ek_batch_norm_options *options, problem *p)
{
    if (!options->relu) return;
    ek_batch_norm_options linear = *options;
    linear.relu = false;
    double *out = run_oracle(&linear, p);
    for (int64_t i = 0; i < p->count; i++)
        if (fabs(out[full_at(p, Y) + i]) < 1e-4 || fabs(out[full_at(p, INFERENCE) + i]) < 1e-4) p->dy[i] = 0;
    ek_free(out);
}

/* |a - b| <= tolerance*(1 + |b|), and with a word on where. */
static void assert_near(double a, double b, double tolerance, const char *what, int64_t index)
{
    if (!(fabs(a - b) <= tolerance * (1 + fabs(b))))
        fail_msg("%s at %lld: %.9g, expected %.9g", what, (long long)index, a, b);
}

/* A few roundings of float. Sums over m values may gather them as a walk of m steps, and dx is what is left
 * of terms of the size of inv_std. The mean is held to more than a float. */
static void assert_results(const float *out, const double *expected, const problem *p, const char *what)
{
    const double rounding = 1.5e-6;
    double walk = sqrt((double)(p->shape.n * p->shape.s));
    for (int64_t i = 0; i < FULL * p->count; i++) {
        int64_t section = i / p->count, c = i / p->shape.s % p->shape.c;
        bool gradient = section == DX || section == INFERENCE_DX;
        double size = gradient ? 1 + expected[channel_at(p, INV_STD) + c] : 1;
        assert_near(out[i], expected[i], rounding * size, what, i);
    }
    for (int section = 0; section < CHANNEL; section++)
        for (int64_t c = 0; c < p->shape.c; c++) {
            int64_t i = channel_at(p, section) + c;
            bool sum = section == DGAMMA || section == DBETA || section == INFERENCE_DGAMMA;
            if (section == MEAN)
                assert_near((double)out[i] + out[channel_at(p, MEAN_LOW) + c], expected[i], 1e-7, what, i);
            else if (section != MEAN_LOW)
                assert_near(out[i], expected[i], rounding * (sum ? walk : 1), what, i);
        }
}

/* Odd ones; one position; one channel; short and long runs; more than one piece in each direction. */
static const ek_ncs shapes[] = {
    {2, 1, 1},     {3, 2, 1},     {1, 3, 2},     {5, 7, 1},     {17, 5, 3},    {2, 3, 5},
    {3, 4, 16},    {4, 3, 17},    {33, 6, 49},   {7, 1, 64},    {130, 20, 1},  {1, 5, 63},
    {64, 3, 1},    {1, 2, 40000}, {3, 1, 20000}, {700, 65, 1},  {40000, 1, 1}, {4000, 3, 4},
    {3, 2, 17000}, {50, 9, 144},  {2, 1100, 1},  {20, 1100, 1}, {1, 700, 60},
};

/* --- the oracle itself */

static double weighted_sum(ek_ncs shape, bool batch_statistics, const double *x, const double *mean,
                           const double *var, const double *gamma, const double *beta, const double *weights)
{
    int64_t count = count_of(shape);
    double *y = doubles(count), *batch = doubles(2 * shape.c), sum = 0;
    if (batch_statistics) ek_batch_norm_reference_statistics(shape, NULL, x, batch, batch + shape.c);
    ek_batch_norm_reference_forward(shape, NULL, 1e-5, x, batch_statistics ? batch : mean,
                                    batch_statistics ? batch + shape.c : var, gamma, beta, y);
    for (int64_t i = 0; i < count; i++) sum += weights[i] * y[i];
    ek_free(y);
    ek_free(batch);
    return sum;
}

static void check_gradients(ek_ncs shape, bool batch_statistics)
{
    problem p = problem_create(shape, 7);
    double *x = widened(p.x, p.count), *dy = widened(p.dy, p.count);
    double *gamma = widened(p.gamma, shape.c), *beta = widened(p.beta, shape.c);
    double *mean = widened(p.running_mean, shape.c), *var = widened(p.running_var, shape.c);
    double *dx = doubles(p.count), *dgamma = doubles(shape.c), *dbeta = doubles(shape.c);
    if (batch_statistics) ek_batch_norm_reference_statistics(shape, NULL, x, mean, var);
    ek_batch_norm_reference_backward(shape, NULL, 1e-5, batch_statistics, x, dy, mean, var, gamma, dx, dgamma,
                                     dbeta);

    struct {
        const char *name;
        double *variable, *gradient;
        int64_t count;
    } checks[] = {
        {"dx", x, dx, p.count}, {"dgamma", gamma, dgamma, shape.c}, {"dbeta", beta, dbeta, shape.c}};
    const double h = 1e-5;
    for (int k = 0; k < COUNT_OF(checks); k++)
        for (int64_t i = 0; i < checks[k].count; i++) {
            double *at = &checks[k].variable[i], value = *at;
            *at = value + h;
            double above = weighted_sum(shape, batch_statistics, x, mean, var, gamma, beta, dy);
            *at = value - h;
            double below = weighted_sum(shape, batch_statistics, x, mean, var, gamma, beta, dy);
            *at = value;
            assert_near(checks[k].gradient[i], (above - below) / (2 * h), 1e-7, checks[k].name, i);
        }
    double *all[] = {x, dy, gamma, beta, mean, var, dx, dgamma, dbeta};
    for (int i = 0; i < COUNT_OF(all); i++) ek_free(all[i]);
    problem_destroy(&p);
}

static void oracle_agrees_with_finite_differences(void **state)
{
    (void)state;
    static const ek_ncs small[] = {{5, 3, 1}, {3, 2, 7}, {1, 2, 5}, {19, 1, 1}};
    for (int i = 0; i < COUNT_OF(small); i++) {
        check_gradients(small[i], true);
        check_gradients(small[i], false);
    }
}

/* --- the operations against the oracle */

static void check_shape(ek_ncs shape, bool relu)
{
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.relu = relu;
    problem p = problem_create(shape, 1);
    spare_the_kink(&options, &p);
    double *expected = run_oracle(&options, &p);
    for (int k = is_large(shape) ? 1 : 0; k < COUNT_OF(isas); k++) { /* the oracle is slow */
        ek_context *context = context_of(isas[k], 2);
        if (!context) continue;
        char what[64];
        snprintf(what, sizeof what, "%s [%d,%d,%d]%s", isas[k], (int)shape.n, (int)shape.c, (int)shape.s,
                 relu ? " relu" : "");
        float *out = run_library(context, &options, &p);
        assert_results(out, expected, &p, what);
        ek_free(out);
        ek_context_destroy(context);
    }
    ek_free(expected);
    problem_destroy(&p);
}

static void all_shapes_agree_with_the_oracle(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(shapes); i++) {
        check_shape(shapes[i], false);
        check_shape(shapes[i], true);
    }
}

/* Large enough to be written past the caches: few channels, many, columns; runs begin anywhere in a line. */
static const ek_ncs large[] = {{2, 2, 1050001}, {20, 65, 3229}, {100003, 42, 1}};

static void large_arrays_agree_with_the_oracle(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(large); i++) check_shape(large[i], true);
}

static void check_options(const ek_batch_norm_options *options, const char *what)
{
    static const ek_ncs small[] = {{9, 5, 1}, {3, 4, 25}};
    for (int i = 0; i < COUNT_OF(small); i++) {
        problem p = problem_create(small[i], 3);
        spare_the_kink(options, &p);
        double *expected = run_oracle(options, &p);
        for (int k = 0; k < 2; k++) { /* the reference, and one set of kernels */
            ek_context *context = context_of(isas[k], 1);
            float *out = run_library(context, options, &p);
            assert_results(out, expected, &p, what);
            ek_free(out);
            ek_context_destroy(context);
        }
        ek_free(expected);
        problem_destroy(&p);
    }
}

static void all_options_agree_with_the_oracle(void **state)
{
    (void)state;
    static const struct {
        bool track, frozen;
    } statistics[] = {{true, false}, {true, true}, {false, false}};
    for (int bits = 0; bits < 32; bits++)
        for (int k = 0; k < COUNT_OF(statistics); k++) {
            ek_batch_norm_options options = {
                .eps = bits & 1 ? 1e-3 : 1e-5,
                .momentum = 0.3,
                .scale = bits & 1,
                .shift = bits & 2,
                .unbiased_running_var = bits & 4,
                .cumulative = bits & 8,
                .relu = bits & 16,
                .track = statistics[k].track,
                .frozen = statistics[k].frozen,
            };
            char what[64];
            snprintf(what, sizeof what, "options %d, statistics %d", bits, k);
            check_options(&options, what);
        }
}

/* --- PyTorch */

/* As series() in batch_norm_golden.py. */
static void series(float *out, int count, int step, int modulus, float scale)
{
    for (int i = 0; i < count; i++) out[i] = (float)((i * step) % modulus - modulus / 2) / scale;
}

static void assert_all_near(const float *out, const float *golden, int count, const char *what)
{
    for (int i = 0; i < count; i++) assert_near(out[i], golden[i], 2e-6, what, i);
}

static void check_golden(const char *isa, bool cumulative)
{
    ek_context *context = context_of(isa, 1);
    if (!context) return;
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.cumulative = cumulative;
    ek_ncs shape = {3, 2, 4};
    float x[3][24], dy[24], y[24], dx[24], dgamma[2], dbeta[2], kept[4][2];
    const float gamma[] = {1.5f, -0.5f}, beta[] = {0.25f, 2};
    float running_mean[] = {0, 0}, running_var[] = {1, 1};
    int64_t batches = 0;
    ek_batch_norm_arrays arrays = {gamma, beta, running_mean, running_var, &batches};
    ek_batch_norm_saved saved = {kept[0], kept[1], kept[2], kept[3]};
    series(x[0], 72, 37, 101, 16);
    series(dy, 24, 29, 53, 8);
    for (int step = 0; step < 3; step++)
        assert_ok(ek_batch_norm_forward_train(context, &options, shape, x[step], &arrays, y, &saved));
    assert_int_equal(batches, 3);
    if (cumulative) {
        assert_all_near(running_mean, golden_cumulative_running_mean, 2, "cumulative running_mean");
        assert_all_near(running_var, golden_cumulative_running_var, 2, "cumulative running_var");
    } else {
        ek_batch_norm_gradients gradients = {dx, dgamma, dbeta};
        assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_TRAINING, shape, x[2], dy, &arrays,
                                         &saved, &gradients));
        assert_all_near(y, golden_y, 24, "y");
        assert_all_near(dx, golden_dx, 24, "dx");
        assert_all_near(dgamma, golden_dgamma, 2, "dgamma");
        assert_all_near(dbeta, golden_dbeta, 2, "dbeta");
        assert_all_near(running_mean, golden_running_mean, 2, "running_mean");
        assert_all_near(running_var, golden_running_var, 2, "running_var");
        assert_ok(ek_batch_norm_forward_inference(context, &options, shape, x[0], &arrays, y, NULL));
        assert_all_near(y, golden_inference, 24, "inference");
    }
    ek_context_destroy(context);
}

static void pytorch_numbers(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT_OF(isas); k++) {
        check_golden(isas[k], false);
        check_golden(isas[k], true);
    }
}

/* --- running statistics */

/* Four values 1, 3, 5, 7: mean 4, M2 20, var 5, unbiased 20/3. */
static void running_update_by_hand(void **state)
{
    (void)state;
    ek_batch_norm_options options = ek_batch_norm_options_default();
    float mean = 4, low = 0, var = 5, inv_std = 0, running_mean = 2, running_var = 3;
    int64_t batches = 7;
    ek_batch_norm_saved saved = {&mean, &low, &var, &inv_std};
    ek_batch_norm_arrays arrays = {NULL, NULL, &running_mean, &running_var, &batches};
    bool updated = false;

    options.momentum = 0.25;
    options.unbiased_running_var = false;
    assert_ok(ek_batch_norm_update_running(&options, 4, 1, &saved, &arrays, &updated));
    assert_true(updated);
    assert_true(running_mean == 2.5f); /* 0.75*2 + 0.25*4 */
    assert_true(running_var == 3.5f);  /* 0.75*3 + 0.25*5 */
    assert_int_equal(batches, 8);

    options.unbiased_running_var = true; /* var 5 of four values: M2 20, 20/3 */
    assert_ok(ek_batch_norm_update_running(&options, 4, 1, &saved, &arrays, NULL));
    assert_true(running_mean == 2.875f);
    assert_near(running_var, 0.75 * 3.5 + 0.25 * 20 / 3, 1e-7, "running_var", 0);

    batches = 3; /* the fourth batch: a quarter of it, whatever the momentum */
    options.cumulative = true;
    options.momentum = NAN;
    options.unbiased_running_var = false;
    running_mean = 2, running_var = 3;
    assert_ok(ek_batch_norm_update_running(&options, 4, 1, &saved, &arrays, NULL));
    assert_true(running_mean == 2.5f && running_var == 3.5f && batches == 4);

    options.frozen = true;
    assert_ok(ek_batch_norm_update_running(&options, 4, 1, &saved, &arrays, &updated));
    assert_true(!updated && running_mean == 2.5f && running_var == 3.5f && batches == 4);
    options.frozen = options.track = false;
    assert_ok(ek_batch_norm_update_running(&options, 4, 1, &saved, NULL, &updated));
    assert_false(updated);
}

static void cumulative_average_is_the_mean_of_the_batches(void **state)
{
    (void)state;
    enum { BATCHES = 9, C = 3 };
    ek_context *context = context_of("baseline", 1);
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.cumulative = true;
    /* What was there before the first batch has no part in it. */
    float running_mean[C] = {50, 60, 70}, running_var[C] = {5, 6, 7}, kept[4][C];
    double mean_sum[C] = {0}, var_sum[C] = {0};
    int64_t batches = 0;
    for (int t = 0; t < BATCHES; t++) {
        problem p = problem_create((ek_ncs){4 + t, C, 6}, (uint64_t)t);
        double *x = widened(p.x, p.count), mean[C], var[C], m = (4 + t) * 6;
        ek_batch_norm_reference_statistics(p.shape, NULL, x, mean, var);
        for (int c = 0; c < C; c++) {
            mean_sum[c] += mean[c];
            var_sum[c] += var[c] * m / (m - 1);
        }
        ek_batch_norm_arrays arrays = {p.gamma, p.beta, running_mean, running_var, &batches};
        ek_batch_norm_saved saved = {kept[0], kept[1], kept[2], kept[3]};
        float *y = floats(p.count);
        assert_ok(ek_batch_norm_forward_train(context, &options, p.shape, p.x, &arrays, y, &saved));
        ek_free(y);
        ek_free(x);
        problem_destroy(&p);
    }
    for (int c = 0; c < C; c++) {
        assert_near(running_mean[c], mean_sum[c] / BATCHES, 1e-6, "mean", c);
        assert_near(running_var[c], var_sum[c] / BATCHES, 1e-6, "var", c);
    }
    assert_int_equal(batches, BATCHES);
    ek_context_destroy(context);
}

static void bad_batches_leave_the_running_statistics(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, FLT_MAX};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    for (int k = 0; k < COUNT_OF(isas); k++) {
        ek_context *context = context_of(isas[k], 1);
        if (!context) continue;
        for (int b = 0; b < COUNT_OF(bad); b++)
            for (int s = 1; s < 40; s += 38) {
                problem p = problem_create((ek_ncs){3, 4, s}, 5);
                p.x[p.count - 1] = bad[b]; /* in the last channel; the variance overflows for FLT_MAX */
                float kept[4][4], running_mean[4] = {1, 2, 3, 4}, running_var[4] = {5, 6, 7, 8};
                int64_t batches = 2;
                ek_batch_norm_arrays arrays = {p.gamma, p.beta, running_mean, running_var, &batches};
                ek_batch_norm_saved saved = {kept[0], kept[1], kept[2], kept[3]};
                float *y = floats(p.count);
                assert_ok(ek_batch_norm_forward_train(context, &options, p.shape, p.x, &arrays, y, &saved));
                for (int c = 0; c < 4; c++)
                    assert_true(running_mean[c] == (float)(c + 1) && running_var[c] == (float)(c + 5));
                assert_int_equal(batches, 2);
                for (int64_t i = 0; i < 3 * s; i++) assert_true(isfinite(y[i])); /* other channels */
                bool updated = true;
                assert_ok(ek_batch_norm_update_running(&options, 3 * s, 4, &saved, &arrays, &updated));
                assert_false(updated);
                ek_free(y);
                problem_destroy(&p);
            }
        ek_context_destroy(context);
    }
}

/* --- numbers that hold up */

static void large_means_lose_nothing(void **state)
{
    (void)state;
    static const ek_ncs some[] = {{500, 3, 1}, {4, 3, 1000}, {30, 3, 7}, {1, 1, 70000}};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.track = options.scale = options.shift = false;
    for (int i = 0; i < COUNT_OF(some); i++) {
        problem p = problem_create(some[i], 2);
        ek_random random = ek_random_start(9, EK_STREAM_TEST, 0);
        for (int64_t j = 0; j < p.count; j++) p.x[j] = (float)(1e4 + 1e-2 * ek_random_normal(&random));
        double *expected = run_oracle(&options, &p);
        for (int k = 0; k < COUNT_OF(isas); k++) {
            ek_context *context = context_of(isas[k], 1);
            if (!context) continue;
            float *out = run_library(context, &options, &p);
            for (int64_t c = 0; c < p.shape.c; c++) {
                double var = expected[channel_at(&p, VAR) + c];
                assert_true(fabs(out[channel_at(&p, VAR) + c] - var) <= 1e-6 * var);
            }
            for (int64_t j = 0; j < p.count; j++) {
                assert_near(out[full_at(&p, Y) + j], expected[full_at(&p, Y) + j], 1e-6, "y", j);
                /* dx is of the size of 1/deviation */
                assert_true(fabs(out[full_at(&p, DX) + j] - expected[full_at(&p, DX) + j]) < 1e-6 * 500);
            }
            ek_free(out);
            ek_context_destroy(context);
        }
        ek_free(expected);
        problem_destroy(&p);
    }
}

static void constant_channels_give_beta(void **state)
{
    (void)state;
    static const ek_ncs some[] = {{7, 3, 1}, {5, 3, 3}, {4, 3, 333}, {3, 1, 20000}, {600, 40, 1}};
    static const float values[] = {0, 1, -0.1f, 12345.678f, 1e-30f, 3e30f};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    for (int k = 0; k < COUNT_OF(isas); k++) {
        ek_context *context = context_of(isas[k], 2);
        if (!context) continue;
        for (int i = 0; i < COUNT_OF(some); i++)
            for (int v = 0; v < COUNT_OF(values); v++) {
                problem p = problem_create(some[i], 1);
                for (int64_t j = 0; j < p.count; j++) p.x[j] = values[v];
                float *out = run_library(context, &options, &p);
                /* The oracle's sum may round; the kernels' shifted one is exact. */
                bool exact = k > 0;
                for (int64_t c = 0; c < p.shape.c; c++) {
                    float var = out[channel_at(&p, VAR) + c];
                    assert_true(exact ? var == 0 : var >= 0);
                }
                for (int64_t j = 0; exact && j < p.count; j++)
                    assert_true(out[j] == p.beta[j / p.shape.s % p.shape.c]);
                ek_free(out);
                problem_destroy(&p);
            }
        ek_context_destroy(context);
    }
}

static void same_bits_for_any_threads(void **state)
{
    (void)state;
    ek_batch_norm_options options = ek_batch_norm_options_default();
    for (int k = 1; k < COUNT_OF(isas); k++)
        for (int i = 0; i < COUNT_OF(shapes); i++) {
            problem p = problem_create(shapes[i], 21);
            float *one = NULL;
            for (int threads = 1; threads <= 4; threads++) {
                ek_context *context = context_of(isas[k], threads);
                if (!context) break;
                float *out = run_library(context, &options, &p);
                if (!one) one = out;
                assert_memory_equal(one, out, (size_t)results_size(&p) * sizeof *out);
                if (out != one) ek_free(out);
                ek_context_destroy(context);
            }
            ek_free(one);
            problem_destroy(&p);
        }
}

/* What is written in place never goes past the caches: the same bits either way. */
static void outputs_may_be_the_inputs(void **state)
{
    (void)state;
    static const ek_ncs some[] = {{9, 5, 1}, {3, 4, 50}, {60, 50, 1}, {100003, 42, 1}};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.relu = true;
    for (int k = 0; k < COUNT_OF(isas); k++) {
        ek_context *context = context_of(isas[k], 1);
        if (!context) continue;
        for (int i = 0; i < COUNT_OF(some); i++) {
            if (k == 0 && is_large(some[i])) continue; /* the oracle is slow */
            problem p = problem_create(some[i], 4);
            size_t bytes = (size_t)p.count * sizeof(float);
            float *apart = run_library(context, &options, &p), *x = floats(p.count),
                  *kept = floats(4 * p.shape.c);
            ek_batch_norm_saved saved = {kept, kept + p.shape.c, kept + 2 * p.shape.c, kept + 3 * p.shape.c};
            ek_batch_norm_arrays arrays = {p.gamma, p.beta, p.running_mean, p.running_var, NULL};
            memcpy(x, p.x, bytes);
            assert_ok(ek_batch_norm_forward_train(context, &options, p.shape, x, &arrays, x, &saved));
            assert_memory_equal(x, apart + full_at(&p, Y), bytes);
            memcpy(x, p.x, bytes);
            assert_ok(ek_batch_norm_forward_inference(context, &options, p.shape, x, &arrays, x, NULL));
            assert_memory_equal(x, apart + full_at(&p, INFERENCE), bytes);
            assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_TRAINING, p.shape, p.x, p.dy, &arrays,
                                             &saved, &(ek_batch_norm_gradients){.dx = p.dy}));
            assert_memory_equal(p.dy, apart + full_at(&p, DX), bytes);
            ek_free(apart);
            ek_free(x);
            ek_free(kept);
            problem_destroy(&p);
        }
        ek_context_destroy(context);
    }
}

/* The backward pass finds where the ReLU was shut to the bit: where y is 0 no gradient passes, elsewhere all of it.
 * Every z is within rounding of 0. */
static void the_relu_is_shut_in_both_passes_alike(void **state)
{
    (void)state;
    static const ek_ncs some[] = {{7, 33, 1}, {40, 3, 5}, {3, 90, 61}};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.relu = true;
    for (int k = 1; k < COUNT_OF(isas); k++) {
        ek_context *context = context_of(isas[k], 2);
        if (!context) continue;
        for (int i = 0; i < COUNT_OF(some); i++) {
            problem p = problem_create(some[i], 8);
            int64_t c = p.shape.c, open = 0;
            for (int64_t j = 0; j < p.count; j++) {
                int64_t ch = j / p.shape.s % c;
                p.x[j] = nextafterf(1.1f, (float)(j % 3)); /* three neighbours */
                p.dy[j] = 1;
                p.beta[ch] = (float)(-p.gamma[ch] * (1.1f - (double)p.running_mean[ch]) /
                                     sqrt(p.running_var[ch] + options.eps));
            }
            float *y = floats(p.count), *dx = floats(p.count), *kept = floats(4 * c);
            ek_batch_norm_saved saved = {kept, kept + c, kept + 2 * c, kept + 3 * c};
            ek_batch_norm_arrays arrays = {p.gamma, p.beta, p.running_mean, p.running_var, NULL};
            assert_ok(ek_batch_norm_forward_inference(context, &options, p.shape, p.x, &arrays, y, &saved));
            assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_INFERENCE, p.shape, p.x, p.dy,
                                             &arrays, &saved, &(ek_batch_norm_gradients){.dx = dx}));
            for (int64_t j = 0; j < p.count; j++) {
                assert_true(fabsf(y[j]) < 1e-5f && (y[j] > 0) == (dx[j] != 0));
                open += y[j] > 0;
            }
            assert_true(open > p.count / 10 && open < p.count - p.count / 10);
            ek_free(y);
            ek_free(dx);
            ek_free(kept);
            problem_destroy(&p);
        }
        ek_context_destroy(context);
    }
}

/* A copy that ends where its last page does: at no multiple of a vector. */
static float *at_the_end(const float *from, int64_t count)
{
    float *to = guarded((size_t)count * sizeof *to);
    if (from) memcpy(to, from, (size_t)count * sizeof *to);
    return to;
}

static void arrays_may_lie_anywhere(void **state)
{
    (void)state;
    static const ek_ncs some[] = {{3, 5, 1}, {33, 37, 1}, {9, 3, 1}, {5, 3, 61}, {3, 1, 1001}};
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.relu = true;
    for (int k = 1; k < COUNT_OF(isas); k++) {
        ek_context *context = context_of(isas[k], 1);
        if (!context) continue;
        for (int i = 0; i < COUNT_OF(some); i++) {
            problem p = problem_create(some[i], 6);
            float *expected = run_library(context, &options, &p);
            int64_t c = p.shape.c;
            float *x = at_the_end(p.x, p.count), *dy = at_the_end(p.dy, p.count);
            float *y = at_the_end(NULL, p.count), *dx = at_the_end(NULL, p.count),
                  *kept = at_the_end(NULL, 4 * c);
            ek_batch_norm_saved saved = {kept, kept + c, kept + 2 * c, kept + 3 * c};
            ek_batch_norm_arrays arrays = {at_the_end(p.gamma, c), at_the_end(p.beta, c), p.running_mean,
                                           p.running_var, NULL};
            assert_ok(ek_batch_norm_forward_train(context, &options, p.shape, x, &arrays, y, &saved));
            assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_TRAINING, p.shape, x, dy, &arrays,
                                             &saved, &(ek_batch_norm_gradients){.dx = dx}));
            assert_memory_equal(y, expected + full_at(&p, Y), (size_t)p.count * sizeof *y);
            assert_memory_equal(dx, expected + full_at(&p, DX), (size_t)p.count * sizeof *dx);
            guarded_free();
            ek_free(expected);
            problem_destroy(&p);
        }
        ek_context_destroy(context);
    }
}

/* In inference the input has no part in dx, not even an infinite one. */
static void inference_gradient_does_not_look_at_x(void **state)
{
    (void)state;
    ek_context *context = context_of("baseline", 1);
    ek_batch_norm_options options = ek_batch_norm_options_default();
    float x[] = {INFINITY, NAN}, dy[] = {1, 2}, dx[2], gamma = 3, zero = 0, one = 1;
    ek_batch_norm_saved saved = {&zero, &zero, &one, &one};
    ek_batch_norm_arrays arrays = {.gamma = &gamma, .beta = &one};
    ek_batch_norm_gradients gradients = {.dx = dx};
    assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_INFERENCE, (ek_ncs){2, 1, 1}, x, dy, &arrays,
                                     &saved, &gradients));
    assert_true(dx[0] == 3 && dx[1] == 6);

    /* With a ReLU only its sign counts; a NaN does not shut it. */
    options.relu = true;
    assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_INFERENCE, (ek_ncs){2, 1, 1}, x, dy, &arrays,
                                     &saved, &gradients));
    assert_true(dx[0] == 3 && dx[1] == 6);
    x[0] = -INFINITY;
    assert_ok(ek_batch_norm_backward(context, &options, EK_MODE_INFERENCE, (ek_ncs){2, 1, 1}, x, dy, &arrays,
                                     &saved, &gradients));
    assert_true(dx[0] == 0 && dx[1] == 6);
    ek_context_destroy(context);
}

/* --- merging */

static void merging_is_exact(void **state)
{
    (void)state;
    ek_moments a = {0}, empty = {0}, b = {2, 3, 2}, c = {4, 6, 10}; /* {2, 4} and four values about 6 */
    ek_moments_merge(&a, empty);
    assert_true(a.count == 0);
    ek_moments_merge(&a, b);
    ek_moments_merge(&a, empty);
    assert_true(a.count == 2 && a.mean == 3 && a.m2 == 2);
    ek_moments_merge(&a, c); /* M2 = 2 + 10 + 3^2*2*4/6 */
    assert_true(a.count == 6 && a.mean == 5 && fabs(a.m2 - 24) < 1e-14);

    ek_moments parts[10]; /* 1 to 5, every second one */
    for (int i = 0; i < 5; i++) parts[2 * i] = (ek_moments){1, i + 1, 0};
    ek_moments all = ek_moments_merge_all(parts, 5, 2);
    assert_true(all.count == 5 && fabs(all.mean - 3) < 1e-15 && fabs(all.m2 - 10) < 1e-14);
    assert_true(ek_moments_merge_all(parts, 0, 1).count == 0);
}

/* --- errors */

static void what_does_not_fit_is_said(void **state)
{
    (void)state;
    ek_context *context = context_of("baseline", 1);
    ek_batch_norm_options options = ek_batch_norm_options_default(), wrong = options;
    problem p = problem_create((ek_ncs){2, 3, 1}, 1);
    float y[6] = {9, 9, 9, 9, 9, 9}, kept[4][3];
    ek_batch_norm_saved saved = {kept[0], kept[1], kept[2], kept[3]}, torn = saved;
    ek_batch_norm_arrays arrays = {p.gamma, p.beta, p.running_mean, p.running_var, NULL}, part;
    ek_batch_norm_gradients gradients = {y, NULL, NULL};
    ek_ncs one = {1, 3, 1};
    torn.mean_low = NULL;
#define TRAIN(o, shape, x, a, s) ek_batch_norm_forward_train(context, o, shape, x, a, y, s)
#define INFER(o, shape, x, a) ek_batch_norm_forward_inference(context, o, shape, x, a, y, NULL)
#define BACK(mode, shape, a, s, g) ek_batch_norm_backward(context, &options, mode, shape, p.x, p.dy, a, s, g)

    assert_fails(EK_E_SHAPE, "has 1 value a channel", TRAIN(&options, one, p.x, &arrays, &saved));
    assert_fails(EK_E_SHAPE, "at least 2", BACK(EK_MODE_TRAINING, one, &arrays, &saved, &gradients));
    assert_fails(EK_E_SHAPE, "[0,3,1]", TRAIN(&options, ((ek_ncs){0, 3, 1}), p.x, &arrays, &saved));
    assert_fails(EK_E_SHAPE, "[2,-1,1]", INFER(&options, ((ek_ncs){2, -1, 1}), p.x, &arrays));
    assert_fails(EK_E_SHAPE, "more values", INFER(&options, ((ek_ncs){INT64_MAX, 3, 1}), p.x, &arrays));
    assert_fails(EK_E_SHAPE, "0 channels",
                 ek_batch_norm_update_running(&options, 4, 0, &saved, &arrays, NULL));
    assert_fails(EK_E_SHAPE, "1 value", ek_batch_norm_update_running(&options, 1, 3, &saved, &arrays, NULL));

    static const double bad_eps[] = {0, -1, NAN, INFINITY}, bad_momentum[] = {-0.1, 1.1, NAN};
    for (int i = 0; i < COUNT_OF(bad_eps); i++) {
        wrong.eps = bad_eps[i];
        assert_fails(EK_E_ARGUMENT, "eps must be above 0", TRAIN(&wrong, p.shape, p.x, &arrays, &saved));
    }
    wrong = options;
    for (int i = 0; i < COUNT_OF(bad_momentum); i++) {
        wrong.momentum = bad_momentum[i];
        assert_fails(EK_E_ARGUMENT, "momentum must be 0 to 1", INFER(&wrong, p.shape, p.x, &arrays));
    }
    wrong = options;
    wrong.frozen = true;
    wrong.track = false;
    assert_fails(EK_E_ARGUMENT, "track is off", TRAIN(&wrong, p.shape, p.x, &arrays, &saved));
    wrong.frozen = false; /* inference from the batch itself */
    assert_fails(EK_E_SHAPE, "at least 2", INFER(&wrong, one, p.x, &arrays));

    wrong = options;
    wrong.cumulative = true;
    assert_fails(EK_E_ARGUMENT, "num_batches_tracked", TRAIN(&wrong, p.shape, p.x, &arrays, &saved));
    int64_t negative = -3;
    part = arrays, part.num_batches_tracked = &negative;
    assert_fails(EK_E_ARGUMENT, "is -3", TRAIN(&wrong, p.shape, p.x, &part, &saved));
    part = arrays, part.gamma = NULL;
    assert_fails(EK_E_ARGUMENT, "gamma is NULL, but scale is on",
                 TRAIN(&options, p.shape, p.x, &part, &saved));
    part = arrays, part.beta = NULL;
    assert_fails(EK_E_ARGUMENT, "beta is NULL, but shift is on", INFER(&options, p.shape, p.x, &part));
    part = arrays, part.running_mean = NULL;
    assert_fails(EK_E_ARGUMENT, "running_mean is NULL, but track is on",
                 INFER(&options, p.shape, p.x, &part));
    part = arrays, part.running_var = NULL;
    assert_fails(EK_E_ARGUMENT, "running_var is NULL", INFER(&options, p.shape, p.x, &part));
    assert_fails(EK_E_ARGUMENT, "gamma is NULL", INFER(&options, p.shape, p.x, NULL));
    assert_fails(EK_E_ARGUMENT, "options is NULL", TRAIN(NULL, p.shape, p.x, &arrays, &saved));
    assert_fails(EK_E_ARGUMENT, "x is NULL", TRAIN(&options, p.shape, NULL, &arrays, &saved));
    assert_fails(EK_E_ARGUMENT, "saved", TRAIN(&options, p.shape, p.x, &arrays, NULL));
    assert_fails(EK_E_ARGUMENT, "saved", TRAIN(&options, p.shape, p.x, &arrays, &torn));
    assert_fails(EK_E_ARGUMENT, "gamma is NULL", BACK(EK_MODE_TRAINING, p.shape, NULL, &saved, &gradients));
    assert_fails(EK_E_ARGUMENT, "gradients is NULL", BACK(EK_MODE_TRAINING, p.shape, &arrays, &saved, NULL));
    for (int i = 0; i < 6; i++) assert_true(y[i] == 9); /* nothing was written */

    options.relu = true;
    part = (ek_batch_norm_arrays){.gamma = p.gamma};
    assert_fails(EK_E_ARGUMENT, "beta is NULL", BACK(EK_MODE_TRAINING, p.shape, &part, &saved, &gradients));
    options.relu = false;

    /* Frozen statistics need no batch. */
    wrong = options;
    wrong.frozen = true;
    assert_ok(TRAIN(&wrong, one, p.x, &arrays, &saved));
    assert_ok(INFER(&options, one, p.x, &arrays));
    problem_destroy(&p);
    ek_context_destroy(context);
}

static void running_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    ek_batch_norm_options options = ek_batch_norm_options_default();
    for (int k = 0; k < 2; k++) {
        ek_context *context = context_of(isas[k], 1);
        problem p = problem_create((ek_ncs){4, 2, 3}, 1);
        float y[24] = {0}, running_mean[] = {1, 2}, running_var[] = {3, 4}, kept[4][2];
        ek_batch_norm_saved saved = {kept[0], kept[1], kept[2], kept[3]};
        ek_batch_norm_arrays arrays = {p.gamma, p.beta, running_mean, running_var, NULL};
        size_t before = ek_memory_count().live_bytes;
        int failures = 0;
        for (ek_status status = EK_E_MEMORY; status != EK_OK; failures++) {
            assert_true(status == EK_E_MEMORY && y[0] == 0 && running_mean[0] == 1 && running_var[1] == 4);
            assert_true(ek_memory_count().live_bytes == before);
            ek_memory_fail_after((uint64_t)failures + 1);
            status = ek_batch_norm_forward_train(context, &options, p.shape, p.x, &arrays, y, &saved);
            ek_memory_fail_after(0);
        }
        assert_true(failures > 1 && y[0] != 0 && running_mean[0] != 1);
        problem_destroy(&p);
        ek_context_destroy(context);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_is_exact),
        cmocka_unit_test(oracle_agrees_with_finite_differences),
        cmocka_unit_test(all_shapes_agree_with_the_oracle),
        cmocka_unit_test(large_arrays_agree_with_the_oracle),
        cmocka_unit_test(all_options_agree_with_the_oracle),
        cmocka_unit_test(pytorch_numbers),
        cmocka_unit_test(running_update_by_hand),
        cmocka_unit_test(cumulative_average_is_the_mean_of_the_batches),
        cmocka_unit_test(bad_batches_leave_the_running_statistics),
        cmocka_unit_test(large_means_lose_nothing),
        cmocka_unit_test(constant_channels_give_beta),
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(outputs_may_be_the_inputs),
        cmocka_unit_test(the_relu_is_shut_in_both_passes_alike),
        cmocka_unit_test(arrays_may_lie_anywhere),
        cmocka_unit_test(inference_gradient_does_not_look_at_x),
        cmocka_unit_test(what_does_not_fit_is_said),
        cmocka_unit_test(running_out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
