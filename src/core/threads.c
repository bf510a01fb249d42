#include "core/threads.h"

#include "core/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>

/* The pieces are dealt in equal runs, one a thread, and a thread that has done its own takes from the others'.
 * So each thread mostly meets the same part of a batch from operator to operator, in its own cache, and one that
 * is slow or not running delays no more than the piece it is in. */
typedef struct share {
    _Alignas(EK_ALIGN) atomic_int_fast64_t next;
    int64_t end;
} share;

/* One job at a time. Workers enter and leave it through the gate, a word that changes as a whole:
 *
 *   bits 0-15   workers inside
 *   OPEN        more may enter
 *   AWAITED     the caller sleeps until the last one leaves
 *   STOP        the pool ends
 *   above       number of the job
 *
 * Once the gate is shut and nobody is inside, the job is the caller's to replace; a worker that wakes late finds
 * the gate shut, and nobody waits for it. */
enum { INSIDE = 0xffff, OPEN = 1 << 16, AWAITED = 1 << 17, STOP = 1 << 18, JOB = 1 << 19 };

struct ek_pool {
    int threads, shares;
    bool crowded; /* more threads than cores */
    pthread_t *worker;
    struct worker_argument *argument;
    int started;

    ek_piece run; /* the present job, with its argument and shares */
    void *run_argument;
    share *share;
    uint64_t job;

    _Alignas(EK_ALIGN) atomic_uint_fast64_t gate;
    _Alignas(EK_ALIGN) atomic_int sleepers; /* workers that need a wake; changed under the lock */
    pthread_mutex_t lock;                   /* for sleeping alone */
    pthread_cond_t wake, left;
};

struct worker_argument {
    ek_pool *pool;
    int thread;
    uint64_t seen, wary_until; /* jobs */
    long losses;               /* of its core, so far */
};

/* How often to look for what is about to happen before sleeping: at first for some 5 microseconds, which spans most
 * gaps. A worker then goes on to some 60, since waking takes about half of that, but not when another process
 * wants its core: looking would use up its share, and it would lose the core inside a piece. With more threads
 * than cores each look lets another thread run. */
enum { LOOKS = 300, MORE_LOOKS = 4000, YIELDS = 50 };
/* For how many jobs a worker that has lost its core is wary. */
enum { WARY_JOBS = 1000 };

static void relax(const ek_pool *pool)
{
    if (pool->crowded) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* --- workers */

static void take_pieces(ek_pool *pool, int thread)
{
    for (int i = 0; i < pool->shares; i++) {
        share *s = &pool->share[(thread + i) % pool->shares];
        while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
            int64_t piece = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (piece < s->end) pool->run(pool->run_argument, piece, thread);
        }
    }
}

static bool calls(uint64_t gate, uint64_t seen) { return gate & STOP || (gate & OPEN && gate / JOB != seen); }

/* Whether the system took the core away lately; asked only by a worker that has nothing to do. */
static bool wary(struct worker_argument *self)
{
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0 && usage.ru_nivcsw != self->losses) {
        self->losses = usage.ru_nivcsw;
        self->wary_until = self->seen + WARY_JOBS;
    }
    return self->seen < self->wary_until;
}

/* The gate when it calls the worker to a job that it has not seen. */
static uint64_t await_call(struct worker_argument *self)
{
    ek_pool *pool = self->pool;
    uint64_t before = 0, gate = atomic_load(&pool->gate);
    for (int i = 0; i < (pool->crowded ? YIELDS : MORE_LOOKS) && !calls(gate, self->seen); i++) {
        if (i == LOOKS && wary(self)) break;
        if (gate / JOB != before / JOB) i = 0; /* jobs too short to enter are a sign of more */
        before = gate;
        relax(pool);
        gate = atomic_load(&pool->gate);
    }
    if (calls(gate, self->seen)) return gate;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1); /* then looks; the caller opens the gate and then looks for sleepers */
    while (!calls(gate = atomic_load(&pool->gate), self->seen)) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return gate;
}

static void leave(ek_pool *pool)
{
    uint64_t gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if (!(gate & AWAITED) || gate & INSIDE) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->left);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument)
{
    struct worker_argument *self = argument;
    ek_pool *pool = self->pool;
    for (;;) {
        uint64_t gate = await_call(self);
        if (gate & STOP) return NULL;
        if (!atomic_compare_exchange_strong(&pool->gate, &gate, gate + 1)) continue;
        self->seen = gate / JOB;
        take_pieces(pool, self->thread);
        leave(pool);
    }
}

/* --- the caller */

static void wake_sleepers(ek_pool *pool)
{
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void open_gate(ek_pool *pool, int64_t pieces, ek_piece run, void *argument)
{
    pool->run = run;
    pool->run_argument = argument;
    pool->shares = pieces < pool->threads ? (int)pieces : pool->threads;
    int64_t each = pieces / pool->shares, more = pieces % pool->shares, next = 0;
    for (int i = 0; i < pool->shares; i++) {
        atomic_store_explicit(&pool->share[i].next, next, memory_order_relaxed);
        next += each + (i < more);
        pool->share[i].end = next;
    }
    atomic_store(&pool->gate, ++pool->job * JOB | OPEN);
    wake_sleepers(pool);
}

/* Returns when those inside have left. Sleeping is more than saving power: a worker that lost its core to another
 * process can have the caller's. */
static void shut_gate(ek_pool *pool)
{
    uint64_t gate = atomic_fetch_and(&pool->gate, ~(uint64_t)OPEN);
    for (int i = 0; i < (pool->crowded ? YIELDS : LOOKS) && gate & INSIDE; i++) {
        relax(pool);
        gate = atomic_load(&pool->gate);
    }
    if (!(gate & INSIDE)) return;
    atomic_fetch_or(&pool->gate, AWAITED);
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->gate) & INSIDE) pthread_cond_wait(&pool->left, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void ek_pool_run(ek_pool *pool, int64_t pieces, ek_piece run, void *argument)
{
    if (pieces <= 1 || pool->threads == 1) {
        for (int64_t i = 0; i < pieces; i++) run(argument, i, 0);
        return;
    }
    open_gate(pool, pieces, run, argument);
    take_pieces(pool, 0);
    shut_gate(pool);
}

/* --- its life */

ek_status ek_pool_create(int threads, ek_pool **out)
{
    ek_pool *pool;
    EK_TRY(EK_NEW(pool, 1));
    pool->threads = threads;
    pool->crowded = threads > ek_cores();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->left, NULL);
    ek_status status = EK_OK;
    EK_GO(EK_NEW(pool->worker, (size_t)threads));
    EK_GO(EK_NEW(pool->argument, (size_t)threads));
    EK_GO(EK_NEW(pool->share, (size_t)threads));
    for (int i = 1; i < threads; i++) {
        pool->argument[i] = (struct worker_argument){.pool = pool, .thread = i};
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
    atomic_fetch_or(&pool->gate, STOP);
    wake_sleepers(pool);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->worker[i], NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    ek_free(pool->share);
    ek_free(pool->argument);
    ek_free(pool->worker);
    ek_free(pool);
}

int ek_pool_threads(const ek_pool *pool) { return pool->threads; }

int ek_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}
