/* Pooling of one lane block. */

/* The part of a window that lies inside the map: rows [h0, h1), columns [w0, w1). */
typedef struct cells {
    int h0, h1, w0, w1;
} cells;

static inline cells cells_of(const ek_window *g, int o_h, int o_w)
{
    int h = o_h * g->stride_h - g->pad_h, w = o_w * g->stride_w - g->pad_w;
    return (cells){h > 0 ? h : 0, h + g->kh < g->hi ? h + g->kh : g->hi,
                   w > 0 ? w : 0, w + g->kw < g->wi ? w + g->kw : g->wi};
}

static inline float average_factor(const ek_window *g, cells in)
{
    int inside = in.h1 > in.h0 && in.w1 > in.w0 ? (in.h1 - in.h0) * (in.w1 - in.w0) : 0;
    int count = g->count_pad ? g->kh * g->kw : inside;
    return count > 0 ? 1.0f / (float)count : 0.0f;
}

static void avgpool_forward(const ek_window *g, const float *x, float *y)
{
    for (int c = 0; c < g->c; c++, x += (int64_t)g->hi * g->wi * EK_LANES)
        for (int o_h = 0; o_h < g->ho; o_h++)
            for (int o_w = 0; o_w < g->wo; o_w++) {
                cells in = cells_of(g, o_h, o_w);
                float factor = average_factor(g, in);
                for (int part = 0; part < EK_LANES; part += VL, y += VL) {
                    vf sum = {0};
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) sum += load(x + ((int64_t)h * g->wi + w) * EK_LANES + part);
                    store(y, sum * factor);
                }
            }
}

static void avgpool_backward(const ek_window *g, const float *dy, float *dx)
{
    int64_t map = (int64_t)g->hi * g->wi * EK_LANES;
    for (int c = 0; c < g->c; c++, dx += map) {
        memset(dx, 0, (size_t)map * sizeof *dx);
        for (int o_h = 0; o_h < g->ho; o_h++)
            for (int o_w = 0; o_w < g->wo; o_w++) {
                cells in = cells_of(g, o_h, o_w);
                float factor = average_factor(g, in);
                for (int part = 0; part < EK_LANES; part += VL, dy += VL) {
                    vf each = load(dy) * factor;
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) {
                            float *cell = dx + ((int64_t)h * g->wi + w) * EK_LANES + part;
                            store(cell, load(cell) + each);
                        }
                }
            }
    }
}

/* Starts below every value at the first cell, so that a window of -infinity has its first cell as winner. */
static void maxpool_forward(const ek_window *g, const float *x, float *y, int32_t *index)
{
    for (int c = 0; c < g->c; c++, x += (int64_t)g->hi * g->wi * EK_LANES)
        for (int o_h = 0; o_h < g->ho; o_h++)
            for (int o_w = 0; o_w < g->wo; o_w++) {
                cells in = cells_of(g, o_h, o_w);
                for (int part = 0; part < EK_LANES; part += VL, y += VL, index += VL) {
                    vf best = splat(-INFINITY);
                    vi winner = (vi){0} + (in.h0 * g->wi + in.w0);
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) {
                            int32_t position = h * g->wi + w;
                            vf v = load(x + (int64_t)position * EK_LANES + part);
                            vi take = (v > best) | (v != v);
                            best = select(take, v, best);
                            winner = (take & position) | (~take & winner);
                        }
                    store(y, best);
                    *(vi_memory *)index = winner;
                }
            }
}

static void maxpool_backward(const ek_window *g, const float *dy, const int32_t *index, float *dx)
{
    int64_t map = (int64_t)g->hi * g->wi * EK_LANES;
    for (int c = 0; c < g->c; c++, dx += map) {
        memset(dx, 0, (size_t)map * sizeof *dx);
        for (int o_h = 0; o_h < g->ho; o_h++)
            for (int o_w = 0; o_w < g->wo; o_w++) {
                cells in = cells_of(g, o_h, o_w);
                for (int part = 0; part < EK_LANES; part += VL, dy += VL, index += VL) {
                    vf each = load(dy);
                    vi winner = *(const vi_memory *)index;
                    for (int h = in.h0; h < in.h1; h++)
                        for (int w = in.w0; w < in.w1; w++) {
                            int32_t position = h * g->wi + w;
                            float *cell = dx + (int64_t)position * EK_LANES + part;
                            store(cell, load(cell) + keep(winner == position, each));
                        }
                }
            }
    }
}
