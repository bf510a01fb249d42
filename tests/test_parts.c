/* A step in parts against the same step over the whole batch: loss, gradients, parameters and running statistics. */
#include "fused_runs.h"

#include "train/trainer.h"

/* A net, the largest number of samples of it, and what becomes of it in one step. */
typedef struct stepped {
    ek_context *context;
    ek_net *net;
    ek_step_result result;
} stepped;

/* part 0: as a whole. */
static stepped step(const char *text, bool fused, int threads, int64_t n, int64_t part)
{
    stepped s = {0};
    ek_trainer *trainer;
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    assert_ok(ek_context_create(&(ek_context_options){.threads = threads}, &s.context));
    unsetenv("EVENKEEL_FUSE");
    assert_ok(ek_net_create(s.context, text, NULL, &s.net));
    set_norms(s.net);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_trainer_create(s.net, &options, 5, &trainer));
    int64_t each = ek_shape_count(ek_net_input_shape(s.net)), classes = ek_shape_count(ek_net_output_shape(s.net));
    float *x = malloc((size_t)(n * each) * sizeof *x);
    int32_t *labels = malloc((size_t)n * sizeof *labels);
    fill(x, n * each, 1, 1);
    for (int64_t i = 0; i < n; i++) labels[i] = (int32_t)(i * 7 % classes);
    for (int k = 0; k < 2; k++) /* twice: nothing may be left over */
        assert_ok(part ? ek_trainer_step_in_parts(trainer, n, part, x, labels, &s.result)
                       : ek_trainer_step(trainer, n, x, labels, &s.result));
    assert_false(s.result.skipped);
    free(labels);
    free(x);
    ek_trainer_destroy(trainer);
    return s;
}

static void drop(stepped *s)
{
    ek_net_destroy(s->net);
    ek_context_destroy(s->context);
}

static void compare_steps(const char *text, const char *what, const stepped *want, const stepped *got, tolerance t)
{
    tolerance of_gradients = {t.share, t.floor * largest_gradient(want->net)};
    assert_int_equal(want->result.correct, got->result.correct);
    if (!(fabs(want->result.loss - got->result.loss) <= t.share + t.floor))
        fail_msg("%s\n%s: the loss is %.9g, not %.9g", text, what, got->result.loss, want->result.loss);
    for (int i = 0; i < ek_net_tensor_count(want->net); i++) {
        ek_tensor a = ek_net_tensor(want->net, i), b = ek_net_tensor(got->net, i);
        if (a.role == EK_ROLE_COUNTER) {
            assert_int_equal(*a.counter, *b.counter);
            continue;
        }
        compare(text, what, a.name, a.data, b.data, ek_shape_count(a.shape), t);
        if (a.grad) compare(text, what, "gradient", a.grad, b.grad, ek_shape_count(a.shape), of_gradients);
    }
}

static const char *const nets[] = {
    "input 1x12x12\nconv 6 kernel=5\nbatchnorm\nsigmoid\navgpool 2\nconv 7 kernel=3\nbatchnorm\nsigmoid\navgpool 2\nflatten\n"
    "linear 20\nbatchnorm\nsigmoid\nlinear 12\nbatchnorm\nsigmoid\nlinear 10",
    "input 9\nlinear 33\nbatchnorm\nrelu\ndropout 0.3\nlinear 17\nbatchnorm momentum=none\nsilu\nlinear 8\nleakyrelu\nlinear 4",
    /* several at one depth; one that nothing is trained above */
    "input 3x8x8\nbatchnorm scale=false shift=false\nconv 5 kernel=3 padding=1\nbatchnorm\ns: relu\nconv 5 kernel=3 padding=1\n"
    "batchnorm\nrelu\nconv 5 kernel=3 padding=1\nb: batchnorm\nadd s\nr: relu\nconv 6 kernel=3 stride=2 padding=1\nbatchnorm\n"
    "relu\nconv 6 kernel=3 padding=1\nc: batchnorm\nconv 6 kernel=1 stride=2 from=r\nbatchnorm\nadd c\nrelu\nglobalavgpool\n"
    "flatten\nlinear 4",
    /* others of the family, frozen and untracked ones */
    "input 2x5x5\nconv 3 kernel=3\nbatchnorm frozen=true\nrelu\nconv 4 kernel=2\nbatchnorm track=false\nrelu\nlayernorm\n"
    "conv 4 kernel=1\nbatchnorm r_max=1.5 d_max=0.5\nrelu\nflatten\nlinear 3",
    /* joins, other shapes, and weights of affine */
    "input 4x4x4\naffine 4x4x1\nconv 6 kernel=3\nbatchnorm\nm: relu\nglobalavgpool\naffine 6x1x1\nsigmoid\nmul m\nconcat m\n"
    "reshape 2x6x2x2\npermute 1,0,2,3\nreshape 12x4\nbatchnorm\nrelu\nflatten\nlinear 3\naffine 1 shift=false",
    /* without BN */
    "input 2x6x6\nconv 3 kernel=3\nrelu\nflatten\nlinear 3",
};
enum { NETS = sizeof nets / sizeof *nets };

