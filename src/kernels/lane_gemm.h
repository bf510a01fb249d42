/* Matrix product: blocks of k are packed into panels, which a register tile multiplies. */

#include "kernels/gemm_blocks.h"

/* The register tile: GEMM_R rows (also half of them) x GEMM_V vectors (also one). GEMM_R <= VL. */
#if VL == 16
#define GEMM_R 12
#elif VL == 8
#define GEMM_R 6
#else
#define GEMM_R 4
#endif
#define GEMM_V 2

/* panel[k][across] = from[across*across_step + k*k_step], 0 from `count` to `width` across. */

TEMPLATE void copy_rows(const int width, int64_t depth, const float *from, int64_t k_step, float *panel)
{
    for (int64_t k = 0; k < depth; k++) memcpy(panel + k * width, from + k * k_step, (size_t)width * sizeof *panel);
}

static void pack_rows(int64_t depth, int width, const float *from, int64_t k_step, float *panel)
{
    switch (width) {
    case GEMM_V * VL: copy_rows(GEMM_V * VL, depth, from, k_step, panel); break;
    case VL: copy_rows(VL, depth, from, k_step, panel); break;
#if GEMM_R < VL
    case GEMM_R: copy_rows(GEMM_R, depth, from, k_step, panel); break;
#endif
    default: copy_rows(GEMM_R / 2, depth, from, k_step, panel); break;
    }
}

/* Whole vectors are stored: what runs past a row narrower than a vector is overwritten by the next row,
 * and past the last one by the next panel. */
static void pack_transposed(int64_t depth, int count, int width, const float *from, int64_t across_step, float *panel)
{
    for (int j = 0; j < width; j += VL)
        for (int64_t k = 0; k < depth; k += VL) {
            int n = at_most_vl(depth - k);
            vf v[VL];
            UNROLL for (int i = 0; i < VL; i++)
                v[i] = j + i < count ? load_n(from + (j + i) * across_step + k, n) : splat(0.0f);
            transpose(v);
            UNROLL for (int i = 0; i < VL; i++)
                if (i < n) store(panel + (k + i) * width + j, v[i]);
        }
}

static void pack_scattered(int64_t depth, int count, int width, const float *from, int64_t across_step, int64_t k_step, float *panel)
{
    for (int64_t k = 0; k < depth; k++)
        for (int i = 0; i < width; i++) *panel++ = i < count ? from[i * across_step + k * k_step] : 0.0f;
}

static void pack_panel(int64_t depth, int count, int width, const float *from, int64_t across_step, int64_t k_step, float *panel)
{
    if (across_step == 1 && count == width) pack_rows(depth, width, from, k_step, panel);
    else if (k_step == 1) pack_transposed(depth, count, width, from, across_step, panel);
    else pack_scattered(depth, count, width, from, across_step, k_step, panel);
}

/* A panel is full, or as narrow as `half` where the rest fits that. */
static int panel_width(int64_t left, int full, int half) { return left > half ? full : half; }

static void pack(int64_t depth, int64_t count, int full, int half, const float *from, int64_t across_step, int64_t k_step, float *panels)
{
    for (int64_t i = 0; i < count; i += full) {
        int width = panel_width(count - i, full, half);
        int64_t left = count - i;
        pack_panel(depth, left < width ? (int)left : width, width, from + i * across_step, across_step, k_step, panels);
        panels += depth * width;
    }
}

/* tile[R][V*VL] = sum over k of a[k][row] * b[k][column] */
TEMPLATE void multiply(const int R, const int V, int64_t depth, const float *a, const float *b, float *tile)
{
    vf sum[GEMM_R][GEMM_V];
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int j = 0; j < V; j++) sum[i][j] = splat(0.0f);
    for (int64_t k = 0; k < depth; k++, a += R, b += V * VL) {
        vf v[GEMM_V];
        UNROLL for (int j = 0; j < V; j++) v[j] = load(b + j * VL);
        UNROLL for (int i = 0; i < R; i++)
            UNROLL for (int j = 0; j < V; j++) sum[i][j] += v[j] * a[i];
    }
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int j = 0; j < V; j++) store(tile + (i * V + j) * VL, sum[i][j]);
}

static void multiply_panels(int rows, int columns, int64_t depth, const float *a, const float *b, float *tile)
{
    if (rows == GEMM_R && columns == GEMM_V * VL) multiply(GEMM_R, GEMM_V, depth, a, b, tile);
    else if (rows == GEMM_R) multiply(GEMM_R, 1, depth, a, b, tile);
    else if (columns == GEMM_V * VL) multiply(GEMM_R / 2, GEMM_V, depth, a, b, tile);
    else multiply(GEMM_R / 2, 1, depth, a, b, tile);
}

/* C = tile (+ C) (+ bias), rows x columns of it; the tile's rows are `width` apart. */
static void write_tile(int64_t rows, int64_t columns, int width, const float *tile, bool accumulate, const float *bias, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < rows; i++, tile += width, c += ldc)
        for (int64_t j = 0; j < columns; j += VL) {
            int n = at_most_vl(columns - j);
            vf v = load(tile + j);
            if (bias) v += load_n(bias + j, n);
            if (accumulate) v += load_n(c + j, n);
            store_n(c + j, v, n);
        }
}

static void gemm_tile(const struct ek_gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *scratch)
{
    int64_t block = gemm_depth(g->k), k = 0;
    float *a = scratch, *b = scratch + gemm_round_up(m1 - m0, GEMM_R) * block;
    float tile[GEMM_R * GEMM_V * VL];
    do {
        int64_t depth = g->k - k < block ? g->k - k : block;
        pack(depth, m1 - m0, GEMM_R, GEMM_R / 2, g->a + m0 * g->a_row + k * g->a_col, g->a_row, g->a_col, a);
        pack(depth, n1 - n0, GEMM_V * VL, VL, g->b + n0 * g->b_col + k * g->b_row, g->b_col, g->b_row, b);
        for (int64_t j = n0; j < n1; j += GEMM_V * VL)
            for (int64_t i = m0; i < m1; i += GEMM_R) {
                int rows = panel_width(m1 - i, GEMM_R, GEMM_R / 2), columns = panel_width(n1 - j, GEMM_V * VL, VL);
                multiply_panels(rows, columns, depth, a + (i - m0) * depth, b + (j - n0) * depth, tile);
                int64_t rows_left = m1 - i < rows ? m1 - i : rows, columns_left = n1 - j < columns ? n1 - j : columns;
                write_tile(rows_left, columns_left, columns, tile, k > 0,
                           g->bias && k == 0 ? g->bias + j : NULL, g->c + i * g->ldc + j, g->ldc);
            }
        k += depth;
    } while (k < g->k);
}
