/* New running statistics: pooled exactly over batches of unequal sizes, layer by layer or in one pass. */
#include "testing.h"

#include "core/random.h"
#include "data/dataset.h"

#include <math.h>

enum { SAMPLES = 70, FEATURES = 4 };
static ek_context *context;
static float items[SAMPLES * FEATURES];
static ek_dataset data = {.count = SAMPLES, .shape = {1, {FEATURES}}, .item = FEATURES, .floats = items};

/* The last six are far away, as the end of a sorted set is. */
static void draw_items(void)
{
    ek_random random = ek_random_start(3, EK_STREAM_TEST, 0);
    for (int i = 0; i < SAMPLES * FEATURES; i++)
        items[i] = (float)(ek_random_normal(&random) + (i >= 64 * FEATURES ? 11 : 0) + i % FEATURES);
}

/* Mean and unbiased variance of a feature, in two passes. */
static void two_pass(const double *x, double *mean, double *var)
{
    *mean = *var = 0;
    for (int i = 0; i < SAMPLES; i++) *mean += x[i] / SAMPLES;
    for (int i = 0; i < SAMPLES; i++) *var += (x[i] - *mean) * (x[i] - *mean) / (SAMPLES - 1);
}

static const float *numbers(const ek_net *net, const char *name)
{
    ek_tensor t;
    assert_ok(ek_net_find_tensor(net, name, &t));
    return t.data;
}

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance * fmax(1, fabs(expected))))
        fail_msg("%.9g, not %.9g", value, expected);
}

static ek_net *mended(const char *text, const ek_recalibrate_options *options)
{
    ek_net *net;
    assert_ok(ek_net_create(context, text, "test", &net));
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        /* Old statistics that are far off. */
        ek_tensor t = ek_net_tensor(net, i);
        for (int64_t k = 0; t.data && k < t.shape.dim[0]; k++) {
            if (t.role == EK_ROLE_RUNNING_MEAN) t.data[k] = -5;
            if (t.role == EK_ROLE_RUNNING_VAR) t.data[k] = 400;
        }
    }
    assert_ok(ek_recalibrate(net, &data, options));
    return net;
}

static void batches_of_32_32_and_6_give_the_true_mean_and_variance(void **state)
{
    (void)state;
    for (int fast = 0; fast < 2; fast++) {
        ek_recalibrate_options o = ek_recalibrate_options_default();
        o.batch = 32;
        o.fast = fast;
        ek_net *net = mended("input 4\nn: batchnorm\nrelu\n", &o);
        for (int f = 0; f < FEATURES; f++) {
            double x[SAMPLES], mean, var;
            for (int i = 0; i < SAMPLES; i++) x[i] = items[i * FEATURES + f];
            two_pass(x, &mean, &var);
            assert_near(numbers(net, "n.running_mean")[f], mean, 1e-6);
            assert_near(numbers(net, "n.running_var")[f], var, 1e-6);
        }
        ek_net_destroy(net);
        /* Blended with the old. */
        o.blend = 0.25;
        net = mended("input 4\nn: batchnorm\nrelu\n", &o);
        double x[SAMPLES], mean, var;
        for (int i = 0; i < SAMPLES; i++) x[i] = items[i * FEATURES];
        two_pass(x, &mean, &var);
        assert_near(numbers(net, "n.running_mean")[0], 0.75 * -5 + 0.25 * mean, 1e-6);
        assert_near(numbers(net, "n.running_var")[0], 0.75 * 400 + 0.25 * var, 1e-6);
        ek_net_destroy(net);
    }
}

/* Behind the first normalization: what it gives with its new statistics, or with those of each batch. */
static void further_layers_see_mended_inputs_or_those_of_batches(void **state)
{
    (void)state;
    static const char *const text =
        "input 4\nn: batchnorm\ndropout 0.5\nm: batchnorm ghost=4 scale=false\nrelu\n";
    for (int fast = 0; fast < 2; fast++) {
        ek_recalibrate_options o = ek_recalibrate_options_default();
        o.batch = 32;
        o.fast = fast;
        ek_net *net = mended(text, &o);
        for (int f = 0; f < FEATURES; f++) {
            double x[SAMPLES], y[SAMPLES], mean, var, eps = 1e-5;
            for (int i = 0; i < SAMPLES; i++) x[i] = items[i * FEATURES + f];
            two_pass(x, &mean, &var);
            for (int first = 0; first < SAMPLES; first += 32) {
                int end = first + 32 < SAMPLES ? first + 32 : SAMPLES;
                double m = 0, v = 0;
                for (int i = first; i < end; i++) m += x[i] / (end - first);
                for (int i = first; i < end; i++) v += (x[i] - m) * (x[i] - m) / (end - first);
                for (int i = first; i < end; i++)
                    y[i] = fast ? (x[i] - m) / sqrt(v + eps) : (x[i] - mean) / sqrt(var + eps);
            }
            two_pass(y, &mean, &var);
            assert_near(numbers(net, "m.running_mean")[f], mean, 1e-6);
            assert_near(numbers(net, "m.running_var")[f], var, 1e-6);
        }
        /* The options that were off for the pass are back. */
        float y[SAMPLES * FEATURES], again[SAMPLES * FEATURES];
        assert_ok(ek_net_forward(net, EK_MODE_TRAINING, SAMPLES, items, y));
        ek_net *fresh;
        assert_ok(ek_net_create(context, text, "test", &fresh));
        assert_ok(ek_net_forward(fresh, EK_MODE_TRAINING, SAMPLES, items, again));
        assert_memory_equal(y, again, sizeof y);
        ek_net_destroy(fresh);
        ek_net_destroy(net);
    }
}

static void a_failure_leaves_the_net_as_it_was(void **state)
{
    (void)state;
    ek_recalibrate_options o = ek_recalibrate_options_default();
    ek_net *net;
    o.batch = 1; /* one value a channel in a batch */
    o.fast = true;
    assert_ok(ek_net_create(context, "input 4\nn: batchnorm\nrelu\n", "test", &net));
    assert_fails(EK_E_SHAPE, "use batches of 2 or more", ek_recalibrate(net, &data, &o));
    assert_true(numbers(net, "n.running_mean")[0] == 0 && numbers(net, "n.running_var")[0] == 1);
    ek_net_destroy(net);
    o.batch = 32;
    for (failing f = {0}; fail_next(&f);) {
        f.status =
            ek_net_create(context, "input 4\ndropout 0.5\nn: batchnorm\nm: batchnorm\nrelu\n", "test", &net);
        if (f.status != EK_OK) continue;
        f.status = ek_recalibrate(net, &data, &o);
        ek_net_destroy(net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_of_32_32_and_6_give_the_true_mean_and_variance),
        cmocka_unit_test(further_layers_see_mended_inputs_or_those_of_batches),
        cmocka_unit_test(a_failure_leaves_the_net_as_it_was),
    };
    if (ek_context_create(NULL, &context) != EK_OK) return 1;
    draw_items();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ek_context_destroy(context);
    return failed;
}
