/*
 * The contract between operators and the rest. An operator is one file in this folder: its options, the
 * shape it gives, its parameters, its passes over the lane layout, and its reference in double.
 * registry.c lists them; nothing else knows their number.
 */
#ifndef EK_OPS_OP_H
#define EK_OPS_OP_H

#include "comm/shards.h"
#include "core/shape.h"
#include "kernels/context.h"
#include "kernels/kernels.h"

#define EK_LABEL_MAX 64
#define EK_MAX_INPUTS 2
#define EK_MAX_ATTRS 12
#define EK_MAX_PARAMS 5

/* --- options of a layer, as written in a net text */
typedef enum ek_attr_type {
    EK_ATTR_COUNT, /* a whole number: v[0] */
    EK_ATTR_PAIR,  /* K or HxW: v[0] height, v[1] width */
    EK_ATTR_REAL,  /* v[0]; also "none" where allow_none: NaN */
    EK_ATTR_BOOL,  /* true or false: v[0] */
    EK_ATTR_LIST,  /* reals with commas between: v[0..n-1] */
    EK_ATTR_SHAPE, /* 784 or 1x28x28: v[0..n-1] */
} ek_attr_type;

typedef struct ek_attr_spec {
    const char *name; /* "kernel" */
    ek_attr_type type;
    bool positional; /* stands right after the operator, without its name */
    bool required;
    bool allow_none;
    double fallback;  /* what an absent option means (both of a pair) */
    double min, max;  /* allowed range of each number */
    const char *help; /* one line */
} ek_attr_spec;

typedef struct ek_attr {
    int n; /* numbers */
    bool given;
    double v[EK_MAX_VALUE_RANK];
} ek_attr;

/* --- parameters */
typedef struct ek_param {
    char name[EK_LABEL_MAX + 24]; /* "net.1.weight" */
    ek_role role;
    ek_shape shape; /* PyTorch's */
    int64_t count;
    int64_t fan_in, fan_out; /* for initialization of weights and biases */
    float start;             /* what a weight begins with that is not drawn; 0: it is */
    float *data;
    float *grad;     /* NULL: not trained */
    int64_t counter; /* EK_ROLE_COUNTER */
    bool redundant;  /* a bias that the next normalization cancels: data stays zero, grad is NULL */
} ek_param;

/* Which pass computes a node (src/graph/fuse.c decides). */
typedef enum ek_fusion {
    EK_ALONE,       /* its own */
    EK_BY_READERS,  /* those of its readers, as they read its input: batchnorm, activations */
    EK_BY_PRODUCER, /* that of its input, as it writes: batchnorm and activation of a linear, activation of an add */
} ek_fusion;

/* What a batchnorm takes from all parts of a batch that is run in parts (src/train/parts.c) or cut into shards
 * (src/train/shards.c), by channel. */
typedef enum ek_stage {
    EK_STAGE_NOTHING,    /* a part's own statistics, which are of no use */
    EK_STAGE_MOMENTS,    /* moments are being gathered */
    EK_STAGE_NORMALIZES, /* they are those of the whole batch */
    EK_STAGE_SUMS,       /* and the sums of the backward pass are being gathered */
    EK_STAGE_ALL,        /* both are those of the whole batch */
} ek_stage;

typedef struct ek_gather {
    ek_stage stage;
    int64_t samples; /* of the whole batch */
    ek_moments *moments;
    double *sums;          /* [2][channel] */
    const ek_shard *shard; /* a shard takes both from all shards, as it passes; NULL: the parts follow one another */
} ek_gather;

