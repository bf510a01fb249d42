#include "formats/foreign.h"

#include "core/memory.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

/* A layer of two convolutions: Keras's SeparableConv has this beside depthwise_kernel and a bias. */
enum { POINTWISE = EK_SLOTS, PART_SLOTS };

/* Last parts of names, in all frameworks. */
static const struct leaf {
    const char *name;
    int slot; /* -1: of no use to a network's outputs */
} leaves[] = {
    {"kernel", EK_SLOT_WEIGHT},
    {"weight", EK_SLOT_WEIGHT},
    {"gamma", EK_SLOT_WEIGHT},
    {"scale", EK_SLOT_WEIGHT},
    {"depthwise_kernel", EK_SLOT_WEIGHT},
    {"pointwise_kernel", POINTWISE},
    {"alpha", EK_SLOT_WEIGHT},
    {"negative_slope", EK_SLOT_WEIGHT},
    {"bias", EK_SLOT_BIAS},
    {"beta", EK_SLOT_BIAS},
    {"running_mean", EK_SLOT_MEAN},
    {"moving_mean", EK_SLOT_MEAN},
    {"mean", EK_SLOT_MEAN},
    {"running_var", EK_SLOT_VAR},
    {"moving_variance", EK_SLOT_VAR},
    {"var", EK_SLOT_VAR},
    {"num_batches_tracked", EK_SLOT_COUNTER},
    {"seed_generator_state", -1},
};
enum { LEAVES = sizeof leaves / sizeof *leaves };

/* A tensor, with its name taken apart. */
typedef struct part {
    char *path;
    int64_t order;
    const struct leaf *leaf;
    const ek_st_tensor *tensor;
} part;

/* --- names */

/* The length of the first part, 0 where there is no other behind it. */
static size_t first_part(const char *path) { return strchr(path, '/') ? strcspn(path, "/") : 0; }

/* Past "12" of "12/conv/kernel", but not of "12/kernel": that is a layer. */
static char *skip_number(char *path, int64_t *number)
{
    size_t length = first_part(path);
    if (length == 0 || length > 15 || strspn(path, "0123456789") != length || !first_part(path + length + 1))
        return path;
    *number = strtoll(path, NULL, 10);
    return path + length + 1;
}

static char *skip_collection(char *path)
{
    static const char *const collections[] = {"params", "batch_stats"};
    size_t length = first_part(path);
    for (int i = 0; i < 2; i++) {
        if (length == strlen(collections[i]) && !strncmp(path, collections[i], length))
            return path + length + 1;
    }
    return path;
}

static ek_status unknown_leaf(const char *name, const char *leaf)
{
    const char *names[LEAVES];
    for (int i = 0; i < LEAVES; i++) names[i] = leaves[i].name;
    const char *near = ek_nearest(leaf, names, LEAVES);
    if (near)
        return ek_fail(EK_E_FORMAT,
                       "tensor '%.80s' is nothing that a layer has; is its last part meant to be %s?", name,
                       near);
    return ek_fail(
        EK_E_FORMAT,
        "tensor '%.80s' is nothing that a layer has: names end in kernel, weight, bias, gamma, scale, beta, "
        "moving_mean, running_mean and the like; leave out what no layer of the net has",
        name);
}

/* "0012/params/block/Conv_0/kernel" is "block/Conv_0", 12 and "kernel"; `prefixes`: the framework names its layers, so
 * that a number in front is not the layer's name, as it is in PyTorch's "0.weight". */
static ek_status take_apart(const ek_st_tensor *tensor, bool prefixes, part *out, bool *colons)
{
    if (!ek_is_plain_text(tensor->name))
        return ek_fail(EK_E_FORMAT, "the name of a tensor is not text without control characters");
    *out = (part){.path = ek_strdup(tensor->name), .order = -1, .tensor = tensor};
    if (!out->path) return EK_E_MEMORY;
    char *path = out->path, *at = path;
    for (char *c = path; *c; c++) {
        if (*c == '.') *c = '/';
    }
    if (ek_ends_with(path, ":0")) {
        path[strlen(path) - 2] = 0;
        *colons = true;
    }
    if (prefixes) at = skip_collection(skip_number(at, &out->order));
    memmove(path, at, strlen(at) + 1);
    char *slash = strrchr(path, '/'), *leaf = slash ? slash + 1 : path;
    for (int i = 0; i < LEAVES; i++) {
        if (!strcmp(leaf, leaves[i].name)) out->leaf = &leaves[i];
    }
    if (!out->leaf) return unknown_leaf(tensor->name, leaf);
    *(slash ? slash : path) = 0;
    return EK_OK;
}

/* Whether the text holds the word, in letters of any size. */
static bool holds(const char *text, const char *word) { return strcasestr(text, word) != NULL; }

