/* The two inner loops of every convolution, with a tile of sums in registers. */

static inline int least(int a, int b) { return a < b ? a : b; }

/* Output channels x pixels (or taps): accumulators, one weight and the pixels fit the 32 (AVX-512) or 16 registers.
 * Few channels take more pixels, because an addition must wait for the one before it. */
#if VL == 16
#define TILE_T 6
#define TILE_P 9
#define PIXELS(T) ((T) > 3 ? 4 : 8)
#elif VL == 8
#define TILE_T 4
#define TILE_P 9
#define PIXELS(T) ((T) > 2 ? 3 : (T) > 1 ? 5 : 8)
#else
#define TILE_T 2
#define TILE_P 9
#define PIXELS(T) ((T) > 1 ? 4 : 8)
#endif

/* --- outputs: y[t][p] = bias[t] + sum over channels, rows and columns of weight[t] * x[p] */

/* Strides in floats. */
typedef struct conv_run {
    int channels, rows, columns; /* to sum over */
    int64_t x_channel, x_row, x_column, x_pixel;
    int64_t w_out, w_channel, w_row, w_column;
    int64_t y_channel, y_pixel;
    int pixels;
} conv_run;

TEMPLATE void conv_tile(const int T, const int P, const conv_run *g, const float *x, const float *w, const float *bias, float *y)
{
    vf sum[TILE_T][TILE_P];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < P; p++) sum[t][p] = splat(bias ? bias[t] : 0.0f);
    for (int i = 0; i < g->channels; i++)
        for (int r = 0; r < g->rows; r++) {
            const float *pixel = x + i * g->x_channel + r * g->x_row;
            const float *weight = w + i * g->w_channel + r * g->w_row;
            for (int c = 0; c < g->columns; c++, pixel += g->x_column, weight += g->w_column) {
                vf v[TILE_P];
                UNROLL for (int p = 0; p < P; p++) v[p] = load(pixel + p * g->x_pixel);
                UNROLL for (int t = 0; t < T; t++)
                    UNROLL for (int p = 0; p < P; p++) sum[t][p] += v[p] * weight[t * g->w_out];
            }
        }
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < P; p++) store(y + t * g->y_channel + p * g->y_pixel, sum[t][p]);
}

/* What is left over goes by powers of two. */
TEMPLATE void conv_pixels(const int T, const conv_run *g, const float *x, const float *w, const float *bias, float *y)
{
    int left = g->pixels;
    for (; left >= PIXELS(T); left -= PIXELS(T), x += PIXELS(T) * g->x_pixel, y += PIXELS(T) * g->y_pixel)
        conv_tile(T, PIXELS(T), g, x, w, bias, y);
    if (PIXELS(T) > 4 && (left & 4)) {
        conv_tile(T, 4, g, x, w, bias, y);
        x += 4 * g->x_pixel;
        y += 4 * g->y_pixel;
    }
    if (left & 2) {
        conv_tile(T, 2, g, x, w, bias, y);
        x += 2 * g->x_pixel;
        y += 2 * g->y_pixel;
    }
    if (left & 1) conv_tile(T, 1, g, x, w, bias, y);
}

static void conv_channels(int T, const conv_run *g, const float *x, const float *w, const float *bias, float *y)
{
    switch (T) {
#if TILE_T > 4
    case 6: conv_pixels(6, g, x, w, bias, y); break;
    case 5: conv_pixels(5, g, x, w, bias, y); break;
#endif
#if TILE_T > 2
    case 4: conv_pixels(4, g, x, w, bias, y); break;
    case 3: conv_pixels(3, g, x, w, bias, y); break;
#endif
    case 2: conv_pixels(2, g, x, w, bias, y); break;
    default: conv_pixels(1, g, x, w, bias, y); break;
    }
}

/* All `out` channels, in every part of the lane rows. */
static void conv_outputs(int out, const conv_run *g, const float *x, const float *w, const float *bias, float *y)
{
    for (int part = 0; part < LANES; part += VL)
        for (int o = 0; o < out; o += TILE_T)
            conv_channels(least(TILE_T, out - o), g, x + part, w + o * g->w_out, bias ? bias + o : NULL,
                          y + o * g->y_channel + part);
}

/* --- weight gradients: dw[t][k] += sum over pixels and lanes of dy[t] * x[tap k] */

typedef struct weight_run {
    int height, width;
    int64_t x_row, x_pixel, dy_row, dy_map; /* floats: a step down, a step right; from channel to channel */
} weight_run;

/* dw[t][k] += the sum of sums[t*K + k]; rows are `stride` apart. Not inlined: what it holds in registers would drive the
 * tile out of them. */
