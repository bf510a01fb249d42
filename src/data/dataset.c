#include "data/dataset.h"

#include "core/file.h"
#include "core/memory.h"
#include "data/sources.h"

#include <math.h>
#include <string.h>

enum { MAX_LABEL = 65535 };

void ek_dataset_destroy(ek_dataset *d)
{
    if (!d) return;
    for (int i = 0; d->class_name && i < d->classes; i++) ek_free(d->class_name[i]);
    ek_free(d->class_name);
    ek_free(d->label);
    ek_free(d->length);
    ek_free(d->bytes);
    ek_free(d->floats);
    ek_free(d);
}

int32_t ek_dataset_length(const ek_dataset *d, int64_t index)
{
    return d->length && index >= 0 && index < d->count ? d->length[index] : 0;
}

int64_t ek_dataset_count(const ek_dataset *d) { return d->count; }
ek_shape ek_dataset_shape(const ek_dataset *d) { return d->shape; }
int ek_dataset_classes(const ek_dataset *d) { return d->classes; }

const char *ek_dataset_class(const ek_dataset *d, int index)
{
    return d->class_name && index >= 0 && index < d->classes ? d->class_name[index] : NULL;
}

ek_status ek_dataset_item(const ek_dataset *d, int64_t index, float *x, int *label)
{
    if (index < 0 || index >= d->count)
        return ek_fail(EK_E_ARGUMENT, "there is no item %lld; the data has %lld, counted from 0",
                       (long long)index, (long long)d->count);
    if (x && d->bytes) {
        const unsigned char *bytes = d->bytes + index * d->item;
        for (int64_t i = 0; i < d->item; i++) x[i] = (float)bytes[i] / 255.0f;
    } else if (x) {
        memcpy(x, d->floats + index * d->item, (size_t)d->item * sizeof *x);
    }
    if (label) *label = d->label ? d->label[index] : -1;
    return EK_OK;
}

/* Whether one is the sequence CxL and the other the image 1xCxL: the same numbers. */
static bool same_sequence(ek_shape a, ek_shape b)
{
    ek_shape image = a.rank == 3 ? a : b, sequence = a.rank == 3 ? b : a;
    return image.rank == 3 && sequence.rank == 2 && image.dim[0] == 1 && image.dim[1] == sequence.dim[0] &&
           image.dim[2] == sequence.dim[1];
}

ek_status ek_dataset_check(const ek_dataset *d, const ek_net *net)
{
    char have[EK_SHAPE_TEXT], want[EK_SHAPE_TEXT];
    ek_shape input = ek_net_input_shape(net), output = ek_net_output_shape(net);
    bool flat = (input.rank == 1 || d->shape.rank == 1) && !d->length && d->item == ek_shape_count(input);
    if (!ek_shape_equal(d->shape, input) && !flat && (d->length || !same_sequence(d->shape, input)))
        return ek_fail(EK_E_SHAPE, "items are %s%s, the net's input is %s", ek_shape_text(d->shape, have),
                       d->length ? ", sequences with lengths" : "", ek_shape_text(input, want));
    if (!d->label) return EK_OK;
    if (output.rank != 1)
        return ek_fail(EK_E_SHAPE,
                       "the net's output is %s, not one score for each of the data's %d classes: flatten it "
                       "and end with a linear layer",
                       ek_shape_text(output, have), d->classes);
    if (d->classes > output.dim[0])
        return ek_fail(EK_E_SHAPE, "the data has %d classes, the net has %lld outputs", d->classes,
                       (long long)output.dim[0]);
    return EK_OK;
}

/* --- building */

/* The items' shape from the array's: [n, f], [n, h, w] or [n, c, h, w]. */
static ek_status item_shape(const ek_array *x, const char *name, ek_shape *out)
{
    if (x->rank < 2 || x->rank > 4)
        return ek_fail(EK_E_SHAPE,
                       "%s has %d dimensions; items are [n, features], [n, height, width] or [n, channels, "
                       "height, width]",
                       name, x->rank);
    ek_shape all = {.rank = x->rank};
    for (int i = 0; i < all.rank; i++) all.dim[i] = x->dim[i];
    char text[EK_SHAPE_TEXT];
    ek_shape_text(all, text);
    if (x->rank == 4 && x->dim[1] > 4 && (x->dim[3] == 1 || x->dim[3] == 3 || x->dim[3] == 4))
        return ek_fail(EK_E_SHAPE,
                       "%s is %s, which looks like [n, height, width, channels]; images are read as [n, "
                       "channels, height, width]",
                       name, text);
    if (x->count == 0) return ek_fail(EK_E_FORMAT, "%s is %s: it holds no items", name, text);
    switch (x->rank) {
    case 2: *out = (ek_shape){1, {x->dim[1]}}; break;
    case 3: *out = (ek_shape){3, {1, x->dim[1], x->dim[2]}}; break;
    default: *out = (ek_shape){3, {x->dim[1], x->dim[2], x->dim[3]}}; break;
    }
    return EK_OK;
}

