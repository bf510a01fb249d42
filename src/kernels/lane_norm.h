/* Sums for normalization. Floats are added in vectors over short chunks only, and chunks in double. */

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

/* --- slabs */

/* For four vectors in a row, from the start of a lane row on: which of their lanes are alive. */
TEMPLATE void live_masks(int live, vi mask[4])
{
    for (int j = 0; j < 4; j++) mask[j] = first_lanes(live - j * VL % EK_LANES);
}

static void shifted_sums(int64_t count, const vi mask[4], const float *x, float shift, double *sum_out, double *squares_out)
{
    vf sum[4] = {{0}}, squares[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= count; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) {
            vf d = keep(mask[j], load(x + i + j * VL) - shift);
            sum[j] += d;
            squares[j] += d * d;
        }
    for (int j = 0; i < count; i += VL, j++) {
        int n = at_most_vl(count - i);
        vf d = keep(mask[j] & first_lanes(n), load_n(x + i, n) - shift);
        sum[0] += d;
        squares[0] += d * d;
    }
    *sum_out = sum_four(sum);
    *squares_out = sum_four(squares);
}

/* Each chunk's sums are taken about the mean of what came before, so that little cancels even where the
 * mean dwarfs the deviation; the first chunk's about its own mean, found from its first value. */
static void slab_moments(int64_t rows, int64_t length, int64_t stride, int live, const float *x, ek_moments *out)
{
    ek_moments all = {0};
    vi mask[4];
    live_masks(live, mask);
    for (int64_t r = 0; r < rows; r++, x += stride)
        for (int64_t i = 0; i < length; i += CHUNK) {
            int64_t count = length - i < CHUNK ? length - i : CHUNK;
            double alive = (double)(live < EK_LANES ? count / EK_LANES * live : count), sum, squares;
            float shift = all.count > 0 ? (float)all.mean : x[i];
            shifted_sums(count, mask, x + i, shift, &sum, &squares);
            if (!(all.count > 0)) {
                shift += (float)(sum / alive);
                shifted_sums(count, mask, x + i, shift, &sum, &squares);
            }
            merge_shifted(&all, alive, shift, sum, squares);
        }
    *out = all;
}

static void slab_apply(int64_t rows, int64_t length, int64_t stride, int live, const float *x, float mean, float a, float b, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += stride, y += stride)
        for (int64_t i = 0; i < length; i += VL) {
            int n = at_most_vl(length - i);
            vf v = (load_n(x + i, n) - mean) * a + b;
            store_n(y + i, keep(first_lanes(live - (int)(i % EK_LANES)), v), n);
        }
}

static void chunk_backward_sums(int64_t count, const float *x, const float *g, float mean, double *sum_g, double *sum_gx)
{
    vf sum[4] = {{0}}, product[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= count; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) {
            vf v = load(g + i + j * VL);
            sum[j] += v;
            product[j] += v * (load(x + i + j * VL) - mean);
        }
    for (; i < count; i += VL) {
        int n = at_most_vl(count - i);
        vf v = load_n(g + i, n);
        sum[0] += v;
        product[0] += v * (load_n(x + i, n) - mean);
    }
    *sum_g += sum_four(sum);
    *sum_gx += sum_four(product);
}

static void slab_backward_sums(int64_t rows, int64_t length, int64_t stride, const float *x, const float *g, float mean, double *sum_g, double *sum_gx)
{
    *sum_g = *sum_gx = 0;
    for (int64_t r = 0; r < rows; r++, x += stride, g += stride)
        for (int64_t i = 0; i < length; i += CHUNK)
            chunk_backward_sums(length - i < CHUNK ? length - i : CHUNK, x + i, g + i, mean, sum_g, sum_gx);
}

static void slab_backward_apply(int64_t rows, int64_t length, int64_t stride, int live, const float *x, const float *g, float mean, float a, float b, float c, float *dx)
{
    for (int64_t r = 0; r < rows; r++, x += stride, g += stride, dx += stride)
        for (int64_t i = 0; i < length; i += VL) {
            int n = at_most_vl(length - i);
            vf d = load_n(g + i, n) * a + ((load_n(x + i, n) - mean) * b + c);
            store_n(dx + i, keep(first_lanes(live - (int)(i % EK_LANES)), d), n);
        }
}

