/* Times of a net's steps on random data, layer by layer, with and without its batch normalizations. */
#ifndef CLI_BENCH_MEASURE_H
#define CLI_BENCH_MEASURE_H

#include "floors.h"
#include "layer_work.h"

typedef struct bench_settings {
    int64_t batch;
    double seconds; /* how long the steps are repeated */
    ek_optimizer optimizer;
} bench_settings;

/* All times in seconds, medians; NaN where something was not measured. */
typedef struct bench_result {
    int layers;
    ek_layer_time *time; /* by layer, in a step */
    layer_work *forward, *backward;
    bool trains; /* false: the net cannot be trained, and a step is a forward pass in inference mode */
    int norms;   /* batchnorm layers */
    double step, inference, single; /* a training step; inference of a batch and of one sample */
    double outside;                 /* of a step, outside the layers: loss, update, running statistics */
    double plain_step, tax;         /* a step without BN; the median of the rounds' ratios */
    size_t planned,
        peak; /* bytes that the planner lays out for a step; the process's peak after its first steps */
    cli_floors floors;
} bench_result;

/* False: it failed, which was said. */
bool bench_measure(ek_context *context, ek_net *net, const bench_settings *settings, bench_result *out);
void bench_result_free(bench_result *result);

#endif
