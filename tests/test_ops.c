/* Every operator: its reference's gradient against finite differences in double, and its lane passes
 * against its reference, on odd shapes and partial lane blocks, for every instruction set of this machine. */
#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "graph/plan.h"

#include <math.h>

typedef struct test_case {
    const char *text; /* the operator under test is the last line's */
    int n;
} test_case;

/* Samples are sequences of unequal lengths where the text says so. */
#define LENGTHS " # lengths"

static const test_case cases[] = {
    {"input 3x5x7", 3},
    {"input 1x9x9\nconv 6 kernel=5", 3},
    {"input 3x7x5\nconv 4 kernel=3 padding=1", 17},
    {"input 2x6x7\nconv 5 kernel=3 stride=2 padding=1", 5},
    {"input 4x8x8\nconv 6 kernel=3x2 stride=1x2 padding=1x0 dilation=2x1 bias=false", 2},
    {"input 6x5x5\nconv 6 kernel=3 groups=6 padding=1", 18},
    {"input 6x5x4\nconv 4 kernel=1 groups=2 stride=2", 3},
    {"input 7x3x3\nconv 13 kernel=1", 2},
    {"input 3x6x6\nconv 2 kernel=2 padding=2", 2},
    {"input 1x1x1\nconv 1 kernel=1", 1},
    {"input 2x4x4\nconv 3 kernel=3", 70},  /* five blocks, whose weight gradients are summed */
    {"input 1x3x3\nconv 2 kernel=2", 300}, /* more blocks than parts */
    {"input 3x6x7\nconv 5 kernel=3 padding=0x1 padding_end=2x0", 17},
    {"input 2x7x6\nconv 3 kernel=3x2 stride=2 padding=0 padding_end=1 dilation=1x2", 5},
    {"input 8x9x9\nconv 9 kernel=3 padding=1 padding_end=0", 2}, /* minimal filtering */
    {"input 8x8x9\nconv 9 kernel=3 padding=0 padding_end=2x1", 3},
    {"input 3x11\nconv1d 4 kernel=3 padding=1", 17},
    {"input 1x9\nconv1d 6 kernel=5", 3},
    {"input 2x13\nconv1d 5 kernel=4 stride=3 padding=2 dilation=2 bias=false", 5},
    {"input 6x8\nconv1d 4 kernel=2 groups=2", 18},
    {"input 40x21\nconv1d 33 kernel=3 padding=1", 2}, /* minimal filtering */
    {"input 5x1\nconv1d 3 kernel=1", 2},
    {"input 2x9\nconv1d 3 kernel=4 stride=2 padding=0 padding_end=3", 5},
    {"input 3x4x5\nconvtranspose 4 kernel=2 stride=2", 17},
    {"input 1x1x1\nconvtranspose 1 kernel=1", 1},
    {"input 2x3x4\nconvtranspose 5 kernel=3x2 stride=2x1 padding=1x0 bias=false", 5},
    {"input 4x5x3\nconvtranspose 6 kernel=3 stride=3x2 padding=1 padding_end=0x2 output_padding=2x1 groups=2", 18},
    {"input 3x4x4\nconvtranspose 2 kernel=3 padding=2 dilation=2 output_padding=1x0", 3},
    {"input 2x4x3\nconvtranspose 2 kernel=2 stride=4 groups=2 output_padding=3x0", 300}, /* gaps; more blocks than parts */
    {"input 9x8x8\nconvtranspose 8 kernel=3 padding=1", 2},                             /* minimal filtering */
    {"input 9x8x8\nconvtranspose 8 kernel=3 padding=1x0 padding_end=0x3", 3},
    {"input 3x5x5\nconvtranspose 2 kernel=3 padding=3", 3}, /* cropped beyond what the kernel adds */
    {"input 3x6\nconvtranspose1d 4 kernel=4 stride=2 padding=1", 17},
    {"input 2x5\nconvtranspose1d 3 kernel=3 stride=3 dilation=2 output_padding=2 padding=0 padding_end=1 bias=false", 5},
    {"input 13x20\nconvtranspose1d 12 kernel=3 padding=1", 2},
    {"input 4x1\nconvtranspose1d 4 kernel=5 groups=4", 18},
    {"input 5\nlinear 3", 4},
    {"input 130\nlinear 37", 67},
    {"input 1\nlinear 1 bias=false", 1},
    {"input 19\nlinear 50", 1},
    {"input 3x4x5\nbatchnorm", 5},
    {"input 2x1x1\nbatchnorm scale=false", 17},
    {"input 2x3x3\nbatchnorm shift=false eps=0.1", 16},
    {"input 7\nbatchnorm", 9},
    {"input 3x10\nbatchnorm", 5},
    {"input 33\nbatchnorm track=false", 4},
    {"input 3x3x2\nbatchnorm frozen=true", 3},
    {"input 5\nbatchnorm frozen=true", 1},
    /* ghost batches that cut blocks anywhere, with a rest, with one value joined, one a sample, larger than the batch */
    {"input 3x2x2\nbatchnorm ghost=5", 37},
    {"input 4\nbatchnorm ghost=3", 19},
    {"input 2x3x3\nbatchnorm ghost=1 scale=false", 18},
    {"input 6\nbatchnorm ghost=16 shift=false", 40},
    {"input 2x2x1\nbatchnorm ghost=64 scale=false shift=false", 20},
    {"input 3\nbatchnorm ghost=2 track=false", 7},
    {"input 3x2x2\nbatchnorm r_max=1.01 d_max=0.01", 7}, /* clipped, r and d are constants */
    {"input 3x2x2\nbatchnorm r_max=1.5 d_max=0.5", 7},
    {"input 9\nbatchnorm r_max=3 d_max=5 scale=false", 20},
    {"input 5\nbatchnorm r_max=2 shift=false", 17},
    {"input 5\nbatchnorm d_max=0.5 momentum=none", 6},
    {"input 3x4x5\nlayernorm", 5},
    {"input 33\nlayernorm", 19},
    {"input 2x9x9\nlayernorm scale=false eps=0.1", 17},
    {"input 2x3x4\nlayernorm shift=false", 300}, /* more blocks than parts */
    {"input 2\nlayernorm scale=false shift=false eps=0.5", 3},
    {"input 6x3x4\ngroupnorm 2", 5},
    {"input 6x2x2\ngroupnorm 6 shift=false", 17},
    {"input 5x7x6\ngroupnorm 1 scale=false", 3},
    {"input 12\ngroupnorm 4", 33},
    {"input 8x1x2\ngroupnorm 4 scale=false shift=false", 300},
    {"input 3x5x5\ninstancenorm", 18},
    {"input 3x1x2\ninstancenorm scale=true shift=true eps=0.5", 4},
    {"input 2x11x9\ninstancenorm scale=true eps=0.01", 35},
    {"input 4x3x5\nrmsnorm", 5},
    {"input 21\nrmsnorm eps=0.1", 18},
    {"input 3x4x4\nrmsnorm scale=false", 40},
    {"input 3x4x5\nrelu", 3},
    {"input 9\nrelu", 5},
    {"input 2x3x3\nleakyrelu 0.2", 3},
    {"input 2x3x3\nsigmoid", 3},
    {"input 11\nsigmoid", 3},
    {"input 2x3x3\ntanh", 3},
    {"input 2x3x3\nsilu", 3},
    {"input 2x3x3\nelu", 3},
    {"input 11\nelu 0.3", 17},
    {"input 4x6\nelu -2", 3},
    {"input 3x3x2\nprelu", 18},
    {"input 3x4x5\nprelu 3", 17},
    {"input 7\nprelu 7", 35},
    {"input 5x4\nprelu 5", 300},
    {"input 2x3x3\nclip min=-0.5 max=0.7", 3},
    {"input 9\nclip min=0 max=6", 18},
    {"input 3x5\nclip max=0.25", 3},
    {"input 3x5\nclip min=0.25", 3},
    {"input 5\nclip", 2},
    {"input 2x3x3\nhardsigmoid", 3},
    {"input 9\nhardsigmoid alpha=0.7 beta=0.2", 18},
    {"input 2x3x5\nhardswish", 17},
    {"input 2x4x6\navgpool 2", 3},
    {"input 2x5x7\navgpool 3x2 stride=2x1 padding=1", 18},
    {"input 1x5x5\navgpool 3 stride=2 padding=1 count_pad=false", 2},
    {"input 2x4x6\nmaxpool 2", 3},
    {"input 2x5x7\nmaxpool 3x2 stride=2x1 padding=1", 18},
    {"input 2x5x7\navgpool 3 stride=2 padding=2x1 padding_end=0x2", 18},
    {"input 2x5x7\navgpool 3 stride=2 padding=1x0 padding_end=2 count_pad=false", 17},
    {"input 2x6x8\navgpool 3x2 stride=2x3 ceil=true", 5},
    {"input 2x6x7\navgpool 3 stride=2 padding=1 ceil=true", 18},
    {"input 2x6x8\navgpool 4 stride=3 ceil=true count_pad=false", 3},
    {"input 3x5x5\navgpool 2 stride=4 padding=1 ceil=true", 3},
    {"input 2x8x7\navgpool 3x2 stride=1x2 padding=1 dilation=2x3", 18},
    {"input 2x8x7\navgpool 3 stride=2 padding=2x3 padding_end=1 dilation=2 count_pad=false ceil=true", 5},
    {"input 2x5x7\nmaxpool 3 stride=2 padding=2x1 padding_end=0x2", 18},
    {"input 2x6x8\nmaxpool 3x2 stride=2x3 ceil=true", 5},
    {"input 2x7x6\nmaxpool 2 stride=2 padding=1x0 ceil=true", 17},
    {"input 2x8x7\nmaxpool 3x2 stride=1x2 padding=1 dilation=2x3", 18},
    {"input 1x9x9\nmaxpool 3 stride=2 padding=2 padding_end=1 dilation=2 ceil=true", 3},
    {"input 3x5x4\nglobalavgpool", 17},
    {"input 2x9\navgpool 3 stride=2 padding=2 padding_end=0 ceil=true", 17},
    {"input 2x9\navgpool 3 dilation=2 stride=1 padding=1", 5},
    {"input 2x10\nmaxpool 3 stride=2 padding=0 padding_end=2 dilation=2 ceil=true", 18},
    {"input 2x9\navgpool 2", 3},
    {"input 2x9\navgpool 3 stride=2 padding=1 count_pad=false", 18},
    {"input 2x9\nmaxpool 3 stride=1 padding=1", 17},
    {"input 3x7\nglobalavgpool", 17},
    {"input 3x4\nflatten", 3},
    {"input 3x4x5\nflatten", 19},
    {"input 6\nflatten", 3},
    {"input 2x3x3\ndropout 0.3", 18},
    {"input 10\ndropout 0.5", 6},
    {"a: input 2x3x3\nb: relu\nadd a", 17},
    {"a: input 5\nb: relu\nadd a", 3},
    {"a: input 4x6\nb: silu\nadd a", 3},
    {"input 7\nsoftmax", 5},
    {"input 3x11" LENGTHS "\nconv1d 4 kernel=3 padding=1", 19},
    {"input 2x13" LENGTHS "\nconv1d 5 kernel=4 stride=3 padding=2 dilation=2 bias=false", 5},
    {"input 2x13" LENGTHS "\nconv1d 3 kernel=3 stride=2 padding=0 padding_end=2", 18},
    {"input 3x7" LENGTHS "\nconvtranspose1d 4 kernel=4 stride=2 padding=1", 19},
    {"input 3x7" LENGTHS "\nconvtranspose1d 2 kernel=3 stride=3 padding=0 padding_end=1 output_padding=2 dilation=2", 5},
    {"input 3x10" LENGTHS "\nbatchnorm", 5},
    {"input 2x35" LENGTHS "\nbatchnorm eps=0.01", 17},
    {"input 3x10" LENGTHS "\nbatchnorm frozen=true", 3},
    {"input 3x10" LENGTHS "\nbatchnorm ghost=3", 37},
    {"input 3x10" LENGTHS "\nbatchnorm r_max=2 d_max=1", 7},
    {"input 3x10" LENGTHS "\nlayernorm", 19},
    {"input 4x10" LENGTHS "\ngroupnorm 2", 19},
    {"input 3x10" LENGTHS "\ninstancenorm scale=true shift=true eps=0.01", 19},
    {"input 3x10" LENGTHS "\nrmsnorm", 5},
    {"input 3x10\ninstancenorm scale=true shift=true", 19},
    {"input 3x10" LENGTHS "\nsigmoid", 17},
    {"input 3x10" LENGTHS "\nhardsigmoid beta=0.7", 17},
    {"input 3x10" LENGTHS "\nprelu 3", 18},
    {"input 2x9" LENGTHS "\navgpool 2", 3},
    {"input 2x9" LENGTHS "\navgpool 3 stride=2 padding=1 ceil=true", 18},
    {"input 2x9" LENGTHS "\navgpool 3 stride=2 padding=2 padding_end=1 ceil=true count_pad=false", 18},
    {"input 2x11" LENGTHS "\navgpool 3 padding=2 dilation=2", 18},
    {"input 2x9" LENGTHS "\nmaxpool 3 stride=2 padding=2 padding_end=0 ceil=true", 17},
    {"input 2x11" LENGTHS "\nmaxpool 2 stride=1 padding=1 dilation=3", 20},
    {"input 2x9" LENGTHS "\navgpool 4 stride=2 padding=2", 18},
    {"input 2x9" LENGTHS "\navgpool 4 stride=2 padding=2 count_pad=false", 18},
    {"input 2x9" LENGTHS "\nmaxpool 3 stride=1 padding=1", 17},
    {"input 2x9" LENGTHS "\nmaxpool 4 stride=2 padding=2", 17},
    {"input 3x7" LENGTHS "\nglobalavgpool", 18},
    {"input 2x9" LENGTHS "\ndropout 0.3", 18},
    {"a: input 4x6" LENGTHS "\nb: silu\nadd a", 3},
    {"a: input 4x6" LENGTHS "\nb: avgpool 2 stride=1\nc: avgpool 2 stride=1 from=a\nadd b", 20},
    /* either side broadcast, or both, along one dimension or several that follow each other or do not */
    {"a: input 3x4x5\nglobalavgpool\nadd a", 17},
    {"a: input 3x4x5\nb: globalavgpool\nadd b from=a", 5},
    {"a: input 5\nb: relu\nsub a", 18},
    {"a: input 4x3x5\nb: conv 1 kernel=1\nsub b from=a", 5},
    {"a: input 4x3x5\nb: avgpool 3x1\nsub a", 17},
    {"a: input 4x3x5\nb: silu\nmul a", 17},
    {"a: input 6x7x9\nb: globalavgpool\nmul a", 33},
    {"a: input 6x7x9\nb: globalavgpool\nmul b from=a", 3},
    {"a: input 4x3x5\nb: avgpool 3x5\nc: conv 1 kernel=1 from=a\nmul b", 18},
    {"a: input 2x3x2x5\nb: affine 1x3x1x5\nmul a", 5},
    {"a: input 24\nb: reshape 2x1x3x4\nlinear 12 from=a\nreshape 2x2x3x1\nmul b", 17},
    {"a: input 7\nb: linear 1\nmul a", 19},
    {"a: input 7\nb: sigmoid\ndiv a", 19},
    {"a: input 3x4x5\nb: globalavgpool\ndiv b from=a", 17},
    {"a: input 3x4x5\nb: globalavgpool\ndiv a", 5},
    {"a: input 4x6" LENGTHS "\nb: globalavgpool\nmul b from=a", 20},
    {"a: input 4x6" LENGTHS "\nb: globalavgpool\ndiv a", 20},
    {"a: input 4x6" LENGTHS "\nb: sigmoid\ndiv a", 20},
    {"input 3x4x5\naffine 3x1x1", 17},
    {"input 3x4x5\naffine 1x1x1", 5},
    {"input 3x4x5\naffine 3x4x5 scale=false", 33},
    {"input 3x4x5\naffine 1x4x1 shift=false", 300}, /* more blocks than parts */
    {"input 2x3x2x5\naffine 2x1x2x1", 18},
    {"input 9\naffine 9", 70},
    {"input 9\naffine 1", 3},
    {"input 3x10" LENGTHS "\naffine 3x1", 19},
    {"a: input 3x4x5\nb: conv 2 kernel=1\nconcat a", 17},
    {"a: input 3x4x5\nb: relu\nconcat a axis=1", 5},
    {"a: input 3x4x5\nb: maxpool 1x2 stride=1x3\nconcat b axis=2 from=a", 18},
    {"a: input 2x3x2x5\nb: relu\nconcat a axis=3", 3},
    {"a: input 7\nb: linear 4\nconcat a", 19},
    {"a: input 4x6" LENGTHS "\nb: conv1d 3 kernel=1\nconcat a", 20},
    {"input 3x4x5\npermute 1,2,0", 17},
    {"input 3x4x5\npermute 0,2,1", 5},
    {"input 3x4x5\npermute 2,0,1", 18},
    {"input 2x3x2x5\npermute 3,1,0,2", 17},
    {"input 4x6\npermute 1,0", 3},
    {"input 4x6" LENGTHS "\npermute 0,1", 19},
    {"input 3x4x5\nreshape 5x3x2x2", 17},
    {"input 12\nreshape 3x4", 3},
    {"input 6x3x4\nsoftmax", 17},
    {"input 6x3x4\nsoftmax axis=1", 5},
    {"input 6x3x4\nsoftmax axis=2", 18},
    {"input 2x3x2x5\nsoftmax axis=1", 5},
    {"input 3x10" LENGTHS "\nsoftmax", 19},
    {"input 3x10" LENGTHS "\nsoftmax axis=1", 19},
    {"input 2x3x2x5\nsilu", 17},
};
enum { CASES = sizeof cases / sizeof *cases };

