#ifndef EK_TRAIN_OPTIMIZER_H
#define EK_TRAIN_OPTIMIZER_H

#include "graph/net.h"

/* A piece of one trained tensor: the unit of work. */
typedef struct ek_optimizer_chunk {
    int64_t count;
    float *w;
    const float *grad;
    float *first, *second; /* NULL: the optimizer has none */
    bool decays;           /* weight decay acts on it */
    double place; /* of its first number in its tensor, from 0 to 1 */
    int tensor;
} ek_optimizer_chunk;

/* Optimizer state of a net: up to two arrays for each trained tensor. */
typedef struct ek_optimizer_state {
    ek_optimizer_options options;
    int64_t step;            /* updates done */
    int count;               /* tensors of the net */
    float **first, **second; /* by tensor index: SGD momentum_buffer; Adam exp_avg, exp_avg_sq; NULL: none */
    ek_optimizer_chunk *chunk;
    int64_t chunks;
    double *measure; /* one a chunk: the sum of its gradient's squares */
} ek_optimizer_state;

ek_status ek_optimizer_check(const ek_optimizer_options *options);
ek_status ek_optimizer_create(ek_net *net, const ek_optimizer_options *options, ek_optimizer_state **out);
void ek_optimizer_destroy(ek_optimizer_state *state);
/* One update with learning rate lr. False, with nothing changed, when a gradient is not finite. */
bool ek_optimizer_update(ek_net *net, ek_optimizer_state *state, double lr);

#endif
