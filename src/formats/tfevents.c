#include "formats/tfevents.h"

#include "core/memory.h"
#include "core/protobuf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Fields. Of Event, Summary, Summary.Value and HistogramProto. */
enum { WALL_TIME = 1, STEP = 2, FILE_VERSION = 3, SUMMARY = 5 };
enum { VALUE = 1 };
enum { TAG = 1, SIMPLE_VALUE = 2, HISTO = 5 };
enum { MIN = 1, MAX = 2, NUM = 3, SUM = 4, SUM_SQUARES = 5, BUCKET_LIMIT = 6, BUCKET = 7 };

struct ek_tfevents {
    FILE *file;
    char *path;
    ek_protobuf event; /* the present one */
    int error;         /* errno of the first write that failed; 0: none */
};

void ek_histogram_fill(ek_histogram *h, const float *sorted, int64_t n)
{
    *h = (ek_histogram){.count = (double)n};
    if (n == 0) return;
    h->min = sorted[0];
    h->max = sorted[n - 1];
    /* One value alone stands in the middle of a range. */
    double low = h->min < h->max ? h->min : h->min - 0.5, high = h->min < h->max ? h->max : h->max + 0.5;
    for (int i = 0; i < EK_HISTOGRAM_BUCKETS; i++)
        h->limit[i] = low + (high - low) * (i + 1) / EK_HISTOGRAM_BUCKETS;
    h->limit[EK_HISTOGRAM_BUCKETS - 1] = high;
    int bucket = 0;
    for (int64_t i = 0; i < n; i++) {
        double value = sorted[i];
        while (value > h->limit[bucket]) bucket++;
        h->bucket[bucket]++;
        h->sum += value;
        h->squares += value * value;
    }
}

/* --- records */

/* CRC-32C, Castagnoli's polynomial, its bits reversed. */
static uint32_t crc32c(const unsigned char *data, size_t size)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

uint32_t ek_crc32c_masked(const void *data, size_t size)
{
    uint32_t crc = crc32c(data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}

/* Length, its CRC, the data, their CRC; all with the lowest byte first. */
static void write_record(ek_tfevents *e)
{
    unsigned char head[12], foot[4];
    if (e->error || e->event.failed) return;
    put(head, e->event.length, 8);
    put(head + 8, ek_crc32c_masked(head, 8), 4);
    put(foot, ek_crc32c_masked(e->event.data, e->event.length), 4);
    errno = 0;
    bool written = fwrite(head, sizeof head, 1, e->file) == 1 &&
                   fwrite(e->event.data, e->event.length, 1, e->file) == 1 &&
                   fwrite(foot, sizeof foot, 1, e->file) == 1;
    if (!written) e->error = errno ? errno : EIO;
}

static void begin_event(ek_tfevents *e, int64_t step)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    ek_protobuf_clear(&e->event);
    ek_protobuf_double(&e->event, WALL_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    if (step) ek_protobuf_int(&e->event, STEP, step);
}

/* --- files */

/* The folder and those above it. */
static ek_status make_folder(const char *path)
{
    char *part = ek_strdup(path);
    if (!part) return EK_E_MEMORY;
    ek_status status = EK_OK;
    for (char *c = part + 1; status == EK_OK; c++) {
        if (*c && *c != '/') continue;
        char ended_by = *c;
        *c = '\0';
        struct stat info;
        bool there = stat(part, &info) == 0;
        if (there && !S_ISDIR(info.st_mode))
            status = ek_fail(EK_E_IO, "cannot write event files to %s: %s is not a folder", path, part);
        else if (!there && mkdir(part, 0777) != 0)
            status = ek_fail_errno("cannot make the folder %s", part);
        *c = ended_by;
        if (!ended_by) break;
    }
    ek_free(part);
    return status;
}

/* TensorBoard takes any name with "tfevents" in it; this is how others name theirs. */
static ek_status open_file(ek_tfevents *e, const char *folder)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0 || !host[0]) strcpy(host, "localhost");
    for (char *c = host; *c; c++)
        if (*c == '/') *c = '-';
    int descriptor = -1;
    for (int number = 0; descriptor < 0 && number < 1000; number++) {
        ek_free(e->path);
        e->path = ek_strf("%s/events.out.tfevents.%010lld.%s.%ld.%d", folder, (long long)time(NULL), host,
                          (long)getpid(), number);
        if (!e->path) return EK_E_MEMORY;
        descriptor = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor < 0 && errno != EEXIST) break;
    }
    if (descriptor >= 0 && (e->file = fdopen(descriptor, "wb"))) return EK_OK;
    ek_status status = ek_fail_errno("cannot write %s", e->path);
    if (descriptor >= 0) close(descriptor);
    return status;
}

