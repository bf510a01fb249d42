/* Weights of other frameworks: their names, their axes, their conventions, and what does not fit. */
#include "testing.h"

#include "scratch.h"

#include "formats/foreign.h"

#include <math.h>
#include <stdio.h>

static ek_context *context;

static int start(void **state) { return make_path(state) != 0 || ek_context_create(NULL, &context) != EK_OK; }

static int finish(void **state)
{
    ek_context_destroy(context);
    return remove_path(state);
}

/* --- files made by hand */

static ek_st_writer writer;

typedef struct dims {
    int rank;
    int64_t dim[6];
} dims;

/* A tensor of these numbers, or with NULL of number, number + 1/8, ... */
static void add(const char *name, dims shape, float number, const float *numbers)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
    float *data = test_malloc((size_t)(count + 1) * sizeof *data);
    for (int64_t i = 0; i < count; i++) data[i] = numbers ? numbers[i] : number + 0.125f * (float)i;
    assert_ok(ek_st_add(&writer, name, EK_NUMBER_F32, shape.rank, shape.dim, data));
}

static void add_norm(const char *layer, const char *const names[4], int64_t c, float number)
{
    char name[128];
    for (int i = 0; i < 4; i++) {
        if (!names[i]) continue;
        snprintf(name, sizeof name, "%s%s", layer, names[i]);
        add(name, (dims){1, {c}}, number + (float)i, NULL);
    }
}

static const char *const keras_names[] = {"gamma", "beta", "moving_mean", "moving_variance"};

static void write_file(void)
{
    assert_ok(ek_st_write(&writer, path));
    for (int i = 0; i < writer.count; i++) test_free((void *)writer.tensor[i].bytes);
    ek_st_writer_free(&writer);
}

static ek_status take(const char *text, ek_framework from, const ek_foreign_options *options, ek_net **out)
{
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    ek_status status = ek_net_take_foreign(net, path, from, options, out);
    ek_net_destroy(net);
    return status;
}

static const float *data_of(const ek_net *net, const char *name)
{
    ek_tensor t = {0};
    assert_ok(ek_net_find_tensor(net, name, &t));
    return t.data;
}

static bool is_noted(const ek_net *net, const char *words)
{
    for (int i = 0; i < ek_net_note_count(net); i++) {
        if (strstr(ek_net_note(net, i), words)) return true;
    }
    return false;
}

/* --- names */

static void test_order(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool numbered;
    } rows[] = {
        {"conv2d", "conv2d_1", true},
        {"conv2d_2", "conv2d_10", true},
        {"conv2d_9/x", "conv2d_010/x", true},
        {"net/9", "net/10", true},
        {"block/conv2d", "block/conv2d_1", true},
        {"conv2d/a", "conv2d_1/a", true},
        {"a/conv", "b/conv", false},
        {"conv", "conv/x", false},
        {"1x", "1y", false},
        {"99999999999999999999998", "99999999999999999999999", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool numbered;
        assert_true(ek_path_order(rows[i].a, rows[i].b, &numbered) < 0);
        assert_int_equal(numbered, rows[i].numbered);
        assert_true(ek_path_order(rows[i].b, rows[i].a, &numbered) > 0);
        assert_int_equal(numbered, rows[i].numbered);
        assert_int_equal(ek_path_order(rows[i].a, rows[i].a, &numbered), 0);
    }
}

static const char two_convs[] = "input 1x4x4\n"
                                "first: conv 1 kernel=1\n"
                                "       conv 1 kernel=1\n"
                                "net.3: conv 1 kernel=1\n";

/* Which file tensor each of the three took, by its number. */
static void assert_taken(ek_framework from, float a, float b, float c)
{
    ek_net *net;
    write_file();
    assert_ok(take(two_convs, from, NULL, &net));
    assert_true(data_of(net, "first.weight")[0] == a);
    assert_true(data_of(net, "conv1.weight")[0] == b);
    assert_true(data_of(net, "net.3.weight")[0] == c);
    ek_net_destroy(net);
}

static void add_conv(const char *weight, const char *bias, float number)
{
    add(weight, (dims){4, {1, 1, 1, 1}}, number, NULL);
    add(bias, (dims){1, {1}}, number, NULL);
}

