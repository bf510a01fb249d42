/* Shapes: their size, whether they are equal, and as text. */
#ifndef EK_CORE_SHAPE_H
#define EK_CORE_SHAPE_H

#include "core/status.h"

/* Dimensions of a sample's value; arrays have the batch in front. */
#define EK_MAX_VALUE_RANK (EK_MAX_RANK - 1)

/* "1x28x28"; "number" for rank 0. Returns `buffer`, which must hold EK_SHAPE_TEXT. */
#define EK_SHAPE_TEXT 112
const char *ek_shape_text(ek_shape shape, char buffer[EK_SHAPE_TEXT]);
bool ek_shape_equal(ek_shape a, ek_shape b);
int64_t ek_shape_count(ek_shape shape); /* product of the dimensions */

#endif
