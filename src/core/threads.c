#include "core/threads.h"

#include "core/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

/* One job at a time. A job is replaced only when no worker is inside one, so a worker that wakes late
 * finds either the new job or no piece left of the old. */
typedef struct work {
    ek_piece run;
    void *argument;
    int64_t pieces;
} work;

struct ek_pool {
    int threads;
    pthread_t *worker;
    struct worker_argument *argument;
    int started;

    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    work job;            /* written under the lock, while no piece is under way */
    uint64_t generation; /* under the lock */
    int active;          /* workers inside the present job; under the lock */
    bool stop;           /* under the lock */

    atomic_int_fast64_t next;       /* piece of the present job */
    atomic_uint_fast64_t announced; /* generation, for workers that spin before they sleep */
};

struct worker_argument {
    ek_pool *pool;
    int thread;
};

/* About 20 microseconds: the gap between two operators of a step; sleeping and waking costs more. */
enum { SPINS = 4000 };

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void take_pieces(ek_pool *pool, const work *job, int thread)
{
    for (;;) {
        int64_t piece = atomic_fetch_add(&pool->next, 1);
        if (piece >= job->pieces) return;
        job->run(job->argument, piece, thread);
    }
}

static void *worker_main(void *argument)
{
    struct worker_argument *self = argument;
    ek_pool *pool = self->pool;
    uint64_t seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool->announced) == seen; i++) relax();
        pthread_mutex_lock(&pool->lock);
        while (pool->generation == seen && !pool->stop) pthread_cond_wait(&pool->wake, &pool->lock);
        if (pool->stop) {
            pthread_mutex_unlock(&pool->lock);
            return NULL;
        }
        seen = pool->generation;
        work job = pool->job;
        pool->active++;
        pthread_mutex_unlock(&pool->lock);

        take_pieces(pool, &job, self->thread);

        pthread_mutex_lock(&pool->lock);
        if (--pool->active == 0) pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

ek_status ek_pool_create(int threads, ek_pool **out)
{
    ek_pool *pool;
    EK_TRY(EK_NEW(pool, 1));
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    ek_status status = EK_OK;
    EK_GO(EK_NEW(pool->worker, (size_t)threads));
    EK_GO(EK_NEW(pool->argument, (size_t)threads));
    for (int i = 1; i < threads; i++) {
        pool->argument[i] = (struct worker_argument){pool, i};
        if (pthread_create(&pool->worker[i], NULL, worker_main, &pool->argument[i]) != 0) {
            status = ek_fail(EK_E_MEMORY, "the system gives no thread %d of %d; ask for fewer threads", i + 1,
                             threads);
            goto done;
        }
        pool->started = i;
    }
done:
    if (status == EK_OK)
        *out = pool;
    else
        ek_pool_destroy(pool);
    return status;
}

void ek_pool_destroy(ek_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    atomic_fetch_add(&pool->announced, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->worker[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    ek_free(pool->argument);
    ek_free(pool->worker);
    ek_free(pool);
}

int ek_pool_threads(const ek_pool *pool) { return pool->threads; }

void ek_pool_run(ek_pool *pool, int64_t pieces, ek_piece run, void *argument)
{
    if (pieces <= 1 || pool->threads == 1) {
        for (int64_t i = 0; i < pieces; i++) run(argument, i, 0);
        return;
    }
    work job = {run, argument, pieces};
    pthread_mutex_lock(&pool->lock);
    /* A worker that woke late for the job before may still be finding that it has no piece left. */
    while (pool->active > 0) pthread_cond_wait(&pool->done, &pool->lock);
    pool->job = job;
    atomic_store(&pool->next, 0);
    pool->generation++;
    atomic_store(&pool->announced, pool->generation);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);

    take_pieces(pool, &job, 0);

    /* Workers that have not joined by now find no piece; those inside must end theirs. */
    pthread_mutex_lock(&pool->lock);
    while (pool->active > 0) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

int ek_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}
