#include "floors.h"

#include "common.h"
#include "output.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

enum { TRIES = 15, SUMS = 12, FMA_ROUNDS = 500000, PAGE = 4096 };
/* Bytes that a thread moves in a try at least, so that starting and ending it does not count. */
static const double try_bytes = 128e6;

typedef void (*bandwidth_loop)(const float *in, float *out, int64_t count);

typedef struct loops {
    float (*fma)(int64_t rounds);
    int64_t fma_lanes; /* floats of a vector */
    bandwidth_loop read, copy;
} loops;

/* Keeps a result, so that the loop that made it is not taken for useless. */
#define USE(value) __asm__ volatile("" : : "r"(&(value)) : "memory")

/* For vectors of `size` bytes:
 * fma:  sum = sum * 0.999 + 0.001, in SUMS vectors, which hides its latency; all tend to 1, never to tiny numbers
 * read: the sum of an array
 * copy: out = in + 1, since compilers call memcpy for a plain copy, which has floors of its own
 * count is a multiple of PAGE / 4. */
#define LOOPS(isa, attributes, size)                                                                         \
    typedef float isa##_vector __attribute__((vector_size(size)));                                           \
    enum { isa##_lanes = (size) / sizeof(float) };                                                           \
    attributes static float isa##_fma(int64_t rounds)                                                        \
    {                                                                                                        \
        isa##_vector sum[SUMS], factor = (isa##_vector){0} + 0.999f, term = (isa##_vector){0} + 0.001f;      \
        for (int k = 0; k < SUMS; k++) sum[k] = term * (float)k;                                             \
        for (int64_t i = 0; i < rounds; i++) {                                                               \
            for (int k = 0; k < SUMS; k++) sum[k] = sum[k] * factor + term;                                  \
        }                                                                                                    \
        for (int k = 1; k < SUMS; k++) sum[0] += sum[k];                                                     \
        return sum[0][0];                                                                                    \
    }                                                                                                        \
    attributes static void isa##_read(const float *in, float *out, int64_t count)                            \
    {                                                                                                        \
        const isa##_vector *from = (const isa##_vector *)(const void *)in;                                   \
        isa##_vector sum[8] = {{0}};                                                                         \
        (void)out;                                                                                           \
        for (int64_t i = 0; i < count / isa##_lanes; i += 8) {                                               \
            for (int k = 0; k < 8; k++) sum[k] += from[i + k];                                               \
        }                                                                                                    \
        USE(sum);                                                                                            \
    }                                                                                                        \
    attributes static void isa##_copy(const float *in, float *out, int64_t count)                            \
    {                                                                                                        \
        const isa##_vector *from = (const isa##_vector *)(const void *)in;                                   \
        isa##_vector *to = (isa##_vector *)(void *)out;                                                      \
        for (int64_t i = 0; i < count / isa##_lanes; i += 4) {                                               \
            for (int k = 0; k < 4; k++) to[i + k] = from[i + k] + 1.0f;                                      \
        }                                                                                                    \
    }                                                                                                        \
    static const loops isa##_loops = {isa##_fma, isa##_lanes, isa##_read, isa##_copy};

LOOPS(baseline, , 16)
#ifdef __x86_64__
LOOPS(avx2, __attribute__((target("avx2,fma"))), 32)
LOOPS(avx512, __attribute__((target("avx512f"))), 64)
#endif

#ifdef __SSE__
static void stream(const float *in, float *out, int64_t count)
{
    __m128 one = _mm_set1_ps(1);
    for (int64_t i = 0; i < count; i += 16) {
        for (int k = 0; k < 16; k += 4) _mm_stream_ps(out + i + k, _mm_add_ps(_mm_load_ps(in + i + k), one));
    }
    _mm_sfence();
}
static const bandwidth_loop stream_loop = stream;
#else
static const bandwidth_loop stream_loop = NULL;
#endif

static const loops *loops_of(const char *isa)
{
#ifdef __x86_64__
    if (strcmp(isa, "avx512") == 0) return &avx512_loops;
    if (strcmp(isa, "avx2") == 0) return &avx2_loops;
#endif
    (void)isa;
    return &baseline_loops;
}

/* One thread of a measurement. Each has its part of both arrays, and touches it first. */
typedef struct worker {
    pthread_barrier_t *barrier;
    const loops *loops;
    int64_t count; /* floats of its part of an array */
    float *in, *out;
    cli_floors rate; /* its own */
} worker;

/* Bytes a second of this thread, best of TRIES; all begin and end together, since they share the memory. */
static double bandwidth(const worker *w, bandwidth_loop loop, int arrays)
{
    double moved = (double)w->count * sizeof(float) * arrays, best = 0;
    for (int i = 0; i < TRIES; i++) {
        int64_t passes = (int64_t)(try_bytes / moved) + 1;
        pthread_barrier_wait(w->barrier);
        double begin = cli_now();
        for (int64_t k = 0; k < passes; k++) loop(w->in, w->out, w->count);
        pthread_barrier_wait(w->barrier);
        double rate = moved * (double)passes / (cli_now() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

/* This thread's own best: a core's arithmetic needs nothing that another core has. */
static double fma_rate(const worker *w)
{
    double best = 0;
    pthread_barrier_wait(w->barrier);
    for (int i = 0; i < TRIES; i++) {
        double begin = cli_now();
        float sum = w->loops->fma(FMA_ROUNDS);
        USE(sum);
        double rate = 2.0 * SUMS * (double)w->loops->fma_lanes * FMA_ROUNDS / (cli_now() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

static void *work(void *argument)
{
    worker *w = argument;
    for (int64_t i = 0; i < w->count; i++) w->in[i] = w->out[i] = 1;
    w->rate = (cli_floors){
        .fma = fma_rate(w),
        .read = bandwidth(w, w->loops->read, 1),
        .copy = bandwidth(w, w->loops->copy, 2),
        .stream = stream_loop ? bandwidth(w, stream_loop, 2) : 0,
    };
    return NULL;
}

bool cli_floors_measure(const char *isa, int threads, size_t bytes, cli_floors *out)
{
    size_t each = (bytes / 2 / (size_t)threads + PAGE - 1) / PAGE * PAGE; /* of one array and thread */
    *out = (cli_floors){.threads = threads, .bytes = 2 * each * (size_t)threads};
    pthread_barrier_t barrier;
    pthread_t *thread = calloc((size_t)threads, sizeof *thread);
    worker *workers = calloc((size_t)threads, sizeof *workers);
    float *memory = aligned_alloc(PAGE, out->bytes);
    int started = 1; /* this one */
    bool fine = thread && workers && memory && pthread_barrier_init(&barrier, NULL, (unsigned)threads) == 0;
    if (!fine) {
        cli_fail("out of memory");
        goto done;
    }
    for (int i = 0; i < threads; i++) {
        float *in = memory + (size_t)i * each / sizeof(float) * 2;
        workers[i] = (worker){.barrier = &barrier,
                              .loops = loops_of(isa),
                              .count = (int64_t)(each / sizeof(float)),
                              .in = in,
                              .out = in + each / sizeof(float)};
    }
    while (started < threads && pthread_create(&thread[started], NULL, work, &workers[started]) == 0) started++;
    if (started < threads) exit(cli_fail("the system gives no thread %d of %d", started + 1, threads));
    work(&workers[0]);
    for (int i = 1; i < threads; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < threads; i++) {
        out->fma += workers[i].rate.fma;
        out->read += workers[i].rate.read;
        out->copy += workers[i].rate.copy;
        out->stream += workers[i].rate.stream;
    }
    pthread_barrier_destroy(&barrier);
done:
    free(memory);
    free(workers);
    free(thread);
    return fine;
}
