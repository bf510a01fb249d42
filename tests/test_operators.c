/* Transposed convolutions, pools and activations against PyTorch, layer by layer, for every instruction set of this machine
 * and for the oracle. */
#include "layer_golden.h"

#include "oracles/operators_golden.h"

enum { GOLDENS = sizeof goldens / sizeof *goldens };

static float *new_input(int64_t count)
{
    float *x = new_floats(count);
    series(x, count, 37, 101, 8, 1.0 / 64);
    return x;
}

static void check_layer(const struct golden *g, const char *isa)
{
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context));
    assert_ok(ek_net_create(context, g->text, NULL, &net));
    ek_node *node = &net->graph.node[1];
    ek_param *weight = ek_node_param(node, EK_ROLE_WEIGHT), *bias = ek_node_param(node, EK_ROLE_BIAS);
    if (weight) series(weight->data, weight->count, 7, 11, 8, 0);
    if (bias) series(bias->data, bias->count, 5, 13, 8, 0);
    int64_t in = ek_shape_count(node->in[0]) * SAMPLES, out = ek_shape_count(node->out) * SAMPLES;
    assert_int_equal(out, g->outputs * SAMPLES);
    float *x = new_input(in), *dy = new_series(out, 29, 53, 8), *y = new_floats(out), *dx = new_floats(in);
    run_layer(net, x, SAMPLES, dy, y, dx);
    check_golden(g->text, isa, "y", y, g->y, out);
    check_golden(g->text, isa, "dx", dx, g->dx, in);
    check_golden(g->text, isa, "dweight", weight ? weight->grad : NULL, g->dweight, weight ? weight->count : 0);
    check_golden(g->text, isa, "dbias", bias ? bias->grad : NULL, g->dbias, bias ? bias->count : 0);
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

/* As whole nets, in inference, with the oracle among the ways to run them. */
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
        for (int i = 0; i < ek_net_tensor_count(net); i++) {
            ek_tensor t = ek_net_tensor(net, i);
            bool weight = t.role == EK_ROLE_WEIGHT;
            series(t.data, ek_shape_count(t.shape), weight ? 7 : 5, weight ? 11 : 13, 8, 0);
        }
        int64_t in = ek_shape_count(ek_net_input_shape(net)) * SAMPLES, out = g->outputs * SAMPLES;
        float *x = new_input(in), *y = new_floats(out);
        assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, SAMPLES, x, y));
        check_golden(g->text, isas[k % 2], "y", y, g->y, out);
        ek_free(y);
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
