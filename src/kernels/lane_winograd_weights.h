/* Minimal filtering: weights to points, and the gradient of weights from points.
 *
 * dU = Z V is summed over pixels and lanes for each point, output channel and tap; taps are (in, kernel row). Either each
 * sum stands in a vector for a piece of the band's pixels and its lanes are added then, [point][out][tap]; or, where both
 * directions are transformed and there are EK_LANES output channels or more, Z is turned so that output channels lie along
 * the vectors, and no lanes need be added: [point][tap][out, whole lane rows]. */

/* --- weights: [group][point][out][tap], and transposed [group][point][in][out][kernel row, backwards] */

/* A vector of kernels' floats: element (r, c) of n kernels, `stride` floats apart. */
TEMPLATE vf gather(const float *from, int64_t stride, int n)
{
    float each[VL] = {0};
    for (int l = 0; l < n; l++) each[l] = from[l * stride];
    return load(each);
}

TEMPLATE void scatter(float *to, int64_t stride, int n, vf v)
{
    if (stride == 1) {
        store_n(to, v, n);
        return;
    }
    float each[VL];
    store(each, v);
    for (int l = 0; l < n; l++) to[l * stride] = each[l];
}

TEMPLATE void points_across(const int k, const float *w, int64_t w_stride, int n, float *u, int64_t u_stride, int64_t point)
{
    vf taps[5], points[WINOGRAD_MOST_POINTS];
    UNROLL for (int j = 0; j < k; j++) taps[j] = gather(w + j, w_stride, n);
    weight_points(k, taps, points);
    UNROLL for (int j = 0; j < k + 3; j++) scatter(u + j * point, u_stride, n, points[j]);
}

TEMPLATE void points_both(const float *w, int64_t w_stride, int n, float *u, int64_t u_stride, int64_t point)
{
    vf rows[3][6], taps[3];
    UNROLL for (int r = 0; r < 3; r++) {
        UNROLL for (int c = 0; c < 3; c++) taps[c] = gather(w + r * 3 + c, w_stride, n);
        weight_points(3, taps, rows[r]);
    }
    UNROLL for (int c = 0; c < 6; c++) {
        vf points[6];
        UNROLL for (int r = 0; r < 3; r++) taps[r] = rows[r][c];
        weight_points(3, taps, points);
        UNROLL for (int r = 0; r < 6; r++) scatter(u + (r * 6 + c) * point, u_stride, n, points[r]);
    }
}

/* `count` kernels, or rows of kernels, w_stride apart, into points u_stride apart; points themselves `point` apart. */
static void kernels_to_points(const conv_winograd *s, int count, const float *w, int64_t w_stride, float *u, int64_t u_stride, int64_t point)
{
    for (int i = 0; i < count; i += VL, w += VL * w_stride, u += VL * u_stride) {
        int n = at_most_vl(count - i);
        if (s->points_down > 1) points_both(w, w_stride, n, u, u_stride, point);
        else if (s->points_across == 6) points_across(3, w, w_stride, n, u, u_stride, point);
        else points_across(5, w, w_stride, n, u, u_stride, point);
    }
}

static void winograd_pack(const ek_conv *g, const conv_winograd *s, bool backward, const float *w, float *packed)
{
    int each = s->points_down > 1 ? 9 : g->kw; /* floats that are transformed together */
    int64_t point = (int64_t)s->out * s->in * s->rows;
    for (int group = 0; group < g->groups; group++, w += point * each, packed += point * s->points) {
        if (!backward) kernels_to_points(s, (int)point, w, each, packed, 1, point);
        else
            for (int i = 0; i < s->in; i++)
                for (int r = 0; r < s->rows; r++)
                    kernels_to_points(s, s->out, w + (i * s->rows + r) * each, (int64_t)s->in * s->rows * each,
                                      packed + (int64_t)i * s->out * s->rows + s->rows - 1 - r, s->rows, point);
    }
}

/* --- dU of a band */

/* dU[out][tap] += the sums over `pixels` pixels. */
static void summed_weight_points(const winograd *w, int pixels, const float *v, const float *z, float *du)
{
    const weight_run run = {.height = 1, .width = pixels, .x_pixel = EK_LANES, .dy_map = w->z_map};
    const tap_grid grid = {.rows = w->s.rows, .columns = 1, .channel = w->v_map, .row = w->row};
    weight_gradient(w->s.out, w->s.in * w->s.rows, &grid, &run, v, z, du);
}

/* z [out][pixel][lane] becomes [pixel][lane][out], whole lane rows. */
static void turn(const winograd *w, int pixels, const float *z, float *turned)
{
    int outs = (int)ek_lane_rows((size_t)w->s.out);
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int part = 0; part < EK_LANES; part += VL)
            for (int o = 0; o < outs; o += VL) {
                float *to = turned + (int64_t)(pixel * EK_LANES + part) * outs + o;
                vf v[VL];
                UNROLL for (int l = 0; l < VL; l++)
                    v[l] = o + l < w->s.out ? load(z + (o + l) * w->z_map + pixel * EK_LANES + part) : splat(0.0f);
                transpose(v);
                UNROLL for (int l = 0; l < VL; l++) store(to + (int64_t)l * outs, v[l]);
            }
}

/* Inputs of the register tile. Transforms make rounding errors larger, so sums are kept short: those of the even and of
 * the odd samples of a run, then of runs, then of bands. */
