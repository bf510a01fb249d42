#include "lab/quantiles.h"

#include <math.h>
#include <string.h>

/* The bits of floats, so changed that they are ordered as the numbers are: the sign turned for positive ones, all for
 * negative ones. */
static uint32_t to_key(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float from_key(uint32_t key)
{
    uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void insertion_sort(float *value, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        float moved = value[i];
        int64_t at = i;
        for (; at > 0 && value[at - 1] > moved; at--) value[at] = value[at - 1];
        value[at] = moved;
    }
}

/* By eleven bits of the key at a time, the lowest first: three passes, whatever the numbers are. */
enum { DIGIT = 11, DIGITS = 3, PLACES = 1 << DIGIT };

static uint32_t digit(uint32_t key, int place) { return key >> (DIGIT * place) & (PLACES - 1); }

static void radix_sort(uint32_t *key, uint32_t *room, int64_t n)
{
    uint32_t first[DIGITS][PLACES] = {{0}};
    for (int64_t i = 0; i < n; i++) {
        for (int d = 0; d < DIGITS; d++) first[d][digit(key[i], d)]++;
    }
    for (int d = 0; d < DIGITS; d++) {
        uint32_t sum = 0;
        for (int place = 0; place < PLACES; place++) {
            uint32_t count = first[d][place];
            first[d][place] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < n; i++) room[first[d][digit(key[i], d)]++] = key[i];
        uint32_t *swapped = key;
        key = room;
        room = swapped;
    }
}

int64_t ek_sort_finite(float *value, int64_t n, uint32_t *room)
{
    enum { FEW = 48 };
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(value[i])) value[left++] = value[i];
    }
    if (left < FEW) {
        insertion_sort(value, left);
        return left;
    }
    uint32_t *key = room, *other = room + left;
    for (int64_t i = 0; i < left; i++) key[i] = to_key(value[i]);
    radix_sort(key, other, left);
    for (int64_t i = 0; i < left; i++) value[i] = from_key(other[i]); /* where an odd number of passes ends */
    return left;
}

double ek_quantile(const float *sorted, int64_t n, double q)
{
    if (n == 0) return NAN;
    double at = q * (double)(n - 1);
    int64_t below = (int64_t)at;
    if (below >= n - 1) return sorted[n - 1];
    return sorted[below] + (at - (double)below) * ((double)sorted[below + 1] - sorted[below]);
}
