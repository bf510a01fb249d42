/* A net as an ONNX model: each layer becomes one node of its meaning, or a few that are chained. Weights keep PyTorch's names
 * and layout, which are ONNX's. docs/onnx.md says what becomes what. */
#include "core/memory.h"
#include "graph/metadata.h"
#include "onnx/onnx_write.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- a layer on its way into nodes. Values are called LABEL/y, or LABEL/1, LABEL/2 ... within a layer, and /relu_3/y where
 * there is no label; a '/' is in no label, so that no name is given twice. */

enum { PREFIX = EK_LABEL_MAX + 32, NAME = PREFIX + 32, AXES = EK_MAX_RANK };

typedef struct layer {
    ek_onnx_writer *out;
    const ek_graph *graph;
    ek_node *node;
    char prefix[PREFIX];         /* of its values and constants: its label, or such as /relu_3 */
    char x[EK_MAX_INPUTS][NAME]; /* what it reads */
    char y[NAME];                /* what it gives */
    bool open;                   /* a node is being made, whose output has no name yet */
    bool done;                   /* the last one has its */
    int inner;                   /* values within the layer so far */
    char at[NAME];               /* the last of them, or x[0] */
} layer;

static void name_prefix(const ek_node *node, char out[PREFIX])
{
    if (*node->label)
        snprintf(out, PREFIX, "%s", node->label);
    else
        snprintf(out, PREFIX, "/%s_%d", node->op->name, node->id);
}

static bool normalizes_pixels(const ek_node *input)
{
    ek_pixels p = ek_input_pixels(input);
    for (int i = 0; i < p.channels; i++) {
        if (p.mean[i] != 0 || p.std[i] != 1) return true;
    }
    return false;
}

static void name_value(const ek_graph *graph, int index, char out[NAME])
{
    const ek_node *node = &graph->node[index];
    char prefix[PREFIX];
    name_prefix(node, prefix);
    if (index == graph->count - 1)
        snprintf(out, NAME, "output");
    else if (index == 0 && !normalizes_pixels(node))
        snprintf(out, NAME, "input");
    else
        snprintf(out, NAME, "%s/y", prefix);
}

static layer begin_layer(ek_onnx_writer *out, const ek_graph *graph, int index)
{
    layer l = {.out = out, .graph = graph, .node = &graph->node[index]};
    name_prefix(l.node, l.prefix);
    for (int i = 0; i < l.node->input_count; i++) name_value(graph, l.node->input[i], l.x[i]);
    if (index == 0) strcpy(l.x[0], "input");
    name_value(graph, index, l.y);
    strcpy(l.at, l.x[0]);
    return l;
}

/* "net.1/2" */
static const char *inner_name(const layer *l, const char *suffix, char out[NAME])
{
    snprintf(out, NAME, "%s/%s", l->prefix, suffix);
    return out;
}

/* The value as it is so far: the output of the node that was begun last. */
static const char *now(layer *l)
{
    if (!l->open) return l->at;
    char number[16];
    snprintf(number, sizeof number, "%d", ++l->inner);
    inner_name(l, number, l->at);
    ek_onnx_node_end(l->out, l->at, (const char *const[]){l->at, NULL});
    l->open = false;
    return l->at;
}

/* A further node: its operator, and its inputs by name. */
#define APPLY(l, type, ...) apply(l, type, (const char *const[]){__VA_ARGS__, NULL})
static void apply(layer *l, const char *type, const char *const *inputs)
{
    ek_onnx_node_begin(l->out, type, inputs);
    l->open = true;
}

/* The last node gives the layer's output, and is called after the layer. */
static void end_with(layer *l, const char *const *outputs)
{
    ek_onnx_node_end(l->out, l->prefix, outputs);
    l->open = false;
    l->done = true;
}

static void end_layer(layer *l)
{
    if (l->done) return;
    if (!l->open) APPLY(l, "Identity", l->at);
    end_with(l, (const char *const[]){l->y, NULL});
}

/* --- its options, by name; an operator need not have them */

static const ek_attr *option(const layer *l, const char *name)
{
    int index = ek_op_attr(l->node->op, name);
    return index < 0 ? NULL : &l->node->attr[index];
}

