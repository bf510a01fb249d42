/* softmax axis=D: exp(x_i)/sum(exp(x)) over the numbers along a dimension of a sample: its features, or the channels at each
 * place of a map. Training takes the cross-entropy of logits and wants no softmax at the end; there it is for nets that are
 * to give probabilities. */
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { AXIS };

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    if (ek_attr_int(node, AXIS) >= node->in[0].rank)
        return ek_fail(EK_E_SHAPE, "axis=%d of softmax is none of its input's dimensions, which count from 0: it is %s",
                       (int)ek_attr_int(node, AXIS), ek_shape_text(node->in[0], text));
    return ek_same_shape(node);
}

/* A row is what sums to 1: `count` numbers, `apart` from each other. Row r begins at row_begin(). */
typedef struct rows {
    int64_t rows, count, apart;
} rows;

static rows rows_of(const ek_node *node)
{
    ek_shape shape = node->out;
    int axis = (int)ek_attr_int(node, AXIS);
    rows r = {.count = shape.dim[axis], .apart = 1};
    for (int d = axis + 1; d < shape.rank; d++) r.apart *= shape.dim[d];
    r.rows = ek_shape_count(shape) / r.count;
    return r;
}

static int64_t row_begin(const rows *r, int64_t row) { return row / r->apart * r->count * r->apart + row % r->apart; }

/* How many of a row's first numbers count: where it goes over the positions of sequences, as many as are alive. */
static const int32_t *row_length(const int32_t *length, const ek_node *node)
{
    return ek_attr_int(node, AXIS) == 1 ? length : NULL;
}

/* Rows whose numbers stand apart are put together in a thread's scratch: y (or x), dy and dx. */
static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    return 3 * (size_t)rows_of(node).count * EK_LANES;
}

static void gather(const rows *r, const float *from, float *to)
{
    for (int64_t i = 0; i < r->count; i++) memcpy(to + i * EK_LANES, from + i * r->apart * EK_LANES, EK_LANES * sizeof *to);
}

static void scatter(const rows *r, const float *from, float *to)
{
    for (int64_t i = 0; i < r->count; i++) memcpy(to + i * r->apart * EK_LANES, from + i * EK_LANES, EK_LANES * sizeof *to);
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    rows r = rows_of(w->node);
    const int live = ek_live(w->pass->n, block);
    const int32_t *length = row_length(ek_block_length(w->pass, w->node, block), w->node);
    float *row = ek_scratch(w->pass, thread);
    for (int64_t i = 0; i < r.rows; i++) {
        int64_t at = block * w->block + row_begin(&r, i) * EK_LANES;
        const float *x = w->flow->x[0].x + at;
        if (r.apart == 1 && !length) {
            w->kernels->softmax(live, r.count, x, w->flow->y + at);
            continue;
        }
        gather(&r, x, row);
        if (length) w->kernels->sequence_cut(1, r.count, length, -INFINITY, row);
        w->kernels->softmax(live, r.count, row, row);
        scatter(&r, row, w->flow->y + at);
    }
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_each_block(pass, node, flow, forward_piece);
}

/* Beyond a length y is 0, and so is dx. */
static void backward_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    rows r = rows_of(w->node);
    float *y = ek_scratch(w->pass, thread), *dy = y + r.count * EK_LANES, *dx = dy + r.count * EK_LANES;
    for (int64_t i = 0; i < r.rows; i++) {
        int64_t at = block * w->block + row_begin(&r, i) * EK_LANES;
        if (r.apart == 1) {
            w->kernels->softmax_backward(r.count, w->flow->y + at, w->flow->dy.g + at, w->flow->dx[0].g + at);
            continue;
        }
        gather(&r, w->flow->y + at, y);
        gather(&r, w->flow->dy.g + at, dy);
        w->kernels->softmax_backward(r.count, y, dy, dx);
        scatter(&r, dx, w->flow->dx[0].g + at);
    }
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (flow->dx[0].g) ek_each_block(pass, node, flow, backward_piece);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    rows r = rows_of(node);
    const int32_t *length = row_length(ek_input_length(ref->length, node), node);
    for (int64_t i = 0; i < ref->n * r.rows; i++) {
        int64_t begin = row_begin(&r, i), count = length ? length[i / r.rows] : r.count;
        double max = -INFINITY, sum = 0;
        for (int64_t k = 0; k < count; k++) max = fmax(max, x[0][begin + k * r.apart]);
        for (int64_t k = 0; k < count; k++) sum += exp(x[0][begin + k * r.apart] - max);
        for (int64_t k = 0; k < r.count; k++)
            y[begin + k * r.apart] = k < count ? exp(x[0][begin + k * r.apart] - max) / sum : 0;
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)x;
    rows r = rows_of(node);
    for (int64_t i = 0; dx[0] && i < ref->n * r.rows; i++) {
        int64_t begin = row_begin(&r, i);
        double dot = 0;
        for (int64_t k = 0; k < r.count; k++) dot += dy[begin + k * r.apart] * y[begin + k * r.apart];
        for (int64_t k = 0; k < r.count; k++)
            dx[0][begin + k * r.apart] += y[begin + k * r.apart] * (dy[begin + k * r.apart] - dot);
    }
}

const ek_op ek_op_softmax = {
    .name = "softmax",
    .inputs = 1,
    .attrs = {{"axis", EK_ATTR_COUNT, .fallback = 0, .min = 0, .max = EK_MAX_VALUE_RANK - 1,
               .help = "the dimension of a sample along which the numbers sum to 1; 0: features, or channels"}},
    .any_rank = true,
    .shape = shape,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
