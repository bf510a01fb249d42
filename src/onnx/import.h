/* The importer, within: what operators are given, and how they answer.
 *
 * Values of an ONNX graph are arrays with the batch as their first dimension; those of a net have shapes of a sample. So a
 * value here is a layer of the net to come with the shape that a sample has of it in ONNX's view, or a constant. Where the
 * batch cannot be told apart (import->lead 0), a sample is the whole array. */
#ifndef EK_ONNX_IMPORT_H
#define EK_ONNX_IMPORT_H

#include "graph/builder.h"
#include "onnx/model.h"
#include "onnx/onnx.h"

/* The batch, where a Shape gives it as a number among others: it can be moved, not computed with. */
#define ONNX_BATCH ((int64_t)-0x45766e6b65656c42)

typedef struct onnx_constant {
    const char *name; /* of its initializer or value */
    int type, rank;
    int64_t dim[ONNX_MAX_RANK];
    int64_t count;
    const onnx_tensor *tensor; /* where its numbers are until someone asks for them; NULL: below */
    float *real;               /* of a real type */
    int64_t *whole;            /* of the others, and ONNX_BATCH */
    int takers;                /* layers that have a copy of it */
    int layer;                 /* the layer that gives it, where one was asked for; 0: none */
} onnx_constant;

/* A layer's value, and what of it is in ONNX's view a sample. */
typedef struct onnx_layer {
    int index;
    ek_shape shape; /* rank 0 where the layer has one number */
} onnx_layer;

/* scale * layer + shift, which is still to be made a layer: constants that follow each other become one. */
typedef struct onnx_affine {
    const char *label;
    ek_shape shape;        /* of the layer's rank, each dimension its or 1 */
    double *scale, *shift; /* NULL: none */
} onnx_affine;

typedef enum onnx_kind { ONNX_UNKNOWN, ONNX_LAYER, ONNX_CONSTANT } onnx_kind;

typedef struct onnx_value {
    onnx_kind kind; /* UNKNOWN: it comes from what cannot be read */
    onnx_layer layer;
    onnx_affine affine; /* before what follows */
    int64_t
        pad[4]; /* zeros around the map, still to be made a layer: above, left, below, right; of a sequence
                               before and behind in 0 and 2 */
    onnx_constant *constant;
    int readers; /* inputs of needed nodes, and the output of the graph */
    int reader;  /* one of them, the only one where there is one; -1: the graph */
} onnx_value;

typedef struct onnx_import {
    ek_context *context;
    onnx_model *model;
    const ek_onnx_options *options;
    onnx_memory memory;
    ek_builder builder;
    onnx_value *value; /* [model->value_count] */
    bool *done;        /* by node: an earlier one took it over */
    int lead;          /* 1: the first dimension is the batch; 0: there is none */
    int64_t batch;     /* its size in the file, -1: open */
    int64_t room;      /* numbers that constants may still grow by */
    int batch_problems, problems;
    ek_text problem; /* what cannot be read, with "; " between */
    ek_status worst;
    struct onnx_problem *list;
    const char **note;
    int note_count, note_room;
    ek_text in_training; /* the batch normalizations that were exported so */
} onnx_import;

typedef ek_status (*onnx_translator)(onnx_import *im, const onnx_node *node);
/* NULL: there is none. */
onnx_translator ek_onnx_operator(const char *op);

/* --- what a node is given */

/* Its name, or else its first output's. */
const char *ek_onnx_shown_name(const onnx_model *model, const onnx_node *node);
/* The value of an input; NULL: it is left out. */
onnx_value *ek_onnx_input(onnx_import *im, const onnx_node *node, int k);
/* An input that must be there, as a layer. Affine maps and zeros around it become layers, a constant too. */
ek_status ek_onnx_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out);
/* The same for operators that only move numbers: in ONNX's view a sample may have EK_MAX_RANK dimensions, one more than a
 * layer's value. */
ek_status ek_onnx_moved_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out);
/* A constant as a layer of this shape, which has as many numbers. */
ek_status ek_onnx_constant_layer(onnx_import *im, const onnx_node *node, onnx_constant *c, ek_shape shape,
                                 onnx_layer *out);
