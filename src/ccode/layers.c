/* Each operator as C: its row in the table at the end says where its output may lie and writes its call. */
#include "ccode/conv.h"
#include "ccode/quantize.h"

#include "ops/batchnorm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int count_of(const ek_node *node) { return (int)ek_shape_count(node->out); }
static bool is(const ek_node *node, const char *op) { return !strcmp(node->op->name, op); }
static int positions_of(const ek_node *node) { return count_of(node) / (int)node->out.dim[0]; }

/* What is live of a parameter; NULL: none. */
static const float *data_of(const ek_node *node, ek_role role)
{
    const ek_param *param = ek_node_param((ek_node *)node, role);
    return param && !param->redundant ? param->data : NULL;
}

/* The value is worked on in its place: it is put there first. Returns the place. */
static const char *begin_in_place(ek_cc_writer *w, const ek_node *node, char y[EK_CC_PLACE_MAX])
{
    char x[EK_CC_PLACE_MAX];
    ek_cc_place(w, node->id, y);
    if (!ek_cc_same_place(w->plan, node->input[0], node->id))
        ek_text_add(&w->body, "    memcpy(%s, %s, %zu);\n", y, ek_cc_place(w, node->input[0], x),
                    (size_t)count_of(node) * sizeof(float));
    return y;
}

/* --- number by number */

static void emit_activation(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX], a[EK_REAL_TEXT], b[EK_REAL_TEXT];
    const char *part = is(node, "tanh") ? "tangent" : node->op->name;
    ek_cc_use(w, part);
    begin_in_place(w, node, y);
    ek_text_add(&w->body, "    %s(%d, ", part, count_of(node));
    if (is(node, "leakyrelu")) ek_text_add(&w->body, "%s, ", ek_cc_float((float)ek_cc_option(node, "slope", 0, 0.01), a));
    if (is(node, "elu")) ek_text_add(&w->body, "%s, ", ek_cc_float((float)ek_cc_option(node, "alpha", 0, 1), a));
    if (is(node, "hardsigmoid"))
        ek_text_add(&w->body, "%s, %s, ", ek_cc_float((float)ek_cc_option(node, "alpha", 0, 1.0 / 6), a),
                    ek_cc_float((float)ek_cc_option(node, "beta", 0, 0.5), b));
    if (is(node, "clip")) {
        double low = ek_cc_option(node, "min", 0, NAN), high = ek_cc_option(node, "max", 0, NAN);
        ek_text_add(&w->body, "%s, %s, ", ek_cc_float(isnan(low) ? -INFINITY : (float)low, a),
                    ek_cc_float(isnan(high) ? INFINITY : (float)high, b));
    }
    ek_text_add(&w->body, "%s);\n", y);
}

static void emit_prelu(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX];
    const ek_param *slope = &node->param[0];
    bool one = slope->count == 1;
    ek_cc_use(w, "prelu");
    begin_in_place(w, node, y);
    ek_cc_floats(w, node, "slope", slope->count, slope->data);
    ek_text_add(&w->body, "    prelu(%d, %d, %s_slope, %s);\n", one ? 1 : (int)node->out.dim[0],
                one ? count_of(node) : positions_of(node), w->names[node->id], y);
}

/* (y - mean)*scale + shift by channel. */
typedef struct by_channel {
    const float *mean, *var, *gamma, *beta;
    ek_pixels pixels;
    double eps;
} by_channel;

static double mean_at(const void *data, int64_t i) { return ((const by_channel *)data)->mean[i]; }
static double shift_at(const void *data, int64_t i)
{
    const by_channel *n = data;
    return n->beta ? n->beta[i] : 0;
}
static double scale_at(const void *data, int64_t i)
{
    const by_channel *n = data;
    return (n->gamma ? n->gamma[i] : 1) / sqrt(n->var[i] + n->eps);
}
static double pixel_mean_at(const void *data, int64_t i) { return ((const by_channel *)data)->pixels.mean[i]; }
static double pixel_scale_at(const void *data, int64_t i) { return 1 / ((const by_channel *)data)->pixels.std[i]; }
static double zero_at(const void *data, int64_t i)
{
    (void)data, (void)i;
    return 0;
}

static void emit_by_channel(ek_cc_writer *w, const ek_node *node, int channels, const by_channel *n, ek_cc_at mean, ek_cc_at scale,
                            ek_cc_at shift)
{
    char y[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id];
    ek_cc_use(w, "channels");
    ek_cc_array(w, "float", node, "mean", channels, mean, n);
    ek_cc_array(w, "float", node, "scale", channels, scale, n);
    ek_cc_array(w, "float", node, "shift", channels, shift, n);
    ek_text_add(&w->body, "    channels_by(%d, %d, %s_mean, %s_scale, %s_shift, %s);\n", channels,
                count_of(node) / channels, label, label, label, ek_cc_place(w, node->id, y));
}

