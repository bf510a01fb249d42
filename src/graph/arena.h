/* Where buffers lie that live for a part of a step: those that do not live together may share their place. */
#ifndef EK_GRAPH_ARENA_H
#define EK_GRAPH_ARENA_H

#include "core/status.h"

#include <stddef.h>

typedef struct ek_buffer {
    size_t floats; /* whole lane rows; 0: not wanted */
    int from, to;  /* the first and the last moment at which it is used */
    size_t offset; /* floats from the arena's start */
} ek_buffer;

/* Gives every buffer its offset; *floats: the arena's size. The largest are placed first, each as low as it fits. */
EK_MUST_CHECK ek_status ek_arena_lay_out(ek_buffer *buffer, int count, size_t *floats);

#endif
