/* The passes of a batchnorm in ghost batches. Moments and sums are taken by lane and put together by channel, ghost batch after
 * ghost batch:
 *
 *   y  = gamma*xhat + beta, where xhat = (x - mean)*a + b is made with the ghost batch's mean and 1/sqrt(var + eps) = a
 *   dx = gamma*a*(g - sum g/m - xhat*sum(g*xhat)/m), with sums over the ghost batch's m values of the channel
 *   dgamma = sum g*xhat, dbeta = sum g, over all
 */
#include "norm/batch_norm.h"
#include "ops/batchnorm.h"
#include "ops/elementwise.h"

#include <math.h>

typedef struct work {
    ek_elementwise w;
    /* [block][channel][lane]; where the moments stood are the sums [block][channel][2][lane] in the backward pass. */
    float *mean, *a, *b, *slope, *constant;
    ek_sample_moments *moments;
    double *sums;
    const ek_batch_norm_saved *saved;
    double eps;
    int64_t rows; /* positions of a channel */
} work;

enum { TERMS = 5 };

static size_t lane_floats(const ek_node *node, int64_t samples)
{
    return (size_t)(node->in[0].dim[0] * ek_blocks(samples) * EK_LANES);
}

size_t ek_ghost_workspace(const ek_node *node, int64_t samples)
{
    size_t lanes = lane_floats(node, samples);
    return TERMS * lanes + lanes / EK_LANES * (sizeof(ek_sample_moments) / sizeof(float));
}

static work make_work(const ek_pass *pass, ek_node *node, const ek_flow *flow, void *room)
{
    size_t lanes = lane_floats(node, pass->n);
    float *at = room;
    void *parts = at + TERMS * lanes;
    return (work){.w = ek_elementwise_of(pass, node, flow),
                  .mean = at,
                  .a = at + lanes,
                  .b = at + 2 * lanes,
                  .slope = at + 3 * lanes,
                  .constant = at + 4 * lanes,
                  .moments = parts,
                  .sums = parts,
                  .rows = ek_channel_floats(node->in[0]) / EK_LANES};
}

/* Values of a channel in samples [first, end). */
static int64_t ghost_values(const ek_node *node, const int32_t *length, int64_t first, int64_t end)
{
    int64_t sum = 0;
    if (!length) return (end - first) * (ek_shape_count(node->in[0]) / node->in[0].dim[0]);
    for (int64_t s = first; s < end; s++) sum += length[s];
    return sum;
}

int64_t ek_ghost_end(const ek_node *node, const int32_t *length, int64_t n, int64_t first)
{
    int64_t end = first + ek_ghost_size(node);
    return end > n || (end == n - 1 && ghost_values(node, length, end, n) < 2) ? n : end;
}

ek_status ek_ghost_check(const ek_pass *pass, const ek_node *node)
{
    const int32_t *length = ek_input_length(pass->length, node);
    for (int64_t s = 0, end; s < pass->n; s = end) {
        end = ek_ghost_end(node, length, pass->n, s);
        if (ghost_values(node, length, s, end) < 2)
            return ek_fail(
                EK_E_SHAPE,
                "%s has one value a channel in the ghost batch that begins with sample %lld, and one value "
                "has no variance: use larger ghost batches, or leave out the shortest sequences",
                node->label, (long long)s);
    }
    return EK_OK;
}

/* Channel c of sample s, in arrays [block][channel]. */
static int64_t part_of(const work *w, int64_t c, int64_t s) { return s / EK_LANES * w->w.channels + c; }
static int lane_of(int64_t s) { return (int)(s % EK_LANES); }

static ek_sample_slab slab_of(const work *w, int64_t block)
{
    return (ek_sample_slab){.groups = w->w.channels,
                            .channels = 1,
                            .rows = w->rows,
                            .live = ek_live(w->w.pass->n, block),
                            .length = ek_block_length(w->w.pass, w->w.node, block)};
}

