/* Normalization of plain arrays: its sums and its passes. Floats are added in vectors over short chunks only, and
 * chunks in double. */

/* A chunk: 16 additions in each of four accumulators. */
enum { CHUNK = 64 * VL };

/* Merges `count` values of which sum(x - shift) and sum((x - shift)^2) are known. Rounding may leave the
 * sum of squares a little short; a NaN stays. */
static void merge_shifted(ek_moments *a, double count, double shift, double sum, double squares)
{
    double m2 = squares - sum * sum / count;
    ek_moments_merge(a, (ek_moments){count, shift + sum / count, m2 < 0 ? 0 : m2});
}

static double sum_four(const vf v[4]) { return sum_lanes((v[0] + v[1]) + (v[2] + v[3])); }

/* --- moments of runs */

static void shifted_sums(int64_t count, const float *x, float shift, double *sum_out, double *squares_out)
{
    vf sum[4] = {{0}}, squares[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= count; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) {
            vf d = load(x + i + j * VL) - shift;
            sum[j] += d;
            squares[j] += d * d;
        }
    for (; i < count; i += VL) {
        int n = at_most_vl(count - i);
        vf d = keep(first_lanes(n), load_n(x + i, n) - shift);
        sum[0] += d;
        squares[0] += d * d;
    }
    *sum_out = sum_four(sum);
    *squares_out = sum_four(squares);
}

/* Each chunk's sums are taken about the mean of what came before, so that little cancels even where the
 * mean dwarfs the deviation; the first chunk's about its own mean, found from its first value. */
static ek_moments run_moments(const ek_norm_piece *p, const float *x)
{
    ek_moments all = {0};
    for (int64_t r = 0; r < p->rows; r++, x += p->stride)
        for (int64_t i = 0; i < p->length; i += CHUNK) {
            int64_t count = p->length - i < CHUNK ? p->length - i : CHUNK;
            float shift = all.count > 0 ? (float)all.mean : x[i];
            double sum, squares;
            shifted_sums(count, x + i, shift, &sum, &squares);
            if (!(all.count > 0)) {
                shift += (float)(sum / (double)count);
                shifted_sums(count, x + i, shift, &sum, &squares);
            }
            merge_shifted(&all, (double)count, shift, sum, squares);
        }
    return all;
}

static void runs_moments(const ek_norm_piece *p, const float *x, ek_moments *out)
{
    for (int64_t ch = 0; ch < p->channels; ch++) out[ch] = run_moments(p, x + ch * p->length);
}

/* --- the passes: what ek_norm_terms computes */

typedef struct norm_terms {
    vf mean, a, b, floor, slope, constant;
} norm_terms;

enum { APPLY, BACKWARD, BACKWARD_FROZEN };

static int backward_kind(const ek_norm_terms *t) { return t->slope ? BACKWARD : BACKWARD_FROZEN; }

/* Of channel ch for all lanes, or of the VL columns from ch on. */
TEMPLATE norm_terms terms_at(const int kind, const bool columns, const ek_norm_terms *t, int64_t ch)
{
    norm_terms v = {.floor = splat(t->floor)};
    v.mean = columns ? load(t->mean + ch) : splat(t->mean[ch]);
    v.a = columns ? load(t->a + ch) : splat(t->a[ch]);
    v.b = columns ? load(t->b + ch) : splat(t->b[ch]);
    if (kind != BACKWARD) return v;
    v.slope = columns ? load(t->slope + ch) : splat(t->slope[ch]);
    v.constant = columns ? load(t->constant + ch) : splat(t->constant[ch]);
    return v;
}

/* Where the ReLU is shut. The forward and the backward pass ask the same bits. */
TEMPLATE vi shut(const norm_terms *t, vf centred, vf *z)
{
    *z = centred * t->a + t->b;
    return *z <= t->floor;
}

TEMPLATE vf open_gradient(const norm_terms *t, vf centred, vf dy)
{
    vf z;
    return drop(shut(t, centred, &z), dy);
}

/* y, or dx, of n values. */
TEMPLATE vf norm_element(const int kind, const norm_terms *t, const float *x, const float *dy, int n)
{
    vf centred = load_n(x, n) - t->mean, z;
    if (kind == APPLY) {
        vi closed = shut(t, centred, &z);
        return drop(closed, z);
    }
    vf g = open_gradient(t, centred, load_n(dy, n)) * t->a;
    return kind == BACKWARD ? g + (centred * t->slope + t->constant) : g;
}

