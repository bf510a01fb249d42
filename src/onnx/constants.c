/* Computing what depends on constants alone: the chains of Shape, Slice, Cast, Concat and the like that exporters write
 * around a Reshape, and weights that are turned or scaled before they are used. */
#include "onnx/import.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers */

ek_status ek_onnx_take_room(onnx_import *im, int64_t count)
{
    if (count > im->room)
        return ek_fail(EK_E_UNSUPPORTED, "it makes a constant of %lld numbers", (long long)count);
    im->room -= count;
    return EK_OK;
}

ek_status ek_onnx_new_constant(onnx_import *im, int type, int rank, const int64_t *dim, onnx_constant **out)
{
    onnx_constant *c;
    int64_t count;
    int wrong;
    if (rank > ONNX_MAX_RANK) return ek_fail(EK_E_UNSUPPORTED, "it makes a constant of %d dimensions", rank);
    if (!ek_onnx_count(rank, dim, &count, &wrong))
        return ek_fail(EK_E_FORMAT, "it makes a constant with a dimension of %lld", (long long)dim[wrong]);
    EK_TRY(ek_onnx_take_room(im, count));
    EK_TRY(ONNX_KEEP(&im->memory, c, 1));
    *c = (onnx_constant){.type = type, .rank = rank, .count = count};
    for (int i = 0; i < rank; i++) c->dim[i] = dim[i];
    if (ek_onnx_is_real(type))
        EK_TRY(ONNX_KEEP(&im->memory, c->real, (size_t)count));
    else
        EK_TRY(ONNX_KEEP(&im->memory, c->whole, (size_t)count));
    *out = c;
    return EK_OK;
}

ek_status ek_onnx_load(onnx_import *im, onnx_constant *c)
{
    if (!c->tensor) return EK_OK;
    if (ek_onnx_is_real(c->type)) {
        float *real;
        EK_TRY(ONNX_KEEP(&im->memory, real, (size_t)c->count));
        EK_TRY(ek_onnx_tensor_reals(im->model, c->tensor, real));
        c->real = real;
    } else {
        int64_t *whole;
        EK_TRY(ONNX_KEEP(&im->memory, whole, (size_t)c->count));
        EK_TRY(ek_onnx_tensor_whole(im->model, c->tensor, whole));
        c->whole = whole;
    }
    c->tensor = NULL;
    return EK_OK;
}

ek_status ek_onnx_copy(onnx_import *im, onnx_constant *c, float *out)
{
    if (c->tensor && ek_onnx_is_real(c->type)) return ek_onnx_tensor_reals(im->model, c->tensor, out);
    EK_TRY(ek_onnx_load(im, c));
    for (int64_t i = 0; i < c->count; i++) {
        if (c->whole && c->whole[i] == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it computes with the size of the batch");
        out[i] = (float)ek_onnx_number(c, i);
    }
    return EK_OK;
}

static void copy_element(onnx_constant *to, int64_t i, const onnx_constant *from, int64_t k)
{
    if (to->real)
        to->real[i] = from->real ? from->real[k] : (float)from->whole[k];
    else
        to->whole[i] = from->whole ? from->whole[k] : (int64_t)from->real[k];
}

/* Where the element of `c` stands that is broadcast to the i-th of a larger array. */
static int64_t broadcast_index(const onnx_constant *c, int rank, const int64_t *dim, int64_t i)
{
    int64_t index = 0, step = 1;
    for (int k = rank - 1, own = c->rank - 1; k >= 0; k--, own--) {
        int64_t at = i % dim[k];
        i /= dim[k];
        if (own < 0) continue;
        if (c->dim[own] != 1) index += at * step;
        step *= c->dim[own];
    }
    return index;
}

static ek_status broadcast_dims(const onnx_constant *a, const onnx_constant *b, int *rank, int64_t *dim)
{
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int k = 0; k < *rank; k++) {
        int64_t left = k < *rank - a->rank ? 1 : a->dim[k - (*rank - a->rank)];
        int64_t right = k < *rank - b->rank ? 1 : b->dim[k - (*rank - b->rank)];
        if (left != right && left != 1 && right != 1)
            return ek_fail(EK_E_FORMAT, "constants of %lld and %lld numbers along a dimension do not meet",
                           (long long)left, (long long)right);
        dim[k] = left == 1 ? right : left;
    }
    return EK_OK;
}

