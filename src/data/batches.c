#include "data/batches.h"

#include "core/clock.h"
#include "core/memory.h"
#include "core/random.h"
#include "data/ahead.h"
#include "kernels/context.h"

#include <math.h>
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
    int64_t *drawn = NULL, *v = NULL, in_train = 0, in_valid = 0;
    bool *is_valid = NULL;
    EK_GO(EK_NEW(drawn, (size_t)count));
    EK_GO(EK_NEW(v, (size_t)held));
    for (int64_t i = 0; i < count; i++) drawn[i] = i;
    *train = drawn;
    *train_count = count - held;
    *valid = v;
    *valid_count = held;
    if (held == 0) return EK_OK; /* all in order */
    EK_GO(EK_NEW(is_valid, (size_t)count));
    ek_random random = ek_random_start(seed, EK_STREAM_SPLIT, 0);
    ek_random_shuffle(&random, drawn, count);
    for (int64_t i = 0; i < held; i++) is_valid[drawn[i]] = true;
    for (int64_t i = 0; i < count; i++) { /* many samples: no further copy of their numbers */
        if (is_valid[i])
            v[in_valid++] = i;
        else
            drawn[in_train++] = i;
    }
done:
    ek_free(is_valid);
    if (status != EK_OK) {
        *train = *valid = NULL;
        ek_free(drawn);
        ek_free(v);
    }
    return status;
}

/* Distinct numbers from 0 on are marked, and then met in order: nothing but a bit for each up to the largest. */
static ek_status sort(int64_t *index, int64_t count)
{
    int64_t largest = 0;
    bool sorted = true;
    for (int64_t i = 0; i < count; i++) {
        sorted = sorted && (i == 0 || index[i - 1] < index[i]);
        if (index[i] > largest) largest = index[i];
    }
    if (sorted) return EK_OK;
    uint64_t *mark;
    EK_TRY(EK_NEW(mark, (size_t)largest / 64 + 1));
    for (int64_t i = 0; i < count; i++) mark[index[i] / 64] |= (uint64_t)1 << index[i] % 64;
    for (int64_t word = 0, i = 0; word <= largest / 64; word++) {
        for (uint64_t rest = mark[word]; rest; rest &= rest - 1)
            index[i++] = 64 * word + __builtin_ctzll(rest);
    }
    ek_free(mark);
    return EK_OK;
}

ek_status ek_epoch_order(int64_t *index, int64_t count, uint64_t seed, int64_t epoch, bool shuffle)
{
    if (count < 2) return EK_OK;
    EK_TRY(sort(index, count));
    if (!shuffle) return EK_OK;
    ek_random random = ek_random_start(seed, EK_STREAM_SHUFFLE, (uint32_t)epoch);
    ek_random_shuffle(&random, index, count);
    return EK_OK;
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

/* One filling; a piece of the work is a channel of a block of EK_LANES samples. */
typedef struct filling {
    const unsigned char
        *bytes; /* of the items, either of both; item i is at place[i], or at i where that is NULL */
    const float *floats;
    const int64_t *place;
    int64_t n, item;
    float *x;
    ek_pixels pixels;
    int64_t plane;                         /* numbers of an item that share a channel's mean and deviation */
    float of_byte[EK_MAX_VALUE_RANK][256]; /* by channel: what bytes become */
} filling;

static void make_tables(filling *f)
{
    for (int c = 0; f->bytes && c < f->pixels.channels; c++) {
        for (int byte = 0; byte < 256; byte++)
            f->of_byte[c][byte] = ek_pixel(&f->pixels, c, (float)byte / 255.0f);
    }
}

/* Channel c of up to EK_LANES items side by side, from item `first` on, x [plane][EK_LANES]: the items are read in step, and
 * x is written once from front to back. */
static void fill_lanes(const filling *f, int c, int64_t first, int live, float *x)
{
    int64_t at[EK_LANES];
    for (int lane = 0; lane < live; lane++)
        at[lane] = (f->place ? f->place[first + lane] : first + lane) * f->item + c * f->plane;
    if (live < EK_LANES) memset(x, 0, (size_t)f->plane * EK_LANES * sizeof *x);
    if (f->bytes) {
        const float *table = f->of_byte[c];
        const unsigned char *from[EK_LANES];
        for (int lane = 0; lane < live; lane++) from[lane] = f->bytes + at[lane];
        if (live == EK_LANES) { /* apart, so that the compiler unrolls it */
            for (int64_t i = 0; i < f->plane; i++) {
                for (int lane = 0; lane < EK_LANES; lane++) x[i * EK_LANES + lane] = table[from[lane][i]];
            }
        } else {
            for (int64_t i = 0; i < f->plane; i++) {
                for (int lane = 0; lane < live; lane++) x[i * EK_LANES + lane] = table[from[lane][i]];
            }
        }
    } else {
        for (int64_t i = 0; i < f->plane; i++) {
            for (int lane = 0; lane < live; lane++)
                x[i * EK_LANES + lane] = ek_pixel(&f->pixels, c, f->floats[at[lane] + i]);
        }
    }
}

static void fill_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const filling *f = argument;
    int64_t block = piece / f->pixels.channels;
    int c = (int)(piece % f->pixels.channels), live = ek_live(f->n, block);
    float *x = f->x + block * EK_LANES * f->item;
    fill_lanes(f, c, block * EK_LANES, live, x + c * f->plane * EK_LANES);
}

