#include "norm/batch_norm.h"

ek_moments ek_moments_merge_all(ek_moments *parts, int64_t count, int64_t stride)
{
    if (count == 0) return (ek_moments){0};
    for (int64_t gap = 1; gap < count; gap *= 2)
        for (int64_t i = 0; i + gap < count; i += 2 * gap)
            ek_moments_merge(&parts[i * stride], parts[(i + gap) * stride]);
    return parts[0];
}