/* Goes along a run: all of it has the terms of one channel, or its values those of the columns in turn. */
typedef struct walker {
    const ek_norm_terms *all;
    int64_t column, columns; /* columns 0: one channel */
    norm_terms now;
} walker;

TEMPLATE walker walk_channel(const int kind, const ek_norm_terms *t, int64_t ch)
{
    return (walker){.now = terms_at(kind, false, t, ch)};
}

TEMPLATE walker walk_columns(const ek_norm_terms *t, int64_t columns) { return (walker){.all = t, .columns = columns}; }

TEMPLATE const norm_terms *walk(const int kind, const bool columns, walker *w, int n)
{
    if (!columns) return &w->now;
    w->now = terms_at(kind, true, w->all, w->column);
    for (w->column += n; w->column >= w->columns;) w->column -= w->columns;
    return &w->now;
}

TEMPLATE int64_t floats_to_line(const float *p) { return (int64_t)(-((uintptr_t)p / sizeof *p) % EK_LANES); }

/* Values [from, to) of a run, one vector after the other. */
TEMPLATE void norm_run_part(const int kind, const bool columns, int64_t from, int64_t to, walker *w, const float *x, const float *dy, float *out)
{
    for (int64_t i = from; i < to; i += VL) {
        int n = at_most_vl(to - i);
        store_n(out + i, norm_element(kind, walk(kind, columns, w, n), x + i, dy + i, n), n);
    }
}

/* Only whole lines are streamed: a run's first and last, shared with other runs, go the usual way. */
TEMPLATE void norm_run(const int kind, const bool columns, const bool streamed, int64_t length, walker *w, const float *x, const float *dy, float *out)
{
    int64_t i = 0;
    if (streamed) {
        i = floats_to_line(out);
        if (i > length) i = length;
        norm_run_part(kind, columns, 0, i, w, x, dy, out);
    }
    for (; i + EK_LANES <= length; i += EK_LANES)
        UNROLL for (int64_t j = i; j < i + EK_LANES; j += VL) {
            vf v = norm_element(kind, walk(kind, columns, w, VL), x + j, dy + j, VL);
            if (streamed) stream_store(out + j, v);
            else store(out + j, v);
        }
    norm_run_part(kind, columns, i, length, w, x, dy, out);
}

TEMPLATE void norm_runs(const int kind, const bool streamed, const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *out)
{
    for (int64_t ch = 0; ch < p->channels; ch++) {
        walker w = walk_channel(kind, t, ch);
        for (int64_t r = 0; r < p->rows; r++) {
            int64_t at = ch * p->length + r * p->stride;
            norm_run(kind, false, streamed, p->length, &w, x + at, dy + at, out + at);
        }
    }
    if (streamed) stream_end();
}

/* Rows that follow each other are one run. */
TEMPLATE void norm_columns(const int kind, const bool streamed, const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *out)
{
    bool whole = p->stride == p->channels;
    int64_t rows = whole ? 1 : p->rows, length = whole ? p->rows * p->channels : p->channels;
    for (int64_t r = 0; r < rows; r++, x += p->stride, dy += p->stride, out += p->stride) {
        walker w = walk_columns(t, p->channels);
        norm_run(kind, true, streamed, length, &w, x, dy, out);
    }
    if (streamed) stream_end();
}

TEMPLATE void runs_pass(const int kind, const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *out)
{
    if (p->stream) norm_runs(kind, true, p, t, x, dy, out);
    else norm_runs(kind, false, p, t, x, dy, out);
}

TEMPLATE void columns_pass(const int kind, const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *out)
{
    if (p->stream) norm_columns(kind, true, p, t, x, dy, out);
    else norm_columns(kind, false, p, t, x, dy, out);
}

static void runs_apply(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y)
{
    runs_pass(APPLY, p, t, x, x, y);
}

static void columns_apply(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, float *y)
{
    columns_pass(APPLY, p, t, x, x, y);
}

static void runs_backward_apply(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx)
{
    if (backward_kind(t) == BACKWARD) runs_pass(BACKWARD, p, t, x, dy, dx);
    else runs_pass(BACKWARD_FROZEN, p, t, x, dy, dx);
}

static void columns_backward_apply(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, float *dx)
{
    if (backward_kind(t) == BACKWARD) columns_pass(BACKWARD, p, t, x, dy, dx);
    else columns_pass(BACKWARD_FROZEN, p, t, x, dy, dx);
}

