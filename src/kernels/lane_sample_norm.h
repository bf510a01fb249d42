/* Normalization of each sample by itself. A lane is a sample, so its sums need none across lanes; only the gradients of
 * gains and offsets do. Floats are added over SPAN rows, and these sums in double. */

enum {
    SPAN = ROW / EK_LANES,
    SIDE = VL / 4, /* rows beside each other, so that an addition need not wait for the one before */
};

/* A vector for each part of a lane row. */
typedef struct lane_row {
    vf part[PARTS];
} lane_row;

TEMPLATE lane_row load_row(const float *p)
{
    lane_row row;
    UNROLL for (int k = 0; k < PARTS; k++) row.part[k] = load(p + k * VL);
    return row;
}

/* How many rows of a channel are alive in each lane. */
typedef struct row_limits {
    vi part[PARTS];
} row_limits;

static bool has_dead(const ek_sample_slab *s) { return s->length || s->live < EK_LANES; }

static row_limits limits_of(const ek_sample_slab *s)
{
    int32_t limit[EK_LANES];
    row_limits limits;
    for (int lane = 0; lane < EK_LANES; lane++) limit[lane] = (int32_t)ek_sample_rows(s, lane);
    UNROLL for (int p = 0; p < PARTS; p++) limits.part[p] = *(const vi_memory *)(limit + p * VL);
    return limits;
}

/* v, or 0 where its row is dead; what stands there may be anything. */
TEMPLATE vf keep_alive(const bool masked, const row_limits *limits, int p, int64_t row, vf v)
{
    return masked ? keep(limits->part[p] > (int32_t)row, v) : v;
}

/* Where channels need not be told apart, they make one long run; where they have one row, it is as good as they. */
static ek_sample_slab joined(const ek_sample_slab *s, bool has_gains)
{
    ek_sample_slab j = *s;
    if (s->rows == 1) j.row_gains = true;
    if (!s->length && (!has_gains || j.row_gains)) {
        j.rows *= j.channels;
        j.channels = 1;
    }
    return j;
}

static int64_t at_most_span(int64_t rows) { return rows < SPAN ? rows : SPAN; }

/* --- moments */

/* About a shift near each lane's mean, so that little cancels. */
typedef struct sample_sums {
    double sum[EK_LANES], squares[EK_LANES];
} sample_sums;

/* Sums of x - shift and of its squares over up to SPAN rows, the first of which is row `first` of its channel. */
TEMPLATE void deviations(const bool masked, const row_limits *limits, int64_t first, int64_t rows, const float *x, const lane_row *shift, lane_row *sum, lane_row *squares)
{
    vf s[SIDE][PARTS] = {{{0}}}, q[SIDE][PARTS] = {{{0}}};
    int64_t r = 0;
    for (; r + SIDE <= rows; r += SIDE)
        UNROLL for (int k = 0; k < SIDE; k++)
            UNROLL for (int p = 0; p < PARTS; p++) {
                vf d = load(x + (r + k) * EK_LANES + p * VL) - shift->part[p];
                d = keep_alive(masked, limits, p, first + r + k, d);
                s[k][p] += d;
                q[k][p] += d * d;
            }
    for (; r < rows; r++)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vf d = load(x + r * EK_LANES + p * VL) - shift->part[p];
            d = keep_alive(masked, limits, p, first + r, d);
            s[0][p] += d;
            q[0][p] += d * d;
        }
    UNROLL for (int k = 1; k < SIDE; k++)
        UNROLL for (int p = 0; p < PARTS; p++) {
            s[0][p] += s[k][p];
            q[0][p] += q[k][p];
        }
    UNROLL for (int p = 0; p < PARTS; p++) {
        sum->part[p] = s[0][p];
        squares->part[p] = q[0][p];
    }
}

static void span_deviations(const ek_sample_slab *s, const row_limits *limits, int64_t first, int64_t rows, const float *x, const lane_row *shift, lane_row *sum, lane_row *squares)
{
    if (has_dead(s)) deviations(true, limits, first, rows, x, shift, sum, squares);
    else deviations(false, limits, first, rows, x, shift, sum, squares);
}

