/* Whole nets with and without fusion against the double reference: outputs, all gradients and running statistics; and that what
 * fusion promises to save is saved. */
#include "fused_runs.h"

static const char *const nets[] = {
    "input 1x12x12\nconv 6 kernel=5\nbatchnorm\nsigmoid\navgpool 2\nconv 7 kernel=3\nbatchnorm\nsigmoid\navgpool 2\nflatten\n"
    "linear 20\nbatchnorm\nsigmoid\nlinear 12\nbatchnorm\nsigmoid\nlinear 10",
    "input 1x12x12\nconv 6 kernel=5\nsigmoid\navgpool 2\nconv 7 kernel=3\nsigmoid\nmaxpool 2\nflatten\nlinear 20\nsigmoid\nlinear 10",
    "input 9\nlinear 33\nbatchnorm\nrelu\nlinear 17\nbatchnorm\nsilu\nlinear 8\nleakyrelu\nlinear 5\nbatchnorm\nlinear 4\nsilu\n"
    "linear 3",
    /* residual: an identity, and a projection with its own BN */
    "input 3x8x8\nconv 5 kernel=3 padding=1\nbatchnorm\ns: relu\nconv 5 kernel=3 padding=1\nbatchnorm\nrelu\nconv 5 kernel=3 padding=1\n"
    "b: batchnorm\nadd s\nr: relu\nconv 6 kernel=3 stride=2 padding=1\nbatchnorm\nrelu\nconv 6 kernel=3 padding=1\nc: batchnorm\n"
    "conv 6 kernel=1 stride=2 from=r\nbatchnorm\nadd c\nrelu\nglobalavgpool\nflatten\nlinear 4",
    /* BN before the convolution, with the sum kept */
    "input 3x6x6\na: conv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconv 4 kernel=3 padding=1\n"
    "add a\nb: batchnorm\nrelu\nconv 4 kernel=3 padding=1\nadd b\nglobalavgpool\nflatten\nlinear 3",
    /* BN after the activation; an activation after a pool; BN of a pool; nothing after the last BN */
    "input 2x8x8\nconv 3 kernel=3\nrelu\nbatchnorm\navgpool 2\ntanh\nconv 4 kernel=2 bias=false\nmaxpool 2 stride=1 padding=1\nbatchnorm\n"
    "conv 3 kernel=2\nbatchnorm",
    /* readers that take no recipe: dropout, linear over a map, softmax */
    "input 2x5x5\nconv 3 kernel=3\nbatchnorm\nrelu\nflatten\nlinear 6\nbatchnorm\nrelu\ndropout 0.3\nlinear 4\nsoftmax",
    "input 2x5x5\nconv 3 kernel=3\nbatchnorm frozen=true\nleakyrelu 0.2\nconv 2 kernel=2\nbatchnorm track=false\nsilu\navgpool 2\nflatten\n"
    "linear 3",
    /* one value read by many, and twice by one */
    "input 2x4x4\nx: conv 3 kernel=3 padding=1\nbatchnorm\nr: relu\nconv 3 kernel=1\nadd r\nt: tanh\nconv 3 kernel=1 from=r\nadd t\n"
    "add x\nu: sigmoid\nadd u\nflatten\nlinear 3",
    "a: input 7\nlinear 6\nb: batchnorm\nrelu\nlinear 6\nadd b\nbatchnorm\nc: relu\nlinear 6\nadd c\ntanh\nrelu\nlinear 2",
    "input 2x6x6\nconv 3 kernel=3\na: batchnorm\nrelu\nconv 3 kernel=3 padding=1\nadd a\nleakyrelu\nb: batchnorm\nconv 3 kernel=1\n"
    "batchnorm\nadd b\nsilu\nglobalavgpool\nflatten\nlinear 2",
    "input 2x6x6\nbatchnorm\nconv 3 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nbatchnorm\nflatten\nlinear 2",
    /* an activation of a sum at the end */
    "input 2x4x4\na: conv 2 kernel=1\nconv 2 kernel=1\nadd a\nrelu",
    "input 2x4x4\na: conv 2 kernel=1\nconv 2 kernel=1\nadd a\nflatten\ntanh",
    /* BN of a BN */
    "input 2x6x6\nconv 3 kernel=3\nbatchnorm\nbatchnorm\nrelu\nconv 2 kernel=1",
    /* a flatten between a BN and what it is fused with elsewhere */
    "input 2x6x6\nconv 3 kernel=3\nbatchnorm\nflatten\nrelu\nlinear 2",
    "input 2x6x6\nconv 3 kernel=3\nflatten\nbatchnorm\nlinear 2",
    "input 2x6x6\na: conv 3 kernel=3\nconv 3 kernel=1\nbatchnorm\nadd a\nflatten\nlinear 2",
    "input 2x6x6\na: conv 3 kernel=3\nconv 3 kernel=1\nbatchnorm\nadd a\nflatten\nsilu\nlinear 2",
    /* an activation alone after a sum of which one part is a BN */
    "input 6\na: linear 6\nlinear 6\nbatchnorm\nadd a\nsilu\nlinear 2",
    "input 6\na: linear 6\nlinear 6\nbatchnorm\nadd a\nleakyrelu\nlinear 2",
    /* the normalizations that are not fused, between those that are; where the sample's own is the first layer */
    "input 2x6x6\nconv 4 kernel=3 padding=1\nlayernorm\nrelu\nconv 6 kernel=3\ngroupnorm 3\nsigmoid\navgpool 2\nconv 4 kernel=1\n"
    "instancenorm scale=true shift=true\nsilu\nconv 3 kernel=2\nflatten\nlinear 8\nrmsnorm\ntanh\nlinear 3",
    "input 2x5x5\ninstancenorm\na: conv 4 kernel=3 padding=1\ngroupnorm 4\nb: relu\nconv 4 kernel=3 padding=1\ninstancenorm\nadd b\n"
    "relu\nbatchnorm\nrmsnorm\nadd a\nlayernorm\nglobalavgpool\nflatten\nlinear 8\ngroupnorm 2 eps=0.1\nbatchnorm eps=0.1\nrelu\nlinear 2",
    "input 9\nlayernorm\nlinear 8\nlayernorm\nrelu\nlinear 6\nrmsnorm\nlinear 4\nbatchnorm\nlayernorm",
    /* joins that are not fused, of values that are; two readers of one gradient with other channels */
    "input 3x6x6\nconv 6 kernel=3\nm: batchnorm\nglobalavgpool\nconv 2 kernel=1\nrelu\nconv 6 kernel=1\nsigmoid\nmul m\n"
    "a: relu\nconv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconcat a\nb: batchnorm\nsilu\nconv 4 kernel=1\nconcat b\nbatchnorm\nrelu\n"
    "globalavgpool\nflatten\nlinear 3",
    "input 2x4x4\na: conv 3 kernel=1\nconv 3 kernel=1\nb: batchnorm\nadd a\ns: relu\nconv 5 kernel=1 from=a\nconcat s\nflatten\n"
    "linear 2",
    "input 2x4x4\na: conv 3 kernel=1\nconv 3 kernel=1\nbatchnorm\nadd a\nr: relu\nx: conv 3 kernel=1 from=a\nsub r\nbatchnorm\nrelu\n"
    "avgpool 4\nadd x\nrelu\nconv 2 kernel=2",
    "input 3x6x6\nconv 4 kernel=3\nbatchnorm\nm: relu\nglobalavgpool\nadd m\nconv 2 kernel=1",
    "input 3x4x4\nc: conv 3 kernel=1\ng: globalavgpool\nconv 3 kernel=1 from=c\nadd c\nrelu\nadd g\nconv 2 kernel=1",
    "input 2x4x4\na: conv 3 kernel=1\nconv 3 kernel=1\nbatchnorm\nadd a\ns: reshape 1x6x8\nconv 3 kernel=1 from=a\nglobalavgpool\n"
    "mul s\nconv 2 kernel=1",
    /* shapes that change between a layer and what it is fused with elsewhere */
    "input 9\nlinear 12\nreshape 3x4\nbatchnorm\nrelu\nflatten\nlinear 4\nbatchnorm\nreshape 4x1\nrelu\nreshape 4\nlinear 3",
    "input 2x6x6\nconv 6 kernel=3\nbatchnorm\nreshape 2x3x4x4\npermute 1,0,2,3\nreshape 6x4x4\nrelu\nconv 4 kernel=2\nbatchnorm\n"
    "reshape 4x9\nrelu\nconv1d 3 kernel=2\nbatchnorm\nreshape 6x4\nbatchnorm\nconv1d 2 kernel=3\naffine 2x1\nrelu\nflatten\nlinear 2",
    "input 6x4\na: conv1d 6 kernel=1\nconv1d 6 kernel=1\nbatchnorm\nreshape 3x8\nb: relu\nreshape 3x8 from=a\nadd b\nconv1d 2 kernel=3\n"
    "flatten\nlinear 2",
    /* ghost batches and renormalization */
    "input 2x6x6\nconv 4 kernel=3\nbatchnorm ghost=5 eps=0.1\nrelu\nconv 3 kernel=3\na: batchnorm\nconv 3 kernel=1\n"
    "batchnorm ghost=16\nadd a\nflatten\nlinear 5\nbatchnorm ghost=4 eps=0.1\nrelu\nlinear 3",
    "input 2x6x6\nconv 4 kernel=3\nbatchnorm r_max=1.5 d_max=0.5\nsigmoid\navgpool 2\nflatten\nlinear 6\n"
    "batchnorm r_max=3 d_max=2 renorm_steps=4\nrelu\nlinear 3\nbatchnorm d_max=0.1",
    /* transposed convolutions and activations, which take no recipe, between what is read by one; a dilated pool, which does */
    "input 2x5x5\nconv 4 kernel=3 padding=1\nbatchnorm\nrelu\nconvtranspose 3 kernel=3 stride=2\nbatchnorm\nr: hardswish\n"
    "conv 3 kernel=3 padding=1\nbatchnorm\nadd r\nprelu 3\nbatchnorm\nsilu\nmaxpool 2 stride=1 dilation=2\nbatchnorm\n"
    "relu\navgpool 2 stride=2 padding=1 dilation=3\nclip min=0 max=6\nflatten\nlinear 6\nbatchnorm\nelu\nlinear 3",
};
enum { NETS = sizeof nets / sizeof *nets };

