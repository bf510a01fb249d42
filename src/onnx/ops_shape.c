/* Operators that move numbers about: shapes, axes, joining. */
#include "onnx/import.h"

#include <string.h>

/* The layer's numbers under another shape of a sample. */
static ek_status give_shape(onnx_import *im, const onnx_node *node, onnx_layer x, int rank,
                            const int64_t *dim)
{
    if (rank > EK_MAX_RANK)
        return ek_fail(EK_E_UNSUPPORTED, "it makes %d dimensions; at most %d are read", rank + im->lead,
                       EK_MAX_RANK + im->lead);
    ek_shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++) shape.dim[i] = dim[i];
    if (ek_shape_count(shape) != ek_shape_count(x.shape))
        return ek_fail(EK_E_FORMAT, "it changes how many numbers there are");
    onnx_layer y;
    EK_TRY(ek_onnx_reshape(im, x, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_identity(onnx_import *im, const onnx_node *node)
{
    ek_onnx_pass_on(im, node);
    return EK_OK;
}

ek_status ek_onnx_cast(onnx_import *im, const onnx_node *node)
{
    int64_t to;
    EK_TRY(ek_onnx_get_int(node, "to", 0, &to));
    if (to < 0 || to > 100 || !ek_onnx_is_real((int)to))
        return ek_fail(EK_E_UNSUPPORTED, "it casts what layers compute to %s",
                       ek_onnx_type_name(to < 100 ? (int)to : 0));
    ek_onnx_pass_on(im, node);
    return EK_OK;
}

ek_status ek_onnx_shape(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    int64_t start, end;
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_get_int(node, "start", 0, &start));
    EK_TRY(ek_onnx_get_int(node, "end", INT64_MAX, &end));
    int64_t rank = x.shape.rank + im->lead;
    if (start < 0) start += rank;
    if (end < 0) end += rank;
    start = start < 0 ? 0 : start > rank ? rank : start;
    end = end < start ? start : end > rank ? rank : end;
    int64_t count = end - start;
    onnx_constant *c;
    EK_TRY(ek_onnx_new_constant(im, ONNX_INT64, 1, &count, &c));
    for (int64_t i = 0; i < count; i++) {
        int64_t axis = start + i - im->lead;
        c->whole[i] = axis < 0 ? ONNX_BATCH : x.shape.dim[axis];
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

/* --- reshape */

/* Resolves 0, a copy of x's dimension, and one -1, what is left, among the dimensions of a sample. */
static ek_status resolve_dims(int64_t *dim, int rank, ek_shape x, bool allow_zero, int lead)
{
    int64_t known = 1, count = ek_shape_count(x);
    int open = -1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] == 0 && !allow_zero && i < x.rank) dim[i] = x.dim[i];
        if (dim[i] == -1 && open < 0) {
            open = i;
            continue;
        }
        if (dim[i] < 1 || __builtin_mul_overflow(known, dim[i], &known))
            return ek_fail(EK_E_FORMAT, "its dimension %d is %lld", i + lead, (long long)dim[i]);
    }
    if (open >= 0) dim[open] = count / known;
    if (open >= 0 ? dim[open] * known != count : known != count)
        return ek_fail(EK_E_FORMAT, "a sample has %lld numbers, which do not go into its shape",
                       (long long)count);
    return EK_OK;
}

/* Whether the first dimension that it asks for is the batch's. `rest`: the product of the others, -1 where one is open. */
static ek_status check_batch(onnx_import *im, int64_t first, int64_t rest, int64_t count)
{
    if (first == ONNX_BATCH || first == 0) return EK_OK;
    if (first == -1 && rest == count) return EK_OK;
    if (first > 0 && first == im->batch) return EK_OK;
    if (first == 1 && im->batch < 0 && (rest == count || rest < 0))
        return ek_onnx_note(
            im,
            "a Reshape writes a batch of 1 into its shape, though the input leaves it open: it is read as "
            "any batch");
    return ek_onnx_touches_batch(im, "it reshapes across the batch");
}

static ek_status reshape_list(onnx_import *im, const onnx_node *node, const int64_t **list, int *count)
{
    onnx_constant *c;
    if (im->model->opset < 5) {
        EK_TRY(ek_onnx_get_ints(node, "shape", list, count));
        return *count > ONNX_MAX_RANK ? ek_fail(EK_E_UNSUPPORTED, "its shape has %d dimensions", *count)
                                      : EK_OK;
    }
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "shape", &c));
    EK_TRY(ek_onnx_load(im, c));
    if (!c->whole) return ek_fail(EK_E_FORMAT, "its shape holds no whole numbers");
    if (c->count > ONNX_MAX_RANK)
        return ek_fail(EK_E_UNSUPPORTED, "its shape has %lld dimensions", (long long)c->count);
    *list = c->whole;
    *count = (int)c->count;
    return EK_OK;
}

