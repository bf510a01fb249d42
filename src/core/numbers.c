#include "core/numbers.h"

#include <math.h>
#include <string.h>

size_t ek_number_size(ek_number kind)
{
    switch (kind) {
    case EK_NUMBER_BOOL:
    case EK_NUMBER_U8:
    case EK_NUMBER_I8: return 1;
    case EK_NUMBER_U16:
    case EK_NUMBER_I16:
    case EK_NUMBER_F16:
    case EK_NUMBER_BF16: return 2;
    case EK_NUMBER_U32:
    case EK_NUMBER_I32:
    case EK_NUMBER_F32: return 4;
    case EK_NUMBER_I64:
    case EK_NUMBER_F64: break;
    }
    return 8;
}

bool ek_number_is_real(ek_number kind) { return kind >= EK_NUMBER_F16; }

/* The element's bits, whatever this machine's own byte order. */
static uint64_t bits(const unsigned char *bytes, size_t size, bool big_endian)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) value = value << 8 | bytes[big_endian ? i : size - 1 - i];
    return value;
}

static int64_t integer(ek_number kind, uint64_t raw)
{
    switch (kind) {
    case EK_NUMBER_I8: return (int8_t)raw;
    case EK_NUMBER_I16: return (int16_t)raw;
    case EK_NUMBER_I32: return (int32_t)raw;
    default: return (int64_t)raw;
    }
}

/* value = (-1)^sign * 2^(e-15) * 1.fraction; e = 0: 2^-14 * 0.fraction; e = 31: infinity or NaN. */
static double half(uint64_t raw)
{
    int exponent = raw >> 10 & 31;
    double fraction = (double)(raw & 1023) / 1024.0, size;
    if (exponent == 31)
        size = raw & 1023 ? NAN : INFINITY;
    else
        size = exponent ? ldexp(1.0 + fraction, exponent - 15) : ldexp(fraction, -14);
    return raw & 0x8000 ? -size : size;
}

static double single(uint64_t raw)
{
    uint32_t word = (uint32_t)raw;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static double real(ek_number kind, uint64_t raw)
{
    double value;
    switch (kind) {
    case EK_NUMBER_F16: return half(raw);
    case EK_NUMBER_BF16: return single(raw << 16);
    case EK_NUMBER_F32: return single(raw);
    default: memcpy(&value, &raw, sizeof value); return value;
    }
}

static ek_status check_bool(ek_number kind, uint64_t raw, int64_t index)
{
    if (kind != EK_NUMBER_BOOL || raw <= 1) return EK_OK;
    return ek_fail(EK_E_FORMAT, "element %lld is a boolean of value %d, not 0 or 1", (long long)index,
                   (int)raw);
}

ek_status ek_numbers_to_float(ek_number kind, bool big_endian, const unsigned char *bytes, int64_t count,
                              float *out)
{
    size_t size = ek_number_size(kind);
    if (kind == EK_NUMBER_F32 && big_endian == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)) {
        memcpy(out, bytes, (size_t)count * size); /* as they are */
        return EK_OK;
    }
    for (int64_t i = 0; i < count; i++, bytes += size) {
        uint64_t raw = bits(bytes, size, big_endian);
        if (ek_number_is_real(kind)) {
            double value = real(kind, raw);
            out[i] = (float)value;
            if (isinf(out[i]) && !isinf(value))
                return ek_fail(EK_E_FORMAT, "element %lld is %g, too large for a 32-bit float", (long long)i,
                               value);
        } else {
            EK_TRY(check_bool(kind, raw, i));
            int64_t value = integer(kind, raw);
            out[i] = (float)value;
            /* In double, which 2^63, where rounding may lead, does not overflow; below 2^53 it is exact. */
            if ((double)out[i] >= 0x1p63 || (int64_t)out[i] != value)
                return ek_fail(EK_E_FORMAT, "element %lld is %lld, which a 32-bit float cannot hold exactly",
                               (long long)i, (long long)value);
        }
    }
    return EK_OK;
}

ek_status ek_numbers_to_int64(ek_number kind, bool big_endian, const unsigned char *bytes, int64_t count,
                              int64_t *out)
{
    size_t size = ek_number_size(kind);
    for (int64_t i = 0; i < count; i++, bytes += size) {
        uint64_t raw = bits(bytes, size, big_endian);
        if (ek_number_is_real(kind)) {
            double value = real(kind, raw);
            if (!(value >= -0x1p63 && value < 0x1p63) || value != trunc(value))
                return ek_fail(EK_E_FORMAT, "element %lld is %g, not a whole number", (long long)i, value);
            out[i] = (int64_t)value;
        } else {
            EK_TRY(check_bool(kind, raw, i));
            out[i] = integer(kind, raw);
        }
    }
    return EK_OK;
}