ek_status ek_tfevents_create(const char *folder, ek_tfevents **out)
{
    if (!*folder) return ek_fail(EK_E_ARGUMENT, "event files need a folder");
    ek_tfevents *e;
    EK_TRY(EK_NEW(e, 1));
    ek_status status = EK_OK;
    EK_GO(make_folder(folder));
    EK_GO(open_file(e, folder));
    begin_event(e, 0);
    ek_protobuf_text(&e->event, FILE_VERSION, "brain.Event:2");
    write_record(e);
    EK_GO(ek_tfevents_flush(e));
    *out = e;
done:
    if (status != EK_OK) (void)ek_tfevents_close(e, true);
    return status;
}

const char *ek_tfevents_path(const ek_tfevents *e) { return e->path; }

ek_status ek_tfevents_flush(ek_tfevents *e)
{
    EK_TRY(ek_protobuf_status(&e->event));
    errno = 0;
    if (!e->error && fflush(e->file) != 0) e->error = errno ? errno : EIO;
    if (!e->error) return EK_OK;
    errno = e->error;
    return ek_fail_errno("cannot write %s", e->path);
}

ek_status ek_tfevents_close(ek_tfevents *e, bool remove)
{
    if (!e) return EK_OK;
    ek_status status = e->file ? ek_tfevents_flush(e) : EK_OK;
    if (e->file && fclose(e->file) != 0 && status == EK_OK)
        status = ek_fail_errno("cannot write %s", e->path);
    if (e->file && remove) unlink(e->path);
    ek_protobuf_free(&e->event);
    ek_free(e->path);
    ek_free(e);
    return status;
}

/* --- what events say */

static size_t begin_value(ek_tfevents *e, int64_t step, const char *tag, size_t *summary)
{
    begin_event(e, step);
    *summary = ek_protobuf_begin(&e->event, SUMMARY);
    size_t value = ek_protobuf_begin(&e->event, VALUE);
    ek_protobuf_text(&e->event, TAG, tag);
    return value;
}

static void end_value(ek_tfevents *e, size_t value, size_t summary)
{
    ek_protobuf_end(&e->event, value);
    ek_protobuf_end(&e->event, summary);
    write_record(e);
}

void ek_tfevents_scalar(ek_tfevents *e, int64_t step, const char *tag, double value)
{
    if (!isfinite(value)) return;
    size_t summary, at = begin_value(e, step, tag, &summary);
    ek_protobuf_float(&e->event, SIMPLE_VALUE, (float)value);
    end_value(e, at, summary);
}

void ek_tfevents_histogram(ek_tfevents *e, int64_t step, const char *tag, const ek_histogram *h)
{
    if (h->count == 0) return;
    ek_protobuf *m = &e->event;
    size_t summary, at = begin_value(e, step, tag, &summary), histogram = ek_protobuf_begin(m, HISTO);
    ek_protobuf_double(m, MIN, h->min);
    ek_protobuf_double(m, MAX, h->max);
    ek_protobuf_double(m, NUM, h->count);
    ek_protobuf_double(m, SUM, h->sum);
    ek_protobuf_double(m, SUM_SQUARES, h->squares);
    ek_protobuf_doubles(m, BUCKET_LIMIT, h->limit, EK_HISTOGRAM_BUCKETS);
    ek_protobuf_doubles(m, BUCKET, h->bucket, EK_HISTOGRAM_BUCKETS);
    ek_protobuf_end(m, histogram);
    end_value(e, at, summary);
}
