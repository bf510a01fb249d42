/* Pooling of one lane block. */

/* The part of a window that lies inside the map, a cell or more: rows [h0, h1), columns [w0, w1). */
typedef struct cells {
    int h0, h1, w0, w1;
} cells;

static inline cells cells_of(const ek_window *g, int o_h, int o_w)
{
    int h = o_h * g->stride_h - g->pad_h, w = o_w * g->stride_w - g->pad_w;
    return (cells){h > 0 ? h : 0, h + g->kh < g->hi ? h + g->kh : g->hi,
                   w > 0 ? w : 0, w + g->kw < g->wi ? w + g->kw : g->wi};
}

/* How many cells of a window that begins at `start` lie before `end`. */
static inline int cells_before(int start, int size, int end) { return start + size < end ? size : end - start; }

static inline float average_factor(const ek_window *g, int o_h, int o_w, cells in)
{
    int count = (in.h1 - in.h0) * (in.w1 - in.w0);
    if (g->count_pad)
        count = cells_before(o_h * g->stride_h - g->pad_h, g->kh, g->hi + g->end_h) *
                cells_before(o_w * g->stride_w - g->pad_w, g->kw, g->wi + g->end_w);
    return 1.0f / (float)count;
}

/* Floats of a row of the input, and of its map. */
static inline int64_t row_floats(const ek_window *g) { return (int64_t)g->wi * EK_LANES; }
static inline int64_t map_floats(const ek_window *g) { return g->hi * row_floats(g); }

/* Rows [h0, h1) of channel c: in place, or as they are read into scratch. */
static const float *window_rows(const ek_window *g, const ek_map_in *x, int c, cells in, float *scratch)
{
    int64_t at = c * map_floats(g) + in.h0 * row_floats(g);
    if (is_plain(x)) return x->x + at;
    if (in.h1 > in.h0) read_map(x, c, at, (in.h1 - in.h0) * row_floats(g), scratch);
    return scratch;
}

/* One output from the window at `corner`, of h x w cells. */
TEMPLATE void average(const int h, const int w, int64_t row, const float *corner, float factor, float *y)
{
    for (int part = 0; part < LANES; part += VL) {
        vf sum = {0};
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++) sum += load(corner + i * row + j * EK_LANES + part);
        store(y + part, sum * factor);
    }
}

static void avgpool_forward(const ek_window *g, const ek_map_in *x, float *y, float *scratch)
{
    int64_t row = row_floats(g);
    for (int c = 0; c < g->c; c++)
        for (int o_h = 0; o_h < g->ho; o_h++) {
            const float *rows = window_rows(g, x, c, cells_of(g, o_h, 0), scratch);
            for (int o_w = 0; o_w < g->wo; o_w++, y += EK_LANES) {
                cells in = cells_of(g, o_h, o_w);
                int h = in.h1 - in.h0, w = in.w1 - in.w0;
                const float *corner = rows + in.w0 * EK_LANES;
                if (h == 2 && w == 2) average(2, 2, row, corner, average_factor(g, o_h, o_w, in), y);
                else average(h, w, row, corner, average_factor(g, o_h, o_w, in), y);
            }
        }
}

/* One row of dx, of the cells of output row o_h, where no two windows share a cell. */
static void spread_row(const ek_window *g, int o_h, const float *dy, float *row)
{
    if (g->stride_w > g->kw || g->wo * g->stride_w - g->pad_w < g->wi) memset(row, 0, (size_t)row_floats(g) * sizeof *row);
    for (int o_w = 0; o_w < g->wo; o_w++, dy += EK_LANES) {
        cells in = cells_of(g, o_h, o_w);
        float factor = average_factor(g, o_h, o_w, in);
        for (int part = 0; part < LANES; part += VL) {
            vf each = load(dy + part) * factor;
            for (int w = in.w0; w < in.w1; w++) store(row + w * EK_LANES + part, each);
        }
    }
}

static void write_rows(const ek_window *g, const ek_grad_out *dx, int c, int h0, int h1, const float *row, lane_sums *sums)
{
    for (int h = h0; h < h1; h++) write_gradient(dx, c, c * map_floats(g) + h * row_floats(g), row_floats(g), row, sums);
}

static void write_zeros(const ek_window *g, const ek_grad_out *dx, int c, int h0, int h1, float *row, lane_sums *sums)
{
    if (h0 >= h1) return;
    memset(row, 0, (size_t)row_floats(g) * sizeof *row);
    write_rows(g, dx, c, h0, h1, row, sums);
}

