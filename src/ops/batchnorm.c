/* batchnorm: batch normalization of each channel of a map or each feature (src/norm says all of it). */
#include "ops/batchnorm.h"

#include "norm/batch_norm.h"
#include "ops/elementwise.h"

#include <math.h>

enum { EPS, MOMENTUM, SCALE, SHIFT, TRACK, FROZEN, UNBIASED };

ek_batch_norm_options ek_batchnorm_options(const ek_node *node)
{
    ek_batch_norm_options o = ek_batch_norm_options_default();
    o.eps = ek_attr_real(node, EPS);
    o.cumulative = isnan(ek_attr_real(node, MOMENTUM));
    if (!o.cumulative) o.momentum = ek_attr_real(node, MOMENTUM);
    o.scale = ek_attr_bool(node, SCALE);
    o.shift = ek_attr_bool(node, SHIFT);
    o.track = ek_attr_bool(node, TRACK);
    o.frozen = ek_attr_bool(node, FROZEN);
    o.unbiased_running_var = ek_attr_bool(node, UNBIASED);
    return o;
}

static ek_status shape(ek_node *node)
{
    if (ek_attr_bool(node, FROZEN) && !ek_attr_bool(node, TRACK))
        return ek_fail(EK_E_ARGUMENT,
                       "frozen=true uses the running statistics, track=false has none: drop one of them");
    return ek_same_shape(node);
}

static void params(ek_node *node)
{
    ek_shape c = {1, {node->in[0].dim[0]}};
    if (ek_attr_bool(node, SCALE)) ek_node_add_param(node, EK_ROLE_GAMMA, "weight", c);
    if (ek_attr_bool(node, SHIFT)) ek_node_add_param(node, EK_ROLE_BETA, "bias", c);
    if (!ek_attr_bool(node, TRACK)) return;
    ek_node_add_param(node, EK_ROLE_RUNNING_MEAN, "running_mean", c);
    ek_node_add_param(node, EK_ROLE_RUNNING_VAR, "running_var", c);
    ek_node_add_param(node, EK_ROLE_COUNTER, "num_batches_tracked", (ek_shape){0});
}

/* The workspace: what is saved, what the output and dx are made with, then the blocks' moments or sums. */
typedef struct room {
    ek_batch_norm_saved saved;
    float *a, *b;        /* y = (x - mean)*a + b */
    float *da, *db, *dc; /* dx = da*g + db*(x - mean) + dc */
    ek_moments *moments; /* [block][channel] */
    double *sums;        /* [block][2][channel]: of g, of g*(x - mean) */
} room;

enum { ARRAYS = 9 }; /* of one float a channel */

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)training;
    int64_t c = node->in[0].dim[0];
    size_t moments = (size_t)(c * ek_blocks(samples)) * sizeof(ek_moments); /* more than the sums take */
    return ek_lane_rows((size_t)(ARRAYS * c)) + moments / sizeof(float);
}

static room room_of(const ek_node *node)
{
    int64_t c = node->in[0].dim[0];
    float *at = node->workspace;
    void *parts = at + ek_lane_rows((size_t)(ARRAYS * c));
    return (room){.saved = {at, at + c, at + 2 * c, at + 3 * c},
                  .a = at + 4 * c,
                  .b = at + 5 * c,
                  .da = at + 6 * c,
                  .db = at + 7 * c,
                  .dc = at + 8 * c,
                  .moments = parts,
                  .sums = parts};
}

static float *data(ek_node *node, ek_role role)
{
    ek_param *param = ek_node_param(node, role);
    return param ? param->data : NULL;
}

static bool batch_statistics(bool training, const ek_node *node)
{
    return (training && !ek_attr_bool(node, FROZEN)) || !ek_attr_bool(node, TRACK);
}

/* Values of a channel in the batch, of sequences their live positions. */
static int64_t values(const ek_pass *pass, const ek_node *node)
{
    const int32_t *length = ek_input_length(pass->length, node);
    int64_t sum = 0;
    if (!length) return pass->n * (ek_shape_count(node->in[0]) / node->in[0].dim[0]);
    for (int64_t i = 0; i < pass->n; i++) sum += length[i];
    return sum;
}

