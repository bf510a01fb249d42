/* A node's parameters. */
#include "ops/op.h"

#include <stdio.h>

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

void ek_node_add_weights(ek_node *node, ek_shape shape, int64_t fan_in, int64_t fan_out, int64_t biases)
{
    ek_param *param[2] = {ek_node_add_param(node, EK_ROLE_WEIGHT, "weight", shape)};
    if (biases) param[1] = ek_node_add_param(node, EK_ROLE_BIAS, "bias", (ek_shape){1, {biases}});
    for (int i = 0; i < 1 + (biases > 0); i++) {
        param[i]->fan_in = fan_in;
        param[i]->fan_out = fan_out;
    }
}

ek_param *ek_node_param(ek_node *node, ek_role role)
{
    for (int i = 0; i < node->param_count; i++) {
        if (node->param[i].role == role) return &node->param[i];
    }
    return NULL;
}

float *ek_node_data(ek_node *node, ek_role role)
{
    ek_param *param = ek_node_param(node, role);
    return param ? param->data : NULL;
}

double *ek_reference_of(double *const *arrays, const ek_node *node, ek_role role)
{
    for (int i = 0; i < node->param_count; i++) {
        if (node->param[i].role == role) return arrays[i];
    }
    return NULL;
}

ek_param *ek_node_live_bias(ek_node *node)
{
    ek_param *bias = ek_node_param(node, EK_ROLE_BIAS);
    return bias && !bias->redundant ? bias : NULL;
}