static const tolerance rounding = {5e-5, 1e-6};

static void fused_and_unfused_match_the_reference(void **state)
{
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    static const int64_t sizes[] = {16, 5, 19, 37};
    for (int i = 0; i < NETS; i++)
        for (int k = 0; k < 4; k++)
            for (int mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++) {
                run want = begin(nets[i], "reference", false, 1, sizes[k], (ek_mode)mode);
                for (int j = 0; j < 6; j++) {
                    const ek_kernels *there;
                    if (ek_kernels_choose(isas[j / 2], &there) != EK_OK) continue;
                    run got = begin(nets[i], isas[j / 2], j % 2, 2, sizes[k], (ek_mode)mode);
                    char what[64];
                    snprintf(what, sizeof what, "%s, %s, n=%d, %s", isas[j / 2], j % 2 ? "fused" : "unfused", (int)sizes[k],
                             mode ? "training" : "inference");
                    compare_runs(nets[i], what, &want, &got, sizes[k], rounding);
                    end(&got);
                }
                end(&want);
            }
}

/* Few samples have kernels of their own. A larger batch before leaves numbers in the lanes that they do not compute. */
static void inference_on_few_samples_matches_the_reference(void **state)
{
    (void)state;
    enum { MOST = 20 };
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < NETS; i++) {
        int64_t sizes[MOST];
        int count = 0;
        /* One value a channel has no variance of its own, which track=false would want. */
        for (int64_t n = MOST; n > (strstr(nets[i], "track=false") ? 1 : 0); n--) sizes[count++] = n;
        outputs want = infer(nets[i], "reference", sizes, count);
        for (int k = 0; k < 3; k++) {
            const ek_kernels *there;
            if (ek_kernels_choose(isas[k], &there) != EK_OK) continue;
            outputs got = infer(nets[i], isas[k], sizes, count);
            compare(nets[i], isas[k], "few", want.y, got.y, want.count, rounding);
            free(got.y);
        }
        free(want.y);
    }
}

