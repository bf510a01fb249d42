/* Running a whole net, fused or not, and comparing what it leaves: outputs, gradients and running statistics. */
#ifndef EK_TESTS_FUSED_RUNS_H
#define EK_TESTS_FUSED_RUNS_H

#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "graph/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct run {
    ek_context *context;
    ek_net *net;
    float *output; /* rows */
    float *read;   /* what the normalizations read, one after the other */
    int64_t read_count;
} run;

static inline void fill(float *x, int64_t count, int index, double scale)
{
    ek_random random = ek_random_start(11, EK_STREAM_TEST, (uint32_t)index);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(scale * ek_random_normal(&random));
}

/* Rows into the lanes of the output's gradient. */
static inline void set_output_grad(ek_net *net, int64_t n)
{
    int64_t f = ek_shape_count(ek_net_output_shape(net));
    if (!ek_net_output_grad(net)) return; /* nothing is trained */
    float *rows = malloc((size_t)(n * f) * sizeof *rows), *to = ek_net_output_grad(net);
    fill(rows, n * f, 2, 1.0 / (double)n);
    memset(to, 0, (size_t)ek_value_floats(ek_net_output_shape(net), n) * sizeof *to);
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < f; e++)
            to[(s / EK_LANES * f + e) * EK_LANES + s % EK_LANES] = rows[s * f + e];
    free(rows);
}

static inline void read_output(run *r, int64_t n)
{
    int64_t f = ek_shape_count(ek_net_output_shape(r->net));
    const float *lanes = r->net->plan->output;
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < f; e++)
            r->output[s * f + e] = lanes[(s / EK_LANES * f + e) * EK_LANES + s % EK_LANES];
}

static inline void read_norm_inputs(run *r, int64_t n)
{
    const ek_graph *graph = &r->net->graph;
    r->read_count = 0;
    for (int i = 0; i < graph->count; i++) {
        if (!graph->node[i].op->normalizes) continue;
        int64_t count = n * ek_shape_count(graph->node[i].in[0]);
        r->read = realloc(r->read, (size_t)(r->read_count + count) * sizeof *r->read);
        ek_net_norm_input(r->net, i, 0, n, r->read + r->read_count);
        r->read_count += count;
    }
}

/* Gamma 1, beta 0 and mean 0, which a new net has, would hide what is done with them. */
static inline void set_norms(ek_net *net)
{
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        if (t.role == EK_ROLE_GAMMA || t.role == EK_ROLE_BETA)
            fill(t.data, ek_shape_count(t.shape), 100 + i, 0.7);
        if (t.role == EK_ROLE_RUNNING_MEAN) fill(t.data, ek_shape_count(t.shape), 100 + i, 0.1);
    }
}

/* Where the text says so, the samples are sequences of unequal lengths. */
#define LENGTHS " # lengths"

/* 1 to l, [n] */
static inline int32_t *any_lengths(const ek_net *net, int64_t n)
{
    int32_t *lengths = malloc((size_t)n * sizeof *lengths);
    ek_random random = ek_random_start(11, EK_STREAM_TEST, 3);
    for (int64_t i = 0; i < n; i++)
        lengths[i] = 1 + (int32_t)ek_random_below(&random, (uint64_t)ek_net_input_shape(net).dim[1]);
    return lengths;
}

/* A step's passes over n samples, forward and backward; what they leave is kept until end(). */
static inline run begin(const char *text, const char *isa, bool fused, int threads, int64_t n, ek_mode mode)
{
    run r = {0};
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    assert_ok(ek_context_create(&(ek_context_options){.threads = threads, .isa = isa}, &r.context));
    unsetenv("EVENKEEL_FUSE");
    assert_ok(ek_net_create(r.context, text, NULL, &r.net));
    set_norms(r.net);
    int64_t in = ek_shape_count(ek_net_input_shape(r.net)) * n;
    int64_t out = ek_shape_count(ek_net_output_shape(r.net)) * n;
    float *x = malloc((size_t)in * sizeof *x);
    fill(x, in, 1, 1);
    int32_t *lengths = strstr(text, LENGTHS) ? any_lengths(r.net, n) : NULL;
    assert_ok(ek_net_use_lengths(r.net, lengths));
    assert_ok(ek_net_prepare(r.net, n, true));
    r.output = calloc((size_t)out, sizeof(float));
    /* Twice, the first time with another batch: nothing may be left over from it. */
    for (int64_t size = n == 16 ? 16 : 2; size <= n; size += n > size ? n - size : n) {
        ek_net_set_input(r.net, size, x);
        ek_net_set_lengths(r.net, size, lengths);
        assert_ok(ek_net_run_forward(r.net, size, mode, 3, 4));
        read_output(&r, size);
        read_norm_inputs(&r, size);
        set_output_grad(r.net, size);
        ek_net_run_backward(r.net);
        if (mode == EK_MODE_TRAINING) ek_net_commit(r.net);
    }
    free(lengths);
    free(x);
    return r;
}

