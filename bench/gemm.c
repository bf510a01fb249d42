/*
 * The three products of linear layers against OpenBLAS, BLIS and oneDNN, in turns in one run.
 *
 *   scripts/install-deps.sh bench
 *   cmake --build build/release --target bench_gemm && build/release/bench/bench_gemm [threads] [rounds] [set]
 *
 * `set` is mlp-bn, lenet-bn, one-block or wide; without it all are run. Each figure is the median over the rounds in
 * GFLOP/s, beside it its share of the FMA peak that was measured in the same run with as many threads. `ratio` is
 * Evenkeel over the best of the others.
 *
 * Each contender has its data as it likes them best: Evenkeel in lanes, the BLAS in rows as PyTorch has them, oneDNN in
 * whatever layout its inner product chooses, already there and not counted. Evenkeel's weight gradient wants its input
 * in rows, and a net turns it in the forward pass: `turned` is the weight gradient with the turning counted, against that
 * of the others, for the layers that are not a net's first. A library that is not installed is left out.
 * OPENBLAS_CORETYPE and BLIS_ARCH_TYPE choose kernels in their libraries, EVENKEEL_ISA in ours.
 */
#include "core/clock.h"
#include "core/memory.h"
#include "core/threads.h"
#include "kernels/kernels.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef EK_HAVE_DNNL
#include <dnnl.h>
#endif

enum { ROUNDS = 7, MOST_ROUNDS = 99 };
static const double ROUND_SECONDS = 0.004;
/* Idle threads of OpenBLAS and of OpenMP keep a core busy for a while. */
static const struct timespec SETTLE = {.tv_nsec = 30000000};

/* TURNED: the weight gradient with what it costs to turn x from lanes into rows. */
typedef enum pass_kind { FORWARD, DATA, WEIGHTS, TURNED, PASSES } pass_kind;
static const char *const pass_names[] = {"forward", "data", "weights", "turned"};

typedef struct layer {
    const char *set;
    int64_t n, in, out;
    bool first; /* of its net */
} layer;
static const layer layers[] = {
    {"mlp-bn", 64, 784, 256, true},    {"mlp-bn", 64, 256, 128, false},   {"mlp-bn", 64, 128, 64, false},
    {"mlp-bn", 64, 64, 10, false},     {"lenet-bn", 128, 256, 120, false}, {"lenet-bn", 128, 120, 84, false},
    {"lenet-bn", 128, 84, 10, false},  {"one-block", 16, 784, 256, true},  {"one-block", 16, 256, 120, false},
    {"wide", 256, 4096, 4096, false},
};
enum { LAYERS = sizeof layers / sizeof *layers };

typedef struct problem {
    layer layer;
    pass_kind pass;
    float *x, *w, *y; /* lanes or rows: [blocks][in][EK_LANES] or [n][in]; y stands for dy too */
    float *result;    /* of this pass */
    float *rows;      /* of x */
} problem;

typedef struct contender {
    const char *name;
    char version[64];
    void (*run)(const problem *p);
    void (*prepare)(const problem *p); /* NULL: nothing to do */
} contender;

static int threads = 1;

static void must(ek_status status)
{
    if (status == EK_OK) return;
    fprintf(stderr, "bench_gemm: %s\n", ek_error());
    exit(1);
}

static float *floats(int64_t count)
{
    float *x;
    must(EK_NEW(x, (size_t)count));
    for (int64_t i = 0; i < count; i++) x[i] = (float)((uint64_t)i * 2654435761u >> 8 & 0xffff) / 65536 - 0.5f;
    return x;
}

/* --- Evenkeel */

static const ek_kernels *kernels;
static ek_pool *pool;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Features that a piece takes, 8 to 64: about a quarter of them, but no less than a microsecond of work. */
static int64_t piece_size(const problem *p)
{
    int64_t features = p->pass == DATA ? p->layer.in : p->layer.out, terms = p->pass == DATA ? p->layer.out : p->layer.in;
    int64_t wanted = 131072 / (p->layer.n * terms);
    if (wanted < (features + 3) / 4) wanted = (features + 3) / 4;
    return least((wanted + 7) / 8 * 8, 64);
}

static void run_rows(void *argument, int64_t block, int thread)
{
    (void)thread;
    const problem *p = argument;
    int64_t in = p->layer.in, at = block * EK_LANES * in;
    kernels->lanes_to_rows(in, ek_live(p->layer.n, block), p->x + at, p->rows + at);
}