enum { TURNED = VL == 16 ? 8 : 4, RUN = 32 };

/* du[i] += sum over `count` samples, whole lane rows, of v[i][sample] * z[sample]; v lie v_map apart, z and du `outs`. */
TEMPLATE void turned_tile(const int I, int count, const float *v, int64_t v_map, const float *z, int64_t outs, float *du)
{
    vf all[TURNED];
    UNROLL for (int i = 0; i < I; i++) all[i] = splat(0.0f);
    while (count > 0) {
        vf even[TURNED], odd[TURNED];
        UNROLL for (int i = 0; i < I; i++) even[i] = odd[i] = splat(0.0f);
        int run = least(RUN, count);
        count -= run;
        for (; run > 0; run -= 2, v += 2, z += 2 * outs) {
            vf z0 = load(z), z1 = load(z + outs);
            UNROLL for (int i = 0; i < I; i++) even[i] += z0 * v[i * v_map];
            UNROLL for (int i = 0; i < I; i++) odd[i] += z1 * v[i * v_map + 1];
        }
        UNROLL for (int i = 0; i < I; i++) all[i] += even[i] + odd[i];
    }
    UNROLL for (int i = 0; i < I; i++) store(du + i * outs, load(du + i * outs) + all[i]);
}

static void turned_weight_points(const winograd *w, int pixels, const float *v, const float *z, float *du, float *turned)
{
    int outs = (int)ek_lane_rows((size_t)w->s.out), count = pixels * EK_LANES;
    turn(w, pixels, z, turned);
    for (int o = 0; o < outs; o += VL) {
        int i = 0;
        for (; i + TURNED <= w->s.in; i += TURNED)
            turned_tile(TURNED, count, v + i * w->v_map, w->v_map, turned + o, outs, du + (int64_t)i * outs + o);
        for (; i < w->s.in; i++) turned_tile(1, count, v + i * w->v_map, w->v_map, turned + o, outs, du + (int64_t)i * outs + o);
    }
}

/* The band's z begins `before` rows above it. */
static void add_weight_points(const winograd *w, int rows, int before)
{
    const conv_winograd *s = &w->s;
    int64_t outs = s->turned ? (int64_t)ek_lane_rows((size_t)s->out) : s->out, size = outs * s->in * s->rows;
    float *turned = w->weights + ek_lane_rows((size_t)(size * s->points));
    for (int p = 0; p < s->points; p++) {
        const float *v = w->v + p * w->v_point, *z = w->z + p * w->z_point + before * w->row;
        if (s->turned) turned_weight_points(w, rows * s->across, v, z, w->weights + p * size, turned);
        else summed_weight_points(w, rows * s->across, v, z, w->weights + p * size);
    }
}

/* --- dw = G'dU */

TEMPLATE void add_lanes(float *to, int64_t stride, int n, vf v)
{
    float each[VL];
    store(each, v);
    for (int l = 0; l < n; l++) to[l * stride] += each[l];
}

TEMPLATE void weights_across(const int k, const float *u, int64_t point, int n, float *dw, int64_t stride)
{
    vf points[WINOGRAD_MOST_POINTS], taps[5];
    UNROLL for (int j = 0; j < k + 3; j++) points[j] = load_n(u + j * point, n);
    weights_from_points(k, points, taps);
    UNROLL for (int j = 0; j < k; j++) add_lanes(dw + j, stride, n, taps[j]);
}

TEMPLATE void weights_both(const float *u, int64_t point, int n, float *dw, int64_t stride)
{
    vf rows[3][6], points[6], taps[3];
    UNROLL for (int c = 0; c < 6; c++) {
        UNROLL for (int r = 0; r < 6; r++) points[r] = load_n(u + (r * 6 + c) * point, n);
        weights_from_points(3, points, taps);
        UNROLL for (int r = 0; r < 3; r++) rows[r][c] = taps[r];
    }
    UNROLL for (int r = 0; r < 3; r++) {
        weights_from_points(3, rows[r], taps);
        UNROLL for (int c = 0; c < 3; c++) add_lanes(dw + r * 3 + c, stride, n, taps[c]);
    }
}

/* `count` neighbours in u become kernels, or rows of kernels, `stride` apart in dw. */
static void points_to_kernels(const conv_winograd *s, int count, const float *u, int64_t point, float *dw, int64_t stride)
{
    for (int i = 0; i < count; i += VL, u += VL, dw += VL * stride) {
        int n = at_most_vl(count - i);
        if (s->points_down > 1) weights_both(u, point, n, dw, stride);
        else if (s->points_across == 6) weights_across(3, u, point, n, dw, stride);
        else weights_across(5, u, point, n, dw, stride);
    }
}

static void weights_from_band_points(const winograd *w, float *dw)
{
    const conv_winograd *s = &w->s;
    int each = s->points_down > 1 ? 9 : w->k, taps = s->in * s->rows;
    if (!s->turned) {
        points_to_kernels(s, s->out * taps, w->weights, (int64_t)s->out * taps, dw, each);
        return;
    }
    int64_t outs = (int64_t)ek_lane_rows((size_t)s->out);
    for (int i = 0; i < taps; i++)
        points_to_kernels(s, s->out, w->weights + i * outs, outs * taps, dw + (int64_t)i * each, (int64_t)taps * each);
}
