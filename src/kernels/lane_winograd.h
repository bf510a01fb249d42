/* Convolution of one lane block by minimal filtering (conv_plan.h), in bands of rows of tiles. The backward pass is the
 * forward pass transposed step by step, so it has the same tiles, edges and points:
 *
 *   forward    V = B'x    M = sum over channels and kernel rows of U V    y = A'M
 *   backward   Z = A dy   dU = Z V, summed over pixels and lanes    dV = U'Z    dx = B dV    dw = G'dU
 *
 * V, M, Z and dV lie [point][channel][row of tiles][tile][lane], where columns are not transformed with a row for each
 * row of x or y; U [point][out][in][kernel row], and transposed, rows from the last to the first. The tiles of the rows
 * of a point lie together, so that a run of pixels goes on from row to row. */

typedef struct winograd {
    const ek_conv *g;
    conv_winograd s;
    int k;                          /* 3 or 5 */
    int64_t row, line;              /* floats of a row of tiles' points; of a line of pixels */
    int64_t v_map, v_point, z_map, z_point;
    float *lines, *turned;          /* MOST_ROWS lines each */
    float *v, *z, *weights, *carry;
} winograd;

static winograd make_winograd(const ek_conv *g, const conv_winograd *s, float *scratch)
{
    winograd w = {.g = g, .s = *s, .k = g->kw, .row = (int64_t)s->across * EK_LANES, .line = (int64_t)s->line * EK_LANES};
    w.v_map = w.row * (s->band + s->rows - 1);
    w.z_map = w.row * (s->band + s->rows - 1);
    w.v_point = w.v_map * s->in;
    w.z_point = w.z_map * s->out;
    w.lines = scratch;
    w.turned = w.lines + WINOGRAD_MOST_ROWS * w.line;
    w.v = scratch + s->lines;
    w.z = w.v + s->v;
    w.carry = w.z + s->z;
    w.weights = w.carry + s->carry;
    return w;
}

/* --- transforms across a line, and down its columns */

/* From a line to the points of its tiles. */
TEMPLATE void across_source(const int k, int tiles, const float *line, int64_t point, float *v)
{
    for (int i = 0; i < tiles * EK_LANES; i = next_vector(i)) {
        const float *tile = line + i / EK_LANES * WINOGRAD_TILE * EK_LANES + i % EK_LANES;
        vf from[WINOGRAD_MOST_POINTS], to[WINOGRAD_MOST_POINTS];
        UNROLL for (int j = 0; j < k + 3; j++) from[j] = load(tile + j * EK_LANES);
        source_points(k, from, to);
        UNROLL for (int j = 0; j < k + 3; j++) store(v + j * point + i, to[j]);
    }
}

TEMPLATE void across_gradient(const int k, int tiles, const float *line, int64_t point, float *z)
{
    for (int i = 0; i < tiles * EK_LANES; i = next_vector(i)) {
        const float *tile = line + i / EK_LANES * WINOGRAD_TILE * EK_LANES + i % EK_LANES;
        vf from[WINOGRAD_TILE], to[WINOGRAD_MOST_POINTS];
        UNROLL for (int j = 0; j < WINOGRAD_TILE; j++) from[j] = load(tile + j * EK_LANES);
        output_points(k, from, to);
        UNROLL for (int j = 0; j < k + 3; j++) store(z + j * point + i, to[j]);
    }
}

/* From the points of tiles to the line of outputs, + bias. */
TEMPLATE void across_outputs(const int k, int tiles, const float *m, int64_t point, float bias, float *line)
{
    for (int i = 0; i < tiles * EK_LANES; i = next_vector(i)) {
        float *tile = line + i / EK_LANES * WINOGRAD_TILE * EK_LANES + i % EK_LANES;
        vf from[WINOGRAD_MOST_POINTS], to[WINOGRAD_TILE];
        UNROLL for (int j = 0; j < k + 3; j++) from[j] = load(m + j * point + i);
        outputs_from_points(k, from, to);
        UNROLL for (int j = 0; j < WINOGRAD_TILE; j++) store(tile + j * EK_LANES, to[j] + bias);
    }
}

