/* Products with constant matrices: linear layers, and convolutions of length 1 where there are many rows. */
#include "onnx/import.h"

#include <string.h>

/* y[g][m][o] = alpha * sum over k of x[g][m][k] * weight[g][k][o] + beta * bias[o], for each group g of leading dimensions. */
typedef struct product {
    onnx_constant *weight, *bias;
    bool turned; /* weight is [o][k] */
    int64_t groups, in, out;
    double alpha, beta;
} product;

/* The weights as layers have them, [groups*out][in]. */
static ek_status fill_product(onnx_import *im, const product *p, int layer)
{
    float *to = ek_builder_data(&im->builder, layer, EK_ROLE_WEIGHT);
    p->weight->takers++;
    if (p->turned && p->groups == 1) {
        EK_TRY(ek_onnx_copy(im, p->weight, to));
        for (int64_t i = 0; i < p->in * p->out && p->alpha != 1; i++) to[i] = (float)(p->alpha * to[i]);
    } else {
        EK_TRY(ek_onnx_load(im, p->weight));
        for (int64_t g = 0; g < p->groups; g++) {
            for (int64_t o = 0; o < p->out; o++) {
                for (int64_t k = 0; k < p->in; k++) {
                    int64_t at = p->turned ? o * p->in + k : k * p->out + o;
                    *to++ = (float)(p->alpha * ek_onnx_number(p->weight, g * p->in * p->out + at));
                }
            }
        }
    }
    if (!p->bias) return EK_OK;
    EK_TRY(ek_onnx_load(im, p->bias));
    p->bias->takers++;
    float *bias = ek_builder_data(&im->builder, layer, EK_ROLE_BIAS);
    for (int64_t i = 0; i < p->groups * p->out; i++)
        bias[i] = (float)(p->beta * ek_onnx_number(p->bias, p->bias->count == 1 ? 0 : i % p->out));
    return EK_OK;
}

/* x's last dimension is p->in. */
static ek_status apply(onnx_import *im, const onnx_node *node, const product *p, onnx_layer x, onnx_layer *y)
{
    static const int turn[] = {0, 2, 1};
    ek_shape out = x.shape;
    int64_t rows = ek_shape_count(x.shape) / p->in / p->groups;
    const char *bias = p->bias ? "true" : "false";
    out.dim[out.rank - 1] = p->out;
    if (rows == 1 && p->groups == 1) {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape1(p->in), &x));
        EK_TRY(ek_onnx_add(im, node, p->weight, "linear", x.index, -1, y, "out=%lld bias=%s",
                           (long long)p->out, bias));
    } else {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape3(p->groups, rows, p->in), &x));
        EK_TRY(ek_onnx_permute(im, x, turn, &x));
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape2(p->groups * p->in, rows), &x));
        EK_TRY(ek_onnx_add(im, node, p->weight, "conv1d", x.index, -1, y,
                           "out=%lld kernel=1 groups=%lld bias=%s", (long long)(p->groups * p->out),
                           (long long)p->groups, bias));
    }
    EK_TRY(fill_product(im, p, y->index));
    if (rows > 1 || p->groups > 1) {
        EK_TRY(ek_onnx_reshape(im, *y, ek_onnx_shape3(p->groups, p->out, rows), y));
        EK_TRY(ek_onnx_permute(im, *y, turn, y));
    }
    return ek_onnx_reshape(im, *y, out, y);
}

static ek_status two_computed(void)
{
    return ek_fail(EK_E_UNSUPPORTED,
                   "it multiplies two matrices that are both computed; one must be constant");
}

/* --- Gemm */