static void test_which_layer(void **state)
{
    (void)state;
    /* Labels, with a prefix, whatever the order. */
    add_conv("module.net.3.weight", "module.net.3.bias", 3);
    add_conv("module.conv1.weight", "module.conv1.bias", 2);
    add_conv("module.first.weight", "module.first.bias", 1);
    assert_taken(EK_FROM_PYTORCH, 1, 2, 3);
    add_conv("model/net/3/kernel:0", "model/net/3/bias:0", 3);
    add_conv("model/conv1/kernel:0", "model/conv1/bias:0", 2);
    add_conv("model/first/kernel:0", "model/first/bias:0", 1);
    assert_taken(EK_FROM_KERAS, 1, 2, 3);
    /* Numbers in names. */
    add_conv("10.weight", "10.bias", 10);
    add_conv("0.weight", "0.bias", 0);
    add_conv("9.weight", "9.bias", 9);
    assert_taken(EK_FROM_PYTORCH, 0, 9, 10);
    add_conv("params/Conv_10/kernel", "params/Conv_10/bias", 10);
    add_conv("params/Conv_1/kernel", "params/Conv_1/bias", 1);
    add_conv("params/Conv_9/kernel", "params/Conv_9/bias", 9);
    assert_taken(EK_FROM_FLAX, 1, 9, 10);
    /* Numbers in front of them come first; a layer may well be called by a number. */
    add_conv("0002/b/kernel", "0003/b/bias", 2);
    add_conv("0000/z/kernel", "0001/z/bias", 0);
    add_conv("0010/a/kernel", "0011/a/bias", 10);
    assert_taken(EK_FROM_KERAS, 0, 2, 10);
    add_conv("2/kernel", "2/bias", 2);
    add_conv("1/kernel", "1/bias", 1);
    add_conv("params/0/kernel", "params/0/bias", 0);
    assert_taken(EK_FROM_FLAX, 0, 1, 2);
}

static void test_alphabet_is_noted(void **state)
{
    (void)state;
    ek_net *net;
    add_conv("stem/kernel", "stem/bias", 1);
    add_conv("body/kernel", "body/bias", 2);
    add_conv("conv2d/kernel", "conv2d/bias", 2);
    write_file();
    assert_ok(take(two_convs, EK_FROM_KERAS, NULL, &net));
    assert_true(is_noted(net, "Check the list: body and conv2d have the same shapes"));
    ek_net_destroy(net);
    add_conv("conv2d_2/kernel", "conv2d_2/bias", 1);
    add_conv("conv2d_1/kernel", "conv2d_1/bias", 2);
    add_conv("conv2d/kernel", "conv2d/bias", 2);
    write_file();
    assert_ok(take(two_convs, EK_FROM_KERAS, NULL, &net));
    assert_false(is_noted(net, "Check"));
    ek_net_destroy(net);
}

/* --- axes */

static const char all_kinds[] = "input 2x4x3\n"
                                "      conv 4 kernel=2x1\n"
                                "      conv 8 kernel=1 groups=4 bias=false\n"
                                "      flatten\n"
                                "      batchnorm\n"
                                "      relu\n"
                                "      linear 3\n"
                                "      linear 2 bias=false\n";

/* Numbers are known by their place in the file. */
static void test_axes(void **state)
{
    (void)state;
    ek_net *net;
    add("conv2d/kernel", (dims){4, {2, 1, 2, 4}}, 0, NULL);
    add("conv2d/bias", (dims){1, {4}}, 0, NULL);
    add("depthwise_conv2d/kernel", (dims){4, {1, 1, 4, 2}}, 0, NULL);
    add_norm("norm/", keras_names, 72, 0);
    add("dense/kernel", (dims){2, {72, 3}}, 0, NULL);
    add("dense/bias", (dims){1, {3}}, 0, NULL);
    add("dense_1/kernel", (dims){2, {3, 2}}, 0, NULL);
    write_file();
    assert_ok(take(all_kinds, EK_FROM_KERAS, NULL, &net));
    const float *conv = data_of(net, "conv1.weight"), *depthwise = data_of(net, "conv2.weight");
    for (int o = 0; o < 4; o++) {
        for (int i = 0; i < 2; i++) {
            for (int h = 0; h < 2; h++)
                assert_true(conv[(o * 2 + i) * 2 + h] == 0.125f * (float)((h * 2 + i) * 4 + o));
        }
    }
    for (int o = 0; o < 8; o++) assert_true(depthwise[o] == 0.125f * (float)o);
    const float *linear = data_of(net, "linear1.weight"), *last = data_of(net, "linear2.weight");
    const float *mean = data_of(net, "batchnorm1.running_mean");
    for (int c = 0; c < 8; c++) {
        for (int at = 0; at < 9; at++) {
            int there = at * 8 + c, here = c * 9 + at;
            assert_true(mean[here] == 2 + 0.125f * (float)there);
            for (int o = 0; o < 3; o++) assert_true(linear[o * 72 + here] == 0.125f * (float)(there * 3 + o));
        }
    }
    for (int o = 0; o < 2; o++) {
        for (int i = 0; i < 3; i++) assert_true(last[o * 3 + i] == 0.125f * (float)(i * 2 + o));
    }
    assert_true(is_noted(net, "Inference: features of a flattened map"));
    ek_net_destroy(net);
}

