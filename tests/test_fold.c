/* Folding: each kind of layer, before and after; what is refused, and why. */
#include "testing.h"

#include "core/random.h"
#include "graph/fold.h"
#include "lab/certificate.h"

#include <math.h>
#include <stdio.h>

static ek_context *context, *reference;

/* --- nets */

/* Numbers of few binary digits, for which folding and running it in double make no rounding error at all: weights and beta
 * are eighths, mean a quarter, gamma a power of two, and with eps=0.25 the root of var + eps is 1/2, 1 or 2. */
static float dyadic(ek_role role, uint32_t random)
{
    static const float gammas[] = {0.5f, 1, 2, -1}, vars[] = {0, 0.75f, 3.75f};
    switch (role) {
    case EK_ROLE_GAMMA: return gammas[random % 4];
    case EK_ROLE_RUNNING_VAR: return vars[random % 3];
    case EK_ROLE_RUNNING_MEAN: return (float)(int)(random % 9) / 4 - 1;
    case EK_ROLE_WEIGHT:
    case EK_ROLE_BIAS:
    case EK_ROLE_BETA:
    case EK_ROLE_COUNTER: break;
    }
    return (float)(int)(random % 33) / 8 - 2;
}

static float usual(ek_role role, ek_random *random)
{
    double x = ek_random_normal(random);
    if (role == EK_ROLE_GAMMA) return (float)(1 + x / 4);
    if (role == EK_ROLE_RUNNING_VAR) return (float)exp(x);
    return (float)(role == EK_ROLE_WEIGHT ? x / 4 : x);
}

static ek_net *make(ek_context *of, const char *text, bool exact)
{
    ek_net *net;
    ek_random random = ek_random_start(5, EK_STREAM_INIT, 0);
    assert_ok(ek_net_create(of, text, "test", &net));
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        int64_t count = 1;
        for (int d = 0; d < t.shape.rank; d++) count *= t.shape.dim[d];
        bool redundant = t.role == EK_ROLE_BIAS && !t.grad;
        for (int64_t k = 0; t.data && !redundant && k < count; k++)
            t.data[k] =
                exact ? dyadic(t.role, (uint32_t)(ek_random_uniform(&random) * 1e6)) : usual(t.role, &random);
    }
    return net;
}

enum { SAMPLES = 3, MOST = 4096 };

/* The largest difference of the outputs, over the largest output. */
static double difference(ek_net *a, ek_net *b, bool exact)
{
    static float x[SAMPLES * MOST], ya[SAMPLES * MOST], yb[SAMPLES * MOST];
    ek_random random = ek_random_start(6, EK_STREAM_INIT, 0);
    int64_t in = 1, out = 1;
    double most = 0, largest = 0;
    for (int d = 0; d < ek_net_input_shape(a).rank; d++) in *= ek_net_input_shape(a).dim[d];
    for (int d = 0; d < ek_net_output_shape(a).rank; d++) out *= ek_net_output_shape(a).dim[d];
    assert_true(in <= MOST && out <= MOST);
    for (int64_t i = 0; i < SAMPLES * in; i++)
        x[i] =
            exact ? (float)floor(ek_random_uniform(&random) * 16) / 4 - 2 : (float)ek_random_normal(&random);
    assert_ok(ek_net_forward(a, EK_MODE_INFERENCE, SAMPLES, x, ya));
    assert_ok(ek_net_forward(b, EK_MODE_INFERENCE, SAMPLES, x, yb));
    for (int64_t i = 0; i < SAMPLES * out; i++) {
        most = fmax(most, fabs((double)ya[i] - yb[i]));
        largest = fmax(largest, fabs(ya[i]));
    }
    assert_true(largest > 0);
    return most / largest;
}

/* --- what is folded */

typedef struct fold_case {
    const char *text;
    const char *expected; /* by normalization: b(efore), a(fter), m(ap), i(dentity), k(ept) */
} fold_case;