/* Those of sequences with lengths: [n, c, l] or [n, l]. */
static ek_status sequence_shape(const ek_array *x, const char *name, ek_shape *out)
{
    if (x->rank < 2 || x->rank > 3)
        return ek_fail(
            EK_E_SHAPE,
            "%s has %d dimensions; sequences with lengths are [n, channels, positions] or [n, positions]",
            name, x->rank);
    if (x->count == 0) return ek_fail(EK_E_FORMAT, "%s holds no items", name);
    *out = (ek_shape){2, {x->rank == 3 ? x->dim[1] : 1, x->dim[x->rank - 1]}};
    return EK_OK;
}

/* What stands beyond a sequence's length is never looked at, and may be NaN. */
static bool is_padding(const ek_dataset *d, int64_t i)
{
    return d->length && i % d->shape.dim[1] >= d->length[i / d->item];
}

/* Bytes stay bytes, floats floats; other integers become floats. */
static ek_status take_values(ek_dataset *d, ek_array *x, const char *name)
{
    if (x->type == EK_ARRAY_I64) {
        EK_TRY(EK_NEW(d->floats, (size_t)x->count));
        return ek_array_to_float(x, d->floats, name);
    }
    if (x->type == EK_ARRAY_U8)
        d->bytes = x->data;
    else
        d->floats = x->data;
    x->data = NULL;
    for (int64_t i = 0; d->floats && i < x->count; i++) {
        if (!isfinite(d->floats[i]) && !is_padding(d, i))
            return ek_fail(EK_E_NUMERIC, "%s: item %lld holds a value that is not finite", name,
                           (long long)(i / d->item));
    }
    return EK_OK;
}

/* A number as a whole one from 0 to `most`, -1 where it is none. */
static int64_t whole_at(const ek_array *y, int64_t i, int64_t most)
{
    if (y->type == EK_ARRAY_U8) return ((const unsigned char *)y->data)[i];
    if (y->type == EK_ARRAY_I64) return ((const int64_t *)y->data)[i];
    float value = ((const float *)y->data)[i];
    return value >= 0 && value <= (float)most && value == (float)(int64_t)value ? (int64_t)value : -1;
}

static bool is_column(const ek_array *y) { return y->rank == 1 || (y->rank == 2 && y->dim[1] == 1); }

static ek_status read_lengths(const ek_array *a, const char *name, int64_t n, int64_t positions, int32_t *out)
{
    if (!is_column(a)) return ek_fail(EK_E_SHAPE, "%s has %d dimensions; lengths are [n]", name, a->rank);
    if (a->count != n)
        return ek_fail(EK_E_SHAPE, "%s has %lld lengths, but there are %lld sequences", name,
                       (long long)a->count, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        int64_t length = whole_at(a, i, positions);
        if (length < 1 || length > positions)
            return ek_fail(EK_E_FORMAT,
                           "%s: the length of sequence %lld is not a whole number from 1 to %lld, the "
                           "positions that there are",
                           name, (long long)i, (long long)positions);
        out[i] = (int32_t)length;
    }
    return EK_OK;
}

ek_status ek_lengths_read(const char *path, int64_t n, int64_t positions, int32_t *lengths)
{
    ek_array array;
    EK_TRY(ek_array_load(path, &array));
    ek_status status = read_lengths(&array, path, n, positions, lengths);
    ek_array_clear(&array);
    return status;
}

static ek_status take_labels(ek_dataset *d, const ek_array *y, const char *name, const char *x_name)
{
    if (!is_column(y)) return ek_fail(EK_E_SHAPE, "%s has %d dimensions; labels are [n]", name, y->rank);
    if (y->count != d->count)
        return ek_fail(EK_E_SHAPE, "%s has %lld items, but %s has %lld labels", x_name, (long long)d->count,
                       name, (long long)y->count);
    EK_TRY(EK_NEW(d->label, (size_t)d->count));
    for (int64_t i = 0; i < d->count; i++) {
        int64_t label = whole_at(y, i, MAX_LABEL);
        if (label < 0 || label > MAX_LABEL)
            return ek_fail(EK_E_FORMAT, "%s: the label of item %lld is not a whole number from 0 to %d", name,
                           (long long)i, MAX_LABEL);
        d->label[i] = (int32_t)label;
        if (label >= d->classes) d->classes = (int)label + 1;
    }
    return EK_OK;
}

