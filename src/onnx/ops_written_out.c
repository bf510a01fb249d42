/* Norms that are written out in the arithmetic that they are, and found again from their first node on: rmsnorm, which ONNX
 * has no node for before opset 23 (export.c writes it so), and layer normalization, which it has from opset 17 on. */
#include "onnx/import.h"

#include <string.h>

/* The only node that reads what this one gives, if it is of this type; *at: which one. */
static const onnx_node *reader_of(const onnx_import *im, const onnx_node *node, const char *op, int *at)
{
    if (node->output_count != 1 || node->output[0] < 0) return NULL;
    const onnx_value *value = &im->value[node->output[0]];
    if (value->readers != 1 || value->reader < 0) return NULL;
    const onnx_node *reader = &im->model->node[value->reader];
    *at = value->reader;
    return strcmp(reader->op, op) == 0 ? reader : NULL;
}

/* The constant that a node of two inputs takes beside what `node` gives; NULL: it is none. */
static onnx_constant *constant_beside(const onnx_import *im, const onnx_node *reader, const onnx_node *node)
{
    if (reader->input_count != 2) return NULL;
    int other = reader->input[reader->input[0] == node->output[0]];
    return other >= 0 && im->value[other].kind == ONNX_CONSTANT ? im->value[other].constant : NULL;
}

/* Whether a mean is over all numbers of each sample, and keeps its dimensions. */
static ek_status is_of_samples(onnx_import *im, const onnx_node *mean, int rank, bool *whole)
{
    int64_t keep, axes[ONNX_MAX_RANK];
    int count, axis;
    bool there, seen[ONNX_MAX_RANK] = {false};
    EK_TRY(ek_onnx_get_int(mean, "keepdims", 1, &keep));
    EK_TRY(ek_onnx_axes(im, mean, 18, axes, &count, &there));
    *whole = keep && there && count == rank;
    for (int i = 0; i < count && *whole; i++) {
        int64_t from_start = axes[i] < 0 ? axes[i] + rank + im->lead : axes[i];
        *whole = from_start >= im->lead && from_start < rank + im->lead;
        if (!*whole) break;
        axis = (int)from_start - im->lead;
        *whole = !seen[axis];
        seen[axis] = true;
    }
    return EK_OK;
}

ek_status ek_onnx_rms_norm(onnx_import *im, const onnx_node *square, bool *found)
{
    enum { MEAN, ADD, ROOT, DIVIDE, SCALE, NODES };
    static const char *const ops[] = {"ReduceMean", "Add", "Sqrt", "Div", "Mul"};
    const onnx_node *node[NODES];
    int at[NODES];
    *found = false;
    const onnx_node *before = square;
    for (int i = 0; i <= DIVIDE; i++) {
        node[i] = before = reader_of(im, before, ops[i], &at[i]);
        if (!before) return EK_OK;
    }
    const onnx_value *value = ek_onnx_input(im, square, 0);
    onnx_constant *eps = constant_beside(im, node[ADD], node[MEAN]), *weight = NULL;
    bool whole;
    if (!eps || eps->count != 1 || !ek_onnx_is_real(eps->type) || node[DIVIDE]->input_count != 2 ||
        node[DIVIDE]->input[0] != square->input[0])
        return EK_OK;
    EK_TRY(is_of_samples(im, node[MEAN], value->layer.shape.rank, &whole));
    if (!whole || value->layer.shape.rank < 1 || value->layer.shape.rank > 3) return EK_OK;
    EK_TRY(ek_onnx_load(im, eps));

    onnx_layer x, y;
    EK_TRY(ek_onnx_layer(im, square, 0, &x));
    node[SCALE] = reader_of(im, node[DIVIDE], ops[SCALE], &at[SCALE]);
    if (node[SCALE]) weight = constant_beside(im, node[SCALE], node[DIVIDE]);
    if (weight && (weight->count != ek_shape_count(x.shape) || weight->rank > x.shape.rank ||
                   !ek_onnx_is_real(weight->type)))
        weight = NULL;
    EK_TRY(ek_onnx_add(im, node[weight ? SCALE : DIVIDE], weight, "rmsnorm", x.index, -1, &y,
                       "eps=%s scale=%s", ONNX_REAL(ek_onnx_as_written((float)ek_onnx_number(eps, 0))),
                       weight ? "true" : "false"));
    if (weight) EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_GAMMA, weight, "scale"));
    for (int i = 0; i < (weight ? NODES : SCALE); i++) im->done[at[i]] = true;
    ek_onnx_give(im, node[weight ? SCALE : DIVIDE], y);
    *found = true;
    return EK_OK;
}

