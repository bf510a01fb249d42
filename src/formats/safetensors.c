/* The format: a little-endian u64 N, N bytes of JSON, then the tensors' bytes without gaps
 * (https://github.com/huggingface/safetensors#format). */
#include "formats/safetensors.h"

#include "core/file.h"
#include "core/json.h"
#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    LENGTH = 8, /* bytes of the header's length */
    MAX_HEADER = 100 * 1000 * 1000,
    MAX_TENSORS = 65536,
    MAX_METADATA = 4096,
    NAME = 80, /* letters of a name in a message */
};

static const size_t MAX_FILE = (size_t)1 << 36;

/* U16, U32 and U64 are refused. */
static const char *const dtypes[] = {
    [EK_NUMBER_BOOL] = "BOOL", [EK_NUMBER_U8] = "U8",   [EK_NUMBER_I8] = "I8",   [EK_NUMBER_I16] = "I16",
    [EK_NUMBER_I32] = "I32",   [EK_NUMBER_I64] = "I64", [EK_NUMBER_F16] = "F16", [EK_NUMBER_BF16] = "BF16",
    [EK_NUMBER_F32] = "F32",   [EK_NUMBER_F64] = "F64",
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* A name from a file, made short for a message. */
typedef struct shown {
    char text[NAME + 4];
} shown;

static shown show(const char *name)
{
    shown s;
    size_t length = strnlen(name, NAME);
    memcpy(s.text, name, length);
    strcpy(s.text + length, name[length] ? "..." : "");
    return s;
}

/* --- reading */

/* Where a tensor's data lies, for sorting; `index` keeps empty tensors in the header's order. */
typedef struct range {
    uint64_t begin, end;
    int index;
} range;

static int by_begin(const void *a, const void *b)
{
    const range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* A whole number that is not negative. */
static bool natural(const json_t *json, uint64_t *out)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0) return false;
    *out = (uint64_t)json_integer_value(json);
    return true;
}

static ek_status parse_dtype(const json_t *info, ek_st_tensor *t)
{
    const char *text = json_string_value(json_object_get(info, "dtype"));
    if (!text) return ek_fail(EK_E_FORMAT, "tensor '%s' has no dtype", show(t->name).text);
    for (int i = 0; i < DTYPES; i++) {
        if (!dtypes[i] || strcmp(text, dtypes[i])) continue;
        t->dtype = (ek_number)i;
        return EK_OK;
    }
    return ek_fail(EK_E_UNSUPPORTED,
                   "tensor '%s' has dtype '%s'; F32, F64, F16, BF16, I64, I32, I16, I8, U8 and BOOL are read",
                   show(t->name).text, show(text).text);
}

static ek_status parse_shape(const json_t *info, ek_st_tensor *t)
{
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape)) return ek_fail(EK_E_FORMAT, "tensor '%s' has no shape", show(t->name).text);
    if (json_array_size(shape) > EK_SAFETENSORS_MAX_RANK)
        return ek_fail(EK_E_FORMAT, "tensor '%s' has %zu dimensions; at most %d are read", show(t->name).text,
                       json_array_size(shape), EK_SAFETENSORS_MAX_RANK);
    t->rank = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->rank; i++) {
        uint64_t dim;
        if (!natural(json_array_get(shape, (size_t)i), &dim))
            return ek_fail(EK_E_FORMAT,
                           "tensor '%s': dimension %d of its shape is not a whole number from 0 up",
                           show(t->name).text, i);
        t->dim[i] = (int64_t)dim;
        if (__builtin_mul_overflow(t->count, t->dim[i], &t->count))
            return ek_fail(EK_E_FORMAT, "tensor '%s': the product of its shape overflows",
                           show(t->name).text);
    }
    return EK_OK;
}