/* From the points of tiles to the line of the source: what tiles overlap in is added. */
TEMPLATE void across_overlapping(const int k, int tiles, const float *v, int64_t point, float *line)
{
    for (int part = 0; part < LANES; part += VL) {
        vf over[WINOGRAD_MOST_POINTS] = {{0}};
        float *to = line + part;
        for (int t = 0; t < tiles; t++, to += WINOGRAD_TILE * EK_LANES) {
            vf from[WINOGRAD_MOST_POINTS], d[WINOGRAD_MOST_POINTS];
            UNROLL for (int j = 0; j < k + 3; j++) from[j] = load(v + j * point + t * EK_LANES + part);
            source_from_points(k, from, d);
            UNROLL for (int j = 0; j < k - 1; j++) d[j] += over[j];
            UNROLL for (int j = 0; j < WINOGRAD_TILE; j++) store(to + j * EK_LANES, d[j]);
            UNROLL for (int j = 0; j < k - 1; j++) over[j] = d[WINOGRAD_TILE + j];
        }
        UNROLL for (int j = 0; j < k - 1; j++) store(to + j * EK_LANES, over[j]);
    }
}

static void source_line_points(const winograd *w, const float *line, float *v)
{
    if (w->k == 3) across_source(3, w->s.across, line, w->v_point, v);
    else across_source(5, w->s.across, line, w->v_point, v);
}

static void gradient_line_points(const winograd *w, const float *line, float *z)
{
    if (w->k == 3) across_gradient(3, w->s.across, line, w->z_point, z);
    else across_gradient(5, w->s.across, line, w->z_point, z);
}

static void output_line(const winograd *w, const float *m, int tiles, float bias, float *line)
{
    if (w->k == 3) across_outputs(3, tiles, m, w->z_point, bias, line);
    else across_outputs(5, tiles, m, w->z_point, bias, line);
}

static void overlapping_line(const winograd *w, const float *v, float *line)
{
    if (w->k == 3) across_overlapping(3, w->s.across, v, w->v_point, line);
    else across_overlapping(5, w->s.across, v, w->v_point, line);
}

/* Down the columns of six lines of the source, into six of points, `step` apart. */
static void down_source(const float *const lines[], int64_t count, float *to, int64_t step)
{
    for (int64_t i = 0; i < count; i = next_vector(i)) {
        vf from[6], points[6];
        UNROLL for (int j = 0; j < 6; j++) from[j] = load(lines[j] + i);
        source_points(3, from, points);
        UNROLL for (int j = 0; j < 6; j++) store(to + j * step + i, points[j]);
    }
}

static void down_gradient(const float *const lines[], int64_t count, float *to, int64_t step)
{
    for (int64_t i = 0; i < count; i = next_vector(i)) {
        vf from[WINOGRAD_TILE], points[6];
        UNROLL for (int j = 0; j < WINOGRAD_TILE; j++) from[j] = load(lines[j] + i);
        output_points(3, from, points);
        UNROLL for (int j = 0; j < 6; j++) store(to + j * step + i, points[j]);
    }
}

/* The first `rows` lines of outputs alone, + bias. */
static void down_outputs(const float *from, int64_t step, int64_t count, float bias, int rows, float *y, int64_t y_row)
{
    for (int64_t i = 0; i < count; i = next_vector(i)) {
        vf points[6], to[WINOGRAD_TILE];
        UNROLL for (int j = 0; j < 6; j++) points[j] = load(from + j * step + i);
        outputs_from_points(3, points, to);
        UNROLL for (int j = 0; j < WINOGRAD_TILE; j++)
            if (j < rows) store(y + j * y_row + i, to[j] + bias);
    }
}

