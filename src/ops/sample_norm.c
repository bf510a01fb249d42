/* layernorm, groupnorm, instancenorm, rmsnorm: each sample is normalized by itself, in training and inference alike.
 * Over the m numbers of a group:
 *
 *   mean = sum x/m        var = sum (x - mean)^2/m        xhat = (x - mean)/sqrt(var + eps)        y = weight*xhat + bias
 *   dx = (h - sum h/m - xhat*sum(h*xhat)/m)/sqrt(var + eps), where h = weight*dy
 *
 * A group is a whole sample (layernorm, rmsnorm), as many channels as groupnorm says, or one (instancenorm). weight and bias
 * are one for each number of a sample (layernorm, rmsnorm) or one a channel. rmsnorm has no mean: xhat = x/sqrt(sum x^2/m +
 * eps), and no middle term in dx.
 */
#include "ops/elementwise.h"

#include <math.h>
#include <string.h>

enum { EPS, SCALE, SHIFT, GROUPS, TRACK = GROUPS };

extern const ek_op ek_op_layernorm, ek_op_groupnorm, ek_op_instancenorm, ek_op_rmsnorm;

static bool is_rms(const ek_node *node) { return node->op == &ek_op_rmsnorm; }
static bool by_element(const ek_node *node) { return node->op == &ek_op_layernorm || is_rms(node); }
static bool has_bias(const ek_node *node) { return !is_rms(node) && ek_attr_bool(node, SHIFT); }

static int64_t groups_of(const ek_node *node)
{
    if (by_element(node)) return 1;
    return node->op == &ek_op_groupnorm ? ek_attr_int(node, GROUPS) : node->in[0].dim[0];
}

/* Numbers of a group. */
static int64_t group_size(const ek_node *node) { return ek_shape_count(node->in[0]) / groups_of(node); }

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    int64_t channels = node->in[0].dim[0], groups = groups_of(node);
    if (channels % groups)
        return ek_fail(EK_E_SHAPE, "groupnorm's %lld groups must divide the %lld %s of its input", (long long)groups,
                       (long long)channels, node->in[0].rank > 1 ? "channels" : "features");
    if (group_size(node) < 2)
        return ek_fail(EK_E_SHAPE,
                       "%s would normalize each number of %s by itself, and one number has no deviation: normalize over "
                       "more of the sample (layernorm, groupnorm with fewer groups), or over the batch (batchnorm)",
                       node->op->name, ek_shape_text(node->in[0], text));
    return ek_same_shape(node);
}

static ek_status instance_shape(ek_node *node)
{
    if (ek_attr_bool(node, TRACK))
        return ek_fail(EK_E_ARGUMENT, "instancenorm keeps no running statistics, a sample has its own in inference too: "
                                      "leave out track=true");
    return shape(node);
}

static void params(ek_node *node)
{
    ek_shape each = by_element(node) ? node->in[0] : (ek_shape){1, {node->in[0].dim[0]}};
    if (ek_attr_bool(node, SCALE)) ek_node_add_param(node, EK_ROLE_GAMMA, "weight", each);
    if (has_bias(node)) ek_node_add_param(node, EK_ROLE_BETA, "bias", each);
}

/* Each channel is normalized by itself: what is added to all of it goes away. */
static bool cancels_bias(const ek_node *node) { return !by_element(node) && groups_of(node) == node->in[0].dim[0]; }

/* Gradients of weight and bias are summed in parts, over neighbouring blocks; their number depends on the number of blocks
 * alone. */
enum { MAX_PARTS = 16 };
static int64_t parts_of(int64_t blocks) { return blocks < MAX_PARTS ? blocks : MAX_PARTS; }

/* Numbers of weight, and of bias. */
static int64_t gains_of(const ek_node *node) { return by_element(node) ? ek_shape_count(node->in[0]) : node->in[0].dim[0]; }

/* The workspace: by block mean, a and b of ek_sample_terms, then the parts of both gradients. */
enum { TERMS = 3 };
static size_t terms_floats(const ek_node *node) { return (size_t)(groups_of(node) * EK_LANES); }

static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    size_t terms = TERMS * terms_floats(node) * (size_t)ek_blocks(samples);
    return terms + (training ? 2 * (size_t)gains_of(node) * (size_t)parts_of(ek_blocks(samples)) : 0);
}

