/* What measuring needs of the library: nets without their batch normalizations, and the times of layers. */
#include "testing.h"

enum { BATCH = 5 };

static ek_context *context_of(const char *isa)
{
    ek_context *context;
    ek_context_options options = {.threads = 2, .isa = isa};
    assert_ok(ek_context_create(&options, &context));
    return context;
}

static const struct without_case {
    const char *text, *expected; /* net texts */
} without_cases[] = {
    /* in a row, twice in a row, first and last */
    {"input 3\nbatchnorm\nfc: linear 4 bias=false\nbatchnorm\nbatchnorm eps=1e-3\nrelu\nlinear "
     "2\nbatchnorm\n",
     "input 3\nfc: linear 4 bias=false\nrelu\nlinear1: linear 2\n"},
    /* read from elsewhere: by from= and by add, of a layer with a name */
    {"input 2x4x4\nc: conv 2 kernel=1\nb: batchnorm\nr: relu\nd: conv 2 kernel=1 from=b\nadd r\n",
     "input 2x4x4\nc: conv 2 kernel=1\nr: relu\nd: conv 2 kernel=1 from=c\nadd r\n"},
    {"input 2x4x4\nc: conv 2 kernel=1\nb: batchnorm\nd: conv 2 kernel=1\nadd b\n",
     "input 2x4x4\nc: conv 2 kernel=1\nd: conv 2 kernel=1\nadd c\n"},
    /* and of layers without one, which take the normalization's: the first of two */
    {"input 2x4x4\nc: conv 2 kernel=1\nrelu\nb: batchnorm\nb2: batchnorm\nd: conv 2 kernel=1\nadd b2\n",
     "input 2x4x4\nc: conv 2 kernel=1\nb: relu\nd: conv 2 kernel=1\nadd b\n"},
    {"input 2x4x4\nb: batchnorm\nc: conv 2 kernel=1\nadd b\n", "b: input 2x4x4\nc: conv 2 kernel=1\nadd b\n"},
    /* both readings of an addition */
    {"input 2x4x4\nr: relu\nb: batchnorm\nadd r\n", "input 2x4x4\nr: relu\nadd r\n"},
    {"input 3\nbatchnorm\n", "input 3\n"},
    {"input 3\nlinear 2\n", "input 3\nlinear1: linear 2\n"},
};

