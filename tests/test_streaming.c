/* Data that stays in its files: the same bits as from memory, and clear errors where it cannot be read. */
#include "testing.h"

#include "core/file_parts.h"
#include "core/memory.h"
#include "core/random.h"
#include "data/ahead.h"
#include "data/batches.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[] = "/tmp/evenkeel-streaming-XXXXXX";
static char path_x[64], path_y[64], path_lengths[64], path_csv[64], spec[256];
static ek_context *context;

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path_x, sizeof path_x, "%s/x", folder);
    snprintf(path_y, sizeof path_y, "%s/y", folder);
    snprintf(path_lengths, sizeof path_lengths, "%s/lengths", folder);
    snprintf(path_csv, sizeof path_csv, "%s/table.csv", folder);
    return ek_context_create(&(ek_context_options){.threads = 2}, &context) == EK_OK ? 0 : -1;
}

static int take_down(void **state)
{
    (void)state;
    ek_context_destroy(context);
    const char *const paths[] = {path_x, path_y, path_lengths, path_csv};
    for (int i = 0; i < 4; i++) unlink(paths[i]);
    return rmdir(folder);
}

/* --- files */

static FILE *begin(const char *path)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    return file;
}

static void put_dimension(FILE *file, int64_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) fputc((int)(value >> shift & 255), file);
}

static void put_labels(int64_t count, int classes)
{
    FILE *file = begin(path_y);
    fwrite("\0\0\x08\1", 1, 4, file);
    put_dimension(file, count);
    for (int64_t i = 0; i < count; i++) fputc((int)(i * 7 % classes), file);
    assert_int_equal(fclose(file), 0);
}

/* An array [count, c, l] of random bytes with the header `descr` of NPY, or of IDX where that is NULL. mask: what of each
 * byte is kept, by its place in an element of `width`. */
static void put_array(const char *descr, int width, int64_t count, int64_t c, int64_t l,
                      const unsigned char *mask)
{
    FILE *file = begin(path_x);
    ek_random random = ek_random_start(1, EK_STREAM_TEST, 0);
    if (descr) {
        char dict[128];
        int length =
            snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d, %d)}\n",
                     descr, (int)count, (int)c, (int)l);
        fwrite("\x93NUMPY\1", 1, 7, file);
        fputc(0, file);
        fputc(length, file);
        fputc(0, file);
        fwrite(dict, 1, (size_t)length, file);
    } else {
        fwrite("\0\0\x08\3", 1, 4, file);
        put_dimension(file, count);
        put_dimension(file, c);
        put_dimension(file, l);
    }
    for (int64_t i = 0; i < count * c * l * width; i++)
        fputc((int)(ek_random_u32(&random) & (mask ? mask[i % width] : 255)), file);
    assert_int_equal(fclose(file), 0);
}

static void overwrite(const char *path, int64_t offset, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static const char *pair(void)
{
    snprintf(spec, sizeof spec, "%s,%s", path_x, path_y);
    return spec;
}

/* Whether sets are kept in memory. */
static void keep(bool on) { setenv("EVENKEEL_DATA_MEMORY", on ? "1G" : "0", 1); }

/* From the first batch on, or never. */
static void read_ahead(bool on) { ek_read_ahead_above = on ? 0 : INFINITY; }

/* --- the same from both */

typedef struct trained {
    float weights[4096];
    double loss;
} trained;

static bool last_loss(void *user, const ek_event *event)
{
    if (event->kind == EK_EVENT_EPOCH) ((trained *)user)->loss = event->train_loss + 100 * event->valid_loss;
    return true;
}

static void train(const ek_dataset *data, const char *text, ek_train_options options, trained *out)
{
    ek_net *net;
    memset(out, 0, sizeof *out);
    options.epochs = 2;
    options.batch = 16;
    options.valid_fraction = 0.2;
    options.listener = last_loss;
    options.user = out;
    assert_ok(ek_net_create(context, text, NULL, &net));
    assert_ok(ek_train(net, data, NULL, &options));
    size_t at = 0;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        size_t count = t.data ? (size_t)ek_shape_count(t.shape) : 0;
        assert_true(at + count <= sizeof out->weights / sizeof *out->weights);
        for (size_t k = 0; k < count; k++) out->weights[at++] = ((const float *)t.data)[k];
    }
    ek_net_destroy(net);
}

