/* ONNX models, made here by hand: what each operator of each version becomes, and what is refused. */
#include "testing.h"
#include "onnx_making.h"

#include "core/text.h"
#include "graph/net.h"
#include "onnx/onnx.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static ek_context *context;
static char folder[] = "/tmp/evenkeel-onnx-XXXXXX", path[64];

static void put(const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void write_model(int opset)
{
    ek_protobuf m = {0};
    make_model(opset, &m);
    assert_ok(ek_protobuf_status(&m));
    put(m.data, m.length);
    ek_protobuf_free(&m);
}

/* --- looking at nets */

static ek_net *opened(int opset)
{
    ek_net *net;
    write_model(opset);
    assert_ok(ek_net_open(context, path, &net));
    return net;
}

/* The net's text, without the blanks that align it. */
static void assert_text(const ek_net *net, const char *expected)
{
    char plain[4096];
    size_t used = 0;
    for (const char *c = ek_net_text(net); *c && used < sizeof plain - 1; c++) {
        if (*c == ' ' && (used == 0 || plain[used - 1] == ' ' || plain[used - 1] == '\n')) continue;
        plain[used++] = *c == '\n' && c[1] ? '\n' : *c == '\n' ? 0 : *c;
    }
    plain[used] = 0;
    assert_string_equal(plain, expected);
}

static void becomes(int opset, const char *expected)
{
    ek_net *net = opened(opset);
    assert_text(net, expected);
    ek_net_destroy(net);
}

static void gives(ek_net *net, int64_t n, const char *in, const char *out)
{
    double x[512], wanted[512];
    float from[512], y[512];
    int count = numbers(in, x), expected = numbers(out, wanted);
    assert_int_equal(count, n * ek_shape_count(ek_net_input_shape(net)));
    assert_int_equal(expected, n * ek_shape_count(ek_net_output_shape(net)));
    for (int i = 0; i < count; i++) from[i] = (float)x[i];
    assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, n, from, y));
    for (int i = 0; i < expected; i++) {
        if (!(fabs((double)y[i] - wanted[i]) <= 1e-5 * fmax(1, fabs(wanted[i]))))
            fail_msg("output %d is %g, not %g", i, (double)y[i], wanted[i]);
    }
}

static bool has_note(const ek_net *net, const char *words)
{
    for (int i = 0; i < ek_net_note_count(net); i++) {
        if (strstr(ek_net_note(net, i), words)) return true;
    }
    return false;
}

#define assert_note(net, words)                                                  \
    do {                                                                         \
        if (!has_note((net), (words))) fail_msg("no note says \"%s\"", (words)); \
    } while (0)

static void refused(int opset, ek_status status, const char *words)
{
    ek_net *net = NULL;
    write_model(opset);
    assert_fails(status, words, ek_net_open(context, path, &net));
    assert_null(net);
}

/* --- batch normalization */

static void norm(const char *outputs, const char *options)
{
    begin();
    input("x", "N,2,1,2");
    output("y");
    floats("bn1.weight", "2", "2,1");
    floats("b", "2", "0.5,0");
    floats("m", "2", "1,-1");
    floats("v", "2", "3,0.25");
    node("BatchNormalization", "x bn1.weight b m v", outputs, options);
}

static void batch_norm_in_all_versions(void **state)
{
    (void)state;
    static const int opsets[] = {6, 7, 8, 9, 13, 14, 15, 22};
    for (size_t i = 0; i < sizeof opsets / sizeof *opsets; i++) {
        norm("y", "epsilon=f1 momentum=f0.9");
        ek_net *net = opened(opsets[i]);
        assert_text(net, opsets[i] < 14 ? "input 2x1x2\nbn1: batchnorm eps=1"
                                        : "input 2x1x2\nbn1: batchnorm eps=1 unbiased=false");
        gives(net, 1, "1,3,-1,0", "0.5,2.5,0,0.894427191");
        assert_note(net, "momentum 0.9 in ONNX's sense");
        ek_net_destroy(net);
    }
    norm("y", "momentum=f0.99");
    becomes(9, "input 2x1x2\nbn1: batchnorm momentum=0.01");
    norm("y", "momentum=f1.0");
    becomes(9, "input 2x1x2\nbn1: batchnorm momentum=none");
}

