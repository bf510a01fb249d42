/* Bare weights of another framework: which layers a file of them has, and in what order their numbers lie. The public
 * function, which puts them into a net, is in foreign.c. */
#ifndef EK_FORMATS_FOREIGN_H
#define EK_FORMATS_FOREIGN_H

#include "formats/safetensors.h"
#include "graph/net.h"

/* --- the layers of a file (foreign_names.c) */

/* What a tensor is to its layer, told by the last part of its name. */
typedef enum ek_slot {
    EK_SLOT_WEIGHT, /* kernel, weight, gamma, scale, alpha */
    EK_SLOT_BIAS,   /* bias, beta */
    EK_SLOT_MEAN,
    EK_SLOT_VAR,
    EK_SLOT_COUNTER,
    EK_SLOTS,
} ek_slot;

typedef struct ek_source {
    char *
        path; /* "block/conv2d": its tensors' names without prefixes of collections and without their last part */
    int64_t order;                        /* a number in front of the names; -1: none */
    const ek_st_tensor *tensor[EK_SLOTS]; /* NULL: none */
    bool depthwise, transposed;           /* its name says so */
    bool taken;
} ek_source;

typedef struct ek_sources {
    ek_source
        *source; /* in the order of their numbers, else of their names with numbers in them as numbers */
    int count;
    bool colons; /* names end in ":0", as TensorFlow's variables do */
} ek_sources;

/* Borrows from the file. EK_E_FORMAT: a tensor is nothing that a layer has, or a layer has it twice. */
ek_status ek_sources_read(const ek_safetensors *file, ek_framework from, ek_sources *out);
void ek_sources_free(ek_sources *sources);

/* The order of two paths; *numbered: it is numbers that tell them apart, not letters. */
int ek_path_order(const char *a, const char *b, bool *numbered);

/* --- the order of numbers (foreign_layout.c) */

typedef enum ek_layout {
    EK_LAYOUT_SAME,
    EK_LAYOUT_SWAPPED, /* [spatial..., b, a] to [a, b, spatial...]: kernels of Keras and Flax */
    EK_LAYOUT_FLIPPED, /* [spatial..., a, b] to [a, b, spatial...], each spatial axis turned round: Flax's transposed */
    EK_LAYOUT_CHANNELS_LAST, /* [spatial..., c] to [c, spatial...] */
} ek_layout;

/* How a tensor of these dimensions can be this parameter. False: it cannot; *wanted (may be NULL): what it should be. */
bool ek_layout_find(ek_framework from, const ek_node *node, const ek_param *param, const ek_st_tensor *tensor,
                    ek_layout *layout, ek_shape *wanted);
/* What was done, for people: "HWIO to OIHW"; "" where nothing was. */
const char *ek_layout_text(const ek_node *node, const ek_param *param, ek_layout layout, bool features);

/* Where the features that `node` reads stand here, by where they stand in a framework with channels last: a map that was
 * flattened has its channels fastest there. *map [features] (ek_free) stays NULL where nothing moves. */
ek_status ek_layout_features(const ek_graph *graph, const ek_node *node, int64_t **map);

/* `in` and `out` do not overlap. map: of the parameter's features (linear: of its second dimension), NULL: none. */
void ek_layout_convert(ek_layout layout, ek_shape shape, const int64_t *map, const float *in, float *out);

#endif
