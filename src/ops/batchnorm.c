/* batchnorm: batch normalization of each channel of a map or each feature (src/norm says all of it). */
#include "ops/batchnorm.h"

#include "norm/batch_norm.h"
#include "ops/elementwise.h"

#include <math.h>

enum { EPS, MOMENTUM, SCALE, SHIFT, TRACK, FROZEN, UNBIASED, GHOST, R_MAX, D_MAX, RENORM_STEPS };

ek_batch_norm_options ek_batchnorm_options(const ek_node *node)
{
    ek_batch_norm_options o = ek_batch_norm_options_default();
    o.eps = ek_attr_real(node, EPS);
    o.cumulative = isnan(ek_attr_real(node, MOMENTUM));
    if (!o.cumulative) o.momentum = ek_attr_real(node, MOMENTUM);
    o.scale = ek_attr_bool(node, SCALE);
    o.shift = ek_attr_bool(node, SHIFT);
    o.track = ek_attr_bool(node, TRACK);
    o.frozen = ek_attr_bool(node, FROZEN);
    o.unbiased_running_var = ek_attr_bool(node, UNBIASED);
    return o;
}

int64_t ek_ghost_size(const ek_node *node) { return ek_attr_int(node, GHOST); }

extern const ek_op ek_op_batchnorm;
bool ek_is_batchnorm(const ek_node *node) { return node->op == &ek_op_batchnorm; }
bool ek_is_channel_norm(const ek_node *node) { return ek_is_batchnorm(node) && ek_ghost_size(node) == 0; }

static bool renormalizes(const ek_node *node) { return ek_attr_real(node, R_MAX) > 1 || ek_attr_real(node, D_MAX) > 0; }

/* Options that cannot be had together. */
static ek_status check_options(const ek_node *node)
{
    bool frozen = ek_attr_bool(node, FROZEN), track = ek_attr_bool(node, TRACK), ghost = ek_ghost_size(node) > 0;
    const char *wrong = NULL;
    if (frozen && !track)
        wrong = "frozen=true uses the running statistics, track=false has none: drop one of them";
    else if (frozen && ghost)
        wrong = "frozen=true never takes the batch's statistics, so that ghost batches have nothing to cut: drop ghost "
                "or frozen";
    else if (frozen && renormalizes(node))
        wrong = "frozen=true never takes the batch's statistics, which r_max and d_max correct: drop them or frozen";
    else if (!track && renormalizes(node))
        wrong = "r_max and d_max correct towards the running statistics, track=false has none: drop them or track=false";
    else if (ghost && renormalizes(node))
        wrong = "ghost batches make each batch's statistics noisier, r_max and d_max take that noise away again: drop "
                "ghost, or r_max and d_max";
    else if (ek_attr_int(node, RENORM_STEPS) > 0 && !renormalizes(node))
        wrong = "renorm_steps is how many steps r_max and d_max take to rise to their values: give r_max or d_max, or "
                "drop renorm_steps";
    else if (ek_ghost_size(node) == 1 && ek_shape_count(node->in[0]) == node->in[0].dim[0])
        wrong = "ghost=1 leaves one value a channel, and one value has no variance: use ghost batches of 2 or more";
    return wrong ? ek_fail(EK_E_ARGUMENT, "%s", wrong) : EK_OK;
}

static ek_status shape(ek_node *node)
{
    EK_TRY(check_options(node));
    return ek_same_shape(node);
}

static void params(ek_node *node)
{
    ek_shape c = {1, {node->in[0].dim[0]}};
    if (ek_attr_bool(node, SCALE)) ek_node_add_param(node, EK_ROLE_GAMMA, "weight", c);
    if (ek_attr_bool(node, SHIFT)) ek_node_add_param(node, EK_ROLE_BETA, "bias", c);
    if (!ek_attr_bool(node, TRACK)) return;
    ek_node_add_param(node, EK_ROLE_RUNNING_MEAN, "running_mean", c);
    ek_node_add_param(node, EK_ROLE_RUNNING_VAR, "running_var", c);
    ek_node_add_param(node, EK_ROLE_COUNTER, "num_batches_tracked", (ek_shape){0});
}

