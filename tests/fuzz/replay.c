/* Runs a harness without libFuzzer: on every file that is named or lies in a named folder, then on so many mutations of
 * them, the same ones every time.
 *
 *   fuzz_x [-runs=N] FILE|FOLDER... */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_FILES = 1024, ROOM = 1 << 16, MARGIN = 4096 };

typedef struct input {
    unsigned char *data;
    size_t size;
} input;

static input inputs[MOST_FILES];
static int count;

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "%s %s\n", what, path);
    exit(2);
}

/* --- changes */

static uint64_t state = 88172645463325252u;

/* Marsaglia's xorshift: below `limit`. */
static size_t draw(size_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state % limit);
}

static size_t insert(unsigned char *data, size_t size, size_t room, const unsigned char *from, size_t length)
{
    size_t at = draw(size + 1);
    if (length > room - size) length = room - size;
    memmove(data + at + length, data + at, size - at);
    memmove(data + at, from, length);
    return size + length;
}

static size_t erase(unsigned char *data, size_t size)
{
    size_t at = draw(size), length = 1 + draw(size - at < 16 ? size - at : 16);
    memmove(data + at, data + at + length, size - at - length);
    return size - length;
}

static size_t change_once(unsigned char *data, size_t size, size_t room)
{
    static const unsigned char odd[] = {0, 1, 2, 8, '0', '9', '-', '.', 127, 128, 254, 255};
    unsigned char bytes[16];
    const input *other = &inputs[draw((size_t)count)];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)draw(256);
    if (size == 0) return insert(data, 0, room, bytes, 1 + draw(sizeof bytes));
    switch (draw(7)) {
    case 0: data[draw(size)] ^= (unsigned char)(1 << draw(8)); return size;
    case 1: data[draw(size)] = odd[draw(sizeof odd)]; return size;
    case 2: data[draw(size)] = bytes[0]; return size;
    case 3: return insert(data, size, room, bytes, 1 + draw(4));
    case 4: return erase(data, size);
    case 5: { /* another place's bytes */
        size_t from = draw(size), length = size - from < sizeof bytes ? size - from : sizeof bytes;
        memcpy(bytes, data + from, length);
        return insert(data, size, room, bytes, 1 + draw(length));
    }
    default: { /* another file's bytes */
        if (!other->size) return size;
        size_t from = draw(other->size);
        return insert(data, size, room, other->data + from, 1 + draw(other->size - from < 64 ? other->size - from : 64));
    }
    }
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room)
{
    for (size_t i = 1 + draw(4); i > 0; i--) size = change_once(data, size, room);
    return size;
}

/* --- files */

static void add_file(const char *path)
{
    static unsigned char bytes[ROOM];
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot open", path);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    if (ferror(file) || !feof(file)) fail("unreadable, or too large:", path);
    fclose(file);
    if (count == MOST_FILES) fail("too many files, at", path);
    unsigned char *data = malloc(size ? size : 1); /* its own block, so that a sanitizer sees where it ends */
    if (!data) fail("no memory for", path);
    memcpy(data, bytes, size);
    inputs[count++] = (input){data, size};
}

static int is_file(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void add(const char *path)
{
    struct stat info;
    struct dirent **entry;
    if (stat(path, &info) != 0) fail("there is no", path);
    if (!S_ISDIR(info.st_mode)) {
        add_file(path);
        return;
    }
    int found = scandir(path, &entry, is_file, alphasort);
    if (found < 0) fail("cannot read", path);
    for (int i = 0; i < found; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entry[i]->d_name);
        add_file(name);
        free(entry[i]);
    }
    free(entry);
}

static void run_mutation(void)
{
    static unsigned char bytes[ROOM + MARGIN];
    const input *from = &inputs[draw((size_t)count)];
    size_t size = from->size;
    memcpy(bytes, from->data, size);
    size = LLVMFuzzerCustomMutator(bytes, size, size + MARGIN, (unsigned)draw(1 << 30));
    unsigned char *copy = malloc(size ? size : 1);
    if (!copy) fail("no memory for", "a mutation");
    memcpy(copy, bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int main(int argc, char **argv)
{
    long runs = 0;
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-runs=", 6))
            runs = atol(argv[i] + 6);
        else
            add(argv[i]);
    }
    for (int i = 0; i < count; i++) LLVMFuzzerTestOneInput(inputs[i].data, inputs[i].size);
    for (long i = 0; i < runs && count; i++) run_mutation();
    printf("%d files and %ld mutations\n", count, count ? runs : 0);
    for (int i = 0; i < count; i++) free(inputs[i].data);
    return count ? 0 : 2;
}