/* The same, with zeros around it left to the caller: pad[4] as in onnx_value. */
ek_status ek_onnx_padded_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out,
                               int64_t pad[4]);
/* An input that must be constant. *out NULL where it is left out and `needed` is false. `what` names it in errors. */
ek_status ek_onnx_constant_input(onnx_import *im, const onnx_node *node, int k, bool needed, const char *what,
                                 onnx_constant **out);
ek_status ek_onnx_get_int(const onnx_node *node, const char *name, int64_t fallback, int64_t *out);
/* The double that its author wrote: 0.1f is the float nearest to 0.1, and 0.1 is the shortest text that leads to it. */
double ek_onnx_as_written(float f);
ek_status ek_onnx_get_float(const onnx_node *node, const char *name, double fallback,
                            double *out); /* 0.1f is 0.1 */
ek_status ek_onnx_get_text(const onnx_node *node, const char *name, const char *fallback, const char **out);
/* *ints NULL, *count 0: it is left out. */
ek_status ek_onnx_get_ints(const onnx_node *node, const char *name, const int64_t **ints, int *count);
/* A list that is an attribute up to an opset and an input from the next on. *there: whether it is given at all. */
ek_status ek_onnx_axes(onnx_import *im, const onnx_node *node, int64_t input_since,
                       int64_t axes[ONNX_MAX_RANK], int *count, bool *there);
/* A sample's axis from one of an array with `rank` dimensions, which may count from its end.
 * -1 for the batch, where that is allowed, else a batch problem. */
ek_status ek_onnx_axis(onnx_import *im, int64_t axis, int rank, bool batch_allowed, int *out);

/* --- constants (constants.c) */

/* Its numbers are there: real or whole. */
ek_status ek_onnx_load(onnx_import *im, onnx_constant *constant);
/* Its numbers as floats, [count], straight from the file where they still are there. */
ek_status ek_onnx_copy(onnx_import *im, onnx_constant *constant, float *out);
static inline double ek_onnx_number(const onnx_constant *c, int64_t i)
{
    return c->real ? (double)c->real[i] : (double)c->whole[i];
}
/* Small files must not become large ones: what is made of their constants, beside the layers, is counted. */
ek_status ek_onnx_take_room(onnx_import *im, int64_t count);
ek_status ek_onnx_new_constant(onnx_import *im, int type, int rank, const int64_t *dim, onnx_constant **out);
/* Whether the operator is one that is computed here where all that it reads is constant; if so, does it. */
bool ek_onnx_folds(const char *op);
ek_status ek_onnx_fold(onnx_import *im, const onnx_node *node);

/* --- what it answers */

void ek_onnx_give_constant(onnx_import *im, const onnx_node *node, onnx_constant *constant);
/* Output 0 is this layer, or this one with an affine map (NULL: none) and zeros (NULL: none) around it. */
void ek_onnx_give(onnx_import *im, const onnx_node *node, onnx_layer layer);
void ek_onnx_give_more(onnx_import *im, const onnx_node *node, onnx_layer layer, const onnx_affine *affine,
                       const int64_t *pad);
/* It is input 0, whatever that is. */
void ek_onnx_pass_on(onnx_import *im, const onnx_node *node);

/* EK_E_UNSUPPORTED, because something would have to happen to the batch. */
__attribute__((format(printf, 2, 3))) ek_status ek_onnx_touches_batch(onnx_import *im, const char *format,
                                                                      ...);
/* Once, however often it is said. */
__attribute__((format(printf, 2, 3))) ek_status ek_onnx_note(onnx_import *im, const char *format, ...);

/* --- layers */

/* A layer on another, or on two. Its value has the shape that the builder finds. weight: what it is to be called after
 * (NULL: the node). */
__attribute__((format(printf, 8, 9))) ek_status ek_onnx_add(onnx_import *im, const onnx_node *node,
                                                            const onnx_constant *weight, const char *op,
                                                            int first, int second, onnx_layer *out,
                                                            const char *options, ...);