/* With the batch's own statistics any constant goes away, and with running statistics that were taken without it. Frozen
 * ones are as they came. */
static bool cancels_bias(const ek_node *node) { return !ek_attr_bool(node, FROZEN); }

/* The workspace: what is saved, what the output and dx are made with, then the blocks' moments or sums. */
typedef struct room {
    ek_batch_norm_saved saved;
    float *a, *b;        /* y = (x - mean)*a + b */
    float *da, *db, *dc; /* dx = da*g + db*(x - mean) + dc */
    float *r, *d;        /* of batch renormalization; 1, 0 */
    ek_moments *moments; /* [block][channel] */
    double *sums;        /* [block][2][channel]: of g, of g*(x - mean) */
    void *parts;         /* where these begin; of ghost batches, all that they keep */
} room;

enum { ARRAYS = 11 }; /* of one float a channel */

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    (void)training;
    int64_t c = node->in[0].dim[0];
    size_t moments = (size_t)(c * ek_blocks(samples)) * sizeof(ek_moments); /* more than the sums take */
    size_t parts = ek_ghost_size(node) ? ek_ghost_workspace(node, samples) : moments / sizeof(float);
    return ek_lane_rows((size_t)(ARRAYS * c)) + (parts > moments / sizeof(float) ? parts : moments / sizeof(float));
}

static room room_of(const ek_node *node)
{
    int64_t c = node->in[0].dim[0];
    float *at = node->workspace;
    void *parts = at + ek_lane_rows((size_t)(ARRAYS * c));
    return (room){.saved = {at, at + c, at + 2 * c, at + 3 * c},
                  .a = at + 4 * c,
                  .b = at + 5 * c,
                  .da = at + 6 * c,
                  .db = at + 7 * c,
                  .dc = at + 8 * c,
                  .r = at + 9 * c,
                  .d = at + 10 * c,
                  .moments = parts,
                  .sums = parts,
                  .parts = parts};
}

static bool batch_statistics(bool training, const ek_node *node)
{
    return (training && !ek_attr_bool(node, FROZEN)) || !ek_attr_bool(node, TRACK);
}

bool ek_batchnorm_gathers(const ek_node *node) { return ek_is_channel_norm(node) && batch_statistics(true, node); }

/* Values of a channel in the batch, of sequences their live positions. */
static int64_t values(const ek_pass *pass, const ek_node *node)
{
    const ek_gather *g = pass->training ? node->gather : NULL;
    if (g && g->stage > EK_STAGE_MOMENTS) return (int64_t)g->moments[0].count;
    const int32_t *length = g ? NULL : ek_input_length(pass->length, node);
    int64_t sum = 0;
    if (!length) return (g ? g->samples : pass->n) * (ek_shape_count(node->in[0]) / node->in[0].dim[0]);
    for (int64_t i = 0; i < pass->n; i++) sum += length[i];
    return sum;
}

/* Whether this pass takes ghost batches, by passes of their own (src/ops/ghost.c); inference never does. */
static bool in_ghosts(bool training, const ek_node *node) { return training && ek_ghost_size(node) > 0; }

static ek_status check(const ek_pass *pass, const ek_node *node)
{
    if (batch_statistics(pass->training, node) && values(pass, node) < 2)
        return ek_fail(EK_E_SHAPE,
                       "%s has one value a channel in this batch, and one value has no variance: use batches "
                       "of 2 or more",
                       node->label);
    return in_ghosts(pass->training, node) ? ek_ghost_check(pass, node) : EK_OK;
}

/* --- the halves of the forward pass */

ek_moments *ek_batchnorm_moments(const ek_pass *pass, const ek_node *node)
{
    return batch_statistics(pass->training, node) ? room_of(node).moments : NULL;
}