ek_status ek_onnx_reshape_node(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    const int64_t *list;
    int rank;
    int64_t allow_zero, dim[ONNX_MAX_RANK], rest = 1;
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(reshape_list(im, node, &list, &rank));
    EK_TRY(ek_onnx_get_int(node, "allowzero", 0, &allow_zero));
    for (int i = im->lead; i < rank; i++) {
        dim[i - im->lead] = list[i];
        if (list[i] == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it moves the batch from the first dimension");
        int64_t d =
            list[i] == 0 && !allow_zero && i - im->lead < x.shape.rank ? x.shape.dim[i - im->lead] : list[i];
        if (rest > 0 && (d < 1 || __builtin_mul_overflow(rest, d, &rest))) rest = -1;
    }
    if (im->lead) {
        if (rank == 0) return ek_onnx_touches_batch(im, "it reshapes across the batch");
        EK_TRY(check_batch(im, list[0], rest, ek_shape_count(x.shape)));
    }
    EK_TRY(resolve_dims(dim, rank - im->lead, x.shape, allow_zero, im->lead));
    return give_shape(im, node, x, rank - im->lead, dim);
}

ek_status ek_onnx_flatten(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    int64_t axis;
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_get_int(node, "axis", 1, &axis));
    int rank = x.shape.rank + im->lead;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis > rank) return ek_fail(EK_E_FORMAT, "its axis is none of %d dimensions", rank);
    int64_t dim[2] = {1, 1};
    for (int i = im->lead; i < rank; i++) dim[i >= axis] *= x.shape.dim[i - im->lead];
    if (!im->lead) return give_shape(im, node, x, 2, dim);
    if (axis == 0 || dim[0] != 1) return ek_onnx_touches_batch(im, "it flattens across the batch");
    return give_shape(im, node, x, 1, dim + 1);
}

ek_status ek_onnx_squeeze(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    int64_t axes[ONNX_MAX_RANK], dim[EK_MAX_RANK];
    bool there, gone[EK_MAX_RANK] = {false};
    int count, axis, rank = 0;
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_axes(im, node, 13, axes, &count, &there));
    if (!there && im->lead && im->batch == 1)
        return ek_onnx_touches_batch(im, "it takes all dimensions of 1 away, the batch too");
    for (int i = 0; i < count; i++) {
        EK_TRY(ek_onnx_axis(im, axes[i], x.shape.rank + im->lead, false, &axis));
        if (x.shape.dim[axis] != 1)
            return ek_fail(EK_E_FORMAT, "it squeezes a dimension of %lld", (long long)x.shape.dim[axis]);
        gone[axis] = true;
    }
    for (int i = 0; i < x.shape.rank; i++) {
        if (there ? !gone[i] : x.shape.dim[i] != 1) dim[rank++] = x.shape.dim[i];
    }
    return give_shape(im, node, x, rank, dim);
}

ek_status ek_onnx_unsqueeze(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    int64_t axes[ONNX_MAX_RANK], dim[EK_MAX_RANK + ONNX_MAX_RANK];
    bool there, made[EK_MAX_RANK + ONNX_MAX_RANK] = {false};
    int count, axis, from = 0;
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_axes(im, node, 13, axes, &count, &there));
    int rank = x.shape.rank + count;
    for (int i = 0; i < count; i++) {
        EK_TRY(ek_onnx_axis(im, axes[i], rank + im->lead, false, &axis));
        if (made[axis]) return ek_fail(EK_E_FORMAT, "it names an axis twice");
        made[axis] = true;
    }
    for (int i = 0; i < rank; i++) dim[i] = made[i] ? 1 : x.shape.dim[from++];
    return give_shape(im, node, x, rank, dim);
}

/* --- axes */

ek_status ek_onnx_transpose(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    const int64_t *order;
    int count, axis[EK_MAX_RANK];
    bool seen[EK_MAX_RANK] = {false};
    EK_TRY(ek_onnx_moved_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_get_ints(node, "perm", &order, &count));
    int rank = x.shape.rank + im->lead;
    if (order && count != rank)
        return ek_fail(EK_E_FORMAT, "its perm has %d numbers for %d dimensions", count, rank);
    for (int i = 0; i < rank; i++) {
        int64_t from = order ? order[i] : rank - 1 - i;
        if (im->lead && (from == 0) != (i == 0))
            return ek_onnx_touches_batch(im, "it moves the batch from the first dimension");
        if (i < im->lead) continue;
        if (from < im->lead || from >= rank || seen[from - im->lead])
            return ek_fail(EK_E_FORMAT, "its perm is no permutation");
        seen[from - im->lead] = true;
        axis[i - im->lead] = (int)from - im->lead;
    }
    EK_TRY(ek_onnx_permute(im, x, axis, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- joining */

/* The concat of these two that is there already, behind both: what DenseNets join again and again. */
static int find_concat(const onnx_import *im, int first, int second, int axis)
{
    const ek_op *concat = ek_op_find("concat");
    for (int i = (first > second ? first : second) + 1; i < im->builder.graph.count; i++) {
        const ek_node *node = &im->builder.graph.node[i];
        if (node->op == concat && node->input[0] == first && node->input[1] == second && (int)node->attr[0].v[0] == axis)
            return i;
    }
    return -1;
}

ek_status ek_onnx_concat(onnx_import *im, const onnx_node *node)
{
    onnx_layer sum, next;
    int64_t given;
    int axis;
    EK_TRY(ek_onnx_get_int(node, "axis", 1, &given));
    if (node->input_count == 0) return ek_fail(EK_E_FORMAT, "it joins nothing");
    EK_TRY(ek_onnx_layer(im, node, 0, &sum));
    EK_TRY(ek_onnx_axis(im, given, sum.shape.rank + im->lead, false, &axis));
    EK_TRY(ek_onnx_reshape(im, sum, sum.shape, &sum));
    for (int k = 1; k < node->input_count; k++) {
        EK_TRY(ek_onnx_layer(im, node, k, &next));
        EK_TRY(ek_onnx_reshape(im, next, next.shape, &next));
        int there = find_concat(im, sum.index, next.index, axis);
        if (there >= 0)
            sum = (onnx_layer){.index = there, .shape = ek_builder_shape(&im->builder, there)};
        else
            EK_TRY(ek_onnx_add(im, node, NULL, "concat", sum.index, next.index, &sum, "axis=%d", axis));
    }
    ek_onnx_give(im, node, sum);
    return EK_OK;
}
