/* Sequences of unequal lengths: a sample must not know how far it was padded. */
#include "fused_runs.h"

#include "data/batches.h"
#include "train/trainer.h"

#include <unistd.h>

static const char *const isas[] = {"reference", "baseline", "avx2", "avx512"};
enum { ISAS = sizeof isas / sizeof *isas };

/* NULL: not this machine's. */
static ek_context *context_of(const char *isa)
{
    ek_context *context;
    ek_status status = ek_context_create(&(ek_context_options){.threads = 2, .isa = isa}, &context);
    if (status == EK_E_UNSUPPORTED || status == EK_E_ARGUMENT) return NULL;
    assert_ok(status);
    return context;
}

static bool has(const char *isa)
{
    ek_context *context = context_of(isa);
    ek_context_destroy(context);
    return context;
}

static ek_net *net_of(ek_context *context, const char *format, int positions)
{
    char text[1024];
    ek_net *net;
    snprintf(text, sizeof text, format, positions);
    assert_ok(ek_net_create(context, text, NULL, &net));
    set_norms(net);
    return net;
}

/* --- what the definition says */

/* All that a sequence can go through; a sample of `least` positions or more also passes alone. */
static const struct {
    const char *format;
    int least;
} alone[] = {
    {"input 3x%d\nconv1d 5 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nflatten\nlinear 4", 3},
    {"input 3x%d mean=0.7 std=2\nconv1d 8 kernel=5 padding=2\nbatchnorm\nsigmoid\nmaxpool 3 stride=2 "
     "padding=1\n"
     "conv1d 6 kernel=4 stride=2 dilation=2 padding=3\ntanh\nglobalavgpool\nflatten\nlinear 4",
     2},
    {"input 2x%d\na: sigmoid\nconv1d 2 kernel=3 padding=1\nbatchnorm\nadd a\navgpool 3 padding=1 stride=2 "
     "count_pad=false\n"
     "silu\nglobalavgpool\nflatten\nlinear 3",
     3},
    {"input 2x%d\ntanh\nmaxpool 4 padding=2 stride=1\navgpool 2 padding=1\nconv1d 33 kernel=3 "
     "padding=1\n"
     "batchnorm\nmaxpool 2\nglobalavgpool\nflatten\nlinear 3\nsoftmax",
     3},
    {"input 4x%d\nbatchnorm\nconv1d 4 kernel=2 groups=4\nglobalavgpool", 2},
    {"input 4x%d\nconv1d 6 kernel=3 padding=1\ngroupnorm 2\nsigmoid\ninstancenorm scale=true\n"
     "layernorm scale=false shift=false\nrelu\nrmsnorm scale=false\nglobalavgpool\nflatten\nlinear 3",
     2},
    {"input 4x%d\nconv1d 6 kernel=3 padding=1\nbatchnorm ghost=3\nsigmoid\nbatchnorm r_max=2 "
     "d_max=1\nglobalavgpool",
     1},
    {"input 3x%d\nconvtranspose1d 4 kernel=4 stride=2 padding=1\nbatchnorm\nhardsigmoid\n"
     "maxpool 3 stride=2 padding=2 padding_end=0 ceil=true\nprelu 4\navgpool 3 stride=2 padding=1 ceil=true\n"
     "conv1d 3 kernel=2 padding=0 padding_end=1\nbatchnorm\navgpool 2 stride=1 padding=1 dilation=2 count_pad=false\n"
     "maxpool 3 stride=2 padding=2 dilation=2\nglobalavgpool",
     5},
    {"input 4x%d\nconv1d 6 kernel=3 padding=1\nm: silu\nglobalavgpool\nconv1d 3 kernel=1\nrelu\nconv1d 6 kernel=1\nsigmoid\n"
     "mul m\naffine 6x1\nconcat m\ns: softmax\nsoftmax axis=1\nsub s\nglobalavgpool\nreshape 3x4x1\npermute 1,2,0\n"
     "reshape 12x1\ne: sigmoid\ndiv e from=s\nmaxpool 2 padding=1\nglobalavgpool\nflatten\nlinear 3",
     1},
};
enum { ALONE = sizeof alone / sizeof *alone, LONGEST = 23 };