/* Six lines of points become six of the source. What the tiles above left in the two lines of `carry` is added to the first
 * two, the last two are left there. */
static void down_overlapping(float *lines, int64_t step, int64_t count, float *carry)
{
    for (int64_t i = 0; i < count; i = next_vector(i)) {
        vf points[6], d[6];
        UNROLL for (int j = 0; j < 6; j++) points[j] = load(lines + j * step + i);
        source_from_points(3, points, d);
        store(lines + i, d[0] + load(carry + i));
        store(lines + step + i, d[1] + load(carry + step + i));
        store(lines + 2 * step + i, d[2]);
        store(lines + 3 * step + i, d[3]);
        store(carry + i, d[4]);
        store(carry + step + i, d[5]);
    }
}

/* --- V = B'x and Z = A dy of a band */

/* Row r of channel c of a map of height x width, with zeros around, from `before` pixels before its start on, `pixels` long:
 * the block itself where that is the same. */
static const float *line_of(const row_source *from, int c, int r, int height, int width, int before, int pixels, float *room)
{
    int64_t count = (int64_t)width * EK_LANES, at = ((int64_t)c * height + r) * count;
    if (r < 0 || r >= height) {
        memset(room, 0, (size_t)pixels * EK_LANES * sizeof *room);
        return room;
    }
    if (pixels == width && as_it_is(from)) return as_it_is(from) + at;
    memset(room, 0, (size_t)before * EK_LANES * sizeof *room);
    read_row(from, c, at, count, room + (size_t)before * EK_LANES);
    memset(room + (size_t)(before + width) * EK_LANES, 0, (size_t)(pixels - before - width) * EK_LANES * sizeof *room);
    return room;
}

static const float *source_line(const winograd *w, const ek_map_in *x, int c, int r, float *room)
{
    const row_source from = {.map = x};
    return line_of(&from, c, r - w->g->pad_h, w->g->hi, w->g->wi, w->g->pad_w, w->s.line, room);
}

static const float *gradient_line(const winograd *w, const ek_grad_in *dy, int c, int r, float *room)
{
    const row_source from = {.gradient = dy};
    return line_of(&from, c, r, w->g->ho, w->g->wo, 0, w->s.across * WINOGRAD_TILE, room);
}

/* One channel; both directions. Rows that two tiles read are read once. */
static void source_tiles(const winograd *w, const ek_map_in *x, int c, int first, int rows, float *v)
{
    const float *ring[6], *lines[6];
    for (int t = first, next = first * WINOGRAD_TILE; t < first + rows; t++, v += w->row) {
        for (; next < t * WINOGRAD_TILE + 6; next++) ring[next % 6] = source_line(w, x, c, next, w->lines + next % 6 * w->line);
        for (int j = 0; j < 6; j++) lines[j] = ring[(t * WINOGRAD_TILE + j) % 6];
        down_source(lines, w->line, w->turned, w->line);
        for (int j = 0; j < 6; j++) source_line_points(w, w->turned + j * w->line, v + j * 6 * w->v_point);
    }
}

static void source_band(const winograd *w, const ek_map_in *x, int channel, int first, int rows)
{
    for (int i = 0; i < w->s.in; i++) {
        float *v = w->v + i * w->v_map;
        if (w->s.points_down > 1) source_tiles(w, x, channel + i, first, rows, v);
        else
            for (int r = first; r < first + rows + w->s.rows - 1; r++, v += w->row)
                source_line_points(w, source_line(w, x, channel + i, r, w->lines), v);
    }
}

static void gradient_tiles(const winograd *w, const ek_grad_in *dy, int c, int first, int rows, float *z)
{
    const float *lines[WINOGRAD_TILE];
    for (int t = first; t < first + rows; t++, z += w->row) {
        for (int j = 0; j < WINOGRAD_TILE; j++) lines[j] = gradient_line(w, dy, c, t * WINOGRAD_TILE + j, w->lines + j * w->line);
        down_gradient(lines, (int64_t)w->s.across * WINOGRAD_TILE * EK_LANES, w->turned, w->line);
        for (int j = 0; j < 6; j++) gradient_line_points(w, w->turned + j * w->line, z + j * 6 * w->z_point);
    }
}

