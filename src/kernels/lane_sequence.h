/* Sequences of unequal lengths, one lane block: of lane i the first length[i] positions are alive. */

/* What is alive in all lanes. */
static int64_t shortest(int64_t positions, const int32_t *length)
{
    for (int i = 0; i < LANES; i++)
        if (length[i] < positions) positions = length[i];
    return positions;
}

static void sequence_cut(int64_t channels, int64_t positions, const int32_t *length, float with, float *x)
{
    vi alive[PARTS];
    vf filling = splat(with);
    int64_t first = shortest(positions, length);
    UNROLL for (int p = 0; p < PARTS; p++) alive[p] = *(const vi_memory *)(length + p * VL);
    for (int64_t c = 0; c < channels; c++, x += positions * EK_LANES)
        for (int64_t i = first; i < positions; i++)
            UNROLL for (int p = 0; p < PARTS; p++) {
                float *at = x + i * EK_LANES + p * VL;
                store(at, select(alive[p] > (int32_t)i, load(at), filling));
            }
}