/* The first `length` positions of each channel. */
static void cut_sample(const float *x, int channels, int positions, int length, float *out)
{
    for (int c = 0; c < channels; c++)
        memcpy(out + c * length, x + c * positions, (size_t)length * sizeof *x);
}

static void check_alone(ek_context *context, int which, int n)
{
    ek_net *net = net_of(context, alone[which].format, LONGEST);
    int channels = (int)ek_net_input_shape(net).dim[0], item = channels * LONGEST;
    int scores = (int)ek_shape_count(ek_net_output_shape(net));
    float *x = malloc((size_t)(n * item) * sizeof *x), *y = malloc((size_t)(n * scores) * sizeof *y);
    float *part = malloc((size_t)item * sizeof *part), *want = malloc((size_t)scores * sizeof *want);
    int32_t *lengths = any_lengths(net, n);
    fill(x, (int64_t)n * item, which, 1);
    for (int i = 0; i < n; i++) {
        if (lengths[i] < alone[which].least) lengths[i] = alone[which].least;
        /* What stands beyond a length does not matter. */
        for (int k = 0; k < item; k++)
            if (k % LONGEST >= lengths[i]) x[i * item + k] = k % 3 ? NAN : 1e30f;
    }
    assert_ok(ek_net_forward_lengths(net, EK_MODE_INFERENCE, n, x, lengths, y));
    for (int i = 0; i < n; i++) {
        ek_net *cut = net_of(context, alone[which].format, lengths[i]);
        char what[64];
        snprintf(what, sizeof what, "%s, sample %d of %d", ek_context_isa(context), i, n);
        cut_sample(x + i * item, channels, LONGEST, lengths[i], part);
        assert_ok(ek_net_forward(cut, EK_MODE_INFERENCE, 1, part, want));
        compare(alone[which].format, what, "output", want, y + i * scores, scores, (tolerance){2e-6, 2e-7});
        ek_net_destroy(cut);
    }
    free(lengths);
    free(want);
    free(part);
    free(y);
    free(x);
    ek_net_destroy(net);
}

static void a_sample_gives_what_it_gives_alone(void **state)
{
    (void)state;
    static const int sizes[] = {1, 3, 16, 21};
    for (int i = 0; i < ISAS; i++) {
        ek_context *context = context_of(isas[i]);
        for (int k = 0; context && k < ALONE; k++)
            for (int s = 0; s < 4; s++) check_alone(context, k, sizes[s]);
        ek_context_destroy(context);
    }
}

