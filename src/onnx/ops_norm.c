/* Normalizations. */
#include "onnx/import.h"

#include <math.h>
#include <string.h>

/* Momentum here is the share of the new batch, ONNX's that of the old: 0.9 there is 0.1 here, without 0.0999999. */
static double turned(double momentum) { return round((1 - momentum) * 1e9) / 1e9; }

/* Whether it was exported in training mode. Before opset 14 the number of outputs says so. */
static ek_status in_training(onnx_import *im, const onnx_node *node, bool *training)
{
    int64_t flag;
    if (im->model->opset >= 14) {
        EK_TRY(ek_onnx_get_int(node, "training_mode", 0, &flag));
        *training = flag != 0;
        return EK_OK;
    }
    int outputs = 0;
    for (int k = 0; k < node->output_count; k++) outputs += node->output[k] >= 0;
    EK_TRY(ek_onnx_get_int(node, "is_test", 0, &flag));
    *training = outputs > 1 && !(im->model->opset < 7 && flag);
    return EK_OK;
}

static void name_in_training(onnx_import *im, const onnx_node *node)
{
    enum { ROOM = 600 };
    ek_text *names = &im->in_training;
    if (names->length > ROOM) return;
    ek_text_add(names, "%s'%.200s'", names->length ? ", " : "",
                ek_onnx_shown_name(im->model, node));
    if (names->length > ROOM) ek_text_add(names, " and others");
}

static ek_status note_momentum(onnx_import *im, double momentum, bool unbiased)
{
    char before[EK_REAL_TEXT], after[EK_REAL_TEXT];
    for (int i = 0; i < im->note_count; i++) {
        if (!strncmp(im->note[i], "momentum ", 9)) return EK_OK;
    }
    if (momentum == 1)
        return ek_onnx_note(
            im,
            "momentum 1, where the running statistics stay as they are, is what PyTorch writes for "
            "momentum=None: it is read as none, the average of all batches. It matters in training alone");
    return ek_onnx_note(
        im,
        "momentum %s in ONNX's sense, the share of the old statistics, is %s here; running variances are "
        "taken with %s. Both matter in training alone",
        ek_real_text(momentum, before), ek_real_text(turned(momentum), after),
        unbiased ? "m-1, since opset 13 and before leave it open" : "m, as from opset 14 on");
}

/* Its options, and the statistics that go with them. */
static ek_status add_batch_norm(onnx_import *im, const onnx_node *node, onnx_layer x, onnx_layer *y)
{
    static const char *const names[] = {NULL, "scale", "bias", "mean", "variance"};
    static const ek_role roles[] = {0, EK_ROLE_GAMMA, EK_ROLE_BETA, EK_ROLE_RUNNING_MEAN,
                                    EK_ROLE_RUNNING_VAR};
    onnx_constant *numbers[5];
    double eps, momentum;
    bool training, unbiased = im->model->opset < 14;
    char text[EK_REAL_TEXT];
    for (int k = 1; k < 5; k++) EK_TRY(ek_onnx_constant_input(im, node, k, true, names[k], &numbers[k]));
    EK_TRY(ek_onnx_get_float(node, "epsilon", 1e-5, &eps));
    EK_TRY(ek_onnx_get_float(node, "momentum", 0.9, &momentum));
    EK_TRY(in_training(im, node, &training));
    if (!(momentum >= 0 && momentum <= 1))
        return ek_fail(EK_E_FORMAT, "its momentum is %s", ek_real_text(momentum, text));
    bool track = !training || im->options->bn_inference;
    if (training) name_in_training(im, node);
    if (track) EK_TRY(note_momentum(im, momentum, unbiased));
    EK_TRY(ek_onnx_add(im, node, numbers[1], "batchnorm", x.index, -1, y,
                       "eps=%s momentum=%s track=%s unbiased=%s", ONNX_REAL(eps),
                       momentum == 1 ? "none" : ONNX_REAL(turned(momentum)), track ? "true" : "false",
                       unbiased ? "true" : "false"));
    for (int k = 1; k < (track ? 5 : 3); k++)
        EK_TRY(ek_onnx_fill(im, y->index, roles[k], numbers[k], names[k]));
    return EK_OK;
}

