/* How a product is cut; shared by the kernel and by those who give it scratch memory. */
#ifndef EK_KERNELS_GEMM_BLOCKS_H
#define EK_KERNELS_GEMM_BLOCKS_H

#include <stdint.h>

/* The depth that is packed at a time; panels of the widest kernel, of which the others' are divisors. */
enum { GEMM_DEPTH = 320, GEMM_PANEL_ROWS = 12, GEMM_PANEL_COLUMNS = 32 };

static inline int64_t gemm_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* k in equal blocks of at most GEMM_DEPTH. */
static inline int64_t gemm_depth(int64_t k)
{
    int64_t blocks = (k + GEMM_DEPTH - 1) / GEMM_DEPTH;
    return blocks > 1 ? (k + blocks - 1) / blocks : k;
}

#endif