static void average_backward_apart(const ek_window *g, int c, const float *dy, const ek_grad_out *dx, lane_sums *sums, float *scratch)
{
    int done = 0;
    for (int o_h = 0; o_h < g->ho; o_h++, dy += (int64_t)g->wo * EK_LANES) {
        cells in = cells_of(g, o_h, 0);
        write_zeros(g, dx, c, done, in.h0, scratch, sums);
        spread_row(g, o_h, dy, scratch);
        write_rows(g, dx, c, in.h0, in.h1, scratch, sums);
        done = in.h1;
    }
    write_zeros(g, dx, c, done, g->hi, scratch, sums);
}

static void average_backward_shared(const ek_window *g, int c, const float *dy, const ek_grad_out *dx, lane_sums *sums, float *scratch)
{
    memset(scratch, 0, (size_t)map_floats(g) * sizeof *scratch);
    for (int o_h = 0; o_h < g->ho; o_h++)
        for (int o_w = 0; o_w < g->wo; o_w++, dy += EK_LANES) {
            cells in = cells_of(g, o_h, o_w);
            float factor = average_factor(g, o_h, o_w, in);
            for (int part = 0; part < LANES; part += VL) {
                vf each = load(dy + part) * factor;
                for (int h = in.h0; h < in.h1; h++)
                    for (int w = in.w0; w < in.w1; w++) {
                        float *cell = scratch + ((int64_t)h * g->wi + w) * EK_LANES + part;
                        store(cell, load(cell) + each);
                    }
            }
        }
    write_gradient(dx, c, c * map_floats(g), map_floats(g), scratch, sums);
}

static void avgpool_backward(const ek_window *g, const float *dy, const ek_grad_out *dx, float *scratch)
{
    bool apart = g->stride_h >= g->kh && g->stride_w >= g->kw;
    for (int c = 0; c < g->c; c++, dy += (int64_t)g->ho * g->wo * EK_LANES) {
        lane_sums room, *sums = begin_sums(dx, &room);
        if (apart) average_backward_apart(g, c, dy, dx, sums, scratch);
        else average_backward_shared(g, c, dy, dx, sums, scratch);
        end_sums(dx, c, sums);
    }
}

/* Starts below every value at the first cell, so that a window of -infinity has its first cell as winner. */
static void maxpool_forward(const ek_window *g, const ek_map_in *x, float *y, int32_t *index, float *scratch)
{
    for (int c = 0; c < g->c; c++)
        for (int o_h = 0; o_h < g->ho; o_h++) {
            cells all = cells_of(g, o_h, 0);
            const float *rows = window_rows(g, x, c, all, scratch) - all.h0 * row_floats(g);
            for (int o_w = 0; o_w < g->wo; o_w++, y += EK_LANES, index += EK_LANES) {
                cells in = cells_of(g, o_h, o_w);
                for (int part = 0; part < LANES; part += VL) {
                    vf best = splat(-INFINITY);
                    vi winner = (vi){0} + (in.h0 * g->wi + in.w0);
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) {
                            int32_t position = h * g->wi + w;
                            vf v = load(rows + (int64_t)position * EK_LANES + part);
                            vi take = (v > best) | (v != v);
                            best = select(take, v, best);
                            winner = (take & position) | (~take & winner);
                        }
                    store(y + part, best);
                    *(vi_memory *)(index + part) = winner;
                }
            }
        }
}

static void maxpool_backward(const ek_window *g, const float *dy, const int32_t *index, const ek_grad_out *dx, float *scratch)
{
    for (int c = 0; c < g->c; c++) {
        memset(scratch, 0, (size_t)map_floats(g) * sizeof *scratch);
        for (int o_h = 0; o_h < g->ho; o_h++)
            for (int o_w = 0; o_w < g->wo; o_w++, dy += EK_LANES, index += EK_LANES) {
                cells in = cells_of(g, o_h, o_w);
                for (int part = 0; part < LANES; part += VL) {
                    vf each = load(dy + part);
                    vi winner = *(const vi_memory *)(index + part);
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) {
                            int32_t position = h * g->wi + w;
                            float *cell = scratch + (int64_t)position * EK_LANES + part;
                            store(cell, load(cell) + keep(winner == position, each));
                        }
                }
            }
        lane_sums room, *sums = begin_sums(dx, &room);
        write_gradient(dx, c, c * map_floats(g), map_floats(g), scratch, sums);
        end_sums(dx, c, sums);
    }
}