static void without_norm(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    for (size_t i = 0; i < sizeof without_cases / sizeof *without_cases; i++) {
        const struct without_case *c = &without_cases[i];
        ek_net *net, *plain, *expected;
        assert_ok(ek_net_create(context, c->text, NULL, &net));
        assert_ok(ek_net_create(context, c->expected, NULL, &expected));
        assert_ok(ek_net_without_norm(net, &plain));
        assert_string_equal(ek_net_text(plain), ek_net_text(expected));
        ek_net_destroy(plain);
        ek_net_destroy(expected);
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

/* Of the shipped nets all else stays, and they still run. */
static void without_norm_shipped(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    for (int i = 0; ek_shipped_net_name(i); i++) {
        ek_net *net, *plain;
        assert_ok(ek_net_open(context, ek_shipped_net_name(i), &net));
        assert_ok(ek_net_without_norm(net, &plain));
        int at = 0;
        for (int k = 0; k < ek_net_layer_count(net); k++) {
            ek_layer_info layer = ek_net_layer(net, k), same = ek_net_layer(plain, at);
            if (!strcmp(layer.op, "batchnorm")) continue;
            assert_string_equal(layer.op, same.op);
            assert_string_equal(layer.options, same.options);
            assert_memory_equal(&layer.output, &same.output, sizeof layer.output);
            assert_false(same.redundant_bias);
            at++;
        }
        assert_int_equal(at, ek_net_layer_count(plain));
        ek_net_destroy(plain);
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

static void without_norm_memory(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    ek_net *net, *plain;
    assert_ok(ek_net_create(context, without_cases[0].text, NULL, &net));
    for (failing f = {0}; fail_next(&f);) {
        plain = NULL;
        f.status = ek_net_without_norm(net, &plain);
        if (f.status == EK_OK) ek_net_destroy(plain);
    }
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static const char *const timed_net = "input 2x6x6\nc: conv 5 kernel=3\nb: batchnorm\nrelu\nflatten\n"
                                     "l: linear 7\nbatchnorm\nadd l\nlinear 3\n";

static double sum_of(const ek_layer_time *times, int layers, bool backward)
{
    double sum = 0;
    for (int i = 0; i < layers; i++) sum += backward ? times[i].backward : times[i].forward;
    return sum;
}

static void step(ek_trainer *trainer)
{
    float x[BATCH * 72];
    int32_t labels[BATCH] = {0, 1, 2, 0, 1};
    ek_step_result result;
    for (int i = 0; i < BATCH * 72; i++) x[i] = (float)(i % 13) * 0.1f;
    assert_ok(ek_trainer_step(trainer, BATCH, x, labels, &result));
    assert_false(result.skipped);
}

/* A layer with a pass of its own has a time in it, one within another's has none and says whose; passes add up; and
 * nothing is written before and after. */
static void layer_times(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    ek_net *net;
    ek_trainer *trainer;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_net_create(context, timed_net, NULL, &net));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    enum { LAYERS = 9 };
    assert_int_equal(ek_net_layer_count(net), LAYERS);
    ek_layer_time times[LAYERS];
    assert_ok(ek_net_time_layers(net, times));
    assert_true(sum_of(times, LAYERS, false) == 0 && sum_of(times, LAYERS, true) == 0);
    step(trainer);
    for (int i = 0; i < LAYERS; i++) {
        assert_in_range(times[i].forward_in, 0, LAYERS - 1);
        assert_in_range(times[i].backward_in, 0, LAYERS - 1);
        /* A batchnorm that is read through still has its numbers to make ready. */
        if (times[i].forward_in == i) assert_true(times[i].forward > 0);
        if (i > 0 && times[i].backward_in == i) assert_true(times[i].backward > 0);
        if (times[times[i].forward_in].forward_in != times[i].forward_in) fail_msg("layer %d runs in none", i);
    }
    double forward = sum_of(times, LAYERS, false), backward = sum_of(times, LAYERS, true);
    step(trainer);
    assert_true(sum_of(times, LAYERS, false) > forward && sum_of(times, LAYERS, true) > backward);

    forward = sum_of(times, LAYERS, false);
    backward = sum_of(times, LAYERS, true);
    float x[72] = {0}, y[3];
    assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, 1, x, y));
    assert_true(sum_of(times, LAYERS, false) > forward && sum_of(times, LAYERS, true) == backward);

    forward = sum_of(times, LAYERS, false);
    assert_ok(ek_net_time_layers(net, NULL));
    step(trainer);
    assert_true(sum_of(times, LAYERS, false) == forward && sum_of(times, LAYERS, true) == backward);
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void no_times_of_the_reference(void **state)
{
    (void)state;
    ek_context *context = context_of("reference");
    ek_net *net;
    ek_layer_time times[9];
    assert_ok(ek_net_create(context, timed_net, NULL, &net));
    assert_fails(EK_E_UNSUPPORTED, "reference", ek_net_time_layers(net, times));
    assert_ok(ek_net_time_layers(net, NULL));
    assert_fails(EK_E_ARGUMENT, "needs a net", ek_net_time_layers(NULL, times));
    assert_fails(EK_E_ARGUMENT, "needs a net", ek_net_without_norm(net, NULL));
    ek_net_destroy(net);
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_norm),
        cmocka_unit_test(without_norm_shipped),
        cmocka_unit_test(without_norm_memory),
        cmocka_unit_test(layer_times),
        cmocka_unit_test(no_times_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