static ek_status parse_offsets(const json_t *info, const ek_st_tensor *t, range *out)
{
    const json_t *offsets = json_object_get(info, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return ek_fail(EK_E_FORMAT, "tensor '%s' has no data_offsets of two numbers", show(t->name).text);
    if (!natural(json_array_get(offsets, 0), &out->begin) || !natural(json_array_get(offsets, 1), &out->end))
        return ek_fail(EK_E_FORMAT, "tensor '%s': its data_offsets are not whole numbers from 0 up",
                       show(t->name).text);
    if (out->end < out->begin)
        return ek_fail(EK_E_FORMAT, "tensor '%s': its data ends before it begins", show(t->name).text);
    size_t bytes;
    if (ek_multiply_overflows((size_t)t->count, ek_number_size(t->dtype), &bytes))
        return ek_fail(EK_E_FORMAT, "tensor '%s': the bytes of its shape overflow", show(t->name).text);
    if (out->end - out->begin != bytes)
        return ek_fail(EK_E_FORMAT, "tensor '%s': its shape needs %zu bytes, its data_offsets give %llu",
                       show(t->name).text, bytes, (unsigned long long)(out->end - out->begin));
    return EK_OK;
}

/* On failure the half that was copied is freed with the list that the entry lies in. */
static ek_status copy_entry(const char *key, const char *value, ek_st_entry *out)
{
    out->key = ek_strdup(key);
    out->value = ek_strdup(value);
    return out->key && out->value ? EK_OK : EK_E_MEMORY;
}

static ek_status parse_metadata(const json_t *object, ek_safetensors *out)
{
    if (!json_is_object(object)) return ek_fail(EK_E_FORMAT, "__metadata__ is not an object of strings");
    size_t room = json_object_size(object);
    if (room > MAX_METADATA)
        return ek_fail(EK_E_FORMAT, "__metadata__ has %zu entries; at most %d are read", room, MAX_METADATA);
    EK_TRY(EK_NEW(out->metadata, room));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (!json_is_string(value))
            return ek_fail(EK_E_FORMAT, "__metadata__ '%s' is not a string", show(key).text);
        EK_TRY(copy_entry(key, json_string_value(value), &out->metadata[out->metadata_count++]));
    }
    return EK_OK;
}

/* Sorted by place, each tensor must begin where the one before ends, and the last end with the file. */
static ek_status place(range *ranges, const unsigned char *data, uint64_t data_size, ek_safetensors *out)
{
    if (out->count) qsort(ranges, (size_t)out->count, sizeof *ranges, by_begin);
    uint64_t end = 0;
    for (int i = 0; i < out->count; i++) {
        const char *name = out->tensor[ranges[i].index].name;
        if (ranges[i].begin < end)
            return ek_fail(EK_E_FORMAT, "tensors '%s' and '%s' share bytes",
                           show(out->tensor[ranges[i - 1].index].name).text, show(name).text);
        if (ranges[i].begin > end)
            return ek_fail(
                EK_E_FORMAT,
                "tensor '%s' begins at byte %llu of the data, not at %llu where the one before ends",
                show(name).text, (unsigned long long)ranges[i].begin, (unsigned long long)end);
        end = ranges[i].end;
        if (end > data_size)
            return ek_fail(
                EK_E_FORMAT,
                "tensor '%s' ends at byte %llu of the data, of which there are %llu: the file is cut short",
                show(name).text, (unsigned long long)end, (unsigned long long)data_size);
    }
    if (end < data_size)
        return ek_fail(EK_E_FORMAT, "%llu bytes follow after the last tensor",
                       (unsigned long long)(data_size - end));

    ek_st_tensor *sorted;
    EK_TRY(EK_NEW(sorted, (size_t)out->count));
    for (int i = 0; i < out->count; i++) {
        sorted[i] = out->tensor[ranges[i].index];
        sorted[i].bytes = data + ranges[i].begin;
    }
    ek_free(out->tensor);
    out->tensor = sorted;
    return EK_OK;
}

