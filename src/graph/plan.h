/* What every pass of a step reads and writes, where that lies, and the running itself. */
#ifndef EK_GRAPH_PLAN_H
#define EK_GRAPH_PLAN_H

#include "graph/arena.h"
#include "graph/lengths.h"
#include "graph/net.h"

/* A buffer: its index in ek_steps.buffer, -1 for none. */
typedef int ek_place;

/* A value as it is read: the numbers in `x`, through a batchnorm (NULL: none) and an activation. */
typedef struct ek_reading {
    ek_place x;
    ek_node *norm;
    ek_activation f;
    float slope;
} ek_reading;

/* A gradient as it is written, for ek_grad_out. */
typedef struct ek_writing {
    ek_place g, addend;
    ek_reading value;
    ek_place y;
    bool sums; /* those of value.norm are taken */
} ek_writing;

/* One node's pass, forward or backward, for ek_flow. */
typedef struct ek_step {
    ek_node *node;
    ek_reading x[EK_MAX_INPUTS];
    ek_place y, v;
    ek_node *norm; /* forward: the batchnorm that it gives the moments of y to */
    ek_activation f;
    float slope;
    /* Backward: dy is dx of the batchnorm dy_norm (NULL: it is dy itself) from dy, its output's gradient, and dy_x. */
    ek_place dy, dy_x;
    ek_node *dy_norm;
    ek_writing dx[EK_MAX_INPUTS];
    ek_node *norm_dx;
    bool has_moments, has_sums;
    /* What op->writes lacks is done in a pass over what the op wrote plainly, here. */
    ek_place plain[EK_MAX_INPUTS];
} ek_step;

/* The passes of a step in their order. */
typedef struct ek_steps {
    ek_step *forward, *backward;
    int forward_steps, backward_steps;
    ek_buffer *buffer;
    int buffers;
    size_t floats; /* of the arena */
    ek_place input, logits, output, output_grad, scratch;
    ek_place *value;     /* by node: where its output is kept; NONE (-1): nowhere */
    ek_place *workspace; /* by node */
    size_t scratch_each; /* floats */
} ek_steps;

/* Those of a net for `samples`; training: backward too. */
EK_MUST_CHECK ek_status ek_steps_create(const ek_net *net, int64_t samples, bool training, ek_steps *out);
void ek_steps_free(ek_steps *steps);

/* What a run of up to `capacity` samples needs. */
struct ek_plan {
    int64_t capacity; /* samples */
    bool training;    /* backward is there */
    ek_pass pass;     /* of the last forward pass */
    ek_lengths lengths; /* where the net has lengths */
    ek_steps steps;
    float *arena;
    float *input, *logits, *output, *output_grad; /* output_grad NULL: nothing is trained */
    ek_flow *forward, *backward;                  /* by step */
    struct ek_oracle
        *oracle; /* of a reference context; reads and writes input, logits, output and output_grad */
};

/* Bytes of the arena for `samples`. */
EK_MUST_CHECK ek_status ek_plan_bytes(const ek_net *net, int64_t samples, bool training, size_t *bytes);
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
/* A node's output, plain: all samples, and, as floats, samples [first, first + n). */
const double *ek_oracle_values(const ek_oracle *oracle, const ek_node *node);
void ek_oracle_value(const ek_oracle *oracle, const ek_node *node, int64_t first, int64_t n, float *out);
/* One element of it in the first `live` samples of a block. */
void ek_oracle_row(const ek_oracle *oracle, const ek_node *node, int64_t block, int64_t element, int live, float *out);
/* Moments of the output's n samples by channel, in two passes. */
void ek_oracle_moments(const ek_oracle *oracle, const ek_node *node, int64_t n, const int32_t *length, ek_moments *out);

#endif
