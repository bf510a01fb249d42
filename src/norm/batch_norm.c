/*
 * The passes of batch normalization over the thread pool.
 *
 * An array [n, c, s] is a matrix of n rows and c channels, each entry a run of s floats. It is cut into pieces
 * of about PIECE floats by its shape alone; each piece leaves its part of the sums, and the parts are merged
 * in a fixed order: so the bits do not depend on the number of threads.
 *
 * Where there are few positions a run does not fill a vector. Then each position counts as a channel of its
 * own, a column, until its part is merged: the loop goes along the rows, in memory's order, with the vector
 * across the columns.
 *
 * Where there are channel pieces enough and one fits the caches, a thread takes it through both passes
 * (by_channels); elsewhere the second pass goes backwards. Large outputs are streamed.
 */
#include "norm/batch_norm.h"

#include <math.h>

enum {
    PIECE = 1 << 14,              /* floats: both x and dy of a piece fit in the second cache */
    SHORT_RUN = EK_LANES,         /* runs up to here go by columns */
    MANY_CHANNEL_PIECES = 16,     /* enough of them to keep the threads busy */
    CACHED = 1 << 20,             /* floats that stay in a thread's share of the caches between two passes */
    LARGER_THAN_CACHES = 1 << 22, /* floats from which outputs are streamed */
    MOST_PIECES = 128,     /* of columns: what is merged for each column at the end should stay little */
    CHANNELS_AT_ONCE = 64, /* between two passes */
};

typedef struct norm_cut {
    int64_t rows;
    int64_t channels; /* c, or c*s by columns */
    int64_t length;   /* floats of a run, 1 by columns */
    bool columns;
    int64_t group; /* columns that make one channel of the array; 1 otherwise */

    int64_t piece_rows, piece_length, piece_channels;
    int64_t row_pieces, length_pieces, channel_pieces;
} norm_cut;

static int64_t pieces_of(int64_t total, int64_t each) { return (total + each - 1) / each; }
static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

static norm_cut cut_shape(ek_ncs shape)
{
    /* With one channel all values stand in one run. */
    if (shape.c == 1) shape = (ek_ncs){1, 1, shape.n * shape.s};

    norm_cut cut = {.rows = shape.n, .columns = shape.c > 1 && shape.s <= SHORT_RUN};
    cut.group = cut.columns ? shape.s : 1;
    cut.channels = shape.c * cut.group;
    cut.length = cut.columns ? 1 : shape.s;

    cut.piece_length = min(cut.length, PIECE);
    if (cut.columns) {
        cut.piece_channels = min(cut.channels, PIECE / 16);
        cut.piece_rows = min(max(PIECE / cut.piece_channels, pieces_of(cut.rows, MOST_PIECES)), cut.rows);
    } else {
        cut.piece_rows = min(max(PIECE / cut.length, 1), cut.rows);
        cut.piece_channels = min(max(PIECE / (cut.piece_rows * cut.piece_length), 1), cut.channels);
    }
    cut.row_pieces = pieces_of(cut.rows, cut.piece_rows);
    cut.length_pieces = pieces_of(cut.length, cut.piece_length);
    cut.channel_pieces = pieces_of(cut.channels, cut.piece_channels);
    return cut;
}

/* Parts that each channel of the cut has, and parts in all: part p of channel ch is [p][ch]. */
static int64_t parts_each(const norm_cut *cut) { return cut->row_pieces * cut->length_pieces; }
static int64_t parts_all(const norm_cut *cut) { return parts_each(cut) * cut->channels; }
static int64_t pieces_all(const norm_cut *cut) { return parts_each(cut) * cut->channel_pieces; }

/* One piece: channels [channel, channel + at.channels) of some rows, at.length floats of each run. */
typedef struct norm_piece {
    ek_norm_piece at;
    int64_t channel;
    int64_t part;   /* index of its first channel's part */
    int64_t offset; /* of its first float */
} norm_piece;