static void check_items(const ek_dataset *a, const ek_dataset *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->item, b->item);
    assert_int_equal(a->classes, b->classes);
    float *x = ek_calloc((size_t)a->item, sizeof *x), *y = ek_calloc((size_t)a->item, sizeof *y);
    for (int64_t i = 0; i < a->count; i++) {
        int label[2];
        assert_ok(ek_dataset_item(a, i, x, &label[0]));
        assert_ok(ek_dataset_item(b, i, y, &label[1]));
        assert_int_equal(label[0], label[1]);
        assert_memory_equal(x, y, (size_t)a->item * sizeof *x);
    }
    ek_free(x);
    ek_free(y);
}

static void check_same(const char *which, const char *text)
{
    ek_dataset *kept, *stored;
    static trained a, b;
    keep(true);
    assert_ok(ek_dataset_open(which, EK_SPLIT_ANY, &kept));
    assert_null(kept->stored);
    keep(false);
    assert_ok(ek_dataset_open(which, EK_SPLIT_ANY, &stored));
    assert_true(stored->stored && !stored->bytes && !stored->floats);
    check_items(kept, stored);
    for (int way = 0; way < 4; way++) {
        ek_train_options options = ek_train_options_default();
        options.accumulate = way == 1 ? 3 : 1;
        options.shuffle = way != 2;
        options.drop_last = way == 3;
        train(kept, text, options, &a);
        for (int ahead = 0; ahead < 2; ahead++) {
            read_ahead(ahead);
            train(stored, text, options, &b);
            assert_memory_equal(&a, &b, sizeof a);
        }
    }
    ek_dataset_destroy(kept);
    ek_dataset_destroy(stored);
}

#define NET "flatten\nlinear 16\nbatchnorm\nrelu\nlinear 4\n"

static void arrays_give_the_same_bits_from_their_files(void **state)
{
    (void)state;
    /* Bits that make floats neither infinite nor NaN, and integers exact: by type, from the lowest byte on. */
    struct {
        const char *descr;
        int width;
        unsigned char mask[8];
    } cases[] = {
        {NULL, 1, {255}},
        {"|u1", 1, {255}},
        {"|i1", 1, {255}},
        {"|b1", 1, {1}},
        {"<u2", 2, {255, 255}},
        {">i2", 2, {255, 255}},
        {"<i4", 4, {255, 255, 127}},
        {"<i8", 8, {255, 255}},
        {"<f2", 2, {255, 0xbb}},
        {"<f4", 4, {255, 255, 255, 0xbd}},
        {">f4", 4, {0xbd, 255, 255, 255}},
        {"<f8", 8, {255, 255, 255, 255, 255, 255, 255, 0x3f}},
    };
    put_labels(100, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_array(cases[i].descr, cases[i].width, 100, 6, 5, cases[i].mask);
        check_same(pair(), "input 1x6x5\n" NET);
    }
    /* Items of more than what is read in one go, and of fewer. */
    put_array(NULL, 1, 40, 300, 300, NULL);
    put_labels(40, 4);
    check_same(pair(), "input 1x300x300\nmaxpool 50\n" NET);
    put_array("<f4", 4, 1000, 1, 2, cases[9].mask);
    put_labels(1000, 4);
    check_same(pair(), "input 1x1x2\n" NET);
}