static ek_status parse_header(const json_t *header, const unsigned char *data, uint64_t data_size,
                              ek_safetensors *out)
{
    if (!json_is_object(header)) return ek_fail(EK_E_FORMAT, "the header is not a JSON object");
    size_t room = json_object_size(header);
    if (room > MAX_TENSORS)
        return ek_fail(EK_E_FORMAT, "the header names %zu tensors; at most %d are read", room, MAX_TENSORS);
    ek_status status = EK_OK;
    range *ranges;
    EK_TRY(EK_NEW(ranges, room));
    EK_GO(EK_NEW(out->tensor, room));
    const char *name;
    json_t *info;
    json_object_foreach((json_t *)header, name, info)
    {
        if (!strcmp(name, "__metadata__")) {
            EK_GO(parse_metadata(info, out));
            continue;
        }
        int i = out->count++;
        ek_st_tensor *t = &out->tensor[i];
        if (!(t->name = ek_strdup(name))) {
            status = EK_E_MEMORY;
            goto done;
        }
        if (!json_is_object(info)) {
            status = ek_fail(EK_E_FORMAT, "the header's entry '%s' is not an object", show(name).text);
            goto done;
        }
        EK_GO(parse_dtype(info, t));
        EK_GO(parse_shape(info, t));
        EK_GO(parse_offsets(info, t, &ranges[i]));
        ranges[i].index = i;
    }
    EK_GO(place(ranges, data, data_size, out));
done:
    ek_free(ranges);
    return status;
}

/* The header's JSON. *json is the caller's to release. */
static ek_status load_json(const unsigned char *text, size_t length, json_t **json)
{
    json_error_t error;
    ek_status status = ek_json_read((const char *)text, length, JSON_REJECT_DUPLICATES, json, &error);
    if (status != EK_E_FORMAT) return status;
    switch (json_error_code(&error)) {
    case json_error_invalid_utf8:
        return ek_fail(EK_E_FORMAT, "the header is not UTF-8 (at its byte %d)", error.position);
    case json_error_duplicate_key:
        return ek_fail(EK_E_FORMAT, "the header has a key twice: %s", show(error.text).text);
    default:
        return ek_fail(EK_E_FORMAT, "the header is not JSON: %s (at its byte %d)", show(error.text).text,
                       error.position);
    }
}

static ek_status parse(const unsigned char *memory, size_t size, ek_safetensors *out)
{
    if (size == 0) return ek_fail(EK_E_FORMAT, "the file is empty");
    if (size < LENGTH)
        return ek_fail(
            EK_E_FORMAT,
            "the file has %zu bytes; a safetensors file begins with %d that tell its header's length", size,
            LENGTH);
    uint64_t length = 0;
    for (int i = LENGTH; i-- > 0;) length = length << 8 | memory[i];
    if (length > MAX_HEADER)
        return ek_fail(EK_E_FORMAT,
                       "the header's length is given as %llu, more than the %d that are allowed: is this a "
                       "safetensors file?",
                       (unsigned long long)length, MAX_HEADER);
    if (length > size - LENGTH)
        return ek_fail(EK_E_FORMAT,
                       "the header should have %llu bytes, but only %zu follow: the file is cut short",
                       (unsigned long long)length, size - LENGTH);
    json_t *header;
    EK_TRY(load_json(memory + LENGTH, (size_t)length, &header));
    ek_status status = parse_header(header, memory + LENGTH + length, size - LENGTH - length, out);
    json_decref(header);
    return status;
}

ek_status ek_safetensors_parse(unsigned char *memory, size_t size, ek_safetensors *out)
{
    ek_safetensors file = {.memory = memory, .size = size};
    ek_status status = parse(memory, size, &file);
    if (status == EK_OK)
        *out = file;
    else
        ek_safetensors_free(&file);
    return status;
}

ek_status ek_safetensors_read(const char *path, ek_safetensors *out)
{
    unsigned char *memory;
    size_t size;
    EK_TRY(ek_file_read(path, MAX_FILE, &memory, &size));
    ek_status status = ek_safetensors_parse(memory, size, out);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

static void free_metadata(ek_st_entry *list, int count)
{
    for (int i = 0; i < count; i++) {
        ek_free(list[i].key);
        ek_free(list[i].value);
    }
    ek_free(list);
}

static void free_tensors(ek_st_tensor *tensor, int count)
{
    for (int i = 0; tensor && i < count; i++) ek_free(tensor[i].name);
    ek_free(tensor);
}

void ek_safetensors_free(ek_safetensors *file)
{
    free_tensors(file->tensor, file->count);
    free_metadata(file->metadata, file->metadata_count);
    ek_free(file->memory);
    *file = (ek_safetensors){0};
}

const ek_st_tensor *ek_safetensors_find(const ek_safetensors *file, const char *name)
{
    for (int i = 0; i < file->count; i++) {
        if (!strcmp(file->tensor[i].name, name)) return &file->tensor[i];
    }
    return NULL;
}

const char *ek_safetensors_metadata(const ek_safetensors *file, const char *key)
{
    for (int i = 0; i < file->metadata_count; i++) {
        if (!strcmp(file->metadata[i].key, key)) return file->metadata[i].value;
    }
    return NULL;
}

ek_status ek_st_to_float(const ek_st_tensor *t, float *out)
{
    ek_status status = ek_numbers_to_float(t->dtype, false, t->bytes, t->count, out);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "tensor '%s': ", show(t->name).text);
}