#define BN "batchnorm eps=0.25\n"
static const fold_case folded[] = {
    /* Before. */
    {"input 3x7x6\nc: conv 4 kernel=3 padding=1 bias=false\nn: " BN, "b"},
    {"input 4x7x6\nc: conv 6 kernel=3x2 groups=2\nn: " BN "relu\n", "b"},
    {"input 4x7x6\nc: conv 4 kernel=3 groups=4 padding=1\nn: " BN, "b"},
    {"input 2x9x9\nc: conv 3 kernel=3 dilation=2 padding=2\nn: " BN, "b"},
    {"input 2x9x8\nc: conv 3 kernel=3 stride=2 padding=1\nn: " BN, "b"},
    {"input 2x9\nc: conv1d 3 kernel=3 stride=2 padding=1\nn: " BN, "b"},
    {"input 4x5x4\nc: convtranspose 6 kernel=3 stride=2 padding=1 output_padding=1 groups=2\nn: " BN, "b"},
    {"input 4x5x4\nc: convtranspose 4 kernel=3x2 dilation=2 groups=4 bias=false\nn: " BN, "b"},
    {"input 4x5\nc: convtranspose1d 6 kernel=3 stride=2\nn: " BN, "b"},
    {"input 5\nf: linear 4\nn: batchnorm eps=0.25 shift=false\n", "b"},
    {"input 5\nf: linear 4 bias=false\nn: batchnorm eps=0.25 scale=false\nrelu\ng: linear 3\nm: " BN, "bb"},
    {"input 5\nf: linear 4\nn: batchnorm eps=0.25 frozen=true\n", "b"},
    {"input 5\nf: linear 4\nn: batchnorm eps=0.25 ghost=2\n", "b"},
    {"input 5\nf: linear 4\nn: batchnorm eps=0.25 r_max=3 d_max=5\n", "b"},
    /* Before, through what changes nothing. */
    {"input 5\nf: linear 4\ndropout 0.5\nn: " BN, "b"},
    {"input 2x8x8\nc: conv 3 kernel=3\navgpool 2\nn: " BN, "b"},
    {"input 2x8x8\nc: conv 3 kernel=3\navgpool 2 padding=1 count_pad=false\nn: " BN, "b"},
    {"input 2x8x8\nc: conv 3 kernel=3\nglobalavgpool\nflatten\nn: " BN, "b"},
    {"input 2x6x6\nc: conv 3 kernel=3\nn: " BN "m: " BN "o: " BN, "bbb"},
    /* After. */
    {"input 5\nn: " BN "f: linear 4\n", "a"},
    {"input 5\nn: " BN "f: linear 4 bias=false\n", "a"},
    {"input 5\nn: " BN "dropout 0.5\nf: linear 4\n", "a"},
    {"input 5\nn: " BN "m: " BN "f: linear 4\n", "ab"},
    {"input 3x6x5\nn: " BN "c: conv 4 kernel=3\n", "a"},
    {"input 4x6x5\nn: " BN "c: conv 6 kernel=3x2 groups=2 stride=2\n", "a"},
    {"input 4x6x5\nn: " BN "c: conv 4 kernel=1 groups=4\n", "a"},
    {"input 2x9x9\nn: " BN "c: conv 3 kernel=3 dilation=2\n", "a"},
    {"input 2x9\nn: " BN "c: conv1d 3 kernel=1 stride=2\n", "a"},
    {"input 4x6x5\nn: " BN "c: convtranspose 6 kernel=1 groups=2\n", "a"},
    {"input 3x4x5\nn: " BN "flatten\nf: linear 4\n", "a"},
    {"input 3x4x5\nn: " BN "globalavgpool\nflatten\nf: linear 4\n", "a"},
    {"input 3x6x6\nn: " BN "avgpool 2\nc: conv 4 kernel=2\n", "a"},
    {"input 1x6x9\nn: " BN "flatten\nm: " BN "f: linear 4\n", "aa"},
    /* After, where zero padding keeps the constant from the borders. */
    {"input 3x6x5\nn: " BN "c: conv 4 kernel=3 padding=1\n", "m"},
    {"input 3x6x5\nn: " BN "c: conv 4 kernel=3 padding=1 bias=false\nm: " BN "relu\n", "mb"},
    {"input 4x7x9\nn: " BN "c: conv 6 kernel=5x3 padding=2x1 groups=2 stride=2 dilation=1x2\n", "m"},
    {"input 4x6x5\nn: " BN "c: conv 8 kernel=3 padding=1 groups=4\n", "m"},
    {"input 3x6x6\nn: " BN "avgpool 2\nc: conv 4 kernel=2 padding=1\nrelu\nflatten\nf: linear 3\n", "m"},
    {"input 3x6x6\nn: batchnorm eps=0.25 shift=false\nreshape 6x3x6\nm: " BN "c: conv 4 kernel=3 padding=1\n",
     "mm"},
    {"input 3x6x5\nn: " BN "c: conv 4 kernel=2 padding=0 padding_end=1\n", "m"},
    {"input 4x5x4\nn: " BN "c: convtranspose 6 kernel=3 stride=2 padding=1 output_padding=1 groups=2\n", "m"},
    {"input 4x5x4\nn: " BN "c: convtranspose 4 kernel=3x2 dilation=2 groups=4\n", "m"},
    {"input 2x3x4\nreshape 2x12\nn: " BN "c: conv1d 3 kernel=3 padding=1\n", "m"},
    {"input 2x3x4\nreshape 2x12\nn: " BN "c: convtranspose1d 3 kernel=4 stride=2\n", "m"},
    /* An affine with a number a channel is folded like a normalization. */
    {"input 3x6x6\nc: conv 4 kernel=3\nn: affine 4x1x1\nrelu\n", "b"},
    {"input 3x6x6\nc: conv 4 kernel=3\nn: affine 1x1x1 shift=false\nrelu\n", "b"},
    {"input 3x6x6\nn: affine 3x1x1 scale=false\nc: conv 4 kernel=3 padding=1\n", "m"},
    {"input 5\nn: affine 5 scale=false\nm: " BN "f: linear 3\n", "ab"},
    /* A norm of each sample takes one in. */
    {"input 4x3x3\nrelu\nl: groupnorm 2\nn: " BN "relu\n", "kb"},
    {"input 4x3x3\nrelu\nl: layernorm scale=false shift=false\nn: " BN "relu\n", "kb"},
    /* Both. */
    {"input 3x6x5\nn: " BN "c: conv 4 kernel=3\nm: " BN "relu\n", "ab"},
    {"input 3x6x5\na: conv 4 kernel=1\nb: conv 4 kernel=1\nn: " BN "add a\nm: " BN "d: conv 3 kernel=2\n",
     "ba"},
};