static ek_status check(const ek_pass *pass, const ek_node *node)
{
    if (batch_statistics(pass->training, node) && values(pass, node) < 2)
        return ek_fail(EK_E_SHAPE,
                       "%s has one value a channel in this batch, and one value has no variance: use batches "
                       "of 2 or more",
                       node->label);
    return EK_OK;
}

/* --- the halves of the forward pass */

ek_moments *ek_batchnorm_moments(const ek_pass *pass, const ek_node *node)
{
    return batch_statistics(pass->training, node) ? room_of(node).moments : NULL;
}

/* A mean in double, as the sum of two floats. */
static void save_moments(const ek_batch_norm_saved *saved, int64_t channel, ek_moments all, double eps)
{
    double var = all.m2 / all.count;
    saved->mean[channel] = (float)all.mean;
    saved->mean_low[channel] = (float)(all.mean - saved->mean[channel]);
    saved->var[channel] = (float)var;
    saved->inv_std[channel] = (float)(1 / sqrt(var + eps));
}

static void save_running(ek_node *node, const ek_batch_norm_saved *saved, int64_t channel)
{
    saved->mean[channel] = data(node, EK_ROLE_RUNNING_MEAN)[channel];
    saved->mean_low[channel] = 0;
    saved->var[channel] = data(node, EK_ROLE_RUNNING_VAR)[channel];
    saved->inv_std[channel] = (float)(1 / sqrt(saved->var[channel] + ek_attr_real(node, EPS)));
}

/* The mean is taken off first, in floats close to it, where the difference is exact; what the float mean
 * lacks goes into the constant:
 *
 *   y = (x - mean)*a + (beta - mean_low*a)    a = gamma*inv_std
 *
 * x*a + (beta - mean*a) would lose the digits that a large mean eats. */
void ek_batchnorm_prepare(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts)
{
    room r = room_of(node);
    int64_t c = node->in[0].dim[0];
    const float *gamma = data(node, EK_ROLE_GAMMA), *beta = data(node, EK_ROLE_BETA);
    for (int64_t i = first; i < first + count; i++) {
        if (batch_statistics(pass->training, node)) {
            ek_moments all = ek_moments_merge_all(r.moments + i, parts, c);
            save_moments(&r.saved, i, all, ek_attr_real(node, EPS));
        } else {
            save_running(node, &r.saved, i);
        }
        double a = (gamma ? gamma[i] : 1.0) * r.saved.inv_std[i];
        r.a[i] = (float)a;
        r.b[i] = (float)((beta ? beta[i] : 0.0) - r.saved.mean_low[i] * a);
    }
}

ek_map_in ek_batchnorm_map(const ek_node *node, const float *x)
{
    room r = room_of(node);
    return (ek_map_in){.x = x, .mean = r.saved.mean, .a = r.a, .b = r.b};
}

/* --- and of the backward pass */

double *ek_batchnorm_sums(const ek_node *node) { return room_of(node).sums; }

static double sum_blocks(const double *parts, int64_t blocks, int64_t stride)
{
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += parts[b * stride];
    return sum;
}

static void set_gradient(const room *r, int64_t channel, double a, double b, double c)
{
    r->da[channel] = (float)a;
    r->db[channel] = (float)b;
    r->dc[channel] = (float)c;
}

void ek_batchnorm_prepare_backward(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts)
{
    room r = room_of(node);
    int64_t c = node->in[0].dim[0];
    const ek_param *gamma = ek_node_param(node, EK_ROLE_GAMMA), *beta = ek_node_param(node, EK_ROLE_BETA);
    double m = (double)values(pass, node);
    for (int64_t i = first; i < first + count; i++) {
        double inv_std = r.saved.inv_std[i], low = r.saved.mean_low[i];
        double scale = (gamma ? gamma->data[i] : 1.0) * inv_std;
        double sum_g = sum_blocks(r.sums + i, parts, 2 * c);
        /* sum(g*xhat), with the mean's low half: x - mean - low */
        double sum_gxhat = (sum_blocks(r.sums + c + i, parts, 2 * c) - low * sum_g) * inv_std;
        if (beta) beta->grad[i] = (float)sum_g;
        if (gamma) gamma->grad[i] = (float)sum_gxhat;
        if (batch_statistics(pass->training, node)) {
            /* dx = scale*(g - sum_g/m - (x - mean - low)*inv_std*sum_gxhat/m) */
            double slope = -scale * inv_std * sum_gxhat / m;
            set_gradient(&r, i, scale, slope, -scale * sum_g / m - slope * low);
        } else {
            set_gradient(&r, i, scale, 0, 0);
        }
    }
}