/* --- nodes. Values lie in lane blocks: [block][channel][h][w][lane], [block][feature][lane]. */
typedef struct ek_node {
    const struct ek_op *op;
    char label[EK_LABEL_MAX]; /* "" where none was given and none was needed */
    int id;                   /* its index; inputs have smaller ones */
    int input_count;
    int input[EK_MAX_INPUTS];
    int consumers;
    ek_attr attr[EK_MAX_ATTRS]; /* in the order of op->attrs */
    ek_shape in[EK_MAX_INPUTS], out;
    int param_count;
    ek_param param[EK_MAX_PARAMS];
    int line, column; /* of its operator in the net text, from 1 */
    bool has_lengths; /* where the input is sequences of unequal lengths, so is its output (src/graph/lengths.h) */
    bool trained;     /* something trained lies at or above it: it needs a gradient */
    ek_fusion fusion;
    ek_gather *gather; /* NULL: a pass has its whole batch */

    /* Made by the plan for a number of samples; see ek_op.workspace. */
    float *workspace;
} ek_node;

/* Whether its two inputs differ in shape: then its passes are given bare arrays and write plainly, whatever its operator
 * can do otherwise. */
static inline bool ek_broadcasts(const ek_node *node)
{
    return node->input_count == 2 && !ek_shape_equal(node->in[0], node->in[1]);
}

/* Floats of one lane block of a value, and of a channel (or feature) of it. */
static inline int64_t ek_block_floats(ek_shape shape) { return ek_shape_count(shape) * EK_LANES; }
static inline int64_t ek_channel_floats(ek_shape shape) { return ek_block_floats(shape) / shape.dim[0]; }

/* Floats of one value for `samples`. */
static inline int64_t ek_value_floats(ek_shape shape, int64_t samples)
{
    return ek_block_floats(shape) * ek_blocks(samples);
}

/* What a pass is given. */
typedef struct ek_pass {
    ek_context *context;
    const ek_kernels *kernels; /* for this pass */
    int64_t n;                 /* samples */
    int64_t first;             /* where they begin in the batch that they are a part of */
    bool training;
    uint64_t seed, step; /* dropout */
    float *scratch;      /* shared by all operators, one part for each thread */
    size_t scratch_each; /* floats of a thread's part */
    /* A batch of sequences of unequal lengths, by node: how many positions of its output are alive, of each sample
     * (dead lanes: 0); NULL: it is no sequence. The others hold 0, and so does their gradient; whoever runs the nodes
     * sees to it (src/graph/lengths.h). NULL: all positions of all samples are alive. */
    const int32_t *const *length;
} ek_pass;

/* Of the node's input, from the lane block's first sample on; NULL: all are alive. */
static inline const int32_t *ek_block_length(const ek_pass *pass, const ek_node *node, int64_t block)
{
    const int32_t *of = pass->length ? pass->length[node->input[0]] : NULL;
    return of ? of + block * EK_LANES : NULL;
}

/* Of all samples. */
static inline const int32_t *ek_input_length(const int32_t *const *length, const ek_node *node)
{
    return length ? length[node->input[0]] : NULL;
}

static inline float *ek_scratch(const ek_pass *pass, int thread)
{
    return pass->scratch + pass->scratch_each * (size_t)thread;
}

/* What a node reads and writes in a pass; all pointers are to the first lane block. */
typedef struct ek_flow {
    ek_map_in x[EK_MAX_INPUTS]; /* the inputs, as they are to be read */
    float *y;                   /* the output; NULL: it is not stored (EK_BY_READERS) */
    /* By the producer of a batchnorm's input (op->gives_moments): the moments of y go to it. */
    ek_node *norm;
    /* What else the producer computes (EK_BY_PRODUCER). add: y = f(sum). linear: v = f(norm of y). */
    ek_activation f;
    float slope;
    float *v;

    /* Backward. */
    ek_grad_in dy;
    ek_grad_out dx[EK_MAX_INPUTS]; /* g NULL: not wanted. Sums are [block][2][channel] */
    ek_node *norm_dx;              /* linear: the batchnorm whose gradient it finishes, in dx[0].g */
    /* batchnorm: the producer has taken the moments of x, the readers the sums of dy */
    bool has_moments, has_sums;
} ek_flow;

