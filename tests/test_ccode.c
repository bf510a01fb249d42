/* Nets as C source: written, compiled by the compilers that are there, run, and compared with the net. */
#include "testing.h"

#include "ccode/ccode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static ek_context *context;
static char folder[] = "/tmp/evenkeel-ccode-XXXXXX";

#define STRICT "-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Werror"
/* The first also watches what the code does; the second takes its place where it is not there. */
static const char *const compilers[] = {"cc -O2 -fsanitize=address,undefined -fno-sanitize-recover " STRICT, "cc -O2 " STRICT,
                                        "clang -fsyntax-only " STRICT};
static bool there[3];

static bool works(const char *compiler)
{
    char command[512];
    snprintf(command, sizeof command, "cd %s && echo 'int main(void) { return 0; }' > probe.c && %s probe.c > /dev/null 2>&1",
             folder, compiler);
    return system(command) == 0;
}

/* Weights and statistics far enough from those of a fresh net that each counts. */
static void disturb(ek_net *net)
{
    uint32_t state = 1;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        for (int64_t k = 0; t.data && k < ek_shape_count(t.shape); k++) {
            state = state * 1664525u + 1013904223u;
            float unit = (float)(state >> 8) / 16777216.0f;
            if (t.role == EK_ROLE_RUNNING_VAR) t.data[k] = 0.5f + unit;
            if (t.role == EK_ROLE_GAMMA) t.data[k] = 0.5f + unit;
            if (t.role == EK_ROLE_BETA || t.role == EK_ROLE_RUNNING_MEAN) t.data[k] = unit - 0.5f;
        }
    }
}

/* Writes the net as C; each compiler takes it, and its self-test passes. */
static void check_net(const char *name, const char *text, const ek_c_options *options, ek_c_answer *answer)
{
    char path[256], command[1024];
    ek_net *net;
    assert_ok(ek_net_create(context, text, name, &net));
    disturb(net);
    snprintf(path, sizeof path, "%s/net.c", folder);
    ek_status status = ek_net_save_c(net, options, path, answer);
    if (status != EK_OK) fail_msg("%s: %s", name, ek_error());
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++) {
        bool runs = i < 2;
        if (!there[i] || (i == 1 && there[0])) continue;
        snprintf(command, sizeof command, runs ? "cd %s && %s -o net net.c net_test.c -lm && ./net > said 2>&1 || { cat said; false; }"
                                               : "cd %s && %s net.c net_test.c", folder, compilers[i]);
        if (system(command) != 0) fail_msg("%s with %s:\n%s", name, compilers[i], text);
    }
    ek_net_destroy(net);
}