static void batch_norm_in_training_mode(void **state)
{
    (void)state;
    struct {
        int opset;
        const char *outputs, *options;
        bool training;
    } cases[] = {
        {9, "y a b2 c d", "", true},
        {9, "y", "", false},
        {9, "y - - - -", "", false},
        {6, "y a b2", "is_test=i1", false},
        {15, "y a b2", "training_mode=i1", true},
        {15, "y", "training_mode=i0", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        norm(cases[i].outputs, cases[i].options);
        ek_net *net = opened(cases[i].opset);
        assert_int_equal(has_note(net, "exported in training mode"), cases[i].training);
        assert_int_equal(strstr(ek_net_text(net), "track=false") != NULL, cases[i].training);
        ek_net_destroy(net);
        ek_onnx_options options = ek_onnx_options_default();
        options.bn_inference = true;
        assert_ok(ek_net_open_onnx(context, path, &options, &net));
        assert_null(strstr(ek_net_text(net), "track=false"));
        ek_net_destroy(net);
    }
    norm("y a b2 c d", "epsilon=f1");
    ek_net *net = opened(9);
    gives(net, 1, "1,3,0,4",
          "-0.914213562,1.914213562,-0.894427191,0.894427191"); /* means 2 and 2, variances 1 and 4 */
    ek_net_destroy(net);
}

static void batch_norm_of_each_number(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,1,2");
    output("y");
    floats("w", "4", "1,2,3,4");
    floats("b", "4", "0,0,0,1");
    floats("m", "4", "0,0,0,0");
    floats("v", "4", "1,1,1,1");
    node("BatchNormalization", "x w b m v", "y", "spatial=i0 epsilon=f3");
    ek_net *net = opened(8);
    assert_text(net, "input 2x1x2\nflatten\ny: batchnorm eps=3\nreshape 2x1x2");
    gives(net, 1, "2,2,2,2", "1,2,3,5");
    ek_net_destroy(net);
}

static void sick_numbers_are_for_audits(void **state)
{
    (void)state;
    begin();
    input("x", "N,2");
    output("y");
    floats("w", "2", "1,1");
    floats("b", "2", "0,0");
    floats("m", "2", "0,nan");
    floats("v", "2", "1,1");
    node("BatchNormalization", "x w b m v", "y", "");
    refused(15, EK_E_NUMERIC, "y.running_mean holds a value that is not finite");
    ek_net *net;
    assert_ok(ek_net_open_sick(context, path, &net));
    ek_net_destroy(net);
}

/* --- the other norms */

static void sibling_norms(void **state)
{
    (void)state;
    begin();
    input("x", "N,4,2");
    output("y");
    floats("s", "2", "1,3");
    floats("t", "2", "0,1");
    node("GroupNormalization", "x s t", "y", "num_groups=i2 epsilon=f0.75");
    ek_net *net = opened(18); /* numbers for each group */
    assert_text(net, "input 4x2\ny: groupnorm 2 eps=0.75");
    gives(net, 1, "1,1,0,0,1,1,0,0", "0.5,0.5,-0.5,-0.5,2.5,2.5,-0.5,-0.5");
    ek_net_destroy(net);
    refused(21, EK_E_FORMAT, "its scale has 2 numbers, and its shapes ask for 4"); /* for each channel */
    begin();
    input("x", "N,2,2");
    output("y");
    floats("ln.weight", "2", "2,1");
    node("LayerNormalization", "x ln.weight", "y", "epsilon=f0");
    refused(17, EK_E_ARGUMENT, "eps");
    begin();
    input("x", "N,2,2");
    output("y");
    floats("s", "2", "2,1");
    floats("t", "2", "0,1");
    node("LayerNormalization", "x s t", "y", "epsilon=f0.75");
    net = opened(17);
    assert_text(net, "input 2x2\ninstancenorm1: instancenorm eps=0.75\naffine1: affine 1x2");
    gives(net, 1, "0,1,4,3", "-1,1.5,1,0.5");
    ek_net_destroy(net);
    begin();
    input("x", "N,2,2");
    output("y");
    floats("s", "2,2", "2,1,1,1");
    node("LayerNormalization", "x s", "y", "axis=i1 epsilon=f0.75");
    becomes(17, "input 2x2\ny: layernorm eps=0.75 shift=false");
    begin();
    input("x", "N,2,1,2");
    output("y");
    floats("in.weight", "2", "2,1");
    floats("t", "2", "0,1");
    node("InstanceNormalization", "x in.weight t", "y", "epsilon=f0.75");
    net = opened(6);
    assert_text(net, "input 2x1x2\nin: instancenorm eps=0.75 scale=true shift=true");
    gives(net, 1, "0,1,4,3", "-1,1,1.5,0.5");
    ek_net_destroy(net);
}

/* As exporters write it before opset 17. */
static void layer_norm_written_out(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,2");
    output("y");
    floats("two", "", "2");
    floats("eps", "", "0.75");
    floats("ln.weight", "2", "2,1");
    floats("t", "2", "0,1");
    node("ReduceMean", "x", "m", "axes=l-1");
    node("Sub", "x m", "d", "");
    node("Pow", "d two", "p", "");
    node("ReduceMean", "p", "v", "axes=l-1");
    node("Add", "v eps", "e", "");
    node("Sqrt", "e", "r", "");
    node("Div", "d r", "q", "");
    node("Mul", "q ln.weight", "s", "");
    node("Add", "s t", "y", "");
    ek_net *net = opened(11);
    assert_text(net, "input 2x2\ninstancenorm1: instancenorm eps=0.75\nln: affine 1x2");
    gives(net, 1, "0,1,4,3", "-1,1.5,1,0.5");
    ek_net_destroy(net);
    begin(); /* the deviations are read elsewhere too */
    input("x", "N,2");
    output("y");
    floats("two", "", "2");
    floats("eps", "", "0.75");
    node("ReduceMean", "x", "m", "axes=l-1");
    node("Sub", "x m", "d", "");
    node("Pow", "d two", "p", "");
    node("ReduceMean", "p", "v", "axes=l-1");
    node("Add", "v eps", "e", "");
    node("Sqrt", "e", "r", "");
    node("Div", "d r", "q", "");
    node("Add", "q d", "y", "");
    refused(11, EK_E_UNSUPPORTED, "Pow (p): there is no such layer here");
}

/* --- convolutions, pools */

static void conv(const char *op, const char *size, const char *dims, const char *options)
{
    double dim[8], count = 1;
    char ones[256] = "";
    for (int i = numbers(dims, dim) - 1; i >= 0; i--) count *= dim[i];
    for (int i = 0; i < (int)count; i++) strcat(ones, "1,");
    begin();
    input("x", size);
    output("y");
    floats("c.weight", dims, ones);
    node(op, "x c.weight", "y", options);
}

static void convolutions(void **state)
{
    (void)state;
    conv("Conv", "N,2,5,5", "1,2,3,3", "pads=l0,1,2,1 strides=l2,1");
    becomes(11, "input 2x5x5\nc: conv 1 kernel=3 stride=2x1 padding=0x1 padding_end=2x1 bias=false");
    conv("Conv", "N,2,5,5", "2,1,3,3", "auto_pad=sSAME_UPPER strides=l2,2 group=i2");
    becomes(6, "input 2x5x5\nc: conv 2 kernel=3 stride=2 padding=1 groups=2 bias=false");
    conv("Conv", "N,2,6,5", "2,1,3,3", "auto_pad=sSAME_UPPER strides=l2,2 group=i2");
    becomes(6, "input 2x6x5\nc: conv 2 kernel=3 stride=2 padding=0x1 padding_end=1 groups=2 bias=false");
    conv("Conv", "N,2,6,5", "2,1,3,3", "auto_pad=sSAME_LOWER strides=l2,2 group=i2");
    becomes(6, "input 2x6x5\nc: conv 2 kernel=3 stride=2 padding=1 padding_end=0x1 groups=2 bias=false");
    conv("Conv", "N,2,9", "3,2,3", "dilations=l2 auto_pad=sVALID");
    becomes(6, "input 2x9\nc: conv1d 3 kernel=3 dilation=2 bias=false");
    conv("Conv", "N,3,5,5", "1,2,3,3", "");
    refused(11, EK_E_FORMAT, "its weights are for 2 channels in 1 groups, and its input has 3");
    conv("Conv", "N,2,5,5", "1,2,3,3", "pads=l-1,0,0,0");
    refused(11, EK_E_UNSUPPORTED, "less than nothing");
    conv("Conv", "N,2,5,5", "1,2,3,3", "kernel_shape=l3,2");
    refused(11, EK_E_FORMAT, "its kernel_shape has 2, its weights have 3");
    conv("Conv", "N,2,2,2,2", "1,2,1,2,2", "");
    refused(11, EK_E_UNSUPPORTED, "three dimensions");
    conv("ConvTranspose", "N,2,3,3", "2,1,3,3", "strides=l3,2 output_shape=l10,8");
    becomes(11, "input 2x3x3\nc: convtranspose 1 kernel=3 stride=3x2 bias=false output_padding=1");
    conv("ConvTranspose", "N,2,3", "2,1,3", "strides=l2 pads=l1,0 output_padding=l1");
    becomes(11, "input 2x3\nc: convtranspose1d 1 kernel=3 stride=2 padding=1 padding_end=0 bias=false "
                "output_padding=1");
}

/* An Add behind is a bias, and a Pad in front padding. */
static void neighbours_are_taken_in(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,2,2");
    output("y");
    floats("c.weight", "1,1,2,2", "1,1,1,1");
    floats("b", "1,1,1", "5");
    wholes("p", "8", "0,0,1,0,0,0,0,1");
    node("Pad", "x p", "padded", "");
    node("Conv", "padded c.weight", "c", "");
    node("Add", "b c", "y", "");
    ek_net *net = opened(11);
    assert_text(net, "input 1x2x2\nc: conv 1 kernel=2 padding=1x0 padding_end=0x1");
    gives(net, 1, "1,2,3,4", "8,7,15,11");
    ek_net_destroy(net);
    begin();
    input("x", "N,2");
    output("y");
    floats("w", "2,3", "1,2,3,4,5,6");
    floats("b", "3", "0,0,1");
    node("MatMul", "x w", "fc", "");
    node("Add", "fc b", "y", "");
    net = opened(13);
    assert_text(net, "input 2\nfc: linear 3");
    gives(net, 1, "1,10", "41,52,64");
    ek_net_destroy(net);
}

static void numbers_are_repeated(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,1,2");
    output("y");
    floats("none", "0", "");
    floats("scales", "4", "1,1,2,3");
    node("Resize", "x none scales", "y", "mode=snearest");
    ek_net *net = opened(13);
    assert_text(net, "input 1x1x2\nconvtranspose1: convtranspose 1 kernel=2x3 stride=2x3 bias=false");
    gives(net, 1, "1,2", "1,1,1,2,2,2,1,1,1,2,2,2");
    ek_net_destroy(net);
    begin();
    input("x", "N,1,2");
    output("y");
    wholes("one", "1", "1");
    wholes("two", "1", "2");
    wholes("zero", "1", "0");
    wholes("sizes", "2", "1,6");
    node("Shape", "x", "s", "");
    node("Slice", "s zero one", "n", "");
    node("Concat", "n sizes", "all", "axis=i0");
    node("Resize", "x - - all", "y",
         "mode=snearest coordinate_transformation_mode=sasymmetric nearest_mode=sfloor");
    net = opened(13);
    gives(net, 1, "1,2", "1,1,1,2,2,2");
    ek_net_destroy(net);
    begin();
    input("x", "N,1,2");
    output("y");
    floats("scales", "3", "1,1,1.5");
    node("Resize", "x - scales", "y", "mode=snearest");
    refused(13, EK_E_UNSUPPORTED, "it resizes by 1.5; whole factors are read");
    begin();
    input("x", "N,1,2");
    output("y");
    floats("scales", "3", "1,1,2");
    node("Resize", "x - scales", "y", "mode=slinear");
    refused(13, EK_E_UNSUPPORTED, "its mode 'linear' is not read");
    begin();
    input("x", "N,1,2,2");
    output("y");
    wholes("sizes", "4", "1,1,4,6");
    node("Resize", "x - - sizes", "y", "keep_aspect_ratio_policy=snot_larger");
    refused(18, EK_E_UNSUPPORTED, "its keep_aspect_ratio_policy 'not_larger' is not read");
}

static void pools(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,4,4");
    output("y");
    node("AveragePool", "x", "y", "kernel_shape=l3,3 strides=l2,2 pads=l1,1,0,0 ceil_mode=i1");
    becomes(11, "input 1x4x4\navgpool 3 stride=2 padding=1 padding_end=0 ceil=true count_pad=false");
    begin();
    input("x", "N,1,4,4");
    output("y");
    node("AveragePool", "x", "y", "kernel_shape=l3,3 pads=l1,1,1,1 count_include_pad=i1");
    becomes(7, "input 1x4x4\navgpool 3 stride=1 padding=1");
    begin();
    input("x", "N,1,4,4");
    output("y");
    node("MaxPool", "x", "y i", "kernel_shape=l2,2 dilations=l2,1");
    becomes(12, "input 1x4x4\nmaxpool 2 stride=1 dilation=2x1");
    begin();
    input("x", "N,1,4,4");
    output("z");
    node("MaxPool", "x", "y i", "kernel_shape=l2,2");
    node("Add", "y i", "z", "");
    refused(12, EK_E_UNSUPPORTED, "its output 'i' is read");
    begin();
    input("x", "N,2,2,1,2");
    output("y");
    node("MaxPool", "x", "y", "kernel_shape=l2,1,2");
    ek_net *net = opened(12); /* three dimensions, one after the other */
    gives(net, 1, "1,2,3,4,8,7,6,5", "4,8");
    ek_net_destroy(net);
    begin();
    input("x", "N,2,2,2");
    output("y");
    node("GlobalMaxPool", "x", "y", "");
    becomes(1, "input 2x2x2\nmaxpool 2");
    begin();
    input("x", "N,2,2,2");
    output("y");
    node("ReduceMean", "x", "y", "axes=l2,3 keepdims=i0");
    becomes(13, "input 2x2x2\nglobalavgpool\nflatten");
    begin();
    input("x", "N,2,2,2");
    output("y");
    wholes("a", "1", "1");
    node("ReduceMean", "x a", "y", "");
    net = opened(18);
    gives(net, 1, "1,2,3,4,5,6,7,8", "3,4,5,6");
    ek_net_destroy(net);
}

/* --- versions */

static void clip_and_dropout_and_axes(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,3");
    output("y");
    node("Clip", "x", "y", "min=f0 max=f6");
    becomes(6, "input 1x3\nclip min=0 max=6");
    begin();
    input("x", "N,1,3");
    output("y");
    floats("six", "", "6");
    node("Clip", "x - six", "y", "");
    becomes(11, "input 1x3\nclip max=6");
    begin();
    input("x", "N,1,3");
    output("y");
    floats("zero", "", "0");
    node("Clip", "x zero", "y", "");
    becomes(13, "input 1x3\nrelu");
    begin();
    input("x", "N,1,3");
    output("y");
    node("Dropout", "x", "y", "ratio=f0.3");
    becomes(7, "input 1x3\ndropout 0.3");
    begin();
    input("x", "N,1,3");
    output("y");
    floats("ratio", "", "0.25");
    node("Dropout", "x ratio", "y", "");
    becomes(13, "input 1x3\ndropout 0.25");
    begin();
    input("x", "N,1,3");
    output("y");
    node("Squeeze", "x", "y", "axes=l1");
    becomes(11, "input 1x3\nflatten");
    begin();
    input("x", "N,1,3");
    output("y");
    wholes("a", "1", "-2");
    node("Squeeze", "x a", "y", "");
    becomes(13, "input 1x3\nflatten");
    begin();
    input("x", "N,2,3");
    output("y");
    node("Softmax", "x", "y", "axis=i1");
    becomes(11, "input 2x3\nflatten\nsoftmax\nreshape 2x3"); /* all from the axis on are one */
    becomes(13, "input 2x3\nsoftmax");
    begin();
    input("x", "N,2,3");
    output("y");
    node("Softmax", "x", "y", "");
    becomes(13, "input 2x3\nsoftmax axis=1");
}

static void old_broadcasting(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,3");
    output("y");
    floats("c", "2", "10,20");
    node("Add", "x c", "y", "broadcast=i1 axis=i1");
    ek_net *net = opened(6);
    assert_text(net, "input 2x3\naffine1: affine 2x1 scale=false");
    gives(net, 1, "1,2,3,4,5,6", "11,12,13,24,25,26");
    ek_net_destroy(net);
    refused(7, EK_E_FORMAT, "its constant has 2 numbers along dimension 2, and what it goes with 3");
    begin();
    input("x", "N,2,3");
    output("y");
    floats("c", "2", "10,20");
    node("PRelu", "x c", "y", "");
    becomes(6, "input 2x3\ny: prelu 2");
    begin();
    input("x", "N,2,3");
    output("y");
    floats("c", "2,3", "1,2,3,4,5,6");
    node("PRelu", "x c", "y", "");
    net = opened(16);
    gives(net, 1, "-1,2,-3,4,-5,-6", "-1,2,-9,4,-25,-36");
    ek_net_destroy(net);
}

static void gemm_and_matmul(void **state)
{
    (void)state;
    begin();
    input("x", "N,2");
    output("y");
    floats("fc.weight", "3,2", "1,2,3,4,5,6");
    floats("fc.bias", "3", "1,1,2");
    node("Gemm", "x fc.weight fc.bias", "y", "transB=i1 alpha=f2 beta=f0.5");
    ek_net *net = opened(13);
    assert_text(net, "input 2\nfc: linear 3");
    gives(net, 1, "1,1", "6.5,14.5,23");
    ek_net_destroy(net);
    begin();
    input("x", "N,2,2"); /* a linear layer at each position */
    output("y");
    floats("w", "2,3", "1,2,3,4,5,6");
    node("MatMul", "x w", "y", "");
    net = opened(13);
    gives(net, 1, "1,0,0,1", "1,2,3,4,5,6");
    ek_net_destroy(net);
    begin();
    input("x", "N,2,2"); /* from the left */
    output("y");
    floats("w", "3,2", "1,2,3,4,5,6");
    node("MatMul", "w x", "y", "");
    net = opened(13);
    gives(net, 1, "1,0,0,1", "1,2,3,4,5,6");
    ek_net_destroy(net);
    begin();
    input("x", "N,2");
    output("y");
    node("Gemm", "x x", "y", "");
    refused(13, EK_E_UNSUPPORTED, "both computed");
}

/* --- arithmetic */

static void constants_around_a_layer_are_one_affine_map(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,2");
    output("y");
    floats("n.weight", "2,1", "2,4");
    floats("t", "2", "1,-1");
    floats("half", "", "0.5");
    floats("one", "1", "1");
    node("Mul", "x n.weight", "a", "");
    node("Add", "t a", "b", "");
    node("Div", "b half", "c", "");
    node("Sub", "one c", "y", "");
    ek_net *net = opened(13);
    assert_text(net, "input 2x2\nn: affine 2x2");
    gives(net, 1, "1,2,3,4", "-5,-5,-25,-29");
    ek_net_destroy(net);
    begin();
    input("x", "N,2");
    output("y");
    floats("c", "2", "6,8");
    node("Div", "c x", "y", "");
    net = opened(13);
    gives(net, 1, "2,4", "3,2");
    assert_note(net, "'c' is a constant among values that layers compute");
    ek_net_destroy(net);
}

static void activations_by_parts_are_named(void **state)
{
    (void)state;
    begin();
    input("x", "N,3");
    output("y");
    node("Sigmoid", "x", "s", "");
    node("Mul", "s x", "y", "");
    becomes(13, "input 3\nsilu");
    begin();
    input("x", "N,3");
    output("y");
    floats("three", "", "3");
    floats("six", "", "6");
    node("Add", "x three", "a", "");
    node("Clip", "a", "b", "min=f0 max=f6");
    node("Mul", "x b", "c", "");
    node("Div", "c six", "y", "");
    ek_net *net = opened(9);
    assert_text(net, "input 3\nhardswish");
    gives(net, 1, "-4,0.5,5", "0,0.2916666667,5");
    ek_net_destroy(net);
    begin();
    input("x", "N,3");
    output("y");
    node("HardSigmoid", "x", "s", "alpha=f0.16666667");
    node("Mul", "x s", "y", "");
    becomes(13, "input 3\nhardswish");
    begin();
    input("x", "N,3");
    output("y");
    node("HardSigmoid", "x", "s", "");
    node("Mul", "x s", "y", "");
    becomes(13, "input1: input 3\nhardsigmoid1: hardsigmoid alpha=0.2\nmul hardsigmoid1 from=input1");
}

/* --- shapes */

static void chains_of_shapes_are_folded(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,3,4");
    output("y");
    wholes("zero", "", "0");
    wholes("axes", "1", "0");
    node("Shape", "x", "shape", "");
    node("Gather", "shape zero", "n", "axis=i0");
    node("Constant", "", "minus", "value=t7::-1");
    node("Unsqueeze", "n axes", "n1", "");
    node("Unsqueeze", "minus axes", "m1", "");
    node("Concat", "n1 m1", "target", "axis=i0");
    node("Cast", "target", "t32", "to=i6");
    node("Cast", "t32", "t64", "to=i7");
    node("Reshape", "x t64", "y", "");
    becomes(13, "input 2x3x4\nflatten");
    begin();
    input("x", "N,4,2");
    output("y");
    wholes("s", "3", "0,2,2");
    wholes("e", "1", "3");
    wholes("one", "1", "1");
    wholes("zero", "1", "0");
    node("Shape", "x", "shape", ""); /* [N, 4, 2]: its end in steps, times and over numbers */
    node("Slice", "shape one e zero one", "tail", "");
    node("Mul", "tail one", "t2", "");
    node("Div", "t2 one", "t3", "");
    node("Slice", "shape zero one", "n", "");
    wholes("back", "1", "-1");
    wholes("end", "1", "-9");
    node("Slice", "t3 back end zero back", "turned", "");
    node("Concat", "n turned", "target", "axis=i0");
    node("Reshape", "x target", "y", "");
    becomes(13, "input 4x2\nreshape 2x4");
    begin();
    input("x", "N,4,2");
    output("y");
    wholes("two", "1", "2");
    node("Shape", "x", "shape", "");
    node("Mul", "shape two", "twice", "");
    node("Reshape", "x twice", "y", "");
    refused(13, EK_E_UNSUPPORTED, "it computes with the size of the batch");
}

static void transpositions(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,1,3");
    output("y");
    node("Transpose", "x", "y", "perm=l0,2,1,3");
    becomes(13, "input 2x1x3\nreshape 1x2x3"); /* a dimension of 1 moves for nothing */
    begin();
    input("x", "N,2,4,3");
    output("y");
    node("Transpose", "x", "t", "perm=l0,2,3,1");
    node("Relu", "t", "r", "");
    node("Transpose", "r", "y", "perm=l0,3,1,2");
    becomes(13, "input 2x4x3\npermute 1,2,0\nrelu\npermute 2,0,1");
    begin();
    input("x", "N,2,4,3");
    output("y");
    node("Transpose", "x", "t", "perm=l0,2,3,1");
    node("Transpose", "t", "u", "perm=l0,3,1,2");
    node("Relu", "u", "y", "");
    becomes(13, "input 2x4x3\nrelu");
    /* Pixels from channels, by way of six dimensions. */
    begin();
    input("x", "1,4,1,2");
    output("y");
    wholes("a", "6", "1,1,2,2,1,2");
    wholes("b", "4", "1,1,2,4");
    node("Reshape", "x a", "r", "");
    node("Transpose", "r", "t", "perm=l0,1,4,2,5,3");
    node("Reshape", "t b", "y", "");
    ek_net *net = opened(13);
    gives(net, 1, "1,2,3,4,5,6,7,8", "1,3,2,4,5,7,6,8");
    ek_net_destroy(net);
}

static void prefixes_are_joined_once(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,2");
    output("y");
    node("Relu", "x", "r", "");
    node("Concat", "x r", "a", "axis=i1");
    node("Concat", "x r r", "b", "axis=i1");
    node("Concat", "a b", "y", "axis=i1");
    becomes(13, "input1: input 1x2\nrelu1: relu\nconcat1: concat relu1 from=input1\nconcat2: concat "
                "relu1\nconcat concat2 from=concat1");
}

static void the_batch_or_none(void **state)
{
    (void)state;
    begin();
    input("x", "2,3");
    output("y");
    node("Concat", "x x", "y", "axis=i0");
    ek_net *net = opened(13);
    assert_text(net, "input1: input 2x3\nconcat input1");
    assert_note(net, "a sample is the whole array");
    ek_net_destroy(net);
    begin();
    input("x", "2,3");
    output("y");
    node("Concat", "x x", "z", "axis=i0");
    node("Shrink", "z", "y", "");
    refused(13, EK_E_UNSUPPORTED, "works along the batch; Shrink (y): there is no such layer here");
}

static void shared_weights_are_copied(void **state)
{
    (void)state;
    begin();
    input("x", "N,2");
    output("y");
    floats("w", "2,2", "1,2,3,4");
    node("MatMul", "x w", "a", "");
    node("MatMul", "a w", "y", "");
    ek_net *net = opened(13);
    assert_note(net, "'w' is shared by 2 layers");
    gives(net, 1, "1,0", "7,10");
    ek_net_destroy(net);
}

static void what_the_caller_chooses(void **state)
{
    (void)state;
    begin();
    port(11, "x", FLOAT, "N,3,N,N");
    output("a");
    output("b");
    node("Relu", "x", "a", "");
    node("Sigmoid", "x", "b", "");
    refused(13, EK_E_UNSUPPORTED, "it has 2 outputs (a, b)");
    ek_net *net = NULL;
    ek_onnx_options options = ek_onnx_options_default();
    options.output = "b";
    assert_fails(EK_E_UNSUPPORTED, "a sample is 3x?x?", ek_net_open_onnx(context, path, &options, &net));
    options.input = (ek_shape){.rank = 3, .dim = {3, 2, 5}};
    assert_ok(ek_net_open_onnx(context, path, &options, &net));
    assert_text(net, "input 3x2x5\nsigmoid");
    ek_net_destroy(net);
    options.input.dim[0] = 4;
    assert_fails(EK_E_SHAPE, "dimension 1 of its input 'x' is 3, not 4",
                 ek_net_open_onnx(context, path, &options, &net));
    options.input.rank = 2;
    assert_fails(EK_E_SHAPE, "4 dimensions with the batch", ek_net_open_onnx(context, path, &options, &net));
    options.output = "c";
    assert_fails(EK_E_NOT_FOUND, "no output 'c', and no node gives it; its outputs are a, b",
                 ek_net_open_onnx(context, path, &options, &net));
    options.output = "x"; /* which no node gives */
    assert_fails(EK_E_NOT_FOUND, "no output 'x'", ek_net_open_onnx(context, path, &options, &net));
}

/* A classifier that ends in Softmax cannot be trained; a note says what goes into that, and a net can end there. */
static void any_value_can_be_the_output(void **state)
{
    (void)state;
    begin();
    input("x", "N,3");
    output("p");
    floats("w", "2,3", "1,2,3,4,5,6");
    floats("b", "2", "1,-1");
    node("Gemm", "x w b", "scores", "transB=i1");
    node("Softmax", "scores", "p", "axis=i1");
    ek_net *net = opened(13);
    ek_trainer *trainer = NULL;
    ek_optimizer_options sgd = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_note(net, "convert --output scores ends before it");
    assert_fails(EK_E_ARGUMENT, "convert --output NAME", ek_trainer_create(net, &sgd, 1, &trainer));
    ek_net_destroy(net);
    ek_onnx_options options = ek_onnx_options_default();
    options.output = "scores";
    assert_ok(ek_net_open_onnx(context, path, &options, &net));
    gives(net, 1, "1,1,1", "7,14");
    assert_false(has_note(net, "Softmax"));
    assert_ok(ek_trainer_create(net, &sgd, 1, &trainer));
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
}

/* --- what is refused */

static void all_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    begin();
    input("x", "N,2,4,4");
    output("y");
    node("Shrink", "x", "r1", "");
    node("Shrink", "r1", "r2", "");
    node("GRU", "r2", "g", "");
    node("Relu", "g", "h", "");
    node("Conv", "x h", "c", "");
    node("Elu", "c", "e", "");
    node("Pow", "x x", "p", "");
    node("Sum", "e p", "y", "");
    node("Loop", "x", "unneeded", "");
    refused(13, EK_E_UNSUPPORTED,
            "cannot be read as a net: Shrink (r1, r2): there is no such layer here; GRU (g): there is no "
            "such layer here; Pow (p): "
            "there is no such layer here");
    assert_null(strstr(ek_error(), "Loop"));
}