/* Outputs that are sequences themselves: what is alive, then zeros. */
static void sequences_come_out_with_zeros_behind(void **state)
{
    (void)state;
    enum { N = 5, L = 12, OUT = 6 };
    static const char format[] = "input 1x%d\nconv1d 2 kernel=3 stride=2 padding=1\nsigmoid";
    ek_context *context = context_of(NULL);
    ek_net *net = net_of(context, format, L);
    float x[N * L], y[N * 2 * OUT];
    const int32_t lengths[N] = {12, 1, 5, 6, 11}, out[N] = {6, 1, 3, 3, 6};
    fill(x, N * L, 0, 1);
    assert_ok(ek_net_forward_lengths(net, EK_MODE_INFERENCE, N, x, lengths, y));
    for (int i = 0; i < N * 2 * OUT; i++) assert_true((y[i] != 0) == (i % OUT < out[i / (2 * OUT)]));
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* In training the statistics are those of the living positions, counted together. */
enum { STAT_N = 37, STAT_C = 3, STAT_L = 40, STAT_ALL = STAT_N * STAT_C * STAT_L };

/* Channels about 0, 100 and 200, and 1e6 beyond the lengths; their true moments. */
static void fill_channels(const int32_t *lengths, float *x, ek_moments moments[STAT_C])
{
    fill(x, STAT_ALL, 0, 1);
    for (int c = 0; c < STAT_C; c++) moments[c] = (ek_moments){0};
    for (int i = 0; i < STAT_ALL; i++) {
        int c = i / STAT_L % STAT_C;
        bool alive = i % STAT_L < lengths[i / (STAT_C * STAT_L)];
        x[i] = alive ? 100 * (float)c + x[i] : 1e6f;
        if (alive) ek_moments_merge(&moments[c], (ek_moments){.count = 1, .mean = x[i]});
    }
}

static void check_statistics(ek_context *context)
{
    static float x[STAT_ALL];
    static const int32_t labels[STAT_N];
    ek_net *net;
    ek_step_result result;
    ek_tensor mean, var;
    ek_moments want[STAT_C], got[STAT_C], parts[STAT_C * 3];
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_trainer *trainer;
    assert_ok(ek_net_create(context, "input 3x40\nn: batchnorm momentum=1\nglobalavgpool\nflatten\nlinear 2",
                            NULL, &net));
    int32_t *lengths = any_lengths(net, STAT_N);
    fill_channels(lengths, x, want);
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step_lengths(trainer, STAT_N, x, lengths, labels, &result));
    assert_ok(ek_net_find_tensor(net, "n.running_mean", &mean));
    assert_ok(ek_net_find_tensor(net, "n.running_var", &var));
    /* What audits and reports ask for. */
    assert_ok(ek_net_run_forward(net, STAT_N, EK_MODE_INFERENCE, 0, 0));
    ek_net_norm_moments(net, 1, parts, got);
    for (int c = 0; c < STAT_C; c++) {
        assert_true(fabs(mean.data[c] - want[c].mean) < 1e-5 * (1 + want[c].mean));
        assert_true(fabs(var.data[c] - want[c].m2 / (want[c].count - 1)) < 1e-5);
        assert_true(got[c].count == want[c].count && fabs(got[c].mean - want[c].mean) < 1e-6);
        assert_true(fabs(got[c].m2 - want[c].m2) < 1e-5 * want[c].m2);
        int alive = 0;
        float before[EK_LANES], after[EK_LANES];
        for (int element = 0; element < STAT_L; element++)
            for (int block = 0; block < 3; block++) {
                int live = ek_net_norm_row(net, 1, block, c * STAT_L + element, before, after);
                for (int i = 0; i < live; i++) assert_true(fabs(before[i] - 100.0 * c) < 10);
                alive += live;
            }
        assert_int_equal(alive, want[c].count);
    }
    free(lengths);
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
}

static void statistics_are_of_the_living_alone(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        ek_context *context = context_of(isas[i]);
        if (context) check_statistics(context);
        ek_context_destroy(context);
    }
}

/* --- the lanes against the oracle, whose gradients finite differences confirm (test_ops.c) */

