#include "graph/arena.h"

#include "core/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Largest first; then in their order, so that the layout never depends on the sort. */
static int by_size(const void *a, const void *b)
{
    const ek_buffer *const *x = a, *const *y = b;
    if ((*x)->floats != (*y)->floats) return (*x)->floats < (*y)->floats ? 1 : -1;
    return *x < *y ? -1 : 1;
}

static bool together(const ek_buffer *a, const ek_buffer *b) { return a->from <= b->to && b->from <= a->to; }

/* The lowest place where it meets none of those that live at the same time; `placed` stand in the order of their offsets. */
static size_t lowest(const ek_buffer *buffer, ek_buffer *const *placed, int count)
{
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (!together(buffer, placed[i])) continue;
        if (at + buffer->floats <= placed[i]->offset) break;
        size_t end = placed[i]->offset + placed[i]->floats;
        if (end > at) at = end;
    }
    return at;
}

static void insert(ek_buffer *buffer, ek_buffer **placed, int count)
{
    int i = count;
    while (i > 0 && placed[i - 1]->offset > buffer->offset) i--;
    memmove(placed + i + 1, placed + i, (size_t)(count - i) * sizeof *placed);
    placed[i] = buffer;
}

ek_status ek_arena_lay_out(ek_buffer *buffer, int count, size_t *floats)
{
    ek_buffer **order, **placed;
    EK_TRY(EK_NEW(order, 2 * (size_t)count + 1));
    placed = order + count;
    int wanted = 0;
    for (int i = 0; i < count; i++) {
        if (buffer[i].floats) order[wanted++] = &buffer[i];
    }
    qsort(order, (size_t)wanted, sizeof *order, by_size);
    *floats = 0;
    for (int i = 0; i < wanted; i++) {
        order[i]->offset = lowest(order[i], placed, i);
        if (order[i]->offset + order[i]->floats > *floats) *floats = order[i]->offset + order[i]->floats;
        insert(order[i], placed, i);
    }
    ek_free(order);
    return EK_OK;
}