static void gradient_band(const winograd *w, const ek_grad_in *dy, int channel, int first, int rows)
{
    for (int o = 0; o < w->s.out; o++) {
        float *z = w->z + o * w->z_map;
        if (w->s.points_down > 1) gradient_tiles(w, dy, channel + o, first, rows, z);
        else
            for (int r = first; r < first + rows; r++, z += w->row)
                gradient_line_points(w, gradient_line(w, dy, channel + o, r, w->lines), z);
    }
}

/* --- the products */

/* A sum over channels and kernel rows, w's `taps` rows a channel; what has one row a channel runs over channels inmost. */
static conv_run sum_of_points(const winograd *w, int channels, int taps, int64_t x_map, int64_t y_map)
{
    conv_run run = {.channels = 1, .x_pixel = EK_LANES, .w_out = (int64_t)channels * w->s.rows, .y_channel = y_map, .y_pixel = EK_LANES};
    if (w->s.rows == 1) {
        run.rows = 1;
        run.columns = channels;
        run.x_column = x_map;
        run.w_column = 1;
    } else {
        run.rows = channels;
        run.columns = taps;
        run.x_row = x_map;
        run.x_column = w->row;
        run.w_row = w->s.rows;
        run.w_column = 1;
    }
    return run;
}

/* M = sum of U V. */
static void multiply_forward(const winograd *w, int rows, const float *u)
{
    const conv_winograd *s = &w->s;
    conv_run run = sum_of_points(w, s->in, s->rows, w->v_map, w->z_map);
    run.pixels = rows * s->across;
    for (int p = 0; p < s->points; p++)
        conv_outputs(s->out, &run, w->v + p * w->v_point, u + (int64_t)p * s->out * s->in * s->rows, NULL, w->z + p * w->z_point);
}

/* dV = sum of U'Z, rows [0, rows) of the band's; its z begins `before` rows above the band, and has z_rows. Rows outside of z
 * are left out; rows that meet the same ones go together. */
static void multiply_backward(const winograd *w, int rows, int before, int z_rows, const float *u)
{
    const conv_winograd *s = &w->s;
    int64_t u_point = (int64_t)s->in * s->out * s->rows;
    for (int r = 0, same; r < rows; r += same) {
        int top = r + before - (s->rows - 1); /* the row of z that the first tap meets */
        int skip = top < 0 ? -top : 0, end = least(s->rows, z_rows - top);
        same = skip > 0 || end < s->rows ? 1 : least(rows - r, z_rows - s->rows - top + 1);
        conv_run run = sum_of_points(w, s->out, end - skip, w->z_map, w->v_map);
        run.pixels = same * s->across;
        for (int p = 0; p < s->points; p++)
            conv_outputs(s->in, &run, w->z + p * w->z_point + (top + skip) * w->row, u + p * u_point + skip, NULL,
                         w->v + p * w->v_point + r * w->row);
    }
}

/* --- y = A'M */

/* Rows of tiles [0, rows) of one channel, into its map from row `first` on; there are `lines` lines left. */
static void output_tiles(const winograd *w, const float *m, int rows, int lines, float bias, float *y)
{
    int64_t y_row = (int64_t)w->g->wo * EK_LANES;
    for (int t = 0; t < rows; t++, m += w->row, y += WINOGRAD_TILE * y_row, lines -= WINOGRAD_TILE) {
        for (int j = 0; j < 6; j++) output_line(w, m + j * 6 * w->z_point, w->s.across, 0.0f, w->turned + j * w->line);
        down_outputs(w->turned, w->line, y_row, bias, least(lines, WINOGRAD_TILE), y, y_row);
    }
}

