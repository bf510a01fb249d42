/* Data sets, their order, and the batches made of them. */
#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "data/batches.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* A folder that exists for the tests' time; $EVENKEEL_DATA, with nothing else to be found. */
static char folder[] = "/tmp/evenkeel-data-XXXXXX";
static char name_buffer[256];

static const char *in_folder(const char *name)
{
    snprintf(name_buffer, sizeof name_buffer, "%s/%s", folder, name);
    return name_buffer;
}

/* Where named sets are looked for: NULL or names below the folder. */
static void set_places(const char *data, const char *shared, const char *home)
{
    const char *const variable[] = {"EVENKEEL_DATA", "XDG_DATA_HOME", "HOME"};
    const char *const value[] = {data, shared, home};
    for (int i = 0; i < 3; i++) {
        if (value[i])
            setenv(variable[i], in_folder(value[i]), 1);
        else
            unsetenv(variable[i]);
    }
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    set_places("", "nothing", "nothing");
    return 0;
}

static const char *const files[] = {
    "x.npy",
    "y.npy",
    "train_x.npy",
    "train_y.npy",
    "test_x.npy",
    "test_y.npy",
    "lengths.npy",
    "test_lengths.npy",
    "table.csv",
    "table.csv.gz",
    "other.bin",
    "train-images.idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
};

static void empty_folder(void)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) unlink(in_folder(files[i]));
}

static int remove_folder(void **state)
{
    (void)state;
    empty_folder();
    return rmdir(folder);
}

static void put(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}
#define PUT(name, literal) put((name), (literal), sizeof(literal) - 1)

static void put_gzip(const char *name, const char *bytes, unsigned size)
{
    gzFile file = gzopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, size), (int)size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void put_npy(const char *name, int rank, const int64_t *dim, const float *data)
{
    ek_shape shape = {.rank = rank};
    for (int i = 0; i < rank; i++) shape.dim[i] = dim[i];
    assert_ok(ek_array_write(in_folder(name), shape, data));
}
#define DIMS(...) \
    (const int64_t[]) { __VA_ARGS__ }

static ek_status open_pair(ek_split split, ek_dataset **out)
{
    char spec[512];
    snprintf(spec, sizeof spec, "%s/x.npy,%s/y.npy", folder, folder);
    return ek_dataset_open(spec, split, out);
}