/* A thread's: dv of a block (see ek_elementwise_dv), then moments forward, sums, slope and constant backward. */
static size_t scratch(const ek_node *node, int64_t samples)
{
    (void)samples;
    size_t groups = (size_t)groups_of(node), floats = sizeof(ek_sample_moments) / sizeof(float);
    return (size_t)ek_block_floats(node->in[0]) + groups * floats; /* more than the others take */
}

static void *scratch_behind(const ek_elementwise *w, int thread) { return ek_scratch(w->pass, thread) + w->block; }

static ek_sample_terms terms_of(const ek_elementwise *w, int64_t block)
{
    size_t each = terms_floats(w->node);
    const float *at = w->node->workspace + TERMS * each * (size_t)block;
    return (ek_sample_terms){.mean = at,
                             .a = at + each,
                             .b = at + 2 * each,
                             .gain = ek_node_data(w->node, EK_ROLE_GAMMA),
                             .offset = ek_node_data(w->node, EK_ROLE_BETA)};
}

static ek_sample_slab slab_of(const ek_elementwise *w, int64_t block)
{
    int64_t groups = groups_of(w->node);
    return (ek_sample_slab){.groups = groups,
                            .channels = w->channels / groups,
                            .rows = ek_channel_floats(w->node->in[0]) / EK_LANES,
                            .live = ek_live(w->pass->n, block),
                            .length = ek_block_length(w->pass, w->node, block),
                            .row_gains = by_element(w->node)};
}

/* Of what the float mean lacks, b takes care: xhat = (x - mean)*a - low*a. */
static void set_terms(const ek_node *node, const ek_sample_slab *s, const ek_sample_moments *moments, const ek_sample_terms *t)
{
    float *mean = (float *)t->mean, *a = (float *)t->a, *b = (float *)t->b;
    double eps = ek_attr_real(node, EPS);
    bool rms = is_rms(node);
    for (int64_t g = 0; g < s->groups; g++, mean += EK_LANES, a += EK_LANES, b += EK_LANES) {
        const ek_sample_moments *m = &moments[g];
        for (int lane = 0; lane < EK_LANES; lane++) {
            double count = m->count[lane] > 0 ? m->count[lane] : 1;
            double var = m->m2[lane] / count + (rms ? m->mean[lane] * m->mean[lane] : 0);
            double inverse = 1 / sqrt(var + eps);
            mean[lane] = rms ? 0 : (float)m->mean[lane];
            a[lane] = (float)inverse;
            b[lane] = rms ? 0 : (float)((mean[lane] - m->mean[lane]) * inverse);
        }
    }
}

static void forward_piece(void *argument, int64_t block, int thread)
{
    const ek_elementwise *w = argument;
    const float *x = w->flow->x[0].x + block * w->block;
    ek_sample_slab slab = slab_of(w, block);
    ek_sample_terms terms = terms_of(w, block);
    ek_sample_moments *moments = scratch_behind(w, thread);
    w->kernels->sample_moments(&slab, x, moments);
    set_terms(w->node, &slab, moments, &terms);
    w->kernels->sample_apply(&slab, &terms, x, w->flow->y + block * w->block);
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow) { ek_each_block(pass, node, flow, forward_piece); }

/* The part's gradients of weight and bias. */
static float *part_of(const ek_elementwise *w, int64_t part)
{
    size_t terms = TERMS * terms_floats(w->node) * (size_t)ek_blocks(w->pass->n);
    return w->node->workspace + terms + 2 * gains_of(w->node) * part;
}

/* With xhat = (x - mean)*a + b:
 *
 *   dx = a*h + slope*(x - mean) + constant        slope = -a*a*sum(h*xhat)/m        constant = -a*sum h/m - a*b*sum(h*xhat)/m */
static void set_backward_terms(const ek_node *node, const ek_sample_slab *s, const double *sums, ek_sample_terms *t, float *room)
{
    float *slope = room, *constant = room + s->groups * EK_LANES;
    t->slope = slope;
    t->constant = constant;
    for (int64_t g = 0; g < s->groups; g++, sums += 2 * EK_LANES)
        for (int lane = 0; lane < EK_LANES; lane++) {
            int64_t at = g * EK_LANES + lane, rows = ek_sample_rows(s, lane);
            double m = (double)(s->channels * (rows > 0 ? rows : 1)), a = t->a[at], b = t->b[at];
            double h = sums[lane] / m, hxhat = (a * sums[EK_LANES + lane] + b * sums[lane]) / m;
            slope[at] = (float)(-a * a * hxhat);
            constant[at] = (float)(-(is_rms(node) ? 0 : a * h) - a * b * hxhat);
        }
}

