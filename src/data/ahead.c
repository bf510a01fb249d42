#include "data/ahead.h"

#include "core/memory.h"

#include <pthread.h>

/* A batch being read, or read. Its items are handed out to the threads in order, a piece at a time. */
typedef struct slot {
    int64_t number; /* of the batch; -1: none yet */
    const int64_t *index;
    int64_t n, next, left; /* items; handed out so far; not yet read */
    unsigned char *items;
} slot;

struct ek_ahead {
    ek_ahead_plan plan;
    slot *slot; /* batch `number` is in slot number % depth */
    unsigned char *items, *scratch;
    pthread_mutex_t lock;
    pthread_cond_t work, ready; /* there is something to read; a batch is complete */
    int64_t taken;              /* the batch in use: those up to taken + depth - 1 may be read */
    int64_t opened;             /* the next batch to be given a slot */
    ek_failure failure;         /* the first; its place is of all items in the order of the batches */
    bool at_end, stop;
    pthread_t *thread;
    struct reader *reader;
    int started;
};

typedef struct reader {
    ek_ahead *ahead;
    int number;
} reader;

static slot *slot_of(ek_ahead *a, int64_t number) { return &a->slot[number % a->plan.depth]; }

/* The next batch is given its slot, if there is one and it may be read already. */
static bool open_next(ek_ahead *a)
{
    if (a->at_end || a->opened >= a->taken + a->plan.depth) return false;
    slot *s = slot_of(a, a->opened);
    if (s->left > s->n - s->next) return false; /* a thread still reads for a batch that was passed over */
    const int64_t *index;
    int64_t n;
    if (!a->plan.batch(a->plan.user, a->opened, &index, &n)) {
        a->at_end = true;
        pthread_cond_broadcast(&a->ready);
        return false;
    }
    *s = (slot){.number = a->opened++, .index = index, .n = n, .left = n, .items = s->items};
    if (n == 0) pthread_cond_broadcast(&a->ready);
    return true;
}

/* The first batch with items that nobody reads yet; NULL: all that there is room for are being read. After a failure
 * nothing more is read: all that comes before what failed has been handed out. */
static slot *find_work(ek_ahead *a)
{
    if (a->failure.status != EK_OK) return NULL;
    do {
        for (int64_t number = a->taken; number < a->opened; number++) {
            slot *s = slot_of(a, number);
            if (s->number == number && s->next < s->n) return s;
        }
    } while (open_next(a));
    return NULL;
}

static void read_piece(ek_ahead *a, slot *s, unsigned char *scratch)
{
    const ek_stored *stored = a->plan.dataset->stored;
    int64_t first = s->next, most = ek_stored_piece(stored), n = s->n - first < most ? s->n - first : most;
    const int64_t *index = s->index + first;
    unsigned char *out = s->items + (size_t)first * ek_stored_item_bytes(stored);
    s->next += n;
    pthread_mutex_unlock(&a->lock);
    ek_status status = ek_dataset_read(a->plan.dataset, index, n, out, scratch);
    pthread_mutex_lock(&a->lock);
    s->left -= n;
    if (status != EK_OK) {
        ek_failure_note(&a->failure, status, s->number * a->plan.largest + first);
        s->left -= s->n - s->next; /* no longer wanted */
        s->next = s->n;
    }
    if (s->left == 0 || status != EK_OK) pthread_cond_broadcast(&a->ready);
}

static void *reader_main(void *argument)
{
    reader *self = argument;
    ek_ahead *a = self->ahead;
    unsigned char *scratch = ek_scratch_of(a->plan.dataset->stored, a->scratch, self->number);
    pthread_mutex_lock(&a->lock);
    while (!a->stop) {
        slot *s = find_work(a);
        if (s)
            read_piece(a, s, scratch);
        else
            pthread_cond_wait(&a->work, &a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Not all that were asked for need come: one is enough. */
static ek_status start_threads(ek_ahead *a)
{
    enum { STACK = 1 << 20 };
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    for (int i = 0; i < a->plan.threads; i++) {
        a->reader[i] = (reader){a, i};
        if (pthread_create(&a->thread[i], &attributes, reader_main, &a->reader[i]) != 0) break;
        a->started = i + 1;
    }
    pthread_attr_destroy(&attributes);
    return a->started ? EK_OK : ek_fail(EK_E_MEMORY, "the system gives no thread to read data with");
}

ek_status ek_ahead_start(const ek_ahead_plan *plan, ek_ahead **out)
{
    ek_ahead *a;
    EK_TRY(EK_NEW(a, 1));
    const ek_stored *stored = plan->dataset->stored;
    size_t bytes = (size_t)plan->largest * ek_stored_item_bytes(stored);
    ek_status status = EK_OK;
    a->plan = *plan;
    a->taken = a->opened = plan->first;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->work, NULL);
    pthread_cond_init(&a->ready, NULL);
    EK_GO(EK_NEW(a->slot, (size_t)plan->depth));
    EK_GO(EK_NEW(a->thread, (size_t)plan->threads));
    EK_GO(EK_NEW(a->reader, (size_t)plan->threads));
    EK_GO(EK_NEW(a->items, (size_t)plan->depth * bytes));
    EK_GO(ek_scratch_create(stored, plan->threads, &a->scratch));
    for (int i = 0; i < plan->depth; i++)
        a->slot[i] = (slot){.number = -1, .items = a->items + (size_t)i * bytes};
    EK_GO(start_threads(a));
    *out = a;
    a = NULL;
done:
    ek_ahead_stop(a);
    return status;
}

ek_status ek_ahead_take(ek_ahead *a, int64_t number, const unsigned char **items)
{
    slot *s = slot_of(a, number);
    ek_failure *failure = &a->failure;
    int64_t begin = number * a->plan.largest, end = begin + a->plan.largest;
    pthread_mutex_lock(&a->lock);
    if (number > a->taken) {
        a->taken = number;
        if (a->opened < number) a->opened = number;
        pthread_cond_broadcast(&a->work);
    }
    while (!(s->number == number && s->left == 0) && !(failure->status != EK_OK && failure->at < begin))
        pthread_cond_wait(&a->ready, &a->lock);
    ek_status status = failure->at < end ? ek_failure_tell(failure) : EK_OK;
    *items = s->items;
    pthread_mutex_unlock(&a->lock);
    return status;
}

void ek_ahead_stop(ek_ahead *a)
{
    if (!a) return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->work);
    pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < a->started; i++) pthread_join(a->thread[i], NULL);
    pthread_cond_destroy(&a->work);
    pthread_cond_destroy(&a->ready);
    pthread_mutex_destroy(&a->lock);
    ek_free(a->scratch);
    ek_free(a->items);
    ek_free(a->reader);
    ek_free(a->thread);
    ek_free(a->slot);
    ek_free(a);
}
