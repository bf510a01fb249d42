#include "formats/arrays.h"

#include "core/file.h"
#include "core/memory.h"
#include "formats/array_decode.h"

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

ek_status ek_array_load(const char *path, ek_array *out)
{
    unsigned char first;
    size_t got;
    EK_TRY(ek_file_begin(path, 1, &first, &got));
    /* An IDX file begins with a zero, a packed one with gzip's mark; what cannot be read says why there. */
    if (!got || first == 0x00 || first == 0x1f) return ek_idx_read(path, out);
    if (first == 0x93) return ek_npy_read(path, out);
    return ek_fail(EK_E_FORMAT, "%s is neither an IDX nor an NPY file", path);
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