/* --- element by element */

static double real_result(char what, double a, double b)
{
    switch (what) {
    case '+': return a + b;
    case '-': return a - b;
    case '*': return a * b;
    case '/': return a / b;
    case '<': return a < b ? a : b;
    case '>': return a > b ? a : b;
    default: return a == b;
    }
}

static ek_status whole_result(onnx_import *im, char what, int64_t a, int64_t b, int64_t *out)
{
    bool overflows = false;
    if (a == ONNX_BATCH || b == ONNX_BATCH) {
        int64_t other = a == ONNX_BATCH ? b : a;
        bool moves = (what == '*' && other == 1) || (what == '+' && other == 0) ||
                     (a == ONNX_BATCH && ((what == '/' && b == 1) || (what == '-' && b == 0)));
        if (what == '=') { /* the size of no batch is a mark such as -1 */
            *out = a == b;
            if (a == b || other < 0) return EK_OK;
        }
        *out = ONNX_BATCH;
        return moves ? EK_OK : ek_onnx_touches_batch(im, "it computes with the size of the batch");
    }
    switch (what) {
    case '+': overflows = __builtin_add_overflow(a, b, out); break;
    case '-': overflows = __builtin_sub_overflow(a, b, out); break;
    case '*': overflows = __builtin_mul_overflow(a, b, out); break;
    case '/':
        overflows = b == 0 || (b == -1 && a == INT64_MIN);
        if (!overflows) *out = a / b;
        break;
    case '<': *out = a < b ? a : b; break;
    case '>': *out = a > b ? a : b; break;
    default: *out = a == b; break;
    }
    return overflows ? ek_fail(EK_E_FORMAT, "a constant of whole numbers is divided by 0, or overflows")
                     : EK_OK;
}

static ek_status fold_binary(onnx_import *im, const onnx_node *node, char what)
{
    onnx_constant *a, *b, *c;
    int rank;
    int64_t dim[ONNX_MAX_RANK];
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "first input", &a));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "second input", &b));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ek_onnx_load(im, b));
    if (!a->real != !b->real)
        return ek_fail(EK_E_FORMAT, "its inputs are %s and %s", ek_onnx_type_name(a->type),
                       ek_onnx_type_name(b->type));
    EK_TRY(broadcast_dims(a, b, &rank, dim));
    EK_TRY(ek_onnx_new_constant(im, what == '=' ? ONNX_BOOL : a->type, rank, dim, &c));
    for (int64_t i = 0; i < c->count; i++) {
        int64_t left = broadcast_index(a, rank, dim, i), right = broadcast_index(b, rank, dim, i);
        if (a->whole) {
            EK_TRY(whole_result(im, what, a->whole[left], b->whole[right], &c->whole[i]));
        } else {
            double result = real_result(what, (double)a->real[left], (double)b->real[right]);
            if (c->real)
                c->real[i] = (float)result;
            else
                c->whole[i] = result != 0;
        }
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_add(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '+'); }
static ek_status fold_sub(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '-'); }
static ek_status fold_mul(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '*'); }
static ek_status fold_div(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '/'); }
static ek_status fold_min(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '<'); }
static ek_status fold_max(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '>'); }
static ek_status fold_equal(onnx_import *im, const onnx_node *node) { return fold_binary(im, node, '='); }

static ek_status fold_unary(onnx_import *im, const onnx_node *node, double (*of)(double))
{
    onnx_constant *a, *c;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_load(im, a));
    if (!a->real) return ek_fail(EK_E_UNSUPPORTED, "it is computed of real constants alone");
    EK_TRY(ek_onnx_new_constant(im, a->type, a->rank, a->dim, &c));
    for (int64_t i = 0; i < a->count; i++) c->real[i] = (float)of((double)a->real[i]);
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_floor(onnx_import *im, const onnx_node *node) { return fold_unary(im, node, floor); }
static ek_status fold_ceil(onnx_import *im, const onnx_node *node) { return fold_unary(im, node, ceil); }
static ek_status fold_sqrt(onnx_import *im, const onnx_node *node) { return fold_unary(im, node, sqrt); }
static double negative(double x) { return -x; }
static ek_status fold_neg(onnx_import *im, const onnx_node *node) { return fold_unary(im, node, negative); }