static double real(const layer *l, const char *name) { return option(l, name)->v[0]; }
static bool is_on(const layer *l, const char *name) { return real(l, name) != 0; }

/* Along axis d; `absent` where the operator has no such option. */
static int64_t along(const layer *l, const char *name, int d, int64_t absent)
{
    const ek_attr *a = option(l, name);
    return a ? (int64_t)a->v[d] : absent;
}

/* --- its parameters and constants, by name */

/* The shape by which one number a channel meets the layer's values: Cx1x1. */
static ek_shape by_channel(const layer *l, int64_t count)
{
    ek_shape shape = {1, {count}};
    if (count == 1) return shape;
    shape.rank = l->node->out.rank;
    for (int i = 1; i < shape.rank; i++) shape.dim[i] = 1;
    return shape;
}

/* NULL where it is not there, or a bias that is not needed. */
static const char *parameter_as(layer *l, ek_role role, const ek_shape *shape)
{
    const ek_param *param = ek_node_param(l->node, role);
    if (!param || param->redundant) return NULL;
    ek_onnx_weights(l->out, param->name, shape ? *shape : param->shape, param->data);
    return param->name;
}
static const char *parameter(layer *l, ek_role role) { return parameter_as(l, role, NULL); }

/* One a channel, where its values are [C, H, W]. */
static const char *channel_parameter(layer *l, ek_role role)
{
    const ek_param *param = ek_node_param(l->node, role);
    if (!param) return NULL;
    ek_shape shape = by_channel(l, param->count);
    return parameter_as(l, role, &shape);
}

/* A constant of one value, called after the layer; `name` has room for its name, which is returned. */
static const char *constant(layer *l, const char *suffix, ek_shape shape, double value, char name[NAME])
{
    ek_onnx_floats(l->out, inner_name(l, suffix, name), shape, 1, &(float){(float)value});
    return name;
}

static const ek_shape single = {.rank = 0};

/* --- normalizations */

/* A parameter; where it is switched off, what it would begin with takes its name. */
static const char *parameter_or(layer *l, ek_role role, const char *suffix, double value, char name[NAME])
{
    const char *there = parameter(l, role);
    if (there) return there;
    bool by_element = strcmp(l->node->op->name, "layernorm") == 0;
    ek_shape shape = by_element ? l->node->in[0] : (ek_shape){1, {l->node->in[0].dim[0]}};
    snprintf(name, NAME, "%s.%s", l->prefix, suffix);
    ek_onnx_floats(l->out, name, shape, 1, &(float){(float)value});
    return name;
}
static const char *scale_of(layer *l, char name[NAME]) { return parameter_or(l, EK_ROLE_GAMMA, "weight", 1, name); }
static const char *shift_of(layer *l, char name[NAME]) { return parameter_or(l, EK_ROLE_BETA, "bias", 0, name); }

/* Without running statistics inference takes the batch's, and that is ONNX's training_mode, which gives new running statistics
 * too, that nobody reads. Its momentum is the share of the
 * old statistics: 1 - ours; the plain average has none, and is written as PyTorch does, 1. So is that of statistics that are
 * not there: ONNX Runtime shares equal constants and updates them in place, gamma's ones with the variance's. */
static void batchnorm(layer *l)
{
    char scale[NAME], shift[NAME], mean[NAME], var[NAME];
    ek_batch_norm_options o = ek_batchnorm_options(l->node);
    APPLY(l, "BatchNormalization", l->x[0], scale_of(l, scale), shift_of(l, shift),
          parameter_or(l, EK_ROLE_RUNNING_MEAN, "running_mean", 0, mean),
          parameter_or(l, EK_ROLE_RUNNING_VAR, "running_var", 1, var));
    ek_onnx_float(l->out, "epsilon", o.eps);
    ek_onnx_float(l->out, "momentum", o.cumulative || !o.track ? 1 : 1 - o.momentum);
    if (o.track) return;
    ek_onnx_int(l->out, "training_mode", 1);
    end_with(l, (const char *const[]){l->y, inner_name(l, "mean", mean), inner_name(l, "var", var), NULL});
}

