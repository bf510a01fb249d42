/* Observing a run: what is kept is what was there, on every path through the engine, and nothing is changed by it. */
#include "testing.h"

#include "lab/observe.h"
#include "lab/quantiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A batchnorm fused with what reads it, one with its producer, one of a flattened map, one that is frozen, and one of ghost
 * batches. */
static const char net_text[] = "input 1x8x8\n"
                               "c: conv 4 kernel=3\n"
                               "cn: batchnorm\n"
                               "relu\n"
                               "flatten\n"
                               "n: batchnorm scale=false\n"
                               "f: linear 12\n"
                               "fn: batchnorm shift=false\n"
                               "sigmoid\n"
                               "ln: batchnorm frozen=true\n"
                               "gn: batchnorm ghost=12\n"
                               "out: linear 10\n";
enum { BATCH = 40, NORMS = 5, GHOST = 12 };

/* --- sorting */

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void sorting(void **state)
{
    (void)state;
    enum { MOST = 3000 };
    static float value[MOST], expected[MOST];
    static uint32_t room[2 * MOST];
    for (int n = 0; n <= MOST; n = n < 60 ? n + 1 : n * 2) {
        int finite = 0;
        for (int i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)(i + 1) * 2654435761u ^ (uint32_t)n * 40503u;
            memcpy(&value[i], &bits,
                   sizeof bits); /* any float there is: zeros, subnormals, infinities, NaNs */
            if (i % 7 == 3) value[i] = (float)(i % 5 - 2);
            if (i % 31 == 4) value[i] = i % 2 ? NAN : -INFINITY;
            if (isfinite(value[i])) expected[finite++] = value[i];
        }
        qsort(expected, (size_t)finite, sizeof *expected, compare);
        assert_int_equal(ek_sort_finite(value, n, room), finite);
        for (int i = 0; i < finite; i++) assert_true(value[i] == expected[i]);
    }
    const float few[] = {1, 2, 4, 8};
    assert_true(ek_quantile(few, 4, 0) == 1 && ek_quantile(few, 4, 1) == 8 && ek_quantile(few, 4, 0.5) == 3);
    assert_true(ek_quantile(few, 4, 0.25) == 1.75); /* numpy.quantile */
    assert_true(isnan(ek_quantile(few, 0, 0.5)));
    assert_true(ek_quantile(few, 1, 0.3) == 1);
}

/* --- what is seen */

/* Stands before an observer, and holds what it has seen at a step against what is there. */
typedef struct witness {
    ek_observer base, *real;
    int checked;
} witness;

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double expected_quantile(double *value, int64_t n, double q)
{
    qsort(value, (size_t)n, sizeof *value, compare_double);
    double at = q * (double)(n - 1), below = floor(at);
    int64_t i = (int64_t)below, next = i + 1 < n ? i + 1 : i;
    return value[i] + (at - below) * (value[next] - value[i]);
}

static void check_quantiles(const ek_seen *seen, const ek_seen_norm *norm, int measure, int count,
                            double *value, int64_t n)
{
    static const double seven[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99}, five[] = {0, 0.25, 0.5, 0.75, 1};
    for (int i = 0; i < count; i++) {
        double expected = expected_quantile(value, n, count == 7 ? seven[i] : five[i]);
        double found = ek_seen_measure(seen, norm, measure + i)[seen->look - 1];
        if (!(fabs(found - expected) <= 2e-5 * (1 + fabs(expected))))
            fail_msg("%s, step %d, measure %d: %.9g, not %.9g", norm->label, (int)seen->step, measure + i,
                     found, expected);
    }
}

static double *doubles(const float *value, int64_t n)
{
    double *out = calloc((size_t)n, sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) out[i] = (double)value[i];
    return out;
}

static void check_parameter(const ek_seen *seen, const ek_seen_norm *norm, const float *value, int measure)
{
    if (!value) return;
    double *copy = doubles(value, norm->channels);
    check_quantiles(seen, norm, measure, 5, copy, norm->channels);
    free(copy);
}

