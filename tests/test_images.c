/* Folders of images as data. */
#include "images.h"
#include "testing.h"

#include "core/random.h"
#include "data/batches.h"
#include "data/stored.h"
#include "formats/arrays.h"
#include "formats/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/evenkeel-images-XXXXXX";
static ek_context *context;

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) && ek_context_create(&(ek_context_options){.threads = 2}, &context) == EK_OK ? 0
                                                                                                        : -1;
}

static void empty(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/* %s/.[a-z]*", folder, folder);
    assert_int_equal(system(command), 0);
}

static int take_down(void **state)
{
    (void)state;
    ek_context_destroy(context);
    empty();
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* A file, with the folders before it. */
static void put(const char *name, const void *bytes, size_t size)
{
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder(name));
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0777);
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* A grey PNG of 16 x 8 pixels that begins with `first`. */
static void put_grey(const char *name, int first)
{
    unsigned char file[512], rows[8 * 17];
    for (int y = 0; y < 8; y++) {
        rows[17 * y] = 0;
        for (int x = 0; x < 16; x++) rows[17 * y + 1 + x] = (unsigned char)(first + 3 * (16 * y + x) % 50);
    }
    put(name, file, make_png(file, 16, 8, 0, rows, sizeof rows));
}

#define PUT_JPEG(name, bytes) put((name), (bytes), sizeof(bytes))

static bool have(const void *bytes, size_t size)
{
    ek_array a;
    put("probe", bytes, size);
    ek_status status = ek_image_read(in_folder("probe"), 1, &a);
    unlink(in_folder("probe"));
    if (status == EK_E_UNSUPPORTED) return false;
    assert_ok(status);
    ek_array_clear(&a);
    return true;
}

static bool libraries_are_there(void)
{
    unsigned char file[512];
    empty();
    return have(file, make_png(file, 1, 1, 0, "\0x", 2)) && have(grey_jpeg, sizeof grey_jpeg);
}

static void keep(bool on) { setenv("EVENKEEL_DATA_MEMORY", on ? "1G" : "0", 1); }

/* First number of each channel, by label. */
static void item_is(const ek_dataset *d, int64_t index, int label, const int *first)
{
    float *x = calloc((size_t)d->item, sizeof *x);
    int64_t plane = d->shape.dim[1] * d->shape.dim[2];
    int have_label;
    assert_non_null(x);
    assert_ok(ek_dataset_item(d, index, x, &have_label));
    assert_int_equal(have_label, label);
    for (int64_t c = 0; c < d->shape.dim[0]; c++) {
        int value = (int)(x[c * plane] * 255 + 0.5f);
        if (abs(value - first[c]) > 6)
            fail_msg("item %d, channel %d begins with %d, not %d", (int)index, (int)c, value, first[c]);
    }
    free(x);
}

static void classes_are_folders(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    PUT_JPEG("boot/b.JPEG", colour_jpeg);
    put_grey("boot/a.png", 100);
    PUT_JPEG("boot/c.jpg", progressive_jpeg);
    put("boot/words.txt", "?", 1);
    put("boot/.hidden.png", "?", 1);
    put(".git/config.png", "?", 1);
    put("README", "?", 1);
    PUT_JPEG("Coat/1.jpg", grey_jpeg);
    assert_int_equal(symlink("../boot/a.png", in_folder("Coat/2.png")), 0);
    assert_int_equal(symlink("Coat", in_folder("hat")), 0);
    for (int kept = 0; kept < 2; kept++) {
        ek_dataset *d;
        keep(kept);
        assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d));
        assert_int_equal(d->stored == NULL, kept);
        assert_int_equal(ek_dataset_count(d), 7);
        assert_int_equal(ek_dataset_classes(d), 3);
        assert_string_equal(ek_dataset_class(d, 0), "Coat");
        assert_string_equal(ek_dataset_class(d, 2), "hat");
        assert_true(ek_shape_equal(ek_dataset_shape(d), (ek_shape){3, {3, 8, 16}}));
        item_is(d, 0, 0, (int[]){40, 40, 40});
        item_is(d, 1, 0, (int[]){100, 100, 100});
        item_is(d, 2, 1, (int[]){100, 100, 100});
        item_is(d, 3, 1, (int[]){220, 60, 20});
        item_is(d, 4, 1, (int[]){220, 60, 20});
        item_is(d, 6, 2, (int[]){100, 100, 100});
        ek_dataset_destroy(d);
        assert_fails(EK_E_NOT_FOUND, "without a test split", ek_dataset_open(folder, EK_SPLIT_TEST, &d));
    }
}