static const float numbers[48] = {0.5f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/* --- opening */

static void arrays_make_a_set(void **state)
{
    (void)state;
    ek_dataset *d;
    put_npy("x.npy", 3, DIMS(2, 2, 3), numbers);
    put_npy("y.npy", 1, DIMS(2), (const float[]){3, 0});
    assert_ok(open_pair(EK_SPLIT_ANY, &d));
    assert_int_equal(ek_dataset_count(d), 2);
    assert_int_equal(ek_dataset_classes(d), 4);
    assert_null(ek_dataset_class(d, 0));
    ek_shape shape = ek_dataset_shape(d);
    assert_true(shape.rank == 3 && shape.dim[0] == 1 && shape.dim[1] == 2 && shape.dim[2] == 3);
    float x[6];
    int label;
    assert_ok(ek_dataset_item(d, 1, x, &label));
    assert_memory_equal(x, numbers + 6, sizeof x);
    assert_int_equal(label, 0);
    assert_fails(EK_E_ARGUMENT, "no item 2", ek_dataset_item(d, 2, x, &label));
    ek_dataset_destroy(d);
    assert_fails(EK_E_NOT_FOUND, "without a test split", open_pair(EK_SPLIT_TEST, &d));

    put_npy("x.npy", 4, DIMS(1, 3, 1, 2), numbers);
    put_npy("y.npy", 2, DIMS(1, 1), numbers + 1);
    assert_ok(open_pair(EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_shape(d).dim[0], 3);
    ek_dataset_destroy(d);
}

/* --- sequences with lengths */

static ek_status open_sequences(ek_dataset **out)
{
    char spec[768];
    snprintf(spec, sizeof spec, "%s/x.npy,%s/y.npy,%s/lengths.npy", folder, folder, folder);
    return ek_dataset_open(spec, EK_SPLIT_ANY, out);
}

static void sequences_have_lengths(void **state)
{
    (void)state;
    ek_dataset *d;
    float padded[12], x[6];
    memcpy(padded, numbers, sizeof padded);
    padded[2] = padded[5] = NAN; /* beyond the length */
    put_npy("x.npy", 3, DIMS(2, 2, 3), padded);
    put_npy("y.npy", 1, DIMS(2), (const float[]){3, 0});
    put_npy("lengths.npy", 1, DIMS(2), (const float[]){2, 3});
    assert_ok(open_sequences(&d));
    ek_shape shape = ek_dataset_shape(d);
    assert_true(shape.rank == 2 && shape.dim[0] == 2 && shape.dim[1] == 3);
    assert_int_equal(ek_dataset_length(d, 0), 2);
    assert_int_equal(ek_dataset_length(d, 1), 3);
    assert_int_equal(ek_dataset_length(d, 2), 0);
    assert_ok(ek_dataset_item(d, 1, x, NULL));
    assert_memory_equal(x, numbers + 6, sizeof x);
    ek_dataset_destroy(d);

    put_npy("x.npy", 2, DIMS(2, 6), numbers);
    put_npy("lengths.npy", 2, DIMS(2, 1), (const float[]){6, 1});
    assert_ok(open_sequences(&d));
    shape = ek_dataset_shape(d);
    assert_true(shape.rank == 2 && shape.dim[0] == 1 && shape.dim[1] == 6);
    ek_dataset_destroy(d);
    assert_ok(open_pair(EK_SPLIT_ANY, &d));
    assert_int_equal(ek_dataset_length(d, 0), 0);
    ek_dataset_destroy(d);
}

static void lengths_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    ek_dataset *d;
    int32_t read[3];
    char path[512];
    snprintf(path, sizeof path, "%s/lengths.npy", folder);
    put_npy("x.npy", 3, DIMS(3, 2, 2), numbers);
    put_npy("y.npy", 1, DIMS(3), (const float[]){0, 1, 0});
    put_npy("lengths.npy", 1, DIMS(2), (const float[]){1, 1});
    assert_fails(EK_E_SHAPE, "lengths.npy has 2 lengths, but there are 3 sequences", open_sequences(&d));
    assert_fails(EK_E_SHAPE, "lengths.npy has 2 lengths", ek_lengths_read(path, 3, 2, read));
    const float wrong[] = {0, 3, -1, 1.5f, NAN, INFINITY};
    for (int i = 0; i < 6; i++) {
        put_npy("lengths.npy", 1, DIMS(3), (const float[]){1, wrong[i], 2});
        assert_fails(EK_E_FORMAT, "the length of sequence 1 is not a whole number from 1 to 2",
                     open_sequences(&d));
    }
    put_npy("lengths.npy", 2, DIMS(3, 2), numbers + 1);
    assert_fails(EK_E_SHAPE, "lengths are [n]", open_sequences(&d));
    put_npy("lengths.npy", 1, DIMS(3), (const float[]){1, 2, 2});
    assert_ok(ek_lengths_read(path, 3, 2, read));
    assert_true(read[0] == 1 && read[1] == 2 && read[2] == 2);
    float infinite[12];
    memcpy(infinite, numbers, sizeof infinite);
    infinite[5] = INFINITY; /* the last of sequence 1, which is alive */
    put_npy("x.npy", 3, DIMS(3, 2, 2), infinite);
    assert_fails(EK_E_NUMERIC, "item 1 holds a value that is not finite", open_sequences(&d));
    put_npy("x.npy", 4, DIMS(3, 1, 2, 2), numbers);
    assert_fails(EK_E_SHAPE, "sequences with lengths are [n, channels, positions]", open_sequences(&d));
    put_npy("x.npy", 3, DIMS(3, 2, 2), numbers);
    assert_int_equal(unlink(path), 0);
    assert_fails(EK_E_NOT_FOUND, "lengths.npy", open_sequences(&d));
}

/* Which data fit which nets. */
static void sequences_fit_nets_of_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *net;
        bool fits, with_lengths; /* data without lengths, with them */
    } rows[] = {{"input 2x3\nflatten\nlinear 4", true, true},
                {"input 3x2\nflatten\nlinear 4", false, false},
                {"input 1x2x3\nflatten\nlinear 4", true, false},
                {"input 6\nlinear 4", true, false},
                {"input 1x6\nflatten\nlinear 4", false, false}};
    ek_context *context;
    ek_dataset *plain, *sequences;
    put_npy("x.npy", 3, DIMS(2, 2, 3), numbers);
    put_npy("y.npy", 1, DIMS(2), (const float[]){3, 0});
    put_npy("lengths.npy", 1, DIMS(2), (const float[]){2, 3});
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(open_pair(EK_SPLIT_ANY, &plain));
    assert_ok(open_sequences(&sequences));
    for (int i = 0; i < 5; i++) {
        ek_net *net;
        assert_ok(ek_net_create(context, rows[i].net, NULL, &net));
        assert_int_equal(ek_dataset_check(plain, net) == EK_OK, rows[i].fits);
        assert_int_equal(ek_dataset_check(sequences, net) == EK_OK, rows[i].with_lengths);
        if (!rows[i].with_lengths)
            assert_non_null(strstr(ek_error(), "items are 2x3, sequences with lengths, the net's"));
        ek_net_destroy(net);
    }
    ek_dataset_destroy(sequences);
    ek_dataset_destroy(plain);
    ek_context_destroy(context);
}

/* --- */

