/* A walk over a value, number by number in its order, beside others whose numbers stand elsewhere for it: broadcast, or with
 * their dimensions in another order. Numbers here are those of a sample; in lane blocks each is a lane row. */
#ifndef EK_OPS_WALK_H
#define EK_OPS_WALK_H

#include "core/shape.h"

/* How far it is, in another value, from one number to the next along each dimension of the walked one. */
typedef struct ek_strides {
    int64_t step[EK_MAX_VALUE_RANK];
} ek_strides;

/* It goes by runs: along one, the walked value's numbers follow each other, and the others' are `step` apart. */
typedef struct ek_walk {
    int64_t run, step[2];
    int64_t here, there[2]; /* where the run begins, in the walked value and in the others */
    int64_t dim[EK_MAX_VALUE_RANK], at[EK_MAX_VALUE_RANK]; /* dimensions that are walked as one are joined */
    ek_strides other[2];
} ek_walk;

/* Of a value of this shape itself; where it has 1 and `as` has not, it is broadcast: 0. */
ek_strides ek_strides_of(ek_shape shape, ek_shape as);

/* Beside one other value, or two. At the first run. */
ek_walk ek_walk_begin(ek_shape shape, ek_strides first, ek_strides second);
/* On to the next run; false: that was the last. */
bool ek_walk_next(ek_walk *walk);

#endif