static ek_sample_terms terms_of(const work *w, int64_t block)
{
    int64_t at = block * w->w.channels * EK_LANES;
    return (ek_sample_terms){.mean = w->mean + at, .a = w->a + at, .b = w->b + at, .slope = w->slope + at,
                             .constant = w->constant + at, .gain = ek_node_data(w->w.node, EK_ROLE_GAMMA),
                             .offset = ek_node_data(w->w.node, EK_ROLE_BETA)};
}

/* --- forward */

static void moments_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    ek_sample_slab slab = slab_of(w, block);
    w->w.kernels->sample_moments(&slab, w->w.flow->x[0].x + block * w->w.block, w->moments + block * w->w.channels);
}

/* Of samples [first, end), from the counts, means and M2 of each:
 *
 *   mean = sum of count*mean / sum of counts        M2 = sum of M2 + count*(mean of sample - mean)^2
 *
 * which is what merging them one by one gives, with one division. */
static ek_moments ghost_moments(const work *w, int64_t c, int64_t first, int64_t end)
{
    ek_moments all = {0};
    for (int64_t s = first; s < end; s++) {
        const ek_sample_moments *of = &w->moments[part_of(w, c, s)];
        all.count += of->count[lane_of(s)];
        all.mean += of->count[lane_of(s)] * of->mean[lane_of(s)];
    }
    all.mean /= all.count;
    for (int64_t s = first; s < end; s++) {
        const ek_sample_moments *of = &w->moments[part_of(w, c, s)];
        double off = of->mean[lane_of(s)] - all.mean;
        all.m2 += of->m2[lane_of(s)] + of->count[lane_of(s)] * off * off;
    }
    return all;
}

/* The same, and what they are normalized with. */
static ek_moments ghost_terms(const work *w, int64_t c, int64_t first, int64_t end)
{
    ek_moments all = ghost_moments(w, c, first, end);
    double inverse = 1 / sqrt(all.m2 / all.count + w->eps);
    float mean = (float)all.mean, a = (float)inverse, b = (float)((mean - all.mean) * inverse);
    for (int64_t s = first; s < end; s++) {
        int64_t at = part_of(w, c, s) * EK_LANES + lane_of(s);
        w->mean[at] = mean;
        w->a[at] = a;
        w->b[at] = b;
    }
    return all;
}

static void channel_piece(void *argument, int64_t c, int thread)
{
    (void)thread;
    const work *w = argument;
    ek_moments all = {0};
    int64_t n = w->w.pass->n;
    const int32_t *length = ek_input_length(w->w.pass->length, w->w.node);
    for (int64_t s = 0, end; s < n; s = end) {
        end = ek_ghost_end(w->w.node, length, n, s);
        ek_moments_merge(&all, ghost_terms(w, c, s, end));
    }
    ek_batchnorm_save(w->saved, c, all, w->eps);
}

static void apply_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    ek_sample_slab slab = slab_of(w, block);
    ek_sample_terms terms = terms_of(w, block);
    int64_t at = block * w->w.block;
    w->w.kernels->sample_apply(&slab, &terms, w->w.flow->x[0].x + at, w->w.flow->y + at);
}

void ek_ghost_forward(const ek_pass *pass, ek_node *node, const ek_flow *flow, void *room, const ek_batch_norm_saved *saved,
                      double eps)
{
    work w = make_work(pass, node, flow, room);
    w.saved = saved;
    w.eps = eps;
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), moments_piece, &w);
    ek_pool_run(pass->context->pool, w.w.channels, channel_piece, &w);
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), apply_piece, &w);
}

