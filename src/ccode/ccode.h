/* A net as C source: one file with its header, for products.
 *
 * save.c is the public function; plan.c says where values lie; emit.c has texts, names, numbers and the shared functions
 * (parts/); layers.c has a row for each operator; conv.c writes convolutions. Of eight bits quantize.c makes the
 * numbers, int8.c writes and runs them, and measure.c says what they lose. source.c puts the files together, and selftest.c
 * writes the program that checks the source. */
#ifndef EK_CCODE_CCODE_H
#define EK_CCODE_CCODE_H

#include "graph/net.h"

/* --- where values lie. The unit of memory is a word of four bytes. */

typedef enum ek_cc_where { EK_CC_MEMORY, EK_CC_IN, EK_CC_OUT } ek_cc_where;

/* A place that values of one chain of layers share, each written over the one before. */
typedef struct ek_cc_space {
    ek_cc_where where;
    size_t words; /* of the largest */
    size_t offset;
} ek_cc_space;

typedef struct ek_cc_plan {
    const ek_graph *graph;
    bool int8;
    int *root;       /* by node: the one in whose place its numbers lie */
    int *last;       /* by root: the last layer that reads it */
    int *space;      /* by root: index into spaces */
    ek_cc_space *spaces;
    size_t *scratch; /* by node: offset of what it needs beside its values */
    int space_count;
    size_t words; /* of the memory */
} ek_cc_plan;

/* What a row of layers.c says to the plan: whether the output may be written over input 0, over either, or not at all. */
typedef enum ek_cc_over { EK_CC_APART, EK_CC_OVER_FIRST, EK_CC_OVER_EITHER } ek_cc_over;

/* absorbed, by node: layers that the one before them computes too; NULL: floats, else numbers of eight bits. */
ek_status ek_cc_plan_create(const ek_graph *graph, const bool *absorbed, ek_cc_plan *out);
void ek_cc_plan_free(ek_cc_plan *plan);
/* A layer that has nothing to run in inference. */
bool ek_cc_is_alias(const ek_node *node);
/* Whether the input's numbers are to be normalized. */
bool ek_cc_has_pixels(const ek_node *input);

/* --- the text */

#define EK_CC_NAME_MAX 64
#define EK_CC_PARTS_MAX 64
#define EK_CC_FUNCTIONS_MAX 2 /* that a layer has made for it: affine multiplies and adds */

typedef struct ek_cc_writer {
    const ek_cc_plan *plan;
    const char *name; /* prefix of all that is visible */
    char upper[EK_CC_NAME_MAX]; /* that of its macros */
    ek_text arrays, functions, body;
    const char *used[EK_CC_PARTS_MAX]; /* shared functions that are already there */
    int used_count;
    char (*made)[EK_CC_NAME_MAX]; /* functions that only this net has: see ek_cc_once */
    int made_count;
    char (*names)[EK_CC_NAME_MAX]; /* by node */
    int64_t weight_bytes;
} ek_cc_writer;

ek_status ek_cc_writer_begin(const ek_cc_plan *plan, const char *name, ek_cc_writer *w);
void ek_cc_writer_free(ek_cc_writer *w);

/* A shared function of parts/, with those that it calls. */
void ek_cc_use(ek_cc_writer *w, const char *part);
/* False where a function of this name was already asked for. */
bool ek_cc_once(ek_cc_writer *w, const char *name);
/* A number as C has it, which reads back the same: "0.1f". Returns `buffer`. */
const char *ek_cc_float(float value, char buffer[EK_REAL_TEXT]);
/* The array "static const float NODE_what[count]", number i being at(data, i). */
typedef double (*ek_cc_at)(const void *data, int64_t i);
void ek_cc_array(ek_cc_writer *w, const char *type, const ek_node *node, const char *what, int64_t count, ek_cc_at at, const void *data);
void ek_cc_bytes(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const int8_t *data);
void ek_cc_words(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const int32_t *data);
void ek_cc_floats(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const float *data);
/* What a text is in a C string, without the quotes. */
void ek_cc_string(ek_text *out, const char *text);
/* Pointers to a node's value and to its scratch, as expressions of C. */
#define EK_CC_PLACE_MAX 48
const char *ek_cc_place(const ek_cc_writer *w, int node, char buffer[EK_CC_PLACE_MAX]);
const char *ek_cc_scratch(const ek_cc_writer *w, int node, char buffer[EK_CC_PLACE_MAX]);
bool ek_cc_same_place(const ek_cc_plan *plan, int a, int b);

/* --- layers */

typedef struct ek_cc_layer {
    const char *op;
    ek_cc_over over;
    /* Writes the call, its arrays and what it calls. */
    void (*emit)(ek_cc_writer *w, const ek_node *node);
    size_t (*scratch)(const ek_node *node); /* words; NULL: none */
} ek_cc_layer;

const ek_cc_layer *ek_cc_layer_of(const ek_node *node);
/* All operators of the graph have a row and can be written; else names all that cannot. */
ek_status ek_cc_layers_check(const ek_graph *graph);
/* What its row says, but for a pool with padding, which reads behind where it writes, and for sums of eight bits. */
ek_cc_over ek_cc_over_of(const ek_node *node, bool int8);

/* A number of an option; fallback where the operator has none such, or it was not given. */
double ek_cc_option(const ek_node *node, const char *name, int d, double fallback);

/* What lies before, along and behind the dimension that the option axis names. */
typedef struct ek_cc_axis {
    int outer, count, step;
} ek_cc_axis;
ek_cc_axis ek_cc_axis_of(const ek_node *node);

/* Convolutions and pools alike; a sequence is a map of one row. */
typedef struct ek_cc_window {
    int ci, hi, wi, co, ho, wo, kh, kw, stride_h, stride_w, pad_h, pad_w, end_h, end_w, dilation_h, dilation_w, groups;
    bool padded; /* some tap lies outside */
} ek_cc_window;
ek_cc_window ek_cc_window_of(const ek_node *node);

#endif
