/* Reading maps and gradients, writing gradients, taking moments: the work around BN that kernels do a row at a
 * time, while the row is in the first cache. A row is `count` floats, whole lane rows, of one channel, `at`
 * floats from the start of the block. */

/* Which lanes of each part are alive. */
typedef struct lane_mask {
    vi part[PARTS];
} lane_mask;

TEMPLATE lane_mask mask_of(int live)
{
    lane_mask mask;
    for (int p = 0; p < PARTS; p++) mask.part[p] = first_lanes(live - p * VL);
    return mask;
}

/* --- maps */

/* (x - mean)*a + b */
typedef struct affine {
    float mean, a, b;
} affine;

TEMPLATE affine affine_of(const ek_map_in *m, int c)
{
    return m->mean ? (affine){m->mean[c], m->a[c], m->b[c]} : (affine){0, 1, 0};
}

TEMPLATE void read_loop(const bool scaled, const ek_activation kind, float slope, affine k, lane_mask mask, const float *x, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vf v = load(x + i + p * VL);
            if (scaled) v = (v - k.mean) * k.a + k.b;
            store(to + i + p * VL, keep(mask.part[p], activate(kind, slope, v)));
        }
}

/* Of a single sample, in tables for few: a vector takes as many lane rows as it has places, since only their first
 * lane is alive. The others are left as they are. */
TEMPLATE void read_single(const bool scaled, const ek_activation kind, float slope, affine k, const float *x, int64_t count, float *to)
{
    for (int64_t i = 0; i < count; i += VL * EK_LANES) {
        int rows = at_most_vl((count - i) / EK_LANES);
        vf v = {0};
        if (rows == VL) UNROLL for (int r = 0; r < VL; r++) v[r] = x[i + r * EK_LANES];
        else for (int r = 0; r < rows; r++) v[r] = x[i + r * EK_LANES];
        if (scaled) v = (v - k.mean) * k.a + k.b;
        v = activate(kind, slope, v);
        if (rows == VL) UNROLL for (int r = 0; r < VL; r++) to[i + r * EK_LANES] = v[r];
        else for (int r = 0; r < rows; r++) to[i + r * EK_LANES] = v[r];
    }
}

TEMPLATE void read_activated(const ek_activation kind, float slope, bool scaled, affine k, lane_mask mask, int live, const float *x, int64_t count, float *to)
{
    if (LANES < EK_LANES && live == 1) {
        if (scaled) read_single(true, kind, slope, k, x, count, to);
        else read_single(false, kind, slope, k, x, count, to);
    } else if (scaled) read_loop(true, kind, slope, k, mask, x, count, to);
    else read_loop(false, kind, slope, k, mask, x, count, to);
}

static inline bool is_plain(const ek_map_in *m) { return !m->mean && m->activation == EK_IDENTITY; }

/* to = v; `to` may be the row itself. */
static void read_map(const ek_map_in *m, int c, int64_t at, int64_t count, float *to)
{
    const float *x = m->x + at;
    affine k = affine_of(m, c);
    lane_mask mask = mask_of(m->live);
    bool scaled = m->mean;
    switch (m->activation) {
    case EK_IDENTITY:
        if (scaled) read_loop(true, EK_IDENTITY, 0, k, mask, x, count, to);
        else memmove(to, x, (size_t)count * sizeof *to);
        break;
    case EK_RELU: read_activated(EK_RELU, 0, scaled, k, mask, m->live, x, count, to); break;
    case EK_LEAKY_RELU: read_activated(EK_LEAKY_RELU, m->slope, scaled, k, mask, m->live, x, count, to); break;
    case EK_SIGMOID: read_activated(EK_SIGMOID, 0, scaled, k, mask, m->live, x, count, to); break;
    case EK_TANH: read_activated(EK_TANH, 0, scaled, k, mask, m->live, x, count, to); break;
    case EK_SILU: read_activated(EK_SILU, 0, scaled, k, mask, m->live, x, count, to); break;
    }
}

/* --- gradients as they are read */

static inline bool is_plain_gradient(const ek_grad_in *d) { return !d->x; }

/* to = dy; `to` may be the row of g itself. */
static void read_gradient(const ek_grad_in *d, int c, int64_t at, int64_t count, float *to)
{
    const float *g = d->g + at;
    if (is_plain_gradient(d)) {
        memmove(to, g, (size_t)count * sizeof *to);
        return;
    }
    const float *x = d->x + at;
    float mean = d->mean[c], a = d->a[c], b = d->b[c], constant = d->c[c];
    lane_mask mask = mask_of(d->live);
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            int64_t j = i + p * VL;
            vf v = load(g + j) * a + ((load(x + j) - mean) * b + constant);
            store(to + j, keep(mask.part[p], v));
        }
}