static void run_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const problem *p = argument;
    const ek_linear g = {p->layer.in, p->layer.out};
    int64_t blocks = ek_blocks(p->layer.n), features = p->pass == DATA ? g.in : g.out, size = piece_size(p);
    int64_t first = piece * size, count = least(size, features - first);
    if (p->pass == FORWARD)
        kernels->linear_forward(&g, blocks, first, count, p->x, p->w, NULL, p->result);
    else if (p->pass == DATA)
        kernels->linear_backward_data(&g, blocks, first, count, p->y, p->w, p->result);
    else
        kernels->linear_backward_weights(&g, p->layer.n, first, count, p->rows, p->y, p->result, NULL);
}

static void run_evenkeel(const problem *p)
{
    if (p->pass == TURNED) ek_pool_run(pool, ek_blocks(p->layer.n), run_rows, (void *)p);
    int64_t features = p->pass == DATA ? p->layer.in : p->layer.out, size = piece_size(p);
    ek_pool_run(pool, (features + size - 1) / size, run_piece, (void *)p);
}

static bool open_evenkeel(contender *c)
{
    must(ek_kernels_choose(getenv("EVENKEEL_ISA"), &kernels));
    must(ek_pool_create(threads, &pool));
    c->run = run_evenkeel;
    snprintf(c->version, sizeof c->version, "%s", kernels->name);
    return true;
}

/* --- a BLAS; both libraries have the same names, so neither is linked */

enum { ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112 };
typedef void (*sgemm)(int order, int a_turned, int b_turned, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
static sgemm openblas_sgemm, blis_sgemm;

static void run_blas(sgemm multiply, const problem *p)
{
    int n = (int)p->layer.n, in = (int)p->layer.in, out = (int)p->layer.out;
    if (p->pass == FORWARD)
        multiply(ROW_MAJOR, AS_IS, TRANSPOSED, n, out, in, 1, p->x, in, p->w, in, 0, p->result, out);
    else if (p->pass == DATA)
        multiply(ROW_MAJOR, AS_IS, AS_IS, n, in, out, 1, p->y, out, p->w, in, 0, p->result, in);
    else
        multiply(ROW_MAJOR, TRANSPOSED, AS_IS, out, in, n, 1, p->y, out, p->x, in, 0, p->result, in);
}

static void run_openblas(const problem *p) { run_blas(openblas_sgemm, p); }
static void run_blis(const problem *p) { run_blas(blis_sgemm, p); }

/* POSIX has no other way from dlsym to a function. */
static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
}

static bool open_openblas(contender *c)
{
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    void (*set_threads)(int);
    char *(*core)(void), *(*config)(void);
    find(library, "cblas_sgemm", &openblas_sgemm);
    find(library, "openblas_set_num_threads", &set_threads);
    find(library, "openblas_get_corename", &core);
    find(library, "openblas_get_config", &config);
    if (!openblas_sgemm || !set_threads || !core || !config) return false;
    set_threads(threads);
    c->run = run_openblas;
    snprintf(c->version, sizeof c->version, "%.14s, core type %s", config(), core());
    return true;
}