/* The moments to normalize by, from those of this pass. */
static ek_moments gather_moments(const ek_pass *pass, const ek_node *node, int64_t channel, ek_moments all)
{
    const ek_gather *g = pass->training ? node->gather : NULL;
    if (!g || g->stage == EK_STAGE_NOTHING) return all;
    if (g->stage == EK_STAGE_MOMENTS) ek_moments_merge(&g->moments[channel], all);
    return g->moments[channel];
}

/* A mean in double, as the sum of two floats. */
void ek_batchnorm_save(const ek_batch_norm_saved *saved, int64_t channel, ek_moments all, double eps)
{
    double var = all.m2 / all.count;
    saved->mean[channel] = (float)all.mean;
    saved->mean_low[channel] = (float)(all.mean - saved->mean[channel]);
    saved->var[channel] = (float)var;
    saved->inv_std[channel] = (float)(1 / sqrt(var + eps));
}

static void save_running(ek_node *node, const ek_batch_norm_saved *saved, int64_t channel)
{
    saved->mean[channel] = ek_node_data(node, EK_ROLE_RUNNING_MEAN)[channel];
    saved->mean_low[channel] = 0;
    saved->var[channel] = ek_node_data(node, EK_ROLE_RUNNING_VAR)[channel];
    saved->inv_std[channel] = (float)(1 / sqrt(saved->var[channel] + ek_attr_real(node, EPS)));
}

/* Batch renormalization, Ioffe (2017), "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized
 * Models": training normalizes almost as inference does,
 *
 *   y = gamma*(xhat*r + d) + beta
 *   r = std/running_std within [1/r_max, r_max]      d = (mean - running_mean)/running_std within [-d_max, d_max]
 *
 * with std = sqrt(var + eps); no gradient goes through r and d. At batch t, from 0, of the first renorm_steps, r_max and
 * d_max have come the share t/renorm_steps of their way from 1 and 0, which is plain BN. */
typedef struct renorm {
    double r_max, d_max;
} renorm;

static renorm renorm_of(bool training, ek_node *node)
{
    if (!training || !renormalizes(node)) return (renorm){1, 0};
    double steps = ek_attr_real(node, RENORM_STEPS), done = (double)ek_node_param(node, EK_ROLE_COUNTER)->counter;
    double share = done < steps ? done / steps : 1;
    return (renorm){1 + share * (ek_attr_real(node, R_MAX) - 1), share * ek_attr_real(node, D_MAX)};
}

