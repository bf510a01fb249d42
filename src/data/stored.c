#include "data/stored.h"

#include "core/file_parts.h"
#include "core/memory.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- any kind */

void ek_stored_destroy(ek_stored *stored)
{
    if (!stored) return;
    stored->close(stored);
    ek_free(stored->name);
    ek_free(stored);
}

size_t ek_stored_item_bytes(const ek_stored *s) { return (size_t)s->item * (s->bytes ? 1 : sizeof(float)); }

int64_t ek_stored_piece(const ek_stored *s)
{
    enum { WORTH = 1 << 16 }; /* bytes */
    int64_t items = WORTH / (int64_t)ek_stored_item_bytes(s);
    int64_t most = s->most ? s->most : EK_PIECE_ITEMS;
    return items < 1 ? 1 : items > most ? most : items;
}

ek_status ek_data_memory(size_t *bytes)
{
    const char *text = getenv("EVENKEEL_DATA_MEMORY");
    if (!text || !*text) {
        *bytes = ek_memory_limit() / 4;
        return EK_OK;
    }
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end ? strchr("KMG", *end) : NULL;
    int shift = !unit ? 0 : *unit == 'K' ? 10 : *unit == 'M' ? 20 : 30;
    if (*text < '0' || *text > '9' || errno || end[unit != NULL] || value > SIZE_MAX >> shift)
        return ek_fail(EK_E_ARGUMENT, "EVENKEEL_DATA_MEMORY is '%s'; it takes bytes, such as 0, 500M or 4G",
                       text);
    *bytes = (size_t)value << shift;
    return EK_OK;
}

/* Frees what is to have the name where there is none. */
static ek_status take_name(ek_stored *stored, const char *name)
{
    stored->name = ek_strdup(name);
    if (stored->name) return EK_OK;
    ek_free(stored);
    return EK_E_MEMORY;
}

/* --- arrays */

typedef struct stored_array {
    ek_stored head;
    ek_array_file file;
    ek_file_parts *parts; /* NULL: items are long, or the system cannot bring many at a time */
} stored_array;

static bool is_run(const int64_t *index, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        if (index[i] != index[0] + i) return false;
    }
    return true;
}

static bool read_scattered(const stored_array *s, const int64_t *index, int64_t n, size_t bytes,
                           unsigned char *raw)
{
    int64_t offset[EK_PIECE_ITEMS];
    if (!s->parts || is_run(index, n)) return false;
    for (int64_t i = 0; i < n; i++) offset[i] = s->file.offset + index[i] * (int64_t)bytes;
    return ek_file_parts_read(s->parts, offset, n, bytes, raw);
}

/* Items that lie one behind the other are read at once. */
static ek_status read_runs(const stored_array *s, const int64_t *index, int64_t n, size_t bytes,
                           unsigned char *raw)
{
    int64_t item = s->head.item, run;
    for (int64_t i = 0; i < n; i += run) {
        for (run = 1; i + run < n && index[i + run] == index[i] + run;) run++;
        EK_TRY(ek_array_file_read(&s->file, index[i] * item, run * item, raw + (size_t)i * bytes));
    }
    return EK_OK;
}

static ek_status read_array(const ek_stored *stored, const int64_t *index, int64_t n, void *out,
                            unsigned char *scratch)
{
    const stored_array *s = (const stored_array *)stored;
    size_t bytes = (size_t)stored->item * ek_number_size(s->file.number);
    unsigned char *raw = stored->bytes ? out : scratch;
    if (!read_scattered(s, index, n, bytes, raw)) EK_TRY(read_runs(s, index, n, bytes, raw));
    for (int64_t i = 0; !stored->bytes && i < n; i++) {
        ek_status status = ek_numbers_to_float(s->file.number, s->file.big_endian, raw + (size_t)i * bytes,
                                               stored->item, (float *)out + i * stored->item);
        if (status != EK_OK) return ek_fail_in(status, "item %lld: ", (long long)index[i]);
    }
    return EK_OK;
}

static void close_array(ek_stored *stored)
{
    stored_array *s = (stored_array *)stored;
    ek_file_parts_close(s->parts);
    ek_array_file_close(&s->file);
}

ek_status ek_stored_array(ek_array_file *file, const char *name, int64_t item, ek_stored **out)
{
    stored_array *s;
    size_t bytes = (size_t)item * ek_number_size(file->number);
    EK_TRY(EK_NEW(s, 1));
    s->head = (ek_stored){
        .bytes = file->number == EK_NUMBER_U8, .item = item, .read = read_array, .close = close_array};
    EK_TRY(take_name(&s->head, name));
    if (!s->head.bytes) s->head.scratch = (size_t)ek_stored_piece(&s->head) * bytes;
    s->file = *file;
    file->descriptor = -1;
    ek_status status =
        bytes > EK_PART_BYTES
            ? EK_OK
            : ek_file_parts_open(s->file.descriptor, s->file.offset + s->file.count / item * (int64_t)bytes,
                                 &s->parts);
    if (status == EK_OK)
        *out = &s->head;
    else
        ek_stored_destroy(&s->head);
    return status;
}

/* --- tables */

typedef struct stored_rows {
    ek_stored head;
    ek_table_rows *rows;
} stored_rows;

static ek_status read_rows(const ek_stored *stored, const int64_t *index, int64_t n, void *out,
                           unsigned char *scratch)
{
    return ek_table_rows_read(((const stored_rows *)stored)->rows, index, n, out, scratch);
}

