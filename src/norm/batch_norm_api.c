/* The public operations: they check, choose between the lane kernels and the oracle, and keep the running
 * statistics. */
#include "core/memory.h"
#include "norm/batch_norm.h"

#include <inttypes.h>
#include <math.h>

ek_batch_norm_options ek_batch_norm_options_default(void)
{
    return (ek_batch_norm_options){
        .eps = 1e-5,
        .momentum = 0.1,
        .unbiased_running_var = true,
        .scale = true,
        .shift = true,
        .track = true,
    };
}

/* --- checks */

static ek_status check_options(const ek_batch_norm_options *options)
{
    if (!(options->eps > 0 && isfinite(options->eps)))
        return ek_fail(EK_E_ARGUMENT,
                       "batch norm's eps must be above 0, not %g: a constant channel would be divided by 0",
                       options->eps);
    if (!options->cumulative && !(options->momentum >= 0 && options->momentum <= 1))
        return ek_fail(
            EK_E_ARGUMENT,
            "batch norm's momentum must be 0 to 1, not %g; it is the share of the new batch, as in PyTorch",
            options->momentum);
    if (options->frozen && !options->track)
        return ek_fail(EK_E_ARGUMENT,
                       "a frozen batch norm uses its running statistics, but track is off, so it has "
                       "none: turn track on or frozen off");
    return EK_OK;
}

static ek_status check_shape(ek_ncs shape)
{
    int64_t count;
    if (shape.n < 1 || shape.c < 1 || shape.s < 1)
        return ek_fail(EK_E_SHAPE,
                       "batch norm takes [n, c, s] with every dimension at least 1, not [%" PRId64 ",%" PRId64
                       ",%" PRId64 "]",
                       shape.n, shape.c, shape.s);
    if (__builtin_mul_overflow(shape.n, shape.c, &count) || __builtin_mul_overflow(count, shape.s, &count))
        return ek_fail(EK_E_SHAPE,
                       "batch norm over [%" PRId64 ",%" PRId64 ",%" PRId64
                       "] has more values than can be counted",
                       shape.n, shape.c, shape.s);
    return EK_OK;
}

static ek_status check_values(int64_t m)
{
    if (m >= 2) return EK_OK;
    return ek_fail(EK_E_SHAPE,
                   "batch norm has %" PRId64
                   " value a channel, and the batch's own statistics need at least 2: give "
                   "a larger batch, or use running statistics (inference, or frozen)",
                   m);
}

static ek_status check_pointer(const void *pointer, bool needed, const char *name, const char *why)
{
    if (pointer || !needed) return EK_OK;
    return ek_fail(EK_E_ARGUMENT, "batch norm's %s is NULL, but %s", name, why);
}

static ek_status check_saved(const ek_batch_norm_saved *saved)
{
    bool whole = saved && saved->mean && saved->mean_low && saved->var && saved->inv_std;
    return check_pointer(whole ? saved : NULL, true, "saved (or one of its arrays)",
                         "forward hands the batch's statistics to backward through it");
}

static ek_status check_running(const ek_batch_norm_options *options, const ek_batch_norm_arrays *arrays)
{
    EK_TRY(check_pointer(arrays->running_mean, true, "running_mean", "track is on"));
    EK_TRY(check_pointer(arrays->running_var, true, "running_var", "track is on"));
    EK_TRY(check_pointer(arrays->num_batches_tracked, options->cumulative, "num_batches_tracked",
                         "the cumulative average is the mean of so many batches"));
    const int64_t *batches = arrays->num_batches_tracked;
    if (batches && (*batches < 0 || *batches == INT64_MAX))
        return ek_fail(EK_E_ARGUMENT,
                       "batch norm's num_batches_tracked is %" PRId64 ", which no count of batches can be",
                       *batches);
    return EK_OK;
}