static void graphs_that_are_none(void **state)
{
    (void)state;
    begin();
    input("x", "N,2");
    output("y");
    node("Add", "x b", "a", "");
    node("Add", "x a", "b", "");
    node("Relu", "b", "y", "");
    refused(13, EK_E_FORMAT, "its nodes go in a circle");
    begin();
    input("x", "N,2");
    output("y");
    node("Add", "x w", "y", "");
    refused(13, EK_E_FORMAT, "Add 'y' reads 'w', which nothing gives");
    begin();
    input("x", "N,2");
    output("y");
    node("Relu", "x", "y", "");
    node("Tanh", "x", "y", "");
    refused(13, EK_E_FORMAT, "'y' is given twice");
    begin();
    input("x", "N,2");
    output("z");
    node("Relu", "x", "y", "");
    refused(13, EK_E_UNSUPPORTED, "does not depend on");
    begin();
    input("x", "N,2");
    node("Relu", "x", "y", "");
    refused(13, EK_E_FORMAT, "it has no output");
    begin();
    input("x", "N,2");
    output("y"); /* unordered, which ONNX forbids, and is no matter here */
    node("Relu", "h", "y", "");
    node("Tanh", "x", "h", "");
    becomes(13, "input 2\ntanh\nrelu");
    begin();
    input("x", "N,2");
    output("y");
    node("Relu", "x", "y", "");
    refused(23, EK_E_UNSUPPORTED, "it is of opset 23");
    begin();
    port(11, "x", UINT_8, "N,2");
    output("y");
    node("Relu", "x", "y", "");
    refused(13, EK_E_UNSUPPORTED, "its input 'x' holds uint8");
    begin();
    input("x", "N,2");
    input("z", "N,2");
    output("y");
    node("Add", "x z", "y", "");
    refused(13, EK_E_UNSUPPORTED, "it has 2 inputs (x, z)");
}