static void tables_give_the_same_bits_from_their_files(void **state)
{
    (void)state;
    static const char *const forms[] = {"%s%d,%d.%03d,-%de-2,%s\n", "%s%d;%d.%03d;-%de-2;%s\r\n",
                                        "%s%d  %d.%03d -%de-2   %s\n"};
    static const char *const names[] = {"cod", "hake", "ling", "\"red  fish\""};
    for (int form = 0; form < 3; form++) {
        FILE *file = begin(path_csv);
        fputs(form ? "\xef\xbb\xbf"
                     "# words\n"
                   : "a,b,c,kind\n",
              file);
        for (int i = 0; i < 3000; i++)
            fprintf(file, forms[form], i % 97 == 5 ? "\n# between\n   \n" : "", i, i % 12, i * 37 % 1000,
                    i * i % 777, names[i * i % 4]);
        fprintf(file, "%s", form == 1 ? "1;2;3;cod" : "");
        assert_int_equal(fclose(file), 0);
        check_same(path_csv, "input 3\nlinear 16\nbatchnorm\nrelu\nlinear 4\n");
    }
}

static void sequences_may_hold_anything_beyond_their_lengths(void **state)
{
    (void)state;
    const unsigned char mask[] = {255, 255, 255, 0xbd};
    put_array("<f4", 4, 60, 2, 9, mask);
    put_labels(60, 3);
    FILE *file = begin(path_lengths);
    fwrite("\0\0\x08\1", 1, 4, file);
    put_dimension(file, 60);
    for (int i = 0; i < 60; i++) fputc(1 + i % 8, file);
    assert_int_equal(fclose(file), 0);
    float nothing = NAN;
    file = fopen(path_x, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    int64_t start = ftell(file) - 60 * 18 * 4;
    fclose(file);
    overwrite(path_x, start + (17 * 18 + 8) * 4, &nothing, sizeof nothing);
    snprintf(spec, sizeof spec, "%s,%s,%s", path_x, path_y, path_lengths);
    check_same(spec, "input 2x9\nconv1d 4 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nflatten\nlinear 3\n");
    overwrite(path_x, start + 17 * 18 * 4, &nothing, sizeof nothing);
    ek_dataset *d;
    keep(true);
    assert_fails(EK_E_NUMERIC, "x: item 17 holds a value that is not finite",
                 ek_dataset_open(spec, EK_SPLIT_ANY, &d));
    keep(false);
    assert_ok(ek_dataset_open(spec, EK_SPLIT_ANY, &d));
    float x[18];
    assert_ok(ek_dataset_item(d, 16, x, NULL));
    assert_fails(EK_E_NUMERIC, "x: item 17 holds a value that is not finite",
                 ek_dataset_item(d, 17, x, NULL));
    ek_dataset_destroy(d);
}

/* --- parts of files */

/* 11 pages of random bytes, and some. */
enum { PARTS_SIZE = 11 * 4096 + 100 };

static void check_parts(ek_file_parts *parts, int descriptor, int64_t n, size_t bytes)
{
    enum { MOST = 200 };
    int64_t offset[MOST];
    unsigned char *out = malloc((size_t)n * bytes), *one = malloc(bytes);
    assert_non_null(out);
    assert_non_null(one);
    for (int64_t i = 0; i < n; i++) offset[i] = i * 7919 % (PARTS_SIZE - (int64_t)bytes + 1);
    offset[n - 1] = PARTS_SIZE - (int64_t)bytes;
    assert_true(ek_file_parts_read(parts, offset, n, bytes, out));
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(pread(descriptor, one, bytes, offset[i]), (ssize_t)bytes);
        assert_memory_equal(out + (size_t)i * bytes, one, bytes);
    }
    free(one);
    free(out);
}

