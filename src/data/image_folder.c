/*
 * A folder of images, each class in a folder of its own, whose name is the class's:
 *
 *   DIR/boot/0001.png  DIR/coat/a.jpg ...           one set
 *   DIR/train/boot/...  DIR/test/boot/...           two; val stands for test where there is none
 *
 * Classes are numbered in the order of their names, those of both splits together, and a class's images come in the order of
 * theirs. Names that begin with a point, and files that are not called .png, .jpg or .jpeg, are passed over.
 */
#include "core/memory.h"
#include "core/text.h"
#include "data/sources.h"
#include "data/stored.h"
#include "formats/image.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CLASSES = 65536 };

/* --- names */

/* Names one behind the other, each ended by a zero. */
typedef struct names {
    char *text;
    size_t used, room;
    int64_t *at; /* where each begins */
    int64_t count, places;
} names;

static void names_free(names *n)
{
    ek_free(n->text);
    ek_free(n->at);
    *n = (names){0};
}

static const char *name_at(const names *n, int64_t i) { return n->text + n->at[i]; }

/* Adds "folder/name", or "name" where folder is NULL. */
static ek_status names_add(names *n, const char *folder, const char *name)
{
    size_t size = (folder ? strlen(folder) + 1 : 0) + strlen(name) + 1;
    if (n->used + size > n->room) {
        size_t room = 2 * (n->used + size) + 256;
        char *grown = ek_grow(n->text, room, 1);
        if (!grown) return EK_E_MEMORY;
        n->text = grown;
        n->room = room;
    }
    if (n->count == n->places) {
        size_t places = 2 * (size_t)n->places + 16;
        int64_t *grown = ek_grow(n->at, places, sizeof *grown);
        if (!grown) return EK_E_MEMORY;
        n->at = grown;
        n->places = (int64_t)places;
    }
    snprintf(n->text + n->used, size, "%s%s%s", folder ? folder : "", folder ? "/" : "", name);
    n->at[n->count++] = (int64_t)n->used;
    n->used += size;
    return EK_OK;
}

static int by_name(const void *a, const void *b, void *user)
{
    const names *n = user;
    return strcmp(n->text + *(const int64_t *)a, n->text + *(const int64_t *)b);
}

static void names_sort(names *n, int64_t first)
{
    if (n->count > first) qsort_r(n->at + first, (size_t)(n->count - first), sizeof *n->at, by_name, n);
}

/* --- folders */

typedef enum entry_kind { IS_FOLDER, IS_IMAGE, IS_OTHER } entry_kind;

static entry_kind kind_of(const char *folder, const struct dirent *entry)
{
    struct stat info;
    char path[PATH_MAX];
    bool is_folder = entry->d_type == DT_DIR, is_file = entry->d_type == DT_REG;
    if (!is_folder && !is_file) { /* a link, or a file system that does not tell */
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path ||
            stat(path, &info) != 0)
            return IS_OTHER;
        is_folder = S_ISDIR(info.st_mode);
        is_file = S_ISREG(info.st_mode);
    }
    return is_folder ? IS_FOLDER : is_file && ek_image_named(entry->d_name) ? IS_IMAGE : IS_OTHER;
}

/* Adds what is of the kind, in the order of the names, after `label` and a slash (NULL: as they are); *others: how many
 * that are not, and do not begin with a point. */
static ek_status list(const char *folder, entry_kind wanted, const char *label, names *out, int64_t *others)
{
    DIR *stream = opendir(folder);
    if (!stream) return ek_fail_errno("cannot read the folder %s", folder);
    ek_status status = EK_OK;
    int64_t first = out->count;
    *others = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) break;
        if (entry->d_name[0] == '.') continue;
        if (kind_of(folder, entry) == wanted)
            EK_GO(names_add(out, label, entry->d_name));
        else
            ++*others;
    }
    if (errno) EK_GO(ek_fail_errno("cannot read the folder %s", folder));
    names_sort(out, first);
done:
    closedir(stream);
    return status;
}

/* Whether DIR/name is a folder that has folders. */
static ek_status has_folders(const char *folder, const char *name, bool *has)
{
    struct stat info;
    names found = {0};
    int64_t others;
    char *path = name ? ek_strf("%s/%s", folder, name) : ek_strdup(folder);
    if (!path) return EK_E_MEMORY;
    ek_status status = EK_OK;
    *has = false;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) EK_GO(list(path, IS_FOLDER, NULL, &found, &others));
    *has = found.count > 0;
