/*
 * Batch normalization with ReLU on plain arrays against the memory's bandwidth, in one run.
 *
 *   cmake --build build/release --target bench_batch_norm && build/release/bench/bench_batch_norm [threads] [rounds]
 *
 * The floors are what the simplest loops reach with as many threads: to read an array once, to write one with
 * streaming stores. Forward may not be faster than two reads of x and one write of y when each array is larger
 * than the caches and each pass goes through all of it; backward has x and dy read twice and dx written. Ratios
 * below 1 come from channels that are still in the caches for their second read.
 */
#include "evenkeel.h"

#include "core/clock.h"
#include "core/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 15, MOST_ROUNDS = 1000, SLICES = 64 };

typedef float vector __attribute__((vector_size(64), aligned(64)));

typedef struct problem {
    ek_context *context;
    ek_pool *pool;
    ek_batch_norm_options options;
    ek_ncs shape;
    int64_t count;
    float *x, *dy, *y;
    ek_batch_norm_arrays arrays;
    ek_batch_norm_saved saved;
    ek_batch_norm_gradients gradients;
} problem;

static void must(ek_status status)
{
    if (status == EK_OK) return;
    fprintf(stderr, "bench_batch_norm: %s\n", ek_error());
    exit(1);
}

static float *floats(int64_t count)
{
    float *memory = aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
    if (!memory) exit(1);
    for (int64_t i = 0; i < count; i++) memory[i] = (float)((i * 2654435761u) >> 8 & 0xffff) / 32768 - 1;
    return memory;
}

/* --- floors */

static int64_t slice_start(const problem *p, int64_t slice) { return p->count * slice / SLICES / 16 * 16; }

static void read_slice(void *argument, int64_t slice, int thread)
{
    (void)thread;
    const problem *p = argument;
    const float *at = p->x + slice_start(p, slice), *end = p->x + slice_start(p, slice + 1);
    vector sum[4] = {{0}};
    for (; end - at >= 64; at += 64)
        for (int j = 0; j < 4; j++) sum[j] += ((const vector *)(const void *)at)[j];
    sum[0] += (sum[1] + sum[2]) + sum[3];
    __asm__ volatile("" : : "m"(sum[0])); /* wanted, as far as the compiler knows */
}

static void store_past_caches(vector *to, vector v)
{
#if defined(__clang__)
    __builtin_nontemporal_store(v, to);
#elif defined(__AVX512F__)
    __builtin_ia32_movntps512((float *)to, v);
#elif defined(__SSE__)
    typedef float quarter __attribute__((vector_size(16)));
    for (int j = 0; j < 4; j++) __builtin_ia32_movntps((float *)to + 4 * j, ((quarter *)(void *)&v)[j]);
#else
    *to = v;
#endif
}

static void write_slice(void *argument, int64_t slice, int thread)
{
    (void)thread;
    const problem *p = argument;
    vector *to = (vector *)(void *)(p->y + slice_start(p, slice)), ones;
    for (int j = 0; j < 16; j++) ones[j] = 1;
    for (int64_t i = slice_start(p, slice); i < slice_start(p, slice + 1); i += 16)
        store_past_caches(to++, ones);
#if defined(__SSE__)
    __builtin_ia32_sfence();
#endif
}

static void read_once(problem *p) { ek_pool_run(p->pool, SLICES, read_slice, p); }
static void write_once(problem *p) { ek_pool_run(p->pool, SLICES, write_slice, p); }

/* --- operations */

static void forward(problem *p)
{
    must(ek_batch_norm_forward_train(p->context, &p->options, p->shape, p->x, &p->arrays, p->y, &p->saved));
}

static void backward(problem *p)
{
    must(ek_batch_norm_backward(p->context, &p->options, EK_MODE_TRAINING, p->shape, p->x, p->dy, &p->arrays,
                                &p->saved, &p->gradients));
}

static void inference(problem *p)
{
    must(ek_batch_norm_forward_inference(p->context, &p->options, p->shape, p->x, &p->arrays, p->y, NULL));
}

