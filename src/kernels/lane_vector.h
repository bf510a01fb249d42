/* Vectors of the hardware's width, and the functions that are computed on them. */
#ifndef EK_KERNELS_LANE_VECTOR_H
#define EK_KERNELS_LANE_VECTOR_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* Floats in a vector. A lane row takes EK_LANES/VL of them. */
#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

/* Lanes of a row that are computed. All are, but in the tables for few samples, which leave the others as they are. */
#ifndef EK_KERNELS_LANES
#define EK_KERNELS_LANES EK_LANES
#endif
enum { LANES = EK_KERNELS_LANES, PARTS = LANES / VL };

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef float vf_memory __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi_memory __attribute__((vector_size(VL * 4), aligned(4), may_alias));

/* A function of constants: inlined into callers that pass them, where its loops unroll and its arrays
 * become registers. */
#define TEMPLATE static inline __attribute__((always_inline))
#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UNROLL /* with checks at every unrolled access compilers take minutes */
#elif !defined(__clang__)
#define UNROLL _Pragma("GCC unroll 32")
#else
#define UNROLL _Pragma("clang loop unroll(full)")
#endif

TEMPLATE vf load(const float *p) { return *(const vf_memory *)p; }
TEMPLATE void store(float *p, vf v) { *(vf_memory *)p = v; }
TEMPLATE vf splat(float x) { return x - (vf){0}; } /* x - 0 is x, the zeros' signs included */

/* Over lane rows: the place of the vector after that at i. */
TEMPLATE int64_t next_vector(int64_t i)
{
    i += VL;
    return LANES < EK_LANES && i % EK_LANES == LANES ? i + EK_LANES - LANES : i;
}

TEMPLATE int at_most_vl(int64_t n) { return n < VL ? (int)n : VL; }

/* The first n floats, 0 after them; n <= VL. */
TEMPLATE vf load_n(const float *p, int n)
{
    if (n == VL) return load(p);
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

TEMPLATE void store_n(float *p, vf v, int n)
{
    if (n == VL) store(p, v);
    else memcpy(p, &v, (size_t)n * sizeof *p);
}

#if VL == 16
#define IOTA 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif VL == 8
#define IOTA 0, 1, 2, 3, 4, 5, 6, 7
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define IOTA 0, 1, 2, 3
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif

/* A store past the caches, for arrays larger than they are: the line is not read before it is written. p is a
 * multiple of the vector's size, and lines should be written whole. stream_end() comes before others may read. */
TEMPLATE void stream_store(float *p, vf v)
{
#if defined(__clang__)
    __builtin_nontemporal_store(v, (vf *)(void *)p);
#elif VL == 16
    __builtin_ia32_movntps512(p, v);
#elif VL == 8
    __builtin_ia32_movntps256(p, v);
#elif defined(__SSE__)
    __builtin_ia32_movntps(p, v);
#else
    store(p, v);
#endif
}

TEMPLATE void stream_end(void)
{
#if defined(__SSE__)
    __builtin_ia32_sfence();
#endif
}

/* Masks are vectors of 0 and -1, as comparisons give them. */
TEMPLATE vf select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
TEMPLATE vf keep(vi mask, vf v) { return (vf)(mask & (vi)v); }
TEMPLATE vf drop(vi mask, vf v) { return (vf)(~mask & (vi)v); }
TEMPLATE vi first_lanes(int n) { return (vi){IOTA} < n; }
TEMPLATE vf absolute(vf x) { return (vf)((vi)x & 0x7fffffff); }

/* Turns VL vectors into their transpose: after each of log2(VL) stages vectors i and i + VL/2 stand
 * interleaved in 2i and 2i + 1. */
TEMPLATE void transpose(vf v[VL])
{
    UNROLL for (int stage = 1; stage < VL; stage *= 2) {
        vf w[VL];
        UNROLL for (int i = 0; i < VL / 2; i++) {
            w[2 * i] = __builtin_shufflevector(v[i], v[i + VL / 2], LOW);
            w[2 * i + 1] = __builtin_shufflevector(v[i], v[i + VL / 2], HIGH);
        }
        UNROLL for (int i = 0; i < VL; i++) v[i] = w[i];
    }
}

/* Element i of the result is the sum over vector i, added pairwise. */
TEMPLATE vf sum_each(const vf vectors[VL])
{
    vf v[VL];
    UNROLL for (int i = 0; i < VL; i++) v[i] = vectors[i];
    UNROLL for (int left = VL / 2; left > 0; left /= 2)
        UNROLL for (int i = 0; i < left; i++)
            v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], EVEN) +
                   __builtin_shufflevector(v[2 * i], v[2 * i + 1], ODD);
    return v[0];
}

