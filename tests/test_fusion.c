/* Whole nets with and without fusion against the double reference: outputs, all gradients and running statistics; and that what
 * fusion promises to save is saved. */
#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "graph/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const nets[] = {
    "input 1x12x12\nconv 6 kernel=5\nbatchnorm\nsigmoid\navgpool 2\nconv 7 kernel=3\nbatchnorm\nsigmoid\navgpool 2\nflatten\n"
    "linear 20\nbatchnorm\nsigmoid\nlinear 12\nbatchnorm\nsigmoid\nlinear 10",
    "input 1x12x12\nconv 6 kernel=5\nsigmoid\navgpool 2\nconv 7 kernel=3\nsigmoid\nmaxpool 2\nflatten\nlinear 20\nsigmoid\nlinear 10",
    "input 9\nlinear 33\nbatchnorm\nrelu\nlinear 17\nbatchnorm\nsilu\nlinear 8\nleakyrelu\nlinear 5\nbatchnorm\nlinear 4\nsilu\n"
    "linear 3",
    /* residual: an identity, and a projection with its own BN */
    "input 3x8x8\nconv 5 kernel=3 padding=1\nbatchnorm\ns: relu\nconv 5 kernel=3 padding=1\nbatchnorm\nrelu\nconv 5 kernel=3 padding=1\n"
    "b: batchnorm\nadd s\nr: relu\nconv 6 kernel=3 stride=2 padding=1\nbatchnorm\nrelu\nconv 6 kernel=3 padding=1\nc: batchnorm\n"
    "conv 6 kernel=1 stride=2 from=r\nbatchnorm\nadd c\nrelu\nglobalavgpool\nflatten\nlinear 4",
    /* BN before the convolution, with the sum kept */
    "input 3x6x6\na: conv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconv 4 kernel=3 padding=1\n"
    "add a\nb: batchnorm\nrelu\nconv 4 kernel=3 padding=1\nadd b\nglobalavgpool\nflatten\nlinear 3",
    /* BN after the activation; an activation after a pool; BN of a pool; nothing after the last BN */
    "input 2x8x8\nconv 3 kernel=3\nrelu\nbatchnorm\navgpool 2\ntanh\nconv 4 kernel=2 bias=false\nmaxpool 2 stride=1 padding=1\nbatchnorm\n"
    "conv 3 kernel=2\nbatchnorm",
    /* readers that take no recipe: dropout, linear over a map, softmax */
    "input 2x5x5\nconv 3 kernel=3\nbatchnorm\nrelu\nflatten\nlinear 6\nbatchnorm\nrelu\ndropout 0.3\nlinear 4\nsoftmax",
    "input 2x5x5\nconv 3 kernel=3\nbatchnorm frozen=true\nleakyrelu 0.2\nconv 2 kernel=2\nbatchnorm track=false\nsilu\navgpool 2\nflatten\n"
    "linear 3",
    /* one value read by many, and twice by one */
    "input 2x4x4\nx: conv 3 kernel=3 padding=1\nbatchnorm\nr: relu\nconv 3 kernel=1\nadd r\nt: tanh\nconv 3 kernel=1 from=r\nadd t\n"
    "add x\nu: sigmoid\nadd u\nflatten\nlinear 3",
    "a: input 7\nlinear 6\nb: batchnorm\nrelu\nlinear 6\nadd b\nbatchnorm\nc: relu\nlinear 6\nadd c\ntanh\nrelu\nlinear 2",
    "input 2x6x6\nconv 3 kernel=3\na: batchnorm\nrelu\nconv 3 kernel=3 padding=1\nadd a\nleakyrelu\nb: batchnorm\nconv 3 kernel=1\n"
    "batchnorm\nadd b\nsilu\nglobalavgpool\nflatten\nlinear 2",
    "input 2x6x6\nbatchnorm\nconv 3 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nbatchnorm\nflatten\nlinear 2",
    /* an activation of a sum at the end */
    "input 2x4x4\na: conv 2 kernel=1\nconv 2 kernel=1\nadd a\nrelu",
    "input 2x4x4\na: conv 2 kernel=1\nconv 2 kernel=1\nadd a\nflatten\ntanh",
    /* BN of a BN */
    "input 2x6x6\nconv 3 kernel=3\nbatchnorm\nbatchnorm\nrelu\nconv 2 kernel=1",
    /* a flatten between a BN and what it is fused with elsewhere */
    "input 2x6x6\nconv 3 kernel=3\nbatchnorm\nflatten\nrelu\nlinear 2",
    "input 2x6x6\nconv 3 kernel=3\nflatten\nbatchnorm\nlinear 2",
    "input 2x6x6\na: conv 3 kernel=3\nconv 3 kernel=1\nbatchnorm\nadd a\nflatten\nlinear 2",
    "input 2x6x6\na: conv 3 kernel=3\nconv 3 kernel=1\nbatchnorm\nadd a\nflatten\nsilu\nlinear 2",
    /* an activation alone after a sum of which one part is a BN */
    "input 6\na: linear 6\nlinear 6\nbatchnorm\nadd a\nsilu\nlinear 2",
    "input 6\na: linear 6\nlinear 6\nbatchnorm\nadd a\nleakyrelu\nlinear 2",
};
enum { NETS = sizeof nets / sizeof *nets };