done:
    names_free(&found);
    ek_free(path);
    return status;
}

ek_status ek_image_folder_is(const char *folder, bool *is)
{
    names found = {0};
    int64_t others;
    ek_status status = EK_OK;
    EK_GO(list(folder, IS_FOLDER, NULL, &found, &others));
    if (!found.count) EK_GO(list(folder, IS_IMAGE, NULL, &found, &others));
    *is = found.count > 0;
done:
    names_free(&found);
    return status;
}

/* The folders that have the classes: [0] of what is to train on, [1] of what is to test on; NULL: none. */
typedef struct splits {
    char *base[2];
} splits;

static ek_status find_splits(const char *folder, splits *out)
{
    static const char *const called[] = {"train", "test", "val"};
    ek_status status = EK_OK;
    for (int i = 0; i < 3; i++) {
        bool has;
        int at = i > 0;
        if (out->base[at]) continue;
        EK_GO(has_folders(folder, called[i], &has));
        if (has && !(out->base[at] = ek_strf("%s/%s", folder, called[i]))) EK_GO(EK_E_MEMORY);
    }
    if (!out->base[0] && !out->base[1] && !(out->base[0] = ek_strdup(folder))) EK_GO(EK_E_MEMORY);
done:
    return status;
}

/* The folder of the split that is asked for. */
static ek_status choose(const splits *s, const char *folder, ek_split split, const char **base)
{
    *base = split == EK_SPLIT_TRAIN  ? s->base[0]
            : split == EK_SPLIT_TEST ? s->base[1]
            : s->base[1]             ? s->base[1]
                                     : s->base[0];
    if (*base) return EK_OK;
    if (split == EK_SPLIT_TRAIN)
        return ek_fail(EK_E_NOT_FOUND, "the folder %s has images to test on, but no folder train", folder);
    return ek_fail(
        EK_E_NOT_FOUND,
        "the folder %s is one set, without a test split: give test data of its own (a folder test beside "
        "train), or hold some out for validation",
        folder);
}

/* The classes of both splits, each once, in the order of their names. */
static ek_status list_classes(const splits *s, const char *folder, names *out)
{
    int64_t others, kept = 0;
    names direct = {0};
    for (int i = 0; i < 2; i++) {
        if (s->base[i]) EK_TRY(list(s->base[i], IS_FOLDER, NULL, out, &others));
    }
    names_sort(out, 0);
    for (int64_t i = 0; i < out->count; i++) {
        if (kept == 0 || strcmp(name_at(out, i), name_at(out, kept - 1)) != 0) out->at[kept++] = out->at[i];
    }
    out->count = kept;
    if (kept > MAX_CLASSES)
        return ek_fail(EK_E_UNSUPPORTED, "the folder %s has %lld folders; at most %d classes are told apart",
                       folder, (long long)kept, MAX_CLASSES);
    if (kept > 0) return EK_OK;
    EK_TRY(list(folder, IS_IMAGE, NULL, &direct, &others));
    int64_t images = direct.count;
    names_free(&direct);
    return ek_fail(EK_E_FORMAT,
                   "the folder %s has %lld images but no folders: put those of each class into a folder that "
                   "is called as "
                   "the class is",
                   folder, (long long)images);
}

/* The images of `base` by class, *label with a number for each. A class may be missing where there are other splits. */
static ek_status list_images(const char *base, const names *classes, names *out, int32_t **label)
{
    int64_t others, room = 0;
    for (int64_t c = 0; c < classes->count; c++) {
        struct stat info;
        int64_t first = out->count;
        char *path = ek_strf("%s/%s", base, name_at(classes, c));
        if (!path) return EK_E_MEMORY;
        bool there = stat(path, &info) == 0;
        ek_status status = there ? list(path, IS_IMAGE, name_at(classes, c), out, &others) : EK_OK;
        if (status == EK_OK && there && out->count == first)
            status = ek_fail(
                EK_E_FORMAT,
                "the folder %s has no images: .png, .jpg and .jpeg are read, and there are %lld other "
                "files; take it away if it is no class",
                path, (long long)others);
        ek_free(path);
        if (status != EK_OK) return status;
        if (out->count > room) {
            room = 2 * out->count;
            int32_t *grown = ek_grow(*label, (size_t)room, sizeof *grown);
            if (!grown) return EK_E_MEMORY;
            *label = grown;
        }
        for (int64_t i = first; i < out->count; i++) (*label)[i] = (int32_t)c;
    }
    return out->count ? EK_OK : ek_fail(EK_E_FORMAT, "the folder %s has no images", base);
}

