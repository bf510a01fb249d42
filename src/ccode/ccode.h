/* A net as C source: one file with its header, for products.
 *
 * save.c is the public function; plan.c says where values lie; emit.c has texts, names, numbers and the shared functions
 * (parts/); layers.c has a row for each operator; quantize.c makes numbers of eight bits, layers8.c and run8.c write and run
 * them; selftest.c writes the program that checks the source. */
#ifndef EK_CCODE_CCODE_H
#define EK_CCODE_CCODE_H

#include "graph/arena.h"
#include "graph/net.h"

/* --- where values lie. The unit of memory is a word of four bytes. */

typedef enum cc_where { CC_MEMORY, CC_IN, CC_OUT } cc_where;

/* A place that values of one chain of layers share, each written over the one before. */
typedef struct cc_space {
    cc_where where;
    size_t words;
    int from, to; /* the first and last layer that use it */
    size_t offset;
} cc_space;

typedef struct cc_plan {
    const ek_graph *graph;
    bool int8;
    int *root;       /* by node: the one in whose place its numbers lie */
    int *space;      /* by root: index into spaces */
    cc_space *spaces;
    size_t *scratch; /* by node: offset of what it needs beside its values */
    int space_count;
    size_t words; /* of the memory */
} cc_plan;

/* What a row of layers.c says to the plan: whether the output may be written over input 0, over either, or not at all. */
typedef enum cc_over { CC_APART, CC_OVER_FIRST, CC_OVER_EITHER } cc_over;

ek_status cc_plan_create(const ek_graph *graph, bool int8, cc_plan *out);
void cc_plan_free(cc_plan *plan);
/* A layer that has nothing to run in inference. */
bool cc_is_alias(const ek_node *node);
/* Whether the input's numbers are to be normalized. */
bool cc_has_pixels(const ek_node *input);

/* --- the text */

#define CC_NAME_MAX 64
#define CC_PARTS_MAX 64

typedef struct cc_writer {
    const cc_plan *plan;
    const char *name; /* prefix of all that is visible */
    ek_text arrays, functions, body;
    const char *used[CC_PARTS_MAX]; /* shared functions that are already there */
    int used_count;
    struct cc_shape_of_function { /* functions made for a shape: see cc_once */
        char name[CC_NAME_MAX];
    } *made;
    int made_count;
    char (*names)[CC_NAME_MAX]; /* by node */
    int64_t weight_bytes;
} cc_writer;

ek_status cc_writer_begin(const cc_plan *plan, const char *name, cc_writer *w);
void cc_writer_free(cc_writer *w);

/* A shared function of parts/, with those that it calls. */
void cc_use(cc_writer *w, const char *part);
/* False where a function of this name was already asked for. */
bool cc_once(cc_writer *w, const char *name);
/* A number as C has it, which reads back the same: "0.1f". Returns `buffer`. */
const char *cc_float(float value, char buffer[EK_REAL_TEXT]);
/* The array "static const float NODE_what[count]", number i being at(data, i). */
typedef double (*cc_at)(const void *data, int64_t i);
void cc_array(cc_writer *w, const char *type, const ek_node *node, const char *what, int64_t count, cc_at at, const void *data);
void cc_floats(cc_writer *w, const ek_node *node, const char *what, int64_t count, const float *data);
/* What a text is in a C string, without the quotes. */
void cc_string(ek_text *out, const char *text);
/* Pointers to a node's value and to its scratch, as expressions of C. */
#define CC_PLACE_MAX 48
const char *cc_place(const cc_writer *w, int node, char buffer[CC_PLACE_MAX]);
const char *cc_scratch(const cc_writer *w, int node, char buffer[CC_PLACE_MAX]);
bool cc_same_place(const cc_plan *plan, int a, int b);

/* --- layers */

typedef struct cc_layer {
    const char *op;
    cc_over over;
    /* Writes the call, its arrays and what it calls. */
    void (*emit)(cc_writer *w, const ek_node *node);
    size_t (*scratch)(const ek_node *node); /* words; NULL: none */
} cc_layer;

const cc_layer *cc_layer_of(const ek_node *node);
/* All operators of the graph have a row and can be written; else names all that cannot. */
ek_status cc_layers_check(const ek_graph *graph);
/* What its row says, but for a pool with padding, which reads behind where it writes. */
cc_over cc_over_of(const ek_node *node);

/* A number of an option; fallback where the operator has none such, or it was not given. */
double cc_option(const ek_node *node, const char *name, int d, double fallback);

/* Convolutions and pools alike; a sequence is a map of one row. */
typedef struct cc_window {
    int ci, hi, wi, co, ho, wo, kh, kw, stride_h, stride_w, pad_h, pad_w, end_h, end_w, dilation_h, dilation_w, groups;
    bool padded; /* some tap lies outside */
} cc_window;
cc_window cc_window_of(const ek_node *node);

#endif