typedef struct run {
    ek_context *context;
    ek_net *net;
    float *output; /* rows */
} run;

static void fill(float *x, int64_t count, int index, double scale)
{
    ek_random random = ek_random_start(11, EK_STREAM_TEST, (uint32_t)index);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(scale * ek_random_normal(&random));
}

/* Rows into the lanes of the output's gradient. */
static void set_output_grad(ek_net *net, int64_t n)
{
    int64_t f = ek_shape_count(ek_net_output_shape(net));
    float *rows = malloc((size_t)(n * f) * sizeof *rows), *to = ek_net_output_grad(net);
    fill(rows, n * f, 2, 1.0 / (double)n);
    memset(to, 0, (size_t)ek_value_floats(ek_net_output_shape(net), n) * sizeof *to);
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < f; e++) to[(s / EK_LANES * f + e) * EK_LANES + s % EK_LANES] = rows[s * f + e];
    free(rows);
}

static void read_output(run *r, int64_t n)
{
    int64_t f = ek_shape_count(ek_net_output_shape(r->net));
    const float *lanes = r->net->plan->output;
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < f; e++) r->output[s * f + e] = lanes[(s / EK_LANES * f + e) * EK_LANES + s % EK_LANES];
}

static run begin(const char *text, const char *isa, bool fused, int threads, int64_t n, ek_mode mode)
{
    run r = {0};
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    assert_ok(ek_context_create(&(ek_context_options){.threads = threads, .isa = isa}, &r.context));
    unsetenv("EVENKEEL_FUSE");
    assert_ok(ek_net_create(r.context, text, NULL, &r.net));
    for (int i = 0; i < ek_net_tensor_count(r.net); i++) {
        ek_tensor t = ek_net_tensor(r.net, i);
        if (t.role == EK_ROLE_GAMMA || t.role == EK_ROLE_BETA) fill(t.data, ek_shape_count(t.shape), 100 + i, 0.7);
        if (t.role == EK_ROLE_RUNNING_MEAN) fill(t.data, ek_shape_count(t.shape), 100 + i, 0.1);
    }
    int64_t in = ek_shape_count(ek_net_input_shape(r.net)) * n, out = ek_shape_count(ek_net_output_shape(r.net)) * n;
    float *x = malloc((size_t)in * sizeof *x);
    fill(x, in, 1, 1);
    assert_ok(ek_net_prepare(r.net, n, true));
    r.output = calloc((size_t)out, sizeof(float));
    /* Twice, the first time with another batch: nothing may be left over from it. */
    for (int64_t size = n == 16 ? 16 : 2; size <= n; size += n > size ? n - size : n) {
        ek_net_set_input(r.net, size, x);
        assert_ok(ek_net_run_forward(r.net, size, mode, 3, 4));
        read_output(&r, size);
        set_output_grad(r.net, size);
        ek_net_run_backward(r.net);
        if (mode == EK_MODE_TRAINING) ek_net_commit(r.net);
    }
    free(x);
    return r;
}

static void end(run *r)
{
    free(r->output);
    ek_net_destroy(r->net);
    ek_context_destroy(r->context);
}

