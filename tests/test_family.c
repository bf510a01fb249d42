/* The family of normalizations against PyTorch, layer by layer, whichever way they are computed. */
#include "layer_golden.h"

#include "oracles/family_golden.h"

enum { GOLDENS = sizeof goldens / sizeof *goldens };

static void set_parameters(ek_net *net)
{
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        int64_t count = ek_shape_count(t.shape);
        if (t.role == EK_ROLE_GAMMA) series(t.data, count, 7, 11, 8, 1);
        if (t.role == EK_ROLE_BETA) series(t.data, count, 5, 13, 8, 0);
        if (t.role == EK_ROLE_RUNNING_MEAN) series(t.data, count, 3, 7, 16, 0);
        if (t.role == EK_ROLE_RUNNING_VAR) series(t.data, count, 3, 7, 4, 2);
        if (t.role == EK_ROLE_COUNTER) *t.counter = 1;
    }
}

static void check_tensors(const struct golden *g, const char *isa, ek_net *net)
{
    ek_tensor by_role[EK_ROLE_COUNTER + 1] = {{0}};
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        by_role[t.role] = t;
    }
#define CHECK(role, member, name) check_golden(g->text, isa, #name, by_role[role].member, g->name, ek_shape_count(by_role[role].shape))
    CHECK(EK_ROLE_GAMMA, grad, dweight);
    CHECK(EK_ROLE_BETA, grad, dbias);
    CHECK(EK_ROLE_RUNNING_MEAN, data, running_mean);
    CHECK(EK_ROLE_RUNNING_VAR, data, running_var);
}

static void check_layer(const struct golden *g, const char *isa)
{
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context));
    assert_ok(ek_net_create(context, g->text, NULL, &net));
    set_parameters(net);
    int64_t count = ek_shape_count(net->graph.node[1].out) * g->samples;
    float *x = new_series(count, 37, 101, 16), *dy = new_series(count, 29, 53, 8), *y = new_floats(count), *dx = new_floats(count);
    run_layer(net, x, g->samples, dy, y, dx);
    check_golden(g->text, isa, "y", y, g->y, count);
    check_golden(g->text, isa, "dx", dx, g->dx, count);
    check_tensors(g, isa, net);
    ek_free(dx);
    ek_free(y);
    ek_free(dy);
    ek_free(x);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void layers_match_pytorch(void **state)
{
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        const ek_kernels *there;
        if (ek_kernels_choose(isas[i], &there) != EK_OK) continue;
        for (int k = 0; k < GOLDENS; k++) check_layer(&goldens[k], isas[i]);
    }
}

/* As whole nets, the oracle among the ways to run them. */
static void nets_match_pytorch(void **state)
{
    (void)state;
    static const char *const isas[] = {NULL, "reference"};
    for (int k = 0; k < 2 * GOLDENS; k++) {
        const struct golden *g = &goldens[k / 2];
        ek_context *context;
        ek_net *net;
        assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isas[k % 2]}, &context));
        assert_ok(ek_net_create(context, g->text, NULL, &net));
        set_parameters(net);
        int64_t f = ek_shape_count(ek_net_output_shape(net)), count = f * g->samples;
        float *x = new_series(count, 37, 101, 16), *dy = new_series(count, 29, 53, 8), *y = new_series(count, 1, 1, 1);
        assert_ok(ek_net_prepare(net, g->samples, true));
        ek_net_set_input(net, g->samples, x);
        assert_ok(ek_net_run_forward(net, g->samples, EK_MODE_TRAINING, 0, 0));
        context->kernels->lanes_to_rows(f, g->samples, net->plan->output, y);
        check_golden(g->text, isas[k % 2], "y", y, g->y, count);
        if (ek_net_output_grad(net)) context->kernels->rows_to_lanes(f, g->samples, dy, ek_net_output_grad(net));
        ek_net_run_backward(net);
        ek_net_commit(net);
        check_tensors(g, isas[k % 2], net);
        ek_free(y);
        ek_free(dy);
        ek_free(x);
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_match_pytorch),
        cmocka_unit_test(nets_match_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
