/* Numbers that a golden's script and its test both make: tests/oracles/common/golden.py. */
#ifndef EK_TESTS_GOLDEN_VALUES_H
#define EK_TESTS_GOLDEN_VALUES_H

#include "core/memory.h"

/* Exact in float. */
static inline void series(float *to, int64_t count, int step, int modulus, double scale, double shift)
{
    for (int64_t i = 0; i < count; i++) to[i] = (float)((double)(i * step % modulus - modulus / 2) / scale + shift);
}

static inline float *new_series(int64_t count, int step, int modulus, double scale)
{
    float *values = ek_calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    series(values, count, step, modulus, scale, 0);
    return values;
}

#endif
