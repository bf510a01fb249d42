/* add LABEL: the sum of two values of one shape, where a residual connection ends. */
#include "ops/elementwise.h"

static ek_status shape(ek_node *node)
{
    char a[EK_SHAPE_TEXT], b[EK_SHAPE_TEXT];
    if (!ek_shape_equal(node->in[0], node->in[1]))
        return ek_fail(EK_E_SHAPE, "add needs two equal shapes, here %s and %s",
                       ek_shape_text(node->in[0], a), ek_shape_text(node->in[1], b));
    node->out = node->in[0];
    return EK_OK;
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_map_in a = ek_elementwise_in(w, 0, block), b = ek_elementwise_in(w, 1, block);
    w->kernels->map_add(&slab, &a, &b, w->flow->f, w->flow->y + block * w->block);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    for (int i = 0; i < 2; i++) {
        if (!w->flow->dx[i].g) continue;
        ek_grad_out o = ek_elementwise_out(w, i, block);
        w->kernels->grad_write(&slab, &o, w->flow->dy.g + block * w->block);
    }
}

/* Nothing is to be done where the readers of its inputs' gradients read its own (src/graph/steps.c). */
static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g || flow->dx[1].g) ek_each_block(pass, node, flow, backward_piece);
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
    .reads_maps = true,
    .writes = EK_WRITES_ALL,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
