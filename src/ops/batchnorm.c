/* batchnorm: batch normalization of each channel of a map or each feature (src/norm says all of it). */
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

static ek_norm_view view_of(const ek_node *node, int64_t n)
{
    ek_shape in = node->in[0];
    bool lanes = ek_is_lanes(in);
    return (ek_norm_view){.n = n, .c = in.dim[0], .s = lanes ? in.dim[1] * in.dim[2] : 1, .lanes = lanes};
}

/* The workspace: what is saved, then the passes' doubles. */
static size_t saved_floats(const ek_node *node) { return ek_lane_rows((size_t)node->in[0].dim[0] * 4); }

static size_t workspace(const ek_node *node, int64_t samples)
{
    return saved_floats(node) + ek_norm_workspace(view_of(node, samples)) * (sizeof(double) / sizeof(float));
}

static double *doubles(const ek_node *node)
{
    return (double *)(void *)(node->workspace + saved_floats(node));
}

static ek_batch_norm_saved saved_of(const ek_node *node)
{
    int64_t c = node->in[0].dim[0];
    float *at = node->workspace;
    return (ek_batch_norm_saved){at, at + c, at + 2 * c, at + 3 * c};
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

static ek_status check(const ek_pass *pass, const ek_node *node)
{
    ek_norm_view view = view_of(node, pass->n);
    if (batch_statistics(pass->training, node) && view.n * view.s < 2)
        return ek_fail(EK_E_SHAPE,
                       "%s has one value a channel in this batch, and one value has no variance: use batches "
                       "of 2 or more",
                       node->label);
    return EK_OK;
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    ek_norm_view view = view_of(node, pass->n);
    ek_batch_norm_saved saved = saved_of(node);
    if (batch_statistics(pass->training, node)) {
        ek_norm_statistics(pass->context, view, ek_attr_real(node, EPS), x[0], doubles(node), &saved);
    } else {
        ek_norm_use_running(ek_attr_real(node, EPS), view.c, data(node, EK_ROLE_RUNNING_MEAN),
                            data(node, EK_ROLE_RUNNING_VAR), &saved);
    }
    ek_norm_apply(pass->context, view, x[0], &saved, data(node, EK_ROLE_GAMMA), data(node, EK_ROLE_BETA),
                  doubles(node), y);
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)y;
    ek_batch_norm_saved saved = saved_of(node);
    ek_param *gamma = ek_node_param(node, EK_ROLE_GAMMA), *beta = ek_node_param(node, EK_ROLE_BETA);
    ek_norm_backward(pass->context, view_of(node, pass->n), batch_statistics(pass->training, node), x[0], dy,
                     gamma ? gamma->data : NULL, &saved, doubles(node), dx[0], gamma ? gamma->grad : NULL,
                     beta ? beta->grad : NULL);
}

static void update(ek_node *node, int64_t n, const ek_batch_norm_saved *saved)
{
    ek_batch_norm_options options = ek_batchnorm_options(node);
    if (!options.track || options.frozen) return;
    ek_norm_view view = view_of(node, n);
    ek_batch_norm_arrays arrays = {.running_mean = data(node, EK_ROLE_RUNNING_MEAN),
                                   .running_var = data(node, EK_ROLE_RUNNING_VAR),
                                   .num_batches_tracked = &ek_node_param(node, EK_ROLE_COUNTER)->counter};
    /* The options were checked with the text, and forward has refused m < 2: it cannot fail. */
    ek_status status = ek_batch_norm_update_running(&options, view.n * view.s, view.c, saved, &arrays, NULL);
    (void)status;
}

static void commit(const ek_pass *pass, ek_node *node)
{
    ek_batch_norm_saved saved = saved_of(node);
    update(node, pass->n, &saved);
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

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    ek_norm_view v = view_of(node, ref->n);
    ek_ncs shape_ncs = {v.n, v.c, v.s};
    double *mean = ref->kept, *var = mean + v.c;
    if (batch_statistics(ref->training, node)) {
        ek_batch_norm_reference_statistics(shape_ncs, x[0], mean, var);
    } else {
        for (int64_t i = 0; i < v.c; i++) {
            mean[i] = ref_param(ref, node, EK_ROLE_RUNNING_MEAN)[i];
            var[i] = ref_param(ref, node, EK_ROLE_RUNNING_VAR)[i];
        }
    }
    ek_batch_norm_reference_forward(shape_ncs, ek_attr_real(node, EPS), x[0], mean, var,
                                    ref_param(ref, node, EK_ROLE_GAMMA), ref_param(ref, node, EK_ROLE_BETA),
                                    y);
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    ek_norm_view v = view_of(node, ref->n);
    ek_batch_norm_reference_backward((ek_ncs){v.n, v.c, v.s}, ek_attr_real(node, EPS),
                                     batch_statistics(ref->training, node), x[0], dy, ref->kept,
                                     ref->kept + v.c, ref_param(ref, node, EK_ROLE_GAMMA), dx[0],
                                     ref_grad(ref, node, EK_ROLE_GAMMA), ref_grad(ref, node, EK_ROLE_BETA));
}

/* The float update serves the oracle too: its inputs are rounded once, the formula is the same. */
static void reference_commit(const ek_ref *ref, ek_node *node)
{
    ek_batch_norm_saved saved = saved_of(node);
    int64_t c = node->in[0].dim[0];
    for (int64_t i = 0; i < c; i++) {
        saved.mean[i] = (float)ref->kept[i];
        saved.mean_low[i] = (float)(ref->kept[i] - saved.mean[i]);
        saved.var[i] = (float)ref->kept[c + i];
    }
    update(node, ref->n, &saved);
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
    .check = check,
    .forward = forward,
    .backward = backward,
    .commit = commit,
    .reference_kept = reference_kept,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
    .reference_commit = reference_commit,
};