static void chunk_backward_sums(int64_t count, const norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx)
{
    vf sum[4] = {{0}}, product[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= count; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) {
            vf centred = load(x + i + j * VL) - t->mean, g = open_gradient(t, centred, load(dy + i + j * VL));
            sum[j] += g;
            product[j] += g * centred;
        }
    for (; i < count; i += VL) {
        int n = at_most_vl(count - i);
        vf centred = load_n(x + i, n) - t->mean, g = open_gradient(t, centred, load_n(dy + i, n));
        sum[0] += g;
        product[0] += g * centred;
    }
    *sum_g += sum_four(sum);
    *sum_gx += sum_four(product);
}

static void runs_backward_sums(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx)
{
    for (int64_t ch = 0; ch < p->channels; ch++) {
        norm_terms now = terms_at(APPLY, false, t, ch);
        sum_g[ch] = sum_gx[ch] = 0;
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t i = 0; i < p->length; i += CHUNK) {
                int64_t at = ch * p->length + r * p->stride + i, left = p->length - i;
                chunk_backward_sums(left < CHUNK ? left : CHUNK, &now, x + at, dy + at, &sum_g[ch], &sum_gx[ch]);
            }
    }
}

/* --- columns: up to GROUP of them, one row after the other, so that memory is read in its order; going down the
 * columns defeats the prefetchers and takes three times as long. Sums of up to NARROW vectors stand in registers, those
 * of wider rows go through the first cache. */

enum {
    GROUP = 1024,
    NARROW = 4,
    ROWS = 64,    /* added in float */
    AHEAD = 2048, /* bytes; with two arrays to read, wide rows take two thirds of the time if they are asked for */
};

/* It may lie past the array's end: nothing is read there. */
TEMPLATE void fetch_ahead(const float *p) { __builtin_prefetch((const void *)((uintptr_t)p + AHEAD)); }

static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/* Where vector k of c columns begins. The last one ends with the last column, and so holds again some columns of
 * the one before. */
TEMPLATE int64_t vector_start(int64_t c, int k)
{
    int64_t last = c > VL ? c - VL : 0;
    return at_most((int64_t)k * VL, last);
}

TEMPLATE int vectors_of(int64_t c) { return (int)((c + VL - 1) / VL); }

/* VL columns, or all c where there are fewer. */
TEMPLATE vf load_columns(const bool wide, int64_t c, const float *p) { return wide ? load(p) : load_n(p, (int)c); }

TEMPLATE void narrow_deviations(const bool wide, const int vectors, int64_t rows, int64_t c, int64_t stride, const float *x, const float *shift, float *sum, float *squares)
{
    vf s[NARROW], q[NARROW], center[NARROW];
    UNROLL for (int k = 0; k < vectors; k++) {
        s[k] = q[k] = splat(0.0f);
        center[k] = load_columns(wide, c, shift + vector_start(c, k));
    }
    for (int64_t r = 0; r < rows; r++, x += stride)
        UNROLL for (int k = 0; k < vectors; k++) {
            vf d = load_columns(wide, c, x + vector_start(c, k)) - center[k];
            s[k] += d;
            q[k] += d * d;
        }
    UNROLL for (int k = 0; k < vectors; k++) {
        store(sum + k * VL, s[k]);
        store(squares + k * VL, q[k]);
    }
}

static void add_deviations(int64_t c, const float *x, const float *shift, float *sum, float *squares)
{
    for (int k = 0; k < vectors_of(c); k++) {
        int64_t at = vector_start(c, k);
        vf d = load(x + at) - load(shift + at);
        store(sum + k * VL, load(sum + k * VL) + d);
        store(squares + k * VL, load(squares + k * VL) + d * d);
    }
}

static void sum_deviations(int64_t rows, int64_t c, int64_t stride, const float *x, const float *shift, float *sum, float *squares)
{
    size_t bytes = (size_t)vectors_of(c) * sizeof(vf);
    memset(sum, 0, bytes);
    memset(squares, 0, bytes);
    switch (vectors_of(c)) {
    case 1:
        if (c < VL) narrow_deviations(false, 1, rows, c, stride, x, shift, sum, squares);
        else narrow_deviations(true, 1, rows, c, stride, x, shift, sum, squares);
        break;
    case 2: narrow_deviations(true, 2, rows, c, stride, x, shift, sum, squares); break;
    case 3: narrow_deviations(true, 3, rows, c, stride, x, shift, sum, squares); break;
    case 4: narrow_deviations(true, 4, rows, c, stride, x, shift, sum, squares); break;
    default:
        for (int64_t r = 0; r < rows; r++) add_deviations(c, x + r * stride, shift, sum, squares);
    }
}

