/* Resize and Upsample by whole factors to the nearest neighbour: each number becomes a block of itself, as a transposed
 * convolution of ones makes it. */
#include "onnx/import.h"

#include <math.h>
#include <string.h>

/* Whether the neighbour that is taken is the one whose block the place lies in. For half pixels, (i + 0.5)/f - 0.5 is never
 * halfway between two. */
static ek_status check_mode(onnx_import *im, const onnx_node *node)
{
    const char *mode, *places, *nearest;
    EK_TRY(ek_onnx_get_text(node, "mode", "nearest", &mode));
    EK_TRY(ek_onnx_get_text(node, "coordinate_transformation_mode", "half_pixel", &places));
    EK_TRY(ek_onnx_get_text(node, "nearest_mode", "round_prefer_floor", &nearest));
    if (strcmp(mode, "nearest") != 0)
        return ek_fail(EK_E_UNSUPPORTED, "its mode '%s' is not read; nearest is", mode);
    if (im->model->opset < 11) return EK_OK;
    const char *ratio;
    const int64_t *axes;
    int count;
    EK_TRY(ek_onnx_get_text(node, "keep_aspect_ratio_policy", "stretch", &ratio));
    EK_TRY(ek_onnx_get_ints(node, "axes", &axes, &count));
    if (strcmp(ratio, "stretch") != 0)
        return ek_fail(EK_E_UNSUPPORTED, "its keep_aspect_ratio_policy '%s' is not read; stretch is", ratio);
    if (axes) return ek_fail(EK_E_UNSUPPORTED, "it has a list of axes, which is not read");
    bool asymmetric = !strcmp(places, "asymmetric") && !strcmp(nearest, "floor");
    bool half = (!strcmp(places, "half_pixel") || !strcmp(places, "pytorch_half_pixel")) &&
                !strncmp(nearest, "round_", 6);
    if (asymmetric || half) return EK_OK;
    return ek_fail(EK_E_UNSUPPORTED,
                   "its coordinate_transformation_mode '%s' with nearest_mode '%s' is not read", places,
                   nearest);
}

/* The factors, where the file has them: an attribute before opset 9, then an input, and from opset 11 on the sizes instead. */
static ek_status take_factors(onnx_import *im, const onnx_node *node, ek_shape x, double *factor)
{
    const onnx_attribute *list = NULL;
    onnx_constant *scales = NULL, *sizes = NULL;
    int rank = x.rank + im->lead;
    if (im->model->opset < 9) EK_TRY(ek_onnx_find_attribute(node, "scales", ONNX_A_FLOATS, &list));
    if (!list)
        EK_TRY(ek_onnx_constant_input(im, node, im->model->opset < 11 ? 1 : 2, false, "list of scales",
                                      &scales));
    if (im->model->opset >= 11) EK_TRY(ek_onnx_constant_input(im, node, 3, false, "list of sizes", &sizes));
    bool by_size = sizes && (!scales || scales->count == 0);
    const onnx_constant *given = by_size ? sizes : scales;
    if ((list ? (int64_t)list->count : given ? given->count : -1) != rank)
        return ek_fail(EK_E_FORMAT, "its scales or sizes are not for %d dimensions", rank);
    if (!list) EK_TRY(ek_onnx_load(im, by_size ? sizes : scales));
    for (int i = 0; i < rank; i++) {
        bool batch = given && given->whole && given->whole[i] == ONNX_BATCH;
        double value = list ? (double)list->floats[i] : batch ? 1 : ek_onnx_number(given, i);
        if (i < im->lead) {
            if (by_size ? !batch && value != (double)im->batch : value != 1)
                return ek_onnx_touches_batch(im, "it resizes along the batch");
            continue;
        }
        factor[i - im->lead] = by_size ? value / (double)x.dim[i - im->lead] : value;
    }
    return EK_OK;
}

ek_status ek_onnx_resize(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    double factor[EK_MAX_VALUE_RANK];
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(check_mode(im, node));
    EK_TRY(take_factors(im, node, x.shape, factor));
    if (x.shape.rank < 2 || x.shape.rank > 3 || factor[0] != 1)
        return ek_fail(EK_E_UNSUPPORTED, "it resizes other dimensions than those of a map or sequence");
    long long size[2] = {1, 1}, channels = x.shape.dim[0];
    for (int i = 1; i < x.shape.rank; i++) {
        if (!(factor[i] >= 1 && factor[i] <= 64) || factor[i] != floor(factor[i]))
            return ek_fail(EK_E_UNSUPPORTED, "it resizes by %g; whole factors are read", factor[i]);
        size[i - 1] = (long long)factor[i];
    }
    if (size[0] == 1 && size[1] == 1) return ek_onnx_pass_on(im, node), EK_OK;
    if (x.shape.rank == 3)
        EK_TRY(ek_onnx_add(im, node, NULL, "convtranspose", x.index, -1, &y,
                           "out=%lld kernel=%lldx%lld stride=%lldx%lld groups=%lld bias=false", channels,
                           size[0], size[1], size[0], size[1], channels));
    else
        EK_TRY(ek_onnx_add(im, node, NULL, "convtranspose1d", x.index, -1, &y,
                           "out=%lld kernel=%lld stride=%lld groups=%lld bias=false", channels, size[0],
                           size[0], channels));
    float *weight = ek_builder_data(&im->builder, y.index, EK_ROLE_WEIGHT);
    for (long long i = 0; i < channels * size[0] * size[1]; i++) weight[i] = 1;
    EK_TRY(ek_onnx_note(
        im, "%s repeats numbers: transposed convolutions of ones do it, which training would change",
        node->op));
    ek_onnx_give(im, node, y);
    return EK_OK;
}