/* --- order */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* The numbers at *a and *b, of any length; both move past them. */
static int number_order(const char **a, const char **b)
{
    while (**a == '0' && is_digit((*a)[1])) ++*a;
    while (**b == '0' && is_digit((*b)[1])) ++*b;
    size_t m = strspn(*a, "0123456789"), n = strspn(*b, "0123456789");
    int order = m != n ? (m < n ? -1 : 1) : strncmp(*a, *b, m);
    *a += m;
    *b += n;
    return order;
}

/* "" and "_2" of "conv2d" and "conv2d_2". */
static bool is_end_and_number(const char *end, const char *more)
{
    return (!*end || *end == '/') && *more == '_' && is_digit(more[1]);
}

int ek_path_order(const char *a, const char *b, bool *numbered)
{
    *numbered = false;
    while (*a && *b) {
        if (is_digit(*a) && is_digit(*b)) {
            int order = number_order(&a, &b);
            *numbered = order != 0;
            if (order != 0) return order;
        } else if (*a == *b) {
            a++;
            b++;
        } else {
            break;
        }
    }
    if (is_end_and_number(a, b) || is_end_and_number(b, a)) {
        *numbered = true;
        return *b == '_' ? -1 : 1;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

static int by_path(const void *a, const void *b)
{
    const part *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : x->order < y->order ? -1 : x->order > y->order;
}

static int by_order(const void *a, const void *b)
{
    const ek_source *x = a, *y = b;
    bool numbered;
    if (x->order != y->order && x->order >= 0 && y->order >= 0) return x->order < y->order ? -1 : 1;
    return ek_path_order(x->path, y->path, &numbered);
}

/* --- layers */

static ek_source *add_source(ek_sources *sources, const part *first, const char *behind)
{
    ek_source *source = &sources->source[sources->count];
    source->path = ek_strf("%s%s", first->path, behind);
    if (!source->path) return NULL;
    source->order = first->order;
    source->depthwise = holds(source->path, "depthwise");
    source->transposed = holds(source->path, "transpose");
    sources->count++;
    return source;
}

/* The layer, or the two layers, that parts of one path make. */
static ek_status make_source(const part *parts, int count, ek_sources *out)
{
    const ek_st_tensor *of[PART_SLOTS] = {0};
    for (int i = 0; i < count; i++) {
        int slot = parts[i].leaf->slot;
        if (of[slot])
            return ek_fail(EK_E_FORMAT,
                           "tensors '%.80s' and '%.80s' are the same to one layer: leave one of them out",
                           of[slot]->name, parts[i].tensor->name);
        of[slot] = parts[i].tensor;
    }
    if (of[POINTWISE]) {
        ek_source *first = of[EK_SLOT_WEIGHT] ? add_source(out, parts, "/depthwise") : NULL;
        if (of[EK_SLOT_WEIGHT] && !first) return EK_E_MEMORY;
        if (first) first->tensor[EK_SLOT_WEIGHT] = of[EK_SLOT_WEIGHT];
        of[EK_SLOT_WEIGHT] = of[POINTWISE];
    }
    ek_source *source = add_source(out, parts, of[POINTWISE] ? "/pointwise" : "");
    if (!source) return EK_E_MEMORY;
    memcpy(source->tensor, of, sizeof source->tensor);
    return EK_OK;
}

ek_status ek_sources_read(const ek_safetensors *file, ek_framework from, ek_sources *out)
{
    bool prefixes = from == EK_FROM_KERAS || from == EK_FROM_FLAX;
    ek_sources sources = {0};
    part *parts = NULL;
    int count = 0;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(parts, (size_t)file->count));
    EK_GO(EK_NEW(sources.source, (size_t)file->count));
    for (int i = 0; i < file->count; i++) {
        EK_GO(take_apart(&file->tensor[i], prefixes, &parts[count++], &sources.colons));
        if (parts[count - 1].leaf->slot < 0) ek_free(parts[--count].path);
    }
    if (count) qsort(parts, (size_t)count, sizeof *parts, by_path);
    for (int i = 0, end; i < count; i = end) {
        for (end = i; end < count && !strcmp(parts[end].path, parts[i].path);) end++;
        EK_GO(make_source(parts + i, end - i, &sources));
    }
    if (sources.count) qsort(sources.source, (size_t)sources.count, sizeof *sources.source, by_order);
done:
    for (int i = 0; i < count; i++) ek_free(parts[i].path);
    ek_free(parts);
    if (status == EK_OK)
        *out = sources;
    else
        ek_sources_free(&sources);
    return status;
}

void ek_sources_free(ek_sources *sources)
{
    for (int i = 0; i < sources->count; i++) ek_free(sources->source[i].path);
    ek_free(sources->source);
    *sources = (ek_sources){0};
}