static void layernorm(layer *l)
{
    char scale[NAME];
    APPLY(l, "LayerNormalization", l->x[0], scale_of(l, scale), parameter(l, EK_ROLE_BETA));
    ek_onnx_int(l->out, "axis", 1);
    ek_onnx_float(l->out, "epsilon", real(l, "eps"));
}

/* Reshaped to a batch of `shape`. */
static void reshape_to(layer *l, const char *suffix, ek_shape shape)
{
    char name[NAME];
    int64_t dim[1 + EK_MAX_RANK] = {0}; /* as it is */
    memcpy(dim + 1, shape.dim, (size_t)shape.rank * sizeof *dim);
    ek_onnx_wholes(l->out, inner_name(l, suffix, name), 1 + shape.rank, dim);
    APPLY(l, "Reshape", now(l), name);
}

/* By the weight and bias that there are, under the shape that `named` gives them. */
static void scale_and_shift(layer *l, const char *(*named)(layer *l, ek_role role))
{
    const char *scale = named(l, EK_ROLE_GAMMA), *shift = named(l, EK_ROLE_BETA);
    if (scale) APPLY(l, "Mul", now(l), scale);
    if (shift) APPLY(l, "Add", now(l), shift);
}

/* ONNX has it from opset 18 on, and by channel from 21 on. Each group is one channel of an InstanceNormalization. */
static void groupnorm(layer *l)
{
    char ones[NAME], zeros[NAME];
    ek_shape in = l->node->in[0];
    int64_t groups = (int64_t)real(l, "groups");
    ek_shape each = {1, {groups}};
    reshape_to(l, "groups", (ek_shape){2, {groups, ek_shape_count(in) / groups}});
    APPLY(l, "InstanceNormalization", now(l), constant(l, "ones", each, 1, ones), constant(l, "zeros", each, 0, zeros));
    ek_onnx_float(l->out, "epsilon", real(l, "eps"));
    reshape_to(l, "shape", in);
    scale_and_shift(l, channel_parameter);
}

static void instancenorm(layer *l)
{
    char scale[NAME], shift[NAME];
    APPLY(l, "InstanceNormalization", l->x[0], scale_of(l, scale), shift_of(l, shift));
    ek_onnx_float(l->out, "epsilon", real(l, "eps"));
}

/* x/sqrt(mean(x*x) + eps) * weight, which ONNX has from opset 23 on. */
static void rmsnorm(layer *l)
{
    char eps[NAME];
    int64_t axis[EK_MAX_RANK];
    for (int i = 0; i < l->node->in[0].rank; i++) axis[i] = i + 1;
    APPLY(l, "Mul", l->x[0], l->x[0]);
    APPLY(l, "ReduceMean", now(l));
    ek_onnx_ints(l->out, "axes", l->node->in[0].rank, axis);
    APPLY(l, "Add", now(l), constant(l, "eps", single, real(l, "eps"), eps));
    APPLY(l, "Sqrt", now(l));
    APPLY(l, "Div", l->x[0], now(l));
    scale_and_shift(l, parameter);
}

/* --- windows: convolutions and pools */

typedef struct window {
    int axes;
    int64_t kernel[AXES], stride[AXES], dilation[AXES], begin[AXES], end[AXES];
    int64_t over[AXES]; /* by how much the last window reaches over the padded input, where ceil=true rounds up */
} window;

static window window_of(const layer *l)
{
    const ek_node *node = l->node;
    const ek_attr *padding_end = option(l, "padding_end");
    window w = {.axes = node->out.rank - 1};
    for (int d = 0; d < w.axes; d++) {
        w.kernel[d] = along(l, "kernel", d, 1);
        w.stride[d] = along(l, "stride", d, 1);
        if (w.stride[d] == 0) w.stride[d] = w.kernel[d]; /* of pools */
        w.dilation[d] = along(l, "dilation", d, 1);
        w.begin[d] = w.end[d] = along(l, "padding", d, 0);
        if (padding_end && padding_end->v[d] >= 0) w.end[d] = (int64_t)padding_end->v[d];
        int64_t needs = (node->out.dim[d + 1] - 1) * w.stride[d] + (w.kernel[d] - 1) * w.dilation[d] + 1,
                there = node->in[0].dim[d + 1] + w.begin[d] + w.end[d];
        w.over[d] = needs > there ? needs - there : 0;
    }
    return w;
}

