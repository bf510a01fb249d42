#include "core/random.h"

#include <math.h>

void ek_philox(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = stream, c3 = sub;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

ek_random ek_random_start(uint64_t seed, ek_stream stream, uint32_t sub)
{
    return (ek_random){.seed = seed, .stream = stream, .sub = sub, .used = 4};
}

uint32_t ek_random_u32(ek_random *random)
{
    if (random->used == 4) {
        ek_philox(random->seed, random->stream, random->sub, random->next++, random->block);
        random->used = 0;
    }
    return random->block[random->used++];
}

static uint64_t next_u64(ek_random *random)
{
    uint64_t high = ek_random_u32(random);
    return high << 32 | ek_random_u32(random);
}

uint64_t ek_random_below(ek_random *random, uint64_t bound)
{
    /* Numbers under 2^64 mod bound would favour small results: draw again. */
    uint64_t floor = -bound % bound, number;
    do number = next_u64(random);
    while (number < floor);
    return number % bound;
}

double ek_random_uniform(ek_random *random) { return (double)(next_u64(random) >> 11) * 0x1p-53; }

double ek_random_normal(ek_random *random)
{
    double u = 1.0 - ek_random_uniform(random); /* in (0, 1]: its logarithm is finite */
    double v = ek_random_uniform(random);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void ek_random_shuffle(ek_random *random, int64_t *items, int64_t count)
{
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = (int64_t)ek_random_below(random, (uint64_t)i + 1), held = items[i];
        items[i] = items[j];
        items[j] = held;
    }
}
