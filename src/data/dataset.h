#ifndef EK_DATA_DATASET_H
#define EK_DATA_DATASET_H

#include "core/status.h"
#include "graph/net.h"

struct ek_dataset {
    int64_t count;
    ek_shape shape;           /* features, an image, or a sequence with a length */
    int64_t item;             /* numbers of one item */
    int classes;              /* highest label + 1, or the number of names */
    int32_t *label;           /* NULL: none */
    int32_t *length;          /* of sequences [c, l]: how many positions of an item are alive; NULL: all */
    unsigned char *bytes;     /* either bytes, which count as value/255, ... */
    float *floats;            /* ... or floats ... */
    struct ek_stored *stored; /* ... or neither: items are read when they are wanted (stored.h) */
    char **class_name;        /* NULL: none */
};

/* The data fits the net: shapes (a rank-1 net input takes images of as many numbers, and the reverse; a sequence CxL
 * is what an image 1xCxL is) and number of classes. Both sides are in the message. */
ek_status ek_dataset_check(const ek_dataset *dataset, const ek_net *net);

#endif