static norm_piece piece_at(const norm_cut *cut, int64_t index)
{
    int64_t channel_piece = index % cut->channel_pieces;
    int64_t part = index / cut->channel_pieces;
    int64_t row = part / cut->length_pieces * cut->piece_rows;
    int64_t start = part % cut->length_pieces * cut->piece_length;

    norm_piece piece = {.at = {.stride = cut->channels * cut->length}};
    piece.at.rows = min(cut->piece_rows, cut->rows - row);
    piece.at.length = min(cut->piece_length, cut->length - start);
    piece.channel = channel_piece * cut->piece_channels;
    piece.at.channels = min(cut->piece_channels, cut->channels - piece.channel);
    piece.part = part * cut->channels + piece.channel;
    piece.offset = row * piece.at.stride + piece.channel * cut->length + start;
    return piece;
}

/* One pass over the pool, or two: what the first leaves is taken channel by channel, then the second runs. */
typedef struct norm_pass norm_pass;
typedef void piece_function(norm_pass *pass, const norm_piece *piece);
typedef void channel_function(norm_pass *pass, int64_t c);

struct norm_pass {
    norm_cut cut;
    const ek_kernels *kernels;
    ek_norm_layer layer;
    const float *x, *dy;
    float *out; /* y or dx */
    bool stream;
    float *dgamma, *dbeta;
    piece_function *first, *second; /* NULL: none */
    channel_function *between;

    float *mean, *a, *b, *slope, *constant; /* the terms, by the cut's channels, as the kernels want them */
    ek_norm_terms terms;
    /* Parts: of the forward pass, or of the backward pass sum(g) and sum(g*(x - mean)). */
    ek_moments *moments;
    double *sum_g, *sum_gx;
};

/* Floats of one array of terms. */
static int64_t terms_length(const norm_cut *cut) { return cut->channels + EK_LANES; }

size_t ek_norm_workspace(ek_ncs shape)
{
    norm_cut cut = cut_shape(shape);
    /* A part is at most three doubles; there are five terms. */
    return 3 * (size_t)parts_all(&cut) + 5 * (size_t)terms_length(&cut) / 2 + 1;
}

static norm_pass pass_begin(ek_context *context, const ek_norm_layer *layer, const float *x, const float *dy,
                            float *out)
{
    norm_pass pass = {.cut = cut_shape(layer->shape), .kernels = context->kernels, .layer = *layer};
    pass.x = x;
    pass.dy = dy;
    pass.out = out;
    ek_ncs shape = layer->shape;
    pass.stream = shape.n * shape.c * shape.s >= LARGER_THAN_CACHES && out != x && out != dy;

    int64_t parts = parts_all(&pass.cut), length = terms_length(&pass.cut);
    pass.moments = (ek_moments *)layer->workspace;
    pass.sum_g = layer->workspace;
    pass.sum_gx = pass.sum_g + parts;
    float *terms = (float *)(layer->workspace + 3 * parts);
    pass.mean = terms;
    pass.a = pass.mean + length;
    pass.b = pass.a + length;
    pass.slope = pass.b + length;
    pass.constant = pass.slope + length;
    pass.terms = (ek_norm_terms){pass.mean, pass.a, pass.b, pass.slope, pass.constant, layer->relu ? 0 : NAN};
    return pass;
}

/* The kernels take terms by the vector, past the last column too. */
static void repeat_terms(norm_pass *pass)
{
    int64_t columns = pass->cut.channels;
    float *all[] = {pass->mean, pass->a, pass->b, pass->slope, pass->constant};
    for (int i = 0; pass->cut.columns && i < 5; i++)
        for (int j = 0; j < EK_LANES; j++) all[i][columns + j] = all[i][j];
}

static ek_norm_terms terms_from(const ek_norm_terms *all, int64_t ch)
{
    return (ek_norm_terms){all->mean + ch,  all->a + ch,        all->b + ch,
                           all->slope + ch, all->constant + ch, all->floor};
}

static void run_first(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece piece = piece_at(&pass->cut, index);
    pass->first(pass, &piece);
}

/* Backwards: what the first pass read last is still in the caches. */
static void run_second(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    norm_piece piece = piece_at(&pass->cut, pieces_all(&pass->cut) - 1 - index);
    pass->second(pass, &piece);
}

static void run_between(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    int64_t end = min((index + 1) * CHANNELS_AT_ONCE, pass->layer.shape.c);
    for (int64_t c = index * CHANNELS_AT_ONCE; c < end; c++) pass->between(pass, c);
}