static inline double sum_lanes(vf v)
{
    double sum[VL];
    for (int i = 0; i < VL; i++) sum[i] = v[i];
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

TEMPLATE vf square_root(vf x)
{
    float each[VL];
    memcpy(each, &x, sizeof each);
    for (int i = 0; i < VL; i++) each[i] = sqrtf(each[i]);
    return load(each);
}

/* The machine's instructions, which gcc does not find by itself: they give their second argument where one is NaN. */
#if defined(__SSE__) && !defined(__clang__)
#if VL == 16
#define MINIMUM(a, b) __builtin_ia32_minps512_mask(a, b, b, -1, 4)
#define MAXIMUM(a, b) __builtin_ia32_maxps512_mask(a, b, b, -1, 4)
#elif VL == 8
#define MINIMUM(a, b) __builtin_ia32_minps256(a, b)
#define MAXIMUM(a, b) __builtin_ia32_maxps256(a, b)
#else
#define MINIMUM(a, b) __builtin_ia32_minps(a, b)
#define MAXIMUM(a, b) __builtin_ia32_maxps(a, b)
#endif
#else
#define MINIMUM(a, b) select((a) < (b), a, b)
#define MAXIMUM(a, b) select((a) > (b), a, b)
#endif

/* A NaN stays. */
TEMPLATE vf clamp(vf x, float low, float high)
{
    x = MINIMUM(splat(high), x);
    return MAXIMUM(splat(low), x);
}

TEMPLATE vf power_of_two(vi n) { return (vf)((n + 127) << 23); }

/* exp(r) - 1 for |r| <= ln(2)/2, where x = whole*ln(2) + r: the polynomial of Cephes' expf. */
TEMPLATE vf exp_rest(vf x, vf whole)
{
    vf r = x - whole * 0.693359375f; /* ln(2) in two parts; the first product is exact */
    r = r - whole * -2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r;
}

/* exp(x) within 2 ulp, subnormal results included; infinities and NaN as libm gives them.
 * exp(x) = 2^n exp(r), |r| <= ln(2)/2. 2^n is applied in two halves, so that it neither overflows nor underflows before
 * the result does. */
TEMPLATE vf exp_vector(vf x)
{
    x = clamp(x, -104.0f, 89.0f);
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    vf shifted = x * 1.44269504f + to_integer;
    vi n = (vi)shifted - (vi)splat(to_integer), half = n >> 1;
    return (exp_rest(x, shifted - to_integer) + 1.0f) * power_of_two(half) * power_of_two(n - half);
}

/* The same within 2 ulp where the result is a normal number, x from -87 to 88, and clamped to that outside. */
TEMPLATE vf exp_normal(vf x)
{
    x = clamp(x, -87.0f, 88.0f);
    const float to_exponent = 12582912.0f + 127.0f; /* the low bits are those of 2^n's exponent */
    vf shifted = x * 1.44269504f + to_exponent;
    vf scale = (vf)((vi)shifted << 23);
    return exp_rest(x, shifted - to_exponent) * scale + scale;
}

/* 1/(1 + exp(-x)); below -88 it stays at exp(-88), 6e-39. */
TEMPLATE vf sigmoid_vector(vf x) { return 1.0f / (1.0f + exp_normal(-x)); }

/* Of the magnitude, with the sign put back: near 0 the odd polynomial of Cephes' tanhf, elsewhere
 * 1 - 2/(exp(2x) + 1). */
TEMPLATE vf tanh_vector(vf x)
{
    vf magnitude = absolute(x), s = x * x;
    vf p = s * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    vf near = p * s * magnitude + magnitude;
    vf far = 1.0f - 2.0f / (exp_normal(2.0f * magnitude) + 1.0f);
    vi sign = (vi)x & ~0x7fffffff;
    return (vf)((vi)select(magnitude < 0.625f, near, far) | sign);
}

#endif
