/* With a the first and b the second value, number by number:
 *
 *   sub   y = a - b     da = dy         db = -dy
 *   mul   y = a*b       da = dy*b       db = dy*a
 *   div   y = a/b       da = dy/b       db = -dy*a/b^2
 *
 * Where a dimension of a side is 1 and the other's is not, its gradient is the sum over what it stood for: in double, in the
 * order of the output, each sample's for itself. */
#include "ops/arithmetic.h"

#include "ops/elementwise.h"
#include "ops/walk.h"

#include <string.h>

extern const ek_op ek_op_add, ek_op_sub, ek_op_mul, ek_op_div;

typedef enum arithmetic { ADD, SUB, MUL, DIV } arithmetic;

static arithmetic kind_of(const ek_node *node)
{
    static const ek_op *const ops[] = {[ADD] = &ek_op_add, [SUB] = &ek_op_sub, [MUL] = &ek_op_mul, [DIV] = &ek_op_div};
    arithmetic kind = ADD;
    while (kind < DIV && node->op != ops[kind]) kind++;
    return kind;
}

ek_status ek_arithmetic_shape(ek_node *node)
{
    char text[2][EK_SHAPE_TEXT];
    ek_shape a = node->in[0], b = node->in[1];
    bool fits = a.rank == b.rank;
    node->out = a;
    for (int d = 0; fits && d < a.rank; d++) {
        fits = a.dim[d] == b.dim[d] || a.dim[d] == 1 || b.dim[d] == 1;
        node->out.dim[d] = a.dim[d] == 1 ? b.dim[d] : a.dim[d];
    }
    if (fits) return EK_OK;
    return ek_fail(EK_E_SHAPE, "%s needs two equal shapes, or 1 where their dimensions differ; here %s and %s",
                   node->op->name, ek_shape_text(a, text[0]), ek_shape_text(b, text[1]));
}

static ek_walk walk_of(const ek_node *node)
{
    return ek_walk_begin(node->out, ek_strides_of(node->in[0], node->out), ek_strides_of(node->in[1], node->out));
}

/* --- lane rows */

static void row(arithmetic kind, const float *a, const float *b, float *restrict y)
{
    switch (kind) {
    case ADD:
        for (int i = 0; i < EK_LANES; i++) y[i] = a[i] + b[i];
        break;
    case SUB:
        for (int i = 0; i < EK_LANES; i++) y[i] = a[i] - b[i];
        break;
    case MUL:
        for (int i = 0; i < EK_LANES; i++) y[i] = a[i] * b[i];
        break;
    case DIV:
        for (int i = 0; i < EK_LANES; i++) y[i] = a[i] / b[i];
        break;
    }
}

/* Of side 0, a, or 1, b. Where no gradient comes in there is none, also where a dead lane has nothing to divide by. */
static void gradient_row(arithmetic kind, int side, const float *a, const float *b, const float *dy, float *restrict g)
{
    const float *other = side ? a : b;
    float sign = kind == SUB && side ? -1.0f : 1.0f;
    switch (kind) {
    case ADD:
    case SUB:
        for (int i = 0; i < EK_LANES; i++) g[i] = sign * dy[i];
        break;
    case MUL:
        for (int i = 0; i < EK_LANES; i++) g[i] = dy[i] * other[i];
        break;
    case DIV:
        for (int i = 0; i < EK_LANES; i++) g[i] = dy[i] == 0 ? 0 : side ? -(dy[i] / b[i]) * (a[i] / b[i]) : dy[i] / b[i];
        break;
    }
}

/* x/0 has no place in dead lanes. */
static void clear_dead(float *y, int live)
{
    for (int i = live; i < EK_LANES; i++) y[i] = 0;
}

static const float *side_block(const ek_elementwise *w, int side, int64_t block)
{
    return w->flow->x[side].x + block * ek_block_floats(w->node->in[side]);
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const float *a = side_block(w, 0, block), *b = side_block(w, 1, block);
    float *y = w->flow->y + block * w->block;
    const arithmetic kind = kind_of(w->node);
    const int live = ek_live(w->pass->n, block);
    ek_walk walk = walk_of(w->node);
    do {
        for (int64_t i = 0; i < walk.run; i++, y += EK_LANES) {
            row(kind, a + (walk.there[0] + i * walk.step[0]) * EK_LANES, b + (walk.there[1] + i * walk.step[1]) * EK_LANES, y);
            clear_dead(y, live);
        }
    } while (ek_walk_next(&walk));
}