static void compare(const char *text, const char *what, const char *name, const float *want, const float *got, int64_t count, double scale)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)want[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)want[i] - got[i]) <= scale * (largest + 0.02)))
            fail_msg("%s\n%s: %s[%d] is %.9g, not %.9g", text, what, name, (int)i, got[i], want[i]);
}

static void compare_runs(const char *text, const char *what, const run *want, const run *got, int64_t n, double scale)
{
    compare(text, what, "output", want->output, got->output, n * ek_shape_count(ek_net_output_shape(want->net)), scale);
    for (int i = 0; i < ek_net_tensor_count(want->net); i++) {
        ek_tensor a = ek_net_tensor(want->net, i), b = ek_net_tensor(got->net, i);
        if (a.role == EK_ROLE_COUNTER) continue;
        int64_t count = ek_shape_count(a.shape);
        compare(text, what, a.name, a.data, b.data, count, scale);
        if (a.grad) compare(text, what, a.name, a.grad, b.grad, count, scale);
    }
}

static void fused_and_unfused_match_the_reference(void **state)
{
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    static const int64_t sizes[] = {16, 5, 19, 37};
    for (int i = 0; i < NETS; i++)
        for (int k = 0; k < 4; k++)
            for (int mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++) {
                run want = begin(nets[i], "reference", false, 1, sizes[k], (ek_mode)mode);
                for (int j = 0; j < 6; j++) {
                    const ek_kernels *there;
                    if (ek_kernels_choose(isas[j / 2], &there) != EK_OK) continue;
                    run got = begin(nets[i], isas[j / 2], j % 2, 2, sizes[k], (ek_mode)mode);
                    char what[64];
                    snprintf(what, sizeof what, "%s, %s, n=%d, %s", isas[j / 2], j % 2 ? "fused" : "unfused", (int)sizes[k],
                             mode ? "training" : "inference");
                    compare_runs(nets[i], what, &want, &got, sizes[k], 5e-5);
                    end(&got);
                }
                end(&want);
            }
}

/* Few samples have kernels of their own. A larger batch before leaves numbers in the lanes that they do not compute. */
static void inference_on_few_samples_matches_the_reference(void **state)
{
    (void)state;
    enum { MOST = 20 };
    static const char *const isas[] = {"reference", "baseline", "avx2", "avx512"};
    for (int i = 0; i < NETS; i++) {
        float *want = NULL;
        for (int k = 0; k < 4; k++) {
            ek_context *context;
            ek_net *net;
            if (ek_context_create(&(ek_context_options){.threads = 2, .isa = isas[k]}, &context) != EK_OK) continue;
            assert_ok(ek_net_create(context, nets[i], NULL, &net));
            int64_t in = ek_shape_count(ek_net_input_shape(net)), out = ek_shape_count(ek_net_output_shape(net));
            float *x = malloc((size_t)(MOST * in) * sizeof *x), *y = calloc((size_t)(MOST * MOST * out), sizeof *y);
            fill(x, MOST * in, 1, 1);
            float *at = y;
            for (int64_t n = MOST; n > 0; at += n * out, n--) {
                /* One value a channel has no variance of its own, which track=false would want. */
                if (n > 1 || !strstr(nets[i], "track=false")) assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, n, x, at));
            }
            if (want)
                compare(nets[i], isas[k], "few", want, y, at - y, 5e-5);
            else
                want = y;
            if (want != y) free(y);
            free(x);
            ek_net_destroy(net);
            ek_context_destroy(context);
        }
        free(want);
    }
}

static void bits_are_the_same_for_any_number_of_threads(void **state)
{
    (void)state;
    for (int i = 0; i < NETS; i++)
        for (int fused = 0; fused < 2; fused++) {
            run want = begin(nets[i], NULL, fused, 1, 37, EK_MODE_TRAINING);
            for (int threads = 2; threads <= 4; threads++) {
                run got = begin(nets[i], NULL, fused, threads, 37, EK_MODE_TRAINING);
                compare_runs(nets[i], "threads", &want, &got, 37, 0);
                end(&got);
            }
            end(&want);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_and_unfused_match_the_reference),
        cmocka_unit_test(inference_on_few_samples_matches_the_reference),
        cmocka_unit_test(bits_are_the_same_for_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