/* --- what is kept */

typedef struct kept_case {
    const char *text, *reason;
} kept_case;

static const kept_case kept[] = {
    {"input 5\nf: linear 4\nn: batchnorm track=false\n",
     "track=false: at inference too the batch's own statistics count"},
    {"input 5\nf: linear 4\nn: layernorm\n", "each sample is normalized by its own statistics"},
    {"input 3x4x4\nc: conv 4 kernel=3\nrelu\nn: " BN "relu\nd: conv 4 kernel=1\n",
     "it reads a relu, which has no weights, and a relu follows, which has no weights"},
    {"input 5\nf: linear 4\nrelu\nn: " BN "m: linear 3\nk: linear 3 from=n\nadd m\n",
     "it reads a relu, which has no weights, and 2 layers read it"},
    {"input 5\nf: linear 4\nn: " BN "relu\nadd f\n",
     "others too read linear 'f', and a relu follows, which has no weights"},
    {"input 5\nn: " BN "relu\n", "it reads the net's input, and a relu follows, which has no weights"},
    {"input 5\nf: linear 4\nrelu\nn: " BN, "it reads a relu, which has no weights, and it ends the net"},
    {"input 3x6x6\nc: conv 4 kernel=3\nmaxpool 2\nn: " BN,
     "it reads a maxpool, which has no weights, and it ends the net"},
    {"input 3x6x6\nc: conv 4 kernel=3\navgpool 3 padding=1\nn: " BN,
     "it reads an avgpool, which has no weights, and it ends the net"},
    {"input 3x6x6\nc: conv 4 kernel=3\nflatten\nn: " BN,
     "a flatten lies before it, and places of one channel are scaled apart, and it ends the net"},
    {"input 2x9\nn: " BN "c: conv1d 3 kernel=3 padding=1\n",
     "it reads the net's input, and what conv1d 'c' makes of its constant depends on a sequence's length"},
    {"input 2x9\nn: " BN "c: conv1d 3 kernel=3\n",
     "it reads the net's input, and what conv1d 'c' makes of its constant depends on a sequence's length"},
    {"input 2x9\nn: " BN "c: convtranspose1d 3 kernel=2 stride=2\n",
     "it reads the net's input, and what convtranspose1d 'c' makes of its constant depends on a sequence's "
     "length"},
    {"input 2x9\nn: " BN "flatten\nf: linear 3\n",
     "it reads the net's input, and a flatten follows, which has no weights"},
    {"input 3x6x6\nc: conv 4 kernel=3\nn: affine 4x4x4\n",
     "it has a number for each place, not one a channel"},
    {"input 3x6x6\nc: conv 4 kernel=3\npermute 1,0,2\nn: " BN,
     "it reads a permute, which has no weights, and it ends the net"},
};

