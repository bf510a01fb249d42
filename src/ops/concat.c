/* concat LABEL axis=D: the first value's numbers, then the second's, along dimension D of a sample. */
#include "ops/elementwise.h"

#include <string.h>

enum { AXIS };

static ek_status shape(ek_node *node)
{
    char text[2][EK_SHAPE_TEXT];
    ek_shape a = node->in[0], b = node->in[1];
    int axis = (int)ek_attr_int(node, AXIS);
    bool fits = a.rank == b.rank;
    if (axis >= a.rank)
        return ek_fail(EK_E_SHAPE, "axis=%d of concat is none of its input's dimensions, which count from 0: it is %s", axis,
                       ek_shape_text(a, text[0]));
    for (int d = 0; fits && d < a.rank; d++) fits = d == axis || a.dim[d] == b.dim[d];
    if (!fits)
        return ek_fail(EK_E_SHAPE, "concat needs two shapes that are equal but for dimension %d (axis=), here %s and %s", axis,
                       ek_shape_text(a, text[0]), ek_shape_text(b, text[1]));
    node->out = a;
    node->out.dim[axis] += b.dim[axis];
    return EK_OK;
}

static bool moves_positions(const ek_node *node) { return ek_attr_int(node, AXIS) == 1; }

/* Numbers of a side that stand together: one index of each dimension before the axis. */
static int64_t run_of(ek_shape shape, int axis)
{
    int64_t run = 1;
    for (int d = axis; d < shape.rank; d++) run *= shape.dim[d];
    return run;
}

/* Where the numbers of a side begin in a run of the output, that run, and the side's own. */
typedef struct place {
    int64_t begin, whole, own, runs;
} place;

static place place_of(const ek_node *node, int side)
{
    int axis = (int)ek_attr_int(node, AXIS);
    int64_t own = run_of(node->in[side], axis);
    return (place){.begin = side ? run_of(node->in[0], axis) : 0,
                   .whole = run_of(node->out, axis),
                   .own = own,
                   .runs = ek_shape_count(node->in[side]) / own};
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    for (int side = 0; side < 2; side++) {
        place p = place_of(w->node, side);
        const float *x = w->flow->x[side].x + block * ek_block_floats(w->node->in[side]);
        float *y = w->flow->y + block * w->block + p.begin * EK_LANES;
        for (int64_t i = 0; i < p.runs; i++)
            memcpy(y + i * p.whole * EK_LANES, x + i * p.own * EK_LANES, (size_t)(p.own * EK_LANES) * sizeof *y);
    }
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow) { ek_each_block(pass, node, flow, forward_piece); }

static void backward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    for (int side = 0; side < 2; side++) {
        place p = place_of(w->node, side);
        if (!w->flow->dx[side].g) continue;
        float *dx = w->flow->dx[side].g + block * ek_block_floats(w->node->in[side]);
        const float *dy = w->flow->dy.g + block * w->block + p.begin * EK_LANES;
        for (int64_t i = 0; i < p.runs; i++)
            memcpy(dx + i * p.own * EK_LANES, dy + i * p.whole * EK_LANES, (size_t)(p.own * EK_LANES) * sizeof *dx);
    }
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow) { ek_each_block(pass, node, flow, backward_piece); }

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    for (int side = 0; side < 2; side++) {
        place p = place_of(node, side);
        for (int64_t i = 0; i < p.runs * ref->n; i++)
            memcpy(y + p.begin + i * p.whole, x[side] + i * p.own, (size_t)p.own * sizeof *y);
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                               const double *dy, double *const dx[])
{
    (void)x, (void)y;
    for (int side = 0; side < 2; side++) {
        place p = place_of(node, side);
        for (int64_t i = 0; dx[side] && i < p.runs * ref->n * p.own; i++)
            dx[side][i] += dy[p.begin + i / p.own * p.whole + i % p.own];
    }
}

const ek_op ek_op_concat = {
    .name = "concat",
    .inputs = 2,
    .attrs = {{"axis", EK_ATTR_COUNT, .fallback = 0, .min = 0, .max = EK_MAX_VALUE_RANK - 1,
               .help = "the dimension of a sample that they follow each other in; 0: channels"}},
    .any_rank = true,
    .shape = shape,
    .moves_positions = moves_positions,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