static double within(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

static double renorm_r(renorm limit, double std, double running_std)
{
    return within(std / running_std, 1 / limit.r_max, limit.r_max);
}

static double renorm_d(renorm limit, double mean, double running_mean, double running_std)
{
    return within((mean - running_mean) / running_std, -limit.d_max, limit.d_max);
}

static void save_renorm(const room *r, renorm limit, ek_node *node, int64_t channel)
{
    r->r[channel] = 1;
    r->d[channel] = 0;
    if (limit.r_max == 1 && limit.d_max == 0) return;
    double mean = (double)r->saved.mean[channel] + r->saved.mean_low[channel], eps = ek_attr_real(node, EPS);
    double running_std = sqrt(ek_node_data(node, EK_ROLE_RUNNING_VAR)[channel] + eps);
    r->r[channel] = (float)renorm_r(limit, sqrt(r->saved.var[channel] + eps), running_std);
    r->d[channel] = (float)renorm_d(limit, mean, ek_node_data(node, EK_ROLE_RUNNING_MEAN)[channel], running_std);
}

/* The mean is taken off first, in floats close to it, where the difference is exact; what the float mean
 * lacks goes into the constant:
 *
 *   y = (x - mean)*a + (beta + gamma*d - mean_low*a)    a = gamma*inv_std*r
 *
 * x*a + (beta - mean*a) would lose the digits that a large mean eats. */
void ek_batchnorm_prepare(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts)
{
    room r = room_of(node);
    int64_t c = node->in[0].dim[0];
    const float *gamma = ek_node_data(node, EK_ROLE_GAMMA), *beta = ek_node_data(node, EK_ROLE_BETA);
    renorm limit = renorm_of(pass->training, node);
    for (int64_t i = first; i < first + count; i++) {
        if (batch_statistics(pass->training, node)) {
            ek_moments all = gather_moments(pass, node, i, ek_moments_merge_all(r.moments + i, parts, c));
            ek_batchnorm_save(&r.saved, i, all, ek_attr_real(node, EPS));
        } else {
            save_running(node, &r.saved, i);
        }
        save_renorm(&r, limit, node, i);
        double scale = gamma ? gamma[i] : 1.0, a = scale * r.saved.inv_std[i] * r.r[i];
        r.a[i] = (float)a;
        r.b[i] = (float)((beta ? beta[i] : 0.0) + scale * r.d[i] - r.saved.mean_low[i] * a);
    }
}

ek_batch_norm_saved ek_batchnorm_saved(const ek_pass *pass, const ek_node *node, bool *batch)
{
    *batch = batch_statistics(pass->training, node);
    return room_of(node).saved;
}

ek_map_in ek_batchnorm_map(const ek_node *node, const float *x)
{
    room r = room_of(node);
    return (ek_map_in){.x = x, .mean = r.saved.mean, .a = r.a, .b = r.b};
}

void ek_batchnorm_row(const ek_pass *pass, const ek_node *node, int64_t block, int64_t channel, const float x[EK_LANES],
                      float y[EK_LANES])
{
    room r = room_of(node);
    if (in_ghosts(pass->training, node)) {
        ek_ghost_row(pass, node, r.parts, block, channel, x, y);
        return;
    }
    for (int i = 0; i < EK_LANES; i++) y[i] = (x[i] - r.saved.mean[channel]) * r.a[channel] + r.b[channel];
}

/* --- and of the backward pass */

double *ek_batchnorm_sums(const ek_node *node) { return room_of(node).sums; }

static double sum_blocks(const double *parts, int64_t blocks, int64_t stride)
{
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += parts[b * stride];
    return sum;
}

/* The same for *g and *gx, the sums of g and of g*(x - mean). */
static void gather_sums(const ek_pass *pass, const ek_node *node, int64_t channel, double *g, double *gx)
{
    const ek_gather *of = pass->training ? node->gather : NULL;
    if (!of || of->stage < EK_STAGE_SUMS) return;
    double *sum_g = of->sums + channel, *sum_gx = sum_g + node->in[0].dim[0];
    if (of->stage == EK_STAGE_SUMS) {
        *sum_g += *g;
        *sum_gx += *gx;
    }
    *g = *sum_g;
    *gx = *sum_gx;
}

static void set_gradient(const room *r, int64_t channel, double a, double b, double c)
{
    r->da[channel] = (float)a;
    r->db[channel] = (float)b;
    r->dc[channel] = (float)c;
}

void ek_batchnorm_prepare_backward(const ek_pass *pass, ek_node *node, int64_t first, int64_t count, int64_t parts)
{
    room r = room_of(node);
    int64_t c = node->in[0].dim[0];
    const ek_param *gamma = ek_node_param(node, EK_ROLE_GAMMA), *beta = ek_node_param(node, EK_ROLE_BETA);
    double m = (double)values(pass, node);
    for (int64_t i = first; i < first + count; i++) {
        double inv_std = r.saved.inv_std[i], low = r.saved.mean_low[i];
        double scale = (gamma ? gamma->data[i] : 1.0) * inv_std * r.r[i];
        double sum_g = sum_blocks(r.sums + i, parts, 2 * c), sum_gx = sum_blocks(r.sums + c + i, parts, 2 * c);
        gather_sums(pass, node, i, &sum_g, &sum_gx);
        double sum_gxhat = (sum_gx - low * sum_g) * inv_std; /* with the mean's low half: x - mean - low */
        if (beta) beta->grad[i] = (float)sum_g;
        if (gamma) gamma->grad[i] = (float)(sum_gxhat * r.r[i] + sum_g * r.d[i]);
        if (batch_statistics(pass->training, node)) {
            /* dx = scale*(g - sum_g/m - (x - mean - low)*inv_std*sum_gxhat/m) */
            double slope = -scale * inv_std * sum_gxhat / m;
            set_gradient(&r, i, scale, slope, -scale * sum_g / m - slope * low);
        } else {
            set_gradient(&r, i, scale, 0, 0);
        }
    }
}

/* Where the statistics are not the batch's, dx does not look at x, which may be infinite. */
ek_grad_in ek_batchnorm_gradient(const ek_pass *pass, const ek_node *node, const float *x, const float *g)
{
    room r = room_of(node);
    return (ek_grad_in){.g = g,
                        .x = batch_statistics(pass->training, node) ? x : g,
                        .mean = r.saved.mean,
                        .a = r.da,
                        .b = r.db,
                        .c = r.dc};
}

/* --- the passes of a node that runs by itself */

static void moments_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_block_moments(w->pass, w->node->in[0], ek_block_length(w->pass, w->node, block), block,
                     w->flow->x[0].x + block * w->block, room_of(w->node).moments + block * w->channels);
}

