/* A training step allocates nothing: neither by the library's allocator, nor by malloc in the C library or in any
 * other that is linked. */
#include "testing.h"

#include "failing_malloc.h"

#include "data/batches.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* All that were asked for; none is made to fail. */
static atomic_uint_fast64_t *const asked = &failing_malloc.calls;

#if defined(SANITIZED)
/* The sanitizers' own malloc tells. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
static void on_malloc(const volatile void *memory, size_t size)
{
    (void)memory;
    (void)size;
    atomic_fetch_add(asked, 1);
}
static void on_free(const volatile void *memory) { (void)memory; }
static bool count_mallocs(void) { return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0; }

#else
static bool count_mallocs(void)
{
    atomic_store(&failing_malloc.on, true);
#if defined(FAILS_MALLOC)
    return true;
#else
    return false; /* the library's own are counted all the same */
#endif
}
#endif

static bool counting;

static int start_counting(void **state)
{
    (void)state;
    counting = count_mallocs();
    return 0;
}

/* The compiler must not see through the pair. */
static void *(*volatile allocate)(size_t) = malloc;
static char *(*volatile duplicate)(const char *) = strdup;

static void the_counter_counts(void **state)
{
    (void)state;
    if (!counting) skip();
    uint64_t before = atomic_load(asked);
    free(allocate(10));
    assert_int_equal(atomic_load(asked), before + 1);
    free(duplicate("in the C library"));
    assert_int_equal(atomic_load(asked), before + 2);
#if !defined(__SANITIZE_THREAD__) /* whose aligned_alloc tells nobody */
    ek_free(ek_calloc(10, 1));
    assert_int_equal(atomic_load(asked), before + 3);
#endif
}

/* The listener notes both counters after the first step and compares after each other one. */
typedef struct watch {
    uint64_t mallocs, allocations;
    int steps;
    bool grown;
} watch;

static bool listen(void *user, const ek_event *event)
{
    watch *w = user;
    if (event->kind != EK_EVENT_STEP) return true;
    uint64_t now = atomic_load(asked), allocations = ek_memory_count().allocations;
    if (w->steps++ > 0 && (now != w->mallocs || allocations != w->allocations)) w->grown = true;
    w->mallocs = now;
    w->allocations = allocations;
    return w->steps < 5;
}

/* Steps 2 to 5 of a run with its batches, its schedule and its listener. */
static void check_net(const char *name, const char *data, ek_optimizer kind, int64_t accumulate, int threads)
{
    ek_context_options context_options = {.threads = threads};
    ek_train_options options = ek_train_options_default();
    watch w = {0};
    ek_context *context;
    ek_net *net;
    ek_dataset *dataset;
    assert_ok(ek_observer_create(&options.observer)); /* it looks at each of the first steps */
    assert_ok(ek_context_create(&context_options, &context));
    assert_ok(ek_net_open(context, name, &net));
    assert_ok(ek_dataset_open(data, EK_SPLIT_TRAIN, &dataset));
    options.batch = 40;
    options.accumulate = accumulate;
    options.optimizer = ek_optimizer_options_default(kind);
    options.optimizer.clip_norm = 1;
    options.schedule = EK_SCHEDULE_COSINE;
    options.listener = listen;
    options.user = &w;
    assert_int_equal(ek_train(net, dataset, NULL, &options), EK_E_INTERRUPTED);
    assert_int_equal(w.steps, 5);
    if (w.grown) fail_msg("%s with %d threads allocates in its steps", name, threads);
    ek_observer_destroy(options.observer);
    ek_dataset_destroy(dataset);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void training_steps_allocate_nothing(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        check_net("lenet-bn", "synthetic:1x28x28", EK_OPTIMIZER_SGD, 1, threads);
        check_net("lenet-bn", "synthetic:1x28x28", EK_OPTIMIZER_SGD, 3, threads);
        check_net("mlp-bn", "synthetic:1x28x28", EK_OPTIMIZER_ADAM, 1, threads);
        check_net("resnet20", "synthetic:3x32x32", EK_OPTIMIZER_SGD, 1, threads);
    }
}