static void tensors_that_lie(void **state)
{
    (void)state;
    static const struct {
        int type;
        const char *dims, *values, *words;
    } cases[] = {
        {FLOAT, "2,3", "1,2,3,4,5", "its shape needs 6 numbers of type float, and it has 5"},
        {FLOAT, "4611686018427387904,4", "1", "its dimension 1 is 4"},
        {FLOAT, "-2,3", "1", "its dimension 0 is -2"},
        {FLOAT, "0,4611686018427387904,4", "", "its dimension 2 is 4"},
        {FLOAT, "1073741824,4", "1", "its shape needs 4294967296 numbers"},
        {8, "1", "", "it holds string"},
        {77, "1", "", "it holds a type that is not known"},
        {INT64, "2,2", "1,2,3,4", "is int64, and goes with real"},
        {FLOAT, "1,1,1,1,1,1,1,1,1", "1", "more than 8 dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin();
        input("x", "N,2,2");
        output("y");
        tensor("w", cases[i].type, cases[i].dims, cases[i].values);
        node("Add", "x w", "y", "");
        ek_net *net;
        write_model(13);
        assert_int_not_equal(ek_net_open(context, path, &net), EK_OK);
        if (!strstr(ek_error(), cases[i].words) && i != 6)
            fail_msg("\"%s\" does not say \"%s\"", ek_error(), cases[i].words);
    }
    begin(); /* a small file that would become large */
    input("x", "N,2");
    output("y");
    wholes("s", "2", "100000,100000");
    node("ConstantOfShape", "s", "c", "");
    node("Add", "x c", "y", "");
    refused(13, EK_E_UNSUPPORTED, "it makes a constant of 10000000000 numbers");
    begin();
    input("x", "N,2");
    output("y");
    node("Relu", "x", "y", "alpha=f1");
    node("Concat", "x y", "z", "axis=f1"); /* an attribute of another type */
    begin();
    input("x", "N,2");
    output("z");
    node("Concat", "x x", "z", "axis=f1");
    refused(13, EK_E_FORMAT, "its attribute 'axis' has another type");
}

/* What no exporter writes, and would be read from beyond its arrays, or computed beyond its numbers. */
static void graphs_that_attack(void **state)
{
    (void)state;
    static const struct {
        int opset;
        const char *op, *inputs, *options, *words;
    } cases[] = {
        {13, "Neg", "", "", "its input is left out"},
        {13, "Add", "", "", "it lacks an input"},
        {13, "ReduceMean", "", "axes=l1", "its input 0 is left out"},
        {13, "Slice", "c at to twice", "", "it names axis 0 twice"},
        {13, "Constant", "x", "value=t1:2:1,2", "it has inputs"},
        {6, "Add", "x c", "broadcast=i1 axis=i9223372036854775807", "leaves no room for its constant"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin();
        input("x", "N,2");
        output("y");
        floats("c", "10,1", "1,2,3,4,5,6,7,8,9,10");
        wholes("at", "2", "9,9");
        wholes("to", "2", "10,10");
        wholes("twice", "2", "0,0");
        node(cases[i].op, cases[i].inputs, "a", cases[i].options);
        node("Sub", "x a", "y", "");
        refused(cases[i].opset, EK_E_FORMAT, cases[i].words);
    }
    begin(); /* the bias behind a product is left out */
    input("x", "N,2");
    output("y");
    floats("w", "2,2", "1,2,3,4");
    node("MatMul", "x w", "h", "");
    node("Add", "h -", "y", "");
    refused(13, EK_E_FORMAT, "it lacks an input");
    begin(); /* nothing, whose strides overflow */
    input("x", "N,2");
    output("y");
    floats("c", "0,1099511627776,1099511627776", "");
    node("Transpose", "c", "t", "");
    node("Add", "x t", "y", "");
    refused(13, EK_E_FORMAT, "its dimension 2 is 1099511627776");
    begin();
    input("x", "N,2");
    output("y");
    wholes("s", "3", "0,1099511627776,1099511627776");
    node("ConstantOfShape", "s", "c", "");
    node("Transpose", "c", "t", "");
    node("Add", "x t", "y", "");
    refused(13, EK_E_FORMAT, "it makes a constant with a dimension of 1099511627776");
    begin(); /* a long row of maps with one large constant, each with numbers of its own */
    input("x", "N,4000000");
    output("y");
    wholes("s", "2", "1,4000000");
    node("ConstantOfShape", "s", "c", "value=t1:1:2");
    node("Mul", "x c", "a", "");
    node("Mul", "a c", "b", "");
    node("Mul", "b c", "d", "");
    node("Mul", "d c", "y", "");
    refused(13, EK_E_UNSUPPORTED, "it makes a constant of 4000000 numbers");
}

static void whole_numbers_overflow(void **state)
{
    (void)state;
    static const char *const ops[] = {"Mul", "Add", "Div"};
    static const char *const right[] = {"4", "4611686018427387904", "0"};
    for (int i = 0; i < 3; i++) {
        begin();
        input("x", "N,2");
        output("y");
        node("Constant", "", "a", "value=t7:1:4611686018427387904");
        char value[64];
        snprintf(value, sizeof value, "value=t7:1:%s", right[i]);
        node("Constant", "", "b", value);
        node(ops[i], "a b", "c", "");
        node("Reshape", "x c", "y", "");
        refused(13, EK_E_FORMAT, "divided by 0, or overflows");
    }
}

/* A net of one node that reads x, and of the constant c that another makes. */
static void beside_constant(const char *op, const char *inputs, const char *options, const char *last)
{
    begin();
    input("x", "N,1,4");
    output("y");
    floats("four", "4,1", "1,2,3,4");
    wholes("twos", "2", "2,2");
    wholes("fours", "2", "4,4");
    wholes("zeros", "2", "0,0");
    node(op, inputs, "c", options);
    node(last, "x c", "y", "");
}

static void nodes_that_lie(void **state)
{
    (void)state;
    beside_constant("Slice", "four twos fours zeros", "", "Add");
    refused(13, EK_E_FORMAT, "it names axis 0 twice");
    beside_constant("Neg", "", "", "Add");
    refused(13, EK_E_FORMAT, "Neg (c): its input is left out");
    beside_constant("ReduceMean", "", "", "Sub");
    refused(13, EK_E_FORMAT, "ReduceMean (c): its input 0 is left out");
    begin();
    input("x", "N,2");
    output("m");
    floats("w", "2", "1,1");
    node("BatchNormalization", "x w w w w", "- m", "training_mode=i1");
    refused(15, EK_E_UNSUPPORTED, "BatchNormalization (m): its output 'm' is read, and only its first");
    begin();
    input("x", "N,2");
    output("m");
    floats("half", "", "0.5");
    tensor("yes", 9, "", "1");
    node("Dropout", "x half yes", "- m", "");
    refused(13, EK_E_UNSUPPORTED, "Dropout (m): its output 'm' is read");
}

/* A row and a column of numbers are an affine map of as many as there are places. */
static void a_small_file_stays_small(void **state)
{
    (void)state;
    begin();
    input("x", "N,1,16384,16384");
    output("y");
    floats("one", "1", "1");
    wholes("row", "1", "16384");
    wholes("column", "2", "16384,1");
    node("Expand", "one row", "r", "");
    node("Expand", "one column", "c", "");
    node("Mul", "x r", "h", "");
    node("Add", "h c", "y", "");
    refused(13, EK_E_UNSUPPORTED, "it makes a constant of 268435456 numbers");
}

static void whatever_is_not_zero_is_true(void **state)
{
    (void)state;
    begin();
    input("x", "N,2");
    output("y");
    floats("c", "2", "0.5,0");
    floats("a", "2", "10,20");
    floats("b", "2", "30,40");
    node("Cast", "c", "t", "to=i9");
    node("Where", "t a b", "w", "");
    node("Add", "x w", "y", "");
    ek_net *net = opened(13);
    gives(net, 1, "0,0", "10,40");
    ek_net_destroy(net);
}

static void damaged_files(void **state)
{
    (void)state;
    ek_net *net;
    put("\x08\x08\x12\x04test\x3a\x7f", 10); /* a length beyond the end */
    assert_fails(EK_E_FORMAT, "ends in the middle", ek_net_open(context, path, &net));
    put("\x08\x08\x12\x04test", 8);
    assert_fails(EK_E_FORMAT, "it has no graph", ek_net_open(context, path, &net));
    put("", 0);
    assert_fails(EK_E_FORMAT, "it has no graph", ek_net_open(context, path, &net));
    put("input 3\nrelu\n", 13);
    assert_fails(EK_E_FORMAT, "damaged", ek_net_open(context, path, &net));
    assert_fails(EK_E_NOT_FOUND, "no file", ek_net_open_onnx(context, "/nowhere/x.onnx", NULL, &net));
    /* Every beginning of a sound file is refused, or is a net. */
    norm("y", "");
    write_model(13);
    unsigned char all[4096];
    FILE *file = fopen(path, "rb");
    size_t size = fread(all, 1, sizeof all, file);
    fclose(file);
    for (size_t i = 0; i < size; i++) {
        put(all, i);
        if (ek_net_open(context, path, &net) == EK_OK) ek_net_destroy(net);
    }
    /* By its content, under another name. */
    char other[80];
    snprintf(other, sizeof other, "%s/model.bin", folder);
    put(all, size);
    assert_int_equal(rename(path, other), 0);
    assert_true(ek_is_model(other));
    assert_ok(ek_net_open(context, other, &net));
    ek_net_destroy(net);
    assert_int_equal(unlink(other), 0);
}

/* --- external data */

static void external(const char *location, const char *offset, const char *length)
{
    begin();
    input("x", "N,2");
    output("y");
    size_t start = ek_protobuf_begin(&graph, 5);
    ek_protobuf_int(&graph, 1, 2);
    ek_protobuf_int(&graph, 2, FLOAT);
    ek_protobuf_text(&graph, 8, "w");
    ek_protobuf_int(&graph, 14, 1);
    const char *const entries[] = {"location", location, "offset", offset, "length", length};
    for (int i = 0; i < 6; i += 2) {
        if (!entries[i + 1]) continue;
        size_t entry = ek_protobuf_begin(&graph, 13), length_of = strlen(entries[i + 1]);
        bool cut = !strcmp(entries[i + 1], "weights.bin%00/../x"); /* a zero there */
        ek_protobuf_text(&graph, 1, entries[i]);
        ek_protobuf_bytes(&graph, 2, cut ? "weights.bin\0/../x" : entries[i + 1], cut ? 17 : length_of);
        ek_protobuf_end(&graph, entry);
    }
    ek_protobuf_end(&graph, start);
    node("Add", "x w", "y", "");
}

static void external_data_lies_within_the_folder(void **state)
{
    (void)state;
    char data[128], link_path[128], inner[128];
    snprintf(data, sizeof data, "%s/weights.bin", folder);
    snprintf(link_path, sizeof link_path, "%s/link", folder);
    snprintf(inner, sizeof inner, "%s/in", folder);
    FILE *file = fopen(data, "wb");
    const float values[] = {9, 1, 2};
    assert_int_equal(fwrite(values, sizeof *values, 3, file), 3);
    fclose(file);
    assert_int_equal(symlink("weights.bin", link_path), 0);
    assert_int_equal(symlink(".", inner), 0);
    external("weights.bin", "4", "8");
    ek_net *net = opened(13);
    gives(net, 1, "0,0", "1,2");
    ek_net_destroy(net);
    external("./weights.bin", "4", NULL);
    becomes(13, "input 2\naffine1: affine 2 scale=false");
    struct {
        const char *location, *offset, *length, *words;
    } cases[] = {
        {"weights.bin", "8", "8", "ends beyond the 12 bytes"},
        {"weights.bin", "18446744073709551615", "8", "no number of bytes"},
        {"weights.bin", "9000000000000000000", "8", "ends beyond"},
        {"weights.bin", "9223372036854775807", "8", "no number of bytes"},
        {"weights.bin", "-4", "8", "no number of bytes"},
        {"weights.bin", "0", "12", "needs 8 bytes"},
        {"../weights.bin", "0", "8", "outside the model's folder"},
        {"a/../../weights.bin", "0", "8", "outside the model's folder"},
        {"/etc/passwd", "0", "8", "outside the model's folder"},
        {"weights.bin/../../x", "4", "8", "outside the model's folder"},
        {"weights.bin%00/../x", "4", "8", "a name holds what is no text"},
        {"weights.bin/x", "4", "8", "cannot open"},
        {"link", "4", "8", "links are not followed"},
        {"in/weights.bin", "4", "8", "links are not followed"},
        {"nowhere", "4", "8", "cannot open"},
        {".", "4", "8", "not a regular file"},
        {NULL, NULL, NULL, "does not say where"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        external(cases[i].location, cases[i].offset, cases[i].length);
        write_model(13);
        assert_int_not_equal(ek_net_open(context, path, &net), EK_OK);
        if (!strstr(ek_error(), cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", ek_error(), cases[i].words);
    }
    unlink(data);
    unlink(link_path);
    unlink(inner);
}

static void want_of_memory(void **state)
{
    (void)state;
    norm("y", "");
    write_model(13);
    for (failing f = {0}; fail_next(&f);) {
        ek_net *net = NULL;
        f.status = ek_net_open(context, path, &net);
        if (f.status == EK_OK) ek_net_destroy(net);
    }
}

static int set_up(void **state)
{
    (void)state;
    ek_context_options options = ek_context_options_default();
    options.threads = 1;
    if (!mkdtemp(folder) || ek_context_create(&options, &context) != EK_OK) return -1;
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    rmdir(folder);
    ek_protobuf_free(&graph);
    ek_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_norm_in_all_versions),
        cmocka_unit_test(batch_norm_in_training_mode),
        cmocka_unit_test(batch_norm_of_each_number),
        cmocka_unit_test(sick_numbers_are_for_audits),
        cmocka_unit_test(sibling_norms),
        cmocka_unit_test(layer_norm_written_out),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(numbers_are_repeated),
        cmocka_unit_test(neighbours_are_taken_in),
        cmocka_unit_test(pools),
        cmocka_unit_test(clip_and_dropout_and_axes),
        cmocka_unit_test(old_broadcasting),
        cmocka_unit_test(gemm_and_matmul),
        cmocka_unit_test(constants_around_a_layer_are_one_affine_map),
        cmocka_unit_test(activations_by_parts_are_named),
        cmocka_unit_test(chains_of_shapes_are_folded),
        cmocka_unit_test(transpositions),
        cmocka_unit_test(prefixes_are_joined_once),
        cmocka_unit_test(the_batch_or_none),
        cmocka_unit_test(shared_weights_are_copied),
        cmocka_unit_test(what_the_caller_chooses),
        cmocka_unit_test(any_value_can_be_the_output),
        cmocka_unit_test(all_that_cannot_be_read_is_named),
        cmocka_unit_test(graphs_that_are_none),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(graphs_that_attack),
        cmocka_unit_test(whole_numbers_overflow),
        cmocka_unit_test(nodes_that_lie),
        cmocka_unit_test(a_small_file_stays_small),
        cmocka_unit_test(whatever_is_not_zero_is_true),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(external_data_lies_within_the_folder),
        cmocka_unit_test(want_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
