/* One change to a network: what comes out is a net text as one would write it, and the net trains. */
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>

static ek_context *context_of(void)
{
    ek_context_options options = {.threads = 1};
    ek_context *context;
    assert_ok(ek_context_create(&options, &context));
    return context;
}

static ek_net *net_of(ek_context *context, const char *text)
{
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    return net;
}

static const struct vary_case {
    const char *text, *key, *value, *expected;
} cases[] = {
    /* width: hidden layers alone, rounded, never nothing; groups of single channels stay so */
    {"input 3x4x4\na: conv 6 kernel=3\nrelu\nflatten\nb: linear 5\nc: linear 2\n", "width", "0.5",
     "input 3x4x4\na: conv 3 kernel=3\nrelu\nflatten\nb: linear 3\nc: linear 2\n"},
    {"input 4\na: linear 1\nb: linear 2\n", "width", "0.1", "input 4\na: linear 1\nb: linear 2\n"},
    {"input 3x4x4\na: conv 3 kernel=1 groups=3\nb: conv 4 kernel=1\nc: conv 8 kernel=1 groups=4\nd: conv 2 kernel=1\n",
     "width", "2",
     "input 3x4x4\na: conv 3 kernel=1 groups=3\nb: conv 8 kernel=1\nc: conv 16 kernel=1 groups=8\nd: conv 2 kernel=1\n"},
    {"input 2x3x3\na: conv 4 kernel=1\nr: relu\nb: conv 4 kernel=1\nadd r\nflatten\nc: linear 2\n", "width", "1.5",
     "input 2x3x3\na: conv 6 kernel=1\nr: relu\nb: conv 6 kernel=1\nadd r\nflatten\nc: linear 2\n"},
    {"input 2x3x3\na: convtranspose 4 kernel=2\nb: prelu 4\nflatten\nc: prelu 64\nd: prelu\n"
     "e: linear 2\nf: prelu 2\n",
     "width", "2",
     "input 2x3x3\na: convtranspose 8 kernel=2\nb: prelu 8\nflatten\nc: prelu 128\nd: prelu\n"
     "e: linear 2\nf: prelu 2\n"},

    {"input 4\na: linear 4\np: prelu\nhardswish\nb: linear 4\nclip min=0 max=6\n", "activation", "relu",
     "input 4\na: linear 4\np: relu\nrelu\nb: linear 4\nrelu\n"},
    {"input 4\na: linear 4\nrelu\nleakyrelu 0.2\nb: linear 4\nleakyrelu 0.3\n", "activation", "leakyrelu",
     "input 4\na: linear 4\nleakyrelu\nleakyrelu 0.2\nb: linear 4\nleakyrelu 0.3\n"},
    {"input 4\na: linear 4\nr: relu\nb: linear 4\nadd r\ntanh\n", "activation", "silu",
     "input 4\na: linear 4\nr: silu\nb: linear 4\nadd r\nsilu\n"},

    /* norm: eps, scale and shift stay, and the layer's label */
    {"input 6x4x4\na: conv 6 kernel=3\nn: batchnorm eps=1e-3 momentum=0.5 shift=false\nrelu\nflatten\n"
     "b: linear 12\nm: batchnorm\nc: linear 2\n",
     "norm", "group",
     "input 6x4x4\na: conv 6 kernel=3\nn: groupnorm 6 eps=1e-3 shift=false\nrelu\nflatten\n"
     "b: linear 12\nm: groupnorm 6\nc: linear 2\n"},
    {"input 6x4x4\na: conv 16 kernel=3\nn: batchnorm\nrelu\nb: conv 7 kernel=2\nm: batchnorm\nflatten\nc: linear 11\n"
     "o: batchnorm\n",
     "norm", "instance",
     "input 6x4x4\na: conv 16 kernel=3\nn: instancenorm scale=true shift=true\nrelu\nb: conv 7 kernel=2\n"
     "m: layernorm\nflatten\nc: linear 11\no: layernorm\n"},
    {"input 3\na: linear 4\nn: batchnorm\nrelu\nb: linear 3\nm: batchnorm\n", "norm", "group",
     "input 3\na: linear 4\nn: groupnorm 2\nrelu\nb: linear 3\nm: groupnorm 1\n"},
    {"input 4\na: linear 22\nn: batchnorm scale=false\nrelu\nb: linear 2\n", "norm", "group",
     "input 4\na: linear 22\nn: groupnorm 2 scale=false\nrelu\nb: linear 2\n"},
    {"input 4\na: linear 4\nn: batchnorm\nrelu\nb: linear 2\n", "norm", "rms",
     "input 4\na: linear 4\nn: rmsnorm eps=1e-5\nrelu\nb: linear 2\n"},
    {"input 4\na: linear 4\nn: layernorm eps=0.1\nrelu\nb: linear 2\nm: batchnorm momentum=0.2\n", "norm", "batch",
     "input 4\na: linear 4\nn: batchnorm eps=0.1\nrelu\nb: linear 2\nm: batchnorm momentum=0.2\n"},
    {"input 4\na: linear 4\nn: layernorm\nrelu\nb: linear 2\n", "norm", "none", "input 4\na: linear 4\nrelu\nb: linear 2\n"},
    {"input 4\nn: relu\nlinear 3\n", "norm", "none", "input 4\nn: relu\nlinear 3\n"},
    /* a net without any: behind hidden layers, named as the net text names */
    {"input 3x4x4\na: conv 2 kernel=3\ns: relu\nflatten\nb: linear 4\nrelu\nc: linear 2\n", "norm", "batch",
     "input 3x4x4\na: conv 2 kernel=3\nbatchnorm1: batchnorm\ns: relu\nflatten\nb: linear 4\nbatchnorm2: batchnorm\nrelu\n"
     "c: linear 2\n"},
    {"input 2x4x4\na: conv 4 kernel=1\nb: conv 4 kernel=1\nc: conv 4 kernel=1 from=a\nadd b\nflatten\nlinear 3\n", "norm",
     "layer",
     "input 2x4x4\na: conv 4 kernel=1\nlayernorm1: layernorm\nb: conv 4 kernel=1\nlayernorm2: layernorm\n"
     "c: conv 4 kernel=1 from=layernorm1\nlayernorm3: layernorm\nadd layernorm2\nflatten\nlinear1: linear 3\n"},

    /* position: whoever read the second still reads what then stands there */
    {"input 4\na: linear 4\nn: batchnorm\nr: relu\nb: linear 4\nadd r\nc: linear 2\n", "position", "after",
     "input 4\na: linear 4\nr: relu\nn: batchnorm\nb: linear 4\nadd n\nc: linear 2\n"},
    {"input 4\na: linear 4\nr: relu\nn: batchnorm\nb: linear 4\nadd n\nc: linear 2\n", "position", "before",
     "input 4\na: linear 4\nn: batchnorm\nr: relu\nb: linear 4\nadd r\nc: linear 2\n"},
    /* ... by a name, where it now needs one */
    {"input 4\na: linear 4\nrelu\nn: batchnorm\nb: linear 4\nadd n\nc: linear 2\n", "position", "before",
     "input 4\na: linear 4\nn: batchnorm\nrelu1: relu\nb: linear 4\nadd relu1\nc: linear 2\n"},
    /* what another layer reads stays */
    {"input 4\na: linear 4\nn: batchnorm\nrelu\nb: linear 4\nm: batchnorm\nadd n\nrelu\nc: linear 2\no: batchnorm\ntanh\n",
     "position", "after",
     "input 4\na: linear 4\nn: batchnorm\nrelu\nb: linear 4\nm: batchnorm\nadd n\nrelu\nc: linear 2\ntanh\no: batchnorm\n"},

    {"input 4\na: linear 4\nn: batchnorm\nrelu\nb: linear 2\nm: layernorm\n", "momentum", "none",
     "input 4\na: linear 4\nn: batchnorm momentum=none\nrelu\nb: linear 2\nm: layernorm\n"},
    {"input 4\na: linear 4\nn: batchnorm eps=1\nb: linear 2\nm: layernorm\n", "eps", "0.001",
     "input 4\na: linear 4\nn: batchnorm eps=0.001\nb: linear 2\nm: layernorm eps=0.001\n"},
    {"input 4\na: linear 4\nn: batchnorm momentum=0.2\nb: linear 2\n", "ghost", "16",
     "input 4\na: linear 4\nn: batchnorm momentum=0.2 ghost=16\nb: linear 2\n"},

    /* dropout: behind activation and normalization in either order, not behind the last layer nor the net's output */
    {"input 4\na: linear 4\nn: batchnorm\nrelu\nb: linear 4\nrelu\nm: batchnorm\nc: linear 2\nrelu\n", "dropout", "0.25",
     "input 4\na: linear 4\nn: batchnorm\nrelu\ndropout 0.25\nb: linear 4\nrelu\nm: batchnorm\ndropout 0.25\nc: linear 2\n"
     "relu\n"},
    {"input 3x4x4\na: conv 2 kernel=3\nrelu\nflatten\nb: linear 2\n", "dropout", "0.5",
     "input 3x4x4\na: conv 2 kernel=3\nrelu\nflatten\ndropout\nb: linear 2\n"},
    {"input 4\na: linear 4\nr: relu\nb: linear 4\nadd r\nrelu\nc: linear 2\n", "dropout", "0.5",
     "input 4\na: linear 4\nr: relu\ndropout1: dropout\nb: linear 4\nadd dropout1\nrelu\nc: linear 2\n"},
    {"input 4\na: linear 4\nrelu\ndropout 0.1\nb: linear 4\nrelu\nc: linear 2\n", "dropout", "0.3",
     "input 4\na: linear 4\nrelu\ndropout 0.3\nb: linear 4\nrelu\nc: linear 2\n"},
    {"input 4\na: linear 4\nrelu\nd: dropout 0.1\nb: linear 4\nadd d\nc: linear 2\n", "dropout", "0",
     "input 4\na: linear 4\nd: relu\nb: linear 4\nadd d\nc: linear 2\n"},
};