static bool open_blis(contender *c)
{
    void *library = dlopen("libblis.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    void (*set_threads)(long);
    int (*arch)(void);
    const char *(*arch_name)(int), *(*version)(void);
    find(library, "cblas_sgemm", &blis_sgemm);
    find(library, "bli_thread_set_num_threads", &set_threads);
    find(library, "bli_arch_query_id", &arch);
    find(library, "bli_arch_string", &arch_name);
    find(library, "bli_info_get_version_str", &version);
    if (!blis_sgemm || !set_threads || !arch || !arch_name || !version) return false;
    set_threads(threads);
    c->run = run_blis;
    snprintf(c->version, sizeof c->version, "%s, architecture %s", version(), arch_name(arch()));
    return true;
}

/* --- oneDNN */

#ifdef EK_HAVE_DNNL
static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_primitive_t primitive;
static dnnl_exec_arg_t arguments[3];

static void dnnl_must(dnnl_status_t status)
{
    if (status == dnnl_success) return;
    fprintf(stderr, "bench_gemm: oneDNN's status %d\n", status);
    exit(1);
}

static dnnl_memory_desc_t any_layout(int64_t rows, int64_t columns)
{
    dnnl_memory_desc_t d;
    dnnl_must(dnnl_memory_desc_init_by_tag(&d, 2, (dnnl_dims_t){rows, columns}, dnnl_f32, dnnl_format_tag_any));
    return d;
}

static void release_primitive(void)
{
    if (!primitive) return;
    dnnl_primitive_destroy(primitive);
    for (int i = 0; i < 3; i++) dnnl_memory_destroy(arguments[i].memory);
}

/* The argument `kind`, in memory of the layout that the primitive chose. Its zeros are as fast as any numbers. */
static dnnl_exec_arg_t argument(const_dnnl_primitive_desc_t d, int kind)
{
    dnnl_exec_arg_t a = {.arg = kind};
    dnnl_must(dnnl_memory_create(&a.memory, dnnl_primitive_desc_query_md(d, dnnl_query_exec_arg_md, kind), engine, DNNL_MEMORY_ALLOCATE));
    void *data;
    dnnl_must(dnnl_memory_get_data_handle(a.memory, &data));
    memset(data, 0, dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(d, dnnl_query_exec_arg_md, kind)));
    return a;
}

static void prepare_dnnl(const problem *p)
{
    static const int kinds[][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                   {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                   {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS}};
    release_primitive();
    dnnl_memory_desc_t x = any_layout(p->layer.n, p->layer.in), w = any_layout(p->layer.out, p->layer.in),
                       y = any_layout(p->layer.n, p->layer.out);
    dnnl_inner_product_desc_t forward, backward;
    dnnl_primitive_desc_t forward_d, d;
    dnnl_must(dnnl_inner_product_forward_desc_init(&forward, dnnl_forward_training, &x, &w, NULL, &y));
    dnnl_must(dnnl_primitive_desc_create(&forward_d, &forward, NULL, engine, NULL));
    if (p->pass == DATA) dnnl_must(dnnl_inner_product_backward_data_desc_init(&backward, &x, &w, &y));
    if (p->pass >= WEIGHTS) dnnl_must(dnnl_inner_product_backward_weights_desc_init(&backward, &x, &w, NULL, &y));
    if (p->pass == FORWARD) dnnl_must(dnnl_primitive_desc_clone(&d, forward_d));
    else dnnl_must(dnnl_primitive_desc_create(&d, &backward, NULL, engine, forward_d));
    dnnl_must(dnnl_primitive_create(&primitive, d));
    for (int i = 0; i < 3; i++) arguments[i] = argument(d, kinds[least(p->pass, WEIGHTS)][i]);
    dnnl_primitive_desc_destroy(forward_d);
    dnnl_primitive_desc_destroy(d);
}

static void run_dnnl(const problem *p)
{
    (void)p;
    dnnl_must(dnnl_primitive_execute(primitive, stream, 3, arguments));
    dnnl_must(dnnl_stream_wait(stream));
}

static bool open_dnnl(contender *c)
{
    void (*set_threads)(int);
    find(RTLD_DEFAULT, "omp_set_num_threads", &set_threads);
    if (!set_threads) return false;
    set_threads(threads);
    dnnl_must(dnnl_engine_create(&engine, dnnl_cpu, 0));
    dnnl_must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    const dnnl_version_t *version = dnnl_version();
    c->run = run_dnnl;
    c->prepare = prepare_dnnl;
    snprintf(c->version, sizeof c->version, "%d.%d.%d", version->major, version->minor, version->patch);
    return true;
}

static void close_dnnl(void)
{
    release_primitive();
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
}
#endif

/* --- the peak */

enum { CHAINS = 12, PEAK_LOOPS = 100000 };
#ifdef __AVX512F__
typedef float vector __attribute__((vector_size(64)));
#else
typedef float vector __attribute__((vector_size(32)));
#endif

static void run_peak(void *results, int64_t piece, int thread)
{
    (void)thread;
    vector sum[CHAINS], factor = (vector){0} + 0.999f;
    for (int j = 0; j < CHAINS; j++) sum[j] = factor * (float)j;
    for (int i = 0; i < PEAK_LOOPS; i++)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) sum[j] = sum[j] * factor + factor;
    for (int j = 1; j < CHAINS; j++) sum[0] += sum[j];
    memcpy((vector *)results + piece, &sum[0], sizeof sum[0]);
}

