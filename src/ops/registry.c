/* The list of operators: the one place that a new one is added to. */
#include "ops/op.h"

#include <stdio.h>
#include <string.h>

extern const ek_op ek_op_input, ek_op_conv, ek_op_linear, ek_op_batchnorm, ek_op_relu, ek_op_leakyrelu,
    ek_op_sigmoid, ek_op_tanh, ek_op_silu, ek_op_avgpool, ek_op_maxpool, ek_op_globalavgpool, ek_op_flatten,
    ek_op_dropout, ek_op_add, ek_op_softmax;

static const ek_op *const operators[] = {
    &ek_op_input,   &ek_op_conv,    &ek_op_linear, &ek_op_batchnorm, &ek_op_relu,    &ek_op_leakyrelu,
    &ek_op_sigmoid, &ek_op_tanh,    &ek_op_silu,   &ek_op_avgpool,   &ek_op_maxpool, &ek_op_globalavgpool,
    &ek_op_flatten, &ek_op_dropout, &ek_op_add,    &ek_op_softmax,
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

ek_param *ek_node_add_param(ek_node *node, ek_role role, const char *suffix, ek_shape shape)
{
    ek_param *param = &node->param[node->param_count++];
    *param = (ek_param){.role = role, .shape = shape, .count = 1};
    snprintf(param->name, sizeof param->name, "%s.%s", node->label, suffix);
    for (int i = 0; i < shape.rank; i++) {
        /* The graph refuses what is far too large; until then it must not wrap around. */
        if (__builtin_mul_overflow(param->count, shape.dim[i], &param->count)) param->count = INT64_MAX;
    }
    return param;
}

ek_param *ek_node_param(ek_node *node, ek_role role)
{
    for (int i = 0; i < node->param_count; i++) {
        if (node->param[i].role == role) return &node->param[i];
    }
    return NULL;
}

ek_param *ek_node_live_bias(ek_node *node)
{
    ek_param *bias = ek_node_param(node, EK_ROLE_BIAS);
    return bias && !bias->redundant ? bias : NULL;
}
