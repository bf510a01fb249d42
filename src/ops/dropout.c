/* dropout P: in training, each number is zeroed with probability P and the others divided by 1-P, so that
 * inference needs no change (Srivastava et al. 2014, in its "inverted" form).
 *
 * The mask of a number is drawn by (seed, step, layer, element, sample) alone: the same for any number of
 * threads, and a resumed run. */
#include "core/random.h"
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { P };

/* For four samples, 4*group and on. */
static void draw(uint64_t seed, uint64_t step, const ek_node *node, int64_t element, int64_t group, uint32_t random[4])
{
    ek_philox(seed, (uint32_t)EK_STREAM_DROPOUT | (uint32_t)step << 8,
              (uint32_t)node->id | (uint32_t)(step >> 24) << 16, (uint64_t)element << 24 | (uint64_t)group, random);
}

/* Factors (0 or 1/(1-p)) of four samples of the whole batch, `sample` and on, at one element. */
static void factors(uint64_t seed, uint64_t step, const ek_node *node, int64_t element, int64_t sample,
                    float out[4])
{
    double p = ek_attr_real(node, P);
    float kept = (float)(1 / (1 - p));
    uint32_t threshold = (uint32_t)(p * 0x1p32);
    uint32_t random[8];
    int64_t past = sample % 4; /* not 0 in a part that begins within a group */
    draw(seed, step, node, element, sample / 4, random);
    if (past) draw(seed, step, node, element, sample / 4 + 1, random + 4);
    for (int i = 0; i < 4; i++) out[i] = random[past + i] >= threshold ? kept : 0;
}

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)training;
    return (size_t)ek_value_floats(node->out, samples);
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t first = block * w->block;
    for (int64_t at = 0; at < w->block; at += 4) {
        float *factor = w->node->workspace + first + at;
        factors(w->pass->seed, w->pass->step, w->node, at / EK_LANES,
                w->pass->first + block * EK_LANES + at % EK_LANES, factor);
        for (int64_t i = 0; i < 4; i++) w->flow->y[first + at + i] = w->flow->x[0].x[first + at + i] * factor[i];
    }
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (pass->training)
        ek_each_block(pass, node, flow, forward_piece);
    else
        memcpy(flow->y, flow->x[0].x, (size_t)ek_value_floats(node->out, pass->n) * sizeof *flow->y);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const float *dy = w->flow->dy.g + block * w->block, *factor = w->node->workspace + block * w->block;
    float *dx = w->flow->dx[0].g + block * w->block;
    for (int64_t i = 0; i < w->block; i++) dx[i] = w->pass->training ? dy[i] * factor[i] : dy[i];
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

static double reference_factor(const ek_ref *ref, const ek_node *node, int64_t element, int64_t sample)
{
    float f[4];
    if (!ref->training) return 1;
    factors(ref->seed, ref->step, node, element, sample, f);
    return f[0] != 0 ? 1 / (1 - ek_attr_real(node, P)) : 0;
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t elements = ek_shape_count(node->out);
    for (int64_t n = 0; n < ref->n; n++) {
        for (int64_t e = 0; e < elements; e++)
            y[n * elements + e] = x[0][n * elements + e] * reference_factor(ref, node, e, n);
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)x, (void)y;
    int64_t elements = ek_shape_count(node->out);
    for (int64_t n = 0; dx[0] && n < ref->n; n++) {
        for (int64_t e = 0; e < elements; e++)
            dx[0][n * elements + e] += dy[n * elements + e] * reference_factor(ref, node, e, n);
    }
}

const ek_op ek_op_dropout = {
    .name = "dropout",
    .inputs = 1,
    .attrs = {{"p", EK_ATTR_REAL, .positional = true, .fallback = 0.5, .min = 0, .max = 0.999,
               .help = "the share that is zeroed"}},
    .any_rank = true,
    .shape = ek_same_shape,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
