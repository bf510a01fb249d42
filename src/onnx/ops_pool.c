/* Pools and means. */
#include "onnx/window.h"

#include <string.h>

typedef struct pool {
    const char *op;
    onnx_window window;
    bool ceil, count_pad;
} pool;

/* A pool over the last `count` dimensions of x, which are those of the window from `first` on. */
static ek_status add_pool(onnx_import *im, const onnx_node *node, const pool *p, int first, int count,
                          onnx_layer x, onnx_layer *y)
{
    bool pads = p->ceil;
    for (int i = first; i < first + count; i++) pads |= p->window.begin[i] || p->window.end[i];
    ek_text text = {0};
    ek_onnx_window_options(&p->window, first, count, &text);
    if (p->ceil) ek_text_add(&text, " ceil=true");
    if (pads && !strcmp(p->op, "avgpool"))
        ek_text_add(&text, " count_pad=%s", p->count_pad ? "true" : "false");
    ek_status status = ek_text_status(&text);
    if (status == EK_OK) status = ek_onnx_add(im, node, NULL, p->op, x.index, -1, y, "%s", text.data);
    ek_text_free(&text);
    return status;
}

/* In three dimensions: over the last two of each slice, then over the first. Maxima and means of windows are those of the
 * windows' rows, with the padding too, since how many values count in a window is a product over its dimensions. */
static ek_status add_pool_3d(onnx_import *im, const onnx_node *node, const pool *p, onnx_layer x,
                             onnx_layer *y)
{
    int64_t c = x.shape.dim[0], d = x.shape.dim[1];
    EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape3(c * d, x.shape.dim[2], x.shape.dim[3]), &x));
    EK_TRY(add_pool(im, node, p, 1, 2, x, &x));
    int64_t h = x.shape.dim[1], w = x.shape.dim[2];
    EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape3(c, d, h * w), &x));
    pool depth = {.op = p->op, .ceil = p->ceil, .count_pad = p->count_pad};
    depth.window = (onnx_window){.dims = 2,
                                 .kernel = {p->window.kernel[0], 1},
                                 .stride = {p->window.stride[0], 1},
                                 .dilation = {p->window.dilation[0], 1},
                                 .begin = {p->window.begin[0], 0},
                                 .end = {p->window.end[0], 0}};
    EK_TRY(add_pool(im, node, &depth, 0, 2, x, &x));
    ek_shape out = {.rank = 4, .dim = {c, x.shape.dim[1], h, w}};
    return ek_onnx_reshape(im, x, out, y);
}

/* Zeros of a Pad before it: they count in means, and are no padding to a maximum. */
static bool takes_zeros(const pool *p, const int64_t *pad, int dims)
{
    if (!strcmp(p->op, "maxpool") || p->ceil || dims > 2) return false;
    for (int i = 0; i < dims; i++) {
        if (p->window.begin[i] || p->window.end[i] || pad[i] >= p->window.kernel[i] ||
            pad[2 + i] >= p->window.kernel[i])
            return false;
    }
    return !p->window.same;
}