static ek_status fold_where(onnx_import *im, const onnx_node *node)
{
    onnx_constant *condition, *a, *b, *c;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "condition", &condition));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "second input", &a));
    EK_TRY(ek_onnx_constant_input(im, node, 2, true, "third input", &b));
    EK_TRY(ek_onnx_load(im, condition));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ek_onnx_load(im, b));
    onnx_constant both = {0};
    int rank;
    int64_t dim[ONNX_MAX_RANK];
    EK_TRY(broadcast_dims(a, b, &both.rank, both.dim));
    EK_TRY(broadcast_dims(&both, condition, &rank, dim));
    if (!condition->whole || !a->real != !b->real)
        return ek_fail(EK_E_FORMAT, "its inputs have types that do not go together");
    EK_TRY(ek_onnx_new_constant(im, a->type, rank, dim, &c));
    for (int64_t i = 0; i < c->count; i++) {
        const onnx_constant *from = condition->whole[broadcast_index(condition, rank, dim, i)] ? a : b;
        copy_element(c, i, from, broadcast_index(from, rank, dim, i));
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_cast(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *c;
    int64_t to;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ek_onnx_get_int(node, "to", 0, &to));
    bool known = ek_onnx_is_real((int)to) || to == ONNX_INT64 || to == ONNX_INT32 || to == ONNX_BOOL;
    if (!known || to > 100) return ek_fail(EK_E_UNSUPPORTED, "it casts to %s", ek_onnx_type_name((int)to));
    EK_TRY(ek_onnx_new_constant(im, (int)to, a->rank, a->dim, &c));
    for (int64_t i = 0; i < a->count; i++) {
        if (a->whole && a->whole[i] == ONNX_BATCH && !c->whole)
            return ek_onnx_touches_batch(im, "it computes with the size of the batch");
        if (a->real && c->whole && !(fabs((double)a->real[i]) < 0x1p62))
            return ek_fail(EK_E_FORMAT, "it casts %g to a whole number", (double)a->real[i]);
        if (to == ONNX_BOOL)
            c->whole[i] = a->real ? a->real[i] != 0 : a->whole[i] != 0;
        else
            copy_element(c, i, a, i);
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

/* --- moved about */

static ek_status fold_identity(onnx_import *im, const onnx_node *node)
{
    ek_onnx_pass_on(im, node);
    return EK_OK;
}

/* The same numbers under another shape. */
static ek_status give_reshaped(onnx_import *im, const onnx_node *node, onnx_constant *a, int rank,
                               const int64_t *dim)
{
    int64_t count;
    int wrong;
    if (!ek_onnx_count(rank, dim, &count, &wrong) || count != a->count)
        return ek_fail(EK_E_FORMAT, "it reshapes a constant of %lld numbers into another number of them",
                       (long long)a->count);
    onnx_constant *c;
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ONNX_KEEP(&im->memory, c, 1));
    *c = *a;
    c->takers = 0;
    c->rank = rank;
    memset(c->dim, 0, sizeof c->dim);
    for (int i = 0; i < rank; i++) c->dim[i] = dim[i];
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_reshape(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *shape;
    int64_t dim[ONNX_MAX_RANK], allow_zero, known = 1;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "shape", &shape));
    EK_TRY(ek_onnx_load(im, shape));
    EK_TRY(ek_onnx_get_int(node, "allowzero", 0, &allow_zero));
    if (!shape->whole || shape->count > ONNX_MAX_RANK) return ek_fail(EK_E_FORMAT, "its shape is none");
    int open = -1;
    for (int i = 0; i < (int)shape->count; i++) {
        dim[i] = shape->whole[i];
        if (dim[i] == 0 && !allow_zero && i < a->rank) dim[i] = a->dim[i];
        if (dim[i] == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it gives a constant the size of the batch");
        if (dim[i] == -1 && open < 0)
            open = i;
        else if (dim[i] < 0 || __builtin_mul_overflow(known, dim[i], &known))
            return ek_fail(EK_E_FORMAT, "it reshapes to a dimension of %lld", (long long)dim[i]);
    }
    if (open >= 0) dim[open] = known > 0 ? a->count / known : 0;
    return give_reshaped(im, node, a, (int)shape->count, dim);
}

static ek_status axis_of(int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return ek_fail(EK_E_FORMAT, "its axis %lld is none of %d dimensions", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return EK_OK;
}

static ek_status fold_squeeze(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a;
    int64_t axes[ONNX_MAX_RANK], dim[ONNX_MAX_RANK];
    bool there, gone[ONNX_MAX_RANK] = {false};
    int count, axis, rank = 0;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_axes(im, node, 13, axes, &count, &there));
    for (int i = 0; i < count; i++) {
        EK_TRY(axis_of(axes[i], a->rank, &axis));
        if (a->dim[axis] != 1)
            return ek_fail(EK_E_FORMAT, "it squeezes a dimension of %lld", (long long)a->dim[axis]);
        gone[axis] = true;
    }
    for (int i = 0; i < a->rank; i++) {
        if (there ? !gone[i] : a->dim[i] != 1) dim[rank++] = a->dim[i];
    }
    return give_reshaped(im, node, a, rank, dim);
}

static ek_status fold_unsqueeze(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a;
    int64_t axes[ONNX_MAX_RANK], dim[ONNX_MAX_RANK];
    bool there, made[ONNX_MAX_RANK] = {false};
    int count, axis, from = 0;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_axes(im, node, 13, axes, &count, &there));
    int rank = a->rank + count;
    if (rank > ONNX_MAX_RANK) return ek_fail(EK_E_UNSUPPORTED, "it makes a constant of %d dimensions", rank);
    for (int i = 0; i < count; i++) {
        EK_TRY(axis_of(axes[i], rank, &axis));
        if (made[axis]) return ek_fail(EK_E_FORMAT, "it names axis %d twice", axis);
        made[axis] = true;
    }
    for (int i = 0; i < rank; i++) dim[i] = made[i] ? 1 : a->dim[from++];
    return give_reshaped(im, node, a, rank, dim);
}

