/* From floats to numbers of eight bits. */
#include "ccode/quantize.h"

#include "core/memory.h"
#include "ops/batchnorm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is(const ek_node *node, const char *op) { return !strcmp(node->op->name, op); }

static bool is_among(const ek_node *node, const char *const *ops)
{
    for (; *ops; ops++) {
        if (is(node, *ops)) return true;
    }
    return false;
}

/* --- which layers there can be */

static const char *const functions[] = {"relu", "leakyrelu", "elu", "prelu", "clip", "sigmoid", "tanh", "silu", "hardsigmoid",
                                        "hardswish", NULL};
static const char *const others[] = {"input", "conv", "conv1d", "linear", "batchnorm", "affine", "avgpool", "maxpool", "globalavgpool",
                                     "add", "sub", "mul", "concat", "permute", NULL};

static bool is_function(const ek_node *node) { return is_among(node, functions); }

/* An affine layer with a number for each channel or feature, or one for all. */
static bool is_by_channel(const ek_node *node)
{
    int64_t count = node->param_count ? node->param[0].count : 1;
    bool first = node->param_count && node->param[0].shape.dim[0] == node->out.dim[0];
    return count == 1 || (first && count == node->out.dim[0]);
}

bool ek_cc_sums(const ek_node *node)
{
    static const char *const sums[] = {"conv", "conv1d", "linear", "batchnorm", "affine", NULL};
    return is_among(node, sums);
}

static const char *obstacle(const ek_graph *graph, const ek_node *node)
{
    if (ek_cc_is_alias(node) || is(node, "batchnorm")) return NULL;
    if (is(node, "softmax"))
        return node->id == graph->count - 1 ? NULL : "is only possible at the end";
    if (is(node, "affine") && !is_by_channel(node)) return "has more numbers than channels";
    if (is(node, "prelu") && node->param[0].count > 1) return "has a slope for each channel";
    if (!is_function(node) && !is_among(node, others)) return "has no form in eight bits";
    return NULL;
}

ek_status ek_cc_int8_check(const ek_graph *graph)
{
    ek_text text = {0};
    for (int i = 0; i < graph->count; i++) {
        const char *why = obstacle(graph, &graph->node[i]);
        const char *label = graph->node[i].label;
        if (why) ek_text_add(&text, "%s%s %s %s", text.length ? "; " : "", graph->node[i].op->name, *label ? label : "without a label", why);
    }
    ek_status status = ek_text_status(&text);
    if (status == EK_OK && text.length)
        status = ek_fail(EK_E_UNSUPPORTED, "the net cannot be written in eight bits: %s; without int8 it can be written", text.data);
    ek_text_free(&text);
    return status;
}

/* --- ranges */

/* A softmax at the end, and what only clamps a sum. */
static void absorb(const ek_graph *graph, ek_cc_quantized *q)
{
    static const char *const sums[] = {"add", "sub", "mul", NULL}, *const clamps[] = {"relu", "clip", NULL};
    for (int i = 0; i < graph->count; i++) q->clamp[i] = -1;
    for (int i = 1; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        const ek_node *from = &graph->node[ek_graph_root(graph, node->input[0])];
        bool alone = ek_graph_reader_count(graph, from->id) == 1;
        if (!is_among(node, clamps) || !alone || !(ek_cc_sums(from) || is_among(from, sums))) continue;
        q->absorbed[i] = true;
        q->clamp[from->id] = i;
    }
    q->softmax = is(&graph->node[graph->count - 1], "softmax") ? graph->count - 1 : -1;
    if (q->softmax >= 0) q->absorbed[q->softmax] = true;
}

/* Those whose numbers are the input's, only elsewhere. */
static bool keeps_range(const ek_node *node) { return is(node, "maxpool") || is(node, "permute"); }

enum { BINS = 1024 };
typedef struct seen {
    double low, high; /* of all values */
    double bin[BINS]; /* how many lie in each part of it */
} seen;