/* The mean of the first rows: a lane that has rows at all has the first. */
static lane_row first_mean(const ek_sample_slab *s, const row_limits *limits, const float *x)
{
    int64_t rows = at_most_span(s->rows);
    lane_row mean = {{{0}}}, squares;
    span_deviations(s, limits, 0, rows, x, &mean, &mean, &squares);
    float inverse[EK_LANES];
    for (int lane = 0; lane < EK_LANES; lane++) {
        int64_t alive = ek_sample_rows(s, lane) < rows ? ek_sample_rows(s, lane) : rows;
        inverse[lane] = alive > 0 ? 1 / (float)alive : 0;
    }
    UNROLL for (int p = 0; p < PARTS; p++) mean.part[p] *= load(inverse + p * VL);
    return mean;
}

static void group_sums(const ek_sample_slab *s, const row_limits *limits, const float *x, const lane_row *shift, sample_sums *sums)
{
    memset(sums, 0, sizeof *sums);
    for (int64_t c = 0; c < s->channels; c++, x += s->rows * EK_LANES)
        for (int64_t r = 0; r < s->rows; r += SPAN) {
            lane_row sum, squares;
            span_deviations(s, limits, r, at_most_span(s->rows - r), x + r * EK_LANES, shift, &sum, &squares);
            UNROLL for (int p = 0; p < PARTS; p++) {
                add_in_double(sums->sum + p * VL, sum.part[p]);
                add_in_double(sums->squares + p * VL, squares.part[p]);
            }
        }
}

/* Whether each lane's shift was near enough to its mean, as well_shifted() asks; if not, *shift becomes the means. */
static bool shifted_sample_moments(const ek_sample_slab *s, const sample_sums *sums, lane_row *shift, ek_sample_moments *out)
{
    float center[EK_LANES] = {0};
    bool well = true;
    memcpy(center, shift, sizeof *shift);
    for (int lane = 0; lane < LANES; lane++) {
        double count = (double)(s->channels * ek_sample_rows(s, lane)), off = count > 0 ? sums->sum[lane] / count : 0;
        double m2 = sums->squares[lane] - sums->sum[lane] * off;
        out->count[lane] = count;
        out->mean[lane] = count > 0 ? center[lane] + off : 0;
        out->m2[lane] = m2 < 0 ? 0 : m2;
        well &= !(off * off * count > 16 * m2);
        center[lane] = (float)out->mean[lane];
    }
    memcpy(shift, center, sizeof *shift);
    return well;
}

/* Of one number a lane. */
static void single_moments(const ek_sample_slab *s, const float *x, ek_sample_moments *out)
{
    for (int64_t g = 0; g < s->groups; g++, x += EK_LANES)
        for (int lane = 0; lane < LANES; lane++) {
            bool alive = ek_sample_rows(s, lane) > 0;
            out[g].count[lane] = alive;
            out[g].mean[lane] = alive ? x[lane] : 0;
            out[g].m2[lane] = alive ? 0 * x[lane] : 0; /* a NaN stays */
        }
}

static void sample_moments(const ek_sample_slab *slab, const float *x, ek_sample_moments *out)
{
    ek_sample_slab s = joined(slab, false);
    row_limits limits = limits_of(&s);
    memset(out, 0, (size_t)s.groups * sizeof *out);
    if (s.channels * s.rows == 1) {
        single_moments(&s, x, out);
        return;
    }
    for (int64_t g = 0; g < s.groups; g++, x += s.channels * s.rows * EK_LANES) {
        sample_sums sums;
        lane_row shift = first_mean(&s, &limits, x);
        group_sums(&s, &limits, x, &shift, &sums);
        if (shifted_sample_moments(&s, &sums, &shift, &out[g])) continue;
        group_sums(&s, &limits, x, &shift, &sums);
        shifted_sample_moments(&s, &sums, &shift, &out[g]);
    }
}

/* --- the passes */

