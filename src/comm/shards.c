#include "comm/shards.h"

#include "core/clock.h"
#include "core/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct ek_shards {
    ek_comm *comm;
    int local, threads;
    pthread_t *thread; /* of shards 1 and on */
    struct shard_thread *argument;
    int started;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* All under the lock. */
    ek_shard_work run; /* the present work */
    void *run_argument;
    uint64_t work; /* its number */
    int working;   /* shards that have not done it */
    bool ends;
    int computing; /* shards that are not waiting: no more than threads */
    int arrived;   /* at the present meeting */
    uint64_t meeting;
    ek_status failed;
    char message[512];

    /* A merge: each leaves its numbers, shard 0 the result, of which all have a copy before they meet for the next. */
    double **data;
    double *result; /* [capacity] */
    int64_t capacity;
    double seconds; /* of shard 0 */
};

struct shard_thread {
    ek_shards *shards;
    int index;
};

static void *work_on(void *argument);

ek_status ek_shards_create(ek_comm *comm, int local, int threads, ek_shards **out)
{
    if (ek_comm_ranks(comm) > 1 && (local & (local - 1)))
        return ek_fail(EK_E_ARGUMENT,
                       "%d shards on %d ranks are %d for each, which is no power of two: results would depend on the number of "
                       "ranks",
                       local * ek_comm_ranks(comm), ek_comm_ranks(comm), local);
    ek_shards *s;
    EK_TRY(EK_NEW(s, 1));
    ek_status status = EK_OK;
    s->comm = comm;
    s->local = local;
    s->threads = threads;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    EK_GO(EK_NEW(s->thread, (size_t)local));
    EK_GO(EK_NEW(s->argument, (size_t)local));
    EK_GO(EK_NEW(s->data, (size_t)local));
    for (int i = 1; i < local; i++) {
        s->argument[i] = (struct shard_thread){s, i};
        if (pthread_create(&s->thread[i], NULL, work_on, &s->argument[i]))
            EK_GO(ek_fail(EK_E_MEMORY, "no thread can be had for shard %d of %d", i, local));
        s->started = i;
    }
done:
    if (status == EK_OK)
        *out = s;
    else
        ek_shards_destroy(s);
    return status;
}