typedef struct calibration {
    ek_net *net;
    const ek_dataset *data;
    int64_t count, stride, batch; /* samples, how far apart they stand, how many at a time */
    seen *seen;                   /* by node */
    float *x;
    double *values;
} calibration;

static ek_status look_at(calibration *c, int node, int64_t n, bool counts)
{
    seen *s = &c->seen[node];
    int64_t numbers = n * ek_shape_count(c->net->graph.node[node].out);
    ek_net_value(c->net, node, n, c->values);
    double width = s->high - s->low;
    for (int64_t i = 0; i < numbers; i++) {
        double v = c->values[i];
        if (!isfinite(v))
            return ek_fail(EK_E_NUMERIC, "on the data %s (layer %d) gives what is no finite number", c->net->graph.node[node].op->name, node);
        if (counts) {
            int bin = width > 0 ? (int)((v - s->low) / width * BINS) : 0;
            s->bin[bin < BINS ? bin : BINS - 1]++;
        } else {
            s->low = fmin(s->low, v);
            s->high = fmax(s->high, v);
        }
    }
    return EK_OK;
}

static ek_status sweep(calibration *c, const ek_c_options *o, bool counts)
{
    int64_t item = ek_shape_count(ek_net_input_shape(c->net));
    for (int64_t at = 0; at < c->count; at += c->batch) {
        int64_t n = c->count - at < c->batch ? c->count - at : c->batch;
        for (int64_t i = 0; i < n; i++) EK_TRY(ek_dataset_item(c->data, (at + i) * c->stride, c->x + i * item, NULL));
        ek_net_set_input(c->net, n, c->x);
        EK_TRY(ek_net_run_forward(c->net, n, EK_MODE_INFERENCE, 0, 0));
        for (int i = 0; i < c->net->graph.count; i++) EK_TRY(look_at(c, i, n, counts));
        double share = 0.4 * (counts + (double)(at + n) / (double)c->count) / 2;
        if (o->progress && !o->progress(o->user, share)) return ek_fail(EK_E_INTERRUPTED, "stopped on request");
    }
    return EK_OK;
}

static ek_cc_range range_of(double low, double high)
{
    ek_cc_range r = {.low = fmin(low, 0), .high = fmax(high, 0)};
    if (r.high - r.low < 1e-30) r.high = r.low + 1e-30;
    r.scale = (r.high - r.low) / 255;
    r.zero = (int)lround(-128 - r.low / r.scale);
    return r;
}

/* The mean square error of eight bits over t times the range: what is cut off, and half steps within. */
static double error_of(const seen *s, double t)
{
    double width = (s->high - s->low) / BINS, low = fmin(s->low, 0) * t, high = fmax(s->high, 0) * t;
    double step = (high - low) / 255, sum = 0;
    for (int i = 0; i < BINS; i++) {
        double v = s->low + (i + 0.5) * width, off = v < low ? low - v : v > high ? v - high : 0;
        sum += s->bin[i] * (off * off + (off > 0 ? 0 : step * step / 12));
    }
    return sum;
}

/* The range, or a part of it, that loses least. */
static ek_cc_range choose_range(const seen *s)
{
    double best = 1;
    for (double t = 0.98; t > 0.2; t -= 0.02) {
        if (error_of(s, t) < error_of(s, best)) best = t;
    }
    return range_of(s->low * best, s->high * best);
}