/* [in, out, kh, kw] of a transposed convolution from [kh, kw, in, out], which is turned round; a norm of whole maps. */
static void test_layouts(void **state)
{
    (void)state;
    enum { A = 2, B = 3, H = 2, W = 2 };
    float in[A * B * H * W], out[A * B * H * W];
    for (int i = 0; i < A * B * H * W; i++) in[i] = (float)i;
    ek_layout_convert(EK_LAYOUT_FLIPPED, (ek_shape){4, {A, B, H, W}}, NULL, in, out);
    for (int a = 0; a < A; a++) {
        for (int b = 0; b < B; b++) {
            for (int h = 0; h < H; h++) {
                for (int w = 0; w < W; w++)
                    assert_true(out[((a * B + b) * H + h) * W + w] ==
                                in[(((H - 1 - h) * W + W - 1 - w) * A + a) * B + b]);
            }
        }
    }
    ek_layout_convert(EK_LAYOUT_CHANNELS_LAST, (ek_shape){3, {A, B, H}}, NULL, in, out);
    for (int a = 0; a < A; a++) {
        for (int s = 0; s < B * H; s++) assert_true(out[a * B * H + s] == in[s * A + a]);
    }
}

/* --- conventions */

static const char norms[] = "input 2x4x4\n"
                            "a: batchnorm\n"
                            "b: batchnorm eps=1e-4 momentum=0.5 unbiased=true\n"
                            "c: groupnorm 1\n"
                            "   flatten\n"
                            "d: batchnorm\n"
                            "e: batchnorm momentum=none\n"
                            "f: rmsnorm\n";

static void write_norms(const char *colon)
{
    static const char *const labels[] = {"a", "b", "c", "d", "e", "f"};
    char name[4][40];
    const char *names[4];
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 4; k++) {
            snprintf(name[k], sizeof name[k], "%s%s", keras_names[k], colon);
            bool there = (k < 2 || (i != 2 && i != 5)) && (k != 1 || i != 5);
            names[k] = there ? name[k] : NULL;
        }
        char prefix[8];
        snprintf(prefix, sizeof prefix, "%s/", labels[i]);
        add_norm(prefix, names, i < 3 ? 2 : 32, 1);
    }
    write_file();
}

static void assert_options(const ek_net *net, const char *label, const char *options)
{
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        if (!strcmp(layer.label, label)) {
            assert_string_equal(layer.options, options);
            return;
        }
    }
    fail_msg("no layer %s", label);
}