static ek_status fold_flatten(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a;
    int64_t axis, dim[2] = {1, 1};
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_get_int(node, "axis", 1, &axis));
    if (axis < 0) axis += a->rank;
    if (axis < 0 || axis > a->rank) return ek_fail(EK_E_FORMAT, "its axis is none of %d dimensions", a->rank);
    for (int i = 0; i < a->rank; i++) dim[i >= axis] *= a->dim[i];
    return give_reshaped(im, node, a, 2, dim);
}

/* c[i0, i1, ...] = a at the sum of start + i*step over all dimensions. */
static ek_status give_strided(onnx_import *im, const onnx_node *node, onnx_constant *a, int rank,
                              const int64_t *dim, int64_t start, const int64_t *step)
{
    onnx_constant *c;
    EK_TRY(ek_onnx_new_constant(im, a->type, rank, dim, &c));
    c->name = a->name; /* weights that are turned are still called so */
    for (int64_t i = 0; i < c->count; i++) {
        int64_t rest = i, at = start;
        for (int k = rank - 1; k >= 0; k--) {
            at += rest % dim[k] * step[k];
            rest /= dim[k];
        }
        copy_element(c, i, a, at);
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static void strides_of(const onnx_constant *a, int64_t step[ONNX_MAX_RANK])
{
    int64_t all = 1;
    for (int k = a->rank - 1; k >= 0; k--) {
        step[k] = all;
        all *= a->dim[k];
    }
}

static ek_status fold_transpose(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a;
    const int64_t *order;
    int count;
    int64_t from[ONNX_MAX_RANK], step[ONNX_MAX_RANK], dim[ONNX_MAX_RANK];
    bool seen[ONNX_MAX_RANK] = {false};
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_get_ints(node, "perm", &order, &count));
    EK_TRY(ek_onnx_load(im, a));
    if (order && count != a->rank)
        return ek_fail(EK_E_FORMAT, "its perm has %d numbers for %d dimensions", count, a->rank);
    strides_of(a, from);
    for (int k = 0; k < a->rank; k++) {
        int64_t axis = order ? order[k] : a->rank - 1 - k;
        if (axis < 0 || axis >= a->rank || seen[axis])
            return ek_fail(EK_E_FORMAT, "its perm is no permutation");
        seen[axis] = true;
        dim[k] = a->dim[axis];
        step[k] = from[axis];
    }
    return give_strided(im, node, a, a->rank, dim, 0, step);
}

/* starts, ends, axes and steps: attributes before opset 10 (without steps), inputs from then on. */
static ek_status slice_list(onnx_import *im, const onnx_node *node, const char *name, int input,
                            const int64_t **list, int *count)
{
    if (im->model->opset < 10) return ek_onnx_get_ints(node, name, list, count);
    onnx_constant *c;
    EK_TRY(ek_onnx_constant_input(im, node, input, false, name, &c));
    *list = NULL;
    *count = 0;
    if (!c) return EK_OK;
    EK_TRY(ek_onnx_load(im, c));
    if (!c->whole || c->count > ONNX_MAX_RANK)
        return ek_fail(EK_E_FORMAT, "its %s are no list of whole numbers", name);
    *list = c->whole;
    *count = (int)c->count;
    return EK_OK;
}

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static ek_status fold_slice(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a;
    const int64_t *starts, *ends, *axes, *steps;
    int start_count, end_count, axis_count, step_count, axis;
    int64_t step[ONNX_MAX_RANK], dim[ONNX_MAX_RANK], first = 0;
    bool seen[ONNX_MAX_RANK] = {false};
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(slice_list(im, node, "starts", 1, &starts, &start_count));
    EK_TRY(slice_list(im, node, "ends", 2, &ends, &end_count));
    EK_TRY(slice_list(im, node, "axes", 3, &axes, &axis_count));
    EK_TRY(slice_list(im, node, "steps", 4, &steps, &step_count));
    if (start_count != end_count || (axes && axis_count != start_count) ||
        (steps && step_count != start_count) || start_count > a->rank)
        return ek_fail(EK_E_FORMAT, "its starts, ends, axes and steps are not as many");
    strides_of(a, step);
    memcpy(dim, a->dim, sizeof dim);
    for (int i = 0; i < start_count; i++) {
        EK_TRY(axis_of(axes ? axes[i] : i, a->rank, &axis));
        if (seen[axis]) return ek_fail(EK_E_FORMAT, "it names axis %d twice", axis);
        seen[axis] = true;
        int64_t size = a->dim[axis], by = steps ? steps[i] : 1, start = starts[i], end = ends[i];
        if (start == ONNX_BATCH || end == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it slices by the size of the batch");
        if (by == 0 || by == INT64_MIN)
            return ek_fail(EK_E_FORMAT, "it slices in steps of %lld", (long long)by);
        if (start < 0) start = start < -size ? -1 : start + size;
        if (end < 0) end = end < -size ? -1 : end + size;
        start = by > 0 ? clamp(start, 0, size) : clamp(start, -1, size - 1);
        end = by > 0 ? clamp(end, 0, size) : clamp(end, -1, size - 1);
        dim[axis] = by > 0 ? (end > start ? (end - start - 1) / by + 1 : 0)
                           : (start > end ? (start - end - 1) / -by + 1 : 0);
        first += start * step[axis];
        if (__builtin_mul_overflow(step[axis], by, &step[axis])) step[axis] = 0; /* one element at most */
    }
    return give_strided(im, node, a, a->rank, dim, first, step);
}

static ek_status fold_gather(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *index, *c;
    int64_t given, dim[2 * ONNX_MAX_RANK];
    int axis, rank = 0;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "list of indices", &index));
    EK_TRY(ek_onnx_get_int(node, "axis", 0, &given));
    EK_TRY(axis_of(given, a->rank, &axis));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ek_onnx_load(im, index));
    if (!index->whole) return ek_fail(EK_E_FORMAT, "its indices are no whole numbers");
    int64_t inner = 1, size = a->dim[axis];
    for (int i = 0; i < axis; i++) dim[rank++] = a->dim[i];
    for (int i = 0; i < index->rank; i++) dim[rank++] = index->dim[i];
    for (int i = axis + 1; i < a->rank; i++) inner *= dim[rank++] = a->dim[i];
    EK_TRY(ek_onnx_new_constant(im, a->type, rank, dim, &c));
    for (int64_t i = 0; i < c->count; i++) {
        int64_t at = index->whole[i / inner % index->count];
        if (at < -size || at >= size)
            return ek_fail(EK_E_FORMAT, "it takes element %lld of %lld", (long long)at, (long long)size);
        copy_element(c, i, a,
                     (i / inner / index->count * size + (at < 0 ? at + size : at)) * inner + i % inner);
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_concat(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *c;
    int64_t given, dim[ONNX_MAX_RANK], before = 0;
    int axis;
    EK_TRY(ek_onnx_get_int(node, "axis", 1, &given));
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(axis_of(given, a->rank, &axis));
    int type = a->type, rank = a->rank;
    memcpy(dim, a->dim, sizeof dim);
    dim[axis] = 0;
    for (int k = 0; k < node->input_count; k++) {
        EK_TRY(ek_onnx_constant_input(im, node, k, true, "input", &a));
        bool meets = a->rank == rank && ek_onnx_is_real(a->type) == ek_onnx_is_real(type);
        for (int i = 0; meets && i < rank; i++) meets = i == axis || a->dim[i] == dim[i];
        if (!meets || __builtin_add_overflow(dim[axis], a->dim[axis], &dim[axis]))
            return ek_fail(EK_E_FORMAT, "the constants that it joins do not meet");
    }
    EK_TRY(ek_onnx_new_constant(im, type, rank, dim, &c));
    int64_t inner = 1;
    for (int i = axis + 1; i < rank; i++) inner *= dim[i];
    for (int k = 0; k < node->input_count; k++) {
        EK_TRY(ek_onnx_constant_input(im, node, k, true, "input", &a));
        EK_TRY(ek_onnx_load(im, a));
        int64_t row = a->dim[axis] * inner;
        for (int64_t i = 0; i < a->count; i++)
            copy_element(c, i / row * dim[axis] * inner + before + i % row, a, i);
        before += row;
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_expand(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *shape, *c, target = {0};
    int rank;
    int64_t dim[ONNX_MAX_RANK];
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "shape", &shape));
    EK_TRY(ek_onnx_load(im, a));
    EK_TRY(ek_onnx_load(im, shape));
    if (!shape->whole || shape->count > ONNX_MAX_RANK) return ek_fail(EK_E_FORMAT, "its shape is none");
    for (; target.rank < (int)shape->count; target.rank++) {
        target.dim[target.rank] = shape->whole[target.rank];
        if (target.dim[target.rank] == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it gives a constant the size of the batch");
    }
    EK_TRY(broadcast_dims(a, &target, &rank, dim));
    EK_TRY(ek_onnx_new_constant(im, a->type, rank, dim, &c));
    for (int64_t i = 0; i < c->count; i++) copy_element(c, i, a, broadcast_index(a, rank, dim, i));
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

/* --- made */

static ek_status constant_of_list(onnx_import *im, const onnx_node *node, const onnx_attribute *a, bool real,
                                  bool list)
{
    onnx_constant *c;
    int64_t count = list ? (int64_t)a->count : 1;
    EK_TRY(ek_onnx_new_constant(im, real ? ONNX_FLOAT : ONNX_INT64, list, &count, &c));
    for (int64_t i = 0; i < count; i++) {
        if (real)
            c->real[i] = list ? a->floats[i] : a->f;
        else
            c->whole[i] = list ? a->ints[i] : a->i;
    }
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_constant(onnx_import *im, const onnx_node *node)
{
    static const struct {
        const char *name;
        onnx_attribute_type type;
    } lists[] = {{"value_float", ONNX_A_FLOAT},
                 {"value_floats", ONNX_A_FLOATS},
                 {"value_int", ONNX_A_INT},
                 {"value_ints", ONNX_A_INTS}};
    const onnx_attribute *a;
    if (node->input_count) return ek_fail(EK_E_FORMAT, "it has inputs, and a constant has none");
    EK_TRY(ek_onnx_find_attribute(node, "value", ONNX_A_TENSOR, &a));
    if (a) {
        EK_TRY(ek_onnx_tensor_check(im->model, a->t));
        onnx_constant *c;
        EK_TRY(ONNX_KEEP(&im->memory, c, 1));
        *c = (onnx_constant){.type = a->t->type, .rank = a->t->rank, .count = a->t->count, .tensor = a->t};
        memcpy(c->dim, a->t->dim, sizeof c->dim);
        ek_onnx_give_constant(im, node, c);
        return EK_OK;
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        EK_TRY(ek_onnx_find_attribute(node, lists[i].name, lists[i].type, &a));
        if (a)
            return constant_of_list(im, node, a,
                                    lists[i].type == ONNX_A_FLOAT || lists[i].type == ONNX_A_FLOATS,
                                    lists[i].type == ONNX_A_INTS || lists[i].type == ONNX_A_FLOATS);
    }
    return ek_fail(EK_E_UNSUPPORTED, "it holds neither numbers nor a tensor of numbers");
}

static ek_status fold_constant_of_shape(onnx_import *im, const onnx_node *node)
{
    onnx_constant *shape, *c;
    const onnx_attribute *a;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "shape", &shape));
    EK_TRY(ek_onnx_load(im, shape));
    EK_TRY(ek_onnx_find_attribute(node, "value", ONNX_A_TENSOR, &a));
    if (!shape->whole || shape->count > ONNX_MAX_RANK) return ek_fail(EK_E_FORMAT, "its shape is none");
    for (int64_t i = 0; i < shape->count; i++) {
        if (shape->whole[i] == ONNX_BATCH)
            return ek_onnx_touches_batch(im, "it makes a constant of the batch's size");
    }
    EK_TRY(ek_onnx_new_constant(im, a ? a->t->type : ONNX_FLOAT, (int)shape->count, shape->whole, &c));
    if (!a) return ek_onnx_give_constant(im, node, c), EK_OK;
    EK_TRY(ek_onnx_tensor_check(im->model, a->t));
    if (a->t->count != 1)
        return ek_fail(EK_E_FORMAT, "its value has %lld numbers, not one", (long long)a->t->count);
    onnx_constant value = {.type = a->t->type, .count = 1, .tensor = a->t};
    EK_TRY(ek_onnx_load(im, &value));
    for (int64_t i = 0; i < c->count; i++) copy_element(c, i, &value, 0);
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static ek_status fold_shape(onnx_import *im, const onnx_node *node)
{
    onnx_constant *a, *c;
    int64_t start, end;
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "input", &a));
    EK_TRY(ek_onnx_get_int(node, "start", 0, &start));
    EK_TRY(ek_onnx_get_int(node, "end", INT64_MAX, &end));
    start = clamp(start < 0 ? start + a->rank : start, 0, a->rank);
    end = clamp(end < 0 ? end + a->rank : end, start, a->rank);
    int64_t count = end - start;
    EK_TRY(ek_onnx_new_constant(im, ONNX_INT64, 1, &count, &c));
    for (int64_t i = 0; i < count; i++) c->whole[i] = a->dim[start + i];
    ek_onnx_give_constant(im, node, c);
    return EK_OK;
}

static const struct {
    const char *op;
    onnx_translator fold;
} folds[] = {
    {"Add", fold_add},
    {"Cast", fold_cast},
    {"Ceil", fold_ceil},
    {"Concat", fold_concat},
    {"Constant", fold_constant},
    {"ConstantOfShape", fold_constant_of_shape},
    {"Div", fold_div},
    {"Equal", fold_equal},
    {"Expand", fold_expand},
    {"Flatten", fold_flatten},
    {"Floor", fold_floor},
    {"Gather", fold_gather},
    {"Identity", fold_identity},
    {"Max", fold_max},
    {"Min", fold_min},
    {"Mul", fold_mul},
    {"Neg", fold_neg},
    {"Reshape", fold_reshape},
    {"Shape", fold_shape},
    {"Slice", fold_slice},
    {"Sqrt", fold_sqrt},
    {"Squeeze", fold_squeeze},
    {"Sub", fold_sub},
    {"Transpose", fold_transpose},
    {"Unsqueeze", fold_unsqueeze},
    {"Where", fold_where},
};

static onnx_translator find_fold(const char *op)
{
    for (size_t i = 0; i < sizeof folds / sizeof *folds; i++) {
        if (!strcmp(folds[i].op, op)) return folds[i].fold;
    }
    return NULL;
}

bool ek_onnx_folds(const char *op) { return find_fold(op) != NULL; }

ek_status ek_onnx_fold(onnx_import *im, const onnx_node *node) { return find_fold(node->op)(im, node); }