static bool reaches_over(const window *w)
{
    bool over = false;
    for (int d = 0; d < w->axes; d++) over |= w->over[d] > 0;
    return over;
}

static bool is_dilated(const window *w)
{
    bool dilated = false;
    for (int d = 0; d < w->axes; d++) dilated |= w->dilation[d] > 1;
    return dilated;
}

/* What all windows have; over: with so much more padding at the end that the last one ends within it. */
static void window_attributes(layer *l, const window *w, bool over, bool dilations)
{
    int64_t pads[2 * AXES];
    for (int d = 0; d < w->axes; d++) {
        pads[d] = w->begin[d];
        pads[w->axes + d] = w->end[d] + (over ? w->over[d] : 0);
    }
    ek_onnx_ints(l->out, "kernel_shape", w->axes, w->kernel);
    ek_onnx_ints(l->out, "strides", w->axes, w->stride);
    ek_onnx_ints(l->out, "pads", 2 * w->axes, pads);
    if (dilations) ek_onnx_ints(l->out, "dilations", w->axes, w->dilation);
}

static void conv(layer *l)
{
    window w = window_of(l);
    const char *weight = parameter(l, EK_ROLE_WEIGHT);
    APPLY(l, "Conv", l->x[0], weight, parameter(l, EK_ROLE_BIAS));
    window_attributes(l, &w, false, true);
    ek_onnx_int(l->out, "group", (int64_t)real(l, "groups"));
}

static void convtranspose(layer *l)
{
    window w = window_of(l);
    int64_t more[AXES];
    for (int d = 0; d < w.axes; d++) more[d] = along(l, "output_padding", d, 0);
    const char *weight = parameter(l, EK_ROLE_WEIGHT);
    APPLY(l, "ConvTranspose", l->x[0], weight, parameter(l, EK_ROLE_BIAS));
    window_attributes(l, &w, false, true);
    ek_onnx_ints(l->out, "output_padding", w.axes, more);
    ek_onnx_int(l->out, "group", (int64_t)real(l, "groups"));
}

/* Padding is -infinity to a maximum, so that what reaches over is as well padded, and no reader's own rule for ceil_mode
 * matters; but padding must be less than a kernel. */
static void maxpool(layer *l)
{
    window w = window_of(l);
    bool fits = true;
    for (int d = 0; d < w.axes; d++) fits &= w.end[d] + w.over[d] < w.kernel[d];
    APPLY(l, "MaxPool", l->x[0]);
    window_attributes(l, &w, fits, is_dilated(&w));
    if (!fits) ek_onnx_int(l->out, "ceil_mode", 1);
}

/* Cells that count in each window along axis d: those of the input, with `padding` those of the padded input. */
static int64_t cells(const layer *l, const window *w, int d, int64_t place, bool padding)
{
    int64_t from = padding ? -w->begin[d] : 0, to = l->node->in[0].dim[d + 1] + (padding ? w->end[d] : 0), count = 0;
    for (int64_t k = 0; k < w->kernel[d]; k++) {
        int64_t cell = place * w->stride[d] - w->begin[d] + k * w->dilation[d];
        count += cell >= from && cell < to;
    }
    return count;
}

/* Averages that AveragePool cannot say before opset 19: a convolution that sums each channel's windows, times 1/count of each
 * window. */
static void sum_windows(layer *l, const window *w, bool padding)
{
    char ones[NAME], shares[NAME];
    ek_shape out = l->node->out, kernel = {.rank = 2 + w->axes, .dim = {out.dim[0], 1}}, map = {.rank = w->axes};
    for (int d = 0; d < w->axes; d++) {
        kernel.dim[2 + d] = w->kernel[d];
        map.dim[d] = out.dim[1 + d];
    }
    int64_t places = ek_shape_count(map), columns = map.dim[w->axes - 1];
    float *share;
    if (EK_NEW(share, (size_t)places) != EK_OK) {
        l->out->failed = true;
        return;
    }
    for (int64_t i = 0; i < places; i++) {
        int64_t count = cells(l, w, w->axes - 1, i % columns, padding);
        if (w->axes == 2) count *= cells(l, w, 0, i / columns, padding);
        share[i] = count > 0 ? (float)(1.0 / (double)count) : 0;
    }
    APPLY(l, "Conv", l->x[0], constant(l, "ones", kernel, 1, ones));
    window_attributes(l, w, true, true);
    ek_onnx_int(l->out, "group", out.dim[0]);
    ek_onnx_floats(l->out, inner_name(l, "shares", shares), map, places, share);
    APPLY(l, "Mul", now(l), shares);
    ek_free(share);
}

