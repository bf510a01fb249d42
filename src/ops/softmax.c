/* softmax: exp(x_i)/sum(exp(x)) over the features. Training takes the cross-entropy of logits and wants no
 * softmax; it is for nets that are to give probabilities. */
#include "ops/op.h"

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

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    pass->context->kernels->softmax(pass->n, node->out.dim[0], x[0], y);
}

/* dx_i = y_i*(dy_i - sum_j dy_j*y_j) */
static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)x;
    if (!dx[0]) return;
    int64_t f = node->out.dim[0];
    for (int64_t n = 0; n < pass->n; n++) {
        double dot = 0;
        for (int64_t i = 0; i < f; i++) dot += (double)dy[n * f + i] * y[n * f + i];
        for (int64_t i = 0; i < f; i++) dx[0][n * f + i] = (float)(y[n * f + i] * (dy[n * f + i] - dot));
    }
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