static void backward_block(const ek_elementwise *w, int64_t block, float *dgain, float *doffset, int thread)
{
    const float *x = w->flow->x[0].x + block * w->block, *dy = w->flow->dy.g + block * w->block;
    ek_sample_slab slab = slab_of(w, block);
    ek_sample_terms terms = terms_of(w, block);
    double *sums = scratch_behind(w, thread);
    w->kernels->sample_backward_sums(&slab, &terms, x, dy, sums, dgain, doffset);
    if (!w->flow->dx[0].g) return;
    set_backward_terms(w->node, &slab, sums, &terms, (float *)(sums + slab.groups * 2 * EK_LANES));
    ek_grad_out o = ek_elementwise_out(w, 0, block);
    float *dv = ek_elementwise_dv(w, &o, thread);
    ek_slab whole = ek_elementwise_slab(w, block);
    w->kernels->sample_backward_apply(&slab, &terms, x, dy, dv);
    ek_elementwise_finish(w, &whole, &o, dv);
}

static void backward_piece(void *argument, int64_t part, int thread)
{
    const ek_elementwise *w = argument;
    int64_t blocks = ek_blocks(w->pass->n), parts = parts_of(blocks), gains = gains_of(w->node);
    float *dgain = part_of(w, part), *doffset = dgain + gains;
    memset(dgain, 0, (size_t)(2 * gains) * sizeof *dgain);
    for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; b++)
        backward_block(w, b, ek_node_param(w->node, EK_ROLE_GAMMA) ? dgain : NULL,
                       ek_node_param(w->node, EK_ROLE_BETA) ? doffset : NULL, thread);
}

/* Numbers [first, first + count) of a parameter's gradient; `offset`: where its own begin in a part. */
static void sum_parts(const ek_elementwise *w, const ek_param *param, int64_t offset, int64_t first, int64_t count)
{
    if (!param) return;
    float *to = param->grad + first;
    memcpy(to, part_of(w, 0) + offset + first, (size_t)count * sizeof *to);
    for (int64_t p = 1; p < parts_of(ek_blocks(w->pass->n)); p++)
        w->kernels->add(count, to, part_of(w, p) + offset + first, to);
}

enum { CHUNK = 4096 };

static void sum_piece(void *argument, int64_t chunk, int thread)
{
    (void)thread;
    const ek_elementwise *w = argument;
    int64_t gains = gains_of(w->node), first = chunk * CHUNK, count = gains - first < CHUNK ? gains - first : CHUNK;
    sum_parts(w, ek_node_param(w->node, EK_ROLE_GAMMA), 0, first, count);
    sum_parts(w, ek_node_param(w->node, EK_ROLE_BETA), gains, first, count);
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_elementwise work = ek_elementwise_of(pass, node, flow);
    ek_pool_run(pass->context->pool, parts_of(ek_blocks(pass->n)), backward_piece, &work);
    if (node->param_count > 0) ek_pool_run(pass->context->pool, (gains_of(node) + CHUNK - 1) / CHUNK, sum_piece, &work);
}

/* --- reference */

/* Of group g, counted over all samples, the numbers that count: all, or of a sequence those within its length. */
typedef struct numbers {
    int64_t all, alive;
    int64_t row, row_alive; /* of a channel */
} numbers;

static numbers numbers_of(const ek_ref *ref, const ek_node *node, int64_t g)
{
    const int32_t *length = ek_input_length(ref->length, node);
    int64_t row = ek_channel_floats(node->in[0]) / EK_LANES, all = group_size(node);
    int64_t alive = length ? length[g / groups_of(node)] : row;
    return (numbers){all, all / row * alive, row, alive};
}

static bool counts(const numbers *n, int64_t i) { return i % n->row < n->row_alive; }

/* Mean (0 of rmsnorm) and 1/sqrt(var + eps). */
static void reference_statistics(const ek_node *node, const numbers *n, const double *x, double *mean,
                                 double *inverse)
{
    double sum = 0, squares = 0, m = (double)n->alive;
    for (int64_t i = 0; i < n->all; i++) sum += counts(n, i) ? x[i] : 0;
    *mean = is_rms(node) ? 0 : sum / m;
    for (int64_t i = 0; i < n->all; i++) squares += counts(n, i) ? (x[i] - *mean) * (x[i] - *mean) : 0;
    *inverse = 1 / sqrt(squares / m + ek_attr_real(node, EPS));
}