/* y, or dx, of a channel's rows. Gains by channel are in the terms already: `gain` and `offset` are the rows'. */
typedef struct channel_terms {
    lane_row mean, a, b, slope, constant;
    const float *gain, *offset;
} channel_terms;

TEMPLATE vf passed(const bool backward, const bool row_gains, const channel_terms *t, int p, float gain, float offset, vf x, vf dy)
{
    vf centred = x - t->mean.part[p];
    if (backward) {
        vf h = row_gains ? dy * gain : dy;
        return h * t->a.part[p] + (centred * t->slope.part[p] + t->constant.part[p]);
    }
    vf xhat = centred * t->a.part[p] + t->b.part[p];
    return row_gains ? xhat * gain + offset : xhat;
}

TEMPLATE void pass_rows(const bool backward, const bool masked, const bool row_gains, const row_limits *limits, const channel_terms *terms, int64_t rows, const float *x, const float *dy, float *to)
{
    channel_terms t = *terms; /* in registers: `to` may point anywhere */
    for (int64_t r = 0; r < rows; r++) {
        float gain = row_gains && t.gain ? t.gain[r] : 1, offset = row_gains && t.offset ? t.offset[r] : 0;
        UNROLL for (int p = 0; p < PARTS; p++) {
            int64_t i = r * EK_LANES + p * VL;
            vf v = passed(backward, row_gains, &t, p, gain, offset, load(x + i), backward ? load(dy + i) : splat(0.0f));
            store(to + i, keep_alive(masked, limits, p, r, v));
        }
    }
}

TEMPLATE void pass_channel(const bool backward, const ek_sample_slab *s, bool row_gains, const row_limits *limits, const channel_terms *t, const float *x, const float *dy, float *to)
{
    if (has_dead(s)) {
        if (row_gains) pass_rows(backward, true, true, limits, t, s->rows, x, dy, to);
        else pass_rows(backward, true, false, limits, t, s->rows, x, dy, to);
    } else {
        if (row_gains) pass_rows(backward, false, true, limits, t, s->rows, x, dy, to);
        else pass_rows(backward, false, false, limits, t, s->rows, x, dy, to);
    }
}

TEMPLATE channel_terms group_terms(const bool backward, const ek_sample_terms *t, int64_t group)
{
    int64_t at = group * EK_LANES;
    channel_terms terms = {.mean = load_row(t->mean + at), .a = load_row(t->a + at)};
    if (backward) {
        terms.slope = load_row(t->slope + at);
        terms.constant = load_row(t->constant + at);
    } else {
        terms.b = load_row(t->b + at);
    }
    return terms;
}

/* The gains of channel c are taken into its terms. */
TEMPLATE channel_terms scaled_terms(const channel_terms *of_group, const ek_sample_terms *t, int64_t c)
{
    channel_terms terms = *of_group;
    float gain = t->gain ? t->gain[c] : 1, offset = t->offset ? t->offset[c] : 0;
    UNROLL for (int p = 0; p < PARTS; p++) {
        terms.a.part[p] *= gain;
        terms.b.part[p] = terms.b.part[p] * gain + offset;
    }
    return terms;
}

TEMPLATE void pass_block(const bool backward, const ek_sample_slab *slab, const ek_sample_terms *t, const float *x, const float *dy, float *to)
{
    bool has_gains = t->gain || t->offset;
    ek_sample_slab s = joined(slab, has_gains);
    bool row_gains = has_gains && s.row_gains;
    row_limits limits = limits_of(&s);
    for (int64_t g = 0, c = 0; g < s.groups; g++) {
        channel_terms of_group = group_terms(backward, t, g);
        for (int64_t end = c + s.channels; c < end; c++) {
            int64_t at = c * s.rows * EK_LANES;
            channel_terms terms = row_gains ? of_group : scaled_terms(&of_group, t, has_gains ? c : 0);
            if (row_gains && t->gain) terms.gain = t->gain + c * s.rows;
            if (row_gains && t->offset) terms.offset = t->offset + c * s.rows;
            pass_channel(backward, &s, row_gains, &limits, &terms, x + at, backward ? dy + at : NULL, to + at);
        }
    }
}