static void arrays_that_do_not_meet_are_refused(void **state)
{
    (void)state;
    ek_dataset *d;
    put_npy("x.npy", 2, DIMS(3, 4), numbers);
    put_npy("y.npy", 1, DIMS(2), numbers + 1);
    assert_fails(EK_E_SHAPE, "x.npy has 3 items, but", open_pair(EK_SPLIT_ANY, &d));
    put_npy("y.npy", 2, DIMS(3, 2), numbers + 1);
    assert_fails(EK_E_SHAPE, "labels are [n]", open_pair(EK_SPLIT_ANY, &d));
    const float wrong[] = {-1, 0.5f, 65536, NAN, INFINITY};
    for (int i = 0; i < 5; i++) {
        put_npy("y.npy", 1, DIMS(3), (const float[]){0, wrong[i], 1});
        assert_fails(EK_E_FORMAT, "the label of item 1 is not a whole number from 0 to 65535",
                     open_pair(EK_SPLIT_ANY, &d));
    }
    put_npy("y.npy", 1, DIMS(3), (const float[]){0, 65535, 1});
    assert_ok(open_pair(EK_SPLIT_ANY, &d));
    assert_int_equal(ek_dataset_classes(d), 65536);
    ek_dataset_destroy(d);
    put_npy("x.npy", 1, DIMS(3), numbers);
    assert_fails(EK_E_SHAPE, "has 1 dimensions", open_pair(EK_SPLIT_ANY, &d));
    const int64_t channels[] = {1, 3, 4};
    for (int i = 0; i < 3; i++) {
        put_npy("x.npy", 4, DIMS(1, 5, 2, channels[i]), numbers);
        assert_fails(EK_E_SHAPE, ", which looks like [n, height, width, channels]",
                     open_pair(EK_SPLIT_ANY, &d));
    }
    put_npy("x.npy", 2, DIMS(0, 4), numbers);
    assert_fails(EK_E_FORMAT, "holds no items", open_pair(EK_SPLIT_ANY, &d));
    assert_int_equal(unlink(in_folder("y.npy")), 0);
    assert_fails(EK_E_NOT_FOUND, "y.npy", open_pair(EK_SPLIT_ANY, &d));
}

static void tables_make_a_set(void **state)
{
    (void)state;
    ek_dataset *d;
    float x[2];
    int label;
    PUT("table.csv", "a,b,kind\n1,2,cat\n3,4,dog\n5,6,cat\n");
    assert_ok(ek_dataset_open(in_folder("table.csv"), EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_count(d), 3);
    assert_int_equal(ek_dataset_classes(d), 2);
    assert_string_equal(ek_dataset_class(d, 1), "dog");
    assert_null(ek_dataset_class(d, 2));
    assert_ok(ek_dataset_item(d, 2, x, &label));
    assert_true(x[0] == 5 && x[1] == 6 && label == 0);
    ek_dataset_destroy(d);
    assert_fails(EK_E_NOT_FOUND, "without a test split",
                 ek_dataset_open(in_folder("table.csv"), EK_SPLIT_TEST, &d));
    put_gzip("table.csv.gz", "1,2,0\n", 6);
    assert_ok(ek_dataset_open(in_folder("table.csv.gz"), EK_SPLIT_ANY, &d));
    ek_dataset_destroy(d);
    PUT("table.csv", "1,2,0.5\n");
    assert_fails(EK_E_FORMAT, "the label of item 0",
                 ek_dataset_open(in_folder("table.csv"), EK_SPLIT_ANY, &d));
    PUT("table.csv", "1\n2\n");
    assert_fails(EK_E_FORMAT, "has one column", ek_dataset_open(in_folder("table.csv"), EK_SPLIT_ANY, &d));
}

static void folders_have_splits(void **state)
{
    (void)state;
    ek_dataset *d;
    empty_folder();
    assert_fails(EK_E_NOT_FOUND, "has no train data", ek_dataset_open(folder, EK_SPLIT_ANY, &d));
    put_npy("train_x.npy", 2, DIMS(3, 4), numbers);
    assert_fails(EK_E_NOT_FOUND, "train images but no labels", ek_dataset_open(folder, EK_SPLIT_TRAIN, &d));
    put_npy("train_y.npy", 1, DIMS(3), (const float[]){0, 1, 2});
    assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d)); /* the only one */
    assert_int_equal(ek_dataset_count(d), 3);
    ek_dataset_destroy(d);
    assert_fails(EK_E_NOT_FOUND, "has no test data", ek_dataset_open(folder, EK_SPLIT_TEST, &d));
    put_npy("test_x.npy", 2, DIMS(2, 4), numbers);
    put_npy("test_y.npy", 1, DIMS(2), (const float[]){0, 1});
    assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d)); /* the test split where there is one */
    assert_int_equal(ek_dataset_count(d), 2);
    ek_dataset_destroy(d);
    put_npy("test_lengths.npy", 1, DIMS(2), (const float[]){4, 3});
    assert_ok(ek_dataset_open(folder, EK_SPLIT_TEST, &d));
    assert_int_equal(ek_dataset_length(d, 1), 3);
    ek_dataset_destroy(d);
    assert_ok(ek_dataset_open(folder, EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_length(d, 1), 0);
    ek_dataset_destroy(d);
}

