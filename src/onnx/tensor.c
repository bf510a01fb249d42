/* The numbers of tensors, wherever the file has them: raw, in fields of their type, or beside it. */
#include "core/memory.h"
#include "core/numbers.h"
#include "core/text.h"
#include "onnx/model.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where numbers of a type stand, if they are not raw: the field, and whether as whole numbers, floats or doubles. */
typedef struct type_row {
    int type;
    ek_number number;
    int field;
    const char *name;
} type_row;

enum { FLOAT_DATA = 4, INT32_DATA = 5, INT64_DATA = 7, DOUBLE_DATA = 10, UINT64_DATA = 11 };

static const type_row types[] = {
    {ONNX_FLOAT, EK_NUMBER_F32, FLOAT_DATA, "float"},
    {ONNX_DOUBLE, EK_NUMBER_F64, DOUBLE_DATA, "double"},
    {ONNX_FLOAT16, EK_NUMBER_F16, INT32_DATA, "float16"},
    {ONNX_BFLOAT16, EK_NUMBER_BF16, INT32_DATA, "bfloat16"},
    {ONNX_INT64, EK_NUMBER_I64, INT64_DATA, "int64"},
    {ONNX_INT32, EK_NUMBER_I32, INT32_DATA, "int32"},
    {ONNX_INT16, EK_NUMBER_I16, INT32_DATA, "int16"},
    {ONNX_INT8, EK_NUMBER_I8, INT32_DATA, "int8"},
    {ONNX_UINT16, EK_NUMBER_U16, INT32_DATA, "uint16"},
    {ONNX_UINT8, EK_NUMBER_U8, INT32_DATA, "uint8"},
    {ONNX_UINT32, EK_NUMBER_U32, UINT64_DATA, "uint32"},
    {ONNX_BOOL, EK_NUMBER_BOOL, INT32_DATA, "bool"},
};

static const type_row *find_type(int type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].type == type) return &types[i];
    }
    return NULL;
}

const char *ek_onnx_type_name(int type)
{
    const type_row *row = find_type(type);
    if (row) return row->name;
    static const char *const others[] = {
        [8] = "string", [13] = "uint64", [14] = "complex64", [15] = "complex128"};
    return type > 0 && type < 16 && others[type] ? others[type] : "a type that is not known here";
}

/* --- external data */

/* One part of a path, which may be no link; the last is a file. */
static int open_part(int folder, const char *part, bool last)
{
    return openat(folder, part, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (last ? O_NONBLOCK : O_DIRECTORY));
}

static ek_status check_location(const char *location)
{
    if (!location || !*location)
        return ek_fail(EK_E_FORMAT, "its data is external, and it does not say where");
    if (*location == '/')
        return ek_fail(EK_E_FORMAT, "its external data '%s' is outside the model's folder", location);
    for (const char *part = location; *part;) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return ek_fail(EK_E_FORMAT, "its external data '%s' is outside the model's folder", location);
        part += length;
        part += strspn(part, "/");
    }
    return EK_OK;
}

/* The file of external data, opened part by part from the model's folder. */
static ek_status open_external(const onnx_model *model, const onnx_tensor *tensor, int *file)
{
    EK_TRY(check_location(tensor->location));
    const char *slash = strrchr(model->path, '/');
    char *folder = slash ? ek_strndup(model->path, (size_t)(slash - model->path) + 1) : ek_strdup(".");
    char *location = ek_strdup(tensor->location), *rest = NULL;
    ek_status status = folder && location ? EK_OK : EK_E_MEMORY;
    *file = status == EK_OK ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    char *part = status == EK_OK ? strtok_r(location, "/", &rest) : NULL;
    while (part && *file >= 0) {
        char *next = strtok_r(NULL, "/", &rest);
        int inner = open_part(*file, part, !next);
        close(*file);
        *file = inner;
        part = next;
    }
    struct stat about;
    if (status == EK_OK && *file < 0)
        status =
            ek_fail_errno("cannot open its external data '%s' (links are not followed)", tensor->location);
    else if (status == EK_OK && (fstat(*file, &about) != 0 || !S_ISREG(about.st_mode)))
        status = ek_fail(EK_E_IO, "its external data '%s' is not a regular file", tensor->location);
    if (status != EK_OK && *file >= 0) close(*file);
    ek_free(folder);
    ek_free(location);
    return status;
}

static ek_status check_external(const onnx_model *model, const onnx_tensor *tensor, size_t needed)
{
    int file;
    EK_TRY(open_external(model, tensor, &file));
    struct stat about;
    ek_status status = fstat(file, &about) == 0 ? EK_OK : ek_fail_errno("cannot read '%s'", tensor->location);
    close(file);
    if (status != EK_OK) return status;
    if (tensor->length >= 0 && (uint64_t)tensor->length != needed)
        return ek_fail(EK_E_FORMAT, "its shape needs %zu bytes, and its external data is said to have %lld",
                       needed, (long long)tensor->length);
    if (tensor->offset > about.st_size || (uint64_t)(about.st_size - tensor->offset) < needed)
        return ek_fail(EK_E_FORMAT, "its external data ends beyond the %lld bytes of '%s'",
                       (long long)about.st_size, tensor->location);
    return EK_OK;
}