static void bits_are_the_same_for_any_number_of_threads(void **state)
{
    (void)state;
    for (int i = 0; i < NETS; i++)
        for (int fused = 0; fused < 2; fused++) {
            run want = begin(nets[i], NULL, fused, 1, 37, EK_MODE_TRAINING);
            for (int threads = 2; threads <= 4; threads++) {
                run got = begin(nets[i], NULL, fused, threads, 37, EK_MODE_TRAINING);
                compare_runs(nets[i], "threads", &want, &got, 37, same_bits);
                end(&got);
            }
            end(&want);
        }
}

static size_t arena_floats(const char *name, bool fused, ek_net **net, ek_context **context)
{
    setenv("EVENKEEL_FUSE", fused ? "on" : "off", 1);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, context));
    unsetenv("EVENKEEL_FUSE");
    assert_ok(ek_net_create(*context, ek_shipped_net_text(ek_shipped_net_find(name)), NULL, net));
    assert_ok(ek_net_prepare(*net, 32, true));
    return (*net)->plan->steps.floats;
}

static bool is_norm(const ek_node *node) { return node->op == ek_op_find("batchnorm"); }

/* In the shipped nets no BN has a pass of its own: its producer takes the moments, its readers apply it and take the
 * sums, and no activation is stored that a convolution or a pool reads. */
static void shipped_nets_have_no_pass_for_batch_norm(void **state)
{
    (void)state;
    static const char *const names[] = {"lenet-bn", "mlp-bn", "resnet20"};
    for (int i = 0; i < 3; i++) {
        ek_context *context, *other;
        ek_net *net, *unfused;
        size_t fused_floats = arena_floats(names[i], true, &net, &context);
        const ek_steps *steps = &net->plan->steps;
        for (int k = 0; k < steps->forward_steps; k++) {
            const ek_step *step = &steps->forward[k];
            ek_activation kind;
            float slope;
            if (ek_is_activation(step->node, &kind, &slope)) fail_msg("%s: an activation has a pass", names[i]);
            if (is_norm(step->node) && (!step->has_moments || step->y >= 0))
                fail_msg("%s: %s has a forward pass", names[i], step->node->label);
        }
        for (int k = 0; k < steps->backward_steps; k++) {
            const ek_step *step = &steps->backward[k];
            if (is_norm(step->node) && (!step->has_sums || step->dx[0].g >= 0))
                fail_msg("%s: %s has a backward pass", names[i], step->node->label);
        }
        assert_true(fused_floats < arena_floats(names[i], false, &unfused, &other));
        ek_net_destroy(unfused);
        ek_net_destroy(net);
        ek_context_destroy(other);
        ek_context_destroy(context);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_and_unfused_match_the_reference),
        cmocka_unit_test(inference_on_few_samples_matches_the_reference),
        cmocka_unit_test(shipped_nets_have_no_pass_for_batch_norm),
        cmocka_unit_test(bits_are_the_same_for_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
