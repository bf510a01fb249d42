/* Arithmetic and activations. */
#include "onnx/import.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- with constants: affine maps */

/* Where c's numbers stand beside a sample of x: a shape of x's rank, each dimension c's or 1. behind: dimensions of 1 behind
 * c's own (opset 6, where `axis` says where c begins). *larger: it is, than x along one of them. */
static ek_status place(onnx_import *im, ek_shape x, const onnx_constant *c, int behind, ek_shape *out,
                       bool *larger)
{
    int rank = x.rank + im->lead;
    *out = x;
    *larger = false;
    for (int i = 0; i < x.rank; i++) out->dim[i] = 1;
    for (int i = 0; i < c->rank; i++) {
        int axis = rank - behind - c->rank + i - im->lead;
        if (axis < -im->lead)
            return ek_fail(EK_E_UNSUPPORTED, "its constant has more dimensions than what it goes with");
        if (c->dim[i] == 1) continue;
        if (axis < 0) return ek_onnx_touches_batch(im, "its constant has numbers by sample");
        if (c->dim[i] != x.dim[axis] && x.dim[axis] != 1)
            return ek_fail(EK_E_FORMAT,
                           "its constant has %lld numbers along dimension %d, and what it goes with %lld",
                           (long long)c->dim[i], axis + im->lead, (long long)x.dim[axis]);
        *larger |= c->dim[i] != x.dim[axis];
        out->dim[axis] = c->dim[i];
    }
    return EK_OK;
}

/* Element i of an array of shape `to`, in one of shape `from` that is broadcast to it. */
static int64_t place_of(ek_shape from, ek_shape to, int64_t i)
{
    int64_t at = 0, step = 1;
    for (int k = to.rank - 1; k >= 0; k--) {
        if (from.dim[k] != 1) at += i % to.dim[k] * step;
        i /= to.dim[k];
        step *= from.dim[k];
    }
    return at;
}

static ek_status spread(onnx_import *im, const double *from, ek_shape shape, ek_shape to, double fallback,
                        double **out)
{
    int64_t count = ek_shape_count(to);
    EK_TRY(ek_onnx_take_room(im, count));
    EK_TRY(ONNX_KEEP(&im->memory, *out, (size_t)count));
    for (int64_t i = 0; i < count; i++) (*out)[i] = from ? from[place_of(shape, to, i)] : fallback;
    return EK_OK;
}