static void every_operator_has_a_case(void **state)
{
    (void)state;
    ek_context *context;
    assert_ok(ek_context_create(NULL, &context));
    for (int i = 0; ek_op_at(i); i++) {
        bool found = false;
        for (int k = 0; k < CASES; k++) {
            ek_net *net;
            assert_ok(ek_net_create(context, cases[k].text, NULL, &net));
            found |= net->graph.node[net->graph.count - 1].op == ek_op_at(i);
            ek_net_destroy(net);
        }
        if (!found) fail_msg("operator '%s' has no case", ek_op_at(i)->name);
    }
    ek_context_destroy(context);
}

/* One case as arrays in double; all values are floats exactly, so that both sides see the same numbers. */
typedef struct bench {
    ek_net *net;
    ek_node *node;
    int n;
    bool training;
    double *x[EK_MAX_INPUTS], *dx[EK_MAX_INPUTS], *y, *dy;
    ek_ref ref;
    ek_lengths lengths;
} bench;

static double *doubles(int64_t count)
{
    double *p = ek_calloc((size_t)count + 1, sizeof(double));
    assert_non_null(p);
    return p;
}

static int64_t numbers(ek_shape shape, int n) { return ek_shape_count(shape) * n; }

static void fill(ek_random *random, double *p, int64_t count)
{
    for (int64_t i = 0; i < count; i++) p[i] = (float)ek_random_normal(random);
}