void ek_shards_destroy(ek_shards *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->ends = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    for (int i = 1; i <= s->started; i++) pthread_join(s->thread[i], NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    ek_free(s->result);
    ek_free(s->data);
    ek_free(s->argument);
    ek_free(s->thread);
    ek_free(s);
}

/* --- computing and waiting; under the lock */

static void begin_computing(ek_shards *s)
{
    while (s->computing >= s->threads) pthread_cond_wait(&s->changed, &s->lock);
    s->computing++;
}

static void end_computing(ek_shards *s)
{
    s->computing--;
    pthread_cond_broadcast(&s->changed);
}

static void fail(ek_shards *s, ek_status status)
{
    if (s->failed != EK_OK) return;
    s->failed = status;
    snprintf(s->message, sizeof s->message, "%s", ek_error());
    pthread_cond_broadcast(&s->changed);
}

/* Waits with its place among those that compute given away. */
static void meet(ek_shards *s)
{
    uint64_t meeting = s->meeting;
    if (s->failed != EK_OK) return;
    if (++s->arrived == s->local) {
        s->arrived = 0;
        s->meeting++;
        pthread_cond_broadcast(&s->changed);
        return;
    }
    end_computing(s);
    while (s->meeting == meeting && s->failed == EK_OK) pthread_cond_wait(&s->changed, &s->lock);
    begin_computing(s);
}

/* --- work */

static void run_one(ek_shards *s, int index)
{
    ek_shard_work run = s->run;
    void *argument = s->run_argument;
    begin_computing(s);
    pthread_mutex_unlock(&s->lock);
    ek_status status = run(argument, index);
    pthread_mutex_lock(&s->lock);
    if (status != EK_OK) fail(s, status);
    s->working--;
    end_computing(s);
}

static void *work_on(void *argument)
{
    const struct shard_thread *self = argument;
    ek_shards *s = self->shards;
    uint64_t done = 0;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->ends && s->work == done) pthread_cond_wait(&s->changed, &s->lock);
        if (s->ends) break;
        done = s->work;
        run_one(s, self->index);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

ek_status ek_shards_run(ek_shards *s, ek_shard_work run, void *argument)
{
    pthread_mutex_lock(&s->lock);
    s->run = run;
    s->run_argument = argument;
    s->working = s->local;
    s->arrived = 0;
    s->failed = EK_OK;
    s->work++;
    pthread_cond_broadcast(&s->changed);
    run_one(s, 0);
    while (s->working > 0) pthread_cond_wait(&s->changed, &s->lock);
    ek_status status = s->failed;
    pthread_mutex_unlock(&s->lock);
    return status == EK_OK ? EK_OK : ek_fail(status, "%s", s->message);
}

bool ek_shards_failed(ek_shards *s)
{
    pthread_mutex_lock(&s->lock);
    bool failed = s->failed != EK_OK;
    pthread_mutex_unlock(&s->lock);
    return failed;
}

void ek_shard_meet(const ek_shard *shard)
{
    ek_shards *s = shard->of;
    double began = ek_now();
    if (s->local == 1) return;
    pthread_mutex_lock(&s->lock);
    meet(s);
    pthread_mutex_unlock(&s->lock);
    if (shard->index == 0) s->seconds += ek_now() - began;
}

double ek_shards_meeting_seconds(ek_shards *s)
{
    double seconds = s->seconds;
    s->seconds = 0;
    return seconds;
}

/* --- merging */

static ek_status make_room(ek_shards *s, int64_t count)
{
    if (count <= s->capacity) return EK_OK;
    ek_free(s->result);
    s->capacity = 0;
    EK_TRY(EK_NEW(s->result, (size_t)count));
    s->capacity = count;
    return EK_OK;
}

/* By shard 0, while the others wait. */
static ek_status merge_all(ek_shards *s, int64_t count, ek_merge merge)
{
    EK_TRY(make_room(s, count));
    for (int gap = 1; gap < s->local; gap *= 2)
        for (int i = 0; i + gap < s->local; i += 2 * gap) merge(s->data[i], s->data[i + gap], count);
    if (s->comm) EK_TRY(ek_comm_merge(s->comm, s->data[0], count, merge));
    memcpy(s->result, s->data[0], (size_t)count * sizeof(double));
    return EK_OK;
}

static void merge_alone(ek_shards *s, double *data, int64_t count, ek_merge merge)
{
    if (!s->comm || ek_shards_failed(s)) return;
    ek_status status = ek_comm_merge(s->comm, data, count, merge);
    if (status == EK_OK) return;
    pthread_mutex_lock(&s->lock);
    fail(s, status);
    pthread_mutex_unlock(&s->lock);
}

static void merge_together(const ek_shard *shard, double *data, int64_t count, ek_merge merge)
{
    ek_shards *s = shard->of;
    pthread_mutex_lock(&s->lock);
    s->data[shard->index] = data;
    meet(s);
    if (shard->index == 0 && s->failed == EK_OK) {
        pthread_mutex_unlock(&s->lock);
        ek_status status = merge_all(s, count, merge);
        pthread_mutex_lock(&s->lock);
        if (status != EK_OK) fail(s, status);
    }
    meet(s);
    const double *result = s->failed == EK_OK ? s->result : NULL;
    pthread_mutex_unlock(&s->lock);
    if (result && shard->index) memcpy(data, result, (size_t)count * sizeof *data);
}

void ek_shard_merge(const ek_shard *shard, double *data, int64_t count, ek_merge merge)
{
    double began = ek_now();
    if (shard->of->local == 1)
        merge_alone(shard->of, data, count, merge);
    else
        merge_together(shard, data, count, merge);
    if (shard->index == 0) shard->of->seconds += ek_now() - began;
}