static void grey_images_stay_grey(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    put_grey("a/1.png", 30);
    PUT_JPEG("b/1.jpg", grey_jpeg);
    ek_dataset *d;
    keep(true);
    assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d));
    assert_true(ek_shape_equal(ek_dataset_shape(d), (ek_shape){3, {1, 8, 16}}));
    item_is(d, 1, 1, (int[]){40});
    ek_dataset_destroy(d);
    empty();
    PUT_JPEG("a/1.jpg", colour_jpeg);
    char spec[64];
    snprintf(spec, sizeof spec, "%s:1x8x16",
             folder); /* grey is the luma: 0.299 * 220 + 0.587 * 60 + 0.114 * 20 */
    assert_ok(ek_dataset_open(spec, EK_SPLIT_ANY, &d));
    item_is(d, 0, 0, (int[]){103});
    ek_dataset_destroy(d);
}

static void splits_share_their_classes(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    ek_dataset *d;
    put_grey("train/a/1.png", 10);
    put_grey("train/c/1.png", 20);
    put_grey("val/c/1.png", 30);
    put_grey("val/b/1.png", 40);
    keep(true);
    for (int named = 0; named < 2; named++) { /* val, then test */
        assert_ok(ek_dataset_open(folder, EK_SPLIT_TRAIN, &d));
        assert_int_equal(ek_dataset_classes(d), 3);
        item_is(d, 0, 0, (int[]){10});
        item_is(d, 1, 2, (int[]){20});
        ek_dataset_destroy(d);
        assert_ok(ek_dataset_open(folder, named ? EK_SPLIT_TEST : EK_SPLIT_ANY, &d));
        assert_int_equal(ek_dataset_count(d), 2);
        assert_string_equal(ek_dataset_class(d, 1), "b");
        item_is(d, 0, 1, (int[]){40});
        item_is(d, 1, 2, (int[]){30});
        ek_dataset_destroy(d);
        char old[256];
        snprintf(old, sizeof old, "%s", in_folder("val"));
        assert_int_equal(named || rename(old, in_folder("test")) == 0, true);
    }
}

static void refuse(ek_status status, const char *words)
{
    ek_dataset *d;
    for (int kept = 0; kept < 2; kept++) {
        keep(kept);
        assert_fails(status, words, ek_dataset_open(folder, EK_SPLIT_ANY, &d));
    }
}

static void what_cannot_be_used_is_named(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    ek_dataset *d;
    unsigned char file[512];
    put_grey("1.png", 10);
    put_grey("2.png", 10);
    refuse(EK_E_FORMAT, "has 2 images but no folders");
    empty();
    put("a/x.gif", "?", 1);
    put("a/y.txt", "?", 1);
    refuse(EK_E_FORMAT, "a has no images: .png, .jpg and .jpeg are read, and there are 2 other files");
    put_grey("a/1.png", 10);
    put("b/2.png", file, make_png(file, 2, 1, 0, "\0ab", 3));
    refuse(EK_E_SHAPE, "b/2.png has 2 x 1 pixels, a/1.png has 16 x 8; to have all of them scaled");
    put("b/2.png", file, make_png(file, 5000, 1, 0, "\0", 1));
    refuse(EK_E_UNSUPPORTED, "b/2.png: it has 5000 x 1 pixels; at most 4096 x 4096");
    put("b/2.png", "words", 5);
    refuse(EK_E_FORMAT, "b/2.png is neither a PNG nor a JPEG file");
    put("b/2.png", cmyk_jpeg, sizeof cmyk_jpeg); /* its name does not matter */
    refuse(EK_E_UNSUPPORTED, "b/2.png: it is a JPEG in CMYK");
    put("b/2.png", colour_jpeg, 20);
    refuse(EK_E_FORMAT, "b/2.png: it is a broken JPEG");
    /* Whole headers, and data that is cut short: found when the data is read. */
    for (int kind = 0; kind < 2; kind++) {
        float *x = calloc(3 * 8 * 16, sizeof *x);
        assert_non_null(x);
        if (kind == 0) {
            PUT_JPEG("b/2.png", progressive_jpeg);
            assert_int_equal(truncate(in_folder("b/2.png"), (long)sizeof progressive_jpeg - 30), 0);
        } else {
            put_grey("b/2.png", 10);
            assert_int_equal(truncate(in_folder("b/2.png"), 80), 0);
        }
        keep(true);
        assert_fails(EK_E_FORMAT, kind ? "b/2.png: it is a broken PNG" : "b/2.png: it is a broken JPEG",
                     ek_dataset_open(folder, EK_SPLIT_ANY, &d));
        keep(false);
        assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d));
        assert_ok(ek_dataset_item(d, 0, x, NULL));
        assert_fails(EK_E_FORMAT, kind ? "b/2.png: it is a broken PNG" : "b/2.png: it is a broken JPEG",
                     ek_dataset_item(d, 1, x, NULL));
        ek_dataset_destroy(d);
        free(x);
    }
    put("b/2.png", "", 0);
    refuse(EK_E_FORMAT, "b/2.png is neither");
    assert_fails(EK_E_ARGUMENT, "not to 2x8x8", ek_dataset_open("some:2x8x8", EK_SPLIT_ANY, &d));
    assert_fails(EK_E_ARGUMENT, "not to 3x0x8", ek_dataset_open("some:3x0x8", EK_SPLIT_ANY, &d));
    assert_fails(EK_E_NOT_FOUND, "/no/such", ek_dataset_open("/no/such:3x8x8", EK_SPLIT_ANY, &d));
}