static void sample_apply(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, float *y) { pass_block(false, s, t, x, NULL, y); }

static void sample_backward_apply(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, const float *dy, float *dx)
{
    pass_block(true, s, t, x, dy, dx);
}

/* --- sums of the backward pass */

static void add_lane_sums(lane_sums *sums, const lane_row *sum, const lane_row *product)
{
    UNROLL for (int p = 0; p < PARTS; p++) {
        add_in_double(sums->g + p * VL, sum->part[p]);
        add_in_double(sums->gx + p * VL, product->part[p]);
    }
}

TEMPLATE void add_row_gradients(const bool masked, const row_limits *limits, int64_t row, const float *x, const float *dy, const lane_row *mean, lane_row *sum, lane_row *product)
{
    UNROLL for (int p = 0; p < PARTS; p++) {
        vf g = keep_alive(masked, limits, p, row, load(dy + p * VL));
        sum->part[p] += g;
        product->part[p] += g * keep_alive(masked, limits, p, row, load(x + p * VL) - mean->part[p]);
    }
}

/* Of dy and of dy*(x - mean), over up to SPAN rows. */
TEMPLATE void span_gradients(const bool masked, const row_limits *limits, int64_t first, int64_t rows, const float *x, const float *dy, const lane_row *mean, lane_sums *sums)
{
    lane_row sum[SIDE] = {{{{0}}}}, product[SIDE] = {{{{0}}}};
    int64_t r = 0;
    for (; r + SIDE <= rows; r += SIDE)
        UNROLL for (int k = 0; k < SIDE; k++) add_row_gradients(masked, limits, first + r + k, x + (r + k) * EK_LANES, dy + (r + k) * EK_LANES, mean, &sum[k], &product[k]);
    for (; r < rows; r++) add_row_gradients(masked, limits, first + r, x + r * EK_LANES, dy + r * EK_LANES, mean, &sum[0], &product[0]);
    UNROLL for (int k = 1; k < SIDE; k++)
        UNROLL for (int p = 0; p < PARTS; p++) {
            sum[0].part[p] += sum[k].part[p];
            product[0].part[p] += product[k].part[p];
        }
    add_lane_sums(sums, &sum[0], &product[0]);
}

static void channel_gradients(const ek_sample_slab *s, const row_limits *limits, const float *x, const float *dy, const lane_row *mean, lane_sums *sums)
{
    memset(sums, 0, sizeof *sums);
    for (int64_t r = 0; r < s->rows; r += SPAN) {
        int64_t at = r * EK_LANES, rows = at_most_span(s->rows - r);
        if (has_dead(s)) span_gradients(true, limits, r, rows, x + at, dy + at, mean, sums);
        else span_gradients(false, limits, r, rows, x + at, dy + at, mean, sums);
    }
}

/* Adds a channel's to those of its group, and to the gradients of its gain and offset. */
static void add_channel_gradients(const lane_sums *of, float gain, const float *a, const float *b, double *sums, float *dgain, float *doffset)
{
    double gxhat[EK_LANES] = {0};
    for (int lane = 0; lane < LANES; lane++) {
        sums[lane] += gain * of->g[lane];
        sums[EK_LANES + lane] += gain * of->gx[lane];
    }
    for (int lane = 0; dgain && lane < LANES; lane++) gxhat[lane] = a[lane] * of->gx[lane] + b[lane] * of->g[lane];
    if (dgain) *dgain += (float)sum_doubles(gxhat);
    if (doffset) *doffset += (float)sum_doubles(of->g);
}

/* Of one number a lane; the sums are 0 before. */
static void single_gradients(const ek_sample_slab *s, const ek_sample_terms *t, const float *x, const float *dy, double *sums)
{
    for (int64_t g = 0; g < s->groups; g++, sums += 2 * EK_LANES)
        for (int lane = 0; lane < LANES; lane++) {
            int64_t at = g * EK_LANES + lane;
            if (ek_sample_rows(s, lane) == 0) continue;
            sums[lane] = (double)(t->gain ? t->gain[g] : 1) * dy[at];
            sums[EK_LANES + lane] = sums[lane] * (x[at] - t->mean[at]);
        }
}

