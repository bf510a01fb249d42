/* Nets made layer by layer. */
#include "testing.h"

#include "graph/builder.h"

#include <string.h>

static ek_context *context;

static int add(ek_builder *b, const char *label, const char *op, int first, int second, const char *options)
{
    int index = -1;
    assert_ok(ek_builder_add(b, label, op, first, second, &index, "%s", options));
    return index;
}

static void a_net_is_made_layer_by_layer(void **state)
{
    (void)state;
    ek_builder b = {0};
    int x = add(&b, NULL, "input", -1, -1, "shape=2x4x4");
    int conv = add(&b, "/layer 1/conv", "conv", x, -1, "out=3 kernel=3x1 padding=1x0");
    assert_int_equal(ek_builder_shape(&b, conv).dim[0], 3);
    int unused = add(&b, "unused", "relu", conv, -1, "");
    int norm = add(&b, "optimizer.bn", "batchnorm", conv, -1, "eps=0.25");
    int relu = add(&b, NULL, "relu", norm, -1, "");
    int sum = add(&b, NULL, "add", relu, norm, "");
    (void)unused;
    for (int i = 0; i < 3 * 2 * 3; i++) ek_builder_data(&b, conv, EK_ROLE_WEIGHT)[i] = (float)i;
    for (int i = 0; i < 3; i++) ek_builder_data(&b, conv, EK_ROLE_BIAS)[i] = (float)(i + 1);
    for (int i = 0; i < 3; i++) ek_builder_data(&b, norm, EK_ROLE_RUNNING_MEAN)[i] = 10;
    ek_net *net;
    assert_ok(ek_builder_finish(&b, context, "test", sum, &net));
    assert_string_equal(ek_net_text(net), "input           2x4x4\n"
                                          "_layer_1_conv:  conv 3 kernel=3x1 padding=1x0\n"
                                          "optimizer_bn:   batchnorm eps=0.25\n"
                                          "                relu\n"
                                          "                add optimizer_bn\n");
    ek_tensor tensor;
    assert_ok(ek_net_find_tensor(net, "_layer_1_conv.weight", &tensor));
    assert_true(tensor.data[17] == 17);
    ek_net_destroy(net);
    ek_builder_free(&b);
}

/* The bias of a convolution that only a normalization reads is no longer computed. */
static void a_redundant_bias_goes_into_the_running_mean(void **state)
{
    (void)state;
    ek_builder b = {0};
    int x = add(&b, NULL, "input", -1, -1, "shape=2");
    int linear = add(&b, "fc", "linear", x, -1, "out=2");
    int norm = add(&b, "bn", "batchnorm", linear, -1, "");
    ek_builder_data(&b, linear, EK_ROLE_BIAS)[1] = 3;
    ek_builder_data(&b, norm, EK_ROLE_RUNNING_MEAN)[1] = 10;
    ek_net *net, *copied;
    assert_ok(ek_builder_finish(&b, context, "test", norm, &net));
    ek_tensor mean;
    assert_ok(ek_net_find_tensor(net, "bn.running_mean", &mean));
    assert_true(mean.data[0] == 0 && mean.data[1] == 7);

    ek_builder again = {0};
    for (int i = 0, index; i < net->graph.count; i++)
        assert_ok(ek_builder_copy(&again, &net->graph.node[i], net->graph.node[i].input[0], -1, &index));
    assert_ok(ek_builder_finish(&again, context, "test", 2, &copied));
    assert_string_equal(ek_net_text(net), ek_net_text(copied));
    assert_ok(ek_net_find_tensor(copied, "bn.running_mean", &mean));
    assert_true(mean.data[1] == 7);
    ek_builder_free(&again);
    ek_net_destroy(copied);
    ek_net_destroy(net);
    ek_builder_free(&b);
}

static void a_label_that_is_taken_gets_a_number(void **state)
{
    (void)state;
    static const char *const wishes[] = {"a", "a", "a", "a_7", "a", "a_b", "a_7"},
                            *const labels[] = {"a", "a_2", "a_3", "a_7", "a_8", "a_b", "a_7_2"};
    ek_builder b = {0};
    int x = add(&b, NULL, "input", -1, -1, "shape=2");
    for (int i = 0; i < 7; i++) {
        x = add(&b, wishes[i], "relu", x, -1, "");
        assert_string_equal(ek_builder_node(&b, x)->label, labels[i]);
    }
    ek_builder_free(&b);
}

static void what_does_not_meet_is_said(void **state)
{
    (void)state;
    ek_builder b = {0};
    int index = -1, x = add(&b, NULL, "input", -1, -1, "shape=4");
    assert_int_equal(ek_builder_add(&b, NULL, "conv", x, -1, &index, "out=3 kernel=3"), EK_E_SHAPE);
    assert_non_null(strstr(ek_error(), "maps CxHxW"));
    assert_int_equal(ek_builder_add(&b, NULL, "linear", x, -1, &index, "out=none"), EK_E_ARGUMENT);
    assert_int_equal(ek_builder_add(&b, NULL, "nothing", x, -1, &index, "%s", ""), EK_E_UNSUPPORTED);
    assert_int_equal(b.graph.count, 1);
    /* Two wishes for one label. */
    int first = add(&b, "a", "linear", x, -1, "out=2"), second = add(&b, "a", "linear", first, -1, "out=2");
    assert_string_equal(ek_builder_node(&b, second)->label, "a_2");
    ek_builder_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_net_is_made_layer_by_layer),
        cmocka_unit_test(a_redundant_bias_goes_into_the_running_mean),
        cmocka_unit_test(a_label_that_is_taken_gets_a_number),
        cmocka_unit_test(what_does_not_meet_is_said),
    };
    if (ek_context_create(NULL, &context) != EK_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ek_context_destroy(context);
    return failed;
}
