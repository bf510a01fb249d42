#include "norm/fold.h"

#include <math.h>

void ek_fold_terms(int64_t channels, double eps, const double *gamma, const double *beta, const float *mean,
                   const float *var, double *a, double *b)
{
    for (int64_t c = 0; c < channels; c++) {
        a[c] = (gamma ? gamma[c] : 1) / sqrt(var[c] + eps);
        b[c] = (beta ? beta[c] : 0) - mean[c] * a[c];
    }
}

/* A row of weights: those of one output and one input, `cells` of them. */
static int64_t rows_of(const ek_fold_weights *g) { return ek_fold_count(g) / g->cells; }

static int64_t output_of(const ek_fold_weights *g, int64_t row)
{
    int64_t in = g->in / g->groups, out = g->out / g->groups;
    return g->transposed ? row / out / in * out + row % out : row / in;
}

static int64_t input_of(const ek_fold_weights *g, int64_t row)
{
    int64_t in = g->in / g->groups, out = g->out / g->groups;
    return g->transposed ? row / out : row / in / out * in + row % in;
}

static void scale(int64_t cells, double a, double *row)
{
    for (int64_t k = 0; k < cells; k++) row[k] *= a;
}

void ek_fold_outputs(const ek_fold_weights *g, const double *a, double *weight)
{
    for (int64_t row = 0; row < rows_of(g); row++)
        scale(g->cells, a[output_of(g, row)], weight + row * g->cells);
}

void ek_fold_inputs(const ek_fold_weights *g, const double *a, double *weight)
{
    for (int64_t row = 0; row < rows_of(g); row++)
        scale(g->cells, a[input_of(g, row)], weight + row * g->cells);
}

void ek_fold_sums(const ek_fold_weights *g, const double *b, const double *weight, double *sum)
{
    for (int64_t i = 0; i < g->out * g->cells; i++) sum[i] = 0;
    for (int64_t row = 0; row < rows_of(g); row++) {
        double *to = sum + output_of(g, row) * g->cells;
        for (int64_t k = 0; k < g->cells; k++) to[k] += weight[row * g->cells + k] * b[input_of(g, row)];
    }
}
