/* Nets as ONNX models: what stands in the file, what comes back from it, and what is refused. */
#include "testing.h"

#include "core/file.h"
#include "core/shape.h"
#include "graph/net.h"
#include "onnx/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static ek_context *context;
static char folder[] = "/tmp/evenkeel-test-XXXXXX", path[64];

static int start(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/net.onnx", folder);
    /* In double, so that only what the file holds is compared. */
    return ek_context_create(&(ek_context_options){.threads = 1, .isa = "reference"}, &context) != EK_OK;
}

static int finish(void **state)
{
    (void)state;
    ek_context_destroy(context);
    unlink(path);
    return rmdir(folder);
}

/* Of numbers that no layer begins with, about which nothing is special. */
static ek_net *make_net(const char *text)
{
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        if (t.role == EK_ROLE_WEIGHT || t.role == EK_ROLE_BIAS || t.counter) continue;
        for (int64_t k = 0; k < ek_shape_count(t.shape); k++)
            t.data[k] += (float)(0.4 * sin(1.0 + i + 3.0 * (double)k));
    }
    return net;
}

/* --- every operator */

/* By operator, a net with it in the ways that it can be written. */
static const struct {
    const char *op, *text;
} nets[] = {
    {"input", "input 3x4x5 mean=0.1,0.2,0.3 std=0.5,0.25,1\nrelu\n"},
    {"input", "input 4 mean=0.5\nrelu\n"},
    {"input", "input 4 std=2\n"},
    {"conv", "input 4x7x8\nconv 6 kernel=3x2 padding=1x0 padding_end=0x2 stride=2x1 dilation=1x2 groups=2\n"},
    {"conv1d", "input 4x9\nconv1d 6 kernel=3 padding=2 padding_end=0 stride=2 groups=2 bias=false\n"},
    {"convtranspose", "input 4x5x6\nconvtranspose 6 kernel=3x2 stride=2x3 padding=1x0 output_padding=1x2 groups=2\n"},
    {"convtranspose1d", "input 4x5\nconvtranspose1d 6 kernel=3 stride=2 padding=1 padding_end=0 bias=false\n"},
    {"linear", "input 7\nlinear 5\nlinear 3 bias=false\n"},
    {"batchnorm", "input 3x4x4\nconv 4 kernel=2\nbatchnorm momentum=0.3 eps=1e-3\nbatchnorm track=false\nflatten\n"
                  "batchnorm scale=false\nbatchnorm track=false scale=false shift=false\nbatchnorm frozen=true shift=false\n"},
    {"layernorm", "input 3x4x4\nlayernorm\nlayernorm scale=false\nlayernorm shift=false\nflatten\nlayernorm\n"},
    {"groupnorm", "input 6x4x4\ngroupnorm 2\ngroupnorm 3 scale=false\ngroupnorm 6 shift=false\nflatten\ngroupnorm 4\n"},
    {"instancenorm", "input 6x9\ninstancenorm\ninstancenorm scale=true\ninstancenorm scale=true shift=true\n"},
    {"rmsnorm", "input 3x4x4\nrmsnorm\nrmsnorm scale=false eps=1e-3\nflatten\nrmsnorm\n"},
    {"affine", "input 3x4x4\naffine 3x1x1\naffine 1x4x1 shift=false\naffine 1x1x1 scale=false\nflatten\naffine 1\n"},
    {"relu", "input 5\nrelu\n"},
    {"leakyrelu", "input 5\nleakyrelu 0.3\n"},
    {"prelu", "input 3x4x4\nprelu\nprelu 3\nflatten\nprelu 48\n"},
    {"elu", "input 5\nelu 0.7\n"},
    {"clip", "input 5\nclip min=-0.5 max=0.7\nclip max=0.6\nclip min=-0.4\n"},
    {"sigmoid", "input 5\nsigmoid\n"},
    {"hardsigmoid", "input 5\nhardsigmoid\nhardsigmoid alpha=0.3 beta=0.4\n"},
    {"hardswish", "input 5\nhardswish\n"},
    {"tanh", "input 5\ntanh\n"},
    {"silu", "input 5\nact: silu\nsilu\n"},
    {"softmax", "input 3x4x5\nsoftmax axis=2\nsoftmax\nflatten\nsoftmax\n"},
    {"dropout", "input 5\ndropout 0.3\n"},
    {"avgpool", "input 2x13x17\navgpool 3x2 stride=1 padding=1\navgpool 2 stride=1x2 padding=1x0 count_pad=false\n"
                "avgpool 2x1\n"},
    {"avgpool", "input 2x13x17\navgpool 3x2 stride=2 padding=1x0 ceil=true\navgpool 2 stride=1 dilation=2\n"},
    {"maxpool", "input 2x13x17\nmaxpool 3 stride=2 padding=1\nmaxpool 3x2 stride=2 padding_end=2x1 ceil=true\n"
                "maxpool 2x3 stride=1 dilation=2x1\n"},
    {"maxpool", "input 2x11x13\nmaxpool 3x2 stride=4x3 dilation=3 ceil=true\n"},
    {"globalavgpool", "input 2x5x6\nglobalavgpool\n"},
    {"flatten", "input 2x5x6\nflatten\n"},
    {"reshape", "input 2x5x6\nreshape 4x3x5\nreshape 2x3x2x5\nreshape 60\n"},
    {"permute", "input 2x5x6\npermute 2,0,1\n"},
    {"concat", "input 2x5x6\na: relu\nsigmoid\nconcat a axis=1\n"},
    {"add", "input 2x5x6\na: relu\nglobalavgpool\nadd a\nadd a\n"},
    {"sub", "input 2x5x6\na: relu\nglobalavgpool\nsub a\nsub a\n"},
    {"mul", "input 2x5x6\na: relu\nglobalavgpool\nmul a\nmul a\n"},
    {"div", "input 2x5x6\na: relu\nb: sigmoid\nglobalavgpool\ndiv b\ndiv b\nsub a\n"},
};

