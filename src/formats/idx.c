/* IDX (http://yann.lecun.com/exdb/mnist/): 00 00 type rank, rank big-endian u32 dimensions, then the
 * numbers, big-endian, the last dimension fastest. */
#include "core/memory.h"
#include "formats/array_decode.h"
#include "formats/array_file.h"
#include "formats/gzip.h"

#include <string.h>

static bool number_of(unsigned char type, ek_number *out)
{
    switch (type) {
    case 0x08: *out = EK_NUMBER_U8; return true;
    case 0x09: *out = EK_NUMBER_I8; return true;
    case 0x0B: *out = EK_NUMBER_I16; return true;
    case 0x0C: *out = EK_NUMBER_I32; return true;
    case 0x0D: *out = EK_NUMBER_F32; return true;
    case 0x0E: *out = EK_NUMBER_F64; return true;
    }
    return false;
}

static ek_status read_exactly(ek_source *source, void *bytes, size_t size, const char *what)
{
    size_t got;
    EK_TRY(ek_source_read(source, bytes, size, &got));
    if (got == size) return EK_OK;
    return ek_fail(EK_E_FORMAT, "it is cut short: %s should have %zu bytes, %zu are there", what, size, got);
}

static ek_status read_header(ek_source *source, ek_array *array, ek_number *number, size_t *bytes)
{
    unsigned char magic[4], dim[4];
    EK_TRY(read_exactly(source, magic, sizeof magic, "the IDX header"));
    if (magic[0] || magic[1] || !number_of(magic[2], number))
        return ek_fail(EK_E_FORMAT, "it is not an IDX file: it begins with %02x %02x %02x %02x", magic[0],
                       magic[1], magic[2], magic[3]);
    array->rank = magic[3];
    if (array->rank < 1 || array->rank > EK_ARRAY_MAX_RANK)
        return ek_fail(EK_E_FORMAT, "it has %d dimensions; 1 to %d are read", array->rank, EK_ARRAY_MAX_RANK);
    array->count = 1;
    bool fits = true;
    for (int i = 0; i < array->rank; i++) {
        EK_TRY(read_exactly(source, dim, sizeof dim, "a dimension"));
        array->dim[i] = (int64_t)dim[0] << 24 | dim[1] << 16 | dim[2] << 8 | dim[3];
        if (__builtin_mul_overflow(array->count, array->dim[i], &array->count)) fits = false;
    }
    if (!fits || ek_multiply_overflows((size_t)array->count, ek_number_size(*number), bytes) ||
        *bytes > ek_source_bound(source))
        return ek_fail(EK_E_FORMAT, "it is cut short: its header promises more data than it can hold");
    return EK_OK;
}

static ek_status read_end(ek_source *source)
{
    unsigned char more;
    size_t got;
    EK_TRY(ek_source_read(source, &more, 1, &got));
    return got ? ek_fail(EK_E_FORMAT, "it goes on after the data that its header promises") : EK_OK;
}

ek_status ek_idx_open(const char *path, ek_array_file *out)
{
    ek_source source;
    EK_TRY(ek_source_open(path, &source));
    ek_status status = EK_OK;
    ek_array array = {0};
    ek_array_file file = {.descriptor = -1, .big_endian = true, .packed = source.stream != NULL};
    size_t bytes = 0;
    EK_GO(read_header(&source, &array, &file.number, &bytes));
    if (!file.packed && bytes < ek_source_bound(&source)) {
        status = ek_fail(EK_E_FORMAT, "it goes on after the data that its header promises");
        goto done;
    }
    file.offset = source.taken;
    file.rank = array.rank;
    memcpy(file.dim, array.dim, sizeof file.dim);
    file.count = array.count;
    file.descriptor = source.descriptor;
    source.descriptor = -1;
    *out = file;
done:
    ek_source_close(&source);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

ek_status ek_idx_read(const char *path, ek_array *out)
{
    ek_source source;
    EK_TRY(ek_source_open(path, &source));
    ek_status status = EK_OK;
    ek_array array = {0};
    unsigned char *raw = NULL;
    ek_number number = EK_NUMBER_U8;
    size_t bytes = 0;
    EK_GO(read_header(&source, &array, &number, &bytes));
    EK_GO(EK_NEW(raw, bytes));
    EK_GO(read_exactly(&source, raw, bytes, "the data"));
    EK_GO(read_end(&source));
    if (number == EK_NUMBER_U8) { /* as they are: large sets are not held twice */
        array.type = EK_ARRAY_U8;
        array.data = raw;
        raw = NULL;
    } else {
        EK_GO(ek_array_decode(&array, number, true, raw));
    }
    *out = array;
done:
    if (status != EK_OK) {
        ek_fail_in(status, "%s: ", path);
        ek_array_clear(&array);
    }
    ek_free(raw);
    ek_source_close(&source);
    return status;
}