/* --- timing */

static const struct operation {
    const char *name;
    void (*run)(problem *p);
    int reads, writes; /* what its floor is made of */
} operations[] = {
    {"read", read_once, 1, 0},    {"write", write_once, 0, 1},    {"forward", forward, 2, 1},
    {"backward", backward, 4, 1}, {"inference", inference, 1, 1},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static int ascending(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* All operations in turn, `rounds` times, so that what else the machine does meets all alike. */
static void measure(problem *p, int rounds, double median[OPERATIONS])
{
    static double seconds[OPERATIONS][MOST_ROUNDS];
    for (int round = -1; round < rounds; round++) /* the first warms up */
        for (int i = 0; i < OPERATIONS; i++) {
            double start = ek_now();
            operations[i].run(p);
            if (round >= 0) seconds[i][round] = ek_now() - start;
        }
    for (int i = 0; i < OPERATIONS; i++) {
        qsort(seconds[i], (size_t)rounds, sizeof(double), ascending);
        median[i] = seconds[i][rounds / 2];
    }
}

static void report(const char *layout, const problem *p, const double median[OPERATIONS])
{
    double gigabytes = (double)p->count * sizeof(float) / 1e9;
    printf("%s [%lld,%lld,%lld]\n", layout, (long long)p->shape.n, (long long)p->shape.c,
           (long long)p->shape.s);
    for (int i = 0; i < OPERATIONS; i++) {
        double floor = operations[i].reads * median[0] + operations[i].writes * median[1];
        printf("  %-10s %7.2f ms  %6.1f GB/s  %5.2f of its floor\n", operations[i].name, median[i] * 1e3,
               gigabytes * (operations[i].reads + operations[i].writes) / median[i], median[i] / floor);
    }
}

static void bench(const char *layout, ek_context *context, ek_pool *pool, ek_ncs shape, int rounds)
{
    int64_t count = shape.n * shape.c * shape.s, c = shape.c;
    float *x = floats(count), *dy = floats(count), *y = floats(count), *each = floats(10 * c);
    problem p = {.context = context,
                 .pool = pool,
                 .options = ek_batch_norm_options_default(),
                 .shape = shape,
                 .count = count,
                 .x = x,
                 .dy = dy,
                 .y = y,
                 .arrays = {each, each + c, each + 2 * c, each + 3 * c, NULL},
                 .saved = {each + 4 * c, each + 5 * c, each + 6 * c, each + 7 * c},
                 .gradients = {y, each + 8 * c, each + 9 * c}};
    p.options.relu = true;
    double median[OPERATIONS];
    measure(&p, rounds, median);
    report(layout, &p, median);
    free(x);
    free(dy);
    free(y);
    free(each);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2, rounds = argc > 2 ? atoi(argv[2]) : ROUNDS;
    if (threads < 1 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_batch_norm [threads] [rounds, at most %d]\n", MOST_ROUNDS);
        return 2;
    }
    ek_context *context;
    ek_pool *pool;
    must(ek_context_create(&(ek_context_options){.threads = threads}, &context));
    must(ek_pool_create(threads, &pool));
    printf("%s, %d threads, medians of %d rounds; float32, batch norm with ReLU\n", ek_context_isa(context),
           threads, rounds);
    bench("NCHW", context, pool, (ek_ncs){32, 64, 112 * 112}, rounds);
    bench("NCHW", context, pool, (ek_ncs){32, 256, 56 * 56}, rounds);
    bench("NCHW", context, pool, (ek_ncs){32, 64, 56 * 56}, rounds);
    bench("NHWC", context, pool, (ek_ncs){32 * 112 * 112, 64, 1}, rounds);
    bench("NHWC", context, pool, (ek_ncs){32 * 56 * 56, 256, 1}, rounds);
    bench("NHWC", context, pool, (ek_ncs){32 * 56 * 56, 250, 1}, rounds);
    ek_pool_destroy(pool);
    ek_context_destroy(context);
    return 0;
}