static void assert_same_outputs(const char *text, ek_net *one, ek_net *two)
{
    enum { SAMPLES = 3 };
    int64_t in = SAMPLES * ek_shape_count(ek_net_input_shape(one)), out = SAMPLES * ek_shape_count(ek_net_output_shape(one));
    assert_true(ek_shape_equal(ek_net_input_shape(one), ek_net_input_shape(two)));
    assert_true(ek_shape_equal(ek_net_output_shape(one), ek_net_output_shape(two)));
    float *x = malloc((size_t)(in + 2 * out) * sizeof *x), *want = x + in, *got = want + out;
    for (int64_t i = 0; i < in; i++) x[i] = (float)sin(0.7 * (double)(i * i % 101));
    assert_ok(ek_net_forward(one, EK_MODE_INFERENCE, SAMPLES, x, want));
    assert_ok(ek_net_forward(two, EK_MODE_INFERENCE, SAMPLES, x, got));
    for (int64_t i = 0; i < out; i++) {
        if (!(fabs((double)got[i] - want[i]) <= 1e-6 * fmax(1, fabs((double)want[i]))))
            fail_msg("%s: output %d is %.9g, not %.9g", text, (int)i, (double)got[i], (double)want[i]);
    }
    free(x);
}

static void test_every_operator_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        ek_net *net = make_net(nets[i].text), *back;
        assert_ok(ek_net_save_onnx(net, path));
        assert_ok(ek_net_open(context, path, &back));
        assert_same_outputs(nets[i].text, net, back);
        ek_net_destroy(back);
        ek_net_destroy(net);
    }
}

static void test_every_operator_is_in_the_list(void **state)
{
    (void)state;
    for (int i = 0; ek_op_at(i); i++) {
        bool there = false;
        for (size_t k = 0; k < sizeof nets / sizeof *nets; k++) there |= !strcmp(nets[k].op, ek_op_at(i)->name);
        if (!there) fail_msg("no net here has a layer '%s'", ek_op_at(i)->name);
    }
}

/* --- what stands in the file */

static const char some[] = "input 3x6x6 mean=0.5 std=0.25\n"
                           "c: conv 4 kernel=3 padding=1 padding_end=0\n"
                           "n: batchnorm eps=1e-3 momentum=0.2\n"
                           "   silu\n"
                           "m: batchnorm momentum=none scale=false track=false\n"
                           "   flatten\n"
                           "g: groupnorm 2\n"
                           "f: linear 2\n";

/* "Sub Div Conv": the nodes in their order. */
static void assert_nodes(const onnx_model *model, const char *expected)
{
    char text[512] = "";
    for (int i = 0; i < model->node_count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), i ? " %s" : "%s", model->node[i].op);
    assert_string_equal(text, expected);
}

