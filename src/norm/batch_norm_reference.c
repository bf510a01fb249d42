/* The oracle: batch normalization as the texts write it, in double, one channel after the other. */
#include "norm/batch_norm.h"

#include <math.h>

/* Where x[n][c][0] stands in [n, c, s]. */
static int64_t row(ek_ncs shape, int64_t n, int64_t c) { return (n * shape.c + c) * shape.s; }

/* How many of a row's values count. */
static int64_t alive(ek_ncs shape, const int32_t *length, int64_t n) { return length ? length[n] : shape.s; }

int64_t ek_batch_norm_reference_values(ek_ncs shape, const int32_t *length)
{
    int64_t m = 0;
    for (int64_t n = 0; n < shape.n; n++) m += alive(shape, length, n);
    return m;
}

void ek_batch_norm_reference_statistics(ek_ncs shape, const int32_t *length, const double *x, double *mean,
                                        double *var)
{
    double m = (double)ek_batch_norm_reference_values(shape, length);
    for (int64_t c = 0; c < shape.c; c++) {
        double sum = 0, squares = 0;
        for (int64_t n = 0; n < shape.n; n++)
            for (int64_t s = 0; s < alive(shape, length, n); s++) sum += x[row(shape, n, c) + s];
        double center = sum / m;
        for (int64_t n = 0; n < shape.n; n++)
            for (int64_t s = 0; s < alive(shape, length, n); s++) {
                double deviation = x[row(shape, n, c) + s] - center;
                squares += deviation * deviation;
            }
        if (mean) mean[c] = center;
        if (var) var[c] = squares / m;
    }
}

void ek_batch_norm_reference_forward(ek_ncs shape, const int32_t *length, double eps, const double *x,
                                     const double *mean, const double *var, const double *gamma,
                                     const double *beta, double *y)
{
    for (int64_t c = 0; c < shape.c; c++)
        for (int64_t n = 0; n < shape.n; n++)
            for (int64_t s = 0; s < alive(shape, length, n); s++) {
                int64_t i = row(shape, n, c) + s;
                double xhat = (x[i] - mean[c]) / sqrt(var[c] + eps);
                y[i] = (gamma ? gamma[c] : 1) * xhat + (beta ? beta[c] : 0);
            }
}

void ek_batch_norm_reference_backward(ek_ncs shape, const int32_t *length, double eps, bool batch_statistics,
                                      const double *x, const double *dy, const double *mean,
                                      const double *var, const double *gamma, double *dx, double *dgamma,
                                      double *dbeta)
{
    double m = (double)ek_batch_norm_reference_values(shape, length);
    for (int64_t c = 0; c < shape.c; c++) {
        double inv_std = 1 / sqrt(var[c] + eps);
        double sum_g = 0, sum_gxhat = 0;
        for (int64_t n = 0; n < shape.n; n++)
            for (int64_t s = 0; s < alive(shape, length, n); s++) {
                int64_t i = row(shape, n, c) + s;
                sum_g += dy[i];
                sum_gxhat += dy[i] * (x[i] - mean[c]) * inv_std;
            }
        for (int64_t n = 0; dx && n < shape.n; n++)
            for (int64_t s = 0; s < alive(shape, length, n); s++) {
                int64_t i = row(shape, n, c) + s;
                double xhat = (x[i] - mean[c]) * inv_std;
                /* What moving x[i] does through the mean and through the variance. */
                double through = batch_statistics ? sum_g / m + xhat * sum_gxhat / m : 0;
                dx[i] += (gamma ? gamma[c] : 1) * inv_std * (dy[i] - through);
            }
        if (dgamma) dgamma[c] += sum_gxhat;
        if (dbeta) dbeta[c] += sum_g;
    }
}

void ek_batch_norm_reference_relu(int64_t count, double *z)
{
    for (int64_t i = 0; i < count; i++)
        if (z[i] <= 0) z[i] = 0;
}

void ek_batch_norm_reference_relu_backward(int64_t count, const double *z, double *dy)
{
    for (int64_t i = 0; i < count; i++)
        if (z[i] <= 0) dy[i] = 0;
}