static ek_status calibrate(ek_net *net, const ek_c_options *o, ek_cc_quantized *q)
{
    enum { BATCH = 32 };
    int64_t all = ek_dataset_count(o->data), most = 0;
    calibration c = {.net = net, .data = o->data, .count = all < o->samples ? all : o->samples, .batch = BATCH};
    ek_status status = EK_OK;
    c.stride = all / c.count;
    for (int i = 0; i < net->graph.count; i++) {
        int64_t count = ek_shape_count(net->graph.node[i].out);
        if (count > most) most = count;
    }
    EK_GO(EK_NEW(c.seen, (size_t)net->graph.count));
    EK_GO(EK_NEW(c.x, (size_t)(BATCH * ek_shape_count(ek_net_input_shape(net)))));
    EK_GO(EK_NEW(c.values, (size_t)(BATCH * most)));
    for (int i = 0; i < net->graph.count; i++) c.seen[i].low = INFINITY, c.seen[i].high = -INFINITY;
    EK_GO(ek_net_keep_values(net, true));
    EK_GO(ek_net_prepare(net, BATCH, false));
    EK_GO(sweep(&c, o, false));
    EK_GO(sweep(&c, o, true));
    for (int i = 0; i < net->graph.count; i++) {
        int from = net->graph.node[i].input_count ? net->graph.node[i].input[0] : -1;
        while (from >= 0 && (ek_cc_is_alias(&net->graph.node[from]) || q->absorbed[from])) from = net->graph.node[from].input[0];
        q->range[i] = keeps_range(&net->graph.node[i]) ? q->range[from]
                                                       : choose_range(&c.seen[q->clamp[i] >= 0 ? q->clamp[i] : i]);
    }
    EK_GO(ek_net_keep_values(net, false));
done:
    ek_free(c.values);
    ek_free(c.x);
    ek_free(c.seen);
    return status;
}

/* --- numbers */

ek_cc_factor ek_cc_factor_of(double factor)
{
    int exponent;
    double mantissa = frexp(fabs(factor), &exponent); /* in [0.5, 1) */
    int64_t multiplier = llround(mantissa * 2147483648.0);
    int shift = 31 - exponent;
    if (multiplier > INT32_MAX) multiplier /= 2, shift--;
    if (shift > 62 || factor == 0) return (ek_cc_factor){0, 1};
    while (shift < 1) multiplier = INT32_MAX, shift = 1; /* far beyond what eight bits hold */
    return (ek_cc_factor){(int32_t)(factor < 0 ? -multiplier : multiplier), shift};
}

static int quantized(const ek_cc_range *r, double v)
{
    double q = floor(v / r->scale + 0.5) + r->zero;
    return q < -128 ? -128 : q > 127 ? 127 : (int)q;
}

static const ek_cc_range *input_range(const ek_cc_plan *plan, const ek_cc_quantized *q, const ek_node *node, int slot)
{
    return &q->range[plan->root[node->input[slot]]];
}

ek_cc_window ek_cc_sum_window(const ek_node *node)
{
    if (is(node, "conv") || is(node, "conv1d")) return ek_cc_window_of(node);
    int channels = (int)node->out.dim[0], positions = (int)(ek_shape_count(node->out) / channels);
    int columns = node->out.rank > 1 ? (int)node->out.dim[node->out.rank - 1] : 1, rows = positions / columns;
    ek_cc_window g = {.ci = channels, .co = channels, .hi = rows, .ho = rows, .wi = columns, .wo = columns, .kh = 1, .kw = 1,
                      .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .groups = channels};
    if (is(node, "linear")) g.ci = (int)node->in[0].dim[0], g.groups = 1;
    return g;
}

static const float *live(const ek_node *node, ek_role role)
{
    const ek_param *param = ek_node_param((ek_node *)node, role);
    return param && !param->redundant ? param->data : NULL;
}

/* Weight i of output channel o as a real number, and its bias. */
static double weight_of(const ek_node *node, int64_t each, int64_t o, int64_t i)
{
    if (is(node, "batchnorm")) {
        const float *gamma = live(node, EK_ROLE_GAMMA);
        return (gamma ? gamma[o] : 1) / sqrt(live(node, EK_ROLE_RUNNING_VAR)[o] + ek_batchnorm_options(node).eps);
    }
    if (is(node, "affine")) {
        const ek_param *gamma = ek_node_param((ek_node *)node, EK_ROLE_GAMMA);
        return gamma ? gamma->data[gamma->count > 1 ? o : 0] : 1;
    }
    return live(node, EK_ROLE_WEIGHT)[o * each + i];
}