/* 0 beyond the lengths, as whoever runs nodes leaves values and gradients; `node` is whose output it is. */
static void cut(const bench *b, int node, double *value)
{
    if (!b->lengths.of || !b->lengths.of[node]) return;
    ek_shape shape = b->net->graph.node[node].out;
    for (int64_t i = 0; i < numbers(shape, b->n); i++) {
        if (i % shape.dim[1] >= b->lengths.of[node][i / ek_shape_count(shape)]) value[i] = 0;
    }
}

static void set_lengths(bench *b, ek_random *random)
{
    assert_ok(ek_lengths_create(&b->net->graph, b->n, &b->lengths));
    for (int i = 0; i < b->n; i++)
        b->lengths.of[0][i] =
            1 + (int32_t)ek_random_below(random, (uint64_t)b->net->graph.node[0].out.dim[1]);
    ek_lengths_derive(&b->net->graph, &b->lengths, b->n);
    b->ref.length = (const int32_t *const *)b->lengths.of;
    for (int i = 0; i < b->node->input_count; i++) cut(b, b->node->input[i], b->x[i]);
    cut(b, b->node->id, b->dy);
}

static void bench_begin(bench *b, ek_context *context, const test_case *c, bool training)
{
    *b = (bench){.n = c->n, .training = training};
    assert_ok(ek_net_create(context, c->text, NULL, &b->net));
    b->node = &b->net->graph.node[b->net->graph.count - 1];
    ek_random random = ek_random_start(7, EK_STREAM_TEST, (uint32_t)(c - cases));
    for (int i = 0; i < b->node->input_count; i++) {
        b->x[i] = doubles(numbers(b->node->in[i], b->n));
        b->dx[i] = doubles(numbers(b->node->in[i], b->n));
        fill(&random, b->x[i], numbers(b->node->in[i], b->n));
    }
    /* Away from 0, where a quotient is no help to differences. */
    for (int64_t i = 0; !strcmp(b->node->op->name, "div") && i < numbers(b->node->in[1], b->n); i++)
        b->x[1][i] = (float)copysign(fabs(b->x[1][i]) + 0.5, b->x[1][i]);
    b->y = doubles(numbers(b->node->out, b->n));
    b->dy = doubles(numbers(b->node->out, b->n));
    fill(&random, b->dy, numbers(b->node->out, b->n));
    b->ref = (ek_ref){.n = b->n, .training = training, .seed = 5, .step = 3};
    if (strstr(c->text, LENGTHS)) set_lengths(b, &random);
    b->ref.kept = doubles(b->node->op->reference_kept ? b->node->op->reference_kept(b->node) : 0);
    for (int p = 0; p < b->node->param_count; p++) {
        ek_param *param = &b->node->param[p];
        if (param->role == EK_ROLE_COUNTER) continue;
        b->ref.param[p] = doubles(param->count);
        fill(&random, b->ref.param[p], param->count);
        for (int64_t i = 0; i < param->count; i++) {
            if (param->role == EK_ROLE_RUNNING_VAR) b->ref.param[p][i] = fabs(b->ref.param[p][i]) + 0.5f;
            param->data[i] = (float)b->ref.param[p][i];
            b->ref.param[p][i] = param->data[i];
        }
        if (param->grad) b->ref.grad[p] = doubles(param->count);
    }
}

