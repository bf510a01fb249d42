/* One layer against numbers that are not ours: its own passes on arrays with one lane block, since the plan gives no gradient
 * of the net's input. Inputs are series that tests/oracles/common/golden.py makes too. */
#ifndef EK_TESTS_LAYER_GOLDEN_H
#define EK_TESTS_LAYER_GOLDEN_H

#include "testing.h"

#include "graph/plan.h"

#include <math.h>

/* Exact in float where the scale is a power of two. */
static inline void series(float *to, int64_t count, int step, int modulus, double scale, double shift)
{
    for (int64_t i = 0; i < count; i++) to[i] = (float)((double)(i * step % modulus - modulus / 2) / scale + shift);
}

static inline float *new_floats(int64_t count)
{
    float *values = ek_calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    return values;
}

static inline float *new_series(int64_t count, int step, int modulus, double scale)
{
    float *values = new_floats(count);
    series(values, count, step, modulus, scale, 0);
    return values;
}

/* In lane rows. */
static inline float *new_lanes(const ek_pass *pass, int64_t each, const float *rows)
{
    float *lanes = new_floats(each * EK_LANES);
    if (rows) pass->kernels->rows_to_lanes(each, (int)pass->n, rows, lanes);
    return lanes;
}

/* Forward, backward and commit of the net's last layer in training, its parameters as they are; y and dx as rows. */
static inline void run_layer(ek_net *net, const float *x, int samples, const float *dy, float *y, float *dx)
{
    ek_node *node = &net->graph.node[net->graph.count - 1];
    int64_t in = ek_shape_count(node->in[0]), out = ek_shape_count(node->out);
    assert_ok(ek_net_prepare(net, samples, true));
    ek_pass pass = net->plan->pass;
    pass.kernels = net->context->kernels;
    pass.n = samples;
    pass.training = true;
    float *lanes[] = {new_lanes(&pass, in, x), new_lanes(&pass, out, dy), new_lanes(&pass, out, NULL), new_lanes(&pass, in, NULL)};
    ek_flow flow = {.x = {{.x = lanes[0]}}, .dy = {.g = lanes[1]}, .y = lanes[2], .dx = {{.g = lanes[3], .value = {.x = lanes[0]}}}};
    node->op->forward(&pass, node, &flow);
    node->op->backward(&pass, node, &flow);
    if (node->op->commit) node->op->commit(&pass, node);
    pass.kernels->lanes_to_rows(out, samples, lanes[2], y);
    pass.kernels->lanes_to_rows(in, samples, lanes[3], dx);
    for (int i = 0; i < 4; i++) ek_free(lanes[i]);
}

/* Either both are there or neither. */
static inline void check_golden(const char *text, const char *isa, const char *what, const float *got, const float *want, int64_t count)
{
    if ((got != NULL) != (want != NULL)) fail_msg("%s: %s is there for %s alone", text, what, got ? "us" : "PyTorch");
    for (int64_t i = 0; got && i < count; i++)
        if (!(fabsf(got[i] - want[i]) <= 4e-6f * fmaxf(1, fabsf(want[i]))))
            fail_msg("%s, %s: %s[%d] is %.9g, PyTorch has %.9g", text, isa ? isa : "best", what, (int)i, (double)got[i],
                     (double)want[i]);
}

#endif