/* Where the statistics are not the batch's, dx does not look at x, which may be infinite. */
ek_grad_in ek_batchnorm_gradient(const ek_pass *pass, const ek_node *node, const float *x, const float *g)
{
    room r = room_of(node);
    return (ek_grad_in){.g = g,
                        .x = batch_statistics(pass->training, node) ? x : g,
                        .mean = r.saved.mean,
                        .a = r.da,
                        .b = r.db,
                        .c = r.dc};
}

/* --- the passes of a node that runs by itself */

static void moments_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    const int32_t *length = ek_input_length(w->pass->length, w->node);
    const float *x = w->flow->x[0].x + block * w->block;
    ek_moments *out = room_of(w->node).moments + block * w->channels;
    if (length)
        w->kernels->sequence_moments(w->channels, slab.length / EK_LANES, length + block * EK_LANES, x, out);
    else
        w->kernels->moments(&slab, x, out);
}

static void apply_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_map_in all = ek_batchnorm_map(w->node, w->flow->x[0].x);
    ek_map_in m = ek_map_block(w->pass, &all, block, w->block);
    w->kernels->map_read(&slab, &m, w->flow->y + block * w->block);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (!flow->has_moments && batch_statistics(pass->training, node))
        ek_each_block(pass, node, flow, moments_piece);
    ek_batchnorm_prepare(pass, node, 0, node->out.dim[0], ek_blocks(pass->n));
    if (flow->y) ek_each_block(pass, node, flow, apply_piece);
}

/* Only the sums are wanted; g is written where it stands. Beyond a sequence's length it is 0. */
static void sums_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_grad_out all = {.g = (float *)w->flow->dy.g,
                       .value = ek_batchnorm_map(w->node, w->flow->x[0].x),
                       .sums = room_of(w->node).sums};
    ek_grad_out o = ek_grad_out_block(w->pass, &all, block, w->block, w->channels);
    w->kernels->grad_write(&slab, &o, o.g);
}

static void gradient_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_grad_in all = ek_batchnorm_gradient(w->pass, w->node, w->flow->x[0].x, w->flow->dy.g);
    ek_grad_in d = ek_grad_in_block(w->pass, &all, block, w->block);
    ek_grad_out o = ek_elementwise_out(w, 0, block);
    if (!ek_grad_out_asks(&o)) {
        w->kernels->grad_read(&slab, &d, o.g);
    } else {
        w->kernels->grad_read(&slab, &d, ek_scratch(w->pass, thread));
        w->kernels->grad_write(&slab, &o, ek_scratch(w->pass, thread));
    }
}

static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    return (size_t)ek_block_floats(node->in[0]);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (!flow->has_sums) ek_each_block(pass, node, flow, sums_piece);
    ek_batchnorm_prepare_backward(pass, node, 0, node->out.dim[0], ek_blocks(pass->n));
    if (flow->dx[0].g) ek_each_block(pass, node, flow, gradient_piece);
}

static void update(ek_node *node, int64_t m, const ek_batch_norm_saved *saved)
{
    ek_batch_norm_options options = ek_batchnorm_options(node);
    if (!options.track || options.frozen) return;
    ek_batch_norm_arrays arrays = {.running_mean = data(node, EK_ROLE_RUNNING_MEAN),
                                   .running_var = data(node, EK_ROLE_RUNNING_VAR),
                                   .num_batches_tracked = &ek_node_param(node, EK_ROLE_COUNTER)->counter};
    /* The options were checked with the text, and forward has refused m < 2: it cannot fail. */
    ek_status status = ek_batch_norm_update_running(&options, m, node->in[0].dim[0], saved, &arrays, NULL);
    (void)status;
}

