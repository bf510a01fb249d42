/* Training steps of a net, the batch run in one manner or another, and comparing what they leave. */
#ifndef EK_TESTS_STEPS_H
#define EK_TESTS_STEPS_H

#include "fused_runs.h"

#include "train/trainer.h"

/* A net, the largest number of samples of it, and what becomes of it in one step. */
typedef struct stepped {
    ek_context *context;
    ek_net *net;
    ek_step_result result;
} stepped;

/* How a batch is run: as a whole, in parts, or in shards. */
typedef struct manner {
    int64_t part;
    int shards;
    bool local_bn, once;
} manner;

static inline ek_status run_step(ek_trainer *trainer, manner m, int64_t n, const float *x, const int32_t *labels,
                                 ek_step_result *result)
{
    if (m.part) return ek_trainer_step_in_parts(trainer, n, m.part, x, labels, result);
    if (m.shards) return ek_trainer_step_in_shards(trainer, n, m.shards, m.local_bn, x, labels, result);
    return ek_trainer_step(trainer, n, x, labels, result);
}

static inline stepped step_so(const char *text, const ek_context_options *context, int64_t n, manner m)
{
    stepped s = {0};
    ek_trainer *trainer;
    assert_ok(ek_context_create(context, &s.context));
    assert_ok(ek_net_create(s.context, text, NULL, &s.net));
    set_norms(s.net);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_trainer_create(s.net, &options, 5, &trainer));
    int64_t each = ek_shape_count(ek_net_input_shape(s.net)), classes = ek_shape_count(ek_net_output_shape(s.net));
    float *x = malloc((size_t)(n * each) * sizeof *x);
    int32_t *labels = malloc((size_t)n * sizeof *labels);
    fill(x, n * each, 1, 1);
    for (int64_t i = 0; i < n; i++) labels[i] = (int32_t)(i * 7 % classes);
    for (int k = 0; k < (m.once ? 1 : 2); k++) /* twice: nothing may be left over */
        assert_ok(run_step(trainer, m, n, x, labels, &s.result));
    assert_false(s.result.skipped);
    free(labels);
    free(x);
    ek_trainer_destroy(trainer);
    return s;
}

static inline void drop(stepped *s)
{
    ek_net_destroy(s->net);
    ek_context_destroy(s->context);
}

static inline void compare_steps(const char *text, const char *what, const stepped *want, const stepped *got, tolerance t)
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

/* part 0: as a whole. */
static inline stepped step(const char *text, bool fused, int threads, int64_t n, int64_t part)
{
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    stepped s = step_so(text, &(ek_context_options){.threads = threads}, n, (manner){.part = part});
    unsetenv("EVENKEEL_FUSE");
    return s;
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

#endif