static void avgpool(layer *l)
{
    window w = window_of(l);
    bool padding = is_on(l, "count_pad");
    if (is_dilated(&w) || (padding && reaches_over(&w))) {
        sum_windows(l, &w, padding);
        return;
    }
    APPLY(l, "AveragePool", l->x[0]);
    window_attributes(l, &w, true, false);
    ek_onnx_int(l->out, "count_include_pad", padding);
}

static void globalavgpool(layer *l) { APPLY(l, "GlobalAveragePool", l->x[0]); }

/* --- activations */

static void relu(layer *l) { APPLY(l, "Relu", l->x[0]); }
static void sigmoid(layer *l) { APPLY(l, "Sigmoid", l->x[0]); }
static void hyperbolic_tangent(layer *l) { APPLY(l, "Tanh", l->x[0]); }
static void hardswish(layer *l) { APPLY(l, "HardSwish", l->x[0]); }

static void silu(layer *l)
{
    APPLY(l, "Sigmoid", l->x[0]);
    APPLY(l, "Mul", l->x[0], now(l));
}

static void leakyrelu(layer *l)
{
    APPLY(l, "LeakyRelu", l->x[0]);
    ek_onnx_float(l->out, "alpha", real(l, "slope"));
}

static void elu(layer *l)
{
    APPLY(l, "Elu", l->x[0]);
    ek_onnx_float(l->out, "alpha", real(l, "alpha"));
}

static void prelu(layer *l) { APPLY(l, "PRelu", l->x[0], channel_parameter(l, EK_ROLE_WEIGHT)); }

static void hardsigmoid(layer *l)
{
    APPLY(l, "HardSigmoid", l->x[0]);
    ek_onnx_float(l->out, "alpha", real(l, "alpha"));
    ek_onnx_float(l->out, "beta", real(l, "beta"));
}

static void clip(layer *l)
{
    char min[NAME] = "", max[NAME] = "";
    if (!isnan(real(l, "min"))) constant(l, "min", single, real(l, "min"), min);
    if (!isnan(real(l, "max"))) constant(l, "max", single, real(l, "max"), max);
    if (*max)
        APPLY(l, "Clip", l->x[0], min, max);
    else if (*min)
        APPLY(l, "Clip", l->x[0], min);
}

static void softmax(layer *l)
{
    APPLY(l, "Softmax", l->x[0]);
    ek_onnx_int(l->out, "axis", 1 + along(l, "axis", 0, 0));
}

/* Kept, for who trains on; without training_mode it passes on what it reads. */
static void dropout(layer *l)
{
    char ratio[NAME];
    APPLY(l, "Dropout", l->x[0], constant(l, "ratio", single, real(l, "p"), ratio));
}

/* --- the rest */

/* What programs give as an image's bytes/255 is normalized here, as `input mean= std=` says. */
static void input(layer *l)
{
    ek_pixels p = ek_input_pixels(l->node);
    ek_shape shape = by_channel(l, p.channels);
    float mean[EK_MAX_RANK], std[EK_MAX_RANK];
    bool shifts = false, scales = false;
    for (int i = 0; i < p.channels; i++) {
        mean[i] = (float)p.mean[i];
        std[i] = (float)p.std[i];
        shifts |= p.mean[i] != 0;
        scales |= p.std[i] != 1;
    }
    char name[NAME];
    if (shifts) {
        ek_onnx_floats(l->out, inner_name(l, "mean", name), shape, p.channels, mean);
        APPLY(l, "Sub", now(l), name);
    }
    if (scales) {
        ek_onnx_floats(l->out, inner_name(l, "std", name), shape, p.channels, std);
        APPLY(l, "Div", now(l), name);
    }
}