static const char *const nets[] = {
    "input 3x17" LENGTHS
    "\nconv1d 6 kernel=3 padding=1\nbatchnorm\nrelu\nconv1d 5 kernel=5\nbatchnorm\nsigmoid\n"
    "maxpool 3 stride=2 padding=1\nglobalavgpool\nflatten\nlinear 7\nbatchnorm\ntanh\nlinear 4",
    "input 2x30" LENGTHS
    "\na: conv1d 4 kernel=4 stride=2\nbatchnorm\nsilu\nconv1d 4 kernel=3 padding=1 bias=false\n"
    "batchnorm eps=0.1\nadd a\nrelu\navgpool 3 padding=1 count_pad=false\nb: flatten\nlinear 3",
    "input 4x9" LENGTHS
    "\na: batchnorm frozen=true\nleakyrelu 0.3\nb: conv1d 4 kernel=1\nadd a\ndropout 0.2\nflatten\n"
    "linear 3",
    "input 1x50" LENGTHS
    "\nconv1d 40 kernel=3 padding=1\nbatchnorm\nrelu\nconv1d 33 kernel=3 padding=1\nbatchnorm\n"
    "avgpool 2\nc: conv1d 3 kernel=2 stride=2\nd: conv1d 3 kernel=2 stride=2 padding=1\nflatten\nlinear 3",
    "input 4x12" LENGTHS
    "\nconv1d 6 kernel=3 padding=1\nlayernorm eps=0.1\nrelu\ngroupnorm 2 eps=0.1\nconv1d 4 kernel=3\n"
    "instancenorm scale=true eps=0.1\nsilu\nrmsnorm eps=0.1\nglobalavgpool\nflatten\nlinear 3",
    "input 4x12" LENGTHS "\nconv1d 6 kernel=3 padding=1\nbatchnorm ghost=3\nrelu\nconv1d 4 kernel=3\n"
    "batchnorm r_max=2 d_max=1\nsilu\nglobalavgpool\nflatten\nlinear 3",
    "input 2x11" LENGTHS "\na: conv1d 3 kernel=2 stride=2 padding=1\nbatchnorm\n",
    "input 3x12" LENGTHS
    "\nconvtranspose1d 4 kernel=4 stride=2 padding=1 padding_end=0\nbatchnorm\nelu\n"
    "maxpool 3 stride=2 padding=2 padding_end=0 ceil=true\nprelu 4\navgpool 3 stride=2 padding=1 ceil=true\n"
    "conv1d 5 kernel=2 padding=0 padding_end=1\nbatchnorm\nhardswish\nmaxpool 2 stride=1 padding=1 dilation=2\n"
    "globalavgpool\nflatten\nlinear 3",
};
enum { NETS = sizeof nets / sizeof *nets };

static void lanes_match_the_oracle(void **state)
{
    (void)state;
    static const int64_t sizes[] = {2, 16, 37};
    for (int k = 0; k < NETS; k++)
        for (int s = 0; s < 3; s++)
            for (int mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++) {
                run want = begin(nets[k], "reference", true, 1, sizes[s], (ek_mode)mode);
                for (int i = 1; i < ISAS; i++) {
                    if (!has(isas[i])) continue;
                    run got = begin(nets[k], isas[i], true, 2, sizes[s], (ek_mode)mode);
                    compare_runs(nets[k], isas[i], &want, &got, sizes[s], (tolerance){2e-5, 2e-6});
                    run three = begin(nets[k], isas[i], true, 3, sizes[s], (ek_mode)mode);
                    compare_runs(nets[k], "three threads", &got, &three, sizes[s], same_bits);
                    end(&three);
                    end(&got);
                }
                end(&want);
            }
}