/* A last tile that reaches beyond the row goes by way of scratch. */
static void output_row(const winograd *w, const float *m, float bias, float *y)
{
    int whole = w->g->wo / WINOGRAD_TILE, left = w->g->wo % WINOGRAD_TILE;
    output_line(w, m, whole, bias, y);
    if (left == 0) return;
    output_line(w, m + whole * EK_LANES, 1, bias, w->lines);
    memcpy(y + (int64_t)whole * WINOGRAD_TILE * EK_LANES, w->lines, (size_t)left * EK_LANES * sizeof *y);
}

/* `live` lanes' moments of `count` floats more of a channel. */
static void more_moments(ek_moments *all, int live, const float *rows, int64_t count)
{
    ek_slab slab = {1, count, 1, 0, live};
    lane_moments m = {.shift = (float)all->mean, .shifted = all->count > 0};
    add_moments(&m, live, rows, count);
    ek_moments_merge(all, end_moments(&slab, rows, &m));
}

static void output_band(const winograd *w, int channel, int first, int rows, const float *bias, float *y, int live, ek_moments *moments_out)
{
    int64_t y_row = (int64_t)w->g->wo * EK_LANES;
    int top = first * w->s.tile_rows, lines = least(rows * w->s.tile_rows, w->g->ho - top);
    for (int c = channel; c < channel + w->s.out; c++) {
        const float *m = w->z + (c - channel) * w->z_map;
        float *to = y + ((int64_t)c * w->g->ho + top) * y_row, add = bias ? bias[c] : 0.0f;
        if (w->s.points_down > 1) output_tiles(w, m, rows, lines, add, to);
        else
            for (int r = 0; r < rows; r++) output_row(w, m + r * w->row, add, to + r * y_row);
        if (moments_out) more_moments(&moments_out[c], live, to, lines * y_row);
    }
}

/* --- dx = B dV */

/* Row r of what the tiles cover, if it is inside of x. */
static void write_source_row(const winograd *w, const ek_grad_out *dx, int c, int r, const float *line, lane_sums *sums)
{
    int64_t row = (int64_t)w->g->wi * EK_LANES;
    r -= w->g->pad_h;
    if (r >= 0 && r < w->g->hi)
        write_gradient(dx, c, ((int64_t)c * w->g->hi + r) * row, row, line + (int64_t)w->g->pad_w * EK_LANES, sums);
}

static void overlapping_tiles(const winograd *w, const ek_grad_out *dx, int c, int first, int rows, const float *v, float *carry, lane_sums *sums)
{
    for (int t = first; t < first + rows; t++, v += w->row) {
        for (int j = 0; j < 6; j++) overlapping_line(w, v + j * 6 * w->v_point, w->turned + j * w->line);
        down_overlapping(w->turned, w->line, w->line, carry);
        for (int j = 0; j < WINOGRAD_TILE; j++) write_source_row(w, dx, c, t * WINOGRAD_TILE + j, w->turned + j * w->line, sums);
    }
    if (first + rows < w->s.down) return;
    for (int j = 0; j < 2; j++) write_source_row(w, dx, c, w->s.down * WINOGRAD_TILE + j, carry + j * w->line, sums);
}

static void source_gradient_band(const winograd *w, const ek_grad_out *dx, int channel, int first, int rows)
{
    for (int i = 0; i < w->s.in; i++) {
        lane_sums room, *sums = begin_sums(dx, &room);
        const float *v = w->v + i * w->v_map;
        if (w->s.points_down > 1) overlapping_tiles(w, dx, channel + i, first, rows, v, w->carry + 2 * i * w->line, sums);
        else
            for (int r = 0; r < rows; r++) {
                overlapping_line(w, v + r * w->row, w->lines);
                write_source_row(w, dx, channel + i, first + r, w->lines, sums);
            }
        add_sums(dx, channel + i, sums);
    }
}