static void emit_input(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX];
    by_channel n = {.pixels = ek_input_pixels(node)};
    ek_text_add(&w->body, "    memcpy(%s, in, %zu);\n", ek_cc_place(w, node->id, y), (size_t)count_of(node) * sizeof(float));
    emit_by_channel(w, node, n.pixels.channels, &n, pixel_mean_at, pixel_scale_at, zero_at);
}

static void emit_batchnorm(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX];
    by_channel n = {.mean = data_of(node, EK_ROLE_RUNNING_MEAN), .var = data_of(node, EK_ROLE_RUNNING_VAR),
                    .gamma = data_of(node, EK_ROLE_GAMMA), .beta = data_of(node, EK_ROLE_BETA),
                    .eps = ek_batchnorm_options(node).eps};
    begin_in_place(w, node, y);
    emit_by_channel(w, node, (int)node->out.dim[0], &n, mean_at, scale_at, shift_at);
}

static void emit_sample_norm(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX], eps[EK_REAL_TEXT];
    const char *label = w->names[node->id];
    const ek_param *gamma = ek_node_param((ek_node *)node, EK_ROLE_GAMMA), *beta = ek_node_param((ek_node *)node, EK_ROLE_BETA);
    bool by_element = is(node, "layernorm") || is(node, "rmsnorm");
    int groups = by_element ? 1 : is(node, "groupnorm") ? (int)ek_cc_option(node, "groups", 0, 1) : (int)node->out.dim[0];
    ek_cc_use(w, "sample_norm");
    begin_in_place(w, node, y);
    if (gamma) ek_cc_floats(w, node, "weight", gamma->count, gamma->data);
    if (beta) ek_cc_floats(w, node, "bias", beta->count, beta->data);
    ek_text_add(&w->body, "    sample_norm(%d, %d, %d, %d, %s, ", groups, count_of(node) / groups,
                by_element ? 1 : positions_of(node), !is(node, "rmsnorm"), ek_cc_float((float)ek_cc_option(node, "eps", 0, 1e-5), eps));
    ek_text_add(&w->body, "%s%s, %s%s, %s);\n", gamma ? label : "NULL", gamma ? "_weight" : "", beta ? label : "NULL",
                beta ? "_bias" : "", y);
}

static void emit_softmax(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX];
    ek_cc_axis axis = ek_cc_axis_of(node);
    ek_cc_use(w, "softmax");
    begin_in_place(w, node, y);
    ek_text_add(&w->body, "    softmax(%d, %d, %d, %s);\n", axis.outer, axis.count, axis.step, y);
}

/* --- weights */

static void emit_convolution(ek_cc_writer *w, const ek_node *node)
{
    ek_cc_emit_conv(w, node, data_of(node, EK_ROLE_WEIGHT), data_of(node, EK_ROLE_BIAS));
}

static size_t convolution_scratch(const ek_node *node)
{
    ek_cc_window g = ek_cc_window_of(node);
    return ek_cc_conv_scratch(&g, false);
}

static void emit_convtranspose(ek_cc_writer *w, const ek_node *node)
{
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id];
    const float *bias = data_of(node, EK_ROLE_BIAS);
    const ek_param *weight = &node->param[0];
    ek_cc_window g = ek_cc_window_of(node);
    ek_cc_use(w, "convtranspose");
    ek_cc_floats(w, node, "weight", weight->count, weight->data);
    if (bias) ek_cc_floats(w, node, "bias", g.co, bias);
    ek_text_add(&w->arrays, "static const struct spreading %s_window = {%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d};\n",
                label, g.ci, g.hi, g.wi, g.co, g.ho, g.wo, g.kh, g.kw, g.stride_h, g.stride_w, g.pad_h, g.pad_w,
                g.dilation_h, g.dilation_w, g.groups);
    ek_text_add(&w->body, "    convtranspose(&%s_window, %s_weight, %s%s, %s, %s);\n", label, label, bias ? label : "NULL",
                bias ? "_bias" : "", ek_cc_place(w, node->input[0], x), ek_cc_place(w, node->id, y));
}

typedef struct turned {
    const float *data;
    int64_t in, out;
} turned;

static double turned_at(const void *data, int64_t i)
{
    const turned *t = data;
    return t->data[i % t->out * t->in + i / t->out];
}