static void bench_end(bench *b)
{
    for (int i = 0; i < EK_MAX_INPUTS; i++) {
        ek_free(b->x[i]);
        ek_free(b->dx[i]);
    }
    for (int p = 0; p < EK_MAX_PARAMS; p++) {
        ek_free(b->ref.param[p]);
        ek_free(b->ref.grad[p]);
    }
    ek_free(b->y);
    ek_free(b->dy);
    ek_free(b->ref.kept);
    ek_lengths_free(&b->lengths);
    ek_net_destroy(b->net);
}

static void reference_forward(bench *b, double *y)
{
    b->node->op->reference_forward(&b->ref, b->node, (const double *const *)b->x, y);
    cut(b, b->node->id, y);
}

static void reference_backward(bench *b)
{
    reference_forward(b, b->y);
    b->node->op->reference_backward(&b->ref, b->node, (const double *const *)b->x, b->y, b->dy, b->dx);
    for (int i = 0; i < b->node->input_count; i++) cut(b, b->node->input[i], b->dx[i]);
}

static double loss(bench *b)
{
    reference_forward(b, b->y);
    double sum = 0;
    for (int64_t i = 0; i < numbers(b->node->out, b->n); i++) sum += b->y[i] * b->dy[i];
    return sum;
}

/* d loss/d p[i] by central differences, for up to 40 places spread over p, which is the output of `node` (-1: a parameter).
 * Beyond a length there is 0, and nothing to differ. */