static ek_status check_forward(const ek_context *context, const ek_batch_norm_options *options, ek_ncs shape,
                               const float *x, const ek_batch_norm_arrays *arrays, const float *y)
{
    EK_TRY(check_pointer(context, true, "context", "it holds the threads and the kernels"));
    EK_TRY(check_pointer(options, true, "options", "they start from ek_batch_norm_options_default()"));
    EK_TRY(check_options(options));
    EK_TRY(check_shape(shape));
    EK_TRY(check_pointer(x, true, "x", "it is the input"));
    EK_TRY(check_pointer(y, true, "y", "it is the output"));
    EK_TRY(check_pointer(arrays->gamma, options->scale, "gamma", "scale is on"));
    EK_TRY(check_pointer(arrays->beta, options->shift, "beta", "shift is on"));
    if (options->track) EK_TRY(check_running(options, arrays));
    return EK_OK;
}

/* --- the oracle between float arrays */

static void widen(const float *from, int64_t count, double *to)
{
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

static void narrow(const double *from, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i++) to[i] = (float)from[i];
}

static ek_status forward_reference(ek_ncs shape, const ek_batch_norm_options *options, bool batch_statistics,
                                   const float *x, const ek_batch_norm_arrays *arrays, float *y,
                                   const ek_batch_norm_saved *saved)
{
    double eps = options->eps;
    int64_t count = shape.n * shape.c * shape.s;
    double *values, *channels; /* channels: mean, var, gamma, beta */
    EK_TRY(EK_NEW(values, (size_t)count));
    ek_status status = EK_OK;
    EK_GO(EK_NEW(channels, (size_t)shape.c * 4));
    double *mean = channels, *var = mean + shape.c, *gamma = var + shape.c, *beta = gamma + shape.c;
    widen(x, count, values);
    if (arrays->gamma) widen(arrays->gamma, shape.c, gamma);
    if (arrays->beta) widen(arrays->beta, shape.c, beta);
    if (batch_statistics) {
        ek_batch_norm_reference_statistics(shape, NULL, values, mean, var);
    } else {
        widen(arrays->running_mean, shape.c, mean);
        widen(arrays->running_var, shape.c, var);
    }
    for (int64_t c = 0; c < shape.c; c++) {
        saved->mean[c] = (float)mean[c];
        saved->mean_low[c] = (float)(mean[c] - saved->mean[c]);
        saved->var[c] = (float)var[c];
        saved->inv_std[c] = (float)(1 / sqrt(var[c] + eps));
    }
    ek_batch_norm_reference_forward(shape, NULL, eps, values, mean, var, arrays->gamma ? gamma : NULL,
                                    arrays->beta ? beta : NULL, values);
    if (options->relu) ek_batch_norm_reference_relu(count, values);
    narrow(values, count, y);
    ek_free(channels);
done:
    ek_free(values);
    return status;
}

static ek_status backward_reference(ek_ncs shape, const ek_batch_norm_options *options, bool batch_statistics,
                                    const float *x, const float *dy, const ek_batch_norm_arrays *arrays,
                                    const ek_batch_norm_saved *saved,
                                    const ek_batch_norm_gradients *gradients)
{
    int64_t count = shape.n * shape.c * shape.s;
    double *values, *channels; /* values: x, dy, dx, z; channels: mean, var, gamma, beta, dgamma, dbeta */
    EK_TRY(EK_NEW(values, (size_t)count * 4));
    ek_status status = EK_OK;
    EK_GO(EK_NEW(channels, (size_t)shape.c * 6));
    double *wide_dy = values + count, *dx = wide_dy + count, *z = dx + count;
    double *mean = channels, *var = mean + shape.c, *gamma = var + shape.c, *beta = gamma + shape.c;
    double *dgamma = beta + shape.c, *dbeta = dgamma + shape.c;
    widen(x, count, values);
    widen(dy, count, wide_dy);
    widen(saved->var, shape.c, var);
    for (int64_t c = 0; c < shape.c; c++) mean[c] = (double)saved->mean[c] + saved->mean_low[c];
    if (arrays->gamma) widen(arrays->gamma, shape.c, gamma);
    if (arrays->beta) widen(arrays->beta, shape.c, beta);
    if (options->relu) {
        ek_batch_norm_reference_forward(shape, NULL, options->eps, values, mean, var,
                                        arrays->gamma ? gamma : NULL, arrays->beta ? beta : NULL, z);
        ek_batch_norm_reference_relu_backward(count, z, wide_dy);
    }
    ek_batch_norm_reference_backward(shape, NULL, options->eps, batch_statistics, values, wide_dy, mean, var,
                                     arrays->gamma ? gamma : NULL, dx, dgamma, dbeta);
    if (gradients->dx) narrow(dx, count, gradients->dx);
    if (gradients->dgamma) narrow(dgamma, shape.c, gradients->dgamma);
    if (gradients->dbeta) narrow(dbeta, shape.c, gradients->dbeta);
    ek_free(channels);
done:
    ek_free(values);
    return status;
}