static void many_parts_of_a_file_are_read_at_once(void **state)
{
    (void)state;
    unsigned char out[8];
    ek_file_parts *parts, *none;
    FILE *file = begin(path_x);
    ek_random random = ek_random_start(1, EK_STREAM_TEST, 0);
    for (int i = 0; i < PARTS_SIZE; i++) fputc((int)ek_random_below(&random, 256), file);
    assert_int_equal(fclose(file), 0);
    int descriptor = open(path_x, O_RDONLY);
    assert_true(descriptor >= 0);
    assert_ok(ek_file_parts_open(descriptor, PARTS_SIZE, &parts));
    if (!parts) skip(); /* a system without files in memory */
    check_parts(parts, descriptor, 1, 1);
    check_parts(parts, descriptor, 64, 5);
    check_parts(parts, descriptor, 200, EK_PART_BYTES);

    const int64_t wrong[] = {-1, PARTS_SIZE - 7, INT64_MAX};
    for (int i = 0; i < 3; i++) assert_false(ek_file_parts_read(parts, &wrong[i], 1, 8, out));
    assert_false(ek_file_parts_read(parts, &(int64_t){0}, 1, EK_PART_BYTES + 1, NULL));

    /* More than memory, or than the process may write: not here. */
    assert_ok(ek_file_parts_open(descriptor, INT64_MAX, &none));
    assert_null(none);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1024;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_ok(ek_file_parts_open(descriptor, PARTS_SIZE, &none));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_null(none);

    /* Cut within the last page, which then ends in zeros, and by whole pages, which are no longer there. */
    const long ends[] = {PARTS_SIZE - 1, 4096};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(truncate(path_x, ends[i]), 0);
        assert_false(ek_file_parts_read(parts, &(int64_t){PARTS_SIZE - 8}, 1, 8, out));
    }
    ek_file_parts_close(parts);
    close(descriptor);
}

/* --- what cannot be read */

static char checkpoint[80];

static bool cut_the_file(void *user, const ek_event *event)
{
    if (event->kind == EK_EVENT_EPOCH) assert_int_equal(truncate(path_x, *(const long *)user), 0);
    return true;
}

static void a_file_that_is_cut_short_stops_the_run(void **state)
{
    (void)state;
    ek_dataset *d;
    ek_net *net;
    for (int way = 0; way < 4; way++) {
        int accumulate = 1 + way % 2;
        read_ahead(way / 2);
        long left = 16 + 95 * 30;
        ek_train_options options = ek_train_options_default();
        options.batch = 8;
        options.accumulate = accumulate;
        options.listener = cut_the_file;
        options.user = &left;
        options.checkpoint = checkpoint;
        snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", folder);
        put_array(NULL, 1, 100, 6, 5, NULL);
        put_labels(100, 4);
        keep(false);
        assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
        assert_ok(ek_net_create(context, "input 1x6x5\n" NET, NULL, &net));
        assert_fails(EK_E_FORMAT, "x: it is cut short", ek_train(net, d, NULL, &options));
        ek_net_destroy(net);
        ek_dataset_destroy(d);
        /* The checkpoint of the first epoch is whole. */
        put_array(NULL, 1, 100, 6, 5, NULL);
        assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
        assert_ok(ek_net_create(context, "input 1x6x5\n" NET, NULL, &net));
        options.listener = NULL;
        options.epochs = 2;
        options.resume = checkpoint;
        assert_ok(ek_train(net, d, NULL, &options));
        ek_net_destroy(net);
        ek_dataset_destroy(d);
        assert_int_equal(unlink(checkpoint), 0);
    }
}

static void a_changed_table_is_noticed(void **state)
{
    (void)state;
    ek_dataset *d;
    float x[2];
    FILE *file = begin(path_csv);
    for (int i = 0; i < 2000; i++) fprintf(file, "%04d,%04d,%d\n", i, 3 * i, i % 3);
    assert_int_equal(fclose(file), 0);
    keep(false);
    assert_ok(ek_dataset_open(path_csv, EK_SPLIT_ANY, &d));
    overwrite(path_csv, 1234 * 12, "12x4", 4);
    assert_ok(ek_dataset_item(d, 1233, x, NULL));
    assert_true(x[0] == 1233 && x[1] == 3699);
    assert_fails(EK_E_FORMAT, "row 1234 is no longer what it was", ek_dataset_item(d, 1234, x, NULL));
    assert_int_equal(truncate(path_csv, 1300L * 12), 0);
    assert_ok(ek_dataset_item(d, 100, x, NULL));
    assert_fails(EK_E_FORMAT, "table.csv: it is cut short", ek_dataset_item(d, 1999, x, NULL));
    ek_dataset_destroy(d);
}