static ek_status read_external(const onnx_model *model, const onnx_tensor *tensor, unsigned char *out,
                               size_t size)
{
    int file;
    EK_TRY(open_external(model, tensor, &file));
    ek_status status = EK_OK;
    for (size_t got = 0; got < size && status == EK_OK;) {
        ssize_t count = pread(file, out + got, size - got, (off_t)(tensor->offset + (int64_t)got));
        if (count > 0)
            got += (size_t)count;
        else
            status = count < 0 ? ek_fail_errno("cannot read '%s'", tensor->location)
                               : ek_fail(EK_E_IO, "'%s' became shorter while it was read", tensor->location);
    }
    close(file);
    return status;
}

/* --- typed fields */

/* How many numbers of the type stand in its field. */
static ek_status count_typed(const onnx_tensor *tensor, const type_row *row, size_t *out)
{
    ek_wire message = tensor->message;
    ek_wire_field field;
    bool more;
    *out = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        if (field.number != row->field) continue;
        size_t count;
        const unsigned char *data;
        if (row->field == FLOAT_DATA || row->field == DOUBLE_DATA)
            EK_TRY(ek_wire_fixed(&field, ek_number_size(row->number), &data, &count));
        else
            EK_TRY(ek_wire_count_ints(&field, &count));
        *out += count;
    }
}

/* The type's lowest bytes, as raw data would have them. */
static void to_bytes(const int64_t *value, size_t count, size_t size, unsigned char *out)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < size; k++) *out++ = (unsigned char)((uint64_t)value[i] >> 8 * k);
    }
}

/* All of a tensor's numbers from its field, as raw data would have them. */
static ek_status typed_bytes(const onnx_tensor *tensor, const type_row *row, unsigned char *out)
{
    ek_wire message = tensor->message;
    ek_wire_field field;
    bool more;
    size_t size = ek_number_size(row->number), count;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        if (field.number != row->field) continue;
        if (row->field == FLOAT_DATA || row->field == DOUBLE_DATA) {
            const unsigned char *data;
            EK_TRY(ek_wire_fixed(&field, size, &data, &count));
            if (count) memcpy(out, data, count * size);
        } else {
            int64_t *value;
            EK_TRY(ek_wire_count_ints(&field, &count));
            EK_TRY(EK_NEW(value, count));
            ek_status status = ek_wire_take_ints(&field, value);
            if (status == EK_OK) to_bytes(value, count, size, out);
            ek_free(value);
            EK_TRY(status);
        }
        out += count * size;
    }
}

/* --- numbers */

static ek_status check(const onnx_model *model, const onnx_tensor *tensor)
{
    const type_row *row = find_type(tensor->type);
    if (!row) return ek_fail(EK_E_UNSUPPORTED, "it holds %s", ek_onnx_type_name(tensor->type));
    size_t needed = (size_t)tensor->count, there;
    if (ek_multiply_overflows(needed, ek_number_size(row->number), &needed) || needed > PTRDIFF_MAX)
        return ek_fail(EK_E_FORMAT, "its shape needs more bytes than there are");
    if (tensor->external) return check_external(model, tensor, needed);
    if (tensor->bytes) {
        if (tensor->size == needed) return EK_OK;
        return ek_fail(EK_E_FORMAT, "its shape needs %zu bytes, and it has %zu", needed, tensor->size);
    }
    EK_TRY(count_typed(tensor, row, &there));
    if (there == (size_t)tensor->count) return EK_OK;
    return ek_fail(EK_E_FORMAT, "its shape needs %lld numbers of type %s, and it has %zu",
                   (long long)tensor->count, row->name, there);
}

ek_status ek_onnx_tensor_check(const onnx_model *model, const onnx_tensor *tensor)
{
    ek_status status = check(model, tensor);
    return status == EK_OK || !*tensor->name ? status : ek_fail_in(status, "tensor '%s': ", tensor->name);
}

/* Its bytes as raw data has them: *made NULL where they lie in the file. */
static ek_status find_bytes(const onnx_model *model, const onnx_tensor *tensor, const unsigned char **bytes,
                            unsigned char **made)
{
    *made = NULL;
    *bytes = tensor->bytes;
    if (tensor->bytes && !tensor->external) return EK_OK;
    const type_row *row = find_type(tensor->type);
    size_t size = (size_t)tensor->count * ek_number_size(row->number);
    EK_TRY(EK_NEW(*made, size));
    *bytes = *made;
    ek_status status =
        tensor->external ? read_external(model, tensor, *made, size) : typed_bytes(tensor, row, *made);
    if (status != EK_OK) ek_free(*made);
    return status;
}

ek_status ek_onnx_tensor_reals(const onnx_model *model, const onnx_tensor *tensor, float *out)
{
    const unsigned char *bytes;
    unsigned char *made;
    EK_TRY(ek_onnx_tensor_check(model, tensor));
    EK_TRY(find_bytes(model, tensor, &bytes, &made));
    ek_status status = ek_numbers_to_float(find_type(tensor->type)->number, false, bytes, tensor->count, out);
    ek_free(made);
    return status == EK_OK ? status : ek_fail_in(status, "tensor '%s': ", tensor->name);
}

ek_status ek_onnx_tensor_whole(const onnx_model *model, const onnx_tensor *tensor, int64_t *out)
{
    const unsigned char *bytes;
    unsigned char *made;
    EK_TRY(ek_onnx_tensor_check(model, tensor));
    EK_TRY(find_bytes(model, tensor, &bytes, &made));
    ek_status status = ek_numbers_to_int64(find_type(tensor->type)->number, false, bytes, tensor->count, out);
    ek_free(made);
    return status == EK_OK ? status : ek_fail_in(status, "tensor '%s': ", tensor->name);
}