/* --- the images */

typedef struct folder_images {
    ek_stored head;
    char *base;
    names file; /* class/name */
    ek_shape shape;
    bool scaled;
    ek_image_info largest; /* of each measure by itself */
} folder_images;

static ek_status path_of(const folder_images *f, int64_t index, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/%s", f->base, name_at(&f->file, index)) < PATH_MAX) return EK_OK;
    return ek_fail(EK_E_IO, "%s/%s: the name is too long", f->base, name_at(&f->file, index));
}

/* Where the parts of a thread's memory are, when images are scaled: what decoding needs, the image, and what scaling does. */
static size_t aligned(size_t bytes) { return (bytes + EK_ALIGN - 1) / EK_ALIGN * EK_ALIGN; }

static size_t image_bytes(const folder_images *f)
{
    return (size_t)(f->shape.dim[0] * f->largest.h * f->largest.w);
}

static ek_status read_scaled(const folder_images *f, const char *path, unsigned char *out,
                             unsigned char *scratch)
{
    unsigned char *image = scratch + aligned(f->largest.scratch);
    float *rows = (float *)(void *)(image + aligned(image_bytes(f)));
    int channels = (int)f->shape.dim[0];
    ek_image_info info;
    EK_TRY(ek_image_look(path, &info));
    if (info.h > f->largest.h || info.w > f->largest.w || info.scratch > f->largest.scratch) {
        ek_status status = ek_image_changed();
        return ek_fail_in(status, "%s: ", path);
    }
    EK_TRY(ek_image_decode(path, &info, channels, image, scratch));
    ek_image_scale(image, channels, info.h, info.w, f->shape.dim[1], f->shape.dim[2], out, rows);
    return EK_OK;
}

static ek_status read_images(const ek_stored *stored, const int64_t *index, int64_t n, void *out,
                             unsigned char *scratch)
{
    const folder_images *f = (const folder_images *)stored;
    char path[PATH_MAX];
    for (int64_t i = 0; i < n; i++) {
        unsigned char *item = (unsigned char *)out + i * stored->item;
        EK_TRY(path_of(f, index[i], path));
        EK_TRY(f->scaled ? read_scaled(f, path, item, scratch)
                         : ek_image_decode(path, &f->largest, (int)f->shape.dim[0], item, scratch));
    }
    return EK_OK;
}

static void close_images(ek_stored *stored)
{
    folder_images *f = (folder_images *)stored;
    names_free(&f->file);
    ek_free(f->base);
}

/* A look at all of them, by several threads. */
typedef struct survey {
    folder_images *images;
    ek_image_info first, largest;
    bool colour;
    pthread_mutex_t lock;
    ek_failure failure;
} survey;
enum { LOOKS = 64 };

static ek_status look_at(survey *s, int64_t index, ek_image_info *info)
{
    char path[PATH_MAX];
    const folder_images *f = s->images;
    EK_TRY(path_of(f, index, path));
    EK_TRY(ek_image_look(path, info));
    if (f->scaled || (info->h == s->first.h && info->w == s->first.w)) return EK_OK;
    return ek_fail(
        EK_E_SHAPE,
        "%s has %lld x %lld pixels, %s has %lld x %lld; to have all of them scaled to one size, say it "
        "after the folder's name: DIR:%dx%lldx%lld (channels, height, width)",
        path, (long long)info->w, (long long)info->h, name_at(&f->file, 0), (long long)s->first.w,
        (long long)s->first.h, s->first.colour ? 3 : 1, (long long)s->first.h, (long long)s->first.w);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static void look_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    survey *s = argument;
    ek_image_info info, largest = {0};
    bool colour = false;
    ek_status status = EK_OK;
    int64_t at = piece * LOOKS, end = at + LOOKS, count = s->images->file.count;
    for (; at < end && at < count; at++) {
        status = look_at(s, at, &info);
        if (status != EK_OK) break;
        largest.h = larger(largest.h, info.h);
        largest.w = larger(largest.w, info.w);
        largest.scratch = (size_t)larger((int64_t)largest.scratch, (int64_t)info.scratch);
        colour = colour || info.colour;
    }
    pthread_mutex_lock(&s->lock);
    ek_failure_note(&s->failure, status, at);
    s->largest.h = larger(s->largest.h, largest.h);
    s->largest.w = larger(s->largest.w, largest.w);
    s->largest.scratch = (size_t)larger((int64_t)s->largest.scratch, (int64_t)largest.scratch);
    s->colour = s->colour || colour;
    pthread_mutex_unlock(&s->lock);
}

