#include "data/dataset.h"

#include "core/file.h"
#include "core/memory.h"
#include "data/sources.h"
#include "data/stored.h"
#include "formats/image.h"

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
    ek_stored_destroy(d->stored);
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

/* Of a set whose items are not in memory. */
static ek_status read_item(const ek_dataset *d, int64_t index, float *x)
{
    const ek_stored *s = d->stored;
    unsigned char *scratch = NULL, *bytes = NULL;
    ek_status status = EK_OK;
    EK_GO(ek_scratch_create(s, 1, &scratch));
    if (s->bytes) EK_GO(EK_NEW(bytes, (size_t)s->item));
    EK_GO(ek_dataset_read(d, &index, 1, s->bytes ? (void *)bytes : x, scratch));
    for (int64_t i = 0; s->bytes && i < s->item; i++) x[i] = (float)bytes[i] / 255.0f;
done:
    ek_free(bytes);
    ek_free(scratch);
    return status;
}

ek_status ek_dataset_item(const ek_dataset *d, int64_t index, float *x, int *label)
{
    if (index < 0 || index >= d->count)
        return ek_fail(EK_E_ARGUMENT, "there is no item %lld; the data has %lld, counted from 0",
                       (long long)index, (long long)d->count);
    if (x && d->stored) {
        EK_TRY(read_item(d, index, x));
    } else if (x && d->bytes) {
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
static ek_status take_array(ek_dataset *d, ek_array *x, const char *name)
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

static ek_status take_values(ek_dataset *d, ek_source *x)
{
    if (x->array.data) return take_array(d, &x->array, x->name);
    if (!x->stored) EK_TRY(ek_stored_array(&x->file, x->name, d->item, &x->stored));
    d->stored = x->stored;
    x->stored = NULL;
    return ek_dataset_keep(d);
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

/* Numbers [first, first + n) of an array, from memory; *bad: the first that is no whole one from `least` to `most`. */
static void take_part(const ek_array *a, int64_t first, int64_t n, int64_t least, int64_t most, int32_t *out,
                      int64_t *bad)
{
    for (int64_t i = 0; i < n && *bad < 0; i++) {
        int64_t value = whole_at(a, i, most);
        if (value < least || value > most)
            *bad = first + i;
        else
            out[first + i] = (int32_t)value;
    }
}

/* All of them, from memory or from the file, a part at a time; *bad: -1, all are as they should. */
static ek_status take_wholes(const ek_source *s, int64_t least, int64_t most, int32_t *out, int64_t *bad)
{
    enum { PART = 1 << 16 };
    *bad = -1;
    if (s->array.data) {
        take_part(&s->array, 0, s->array.count, least, most, out, bad);
        return EK_OK;
    }
    for (int64_t first = 0; first < s->array.count && *bad < 0; first += PART) {
        int64_t n = s->array.count - first < PART ? s->array.count - first : PART;
        ek_array part;
        ek_status status = ek_array_file_part(&s->file, first, n, &part);
        if (status != EK_OK) return ek_fail_in(status, "%s: ", s->name);
        take_part(&part, first, n, least, most, out, bad);
        ek_array_clear(&part);
    }
    return EK_OK;
}

static ek_status take_lengths(const ek_source *s, int64_t n, int64_t positions, int32_t *out)
{
    const ek_array *a = &s->array;
    int64_t bad;
    if (!is_column(a)) return ek_fail(EK_E_SHAPE, "%s has %d dimensions; lengths are [n]", s->name, a->rank);
    if (a->count != n)
        return ek_fail(EK_E_SHAPE, "%s has %lld lengths, but there are %lld sequences", s->name,
                       (long long)a->count, (long long)n);
    EK_TRY(take_wholes(s, 1, positions, out, &bad));
    if (bad < 0) return EK_OK;
    return ek_fail(
        EK_E_FORMAT,
        "%s: the length of sequence %lld is not a whole number from 1 to %lld, the positions that there are",
        s->name, (long long)bad, (long long)positions);
}

ek_status ek_lengths_read(const char *path, int64_t n, int64_t positions, int32_t *lengths)
{
    ek_source source;
    EK_TRY(ek_source_load(path, &source));
    ek_status status = take_lengths(&source, n, positions, lengths);
    ek_source_clear(&source);
    return status;
}

static ek_status take_labels(ek_dataset *d, const ek_source *s, const char *x_name)
{
    const ek_array *y = &s->array;
    int64_t bad;
    if (!is_column(y)) return ek_fail(EK_E_SHAPE, "%s has %d dimensions; labels are [n]", s->name, y->rank);
    if (y->count != d->count)
        return ek_fail(EK_E_SHAPE, "%s has %lld items, but %s has %lld labels", x_name, (long long)d->count,
                       s->name, (long long)y->count);
    EK_TRY(EK_NEW(d->label, (size_t)d->count));
    EK_TRY(take_wholes(s, 0, MAX_LABEL, d->label, &bad));
    if (bad >= 0)
        return ek_fail(EK_E_FORMAT, "%s: the label of item %lld is not a whole number from 0 to %d", s->name,
                       (long long)bad, MAX_LABEL);
    for (int64_t i = 0; i < d->count; i++) {
        if (d->label[i] >= d->classes) d->classes = d->label[i] + 1;
    }
    return EK_OK;
}

/* --- arrays, in memory or in their files */

/* Those that cannot be read in part are unpacked, or put in order, in memory. */
static ek_status check_memory(const ek_source *s)
{
    size_t memory, bytes = SIZE_MAX;
    EK_TRY(ek_data_memory(&memory));
    if (!ek_multiply_overflows((size_t)s->file.count, ek_number_size(s->file.number), &bytes) &&
        bytes <= memory)
        return EK_OK;
    return ek_fail(
        EK_E_UNSUPPORTED,
        "%s has %.3g GB %s, and at most %.3g GB of a data set are kept in memory; %s, and its items are "
        "read when they are needed",
        s->name, (double)bytes * 1e-9, s->file.packed ? "when it is unpacked" : "in Fortran order",
        (double)memory * 1e-9, s->file.packed ? "unpack it with gunzip" : "save it in C order");
}

ek_status ek_source_load(const char *path, ek_source *out)
{
    ek_source s = {.name = path};
    EK_TRY(ek_array_file_open(path, &s.file));
    ek_status status = EK_OK;
    if (s.file.packed || s.file.fortran) {
        EK_GO(check_memory(&s));
        EK_GO(ek_array_load(path, &s.array));
    } else {
        s.array.rank = s.file.rank;
        s.array.count = s.file.count;
        memcpy(s.array.dim, s.file.dim, sizeof s.array.dim);
    }
    *out = s;
done:
    if (status != EK_OK) ek_source_clear(&s);
    return status;
}

void ek_source_clear(ek_source *s)
{
    ek_array_clear(&s->array);
    ek_array_file_close(&s->file);
    ek_stored_destroy(s->stored);
    s->stored = NULL;
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
        EK_GO(take_lengths(lengths, d->count, d->shape.dim[1], d->length));
    }
    EK_GO(take_values(d, x));
    EK_GO(take_labels(d, y, x->name));
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

static ek_status open_lengths(ek_dataset *d, const char *path)
{
    char text[EK_SHAPE_TEXT];
    if (d->shape.rank != 2)
        return ek_fail(EK_E_SHAPE,
                       "lengths are for sequences, and items are %s here, not CxL (such as 8x100)",
                       ek_shape_text(d->shape, text));
    EK_TRY(EK_NEW(d->length, (size_t)d->count));
    return ek_lengths_read(path, d->count, d->shape.dim[1], d->length);
}

/* An image for a net whose input is `shape`; "image.jpg:3x32x32": scaled to that. */
static ek_status load_image(const char *path, const char *scaled, ek_shape shape, ek_shape to, ek_array *out)
{
    if (!scaled) return ek_image_read(path, shape.rank == 3 ? (int)shape.dim[0] : 1, out);
    ek_array image;
    int channels = (int)to.dim[0];
    unsigned char *data = NULL;
    float *rows = NULL;
    ek_status status = EK_OK;
    EK_TRY(ek_image_read(scaled, channels, &image));
    EK_GO(EK_NEW(data, (size_t)ek_shape_count(to)));
    EK_GO(EK_NEW(rows, ek_image_scale_scratch(image.dim[1], to.dim[2])));
    ek_image_scale(image.data, channels, image.dim[1], image.dim[2], to.dim[1], to.dim[2], data, rows);
    *out = (ek_array){.type = EK_ARRAY_U8, .rank = 3, .count = ek_shape_count(to), .data = data};
    memcpy(out->dim, to.dim, 3 * sizeof *out->dim);
    data = NULL;
done:
    ek_free(rows);
    ek_free(data);
    ek_array_clear(&image);
    return status;
}

static ek_status open_items(const char *path, const char *lengths, ek_shape shape, ek_dataset **out)
{
    ek_source source = {.name = path, .file.descriptor = -1};
    const ek_array *x = &source.array;
    char *scaled = NULL;
    ek_shape to;
    bool image;
    ek_status status = EK_OK;
    ek_dataset *d = NULL;
    int64_t count;
    EK_GO(ek_scaled_spec(path, &scaled, &to, &image));
    if (!image) EK_GO(ek_image_is(path, &image));
    EK_GO(image ? load_image(path, scaled, shape, to, &source.array) : ek_source_load(path, &source));
    count = items_in(x, shape);
    if (count < 0) {
        ek_shape have = {.rank = x->rank};
        for (int i = 0; i < have.rank; i++) have.dim[i] = x->dim[i];
        char a[EK_SHAPE_TEXT], b[EK_SHAPE_TEXT];
        status = ek_fail(EK_E_SHAPE, "%s is %s, but items of %s are wanted", path, ek_shape_text(have, a),
                         ek_shape_text(shape, b));
        goto done;
    }
    EK_GO(EK_NEW(d, 1));
    d->count = count;
    d->shape = shape;
    d->item = ek_shape_count(shape);
    if (lengths) EK_GO(open_lengths(d, lengths));
    EK_GO(take_values(d, &source));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    ek_source_clear(&source);
    ek_free(scaled);
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
