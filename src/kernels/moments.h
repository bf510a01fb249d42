/* Statistics that can be merged. */
#ifndef EK_KERNELS_MOMENTS_H
#define EK_KERNELS_MOMENTS_H

/* Of a channel: mean and sum of squared deviations of `count` values. */
typedef struct ek_moments {
    double count, mean, m2;
} ek_moments;

/* *a becomes the moments of both; either may be empty. Chan, Golub and LeVeque (1979), "Updating formulae and a
 * pairwise algorithm for computing sample variances":
 *
 *   delta = mean_b - mean_a    N = n_a + n_b
 *   mean  = mean_a + delta*n_b/N
 *   M2    = M2_a + M2_b + delta^2*n_a*n_b/N
 *
 * Every term of M2 is a square, so it never becomes negative. */
static inline void ek_moments_merge(ek_moments *a, ek_moments b)
{
    if (b.count == 0) return;
    double count = a->count + b.count, delta = b.mean - a->mean, share = b.count / count;
    a->mean = a->count == 0 ? b.mean : a->mean + delta * share;
    a->m2 += b.m2 + delta * delta * a->count * share;
    a->count = count;
}

#endif