ek_status ek_st_to_int64(const ek_st_tensor *t, int64_t *out)
{
    ek_status status = ek_numbers_to_int64(t->dtype, false, t->bytes, t->count, out);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "tensor '%s': ", show(t->name).text);
}

/* --- writing */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are written as they lie in memory");

/* Room for one more element of `list`, which has `count` of *room. */
#define GROW(list, count, room)                                            \
    do {                                                                   \
        if ((count) == (room)) {                                           \
            int more_ = (room) ? 2 * (room) : 16;                          \
            void *grown_ = ek_grow((list), (size_t)more_, sizeof *(list)); \
            if (!grown_) return EK_E_MEMORY;                               \
            (list) = grown_;                                               \
            (room) = more_;                                                \
        }                                                                  \
    } while (0)

ek_status ek_st_add(ek_st_writer *writer, const char *name, ek_number dtype, int rank, const int64_t *dim,
                    const void *data)
{
    if (dtype != EK_NUMBER_F32 && dtype != EK_NUMBER_F64 && dtype != EK_NUMBER_I64)
        return ek_fail(EK_E_UNSUPPORTED, "tensor '%s': only F32, F64 and I64 are written", show(name).text);
    if (rank < 0 || rank > EK_SAFETENSORS_MAX_RANK)
        return ek_fail(EK_E_ARGUMENT, "tensor '%s' has %d dimensions; 0 to %d can be written",
                       show(name).text, rank, EK_SAFETENSORS_MAX_RANK);
    if (!strcmp(name, "__metadata__"))
        return ek_fail(EK_E_ARGUMENT, "a tensor cannot be called __metadata__");
    for (int i = 0; i < writer->count; i++) {
        if (!strcmp(writer->tensor[i].name, name))
            return ek_fail(EK_E_ARGUMENT, "two tensors are called '%s'", show(name).text);
    }
    ek_st_tensor t = {.dtype = dtype, .rank = rank, .count = 1, .bytes = data};
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0 || __builtin_mul_overflow(t.count, dim[i], &t.count))
            return ek_fail(EK_E_ARGUMENT, "tensor '%s': its shape is negative or overflows", show(name).text);
        t.dim[i] = dim[i];
    }
    GROW(writer->tensor, writer->count, writer->room);
    t.name = ek_strdup(name);
    if (!t.name) return EK_E_MEMORY;
    writer->tensor[writer->count++] = t;
    return EK_OK;
}

ek_status ek_st_add_metadata(ek_st_writer *writer, const char *key, const char *value)
{
    GROW(writer->metadata, writer->metadata_count, writer->metadata_room);
    return copy_entry(key, value, &writer->metadata[writer->metadata_count++]);
}

static size_t width(const ek_st_tensor *t) { return ek_number_size(t->dtype); }

/* The order of the data: widest elements first, so that all are aligned; as added among equals. */
static ek_status data_order(const ek_st_writer *writer, const ek_st_tensor ***out)
{
    const ek_st_tensor **order;
    EK_TRY(EK_NEW(order, (size_t)writer->count));
    int n = 0;
    for (size_t bytes = 8; bytes; bytes /= 2) {
        for (int i = 0; i < writer->count; i++) {
            if (width(&writer->tensor[i]) == bytes) order[n++] = &writer->tensor[i];
        }
    }
    *out = order;
    return EK_OK;
}