/* --- training */

#define NET "input 3x8x16\nconv 4 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nflatten\nlinear 3\n"

static void put_many(void)
{
    char name[32];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "%c/%03d.%s", 'a' + i % 3, i, i % 2 ? "png" : "jpg");
        if (i % 2)
            put_grey(name, 5 * i);
        else
            PUT_JPEG(name, colour_jpeg);
    }
}

static bool remove_one(void *user, const ek_event *event)
{
    (void)user;
    if (event->kind == EK_EVENT_EPOCH) unlink(in_folder("b/025.png"));
    return true;
}

static double train(bool kept, ek_net **out)
{
    ek_dataset *d;
    ek_metrics metrics;
    ek_train_options options = ek_train_options_default();
    options.epochs = 3;
    options.batch = 8;
    keep(kept);
    assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d));
    assert_ok(ek_net_create(context, NET, NULL, out));
    assert_ok(ek_train(*out, d, NULL, &options));
    assert_ok(ek_evaluate(*out, d, 16, &metrics));
    ek_dataset_destroy(d);
    return metrics.loss;
}

static void images_give_the_same_bits_decoded_ahead(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    ek_net *net[2];
    put_many();
    ek_read_ahead_above = 0; /* all of them */
    assert_true(train(true, &net[0]) == train(false, &net[1]));
    for (int i = 0; i < ek_net_tensor_count(net[0]); i++) {
        ek_tensor a = ek_net_tensor(net[0], i), b = ek_net_tensor(net[1], i);
        if (a.data) assert_memory_equal(a.data, b.data, (size_t)ek_shape_count(a.shape) * sizeof(float));
    }
    ek_net_destroy(net[0]);
    ek_net_destroy(net[1]);
}

static void an_image_that_goes_away_stops_the_run(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    ek_dataset *d;
    ek_net *net;
    ek_train_options options = ek_train_options_default();
    options.batch = 8;
    options.listener = remove_one;
    put_many();
    keep(false);
    assert_ok(ek_dataset_open(folder, EK_SPLIT_ANY, &d));
    assert_ok(ek_net_create(context, NET, NULL, &net));
    assert_fails(EK_E_NOT_FOUND, "b/025.png: No such file", ek_train(net, d, NULL, &options));
    ek_net_destroy(net);
    ek_dataset_destroy(d);
}

/* --- scaling */