static void apply_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_map_in all = ek_batchnorm_map(w->node, w->flow->x[0].x);
    ek_map_in m = ek_map_block(w->pass, &all, block, w->block);
    w->kernels->map_read(&slab, &m, w->flow->y + block * w->block);
}

/* --- of a shard */

static bool in_shards(const ek_pass *pass, const ek_node *node) { return pass->training && node->gather && node->gather->shard; }

static void merge_as_moments(double *into, const double *other, int64_t count)
{
    ek_moments *a = (ek_moments *)into;
    const ek_moments *b = (const ek_moments *)other;
    for (int64_t c = 0; c < count / 3; c++) ek_moments_merge(&a[c], b[c]);
}

void ek_moments_of_all_shards(const ek_shard *shard, ek_moments *moments, int64_t count)
{
    _Static_assert(sizeof *moments == 3 * sizeof(double), "moments are three doubles");
    ek_shard_merge(shard, &moments->count, 3 * count, merge_as_moments);
}

/* From now on the moments are those of the whole batch. */
static void merge_moments(const ek_pass *pass, ek_node *node)
{
    ek_gather *g = node->gather;
    ek_moments *of_blocks = room_of(node).moments;
    int64_t channels = node->in[0].dim[0];
    for (int64_t c = 0; c < channels; c++)
        g->moments[c] = ek_moments_merge_all(of_blocks + c, ek_blocks(pass->n), channels);
    ek_moments_of_all_shards(g->shard, g->moments, channels);
    g->stage = EK_STAGE_NORMALIZES;
}

static void merge_sums(const ek_pass *pass, ek_node *node)
{
    ek_gather *g = node->gather;
    const double *of_blocks = room_of(node).sums;
    int64_t channels = node->in[0].dim[0];
    for (int64_t i = 0; i < 2 * channels; i++) g->sums[i] = sum_blocks(of_blocks + i, ek_blocks(pass->n), 2 * channels);
    ek_shard_merge(g->shard, g->sums, 2 * channels, ek_merge_sum);
    g->stage = EK_STAGE_ALL;
}

void ek_batchnorm_own_moments(const ek_pass *pass, const ek_node *node, ek_moments *out)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    double count = (double)values(pass, node);
    for (int64_t c = 0; c < node->in[0].dim[0]; c++) {
        if (pass->n == 0)
            out[c] = (ek_moments){0};
        else
            out[c] = (ek_moments){count, (double)saved.mean[c] + saved.mean_low[c], saved.var[c] * count};
    }
}