/* --- gradients as they are written */

/* Sums of one channel, a lane each, in double: rows are added in float, and each row's sum in double. */
typedef struct lane_sums {
    double g[EK_LANES], gx[EK_LANES];
} lane_sums;

typedef double vd __attribute__((vector_size(VL * 8)));
typedef double vd_memory __attribute__((vector_size(VL * 8), aligned(8), may_alias));

TEMPLATE void add_in_double(double *sums, vf v) { *(vd_memory *)sums += __builtin_convertvector(v, vd); }

static double sum_doubles(const double *lanes)
{
    double sum[EK_LANES];
    memcpy(sum, lanes, sizeof sum);
    for (int half = EK_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

/* Longest row that is added in float. */
enum { ROW = 32 * EK_LANES };

TEMPLATE void write_loop(const ek_activation kind, const bool from_y, const bool wants_sums, float slope, affine k, const float *x, const float *y, const float *addend, const float *dv, int64_t count, float *g, lane_sums *sums)
{
    vf sum[PARTS] = {{0}}, product[PARTS] = {{0}};
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            int64_t j = i + p * VL;
            vf d = load(dv + j), z = {0}, centred = {0};
            if (addend) d += load(addend + j);
            if (wants_sums || !from_y) {
                centred = load(x + j) - k.mean;
                z = centred * k.a + k.b;
            }
            if (kind != EK_IDENTITY) {
                vf v = from_y ? load(y + j) : activate(kind, slope, z);
                d = activate_backward(kind, slope, from_y ? v : z, v, d);
            }
            store(g + j, d);
            if (wants_sums) {
                sum[p] += d;
                product[p] += d * centred;
            }
        }
    if (wants_sums)
        UNROLL for (int p = 0; p < PARTS; p++) {
            add_in_double(sums->g + p * VL, sum[p]);
            add_in_double(sums->gx + p * VL, product[p]);
        }
}

TEMPLATE void write_activated(const ek_activation kind, const bool from_y, float slope, affine k, const float *x, const float *y, const float *addend, const float *dv, int64_t count, float *g, lane_sums *sums)
{
    if (sums) write_loop(kind, from_y, true, slope, k, x, y, addend, dv, count, g, sums);
    else write_loop(kind, from_y, false, slope, k, x, y, addend, dv, count, g, sums);
}

/* From dv of a row to g, with the row's part of the sums (NULL where o wants none); dv may be the row of g. Dead
 * lanes of dv and addend are 0, and so are g's. */
static void write_gradient_part(const ek_grad_out *o, int c, int64_t at, int64_t count, const float *dv, lane_sums *sums)
{
    const ek_map_in *m = &o->value;
    const float *x = m->x ? m->x + at : NULL, *addend = o->addend ? o->addend + at : NULL;
    affine k = affine_of(m, c);
    float *g = o->g + at;
    const float *y = o->y ? o->y + at : NULL;
    switch (m->activation) {
    case EK_IDENTITY: write_activated(EK_IDENTITY, true, 0, k, x, y, addend, dv, count, g, sums); break;
    case EK_RELU:
        if (y) write_activated(EK_RELU, true, 0, k, x, y, addend, dv, count, g, sums);
        else write_activated(EK_RELU, false, 0, k, x, y, addend, dv, count, g, sums);
        break;
    case EK_LEAKY_RELU: write_activated(EK_LEAKY_RELU, false, m->slope, k, x, y, addend, dv, count, g, sums); break;
    case EK_SIGMOID:
        if (y) write_activated(EK_SIGMOID, true, 0, k, x, y, addend, dv, count, g, sums);
        else write_activated(EK_SIGMOID, false, 0, k, x, y, addend, dv, count, g, sums);
        break;
    case EK_TANH:
        if (y) write_activated(EK_TANH, true, 0, k, x, y, addend, dv, count, g, sums);
        else write_activated(EK_TANH, false, 0, k, x, y, addend, dv, count, g, sums);
        break;
    case EK_SILU: write_activated(EK_SILU, false, 0, k, x, y, addend, dv, count, g, sums); break;
    }
}

static void write_gradient(const ek_grad_out *o, int c, int64_t at, int64_t count, const float *dv, lane_sums *sums)
{
    for (; count > 0; at += ROW, dv += ROW, count -= ROW)
        write_gradient_part(o, c, at, count < ROW ? count : ROW, dv, sums);
}

/* Starts a channel: NULL where o wants no sums. */
static lane_sums *begin_sums(const ek_grad_out *o, lane_sums *sums)
{
    if (!o->sums) return NULL;
    memset(sums, 0, sizeof *sums);
    return sums;
}

static void end_sums(const ek_grad_out *o, int c, const lane_sums *sums)
{
    if (!sums) return;
    o->sums[c] = sum_doubles(sums->g);
    o->sums[o->channels + c] = sum_doubles(sums->gx);
}

/* --- moments */

/* Of one channel, about a shift near its mean, so that little cancels; a lane each, rows added in float, and
 * each row's sums in double. */
typedef struct lane_moments {
    double sum[EK_LANES], squares[EK_LANES];
    int64_t count; /* values, of live lanes */
    float shift;
    bool shifted; /* the shift is known: the first row's mean, unless given */
} lane_moments;

static float row_mean(int live, const float *row, int64_t count)
{
    lane_mask mask = mask_of(live);
    double sum[EK_LANES] = {0};
    vf part[PARTS] = {{0}};
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) part[p] += keep(mask.part[p], load(row + i + p * VL));
    UNROLL for (int p = 0; p < PARTS; p++) add_in_double(sum + p * VL, part[p]);
    return (float)(sum_doubles(sum) / (double)(count / EK_LANES * live));
}

