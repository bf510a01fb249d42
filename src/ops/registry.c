/* The list of operators: the one place that a new one is added to. */
#include "ops/op.h"

#include <string.h>

extern const ek_op ek_op_input, ek_op_conv, ek_op_conv1d, ek_op_convtranspose, ek_op_convtranspose1d,
    ek_op_linear, ek_op_batchnorm, ek_op_layernorm, ek_op_groupnorm, ek_op_instancenorm, ek_op_rmsnorm,
    ek_op_relu, ek_op_leakyrelu, ek_op_sigmoid, ek_op_tanh, ek_op_silu, ek_op_elu, ek_op_prelu, ek_op_clip,
    ek_op_hardsigmoid, ek_op_hardswish, ek_op_avgpool, ek_op_maxpool, ek_op_globalavgpool, ek_op_flatten,
    ek_op_reshape, ek_op_permute, ek_op_dropout, ek_op_affine, ek_op_add, ek_op_sub, ek_op_mul, ek_op_div,
    ek_op_concat, ek_op_softmax;

static const ek_op *const operators[] = {
    &ek_op_input, &ek_op_conv, &ek_op_conv1d, &ek_op_convtranspose, &ek_op_convtranspose1d, &ek_op_linear,
    &ek_op_batchnorm, &ek_op_layernorm, &ek_op_groupnorm, &ek_op_instancenorm, &ek_op_rmsnorm, &ek_op_relu,
    &ek_op_leakyrelu, &ek_op_sigmoid, &ek_op_tanh, &ek_op_silu, &ek_op_elu, &ek_op_prelu, &ek_op_clip,
    &ek_op_hardsigmoid, &ek_op_hardswish, &ek_op_avgpool, &ek_op_maxpool, &ek_op_globalavgpool, &ek_op_flatten,
    &ek_op_reshape, &ek_op_permute, &ek_op_dropout, &ek_op_affine, &ek_op_add, &ek_op_sub, &ek_op_mul,
    &ek_op_div, &ek_op_concat, &ek_op_softmax,
};
enum { OPERATORS = sizeof operators / sizeof *operators };

const ek_op *ek_op_at(int index) { return index >= 0 && index < OPERATORS ? operators[index] : NULL; }

const ek_op *ek_op_find(const char *name)
{
    for (int i = 0; i < OPERATORS; i++) {
        if (!strcmp(operators[i]->name, name)) return operators[i];
    }
    return NULL;
}

int ek_op_attr(const ek_op *op, const char *name)
{
    for (int i = 0; op->attrs[i].name; i++) {
        if (!strcmp(op->attrs[i].name, name)) return i;
    }
    return -1;
}
