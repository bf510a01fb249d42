/* Whole nets, by lanes against the oracle: branches and joins, batches of every size up to the plan's, and plans
 * that are made anew between steps. */
#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "data/batches.h"
#include "graph/net.h"
#include "kernels/kernels.h"

#include <math.h>

enum { CLASSES = 3, LARGEST = 35 };

/* A run of steps; the plan grows and its batches shrink. */
static const int batches[] = {17, 3, LARGEST, 16, 2, 33};

static const char *const nets[] = {
    /* BNs that read what others read too, in maps and in rows */
    "input 2x6x5\nc: conv 5 kernel=3 padding=1\nb: batchnorm\nrelu\nconv 5 kernel=3 "
    "padding=1\nbatchnorm\nadd c\nsilu\n"
    "globalavgpool\nflatten\nl: linear 7\nbatchnorm\nadd l\ntanh\nlinear 3\n",
    /* one value read three times, and twice by one layer */
    "input 3x5x4\na: conv 4 kernel=2\nb: sigmoid\nc: tanh from=a\nd: silu from=a\nadd b\nadd c\ne: "
    "leakyrelu\nadd e\n"
    "maxpool 2 stride=1\nflatten\nlinear 3\n",
    /* what is not trained reads what is not, and joins what is */
    "i: input 2x4x4\nbatchnorm scale=false shift=false\ns: add i\nc: conv 2 kernel=1\nadd s\nflatten\nlinear "
    "3\n",
    /* strides that leave borders unread, groups, frozen and untracked BN, dropout in both layouts */
    "input 4x9x8\nconv 6 kernel=2x3 stride=3x2 groups=2\nbatchnorm frozen=true\ndropout 0.2\navgpool 2 "
    "stride=2\nflatten\n"
    "dropout 0.3\nlinear 9 bias=false\nbatchnorm track=false\nlinear 3\n",
    /* nothing is trained */
    "input 3\ntanh\n",
    "input 3\n",
};
enum { NETS = sizeof nets / sizeof *nets };

static ek_context *context_of(const char *isa, int threads)
{
    ek_context *context;
    ek_context_options options = {.threads = threads, .isa = isa};
    assert_ok(ek_context_create(&options, &context));
    return context;
}

/* Gammas, betas and running statistics that differ from what they begin with. */
static void unsettle(ek_net *net)
{
    ek_random random = ek_random_start(3, EK_STREAM_TEST, 0);
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        if (t.role == EK_ROLE_WEIGHT || t.role == EK_ROLE_BIAS || t.counter) continue;
        for (int64_t k = 0; k < ek_shape_count(t.shape); k++)
            t.data[k] += (float)(0.5 * ek_random_uniform(&random));
    }
}

static void check_close(const char *net, const char *what, const float *want, const float *got, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)want[i]));
    for (int64_t i = 0; i < count; i++) {
        if (!(fabs((double)want[i] - got[i]) <= 2e-4 * largest + 1e-5))
            fail_msg("%s%s[%d] is %.9g, the oracle gives %.9g", net, what, (int)i, (double)got[i],
                     (double)want[i]);
    }
}

static void check_tensors(const char *text, const ek_net *oracle, const ek_net *lanes)
{
    for (int i = 0; i < ek_net_tensor_count(oracle); i++) {
        ek_tensor want = ek_net_tensor(oracle, i), got = ek_net_tensor(lanes, i);
        if (want.counter) {
            assert_int_equal(*want.counter, *got.counter);
            continue;
        }
        int64_t count = ek_shape_count(want.shape);
        check_close(text, want.name, want.data, got.data, count);
        if (want.grad) check_close(text, want.name, want.grad, got.grad, count);
    }
}

typedef struct side {
    ek_net *net;
    ek_trainer *trainer;
    float y[LARGEST * CLASSES];
} side;

static void begin(side *s, ek_context *context, const char *text)
{
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    options.lr = 0.05;
    assert_ok(ek_net_create(context, text, NULL, &s->net));
    unsettle(s->net);
    assert_ok(ek_trainer_create(s->net, &options, 5, &s->trainer));
}

static void end(side *s)
{
    ek_trainer_destroy(s->trainer);
    ek_net_destroy(s->net);
}