/* --- forward */

/* The arrays that the options let count. */
static ek_batch_norm_arrays used_arrays(const ek_batch_norm_options *options,
                                        const ek_batch_norm_arrays *arrays)
{
    ek_batch_norm_arrays used = *arrays;
    if (!options->scale) used.gamma = NULL;
    if (!options->shift) used.beta = NULL;
    return used;
}

/* The layer on plain arrays; its workspace is the caller's to free. */
static ek_status layer_create(const ek_batch_norm_options *options, bool batch_statistics, ek_ncs shape,
                              const ek_batch_norm_arrays *used, const ek_batch_norm_saved *saved,
                              ek_norm_layer *layer)
{
    *layer = (ek_norm_layer){.shape = shape,
                             .eps = options->eps,
                             .batch_statistics = batch_statistics,
                             .relu = options->relu,
                             .gamma = used->gamma,
                             .beta = used->beta,
                             .saved = saved};
    return EK_NEW(layer->workspace, ek_norm_workspace(shape));
}

/* saved may be NULL. */
static ek_status forward(ek_context *context, const ek_batch_norm_options *options, bool batch_statistics,
                         ek_ncs shape, const float *x, const ek_batch_norm_arrays *arrays, float *y,
                         const ek_batch_norm_saved *saved)
{
    float *own = NULL;
    ek_norm_layer layer = {0};
    ek_batch_norm_saved own_saved;
    ek_batch_norm_arrays used = used_arrays(options, arrays);

    ek_status status = EK_OK;
    if (!saved) {
        EK_GO(EK_NEW(own, (size_t)shape.c * 4));
        own_saved = (ek_batch_norm_saved){own, own + shape.c, own + 2 * shape.c, own + 3 * shape.c};
        saved = &own_saved;
    }
    if (context->reference) {
        EK_GO(forward_reference(shape, options, batch_statistics, x, &used, y, saved));
    } else {
        EK_GO(layer_create(options, batch_statistics, shape, &used, saved, &layer));
        if (!batch_statistics)
            ek_norm_use_running(options->eps, shape.c, used.running_mean, used.running_var, saved);
        ek_norm_forward(context, &layer, x, y);
    }
done:
    ek_free(layer.workspace);
    ek_free(own);
    return status;
}

static const ek_batch_norm_arrays no_arrays;

ek_status ek_batch_norm_forward_train(ek_context *context, const ek_batch_norm_options *options, ek_ncs shape,
                                      const float *x, const ek_batch_norm_arrays *arrays, float *y,
                                      const ek_batch_norm_saved *saved)
{
    if (!arrays) arrays = &no_arrays;
    EK_TRY(check_forward(context, options, shape, x, arrays, y));
    EK_TRY(check_saved(saved));
    if (!options->frozen) EK_TRY(check_values(shape.n * shape.s));
    EK_TRY(forward(context, options, !options->frozen, shape, x, arrays, y, saved));
    return ek_batch_norm_update_running(options, shape.n * shape.s, shape.c, saved, arrays, NULL);
}

ek_status ek_batch_norm_forward_inference(ek_context *context, const ek_batch_norm_options *options,
                                          ek_ncs shape, const float *x, const ek_batch_norm_arrays *arrays,
                                          float *y, const ek_batch_norm_saved *saved)
{
    if (!arrays) arrays = &no_arrays;
    EK_TRY(check_forward(context, options, shape, x, arrays, y));
    if (saved) EK_TRY(check_saved(saved));
    if (!options->track) EK_TRY(check_values(shape.n * shape.s));
    return forward(context, options, !options->track, shape, x, arrays, y, saved);
}

