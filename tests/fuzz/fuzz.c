#include "fuzz.h"

#include "core/memory.h"
#include "core/shape.h"
#include "core/text.h"
#include "formats/arrays.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- checks */

void fuzz_require(bool condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "fuzz: not so: %s\nfuzz: the last error: %s\n", what, ek_error());
    abort();
}

bool fuzz_built(ek_status status)
{
    if (status == EK_OK) return true;
    const char *text = ek_error();
    fuzz_require(*text, "a failure has a sentence");
    fuzz_require(ek_is_plain_text(text), "a sentence is UTF-8 without control characters");
    return false;
}

bool fuzz_took(ek_status status)
{
    fuzz_require(status != EK_E_MEMORY, "a small input takes little memory");
    return fuzz_built(status);
}

/* --- files */

static char folder[64];

static void make_folder(void)
{
    const char *places[] = {"/dev/shm", getenv("TMPDIR"), "/tmp"};
    for (int i = 0; i < 3 && !*folder; i++) {
        if (!places[i] || strlen(places[i]) > 32) continue;
        snprintf(folder, sizeof folder, "%s/evenkeel-fuzz-XXXXXX", places[i]);
        if (!mkdtemp(folder)) *folder = 0;
    }
    fuzz_require(*folder, "there is a place for files");
}

enum { FILES = 8, PATH_ROOM = 96 };
static char paths[FILES][PATH_ROOM];
static int files[FILES]; /* kept open to be written; -1: not so far */

static void remove_folder(void)
{
    for (int i = 0; i < FILES && *paths[i]; i++) unlink(paths[i]);
    rmdir(folder);
}

static int find_path(const char *name)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int i = 0;
    while (i < FILES && *paths[i] && strcmp(paths[i], path) != 0) i++;
    fuzz_require(i < FILES, "a harness uses few files");
    if (!*paths[i]) files[i] = -1;
    strcpy(paths[i], path);
    return i;
}

const char *fuzz_path(const char *name) { return paths[find_path(name)]; }

const char *fuzz_file(const char *name, const void *data, size_t size)
{
    int i = find_path(name);
    if (files[i] < 0) files[i] = open(paths[i], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    fuzz_require(files[i] >= 0 && pwrite(files[i], data, size, 0) == (ssize_t)size && ftruncate(files[i], (off_t)size) == 0,
                 "a file is written");
    return paths[i];
}

/* --- use */

ek_context *fuzz_context(void)
{
    static ek_context *context;
    ek_context_options options = ek_context_options_default();
    options.threads = 1;
    if (!context) FUZZ_OK(ek_context_create(&options, &context));
    return context;
}

enum { MOST_NUMBERS = 1 << 12, MOST_ADDS = 1 << 15, MOST_BYTES = 1 << 20 };
static float *numbers;

static bool is_small(const ek_net *net)
{
    int64_t adds = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        if (ek_shape_count(layer.output) > MOST_NUMBERS || layer.multiply_adds > MOST_ADDS) return false;
        adds += layer.multiply_adds;
    }
    return adds <= MOST_ADDS && ek_net_memory(net, 2, EK_MODE_TRAINING) <= MOST_BYTES;
}

void fuzz_use_net(ek_net *net)
{
    for (int i = 0; i < ek_net_tensor_count(net); i++) fuzz_require(*ek_net_tensor(net, i).name, "a tensor has a name");
    for (int i = 0; ek_net_note(net, i); i++) fuzz_require(*ek_net_note(net, i), "a note says something");
    if (!is_small(net)) return;
    float *x = numbers, *y = numbers + 2 * MOST_NUMBERS;
    for (int64_t i = 0; i < 2 * ek_shape_count(ek_net_input_shape(net)); i++) x[i] = (float)(i % 7) - 2.5f;
    for (ek_mode mode = EK_MODE_INFERENCE; mode <= EK_MODE_TRAINING; mode++)
        (void)fuzz_built(ek_net_forward(net, mode, 2, x, y));
}

static ek_status open_data(const char *spec, const ek_shape *item, bool kept, ek_dataset **out)
{
    setenv("EVENKEEL_DATA_MEMORY", kept ? "1G" : "0", 1);
    return item ? ek_dataset_open_items(spec, *item, out) : ek_dataset_open(spec, EK_SPLIT_ANY, out);
}

