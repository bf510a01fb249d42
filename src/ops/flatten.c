/* flatten: a map [c, h, w] as c*h*w features, in this order as in PyTorch. In lane blocks these are the same
 * numbers at the same places: there is nothing to run. */
#include "ops/elementwise.h"

#include <string.h>

static ek_status shape(ek_node *node)
{
    node->out = (ek_shape){.rank = 1, .dim = {ek_shape_count(node->in[0])}};
    return EK_OK;
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
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