static void what_cannot_be_read_in_parts_is_refused_when_large(void **state)
{
    (void)state;
    ek_dataset *d;
    char packed[80], command[256];
    put_labels(100, 4);
    put_array(NULL, 1, 100, 6, 5, NULL);
    snprintf(command, sizeof command, "gzip -k %s", path_x);
    assert_int_equal(system(command), 0);
    snprintf(packed, sizeof packed, "%s.gz", path_x);
    snprintf(spec, sizeof spec, "%s,%s", packed, path_y);
    setenv("EVENKEEL_DATA_MEMORY", "2999", 1);
    assert_fails(EK_E_UNSUPPORTED, "unpack it with gunzip", ek_dataset_open(spec, EK_SPLIT_ANY, &d));
    setenv("EVENKEEL_DATA_MEMORY", "3K", 1);
    assert_ok(ek_dataset_open(spec, EK_SPLIT_ANY, &d));
    ek_dataset_destroy(d);
    assert_int_equal(unlink(packed), 0);
    FILE *file = begin(path_x);
    fprintf(file, "\x93NUMPY\1%c%c%c{'descr': '|u1', 'fortran_order': True, 'shape': (50, 4)}\n", 0, 58, 0);
    for (int i = 0; i < 200; i++) fputc(i, file);
    assert_int_equal(fclose(file), 0);
    put_labels(50, 4);
    setenv("EVENKEEL_DATA_MEMORY", "100", 1);
    assert_fails(EK_E_UNSUPPORTED, "in Fortran order", ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
    keep(true);
    assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
    ek_dataset_destroy(d);
    file = begin(path_csv);
    for (int i = 0; i < 100; i++) fprintf(file, "%d,%d,%d\n", i, i, i % 3);
    assert_int_equal(fclose(file), 0);
    snprintf(command, sizeof command, "gzip -k %s", path_csv);
    assert_int_equal(system(command), 0);
    snprintf(packed, sizeof packed, "%s.gz", path_csv);
    setenv("EVENKEEL_DATA_MEMORY", "500", 1);
    assert_fails(EK_E_UNSUPPORTED, "gunzip", ek_dataset_open(packed, EK_SPLIT_ANY, &d));
    setenv("EVENKEEL_DATA_MEMORY", "800", 1);
    assert_ok(ek_dataset_open(packed, EK_SPLIT_ANY, &d));
    ek_dataset_destroy(d);
    assert_int_equal(unlink(packed), 0);
    const char *const wrong[] = {"some", "-1", "5X", "5GG", "99999999999999999999", "99999999999G"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("EVENKEEL_DATA_MEMORY", wrong[i], 1);
        assert_fails(EK_E_ARGUMENT, "EVENKEEL_DATA_MEMORY is '", ek_dataset_open(path_csv, EK_SPLIT_ANY, &d));
    }
}

/* --- shares of batches */

static ek_net *plain_net(void)
{
    ek_net *net;
    assert_ok(ek_net_create(context, "input 3\nlinear 4\n", NULL, &net));
    assert_ok(ek_net_prepare(net, 64, false));
    return net;
}

/* Floats [count, 3] that tell their place; where `share` of each batch of 8 does not want them, they are NaN. */
static void put_share(int64_t count, int first, int end)
{
    float *x = ek_calloc((size_t)count * 3, sizeof *x);
    for (int64_t i = 0; i < count; i++) {
        bool wanted = i % 8 >= first && i % 8 < end;
        for (int k = 0; k < 3; k++) x[3 * i + k] = wanted ? (float)(3 * i + k) : NAN;
    }
    assert_ok(ek_array_write(path_x, (ek_shape){2, {count, 3}}, x));
    ek_free(x);
}

static void a_share_is_all_that_is_read(void **state)
{
    (void)state;
    enum { N = 80 };
    int64_t index[N], n;
    for (int i = 0; i < N; i++) index[i] = i;
    put_labels(N, 4);
    keep(false);
    ek_net *net = plain_net();
    for (int way = 0; way < 4; way++) {
        int first = way % 2 ? 3 : 0, end = way % 2 ? 5 : 3;
        ek_dataset *d;
        ek_batches b = {.net = net, .index = index, .count = N, .batch = 8, .none_ahead = way >= 2};
        b.in_parts = true;
        b.shares = 8;
        b.share_first = first;
        b.share_end = end;
        put_share(N, first, end);
        assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
        b.dataset = d;
        assert_ok(ek_batches_start(&b));
        for (int64_t number = 0;; number++) {
            assert_ok(ek_batches_next(&b, &n));
            if (n == 0) break;
            for (int from = first; from < end; from++) {
                assert_ok(ek_batches_fill(&b, b.net, from, end - from));
                const float *x = ek_net_input(net);
                for (int i = 0; i < end - from; i++)
                    assert_true(x[EK_LANES + i] == (float)(3 * (8 * number + from + i) + 1));
            }
            if (!b.none_ahead) assert_fails(EK_E_ARGUMENT, "share", ek_batches_fill(&b, b.net, end, 1));
            for (int i = 0; i < 8; i++) assert_int_equal(b.labels[i], (8 * number + i) * 7 % 4);
        }
        ek_batches_end(&b);
        ek_dataset_destroy(d);
    }
    ek_net_destroy(net);
}

/* --- reading ahead */

static void slow_reading_is_done_ahead(void **state)
{
    (void)state;
    enum { N = 64, BATCH = 8 };
    /* Share of the time above which it is slow, and the batch before which reading ahead then begins. */
    const struct {
        double above;
        int begins;
    } cases[] = {{0, 0}, {1e-12, 4}, {INFINITY, N}};
    int64_t index[N], n;
    for (int i = 0; i < N; i++) index[i] = i * 37 % N;
    put_array(NULL, 1, N, 6, 5, NULL);
    put_labels(N, 4);
    keep(false);
    ek_net *net;
    ek_dataset *d;
    assert_ok(ek_net_create(context, "input 30\nlinear 4\n", NULL, &net));
    assert_ok(ek_net_prepare(net, BATCH, false));
    assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
    for (int i = 0; i < 3; i++) {
        ek_read_ahead_above = cases[i].above;
        ek_batches b = {.net = net, .dataset = d, .index = index, .count = N, .batch = BATCH};
        assert_ok(ek_batches_start(&b));
        for (int batch = 0; batch < N / BATCH; batch++) {
            assert_ok(ek_batches_next(&b, &n));
            assert_int_equal(b.ahead != NULL, batch >= cases[i].begins);
        }
        ek_batches_end(&b);
    }
    ek_dataset_destroy(d);
    ek_net_destroy(net);
}

static bool batches_of_five(const void *user, int64_t number, const int64_t **index, int64_t *n)
{
    *index = (const int64_t *)user + 5 * number;
    *n = number % 3 == 2 ? 0 : 5; /* some want nothing */
    return number < 20;
}

static void failures_come_in_order_and_batches_may_be_passed_over(void **state)
{
    (void)state;
    enum { N = 100 };
    float x[N * 3] = {0};
    int64_t index[N];
    for (int i = 0; i < N; i++) index[i] = (i * 37 + 11) % N;
    for (int i = 0; i < N * 3; i++) x[i] = (float)i;
    put_labels(N, 4);
    keep(false);
    for (int threads = 1; threads <= 8; threads++) {
        for (int step = 1; step <= 4; step++) {
            int bad[2] = {83, 61}; /* places in the order: in batches 16 and 12 */
            for (int i = 0; i < 2; i++) x[3 * index[bad[i]]] = NAN;
            assert_ok(ek_array_write(path_x, (ek_shape){2, {N, 3}}, x));
            for (int i = 0; i < 2; i++) x[3 * index[bad[i]]] = (float)(3 * index[bad[i]]);
            ek_dataset *d;
            ek_ahead *ahead;
            assert_ok(ek_dataset_open(pair(), EK_SPLIT_ANY, &d));
            ek_ahead_plan plan = {d, batches_of_five, index, 0, 5, threads, 2 + threads % 3};
            assert_ok(ek_ahead_start(&plan, &ahead));
            int64_t number = 0;
            ek_status status = EK_OK;
            for (; number < 20; number += step) {
                const unsigned char *items;
                int64_t n = number % 3 == 2 ? 0 : 5;
                status = ek_ahead_take(ahead, number, &items);
                if (status != EK_OK) break;
                for (int64_t i = 0; i < n; i++)
                    assert_memory_equal(items + i * 12, &x[3 * index[5 * number + i]], 12);
            }
            /* Batches that are passed over may have been read, and failed, or not. */
            if (step == 1) {
                char words[64];
                snprintf(words, sizeof words, "item %d holds a value", (int)index[bad[1]]);
                assert_int_equal(number, 12);
                assert_int_equal(status, EK_E_NUMERIC);
                assert_non_null(strstr(ek_error(), words));
            } else if (number < 20) {
                assert_true(number >= 12);
                assert_int_equal(status, EK_E_NUMERIC);
            }
            ek_ahead_stop(ahead);
            ek_dataset_destroy(d);
        }
    }
}

static void want_of_memory_is_survived(void **state)
{
    (void)state;
    put_array("<f4", 4, 60, 2, 9, (const unsigned char[]){255, 255, 255, 0xbd});
    put_labels(60, 3);
    FILE *file = begin(path_csv);
    for (int i = 0; i < 600; i++) fprintf(file, "%d,%d,%s\n", i, 3 * i, i % 2 ? "a" : "b");
    assert_int_equal(fclose(file), 0);
    for (int way = 0; way < 8; way++) {
        keep(way % 2);
        read_ahead(way / 2 % 2);
        for (failing f = {0}; fail_next(&f);) {
            ek_dataset *d = NULL;
            int64_t index[32], n;
            for (int i = 0; i < 32; i++) index[i] = i;
            f.status = ek_dataset_open(way < 4 ? pair() : path_csv, EK_SPLIT_ANY, &d);
            if (f.status != EK_OK) continue;
            ek_net *net = NULL;
            f.status =
                ek_net_create(context, way < 4 ? "input 18\nlinear 3\n" : "input 2\nlinear 2\n", NULL, &net);
            if (f.status == EK_OK) f.status = ek_net_prepare(net, 32, false);
            ek_batches b = {.net = net, .dataset = d, .index = index, .count = 32, .batch = 8};
            if (f.status == EK_OK) f.status = ek_batches_start(&b);
            if (f.status == EK_OK) f.status = ek_batches_next(&b, &n);
            if (net) ek_batches_end(&b);
            ek_net_destroy(net);
            ek_dataset_destroy(d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_give_the_same_bits_from_their_files),
        cmocka_unit_test(tables_give_the_same_bits_from_their_files),
        cmocka_unit_test(sequences_may_hold_anything_beyond_their_lengths),
        cmocka_unit_test(many_parts_of_a_file_are_read_at_once),
        cmocka_unit_test(a_file_that_is_cut_short_stops_the_run),
        cmocka_unit_test(a_changed_table_is_noticed),
        cmocka_unit_test(what_cannot_be_read_in_parts_is_refused_when_large),
        cmocka_unit_test(a_share_is_all_that_is_read),
        cmocka_unit_test(failures_come_in_order_and_batches_may_be_passed_over),
        cmocka_unit_test(slow_reading_is_done_ahead),
        cmocka_unit_test(want_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, set_up, take_down);
}