static void check_differences(bench *b, const char *text, int node, double *p, const double *gradient,
                              int64_t count)
{
    const double h = 1e-6;
    int64_t step = count / 40 + 1;
    const int32_t *length = node >= 0 && b->lengths.of ? b->lengths.of[node] : NULL;
    for (int64_t i = 0; i < count; i += step) {
        if (length && i % b->net->graph.node[node].out.dim[1] >= length[i / (count / b->n)]) continue;
        double kept = p[i];
        p[i] = kept + h;
        double above = loss(b);
        p[i] = kept - h;
        double below = loss(b);
        p[i] = kept;
        double numeric = (above - below) / (2 * h);
        if (!(fabs(numeric - gradient[i]) <= 1e-6 * (1 + fabs(numeric))))
            fail_msg("%s, n=%d, training=%d: gradient %d is %.9g, differences give %.9g", text, b->n,
                     b->training, (int)i, gradient[i], numeric);
    }
}

/* No gradient goes through r and d of batch renormalization; differences see them unless both are clipped. */
static bool has_differences(const test_case *c, bool training)
{
    return !training || !strstr(c->text, "_max=") || strstr(c->text, "r_max=1.01");
}

static void gradients_match_finite_differences(void **state)
{
    (void)state;
    ek_context *context;
    assert_ok(ek_context_create(NULL, &context));
    for (int k = 0; k < 2 * CASES; k++) {
        const test_case *c = &cases[k / 2];
        bench b;
        bench_begin(&b, context, c, k % 2);
        bool one_value =
            strstr(c->text, "batchnorm") && numbers(b.node->in[0], b.n) / b.node->in[0].dim[0] < 2;
        if (b.node->input_count && !one_value && has_differences(c, b.training)) {
            reference_backward(&b);
            for (int i = 0; i < b.node->input_count; i++)
                check_differences(&b, c->text, b.node->input[i], b.x[i], b.dx[i],
                                  numbers(b.node->in[i], b.n));
            for (int p = 0; p < b.node->param_count; p++) {
                if (b.ref.grad[p])
                    check_differences(&b, c->text, -1, b.ref.param[p], b.ref.grad[p], b.node->param[p].count);
            }
        }
        bench_end(&b);
    }
    ek_context_destroy(context);
}

