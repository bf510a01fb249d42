/* permute A,B,C: dimension i of the output is dimension A[i] of the input, as PyTorch's permute of all but the batch. */
#include "ops/elementwise.h"
#include "ops/walk.h"

#include <string.h>

enum { AXES };

static int axis_of(const ek_node *node, int d) { return (int)node->attr[AXES].v[d]; }

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    ek_shape in = node->in[0];
    const ek_attr *axes = &node->attr[AXES];
    unsigned seen = 0;
    for (int d = 0; d < axes->n; d++) {
        if (axes->v[d] == axis_of(node, d)) seen |= 1u << axis_of(node, d);
    }
    if (axes->n != in.rank || seen != (1u << in.rank) - 1)
        return ek_fail(EK_E_SHAPE, "permute needs each dimension of its input %s once, counted from 0%s",
                       ek_shape_text(in, text), in.rank == 3 ? ", such as 1,2,0" : in.rank == 2 ? ": 1,0" : "");
    node->out = in;
    for (int d = 0; d < in.rank; d++) node->out.dim[d] = in.dim[axis_of(node, d)];
    return EK_OK;
}

static bool moves_positions(const ek_node *node) { return axis_of(node, 0) != 0; }

/* Over the output, beside the input. */
static ek_walk walk_of(const ek_node *node)
{
    ek_strides own = ek_strides_of(node->in[0], node->in[0]), as = {{0}};
    for (int d = 0; d < node->out.rank; d++) as.step[d] = own.step[axis_of(node, d)];
    return ek_walk_begin(node->out, as, as);
}

static void copy_row(float *restrict to, const float *restrict from) { memcpy(to, from, EK_LANES * sizeof *to); }

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const float *x = w->flow->x[0].x + block * w->block;
    float *y = w->flow->y + block * w->block;
    ek_walk walk = walk_of(w->node);
    do {
        for (int64_t i = 0; i < walk.run; i++)
            copy_row(y + (walk.here + i) * EK_LANES, x + (walk.there[0] + i * walk.step[0]) * EK_LANES);
    } while (ek_walk_next(&walk));
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow) { ek_each_block(pass, node, flow, forward_piece); }

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const float *dy = w->flow->dy.g + block * w->block;
    float *dx = w->flow->dx[0].g + block * w->block;
    ek_walk walk = walk_of(w->node);
    do {
        for (int64_t i = 0; i < walk.run; i++)
            copy_row(dx + (walk.there[0] + i * walk.step[0]) * EK_LANES, dy + (walk.here + i) * EK_LANES);
    } while (ek_walk_next(&walk));
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t count = ek_shape_count(node->out);
    for (int64_t n = 0; n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++) *y++ = x[0][n * count + walk.there[0] + i * walk.step[0]];
        } while (ek_walk_next(&walk));
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                               const double *dy, double *const dx[])
{
    (void)x, (void)y;
    int64_t count = ek_shape_count(node->out);
    for (int64_t n = 0; dx[0] && n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++) dx[0][n * count + walk.there[0] + i * walk.step[0]] += *dy++;
        } while (ek_walk_next(&walk));
    }
}

const ek_op ek_op_permute = {
    .name = "permute",
    .inputs = 1,
    .attrs = {{"axes", EK_ATTR_LIST, .positional = true, .required = true, .min = 0, .max = EK_MAX_VALUE_RANK - 1,
               .help = "which of the input's dimensions each of the output's is, counted from 0: 1,2,0"}},
    .any_rank = true,
    .shape = shape,
    .moves_positions = moves_positions,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