static double measure_peak(void)
{
    vector *results;
    must(EK_NEW(results, (size_t)threads));
    double best = 0;
    for (int round = 0; round < 20; round++) {
        double start = ek_now();
        ek_pool_run(pool, threads, run_peak, results);
        double speed = 2.0 * PEAK_LOOPS * sizeof(vector) / sizeof(float) * CHAINS * threads / (ek_now() - start);
        if (speed > best) best = speed;
    }
    ek_free(results);
    return best * 1e-9;
}

/* --- the table */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_once(const contender *c, const problem *p)
{
    if (threads > 1) nanosleep(&SETTLE, NULL);
    c->run(p);
    double start = ek_now(), end;
    int64_t calls = 0;
    do {
        c->run(p);
        calls++;
        end = ek_now();
    } while (end - start < ROUND_SECONDS);
    return (end - start) / (double)calls;
}

static problem make_problem(const layer *l, pass_kind pass)
{
    int64_t samples = ek_blocks(l->n) * EK_LANES, x = samples * l->in, y = samples * l->out, w = l->in * l->out;
    return (problem){*l, pass, floats(x), floats(w), floats(y), floats(pass == FORWARD ? y : pass == DATA ? x : w), floats(x)};
}

static void free_problem(problem *p)
{
    float *all[] = {p->x, p->w, p->y, p->result, p->rows};
    for (int i = 0; i < 5; i++) ek_free(all[i]);
}

static void print_row(const problem *p, int count, const contender *c, int rounds, double peak)
{
    double flops = 2.0 * (double)(p->layer.n * p->layer.in * p->layer.out), best = 0, ours = 0;
    double seconds[4][MOST_ROUNDS];
    for (int i = 0; i < count; i++)
        if (c[i].prepare) c[i].prepare(p);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) seconds[i][round] = time_once(&c[i], p);
    printf("%-9s %4d x %4d -> %4d %-7s", p->layer.set, (int)p->layer.n, (int)p->layer.in, (int)p->layer.out, pass_names[p->pass]);
    for (int i = 0; i < count; i++) {
        qsort(seconds[i], (size_t)rounds, sizeof(double), compare);
        double speed = flops / seconds[i][rounds / 2] * 1e-9;
        if (i == 0) ours = speed;
        else if (speed > best) best = speed;
        printf("  %7.1f %3.0f%%", speed, 100 * speed / peak);
    }
    if (best > 0) printf("  %5.2f", ours / best);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    threads = argc > 1 ? atoi(argv[1]) : 1;
    int rounds = argc > 2 ? atoi(argv[2]) : ROUNDS;
    const char *set = argc > 3 ? argv[3] : NULL;
    if (threads < 1 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "bench_gemm [threads] [rounds, at most %d] [set]\n", MOST_ROUNDS);
        return 2;
    }
    static const struct {
        const char *name;
        bool (*open)(contender *c);
    } known[] = {
        {"Evenkeel", open_evenkeel},
        {"OpenBLAS", open_openblas},
        {"BLIS", open_blis},
#ifdef EK_HAVE_DNNL
        {"oneDNN", open_dnnl},
#endif
    };
    contender contenders[4] = {0};
    int count = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        contenders[count].name = known[i].name;
        if (known[i].open(&contenders[count])) count++;
    }
    double peak = measure_peak();
    printf("%d thread%s, FMA peak %.1f GFLOP/s, medians of %d rounds\n", threads, threads > 1 ? "s" : "", peak, rounds);
    for (int i = 0; i < count; i++) printf("%-9s %s\n", contenders[i].name, contenders[i].version);
    printf("\n%-38s", "GFLOP/s, share of the peak");
    for (int i = 0; i < count; i++) printf(" %12s", contenders[i].name);
    printf("  ratio\n");
    for (int l = 0; l < LAYERS; l++)
        for (int pass = 0; pass < PASSES; pass++) {
            if ((set && strcmp(set, layers[l].set) != 0) || (pass == TURNED && layers[l].first)) continue;
            problem p = make_problem(&layers[l], (pass_kind)pass);
            print_row(&p, count, contenders, rounds, peak);
            free_problem(&p);
        }
#ifdef EK_HAVE_DNNL
    close_dnnl();
#endif
    ek_pool_destroy(pool);
    return 0;
}