static void emit_linear(ek_cc_writer *w, const ek_node *node)
{
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id];
    const float *bias = data_of(node, EK_ROLE_BIAS);
    turned weight = {data_of(node, EK_ROLE_WEIGHT), node->in[0].dim[0], node->out.dim[0]};
    ek_cc_use(w, "linear");
    ek_cc_array(w, "float", node, "weight", weight.in * weight.out, turned_at, &weight);
    if (bias) ek_cc_floats(w, node, "bias", weight.out, bias);
    ek_text_add(&w->body, "    linear(%d, %d, %s_weight, %s%s, %s, %s);\n", (int)weight.in, (int)weight.out, label,
                bias ? label : "NULL", bias ? "_bias" : "", ek_cc_place(w, node->input[0], x), ek_cc_place(w, node->id, y));
}

/* --- pools */

static void emit_pool(ek_cc_writer *w, const ek_node *node)
{
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id], *kind = is(node, "maxpool") ? "maxpool" : "avgpool";
    ek_cc_window g = ek_cc_window_of(node);
    bool plain = !g.padded && g.dilation_h == 1 && g.dilation_w == 1;
    ek_cc_place(w, node->input[0], x);
    ek_cc_place(w, node->id, y);
    if (plain) {
        ek_cc_use(w, *kind == 'm' ? "plain_maxpool" : "plain_avgpool");
        ek_text_add(&w->body, "    plain_%s(%d, %d, %d, %d, %d, %d, %d, %d, %d, %s, %s);\n", kind, g.ci, g.hi, g.wi, g.ho,
                    g.wo, g.kh, g.kw, g.stride_h, g.stride_w, x, y);
        return;
    }
    ek_cc_use(w, kind);
    ek_text_add(&w->arrays, "static const struct window %s_window = {%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d};\n",
                label, g.ci, g.hi, g.wi, g.ho, g.wo, g.kh, g.kw, g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.end_h, g.end_w,
                g.dilation_h, g.dilation_w);
    ek_text_add(&w->body, "    %s(&%s_window, ", kind, label);
    if (*kind == 'a') ek_text_add(&w->body, "%d, ", (int)ek_cc_option(node, "count_pad", 0, 1));
    ek_text_add(&w->body, "%s, %s);\n", x, y);
}

/* --- two values, and values in another order */

/* Dimensions whose numbers stand `step` apart; neighbours that run on can be joined. */
typedef struct stepped {
    int64_t dim[EK_MAX_VALUE_RANK], step[EK_MAX_VALUE_RANK];
    int rank;
} stepped;

static stepped join_runs(const stepped *s)
{
    stepped out = {.rank = 0};
    for (int d = 0; d < s->rank; d++) {
        bool runs_on = out.rank && out.step[out.rank - 1] == s->step[d] * s->dim[d];
        if (runs_on) {
            out.dim[out.rank - 1] *= s->dim[d];
            out.step[out.rank - 1] = s->step[d];
        } else {
            out.dim[out.rank] = s->dim[d];
            out.step[out.rank++] = s->step[d];
        }
    }
    return out;
}

/* How `shape` is read to have the shape `out`, of the same rank: equal dimensions, or 1. */
static stepped repeated(ek_shape shape, ek_shape out)
{
    stepped s = {.rank = out.rank};
    int64_t step = 1;
    for (int d = out.rank - 1; d >= 0; d--) {
        s.dim[d] = out.dim[d];
        s.step[d] = shape.dim[d] == 1 ? 0 : step;
        step *= shape.dim[d];
    }
    return join_runs(&s);
}

static void write_steps(ek_cc_writer *w, const ek_node *node, const char *what, const stepped *s)
{
    int64_t dim[4] = {1, 1, 1, 1}, step[4] = {0};
    for (int d = 0; d < s->rank; d++) {
        dim[4 - s->rank + d] = s->dim[d];
        step[4 - s->rank + d] = s->step[d];
    }
    ek_cc_use(w, "steps");
    ek_text_add(&w->arrays, "static const struct steps %s_%s = {{%d, %d, %d, %d}, {%d, %d, %d, %d}};\n", w->names[node->id],
                what, (int)dim[0], (int)dim[1], (int)dim[2], (int)dim[3], (int)step[0], (int)step[1], (int)step[2],
                (int)step[3]);
}