/* Mean and variance of each channel of x [n, c, positions]. */
static void moments(const double *x, int64_t n, const ek_seen_norm *norm, double *mean, double *var)
{
    int64_t c = norm->channels, s = norm->positions;
    for (int64_t k = 0; k < c; k++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n * s; i++) sum += x[(i / s * c + k) * s + i % s];
        mean[k] = sum / (double)(n * s);
        for (int64_t i = 0; i < n * s; i++) {
            double d = x[(i / s * c + k) * s + i % s] - mean[k];
            squares += d * d;
        }
        var[k] = squares / (double)(n * s);
    }
}

static void check_norm(const ek_seen *seen, const ek_net *net, const ek_seen_norm *norm, int64_t n)
{
    int64_t c = norm->channels, s = norm->positions, count = n * c * s;
    float *x = calloc((size_t)count, sizeof *x);
    assert_non_null(x);
    ek_net_norm_input(net, norm->layer, 0, n, x);
    double *before = doubles(x, count), *after = calloc((size_t)count, sizeof *after);
    double *mean = calloc((size_t)(4 * c), sizeof *mean), *var = mean + c, *gap = var + c, *ratio = gap + c;
    assert_true(after && mean);
    moments(before, n, norm, mean, var);
    int64_t varied = 0; /* channels whose values are not all equal, as they are where relu gave nothing */
    for (int64_t k = 0; k < c; k++) {
        if (var[k] == 0) continue;
        gap[varied] = fabs(norm->running_mean[k] - mean[k]) / sqrt(var[k]);
        ratio[varied++] = norm->running_var[k] / var[k];
    }
    int64_t each = strcmp(norm->label, "gn") == 0 ? GHOST : n; /* samples that are normalized together */
    for (int64_t first = 0; first < n; first += each) {
        int64_t from = first * c * s, samples = first + each < n ? each : n - first;
        moments(before + from, samples, norm, mean, var);
        for (int64_t i = from; i < from + samples * c * s; i++) {
            int64_t k = i / s % c;
            double m = norm->batch ? mean[k] : (double)norm->running_mean[k],
                   v = norm->batch ? var[k] : (double)norm->running_var[k];
            after[i] = (norm->gamma ? norm->gamma[k] : 1) * (before[i] - m) / sqrt(v + 1e-5) +
                       (norm->beta ? norm->beta[k] : 0);
        }
    }
    check_quantiles(seen, norm, EK_SEEN_BEFORE, 7, before, count);
    check_quantiles(seen, norm, EK_SEEN_AFTER, 7, after, count);
    check_parameter(seen, norm, norm->gamma, EK_SEEN_GAMMA);
    check_parameter(seen, norm, norm->beta, EK_SEEN_BETA);
    if (norm->batch) check_quantiles(seen, norm, EK_SEEN_MEAN_GAP, 5, gap, varied);
    if (norm->batch) check_quantiles(seen, norm, EK_SEEN_VAR_RATIO, 5, ratio, varied);
    assert_true(norm->inputs.count == (double)count);
    assert_int_equal(norm->batch, strcmp(norm->label, "ln") != 0);
    free(x);
    free(before);
    free(after);
    free(mean);
}

static ek_status witness_begin(ek_observer *observer, ek_net *net, const ek_event *start)
{
    witness *w = (witness *)observer;
    return w->real->begin(w->real, net, start);
}

static void witness_forward(ek_observer *observer, const ek_net *net, int64_t n)
{
    witness *w = (witness *)observer;
    const ek_seen *seen = ek_seen_of(w->real);
    int64_t looks = seen->look;
    w->real->forward(w->real, net, n);
    if (seen->look == looks) return;
    w->checked++;
    for (int i = 0; i < seen->norms; i++) check_norm(seen, net, &seen->norm[i], n);
}

static void witness_event(ek_observer *observer, const ek_event *event)
{
    witness *w = (witness *)observer;
    w->real->event(w->real, event);
}

static bool stop_at_23(void *user, const ek_event *event)
{
    (void)user;
    return event->step < 23;
}