/* All of it for the channels of one channel piece, which stay in the caches meanwhile. */
static void run_channels(void *argument, int64_t index, int thread)
{
    (void)thread;
    norm_pass *pass = argument;
    int64_t parts = parts_each(&pass->cut), step = pass->cut.channel_pieces;
    for (int64_t part = 0; pass->first && part < parts; part++) {
        norm_piece piece = piece_at(&pass->cut, part * step + index);
        pass->first(pass, &piece);
    }
    norm_piece channels = piece_at(&pass->cut, index);
    for (int64_t c = 0; c < channels.at.channels; c++) pass->between(pass, channels.channel + c);
    for (int64_t part = parts - 1; pass->second && part >= 0; part--) {
        norm_piece piece = piece_at(&pass->cut, part * step + index);
        pass->second(pass, &piece);
    }
}

/* Whether threads take whole channels, from the first pass to the second. The bits are the same either way. */
static bool by_channels(const norm_cut *cut)
{
    if (cut->columns) return false; /* a channel's columns may stand in two pieces */
    if (parts_each(cut) == 1) return true;
    return cut->channel_pieces >= MANY_CHANNEL_PIECES &&
           cut->rows * cut->length * cut->piece_channels <= CACHED;
}

static void run(ek_context *context, norm_pass *pass)
{
    const norm_cut *cut = &pass->cut;
    if (by_channels(cut)) {
        ek_pool_run(context->pool, cut->channel_pieces, run_channels, pass);
        return;
    }
    if (pass->first) ek_pool_run(context->pool, pieces_all(cut), run_first, pass);
    ek_pool_run(context->pool, pieces_of(pass->layer.shape.c, CHANNELS_AT_ONCE), run_between, pass);
    repeat_terms(pass);
    if (pass->second) ek_pool_run(context->pool, pieces_all(cut), run_second, pass);
}

/* --- statistics */

static void moments_piece(norm_pass *pass, const norm_piece *p)
{
    (pass->cut.columns ? pass->kernels->columns_moments
                       : pass->kernels->runs_moments)(&p->at, pass->x + p->offset, pass->moments + p->part);
}

/* The moments of channel c of the array: its columns first, then its parts. */
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

