/* Joins and shapes in small nets against PyTorch, whichever way they are computed. */
#include "testing.h"

#include "layer_golden.h"
#include "graph/plan.h"
#include "oracles/arithmetic_golden.h"

#include <math.h>
#include <stdlib.h>

enum { GOLDENS = sizeof goldens / sizeof *goldens };

static void check(const char *text, const char *isa, const char *what, const float *got, const float *want, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(got[i] - want[i]) <= 4e-6f * fmaxf(1, fabsf(want[i]))))
            fail_msg("%s\n%s: %s[%d] is %.9g, PyTorch has %.9g", text, isa ? isa : "best", what, (int)i, (double)got[i],
                     (double)want[i]);
}

static void check_net(const struct golden *g, const char *isa, bool fused)
{
    ek_context *context;
    ek_net *net;
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context));
    unsetenv("EVENKEEL_FUSE");
    assert_ok(ek_net_create(context, g->text, NULL, &net));
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        series(t.data, ek_shape_count(t.shape), 5, 13, 8, 0.125);
    }
    int64_t f = ek_shape_count(ek_net_output_shape(net)), count = f * SAMPLES;
    float *x = new_series(ek_shape_count(ek_net_input_shape(net)) * SAMPLES, 37, 101, 16);
    float *dy = new_series(count, 29, 53, 8), *y = new_series(count, 1, 1, 1);
    assert_ok(ek_net_prepare(net, SAMPLES, true));
    ek_net_set_input(net, SAMPLES, x);
    assert_ok(ek_net_run_forward(net, SAMPLES, EK_MODE_TRAINING, 0, 0));
    context->kernels->lanes_to_rows(f, SAMPLES, net->plan->output, y);
    check(g->text, isa, "y", y, g->y, count);
    context->kernels->rows_to_lanes(f, SAMPLES, dy, ek_net_output_grad(net));
    ek_net_run_backward(net);
    const float *want = g->gradients;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        check(g->text, isa, t.name, t.grad, want, ek_shape_count(t.shape));
        want += ek_shape_count(t.shape);
    }
    ek_free(y);
    ek_free(dy);
    ek_free(x);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void nets_match_pytorch(void **state)
{
    (void)state;
    static const char *const isas[] = {"reference", "baseline", "avx2", "avx512"};
    for (int i = 0; i < 4; i++) {
        const ek_kernels *there;
        if (i > 0 && ek_kernels_choose(isas[i], &there) != EK_OK) continue;
        for (int k = 0; k < 2 * GOLDENS; k++) check_net(&goldens[k / 2], isas[i], k % 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nets_match_pytorch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