static void changes(void **state)
{
    (void)state;
    ek_context *context = context_of();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ek_net *net = net_of(context, cases[i].text), *expected = net_of(context, cases[i].expected), *varied;
        assert_ok(ek_net_vary(net, cases[i].key, cases[i].value, &varied));
        assert_string_equal(ek_net_text(varied), ek_net_text(expected));
        ek_net_destroy(varied);
        ek_net_destroy(expected);
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

/* One step on four samples, where the net can be trained. */
static void train_step(ek_net *net)
{
    enum { SAMPLES = 4 };
    int64_t numbers = 1;
    ek_shape shape = ek_net_input_shape(net);
    for (int i = 0; i < shape.rank; i++) numbers *= shape.dim[i];
    float *x = calloc((size_t)(SAMPLES * numbers), sizeof *x);
    const int32_t labels[SAMPLES] = {0, 1, 2, 0};
    for (int64_t i = 0; i < SAMPLES * numbers; i++) x[i] = (float)(i % 17) / 17;
    ek_optimizer_options o = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_trainer *trainer;
    ek_step_result result;
    assert_ok(ek_trainer_create(net, &o, 1, &trainer));
    assert_ok(ek_trainer_step(trainer, SAMPLES, x, labels, &result));
    assert_false(result.skipped);
    ek_trainer_destroy(trainer);
    free(x);
}

static const struct change {
    const char *key, *value;
} all_changes[] = {
    {"width", "0.5"},      {"width", "1.7"},         {"activation", "relu"},  {"activation", "sigmoid"},
    {"activation", "tanh"}, {"activation", "silu"},   {"activation", "leakyrelu"}, {"norm", "batch"},
    {"norm", "none"},      {"norm", "layer"},        {"norm", "group"},       {"norm", "instance"},
    {"norm", "rms"},       {"position", "before"},   {"position", "after"},   {"momentum", "0.01"},
    {"eps", "0.001"},      {"ghost", "2"},           {"dropout", "0.5"},      {"dropout", "0"},
};

/* Every key on every shipped net: it trains, or the net has nothing to change. */
static void shipped(void **state)
{
    (void)state;
    ek_context *context = context_of();
    for (int i = 0; ek_shipped_net_name(i); i++) {
        const char *name = ek_shipped_net_name(i);
        ek_net *net, *varied;
        assert_ok(ek_net_open(context, name, &net));
        bool plain = !strstr(ek_net_text(net), "batchnorm");
        for (size_t k = 0; k < sizeof all_changes / sizeof *all_changes; k++) {
            const struct change *c = &all_changes[k];
            bool of_norms = strchr("pmeg", *c->key);
            bool smallest = !strcmp(name, "simple-net") &&
                            (!strcmp(c->key, "width") || (!strcmp(c->key, "dropout") && strcmp(c->value, "0")));
            ek_status status = ek_net_vary(net, c->key, c->value, &varied);
            if (status != ((plain && of_norms) || smallest ? EK_E_UNSUPPORTED : EK_OK))
                fail_msg("%s %s=%s: %s: %s", name, c->key, c->value, ek_status_name(status), ek_error());
            if (status != EK_OK) continue;
            train_step(varied);
            ek_net_destroy(varied);
        }
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

/* There and back is the net as it was, and what needs no change gets none. */
static void there_and_back(void **state)
{
    static const char *const ways[][3] = {{"position", "after", "before"}, {"norm", "layer", "batch"},
                                          {"norm", "rms", "batch"},        {"width", "2", "0.5"},
                                          {"dropout", "0.3", "0"},         {"ghost", "8", "0"},
                                          {"momentum", "0.3", "0.1"},      {"eps", "0.3", "1e-5"}};
    (void)state;
    ek_context *context = context_of();
    for (int i = 0; ek_shipped_net_name(i); i++) {
        ek_net *net, *there, *back;
        assert_ok(ek_net_open(context, ek_shipped_net_name(i), &net));
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            if (!strstr(ek_net_text(net), "batchnorm") || ek_net_vary(net, ways[k][0], ways[k][1], &there) != EK_OK) continue;
            assert_string_not_equal(ek_net_text(there), ek_net_text(net));
            /* A scale that was made for rmsnorm has no shift to bring back; labels of new layers may stay. */
            assert_ok(ek_net_vary(there, ways[k][0], ways[k][2], &back));
            assert_string_equal(ek_net_text(back), ek_net_text(net));
            ek_net_destroy(back);
            ek_net_destroy(there);
        }
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

/* The shipped nets without normalization are those with it and norm=none, and the reverse. */
static void siblings(void **state)
{
    static const char *const pairs[][2] = {{"lenet-bn", "lenet"}, {"mlp-bn", "mlp"}};
    (void)state;
    ek_context *context = context_of();
    for (int i = 0; i < 2; i++) {
        ek_net *with, *without, *varied;
        assert_ok(ek_net_open(context, pairs[i][0], &with));
        assert_ok(ek_net_open(context, pairs[i][1], &without));
        for (int k = 0; k < 2; k++) {
            const ek_net *expected = k ? with : without;
            assert_ok(ek_net_vary(k ? without : with, "norm", k ? "batch" : "none", &varied));
            assert_int_equal(ek_net_layer_count(varied), ek_net_layer_count(expected));
            for (int l = 0; l < ek_net_layer_count(expected); l++) {
                ek_layer_info a = ek_net_layer(varied, l), b = ek_net_layer(expected, l);
                assert_string_equal(a.op, b.op);
                assert_string_equal(a.options, b.options);
                assert_int_equal(a.redundant_bias, b.redundant_bias);
            }
            ek_net_destroy(varied);
        }
        ek_net_destroy(with);
        ek_net_destroy(without);
    }
    ek_context_destroy(context);
}

static void refusals(void **state)
{
    static const struct {
        const char *net, *key, *value, *words;
        ek_status status;
    } refused[] = {
        {"lenet-bn", "nrom", "batch", "a net has no 'nrom'; did you mean 'norm'?", EK_E_ARGUMENT},
        {"lenet-bn", "colour", "red", "there are: width, activation, norm,", EK_E_ARGUMENT},
        {"lenet-bn", "norm", "bacth", "there is no norm 'bacth'; did you mean 'batch'?", EK_E_ARGUMENT},
        {"lenet-bn", "position", "x", "there are: before, after", EK_E_ARGUMENT},
        {"lenet-bn", "activation", "relo", "did you mean 'relu'?", EK_E_ARGUMENT},
        {"lenet-bn", "width", "0", "width must be a number above 0 and at most 1000, not '0'", EK_E_ARGUMENT},
        {"lenet-bn", "width", "1x", "not '1x'", EK_E_ARGUMENT},
        {"lenet-bn", "eps", "0", "eps of batchnorm must be a number from 1e-30", EK_E_ARGUMENT},
        {"lenet-bn", "momentum", "2", "momentum of batchnorm must be a number from 0 to 1, or none, not '2'", EK_E_ARGUMENT},
        {"lenet-bn", "ghost", "-1", "ghost of batchnorm must be a whole number", EK_E_ARGUMENT},
        {"lenet-bn", "dropout", "1", "p of dropout must be a number from 0 to 0.999, not '1'", EK_E_ARGUMENT},
        {"lenet", "position", "after", "the net has no normalization that could be moved", EK_E_UNSUPPORTED},
        {"lenet", "momentum", "0.1", "no batch normalization, whose momentum this is", EK_E_UNSUPPORTED},
        {"lenet", "eps", "0.1", "no normalization", EK_E_UNSUPPORTED},
        {"lenet", "ghost", "4", "no batch normalization", EK_E_UNSUPPORTED},
        {"simple-net", "width", "2", "no hidden layer that could be wider", EK_E_UNSUPPORTED},
        {"simple-net", "dropout", "0.2", "no hidden layer before a linear one", EK_E_UNSUPPORTED},
    };
    (void)state;
    ek_context *context = context_of();
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        ek_net *net, *varied = NULL;
        assert_ok(ek_net_open(context, refused[i].net, &net));
        assert_fails(refused[i].status, refused[i].words, ek_net_vary(net, refused[i].key, refused[i].value, &varied));
        assert_null(varied);
        ek_net_destroy(net);
    }
    ek_net *apart = net_of(context, "input 4\na: linear 4\nn: batchnorm\nb: linear 2\n"), *varied;
    assert_fails(EK_E_UNSUPPORTED, "next to an activation", ek_net_vary(apart, "position", "after", &varied));
    assert_fails(EK_E_UNSUPPORTED, "no activation", ek_net_vary(apart, "activation", "relu", &varied));
    assert_fails(EK_E_ARGUMENT, "needs a net", ek_net_vary(NULL, "norm", "none", &varied));
    assert_null(ek_vary_key(-1));
    assert_string_equal(ek_vary_key(0), "width");
    ek_net_destroy(apart);
    /* shapes that do not meet are told with the change that made them */
    ek_net *grouped = net_of(context, "input 2x3x3\nconv 4 kernel=1\nconv 4 kernel=1 groups=2\nconv 2 kernel=1\n");
    assert_fails(EK_E_SHAPE, "the net with width=0.2:3:", ek_net_vary(grouped, "width", "0.2", &varied));
    ek_net_destroy(grouped);
    ek_context_destroy(context);
}

static void memory(void **state)
{
    (void)state;
    ek_context *context = context_of();
    ek_net *net = net_of(context, cases[0].text), *varied;
    for (size_t k = 0; k < 3; k++) {
        static const char *const ways[][2] = {{"width", "2"}, {"dropout", "0.5"}, {"norm", "batch"}};
        for (failing f = {0}; fail_next(&f);) {
            varied = NULL;
            f.status = ek_net_vary(net, ways[k][0], ways[k][1], &varied);
            if (f.status == EK_OK) ek_net_destroy(varied);
        }
    }
    ek_net_destroy(net);
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes),  cmocka_unit_test(shipped),  cmocka_unit_test(there_and_back),
        cmocka_unit_test(siblings), cmocka_unit_test(refusals), cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