/* --- layer normalization: d = x - mean(x); d/sqrt(mean(d*d) + eps), and an affine map, which is left to its own nodes */

/* The dimensions of a sample that a mean is over, if they are its last ones and stay as 1: the first of them, else -1. */
static ek_status tail_of(onnx_import *im, const onnx_node *mean, int rank, int *axis)
{
    int64_t keep, axes[ONNX_MAX_RANK];
    int count, least = rank;
    bool there, seen[ONNX_MAX_RANK] = {false};
    *axis = -1;
    EK_TRY(ek_onnx_get_int(mean, "keepdims", 1, &keep));
    EK_TRY(ek_onnx_axes(im, mean, 18, axes, &count, &there));
    for (int i = 0; i < count; i++) {
        int64_t at = (axes[i] < 0 ? axes[i] + rank + im->lead : axes[i]) - im->lead;
        if (at < 0 || at >= rank || seen[at]) return EK_OK;
        seen[at] = true;
        if (at < least) least = (int)at;
    }
    if (keep && count > 0 && count == rank - least) *axis = least;
    return EK_OK;
}

/* Whether the node is d*d or d to the power of 2. */
static ek_status is_square(onnx_import *im, const onnx_node *node, int d, bool *square)
{
    *square =
        !strcmp(node->op, "Mul") && node->input_count == 2 && node->input[0] == d && node->input[1] == d;
    if (strcmp(node->op, "Pow") != 0 || node->input_count != 2 || node->input[0] != d || node->input[1] < 0)
        return EK_OK;
    const onnx_value *power = &im->value[node->input[1]];
    if (power->kind != ONNX_CONSTANT || power->constant->count != 1) return EK_OK;
    EK_TRY(ek_onnx_load(im, power->constant));
    *square = ek_onnx_number(power->constant, 0) == 2;
    return EK_OK;
}

/* The node that squares what `deviation` gives, where else a Div alone reads that. */
static ek_status find_square(onnx_import *im, const onnx_node *deviation, int *at)
{
    int d = deviation->output[0], readers = 0;
    *at = -1;
    for (int i = 0; i < im->model->node_count; i++) {
        const onnx_node *node = &im->model->node[i];
        bool reads = false, square = false;
        for (int k = 0; k < node->input_count; k++) reads |= node->input[k] == d;
        if (!reads) continue;
        readers++;
        EK_TRY(is_square(im, node, d, &square));
        if (square) *at = i;
    }
    if (readers != 2) *at = -1;
    return EK_OK;
}

ek_status ek_onnx_written_layer_norm(onnx_import *im, const onnx_node *mean, bool *found)
{
    enum { SUB, SQUARE, MEAN, ADD, ROOT, DIVIDE, NODES };
    static const char *const ops[] = {
        [MEAN] = "ReduceMean", [ADD] = "Add", [ROOT] = "Sqrt", [DIVIDE] = "Div"};
    int at[NODES], first, second;
    *found = false;
    if (mean->input_count < 1) return EK_OK;
    const onnx_node *sub = reader_of(im, mean, "Sub", &at[SUB]), *node[NODES];
    if (!sub || mean->input_count < 1 || sub->input_count != 2 || sub->input[0] != mean->input[0] || sub->output_count != 1 ||
        sub->output[0] < 0)
        return EK_OK;
    EK_TRY(find_square(im, sub, &at[SQUARE]));
    if (at[SQUARE] < 0) return EK_OK;
    node[SQUARE] = &im->model->node[at[SQUARE]];
    for (int i = MEAN; i < NODES; i++) {
        node[i] = reader_of(im, node[i - 1], ops[i], &at[i]);
        if (!node[i]) return EK_OK;
    }
    onnx_constant *eps = constant_beside(im, node[ADD], node[MEAN]);
    if (!eps || eps->count != 1 || !ek_onnx_is_real(eps->type) || node[DIVIDE]->input[0] != sub->output[0])
        return EK_OK;
    onnx_layer x, y;
    EK_TRY(ek_onnx_layer(im, mean, 0, &x));
    EK_TRY(tail_of(im, mean, x.shape.rank, &first));
    EK_TRY(tail_of(im, node[MEAN], x.shape.rank, &second));
    if (first < 0 || first != second) return EK_OK;
    EK_TRY(ek_onnx_load(im, eps));
    EK_TRY(ek_onnx_normalize_tail(im, node[DIVIDE], x, first,
                                  ek_onnx_as_written((float)ek_onnx_number(eps, 0)), &y));
    for (int i = 0; i < NODES; i++) im->done[at[i]] = true;
    ek_onnx_give(im, node[DIVIDE], y);
    *found = true;
    return EK_OK;
}
