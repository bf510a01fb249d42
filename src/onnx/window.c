#include "onnx/window.h"

#include <string.h>

static ek_status take_list(const onnx_node *node, const char *name, int64_t least, int64_t fallback, int dims,
                           int64_t *out)
{
    const int64_t *list;
    int count;
    EK_TRY(ek_onnx_get_ints(node, name, &list, &count));
    for (int i = 0; i < dims; i++) out[i] = list && i < count ? list[i] : fallback;
    if (list && count != dims)
        return ek_fail(EK_E_FORMAT, "its %s has %d numbers for %d dimensions", name, count, dims);
    for (int i = 0; i < dims; i++) {
        if (out[i] < least && out[i] < 0)
            return ek_fail(EK_E_UNSUPPORTED, "its %s has %lld: less than nothing is not read", name,
                           (long long)out[i]);
        if (out[i] < least || out[i] > EK_MAX_DIM)
            return ek_fail(EK_E_FORMAT, "its %s has %lld", name, (long long)out[i]);
    }
    return EK_OK;
}

ek_status ek_onnx_window(const onnx_node *node, int dims, const int64_t *kernel, onnx_window *w)
{
    *w = (onnx_window){.dims = dims};
    const char *automatic;
    EK_TRY(ek_onnx_get_text(node, "auto_pad", "NOTSET", &automatic));
    EK_TRY(take_list(node, "strides", 1, 1, dims, w->stride));
    EK_TRY(take_list(node, "dilations", 1, 1, dims, w->dilation));
    EK_TRY(take_list(node, "kernel_shape", 1, 1, dims, w->kernel));
    const int64_t *given;
    int count;
    EK_TRY(ek_onnx_get_ints(node, "kernel_shape", &given, &count));
    if (!given && !kernel) return ek_fail(EK_E_FORMAT, "it has no kernel_shape");
    for (int i = 0; i < dims && kernel; i++) {
        if (given && w->kernel[i] != kernel[i])
            return ek_fail(EK_E_FORMAT, "its kernel_shape has %lld, its weights have %lld",
                           (long long)w->kernel[i], (long long)kernel[i]);
        w->kernel[i] = kernel[i];
    }
    w->same = !strcmp(automatic, "SAME_UPPER") || !strcmp(automatic, "SAME_LOWER");
    w->same_lower = !strcmp(automatic, "SAME_LOWER");
    if (w->same || !strcmp(automatic, "VALID")) return EK_OK;
    if (strcmp(automatic, "NOTSET") != 0 && *automatic)
        return ek_fail(EK_E_FORMAT, "its auto_pad is '%s'", automatic);
    int64_t pads[2 * ONNX_MAX_WINDOW];
    EK_TRY(take_list(node, "pads", 0, 0, 2 * dims, pads));
    memcpy(w->begin, pads, (size_t)dims * sizeof *pads);
    memcpy(w->end, pads + dims, (size_t)dims * sizeof *pads);
    return EK_OK;
}

void ek_onnx_window_same(onnx_window *w, const int64_t *size)
{
    for (int i = 0; i < w->dims && w->same; i++) {
        int64_t out = (size[i] - 1) / w->stride[i] + 1;
        int64_t all = (out - 1) * w->stride[i] + w->dilation[i] * (w->kernel[i] - 1) + 1 - size[i];
        if (all < 0) all = 0;
        w->begin[i] = w->same_lower ? all - all / 2 : all / 2;
        w->end[i] = all - w->begin[i];
    }
}

void ek_onnx_pair_option(ek_text *out, const char *name, const int64_t *value, int count)
{
    ek_text_add(out, " %s=%lld", name, (long long)value[0]);
    if (count == 2 && value[1] != value[0]) ek_text_add(out, "x%lld", (long long)value[1]);
}

static bool all_are(const int64_t *value, int count, int64_t wanted)
{
    for (int i = 0; i < count; i++) {
        if (value[i] != wanted) return false;
    }
    return true;
}

void ek_onnx_window_options(const onnx_window *w, int first, int count, ek_text *out)
{
    ek_onnx_pair_option(out, "kernel", w->kernel + first, count);
    ek_onnx_pair_option(out, "stride", w->stride + first, count);
    if (!all_are(w->begin + first, count, 0)) ek_onnx_pair_option(out, "padding", w->begin + first, count);
    if (memcmp(w->begin + first, w->end + first, (size_t)count * sizeof *w->begin) != 0)
        ek_onnx_pair_option(out, "padding_end", w->end + first, count);
    if (!all_are(w->dilation + first, count, 1))
        ek_onnx_pair_option(out, "dilation", w->dilation + first, count);
}
