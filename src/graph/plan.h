/* Where the values of a run lie, and the running itself. */
#ifndef EK_GRAPH_PLAN_H
#define EK_GRAPH_PLAN_H

#include "graph/net.h"

/* What a run of up to `capacity` samples needs. */
struct ek_plan {
    int64_t capacity;            /* samples */
    bool training;               /* gradients are there */
    ek_pass pass;                /* of the last forward pass */
    float *arena;                /* all that follows lies in here, workspaces too */
    float **value, **grad;       /* by node; grad NULL where none is needed */
    float *spare[EK_MAX_INPUTS]; /* for gradients that are to be added to others */
    bool *started;               /* by node: backward has written grad */
    struct ek_oracle
        *oracle; /* of a reference context; reads and writes the values and gradients at the borders */
};

/* Bytes of the arena for `samples`. */
size_t ek_plan_bytes(const ek_net *net, int64_t samples, bool training);
ek_status ek_plan_create(ek_net *net, int64_t samples, bool training, ek_plan **out);
void ek_plan_destroy(ek_plan *plan);

/* The oracle: the whole net in double on plain arrays, for a context with instruction set "reference". It
 * reads its input from, and leaves its output in, the plan's float values. */
typedef struct ek_oracle ek_oracle;
ek_status ek_oracle_create(ek_net *net, int64_t samples, ek_oracle **out);
void ek_oracle_destroy(ek_oracle *oracle);
void ek_oracle_forward(ek_oracle *oracle, ek_net *net);
void ek_oracle_backward(ek_oracle *oracle, ek_net *net);
void ek_oracle_commit(ek_oracle *oracle, ek_net *net);

#endif
