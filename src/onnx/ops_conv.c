/* Convolutions, and zeros around maps. */
#include "onnx/window.h"

#include <string.h>

typedef struct weights {
    onnx_constant *weight, *bias;
    int64_t groups;
} weights;

/* Weights of x's rank, and a bias, here or in an Add behind. */
static ek_status take_weights(onnx_import *im, const onnx_node *node, onnx_layer x, weights *out)
{
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "weights", &out->weight));
    EK_TRY(ek_onnx_constant_input(im, node, 2, false, "bias", &out->bias));
    EK_TRY(ek_onnx_get_int(node, "group", 1, &out->groups));
    if (x.shape.rank == 4) return ek_fail(EK_E_UNSUPPORTED, "convolutions in three dimensions are not read");
    if (x.shape.rank < 2)
        return ek_fail(EK_E_UNSUPPORTED, "its input is no map and no sequence: a sample of it is %s",
                       ONNX_SHAPE(x.shape));
    if (out->weight->rank != x.shape.rank + 1)
        return ek_fail(EK_E_FORMAT, "its weights have %d dimensions, and its input's shape asks for %d",
                       out->weight->rank, x.shape.rank + 1);
    if (out->groups < 1 || out->weight->count == 0 || out->weight->dim[0] % out->groups)
        return ek_fail(EK_E_FORMAT, "its %lld filters do not go into %lld groups",
                       (long long)out->weight->dim[0], (long long)out->groups);
    return EK_OK;
}

static ek_status fill_weights(onnx_import *im, int layer, const weights *from)
{
    EK_TRY(ek_onnx_fill(im, layer, EK_ROLE_WEIGHT, from->weight, "weights"));
    return from->bias ? ek_onnx_fill(im, layer, EK_ROLE_BIAS, from->bias, "bias") : EK_OK;
}