/* --- lane passes against the reference */

static int64_t position(ek_shape shape, int64_t sample, int64_t element)
{
    int64_t elements = ek_shape_count(shape);
    return (sample / EK_LANES * elements + element) * EK_LANES + sample % EK_LANES;
}

static float *laid_out(ek_shape shape, int n, const double *plain)
{
    float *p = ek_calloc((size_t)ek_value_floats(shape, n), sizeof(float));
    assert_non_null(p);
    int64_t elements = ek_shape_count(shape);
    for (int64_t i = 0; plain && i < n * elements; i++)
        p[position(shape, i / elements, i % elements)] = (float)plain[i];
    return p;
}

static void check_close(const test_case *c, const char *isa, const char *what, const double *want,
                        const float *got, int64_t count, ek_shape shape, bool plain)
{
    double largest = 0;
    int64_t elements = plain ? 1 : ek_shape_count(shape);
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < count; i++) {
        float value = got[plain ? i : position(shape, i / elements, i % elements)];
        if (!(fabs(value - want[i]) <= 4e-6 * largest + 1e-7))
            fail_msg("%s, n=%d, %s: %s[%d] is %.9g, the reference gives %.9g", c->text, c->n, isa, what,
                     (int)i, value, want[i]);
    }
}

static void check_dead_lanes(const test_case *c, const float *dx, ek_shape shape)
{
    int64_t elements = ek_shape_count(shape);
    for (int64_t s = c->n; s < ek_blocks(c->n) * EK_LANES; s++) {
        for (int64_t e = 0; e < elements; e++) {
            if (dx[position(shape, s, e)] != 0)
                fail_msg("%s, n=%d: dx of dead lane %d is not zero", c->text, c->n, (int)s);
        }
    }
}

/* A mean that dwarfs the deviation. */
static void move_far(bench *b)
{
    for (int64_t i = 0; i < numbers(b->node->in[0], b->n); i++) b->x[0][i] = (float)(1e3 + 0.1 * b->x[0][i]);
}

