/* Operators that treat every number alike: their work is cut into chunks of one size. */
#ifndef EK_OPS_ELEMENTWISE_H
#define EK_OPS_ELEMENTWISE_H

#include "ops/op.h"

#define EK_CHUNK 16384

static inline int64_t ek_chunks(int64_t count) { return (count + EK_CHUNK - 1) / EK_CHUNK; }
static inline int64_t ek_chunk_size(int64_t count, int64_t chunk)
{
    int64_t left = count - chunk * EK_CHUNK;
    return left < EK_CHUNK ? left : EK_CHUNK;
}

/* The output has the input's shape. */
static inline ek_status ek_same_shape(ek_node *node)
{
    node->out = node->in[0];
    return EK_OK;
}

#endif