/* The same for one block. `floats`: ek_block_floats of the value, `channels`: its channels. */
ek_map_in ek_map_block(const ek_pass *pass, const ek_map_in *m, int64_t block, int64_t floats);
ek_grad_in ek_grad_in_block(const ek_pass *pass, const ek_grad_in *d, int64_t block, int64_t floats);
ek_grad_out ek_grad_out_block(const ek_pass *pass, const ek_grad_out *o, int64_t block, int64_t floats, int64_t channels);
/* The same for channels `first` and on, of `length` floats each, of the first block. `channels`: of the value. */
ek_map_in ek_map_channels(ek_map_in m, int64_t first, int64_t length);
ek_grad_in ek_grad_in_channels(ek_grad_in d, int64_t first, int64_t length);
ek_grad_out ek_grad_out_channels(const ek_grad_out *o, int64_t first, int64_t length, int64_t channels);
/* Moments of a value's block x, by channel; length: that of its sequences, by lane, NULL: there are none. */
void ek_block_moments(const ek_pass *pass, ek_shape shape, const int32_t *length, int64_t block, const float *x,
                      ek_moments *out);
/* What it asks for beside g = dv. */
unsigned ek_grad_out_asks(const ek_grad_out *o);

/* The oracle's view: plain arrays in double, [n, c, h, w] or [n, f]. */
typedef struct ek_ref {
    int64_t n;
    bool training;
    uint64_t seed, step;
    double *param[EK_MAX_PARAMS]; /* this node's; NULL for counters and redundant biases */
    double *grad[EK_MAX_PARAMS];  /* += into; NULL: not wanted */
    double *kept;                 /* op->reference_kept doubles, from forward to backward and commit */
    const int32_t *const *length; /* as in ek_pass */
} ek_ref;

/* Parts of an ek_grad_out, for op->writes. */
enum { EK_WRITES_SUMS = 1, EK_WRITES_ACTIVATION = 2, EK_WRITES_ADDEND = 4, EK_WRITES_ALL = 7 };

typedef struct ek_op {
    const char *name;
    int inputs;                           /* 0 (the input: no passes, its batch is put in place), 1 or 2 */
    ek_attr_spec attrs[EK_MAX_ATTRS + 1]; /* ended by a NULL name */

    /* From node->in and node->attr to node->out; says what does not meet ("... expects 3 channels, input
     * has 1"; the caller puts the place in front). */
    ek_status (*shape)(ek_node *node);
    /* Fills node->param (role, shape, fans, names after the label); NULL: none. */
    void (*params)(ek_node *node);
    /* Floats that the node keeps for itself from forward to backward, and that any thread needs as
     * scratch, for `samples`; NULL: none. */
    size_t (*workspace)(const ek_node *node, int64_t samples, bool training);
    size_t (*scratch)(const ek_node *node, int64_t samples);
    int64_t (*multiply_adds)(const ek_node *node); /* NULL: counted as 0 */
    /* Of a sample of a batch of sequences: how many positions of its output are alive where `in` of its input's are;
     * cut to what there is, and at least 1. NULL: as many. */
    int64_t (*length)(const ek_node *node, int64_t in);
    /* Of a sequence: whether its positions go elsewhere, so that its length says nothing of the output. NULL: they stay. */
    bool (*moves_positions)(const ek_node *node);

    /* What can be refused only when the batch is known (one value a channel); NULL: nothing. */
    ek_status (*check)(const ek_pass *pass, const ek_node *node);
    /* From flow.x to flow.y. Both NULL: the output is the input under another shape. */
    void (*forward)(const ek_pass *pass, ek_node *node, const ek_flow *flow);
    /* From flow.dy to flow.dx and to param[].grad (overwritten). */
    void (*backward)(const ek_pass *pass, ek_node *node, const ek_flow *flow);
    bool any_rank; /* takes values of four dimensions too, not only features, sequences and maps */
    /* What its passes can do; a value that is no bare stored array is given to none that cannot, nor to a node that
     * broadcasts. */
    bool reads_maps;      /* reads any ek_map_in */
    bool reads_gradients; /* reads any ek_grad_in */
    unsigned writes;      /* what of an ek_grad_out it does; without, g = dv */
    bool gives_moments;   /* takes the moments of y for flow.norm */
    bool activates;       /* an activation: y = f(x), number by number */
    bool normalizes;      /* a normalization: what it read is kept for ek_net_norm_input */
    /* Whether a constant that is added to a channel of its input changes nothing, so that a bias before it is redundant;
     * NULL: it does not. */
    bool (*cancels_bias)(const ek_node *node);
    /* After a step whose loss was finite: running statistics. NULL: nothing to do. */
    void (*commit)(const ek_pass *pass, ek_node *node);

    int64_t (*reference_kept)(const ek_node *node); /* NULL: 0 */
    void (*reference_forward)(const ek_ref *ref, const ek_node *node, const double *const x[], double *y);
    /* dx[i] is added to. */
    void (*reference_backward)(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[]);
    void (*reference_commit)(const ek_ref *ref, ek_node *node);
} ek_op;