static void check_lanes(ek_context *context, const test_case *c, bool training, bool far)
{
    bench b;
    bench_begin(&b, context, c, training);
    ek_node *node = b.node;
    if (far) move_far(&b);
    assert_ok(ek_net_prepare(b.net, c->n, true));
    ek_pass pass = b.net->plan->pass;
    pass.kernels = context->kernels;
    pass.n = c->n;
    pass.training = training;
    pass.seed = 5;
    pass.step = 3;
    pass.length = b.ref.length;
    if (!node->op->forward || (node->op->check && node->op->check(&pass, node) != EK_OK)) {
        bench_end(&b);
        return;
    }
    reference_backward(&b);
    float *x[EK_MAX_INPUTS] = {NULL}, *dx[EK_MAX_INPUTS] = {NULL};
    for (int i = 0; i < node->input_count; i++) {
        x[i] = laid_out(node->in[i], c->n, b.x[i]);
        dx[i] = laid_out(node->in[i], c->n, NULL);
    }
    float *y = laid_out(node->out, c->n, NULL), *dy = laid_out(node->out, c->n, b.dy);
    ek_flow flow = {.y = y};
    for (int i = 0; i < node->input_count; i++) {
        flow.x[i] = (ek_map_in){.x = x[i]};
        flow.dx[i] = (ek_grad_out){.g = dx[i], .value = flow.x[i]};
    }
    node->op->forward(&pass, node, &flow);
    ek_lengths_cut(&b.lengths, &pass, node, y);
    flow.dy = (ek_grad_in){.g = dy};
    node->op->backward(&pass, node, &flow);
    for (int i = 0; i < node->input_count; i++)
        ek_lengths_cut(&b.lengths, &pass, &b.net->graph.node[node->input[i]], dx[i]);

    const char *isa = ek_context_isa(context);
    check_close(c, isa, "y", b.y, y, numbers(node->out, c->n), node->out, false);
    for (int i = 0; i < node->input_count; i++) {
        check_close(c, isa, "dx", b.dx[i], dx[i], numbers(node->in[i], c->n), node->in[i], false);
        check_dead_lanes(c, dx[i], node->in[i]);
        ek_free(x[i]);
        ek_free(dx[i]);
    }
    for (int p = 0; p < node->param_count; p++) {
        if (b.ref.grad[p])
            check_close(c, isa, node->param[p].name, b.ref.grad[p], node->param[p].grad, node->param[p].count,
                        node->param[p].shape, true);
    }
    ek_free(y);
    ek_free(dy);
    bench_end(&b);
}

static void lanes_match_the_reference(void **state)
{
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        ek_context_options options = {.threads = 2, .isa = isas[i]};
        ek_context *context;
        ek_status status = ek_context_create(&options, &context);
        if (status == EK_E_UNSUPPORTED || status == EK_E_ARGUMENT) continue; /* not this machine's */
        assert_ok(status);
        for (int k = 0; k < 2 * CASES; k++) check_lanes(context, &cases[k / 2], k % 2, false);
        ek_context_destroy(context);
    }
}

static bool normalizes(const test_case *c) { return strstr(c->text, "norm"); }

static void normalizations_hold_where_the_mean_dwarfs_the_deviation(void **state)
{
    (void)state;
    ek_context *context;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2}, &context));
    for (int k = 0; k < CASES; k++)
        if (normalizes(&cases[k])) check_lanes(context, &cases[k], true, true);
    ek_context_destroy(context);
}

/* --- what lanes and reference share, by hand */

enum { SAMPLES = 5, ITEM = 3 * 3 * 3 };

static void run(const char *text, ek_mode mode, const float *x, float *y)
{
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(ek_net_create(context, text, NULL, &net));
    assert_ok(ek_net_forward(net, mode, SAMPLES, x, y));
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* Which statistics a BN uses in each mode. Fresh running statistics are mean 0 and variance 1. */
static void batchnorm_uses_the_statistics_of_its_mode(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool batch[2]; /* inference, training */
    } rows[] = {
        {"input 3x3x3\nbatchnorm", {false, true}},
        {"input 3x3x3\nbatchnorm frozen=true", {false, false}},
        {"input 3x3x3\nbatchnorm track=false", {true, true}},
    };
    float x[SAMPLES * ITEM], y[SAMPLES * ITEM];
    ek_random random = ek_random_start(3, EK_STREAM_TEST, 0);
    for (int i = 0; i < SAMPLES * ITEM; i++) x[i] = (float)(5 + 3 * ek_random_normal(&random));
    for (int i = 0; i < 3; i++) {
        for (int mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++) {
            run(rows[i].text, (ek_mode)mode, x, y);
            double sum = 0, unchanged = 0;
            for (int k = 0; k < SAMPLES * ITEM; k++) {
                sum += y[k];
                unchanged = fmax(unchanged, fabs(y[k] - x[k]));
            }
            if (rows[i].batch[mode])
                assert_true(fabs(sum) < 1e-4);
            else
                assert_true(unchanged < 1e-3);
        }
    }
}

