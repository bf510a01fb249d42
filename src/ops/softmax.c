/* softmax: exp(x_i)/sum(exp(x)) over the features. Training takes the cross-entropy of logits and wants no
 * softmax; it is for nets that are to give probabilities. */
#include "ops/elementwise.h"

#include <math.h>

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    if (node->in[0].rank != 1)
        return ek_fail(EK_E_SHAPE,
                       "softmax works on features, its input is the map %s; put 'flatten' before it",
                       ek_shape_text(node->in[0], text));
    node->out = node->in[0];
    return EK_OK;
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    w->kernels->softmax(ek_live(w->pass->n, block), w->channels, w->flow->x[0].x + block * w->block,
                        w->flow->y + block * w->block);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t at = block * w->block;
    w->kernels->softmax_backward(w->channels, w->flow->y + at, w->flow->dy.g + at, w->flow->dx[0].g + at);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t f = node->out.dim[0];
    for (int64_t n = 0; n < ref->n; n++) {
        const double *in = x[0] + n * f;
        double max = in[0], sum = 0;
        for (int64_t i = 1; i < f; i++) max = in[i] > max ? in[i] : max;
        for (int64_t i = 0; i < f; i++) sum += exp(in[i] - max);
        for (int64_t i = 0; i < f; i++) y[n * f + i] = exp(in[i] - max) / sum;
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)x;
    int64_t f = node->out.dim[0];
    for (int64_t n = 0; dx[0] && n < ref->n; n++) {
        double dot = 0;
        for (int64_t i = 0; i < f; i++) dot += dy[n * f + i] * y[n * f + i];
        for (int64_t i = 0; i < f; i++) dx[0][n * f + i] += y[n * f + i] * (dy[n * f + i] - dot);
    }
}

const ek_op ek_op_softmax = {
    .name = "softmax",
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
