/* flatten: a map [c, h, w] as c*h*w features, in this order as in PyTorch; from lane blocks to rows. */
#include "ops/elementwise.h"

#include <string.h>

static ek_status shape(ek_node *node)
{
    node->out = (ek_shape){.rank = 1, .dim = {ek_shape_count(node->in[0])}};
    return EK_OK;
}

typedef struct work {
    const ek_kernels *kernels;
    int64_t n, features;
    const float *from;
    float *to;
} work;

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t at = block * EK_LANES * w->features;
    w->kernels->lanes_to_rows(w->features, ek_live(w->n, block), w->from + at, w->to + at);
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t at = block * EK_LANES * w->features;
    w->kernels->rows_to_lanes(w->features, ek_live(w->n, block), w->from + at, w->to + at);
}

static void run(const ek_pass *pass, const ek_node *node, const float *from, float *to, ek_piece piece)
{
    work w = {pass->context->kernels, pass->n, node->out.dim[0], from, to};
    if (ek_is_lanes(node->in[0]))
        ek_pool_run(pass->context->pool, ek_blocks(w.n), piece, &w);
    else
        memcpy(to, from, (size_t)(w.n * w.features) * sizeof *to); /* already rows */
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    run(pass, node, x[0], y, forward_piece);
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)x, (void)y;
    if (dx[0]) run(pass, node, dy, dx[0], backward_piece);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    memcpy(y, x[0], (size_t)ek_shape_count(node->out) * ref->n * sizeof *y);
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)x, (void)y;
    int64_t count = ek_shape_count(node->out) * ref->n;
    for (int64_t i = 0; dx[0] && i < count; i++) dx[0][i] += dy[i];
}

const ek_op ek_op_flatten = {
    .name = "flatten",
    .inputs = 1,
    .shape = shape,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