static const onnx_node *node_called(const onnx_model *model, const char *name)
{
    for (int i = 0; i < model->node_count; i++) {
        if (!strcmp(model->node[i].name, name)) return &model->node[i];
    }
    fail_msg("there is no node %s", name);
    return NULL;
}

static float float_of(const onnx_node *node, const char *name)
{
    const onnx_attribute *a;
    assert_ok(ek_onnx_find_attribute(node, name, ONNX_A_FLOAT, &a));
    assert_non_null(a);
    return a->f;
}

static void assert_initializer(const onnx_model *model, const char *name, int type, int rank, const int64_t *dim)
{
    for (int i = 0; i < model->initializer_count; i++) {
        const onnx_tensor *t = &model->initializer[i];
        if (strcmp(t->name, name) != 0) continue;
        assert_int_equal(t->type, type);
        assert_int_equal(t->rank, rank);
        for (int d = 0; d < rank; d++) assert_int_equal(t->dim[d], dim[d]);
        assert_non_null(t->bytes);
        return;
    }
    fail_msg("there is no initializer %s", name);
}
#define assert_dims(model, name, ...)                                                                    \
    assert_initializer(model, name, ONNX_FLOAT, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                       (const int64_t[]){__VA_ARGS__})

static void assert_port(const onnx_model *model, const onnx_port *port, const char *name, int rank, int64_t last)
{
    assert_string_equal(model->value[port->value].name, name);
    assert_int_equal(port->type, ONNX_FLOAT);
    assert_int_equal(port->rank, rank);
    assert_int_equal(port->dim[0], -1); /* the batch is open */
    assert_int_equal(port->dim[rank - 1], last);
}

static void test_what_is_in_the_file(void **state)
{
    (void)state;
    ek_net *net = make_net(some);
    assert_ok(ek_net_save_onnx(net, path));
    onnx_model model;
    assert_ok(ek_onnx_model_read(path, &model));
    assert_int_equal(model.opset, 17);
    assert_int_equal(model.ir_version, 8);
    assert_string_equal(model.producer, "evenkeel");
    assert_string_equal(model.producer_version, ek_version());
    assert_nodes(&model, "Sub Div Conv BatchNormalization Sigmoid Mul BatchNormalization Flatten Reshape "
                         "InstanceNormalization Reshape Mul Add Gemm");
    assert_int_equal(model.input_count, 1);
    assert_int_equal(model.output_count, 1);
    assert_port(&model, model.input, "input", 4, 6);
    assert_port(&model, model.output, "output", 2, 2);

    const onnx_node *conv = node_called(&model, "c");
    assert_int_equal(conv->input_count, 2); /* the bias that the batchnorm takes away is left out */
    const onnx_attribute *pads;
    assert_ok(ek_onnx_find_attribute(conv, "pads", ONNX_A_INTS, &pads));
    assert_int_equal(pads->count, 4);
    assert_true(pads->ints[0] == 1 && pads->ints[1] == 1 && pads->ints[2] == 0 && pads->ints[3] == 0);
    assert_dims(&model, "c.weight", 4, 3, 3, 3);

    const onnx_node *norm = node_called(&model, "n"), *untracked = node_called(&model, "m");
    assert_true(float_of(norm, "epsilon") == 1e-3f);
    assert_true(float_of(norm, "momentum") == 0.8f); /* the share of the old statistics */
    assert_int_equal(norm->output_count, 1);
    assert_dims(&model, "n.running_var", 4);
    const onnx_attribute *training;
    assert_ok(ek_onnx_find_attribute(norm, "training_mode", ONNX_A_INT, &training));
    assert_null(training);
    assert_ok(ek_onnx_find_attribute(untracked, "training_mode", ONNX_A_INT, &training));
    assert_true(training && training->i == 1);
    assert_true(float_of(untracked, "momentum") == 1);
    assert_int_equal(untracked->output_count, 3);
    assert_dims(&model, "m.weight", 4); /* ones, for a gamma that is not there */
    assert_dims(&model, "g.weight", 100);
    assert_initializer(&model, "g/groups", ONNX_INT64, 1, (const int64_t[]){3});
    assert_dims(&model, "f.weight", 2, 100);
    ek_onnx_model_free(&model);
    ek_net_destroy(net);
}

static bool file_holds(const char *words)
{
    unsigned char *data;
    size_t size;
    assert_ok(ek_file_read(path, 1 << 24, &data, &size));
    bool there = memmem(data, size, words, strlen(words)) != NULL;
    ek_free(data);
    return there;
}