static void close_rows(ek_stored *stored) { ek_table_rows_destroy(((stored_rows *)stored)->rows); }

ek_status ek_stored_rows(ek_table_rows **rows, const char *name, int64_t item, ek_stored **out)
{
    stored_rows *s;
    EK_TRY(EK_NEW(s, 1));
    s->head = (ek_stored){
        .item = item, .scratch = ek_table_rows_scratch(*rows), .read = read_rows, .close = close_rows};
    EK_TRY(take_name(&s->head, name));
    s->rows = *rows;
    *rows = NULL;
    *out = &s->head;
    return EK_OK;
}

/* --- of a data set */

/* What stands beyond a sequence's length is never looked at, and may be NaN. */
static bool is_padding(const ek_dataset *d, int64_t index, int64_t i)
{
    return d->length && i % d->shape.dim[1] >= d->length[index];
}

ek_status ek_dataset_read(const ek_dataset *d, const int64_t *index, int64_t n, void *out,
                          unsigned char *scratch)
{
    const ek_stored *s = d->stored;
    ek_status status = s->read(s, index, n, out, scratch);
    if (status != EK_OK) return s->name ? ek_fail_in(status, "%s: ", s->name) : status;
    const float *x = out;
    for (int64_t i = 0; !s->bytes && i < n * s->item; i++) {
        if (!isfinite(x[i]) && !is_padding(d, index[i / s->item], i % s->item))
            return ek_fail(EK_E_NUMERIC, "%s: item %lld holds a value that is not finite", s->name,
                           (long long)index[i / s->item]);
    }
    return EK_OK;
}

void ek_failure_note(ek_failure *f, ek_status status, int64_t at)
{
    if (status == EK_OK || (f->status != EK_OK && f->at < at)) return;
    f->status = status;
    f->at = at;
    snprintf(f->text, sizeof f->text, "%s", ek_error());
}

ek_status ek_failure_tell(const ek_failure *f)
{
    return f->status == EK_OK ? EK_OK : ek_fail(f->status, "%s", f->text);
}

static size_t scratch_room(const ek_stored *s) { return (s->scratch + EK_ALIGN) / EK_ALIGN * EK_ALIGN; }

ek_status ek_scratch_create(const ek_stored *s, int threads, unsigned char **out)
{
    *out = ek_calloc((size_t)threads, scratch_room(s));
    return *out ? EK_OK : EK_E_MEMORY;
}

unsigned char *ek_scratch_of(const ek_stored *s, unsigned char *scratch, int thread)
{
    return scratch + (size_t)thread * scratch_room(s);
}

typedef struct gathering {
    const ek_dataset *dataset;
    const int64_t *index;
    int64_t n;
    int64_t piece; /* items */
    unsigned char *out, *scratch;
    pthread_mutex_t lock;
    ek_failure failure;
} gathering;

static void gather_piece(void *argument, int64_t piece, int thread)
{
    gathering *g = argument;
    const ek_stored *s = g->dataset->stored;
    int64_t here[EK_PIECE_ITEMS], first = piece * g->piece;
    int64_t n = g->n - first < g->piece ? g->n - first : g->piece;
    for (int64_t i = 0; i < n; i++) here[i] = g->index ? g->index[first + i] : first + i;
    ek_status status = ek_dataset_read(g->dataset, here, n, g->out + (size_t)first * ek_stored_item_bytes(s),
                                       ek_scratch_of(s, g->scratch, thread));
    if (status == EK_OK) return;
    pthread_mutex_lock(&g->lock);
    ek_failure_note(&g->failure, status, first);
    pthread_mutex_unlock(&g->lock);
}

ek_status ek_dataset_gather(const ek_dataset *d, ek_pool *pool, const int64_t *index, int64_t n, void *out,
                            unsigned char *scratch)
{
    gathering g = {.dataset = d, .index = index, .n = n, .out = out, .scratch = scratch};
    int64_t most = ek_stored_piece(d->stored), each = (n + ek_pool_threads(pool) - 1) / ek_pool_threads(pool);
    g.piece = each < 1 ? 1 : each < most ? each : most;
    pthread_mutex_init(&g.lock, NULL);
    ek_pool_run(pool, (n + g.piece - 1) / g.piece, gather_piece, &g);
    pthread_mutex_destroy(&g.lock);
    return ek_failure_tell(&g.failure);
}

ek_status ek_dataset_keep(ek_dataset *d)
{
    size_t memory, bytes;
    EK_TRY(ek_data_memory(&memory));
    if (ek_multiply_overflows((size_t)d->count, ek_stored_item_bytes(d->stored), &bytes) || bytes > memory)
        return EK_OK;
    enum { FEW = 1 << 20 }; /* bytes that are read before other threads have begun */
    int threads = bytes > FEW ? ek_cores() : 1;
    ek_pool *pool = NULL;
    unsigned char *scratch = NULL, *items = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(items, bytes));
    EK_GO(ek_pool_create(threads, &pool));
    EK_GO(ek_scratch_create(d->stored, threads, &scratch));
    EK_GO(ek_dataset_gather(d, pool, NULL, d->count, items, scratch));
    if (d->stored->bytes)
        d->bytes = items;
    else
        d->floats = (float *)items;
    items = NULL;
    ek_stored_destroy(d->stored);
    d->stored = NULL;
done:
    ek_free(scratch);
    ek_pool_destroy(pool);
    ek_free(items);
    return status;
}
