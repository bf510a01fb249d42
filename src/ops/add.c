/* add LABEL: the sum of two values. Here those of one shape, where a residual connection ends; arithmetic.c has the others. */
#include "ops/arithmetic.h"
#include "ops/elementwise.h"

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
    if (ek_broadcasts(node))
        ek_arithmetic_forward(pass, node, flow);
    else
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
    if (ek_broadcasts(node))
        ek_arithmetic_backward(pass, node, flow);
    else if (flow->dx[0].g || flow->dx[1].g)
        ek_each_block(pass, node, flow, backward_piece);
}

const ek_op ek_op_add = {
    .name = "add",
    .inputs = 2,
    .any_rank = true,
    .shape = ek_arithmetic_shape,
    .scratch = ek_arithmetic_scratch,
    .forward = forward,
    .backward = backward,
    .reads_maps = true,
    .writes = EK_WRITES_ALL,
    .reference_forward = ek_arithmetic_reference_forward,
    .reference_backward = ek_arithmetic_reference_backward,
};