ek_status ek_dataset_from_arrays(ek_source *x, const ek_source *y, const ek_source *lengths, ek_dataset **out)
{
    ek_status status = EK_OK;
    ek_dataset *d;
    EK_TRY(EK_NEW(d, 1));
    EK_GO(lengths ? sequence_shape(&x->array, x->name, &d->shape)
                  : item_shape(&x->array, x->name, &d->shape));
    d->count = x->array.dim[0];
    d->item = ek_shape_count(d->shape);
    if (lengths) {
        EK_GO(EK_NEW(d->length, (size_t)d->count));
        EK_GO(read_lengths(&lengths->array, lengths->name, d->count, d->shape.dim[1], d->length));
    }
    EK_GO(take_values(d, &x->array, x->name));
    EK_GO(take_labels(d, &y->array, y->name, x->name));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    return status;
}

ek_status ek_dataset_name_classes(ek_dataset *d, const char *const *names, int count, const char *origin)
{
    if (d->classes > count)
        return ek_fail(EK_E_FORMAT, "%s: label %d is out of range; there are %d classes", origin,
                       d->classes - 1, count);
    EK_TRY(EK_NEW(d->class_name, (size_t)count));
    d->classes = count;
    for (int i = 0; i < count; i++) {
        if (!(d->class_name[i] = ek_strdup(names[i]))) return EK_E_MEMORY;
    }
    return EK_OK;
}

/* --- items to predict */

/* How many items of `shape` the array is: it may be one item, or [n, item]; images of one channel may lack that
 * dimension, sequences have it, and features may come as images. -1: it does not fit. */
static int64_t items_in(const ek_array *x, ek_shape shape)
{
    if (x->count == 0) return -1; /* and what it is made of may be more than can be counted */
    int64_t item = ek_shape_count(shape);
    for (int lead = 0; lead <= 1 && lead <= x->rank; lead++) {
        const int64_t *dim = x->dim + lead;
        int rank = x->rank - lead;
        int64_t count = 1;
        for (int i = 0; i < rank; i++) count *= dim[i];
        bool flat = (rank == 1 || shape.rank == 1) && count == item;
        ek_shape here = {.rank = rank};
        for (int i = 0; i < here.rank; i++) here.dim[i] = dim[i];
        if (flat || ek_shape_equal(here, shape) || same_sequence(here, shape)) return lead ? x->dim[0] : 1;
    }
    return -1;
}

static ek_status is_png(const char *path, bool *png)
{
    unsigned char start[4];
    size_t got;
    EK_TRY(ek_file_begin(path, sizeof start, start, &got));
    *png = got == sizeof start && !memcmp(start, "\x89PNG", sizeof start);
    return EK_OK;
}

static ek_status take_lengths(ek_dataset *d, const char *path)
{
    char text[EK_SHAPE_TEXT];
    if (d->shape.rank != 2)
        return ek_fail(EK_E_SHAPE, "lengths are for sequences, and items are %s here, not CxL (such as 8x100)",
                       ek_shape_text(d->shape, text));
    EK_TRY(EK_NEW(d->length, (size_t)d->count));
    return ek_lengths_read(path, d->count, d->shape.dim[1], d->length);
}

static ek_status open_items(const char *path, const char *lengths, ek_shape shape, ek_dataset **out)
{
    ek_array x;
    bool png;
    EK_TRY(is_png(path, &png));
    if (png)
        EK_TRY(ek_png_read(path, shape.rank == 3 ? (int)shape.dim[0] : 1, &x));
    else
        EK_TRY(ek_array_load(path, &x));
    ek_status status = EK_OK;
    ek_dataset *d = NULL;
    int64_t count = items_in(&x, shape);
    if (count < 0) {
        ek_shape have = {.rank = x.rank};
        for (int i = 0; i < have.rank; i++) have.dim[i] = x.dim[i];
        char a[EK_SHAPE_TEXT], b[EK_SHAPE_TEXT];
        status = ek_fail(EK_E_SHAPE, "%s is %s, but items of %s are wanted", path, ek_shape_text(have, a),
                         ek_shape_text(shape, b));
        goto done;
    }
    EK_GO(EK_NEW(d, 1));
    d->count = count;
    d->shape = shape;
    d->item = ek_shape_count(shape);
    if (lengths) EK_GO(take_lengths(d, lengths));
    EK_GO(take_values(d, &x, path));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    ek_array_clear(&x);
    return status;
}

ek_status ek_dataset_open_items(const char *path, ek_shape shape, ek_dataset **out)
{
    return open_items(path, NULL, shape, out);
}

ek_status ek_dataset_open_sequences(const char *path, const char *lengths, ek_shape shape, ek_dataset **out)
{
    if (!lengths) return ek_fail(EK_E_ARGUMENT, "ek_dataset_open_sequences needs a file with lengths");
    return open_items(path, lengths, shape, out);
}