static const char *const nets[][2] = {
    {"features", "input 7 mean=0.5 std=0.25\nlinear 5 bias=false\nrelu\nlinear 9\nsoftmax\n"},
    {"nothing", "input 3x4x5\nflatten\n"},
    {"pixels", "input 3x4x5 mean=0.1,0.2,0.3 std=0.5,2,1\nflatten\n"},
    {"kernels", "input 3x11x13\na: conv 4 kernel=3 padding=1\nconv 6 kernel=5x1 padding=2x0\nconv 3 kernel=1x7 padding=0x3\n"
                "conv 8 kernel=1\nconv 5 kernel=7 padding=3\nconv 7 kernel=1x13 padding=0x6\n"},
    {"strides", "input 4x17x15\nconv 6 kernel=3 stride=2 padding=1\nconv 4 kernel=2 stride=2x1\nconv 6 kernel=1 stride=2\n"},
    {"dilation", "input 4x17x15\nconv 8 kernel=3 dilation=2 padding=2 groups=2\nconv 8 kernel=3 groups=8 padding=1\nconv 2 kernel=2x3 dilation=3x2\n"},
    {"far padding", "input 2x3x4\nconv 2 kernel=3 padding=5x6\nconv 2 kernel=3 stride=3 padding=4\n"},
    {"sequence", "input 3x19\nconv1d 6 kernel=3 stride=2 padding=1\nbatchnorm\nrelu\nmaxpool 2\nconv1d 4 kernel=2 dilation=2 groups=2\navgpool 2 padding=1 count_pad=false\nglobalavgpool\nflatten\nlinear 3\n"},
    {"norms that stay", "input 3x6x6\nbatchnorm\nrelu\nbatchnorm scale=false\nsigmoid\nbatchnorm shift=false\ntanh\n"},
    {"norms of samples", "input 4x5x6\ngroupnorm 2\nlayernorm\ninstancenorm scale=true shift=true\nrmsnorm\ngroupnorm 4 scale=false\nflatten\nlinear 8\nlayernorm shift=false\ngroupnorm 2\n"},
    {"activations", "input 40\na: linear 40\nrelu\nlinear 40\nleakyrelu 0.2\nlinear 40\nsigmoid\nlinear 40\ntanh\nlinear 40\nsilu\ndropout\nlinear 40\n"},
    {"further activations", "input 3x4x5\nelu 0.7\nconv 3 kernel=1\nprelu\nconv 3 kernel=1\nprelu 3\nconv 3 kernel=1\nhardsigmoid\nhardswish\nclip min=0 max=6\nclip min=-1\nhardsigmoid alpha=0.2\n"},
    {"transposed", "input 4x5x6\nconvtranspose 6 kernel=3 stride=2 padding=1 output_padding=1 groups=2\nbatchnorm\nrelu\nconvtranspose 3 kernel=2x4 dilation=2x1 padding=1x0 padding_end=0x2 bias=false\n"},
    {"transposed sequence", "input 4x9\nconvtranspose1d 6 kernel=4 stride=3 padding=1\ntanh\nconvtranspose1d 2 kernel=2\n"},
    {"uneven padding", "input 2x9x8\nconv 3 kernel=3 padding=0x1 padding_end=1x2\nconv 2 kernel=2 padding_end=1\nmaxpool 3 stride=2 padding=2 padding_end=1 dilation=1\navgpool 2 stride=1 padding=0 padding_end=1\n"},
    {"wide pools", "input 2x14x15\nmaxpool 3 stride=2 dilation=2 ceil=true\navgpool 3 stride=2 padding=1 ceil=true\navgpool 2 stride=2 ceil=true count_pad=false\n"},
    {"pools", "input 2x13x11\nmaxpool 3 stride=2 padding=1\navgpool 3x2 stride=1 padding=1\nmaxpool 2 stride=1\navgpool 2 padding=1 count_pad=false\n"},
    {"branches", "input 2x6x6\ns: relu\nconv 2 kernel=3 padding=1\nadd s\nt: sigmoid\nv: add t\nrelu from=s\nadd t\nu: tanh\nadd u\nadd v\n"},
    {"a block", "input 3x8x8\nc: conv 4 kernel=3 padding=1 bias=false\nb: batchnorm\ns: relu\nconv 4 kernel=3 padding=1\nbatchnorm\nadd s\nrelu\nglobalavgpool\nflatten\nlinear 4\n"},
    {"arithmetic", "input 4x5x6\na: sigmoid\nb: globalavgpool\nmul a\nc: tanh\nsub a\nd: relu\nadd b\ne: div a\nsub c from=b\nmul c\nadd e\n"},
    {"shapes", "input 4x5x6\na: affine 4x1x1\nb: affine 1x5x1 scale=false\naffine 4x5x6 shift=false\nconcat a axis=0\nconcat b axis=0\npermute 1,2,0\nreshape 5x2x3x12\npermute 3,1,0,2\nsoftmax axis=1\nconcat2: permute 1,0,2,3\nflatten\nlinear 4\naffine 1\n"},
    {"affine in both ways", "input 4x5x6\naffine 4x5x6\naffine 1x5x1\n"},
};

static void every_net_is_the_same_in_c(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        ek_c_answer answer;
        check_net(nets[i][0], nets[i][1], NULL, &answer);
        assert_true(answer.difference < 1e-4);
    }
}

static void shipped_nets_too(void **state)
{
    (void)state;
    for (int i = 0; ek_shipped_net_name(i); i++) {
        ek_c_answer answer;
        check_net(ek_shipped_net_name(i), ek_shipped_net_text(i), NULL, &answer);
        assert_true(answer.weight_bytes > 0 && answer.multiply_adds > 0);
    }
}

