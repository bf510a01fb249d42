/* Items that are not kept in memory: they are read from where they lie whenever they are wanted. */
#ifndef EK_DATA_STORED_H
#define EK_DATA_STORED_H

#include "core/threads.h"
#include "data/dataset.h"
#include "formats/array_file.h"

typedef struct ek_stored ek_stored;

/* The head of each kind. */
struct ek_stored {
    char *name;     /* in front of messages; NULL: they name a file */
    bool bytes;     /* items are bytes; else floats */
    int64_t item;   /* numbers of one */
    size_t scratch; /* bytes that a thread that reads needs */
    int64_t most;   /* items that are read in one go; 0: EK_PIECE_ITEMS */
    /* Items index[0] to index[n-1], n up to EK_PIECE_ITEMS, one after the other. Several threads at a time, each with
     * scratch of its own. */
    ek_status (*read)(const ek_stored *stored, const int64_t *index, int64_t n, void *out,
                      unsigned char *scratch);
    void (*close)(ek_stored *stored); /* what is the kind's own */
};
enum { EK_PIECE_ITEMS = 64 };

void ek_stored_destroy(ek_stored *stored);
size_t ek_stored_item_bytes(const ek_stored *stored);
/* How many items are read in one go: what is worth a call, and little enough to share out. */
int64_t ek_stored_piece(const ek_stored *stored);

/* The items of an array in its file, which is taken over. */
ek_status ek_stored_array(ek_array_file *file, const char *name, int64_t item, ek_stored **out);
/* The rows of a table in its file, all columns but the last. *rows is taken over, and NULL after it. */
ek_status ek_stored_rows(ek_table_rows **rows, const char *name, int64_t item, ek_stored **out);

/* How many bytes of items a set may keep in memory: $EVENKEEL_DATA_MEMORY, or a quarter of the process's memory. */
ek_status ek_data_memory(size_t *bytes);

/* --- of a data set that has stored items */

/* stored->read, and a check that floats which count are finite. */
ek_status ek_dataset_read(const ek_dataset *dataset, const int64_t *index, int64_t n, void *out,
                          unsigned char *scratch);
/* Any number of items, by a pool's threads; index NULL: the first n. scratch: for each thread (ek_scratch_create). Of
 * several failures the first one's in the order of the items is told. */
ek_status ek_dataset_gather(const ek_dataset *dataset, ek_pool *pool, const int64_t *index, int64_t n,
                            void *out, unsigned char *scratch);
ek_status ek_scratch_create(const ek_stored *stored, int threads, unsigned char **out);
unsigned char *ek_scratch_of(const ek_stored *stored, unsigned char *scratch, int thread);
/* Reads all of it into memory where that is little enough (ek_data_memory). */
ek_status ek_dataset_keep(ek_dataset *dataset);

/* The first of several failures of threads; ek_error() is each thread's own. */
typedef struct ek_failure {
    ek_status status;
    int64_t at;
    char text[1024];
} ek_failure;
void ek_failure_note(ek_failure *failure, ek_status status, int64_t at); /* under a lock; EK_OK is nothing */
ek_status ek_failure_tell(const ek_failure *failure);

#endif