void ek_arithmetic_forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

/* A thread's sums of a side that is broadcast, in double. */
size_t ek_arithmetic_scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    int64_t most = 0;
    for (int side = 0; side < 2; side++) {
        int64_t floats = ek_block_floats(node->in[side]);
        if (!ek_shape_equal(node->in[side], node->out) && floats > most) most = floats;
    }
    return (size_t)most * (sizeof(double) / sizeof(float));
}

static void add_row(double *sum, const float *g)
{
    for (int i = 0; i < EK_LANES; i++) sum[i] += g[i];
}

static void side_gradient(const ek_elementwise *w, int side, int64_t block, int thread)
{
    const float *a = side_block(w, 0, block), *b = side_block(w, 1, block), *dy = w->flow->dy.g + block * w->block;
    int64_t floats = ek_block_floats(w->node->in[side]);
    float *dx = w->flow->dx[side].g + block * floats, one[EK_LANES];
    double *sum = ek_shape_equal(w->node->in[side], w->node->out) ? NULL : (double *)(void *)ek_scratch(w->pass, thread);
    const arithmetic kind = kind_of(w->node);
    if (sum) memset(sum, 0, (size_t)floats * sizeof *sum);
    ek_walk walk = walk_of(w->node);
    do {
        for (int64_t i = 0; i < walk.run; i++, dy += EK_LANES) {
            int64_t at[2] = {(walk.there[0] + i * walk.step[0]) * EK_LANES, (walk.there[1] + i * walk.step[1]) * EK_LANES};
            gradient_row(kind, side, a + at[0], b + at[1], dy, sum ? one : dx + at[side]);
            if (sum) add_row(sum + at[side], one);
        }
    } while (ek_walk_next(&walk));
    for (int64_t i = 0; sum && i < floats; i++) dx[i] = (float)sum[i];
}

static void backward_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    for (int side = 0; side < 2; side++) {
        if (w->flow->dx[side].g) side_gradient(w, side, block, thread);
    }
}

void ek_arithmetic_backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, backward_piece);
}

/* --- reference */

static double value(arithmetic kind, double a, double b)
{
    switch (kind) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    }
    return 0;
}

static double derivative(arithmetic kind, int side, double a, double b)
{
    switch (kind) {
    case ADD: return 1;
    case SUB: return side ? -1 : 1;
    case MUL: return side ? a : b;
    case DIV: return side ? -a / (b * b) : 1 / b;
    }
    return 0;
}

void ek_arithmetic_reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t a = ek_shape_count(node->in[0]), b = ek_shape_count(node->in[1]);
    for (int64_t n = 0; n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++)
                *y++ = value(kind_of(node), x[0][n * a + walk.there[0] + i * walk.step[0]],
                             x[1][n * b + walk.there[1] + i * walk.step[1]]);
        } while (ek_walk_next(&walk));
    }
}

void ek_arithmetic_reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                                      const double *dy, double *const dx[])
{
    (void)y;
    int64_t count[2] = {ek_shape_count(node->in[0]), ek_shape_count(node->in[1])};
    for (int64_t n = 0; n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++, dy++) {
                int64_t at[2];
                for (int side = 0; side < 2; side++) at[side] = n * count[side] + walk.there[side] + i * walk.step[side];
                for (int side = 0; side < 2; side++) {
                    if (dx[side] && *dy != 0)
                        dx[side][at[side]] += *dy * derivative(kind_of(node), side, x[0][at[0]], x[1][at[1]]);
                }
            }
        } while (ek_walk_next(&walk));
    }
}

#define ARITHMETIC                                                                                            \
    .inputs = 2, .any_rank = true, .shape = ek_arithmetic_shape, .scratch = ek_arithmetic_scratch,            \
    .forward = ek_arithmetic_forward, .backward = ek_arithmetic_backward,                                     \
    .reference_forward = ek_arithmetic_reference_forward, .reference_backward = ek_arithmetic_reference_backward

const ek_op ek_op_sub = {.name = "sub", ARITHMETIC};
const ek_op ek_op_mul = {.name = "mul", ARITHMETIC};
const ek_op ek_op_div = {.name = "div", ARITHMETIC};