/* A constant that no affine map can be: as a layer of its own. */
static ek_status give_of_layers(onnx_import *im, const onnx_node *node, char what, onnx_constant *c,
                                ek_shape shape, bool left)
{
    onnx_layer x, constant, y;
    const char *op = what == '+' ? "add" : what == '-' ? "sub" : what == '*' ? "mul" : "div";
    EK_TRY(ek_onnx_layer(im, node, left, &x));
    EK_TRY(ek_onnx_constant_layer(im, node, c, shape, &constant));
    EK_TRY(ek_onnx_binary(im, node, op, left ? constant : x, left ? x : constant, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

static ek_status give_affine(onnx_import *im, const onnx_node *node, const onnx_value *a, char what,
                             onnx_constant *c, bool left, int behind)
{
    ek_shape own, shape;
    bool larger;
    if (!ek_onnx_is_real(c->type))
        return ek_fail(EK_E_FORMAT, "its constant is %s, and goes with real numbers",
                       ek_onnx_type_name(c->type));
    EK_TRY(ek_onnx_load(im, c));
    EK_TRY(place(im, a->layer.shape, c, behind, &own, &larger));
    if (larger || (what == '/' && left)) return give_of_layers(im, node, what, c, own, left);
    onnx_affine map = a->affine;
    bool empty = !map.scale && !map.shift;
    shape = own;
    for (int i = 0; i < shape.rank && !empty; i++) {
        if (map.shape.dim[i] != 1) shape.dim[i] = map.shape.dim[i];
    }
    bool scales = map.scale || what == '*' || what == '/' || (what == '-' && left);
    bool shifts = map.shift || what == '+' || what == '-';
    if (empty) map.shape = own;
    double *scale = NULL, *shift = NULL;
    if (scales) EK_TRY(spread(im, map.scale, map.shape, shape, 1, &scale));
    if (shifts) EK_TRY(spread(im, map.shift, map.shape, shape, 0, &shift));
    int64_t count = ek_shape_count(shape);
    for (int64_t i = 0; i < count; i++) {
        double k = ek_onnx_number(c, place_of(own, shape, i)), sign = what == '-' && left ? -1 : 1;
        if (what == '*' || what == '/') {
            if (scale) scale[i] = what == '*' ? scale[i] * k : scale[i] / k;
            if (shift) shift[i] = what == '*' ? shift[i] * k : shift[i] / k;
        } else {
            if (scale) scale[i] *= sign;
            if (shift) shift[i] = sign * shift[i] + (what == '-' && !left ? -k : k);
        }
    }
    const char *label = map.label ? map.label : what == '*' ? ek_onnx_label(im, c) : NULL;
    c->takers++;
    if (count == 1 && scale && *scale == 1) scale = NULL; /* a factor taken back, as that of a hardswish */
    if (count == 1 && shift && *shift == 0) shift = NULL;
    map = (onnx_affine){.label = label, .shape = shape, .scale = scale, .shift = shift};
    ek_onnx_give_more(im, node, a->layer, &map, NULL);
    return EK_OK;
}

ek_status ek_onnx_give_affine(onnx_import *im, const onnx_node *node, const onnx_value *a, char what,
                              onnx_constant *c, bool left)
{
    return give_affine(im, node, a, what, c, left, 0);
}

/* A map that is one number for all: *scale and *shift; false where it is not. */
static bool is_number(const onnx_affine *a, double *scale, double *shift)
{
    if ((a->scale || a->shift) && ek_shape_count(a->shape) != 1) return false;
    *scale = a->scale ? a->scale[0] : 1;
    *shift = a->shift ? a->shift[0] : 0;
    return true;
}

static ek_status give_scaled(onnx_import *im, const onnx_node *node, onnx_layer y, double scale)
{
    onnx_affine map = {.shape = y.shape};
    for (int i = 0; i < map.shape.rank; i++) map.shape.dim[i] = 1;
    if (scale != 1) {
        EK_TRY(ONNX_KEEP(&im->memory, map.scale, 1));
        map.scale[0] = scale;
    }
    ek_onnx_give_more(im, node, y, &map, NULL);
    return EK_OK;
}

ek_status ek_onnx_neg(onnx_import *im, const onnx_node *node)
{
    onnx_constant *minus;
    onnx_value *value = ek_onnx_input(im, node, 0);
    if (!value) return ek_fail(EK_E_FORMAT, "its input is left out");
    EK_TRY(ek_onnx_new_constant(im, ONNX_FLOAT, 0, NULL, &minus));
    minus->real[0] = -1;
    EK_TRY(ek_onnx_settle(im, value, true));
    return ek_onnx_give_affine(im, node, value, '*', minus, false);
}

/* --- of two layers */

ek_status ek_onnx_binary(onnx_import *im, const onnx_node *node, const char *op, onnx_layer a, onnx_layer b,
                         onnx_layer *y)
{
    if (a.shape.rank != b.shape.rank && im->lead)
        return ek_onnx_touches_batch(
            im, "its inputs have %d and %d dimensions: the batch of one meets another dimension of the other",
            a.shape.rank + 1, b.shape.rank + 1);
    int rank = a.shape.rank > b.shape.rank ? a.shape.rank : b.shape.rank;
    onnx_layer *both[2] = {&a, &b};
    for (int k = 0; k < 2; k++) {
        ek_shape shape = {.rank = rank}, own = both[k]->shape;
        for (int i = 0; i < rank; i++)
            shape.dim[i] = i < rank - own.rank ? 1 : own.dim[i - (rank - own.rank)];
        EK_TRY(ek_onnx_reshape(im, *both[k], shape, both[k]));
    }
    for (int i = 0; i < rank; i++) {
        if (a.shape.dim[i] != b.shape.dim[i] && a.shape.dim[i] != 1 && b.shape.dim[i] != 1)
            return ek_fail(EK_E_FORMAT, "its inputs have %lld and %lld numbers along dimension %d",
                           (long long)a.shape.dim[i], (long long)b.shape.dim[i], i + im->lead);
    }
    EK_TRY(ek_onnx_add(im, node, NULL, op, a.index, b.index, y, " "));
    if (rank == 0) y->shape.rank = 0;
    return EK_OK;
}

/* x times a function of x that together have a name. */
static const char *product_name(onnx_import *im, int x, int of_x)
{
    const ek_node *node = ek_builder_node(&im->builder, of_x);
    if (node->input_count != 1 || node->input[0] != x) return NULL;
    if (!strcmp(node->op->name, "sigmoid")) return "silu";
    if (strcmp(node->op->name, "hardsigmoid") != 0) return NULL;
    bool standard = fabs(node->attr[0].v[0] - 1.0 / 6) < 1e-7 && fabs(node->attr[1].v[0] - 0.5) < 1e-7;
    return standard ? "hardswish" : NULL;
}

/* A factor that is left of a value comes behind the product: hardswish is often written so. */
static ek_status multiply(onnx_import *im, const onnx_node *node)
{
    onnx_layer x[2], y;
    double scale[2] = {1, 1}, shift;
    for (int k = 0; k < 2; k++) {
        onnx_value *value = ek_onnx_input(im, node, k);
        bool stays = is_number(&value->affine, &scale[k], &shift) && shift == 0;
        bool pads = value->pad[0] | value->pad[1] | value->pad[2] | value->pad[3];
        if (!stays || pads) {
            scale[k] = 1;
            EK_TRY(ek_onnx_settle(im, value, true));
        }
        x[k] = value->layer;
        if (x[k].shape.rank > EK_MAX_VALUE_RANK)
            return ek_fail(EK_E_UNSUPPORTED, "it multiplies values of %d dimensions",
                           x[k].shape.rank + im->lead);
    }
    const char *name = product_name(im, x[0].index, x[1].index);
    if (!name) name = product_name(im, x[1].index, x[0].index);
    bool second = name && ek_builder_node(&im->builder, x[0].index)->input[0] == x[1].index;
    if (name)
        EK_TRY(ek_onnx_add(im, node, NULL, name, x[second].index, -1, &y, " "));
    else
        EK_TRY(ek_onnx_binary(im, node, "mul", x[0], x[1], &y));
    if (x[0].shape.rank == 0) y.shape.rank = 0;
    return give_scaled(im, node, y, scale[0] * scale[1]);
}

/* Before opset 7 the second input is broadcast where `broadcast` says so, from dimension `axis` of the first on. */
static ek_status old_broadcast(onnx_import *im, const onnx_node *node, const onnx_layer *x,
                               const onnx_constant *c, int *behind)
{
    int64_t broadcast, axis;
    *behind = 0;
    if (im->model->opset >= 7) return EK_OK;
    EK_TRY(ek_onnx_get_int(node, "broadcast", 0, &broadcast));
    EK_TRY(ek_onnx_get_int(node, "axis", -1, &axis));
    int rank = x->shape.rank + im->lead;
    if (!broadcast || axis < 0) return EK_OK;
    if (axis > rank - c->rank)
        return ek_fail(EK_E_FORMAT, "its axis %lld leaves no room for its constant", (long long)axis);
    *behind = rank - c->rank - (int)axis;
    return EK_OK;
}

ek_status ek_onnx_arithmetic(onnx_import *im, const onnx_node *node)
{
    static const struct {
        const char *op, *layer;
        char what;
    } rows[] = {{"Add", "add", '+'}, {"Sub", "sub", '-'}, {"Mul", "mul", '*'}, {"Div", "div", '/'}};
    int row = 0, behind = 0;
    while (strcmp(rows[row].op, node->op) != 0) row++;
    onnx_value *a = ek_onnx_input(im, node, 0), *b = ek_onnx_input(im, node, 1);
    if (!a || !b) return ek_fail(EK_E_FORMAT, "it lacks an input");
    if (a->kind == ONNX_CONSTANT || b->kind == ONNX_CONSTANT) {
        bool left = a->kind == ONNX_CONSTANT;
        onnx_value *x = left ? b : a;
        onnx_constant *c = left ? a->constant : b->constant;
        if (x->pad[0] | x->pad[1] | x->pad[2] | x->pad[3]) EK_TRY(ek_onnx_settle(im, x, true));
        if (!left) EK_TRY(old_broadcast(im, node, &x->layer, c, &behind));
        return give_affine(im, node, x, rows[row].what, c, left, behind);
    }
    if (rows[row].what == '*') {
        bool found = false;
        if (a == b) EK_TRY(ek_onnx_rms_norm(im, node, &found));
        return found ? EK_OK : multiply(im, node);
    }
    onnx_layer first, second, y;
    EK_TRY(ek_onnx_layer(im, node, 0, &first));
    EK_TRY(ek_onnx_layer(im, node, 1, &second));
    EK_TRY(ek_onnx_binary(im, node, rows[row].layer, first, second, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_sum(onnx_import *im, const onnx_node *node)
{
    onnx_layer sum, next;
    EK_TRY(ek_onnx_layer(im, node, 0, &sum));
    for (int k = 1; k < node->input_count; k++) {
        EK_TRY(ek_onnx_layer(im, node, k, &next));
        EK_TRY(ek_onnx_binary(im, node, "add", sum, next, &sum));
    }
    ek_onnx_give(im, node, sum);
    return EK_OK;
}

/* --- activations */

static const struct activation {
    const char *op, *layer;
    const char *name[2], *option[2]; /* attributes, and what they are here */
    double fallback[2];
} activations[] = {
    {"Relu", "relu", {NULL}, {NULL}, {0}},
    {"Sigmoid", "sigmoid", {NULL}, {NULL}, {0}},
    {"Tanh", "tanh", {NULL}, {NULL}, {0}},
    {"HardSwish", "hardswish", {NULL}, {NULL}, {0}},
    {"Elu", "elu", {"alpha"}, {"alpha"}, {1}},
    {"LeakyRelu", "leakyrelu", {"alpha"}, {"slope"}, {0.01}},
    {"HardSigmoid", "hardsigmoid", {"alpha", "beta"}, {"alpha", "beta"}, {0.2, 0.5}},
};

/* An activation keeps its input's shape, in ONNX's view too. */
static ek_status add_same(onnx_import *im, const onnx_node *node, const char *op, onnx_layer x, onnx_layer *y,
                          const char *options)
{
    EK_TRY(ek_onnx_add(im, node, NULL, op, x.index, -1, y, "%s", options));
    y->shape = x.shape;
    return EK_OK;
}

ek_status ek_onnx_activation(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    const struct activation *row = activations;
    while (strcmp(row->op, node->op) != 0) row++;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    char options[3 * EK_REAL_TEXT] = "";
    size_t used = 0;
    for (int k = 0; k < 2 && row->name[k]; k++) {
        double value;
        char text[EK_REAL_TEXT];
        EK_TRY(ek_onnx_get_float(node, row->name[k], row->fallback[k], &value));
        used += (size_t)snprintf(options + used, sizeof options - used, " %s=%s", row->option[k],
                                 ek_real_text(value, text));
    }
    EK_TRY(add_same(im, node, row->layer, x, &y, options));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

static ek_status clip_bound(onnx_import *im, const onnx_node *node, int input, const char *name,
                            double fallback, double *out)
{
    *out = fallback;
    if (im->model->opset < 11) return ek_onnx_get_float(node, name, fallback, out);
    onnx_constant *c;
    EK_TRY(ek_onnx_constant_input(im, node, input, false, name, &c));
    if (!c) return EK_OK;
    EK_TRY(ek_onnx_load(im, c));
    if (!c->real || c->count != 1) return ek_fail(EK_E_FORMAT, "its %s is not one real number", name);
    *out = (double)c->real[0];
    return EK_OK;
}

/* clip(s*x + t, 0, m) = m * hardsigmoid(x), with alpha s/m and beta t/m. */
static ek_status clip_affine(onnx_import *im, const onnx_node *node, const onnx_value *value, double most,
                             bool *done)
{
    double scale, shift;
    const int64_t *p = value->pad;
    *done = value->affine.shift && is_number(&value->affine, &scale, &shift) && scale > 0 && most > 0 &&
            isfinite(most) && !(p[0] | p[1] | p[2] | p[3]);
    if (!*done) return EK_OK;
    onnx_layer y;
    EK_TRY(ek_onnx_add(im, node, NULL, "hardsigmoid", value->layer.index, -1, &y, "alpha=%s beta=%s",
                       ONNX_REAL(scale / most), ONNX_REAL(shift / most)));
    y.shape = value->layer.shape;
    return give_scaled(im, node, y, most);
}

ek_status ek_onnx_clip(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    double least, most;
    bool done = false;
    EK_TRY(clip_bound(im, node, 1, "min", -INFINITY, &least));
    EK_TRY(clip_bound(im, node, 2, "max", INFINITY, &most));
    if (isnan(least) || isnan(most)) return ek_fail(EK_E_FORMAT, "one of its bounds is not a number");
    /* Bounds at the ends of float are none: old exporters wrote them so. */
    bool below = least > -3.4e38, above = most < 3.4e38;
    const onnx_value *value = ek_onnx_input(im, node, 0);
    if (value && value->kind == ONNX_LAYER && least == 0 && above)
        EK_TRY(clip_affine(im, node, value, most, &done));
    if (done) return EK_OK;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    if (!below && !above) return ek_onnx_pass_on(im, node), EK_OK;
    char options[3 * EK_REAL_TEXT];
    snprintf(options, sizeof options, "min=%s max=%s", below ? ONNX_REAL(least) : "none",
             above ? ONNX_REAL(most) : "none");
    if (least == 0 && !above)
        EK_TRY(add_same(im, node, "relu", x, &y, ""));
    else
        EK_TRY(add_same(im, node, "clip", x, &y, options));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- PRelu */

/* Slopes for all, or by channel: in opset 6 a list is by channel, later it stands at the last dimension. */
static bool is_by_channel(onnx_import *im, ek_shape x, const onnx_constant *slope, const ek_shape *placed)
{
    if (slope->count == 1) return true;
    if (x.rank == 0 || slope->count != x.dim[0]) return false;
    return (im->model->opset < 7 && slope->rank == 1) || (placed && placed->dim[0] == slope->count);
}

/* max(x, 0) + slope * min(x, 0) */
static ek_status prelu_of_parts(onnx_import *im, const onnx_node *node, onnx_layer x)
{
    onnx_layer positive, negative, y;
    EK_TRY(add_same(im, node, "relu", x, &positive, ""));
    EK_TRY(add_same(im, node, "clip", x, &negative, "max=0"));
    const onnx_value *slope = ek_onnx_input(im, node, 1);
    if (slope->kind == ONNX_CONSTANT) {
        const onnx_value part = {.kind = ONNX_LAYER, .layer = negative};
        EK_TRY(ek_onnx_give_affine(im, node, &part, '*', slope->constant, false));
        onnx_value *given = &im->value[node->output[0]];
        EK_TRY(ek_onnx_settle(im, given, true));
        y = given->layer;
    } else {
        onnx_layer by;
        EK_TRY(ek_onnx_layer(im, node, 1, &by));
        EK_TRY(ek_onnx_binary(im, node, "mul", negative, by, &y));
    }
    EK_TRY(ek_onnx_binary(im, node, "add", positive, y, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_prelu(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    ek_shape placed;
    bool larger = false;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    const onnx_value *value = ek_onnx_input(im, node, 1);
    if (!value) return ek_fail(EK_E_FORMAT, "its slope is left out");
    if (node->output_count < 1 || node->output[0] < 0) return EK_OK;
    if (value->kind != ONNX_CONSTANT) return prelu_of_parts(im, node, x);
    onnx_constant *slope = value->constant;
    bool old = im->model->opset < 7 && slope->rank == 1;
    if (!old) EK_TRY(place(im, x.shape, slope, 0, &placed, &larger));
    if (larger) return ek_fail(EK_E_FORMAT, "its slopes are more than what they go with");
    if (!is_by_channel(im, x.shape, slope, old ? NULL : &placed)) return prelu_of_parts(im, node, x);
    ek_shape shape = x.shape;
    if (shape.rank == 4) EK_TRY(ek_onnx_as_map(im, x, &x));
    EK_TRY(ek_onnx_add(im, node, slope, "prelu", x.index, -1, &y, "n=%lld", (long long)slope->count));
    EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_WEIGHT, slope, "slope"));
    EK_TRY(ek_onnx_reshape(im, y, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- softmax, dropout */

ek_status ek_onnx_softmax(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    int64_t given;
    int axis;
    bool old = im->model->opset < 13; /* all dimensions from `axis` on are one then */
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_get_int(node, "axis", old ? 1 : -1, &given));
    ek_shape shape = x.shape;
    if (shape.rank == 0 && im->lead && (given == 1 || given == -1) && old) given = 0;
    EK_TRY(ek_onnx_axis(im, given, shape.rank + im->lead, false, &axis));
    int64_t rows = 1, each = 1;
    for (int i = 0; i < shape.rank; i++) *(i < axis ? &rows : &each) *= shape.dim[i];
    if (old && rows == 1) {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape1(each), &x));
        axis = 0;
    } else if (old) {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape2(rows, each), &x));
        axis = 1;
    }
    EK_TRY(ek_onnx_add(im, node, NULL, "softmax", x.index, -1, &y, "axis=%d", axis));
    EK_TRY(ek_onnx_reshape(im, y, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* The share is an attribute before opset 12, an input from then on; in training mode it drops at inference too, which no
 * net here does. */
ek_status ek_onnx_dropout(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    double share = 0.5;
    bool training = false;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    if (im->model->opset < 12) {
        EK_TRY(ek_onnx_get_float(node, "ratio", 0.5, &share));
    } else {
        onnx_constant *ratio, *mode;
        EK_TRY(ek_onnx_constant_input(im, node, 1, false, "ratio", &ratio));
        EK_TRY(ek_onnx_constant_input(im, node, 2, false, "training mode", &mode));
        if (ratio) EK_TRY(ek_onnx_load(im, ratio));
        if (mode) EK_TRY(ek_onnx_load(im, mode));
        if ((ratio && ratio->count != 1) || (mode && mode->count != 1))
            return ek_fail(EK_E_FORMAT, "its ratio is not one number");
        if (ratio) share = (double)(float)ek_onnx_number(ratio, 0);
        training = mode && ek_onnx_number(mode, 0) != 0;
    }
    if (!(share >= 0 && share < 1)) return ek_fail(EK_E_FORMAT, "its ratio is %g", share);
    if (share == 0) return ek_onnx_pass_on(im, node), EK_OK;
    if (training)
        EK_TRY(ek_onnx_note(
            im,
            "Dropout '%s' was exported in training mode: here it drops in training, and at inference nothing",
            ek_onnx_shown_name(im->model, node)));
    char options[EK_REAL_TEXT + 2] = "p=";
    ek_real_text(round(share * 1e6) / 1e6, options + 2);
    EK_TRY(add_same(im, node, "dropout", x, &y, options));
    ek_onnx_give(im, node, y);
    return EK_OK;
}
