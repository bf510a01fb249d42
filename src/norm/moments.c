#include "norm/batch_norm.h"

/* Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
 * variances":
 *
 *   delta = mean_b - mean_a    N = n_a + n_b
 *   mean  = mean_a + delta*n_b/N
 *   M2    = M2_a + M2_b + delta^2*n_a*n_b/N
 *
 * Every term of M2 is a square, so it never becomes negative. */
void ek_moments_merge(ek_moments *a, const ek_moments *b)
{
    if (b->count == 0) return;
    if (a->count == 0) {
        *a = *b;
        return;
    }
    double count = a->count + b->count;
    double delta = b->mean - a->mean;
    double share = b->count / count;
    a->mean += delta * share;
    a->m2 += b->m2 + delta * delta * a->count * share;
    a->count = count;
}

ek_moments ek_moments_merge_all(ek_moments *parts, int64_t count, int64_t stride)
{
    if (count == 0) return (ek_moments){0};
    for (int64_t gap = 1; gap < count; gap *= 2)
        for (int64_t i = 0; i + gap < count; i += 2 * gap)
            ek_moments_merge(&parts[i * stride], &parts[(i + gap) * stride]);
    return parts[0];
}