/* Item `index` is the same in both. */
static void compare_item(const ek_dataset *kept, const ek_dataset *stored, int64_t index)
{
    int label, other;
    float *x = numbers, *y = numbers + MOST_NUMBERS;
    FUZZ_OK(ek_dataset_item(kept, index, x, &label));
    fuzz_require(label >= -1 && label < ek_dataset_classes(kept), "a label is a class");
    (void)ek_dataset_class(kept, label);
    if (!stored) return;
    FUZZ_OK(ek_dataset_item(stored, index, y, &other));
    size_t size = (size_t)ek_shape_count(ek_dataset_shape(kept)) * sizeof *x;
    bool padded = ek_dataset_length(kept, index) > 0; /* what stands there may be NaN, of any bits */
    fuzz_require(label == other && (padded || !memcmp(x, y, size)), "an item is the same in memory and in its file");
    fuzz_require(ek_dataset_length(kept, index) == ek_dataset_length(stored, index), "a length is the same");
}

void fuzz_use_data(const char *spec, const ek_shape *item)
{
    ek_dataset *kept, *stored = NULL;
    if (!fuzz_took(open_data(spec, item, true, &kept))) return;
    ek_status status = open_data(spec, item, false, &stored);
    fuzz_require(fuzz_took(status) || status == EK_E_UNSUPPORTED, "what memory takes, a file gives");
    int64_t count = ek_dataset_count(kept);
    fuzz_require(!stored || (count == ek_dataset_count(stored) && ek_dataset_classes(kept) == ek_dataset_classes(stored) &&
                             ek_shape_equal(ek_dataset_shape(kept), ek_dataset_shape(stored))),
                 "a set is the same in memory and in its file");
    for (int64_t i = 0; i < count && i < 8 && ek_shape_count(ek_dataset_shape(kept)) <= MOST_NUMBERS; i++)
        compare_item(kept, stored, i % 2 ? count - 1 - i / 2 : i / 2);
    ek_dataset_destroy(stored);
    ek_dataset_destroy(kept);
}

void fuzz_use_image(const char *path)
{
    for (int channels = 1; channels <= 3; channels += 2) {
        ek_array array;
        if (!fuzz_built(ek_image_read(path, channels, &array))) return; /* few bytes may be many pixels of one colour */
        ek_shape shape = {3, {channels, array.dim[1], array.dim[2]}};
        fuzz_require(array.rank == 3 && array.dim[0] == channels && ek_shape_count(shape) == array.count, "an image is [c, h, w]");
        ek_array_clear(&array);
        if (ek_shape_count(shape) <= MOST_NUMBERS) fuzz_use_data(path, &shape);
    }
}

/* --- changes to safetensors files */

/* Where the object that begins at `at` ends; `size` if nowhere. */
static size_t object_end(const unsigned char *data, size_t at, size_t size)
{
    int depth = 0;
    bool text = false;
    for (; at < size; at++) {
        if (text && data[at] == '\\')
            at++;
        else if (data[at] == '"')
            text = !text;
        else if (!text && data[at] == '{')
            depth++;
        else if (!text && data[at] == '}' && --depth == 0)
            return at + 1;
    }
    return size;
}

size_t fuzz_mend_safetensors(unsigned char *data, size_t size, size_t room)
{
    enum { LENGTH = 8 };
    static const char offsets[] = "\"data_offsets\":[";
    if (size < LENGTH) return size;
    size_t end = object_end(data, LENGTH, size), last = 0;
    uint64_t length = end - LENGTH;
    memcpy(data, &length, LENGTH);
    const unsigned char *at = data + LENGTH;
    while ((at = memmem(at, (size_t)(data + end - at), offsets, strlen(offsets)))) {
        size_t number = 0;
        at += strlen(offsets);
        while (at < data + end && *at != ',' && *at != ']') at++;
        while (++at < data + end && *at >= '0' && *at <= '9' && number < room) number = 10 * number + (*at - '0');
        if (number > last) last = number;
        if (at >= data + end) break;
    }
    if (last > room - end) return size;
    if (end + last > size) memset(data + size, 0, end + last - size);
    return end + last;
}

size_t fuzz_mutate_safetensors(unsigned char *data, size_t size, size_t room, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, room);
    return seed % 4 ? fuzz_mend_safetensors(data, size, room) : size;
}

/* --- libFuzzer's side */

/* For speed: nothing lives long here, memory is kept, and who asked for it is told by ASAN_OPTIONS=malloc_context_size=20. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "quarantine_size_mb=16:malloc_context_size=0:allocator_release_to_os_interval_ms=-1"; }

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    make_folder();
    atexit(remove_folder);
    numbers = ek_calloc(4 * MOST_NUMBERS, sizeof *numbers);
    fuzz_require(numbers, "there is memory");
    (void)fuzz_context();
    fuzz_start();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t before = ek_memory_count().live_bytes;
    ek_memory_fail_beyond(before + FUZZ_MEMORY);
    fuzz_one(data, size);
    fuzz_require(ek_memory_count().live_bytes == before, "all memory is given back");
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    return fuzz_mutate ? fuzz_mutate(data, size, room, seed) : LLVMFuzzerMutate(data, size, room);
}