/* Which weight and bias number `element` of a sample has. */
static int64_t gain_at(const ek_node *node, int64_t element)
{
    return by_element(node) ? element : element / (ek_shape_count(node->in[0]) / node->in[0].dim[0]);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t groups = groups_of(node), m = group_size(node);
    const double *weight = ek_reference_of(ref->param, node, EK_ROLE_GAMMA), *bias = ek_reference_of(ref->param, node, EK_ROLE_BETA);
    for (int64_t g = 0; g < ref->n * groups; g++) {
        double mean, inverse;
        numbers n = numbers_of(ref, node, g);
        reference_statistics(node, &n, x[0] + g * m, &mean, &inverse);
        for (int64_t i = 0; i < m; i++) {
            int64_t gain = gain_at(node, g % groups * m + i);
            y[g * m + i] = (x[0][g * m + i] - mean) * inverse * (weight ? weight[gain] : 1) + (bias ? bias[gain] : 0);
        }
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                               const double *dy, double *const dx[])
{
    (void)y;
    int64_t groups = groups_of(node), m = group_size(node);
    const double *weight = ek_reference_of(ref->param, node, EK_ROLE_GAMMA);
    double *dweight = ek_reference_of(ref->grad, node, EK_ROLE_GAMMA), *dbias = ek_reference_of(ref->grad, node, EK_ROLE_BETA);
    for (int64_t g = 0; g < ref->n * groups; g++) {
        double mean, inverse, sum_h = 0, sum_hxhat = 0;
        numbers n = numbers_of(ref, node, g);
        reference_statistics(node, &n, x[0] + g * m, &mean, &inverse);
        for (int64_t i = 0; i < m; i++) {
            int64_t at = g * m + i, gain = gain_at(node, g % groups * m + i);
            double xhat = (x[0][at] - mean) * inverse, h = dy[at] * (weight ? weight[gain] : 1);
            if (dweight) dweight[gain] += dy[at] * xhat;
            if (dbias) dbias[gain] += dy[at];
            sum_h += h;
            sum_hxhat += h * xhat;
        }
        for (int64_t i = 0; dx[0] && i < m; i++) {
            int64_t at = g * m + i, gain = gain_at(node, g % groups * m + i);
            double xhat = (x[0][at] - mean) * inverse, h = dy[at] * (weight ? weight[gain] : 1);
            dx[0][at] += inverse * (h - (is_rms(node) ? 0 : sum_h) / (double)n.alive -
                                    xhat * sum_hxhat / (double)n.alive);
        }
    }
}

/* --- the operators; defaults as in PyTorch */

#define EPS_OPTION(default_eps) \
    {"eps", EK_ATTR_REAL, .fallback = (default_eps), .min = 1e-30, .max = 1e6, .help = "added to the variance inside the root"}
#define SCALE_OPTION(on) {"scale", EK_ATTR_BOOL, .fallback = (on), .max = 1, .help = "learn a weight"}
#define SHIFT_OPTION(on) {"shift", EK_ATTR_BOOL, .fallback = (on), .max = 1, .help = "learn a bias"}

#define SAMPLE_NORM                                                                                                      \
    .inputs = 1, .params = params, .workspace = workspace, .scratch = scratch, .forward = forward, .backward = backward, \
    .writes = EK_WRITES_ALL, .normalizes = true, .cancels_bias = cancels_bias, .reference_forward = reference_forward,   \
    .reference_backward = reference_backward

const ek_op ek_op_layernorm = {
    .name = "layernorm",
    .attrs = {EPS_OPTION(1e-5), SCALE_OPTION(1), SHIFT_OPTION(1)},
    .shape = shape,
    SAMPLE_NORM,
};

const ek_op ek_op_groupnorm = {
    .name = "groupnorm",
    .attrs = {EPS_OPTION(1e-5), SCALE_OPTION(1), SHIFT_OPTION(1),
              {"groups", EK_ATTR_COUNT, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "groups of channels, each normalized by itself"}},
    .shape = shape,
    SAMPLE_NORM,
};

const ek_op ek_op_instancenorm = {
    .name = "instancenorm",
    .attrs = {EPS_OPTION(1e-5), SCALE_OPTION(0), SHIFT_OPTION(0),
              {"track", EK_ATTR_BOOL, .fallback = 0, .max = 1, .help = "running statistics, which it does not keep"}},
    .shape = instance_shape,
    SAMPLE_NORM,
};

const ek_op ek_op_rmsnorm = {
    .name = "rmsnorm",
    .attrs = {EPS_OPTION(0x1p-23), SCALE_OPTION(1)},
    .shape = shape,
    SAMPLE_NORM,
};
