/* The numbers that files hold, in their bytes, turned into floats and 64-bit integers. */
#ifndef EK_CORE_NUMBERS_H
#define EK_CORE_NUMBERS_H

#include "core/status.h"

typedef enum ek_number {
    EK_NUMBER_BOOL, /* one byte, 0 or 1 */
    EK_NUMBER_U8,
    EK_NUMBER_I8,
    EK_NUMBER_U16,
    EK_NUMBER_I16,
    EK_NUMBER_U32,
    EK_NUMBER_I32,
    EK_NUMBER_I64,
    EK_NUMBER_F16,  /* IEEE 754 half: 1 sign, 5 exponent, 10 fraction bits */
    EK_NUMBER_BF16, /* the upper half of a float */
    EK_NUMBER_F32,
    EK_NUMBER_F64,
} ek_number;

size_t ek_number_size(ek_number kind); /* bytes */
bool ek_number_is_real(ek_number kind);

/* `bytes` may be unaligned. Reals are rounded to float, integers must be exact in it; reals become integers
 * only where they are whole. EK_E_FORMAT names the first element that cannot be carried over. */
ek_status ek_numbers_to_float(ek_number kind, bool big_endian, const unsigned char *bytes, int64_t count,
                              float *out);
ek_status ek_numbers_to_int64(ek_number kind, bool big_endian, const unsigned char *bytes, int64_t count,
                              int64_t *out);

#endif