void ek_batchnorm_take_moments(ek_node *node, ek_gather *gather)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    for (int64_t c = 0; c < node->in[0].dim[0]; c++)
        ek_batchnorm_save(&saved, c, gather->moments[c], ek_attr_real(node, EPS));
    gather->stage = EK_STAGE_NORMALIZES;
    node->gather = gather;
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    room r = room_of(node);
    if (in_ghosts(pass->training, node)) {
        ek_ghost_forward(pass, node, flow, r.parts, &r.saved, ek_attr_real(node, EPS));
        return;
    }
    if (!flow->has_moments && batch_statistics(pass->training, node))
        ek_each_block(pass, node, flow, moments_piece);
    if (in_shards(pass, node)) merge_moments(pass, node);
    ek_batchnorm_prepare(pass, node, 0, node->out.dim[0], ek_blocks(pass->n));
    if (flow->y) ek_each_block(pass, node, flow, apply_piece);
}

/* Only the sums are wanted; g is written where it stands. Beyond a sequence's length it is 0. */
static void sums_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_grad_out all = {.g = (float *)w->flow->dy.g,
                       .value = ek_batchnorm_map(w->node, w->flow->x[0].x),
                       .sums = room_of(w->node).sums};
    ek_grad_out o = ek_grad_out_block(w->pass, &all, block, w->block, w->channels);
    w->kernels->grad_write(&slab, &o, o.g);
}

static void gradient_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    ek_slab slab = ek_elementwise_slab(w, block);
    ek_grad_in all = ek_batchnorm_gradient(w->pass, w->node, w->flow->x[0].x, w->flow->dy.g);
    ek_grad_in d = ek_grad_in_block(w->pass, &all, block, w->block);
    ek_grad_out o = ek_elementwise_out(w, 0, block);
    float *dv = ek_elementwise_dv(w, &o, thread);
    w->kernels->grad_read(&slab, &d, dv);
    ek_elementwise_finish(w, &slab, &o, dv);
}

static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    return (size_t)ek_block_floats(node->in[0]);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    if (in_ghosts(pass->training, node)) {
        ek_ghost_backward(pass, node, flow, room_of(node).parts);
        return;
    }
    if (!flow->has_sums) ek_each_block(pass, node, flow, sums_piece);
    if (in_shards(pass, node)) merge_sums(pass, node);
    ek_batchnorm_prepare_backward(pass, node, 0, node->out.dim[0], ek_blocks(pass->n));
    if (flow->dx[0].g) ek_each_block(pass, node, flow, gradient_piece);
}

static void update(ek_node *node, int64_t m, const ek_batch_norm_saved *saved)
{
    ek_batch_norm_options options = ek_batchnorm_options(node);
    if (!options.track || options.frozen) return;
    ek_batch_norm_arrays arrays = {.running_mean = ek_node_data(node, EK_ROLE_RUNNING_MEAN),
                                   .running_var = ek_node_data(node, EK_ROLE_RUNNING_VAR),
                                   .num_batches_tracked = &ek_node_param(node, EK_ROLE_COUNTER)->counter};
    /* The options were checked with the text, and forward has refused m < 2: it cannot fail. */
    ek_status status = ek_batch_norm_update_running(&options, m, node->in[0].dim[0], saved, &arrays, NULL);
    (void)status;
}

static void commit(const ek_pass *pass, ek_node *node)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    update(node, values(pass, node), &saved);
}

/* --- reference. Arrays of one number a channel are kept: mean and variance of the batch, of which commit takes its part;
 * then those of a ghost batch, or of the whole; what renormalization makes of them; and sums. */

enum { MEAN, VAR, GROUP_MEAN, GROUP_VAR, R, D, SCALED_GAMMA, SUM_G, SUM_GXHAT, KEPT };

static int64_t reference_kept(const ek_node *node) { return KEPT * node->in[0].dim[0]; }

/* The samples of a ghost batch, or all. */
typedef struct group {
    ek_ncs shape;
    int64_t first;         /* number, in the arrays */
    const int32_t *length; /* of sequences of unequal lengths */
} group;

static ek_ncs reference_shape(const ek_ref *ref, const ek_node *node)
{
    int64_t c = node->in[0].dim[0];
    return (ek_ncs){ref->n, c, ek_shape_count(node->in[0]) / c};
}