static void commit(const ek_pass *pass, ek_node *node)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    update(node, values(pass, node), &saved);
}

/* --- reference: mean and variance of the batch are kept */

static int64_t reference_kept(const ek_node *node) { return 2 * node->in[0].dim[0]; }

static const double *ref_param(const ek_ref *ref, const ek_node *node, ek_role role)
{
    for (int i = 0; i < node->param_count; i++) {
        if (node->param[i].role == role) return ref->param[i];
    }
    return NULL;
}

static double *ref_grad(const ek_ref *ref, const ek_node *node, ek_role role)
{
    for (int i = 0; i < node->param_count; i++) {
        if (node->param[i].role == role) return ref->grad[i];
    }
    return NULL;
}

static ek_ncs reference_shape(const ek_ref *ref, const ek_node *node)
{
    int64_t c = node->in[0].dim[0];
    return (ek_ncs){ref->n, c, ek_shape_count(node->in[0]) / c};
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    ek_ncs v = reference_shape(ref, node);
    double *mean = ref->kept, *var = mean + v.c;
    if (batch_statistics(ref->training, node)) {
        ek_batch_norm_reference_statistics(v, ek_input_length(ref->length, node), x[0], mean, var);
    } else {
        for (int64_t i = 0; i < v.c; i++) {
            mean[i] = ref_param(ref, node, EK_ROLE_RUNNING_MEAN)[i];
            var[i] = ref_param(ref, node, EK_ROLE_RUNNING_VAR)[i];
        }
    }
    ek_batch_norm_reference_forward(v, ek_input_length(ref->length, node), ek_attr_real(node, EPS), x[0],
                                    mean, var, ref_param(ref, node, EK_ROLE_GAMMA),
                                    ref_param(ref, node, EK_ROLE_BETA), y);
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    ek_ncs v = reference_shape(ref, node);
    ek_batch_norm_reference_backward(v, ek_input_length(ref->length, node), ek_attr_real(node, EPS),
                                     batch_statistics(ref->training, node), x[0], dy, ref->kept,
                                     ref->kept + v.c, ref_param(ref, node, EK_ROLE_GAMMA), dx[0],
                                     ref_grad(ref, node, EK_ROLE_GAMMA), ref_grad(ref, node, EK_ROLE_BETA));
}

/* The float update serves the oracle too: its inputs are rounded once, the formula is the same. */
static void reference_commit(const ek_ref *ref, ek_node *node)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    int64_t c = node->in[0].dim[0];
    for (int64_t i = 0; i < c; i++) {
        saved.mean[i] = (float)ref->kept[i];
        saved.mean_low[i] = (float)(ref->kept[i] - saved.mean[i]);
        saved.var[i] = (float)ref->kept[c + i];
    }
    ek_ncs v = reference_shape(ref, node);
    update(node, ek_batch_norm_reference_values(v, ek_input_length(ref->length, node)), &saved);
}

const ek_op ek_op_batchnorm = {
    .name = "batchnorm",
    .inputs = 1,
    .attrs = {{"eps", EK_ATTR_REAL, .fallback = 1e-5, .min = 1e-30, .max = 1e6,
               .help = "added to the variance inside the root"},
              {"momentum", EK_ATTR_REAL, .allow_none = true, .fallback = 0.1, .min = 0, .max = 1,
               .help =
                   "running = (1-momentum)*running + momentum*batch; none: the plain average of all batches"},
              {"scale", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn gamma"},
              {"shift", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn beta"},
              {"track", EK_ATTR_BOOL, .fallback = 1, .max = 1,
               .help = "keep running statistics; without, inference uses the batch's"},
              {"frozen", EK_ATTR_BOOL, .fallback = 0, .max = 1,
               .help = "use the running statistics in training too, and leave them"},
              {"unbiased", EK_ATTR_BOOL, .fallback = 1, .max = 1,
               .help = "running_var takes M2/(m-1), not M2/m"}},
    .shape = shape,
    .params = params,
    .workspace = workspace,
    .scratch = scratch,
    .writes = EK_WRITES_ALL,
    .check = check,
    .forward = forward,
    .backward = backward,
    .commit = commit,
    .reference_kept = reference_kept,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
    .reference_commit = reference_commit,
};