static void dropout_zeroes_its_share_and_keeps_the_mean(void **state)
{
    (void)state;
    enum { FEATURES = 20000 };
    float *x = ek_calloc(SAMPLES * FEATURES, sizeof *x), *y = ek_calloc(SAMPLES * FEATURES, sizeof *y);
    assert_true(x && y);
    for (int i = 0; i < SAMPLES * FEATURES; i++) x[i] = 1;
    int zeros = 0;
    double sum = 0;
    run("input 20000\ndropout 0.3", EK_MODE_TRAINING, x, y);
    for (int i = 0; i < SAMPLES * FEATURES; i++) {
        zeros += y[i] == 0;
        sum += y[i];
    }
    assert_true(fabs(zeros / (double)(SAMPLES * FEATURES) - 0.3) < 0.01);
    assert_true(fabs(sum / (SAMPLES * FEATURES) - 1) < 0.02);
    run("input 20000\ndropout 0.3", EK_MODE_INFERENCE, x, y);
    assert_memory_equal(x, y, SAMPLES * FEATURES * sizeof *x);
    ek_free(x);
    ek_free(y);
}

/* Seed, step (also beyond its low 24 bits), layer, element and sample. With half of 64x64 numbers dropped,
 * no two masks, rows or columns agree by chance. */
static void every_coordinate_chooses_the_dropout_mask(void **state)
{
    (void)state;
    enum { N = 64, E = 64, POINTS = 6 };
    static const struct {
        uint64_t seed, step;
        int layer;
    } point[POINTS] = {{5, 3, 1}, {6, 3, 1}, {5, 4, 1}, {5, 3 + (1 << 24), 1}, {5, 3, 2}, {5, 3, 1}};
    static bool mask[POINTS][N][E];
    ek_context *context;
    ek_net *net;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .isa = "baseline"}, &context));
    assert_ok(ek_net_create(context, "input 64\ndropout 0.5\ndropout 0.5", NULL, &net));
    assert_ok(ek_net_prepare(net, N, true));
    for (int i = 0; i < POINTS; i++) {
        assert_ok(ek_net_run_forward(net, N, EK_MODE_TRAINING, point[i].seed, point[i].step));
        const float *factor = net->graph.node[point[i].layer].workspace;
        for (int j = 0; j < N * E; j++) mask[i][j / E][j % E] = factor[j] != 0;
        for (int k = 0; k < i; k++) {
            bool same = memcmp(mask[k], mask[i], sizeof mask[i]) == 0;
            if (same != (k == 0 && i == POINTS - 1))
                fail_msg("points %d and %d have %s", k, i, same ? "one mask" : "two masks");
        }
    }
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < i; k++) {
            int unequal = 0;
            for (int j = 0; j < N; j++) unequal += mask[0][j][i] != mask[0][j][k];
            if (!unequal) fail_msg("elements %d and %d have one mask", k, i);
            if (!memcmp(mask[0][k], mask[0][i], sizeof mask[0][i]))
                fail_msg("samples %d and %d have one mask", k, i);
        }
    }
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* A 3x3 map of ones in windows of 3 with a border of 1: four cells of each of the four corners' windows. */
static void averages_count_the_border_only_when_asked(void **state)
{
    (void)state;
    float x[SAMPLES * ITEM], y[SAMPLES * 3 * 2 * 2];
    for (int i = 0; i < SAMPLES * ITEM; i++) x[i] = 1;
    run("input 3x3x3\navgpool 3 stride=2 padding=1", EK_MODE_INFERENCE, x, y);
    for (int i = 0; i < SAMPLES * 12; i++) assert_true(fabsf(y[i] - 4.0f / 9) < 1e-6f);
    run("input 3x3x3\navgpool 3 stride=2 padding=1 count_pad=false", EK_MODE_INFERENCE, x, y);
    for (int i = 0; i < SAMPLES * 12; i++) assert_true(fabsf(y[i] - 1) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_has_a_case),
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(lanes_match_the_reference),
        cmocka_unit_test(normalizations_hold_where_the_mean_dwarfs_the_deviation),
        cmocka_unit_test(batchnorm_uses_the_statistics_of_its_mode),
        cmocka_unit_test(dropout_zeroes_its_share_and_keeps_the_mean),
        cmocka_unit_test(every_coordinate_chooses_the_dropout_mask),
        cmocka_unit_test(averages_count_the_border_only_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