/* NULL: out of memory. */
static json_t *describe(const ek_st_tensor *t, uint64_t begin, uint64_t end)
{
    json_t *info = json_pack("{s:s, s:[], s:[I, I]}", "dtype", dtypes[t->dtype], "shape", "data_offsets",
                             (json_int_t)begin, (json_int_t)end);
    json_t *shape = json_object_get(info, "shape");
    for (int i = 0; info && i < t->rank; i++) {
        if (json_array_append_new(shape, json_integer(t->dim[i])) == 0) continue;
        json_decref(info);
        info = NULL;
    }
    return info;
}

static bool is_utf8(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at) {
        bool control = *at < 0x20; /* which are no characters there, and are escaped */
        if (!ek_next_character(&at) && !control) return false;
    }
    return true;
}

/* Puts a pair in the header, of which jansson says no more than that it failed. */
static ek_status put(json_t *object, const char *kind, const char *key, const char *text, json_t *value)
{
    if (json_object_set_new(object, key, value) == 0) return EK_OK;
    if (!is_utf8(key) || (text && !is_utf8(text)))
        return ek_fail(EK_E_ARGUMENT, "%s '%s' is not UTF-8", kind, show(key).text);
    return ek_fail(EK_E_MEMORY, "out of memory for the header");
}

/* The header's text, without padding. */
static ek_status header_text(const ek_st_writer *writer, const ek_st_tensor *const *order, ek_text *text)
{
    ek_status status = EK_OK;
    json_t *header = json_object();
    if (writer->metadata_count) {
        json_t *metadata = json_object();
        EK_GO(put(header, "", "__metadata__", NULL, metadata));
        for (int i = 0; i < writer->metadata_count; i++) {
            const ek_st_entry *entry = &writer->metadata[i];
            EK_GO(put(metadata, "metadata", entry->key, entry->value, json_string(entry->value)));
        }
    }
    uint64_t end = 0;
    for (int i = 0; i < writer->count; i++) {
        uint64_t begin = end;
        end += (uint64_t)order[i]->count * width(order[i]);
        EK_GO(put(header, "the tensor name", order[i]->name, NULL, describe(order[i], begin, end)));
    }
    EK_GO(ek_json_write(header, JSON_COMPACT, text));
done:
    json_decref(header);
    return status;
}

ek_status ek_st_write(const ek_st_writer *writer, const char *path)
{
    ek_status status = EK_OK;
    const ek_st_tensor **order = NULL;
    ek_text text = {0};
    ek_replacement file = {0};
    /* What reading refuses must not take the place of what it does not. */
    if (writer->count >= MAX_TENSORS || writer->metadata_count > MAX_METADATA)
        return ek_fail(EK_E_ARGUMENT,
                       "cannot write %s: %d tensors and %d entries of metadata are more than can be read",
                       path, writer->count, writer->metadata_count);
    EK_GO(data_order(writer, &order));
    EK_GO(header_text(writer, order, &text));
    size_t length = text.length, padded = (length + 7) / 8 * 8;
    if (padded > MAX_HEADER) {
        status =
            ek_fail(EK_E_ARGUMENT, "cannot write %s: its header of %zu bytes is over the %d that are allowed",
                    path, padded, MAX_HEADER);
        goto done;
    }
    unsigned char size[LENGTH];
    for (int i = 0; i < LENGTH; i++) size[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    EK_GO(ek_replace_begin(&file, path));
    EK_GO(ek_replace_write(&file, size, sizeof size));
    EK_GO(ek_replace_write(&file, text.data, length));
    EK_GO(ek_replace_write(&file, "       ", padded - length));
    for (int i = 0; i < writer->count; i++)
        EK_GO(ek_replace_write(&file, order[i]->bytes, (size_t)order[i]->count * width(order[i])));
    EK_GO(ek_replace_finish(&file));
done:
    ek_replace_cancel(&file);
    ek_text_free(&text);
    ek_free(order);
    return status;
}

void ek_st_writer_free(ek_st_writer *writer)
{
    free_tensors(writer->tensor, writer->count);
    free_metadata(writer->metadata, writer->metadata_count);
    *writer = (ek_st_writer){0};
}