static void test_conventions(void **state)
{
    (void)state;
    ek_net *net;
    write_norms("");
    assert_ok(take(norms, EK_FROM_KERAS, NULL, &net));
    assert_options(net, "a", "eps=0.001 momentum=0.01 unbiased=false");
    assert_options(net, "b", "eps=0.0001 momentum=0.5");
    assert_options(net, "c", "1 eps=0.001");
    assert_options(net, "d", "eps=0.001 momentum=0.01 unbiased=false");
    assert_options(net, "e", "eps=0.001 momentum=none unbiased=false");
    assert_options(net, "f", "eps=1e-6");
    assert_true(is_noted(net, "Inference: batchnorm's eps is 0.001, Keras's default (3 layers)"));
    assert_true(is_noted(net, "Inference: batchnorm's eps is the net text's, not Keras's default (1 layer)"));
    assert_true(is_noted(net, "Further training only: batchnorm's momentum is 0.01"));
    assert_true(is_noted(net, "Further training only: running_var takes the biased variance"));
    ek_net_destroy(net);

    assert_ok(take(norms, EK_FROM_ONNX, NULL, &net));
    assert_options(net, "a", "unbiased=false");
    assert_options(net, "f", "eps=1e-5");
    ek_net_destroy(net);

    assert_ok(take(norms, EK_FROM_PYTORCH, NULL, &net));
    assert_string_equal(ek_net_text(net), "input  2x4x4\n"
                                          "a:     batchnorm\n"
                                          "b:     batchnorm eps=0.0001 momentum=0.5\n"
                                          "c:     groupnorm 1\n"
                                          "       flatten\n"
                                          "d:     batchnorm\n"
                                          "e:     batchnorm momentum=none\n"
                                          "f:     rmsnorm\n");
    ek_net_destroy(net);

    ek_foreign_options o = ek_foreign_options_default();
    o.eps = 0.25;
    o.momentum = 0.7;
    assert_ok(take(norms, EK_FROM_FLAX, &o, &net));
    assert_options(net, "a", "eps=0.25 momentum=0.3 unbiased=false");
    assert_options(net, "b", "eps=0.25 momentum=0.3");
    assert_options(net, "c", "1 eps=1e-6");
    ek_net_destroy(net);

    /* tf.keras: unbiased for maps, biased for features. */
    write_norms(":0");
    assert_ok(take(norms, EK_FROM_KERAS, NULL, &net));
    assert_options(net, "a", "eps=0.001 momentum=0.01");
    assert_options(net, "d", "eps=0.001 momentum=0.01 unbiased=false");
    ek_net_destroy(net);
}

static void test_keep_eps(void **state)
{
    (void)state;
    ek_net *net;
    ek_foreign_options o = ek_foreign_options_default();
    o.keep_eps = true;
    static const char one[] = "input 2\nn: batchnorm\n";
    add_norm("n/", keras_names, 2, 1); /* gamma 1, 1.125; variance 4, 4.125 */
    write_file();
    assert_ok(take(one, EK_FROM_KERAS, &o, &net));
    assert_options(net, "n", "momentum=0.01 unbiased=false");
    assert_true(data_of(net, "n.weight")[1] == (float)(1.125 * sqrt((4.125 + 1e-5) / (4.125 + 1e-3))));
    assert_true(data_of(net, "n.running_var")[1] == 4.125f);
    assert_true(is_noted(net, "sqrt((v + eps)/(v + 0.001))"));
    ek_net_destroy(net);

    add_norm("n/", (const char *const[]){NULL, "beta", "moving_mean", "moving_variance"}, 2, 1);
    write_file();
    assert_fails(EK_E_UNSUPPORTED, "the eps of n cannot be kept: it has no gamma",
                 take("input 2\nn: batchnorm scale=false\n", EK_FROM_KERAS, &o, &net));
    o.eps = 1e-5; /* nothing to make up for */
    assert_ok(take("input 2\nn: batchnorm scale=false\n", EK_FROM_KERAS, &o, &net));
    ek_net_destroy(net);
}

/* A redundant bias may be missing; one that is there goes into the running mean, as from any file. */
static void test_redundant_bias(void **state)
{
    (void)state;
    static const char text[] = "input 1x1x1\nc: conv 2 kernel=1\nn: batchnorm\n";
    for (int there = 0; there < 2; there++) {
        ek_net *net;
        add("c/kernel", (dims){4, {1, 1, 1, 2}}, 1, NULL);
        if (there) add("c/bias", (dims){1, {2}}, 0.5f, NULL);
        add_norm("n/", keras_names, 2, 1);
        write_file();
        assert_ok(take(text, EK_FROM_KERAS, NULL, &net));
        assert_true(data_of(net, "n.running_mean")[1] == (there ? 3.125f - 0.625f : 3.125f));
        ek_net_destroy(net);
    }
}

/* --- what does not fit */

static const char small[] =
    "input 3x2x2\nc: conv 2 kernel=1\nn: batchnorm frozen=true\n   flatten\nf: linear 2\n";

enum { NOTHING, NO_GAMMA, NO_BIAS, NO_NORM };