static void add_moments_part(lane_moments *m, int live, const float *row, int64_t count)
{
    if (!m->shifted) m->shift = row_mean(live, row, count);
    m->shifted = true;
    m->count += count / EK_LANES * live;
    lane_mask mask = mask_of(live);
    vf sum[PARTS] = {{0}}, squares[PARTS] = {{0}};
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vf d = keep(mask.part[p], load(row + i + p * VL) - m->shift);
            sum[p] += d;
            squares[p] += d * d;
        }
    UNROLL for (int p = 0; p < PARTS; p++) {
        add_in_double(m->sum + p * VL, sum[p]);
        add_in_double(m->squares + p * VL, squares[p]);
    }
}

static void add_moments(lane_moments *m, int live, const float *row, int64_t count)
{
    for (; count > 0; row += ROW, count -= ROW) add_moments_part(m, live, row, count < ROW ? count : ROW);
}

static ek_moments shifted_moments(const lane_moments *m)
{
    double count = (double)m->count, sum = sum_doubles(m->sum), squares = sum_doubles(m->squares);
    double m2 = squares - sum * sum / count;
    return (ek_moments){count, m->shift + sum / count, m2 < 0 ? 0 : m2};
}

/* Where the first row was unlike the others its mean was a bad shift, and all must be taken again about the mean that
 * was found. */
static bool well_shifted(const lane_moments *m, ek_moments found)
{
    double off = found.mean - m->shift;
    return !(off * off * found.count > 16 * found.m2);
}

/* --- whole values */

static inline int slab_live(const ek_slab *s, int64_t block) { return block == s->blocks - 1 ? s->live : EK_LANES; }

static void map_read(const ek_slab *s, const ek_map_in *m, float *y)
{
    ek_map_in row = *m;
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t b = 0; b < s->blocks; b++) {
            int64_t at = b * s->block + c * s->length;
            row.live = slab_live(s, b);
            read_map(&row, (int)c, at, s->length, y + at);
        }
}

static void grad_read(const ek_slab *s, const ek_grad_in *d, float *dx)
{
    ek_grad_in row = *d;
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t b = 0; b < s->blocks; b++) {
            int64_t at = b * s->block + c * s->length;
            row.live = slab_live(s, b);
            read_gradient(&row, (int)c, at, s->length, dx + at);
        }
}

static void grad_write(const ek_slab *s, const ek_grad_out *o, const float *dv)
{
    for (int64_t c = 0; c < s->channels; c++) {
        lane_sums room, *sums = begin_sums(o, &room);
        for (int64_t b = 0; b < s->blocks; b++) {
            int64_t at = b * s->block + c * s->length;
            write_gradient(o, (int)c, at, s->length, dv + at, sums);
        }
        end_sums(o, (int)c, sums);
    }
}

static ek_moments channel_moments(const ek_slab *s, const float *x, lane_moments *m)
{
    for (int64_t b = 0; b < s->blocks; b++) add_moments(m, slab_live(s, b), x + b * s->block, s->length);
    return shifted_moments(m);
}

/* The moments of one channel, of which all rows were added to m. */
static ek_moments end_moments(const ek_slab *s, const float *x, const lane_moments *m)
{
    ek_moments found = shifted_moments(m);
    if (well_shifted(m, found)) return found;
    lane_moments again = {.shift = (float)found.mean, .shifted = true};
    return channel_moments(s, x, &again);
}

