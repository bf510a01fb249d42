/* Sequences of unequal lengths, one lane block: of lane i the first length[i] positions are alive. */

typedef struct lane_lengths {
    vi part[PARTS];
    int32_t shortest, longest; /* of the live lanes that are computed; 0: there are none */
    int live;
} lane_lengths;

static lane_lengths lengths_of(const int32_t *length)
{
    lane_lengths l = {.shortest = INT32_MAX};
    UNROLL for (int p = 0; p < PARTS; p++) l.part[p] = *(const vi_memory *)(length + p * VL);
    for (int i = 0; i < LANES && length[i] > 0; i++, l.live++) {
        if (length[i] < l.shortest) l.shortest = length[i];
        if (length[i] > l.longest) l.longest = length[i];
    }
    if (!l.live) l.shortest = 0;
    return l;
}

/* Positions past a lane's length get `with`, in dead lanes all. */
static void sequence_cut(int64_t channels, int64_t positions, const int32_t *length, float with, float *x)
{
    lane_lengths l = lengths_of(length);
    vf filling = splat(with);
    int64_t first = l.live == LANES ? l.shortest : 0;
    for (int64_t c = 0; c < channels; c++, x += positions * EK_LANES)
        for (int64_t i = first; i < positions; i++)
            UNROLL for (int p = 0; p < PARTS; p++) {
                float *at = x + i * EK_LANES + p * VL;
                store(at, select(l.part[p] > (int32_t)i, load(at), filling));
            }
}

/* Rows of which some lanes are alive: those past the shortest lane's end. The shift is known. */
static void add_ends(lane_moments *m, const lane_lengths *l, const float *x)
{
    for (int64_t first = l->shortest; first < l->longest; first += ROW / EK_LANES) {
        int64_t end = first + ROW / EK_LANES < l->longest ? first + ROW / EK_LANES : l->longest;
        vf sum[PARTS] = {{0}}, squares[PARTS] = {{0}};
        for (int64_t i = first; i < end; i++)
            UNROLL for (int p = 0; p < PARTS; p++) {
                vf d = keep(l->part[p] > (int32_t)i, load(x + i * EK_LANES + p * VL) - m->shift);
                sum[p] += d;
                squares[p] += d * d;
            }
        UNROLL for (int p = 0; p < PARTS; p++) {
            add_in_double(m->sum + p * VL, sum[p]);
            add_in_double(m->squares + p * VL, squares[p]);
        }
    }
}

static ek_moments sequence_channel(const lane_lengths *l, int64_t alive, const float *x, lane_moments *m)
{
    add_moments(m, l->live, x, (int64_t)l->shortest * EK_LANES);
    add_ends(m, l, x);
    m->count = alive;
    return shifted_moments(m);
}

static void sequence_moments(int64_t channels, int64_t positions, const int32_t *length, const float *x, ek_moments *out)
{
    lane_lengths l = lengths_of(length);
    int64_t alive = 0;
    for (int i = 0; i < l.live; i++) alive += length[i];
    for (int64_t c = 0; c < channels; c++, x += positions * EK_LANES) {
        lane_moments m = {.shifted = false};
        out[c] = sequence_channel(&l, alive, x, &m);
        if (well_shifted(&m, out[c])) continue;
        lane_moments again = {.shift = (float)out[c].mean, .shifted = true};
        out[c] = sequence_channel(&l, alive, x, &again);
    }
}