/* Nor do those of a set that is read from its files, in the steps or by threads ahead of them. */
static void steps_that_read_allocate_nothing(void **state)
{
    (void)state;
    enum { N = 800 }; /* no epoch ends within the steps looked at */
    static char folder[] = "/tmp/evenkeel-allocations-XXXXXX";
    char x[64], y[64], table[64], spec[160];
    assert_non_null(mkdtemp(folder));
    snprintf(x, sizeof x, "%s/x", folder);
    snprintf(y, sizeof y, "%s/y", folder);
    snprintf(table, sizeof table, "%s/t.csv", folder);
    snprintf(spec, sizeof spec, "%s,%s", x, y);
    FILE *images = fopen(x, "wb"), *labels = fopen(y, "wb"), *rows = fopen(table, "wb");
    assert_true(images && labels && rows);
    fwrite("\0\0\x08\3\0\0\3\x20\0\0\0\x1c\0\0\0\x1c", 1, 16, images);
    fwrite("\0\0\x08\1\0\0\3\x20", 1, 8, labels);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 784; k++) fputc(i * k % 251, images);
        fputc(i % 10, labels);
        for (int k = 0; k < 784; k++) fprintf(rows, "%d,", i * k % 97);
        fprintf(rows, "%d\n", i % 10);
    }
    assert_true(fclose(images) == 0 && fclose(labels) == 0 && fclose(rows) == 0);
    setenv("EVENKEEL_DATA_MEMORY", "0", 1);
    for (int ahead = 0; ahead < 2; ahead++) {
        ek_read_ahead_above = ahead ? 0 : INFINITY;
        check_net("lenet-bn", spec, EK_OPTIMIZER_SGD, 1, 2);
        check_net("lenet-bn", spec, EK_OPTIMIZER_SGD, 3, 2);
        check_net("mlp-bn", table, EK_OPTIMIZER_SGD, 1, 2);
    }
    unsetenv("EVENKEEL_DATA_MEMORY");
    assert_true(unlink(x) == 0 && unlink(y) == 0 && unlink(table) == 0 && rmdir(folder) == 0);
}

/* The same by hand: ek_trainer_step, whose first step of a size may allocate, and smaller ones after it. */
static void steps_by_hand_allocate_nothing(void **state)
{
    (void)state;
    enum { N = 20 };
    ek_context_options context_options = {.threads = 2};
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAMW);
    ek_context *context;
    ek_net *net;
    ek_trainer *trainer;
    ek_step_result result;
    static float x[N * 784];
    int32_t labels[N];
    for (int i = 0; i < N * 784; i++) x[i] = (float)(i * 37 % 101) / 101;
    for (int i = 0; i < N; i++) labels[i] = i % 10;
    assert_ok(ek_context_create(&context_options, &context));
    assert_ok(ek_net_open(context, "lenet-bn", &net));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step(trainer, N, x, labels, &result));
    uint64_t before = atomic_load(asked), allocations = ek_memory_count().allocations;
    for (int n = N; n > N - 4; n--) assert_ok(ek_trainer_step(trainer, n, x, labels, &result));
    assert_int_equal(atomic_load(asked), before);
    assert_int_equal(ek_memory_count().allocations, allocations);
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* And of sequences with lengths. */
static void steps_with_lengths_allocate_nothing(void **state)
{
    (void)state;
    enum { N = 20, L = 30 };
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_context *context;
    ek_net *net;
    ek_trainer *trainer;
    ek_step_result result;
    static float x[N * 2 * L];
    int32_t labels[N], lengths[N];
    for (int i = 0; i < N * 2 * L; i++) x[i] = (float)(i * 37 % 101) / 101;
    for (int i = 0; i < N; i++) labels[i] = i % 3, lengths[i] = L - i;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2}, &context));
    assert_ok(
        ek_net_create(context,
                      "input 2x30\nconv1d 4 kernel=3\nbatchnorm\nrelu\nmaxpool 2\nglobalavgpool\nflatten\n"
                      "linear 3",
                      NULL, &net));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step_lengths(trainer, N, x, lengths, labels, &result));
    uint64_t before = atomic_load(asked), allocations = ek_memory_count().allocations;
    for (int n = N; n > N - 4; n--)
        assert_ok(ek_trainer_step_lengths(trainer, n, x, lengths, labels, &result));
    assert_int_equal(atomic_load(asked), before);
    assert_int_equal(ek_memory_count().allocations, allocations);
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counter_counts),
        cmocka_unit_test(training_steps_allocate_nothing),
        cmocka_unit_test(steps_that_read_allocate_nothing),
        cmocka_unit_test(steps_by_hand_allocate_nothing),
        cmocka_unit_test(steps_with_lengths_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, start_counting, NULL);
}