/* Features have one lane row a block: `blocks` of them, of up to VL features, whose sums over the lanes are taken
 * together. The mean first, then the deviations from it. */
static void add_feature_moments(const ek_slab *s, int64_t first, int64_t blocks, int features, const float *x, ek_moments *out)
{
    lane_mask all = mask_of(EK_LANES), last = mask_of(s->live);
    int64_t values = blocks * EK_LANES - (first + blocks == s->blocks ? EK_LANES - s->live : 0);
    vf sum[VL] = {{0}}, squares[VL] = {{0}}, mean = {0};
    for (int round = 0; round < 2; round++) {
        for (int f = 0; f < features; f++) {
            vf a = {0}, b = {0};
            for (int64_t i = first; i < first + blocks; i++) {
                const lane_mask *mask = i == s->blocks - 1 ? &last : &all;
                UNROLL for (int p = 0; p < PARTS; p++) {
                    vf d = keep(mask->part[p], load(x + i * s->block + f * EK_LANES + p * VL) - mean[f]);
                    a += d;
                    b += d * d;
                }
            }
            sum[f] = a;
            squares[f] = b;
        }
        if (round == 0) mean = sum_each(sum) / (float)values;
    }
    vf sums = sum_each(sum), all_squares = sum_each(squares);
    for (int f = 0; f < features; f++) {
        double n = (double)values, m2 = (double)all_squares[f] - (double)sums[f] * sums[f] / n;
        ek_moments_merge(&out[f], (ek_moments){n, mean[f] + sums[f] / n, m2 < 0 ? 0 : m2});
    }
}

static void feature_moments(const ek_slab *s, const float *x, ek_moments *out)
{
    enum { MOST = ROW / EK_LANES }; /* blocks that are added in float */
    memset(out, 0, (size_t)s->channels * sizeof *out);
    for (int64_t f = 0; f < s->channels; f += VL)
        for (int64_t b = 0; b < s->blocks; b += MOST)
            add_feature_moments(s, b, s->blocks - b < MOST ? s->blocks - b : MOST, at_most_vl(s->channels - f),
                                x + f * EK_LANES, out + f);
}

static void moments(const ek_slab *s, const float *x, ek_moments *out)
{
    if (s->length == EK_LANES) {
        feature_moments(s, x, out);
        return;
    }
    for (int64_t c = 0; c < s->channels; c++, x += s->length) {
        lane_moments m = {.shifted = false};
        channel_moments(s, x, &m);
        out[c] = end_moments(s, x, &m);
    }
}

TEMPLATE void add_loop(const ek_activation f, int64_t count, const float *a, const float *b, lane_mask mask, float *y)
{
    for (int64_t i = 0; i < count; i += EK_LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            int64_t j = i + p * VL;
            store(y + j, keep(mask.part[p], activate(f, 0, load(a + j) + load(b + j))));
        }
}

static void add_row(ek_activation f, int64_t count, const float *a, const float *b, lane_mask mask, float *y)
{
    switch (f) {
    case EK_RELU: add_loop(EK_RELU, count, a, b, mask, y); break;
    case EK_SIGMOID: add_loop(EK_SIGMOID, count, a, b, mask, y); break;
    case EK_TANH: add_loop(EK_TANH, count, a, b, mask, y); break;
    default: add_loop(EK_IDENTITY, count, a, b, mask, y); break;
    }
}

/* A row of a map: in place where nothing is to be done to it, else in `room`. */
static const float *row_of(const ek_map_in *m, int c, int64_t at, int64_t count, float *room)
{
    if (is_plain(m)) return m->x + at;
    read_map(m, c, at, count, room);
    return room;
}

static void add_channel(const ek_map_in *a, const ek_map_in *b, ek_activation f, int c, int64_t at, int64_t count, float *y)
{
    float room_a[ROW] __attribute__((aligned(64))), room_b[ROW] __attribute__((aligned(64)));
    lane_mask mask = mask_of(a->live);
    for (int64_t end = at + count; at < end; at += ROW) {
        int64_t n = end - at < ROW ? end - at : ROW;
        add_row(f, n, row_of(a, c, at, n, room_a), row_of(b, c, at, n, room_b), mask, y + at);
    }
}

static void map_add(const ek_slab *s, const ek_map_in *a, const ek_map_in *b, ek_activation f, float *y)
{
    ek_map_in row_a = *a, row_b = *b;
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t i = 0; i < s->blocks; i++) {
            row_a.live = row_b.live = slab_live(s, i);
            add_channel(&row_a, &row_b, f, (int)c, i * s->block + c * s->length, s->length, y);
        }
}