static const tolerance rounding = {2e-5, 2e-6};

static void parts_are_the_whole_batch(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{64, 16}, {48, 21}, {37, 6}, {33, 4}, {16, 16}};
    for (int i = 0; i < NETS; i++)
        for (int fused = 0; fused < 2; fused++)
            for (int k = 0; k < 5; k++) {
                char what[64];
                stepped want = step(nets[i], fused, 1, sizes[k][0], 0);
                stepped got = step(nets[i], fused, 2, sizes[k][0], sizes[k][1]);
                snprintf(what, sizeof what, "%s, %d in parts of %d", fused ? "fused" : "unfused", (int)sizes[k][0],
                         (int)sizes[k][1]);
                compare_steps(nets[i], what, &want, &got, rounding);
                drop(&got);
                drop(&want);
            }
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (int i = 0; i < NETS; i++) {
        stepped want = step(nets[i], true, 1, 50, 16), got = step(nets[i], true, 3, 50, 16);
        compare_steps(nets[i], "threads", &want, &got, same_bits);
        drop(&got);
        drop(&want);
    }
}

/* After a step in parts, passes in training mode are of whole batches again. */
static void nothing_is_left_over(void **state)
{
    (void)state;
    stepped a = step(nets[0], true, 1, 32, 8), b = step(nets[0], true, 1, 32, 8);
    float x[20 * 144], y[2][20 * 10];
    fill(x, 20 * 144, 3, 2);
    assert_ok(ek_net_forward(a.net, EK_MODE_TRAINING, 20, x, y[0]));
    assert_ok(ek_net_save(b.net, "parts.safetensors"));
    drop(&b);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &b.context));
    assert_ok(ek_net_open(b.context, "parts.safetensors", &b.net));
    remove("parts.safetensors");
    assert_ok(ek_net_forward(b.net, EK_MODE_TRAINING, 20, x, y[1]));
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    drop(&a);
    drop(&b);
}

static void memory_is_that_of_a_part(void **state)
{
    (void)state;
    stepped s = step(nets[0], true, 1, 128, 16);
    assert_int_equal(s.net->plan->capacity, 16);
    drop(&s);
}

static void what_cannot_be_done_is_said(void **state)
{
    (void)state;
    stepped s = {0};
    ek_trainer *trainer;
    ek_step_result result;
    float x[8] = {0};
    int32_t labels[4] = {0};
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &s.context));
    assert_ok(ek_net_create(s.context, "input 2\nlinear 3\nbn: batchnorm ghost=2\nlinear 2", NULL, &s.net));
    assert_ok(ek_trainer_create(s.net, &options, 1, &trainer));
    assert_fails(EK_E_UNSUPPORTED, "bn normalizes by ghost batches",
                 ek_trainer_step_in_parts(trainer, 4, 2, x, labels, &result));
    assert_fails(EK_E_SHAPE, "1 sample or more", ek_trainer_step_in_parts(trainer, 4, 0, x, labels, &result));
    ek_trainer_destroy(trainer);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole_batch),    cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(nothing_is_left_over),         cmocka_unit_test(memory_is_that_of_a_part),
        cmocka_unit_test(what_cannot_be_done_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