/* y = y OPERATION x, number by number, and with x in steps. */
static void use_operation(ek_cc_writer *w, const char *op, char sign, bool in_steps)
{
    char name[EK_CC_NAME_MAX];
    snprintf(name, sizeof name, "%s_%s", op, in_steps ? "each" : "all");
    if (in_steps) ek_cc_use(w, "steps");
    if (!ek_cc_once(w, name)) return;
    if (in_steps)
        ek_text_add(&w->functions,
                    "static void %s(const steps *s, const float *restrict x, float *restrict y)\n{\n"
                    "    for (int a = 0; a < s->dim[0]; a++)\n        for (int b = 0; b < s->dim[1]; b++)\n"
                    "            for (int c = 0; c < s->dim[2]; c++, y += s->dim[3]) {\n"
                    "                const float *const from = x + a * s->step[0] + b * s->step[1] + c * s->step[2];\n"
                    "                if (s->step[3] == 0)\n"
                    "                    for (int d = 0; d < s->dim[3]; d++) y[d] %c= from[0];\n"
                    "                else\n"
                    "                    for (int d = 0; d < s->dim[3]; d++) y[d] %c= from[d * s->step[3]];\n"
                    "            }\n}\n\n",
                    name, sign, sign);
    else
        ek_text_add(&w->functions,
                    "static void %s(int n, const float *restrict x, float *restrict y)\n{\n"
                    "    for (int i = 0; i < n; i++) y[i] %c= x[i];\n}\n\n",
                    name, sign);
}

/* y = y OPERATION x, where x of `shape` stands at `from`. */
static void emit_operation(ek_cc_writer *w, const ek_node *node, const char *op, char sign, ek_shape shape, const char *from,
                           const char *what)
{
    char y[EK_CC_PLACE_MAX];
    bool in_steps = ek_shape_count(shape) != count_of(node);
    use_operation(w, op, sign, in_steps);
    ek_cc_place(w, node->id, y);
    if (in_steps) {
        stepped s = repeated(shape, node->out);
        write_steps(w, node, what, &s);
        ek_text_add(&w->body, "    %s_each(&%s_%s, %s, %s);\n", op, w->names[node->id], what, from, y);
    } else {
        ek_text_add(&w->body, "    %s_all(%d, %s, %s);\n", op, count_of(node), from, y);
    }
}

/* add, sub, mul, div: into the place of the first, or of the second where that is the same. */
static void emit_binary(ek_cc_writer *w, const ek_node *node)
{
    static const struct {
        const char *op;
        char sign;
    } all[] = {{"add", '+'}, {"sub", '-'}, {"mul", '*'}, {"div", '/'}};
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    int kind = 0;
    while (strcmp(all[kind].op, node->op->name)) kind++;
    bool swaps = !ek_cc_same_place(w->plan, node->input[0], node->id) && ek_cc_same_place(w->plan, node->input[1], node->id);
    int first = swaps ? 1 : 0, second = 1 - first;
    ek_cc_place(w, node->id, y);
    if (ek_shape_count(node->in[first]) != count_of(node)) {
        stepped s = repeated(node->in[first], node->out);
        ek_cc_use(w, "spread");
        write_steps(w, node, "first", &s);
        ek_text_add(&w->body, "    spread(&%s_first, %s, %s);\n", w->names[node->id], ek_cc_place(w, node->input[first], x), y);
    } else if (!swaps) {
        begin_in_place(w, node, y);
    }
    emit_operation(w, node, all[kind].op, all[kind].sign, node->in[second], ek_cc_place(w, node->input[second], x), "second");
}

static void emit_affine(ek_cc_writer *w, const ek_node *node)
{
    char y[EK_CC_PLACE_MAX], from[2 * EK_CC_NAME_MAX];
    const ek_param *scale = ek_node_param((ek_node *)node, EK_ROLE_GAMMA), *shift = ek_node_param((ek_node *)node, EK_ROLE_BETA);
    begin_in_place(w, node, y);
    if (scale) {
        ek_cc_floats(w, node, "scale", scale->count, scale->data);
        snprintf(from, sizeof from, "%s_scale", w->names[node->id]);
        emit_operation(w, node, "mul", '*', scale->shape, from, "scale_steps");
    }
    if (shift) {
        ek_cc_floats(w, node, "shift", shift->count, shift->data);
        snprintf(from, sizeof from, "%s_shift", w->names[node->id]);
        emit_operation(w, node, "add", '+', shift->shape, from, "shift_steps");
    }
}

