#include "data/batches.h"

#include "core/memory.h"
#include "core/random.h"
#include "kernels/context.h"

#include <math.h>
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

/* One filling; a piece of the work is a channel of a block of EK_LANES samples. */
typedef struct filling {
    const ek_dataset *dataset;
    const int64_t *index;
    int64_t n;
    float *x;
    ek_pixels pixels;
    int64_t plane;                     /* numbers of an item that share a channel's mean and deviation */
    float of_byte[EK_MAX_VALUE_RANK][256]; /* by channel: what bytes become */
} filling;

static void make_tables(filling *f)
{
    for (int c = 0; f->dataset->bytes && c < f->pixels.channels; c++) {
        for (int byte = 0; byte < 256; byte++)
            f->of_byte[c][byte] = ek_pixel(&f->pixels, c, (float)byte / 255.0f);
    }
}

/* Channel c of up to EK_LANES items side by side, x [plane][EK_LANES]: the items are read in step, and x is
 * written once from front to back. */
static void fill_lanes(const filling *f, int c, const int64_t *index, int live, float *x)
{
    const ek_dataset *d = f->dataset;
    if (live < EK_LANES) memset(x, 0, (size_t)f->plane * EK_LANES * sizeof *x);
    if (d->bytes) {
        const float *table = f->of_byte[c];
        const unsigned char *from[EK_LANES];
        for (int lane = 0; lane < live; lane++) from[lane] = d->bytes + index[lane] * d->item + c * f->plane;
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
                x[i * EK_LANES + lane] =
                    ek_pixel(&f->pixels, c, d->floats[index[lane] * d->item + c * f->plane + i]);
        }
    }
}

static void fill_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const filling *f = argument;
    int64_t block = piece / f->pixels.channels, item = f->dataset->item;
    int c = (int)(piece % f->pixels.channels), live = ek_live(f->n, block);
    const int64_t *index = f->index + block * EK_LANES;
    float *x = f->x + block * EK_LANES * item;
    fill_lanes(f, c, index, live, x + c * f->plane * EK_LANES);
}

ek_status ek_batch_fill(ek_net *net, const ek_dataset *dataset, const int64_t *index, int64_t n)
{
    filling f = {
        .dataset = dataset,
        .index = index,
        .n = n,
        .x = ek_net_input(net),
        .pixels = ek_net_pixels(net),
    };
    int32_t *length = ek_net_lengths(net);
    for (int64_t i = 0; length && i < n; i++)
        length[i] = dataset->length ? dataset->length[index[i]] : (int32_t)ek_net_input_shape(net).dim[1];
    f.plane = dataset->item / f.pixels.channels;
    make_tables(&f);
    ek_pool_run(net->context->pool, ek_blocks(n) * f.pixels.channels, fill_piece, &f);
    return EK_OK;
}

/* --- one after the other */

ek_status ek_batches_start(ek_batches *b)
{
    EK_TRY(ek_net_use_lengths(b->net, b->dataset->length));
    return EK_NEW(b->labels, (size_t)ek_batch_largest(b->count, b->batch, b->drop_last));
}

ek_status ek_batches_next(ek_batches *b, int64_t *n)
{
    *n = 0;
    if (b->next >= ek_batch_count(b->count, b->batch, b->drop_last)) return EK_OK;
    ek_batch_range(b->count, b->batch, b->drop_last, b->next++, &b->first, n);
    const int64_t *index = b->index + b->first;
    if (!b->in_parts) EK_TRY(ek_batches_fill(b, b->net, 0, *n));
    for (int64_t i = 0; b->dataset->label && i < *n; i++) b->labels[i] = b->dataset->label[index[i]];
    return EK_OK;
}

ek_status ek_batches_fill(void *batches, ek_net *net, int64_t first, int64_t n)
{
    const ek_batches *b = batches;
    return ek_batch_fill(net, b->dataset, b->index + b->first + first, n);
}

void ek_batches_end(ek_batches *b) { ek_free(b->labels); }