ek_status ek_onnx_pool(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    int64_t ceil, count_pad, pad[4];
    pool p = {.op = !strcmp(node->op, "MaxPool") ? "maxpool" : "avgpool"};
    EK_TRY(ek_onnx_padded_layer(im, node, 0, &x, pad));
    int dims = x.shape.rank - 1;
    if (dims < 1 || dims > 3)
        return ek_fail(EK_E_UNSUPPORTED, "its input is no map and no sequence: a sample of it is %s",
                       ONNX_SHAPE(x.shape));
    EK_TRY(ek_onnx_window(node, dims, NULL, &p.window));
    EK_TRY(ek_onnx_get_int(node, "ceil_mode", 0, &ceil));
    EK_TRY(ek_onnx_get_int(node, "count_include_pad", 0, &count_pad));
    p.ceil = ceil && !p.window.same;
    p.count_pad = count_pad;
    if (pad[0] | pad[1] | pad[2] | pad[3]) {
        if (takes_zeros(&p, pad, dims)) {
            for (int i = 0; i < dims; i++) {
                p.window.begin[i] = pad[i];
                p.window.end[i] = pad[2 + i];
            }
            p.count_pad = true;
        } else {
            EK_TRY(ek_onnx_layer(im, node, 0, &x));
        }
    }
    ek_onnx_window_same(&p.window, x.shape.dim + 1);
    EK_TRY(dims == 3 ? add_pool_3d(im, node, &p, x, &y) : add_pool(im, node, &p, 0, dims, x, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* --- over all positions */

ek_status ek_onnx_global_pool(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    if (x.shape.rank < 2)
        return ek_fail(EK_E_UNSUPPORTED, "its input has no positions: a sample of it is %s",
                       ONNX_SHAPE(x.shape));
    ek_shape out = {.rank = x.shape.rank, .dim = {x.shape.dim[0], 1, 1, 1}};
    EK_TRY(ek_onnx_as_map(im, x, &x));
    if (!strcmp(node->op, "GlobalAveragePool"))
        EK_TRY(ek_onnx_add(im, node, NULL, "globalavgpool", x.index, -1, &y, " "));
    else if (x.shape.rank == 3)
        EK_TRY(ek_onnx_add(im, node, NULL, "maxpool", x.index, -1, &y, "kernel=%lldx%lld",
                           (long long)x.shape.dim[1], (long long)x.shape.dim[2]));
    else
        EK_TRY(ek_onnx_add(im, node, NULL, "maxpool", x.index, -1, &y, "kernel=%lld",
                           (long long)x.shape.dim[1]));
    EK_TRY(ek_onnx_reshape(im, y, out, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}

/* The mean over some dimensions: with these last, it is that of each row. */
static ek_status mean_over(onnx_import *im, const onnx_node *node, onnx_layer x, const bool *over,
                           onnx_layer *y)
{
    int axis[EK_MAX_RANK], rank = 0;
    int64_t rows = 1, each = 1;
    for (int i = 0; i < x.shape.rank; i++) {
        if (over[i]) continue;
        axis[rank++] = i;
        rows *= x.shape.dim[i];
    }
    for (int i = 0; i < x.shape.rank; i++) {
        if (!over[i]) continue;
        axis[rank++] = i;
        each *= x.shape.dim[i];
    }
    bool map = x.shape.rank == 3 && !over[0] && over[1] && over[2];
    EK_TRY(ek_onnx_permute(im, x, axis, &x));
    if (!map) EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape2(rows, each), &x));
    return ek_onnx_add(im, node, NULL, "globalavgpool", x.index, -1, y, " ");
}

ek_status ek_onnx_reduce_mean(onnx_import *im, const onnx_node *node)
{
    onnx_layer x, y;
    int64_t keep, nothing, axes[ONNX_MAX_RANK];
    int count, axis;
    bool there, over[EK_MAX_RANK] = {false}, any = false;
    bool found;
    EK_TRY(ek_onnx_written_layer_norm(im, node, &found));
    if (found) return EK_OK;
    EK_TRY(ek_onnx_layer(im, node, 0, &x));
    EK_TRY(ek_onnx_axes(im, node, 18, axes, &count, &there));
    EK_TRY(ek_onnx_get_int(node, "keepdims", 1, &keep));
    EK_TRY(ek_onnx_get_int(node, "noop_with_empty_axes", 0, &nothing));
    if (count == 0 && nothing) return ek_onnx_pass_on(im, node), EK_OK;
    if (count == 0 && im->lead) return ek_onnx_touches_batch(im, "it takes the mean over all, the batch too");
    for (int i = 0; i < x.shape.rank && count == 0; i++) over[i] = true;
    for (int i = 0; i < count; i++) {
        EK_TRY(ek_onnx_axis(im, axes[i], x.shape.rank + im->lead, false, &axis));
        over[axis] = true;
    }
    ek_shape out = {0};
    for (int i = 0; i < x.shape.rank; i++) {
        if (!over[i] || keep) out.dim[out.rank++] = over[i] ? 1 : x.shape.dim[i];
        any |= over[i] && x.shape.dim[i] > 1;
    }
    if (any)
        EK_TRY(mean_over(im, node, x, over, &y));
    else
        y = x;
    EK_TRY(ek_onnx_reshape(im, y, out, &y));
    ek_onnx_give(im, node, y);
    return EK_OK;
}
