/* Minimal filtering: the passes over a block (lane_winograd.h says how). */

static void winograd_forward(const ek_conv *g, const conv_winograd *s, const ek_map_in *x, const float *packed, const float *bias, float *y, int live, ek_moments *moments_out, float *scratch)
{
    const winograd w = make_winograd(g, s, scratch);
    if (moments_out) memset(moments_out, 0, (size_t)g->co * sizeof *moments_out);
    for (int group = 0; group < g->groups; group++) {
        for (int first = 0; first < s->down; first += s->band) {
            int rows = least(s->band, s->down - first);
            source_band(&w, x, group * s->in, first, rows);
            multiply_forward(&w, rows, packed);
            output_band(&w, group * s->out, first, rows, bias, y, live, moments_out);
        }
        packed += (int64_t)s->points * s->out * s->in * s->rows;
    }
}

/* A band's dy begins with the rows above that its dV needs too. dV takes V's place. x NULL: no gradient of the weights. */
static void winograd_backward_band(const winograd *w, int group, int first, const ek_map_in *x, const ek_grad_in *dy, const float *packed, const ek_grad_out *dx)
{
    const conv_winograd *s = &w->s;
    int rows = least(s->band, s->down - first), last = first + rows == s->down;
    int before = least(first, s->rows - 1);
    if (x) source_band(w, x, group * s->in, first, rows);
    gradient_band(w, dy, group * s->out, first - before, before + rows);
    if (x) add_weight_points(w, rows, before);
    if (!dx) return;
    int complete = last ? rows + s->rows - 1 : rows; /* where columns are transformed, s->rows is 1 */
    multiply_backward(w, complete, before, before + rows, packed);
    source_gradient_band(w, dx, group * s->in, first, complete);
}

static void winograd_backward(const ek_conv *g, const conv_winograd *s, const ek_map_in *x, const ek_grad_in *dy, const float *packed, float *dw, const ek_grad_out *dx, float *scratch)
{
    const winograd w = make_winograd(g, s, scratch);
    for (int group = 0; group < g->groups; group++) {
        memset(w.weights, 0, s->weights * sizeof *w.weights);
        memset(w.carry, 0, s->carry * sizeof *w.carry);
        for (int first = 0; first < s->down; first += s->band)
            winograd_backward_band(&w, group, first, dw ? x : NULL, dy, packed, dx);
        if (dw) weights_from_band_points(&w, dw + (int64_t)group * s->out * s->in * g->kh * g->kw);
        packed += (int64_t)s->points * s->out * s->in * s->rows;
    }
}