static char letter(const ek_fold_entry *entry)
{
    switch (entry->how) {
    case EK_FOLD_KEPT: break;
    case EK_FOLD_BEFORE: return 'b';
    case EK_FOLD_AFTER: return 'a';
    case EK_FOLD_AFTER_MAP: return 'm';
    case EK_FOLD_IDENTITY: return 'i';
    }
    return 'k';
}

static int norms_of(const ek_net *net)
{
    int count = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) count += ek_net_layer(net, i).normalizes;
    return count;
}

static void each_kind_of_layer_takes_it_in_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof folded / sizeof *folded; i++) {
        ek_fold_list list;
        ek_net *net = make(reference, folded[i].text, true), *of;
        assert_ok(ek_net_fold_listed(net, &list, &of));
        char how[8] = "";
        for (int k = 0; k < list.count; k++) how[k] = letter(&list.entry[k]);
        if (strcmp(how, folded[i].expected))
            fail_msg("%s: %s, not %s (%s)", folded[i].text, how, folded[i].expected, list.entry[0].reason);
        int keeps = 0;
        for (int k = 0; k < list.count; k++) keeps += list.entry[k].how == EK_FOLD_KEPT;
        assert_int_equal(norms_of(of), keeps);
        double off = difference(net, of, true);
        if (off != 0) fail_msg("%s: exact numbers differ by %g", folded[i].text, off);
        ek_fold_list_free(&list);
        ek_net_destroy(of);
        ek_net_destroy(net);

        net = make(context, folded[i].text, false);
        assert_ok(ek_net_fold(net, true, &of));
        off = difference(net, of, false);
        if (!(off < 2e-6)) fail_msg("%s: usual numbers differ by %g", folded[i].text, off);
        ek_net_destroy(of);
        ek_net_destroy(net);
    }
}

static void what_cannot_be_folded_stays_and_says_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        ek_fold_list list;
        ek_net *net = make(reference, kept[i].text, true), *of;
        assert_ok(ek_net_fold_listed(net, &list, &of));
        assert_int_equal(list.count, 1);
        assert_int_equal(list.entry[0].how, EK_FOLD_KEPT);
        assert_string_equal(list.entry[0].reason, kept[i].reason);
        assert_string_equal(ek_net_text(net), ek_net_text(of));
        assert_true(difference(net, of, true) == 0);
        ek_fold_list_free(&list);
        ek_net_destroy(of);
        ek_net_destroy(net);
    }
}