static void scaled_images_are_what_the_formula_says(void **state)
{
    (void)state;
    enum { H = 6, W = 12 };
    unsigned char image[2 * H * W], out[2 * 24 * 24];
    float *scratch = calloc(ek_image_scale_scratch(H, 24), sizeof *scratch);
    assert_non_null(scratch);
    for (int i = 0; i < 2 * H * W; i++) image[i] = (unsigned char)(i * 37 % 256);
    ek_image_scale(image, 2, H, W, H, W, out, scratch); /* as it is */
    assert_memory_equal(out, image, sizeof image);
    ek_image_scale(image, 1, H, W, H, H, out, scratch); /* the middle, as it is */
    for (int y = 0; y < H; y++) assert_memory_equal(out + y * H, image + y * W + 3, H);
    /* To half: the triangle's weights on 4 neighbours are 1/8, 3/8, 3/8 and 1/8, and at an edge 3/7, 3/7 and 1/7. */
    ek_image_scale(image, 1, H, W, 3, 6, out, scratch);
    const double inner[] = {1 / 8.0, 3 / 8.0, 3 / 8.0, 1 / 8.0}, edge[] = {3 / 7.0, 3 / 7.0, 1 / 7.0};
    double sum = 0;
    for (int y = 0; y < 4; y++) {
        for (int x = 0; x < 4; x++) sum += inner[y] * inner[x] * image[(1 + y) * W + 3 + x];
    }
    assert_int_equal(out[1 * 6 + 2], (int)(sum + 0.5));
    sum = 0;
    for (int y = 0; y < 3; y++) {
        for (int x = 0; x < 3; x++) sum += edge[y] * edge[x] * image[y * W + x];
    }
    assert_int_equal(out[0], (int)(sum + 0.5));
    /* To double: 1/4 and 3/4 of two neighbours. */
    ek_image_scale(image, 1, H, W, 12, 24, out, scratch);
    sum = (9 * image[0] + 3 * image[1] + 3 * image[W] + image[W + 1]) / 16.0;
    assert_int_equal(out[24 + 1], (int)(sum + 0.5));
    free(scratch);
}

static void folders_of_any_sizes_are_scaled(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    unsigned char file[512];
    char spec[64], one[64];
    float x[3 * 4 * 4], y[3 * 4 * 4];
    PUT_JPEG("a/1.jpg", colour_jpeg);
    put("a/2.png", file, make_png(file, 2, 3, 0, "\0\x10\x20\0\x30\x40\0\x50\x60", 9));
    put_grey("b/1.png", 77);
    snprintf(spec, sizeof spec, "%s:3x4x4", folder);
    for (int kept = 0; kept < 2; kept++) {
        ek_dataset *d, *alone;
        keep(kept);
        assert_ok(ek_dataset_open(spec, EK_SPLIT_TRAIN, &d));
        assert_int_equal(d->stored == NULL, kept);
        assert_true(ek_shape_equal(ek_dataset_shape(d), (ek_shape){3, {3, 4, 4}}));
        item_is(d, 0, 0, (int[]){220, 60, 20});
        const char *const files[] = {"a/1.jpg", "a/2.png", "b/1.png"};
        for (int i = 0; i < 3; i++) { /* to be predicted on: the same */
            snprintf(one, sizeof one, "%s/%s:3x4x4", folder, files[i]);
            assert_ok(ek_dataset_open_items(one, (ek_shape){3, {3, 4, 4}}, &alone));
            assert_ok(ek_dataset_item(d, i, x, NULL));
            assert_ok(ek_dataset_item(alone, 0, y, NULL));
            assert_memory_equal(x, y, sizeof x);
            ek_dataset_destroy(alone);
        }
        assert_fails(EK_E_SHAPE, "is 3x4x4, but items of 3x8x8 are wanted",
                     ek_dataset_open_items(one, (ek_shape){3, {3, 8, 8}}, &alone));
        ek_dataset_destroy(d);
    }
}

static void want_of_memory_is_survived(void **state)
{
    (void)state;
    if (!libraries_are_there()) skip();
    char spec[64];
    PUT_JPEG("train/a/1.jpg", colour_jpeg);
    put_grey("train/b/1.png", 3);
    put_grey("test/a/1.png", 3);
    for (int way = 0; way < 4; way++) {
        keep(way % 2);
        snprintf(spec, sizeof spec, "%s%s", folder, way < 2 ? "" : ":3x4x4");
        for (failing f = {0}; fail_next(&f);) {
            ek_dataset *d;
            float x[3 * 8 * 16];
            f.status = ek_dataset_open(spec, EK_SPLIT_TRAIN, &d);
            if (f.status != EK_OK) continue;
            f.status = ek_dataset_item(d, 1, x, NULL);
            ek_dataset_destroy(d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_folders),
        cmocka_unit_test(grey_images_stay_grey),
        cmocka_unit_test(splits_share_their_classes),
        cmocka_unit_test(what_cannot_be_used_is_named),
        cmocka_unit_test(images_give_the_same_bits_decoded_ahead),
        cmocka_unit_test(an_image_that_goes_away_stops_the_run),
        cmocka_unit_test(scaled_images_are_what_the_formula_says),
        cmocka_unit_test(folders_of_any_sizes_are_scaled),
        cmocka_unit_test(want_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, set_up, take_down);
}