/* Items of the dataset's kind at `items`, one behind the other (NULL: in its memory, by index), and the lengths of `index`. */
static void fill(ek_net *net, const ek_dataset *d, const unsigned char *items, const int64_t *index,
                 int64_t n)
{
    bool bytes = items ? d->stored->bytes : d->bytes != NULL;
    filling f = {
        .bytes = !bytes  ? NULL
                 : items ? items
                         : d->bytes,
        .floats = bytes   ? NULL
                  : items ? (const float *)(const void *)items
                          : d->floats,
        .place = items ? NULL : index,
        .n = n,
        .item = d->item,
        .x = ek_net_input(net),
        .pixels = ek_net_pixels(net),
    };
    int32_t *length = ek_net_lengths(net);
    for (int64_t i = 0; length && i < n; i++)
        length[i] = d->length ? d->length[index[i]] : (int32_t)ek_net_input_shape(net).dim[1];
    f.plane = d->item / f.pixels.channels;
    make_tables(&f);
    ek_pool_run(net->context->pool, ek_blocks(n) * f.pixels.channels, fill_piece, &f);
}

ek_status ek_batch_fill(ek_net *net, const ek_dataset *d, const int64_t *index, int64_t n)
{
    unsigned char *items = NULL, *scratch = NULL;
    ek_status status = EK_OK;
    if (!d->stored) {
        fill(net, d, NULL, index, n);
        return EK_OK;
    }
    EK_GO(EK_NEW(items, (size_t)n * ek_stored_item_bytes(d->stored)));
    EK_GO(ek_scratch_create(d->stored, ek_pool_threads(net->context->pool), &scratch));
    EK_GO(ek_dataset_gather(d, net->context->pool, index, n, items, scratch));
    fill(net, d, items, index, n);
done:
    ek_free(scratch);
    ek_free(items);
    return status;
}

/* --- one after the other */

/* Which samples of a batch of n this process needs: [*first, *first + count), the count returned. */
static int64_t share(const ek_batches *b, int64_t n, int64_t *first)
{
    *first = 0;
    if (b->shares < 1) return n;
    *first = n * b->share_first / b->shares;
    return n * b->share_end / b->shares - *first;
}

static int64_t count_batches(const ek_batches *b) { return ek_batch_count(b->count, b->batch, b->drop_last); }

static int64_t stride(const ek_batches *b) { return b->stride > 0 ? b->stride : 1; }

/* What reading ahead wants for turn `turn`. */
static bool plan_batch(const void *user, int64_t turn, const int64_t **index, int64_t *n)
{
    const ek_batches *b = user;
    int64_t first, size, skipped, number = b->begin + turn * stride(b);
    if (number >= count_batches(b)) return false;
    ek_batch_range(b->count, b->batch, b->drop_last, number, &first, &size);
    *n = share(b, size, &skipped);
    *index = b->index + first + skipped;
    return true;
}

/* From the next batch on, where two fit into the memory that data may have, the one in use and the next; else each part is
 * read when it is wanted. */
