/*
 * The passes of batch normalization over the thread pool.
 *
 * A view is a matrix of rows and channels, each entry a run of floats: a row is a sample, or a block of
 * EK_LANES samples. It is cut into pieces of about PIECE floats by the view's shape alone; each piece
 * leaves its part of the sums, and the parts are merged in a fixed order: so the bits do not depend on the
 * number of threads.
 *
 * Where the runs are short (plain rows with few positions) a run does not fill a vector. Then each
 * position counts as a channel of its own, a column, until its part is merged: the loop goes down the
 * columns, with the vector across them.
 */
#include "norm/batch_norm.h"

#include <math.h>

enum {
    PIECE = 1 << 14,      /* floats: both x and dy of a piece fit in the second cache */
    SHORT_RUN = EK_LANES, /* plain runs up to here go by columns */
};

typedef struct norm_cut {
    int64_t rows; /* of the matrix; full_rows of them have no dead lane */
    int64_t full_rows;
    int live;         /* lanes of the row after the full ones */
    int64_t channels; /* c, or c*s by columns */
    int64_t length;   /* floats of a run, 1 by columns */
    bool columns;
    int64_t group; /* columns that make one channel of the view; 1 otherwise */

    int64_t piece_rows, piece_length, piece_channels;
    int64_t row_pieces, length_pieces, channel_pieces;
} norm_cut;

static int64_t pieces_of(int64_t total, int64_t each) { return (total + each - 1) / each; }
static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t at_least_1(int64_t a) { return a > 1 ? a : 1; }

static norm_cut cut_view(ek_norm_view view)
{
    /* With one channel all values stand in one run. */
    if (!view.lanes && view.c == 1) view = (ek_norm_view){1, 1, view.n * view.s, false};

    norm_cut cut = {.columns = !view.lanes && view.c > 1 && view.s <= SHORT_RUN};
    cut.rows = view.lanes ? ek_blocks(view.n) : view.n;
    cut.full_rows = view.lanes ? view.n / EK_LANES : view.n;
    cut.live = (int)(view.lanes ? view.n % EK_LANES : 0);
    cut.group = cut.columns ? view.s : 1;
    cut.channels = view.c * cut.group;
    cut.length = cut.columns ? 1 : view.s * (view.lanes ? EK_LANES : 1);

    cut.piece_length = min(cut.length, PIECE);
    if (cut.columns) {
        cut.piece_channels = min(cut.channels, PIECE / 16);
        cut.piece_rows = min(at_least_1(PIECE / cut.piece_channels), cut.rows);
    } else {
        cut.piece_rows = min(at_least_1(PIECE / cut.length), cut.rows);
        cut.piece_channels = min(at_least_1(PIECE / (cut.piece_rows * cut.piece_length)), cut.channels);
    }
    cut.row_pieces = pieces_of(cut.full_rows, cut.piece_rows) + (cut.live > 0);
    cut.length_pieces = pieces_of(cut.length, cut.piece_length);
    cut.channel_pieces = pieces_of(cut.channels, cut.piece_channels);
    return cut;
}

/* Parts that each channel of the cut has, and parts in all: part p of channel ch is [p][ch]. */
static int64_t parts_each(const norm_cut *cut) { return cut->row_pieces * cut->length_pieces; }
static int64_t parts_all(const norm_cut *cut) { return parts_each(cut) * cut->channels; }
static int64_t pieces_all(const norm_cut *cut) { return parts_each(cut) * cut->channel_pieces; }

/* One piece: channels [channel, channel_end) of `rows` rows, `length` floats of each run. */
typedef struct norm_piece {
    int64_t rows, length, stride, channel, channel_end;
    int64_t part;   /* index of its first channel's part */
    int64_t offset; /* of its first float */
    int live;
} norm_piece;

static norm_piece piece_at(const norm_cut *cut, int64_t index)
{
    int64_t channel_piece = index % cut->channel_pieces;
    int64_t part = index / cut->channel_pieces;
    int64_t row = part / cut->length_pieces * cut->piece_rows;
    int64_t start = part % cut->length_pieces * cut->piece_length;

    norm_piece piece = {.stride = cut->channels * cut->length, .live = EK_LANES};
    if (part / cut->length_pieces == pieces_of(cut->full_rows, cut->piece_rows)) {
        row = cut->full_rows; /* the row with dead lanes is a piece of its own */
        piece.rows = 1;
        piece.live = cut->live;
    } else {
        piece.rows = min(cut->piece_rows, cut->full_rows - row);
    }
    piece.length = min(cut->piece_length, cut->length - start);
    piece.channel = channel_piece * cut->piece_channels;
    piece.channel_end = min(piece.channel + cut->piece_channels, cut->channels);
    piece.part = part * cut->channels + piece.channel;
    piece.offset = row * piece.stride + piece.channel * cut->length + start;
    return piece;
}

/* Sums of the backward pass, per part. */
typedef struct sums {
    double *g, *gx; /* sum(g), sum(g*(x - mean)) */
} sums;

