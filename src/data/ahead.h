/* Reading ahead: threads that read the items of the batches to come, so that a step need not wait for them. */
#ifndef EK_DATA_AHEAD_H
#define EK_DATA_AHEAD_H

#include "data/stored.h"

typedef struct ek_ahead ek_ahead;

typedef struct ek_ahead_plan {
    const ek_dataset *dataset; /* with stored items */
    /* What batch `number` wants: *n items at *index; false: there is no such batch. Any thread, under a lock. */
    bool (*batch)(const void *user, int64_t number, const int64_t **index, int64_t *n);
    const void *user;
    int64_t first;   /* number of the first batch */
    int64_t largest; /* items */
    int threads;
    int depth; /* batches that there is room for, with the one in use: 2 or more */
} ek_ahead_plan;

ek_status ek_ahead_start(const ek_ahead_plan *plan, ek_ahead **out);
/* The items of batch `number`, one behind the other, in the plan's order and with the same bits however many threads read
 * them; valid until a later batch is taken. Numbers do not fall. The first item that cannot be read is told here. */
ek_status ek_ahead_take(ek_ahead *ahead, int64_t number, const unsigned char **items);
void ek_ahead_stop(ek_ahead *ahead); /* NULL: nothing */

#endif