/* The same by rows, VL of which are summed over their lanes together. */
TEMPLATE void row_gradients(const bool masked, const bool whole, const row_limits *limits, int64_t first, int rows, const channel_terms *t, const float *x, const float *dy, lane_sums *sums, float *dgain, float *doffset)
{
    vf of_g[VL] = {{0}}, of_gxhat[VL] = {{0}};
    lane_row sum = {{{0}}}, product = {{{0}}};
    if (whole) rows = VL;
    for (int r = 0; r < rows; r++) {
        float gain = t->gain ? t->gain[first + r] : 1;
        vf g_all = {0}, gxhat_all = {0};
        UNROLL for (int p = 0; p < PARTS; p++) {
            int64_t i = r * EK_LANES + p * VL;
            vf g = keep_alive(masked, limits, p, first + r, load(dy + i));
            vf centred = keep_alive(masked, limits, p, first + r, load(x + i) - t->mean.part[p]);
            vf h = g * gain;
            sum.part[p] += h;
            product.part[p] += h * centred;
            g_all += g;
            gxhat_all += g * (centred * t->a.part[p] + t->b.part[p]);
        }
        of_g[r] = g_all;
        of_gxhat[r] = gxhat_all;
    }
    add_lane_sums(sums, &sum, &product);
    if (dgain) store_n(dgain + first, load_n(dgain + first, rows) + sum_each(of_gxhat), rows);
    if (doffset) store_n(doffset + first, load_n(doffset + first, rows) + sum_each(of_g), rows);
}

static void rows_gradients(const ek_sample_slab *s, const row_limits *limits, const channel_terms *t, const float *x, const float *dy, lane_sums *sums, float *dgain, float *doffset)
{
    for (int64_t r = 0; r < s->rows; r += VL) {
        int64_t at = r * EK_LANES;
        int rows = at_most_vl(s->rows - r);
        if (has_dead(s)) row_gradients(true, false, limits, r, rows, t, x + at, dy + at, sums, dgain, doffset);
        else if (rows == VL) row_gradients(false, true, limits, r, rows, t, x + at, dy + at, sums, dgain, doffset);
        else row_gradients(false, false, limits, r, rows, t, x + at, dy + at, sums, dgain, doffset);
    }
}

static void sample_backward_sums(const ek_sample_slab *slab, const ek_sample_terms *t, const float *x, const float *dy, double *sums, float *dgain, float *doffset)
{
    bool has_gains = t->gain || dgain || doffset;
    ek_sample_slab s = joined(slab, has_gains);
    row_limits limits = limits_of(&s);
    memset(sums, 0, (size_t)s.groups * 2 * EK_LANES * sizeof *sums);
    if (s.channels * s.rows == 1 && !dgain && !doffset) {
        single_gradients(&s, t, x, dy, sums);
        return;
    }
    for (int64_t g = 0, c = 0; g < s.groups; g++, sums += 2 * EK_LANES) {
        channel_terms terms = group_terms(false, t, g);
        for (int64_t end = c + s.channels; c < end; c++) {
            int64_t at = c * s.rows * EK_LANES, row = c * s.rows;
            lane_sums of = {{0}, {0}};
            if (has_gains && s.row_gains) {
                terms.gain = t->gain ? t->gain + row : NULL;
                rows_gradients(&s, &limits, &terms, x + at, dy + at, &of, dgain ? dgain + row : NULL, doffset ? doffset + row : NULL);
                add_channel_gradients(&of, 1, t->a + g * EK_LANES, t->b + g * EK_LANES, sums, NULL, NULL);
            } else {
                channel_gradients(&s, &limits, x + at, dy + at, &terms.mean, &of);
                add_channel_gradients(&of, t->gain ? t->gain[c] : 1, t->a + g * EK_LANES, t->b + g * EK_LANES, sums,
                                      dgain ? dgain + c : NULL, doffset ? doffset + c : NULL);
            }
        }
    }
}