static group reference_group(const ek_ref *ref, const ek_node *node, int64_t sample)
{
    int64_t c = node->in[0].dim[0], count = ek_shape_count(node->in[0]);
    const int32_t *length = ek_input_length(ref->length, node);
    int64_t end = in_ghosts(ref->training, node) ? ek_ghost_end(node, length, ref->n, sample) : ref->n;
    return (group){{end - sample, c, count / c}, sample * count, length ? length + sample : NULL};
}

/* Mean and variance that the group is normalized with, r and d. */
static void reference_terms(const ek_ref *ref, const ek_node *node, const group *g, const double *x)
{
    int64_t c = g->shape.c;
    double *kept = ref->kept, *mean = kept + GROUP_MEAN * c, *var = kept + GROUP_VAR * c, eps = ek_attr_real(node, EPS);
    const double *running_mean = ek_reference_of(ref->param, node, EK_ROLE_RUNNING_MEAN);
    const double *running_var = ek_reference_of(ref->param, node, EK_ROLE_RUNNING_VAR);
    const double *gamma = ek_reference_of(ref->param, node, EK_ROLE_GAMMA);
    renorm limit = renorm_of(ref->training, (ek_node *)node);
    bool of_batch = batch_statistics(ref->training, node);
    if (of_batch) ek_batch_norm_reference_statistics(g->shape, g->length, x + g->first, mean, var);
    for (int64_t i = 0; i < c; i++) {
        if (!of_batch) mean[i] = running_mean[i], var[i] = running_var[i];
        double running_std = running_var ? sqrt(running_var[i] + eps) : 1;
        kept[R * c + i] = running_var ? renorm_r(limit, sqrt(var[i] + eps), running_std) : 1;
        kept[D * c + i] = running_mean ? renorm_d(limit, mean[i], running_mean[i], running_std) : 0;
        kept[SCALED_GAMMA * c + i] = (gamma ? gamma[i] : 1) * kept[R * c + i];
    }
}

static void reference_group_forward(const ek_ref *ref, const ek_node *node, const group *g, const double *x, double *y)
{
    int64_t c = g->shape.c;
    const double *kept = ref->kept, *gamma = ek_reference_of(ref->param, node, EK_ROLE_GAMMA);
    const double *beta = ek_reference_of(ref->param, node, EK_ROLE_BETA);
    reference_terms(ref, node, g, x);
    y += g->first;
    ek_batch_norm_reference_forward(g->shape, g->length, ek_attr_real(node, EPS), x + g->first,
                                    kept + GROUP_MEAN * c, kept + GROUP_VAR * c, NULL, NULL, y);
    for (int64_t i = 0; i < g->shape.n * c * g->shape.s; i++) {
        int64_t ch = i / g->shape.s % c;
        y[i] = (gamma ? gamma[ch] : 1) * (y[i] * kept[R * c + ch] + kept[D * c + ch]) + (beta ? beta[ch] : 0);
    }
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    ek_ncs all = reference_shape(ref, node);
    ek_batch_norm_reference_statistics(all, ek_input_length(ref->length, node), x[0],
                                       ref->kept + MEAN * all.c, ref->kept + VAR * all.c);
    for (int64_t n = 0; n < ref->n;) {
        group g = reference_group(ref, node, n);
        reference_group_forward(ref, node, &g, x[0], y);
        n += g.shape.n;
    }
    if (!node->workspace) return; /* no plan runs it, and nobody reads them there */
    ek_batch_norm_saved saved = room_of(node).saved;
    for (int64_t i = 0; i < all.c; i++) {
        double mean = ref->kept[MEAN * all.c + i];
        saved.mean[i] = (float)mean;
        saved.mean_low[i] = (float)(mean - saved.mean[i]);
        saved.var[i] = (float)ref->kept[VAR * all.c + i];
    }
}

