/* Numbers of eight bits: q stands for (q - zero)*scale. Weights are symmetric (zero 0) with a scale for each output channel;
 * values have one for each layer, and a zero point, so that the zeros of padding are exact.
 *
 * A convolution or linear layer sums w*x in 32 bits; the bias, in units of scale_x*scale_w, has taken in the zero point of x:
 *
 *   acc = bias + sum w*x     y = clamp(zero_y + round(acc * scale_x*scale_w/scale_y))
 *
 * where the factor is a whole number over a power of two. A relu or clip that alone reads such a sum is its clamp. */
#ifndef EK_CCODE_QUANTIZE_H
#define EK_CCODE_QUANTIZE_H

#include "ccode/ccode.h"

typedef struct ek_cc_range {
    double low, high; /* what the eight bits reach; 0 lies within */
    double scale;
    int zero;
} ek_cc_range;

/* A factor: multiplier / 2^shift. */
typedef struct ek_cc_factor {
    int32_t multiplier;
    int shift;
} ek_cc_factor;
ek_cc_factor ek_cc_factor_of(double factor);

/* What a layer computes with; arrays by output channel, or for a table 256. */
typedef struct ek_cc_numbers {
    int8_t *weight;
    int32_t *bias, *multiplier;
    int8_t *shift;
    int8_t *table[EK_MAX_INPUTS];
    int64_t weights;    /* count */
    int low, high;      /* the clamp */
} ek_cc_numbers;

typedef struct ek_cc_quantized {
    const ek_graph *graph;
    bool *absorbed;         /* by node: a relu or clip that is its producer's clamp, or a softmax at the end */
    ek_cc_range *range;     /* by root */
    ek_cc_numbers *numbers; /* by root */
    int *clamp;             /* by root: the node absorbed as its clamp, -1: none */
    int softmax;            /* the node at the end that is computed in floats; -1: none */
} ek_cc_quantized;

/* All layers can be of eight bits; else names all that cannot. */
ek_status ek_cc_int8_check(const ek_graph *graph);
/* Runs the net on the data, chooses ranges, and makes all numbers. */
ek_status ek_cc_quantize(ek_net *net, const ek_c_options *options, ek_cc_quantized *out);
void ek_cc_quantized_free(ek_cc_quantized *q);

/* Whether the options' data fits. */
ek_status ek_cc_check_data(const ek_net *net, const ek_dataset *data, const char *what);

/* Layers as C, and run: memory is laid out by the plan of the writer. */
void ek_cc_int8_emit(ek_cc_writer *w, const ek_cc_quantized *q);
void ek_cc_int8_run(const ek_cc_plan *plan, const ek_cc_quantized *q, int32_t *memory, const float *in, float *out);
size_t ek_cc_int8_scratch(const ek_node *node);

/* Runs options->test as floats and in eight bits, into the answer's measures. */
ek_status ek_cc_measure(ek_net *net, const ek_cc_plan *plan, const ek_cc_quantized *q, const ek_c_options *options,
                        ek_c_answer *answer);

/* The sums of a layer over the inputs and of a normalization alike: as a convolution, one tap deep where it is by channel. */
bool ek_cc_sums(const ek_node *node);
ek_cc_window ek_cc_sum_window(const ek_node *node);

#endif