static ek_status look_at_all(folder_images *f, bool *colour)
{
    survey s = {.images = f};
    ek_pool *pool;
    char path[PATH_MAX];
    EK_TRY(path_of(f, 0, path));
    EK_TRY(ek_image_look(path, &s.first));
    EK_TRY(ek_pool_create(f->file.count > LOOKS ? ek_cores() : 1, &pool));
    pthread_mutex_init(&s.lock, NULL);
    ek_pool_run(pool, (f->file.count + LOOKS - 1) / LOOKS, look_piece, &s);
    pthread_mutex_destroy(&s.lock);
    ek_pool_destroy(pool);
    f->largest = s.largest;
    *colour = s.colour;
    return ek_failure_tell(&s.failure);
}

/* --- the set */

static ek_status make_stored(const char *base, names *file, const ek_shape *shape, folder_images **out)
{
    folder_images *f;
    bool colour;
    EK_TRY(EK_NEW(f, 1));
    ek_status status = EK_OK;
    f->head = (ek_stored){.bytes = true, .most = 4, .read = read_images, .close = close_images};
    f->file = *file;
    *file = (names){0};
    f->scaled = shape != NULL;
    if (!(f->base = ek_strdup(base))) EK_GO(EK_E_MEMORY);
    EK_GO(look_at_all(f, &colour));
    f->shape = shape ? *shape : (ek_shape){3, {colour ? 3 : 1, f->largest.h, f->largest.w}};
    f->head.item = ek_shape_count(f->shape);
    f->head.scratch = f->largest.scratch;
    if (shape)
        f->head.scratch = aligned(f->largest.scratch) + aligned(image_bytes(f)) +
                          ek_image_scale_scratch(f->largest.h, shape->dim[2]) * sizeof(float);
    *out = f;
    f = NULL;
done:
    if (f) ek_stored_destroy(&f->head);
    return status;
}

static ek_status name_classes(ek_dataset *d, const names *classes, const char *folder)
{
    const char **list_of;
    EK_TRY(EK_NEW(list_of, (size_t)classes->count));
    for (int64_t i = 0; i < classes->count; i++) list_of[i] = name_at(classes, i);
    ek_status status = ek_dataset_name_classes(d, list_of, (int)classes->count, folder);
    ek_free(list_of);
    return status;
}

ek_status ek_image_folder_open(const char *folder, ek_split split, const ek_shape *shape, ek_dataset **out)
{
    splits s = {0};
    names classes = {0}, files = {0};
    const char *base;
    folder_images *images;
    ek_dataset *d = NULL;
    ek_status status = EK_OK;
    EK_GO(find_splits(folder, &s));
    EK_GO(choose(&s, folder, split, &base));
    EK_GO(list_classes(&s, folder, &classes));
    EK_GO(EK_NEW(d, 1));
    EK_GO(list_images(base, &classes, &files, &d->label));
    d->count = files.count;
    EK_GO(make_stored(base, &files, shape, &images));
    d->stored = &images->head;
    d->shape = images->shape;
    d->item = images->head.item;
    EK_GO(name_classes(d, &classes, folder));
    EK_GO(ek_dataset_keep(d));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    names_free(&files);
    names_free(&classes);
    ek_free(s.base[0]);
    ek_free(s.base[1]);
    return status;
}

ek_status ek_scaled_spec(const char *spec, char **path, ek_shape *shape, bool *scaled)
{
    struct stat info;
    const char *colon = strrchr(spec, ':');
    long long c, h, w;
    int used = 0;
    *scaled = false;
    if (!colon || stat(spec, &info) == 0) return EK_OK;
    if (sscanf(colon, ":%5lldx%5lldx%5lld%n", &c, &h, &w, &used) != 3 || colon[used]) return EK_OK;
    if ((c != 1 && c != 3) || h < 1 || w < 1 || h > EK_IMAGE_MAX_SIDE || w > EK_IMAGE_MAX_SIDE)
        return ek_fail(EK_E_ARGUMENT,
                       "images are scaled to 1 or 3 channels and up to %d x %d pixels, not to %s",
                       EK_IMAGE_MAX_SIDE, EK_IMAGE_MAX_SIDE, colon + 1);
    *path = ek_strndup(spec, (size_t)(colon - spec));
    if (!*path) return EK_E_MEMORY;
    *shape = (ek_shape){3, {c, h, w}};
    *scaled = true;
    return EK_OK;
}
