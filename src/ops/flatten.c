/* flatten: a map [c, h, w] as c*h*w features, in this order as in PyTorch; reshape SHAPE: as any other shape. In lane blocks
 * these are the same numbers at the same places: there is nothing to run. */
#include "ops/elementwise.h"

#include <string.h>

static ek_status shape(ek_node *node)
{
    node->out = (ek_shape){.rank = 1, .dim = {ek_shape_count(node->in[0])}};
    return EK_OK;
}

enum { SHAPE };

static ek_status reshape_shape(ek_node *node)
{
    char text[2][EK_SHAPE_TEXT];
    const ek_attr *attr = &node->attr[SHAPE];
    int64_t count = 1, there = ek_shape_count(node->in[0]);
    node->out = (ek_shape){.rank = attr->n};
    for (int d = 0; d < attr->n; d++) {
        node->out.dim[d] = (int64_t)attr->v[d];
        if (__builtin_mul_overflow(count, node->out.dim[d], &count)) count = INT64_MAX;
    }
    if (count == there) return EK_OK;
    return ek_fail(EK_E_SHAPE, "reshape to %s does not fit: its input %s has %lld numbers", ek_shape_text(node->out, text[0]),
                   ek_shape_text(node->in[0], text[1]), (long long)there);
}

/* As features there are no positions any more. */
static bool moves_positions(const ek_node *node) { return node->out.rank > 1 && !ek_shape_equal(node->in[0], node->out); }

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
    .any_rank = true,
    .shape = shape,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};

const ek_op ek_op_reshape = {
    .name = "reshape",
    .inputs = 1,
    .attrs = {{"shape", EK_ATTR_SHAPE, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "of as many numbers as the input has"}},
    .any_rank = true,
    .shape = reshape_shape,
    .moves_positions = moves_positions,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