static void save_statistics(norm_pass *pass, int64_t c)
{
    const ek_batch_norm_saved *saved = pass->layer.saved;
    ek_moments all = merge_channel(pass, c);
    double var = all.m2 / all.count;
    save_mean(all.mean, &saved->mean[c], &saved->mean_low[c]);
    saved->var[c] = (float)var;
    saved->inv_std[c] = (float)(1 / sqrt(var + pass->layer.eps));
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

/* --- forward */

static void set_terms(const norm_pass *pass, float *terms, int64_t c, float value)
{
    int64_t group = pass->cut.group;
    for (int64_t i = c * group; i < (c + 1) * group; i++) terms[i] = value;
}

static double scale_of(const norm_pass *pass, int64_t c)
{
    const float *gamma = pass->layer.gamma;
    return (gamma ? gamma[c] : 1.0) * pass->layer.saved->inv_std[c];
}

/* The mean is taken off first, in floats close to it, where the difference is exact; what the float mean
 * lacks goes into the constant:
 *
 *   y = (x - mean)*a + (beta - mean_low*a)    a = gamma*inv_std
 *
 * x*a + (beta - mean*a) would lose the digits that a large mean eats. */
static void forward_terms(norm_pass *pass, int64_t c)
{
    const ek_batch_norm_saved *saved = pass->layer.saved;
    const float *beta = pass->layer.beta;
    double a = scale_of(pass, c);
    set_terms(pass, pass->mean, c, saved->mean[c]);
    set_terms(pass, pass->a, c, (float)a);
    set_terms(pass, pass->b, c, (float)((beta ? beta[c] : 0.0) - saved->mean_low[c] * a));
}

static void statistics_and_terms(norm_pass *pass, int64_t c)
{
    save_statistics(pass, c);
    forward_terms(pass, c);
}

static void apply_from(norm_pass *pass, const norm_piece *p, const float *in)
{
    ek_norm_piece at = p->at;
    ek_norm_terms terms = terms_from(&pass->terms, p->channel);
    at.stream = pass->stream;
    (pass->cut.columns ? pass->kernels->columns_apply
                       : pass->kernels->runs_apply)(&at, &terms, in + p->offset, pass->out + p->offset);
}

static void apply_piece(norm_pass *pass, const norm_piece *p) { apply_from(pass, p, pass->x); }

void ek_norm_forward(ek_context *context, const ek_norm_layer *layer, const float *x, float *y)
{
    norm_pass pass = pass_begin(context, layer, x, NULL, y);
    pass.first = layer->batch_statistics ? moments_piece : NULL;
    pass.between = layer->batch_statistics ? statistics_and_terms : forward_terms;
    pass.second = apply_piece;
    run(context, &pass);
}

/* --- backward */

static void backward_sums_piece(norm_pass *pass, const norm_piece *p)
{
    ek_norm_terms terms = terms_from(&pass->terms, p->channel);
    (pass->cut.columns ? pass->kernels->columns_backward_sums : pass->kernels->runs_backward_sums)(
        &p->at, &terms, pass->x + p->offset, pass->dy + p->offset, pass->sum_g + p->part,
        pass->sum_gx + p->part);
}

static void backward_piece(norm_pass *pass, const norm_piece *p)
{
    ek_norm_piece at = p->at;
    ek_norm_terms terms = terms_from(&pass->terms, p->channel);
    at.stream = pass->stream;
    if (!pass->layer.batch_statistics) terms.slope = NULL;
    (pass->cut.columns ? pass->kernels->columns_backward_apply : pass->kernels->runs_backward_apply)(
        &at, &terms, pass->x + p->offset, pass->dy + p->offset, pass->out + p->offset);
}

/* dx = dy*a does not look at x, which may be infinite. */
static void scale_piece(norm_pass *pass, const norm_piece *p) { apply_from(pass, p, pass->dy); }

/* The sum of channel c's parts, in their order. */
static double sum_channel(const norm_pass *pass, const double *parts, int64_t c)
{
    int64_t group = pass->cut.group;
    double sum = 0;
    for (int64_t part = 0; part < parts_each(&pass->cut); part++)
        for (int64_t i = 0; i < group; i++) sum += parts[part * pass->cut.channels + c * group + i];
    return sum;
}

static void backward_terms(norm_pass *pass, int64_t c)
{
    const ek_batch_norm_saved *saved = pass->layer.saved;
    double m = (double)pass->layer.shape.n * (double)pass->layer.shape.s;
    double inv_std = saved->inv_std[c], low = saved->mean_low[c], scale = scale_of(pass, c);
    double sum_g = pass->first ? sum_channel(pass, pass->sum_g, c) : 0;
    /* sum(g*xhat), with the mean's low half: x - mean - low */
    double sum_gxhat = pass->first ? (sum_channel(pass, pass->sum_gx, c) - low * sum_g) * inv_std : 0;
    if (pass->dbeta) pass->dbeta[c] = (float)sum_g;
    if (pass->dgamma) pass->dgamma[c] = (float)sum_gxhat;
    if (pass->layer.batch_statistics) {
        /* dx = scale*(g - sum_g/m - (x - mean - low)*inv_std*sum_gxhat/m) */
        double slope = -scale * inv_std * sum_gxhat / m;
        set_terms(pass, pass->slope, c, (float)slope);
        set_terms(pass, pass->constant, c, (float)(-scale * sum_g / m - slope * low));
    } else if (!pass->layer.relu) {
        set_terms(pass, pass->mean, c, 0);
        set_terms(pass, pass->b, c, 0);
    }
}

void ek_norm_backward(ek_context *context, const ek_norm_layer *layer, const float *x, const float *dy,
                      float *dx, float *dgamma, float *dbeta)
{
    norm_pass pass = pass_begin(context, layer, x, dy, dx);
    pass.dgamma = dgamma;
    pass.dbeta = dbeta;
    pass.first = layer->batch_statistics || dgamma || dbeta ? backward_sums_piece : NULL;
    pass.between = backward_terms;
    if (dx) pass.second = layer->batch_statistics || layer->relu ? backward_piece : scale_piece;
    for (int64_t c = 0; c < layer->shape.c; c++) forward_terms(&pass, c);
    repeat_terms(&pass);
    run(context, &pass);
}