static void add_small(int without)
{
    add("c/kernel", (dims){4, {1, 1, 3, 2}}, 1, NULL);
    if (without != NO_BIAS) add("c/bias", (dims){1, {2}}, 1, NULL);
    const char *names[4];
    memcpy(names, keras_names, sizeof names);
    if (without == NO_GAMMA) names[0] = NULL;
    if (without != NO_NORM) add_norm("n/", names, 2, 1);
    add("f/kernel", (dims){2, {8, 2}}, 1, NULL);
    add("f/bias", (dims){1, {2}}, 1, NULL);
}

static void assert_refused(ek_framework from, ek_status status, const char *words)
{
    ek_net *net = NULL;
    write_file();
    assert_fails(status, words, take(small, from, NULL, &net));
    assert_true(strstr(ek_error(), path) == ek_error());
    assert_null(net);
}

static void test_refusals(void **state)
{
    (void)state;
    add_small(NO_GAMMA);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT,
                   "the file's n has no weight, and n (batchnorm) one: is it to be scale=false?");
    add_small(NO_BIAS);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT,
                   "the file's c has no bias, and c (conv) one: is it to be bias=false?");
    add_small(NO_NORM);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT,
                   "the file has no layer left that could be n (batchnorm); left are: f");
    add_small(NOTHING);
    add("f/kernle", (dims){1, {2}}, 1, NULL);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT,
                   "'f/kernle' is nothing that a layer has; is its last part meant to be kernel?");
    add_small(NOTHING);
    add("f/lstm", (dims){1, {2}}, 1, NULL);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT, "leave out what no layer of the net has");
    add_small(NOTHING);
    add("f.bias", (dims){1, {2}}, 1, NULL);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT, "are the same to one layer");
    add_small(NOTHING);
    add("g/kernel", (dims){2, {2, 2}}, 1, NULL);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT, "layers for which the net has none: g");
    add_small(NOTHING);
    assert_refused(EK_FROM_PYTORCH, EK_E_SHAPE,
                   "c/kernel is [1,1,3,2], and c.weight needs [2,3,1,1] in PyTorch's order");
    add_small(NOTHING);
    add("a\nb/kernel", (dims){2, {2, 2}}, 1, NULL);
    assert_refused(EK_FROM_KERAS, EK_E_FORMAT, "control characters");
    add_small(NOTHING);
    writer.tensor[5].dim[0] = 2; /* the variance, of which two are negative */
    ((float *)writer.tensor[5].bytes)[1] = -1;
    assert_refused(EK_FROM_KERAS, EK_E_NUMERIC, "n.running_var holds -1, and a variance is never negative");
    add_small(NOTHING);
    ((float *)writer.tensor[0].bytes)[1] = NAN;
    assert_refused(EK_FROM_KERAS, EK_E_NUMERIC, "c.weight holds a value that is not finite");
    add_small(NOTHING);
    ek_net *net = NULL;
    write_file();
    ek_foreign_options o = ek_foreign_options_default();
    o.eps = 0;
    assert_fails(EK_E_ARGUMENT, "eps must be above 0", take(small, EK_FROM_KERAS, &o, &net));
    o.eps = NAN;
    o.momentum = 1.5;
    assert_fails(EK_E_ARGUMENT, "momentum must be from 0 to 1", take(small, EK_FROM_KERAS, &o, &net));
    assert_fails(EK_E_ARGUMENT, "no framework number 4", take(small, (ek_framework)4, NULL, &net));
}

static void count_taken(void *user, const ek_taken *taken)
{
    (void)taken;
    ++*(int *)user;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    add_small(NOTHING);
    write_file();
    ek_net *net, *made;
    int count = 0;
    ek_foreign_options o = ek_foreign_options_default();
    o.taken = count_taken;
    o.user = &count;
    assert_ok(ek_net_create(context, small, NULL, &net));
    for (failing f = {0}; fail_next(&f);) {
        f.status = ek_net_take_foreign(net, path, EK_FROM_KERAS, &o, &made);
        if (f.status == EK_OK) ek_net_destroy(made);
    }
    assert_int_equal(count, 8);
    ek_net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_which_layer),
        cmocka_unit_test(test_alphabet_is_noted),
        cmocka_unit_test(test_axes),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_conventions),
        cmocka_unit_test(test_keep_eps),
        cmocka_unit_test(test_redundant_bias),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