static void reference_group_backward(const ek_ref *ref, const ek_node *node, const group *g, const double *x,
                                     const double *dy, double *dx)
{
    int64_t c = g->shape.c;
    double *kept = ref->kept, *sum_g = kept + SUM_G * c, *sum_gxhat = kept + SUM_GXHAT * c;
    double *dgamma = ek_reference_of(ref->grad, node, EK_ROLE_GAMMA), *dbeta = ek_reference_of(ref->grad, node, EK_ROLE_BETA);
    reference_terms(ref, node, g, x);
    for (int64_t i = 0; i < c; i++) sum_g[i] = sum_gxhat[i] = 0;
    ek_batch_norm_reference_backward(g->shape, g->length, ek_attr_real(node, EPS),
                                     batch_statistics(ref->training, node), x + g->first, dy + g->first,
                                     kept + GROUP_MEAN * c, kept + GROUP_VAR * c, kept + SCALED_GAMMA * c,
                                     dx ? dx + g->first : NULL, sum_gxhat, sum_g);
    for (int64_t i = 0; i < c; i++) {
        if (dgamma) dgamma[i] += sum_gxhat[i] * kept[R * c + i] + sum_g[i] * kept[D * c + i];
        if (dbeta) dbeta[i] += sum_g[i];
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    for (int64_t n = 0; n < ref->n;) {
        group g = reference_group(ref, node, n);
        reference_group_backward(ref, node, &g, x[0], dy, dx[0]);
        n += g.shape.n;
    }
}

/* The float update serves the oracle too: its inputs are rounded once, the formula is the same. */
static void reference_commit(const ek_ref *ref, ek_node *node)
{
    ek_batch_norm_saved saved = room_of(node).saved;
    update(node,
           ek_batch_norm_reference_values(reference_shape(ref, node), ek_input_length(ref->length, node)),
           &saved);
}

const ek_op ek_op_batchnorm = {
    .name = "batchnorm",
    .inputs = 1,
    .attrs = {{"eps", EK_ATTR_REAL, .fallback = 1e-5, .min = 1e-30, .max = 1e6,
               .help = "added to the variance inside the root"},
              {"momentum", EK_ATTR_REAL, .allow_none = true, .fallback = 0.1, .min = 0, .max = 1,
               .help =
                   "running = (1-momentum)*running + momentum*batch; none: the plain average of all batches"},
              {"scale", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn gamma"},
              {"shift", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "learn beta"},
              {"track", EK_ATTR_BOOL, .fallback = 1, .max = 1,
               .help = "keep running statistics; without, inference uses the batch's"},
              {"frozen", EK_ATTR_BOOL, .fallback = 0, .max = 1,
               .help = "use the running statistics in training too, and leave them"},
              {"unbiased", EK_ATTR_BOOL, .fallback = 1, .max = 1,
               .help = "running_var takes M2/(m-1), not M2/m"},
              {"ghost", EK_ATTR_COUNT, .fallback = 0, .min = 0, .max = 1 << 24,
               .help = "samples of a ghost batch, normalized by itself in training; 0: the whole batch"},
              {"r_max", EK_ATTR_REAL, .fallback = 1, .min = 1, .max = 1e6,
               .help = "batch renormalization: how far, as a factor, training's deviation is corrected to the running one"},
              {"d_max", EK_ATTR_REAL, .fallback = 0, .min = 0, .max = 1e6,
               .help = "batch renormalization: how far, in deviations, training's mean is corrected to the running one"},
              {"renorm_steps", EK_ATTR_COUNT, .fallback = 0, .min = 0, .max = 1 << 30,
               .help = "training steps in which r_max and d_max rise to their values"}},
    .shape = shape,
    .params = params,
    .workspace = workspace,
    .scratch = scratch,
    .writes = EK_WRITES_ALL,
    .normalizes = true,
    .cancels_bias = cancels_bias,
    .check = check,
    .forward = forward,
    .backward = backward,
    .commit = commit,
    .reference_kept = reference_kept,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
    .reference_commit = reference_commit,
};