/* merge_shifted() for the columns of a vector; `count` values are there. */
TEMPLATE void merge_columns(double count, double rows, int first, int end, const float *shift, const float *sum, const float *squares, double *mean, double *m2)
{
    double share = rows / (count + rows), inverse = 1 / rows;
    for (int j = first; j < end; j++) {
        double s = sum[j], own = squares[j] - s * s * inverse, delta = shift[j] + s * inverse - mean[j];
        m2[j] += (own < 0 ? 0 : own) + delta * delta * (count * share);
        mean[j] += delta * share;
    }
}

/* The first rows are taken about their own mean, found from their first values; the others about the mean so far. */
static void group_moments(int64_t n, int64_t c, int64_t stride, const float *x, ek_moments *out)
{
    float sum[GROUP], squares[GROUP];
    double mean[GROUP] = {0}, m2[GROUP] = {0};
    float shift[GROUP];
    memcpy(shift, x, (size_t)c * sizeof *x);
    for (int64_t done = 0; done < n; done += ROWS) {
        int64_t rows = at_most(n - done, ROWS);
        const float *from = x + done * stride;
        sum_deviations(rows, c, stride, from, shift, sum, squares);
        if (done == 0) {
            for (int64_t j = 0; j < c; j++) {
                int k = (int)(j / VL);
                shift[j] += sum[k * VL + j - vector_start(c, k)] / (float)rows;
            }
            sum_deviations(rows, c, stride, from, shift, sum, squares);
        }
        for (int k = 0; k < vectors_of(c); k++) {
            int64_t at = vector_start(c, k);
            merge_columns((double)done, (double)rows, (int)(k * VL - at), at_most_vl(c), shift + at, sum + k * VL, squares + k * VL, mean + at, m2 + at);
        }
        for (int64_t j = 0; j < c; j++) shift[j] = (float)mean[j];
    }
    for (int64_t j = 0; j < c; j++) out[j] = (ek_moments){(double)n, mean[j], m2[j]};
}

/* Rows shorter than a vector that follow each other without gaps are taken VL/c at a time: `wide` such rows of `fold`
 * rows, of which whole vectors can be read. */
TEMPLATE int64_t folded_rows(int64_t n, int64_t c, int64_t stride, int *fold)
{
    *fold = (int)(VL / c);
    return *fold > 1 && stride == c && n * c >= VL ? (n * c - VL) / (*fold * c) + 1 : 0;
}

static void columns_moments(const ek_norm_piece *p, const float *x, ek_moments *out)
{
    int64_t n = p->rows, c = p->channels, stride = p->stride;
    for (int64_t j = 0; c >= VL && j < c; j += GROUP) group_moments(n, at_most(c - j, GROUP), stride, x + j, out + j);
    if (c >= VL) return;

    int fold;
    int64_t wide = folded_rows(n, c, stride, &fold), left = n - wide * fold;
    ek_moments folded[VL];
    memset(out, 0, (size_t)c * sizeof *out);
    if (left > 0) group_moments(left, c, stride, x + wide * fold * stride, out);
    if (wide > 0) group_moments(wide, VL, fold * c, x, folded);
    for (int64_t j = 0; wide > 0 && j < fold * c; j++) ek_moments_merge(&out[j % c], folded[j]);
}

TEMPLATE void narrow_gradients(const bool wide, const int vectors, int64_t rows, int64_t c, int64_t stride, const ek_norm_terms *t, const float *x, const float *dy, float *sum, float *product)
{
    vf s[NARROW], p[NARROW];
    norm_terms now[NARROW];
    UNROLL for (int k = 0; k < vectors; k++) {
        s[k] = p[k] = splat(0.0f);
        now[k] = terms_at(APPLY, true, t, vector_start(c, k));
    }
    for (int64_t r = 0; r < rows; r++, x += stride, dy += stride)
        UNROLL for (int k = 0; k < vectors; k++) {
            vf centred = load_columns(wide, c, x + vector_start(c, k)) - now[k].mean;
            vf g = open_gradient(&now[k], centred, load_columns(wide, c, dy + vector_start(c, k)));
            s[k] += g;
            p[k] += g * centred;
        }
    UNROLL for (int k = 0; k < vectors; k++) {
        store(sum + k * VL, s[k]);
        store(product + k * VL, p[k]);
    }
}

static void add_gradients(int64_t c, const ek_norm_terms *t, const float *x, const float *dy, float *sum, float *product)
{
    for (int k = 0; k < vectors_of(c); k++) {
        int64_t at = vector_start(c, k);
        norm_terms now = terms_at(APPLY, true, t, at);
        fetch_ahead(x + at);
        fetch_ahead(dy + at);
        vf centred = load(x + at) - now.mean, g = open_gradient(&now, centred, load(dy + at));
        store(sum + k * VL, load(sum + k * VL) + g);
        store(product + k * VL, load(product + k * VL) + g * centred);
    }
}