/* --- columns */

enum { ROWS = 64 }; /* added in float */

static int64_t at_most_rows(int64_t n) { return n < ROWS ? n : ROWS; }

/* `width` columns, at most VL, of `n` rows. */
TEMPLATE void column_sums(int64_t n, int width, int64_t stride, const float *x, vf shift, vf *sum_out, vf *squares_out)
{
    vf sum[2] = {{0}}, squares[2] = {{0}};
    for (int64_t r = 0; r < n; r++, x += stride) {
        vf d = load_n(x, width) - shift;
        sum[r % 2] += d;
        squares[r % 2] += d * d;
    }
    *sum_out = sum[0] + sum[1];
    *squares_out = squares[0] + squares[1];
}

static void some_columns_moments(int64_t n, int width, int64_t stride, const float *x, ek_moments *out)
{
    memset(out, 0, (size_t)width * sizeof *out);
    vf shift = load_n(x, width);
    for (int64_t r = 0; r < n; r += ROWS) {
        int64_t rows = at_most_rows(n - r);
        vf sum, squares;
        column_sums(rows, width, stride, x + r * stride, shift, &sum, &squares);
        if (r == 0) {
            shift += sum / (float)rows;
            column_sums(rows, width, stride, x, shift, &sum, &squares);
        }
        for (int j = 0; j < width; j++) {
            merge_shifted(&out[j], (double)rows, shift[j], sum[j], squares[j]);
            shift[j] = (float)out[j].mean;
        }
    }
}

static void columns_moments(int64_t n, int64_t c, int64_t stride, const float *x, ek_moments *out)
{
    for (int64_t j = 0; j < c; j += VL) some_columns_moments(n, at_most_vl(c - j), stride, x + j, out + j);
}

static void columns_apply(int64_t n, int64_t c, int64_t stride, const float *x, const float *mean, const float *a, const float *b, float *y)
{
    for (int64_t r = 0; r < n; r++, x += stride, y += stride)
        for (int64_t j = 0; j < c; j += VL) {
            int w = at_most_vl(c - j);
            store_n(y + j, (load_n(x + j, w) - load_n(mean + j, w)) * load_n(a + j, w) + load_n(b + j, w), w);
        }
}

static void some_columns_backward_sums(int64_t n, int width, int64_t stride, const float *x, const float *g, vf mean, double *sum_g, double *sum_gx)
{
    for (int j = 0; j < width; j++) sum_g[j] = sum_gx[j] = 0;
    for (int64_t first = 0; first < n; first += ROWS) {
        vf sum = {0}, product = {0};
        for (int64_t rows = at_most_rows(n - first); rows > 0; rows--, x += stride, g += stride) {
            vf v = load_n(g, width);
            sum += v;
            product += v * (load_n(x, width) - mean);
        }
        for (int j = 0; j < width; j++) {
            sum_g[j] += sum[j];
            sum_gx[j] += product[j];
        }
    }
}

static void columns_backward_sums(int64_t n, int64_t c, int64_t stride, const float *x, const float *g, const float *mean, double *sum_g, double *sum_gx)
{
    for (int64_t j = 0; j < c; j += VL) {
        int width = at_most_vl(c - j);
        some_columns_backward_sums(n, width, stride, x + j, g + j, load_n(mean + j, width), sum_g + j, sum_gx + j);
    }
}

static void columns_backward_apply(int64_t n, int64_t c, int64_t stride, const float *x, const float *g, const float *mean, const float *a, const float *b, const float *cc, float *dx)
{
    for (int64_t r = 0; r < n; r++, x += stride, g += stride, dx += stride)
        for (int64_t j = 0; j < c; j += VL) {
            int w = at_most_vl(c - j);
            vf centred = load_n(x + j, w) - load_n(mean + j, w);
            store_n(dx + j, load_n(g + j, w) * load_n(a + j, w) + (centred * load_n(b + j, w) + load_n(cc + j, w)), w);
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
    const vi all_alive[4] = {~(vi){0}, ~(vi){0}, ~(vi){0}, ~(vi){0}};
    double all = 0;
    for (int64_t i = 0; i < count; i += CHUNK) {
        double sum, squares;
        shifted_sums(count - i < CHUNK ? count - i : CHUNK, all_alive, x + i, 0, &sum, &squares);
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