void ek_ghost_row(const ek_pass *pass, const ek_node *node, void *room, int64_t block, int64_t channel,
                  const float x[EK_LANES], float y[EK_LANES])
{
    ek_node *of = (ek_node *)node;
    work w = make_work(pass, of, NULL, room);
    const float *gamma = ek_node_data(of, EK_ROLE_GAMMA), *beta = ek_node_data(of, EK_ROLE_BETA);
    for (int i = 0; i < EK_LANES; i++) {
        int64_t at = (block * w.w.channels + channel) * EK_LANES + i;
        float xhat = (x[i] - w.mean[at]) * w.a[at] + w.b[at];
        y[i] = xhat * (gamma ? gamma[channel] : 1) + (beta ? beta[channel] : 0);
    }
}

/* --- backward */

static void sums_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    ek_sample_slab slab = slab_of(w, block);
    ek_sample_terms terms = terms_of(w, block);
    int64_t at = block * w->w.block;
    terms.gain = NULL; /* sums of g itself */
    w->w.kernels->sample_backward_sums(&slab, &terms, w->w.flow->x[0].x + at, w->w.flow->dy.g + at,
                                       w->sums + block * w->w.channels * 2 * EK_LANES, NULL, NULL);
}

/* Of samples [first, end): the sums of g and of g*xhat. Sets what dx is made with. */
static void ghost_gradient(const work *w, int64_t c, double gamma, int64_t first, int64_t end, double sums[2])
{
    double g = 0, gx = 0, m = (double)ghost_values(w->w.node, ek_input_length(w->w.pass->length, w->w.node), first, end);
    for (int64_t s = first; s < end; s++) {
        const double *of = w->sums + part_of(w, c, s) * 2 * EK_LANES + lane_of(s);
        g += of[0];
        gx += of[EK_LANES];
    }
    int64_t any = part_of(w, c, first) * EK_LANES + lane_of(first);
    double a = w->a[any], b = w->b[any], gxhat = a * gx + b * g;
    for (int64_t s = first; s < end; s++) {
        int64_t at = part_of(w, c, s) * EK_LANES + lane_of(s);
        w->slope[at] = (float)(-gamma * a * a * gxhat / m);
        w->constant[at] = (float)(-gamma * a * (g + b * gxhat) / m);
    }
    sums[0] += g;
    sums[1] += gxhat;
}

static void channel_gradient_piece(void *argument, int64_t c, int thread)
{
    (void)thread;
    const work *w = argument;
    const ek_param *gamma = ek_node_param(w->w.node, EK_ROLE_GAMMA), *beta = ek_node_param(w->w.node, EK_ROLE_BETA);
    double sums[2] = {0, 0};
    int64_t n = w->w.pass->n;
    const int32_t *length = ek_input_length(w->w.pass->length, w->w.node);
    for (int64_t s = 0, end; s < n; s = end) {
        end = ek_ghost_end(w->w.node, length, n, s);
        ghost_gradient(w, c, gamma ? gamma->data[c] : 1, s, end, sums);
    }
    if (beta) beta->grad[c] = (float)sums[0];
    if (gamma) gamma->grad[c] = (float)sums[1];
}

static void gradient_piece(void *argument, int64_t block, int thread)
{
    const work *w = argument;
    ek_sample_slab slab = slab_of(w, block);
    ek_sample_terms terms = terms_of(w, block);
    ek_slab whole = ek_elementwise_slab(&w->w, block);
    ek_grad_out o = ek_elementwise_out(&w->w, 0, block);
    float *dv = ek_elementwise_dv(&w->w, &o, thread);
    int64_t at = block * w->w.block;
    w->w.kernels->sample_backward_apply(&slab, &terms, w->w.flow->x[0].x + at, w->w.flow->dy.g + at, dv);
    ek_elementwise_finish(&w->w, &whole, &o, dv);
}

void ek_ghost_backward(const ek_pass *pass, ek_node *node, const ek_flow *flow, void *room)
{
    work w = make_work(pass, node, flow, room);
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), sums_piece, &w);
    ek_pool_run(pass->context->pool, w.w.channels, channel_gradient_piece, &w);
    if (flow->dx[0].g) ek_pool_run(pass->context->pool, ek_blocks(pass->n), gradient_piece, &w);
}