ek_status ek_onnx_batch_norm(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    int64_t spatial = 1;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    if (im->model->opset < 9) EK_TRY(ek_onnx_get_int(node, "spatial", 1, &spatial));
    if (x.shape.rank == 0) return ek_fail(EK_E_UNSUPPORTED, "its input has no channels");
    ek_shape shape = x.shape;
    if (spatial)
        EK_TRY(ek_onnx_as_map(im, x, &x));
    else /* each number of a sample by itself: they are features */
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape1(ek_shape_count(x.shape)), &x));
    EK_TRY(add_batch_norm(im, node, x, &y));
    EK_TRY(ek_onnx_reshape(im, y, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

ek_status ek_onnx_instance_norm(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    onnx_constant *scale, *bias;
    double eps;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "scale", &scale));
    EK_TRY(ek_onnx_constant_input(im, node, 2, true, "bias", &bias));
    EK_TRY(ek_onnx_get_float(node, "epsilon", 1e-5, &eps));
    ek_shape shape = x.shape;
    EK_TRY(ek_onnx_as_map(im, x, &x));
    EK_TRY(ek_onnx_add(im, node, scale, "instancenorm", x.index, -1, &y, "eps=%s scale=true shift=true",
                       ONNX_REAL(eps)));
    EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_GAMMA, scale, "scale"));
    EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_BETA, bias, "bias"));
    EK_TRY(ek_onnx_reshape(im, y, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- layer normalization, over the last dimensions */

/* scale and bias, which may be left out, as an affine map over the last dimensions of x. */
static ek_status give_affine_tail(onnx_import *im, const onnx_node *node, onnx_layer x, int axis,
                                  onnx_constant *scale, onnx_constant *bias)
{
    onnx_affine a = {.label = NULL, .shape = x.shape};
    int64_t count = 1;
    for (int i = 0; i < x.shape.rank; i++) {
        if (i < axis) a.shape.dim[i] = 1;
        count *= a.shape.dim[i];
    }
    onnx_constant *from[2] = {scale, bias};
    double *to[2] = {NULL, NULL};
    for (int k = 0; k < 2; k++) {
        if (!from[k]) continue;
        if (from[k]->count != count)
            return ek_fail(EK_E_FORMAT, "its %s has %lld numbers, and it normalizes %lld",
                           k ? "bias" : "scale", (long long)from[k]->count, (long long)count);
        EK_TRY(ek_onnx_load(im, from[k]));
        EK_TRY(ONNX_KEEP(&im->memory, to[k], (size_t)count));
        for (int64_t i = 0; i < count; i++) to[k][i] = ek_onnx_number(from[k], i);
    }
    a.scale = to[0];
    a.shift = to[1];
    ek_onnx_give_more(im, node, x, &a, NULL);
    return EK_OK;
}

ek_status ek_onnx_normalize_tail(onnx_import *im, const onnx_node *node, onnx_layer x, int axis, double eps,
                                 onnx_layer *y)
{
    ek_shape shape = x.shape;
    int64_t rows = 1, each = 1;
    for (int i = 0; i < shape.rank; i++) *(i < axis ? &rows : &each) *= shape.dim[i];
    if (rows == 1) {
        if (shape.rank > 3) EK_TRY(ek_onnx_as_map(im, x, &x));
        EK_TRY(ek_onnx_add(im, node, NULL, "layernorm", x.index, -1, y, "eps=%s scale=false shift=false",
                           ONNX_REAL(eps)));
    } else {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape2(rows, each), &x));
        EK_TRY(ek_onnx_add(im, node, NULL, "instancenorm", x.index, -1, y, "eps=%s", ONNX_REAL(eps)));
    }
    return ek_onnx_reshape(im, *y, shape, y);
}

ek_status ek_onnx_layer_norm(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    onnx_constant *scale, *bias;
    int64_t given;
    int axis;
    double eps;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "scale", &scale));
    EK_TRY(ek_onnx_constant_input(im, node, 2, false, "bias", &bias));
    EK_TRY(ek_onnx_get_int(node, "axis", -1, &given));
    EK_TRY(ek_onnx_get_float(node, "epsilon", 1e-5, &eps));
    EK_TRY(ek_onnx_axis(im, given, x.shape.rank + im->lead, false, &axis));
    ek_shape shape = x.shape;
    int64_t rows = 1;
    for (int i = 0; i < axis; i++) rows *= shape.dim[i];
    if (rows == 1) {
        if (shape.rank > 3) EK_TRY(ek_onnx_as_map(im, x, &x));
        EK_TRY(ek_onnx_add(im, node, scale, "layernorm", x.index, -1, &y, "eps=%s shift=%s", ONNX_REAL(eps),
                           bias ? "true" : "false"));
        EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_GAMMA, scale, "scale"));
        if (bias) EK_TRY(ek_onnx_fill(im, y.index, EK_ROLE_BETA, bias, "bias"));
        EK_TRY(ek_onnx_reshape(im, y, shape, &y));
        ek_onnx_give(im, node, y);
        return EK_OK;
    }
    EK_TRY(ek_onnx_normalize_tail(im, node, x, axis, eps, &y));
    return give_affine_tail(im, node, y, axis, scale, bias);
}

/* Numbers for each group, as opset 18 has them, are given to its channels. */
static ek_status fill_channels(onnx_import *im, int layer, ek_role role, onnx_constant *from,
                               int64_t channels, int64_t groups, const char *what)
{
    if (from->count != groups || groups == channels || im->model->opset > 20)
        return ek_onnx_fill(im, layer, role, from, what);
    EK_TRY(ek_onnx_load(im, from));
    float *to = ek_builder_data(&im->builder, layer, role);
    for (int64_t i = 0; i < channels; i++) to[i] = (float)ek_onnx_number(from, i / (channels / groups));
    return EK_OK;
}

ek_status ek_onnx_group_norm(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    onnx_constant *scale, *bias;
    int64_t groups;
    double eps;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "scale", &scale));
    EK_TRY(ek_onnx_constant_input(im, node, 2, true, "bias", &bias));
    EK_TRY(ek_onnx_get_int(node, "num_groups", 0, &groups));
    EK_TRY(ek_onnx_get_float(node, "epsilon", 1e-5, &eps));
    if (x.shape.rank == 0 || groups < 1 || x.shape.dim[0] % groups)
        return ek_fail(EK_E_FORMAT, "its channels do not go into %lld groups", (long long)groups);
    ek_shape shape = x.shape;
    EK_TRY(ek_onnx_as_map(im, x, &x));
    EK_TRY(ek_onnx_add(im, node, scale, "groupnorm", x.index, -1, &y, "groups=%lld eps=%s", (long long)groups,
                       ONNX_REAL(eps)));
    EK_TRY(fill_channels(im, y.index, EK_ROLE_GAMMA, scale, shape.dim[0], groups, "scale"));
    EK_TRY(fill_channels(im, y.index, EK_ROLE_BETA, bias, shape.dim[0], groups, "bias"));
    EK_TRY(ek_onnx_reshape(im, y, shape, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}
