/* linear OUT: y = x W^T + bias, weights [out, in] as in PyTorch. */
#include "ops/batchnorm.h"

enum { OUT, BIAS };

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    if (node->in[0].rank != 1)
        return ek_fail(EK_E_SHAPE,
                       "linear works on features, its input is the map %s; put 'flatten' before it",
                       ek_shape_text(node->in[0], text));
    node->out = (ek_shape){1, {ek_attr_int(node, OUT)}};
    return EK_OK;
}

static void params(ek_node *node)
{
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    ek_node_add_weights(node, (ek_shape){2, {out, in}}, in, out, ek_attr_bool(node, BIAS) ? out : 0);
}

static int64_t multiply_adds(const ek_node *node) { return node->in[0].dim[0] * node->out.dim[0]; }

/* x as rows [sample][in], for the weights' gradient; where there is none to come, there is no room. */
static size_t workspace(const ek_node *node, int64_t samples, bool training)
{
    return training ? (size_t)ek_value_floats(node->in[0], samples) : 0;
}

/* A piece is a range of features over all samples, so that a batchnorm and an activation of these features can be finished
 * in it. */
enum { FEATURES = 16 };
/* A single block of a small layer is done in less time than a worker takes to wake. */
enum { SMALL = 1 << 16 };

static int64_t piece_features(const ek_linear *g, int64_t blocks)
{
    bool small = blocks == 1 && g->in * g->out <= SMALL;
    return small ? (g->in > g->out ? g->in : g->out) : FEATURES;
}

typedef struct work {
    const ek_pass *pass;
    const ek_kernels *kernels;
    ek_node *node;
    const ek_flow *flow;
    ek_linear g;
    int64_t blocks;
    int64_t each; /* features of a piece */
    float *weight_grad, *bias_grad;
} work;

static work make_work(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    ek_param *bias = ek_node_live_bias(node);
    ek_linear g = {node->in[0].dim[0], node->out.dim[0]};
    return (work){.pass = pass,
                  .kernels = pass->kernels,
                  .node = node,
                  .flow = flow,
                  .g = g,
                  .blocks = ek_blocks(pass->n),
                  .each = piece_features(&g, ek_blocks(pass->n)),
                  .weight_grad = node->param[0].grad,
                  .bias_grad = bias ? bias->grad : NULL};
}

static int64_t pieces_of(const work *w, int64_t features) { return (features + w->each - 1) / w->each; }

/* A pass has `a` pieces of one kind and `b` of another, dealt so that each half of them has half of either: half of
 * a, half of b, the rest of b, the rest of a. Threads take runs of pieces, and so meet the same features from layer to
 * layer, in their own caches. The place of `piece` among the first kind, then those of the second. */
static int64_t deal(int64_t piece, int64_t a, int64_t b)
{
    int64_t first = (a + 1) / 2;
    if (piece < first) return piece;
    return piece < first + b ? a + piece - first : piece - b;
}

/* Features [first, first + slab.channels) of a value of `features`. */
static ek_slab slab_of(const work *w, int64_t features, int64_t first)
{
    int64_t left = features - first;
    return (ek_slab){.channels = left < w->each ? left : w->each,
                     .length = EK_LANES,
                     .blocks = w->blocks,
                     .block = features * EK_LANES,
                     .live = ek_live(w->pass->n, w->blocks - 1)};
}

/* v = f(BN(y)) */
static void finish_features(const work *w, const ek_slab *slab, int64_t first)
{
    const ek_flow *flow = w->flow;
    const float *y = flow->y + first * EK_LANES;
    ek_map_in v = {.x = y};
    if (flow->norm) {
        ek_moments *moments = ek_batchnorm_moments(w->pass, flow->norm);
        if (moments) w->kernels->moments(slab, y, moments + first);
        ek_batchnorm_prepare(w->pass, flow->norm, first, slab->channels, 1);
        v = ek_map_channels(ek_batchnorm_map(flow->norm, flow->y), first, EK_LANES);
    }
    v.activation = flow->f;
    v.slope = flow->slope;
    w->kernels->map_read(slab, &v, flow->v + first * EK_LANES);
}

static void forward_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const work *w = argument;
    const ek_flow *flow = w->flow;
    const ek_param *bias = ek_node_live_bias(w->node);
    piece = deal(piece, pieces_of(w, w->g.out), w->node->workspace ? w->blocks : 0);
    if (piece < pieces_of(w, w->g.out)) {
        int64_t first = piece * w->each;
        ek_slab slab = slab_of(w, w->g.out, first);
        w->kernels->linear_forward(&w->g, w->blocks, first, slab.channels, flow->x[0].x, w->node->param[0].data,
                                   bias ? bias->data : NULL, flow->y);
        if (flow->v) finish_features(w, &slab, first);
    } else {
        int64_t block = piece - pieces_of(w, w->g.out), at = block * w->g.in * EK_LANES;
        w->kernels->lanes_to_rows(w->g.in, ek_live(w->pass->n, block), flow->x[0].x + at, w->node->workspace + at);
    }
}

