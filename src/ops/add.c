/* add LABEL: the sum of two values of one shape, where a residual connection ends. */
#include "ops/elementwise.h"

#include <string.h>

static ek_status shape(ek_node *node)
{
    char a[EK_SHAPE_TEXT], b[EK_SHAPE_TEXT];
    if (!ek_shape_equal(node->in[0], node->in[1]))
        return ek_fail(EK_E_SHAPE, "add needs two equal shapes, here %s and %s",
                       ek_shape_text(node->in[0], a), ek_shape_text(node->in[1], b));
    node->out = node->in[0];
    return EK_OK;
}

typedef struct work {
    const ek_kernels *kernels;
    int64_t count;
    const float *a, *b;
    float *y;
} work;

static void forward_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t at = piece * EK_CHUNK;
    w->kernels->add(ek_chunk_size(w->count, piece), w->a + at, w->b + at, w->y + at);
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    work w = {pass->context->kernels, ek_value_floats(node->out, pass->n), x[0], x[1], y};
    ek_pool_run(pass->context->pool, ek_chunks(w.count), forward_piece, &w);
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)x, (void)y;
    size_t bytes = (size_t)ek_value_floats(node->out, pass->n) * sizeof *dy;
    for (int i = 0; i < 2; i++) {
        if (dx[i]) memcpy(dx[i], dy, bytes);
    }
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; i < count; i++) y[i] = x[0][i] + x[1][i];
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)x, (void)y;
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; dx[k] && i < count; i++) dx[k][i] += dy[i];
    }
}

const ek_op ek_op_add = {
    .name = "add",
    .inputs = 2,
    .shape = shape,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