/* The same numbers in another shape; nothing where it is that already. */
ek_status ek_onnx_reshape(onnx_import *im, onnx_layer x, ek_shape shape, onnx_layer *out);
/* axis[i]: which dimension of x becomes the i-th. */
ek_status ek_onnx_permute(onnx_import *im, onnx_layer x, const int *axis, onnx_layer *out);
/* What a layer is called after these weights; NULL: their name does not tell. */
const char *ek_onnx_label(onnx_import *im, const onnx_constant *weight);
/* first `op` second, "add" to "div", as layers, broadcast to each other. */
ek_status ek_onnx_binary(onnx_import *im, const onnx_node *node, const char *op, onnx_layer a, onnx_layer b,
                         onnx_layer *y);
/* Output 0 is a `what` c ('+', '-', '*', '/'), or c `what` a where c is the left one: it stays an affine map of a. */
ek_status ek_onnx_give_affine(onnx_import *im, const onnx_node *node, const onnx_value *a, char what,
                              onnx_constant *c, bool left);
/* Any value of channels as a map or sequence: [c, d, h, w] as [c, d*h, w]. */
ek_status ek_onnx_as_map(onnx_import *im, onnx_layer x, onnx_layer *out);
/* Fills a parameter of a layer. EK_E_FORMAT: it has not as many numbers. */
ek_status ek_onnx_fill(onnx_import *im, int layer, ek_role role, onnx_constant *from, const char *what);
/* The affine map that is left of a value becomes a layer, and zeros around it too. */
ek_status ek_onnx_settle(onnx_import *im, onnx_value *value, bool pads);
/* The constant that the only reader of the node's output adds to it, `count` numbers along dimension `axis` of its samples,
 * all others 1; that reader then counts as done. NULL: there is none. */
ek_status ek_onnx_bias_ahead(onnx_import *im, const onnx_node *node, ek_shape out, int axis,
                             onnx_constant **bias);

static inline ek_shape ek_onnx_shape1(int64_t a) { return (ek_shape){.rank = 1, .dim = {a}}; }
static inline ek_shape ek_onnx_shape2(int64_t a, int64_t b) { return (ek_shape){.rank = 2, .dim = {a, b}}; }
static inline ek_shape ek_onnx_shape3(int64_t a, int64_t b, int64_t c)
{
    return (ek_shape){.rank = 3, .dim = {a, b, c}};
}

/* "1x1x28": in options. */
#define ONNX_REAL(value) ek_real_text((value), (char[EK_REAL_TEXT]){0})
#define ONNX_SHAPE(shape) ek_shape_text((shape), (char[EK_SHAPE_TEXT]){0})

/* --- translators, by file */
ek_status ek_onnx_conv(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_conv_transpose(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_pool(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_global_pool(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_reduce_mean(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_pad(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_resize(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_gemm(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_matmul(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_batch_norm(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_instance_norm(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_layer_norm(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_group_norm(onnx_import *im, const onnx_node *node);
/* Of a product of a value with itself: whether it is the beginning of what rmsnorm is written as, which it then becomes. */
ek_status ek_onnx_rms_norm(onnx_import *im, const onnx_node *square, bool *found);
/* Of a mean: whether it is the beginning of a layer normalization that is written out, which it then becomes. */
ek_status ek_onnx_written_layer_norm(onnx_import *im, const onnx_node *mean, bool *found);
/* x normalized over its dimensions from `axis` on, without scale and bias. */
ek_status ek_onnx_normalize_tail(onnx_import *im, const onnx_node *node, onnx_layer x, int axis, double eps, onnx_layer *y);
ek_status ek_onnx_arithmetic(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_sum(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_neg(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_concat(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_activation(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_clip(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_prelu(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_softmax(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_dropout(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_identity(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_cast(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_shape(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_reshape_node(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_flatten(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_transpose(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_squeeze(onnx_import *im, const onnx_node *node);
ek_status ek_onnx_unsqueeze(onnx_import *im, const onnx_node *node);

#endif
