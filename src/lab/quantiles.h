/* Sorting numbers to see how they are distributed. */
#ifndef EK_LAB_QUANTILES_H
#define EK_LAB_QUANTILES_H

#include <stdint.h>

/* Takes out what is not finite and sorts the rest upward; gives how many are left. room [2n]. */
int64_t ek_sort_finite(float *value, int64_t n, uint32_t *room);

/* The quantile q, 0 to 1, of n sorted values: linear between the two nearest, as NumPy has it. NaN where n is 0. */
double ek_quantile(const float *sorted, int64_t n, double q);

#endif