static void check_net(const char *text, ek_context *reference, ek_context *context)
{
    side oracle, lanes;
    begin(&oracle, reference, text);
    begin(&lanes, context, text);
    int64_t item = ek_shape_count(ek_net_input_shape(lanes.net));
    float *x = ek_calloc((size_t)(LARGEST * item), sizeof *x);
    assert_non_null(x);
    ek_random random = ek_random_start(9, EK_STREAM_TEST, 0);
    int32_t labels[LARGEST];
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        int n = batches[b];
        for (int64_t i = 0; i < n * item; i++) x[i] = (float)ek_random_normal(&random);
        for (int i = 0; i < n; i++) labels[i] = (int32_t)ek_random_below(&random, CLASSES);
        ek_step_result want, got;
        assert_ok(ek_trainer_step(oracle.trainer, n, x, labels, &want));
        assert_ok(ek_trainer_step(lanes.trainer, n, x, labels, &got));
        assert_false(want.skipped || got.skipped);
        assert_float_equal(want.loss, got.loss, 1e-4);
        check_tensors(text, oracle.net, lanes.net);
        ek_mode mode = b % 2 ? EK_MODE_TRAINING : EK_MODE_INFERENCE;
        assert_ok(ek_net_forward(oracle.net, mode, n, x, oracle.y));
        assert_ok(ek_net_forward(lanes.net, mode, n, x, lanes.y));
        check_close(text, "output", oracle.y, lanes.y, (int64_t)n * CLASSES);
    }
    ek_free(x);
    end(&oracle);
    end(&lanes);
}

static void training_by_lanes_follows_the_oracle(void **state)
{
    (void)state;
    ek_context *reference = context_of("reference", 1), *context = context_of(NULL, 2);
    for (int i = 0; i < NETS; i++) check_net(nets[i], reference, context);
    ek_context_destroy(context);
    ek_context_destroy(reference);
}

/* Long sums are cut into parts. */
static void long_sums_stay_inside(void **state)
{
    (void)state;
    enum { N = 96, IN = 400 };
    ek_context *context = context_of(NULL, 1);
    side s;
    begin(&s, context, "input 400\nlinear 400\nrelu\nlinear 300\n");
    float *x = ek_calloc(N * IN, sizeof *x);
    assert_non_null(x);
    int32_t labels[N] = {0};
    ek_step_result result;
    assert_ok(
        ek_trainer_step(s.trainer, N, x, labels, &result)); /* what it writes outside, the sanitizer sees */
    ek_free(x);
    end(&s);
    ek_context_destroy(context);
}