static __attribute__((noinline)) void add_tile(int T, int K, const vf *sums, float *dw, int64_t stride)
{
    enum { VECTORS = (TILE_T * TILE_P + VL - 1) / VL * VL };
    float total[VECTORS];
    for (int i = 0; i < T * K; i += VL) {
        vf each[VL];
        int n = least(VL, T * K - i);
        for (int j = 0; j < VL; j++) each[j] = j < n ? sums[i + j] : splat(0.0f);
        store(total + i, sum_each(each));
    }
    for (int t = 0; t < T; t++)
        for (int k = 0; k < K; k++) dw[t * stride + k] += total[t * K + k];
}

TEMPLATE void weight_tile(const int T, const int K, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    vf sum[TILE_T][TILE_P];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int k = 0; k < K; k++) sum[t][k] = splat(0.0f);
    for (int r = 0; r < g->height; r++, x += g->x_row, dy += g->dy_row) {
        const float *pixel = x, *d = dy;
        for (int c = 0; c < g->width; c++, pixel += g->x_pixel)
            for (int part = 0; part < EK_LANES; part += VL, d += VL) {
                vf v[TILE_P];
                UNROLL for (int k = 0; k < K; k++) v[k] = load(pixel + tap[k] + part);
                UNROLL for (int t = 0; t < T; t++) {
                    vf each = load(d + t * g->dy_map);
                    UNROLL for (int k = 0; k < K; k++) sum[t][k] += each * v[k];
                }
            }
    }
    vf each[TILE_T * TILE_P];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int k = 0; k < K; k++) each[t * K + k] = sum[t][k];
    add_tile(T, K, each, dw, stride);
}

/* One channel, depthwise, takes the nine taps of a 3x3 kernel at once. */
#define TAPS(T) ((T) > 1 ? PIXELS(T) : 9)

/* `taps` columns of dw. */
TEMPLATE void weight_taps(const int T, int taps, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    for (; taps >= TAPS(T); taps -= TAPS(T), tap += TAPS(T), dw += TAPS(T))
        weight_tile(T, TAPS(T), g, x, tap, dy, dw, stride);
    if (TAPS(T) > 4)
        for (; taps >= 4; taps -= 4, tap += 4, dw += 4) weight_tile(T, 4, g, x, tap, dy, dw, stride);
    if (taps & 2) {
        weight_tile(T, 2, g, x, tap, dy, dw, stride);
        tap += 2;
        dw += 2;
    }
    if (taps & 1) weight_tile(T, 1, g, x, tap, dy, dw, stride);
}

static void weight_channels(int T, int taps, const weight_run *g, const float *x, const int64_t *tap, const float *dy, float *dw, int64_t stride)
{
    switch (T) {
#if TILE_T > 4
    case 6: weight_taps(6, taps, g, x, tap, dy, dw, stride); break;
    case 5: weight_taps(5, taps, g, x, tap, dy, dw, stride); break;
#endif
#if TILE_T > 2
    case 4: weight_taps(4, taps, g, x, tap, dy, dw, stride); break;
    case 3: weight_taps(3, taps, g, x, tap, dy, dw, stride); break;
#endif
    case 2: weight_taps(2, taps, g, x, tap, dy, dw, stride); break;
    default: weight_taps(1, taps, g, x, tap, dy, dw, stride); break;
    }
}

/* Where the taps of a kernel lie in the source: (row, column) of channel 0, 1, ... in order; strides in floats. */
typedef struct tap_grid {
    int rows, columns;
    int64_t channel, row, column;
} tap_grid;

static int64_t tap_offset(const tap_grid *g, int tap)
{
    int each = g->rows * g->columns;
    return tap / each * g->channel + tap % each / g->columns * g->row + tap % g->columns * g->column;
}

/* dw [out][taps]. Pixels go in pieces of which dy's stay in the first cache while all taps pass, and so do the
 * source's while all output channels pass; the offsets of a piece of taps are found first. */
static void weight_gradient(int out, int taps, const tap_grid *grid, const weight_run *g, const float *x, const float *dy, float *dw)
{
    enum { PIECE = 36, FEW = 64 };
    for (int first = 0; first < taps; first += PIECE) {
        int count = least(PIECE, taps - first), height = g->width < FEW ? FEW / g->width : 1, width = FEW;
        int64_t tap[PIECE];
        for (int k = 0; k < count; k++) tap[k] = tap_offset(grid, first + k);
        for (int r = 0; r < g->height; r += height)
            for (int c = 0; c < g->width; c += width) {
                weight_run piece = *g;
                piece.height = least(height, g->height - r);
                piece.width = least(width, g->width - c);
                const float *x_piece = x + r * g->x_row + c * g->x_pixel, *dy_piece = dy + r * g->dy_row + (int64_t)c * EK_LANES;
                for (int o = 0; o < out; o += TILE_T)
                    weight_channels(least(TILE_T, out - o), count, &piece, x_piece, tap, dy_piece + o * g->dy_map, dw + (int64_t)o * taps + first, taps);
            }
    }
}