static double bias_of(const ek_node *node, int64_t o)
{
    if (is(node, "batchnorm")) {
        const float *beta = live(node, EK_ROLE_BETA);
        return (beta ? beta[o] : 0) - live(node, EK_ROLE_RUNNING_MEAN)[o] * weight_of(node, 1, o, 0);
    }
    if (is(node, "affine")) {
        const ek_param *beta = ek_node_param((ek_node *)node, EK_ROLE_BETA);
        return beta ? beta->data[beta->count > 1 ? o : 0] : 0;
    }
    const float *bias = live(node, EK_ROLE_BIAS);
    return bias ? bias[o] : 0;
}

/* Sums are of at most `each` products of 127 and 255, and a bias that stays below 2^30. */
static ek_status make_channel(const ek_node *node, int64_t each, int64_t o, const ek_cc_range *x, const ek_cc_range *y,
                              ek_cc_numbers *n)
{
    double most = 0, bias = bias_of(node, o);
    int64_t sum = 0;
    for (int64_t i = 0; i < each; i++) most = fmax(most, fabs(weight_of(node, each, o, i)));
    double scale = fmax(most / 127, fabs(bias) / x->scale / 5e8);
    if (scale < 1e-38) scale = 1e-38;
    for (int64_t i = 0; i < each; i++) {
        n->weight[o * each + i] = (int8_t)lround(weight_of(node, each, o, i) / scale);
        sum += n->weight[o * each + i];
    }
    int64_t acc = llround(bias / (scale * x->scale)) - sum * x->zero;
    if (each * 127 * 255 > (int64_t)1 << 30 || llabs(acc) > (int64_t)1 << 30)
        return ek_fail(EK_E_UNSUPPORTED, "%s %s sums %lld products, too many for 32 bits", node->op->name, node->label, (long long)each);
    ek_cc_factor f = ek_cc_factor_of(scale * x->scale / y->scale);
    n->bias[o] = (int32_t)acc;
    n->multiplier[o] = f.multiplier;
    n->shift[o] = (int8_t)f.shift;
    return EK_OK;
}

static ek_status make_sums(const ek_node *node, const ek_cc_range *x, const ek_cc_range *y, ek_cc_numbers *n)
{
    ek_cc_window g = ek_cc_sum_window(node);
    int64_t each = (int64_t)(g.ci / g.groups) * g.kh * g.kw;
    n->weights = each * g.co;
    EK_TRY(EK_NEW(n->weight, (size_t)n->weights));
    EK_TRY(EK_NEW(n->bias, (size_t)g.co));
    EK_TRY(EK_NEW(n->multiplier, (size_t)g.co));
    EK_TRY(EK_NEW(n->shift, (size_t)g.co));
    for (int64_t o = 0; o < g.co; o++) EK_TRY(make_channel(node, each, o, x, y, n));
    return EK_OK;
}

/* What a function of one number gives for each of the 256; node NULL: another scale. */
static ek_status make_table(const ek_node *node, const ek_cc_range *x, const ek_cc_range *y, int8_t **table)
{
    double in[256], out[256], slope[EK_MAX_PARAMS] = {0};
    EK_TRY(EK_NEW(*table, 256));
    for (int i = 0; i < 256; i++) in[i] = out[i] = (i - 128 - x->zero) * x->scale;
    if (node) {
        ek_node one = *node;
        ek_ref ref = {.n = 1};
        one.in[0] = one.out = (ek_shape){1, {256}};
        for (int k = 0; k < node->param_count; k++) {
            slope[k] = node->param[k].data[0];
            ref.param[k] = &slope[k];
        }
        node->op->reference_forward(&ref, &one, (const double *const[]){in, NULL}, out);
    }
    for (int i = 0; i < 256; i++) (*table)[i] = (int8_t)quantized(y, out[i]);
    return EK_OK;
}