static void linear(layer *l)
{
    const char *weight = parameter(l, EK_ROLE_WEIGHT);
    APPLY(l, "Gemm", l->x[0], weight, parameter(l, EK_ROLE_BIAS));
    ek_onnx_int(l->out, "transB", 1);
}

static void flatten(layer *l)
{
    APPLY(l, "Flatten", l->x[0]);
    ek_onnx_int(l->out, "axis", 1);
}

static void reshape(layer *l) { reshape_to(l, "shape", l->node->out); }

static void permute(layer *l)
{
    int64_t order[1 + EK_MAX_RANK] = {0};
    for (int i = 0; i < l->node->in[0].rank; i++) order[1 + i] = 1 + (int64_t)l->node->attr[0].v[i];
    APPLY(l, "Transpose", l->x[0]);
    ek_onnx_ints(l->out, "perm", 1 + l->node->in[0].rank, order);
}

static void concat(layer *l)
{
    APPLY(l, "Concat", l->x[0], l->x[1]);
    ek_onnx_int(l->out, "axis", 1 + (int64_t)real(l, "axis"));
}

static void affine(layer *l) { scale_and_shift(l, parameter); }

static void add(layer *l) { APPLY(l, "Add", l->x[0], l->x[1]); }
static void sub(layer *l) { APPLY(l, "Sub", l->x[0], l->x[1]); }
static void mul(layer *l) { APPLY(l, "Mul", l->x[0], l->x[1]); }
static void divide(layer *l) { APPLY(l, "Div", l->x[0], l->x[1]); }

/* --- the net */

static const struct {
    const char *op;
    void (*write)(layer *l);
} writers[] = {
    {"input", input},
    {"conv", conv},
    {"conv1d", conv},
    {"convtranspose", convtranspose},
    {"convtranspose1d", convtranspose},
    {"linear", linear},
    {"batchnorm", batchnorm},
    {"layernorm", layernorm},
    {"groupnorm", groupnorm},
    {"instancenorm", instancenorm},
    {"rmsnorm", rmsnorm},
    {"affine", affine},
    {"relu", relu},
    {"leakyrelu", leakyrelu},
    {"prelu", prelu},
    {"elu", elu},
    {"clip", clip},
    {"sigmoid", sigmoid},
    {"hardsigmoid", hardsigmoid},
    {"hardswish", hardswish},
    {"tanh", hyperbolic_tangent},
    {"silu", silu},
    {"softmax", softmax},
    {"dropout", dropout},
    {"avgpool", avgpool},
    {"maxpool", maxpool},
    {"globalavgpool", globalavgpool},
    {"flatten", flatten},
    {"reshape", reshape},
    {"permute", permute},
    {"concat", concat},
    {"add", add},
    {"sub", sub},
    {"mul", mul},
    {"div", divide},
};

static ek_status write_layer(ek_onnx_writer *out, const ek_graph *graph, int index)
{
    const ek_node *node = &graph->node[index];
    layer l = begin_layer(out, graph, index);
    if (index == 0 && strcmp(l.y, "input") == 0) return EK_OK; /* nothing to do to it */
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        if (strcmp(writers[i].op, node->op->name) != 0) continue;
        writers[i].write(&l);
        end_layer(&l);
        return EK_OK;
    }
    return ek_fail(EK_E_UNSUPPORTED, "layer %s (%s) cannot be written as ONNX", l.prefix, node->op->name);
}

static ek_status tell(void *writer, const char *key, const char *value)
{
    ek_onnx_metadata(writer, key, value);
    return EK_OK;
}

ek_status ek_net_save_onnx(const ek_net *net, const char *path)
{
    if (!net || !path) return ek_fail(EK_E_ARGUMENT, "ek_net_save_onnx needs a net and a path");
    ek_onnx_writer writer = {0};
    ek_status status = EK_OK;
    EK_GO(ek_net_check_finite(net));
    for (int i = 0; i < net->graph.count; i++) EK_GO(write_layer(&writer, &net->graph, i));
    ek_onnx_ends(&writer, "net", "input", ek_net_input_shape(net), "output", ek_net_output_shape(net));
    EK_GO(ek_net_each_metadata(net, tell, &writer));
    EK_GO(ek_onnx_write(&writer, path));
done:
    ek_onnx_writer_free(&writer);
    return status;
}
