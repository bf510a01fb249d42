/* The family of normalizations against PyTorch, layer by layer, whichever way they are computed. */
#include "testing.h"

#include "golden_values.h"
#include "graph/plan.h"
#include "oracles/family_golden.h"

#include <math.h>

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

static void check(const struct golden *g, const char *isa, const char *what, const float *got, const float *want, int64_t count)
{
    assert_true((got != NULL) == (want != NULL));
    for (int64_t i = 0; got && i < count; i++)
        if (!(fabsf(got[i] - want[i]) <= 4e-6f * fmaxf(1, fabsf(want[i]))))
            fail_msg("%s, %s: %s[%d] is %.9g, PyTorch has %.9g", g->text, isa ? isa : "best", what, (int)i, (double)got[i],
                     (double)want[i]);
}

static void check_tensors(const struct golden *g, const char *isa, ek_net *net)
{
    ek_tensor by_role[EK_ROLE_COUNTER + 1] = {{0}};
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        by_role[t.role] = t;
    }
#define CHECK(role, member, name) check(g, isa, #name, by_role[role].member, g->name, ek_shape_count(by_role[role].shape))
    CHECK(EK_ROLE_GAMMA, grad, dweight);
    CHECK(EK_ROLE_BETA, grad, dbias);
    CHECK(EK_ROLE_RUNNING_MEAN, data, running_mean);
    CHECK(EK_ROLE_RUNNING_VAR, data, running_var);
}

/* The plan gives no gradient of the net's input: the operator's own passes do, on arrays with one lane block. */
static void check_layer(const struct golden *g, const char *isa)
{
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context));
    assert_ok(ek_net_create(context, g->text, NULL, &net));
    set_parameters(net);
    ek_node *node = &net->graph.node[1];
    int64_t f = ek_shape_count(node->out), count = f * g->samples;
    float *x = new_series(count, 37, 101, 16), *dy = new_series(count, 29, 53, 8);
    float *lanes = ek_calloc((size_t)(4 * f * EK_LANES), sizeof *lanes), *rows = ek_calloc((size_t)count, sizeof *rows);
    assert_true(lanes && rows);
    float *x_lanes = lanes, *dy_lanes = x_lanes + f * EK_LANES, *y_lanes = dy_lanes + f * EK_LANES, *dx_lanes = y_lanes + f * EK_LANES;
    assert_ok(ek_net_prepare(net, g->samples, true));
    ek_pass pass = net->plan->pass;
    pass.kernels = context->kernels;
    pass.n = g->samples;
    pass.training = true;
    pass.kernels->rows_to_lanes(f, g->samples, x, x_lanes);
    pass.kernels->rows_to_lanes(f, g->samples, dy, dy_lanes);
    ek_flow flow = {.x = {{.x = x_lanes}}, .y = y_lanes, .dy = {.g = dy_lanes}, .dx = {{.g = dx_lanes, .value = {.x = x_lanes}}}};
    node->op->forward(&pass, node, &flow);
    node->op->backward(&pass, node, &flow);
    if (node->op->commit) node->op->commit(&pass, node);
    pass.kernels->lanes_to_rows(f, g->samples, y_lanes, rows);
    check(g, isa, "y", rows, g->y, count);
    pass.kernels->lanes_to_rows(f, g->samples, dx_lanes, rows);
    check(g, isa, "dx", rows, g->dx, count);
    check_tensors(g, isa, net);
    ek_free(rows);
    ek_free(lanes);
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
        check(g, isas[k % 2], "y", y, g->y, count);
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