/* --- backward */

ek_status ek_batch_norm_backward(ek_context *context, const ek_batch_norm_options *options, ek_mode mode,
                                 ek_ncs shape, const float *x, const float *dy,
                                 const ek_batch_norm_arrays *arrays, const ek_batch_norm_saved *saved,
                                 const ek_batch_norm_gradients *gradients)
{
    if (!arrays) arrays = &no_arrays;
    EK_TRY(check_pointer(context, true, "context", "it holds the threads and the kernels"));
    EK_TRY(check_pointer(options, true, "options", "they start from ek_batch_norm_options_default()"));
    EK_TRY(check_options(options));
    EK_TRY(check_shape(shape));
    EK_TRY(check_pointer(x, true, "x", "backward needs the forward pass's input"));
    EK_TRY(check_pointer(dy, true, "dy", "it is the gradient of the output"));
    EK_TRY(check_pointer(arrays->gamma, options->scale, "gamma", "scale is on"));
    EK_TRY(check_pointer(arrays->beta, options->shift && options->relu, "beta",
                         "where the ReLU was shut depends on it"));
    EK_TRY(check_saved(saved));
    EK_TRY(check_pointer(gradients, true, "gradients", "they are the output"));
    bool batch_statistics = mode == EK_MODE_TRAINING ? !options->frozen : !options->track;
    if (batch_statistics) EK_TRY(check_values(shape.n * shape.s));

    ek_batch_norm_arrays used = used_arrays(options, arrays);
    if (context->reference)
        return backward_reference(shape, options, batch_statistics, x, dy, &used, saved, gradients);
    ek_norm_layer layer;
    EK_TRY(layer_create(options, batch_statistics, shape, &used, saved, &layer));
    ek_norm_backward(context, &layer, x, dy, gradients->dx, gradients->dgamma, gradients->dbeta);
    ek_free(layer.workspace);
    return EK_OK;
}

/* --- running statistics */

/* The batch's variance in the convention that running_var follows. */
static double variance_to_track(const ek_batch_norm_options *options, int64_t m, float var)
{
    return options->unbiased_running_var ? var * ((double)m / (double)(m - 1)) : var;
}

ek_status ek_batch_norm_update_running(const ek_batch_norm_options *options, int64_t m, int64_t c,
                                       const ek_batch_norm_saved *saved, const ek_batch_norm_arrays *arrays,
                                       bool *updated)
{
    if (!arrays) arrays = &no_arrays;
    EK_TRY(check_pointer(options, true, "options", "they start from ek_batch_norm_options_default()"));
    EK_TRY(check_options(options));
    if (updated) *updated = false;
    if (!options->track || options->frozen) return EK_OK;
    if (c < 1)
        return ek_fail(EK_E_SHAPE, "batch norm has %" PRId64 " channels; the running update needs at least 1",
                       c);
    EK_TRY(check_values(m));
    EK_TRY(check_saved(saved));
    EK_TRY(check_running(options, arrays));

    for (int64_t i = 0; i < c; i++)
        if (!isfinite(saved->mean[i]) || !isfinite((float)variance_to_track(options, m, saved->var[i])))
            return EK_OK;

    int64_t *batches = arrays->num_batches_tracked;
    double a = options->cumulative ? 1 / ((double)*batches + 1) : options->momentum;
    for (int64_t i = 0; i < c; i++) {
        double mean = (double)saved->mean[i] + saved->mean_low[i];
        arrays->running_mean[i] = (float)((1 - a) * arrays->running_mean[i] + a * mean);
        arrays->running_var[i] =
            (float)((1 - a) * arrays->running_var[i] + a * variance_to_track(options, m, saved->var[i]));
    }
    if (batches) (*batches)++;
    if (updated) *updated = true;
    return EK_OK;
}