static inline void end(run *r)
{
    free(r->read);
    free(r->output);
    ek_net_destroy(r->net);
    ek_context_destroy(r->context);
}

static inline double largest(const float *x, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

/* Of the parameters, or 1: the output's gradients, over all samples, are about that large, and they may meet inputs
 * so small that the parameters' do not show it. */
static inline double largest_gradient(const ek_net *net)
{
    double most = 1;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        if (t.grad) most = fmax(most, largest(t.grad, ek_shape_count(t.shape)));
    }
    return most;
}

/* How far numbers may be apart: share times the largest of their tensor, and floor, of gradients floor times the
 * net's largest_gradient(). A gradient whose large terms cancel, as that of a bias before a batchnorm, is 0 but for
 * the rounding of these terms. */
typedef struct tolerance {
    double share, floor;
} tolerance;

static const tolerance same_bits = {0, 0};

/* net: its text, or what to call it */
static inline void compare(const char *net, const char *what, const char *name, const float *want,
                           const float *got, int64_t count, tolerance t)
{
    double most = t.share * largest(want, count) + t.floor;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)want[i] - got[i]) <= most))
            fail_msg("%s\n%s: %s[%d] is %.9g, not %.9g", net, what, name, (int)i, got[i], want[i]);
}

static inline void compare_runs(const char *net, const char *what, const run *want, const run *got, int64_t n,
                                tolerance t)
{
    tolerance of_gradients = {t.share, t.floor * largest_gradient(want->net)};
    int64_t count = n * ek_shape_count(ek_net_output_shape(want->net));
    compare(net, what, "output", want->output, got->output, count, t);
    compare(net, what, "input of a normalization", want->read, got->read, want->read_count, t);
    for (int i = 0; i < ek_net_tensor_count(want->net); i++) {
        ek_tensor a = ek_net_tensor(want->net, i), b = ek_net_tensor(got->net, i);
        if (a.role == EK_ROLE_COUNTER) continue;
        count = ek_shape_count(a.shape);
        compare(net, what, a.name, a.data, b.data, count, t);
        if (!a.grad) continue;
        char name[128];
        snprintf(name, sizeof name, "gradient of %s", a.name);
        compare(net, what, name, a.grad, b.grad, count, of_gradients);
    }
}

typedef struct outputs {
    float *y; /* of all passes, one after the other */
    int64_t count;
} outputs;

/* Inference on the first of the same samples, as many as each of `sizes`, the largest first. */
static inline outputs infer(const char *text, const char *isa, const int64_t *sizes, int passes)
{
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context));
    assert_ok(ek_net_create(context, text, NULL, &net));
    set_norms(net);
    int64_t in = ek_shape_count(ek_net_input_shape(net)) * sizes[0],
            out = ek_shape_count(ek_net_output_shape(net));
    outputs all = {malloc((size_t)(passes * sizes[0] * out) * sizeof(float)), 0};
    float *x = malloc((size_t)in * sizeof *x);
    fill(x, in, 1, 1);
    int32_t *lengths = strstr(text, LENGTHS) ? any_lengths(net, sizes[0]) : NULL;
    for (int i = 0; i < passes; i++) {
        assert_ok(ek_net_forward_lengths(net, EK_MODE_INFERENCE, sizes[i], x, lengths, all.y + all.count));
        all.count += sizes[i] * out;
    }
    free(lengths);
    free(x);
    ek_net_destroy(net);
    ek_context_destroy(context);
    return all;
}

#endif