static void forward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    ek_pool_run(pass->context->pool, pieces_of(&w, w.g.out) + (node->workspace ? w.blocks : 0), forward_piece, &w);
}

/* The sums of each block apart, as the batchnorm that was read through wants them. */
static void write_blocks(const work *w, const ek_slab *slab, int64_t first)
{
    for (int64_t b = 0; b < w->blocks; b++) {
        ek_slab part = *slab;
        part.blocks = 1;
        part.live = ek_live(w->pass->n, b);
        ek_grad_out block = ek_grad_out_block(w->pass, &w->flow->dx[0], b, slab->block, w->g.in);
        ek_grad_out o = ek_grad_out_channels(&block, first, EK_LANES, w->g.in);
        w->kernels->grad_write(&part, &o, o.g);
    }
}

/* From dv in its place to g; where the value was finished by the linear before, to the gradient of that one's y. */
static void finish_gradient(const work *w, const ek_slab *slab, int64_t first)
{
    const ek_flow *flow = w->flow;
    int64_t at = first * EK_LANES;
    ek_grad_out o = ek_grad_out_channels(&flow->dx[0], first, EK_LANES, w->g.in);
    if (!flow->norm_dx) {
        write_blocks(w, slab, first);
        return;
    }
    w->kernels->grad_write(slab, &o, o.g);
    ek_batchnorm_prepare_backward(w->pass, flow->norm_dx, first, slab->channels, 1);
    ek_grad_in d = ek_grad_in_channels(
        ek_batchnorm_gradient(w->pass, flow->norm_dx, flow->dx[0].value.x, flow->dx[0].g), first, EK_LANES);
    w->kernels->grad_read(slab, &d, flow->dx[0].g + at);
}

static void backward_piece(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const work *w = argument;
    const ek_flow *flow = w->flow;
    piece = deal(piece, pieces_of(w, w->g.out), flow->dx[0].g ? pieces_of(w, w->g.in) : 0);
    if (piece < pieces_of(w, w->g.out)) {
        int64_t first = piece * w->each;
        ek_slab slab = slab_of(w, w->g.out, first);
        w->kernels->linear_backward_weights(&w->g, w->pass->n, first, slab.channels, w->node->workspace, flow->dy.g,
                                            w->weight_grad, w->bias_grad);
    } else {
        int64_t first = (piece - pieces_of(w, w->g.out)) * w->each;
        ek_slab slab = slab_of(w, w->g.in, first);
        w->kernels->linear_backward_data(&w->g, w->blocks, first, slab.channels, flow->dy.g, w->node->param[0].data,
                                         flow->dx[0].g);
        if (ek_grad_out_asks(&flow->dx[0])) finish_gradient(w, &slab, first);
    }
}

static void backward(const ek_pass *pass, ek_node *node, const ek_flow *flow)
{
    work w = make_work(pass, node, flow);
    int64_t pieces = pieces_of(&w, w.g.out) + (flow->dx[0].g ? pieces_of(&w, w.g.in) : 0);
    ek_pool_run(pass->context->pool, pieces, backward_piece, &w);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    for (int64_t n = 0; n < ref->n; n++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = ref->param[1] ? ref->param[1][o] : 0;
            for (int64_t i = 0; i < in; i++) sum += ref->param[0][o * in + i] * x[0][n * in + i];
            y[n * out + o] = sum;
        }
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    for (int64_t n = 0; n < ref->n; n++) {
        for (int64_t o = 0; o < out; o++) {
            double g = dy[n * out + o];
            if (ref->grad[1]) ref->grad[1][o] += g;
            for (int64_t i = 0; i < in; i++) {
                if (ref->grad[0]) ref->grad[0][o * in + i] += g * x[0][n * in + i];
                if (dx[0]) dx[0][n * in + i] += g * ref->param[0][o * in + i];
            }
        }
    }
}

const ek_op ek_op_linear = {
    .name = "linear",
    .inputs = 1,
    .attrs = {{"out", EK_ATTR_COUNT, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "output features"},
              {"bias", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "add a bias"}},
    .shape = shape,
    .params = params,
    .workspace = workspace,
    .writes = EK_WRITES_SUMS | EK_WRITES_ACTIVATION,
    .multiply_adds = multiply_adds,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
