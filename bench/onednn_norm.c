/*
 * oneDNN's batch normalization with ReLU in training, in the layouts that it knows: what ours is compared with.
 *
 *   scripts/install-deps.sh bench
 *   cmake --build build/release --target bench_onednn_norm && OMP_NUM_THREADS=2 build/release/bench/bench_onednn_norm [rounds]
 *
 * Medians of the rounds. NCHW and NHWC are plain arrays; nChw16c is its own blocked layout.
 */
#include <dnnl.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 15, MOST_ROUNDS = 1000 };

static void must(dnnl_status_t status)
{
    if (status == dnnl_success) return;
    fprintf(stderr, "bench_onednn_norm: oneDNN gave status %d\n", (int)status);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Memory of a descriptor, touched, and filled with numbers from 0 to 1 where it holds floats. */
static dnnl_memory_t memory_of(dnnl_engine_t engine, const dnnl_memory_desc_t *descriptor)
{
    dnnl_memory_t memory;
    void *data;
    must(dnnl_memory_create(&memory, descriptor, engine, DNNL_MEMORY_ALLOCATE));
    must(dnnl_memory_get_data_handle(memory, &data));
    size_t bytes = dnnl_memory_desc_get_size(descriptor);
    for (size_t i = 0; i < bytes / sizeof(float); i++) ((float *)data)[i] = (float)(i * 7919 % 1000) * 1e-3f;
    return memory;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_ms(dnnl_primitive_t primitive, dnnl_stream_t stream, int count,
                        const dnnl_exec_arg_t *arguments, int rounds)
{
    double seconds[MOST_ROUNDS];
    for (int i = -1; i < rounds; i++) {
        double begin = now();
        must(dnnl_primitive_execute(primitive, stream, count, arguments));
        must(dnnl_stream_wait(stream));
        if (i >= 0) seconds[i] = now() - begin;
    }
    qsort(seconds, (size_t)rounds, sizeof *seconds, ascending);
    return seconds[rounds / 2] * 1e3;
}

static dnnl_primitive_t primitive_of(dnnl_engine_t engine, dnnl_batch_normalization_desc_t *operation,
                                     const_dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *description)
{
    dnnl_primitive_t primitive;
    must(dnnl_primitive_desc_create(description, operation, NULL, engine, hint));
    must(dnnl_primitive_create(&primitive, *description));
    return primitive;
}

static void measure(dnnl_engine_t engine, dnnl_stream_t stream, const char *name, dnnl_format_tag_t tag,
                    const dnnl_dims_t dims, int rounds)
{
    unsigned flags = dnnl_use_scaleshift | dnnl_fuse_norm_relu;
    dnnl_memory_desc_t values, gamma_beta, channel;
    must(dnnl_memory_desc_init_by_tag(&values, 4, dims, dnnl_f32, tag));
    must(dnnl_memory_desc_init_by_tag(&gamma_beta, 2, (dnnl_dims_t){2, dims[1]}, dnnl_f32, dnnl_ab));
    must(dnnl_memory_desc_init_by_tag(&channel, 1, (dnnl_dims_t){dims[1]}, dnnl_f32, dnnl_a));

    dnnl_batch_normalization_desc_t forward, backward;
    must(dnnl_batch_normalization_forward_desc_init(&forward, dnnl_forward_training, &values, 1e-5f, flags));
    must(dnnl_batch_normalization_backward_desc_init(&backward, dnnl_backward, &values, &values, 1e-5f,
                                                     flags));
    dnnl_primitive_desc_t forward_description, backward_description;
    dnnl_primitive_t forward_pass = primitive_of(engine, &forward, NULL, &forward_description);
    dnnl_primitive_t backward_pass =
        primitive_of(engine, &backward, forward_description, &backward_description);

    enum { X, Y, DY, DX, MEAN, VARIANCE, GAMMA_BETA, D_GAMMA_BETA, SIGNS, MEMORIES };
    const dnnl_memory_desc_t *signs =
        dnnl_primitive_desc_query_md(forward_description, dnnl_query_workspace_md, 0);
    const dnnl_memory_desc_t *descriptors[MEMORIES] = {&values,  &values,     &values,     &values, &channel,
                                                       &channel, &gamma_beta, &gamma_beta, signs};
    dnnl_memory_t memory[MEMORIES];
    for (int i = 0; i < MEMORIES; i++) memory[i] = memory_of(engine, descriptors[i]);
    const dnnl_exec_arg_t forward_arguments[] = {
        {DNNL_ARG_SRC, memory[X]},
        {DNNL_ARG_DST, memory[Y]},
        {DNNL_ARG_MEAN, memory[MEAN]},
        {DNNL_ARG_VARIANCE, memory[VARIANCE]},
        {DNNL_ARG_SCALE_SHIFT, memory[GAMMA_BETA]},
        {DNNL_ARG_WORKSPACE, memory[SIGNS]},
    };
    const dnnl_exec_arg_t backward_arguments[] = {
        {DNNL_ARG_SRC, memory[X]},
        {DNNL_ARG_DIFF_DST, memory[DY]},
        {DNNL_ARG_DIFF_SRC, memory[DX]},
        {DNNL_ARG_MEAN, memory[MEAN]},
        {DNNL_ARG_VARIANCE, memory[VARIANCE]},
        {DNNL_ARG_SCALE_SHIFT, memory[GAMMA_BETA]},
        {DNNL_ARG_DIFF_SCALE_SHIFT, memory[D_GAMMA_BETA]},
        {DNNL_ARG_WORKSPACE, memory[SIGNS]},
    };
    double forward_ms = median_ms(forward_pass, stream, 6, forward_arguments, rounds);
    double backward_ms = median_ms(backward_pass, stream, 8, backward_arguments, rounds);
    printf("%-8s [%lld,%lld,%lld,%lld]  forward %7.2f ms  backward %7.2f ms\n", name, (long long)dims[0],
           (long long)dims[1], (long long)dims[2], (long long)dims[3], forward_ms, backward_ms);

    for (int i = 0; i < MEMORIES; i++) must(dnnl_memory_destroy(memory[i]));
    must(dnnl_primitive_destroy(backward_pass));
    must(dnnl_primitive_desc_destroy(backward_description));
    must(dnnl_primitive_destroy(forward_pass));
    must(dnnl_primitive_desc_destroy(forward_description));
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_onednn_norm [rounds, at most %d]\n", MOST_ROUNDS);
        return 2;
    }
    static const dnnl_dims_t shapes[] = {{32, 64, 112, 112}, {32, 256, 56, 56}};
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    must(dnnl_engine_create(&engine, dnnl_cpu, 0));
    must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    const dnnl_version_t *version = dnnl_version();
    printf("oneDNN %d.%d.%d, batch norm with ReLU in training, float32, medians of %d rounds\n",
           version->major, version->minor, version->patch, rounds);
    for (int i = 0; i < 2; i++) {
        measure(engine, stream, "NCHW", dnnl_nchw, shapes[i], rounds);
        measure(engine, stream, "NHWC", dnnl_nhwc, shapes[i], rounds);
        measure(engine, stream, "nChw16c", dnnl_nChw16c, shapes[i], rounds);
    }
    must(dnnl_stream_destroy(stream));
    must(dnnl_engine_destroy(engine));
    return 0;
}