static ek_status read_ahead(ek_batches *b)
{
    enum { MOST_AHEAD = 2, MOST_THREADS = 16 };
    int threads = ek_pool_threads(b->net->context->pool);
    int64_t largest = ek_batch_largest(b->count, b->batch, b->drop_last);
    if (b->shares > 0) largest = largest * (b->share_end - b->share_first) / b->shares + 1;
    size_t bytes, memory = ek_memory_limit() / 4;
    bool fits = !ek_multiply_overflows((size_t)largest, ek_stored_item_bytes(b->dataset->stored), &bytes);
    size_t batches = fits ? memory / (bytes + 1) : 0;
    b->none_ahead = batches < 2;
    if (b->none_ahead) return EK_OK;
    ek_ahead_plan plan = {
        .dataset = b->dataset,
        .batch = plan_batch,
        .user = b,
        .first = b->turn,
        .largest = largest,
        .threads = threads < MOST_THREADS ? threads : MOST_THREADS,
        .depth = batches > MOST_AHEAD ? 1 + MOST_AHEAD : (int)batches,
    };
    return ek_ahead_start(&plan, &b->ahead);
}

/* Threads of their own take cores from the pool, and pay where reading is a good part of a step. From the system's cache it is
 * not. Shares are read by several at a time, who do not wait for each other's. */
double ek_read_ahead_above = 1.0 / 16;

static bool should_read_ahead(const ek_batches *b)
{
    enum { ENOUGH = 4 }; /* batches to judge by */
    if (!b->dataset->stored || b->ahead || b->none_ahead) return false;
    if (b->shares > 0 || ek_read_ahead_above <= 0) return true;
    return b->turn >= ENOUGH && b->reading > ek_read_ahead_above * (ek_now() - b->began);
}

ek_status ek_batches_start(ek_batches *b)
{
    b->begin = b->next;
    b->began = ek_now();
    EK_TRY(ek_net_use_lengths(b->net, b->dataset->length));
    return EK_NEW(b->labels, (size_t)ek_batch_largest(b->count, b->batch, b->drop_last));
}

ek_status ek_batches_next(ek_batches *b, int64_t *n)
{
    *n = 0;
    if (b->next >= count_batches(b)) return EK_OK;
    if (should_read_ahead(b)) EK_TRY(read_ahead(b));
    int64_t size, mine;
    ek_batch_range(b->count, b->batch, b->drop_last, b->next, &b->first, &size);
    b->next += stride(b);
    b->turn++;
    int64_t count = share(b, size, &mine);
    if (!b->in_parts && count > 0) EK_TRY(ek_batches_fill(b, b->net, mine, count));
    const int64_t *index = b->index + b->first;
    for (int64_t i = 0; b->dataset->label && i < size; i++) b->labels[i] = b->dataset->label[index[i]];
    *n = size;
    return EK_OK;
}

/* Room to read n items at a time. */
static ek_status make_room(ek_batches *b, int64_t n)
{
    if (!b->scratch) EK_TRY(ek_scratch_create(b->dataset->stored, ek_pool_threads(b->net->context->pool), &b->scratch));
    if (n <= b->room) return EK_OK;
    ek_free(b->items);
    b->room = 0;
    EK_TRY(EK_NEW(b->items, (size_t)n * ek_stored_item_bytes(b->dataset->stored)));
    b->room = n;
    return EK_OK;
}

ek_status ek_batches_fill(void *batches, ek_net *net, int64_t first, int64_t n)
{
    ek_batches *b = batches;
    const ek_dataset *d = b->dataset;
    const int64_t *index = b->index + b->first + first;
    if (!d->stored) {
        fill(net, d, NULL, index, n);
        return EK_OK;
    }
    if (!b->ahead && b->shares > 0)
        return ek_batch_fill(net, d, index, n); /* others may do so at the same time */
    if (!b->ahead) {
        double before = ek_now();
        EK_TRY(make_room(b, n));
        EK_TRY(ek_dataset_gather(d, net->context->pool, index, n, b->items, b->scratch));
        b->reading += ek_now() - before;
        fill(net, d, b->items, index, n);
        return EK_OK;
    }
    const unsigned char *items;
    const int64_t *read = index;
    int64_t count = 0;
    plan_batch(b, b->turn - 1, &read, &count);
    if (index < read || index + n > read + count)
        return ek_fail(EK_E_ARGUMENT, "samples beyond this process's share of a batch are not read");
    EK_TRY(ek_ahead_take(b->ahead, b->turn - 1, &items));
    fill(net, d, items + (size_t)(index - read) * ek_stored_item_bytes(d->stored), index, n);
    return EK_OK;
}

void ek_batches_end(ek_batches *b)
{
    ek_ahead_stop(b->ahead);
    ek_free(b->scratch);
    ek_free(b->items);
    ek_free(b->labels);
}