/* Lengths that are all whole change nothing but roundings, and with them or without, a net forgets the last call's. */
static void a_net_forgets_lengths(void **state)
{
    (void)state;
    enum { N = 9, L = 17, ITEM = 3 * L };
    for (int i = 0; i < ISAS; i++) {
        ek_context *context = context_of(isas[i]);
        if (!context) continue;
        ek_net *net = net_of(
            context,
            "input 3x%d\nconv1d 6 kernel=3 padding=1\nbatchnorm\nrelu\nglobalavgpool\nflatten\nlinear 4", L);
        float x[N * ITEM], plain[N * 4], whole[N * 4], cut[N * 4], again[N * 4];
        int32_t all[N], some[N];
        for (int k = 0; k < N; k++) all[k] = L, some[k] = 1 + k;
        fill(x, N * ITEM, 5, 1);
        for (int mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++) {
            assert_ok(ek_net_forward(net, (ek_mode)mode, N, x, plain));
            assert_ok(ek_net_forward_lengths(net, (ek_mode)mode, N, x, some, cut));
            assert_ok(ek_net_forward_lengths(net, (ek_mode)mode, N, x, all, whole));
            assert_ok(ek_net_forward_lengths(net, (ek_mode)mode, N, x, some, again));
            compare("whole lengths", isas[i], "output", plain, whole, N * 4, (tolerance){1e-5, 1e-6});
            assert_memory_equal(cut, again, sizeof cut);
            assert_memory_not_equal(cut, whole, sizeof cut);
            assert_ok(ek_net_forward_lengths(net, (ek_mode)mode, N, x, NULL, again));
            assert_memory_equal(plain, again, sizeof plain);
        }
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

/* More samples than are taken at once. */
static void large_batches_keep_their_lengths(void **state)
{
    (void)state;
    enum { N = 1100, L = 6 };
    ek_context *context = context_of(NULL);
    ek_net *net = net_of(context, "input 1x%d\nglobalavgpool", L);
    static float x[N * L], y[N];
    static int32_t lengths[N];
    for (int i = 0; i < N * L; i++) x[i] = (float)(i % L);
    for (int i = 0; i < N; i++) lengths[i] = 1 + i % 5;
    assert_ok(ek_net_forward_lengths(net, EK_MODE_INFERENCE, N, x, lengths, y));
    for (int i = 0; i < N; i++) assert_true(fabs(y[i] - (double)(lengths[i] - 1) / 2) < 1e-6);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* The batch maker takes each sample's own length, in whatever order, and a plain input has none. */
static void batches_bring_their_lengths(void **state)
{
    (void)state;
    enum { N = 5, L = 4 };
    ek_context *context = context_of(NULL);
    ek_net *net = net_of(context, "input 1x%d\nflatten\nlinear 2", L);
    float x[N * L] = {0};
    int32_t lengths[N] = {1, 2, 3, 4, 2}, labels[N] = {0};
    const int64_t index[] = {3, 0, 4, 2};
    ek_dataset data = {.count = N,
                       .shape = {2, {1, L}},
                       .item = L,
                       .classes = 2,
                       .label = labels,
                       .length = lengths,
                       .floats = x};
    assert_null(ek_net_lengths(net));
    assert_ok(ek_net_use_lengths(net, true));
    assert_ok(ek_net_prepare(net, 4, false));
    assert_ok(ek_batch_fill(net, &data, index, 4));
    for (int i = 0; i < 4; i++) assert_int_equal(ek_net_lengths(net)[i], lengths[index[i]]);
    assert_ok(ek_net_run_forward(net, 4, EK_MODE_INFERENCE, 0, 0));
    for (int i = 0; i < 4; i++) assert_int_equal(ek_net_layer_lengths(net, 0)[i], lengths[index[i]]);
    assert_null(ek_net_layer_lengths(net, 1));
    ek_net_set_input(net, 4, x);
    for (int i = 0; i < 4; i++) assert_int_equal(ek_net_lengths(net)[i], L);
    data.length = NULL;
    ek_net_set_lengths(net, 4, lengths);
    assert_ok(ek_batch_fill(net, &data, index, 4));
    for (int i = 0; i < 4; i++) assert_int_equal(ek_net_lengths(net)[i], L);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* A batch in parts has the statistics of all its living positions, and one that has a single one is refused. */
typedef struct parted {
    const float *x;
    const int32_t *lengths;
} parted;

static ek_status fill_part(void *user, ek_net *net, int64_t first, int64_t n)
{
    const parted *p = user;
    ek_net_set_input(net, n, p->x + first * ek_shape_count(ek_net_input_shape(net)));
    ek_net_set_lengths(net, n, p->lengths + first);
    return EK_OK;
}

static ek_trainer *trainer_of(ek_net *net)
{
    ek_trainer *trainer;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    return trainer;
}

/* shards 0: parts. */
static void check_parts(int shards)
{
    enum { N = 21, L = 17 };
    static const char format[] = "input 3x%d\nconv1d 6 kernel=3 padding=1\nbatchnorm momentum=0.5\nsigmoid\n"
                                 "conv1d 5 kernel=5\nbatchnorm\nglobalavgpool\nflatten\nlinear 4";
    ek_context *context = context_of(NULL);
    ek_net *whole = net_of(context, format, L), *parts = net_of(context, format, L);
    ek_trainer *of_whole = trainer_of(whole), *of_parts = trainer_of(parts);
    ek_step_result want, got;
    float x[N * 3 * L];
    int32_t *lengths = any_lengths(whole, N), labels[N];
    for (int i = 0; i < N; i++) labels[i] = i % 4;
    fill(x, N * 3 * L, 0, 1);
    parted p = {x, lengths};
    bool stop;
    ek_parted_batch batch = {.n = N, .part = 4, .fill = fill_part, .user = &p, .labels = labels};
    assert_ok(ek_trainer_step_lengths(of_whole, N, x, lengths, labels, &want));
    assert_ok(ek_net_use_lengths(parts, true));
    assert_ok(shards ? ek_trainer_reserve_shards(of_parts, shards, false, N) : ek_trainer_reserve_parts(of_parts, batch.part));
    assert_ok(shards ? ek_trainer_run_shards(of_parts, &batch, &got, &stop) : ek_trainer_run_parts(of_parts, &batch, &got));
    assert_true(fabs(want.loss - got.loss) < 1e-6);
    for (int i = 0; i < ek_net_tensor_count(whole); i++) {
        ek_tensor a = ek_net_tensor(whole, i), b = ek_net_tensor(parts, i);
        if (!a.data) continue;
        compare("parts", "a step", a.name, a.data, b.data, ek_shape_count(a.shape), (tolerance){2e-6, 2e-6});
        if (a.grad) compare("parts", "its gradient", a.name, a.grad, b.grad, ek_shape_count(a.shape), (tolerance){1e-5, 1e-6});
    }
    batch.n = 1;
    p.lengths = (int32_t[]){1};
    if (!shards) assert_fails(EK_E_SHAPE, "has one value a channel", ek_trainer_run_parts(of_parts, &batch, &got));
    ek_trainer_destroy(of_parts);
    ek_trainer_destroy(of_whole);
    free(lengths);
    ek_net_destroy(parts);
    ek_net_destroy(whole);
    ek_context_destroy(context);
}

static void parts_of_a_batch_make_the_whole(void **state)
{
    (void)state;
    check_parts(0);
}

static void shards_of_a_batch_make_the_whole(void **state)
{
    (void)state;
    check_parts(1);
    check_parts(2);
    check_parts(5);
    check_parts(32); /* some have no sample */
}

/* --- refusals */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    ek_net *net = net_of(context, "input 2x%d\nn: batchnorm\nglobalavgpool\nflatten\nlinear 2", 8), *image;
    ek_trainer *trainer;
    ek_step_result result;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    static float x[3 * 16], y[6], y_of_ghosts[3 * 16];
    const int32_t labels[3] = {0, 1, 0};
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    static const int32_t wrong[][3] = {
        {1, 0, 3}, {1, 9, 3}, {1, -5, 3}, {1, INT32_MIN, 2}, {2, INT32_MAX, 3}};
    for (int i = 0; i < 5; i++) {
        assert_fails(EK_E_ARGUMENT, "the net's sequences have 1 to 8 positions",
                     ek_net_forward_lengths(net, EK_MODE_INFERENCE, 3, x, wrong[i], y));
        assert_fails(EK_E_ARGUMENT, "lengths[1] is ",
                     ek_trainer_step_lengths(trainer, 3, x, wrong[i], labels, &result));
    }
    assert_fails(EK_E_SHAPE, "n has one value a channel",
                 ek_trainer_step_lengths(trainer, 1, x, (int32_t[]){1}, labels, &result));
    assert_ok(ek_trainer_step_lengths(trainer, 1, x, (int32_t[]){2}, labels, &result));
    static const char *const moves[][2] = {
        {"input 2x8\npermute 1,0", "permute in line 2 moves the positions of its sequences 2x8"},
        {"input 2x8\nrelu\nreshape 1x2x8\nconv 3 kernel=2", "reshape in line 3 moves the positions"},
        {"input 2x8\nc: relu\nd: concat c axis=1", "concat d in line 3 moves the positions"},
    };
    for (int i = 0; i < 3; i++) {
        ek_net *moved;
        float *of_moved = calloc(3 * 64, sizeof *of_moved);
        assert_ok(ek_net_create(context, moves[i][0], NULL, &moved));
        assert_fails(EK_E_SHAPE, moves[i][1],
                     ek_net_forward_lengths(moved, EK_MODE_INFERENCE, 3, x, (int32_t[]){1, 2, 3}, of_moved));
        assert_ok(ek_net_forward(moved, EK_MODE_INFERENCE, 3, x, of_moved));
        free(of_moved);
        ek_net_destroy(moved);
    }
    ek_net *ghost;
    assert_ok(ek_net_create(context, "input 2x8\ng: batchnorm ghost=2", NULL, &ghost));
    assert_ok(ek_net_forward_lengths(ghost, EK_MODE_TRAINING, 3, x, (int32_t[]){1, 1, 2}, y_of_ghosts));
    /* A rest of one value a channel goes with the ghost batch before. */
    float y_of_all[3 * 16];
    ek_net *whole;
    assert_ok(ek_net_create(context, "input 2x8\nbatchnorm", NULL, &whole));
    assert_ok(ek_net_forward_lengths(ghost, EK_MODE_TRAINING, 3, x, (int32_t[]){1, 2, 1}, y_of_ghosts));
    assert_ok(ek_net_forward_lengths(whole, EK_MODE_TRAINING, 3, x, (int32_t[]){1, 2, 1}, y_of_all));
    for (int i = 0; i < 3 * 16; i++) assert_true(fabsf(y_of_ghosts[i] - y_of_all[i]) <= 1e-5f);
    ek_net_destroy(whole);
    ek_net_destroy(ghost);
    assert_ok(ek_net_create(context, "input 2x8\ng: batchnorm ghost=1", NULL, &ghost));
    assert_fails(EK_E_SHAPE, "g has one value a channel in the ghost batch that begins with sample 0",
                 ek_net_forward_lengths(ghost, EK_MODE_TRAINING, 3, x, (int32_t[]){1, 2, 1}, y_of_ghosts));
    ek_net_destroy(ghost);
    assert_ok(ek_net_create(context, "input 1x4x4\nflatten\nlinear 2", NULL, &image));
    assert_fails(EK_E_SHAPE, "the net's input is 1x4x4, not CxL",
                 ek_net_forward_lengths(image, EK_MODE_INFERENCE, 3, x, (int32_t[]){1, 1, 1}, y));
    assert_fails(EK_E_ARGUMENT, "needs a net",
                 ek_net_forward_lengths(NULL, EK_MODE_INFERENCE, 3, x, NULL, y));
    ek_net_destroy(image);
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void want_of_memory_is_an_error(void **state)
{
    (void)state;
    ek_context *context = context_of(NULL);
    float x[32], y[4];
    fill(x, 32, 0, 1);
    for (failing f = {0}; fail_next(&f);) {
        ek_net *net = NULL;
        f.status =
            ek_net_create(context, "input 2x8\nconv1d 2 kernel=3\nbatchnorm\nglobalavgpool", NULL, &net);
        if (f.status == EK_OK) f.status = ek_net_forward(net, EK_MODE_INFERENCE, 2, x, y);
        if (f.status == EK_OK)
            f.status = ek_net_forward_lengths(net, EK_MODE_INFERENCE, 2, x, (int32_t[]){3, 8}, y);
        ek_net_destroy(net);
    }
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_gives_what_it_gives_alone),
        cmocka_unit_test(sequences_come_out_with_zeros_behind),
        cmocka_unit_test(statistics_are_of_the_living_alone),
        cmocka_unit_test(lanes_match_the_oracle),
        cmocka_unit_test(a_net_forgets_lengths),
        cmocka_unit_test(large_batches_keep_their_lengths),
        cmocka_unit_test(batches_bring_their_lengths),
        cmocka_unit_test(parts_of_a_batch_make_the_whole),
        cmocka_unit_test(shards_of_a_batch_make_the_whole),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(want_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
