/* A pool of threads for work cut into pieces. How it is cut depends on the problem alone, never on the
 * number of threads, and each piece writes its own output: so the result has the same bits for any
 * number of threads. */
#ifndef EK_CORE_THREADS_H
#define EK_CORE_THREADS_H

#include "core/status.h"

typedef struct ek_pool ek_pool;

/* `thread` is 0 to threads-1: which scratch memory the piece may use. */
typedef void (*ek_piece)(void *argument, int64_t piece, int thread);

/* threads includes the caller, which works too. */
ek_status ek_pool_create(int threads, ek_pool **out);
void ek_pool_destroy(ek_pool *pool);
int ek_pool_threads(const ek_pool *pool);

/* Runs pieces 0 to pieces-1 in any order and returns when all are done. Not reentrant. */
void ek_pool_run(ek_pool *pool, int64_t pieces, ek_piece run, void *argument);

/* The cores that this process may use. */
int ek_cores(void);

#endif