ek_status ek_onnx_conv(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    weights from;
    onnx_window w;
    int64_t pad[4];
    EK_TRY(ek_onnx_padded_layer(im, node, 0, &x, pad));
    EK_TRY(take_weights(im, node, x, &from));
    if (from.weight->dim[1] * from.groups != x.shape.dim[0])
        return ek_fail(EK_E_FORMAT,
                       "its weights are for %lld channels in %lld groups, and its input has %lld",
                       (long long)from.weight->dim[1], (long long)from.groups, (long long)x.shape.dim[0]);
    int dims = x.shape.rank - 1;
    EK_TRY(ek_onnx_window(node, dims, from.weight->dim + 2, &w));
    int64_t size[2];
    for (int i = 0; i < dims; i++) size[i] = x.shape.dim[1 + i] + pad[i] + pad[2 + i];
    ek_onnx_window_same(&w, size);
    for (int i = 0; i < dims; i++) {
        w.begin[i] += pad[i];
        w.end[i] += pad[2 + i];
    }
    ek_shape out = {.rank = x.shape.rank, .dim = {from.weight->dim[0]}};
    if (!from.bias) EK_TRY(ek_onnx_bias_ahead(im, node, out, 0, &from.bias));
    ek_text text = {0};
    ek_onnx_window_options(&w, 0, dims, &text);
    ek_status status = ek_text_status(&text);
    if (status == EK_OK)
        status = ek_onnx_add(im, node, from.weight, dims == 2 ? "conv" : "conv1d", x.index, -1, &y,
                             "out=%lld groups=%lld bias=%s%s", (long long)from.weight->dim[0],
                             (long long)from.groups, from.bias ? "true" : "false", text.data);
    ek_text_free(&text);
    EK_TRY(status);
    EK_TRY(fill_weights(im, y.index, &from));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- transposed */

/* Zeros cut from the output so that it has a size that was asked for, as ONNX's formulas have it. A size beyond what the
 * kernel reaches is output_padding. */
static void fit_output(onnx_window *w, int i, int64_t in, int64_t wanted, int64_t *beyond)
{
    int64_t full = (in - 1) * w->stride[i] + *beyond + w->dilation[i] * (w->kernel[i] - 1) + 1;
    int64_t cut = full - wanted;
    if (cut < 0) {
        *beyond -= cut;
        cut = 0;
    }
    w->begin[i] = w->same && !w->same_lower ? cut / 2 : cut - cut / 2;
    w->end[i] = cut - w->begin[i];
}

static ek_status transposed_window(const onnx_node *node, onnx_layer x, const onnx_constant *weight,
                                   onnx_window *w, int64_t beyond[2])
{
    const int64_t *sizes, *given;
    int size_count, given_count, dims = x.shape.rank - 1;
    EK_TRY(ek_onnx_window(node, dims, weight->dim + 2, w));
    EK_TRY(ek_onnx_get_ints(node, "output_shape", &sizes, &size_count));
    EK_TRY(ek_onnx_get_ints(node, "output_padding", &given, &given_count));
    if ((given && given_count != dims) || (sizes && size_count != dims && size_count != dims + 2))
        return ek_fail(EK_E_FORMAT, "its output_shape or output_padding is not for %d dimensions", dims);
    if (sizes) sizes += size_count - dims;
    for (int i = 0; i < dims; i++) {
        beyond[i] = given ? given[i] : 0;
        if (beyond[i] < 0 || beyond[i] > EK_MAX_DIM || (sizes && (sizes[i] < 1 || sizes[i] > EK_MAX_DIM)))
            return ek_fail(EK_E_FORMAT, "its output_shape or output_padding is out of range");
        int64_t in = x.shape.dim[1 + i];
        if (sizes)
            fit_output(w, i, in, sizes[i], &beyond[i]);
        else if (w->same)
            fit_output(w, i, in, in * w->stride[i], &beyond[i]);
    }
    return EK_OK;
}

ek_status ek_onnx_conv_transpose(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    weights from;
    onnx_window w;
    int64_t beyond[2] = {0};
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(take_weights(im, node, x, &from));
    if (from.weight->dim[0] != x.shape.dim[0])
        return ek_fail(EK_E_FORMAT, "its weights are for %lld channels, and its input has %lld",
                       (long long)from.weight->dim[0], (long long)x.shape.dim[0]);
    int dims = x.shape.rank - 1;
    EK_TRY(transposed_window(node, x, from.weight, &w, beyond));
    ek_shape out = {.rank = x.shape.rank, .dim = {from.weight->dim[1] * from.groups}};
    if (!from.bias) EK_TRY(ek_onnx_bias_ahead(im, node, out, 0, &from.bias));
    ek_text text = {0};
    ek_onnx_window_options(&w, 0, dims, &text);
    if (beyond[0] || beyond[1]) ek_onnx_pair_option(&text, "output_padding", beyond, dims);
    ek_status status = ek_text_status(&text);
    if (status == EK_OK)
        status = ek_onnx_add(im, node, from.weight, dims == 2 ? "convtranspose" : "convtranspose1d", x.index,
                             -1, &y, "out=%lld groups=%lld bias=%s%s", (long long)out.dim[0],
                             (long long)from.groups, from.bias ? "true" : "false", text.data);
    ek_text_free(&text);
    EK_TRY(status);
    EK_TRY(fill_weights(im, y.index, &from));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- zeros around maps */

/* pads: an attribute before opset 11 ("paddings" in opset 1), an input from then on. */
static ek_status pad_list(onnx_import *im, const onnx_node *node, const int64_t **list, int *count,
                          double *value)
{
    if (im->model->opset < 11) {
        EK_TRY(ek_onnx_get_float(node, "value", 0, value));
        return ek_onnx_get_ints(node, im->model->opset < 2 ? "paddings" : "pads", list, count);
    }
    onnx_constant *pads, *fill;
    EK_TRY(ek_onnx_constant_input(im, node, 1, true, "pads", &pads));
    EK_TRY(ek_onnx_constant_input(im, node, 2, false, "value", &fill));
    if (ek_onnx_input(im, node, 3))
        return ek_fail(EK_E_UNSUPPORTED, "it has a list of axes, which is not read");
    EK_TRY(ek_onnx_load(im, pads));
    if (fill) EK_TRY(ek_onnx_load(im, fill));
    if (!pads->whole || (fill && fill->count != 1))
        return ek_fail(EK_E_FORMAT, "its pads are no list of whole numbers");
    *list = pads->whole;
    *count = (int)pads->count;
    *value = fill ? ek_onnx_number(fill, 0) : 0;
    return EK_OK;
}

ek_status ek_onnx_pad(onnx_import *im, const onnx_node *node)
{
    onnx_layer x;
    const char *mode;
    const int64_t *list;
    int count;
    double fill;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_get_text(node, "mode", "constant", &mode));
    EK_TRY(pad_list(im, node, &list, &count, &fill));
    int rank = x.shape.rank + im->lead;
    if (count != 2 * rank)
        return ek_fail(EK_E_FORMAT, "its pads are %d numbers for %d dimensions", count, rank);
    bool nothing = true, elsewhere = false;
    for (int i = 0; i < count; i++) {
        nothing &= list[i] == 0;
        if (list[i] < 0) return ek_fail(EK_E_UNSUPPORTED, "it cuts numbers off, which is not read");
        if (list[i] > EK_MAX_DIM) return ek_fail(EK_E_FORMAT, "it adds %lld numbers", (long long)list[i]);
        elsewhere |= list[i] > 0 && i % rank <= im->lead;
    }
    if (nothing) return ek_onnx_pass_on(im, node), EK_OK;
    if (strcmp(mode, "constant") != 0) return ek_fail(EK_E_UNSUPPORTED, "its mode '%s' is not read", mode);
    if (fill != 0) return ek_fail(EK_E_UNSUPPORTED, "it fills with %g; zeros are read", fill);
    if (elsewhere || x.shape.rank < 2 || x.shape.rank > 3)
        return ek_fail(EK_E_UNSUPPORTED, "it pads other dimensions than those of a map or sequence");
    int64_t pad[4] = {0};
    for (int i = 0; i < x.shape.rank - 1; i++) {
        pad[i] = list[im->lead + 1 + i];
        pad[2 + i] = list[rank + im->lead + 1 + i];
    }
    ek_onnx_give_more(im, node, x, NULL, pad);
    return EK_OK;
}