/* 2^30 numbers a sample, 2^24 samples and 256 layers are 2^64 bytes, which would count as none. */
static void a_run_beyond_counting_is_refused(void **state)
{
    (void)state;
    char text[2048] = "input 1024x1024x1024\n";
    for (int i = 0; i < 255; i++) strcat(text, "relu\n");
    ek_context *context = context_of(NULL, 1);
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    float nothing = 0;
    assert_fails(EK_E_MEMORY, "more than memory can hold",
                 ek_net_forward(net, EK_MODE_TRAINING, 1 << 24, &nothing, &nothing));
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* ek_net_forward cuts a large batch into pieces of 256 samples, but not where a BN uses the batch's statistics.
 * Every piece alone would have mean 0 too; the last samples lie elsewhere, so that its other numbers differ. */
static void a_batch_is_cut_only_where_samples_are_independent(void **state)
{
    (void)state;
    enum { N = 300, C = 2, S = 3, ITEM = C * S };
    static const struct {
        const char *text;
        ek_mode mode;
        bool batch; /* the batch's statistics; else mean 0 and variance 1, a fresh net's */
    } rows[] = {
        {"input 2x3x1\nbatchnorm", EK_MODE_TRAINING, true},
        {"input 2x3x1\nbatchnorm track=false", EK_MODE_TRAINING, true},
        {"input 2x3x1\nbatchnorm track=false", EK_MODE_INFERENCE, true},
        {"input 2x3x1\nbatchnorm", EK_MODE_INFERENCE, false},
    };
    float x[N * ITEM], y[N * ITEM];
    ek_random random = ek_random_start(4, EK_STREAM_TEST, 0);
    for (int i = 0; i < N * ITEM; i++) x[i] = (float)ek_random_normal(&random) + (i / ITEM < 256 ? 0 : 4);
    ek_context *context = context_of(NULL, 2);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        ek_net *net;
        assert_ok(ek_net_create(context, rows[r].text, NULL, &net));
        assert_ok(ek_net_forward(net, rows[r].mode, N, x, y));
        for (int c = 0; c < C; c++) {
            double mean = 0, var = 0;
            for (int i = 0; i < N * ITEM; i++) mean += i / S % C == c ? x[i] / (double)(N * S) : 0;
            for (int i = 0; i < N * ITEM; i++)
                var += i / S % C == c ? (x[i] - mean) * (x[i] - mean) / (N * S) : 0;
            if (!rows[r].batch) mean = 0, var = 1;
            for (int i = 0; i < N * ITEM; i++) {
                if (i / S % C == c) assert_float_equal(y[i], (x[i] - mean) / sqrt(var + 1e-5), 1e-5);
            }
        }
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

/* Operators refuse what only the batch shows, whoever runs them. */
static void one_value_a_channel_is_refused(void **state)
{
    (void)state;
    static const char *const isas[] = {NULL, "reference"};
    for (int i = 0; i < 2; i++) {
        ek_context *context = context_of(isas[i], 1);
        ek_net *net;
        assert_ok(ek_net_create(context, "input 2\nb: batchnorm", NULL, &net));
        float x[4] = {1, 2, 3, 4}, y[4] = {7, 7, 7, 7};
        assert_fails(EK_E_SHAPE, "b has one value a channel", ek_net_forward(net, EK_MODE_TRAINING, 1, x, y));
        assert_true(y[0] == 7 && y[1] == 7);
        assert_ok(ek_net_forward(net, EK_MODE_TRAINING, 2, x, y));
        assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, 1, x, y));
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

/* The oracle too hands out what goes into a softmax at the end. */
static void the_oracle_measures_what_goes_into_the_softmax(void **state)
{
    (void)state;
    static const char *const texts[] = {"input 4\nlinear 10", "input 4\nlinear 10\nsoftmax"};
    ek_context *reference = context_of("reference", 1);
    ek_dataset *data;
    ek_metrics metrics[2];
    assert_ok(ek_dataset_open("synthetic:4", EK_SPLIT_TEST, &data));
    for (int i = 0; i < 2; i++) {
        ek_net *net;
        assert_ok(ek_net_create(reference, texts[i], NULL, &net));
        assert_ok(ek_evaluate(net, data, 1000, &metrics[i]));
        ek_net_destroy(net);
    }
    assert_true(metrics[0].loss == metrics[1].loss);
    assert_true(metrics[0].accuracy == metrics[1].accuracy);
    ek_dataset_destroy(data);
    ek_context_destroy(reference);
}

/* Two ways into a net, a plain array and the batch maker, give the same bits; dead lanes aside. */
static void pixels_are_normalized_alike_on_every_way_in(void **state)
{
    (void)state;
    enum { N = 19 };
    static const char *const inputs[] = {
        "input 3x2x2 mean=0.1,0.2,0.3 std=0.7,0.8,0.9\nflatten\nlinear 2\n",
        "input 3x2x2 mean=0.5 std=0.25\nflatten\nlinear 2\n",
        "input 3x2x2 mean=0.1,0.2,0.3\nflatten\nlinear 2\n",
        "input 12 mean=-1 std=3\nlinear 2\n",
    };
    ek_context *context = context_of("baseline", 1);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        ek_net *net;
        assert_ok(ek_net_create(context, inputs[i], NULL, &net));
        float x[N * 12], row[N * 12], made[2 * EK_LANES * 12];
        int64_t index[N];
        ek_random random = ek_random_start(5, EK_STREAM_SYNTHETIC, 0);
        for (int k = 0; k < N * 12; k++) x[k] = (float)ek_random_uniform(&random);
        for (int k = 0; k < N; k++) index[k] = k;
        ek_dataset data = {.count = N, .item = 12, .floats = x};
        ek_pixels pixels = ek_net_pixels(net);
        assert_ok(ek_net_prepare(net, N, false));
        const float *input = ek_net_input(net);
        assert_ok(ek_batch_fill(net, &data, index, N));
        memcpy(made, input, (size_t)ek_value_floats(ek_net_input_shape(net), N) * sizeof *made);
        ek_net_set_input(net, N, x);
        for (int k = 0; k < N * 12; k++) {
            int n = k / 12, f = k % 12, at = (n / EK_LANES * 12 + f) * EK_LANES + n % EK_LANES;
            int channel = pixels.channels == 1 ? 0 : f / 4;
            double want = (x[k] - pixels.mean[channel]) / pixels.std[channel];
            row[k] = input[at];
            if (memcmp(&made[at], &row[k], sizeof *row) != 0 ||
                fabs(row[k] - want) > 1e-6 * fabs(want) + 1e-7)
                fail_msg("%s: number %d is %g and %g, not %g", inputs[i], k, (double)made[at], (double)row[k],
                         want);
        }
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

static void memory_of_an_absurd_batch_is_no_number(void **state)
{
    (void)state;
    ek_context *context = context_of("baseline", 1);
    ek_net *net;
    assert_ok(ek_net_create(context, "input 784\nlinear 10\n", NULL, &net));
    size_t most = ek_net_memory(net, EK_MAX_BATCH, EK_MODE_INFERENCE);
    assert_true(most >= (size_t)EK_MAX_BATCH * 794 * sizeof(float));
    static const int64_t absurd[] = {EK_MAX_BATCH + 1, (int64_t)1 << 62, INT64_MAX, 0, -1};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++)
        assert_int_equal(ek_net_memory(net, absurd[i], EK_MODE_TRAINING), 0);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_by_lanes_follows_the_oracle),
        cmocka_unit_test(long_sums_stay_inside),
        cmocka_unit_test(a_run_beyond_counting_is_refused),
        cmocka_unit_test(a_batch_is_cut_only_where_samples_are_independent),
        cmocka_unit_test(one_value_a_channel_is_refused),
        cmocka_unit_test(the_oracle_measures_what_goes_into_the_softmax),
        cmocka_unit_test(pixels_are_normalized_alike_on_every_way_in),
        cmocka_unit_test(memory_of_an_absurd_batch_is_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