static const char two_images[] = "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01"
                                 "ab";

static void named_sets_are_looked_for(void **state)
{
    (void)state;
    ek_dataset *d;
    empty_folder();
    PUT("train-images.idx3-ubyte", two_images);
    PUT("train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\x02\x07\x02");
    assert_ok(ek_dataset_open("mnist", EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_count(d), 2);
    assert_int_equal(ek_dataset_classes(d), 10);
    assert_string_equal(ek_dataset_class(d, 7), "7");
    ek_dataset_destroy(d);
    PUT("train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\x02\x07\x0a");
    assert_fails(EK_E_FORMAT, "label 10 is out of range; there are 10 classes",
                 ek_dataset_open("mnist", EK_SPLIT_TRAIN, &d));
    PUT("train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\x03\x07\x02");
    assert_fails(EK_E_FORMAT, "train-labels-idx1-ubyte", ek_dataset_open("mnist", EK_SPLIT_TRAIN, &d));
    assert_fails(EK_E_NOT_FOUND, "get it with scripts/get-data.sh mnist (looked in",
                 ek_dataset_open("mnist", EK_SPLIT_TEST, &d));
    empty_folder();
}

/* Two images, their labels packed, in a folder below the folder: mnist is found there. */
static void mnist_is_found_in(const char *place)
{
    char images[128], labels[128], path[256];
    ek_dataset *d;
    snprintf(images, sizeof images, "%s/train-images-idx3-ubyte", place);
    snprintf(labels, sizeof labels, "%s/train-labels-idx1-ubyte.gz", place);
    snprintf(path, sizeof path, "%s", in_folder(images));
    char *const first = path + strlen(folder) + 1;
    for (char *end = first; (end = strchr(end, '/')); *end++ = '/') {
        *end = '\0';
        assert_int_equal(mkdir(path, 0777), 0);
    }
    PUT(images, two_images);
    put_gzip(labels, "\0\0\x08\x01\0\0\0\x02\x07\x02", 10);
    assert_ok(ek_dataset_open("mnist", EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_count(d), 2);
    ek_dataset_destroy(d);
    assert_int_equal(unlink(in_folder(labels)), 0);
    assert_int_equal(unlink(path), 0);
    for (char *end; (end = strrchr(first, '/'));) {
        *end = '\0';
        assert_int_equal(rmdir(path), 0);
    }
}

static void named_sets_are_found_in_each_place(void **state)
{
    (void)state;
    set_places("own", "shared", "home");
    mnist_is_found_in("own/mnist");
    mnist_is_found_in("own");
    mnist_is_found_in("shared/evenkeel/mnist");
    set_places(NULL, NULL, "home");
    mnist_is_found_in("home/.local/share/evenkeel/mnist");
    set_places("", "nothing", "nothing");
}

static void unknown_data_is_explained(void **state)
{
    (void)state;
    ek_dataset *d;
    assert_fails(EK_E_ARGUMENT, "no data is named", ek_dataset_open("", EK_SPLIT_ANY, &d));
    assert_fails(EK_E_NOT_FOUND, "did you mean fashion-mnist?",
                 ek_dataset_open("fashionmnist", EK_SPLIT_ANY, &d));
    assert_fails(EK_E_NOT_FOUND, "no data '/no/such'", ek_dataset_open("/no/such", EK_SPLIT_ANY, &d));
    PUT("other.bin", "?");
    assert_fails(EK_E_FORMAT, "is not a data set", ek_dataset_open(in_folder("other.bin"), EK_SPLIT_ANY, &d));
}

static void real_fashion_mnist(void **state)
{
    (void)state;
    ek_dataset *d;
    if (access("/usr/share/datasets/fashion-mnist", F_OK) != 0) skip();
    assert_ok(ek_dataset_open("fashion-mnist", EK_SPLIT_ANY, &d));
    assert_int_equal(ek_dataset_count(d), 10000);
    int64_t of_class[10] = {0};
    for (int64_t i = 0; i < 10000; i++) of_class[d->label[i]]++;
    for (int k = 0; k < 10; k++) assert_int_equal(of_class[k], 1000);
    assert_string_equal(ek_dataset_class(d, d->label[0]), "Ankle boot");
    ek_dataset_destroy(d);
    assert_ok(ek_dataset_open("fashion-mnist", EK_SPLIT_TRAIN, &d));
    assert_int_equal(ek_dataset_count(d), 60000);
    double sum = 0;
    for (int64_t i = 0; i < 60000 * 784; i++) sum += d->bytes[i];
    assert_true(fabs(sum / (60000.0 * 784 * 255) - 0.2860) < 1e-4); /* the mean that everyone uses */
    ek_dataset_destroy(d);
}

static void synthetic_data_is_always_the_same(void **state)
{
    (void)state;
    const char *const specs[] = {"synthetic", "synthetic:3x8x9", "synthetic:20"};
    const int64_t items[] = {784, 216, 20};
    for (int i = 0; i < 3; i++) {
        ek_dataset *a, *b, *test;
        assert_ok(ek_dataset_open(specs[i], EK_SPLIT_TRAIN, &a));
        assert_ok(ek_dataset_open(specs[i], EK_SPLIT_TRAIN, &b));
        assert_ok(ek_dataset_open(specs[i], EK_SPLIT_TEST, &test));
        assert_int_equal(a->count, 8000);
        assert_int_equal(test->count, 2000);
        assert_int_equal(a->item, items[i]);
        assert_int_equal(a->classes, 10);
        assert_memory_equal(a->label, b->label, 8000 * sizeof *a->label);
        size_t size = a->bytes ? 1 : sizeof(float);
        const void *x = a->bytes ? (void *)a->bytes : a->floats, *y = b->bytes ? (void *)b->bytes : b->floats;
        assert_memory_equal(x, y, 8000 * (size_t)a->item * size);
        assert_memory_not_equal(x, test->bytes ? (void *)test->bytes : test->floats,
                                2000 * (size_t)a->item * size);
        ek_dataset_destroy(a);
        ek_dataset_destroy(b);
        ek_dataset_destroy(test);
    }
    ek_dataset *d;
    const char *const wrong[] = {"synthetic:",   "synthetic:3x32", "synthetic:0",      "synthetic:1x0x5",
                                 "synthetic:-3", "synthetic:20x",  "synthetic:1x2x3x4"};
    for (int i = 0; i < 7; i++)
        assert_fails(EK_E_ARGUMENT, "cannot read 'synthetic:", ek_dataset_open(wrong[i], EK_SPLIT_ANY, &d));
    assert_fails(EK_E_ARGUMENT, "at most 65536", ek_dataset_open("synthetic:3x999x999", EK_SPLIT_ANY, &d));
    assert_fails(EK_E_ARGUMENT, "at most 16384", ek_dataset_open("synthetic:16385", EK_SPLIT_ANY, &d));
}

/* Two pixels in a row: ff0033 and 0033ff. */
static const char colour_png[] =
    "\211PNG\015\012\032\012"
    "\000\000\000\015IHDR\000\000\000\002\000\000\000\001\010\002\000\000\000{@\350\335"
    "\000\000\000\017IDATx\234c\370\317`\314`\374\037\000\0102\002e\030\362\315\334"
    "\000\000\000\000IEND\256B`\202";

static void items_to_predict(void **state)
{
    (void)state;
    ek_dataset *d;
    const ek_shape image = {3, {1, 2, 3}}, colour = {3, {3, 1, 2}}, flat = {1, {6}};
    float x[6];
    int label;
    struct {
        int rank;
        int64_t dim[4];
        ek_shape shape;
        int64_t count;
    } good[] = {
        {2, {2, 3}, image, 1},       {3, {1, 2, 3}, image, 1}, {3, {4, 2, 3}, image, 4},
        {4, {2, 1, 2, 3}, image, 2}, {1, {6}, image, 1},       {2, {3, 6}, image, 3},
        {3, {3, 1, 2}, colour, 1},   {1, {6}, flat, 1},        {3, {5, 2, 3}, flat, 5},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        put_npy("x.npy", good[i].rank, good[i].dim, numbers);
        assert_ok(ek_dataset_open_items(in_folder("x.npy"), good[i].shape, &d));
        assert_int_equal(ek_dataset_count(d), good[i].count);
        assert_ok(ek_dataset_item(d, 0, x, &label));
        assert_memory_equal(x, numbers, sizeof x);
        assert_int_equal(label, -1);
        ek_dataset_destroy(d);
    }
    put_npy("x.npy", 3, DIMS(2, 3, 2), numbers);
    assert_fails(EK_E_SHAPE, "is 2x3x2, but items of 1x2x3 are wanted",
                 ek_dataset_open_items(in_folder("x.npy"), image, &d));
    put_npy("x.npy", 2, DIMS(0, 6), numbers);
    assert_fails(EK_E_SHAPE, "is 0x6, but", ek_dataset_open_items(in_folder("x.npy"), flat, &d));
    PUT("x.npy", "\0\0\x08\x02\0\0\0\x02\0\0\0\x03"
                 "\0\x33\xff\0\0\0");
    assert_ok(ek_dataset_open_items(in_folder("x.npy"), image, &d));
    assert_ok(ek_dataset_item(d, 0, x, NULL));
    assert_true(x[0] == 0 && x[1] == 0.2f && x[2] == 1);
    ek_dataset_destroy(d);
    PUT("x.npy", colour_png);
    ek_status status = ek_dataset_open_items(in_folder("x.npy"), colour, &d);
    if (status != EK_E_UNSUPPORTED) { /* a build without libpng */
        assert_ok(status);
        assert_ok(ek_dataset_item(d, 0, x, NULL));
        assert_memory_equal(x, ((const float[]){1, 0, 0, 0.2f, 0.2f, 1}), sizeof x);
        ek_dataset_destroy(d);
    }
    PUT("x.npy", "\x89PNG but no more");
    status = ek_dataset_open_items(in_folder("x.npy"), image, &d);
    assert_true(status == EK_E_FORMAT || status == EK_E_UNSUPPORTED);
    assert_fails(EK_E_NOT_FOUND, "/no/such", ek_dataset_open_items("/no/such", image, &d));
}

/* --- fitting a net */

static ek_status check(const char *text, const char *data)
{
    ek_context *context;
    ek_net *net;
    ek_dataset *d;
    assert_ok(ek_context_create(NULL, &context));
    assert_ok(ek_net_create(context, text, NULL, &net));
    assert_ok(ek_dataset_open(data, EK_SPLIT_TEST, &d));
    ek_status status = ek_dataset_check(d, net);
    ek_dataset_destroy(d);
    ek_net_destroy(net);
    ek_context_destroy(context);
    return status;
}

static void data_and_net_must_meet(void **state)
{
    (void)state;
    assert_ok(check("input 1x28x28\nflatten\nlinear 10\n", "synthetic"));
    assert_ok(check("input 784\nlinear 10\n", "synthetic"));
    assert_ok(check("input 1x28x28\nflatten\nlinear 10\n", "synthetic:784"));
    assert_fails(EK_E_SHAPE, "items are 1x28x28, the net's input is 3x32x32",
                 check("input 3x32x32\nflatten\nlinear 10\n", "synthetic"));
    assert_fails(EK_E_SHAPE, "items are 20, the net's input is 784",
                 check("input 784\nlinear 10\n", "synthetic:20"));
    assert_fails(EK_E_SHAPE, "the data has 10 classes, the net has 5 outputs",
                 check("input 784\nlinear 5\n", "synthetic"));
    assert_fails(EK_E_SHAPE, "the net's output is 1x28x28", check("input 1x28x28\nrelu\n", "synthetic"));
}

/* --- order */

static void splits_are_by_seed(void **state)
{
    (void)state;
    int64_t *train, *valid, train_count, valid_count, *again, *again_valid;
    assert_ok(ek_split_indices(101, 0.2, 7, &train, &train_count, &valid, &valid_count));
    assert_int_equal(train_count, 81);
    assert_int_equal(valid_count, 20);
    int seen[101] = {0};
    for (int64_t i = 0; i < train_count; i++) seen[train[i]]++;
    for (int64_t i = 0; i < valid_count; i++) seen[valid[i]]++;
    for (int i = 0; i < 101; i++) assert_int_equal(seen[i], 1);
    for (int64_t i = 1; i < train_count; i++) assert_true(train[i] > train[i - 1]);
    for (int64_t i = 1; i < valid_count; i++) assert_true(valid[i] > valid[i - 1]);
    assert_ok(ek_split_indices(101, 0.2, 7, &again, &train_count, &again_valid, &valid_count));
    assert_memory_equal(valid, again_valid, 20 * sizeof *valid);
    ek_free(again);
    ek_free(again_valid);
    assert_ok(ek_split_indices(101, 0.2, 8, &again, &train_count, &again_valid, &valid_count));
    assert_memory_not_equal(valid, again_valid, 20 * sizeof *valid);
    ek_free(again);
    ek_free(again_valid);
    ek_free(train);
    ek_free(valid);
    assert_ok(ek_split_indices(3, 0, 7, &train, &train_count, &valid, &valid_count));
    assert_true(train_count == 3 && valid_count == 0);
    ek_free(train);
    ek_free(valid);
    assert_fails(EK_E_ARGUMENT, "not 1",
                 ek_split_indices(3, 1, 7, &train, &train_count, &valid, &valid_count));
    assert_fails(EK_E_ARGUMENT, "not nan",
                 ek_split_indices(3, NAN, 7, &train, &train_count, &valid, &valid_count));
    assert_fails(EK_E_ARGUMENT, "nothing to validate on",
                 ek_split_indices(3, 0.1, 7, &train, &train_count, &valid, &valid_count));
    assert_fails(EK_E_ARGUMENT, "nothing to train on",
                 ek_split_indices(3, 0.9, 7, &train, &train_count, &valid, &valid_count));
}

static void epochs_are_by_seed_and_number(void **state)
{
    (void)state;
    enum { N = 50 };
    int64_t a[N], b[N], sorted[N];
    for (int i = 0; i < N; i++) a[i] = b[i] = 3 * (N - i);
    assert_ok(ek_epoch_order(a, N, 1, 5, true));
    assert_ok(ek_epoch_order(b, N, 1, 4, true)); /* whatever came before */
    assert_memory_not_equal(a, b, sizeof a);
    assert_ok(ek_epoch_order(b, N, 1, 5, true));
    assert_memory_equal(a, b, sizeof a);
    assert_ok(ek_epoch_order(b, N, 2, 5, true));
    assert_memory_not_equal(a, b, sizeof a);
    assert_ok(ek_epoch_order(b, N, 1, 5, false));
    for (int i = 0; i < N; i++) sorted[i] = 3 * (i + 1);
    assert_memory_equal(b, sorted, sizeof b);
}

static void a_last_batch_of_one_is_joined(void **state)
{
    (void)state;
    struct {
        int64_t count, batch;
        bool drop;
        int64_t batches, last; /* how many, and the last one's size */
    } cases[] = {
        {10, 5, false, 2, 5}, {11, 5, false, 2, 6}, {12, 5, false, 3, 2}, {11, 5, true, 2, 5},
        {12, 5, true, 2, 5},  {1, 5, false, 1, 1},  {3, 5, false, 1, 3},  {3, 5, true, 0, 0},
        {3, 1, false, 3, 1},  {6, 5, false, 1, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t n = ek_batch_count(cases[i].count, cases[i].batch, cases[i].drop), next = 0;
        assert_int_equal(n, cases[i].batches);
        for (int64_t b = 0; b < n; b++) {
            int64_t first, size;
            ek_batch_range(cases[i].count, cases[i].batch, cases[i].drop, b, &first, &size);
            assert_int_equal(first, next);
            assert_int_equal(size, b == n - 1 ? cases[i].last : cases[i].batch);
            next += size;
        }
    }
}

/* --- batches */

/* A set of random values: bytes, or floats. */
static ek_dataset *random_set(int64_t count, ek_shape shape, bool bytes)
{
    ek_dataset *d = ek_calloc(1, sizeof *d);
    d->count = count;
    d->shape = shape;
    d->item = 1;
    for (int i = 0; i < shape.rank; i++) d->item *= shape.dim[i];
    d->label = ek_calloc((size_t)count, sizeof *d->label);
    ek_random random = ek_random_start(3, EK_STREAM_TEST, 0);
    for (int64_t i = 0; i < count; i++) d->label[i] = (int32_t)ek_random_below(&random, 10);
    if (bytes)
        d->bytes = ek_calloc((size_t)(count * d->item), 1);
    else
        d->floats = ek_calloc((size_t)(count * d->item), sizeof(float));
    for (int64_t i = 0; i < count * d->item; i++) {
        if (bytes)
            d->bytes[i] = (unsigned char)ek_random_u32(&random);
        else
            d->floats[i] = (float)ek_random_normal(&random);
    }
    return d;
}

/* Value `i` of sample `index[sample]`, as the formula says. */
static float expected_value(const ek_dataset *d, const ek_pixels *p, int64_t index, int64_t i)
{
    float *item = ek_calloc((size_t)d->item, sizeof *item);
    assert_ok(ek_dataset_item(d, index, item, NULL));
    int64_t c = p->channels == 1 ? 0 : i / (d->item / p->channels);
    float value = (float)((item[i] - p->mean[c]) / p->std[c]);
    ek_free(item);
    return value;
}

/* A net that is no more than an input, for batches to be written into. */
static ek_net *input_net(ek_context *context, const char *input)
{
    char text[128];
    ek_net *net;
    bool image = strchr(input, 'x') != NULL;
    snprintf(text, sizeof text, "input %s\n%slinear 2\n", input, image ? "flatten\n" : "");
    assert_ok(ek_net_create(context, text, NULL, &net));
    return net;
}

static void check_batch(ek_net *net, const ek_dataset *d, const int64_t *index, int64_t n)
{
    ek_pixels pixels = ek_net_pixels(net);
    const float *x = ek_net_input(net);
    for (int64_t s = 0; s < ek_blocks(n) * EK_LANES; s++) {
        for (int64_t i = 0; i < d->item; i++) {
            float value = x[(s / EK_LANES * d->item + i) * EK_LANES + s % EK_LANES];
            float wanted = s < n ? expected_value(d, &pixels, index[s], i) : 0; /* dead lanes are zero */
            if (value != wanted)
                fail_msg("sample %d of %d, value %d is %g, not %g", (int)s, (int)n, (int)i, value, wanted);
        }
    }
}

static void batches_hold_what_the_formula_says(void **state)
{
    (void)state;
    static const struct {
        const char *input;
        ek_shape shape; /* of the data */
    } cases[] = {
        {"3x5x7 mean=0.1,0.2,0.3 std=0.7,0.8,0.9", {3, {3, 5, 7}}},
        {"1x3x3 mean=0.25 std=0.5", {3, {1, 3, 3}}},
        {"2x4x4", {3, {2, 4, 4}}},
        {"11 mean=0.25 std=0.5", {1, {11}}},
        {"9", {3, {1, 3, 3}}},
    };
    const int64_t sizes[] = {33, 1, 15, 16, 17}; /* falling, then rising: an earlier batch leaves numbers */
    for (int k = 0; k < 5 * 2 * 3; k++) {
        ek_context_options options = {.threads = 1 + k % 3};
        ek_context *context;
        assert_ok(ek_context_create(&options, &context));
        ek_net *net = input_net(context, cases[k % 5].input);
        ek_dataset *d = random_set(40, cases[k % 5].shape, k / 5 % 2);
        assert_ok(ek_net_prepare(net, 33, false));
        for (int size = 0; size < 5; size++) {
            int64_t index[33];
            for (int64_t i = 0; i < sizes[size]; i++) index[i] = (i * 7 + 3) % 40;
            assert_ok(ek_batch_fill(net, d, index, sizes[size]));
            check_batch(net, d, index, sizes[size]);
        }
        ek_dataset_destroy(d);
        ek_net_destroy(net);
        ek_context_destroy(context);
    }
}

static void batches_follow_the_order(void **state)
{
    (void)state;
    ek_context_options options = {.threads = 2};
    ek_context *context;
    assert_ok(ek_context_create(&options, &context));
    ek_net *net = input_net(context, "1x4x4 mean=0.5 std=2");
    ek_dataset *d = random_set(97, (ek_shape){3, {1, 4, 4}}, true);
    int64_t index[97];
    for (int64_t i = 0; i < 97; i++) index[i] = i;
    assert_ok(ek_epoch_order(index, 97, 1, 1, true));
    const int64_t sizes[] = {1, 8, 16, 97, 200};
    for (int k = 0; k < 5 * 2 * 2; k++) {
        ek_batches batches = {.net = net, .dataset = d, .index = index, .count = 97, .batch = sizes[k % 5],
                              .drop_last = k / 5 % 2, .next = k / 10};
        int64_t end = ek_batch_count(97, batches.batch, batches.drop_last), number = batches.next, n, first, size;
        assert_ok(ek_net_prepare(net, 97, false));
        assert_ok(ek_batches_start(&batches));
        for (;; number++) {
            assert_ok(ek_batches_next(&batches, &n));
            if (n == 0) break;
            ek_batch_range(97, batches.batch, batches.drop_last, number, &first, &size);
            assert_int_equal(n, size);
            check_batch(net, d, index + first, n);
            for (int64_t i = 0; i < n; i++) assert_int_equal(batches.labels[i], d->label[index[first + i]]);
        }
        assert_int_equal(number, end > k / 10 ? end : k / 10);
        assert_ok(ek_batches_next(&batches, &n));
        assert_int_equal(n, 0);
        ek_batches_end(&batches);
    }
    for (failing f = {0}; fail_next(&f);) {
        ek_batches batches = {.net = net, .dataset = d, .index = index, .count = 97, .batch = 8};
        f.status = ek_batches_start(&batches);
        ek_batches_end(&batches);
    }
    ek_dataset_destroy(d);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* Opening with every allocation failing in turn. */
static void want_of_memory_is_survived(void **state)
{
    (void)state;
    put_npy("train_x.npy", 2, DIMS(3, 4), numbers);
    put_npy("train_y.npy", 1, DIMS(3), (const float[]){0, 1, 2});
    PUT("table.csv", "a,b,kind\n1,2,cat\n3,4,dog\n");
    char table[256];
    snprintf(table, sizeof table, "%s", in_folder("table.csv"));
    const char *const specs[] = {"mnist", folder, table, "synthetic:1x2x2", "synthetic:2"};
    for (int i = 0; i < 5; i++) {
        for (failing f = {0}; fail_next(&f);) {
            ek_dataset *d;
            f.status = ek_dataset_open(specs[i], EK_SPLIT_TRAIN, &d);
            if (f.status == EK_OK) ek_dataset_destroy(d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_fashion_mnist),
        cmocka_unit_test(arrays_make_a_set),
        cmocka_unit_test(sequences_have_lengths),
        cmocka_unit_test(lengths_that_do_not_fit_are_refused),
        cmocka_unit_test(sequences_fit_nets_of_sequences),
        cmocka_unit_test(arrays_that_do_not_meet_are_refused),
        cmocka_unit_test(tables_make_a_set),
        cmocka_unit_test(folders_have_splits),
        cmocka_unit_test(named_sets_are_looked_for),
        cmocka_unit_test(named_sets_are_found_in_each_place),
        cmocka_unit_test(unknown_data_is_explained),
        cmocka_unit_test(synthetic_data_is_always_the_same),
        cmocka_unit_test(items_to_predict),
        cmocka_unit_test(data_and_net_must_meet),
        cmocka_unit_test(splits_are_by_seed),
        cmocka_unit_test(epochs_are_by_seed_and_number),
        cmocka_unit_test(a_last_batch_of_one_is_joined),
        cmocka_unit_test(batches_hold_what_the_formula_says),
        cmocka_unit_test(batches_follow_the_order),
        cmocka_unit_test(want_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