/* The numbers of a layer that folding would make infinite. */
static void what_a_float_cannot_hold_is_not_folded(void **state)
{
    (void)state;
    ek_net *net = make(context, "input 5\nf: linear 4 bias=false\nn: batchnorm eps=1e-30\nrelu\n", false),
           *of;
    ek_tensor t;
    ek_fold_list list;
    assert_ok(ek_net_find_tensor(net, "n.running_var", &t));
    t.data[2] = 0;
    assert_ok(ek_net_find_tensor(net, "f.weight", &t));
    t.data[2 * 5] = 1e30f;
    assert_ok(ek_net_fold_listed(net, &list, &of));
    assert_int_equal(list.entry[0].how, EK_FOLD_KEPT);
    assert_string_equal(list.entry[0].reason,
                        "the numbers of linear 'f' would overflow, and a relu follows, which has no weights");
    ek_fold_list_free(&list);
    ek_net_destroy(of);
    ek_net_destroy(net);
}

static void an_identity_drops_out(void **state)
{
    (void)state;
    ek_fold_list list;
    ek_net *net, *of;
    assert_ok(ek_net_create(context, "input 5\nn: affine 5\nrelu\nm: affine 1\nf: linear 3\nl: affine 3\n",
                            "test", &net));
    assert_ok(ek_net_fold_listed(net, &list, &of));
    assert_int_equal(list.count, 3);
    for (int i = 0; i < 3; i++) assert_int_equal(list.entry[i].how, EK_FOLD_IDENTITY);
    assert_string_equal(ek_net_text(of), "input  5\n       relu\nf:     linear 3\n");
    assert_true(difference(net, of, false) == 0);
    ek_fold_list_free(&list);
    ek_net_destroy(of);
    ek_net_destroy(net);
}

/* What belongs to a net beside its layers stays; a model file of the folded net gives the same numbers. */
static void labels_and_class_names_stay(void **state)
{
    (void)state;
    static const char *const names[] = {"cat", "dog"};
    ek_net *net =
        make(context,
             "input 3x6x6\nn: " BN "c: conv 2 kernel=3 padding=1 bias=false\nrelu\nglobalavgpool\nflatten\n",
             false);
    ek_net *of;
    assert_ok(ek_net_set_classes(net, names, 2));
    assert_ok(ek_net_fold(net, true, &of));
    assert_string_equal(ek_net_class(of, 1), "dog");
    assert_string_equal(ek_net_text(of), "input        3x6x6\n"
                                         "c:           conv 2 kernel=3 padding=1 bias=false\n"
                                         "c.bias_map:  affine 2x6x6 scale=false\n"
                                         "             relu\n"
                                         "             globalavgpool\n"
                                         "             flatten\n");
    ek_net_destroy(of);
    ek_net_destroy(net);
}

/* --- the certificate */

#define NET "input 3x6x6\nn: " BN "c: conv 4 kernel=3 padding=1\nm: " BN "relu\nflatten\nf: linear 3\n"

