/* Batch normalization inside: what the public operations of evenkeel.h are made of. The batchnorm layer has passes of its
 * own, or runs within its neighbours' (src/ops/batchnorm.c); it shares the merging of moments and the oracle. */
#ifndef EK_NORM_BATCH_NORM_H
#define EK_NORM_BATCH_NORM_H

#include "kernels/context.h"
#include "kernels/moments.h"

/* Pairwise in a fixed order over parts[0], parts[stride], ...; parts are overwritten. */
ek_moments ek_moments_merge_all(ek_moments *parts, int64_t count, int64_t stride);

/* Doubles of workspace that the passes below need: part sums by piece and channel, and terms. */
size_t ek_norm_workspace(ek_ncs shape);

/* A batch norm, and the ReLU after it where there is one. */
typedef struct ek_norm_layer {
    ek_ncs shape;
    double eps;
    bool batch_statistics; /* the batch's, which forward leaves in saved; else saved holds what is used */
    bool relu;
    const float *gamma, *beta; /* may be NULL */
    const ek_batch_norm_saved *saved;
    double *workspace;
} ek_norm_layer;

/* y = max(0, (x - mean)*inv_std*gamma + beta), or without the max. */
void ek_norm_forward(ek_context *context, const ek_norm_layer *layer, const float *x, float *y);
/* batch_statistics: the training formula for dx, else the inference one. Any of the outputs may be NULL. Where
 * the ReLU was shut is found from x by the forward pass's own arithmetic. */
void ek_norm_backward(ek_context *context, const ek_norm_layer *layer, const float *x, const float *dy,
                      float *dx, float *dgamma, float *dbeta);

/* saved from running statistics. */
void ek_norm_use_running(double eps, int64_t c, const float *running_mean, const float *running_var,
                         const ek_batch_norm_saved *saved);

/* --- The oracle, in double, slow and obvious, on plain [n, c, s]. Results as in evenkeel.h; any pointer
 * to an output may be NULL. mean and var are outputs of the statistics and inputs of the others. Gradients
 * are added to what their arrays hold: a value may have several readers. length [n]: of each sample the first so many
 * positions count, and what is beyond is neither read nor written; NULL: all. */
int64_t ek_batch_norm_reference_values(ek_ncs shape, const int32_t *length); /* of a channel */
void ek_batch_norm_reference_statistics(ek_ncs shape, const int32_t *length, const double *x, double *mean,
                                        double *var);
void ek_batch_norm_reference_forward(ek_ncs shape, const int32_t *length, double eps, const double *x,
                                     const double *mean, const double *var, const double *gamma,
                                     const double *beta, double *y);
void ek_batch_norm_reference_backward(ek_ncs shape, const int32_t *length, double eps, bool batch_statistics,
                                      const double *x, const double *dy, const double *mean,
                                      const double *var, const double *gamma, double *dx, double *dgamma,
                                      double *dbeta);
/* The ReLU after it: z becomes y; dy becomes the gradient of z. */
void ek_batch_norm_reference_relu(int64_t count, double *z);
void ek_batch_norm_reference_relu_backward(int64_t count, const double *z, double *dy);

#endif
