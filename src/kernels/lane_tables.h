/* The tables that lane_kernels.c exports, one for each instruction set it is compiled for. */
#ifndef EK_KERNELS_LANE_TABLES_H
#define EK_KERNELS_LANE_TABLES_H

#include "kernels/kernels.h"

extern const ek_kernels ek_kernels_baseline;
extern const ek_kernels ek_kernels_baseline_few;
#if defined(__x86_64__)
extern const ek_kernels ek_kernels_avx2;
extern const ek_kernels ek_kernels_avx2_few;
extern const ek_kernels ek_kernels_avx512;
#endif

#endif
