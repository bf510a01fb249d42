/* What the machine can do at most, measured: the floors that a benchmark's times are held against. */
#ifndef CLI_FLOORS_H
#define CLI_FLOORS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cli_floors {
    int threads;
    size_t bytes;  /* of the arrays behind the figures below, together */
    double fma;    /* float operations a second of multiplications with addition, two each, in registers */
    double read;   /* bytes a second, read and summed */
    double copy;   /* bytes a second, read and written, each counted once */
    double stream; /* the same, past the caches with non-temporal stores; 0 where there are none */
} cli_floors;

/* Arrays large enough that no cache holds them. */
#define CLI_FLOORS_MEMORY ((size_t)256 << 20)

/* The best of several tries, with vectors of the instruction set `isa` ("avx512", "avx2", else 16 bytes).
 * False: no memory for it, which was said. A thread that the system does not give ends the program. */
bool cli_floors_measure(const char *isa, int threads, size_t bytes, cli_floors *out);

#endif