static void sum_gradients(int64_t rows, int64_t c, int64_t stride, const ek_norm_terms *t, const float *x, const float *dy, float *sum, float *product)
{
    size_t bytes = (size_t)vectors_of(c) * sizeof(vf);
    memset(sum, 0, bytes);
    memset(product, 0, bytes);
    switch (vectors_of(c)) {
    case 1:
        if (c < VL) narrow_gradients(false, 1, rows, c, stride, t, x, dy, sum, product);
        else narrow_gradients(true, 1, rows, c, stride, t, x, dy, sum, product);
        break;
    case 2: narrow_gradients(true, 2, rows, c, stride, t, x, dy, sum, product); break;
    case 3: narrow_gradients(true, 3, rows, c, stride, t, x, dy, sum, product); break;
    case 4: narrow_gradients(true, 4, rows, c, stride, t, x, dy, sum, product); break;
    default:
        for (int64_t r = 0; r < rows; r++) add_gradients(c, t, x + r * stride, dy + r * stride, sum, product);
    }
}

/* Added to what is there. */
static void group_gradients(int64_t n, int64_t c, int64_t stride, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx)
{
    float sum[GROUP], product[GROUP];
    for (int64_t done = 0; done < n; done += ROWS) {
        sum_gradients(at_most(n - done, ROWS), c, stride, t, x + done * stride, dy + done * stride, sum, product);
        for (int k = 0; k < vectors_of(c); k++) {
            int64_t at = vector_start(c, k);
            for (int j = (int)(k * VL - at); j < at_most_vl(c); j++) {
                sum_g[at + j] += sum[k * VL + j];
                sum_gx[at + j] += product[k * VL + j];
            }
        }
    }
}

static void columns_backward_sums(const ek_norm_piece *p, const ek_norm_terms *t, const float *x, const float *dy, double *sum_g, double *sum_gx)
{
    int64_t c = p->channels;
    for (int64_t j = 0; j < c; j++) sum_g[j] = sum_gx[j] = 0;
    for (int64_t j = 0; c >= VL && j < c; j += GROUP) {
        ek_norm_terms from_j = {t->mean + j, t->a + j, t->b + j, NULL, NULL, t->floor};
        group_gradients(p->rows, at_most(c - j, GROUP), p->stride, &from_j, x + j, dy + j, sum_g + j, sum_gx + j);
    }
    if (c >= VL) return;

    int fold;
    int64_t wide = folded_rows(p->rows, c, p->stride, &fold), first = wide * fold;
    double folded[2][VL] = {{0}};
    group_gradients(p->rows - first, c, p->stride, t, x + first * p->stride, dy + first * p->stride, sum_g, sum_gx);
    group_gradients(wide, VL, fold * c, t, x, dy, folded[0], folded[1]);
    for (int64_t j = 0; j < fold * c; j++) {
        sum_g[j % c] += folded[0][j];
        sum_gx[j % c] += folded[1][j];
    }
}

/* --- plain sums */

static double sum_of(int64_t count, const float *x)
{
    double all = 0;
    for (int64_t first = 0; first < count; first += CHUNK) {
        vf sum[4] = {{0}};
        int64_t end = count - first < CHUNK ? count : first + CHUNK, i = first;
        for (; i + 4 * VL <= end; i += 4 * VL) UNROLL for (int j = 0; j < 4; j++) sum[j] += load(x + i + j * VL);
        for (; i < end; i += VL) sum[0] += load_n(x + i, at_most_vl(end - i));
        all += sum_four(sum);
    }
    return all;
}

static double sum_squares(int64_t count, const float *x)
{
    double all = 0;
    for (int64_t i = 0; i < count; i += CHUNK) {
        double sum, squares;
        shifted_sums(count - i < CHUNK ? count - i : CHUNK, x + i, 0, &sum, &squares);
        all += squares;
    }
    return all;
}

/* A value is not finite when all bits of its exponent are set. */
static bool all_finite(int64_t count, const float *x)
{
    vi bad = {0};
    for (int64_t i = 0; i < count; i += VL) bad |= ((vi)load_n(x + i, at_most_vl(count - i)) & 0x7f800000) == 0x7f800000;
    int32_t any = 0;
    for (int j = 0; j < VL; j++) any |= bad[j];
    return !any;
}