static void the_certificate_finds_the_largest_difference(void **state)
{
    (void)state;
    ek_net *net = make(context, NET, false);
    ek_fold *fold;
    ek_fold_options o = ek_fold_options_default();
    o.samples = 40;
    assert_ok(ek_fold_create(net, &o, &fold));
    assert_true(ek_fold_holds(fold));
    assert_int_equal(ek_fold_layer_count(fold), 2);
    assert_string_equal(ek_fold_layer(fold, 0)->into_label, "c");
    assert_true(ek_fold_layer(fold, 1)->error < 1e-5);
    assert_int_equal(ek_fold_run_count(fold), 3);
    for (int i = 0; i < 3; i++) assert_true(ek_fold_run_at(fold, i)->relative < 1e-5);

    /* Broken in one number: found, and where. */
    ek_tensor bias;
    assert_ok(ek_net_find_tensor(ek_fold_net(fold), "f.bias", &bias));
    float sound = bias.data[1];
    bias.data[1] += 0.5f;
    assert_ok(ek_fold_certify(fold, net, &o));
    assert_false(ek_fold_holds(fold));
    const ek_fold_run *run = ek_fold_run_at(fold, 1);
    assert_int_equal(run->output, 1);
    assert_true(fabs(run->difference - 0.5) < 1e-4 && fabs(run->folded - run->value - 0.5) < 1e-4);
    bias.data[1] = NAN;
    assert_ok(ek_fold_certify(fold, net, &o));
    assert_false(ek_fold_holds(fold));
    bias.data[1] = sound;
    assert_ok(ek_fold_certify(fold, net, &o));
    assert_true(ek_fold_holds(fold));
    assert_ok(ek_net_find_tensor(ek_fold_net(fold), "c.bias_map.bias", &bias));
    bias.data[0] += 0.5f;
    assert_ok(ek_fold_certify(fold, net, &o));
    assert_true(ek_fold_layer(fold, 0)->error > 0.01);
    ek_fold_destroy(fold);
    ek_net_destroy(net);
}

/* Of random lengths too, and what cannot be had for them is kept. */
static void sequences_are_compared_with_random_lengths(void **state)
{
    (void)state;
    ek_net *net =
        make(context,
             "input 2x9\nn: " BN "c: conv1d 4 kernel=1\nm: " BN "relu\nd: conv1d 4 kernel=3 padding=1\n"
             "o: " BN "p: conv1d 3 kernel=3 padding=1\nglobalavgpool\nflatten\nf: linear 3\n",
             false);
    ek_fold *fold;
    assert_ok(ek_fold_create(net, NULL, &fold));
    assert_true(ek_fold_holds(fold));
    assert_int_equal(ek_fold_layer(fold, 0)->how, EK_FOLD_AFTER);
    assert_int_equal(ek_fold_layer(fold, 2)->how, EK_FOLD_BEFORE);
    assert_string_equal(ek_fold_run_at(fold, 2)->input, "lengths");
    assert_true(ek_fold_run_at(fold, 2)->relative < 1e-5);
    ek_fold_destroy(fold);
    ek_net_destroy(net);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    ek_net *net = make(context, NET, false);
    ek_fold *fold;
    ek_fold_options o = ek_fold_options_default();
    o.bound = 0;
    assert_fails(EK_E_ARGUMENT, "bound must be above 0", ek_fold_create(net, &o, &fold));
    o = ek_fold_options_default();
    o.samples = 0;
    assert_fails(EK_E_ARGUMENT, "samples must be 1 or more", ek_fold_create(net, &o, &fold));
    ek_tensor t;
    assert_ok(ek_net_find_tensor(net, "f.weight", &t));
    t.data[0] = INFINITY;
    assert_fails(EK_E_NUMERIC, "the net itself, before any folding", ek_fold_create(net, NULL, &fold));
    ek_net_destroy(net);
    o = ek_fold_options_default();
    o.samples = 3;
    for (failing f = {0}; fail_next(&f);) {
        f.status = ek_net_create(context, NET, "test", &net);
        if (f.status != EK_OK) continue;
        f.status = ek_fold_create(net, &o, &fold);
        if (f.status == EK_OK) ek_fold_destroy(fold);
        ek_net_destroy(net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_layer_takes_it_in_exactly),
        cmocka_unit_test(what_cannot_be_folded_stays_and_says_why),
        cmocka_unit_test(what_a_float_cannot_hold_is_not_folded),
        cmocka_unit_test(an_identity_drops_out),
        cmocka_unit_test(labels_and_class_names_stay),
        cmocka_unit_test(the_certificate_finds_the_largest_difference),
        cmocka_unit_test(sequences_are_compared_with_random_lengths),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    ek_context_options options = ek_context_options_default();
    options.isa = "reference";
    if (ek_context_create(NULL, &context) != EK_OK || ek_context_create(&options, &reference) != EK_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ek_context_destroy(context);
    ek_context_destroy(reference);
    return failed;
}