static void emit_concat(ek_cc_writer *w, const ek_node *node)
{
    char a[EK_CC_PLACE_MAX], b[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    int outer = ek_cc_axis_of(node).outer;
    ek_cc_use(w, "concat");
    ek_text_add(&w->body, "    concat(%d, %d, %d, %s, %s, %s);\n", outer, (int)ek_shape_count(node->in[0]) / outer,
                (int)ek_shape_count(node->in[1]) / outer, ek_cc_place(w, node->input[0], a), ek_cc_place(w, node->input[1], b),
                ek_cc_place(w, node->id, y));
}

static void emit_permute(ek_cc_writer *w, const ek_node *node)
{
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX];
    stepped s = {.rank = node->out.rank};
    for (int d = 0; d < s.rank; d++) {
        int from = (int)node->attr[0].v[d];
        s.dim[d] = node->out.dim[d];
        s.step[d] = 1;
        for (int k = from + 1; k < node->in[0].rank; k++) s.step[d] *= node->in[0].dim[k];
    }
    s = join_runs(&s);
    ek_cc_use(w, "spread");
    write_steps(w, node, "order", &s);
    ek_text_add(&w->body, "    spread(&%s_order, %s, %s);\n", w->names[node->id], ek_cc_place(w, node->input[0], x),
                ek_cc_place(w, node->id, y));
}

/* --- the table */

static const ek_cc_layer layers[] = {
    {"input", EK_CC_APART, emit_input, NULL},
    {"conv", EK_CC_APART, emit_convolution, convolution_scratch},
    {"conv1d", EK_CC_APART, emit_convolution, convolution_scratch},
    {"convtranspose", EK_CC_APART, emit_convtranspose, NULL},
    {"convtranspose1d", EK_CC_APART, emit_convtranspose, NULL},
    {"linear", EK_CC_APART, emit_linear, NULL},
    {"batchnorm", EK_CC_OVER_FIRST, emit_batchnorm, NULL},
    {"affine", EK_CC_OVER_FIRST, emit_affine, NULL},
    {"layernorm", EK_CC_OVER_FIRST, emit_sample_norm, NULL},
    {"groupnorm", EK_CC_OVER_FIRST, emit_sample_norm, NULL},
    {"instancenorm", EK_CC_OVER_FIRST, emit_sample_norm, NULL},
    {"rmsnorm", EK_CC_OVER_FIRST, emit_sample_norm, NULL},
    {"relu", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"leakyrelu", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"prelu", EK_CC_OVER_FIRST, emit_prelu, NULL},
    {"elu", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"clip", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"sigmoid", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"tanh", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"silu", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"hardsigmoid", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"hardswish", EK_CC_OVER_FIRST, emit_activation, NULL},
    {"avgpool", EK_CC_OVER_FIRST, emit_pool, NULL},
    {"maxpool", EK_CC_OVER_FIRST, emit_pool, NULL},
    {"globalavgpool", EK_CC_OVER_FIRST, emit_pool, NULL},
    {"add", EK_CC_OVER_EITHER, emit_binary, NULL},
    {"mul", EK_CC_OVER_EITHER, emit_binary, NULL},
    {"sub", EK_CC_OVER_FIRST, emit_binary, NULL},
    {"div", EK_CC_OVER_FIRST, emit_binary, NULL},
    {"concat", EK_CC_APART, emit_concat, NULL},
    {"permute", EK_CC_APART, emit_permute, NULL},
    {"softmax", EK_CC_OVER_FIRST, emit_softmax, NULL},
};

const ek_cc_layer *ek_cc_layer_of(const ek_node *node)
{
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (is(node, layers[i].op)) return &layers[i];
    }
    return NULL;
}

ek_cc_over ek_cc_over_of(const ek_node *node, bool int8)
{
    if (int8 && ek_cc_sums(node)) return EK_CC_APART;
    bool pool = is(node, "maxpool") || is(node, "avgpool");
    return pool && ek_cc_window_of(node).padded ? EK_CC_APART : ek_cc_layer_of(node)->over;
}

/* Why a layer cannot be written; NULL: it can. */
static const char *obstacle(const ek_node *node)
{
    if (ek_cc_is_alias(node)) return NULL;
    if (!ek_cc_layer_of(node)) return "has no form in C";
    if (ek_is_batchnorm(node) && !ek_batchnorm_options(node).track)
        return "normalizes by the batch in inference too (track=false), and C runs one sample";
    return NULL;
}

ek_status ek_cc_layers_check(const ek_graph *graph)
{
    ek_text text = {0};
    for (int i = 0; i < graph->count; i++) {
        const char *why = obstacle(&graph->node[i]);
        if (why)
            ek_text_add(&text, "%s%s %s %s", text.length ? "; " : "", graph->node[i].op->name,
                        *graph->node[i].label ? graph->node[i].label : "without a label", why);
    }
    ek_status status = ek_text_status(&text);
    if (status == EK_OK && text.length) status = ek_fail(EK_E_UNSUPPORTED, "the net cannot be written in C: %s", text.data);
    ek_text_free(&text);
    return status;
}