/* What the elementwise passes multiply with, per channel of the cut. */
typedef struct coefficients {
    float *mean, *a, *b, *c;
} coefficients;

/* One pass over the pool. */
typedef struct norm_pass {
    norm_cut cut;
    const ek_kernels *kernels;
    const float *x, *dy;
    float *out; /* y or dx */
    coefficients k;
    ek_moments *moments;
    sums sums;
} norm_pass;

size_t ek_norm_workspace(ek_norm_view view)
{
    norm_cut cut = cut_view(view);
    /* A smaller batch may end in a row with dead lanes, which is a piece more. */
    if (view.lanes) cut.row_pieces = pieces_of(cut.rows, cut.piece_rows) + 1;
    /* A part is at most three doubles, a channel's coefficients are four floats. */
    return 3 * (size_t)parts_all(&cut) + 2 * (size_t)cut.channels;
}

static norm_pass pass_begin(ek_context *context, ek_norm_view view, double *workspace)
{
    norm_pass pass = {.cut = cut_view(view), .kernels = context->kernels};
    float *floats = (float *)workspace;
    pass.k = (coefficients){floats, floats + pass.cut.channels, floats + 2 * pass.cut.channels,
                            floats + 3 * pass.cut.channels};
    double *parts = workspace + 2 * pass.cut.channels;
    pass.moments = (ek_moments *)parts;
    pass.sums = (sums){parts, parts + parts_all(&pass.cut)};
    return pass;
}

static void run(ek_context *context, norm_pass *pass, ek_piece kernel)
{
    ek_pool_run(context->pool, pieces_all(&pass->cut), kernel, pass);
}

/* --- statistics */

static void moments_piece(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece p = piece_at(&pass->cut, index);
    const float *x = pass->x + p.offset;
    ek_moments *out = pass->moments + p.part;
    if (pass->cut.columns) {
        pass->kernels->columns_moments(p.rows, p.channel_end - p.channel, p.stride, x, out);
        return;
    }
    for (int64_t ch = p.channel; ch < p.channel_end; ch++, x += pass->cut.length)
        pass->kernels->slab_moments(p.rows, p.length, p.stride, p.live, x, out++);
}

/* The moments of channel c of the view: its columns first, then its parts. */
static ek_moments merge_channel(const norm_pass *pass, int64_t c)
{
    int64_t group = pass->cut.group;
    ek_moments *parts = pass->moments + c * group;
    for (int64_t part = 0; part < parts_each(&pass->cut); part++)
        ek_moments_merge_all(parts + part * pass->cut.channels, group, 1);
    return ek_moments_merge_all(parts, parts_each(&pass->cut), pass->cut.channels);
}

/* A mean in double, as the sum of two floats. */
static void save_mean(double mean, float *high, float *low)
{
    *high = (float)mean;
    *low = (float)(mean - *high);
}

void ek_norm_statistics(ek_context *context, ek_norm_view view, double eps, const float *x, double *workspace,
                        const ek_batch_norm_saved *saved)
{
    norm_pass pass = pass_begin(context, view, workspace);
    pass.x = x;
    run(context, &pass, moments_piece);
    for (int64_t c = 0; c < view.c; c++) {
        ek_moments all = merge_channel(&pass, c);
        double var = all.m2 / all.count;
        save_mean(all.mean, &saved->mean[c], &saved->mean_low[c]);
        saved->var[c] = (float)var;
        saved->inv_std[c] = (float)(1 / sqrt(var + eps));
    }
}

void ek_norm_use_running(double eps, int64_t c, const float *running_mean, const float *running_var,
                         const ek_batch_norm_saved *saved)
{
    for (int64_t i = 0; i < c; i++) {
        saved->mean[i] = running_mean[i];
        saved->mean_low[i] = 0;
        saved->var[i] = running_var[i];
        saved->inv_std[i] = (float)(1 / sqrt(running_var[i] + eps));
    }
}

/* --- elementwise passes */

static void set_coefficients(norm_pass *pass, int64_t c, float mean, double a, double b, double constant)
{
    int64_t group = pass->cut.group;
    for (int64_t i = c * group; i < (c + 1) * group; i++) {
        pass->k.mean[i] = mean;
        pass->k.a[i] = (float)a;
        pass->k.b[i] = (float)b;
        pass->k.c[i] = (float)constant;
    }
}

/* out = (x - mean)*a + b */
static void apply_piece(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece p = piece_at(&pass->cut, index);
    coefficients k = pass->k;
    int64_t ch = p.channel, at = p.offset;
    if (pass->cut.columns) {
        pass->kernels->columns_apply(p.rows, p.channel_end - ch, p.stride, pass->x + at, k.mean + ch,
                                     k.a + ch, k.b + ch, pass->out + at);
        return;
    }
    for (; ch < p.channel_end; ch++, at += pass->cut.length)
        pass->kernels->slab_apply(p.rows, p.length, p.stride, p.live, pass->x + at, k.mean[ch], k.a[ch],
                                  k.b[ch], pass->out + at);
}