static void test_metadata(void **state)
{
    (void)state;
    ek_net *net = make_net(some);
    const char *const classes[] = {"\xc3\x84pfel \"rot\"", "\xe6\x97\xa5\xe6\x9c\xac\\"};
    assert_ok(ek_net_set_classes(net, classes, 2));
    assert_ok(ek_net_set_metadata(net, "author", "someone"));
    assert_ok(ek_net_save_onnx(net, path));
    assert_true(file_holds(ek_net_text(net)));
    assert_true(file_holds("[\"\xc3\x84pfel \\\"rot\\\"\",\"\xe6\x97\xa5\xe6\x9c\xac\\\\\"]"));
    assert_true(file_holds("author") && file_holds("someone"));
    assert_true(file_holds("evenkeel.batch_norm"));
    ek_net *back;
    assert_ok(ek_net_open(context, path, &back));
    for (int i = 0; i < 2; i++) assert_string_equal(ek_net_class(back, i), classes[i]);
    ek_net_destroy(back);
    ek_net_destroy(net);
}

/* Labels that look like names within the file, or like those of unlabelled layers. */
static void test_odd_labels(void **state)
{
    (void)state;
    static const char text[] = "input 4\n"
                               "input: linear 4\n"
                               "output: relu\n"
                               "silu_3: silu\n"
                               "   silu\n"
                               "input.weight: linear 4\n"
                               "a.weight: rmsnorm\n"
                               "a: rmsnorm\n"
                               "1: add output\n"
                               "-: add 1\n"
                               "y: linear 3\n"
                               "relu\n";
    ek_net *net = make_net(text), *back;
    assert_ok(ek_net_save_onnx(net, path));
    assert_ok(ek_net_open(context, path, &back));
    assert_same_outputs(text, net, back);
    ek_net_destroy(back);
    ek_net_destroy(net);
}

/* --- what is refused leaves the file as it was */

static size_t file_size(void)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return (size_t)about.st_size;
}

static void test_refusals(void **state)
{
    (void)state;
    ek_net *net = make_net(some);
    char other[128];
    assert_ok(ek_net_save_onnx(net, path));
    size_t size = file_size();

    assert_fails(EK_E_ARGUMENT, "a net and a path", ek_net_save_onnx(NULL, path));
    assert_fails(EK_E_ARGUMENT, "a net and a path", ek_net_save_onnx(net, NULL));
    snprintf(other, sizeof other, "%s/none/net.onnx", folder);
    assert_fails(EK_E_NOT_FOUND, other, ek_net_save_onnx(net, other));
    assert_fails(EK_E_IO, "a folder", ek_net_save_onnx(net, folder));

    ek_param *weight = &net->graph.node[1].param[0];
    float first = weight->data[0];
    weight->data[0] = NAN;
    assert_fails(EK_E_NUMERIC, "c.weight", ek_net_save_onnx(net, path));
    weight->data[0] = first;
    assert_int_equal(file_size(), size);
    ek_net_destroy(net);
}

static void test_too_large(void **state)
{
    (void)state;
    /* As many numbers as no file can have; nobody comes to look at them. */
    ek_net *net = make_net("input 2\nf: linear 2 bias=false\n");
    ek_param *weight = &net->graph.node[1].param[0];
    weight->shape.dim[0] = (int64_t)1 << 28;
    weight->count = 0;
    unlink(path);
    assert_fails(EK_E_UNSUPPORTED, "the net takes 2.15 GB", ek_net_save_onnx(net, path));
    assert_int_not_equal(access(path, F_OK), 0);
    ek_net_destroy(net);
}

static void test_want_of_memory(void **state)
{
    (void)state;
    ek_net *net = make_net(some);
    assert_ok(ek_net_save_onnx(net, path));
    size_t size = file_size();
    for (failing f = {0}; fail_next(&f);) {
        f.status = ek_net_save_onnx(net, path);
        assert_int_equal(file_size(), size);
    }
    onnx_model model;
    assert_ok(ek_onnx_model_read(path, &model));
    ek_onnx_model_free(&model);
    ek_net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operator_comes_back),
        cmocka_unit_test(test_every_operator_is_in_the_list),
        cmocka_unit_test(test_what_is_in_the_file),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_odd_labels),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_want_of_memory),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