/* The clamp of a relu or clip. */
static void set_clamp(const ek_node *clamp, const ek_cc_range *y, ek_cc_numbers *n)
{
    n->low = -128, n->high = 127;
    if (!clamp) return;
    double low = is(clamp, "relu") ? 0 : ek_cc_option(clamp, "min", 0, NAN);
    double high = is(clamp, "relu") ? NAN : ek_cc_option(clamp, "max", 0, NAN);
    if (!isnan(low)) n->low = quantized(y, low);
    if (!isnan(high)) n->high = quantized(y, high);
}

static ek_status make_numbers(const ek_cc_plan *plan, ek_cc_quantized *q, int i)
{
    const ek_node *node = &q->graph->node[i];
    ek_cc_numbers *n = &q->numbers[i];
    const ek_cc_range *y = &q->range[i];
    set_clamp(q->clamp[i] >= 0 ? &q->graph->node[q->clamp[i]] : NULL, y, n);
    if (ek_cc_sums(node)) return make_sums(node, input_range(plan, q, node, 0), y, n);
    if (is_function(node)) return make_table(node, input_range(plan, q, node, 0), y, &n->table[0]);
    for (int k = 0; is(node, "concat") && k < 2; k++) EK_TRY(make_table(NULL, input_range(plan, q, node, k), y, &n->table[k]));
    return EK_OK;
}

ek_status ek_cc_check_data(const ek_net *net, const ek_dataset *data, const char *what)
{
    char a[EK_SHAPE_TEXT], b[EK_SHAPE_TEXT];
    ek_shape shape = ek_dataset_shape(data), wanted = ek_net_input_shape(net);
    if (ek_dataset_count(data) < 1) return ek_fail(EK_E_SHAPE, "%s is empty", what);
    if (ek_shape_count(shape) != ek_shape_count(wanted))
        return ek_fail(EK_E_SHAPE, "%s has items of %s, the net's input is %s", what, ek_shape_text(shape, a), ek_shape_text(wanted, b));
    if (ek_dataset_length(data, 0) > 0)
        return ek_fail(EK_E_UNSUPPORTED, "%s has sequences of unequal lengths; C sources run whole ones", what);
    return EK_OK;
}

ek_status ek_cc_quantize(ek_net *net, const ek_c_options *options, ek_cc_quantized *out)
{
    size_t nodes = (size_t)net->graph.count;
    ek_cc_plan plan = {0};
    ek_status status = EK_OK;
    *out = (ek_cc_quantized){.graph = &net->graph};
    EK_GO(EK_NEW(out->absorbed, nodes));
    EK_GO(EK_NEW(out->range, nodes));
    EK_GO(EK_NEW(out->numbers, nodes));
    EK_GO(EK_NEW(out->clamp, nodes));
    absorb(&net->graph, out);
    EK_GO(calibrate(net, options, out));
    EK_GO(ek_cc_plan_create(&net->graph, out->absorbed, &plan));
    for (int i = 0; i < net->graph.count; i++) {
        if (plan.root[i] == i) EK_GO(make_numbers(&plan, out, i));
    }
done:
    ek_cc_plan_free(&plan);
    if (status != EK_OK) ek_cc_quantized_free(out);
    return status;
}

void ek_cc_quantized_free(ek_cc_quantized *q)
{
    for (int i = 0; q->numbers && i < q->graph->count; i++) {
        ek_cc_numbers *n = &q->numbers[i];
        ek_free(n->weight);
        ek_free(n->bias);
        ek_free(n->multiplier);
        ek_free(n->shift);
        for (int k = 0; k < EK_MAX_INPUTS; k++) ek_free(n->table[k]);
    }
    ek_free(q->clamp);
    ek_free(q->numbers);
    ek_free(q->range);
    ek_free(q->absorbed);
    *q = (ek_cc_quantized){.softmax = -1};
}
