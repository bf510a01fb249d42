/* Operators whose output has their input's shape: a piece of their work is a lane block. */
#ifndef EK_OPS_ELEMENTWISE_H
#define EK_OPS_ELEMENTWISE_H

#include "ops/op.h"

typedef struct ek_elementwise {
    const ek_pass *pass;
    const ek_kernels *kernels;
    ek_node *node;
    const ek_flow *flow;
    int64_t channels, block; /* channels; floats of a block */
} ek_elementwise;

static inline ek_elementwise ek_elementwise_of(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    return (ek_elementwise){.pass = pass,
                            .kernels = pass->kernels,
                            .node = node,
                            .flow = flow,
                            .channels = node->out.dim[0],
                            .block = ek_block_floats(node->out)};
}

static inline void ek_each_block(const ek_pass *pass, ek_node *node, const ek_flow *flow, ek_piece piece)
{
    ek_elementwise work = ek_elementwise_of(pass, node, flow);
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), piece, &work);
}

static inline ek_slab ek_elementwise_slab(const ek_elementwise *w, int64_t block)
{
    return (ek_slab){w->channels, ek_channel_floats(w->node->out), 1, w->block, ek_live(w->pass->n, block)};
}

static inline ek_map_in ek_elementwise_in(const ek_elementwise *w, int input, int64_t block)
{
    return ek_map_block(w->pass, &w->flow->x[input], block, w->block);
}

static inline ek_grad_out ek_elementwise_out(const ek_elementwise *w, int input, int64_t block)
{
    return ek_grad_out_block(w->pass, &w->flow->dx[input], block, w->block, w->channels);
}

/* For a pass that gives dv plainly: where to put it, in g or else at the beginning of the thread's scratch, and what of
 * `o` remains to be done then. */
static inline float *ek_elementwise_dv(const ek_elementwise *w, const ek_grad_out *o, int thread)
{
    return ek_grad_out_asks(o) ? ek_scratch(w->pass, thread) : o->g;
}

static inline void ek_elementwise_finish(const ek_elementwise *w, const ek_slab *slab, const ek_grad_out *o, const float *dv)
{
    if (dv != o->g) w->kernels->grad_write(slab, o, dv);
}

/* The output has the input's shape. */
static inline ek_status ek_same_shape(ek_node *node)
{
    node->out = node->in[0];
    return EK_OK;
}

#endif