/* C, which is no bias of a linear layer: a constant by row, or what layers compute. */
static ek_status add_rest(onnx_import *im, const onnx_node *node, onnx_layer y, double beta)
{
    onnx_layer c;
    const onnx_value *value = ek_onnx_input(im, node, 2);
    if (beta != 1) return ek_fail(EK_E_UNSUPPORTED, "its beta is %g for a C that is no bias", beta);
    if (value->kind == ONNX_CONSTANT) {
        const onnx_value sum = {.kind = ONNX_LAYER, .layer = y};
        return ek_onnx_give_affine(im, node, &sum, '+', value->constant, false);
    }
    EK_TRY(ek_onnx_layer(im, node, 2, &c));
    EK_TRY(ek_onnx_binary(im, node, "add", y, c, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_gemm(onnx_import *im, const onnx_node *node)
{
    static const int turn[] = {1, 0};
    onnx_layer x, y;
    product p = {.groups = 1};
    int64_t turn_a, turn_b;
    const onnx_value *a = ek_onnx_input(im, node, 0), *b = ek_onnx_input(im, node, 1),
                     *c = ek_onnx_input(im, node, 2);
    if (a && b && a->kind == ONNX_LAYER && b->kind == ONNX_LAYER) return two_computed();
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "second input", &p.weight));
    EK_TRY(ek_onnx_get_int(node, "transA", 0, &turn_a));
    EK_TRY(ek_onnx_get_int(node, "transB", 0, &turn_b));
    EK_TRY(ek_onnx_get_float(node, "alpha", 1, &p.alpha));
    EK_TRY(ek_onnx_get_float(node, "beta", 1, &p.beta));
    if (x.shape.rank + im->lead != 2 || p.weight->rank != 2)
        return ek_fail(EK_E_FORMAT, "its inputs are no matrices");
    if (turn_a && im->lead) return ek_onnx_touches_batch(im, "it sums over the batch");
    if (turn_a) EK_TRY(ek_onnx_permute(im, x, turn, &x));
    p.turned = turn_b != 0;
    p.in = p.weight->dim[p.turned];
    p.out = p.weight->dim[!p.turned];
    if (p.in < 1 || p.out < 1 || x.shape.dim[x.shape.rank - 1] != p.in)
        return ek_fail(EK_E_FORMAT, "its weights are for %lld features, and its input has %lld",
                       (long long)p.in, (long long)x.shape.dim[x.shape.rank - 1]);
    if (c && c->kind == ONNX_CONSTANT && p.beta != 0) {
        const onnx_constant *k = c->constant;
        if (k->count == 1 || (k->count == p.out && k->rank > 0 && k->dim[k->rank - 1] == p.out))
            p.bias = c->constant;
    }
    EK_TRY(apply(im, node, &p, x, &y));
    if (c && !p.bias && p.beta != 0) return add_rest(im, node, y, p.beta);
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- MatMul */

/* Leading dimensions of the weights: all 1, or those of x's sample, which are then groups. */
static ek_status find_groups(onnx_import *im, onnx_layer x, const onnx_constant *w, int64_t *groups)
{
    int rank = x.shape.rank + im->lead;
    int64_t all = 1;
    *groups = 1;
    if (w->rank > rank)
        return ek_fail(EK_E_UNSUPPORTED, "its constant has more dimensions than what it is multiplied with");
    for (int i = 0; i < x.shape.rank - 2; i++) all *= x.shape.dim[i];
    for (int i = 0; i < w->rank - 2; i++) {
        int axis = rank - w->rank + i - im->lead;
        if (w->dim[i] == 1) continue;
        if (axis < 0) return ek_onnx_touches_batch(im, "its constant has matrices by sample");
        if (w->dim[i] != x.shape.dim[axis])
            return ek_fail(EK_E_UNSUPPORTED, "its constant has %lld matrices for %lld", (long long)w->dim[i],
                           (long long)x.shape.dim[axis]);
        *groups *= w->dim[i];
    }
    if (*groups != 1 && *groups != all)
        return ek_fail(EK_E_UNSUPPORTED, "its constant has matrices for some dimensions alone");
    return EK_OK;
}

/* constant [o][k] times x [k][l]: a convolution of length 1 along l. */
static ek_status from_left(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    product p = {.groups = 1, .turned = true, .alpha = 1};
    EK_TRY(ek_onnx_layer(im, node, 1, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 0, true, "first input", &p.weight));
    if (im->lead && x.shape.rank == 1) return ek_onnx_touches_batch(im, "it sums over the batch");
    if (x.shape.rank != 2 || p.weight->rank != 2)
        return ek_fail(EK_E_UNSUPPORTED,
                       "a constant from the left is read for a sample that is one matrix alone");
    p.out = p.weight->dim[0];
    p.in = p.weight->dim[1];
    if (p.in != x.shape.dim[0] || p.out < 1)
        return ek_fail(EK_E_FORMAT, "its constant is for %lld rows, and its input has %lld", (long long)p.in,
                       (long long)x.shape.dim[0]);
    EK_TRY(ek_onnx_reshape(im, x, x.shape, &x));
    EK_TRY(ek_onnx_add(im, node, p.weight, "conv1d", x.index, -1, &y, "out=%lld kernel=1 bias=false",
                       (long long)p.out));
    EK_TRY(fill_product(im, &p, y.index));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_matmul(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    product p = {.alpha = 1, .beta = 1};
    const onnx_value *a = ek_onnx_input(im, node, 0), *b = ek_onnx_input(im, node, 1);
    if (!a || !b) return ek_fail(EK_E_FORMAT, "it lacks an input");
    if (a->kind == ONNX_LAYER && b->kind == ONNX_LAYER) return two_computed();
    if (a->kind == ONNX_CONSTANT) return from_left(im, node);
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "second input", &p.weight));
    const onnx_constant *w = p.weight;
    if (x.shape.rank == 0) return ek_onnx_touches_batch(im, "it sums over the batch");
    if (w->rank == 0) return ek_fail(EK_E_FORMAT, "its second input is a single number");
    p.in = w->dim[w->rank > 1 ? w->rank - 2 : 0];
    p.out = w->rank > 1 ? w->dim[w->rank - 1] : 1;
    if (p.in < 1 || p.out < 1 || x.shape.dim[x.shape.rank - 1] != p.in)
        return ek_fail(EK_E_FORMAT, "its constant is for %lld features, and its input has %lld",
                       (long long)p.in, (long long)x.shape.dim[x.shape.rank - 1]);
    EK_TRY(find_groups(im, x, w, &p.groups));
    ek_shape out = x.shape;
    out.dim[out.rank - 1] = p.out;
    if (w->rank > 1) EK_TRY(ek_onnx_bias_ahead(im, node, out, out.rank - 1, &p.bias));
    EK_TRY(apply(im, node, &p, x, &y));
    if (w->rank == 1) { /* a vector: its dimension is summed away */
        out.rank--;
        EK_TRY(ek_onnx_reshape(im, y, out, &y));
    }
    ek_onnx_give(im, node, y);
    return EK_OK;
}
