/* dropout P: in training, each number is zeroed with probability P and the others divided by 1-P, so that
 * inference needs no change (Srivastava et al. 2014, in its "inverted" form).
 *
 * The mask of a number is drawn by (seed, step, layer, element, sample) alone: the same for any number of
 * threads, either layout, and a resumed run. */
#include "core/random.h"
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { P };

/* Factors (0 or 1/(1-p)) of four samples, 4*group and on, at one element. */
static void factors(uint64_t seed, uint64_t step, const ek_node *node, int64_t element, int64_t group,
                    float out[4])
{
    double p = ek_attr_real(node, P);
    float kept = (float)(1 / (1 - p));
    uint32_t threshold = (uint32_t)(p * 0x1p32);
    uint32_t random[4];
    ek_philox(seed, (uint32_t)EK_STREAM_DROPOUT | (uint32_t)step << 8,
              (uint32_t)node->id | (uint32_t)(step >> 24) << 16, (uint64_t)element << 24 | (uint64_t)group,
              random);
    for (int i = 0; i < 4; i++) out[i] = random[i] >= threshold ? kept : 0;
}

static size_t workspace(const ek_node *node, int64_t samples)
{
    return (size_t)ek_value_floats(node->out, samples);
}

typedef struct work {
    const ek_pass *pass;
    const ek_node *node;
    int64_t elements; /* of one sample */
    const float *x;
    float *y, *mask;
} work;

/* One block of EK_LANES samples, in either layout. */
static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    bool lanes = ek_is_lanes(w->node->out);
    int64_t first = block * EK_LANES * w->elements;
    int live = ek_live(w->pass->n, block);
    for (int64_t e = 0; e < w->elements; e++) {
        for (int64_t s = 0; s < (lanes ? EK_LANES : live); s += 4) {
            float f[4];
            factors(w->pass->seed, w->pass->step, w->node, e, block * (EK_LANES / 4) + s / 4, f);
            for (int64_t i = s; i < s + 4 && i < (lanes ? EK_LANES : live); i++) {
                int64_t at = first + (lanes ? e * EK_LANES + i : i * w->elements + e);
                w->mask[at] = f[i - s];
                w->y[at] = w->x[at] * f[i - s];
            }
        }
    }
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    if (!pass->training) {
        memcpy(y, x[0], (size_t)ek_value_floats(node->out, pass->n) * sizeof *y);
        return;
    }
    work w = {pass, node, ek_shape_count(node->out), x[0], y, node->workspace};
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), forward_piece, &w);
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)x, (void)y;
    int64_t count = ek_value_floats(node->out, pass->n);
    for (int64_t i = 0; dx[0] && i < count; i++)
        dx[0][i] = pass->training ? dy[i] * node->workspace[i] : dy[i];
}

static double reference_factor(const ek_ref *ref, const ek_node *node, int64_t element, int64_t sample)
{
    float f[4];
    if (!ref->training) return 1;
    factors(ref->seed, ref->step, node, element, sample / 4, f);
    return f[sample % 4] != 0 ? 1 / (1 - ek_attr_real(node, P)) : 0;
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
    .shape = ek_same_shape,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
