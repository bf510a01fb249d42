/* affine SHAPE: y = weight*x + bias, with weight and bias of SHAPE, whose dimensions are x's, or 1: one number then stands
 * for all of x's along it. "16x1x1" is one a channel, as a batchnorm is in inference.
 *
 *   dx = weight*dy        dweight = sum dy*x        dbias = sum dy        over the samples, and what a number stands for
 */
#include "ops/elementwise.h"
#include "ops/walk.h"

#include <string.h>

enum { SHAPE, SCALE, SHIFT };

static ek_shape gain_shape(const ek_node *node)
{
    const ek_attr *attr = &node->attr[SHAPE];
    ek_shape shape = {.rank = attr->n};
    for (int d = 0; d < attr->n; d++) shape.dim[d] = (int64_t)attr->v[d];
    return shape;
}

static ek_status shape(ek_node *node)
{
    char text[2][EK_SHAPE_TEXT];
    ek_shape in = node->in[0], gain = gain_shape(node);
    bool fits = gain.rank == in.rank;
    for (int d = 0; fits && d < in.rank; d++) fits = gain.dim[d] == in.dim[d] || gain.dim[d] == 1;
    if (!fits)
        return ek_fail(EK_E_SHAPE, "affine's shape has the dimensions of its input, or 1 in their place; it is %s, the input %s",
                       ek_shape_text(gain, text[0]), ek_shape_text(in, text[1]));
    if (!ek_attr_bool(node, SCALE) && !ek_attr_bool(node, SHIFT))
        return ek_fail(EK_E_ARGUMENT, "affine with scale=false and shift=false does nothing: leave the layer out");
    return ek_same_shape(node);
}

static void params(ek_node *node)
{
    if (ek_attr_bool(node, SCALE)) ek_node_add_param(node, EK_ROLE_GAMMA, "weight", gain_shape(node));
    if (ek_attr_bool(node, SHIFT)) ek_node_add_param(node, EK_ROLE_BETA, "bias", gain_shape(node));
}

static ek_walk walk_of(const ek_node *node)
{
    ek_strides gain = ek_strides_of(gain_shape(node), node->in[0]);
    return ek_walk_begin(node->in[0], gain, gain);
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    const float *weight = ek_node_data(w->node, EK_ROLE_GAMMA), *bias = ek_node_data(w->node, EK_ROLE_BETA);
    const float *x = w->flow->x[0].x + block * w->block;
    float *restrict y = w->flow->y + block * w->block;
    ek_walk walk = walk_of(w->node);
    do {
        for (int64_t i = 0; i < walk.run; i++, x += EK_LANES, y += EK_LANES) {
            int64_t gain = walk.there[0] + i * walk.step[0];
            float a = weight ? weight[gain] : 1, b = bias ? bias[gain] : 0;
            for (int lane = 0; lane < EK_LANES; lane++) y[lane] = a * x[lane] + b;
        }
    } while (ek_walk_next(&walk));
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow) { ek_each_block(pass, node, flow, forward_piece); }

/* Gradients of weight and bias are summed in parts, over neighbouring blocks; their number depends on the number of blocks
 * alone. */
enum { MAX_PARTS = 16 };
static int64_t parts_of(int64_t blocks) { return blocks < MAX_PARTS ? blocks : MAX_PARTS; }

/* The workspace: by part, dweight and dbias in double. */
static size_t part_doubles(const ek_node *node) { return 2 * (size_t)ek_shape_count(gain_shape(node)); }

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    return training ? part_doubles(node) * (size_t)parts_of(ek_blocks(samples)) * (sizeof(double) / sizeof(float)) : 0;
}

static double *part_of(const ek_node *node, int64_t part)
{
    return (double *)(void *)node->workspace + part_doubles(node) * (size_t)part;
}

