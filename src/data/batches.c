#include "data/batches.h"

#include "core/memory.h"
#include "core/random.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* --- which samples, in which order */

ek_status ek_split_indices(int64_t count, double valid_fraction, uint64_t seed, int64_t **train,
                           int64_t *train_count, int64_t **valid, int64_t *valid_count)
{
    if (!(valid_fraction >= 0 && valid_fraction < 1))
        return ek_fail(EK_E_ARGUMENT,
                       "the share held out for validation must be at least 0 and less than 1, not %g",
                       valid_fraction);
    int64_t held = (int64_t)floor((double)count * valid_fraction + 0.5);
    if (valid_fraction > 0 && (held == 0 || held >= count))
        return ek_fail(EK_E_ARGUMENT, "holding out %g of %lld samples leaves nothing to %s", valid_fraction,
                       (long long)count, held == 0 ? "validate on" : "train on");
    ek_status status = EK_OK;
    int64_t *drawn = NULL, *t = NULL, *v = NULL;
    bool *is_valid = NULL;
    EK_GO(EK_NEW(drawn, (size_t)count));
    EK_GO(EK_NEW(is_valid, (size_t)count));
    EK_GO(EK_NEW(t, (size_t)(count - held)));
    EK_GO(EK_NEW(v, (size_t)held));
    for (int64_t i = 0; i < count; i++) drawn[i] = i;
    ek_random random = ek_random_start(seed, EK_STREAM_SPLIT, 0);
    ek_random_shuffle(&random, drawn, count);
    for (int64_t i = 0; i < held; i++) is_valid[drawn[i]] = true;
    int64_t in_train = 0, in_valid = 0;
    for (int64_t i = 0; i < count; i++) {
        if (is_valid[i])
            v[in_valid++] = i;
        else
            t[in_train++] = i;
    }
    *train = t;
    *train_count = in_train;
    *valid = v;
    *valid_count = in_valid;
done:
    ek_free(drawn);
    ek_free(is_valid);
    if (status != EK_OK) {
        ek_free(t);
        ek_free(v);
    }
    return status;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void ek_epoch_order(int64_t *index, int64_t count, uint64_t seed, int64_t epoch, bool shuffle)
{
    if (count < 2) return;
    qsort(index, (size_t)count, sizeof *index, ascending);
    if (!shuffle) return;
    ek_random random = ek_random_start(seed, EK_STREAM_SHUFFLE, (uint32_t)epoch);
    ek_random_shuffle(&random, index, count);
}

int64_t ek_batch_count(int64_t count, int64_t batch, bool drop_last)
{
    int64_t full = count / batch, rest = count % batch;
    bool joined = rest == 1 && full > 0;
    return full + (rest > 0 && !joined && !drop_last);
}

void ek_batch_range(int64_t count, int64_t batch, bool drop_last, int64_t number, int64_t *first,
                    int64_t *size)
{
    bool last = number == ek_batch_count(count, batch, drop_last) - 1;
    *first = number * batch;
    *size = last && !drop_last ? count - *first : batch;
}

int64_t ek_batch_largest(int64_t count, int64_t batch, bool drop_last)
{
    int64_t most = 0, last = ek_batch_count(count, batch, drop_last) - 1;
    for (int64_t number = 0; number <= last; number += last ? last : 1) {
        int64_t first, size;
        ek_batch_range(count, batch, drop_last, number, &first, &size);
        if (size > most) most = size;
    }
    return most;
}

/* --- samples into the net's layout */

/* Bytes have only 256 values, so each channel gets a table of what they become. */
typedef struct scale {
    int64_t plane; /* numbers that share a channel's mean and deviation */
    ek_pixels pixels;
    float of_byte[EK_MAX_RANK][256];
} scale;

static void make_scale(const ek_dataset *dataset, const ek_pixels *pixels, scale *s)
{
    s->pixels = *pixels;
    s->plane = dataset->item / pixels->channels;
    for (int c = 0; c < s->pixels.channels; c++) {
        for (int byte = 0; dataset->bytes && byte < 256; byte++)
            s->of_byte[c][byte] = ek_pixel(&s->pixels, c, (float)byte / 255.0f);
    }
}

/* Up to EK_LANES items side by side, x [item][EK_LANES]: the items are read in step, and x is written once
 * from front to back. */
static void fill_lanes(const ek_dataset *d, const scale *s, const int64_t *index, int live, float *x)
{
    if (live < EK_LANES) memset(x, 0, (size_t)d->item * EK_LANES * sizeof *x);
    for (int c = 0; c < s->pixels.channels; c++) {
        int64_t first = c * s->plane, end = first + s->plane;
        if (d->bytes) {
            const float *table = s->of_byte[c];
            const unsigned char *from[EK_LANES];
            for (int lane = 0; lane < live; lane++) from[lane] = d->bytes + index[lane] * d->item;
            if (live == EK_LANES) { /* apart, so that the compiler unrolls it */
                for (int64_t i = first; i < end; i++) {
                    for (int lane = 0; lane < EK_LANES; lane++) x[i * EK_LANES + lane] = table[from[lane][i]];
                }
            } else {
                for (int64_t i = first; i < end; i++) {
                    for (int lane = 0; lane < live; lane++) x[i * EK_LANES + lane] = table[from[lane][i]];
                }
            }
        } else {
            for (int64_t i = first; i < end; i++) {
                for (int lane = 0; lane < live; lane++)
                    x[i * EK_LANES + lane] = ek_pixel(&s->pixels, c, d->floats[index[lane] * d->item + i]);
            }
        }
    }
}

void ek_batch_fill(const ek_dataset *dataset, const ek_pixels *pixels, ek_shape input, const int64_t *index,
                   int64_t n, float *x, int32_t *labels)
{
    (void)input;
    scale s;
    make_scale(dataset, pixels, &s);
    for (int64_t block = 0; block < ek_blocks(n); block++)
        fill_lanes(dataset, &s, index + block * EK_LANES, ek_live(n, block),
                   x + block * EK_LANES * dataset->item);
    if (!labels) return;
    for (int64_t i = 0; i < n; i++) labels[i] = dataset->label ? dataset->label[index[i]] : -1;
}

/* --- ahead of their use */

enum { SLOTS = 2 };

/* Batch b lies in slot b % SLOTS. The maker may write it while b - released < SLOTS, the user may read it
 * once made > b, until asking for the next. */
struct ek_batches {
    const ek_dataset *dataset;
    ek_pixels pixels;
    ek_shape input;
    const int64_t *index;
    int64_t count, batch; /* samples in all and in a batch */
    bool drop_last;
    int64_t end;   /* the number of the last batch, plus one */
    int64_t given; /* the next batch for the user; the user's thread only */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* at most one side waits: the maker for room, or the user for a batch */
    int64_t made, released; /* batches below these are; under the lock, as is stop */
    bool stop;
    bool started;
    pthread_t maker;

    struct slot {
        int64_t n;
        float *x;
        int32_t *labels;
    } slot[SLOTS];
};

static void make_batch(const ek_batches *b, int64_t number, struct slot *slot)
{
    int64_t first;
    ek_batch_range(b->count, b->batch, b->drop_last, number, &first, &slot->n);
    ek_batch_fill(b->dataset, &b->pixels, b->input, b->index + first, slot->n, slot->x, slot->labels);
}

static void *make_batches(void *argument)
{
    ek_batches *b = argument;
    pthread_mutex_lock(&b->lock);
    while (b->made < b->end && !b->stop) {
        if (b->made - b->released == SLOTS) {
            pthread_cond_wait(&b->changed, &b->lock);
            continue;
        }
        int64_t number = b->made;
        pthread_mutex_unlock(&b->lock);
        make_batch(b, number, &b->slot[number % SLOTS]);
        pthread_mutex_lock(&b->lock);
        b->made = number + 1;
        pthread_cond_signal(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* Signals such as Ctrl-C are for the program's own threads. */
static ek_status start_maker(ek_batches *b)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&b->maker, NULL, make_batches, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) return ek_fail(EK_E_MEMORY, "cannot start the thread that makes batches: %s", strerror(code));
    b->started = true;
    return EK_OK;
}

ek_status ek_batches_start(const ek_dataset *dataset, const ek_pixels *pixels, ek_shape input,
                           const int64_t *index, int64_t count, int64_t batch, bool drop_last,
                           int64_t first_batch, ek_batches **out)
{
    ek_batches *b;
    EK_TRY(EK_NEW(b, 1));
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    b->dataset = dataset;
    b->pixels = *pixels;
    b->input = input;
    b->index = index;
    b->count = count;
    b->batch = batch;
    b->drop_last = drop_last;
    b->end = ek_batch_count(count, batch, drop_last);
    b->given = b->made = b->released = first_batch;

    /* The longest is batch + 1, where a last sample was joined, and none is longer than all. */
    ek_status status = EK_OK;
    int64_t most = ek_batch_largest(count, batch, drop_last);
    int64_t room = ek_blocks(most) * EK_LANES;
    size_t floats;
    if (ek_multiply_overflows((size_t)room, (size_t)dataset->item, &floats)) {
        status = ek_fail(EK_E_MEMORY, "a batch of %lld samples does not fit in memory", (long long)most);
        goto done;
    }
    for (int i = 0; i < SLOTS; i++) {
        EK_GO(EK_NEW(b->slot[i].x, floats));
        EK_GO(EK_NEW(b->slot[i].labels, (size_t)most));
    }
    EK_GO(start_maker(b));
done:
    if (status == EK_OK)
        *out = b;
    else
        ek_batches_end(b);
    return status;
}

bool ek_batches_next(ek_batches *b, int64_t *n, const float **x, const int32_t **labels)
{
    pthread_mutex_lock(&b->lock);
    b->released = b->given;
    pthread_cond_signal(&b->changed);
    while (b->made <= b->given && b->given < b->end) pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
    if (b->given >= b->end) return false;
    const struct slot *slot = &b->slot[b->given++ % SLOTS];
    *n = slot->n;
    *x = slot->x;
    *labels = slot->labels;
    return true;
}

void ek_batches_end(ek_batches *b)
{
    if (!b) return;
    if (b->started) {
        pthread_mutex_lock(&b->lock);
        b->stop = true;
        pthread_cond_signal(&b->changed);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->maker, NULL);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    for (int i = 0; i < SLOTS; i++) {
        ek_free(b->slot[i].x);
        ek_free(b->slot[i].labels);
    }
    ek_free(b);
}