/* Layers write over what nobody reads again. */
static void memory_is_shared(void **state)
{
    (void)state;
    ek_c_answer answer;
    check_net("in place", "input 100\nlinear 1000\nrelu\nlinear 10\n", NULL, &answer);
    assert_int_equal(answer.memory_bytes, 4 * 1000);
    check_net("pool", "input 1x20x20\nconv 4 kernel=1\nrelu\nmaxpool 2\nconv 12 kernel=1\nconv 1 kernel=10\n", NULL, &answer);
    assert_int_equal(answer.memory_bytes, 4 * 1600); /* behind the pool there is room for the next */
    check_net("out", "input 50\nlinear 30\nsigmoid\nsoftmax\n", NULL, &answer);
    assert_int_equal(answer.memory_bytes, 0);
}

/* Whole numbers are the same on every machine: the self-test allows no other. */
static const char *const int8_nets[][2] = {
    {"lenet", "input 1x28x28 mean=0.3 std=0.5\nconv 6 kernel=5\nbatchnorm\nsigmoid\navgpool 2\nconv 16 kernel=5\nbatchnorm\nrelu\nmaxpool 2\nflatten\nlinear 20\nrelu\nlinear 10\n"},
    {"kernels", "input 4x9x10\na: conv 4 kernel=3 padding=1 groups=2\nconv 8 kernel=1 stride=2\nconv 3 kernel=7 padding=4\nconv 5 kernel=3 dilation=2 padding=2\nbatchnorm\nleakyrelu\nbatchnorm\nsilu\nflatten\nlinear 7\nsoftmax\n"},
    {"sequence", "input 3x19\nconv1d 6 kernel=3 stride=2 padding=1\nrelu\navgpool 2 padding=1 count_pad=false\nmaxpool 2\nconv1d 4 kernel=2\nint8: tanh\nglobalavgpool\nflatten\nlinear 3\n"},
    {"a block", "input 3x8x8\nc: conv 4 kernel=3 padding=1 bias=false\nb: batchnorm\ns: relu\nconv 4 kernel=3 padding=1\nbatchnorm\nadd s\nrelu\nglobalavgpool\nflatten\nlinear 4\n"},
    {"more", "input 3x9x8\nconv 6 kernel=3 padding=0x1 padding_end=1x2\nclip min=0 max=6\nmaxpool 3 stride=2 padding=1 ceil=true\nelu\nconv 4 kernel=1\nhardswish\navgpool 2 stride=1 padding=1 padding_end=0 dilation=2\nprelu\nflatten\nlinear 5\n"},
    {"two values", "input 4x5x6\na: sigmoid\nb: globalavgpool\nc: mul a\nd: sub a\nconv 4 kernel=1\nconcat c axis=1\npermute 1,0,2\ne: affine 10x1x1\nflatten\nf: linear 10\nrelu\nadd f\nlinear 4\n"},
    {"norm before padding", "input 3x8x8 mean=0.5 std=0.25\nbatchnorm\nconv 4 kernel=3 padding=1\nrelu\nflatten\nlinear 4\n"},
};

static void eight_bits_are_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof int8_nets / sizeof *int8_nets; i++) {
        ek_c_answer answer;
        ek_c_options options = ek_c_options_default();
        ek_dataset *data;
        char spec[64], shape[32] = "";
        sscanf(int8_nets[i][1], "input %31s", shape);
        bool sequence = strchr(shape, 'x') == strrchr(shape, 'x'); /* which an image of one channel serves */
        snprintf(spec, sizeof spec, "synthetic:%s%s", sequence ? "1x" : "", shape);
        if (ek_dataset_open(spec, EK_SPLIT_TEST, &data) != EK_OK) fail_msg("%s: %s", spec, ek_error());
        options.int8 = true;
        options.data = options.test = data;
        options.samples = 50;
        check_net(int8_nets[i][0], int8_nets[i][1], &options, &answer);
        assert_true(answer.test_count == ek_dataset_count(data) && answer.same_class > 0.8);
        ek_dataset_destroy(data);
    }
}