static double sum_of_lanes(const double *lane)
{
    double sum[EK_LANES / 2];
    for (int i = 0; i < EK_LANES / 2; i++) sum[i] = lane[i] + lane[i + EK_LANES / 2];
    for (int half = EK_LANES / 4; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

/* Where a number stands for the whole run, its rows are summed before their lanes. */
static void gain_gradients(const ek_walk *walk, const float *x, const float *dy, double *dweight, double *dbias)
{
    double of_weight[EK_LANES] = {0}, of_bias[EK_LANES] = {0};
    for (int64_t i = 0; i < walk->run; i++, x += EK_LANES, dy += EK_LANES) {
        for (int lane = 0; lane < EK_LANES; lane++) {
            of_weight[lane] += (double)dy[lane] * x[lane];
            of_bias[lane] += dy[lane];
        }
        if (!walk->step[0] && i + 1 < walk->run) continue;
        int64_t gain = walk->there[0] + i * walk->step[0];
        dweight[gain] += sum_of_lanes(of_weight);
        dbias[gain] += sum_of_lanes(of_bias);
        memset(of_weight, 0, sizeof of_weight);
        memset(of_bias, 0, sizeof of_bias);
    }
}

static void backward_block(const ek_elementwise *w, int64_t block, double *dweight, double *dbias)
{
    const float *weight = ek_node_data(w->node, EK_ROLE_GAMMA);
    const float *x = w->flow->x[0].x + block * w->block, *dy = w->flow->dy.g + block * w->block;
    float *restrict dx = w->flow->dx[0].g ? w->flow->dx[0].g + block * w->block : NULL;
    ek_walk walk = walk_of(w->node);
    do {
        gain_gradients(&walk, x + walk.here * EK_LANES, dy + walk.here * EK_LANES, dweight, dbias);
        for (int64_t i = 0; dx && i < walk.run; i++) {
            int64_t at = (walk.here + i) * EK_LANES;
            float a = weight ? weight[walk.there[0] + i * walk.step[0]] : 1;
            for (int lane = 0; lane < EK_LANES; lane++) dx[at + lane] = a * dy[at + lane];
        }
    } while (ek_walk_next(&walk));
}

static void backward_piece(void *argument, int64_t part, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t blocks = ek_blocks(w->pass->n), parts = parts_of(blocks), gains = ek_shape_count(gain_shape(w->node));
    double *dweight = part_of(w->node, part), *dbias = dweight + gains;
    memset(dweight, 0, part_doubles(w->node) * sizeof *dweight);
    for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; b++) backward_block(w, b, dweight, dbias);
}

/* `offset`: where the parameter's own begin in a part. */
static void sum_parts(const ek_pass *pass, const ek_node *node, const ek_param *param, int64_t offset)
{
    for (int64_t i = 0; param && i < param->count; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts_of(ek_blocks(pass->n)); part++) sum += part_of(node, part)[offset + i];
        param->grad[i] = (float)sum;
    }
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_elementwise work = ek_elementwise_of(pass, node, flow);
    ek_pool_run(pass->context->pool, parts_of(ek_blocks(pass->n)), backward_piece, &work);
    sum_parts(pass, node, ek_node_param(node, EK_ROLE_GAMMA), 0);
    sum_parts(pass, node, ek_node_param(node, EK_ROLE_BETA), ek_shape_count(gain_shape(node)));
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    const double *weight = ek_reference_of(ref->param, node, EK_ROLE_GAMMA), *bias = ek_reference_of(ref->param, node, EK_ROLE_BETA);
    const double *in = x[0];
    for (int64_t n = 0; n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++) {
                int64_t gain = walk.there[0] + i * walk.step[0];
                *y++ = *in++ * (weight ? weight[gain] : 1) + (bias ? bias[gain] : 0);
            }
        } while (ek_walk_next(&walk));
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                               const double *dy, double *const dx[])
{
    (void)y;
    const double *weight = ek_reference_of(ref->param, node, EK_ROLE_GAMMA);
    double *dweight = ek_reference_of(ref->grad, node, EK_ROLE_GAMMA), *dbias = ek_reference_of(ref->grad, node, EK_ROLE_BETA);
    int64_t at = 0;
    for (int64_t n = 0; n < ref->n; n++) {
        ek_walk walk = walk_of(node);
        do {
            for (int64_t i = 0; i < walk.run; i++, at++) {
                int64_t gain = walk.there[0] + i * walk.step[0];
                if (dx[0]) dx[0][at] += dy[at] * (weight ? weight[gain] : 1);
                if (dweight) dweight[gain] += dy[at] * x[0][at];
                if (dbias) dbias[gain] += dy[at];
            }
        } while (ek_walk_next(&walk));
    }
}

const ek_op ek_op_affine = {
    .name = "affine",
    .inputs = 1,
    .attrs = {{"shape", EK_ATTR_SHAPE, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "of weight and bias: the input's dimensions, or 1 in their place"},
              {"scale", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn a weight"},
              {"shift", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn a bias"}},
    .any_rank = true,
    .shape = shape,
    .params = params,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
