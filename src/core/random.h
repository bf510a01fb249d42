/* Random numbers by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
 * 3", SC 2011). Each number is a function of (seed, stream, index) alone, so that any thread, process
 * or resumed run draws the same ones, and a checkpoint needs no generator state. */
#ifndef EK_CORE_RANDOM_H
#define EK_CORE_RANDOM_H

#include <stdint.h>

/* What a stream is for; the second word tells apart streams of one purpose (a layer, an epoch). */
typedef enum ek_stream {
    EK_STREAM_INIT = 1,
    EK_STREAM_SHUFFLE,
    EK_STREAM_SPLIT,
    EK_STREAM_DROPOUT,
    EK_STREAM_SYNTHETIC,
    EK_STREAM_TEST,
} ek_stream;

typedef struct ek_random {
    uint64_t seed;
    uint32_t stream, sub;
    uint64_t next; /* index of the next block of four */
    uint32_t block[4];
    int used; /* of the block, 4: all */
} ek_random;

/* The four numbers at `index`. */
void ek_philox(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index, uint32_t out[4]);

/* A sequence on top. */
ek_random ek_random_start(uint64_t seed, ek_stream stream, uint32_t sub);
uint32_t ek_random_u32(ek_random *random);
uint64_t ek_random_below(ek_random *random, uint64_t bound); /* uniform in [0, bound), bound > 0 */
double ek_random_uniform(ek_random *random);                 /* [0, 1), 53 bits */
double ek_random_normal(ek_random *random);                  /* mean 0, deviation 1, Box-Muller */
void ek_random_shuffle(ek_random *random, int64_t *items, int64_t count); /* Fisher-Yates */

#endif
