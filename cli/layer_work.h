/* The work that a net's layers cannot do without: what their times are held against. */
#ifndef CLI_LAYER_WORK_H
#define CLI_LAYER_WORK_H

#include "evenkeel.h"

typedef struct layer_work {
    double flops; /* multiplications and additions of convolutions and linear layers */
    double bytes; /* values and parameters that come in or go out, each counted once */
} layer_work;

/* For each layer, that of the pass which it leads: of its own, and of the layers computed within it (times). What
 * passes between two layers of one pass need not be moved. Backward reads the values that its formula needs; the
 * gradient of what is not trained is not asked for. False: out of memory. */
bool layer_work_count(const ek_net *net, int64_t batch, const ek_layer_time *times, layer_work *forward,
                      layer_work *backward);

#endif