/* 23 steps of two epochs. A net whose running statistics are no zeros and ones shows more. */
static void run(const char *isa, bool unfused, int threads, ek_observer *observer, ek_net **out,
                ek_context **context)
{
    ek_context_options context_options = {.threads = threads, .isa = isa};
    ek_train_options options = ek_train_options_default();
    ek_dataset *data;
    assert_ok(ek_context_create(&context_options, context));
    (*context)->unfused = unfused;
    assert_ok(ek_net_create(*context, net_text, NULL, out));
    assert_ok(ek_dataset_open("synthetic:1x8x8", EK_SPLIT_TRAIN, &data));
    options.epochs = 2;
    options.batch = BATCH;
    options.listener = stop_at_23;
    options.observer = observer;
    assert_int_equal(ek_train(*out, data, NULL, &options), EK_E_INTERRUPTED);
    ek_dataset_destroy(data);
}

static void check_path(const char *isa, bool unfused)
{
    witness w = {.base = {witness_begin, witness_forward, witness_event}};
    ek_context *context;
    ek_net *net;
    assert_ok(ek_observer_create(&w.real));
    run(isa, unfused, 2, &w.base, &net, &context);
    const ek_seen *seen = ek_seen_of(w.real);
    assert_int_equal(seen->norms, NORMS);
    assert_int_equal(w.checked, seen->look);
    assert_int_equal(seen->look, 11);
    const double steps[] = {1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (seen->at[i] != steps[i]) fail_msg("look %d is at step %g, not %g", (int)i, seen->at[i], steps[i]);
    ek_observer_destroy(w.real);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void what_is_seen(void **state)
{
    (void)state;
    check_path(NULL, false);
    check_path(NULL, true);
    check_path("baseline", false);
}

static void what_the_reference_sees(void **state)
{
    (void)state;
    check_path("reference", false);
}

/* --- which steps */

static void which_steps(void **state)
{
    (void)state;
    static const int64_t runs[][2] = {{0, 1}, {0, 5}, {0, 100}, {0, 1407}, {700, 1407}, {0, 123456}, {5, 5}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        ek_context *context;
        ek_net *net;
        ek_observer *observer;
        ek_event start = {
            .kind = EK_EVENT_START, .step = runs[i][0], .steps = runs[i][1], .epoch = 1, .epochs = 1};
        assert_ok(ek_context_create(NULL, &context));
        assert_ok(ek_net_create(context, "input 4\nlinear 2\n", NULL, &net));
        assert_ok(ek_observer_create(&observer));
        assert_ok(observer->begin(observer, net, &start));
        const ek_seen *seen = ek_seen_of(observer);
        for (int64_t step = start.step + 1; step <= start.steps; step++) {
            ek_event event = {
                .kind = EK_EVENT_STEP, .step = step, .steps = start.steps, .loss = (double)step, .lr = 0.5};
            if (step == 4) event.loss = NAN;
            observer->forward(observer, net, 1);
            observer->event(observer, &event);
        }
        assert_int_equal(seen->look, seen->looks);
        int64_t run = start.steps - start.step;
        assert_true(seen->look <= 130 && seen->look >= (run < 20 ? run / 2 : 8));
        if (run)
            assert_true(seen->at[0] == (double)start.step + 1 &&
                        seen->at[seen->look - 1] == (double)start.steps);
        assert_true(seen->steps.count <= 1000);
        if (run > 1000) {
            double each = (double)seen->steps.each;
            assert_true(seen->steps.low[2] == 2 * each + 1 && seen->steps.high[2] == 3 * each);
            assert_true(fabs(seen->steps.loss[2] - (2.5 * each + 0.5)) < 1e-6);
        }
        if (start.step == 0 && run == 5) assert_true(isnan(seen->steps.loss[3]) && seen->steps.loss[4] == 5);
        ek_observer_destroy(observer);
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

/* A step that has no forward pass to look at counts, and the next one is looked at in its place. */
static void a_step_without_a_pass(void **state)
{
    (void)state;
    static const double looks[] = {1, 4, 5, 6, 8, 10};
    ek_context *context;
    ek_net *net;
    ek_observer *observer;
    ek_event event = {.kind = EK_EVENT_START, .steps = 10, .epoch = 1, .epochs = 1};
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(ek_net_create(context, "input 4\nlinear 2\n", NULL, &net));
    assert_ok(ek_observer_create(&observer));
    assert_ok(observer->begin(observer, net, &event));
    event.kind = EK_EVENT_STEP;
    while (++event.step <= event.steps) {
        if (event.step != 2 && event.step != 3) observer->forward(observer, net, 1);
        observer->event(observer, &event);
    }
    const ek_seen *seen = ek_seen_of(observer);
    assert_int_equal(seen->look, 6);
    assert_memory_equal(seen->at, looks, sizeof looks);
    ek_observer_destroy(observer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* --- nothing is changed, and all is the same */

static void same_bits(void **state)
{
    (void)state;
    ek_context *context[3];
    ek_net *net[3];
    ek_observer *observer[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        if (i) assert_ok(ek_observer_create(&observer[i]));
        run(NULL, false, i < 2 ? 1 : 3, observer[i], &net[i], &context[i]);
    }
    for (int i = 0; i < ek_net_tensor_count(net[0]); i++) {
        ek_tensor plain = ek_net_tensor(net[0], i), one = ek_net_tensor(net[1], i),
                  three = ek_net_tensor(net[2], i);
        size_t bytes = (size_t)ek_shape_count(plain.shape) * sizeof(float);
        if (!plain.data) continue;
        assert_memory_equal(plain.data, one.data, bytes);
        assert_memory_equal(plain.data, three.data, bytes);
    }
    const ek_seen *one = ek_seen_of(observer[1]), *three = ek_seen_of(observer[2]);
    for (int i = 0; i < one->norms; i++)
        assert_memory_equal(one->norm[i].measure, three->norm[i].measure,
                            (size_t)(EK_SEEN_MEASURES * one->looks) * sizeof(double));
    for (int i = 0; i < 3; i++) {
        ek_observer_destroy(observer[i]);
        ek_net_destroy(net[i]);
        ek_context_destroy(context[i]);
    }
}

/* Of sequences, only what is alive is looked at. */
static void rows_of_sequences(void **state)
{
    (void)state;
    enum { N = 20, C = 2, L = 5 };
    static const char *const isa[] = {NULL, "reference"};
    float x[N * C * L], plain[N * C * L], before[EK_LANES], after[EK_LANES];
    int32_t lengths[N];
    for (int i = 0; i < N * C * L; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    for (int i = 0; i < N; i++) lengths[i] = i * 3 % L + 1;
    for (int path = 0; path < 2; path++) {
        ek_context *context;
        ek_net *net;
        assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .isa = isa[path]}, &context));
        assert_ok(ek_net_create(context, "input 2x5\nc: conv1d 2 kernel=1\nn: batchnorm\n", NULL, &net));
        assert_ok(ek_net_use_lengths(net, true));
        assert_ok(ek_net_prepare(net, N, true));
        ek_net_set_input(net, N, x);
        ek_net_set_lengths(net, N, lengths);
        assert_ok(ek_net_run_forward(net, N, EK_MODE_TRAINING, 1, 1));
        ek_net_norm_input(net, 2, 0, N, plain);
        for (int64_t block = 0; block < ek_blocks(N); block++) {
            for (int element = 0; element < C * L; element++) {
                int found = ek_net_norm_row(net, 2, block, element, before, after), expected = 0;
                for (int64_t i = block * EK_LANES; i < N && i < (block + 1) * EK_LANES; i++) {
                    if (element % L >= lengths[i]) continue;
                    assert_true(before[expected++] == plain[i * C * L + element]);
                }
                assert_int_equal(found, expected);
            }
        }
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

/* More channels than rows are read of: some of them are looked at, gamma and beta of all. */
static void many_channels(void **state)
{
    (void)state;
    enum { CHANNELS = 9000 };
    ek_context *context;
    ek_net *net;
    ek_observer *observer;
    ek_dataset *data;
    ek_train_options options = ek_train_options_default();
    char text[64];
    snprintf(text, sizeof text, "input 4\nlinear %d\nn: batchnorm\nlinear 10\n", CHANNELS);
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(ek_net_create(context, text, NULL, &net));
    ek_tensor gamma;
    assert_ok(ek_net_find_tensor(net, "n.weight", &gamma));
    for (int i = 0; i < CHANNELS; i++) gamma.data[i] = (float)i;
    assert_ok(ek_observer_create(&observer));
    assert_ok(ek_dataset_open("synthetic:4", EK_SPLIT_TEST, &data));
    options.epochs = 1;
    options.batch = 800;
    options.optimizer.lr = 1e-9;
    options.observer = observer;
    assert_ok(ek_train(net, data, NULL, &options));
    const ek_seen *seen = ek_seen_of(observer);
    assert_int_equal(seen->look, 3);
    assert_true(ek_seen_measure(seen, seen->norm, EK_SEEN_GAMMA + 4)[0] == CHANNELS - 1);
    assert_true(ek_seen_measure(seen, seen->norm, EK_SEEN_GAMMA + 2)[0] == (CHANNELS - 1) / 2.0);
    assert_true(seen->norm->inputs.count == 512 * EK_LANES);
    ek_observer_destroy(observer);
    ek_dataset_destroy(data);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void want_of_memory(void **state)
{
    (void)state;
    ek_context *context;
    ek_net *net;
    char path[] = "/tmp/evenkeel-observe-XXXXXX";
    assert_true(close(mkstemp(path)) == 0);
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(ek_net_create(context, net_text, NULL, &net));
    assert_ok(ek_net_prepare(net, 32, true));
    for (failing f = {0}; fail_next(&f);) {
        ek_event event = {.kind = EK_EVENT_START,
                          .steps = 3,
                          .epoch = 1,
                          .epochs = 20,
                          .train_loss = 1,
                          .test_loss = 1,
                          .train_accuracy = NAN,
                          .valid_loss = NAN,
                          .valid_accuracy = NAN,
                          .test_accuracy = NAN,
                          .images_per_second = 1};
        ek_observer *observer = NULL;
        ek_report *report = NULL;
        f.status = ek_observer_create(&observer);
        if (f.status == EK_OK) f.status = observer->begin(observer, net, &event);
        if (f.status == EK_OK) {
            event.kind = EK_EVENT_STEP;
            event.step = 1;
            observer->event(observer, &event);
            event.kind = EK_EVENT_EPOCH;
            for (int i = 0; i < 20; i++) observer->event(observer, &event);
            f.status = ek_report_create("title", &report);
        }
        if (f.status == EK_OK) {
            ek_report_training(report, observer);
            f.status = ek_report_write(report, path);
        }
        ek_report_destroy(report);
        ek_observer_destroy(observer);
    }
    unlink(path);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* --- told again */

static ek_status tell_run(ek_observer *observer, int64_t steps)
{
    ek_event event = {.kind = EK_EVENT_START, .steps = steps, .epochs = 1};
    ek_look look = {.layer = "a", .channels = 3, .positions = 4, .gamma = true, .running = true};
    EK_TRY(ek_observer_retell(observer, &event));
    EK_TRY(ek_observer_retell_look(observer, &look));
    look.layer = "b";
    EK_TRY(ek_observer_retell_look(observer, &look));
    event.kind = EK_EVENT_STEP;
    for (event.step = 1; event.step <= steps; event.step++) {
        EK_TRY(ek_observer_retell(observer, &event));
        for (int i = 0; i < EK_LOOK_MEASURES; i++) look.measure[i] = (double)event.step + i / 100.0;
        look.step = event.step;
        look.layer = event.step % 2 ? "a" : "b";
        EK_TRY(ek_observer_retell_look(observer, &look)); /* each other one is not looked at */
    }
    event.kind = EK_EVENT_EPOCH;
    event.step = steps;
    event.epoch = 1;
    EK_TRY(ek_observer_retell(observer, &event));
    return ek_observer_retell(observer, &event); /* once more, by a resumed run */
}

/* More looks than an observer would take itself: all stay. */
static void a_run_told_again(void **state)
{
    (void)state;
    enum { STEPS = 300 };
    ek_observer *observer;
    ek_look look;
    assert_ok(ek_observer_create(&observer));
    assert_false(ek_observer_look(observer, 0, &look));
    assert_ok(tell_run(observer, STEPS));
    const ek_seen *seen = ek_seen_of(observer);
    assert_int_equal(seen->look, STEPS);
    assert_int_equal(seen->epochs, 1);
    for (int step = 1; step <= STEPS; step++) {
        const double *a = ek_seen_measure(seen, &seen->norm[step % 2 ? 0 : 1], 7),
                     *other = ek_seen_measure(seen, &seen->norm[step % 2], 7);
        assert_true(seen->at[step - 1] == step && a[step - 1] == step + 0.07 && isnan(other[step - 1]));
    }
    assert_true(ek_observer_look(observer, 1, &look) && look.step == STEPS && look.measure[35] == STEPS + 0.35);
    assert_string_equal(look.layer, "b");
    assert_true(look.gamma && !look.beta && look.running && !look.frozen && look.channels == 3);
    assert_false(ek_observer_look(observer, 2, &look) || ek_observer_look(observer, -1, &look));
    ek_observer_destroy(observer);
    for (failing f = {0}; fail_next(&f);) {
        ek_observer *starved = NULL;
        f.status = ek_observer_create(&starved);
        if (f.status == EK_OK) f.status = tell_run(starved, STEPS);
        ek_observer_destroy(starved);
    }
}

static void a_lie_is_refused(void **state)
{
    (void)state;
    ek_observer *observer;
    ek_event event = {.kind = EK_EVENT_STEP, .step = 1, .steps = 3};
    ek_look look = {.layer = "a"};
    assert_ok(ek_observer_create(&observer));
    assert_fails(EK_E_ARGUMENT, "begins with its start", ek_observer_retell(observer, &event));
    assert_fails(EK_E_ARGUMENT, "begins with its start", ek_observer_retell_look(observer, &look));
    event = (ek_event){.kind = EK_EVENT_START, .step = 4, .steps = 3};
    assert_fails(EK_E_ARGUMENT, "cannot begin after step 4 of 3", ek_observer_retell(observer, &event));
    event.step = 0;
    assert_ok(ek_observer_retell(observer, &event));
    assert_ok(ek_observer_retell_look(observer, &look));
    event.kind = EK_EVENT_STEP;
    event.step = 2;
    assert_fails(EK_E_ARGUMENT, "a step is of step 2, which cannot follow step 0", ek_observer_retell(observer, &event));
    for (event.step = 1; event.step <= 3; event.step++) assert_ok(ek_observer_retell(observer, &event));
    assert_fails(EK_E_ARGUMENT, "a step is of step 4", ek_observer_retell(observer, &event));
    look.step = 2;
    assert_fails(EK_E_ARGUMENT, "a look is of step 2, which cannot follow step 3", ek_observer_retell_look(observer, &look));
    look.step = 3;
    look.layer = "c";
    assert_fails(EK_E_ARGUMENT, "knows no batchnorm 'c'", ek_observer_retell_look(observer, &look));
    look.layer = NULL;
    assert_fails(EK_E_ARGUMENT, "a look at a layer", ek_observer_retell_look(observer, &look));
    assert_fails(EK_E_ARGUMENT, "an event", ek_observer_retell(observer, NULL));
    ek_observer_destroy(observer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_told_again),
        cmocka_unit_test(a_lie_is_refused),
        cmocka_unit_test(sorting),
        cmocka_unit_test(what_is_seen),
        cmocka_unit_test(what_the_reference_sees),
        cmocka_unit_test(which_steps),
        cmocka_unit_test(a_step_without_a_pass),
        cmocka_unit_test(same_bits),
        cmocka_unit_test(rows_of_sequences),
        cmocka_unit_test(many_channels),
        cmocka_unit_test(want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
