/* stand-in until the kernels land */
static void linear_forward(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *x, const float *w, const float *bias, float *y)
{
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t o = first; o < first + count; o++)
            for (int p = 0; p < EK_LANES; p += VL) {
                vf sum = splat(bias ? bias[o] : 0);
                for (int64_t i = 0; i < g->in; i++) sum += load(x + (b * g->in + i) * EK_LANES + p) * w[o * g->in + i];
                store(y + (b * g->out + o) * EK_LANES + p, sum);
            }
}
static void linear_backward_data(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *dy, const float *w, float *dx)
{
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = first; i < first + count; i++)
            for (int p = 0; p < EK_LANES; p += VL) {
                vf sum = splat(0);
                for (int64_t o = 0; o < g->out; o++) sum += load(dy + (b * g->out + o) * EK_LANES + p) * w[o * g->in + i];
                store(dx + (b * g->in + i) * EK_LANES + p, sum);
            }
}
static void linear_backward_weights(const ek_linear *g, int64_t samples, int64_t first, int64_t count, const float *x_rows, const float *dy, float *dw, float *dbias)
{
    for (int64_t o = first; o < first + count; o++) {
        if (dbias) dbias[o] = 0;
        for (int64_t i = 0; i < g->in; i++) dw[o * g->in + i] = 0;
        for (int64_t s = 0; s < samples; s++) {
            float d = dy[(s / EK_LANES * g->out + o) * EK_LANES + s % EK_LANES];
            if (dbias) dbias[o] += d;
            for (int64_t i = 0; i < g->in; i++) dw[o * g->in + i] += d * x_rows[s * g->in + i];
        }
    }
}