/* The mean is taken off first, in floats close to it, where the difference is exact; what the float mean
 * lacks goes into the constant:
 *
 *   y = (x - mean)*a + (beta - mean_low*a)    a = gamma*inv_std
 *
 * x*a + (beta - mean*a) would lose the digits that a large mean eats. */
void ek_norm_apply(ek_context *context, ek_norm_view view, const float *x, const ek_batch_norm_saved *saved,
                   const float *gamma, const float *beta, double *workspace, float *y)
{
    norm_pass pass = pass_begin(context, view, workspace);
    pass.x = x;
    pass.out = y;
    for (int64_t c = 0; c < view.c; c++) {
        double a = (gamma ? gamma[c] : 1.0) * saved->inv_std[c];
        set_coefficients(&pass, c, saved->mean[c], a, (beta ? beta[c] : 0.0) - saved->mean_low[c] * a, 0);
    }
    run(context, &pass, apply_piece);
}

/* --- backward */

static void backward_sums_piece(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece p = piece_at(&pass->cut, index);
    const float *mean = pass->k.mean;
    double *g = pass->sums.g + p.part, *gx = pass->sums.gx + p.part;
    int64_t ch = p.channel, at = p.offset;
    if (pass->cut.columns) {
        pass->kernels->columns_backward_sums(p.rows, p.channel_end - ch, p.stride, pass->x + at,
                                             pass->dy + at, mean + ch, g, gx);
        return;
    }
    for (; ch < p.channel_end; ch++, at += pass->cut.length)
        pass->kernels->slab_backward_sums(p.rows, p.length, p.stride, pass->x + at, pass->dy + at, mean[ch],
                                          g++, gx++);
}

/* dx = a*dy + b*(x - mean) + c */
static void backward_piece(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece p = piece_at(&pass->cut, index);
    coefficients k = pass->k;
    int64_t ch = p.channel, at = p.offset;
    if (pass->cut.columns) {
        pass->kernels->columns_backward_apply(p.rows, p.channel_end - ch, p.stride, pass->x + at,
                                              pass->dy + at, k.mean + ch, k.a + ch, k.b + ch, k.c + ch,
                                              pass->out + at);
        return;
    }
    for (; ch < p.channel_end; ch++, at += pass->cut.length)
        pass->kernels->slab_backward_apply(p.rows, p.length, p.stride, p.live, pass->x + at, pass->dy + at,
                                           k.mean[ch], k.a[ch], k.b[ch], k.c[ch], pass->out + at);
}

/* The sum of channel c's parts, in their order. */
static double sum_channel(const norm_pass *pass, const double *parts, int64_t c)
{
    int64_t group = pass->cut.group;
    double sum = 0;
    for (int64_t part = 0; part < parts_each(&pass->cut); part++)
        for (int64_t i = 0; i < group; i++) sum += parts[part * pass->cut.channels + c * group + i];
    return sum;
}

void ek_norm_backward(ek_context *context, ek_norm_view view, bool batch_statistics, const float *x,
                      const float *dy, const float *gamma, const ek_batch_norm_saved *saved,
                      double *workspace, float *dx, float *dgamma, float *dbeta)
{
    norm_pass pass = pass_begin(context, view, workspace);
    pass.x = x;
    pass.dy = dy;
    pass.out = dx;
    bool want_sums = batch_statistics || dgamma || dbeta;
    if (want_sums) {
        for (int64_t c = 0; c < view.c; c++) set_coefficients(&pass, c, saved->mean[c], 0, 0, 0);
        run(context, &pass, backward_sums_piece);
    }

    double m = (double)view.n * (double)view.s;
    for (int64_t c = 0; c < view.c; c++) {
        double inv_std = saved->inv_std[c], low = saved->mean_low[c];
        double scale = (gamma ? gamma[c] : 1.0) * inv_std;
        double sum_g = want_sums ? sum_channel(&pass, pass.sums.g, c) : 0;
        /* sum(g*xhat), with the mean's low half: x - mean - low */
        double sum_gxhat = want_sums ? (sum_channel(&pass, pass.sums.gx, c) - low * sum_g) * inv_std : 0;
        if (dbeta) dbeta[c] = (float)sum_g;
        if (dgamma) dgamma[c] = (float)sum_gxhat;
        if (batch_statistics) {
            /* dx = scale*(g - sum_g/m - (x - mean - low)*inv_std*sum_gxhat/m) */
            double slope = -scale * inv_std * sum_gxhat / m;
            set_coefficients(&pass, c, saved->mean[c], scale, slope, -scale * sum_g / m - slope * low);
        } else {
            set_coefficients(&pass, c, 0, scale, 0, 0);
        }
    }
    if (!dx) return;
    if (!batch_statistics) pass.x = dy; /* dx = dy*scale does not look at x, which may be infinite */
    run(context, &pass, batch_statistics ? backward_piece : apply_piece);
}
