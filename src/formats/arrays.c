#include "formats/arrays.h"

#include "core/file.h"
#include "core/memory.h"
#include "formats/array_decode.h"
#include "formats/array_file.h"

#include <string.h>

void ek_array_clear(ek_array *array)
{
    ek_free(array->data);
    *array = (ek_array){0};
}

ek_status ek_array_decode(ek_array *array, ek_number number, bool big_endian, const unsigned char *raw)
{
    if (number == EK_NUMBER_U8) {
        unsigned char *data;
        EK_TRY(EK_NEW(data, (size_t)array->count));
        array->type = EK_ARRAY_U8;
        array->data = memcpy(data, raw, (size_t)array->count);
        return EK_OK;
    }
    if (ek_number_is_real(number)) {
        float *data;
        EK_TRY(EK_NEW(data, (size_t)array->count));
        array->type = EK_ARRAY_F32;
        array->data = data;
        return ek_numbers_to_float(number, big_endian, raw, array->count, data);
    }
    int64_t *data;
    EK_TRY(EK_NEW(data, (size_t)array->count));
    array->type = EK_ARRAY_I64;
    array->data = data;
    return ek_numbers_to_int64(number, big_endian, raw, array->count, data);
}

ek_status ek_array_to_float(const ek_array *array, float *out, const char *path)
{
    switch (array->type) {
    case EK_ARRAY_U8:
        for (int64_t i = 0; i < array->count; i++)
            out[i] = (float)((const unsigned char *)array->data)[i] / 255.0f;
        return EK_OK;
    case EK_ARRAY_F32: memcpy(out, array->data, (size_t)array->count * sizeof *out); return EK_OK;
    case EK_ARRAY_I64: break;
    }
    ek_status status = ek_numbers_to_float(EK_NUMBER_I64, __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, array->data,
                                           array->count, out);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

/* An IDX file begins with a zero, a packed one with gzip's mark; what cannot be read says why there. */
static ek_status is_npy(const char *path, bool *npy)
{
    unsigned char first = 0;
    size_t got;
    EK_TRY(ek_file_begin(path, 1, &first, &got));
    *npy = first == 0x93;
    if (!got || first == 0x00 || first == 0x1f || *npy) return EK_OK;
    return ek_fail(EK_E_FORMAT, "%s is neither an IDX nor an NPY file", path);
}

ek_status ek_array_load(const char *path, ek_array *out)
{
    bool npy;
    EK_TRY(is_npy(path, &npy));
    return npy ? ek_npy_read(path, out) : ek_idx_read(path, out);
}

/* --- in place */

ek_status ek_array_file_open(const char *path, ek_array_file *out)
{
    bool npy;
    EK_TRY(is_npy(path, &npy));
    return npy ? ek_npy_open(path, out) : ek_idx_open(path, out);
}

void ek_array_file_close(ek_array_file *file) { ek_file_close(&file->descriptor); }

ek_status ek_array_file_read(const ek_array_file *file, int64_t first, int64_t count, unsigned char *raw)
{
    int64_t width = (int64_t)ek_number_size(file->number);
    return ek_file_read_at(file->descriptor, file->offset + first * width, (size_t)(count * width), raw);
}

ek_status ek_array_file_part(const ek_array_file *file, int64_t first, int64_t count, ek_array *out)
{
    ek_array array = {.type = EK_ARRAY_U8, .rank = 1, .dim = {count}, .count = count};
    unsigned char *raw = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(raw, (size_t)count * ek_number_size(file->number)));
    EK_GO(ek_array_file_read(file, first, count, raw));
    if (file->number == EK_NUMBER_U8) { /* as they are: large sets are not held twice */
        array.data = raw;
        raw = NULL;
    } else {
        EK_GO(ek_array_decode(&array, file->number, file->big_endian, raw));
    }
    *out = array;
done:
    if (status != EK_OK) ek_array_clear(&array);
    ek_free(raw);
    return status;
}

ek_status ek_array_read(const char *path, ek_shape *shape, float **data)
{
    ek_array array;
    EK_TRY(ek_npy_read(path, &array));
    ek_status status = EK_OK;
    float *values = NULL;
    EK_GO(EK_NEW(values, (size_t)array.count));
    EK_GO(ek_array_to_float(&array, values, path));
    *shape = (ek_shape){.rank = array.rank};
    _Static_assert(EK_ARRAY_MAX_RANK == EK_MAX_RANK, "what is read is a shape");
    memcpy(shape->dim, array.dim, sizeof shape->dim);
    *data = values;
    values = NULL;
done:
    ek_free(values);
    ek_array_clear(&array);
    return status;
}

ek_status ek_array_write(const char *path, ek_shape shape, const float *data)
{
    if (shape.rank < 0 || shape.rank > EK_MAX_RANK)
        return ek_fail(EK_E_ARGUMENT, "cannot write %s: an array has 0 to %d dimensions, not %d", path,
                       EK_MAX_RANK, shape.rank);
    return ek_npy_write(path, shape.rank, shape.dim, data);
}

void ek_array_free(float *data) { ek_free(data); }
