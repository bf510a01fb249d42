#include "core/shape.h"

#include <stdio.h>
#include <string.h>

const char *ek_shape_text(ek_shape shape, char buffer[EK_SHAPE_TEXT])
{
    if (shape.rank == 0) return strcpy(buffer, "number");
    size_t used = 0;
    for (int i = 0; i < shape.rank; i++) {
        used += (size_t)snprintf(buffer + used, EK_SHAPE_TEXT - used, i ? "x%lld" : "%lld",
                                 (long long)shape.dim[i]);
    }
    return buffer;
}

bool ek_shape_equal(ek_shape a, ek_shape b)
{
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++) {
        if (a.dim[i] != b.dim[i]) return false;
    }
    return true;
}

int64_t ek_shape_count(ek_shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
    return count;
}