const ek_op *ek_op_find(const char *name);
const ek_op *ek_op_at(int index); /* NULL past the end */
/* Index of an option by its name, -1 if there is none. */
int ek_op_attr(const ek_op *op, const char *name);

/* Index of an option in op->attrs (its node->attr), for the op's own enum. */
static inline int64_t ek_attr_int(const ek_node *node, int index) { return (int64_t)node->attr[index].v[0]; }
static inline double ek_attr_real(const ek_node *node, int index) { return node->attr[index].v[0]; }
/* Of two options for both ends of axis `d`: that for its end, which is as that for its beginning where it is not given. */
static inline int64_t ek_attr_end(const ek_node *node, int begin, int end, int d)
{
    double given = node->attr[end].v[d];
    return (int64_t)(given < 0 ? node->attr[begin].v[d] : given);
}
#define EK_AS_BEGIN (-1) /* the fallback of the option for the end */
static inline bool ek_attr_bool(const ek_node *node, int index) { return node->attr[index].v[0] != 0; }

/* Adds a parameter "LABEL.suffix". */
ek_param *ek_node_add_param(ek_node *node, ek_role role, const char *suffix, ek_shape shape);
/* Adds "LABEL.weight" of this shape, and "LABEL.bias" of so many `biases` (0: none). */
void ek_node_add_weights(ek_node *node, ek_shape shape, int64_t fan_in, int64_t fan_out, int64_t biases);
/* The node's parameter of a role; NULL when it has none. */
ek_param *ek_node_param(ek_node *node, ek_role role);
/* That parameter's numbers, and of ek_ref.param or ek_ref.grad the array that is its; NULL when it has none. */
float *ek_node_data(ek_node *node, ek_role role);
double *ek_reference_of(double *const *arrays, const ek_node *node, ek_role role);
/* Its bias, unless it has none or a normalization cancels it. */
ek_param *ek_node_live_bias(ek_node *node);

/* For passes over nodes: whether the node is a batchnorm, its conventions, and whether it is one with one mean and variance
 * a channel, that its neighbours may compute: not one of ghost batches. */
bool ek_is_batchnorm(const ek_node *node);
ek_batch_norm_options ek_batchnorm_options(const ek_node *node);
bool ek_is_channel_norm(const ek_node *node);
/* Whether the node is an activation, and which; EK_IDENTITY if not. */
bool ek_is_activation(const ek_node *node, ek_activation *kind, float *slope);
/* Whether an activation's derivative can be told from what it gives. */
static inline bool ek_told_by_output(ek_activation f)
{
    return f == EK_IDENTITY || f == EK_RELU || f == EK_SIGMOID || f == EK_TANH;
}

/* The input's normalization; one entry, or one a channel. */
typedef struct ek_pixels {
    int channels; /* 1 to EK_MAX_VALUE_RANK, as many as an option has numbers */
    double mean[EK_MAX_VALUE_RANK], std[EK_MAX_VALUE_RANK];
} ek_pixels;
ek_pixels ek_input_pixels(const ek_node *node);
/* What a number of the data becomes: (x - mean)/std of its channel, in double, rounded once. */
static inline float ek_pixel(const ek_pixels *pixels, int64_t channel, float x)
{
    return (float)(((double)x - pixels->mean[channel]) / pixels->std[channel]);
}

#endif