static void what_cannot_be_written_is_named(void **state)
{
    (void)state;
    ek_net *net;
    char path[256];
    snprintf(path, sizeof path, "%s/refused.c", folder);
    assert_ok(ek_net_create(context, "input 2x4x4\nbn: batchnorm track=false\nconv 2 kernel=1\n", NULL, &net));
    assert_fails(EK_E_UNSUPPORTED, "batchnorm bn", ek_net_save_c(net, NULL, path, NULL));
    ek_net_destroy(net);
    ek_c_options options = ek_c_options_default();
    options.int8 = true;
    assert_ok(ek_net_create(context, "input 2x4x4\nln: layernorm\nrelu\n", NULL, &net));
    assert_fails(EK_E_ARGUMENT, "data", ek_net_save_c(net, &options, path, NULL));
    ek_dataset *data;
    assert_ok(ek_dataset_open("synthetic:2x4x4", EK_SPLIT_TEST, &data));
    options.data = data;
    assert_fails(EK_E_UNSUPPORTED, "layernorm ln", ek_net_save_c(net, &options, path, NULL));
    ek_net_destroy(net);
    assert_ok(ek_net_create(context, "input 2\nlinear 2\n", NULL, &net));
    assert_fails(EK_E_SHAPE, "2x4x4", ek_net_save_c(net, &options, path, NULL));
    ek_dataset_destroy(data);
    options = ek_c_options_default();
    options.name = "two words";
    assert_fails(EK_E_ARGUMENT, "two words", ek_net_save_c(net, &options, path, NULL));
    assert_fails(EK_E_ARGUMENT, "ends in .c", ek_net_save_c(net, NULL, "net.txt", NULL));
    options.name = "x";
    ek_tensor t = ek_net_tensor(net, 0);
    t.data[1] = NAN;
    assert_fails(EK_E_NUMERIC, "linear1.weight[1]", ek_net_save_c(net, &options, path, NULL));
    assert_int_not_equal(access(path, F_OK), 0);
    ek_net_destroy(net);
}

/* Names of files and classes that C must not stumble over. */
static void names_are_made_fit(void **state)
{
    (void)state;
    static const char *const classes[] = {"a\"b", "c\\d", "what?" "?/", "\xc3\xa9" "1"};
    char path[256], command[1024];
    ek_net *net;
    ek_c_answer answer;
    assert_ok(ek_net_create(context, "input 3\n0: linear 4\nin: relu\nint: linear 4\n0.a: linear 4\nlayer8_0_b: linear 4\n0.b: linear 4\n0_b: linear 4\n", NULL, &net));
    assert_ok(ek_net_set_classes(net, classes, 4));
    snprintf(path, sizeof path, "%s/2 nets-v1.c", folder);
    assert_ok(ek_net_save_c(net, NULL, path, &answer));
    assert_string_equal(answer.name, "net_2_nets_v1");
    snprintf(command, sizeof command,
             "cd %s && cat > classes.c <<'end'\n#include \"2 nets-v1.h\"\n#include <string.h>\n"
             "int main(void) { return strcmp(net_2_nets_v1_classes[2], \"what?\" \"?/\") || strlen(net_2_nets_v1_classes[3]) != 3; }\nend\n"
             "%s -o classes classes.c '2 nets-v1.c' -lm && ./classes", folder, compilers[0]);
    assert_int_equal(system(command), 0);
    ek_net_destroy(net);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    for (int i = 0; i < 3; i++) there[i] = works(compilers[i]);
    return there[0] || there[1] ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_net_is_the_same_in_c),
        cmocka_unit_test(shipped_nets_too),
        cmocka_unit_test(memory_is_shared),
        cmocka_unit_test(eight_bits_are_exact),
        cmocka_unit_test(what_cannot_be_written_is_named),
        cmocka_unit_test(names_are_made_fit),
    };
    if (ek_context_create(NULL, &context) != EK_OK) return 1;
    int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    ek_context_destroy(context);
    return failed;
}
