#include "formats/foreign.h"

#include "core/memory.h"

#include <string.h>

static bool is_op(const ek_node *node, const char *name) { return !strcmp(node->op->name, name); }
static bool begins(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

/* --- which order */

/* [first, second, spatial...] in another order: spatial first, then `a` and `b`. */
static ek_shape spatial_first(ek_shape shape, int64_t a, int64_t b)
{
    ek_shape out = {.rank = shape.rank};
    for (int i = 2; i < shape.rank; i++) out.dim[i - 2] = shape.dim[i];
    out.dim[shape.rank - 2] = a;
    out.dim[shape.rank - 1] = b;
    return out;
}

static ek_shape channels_last(ek_shape shape)
{
    ek_shape out = {.rank = shape.rank};
    for (int i = 1; i < shape.rank; i++) out.dim[i - 1] = shape.dim[i];
    out.dim[shape.rank - 1] = shape.dim[0];
    return out;
}

/* The same numbers with ones in front, or a single one without a dimension: PReLU's slopes. */
static bool is_flat(const ek_st_tensor *tensor, int64_t count)
{
    return tensor->count == count && tensor->rank <= EK_MAX_RANK &&
           (tensor->rank == 0 || tensor->dim[tensor->rank - 1] == count);
}

static bool has_dims(const ek_st_tensor *tensor, ek_shape shape)
{
    bool same = tensor->rank == shape.rank;
    for (int i = 0; same && i < shape.rank; i++) same = tensor->dim[i] == shape.dim[i];
    return same;
}

static bool is_kernel(const ek_node *node, const ek_param *param)
{
    return param->role == EK_ROLE_WEIGHT && (begins(node->op->name, "conv") || is_op(node, "linear"));
}

/* Kernels have their spatial axes first. Convolutions and linear layers are [..., in, out] there; so are Flax's
 * transposed convolutions, which do not turn the kernel round as the others do, unless made with transpose_kernel=True: then,
 * as in Keras, [..., out, in]. A depthwise kernel [..., in, multiplier] counts its outputs in the same order as one of
 * [..., 1, in*multiplier]. */
static bool find_kernel(ek_framework from, const ek_node *node, const ek_param *param,
                        const ek_st_tensor *tensor, ek_layout *layout, ek_shape *wanted)
{
    ek_shape shape = param->shape, swapped = spatial_first(shape, shape.dim[1], shape.dim[0]);
    bool flips = from == EK_FROM_FLAX && begins(node->op->name, "convtranspose");
    *layout = EK_LAYOUT_SWAPPED;
    *wanted = flips ? spatial_first(shape, shape.dim[0], shape.dim[1]) : swapped;
    if (flips && has_dims(tensor, *wanted)) {
        *layout = EK_LAYOUT_FLIPPED;
        return true;
    }
    if (has_dims(tensor, swapped)) return true;
    int groups = ek_op_attr(node->op, "groups");
    if (groups < 0 || begins(node->op->name, "convtranspose") || shape.dim[1] != 1) return false;
    int64_t in = ek_attr_int(node, groups);
    return has_dims(tensor, spatial_first(shape, in, shape.dim[0] / in));
}

bool ek_layout_find(ek_framework from, const ek_node *node, const ek_param *param, const ek_st_tensor *tensor,
                    ek_layout *layout, ek_shape *wanted)
{
    ek_shape unused;
    if (!wanted) wanted = &unused;
    *layout = EK_LAYOUT_SAME;
    *wanted = param->shape;
    if (from == EK_FROM_PYTORCH || from == EK_FROM_ONNX) return has_dims(tensor, param->shape);
    if (is_kernel(node, param)) return find_kernel(from, node, param, tensor, layout, wanted);
    if (param->role == EK_ROLE_WEIGHT) return is_flat(tensor, param->count);
    if (param->shape.rank > 1) {
        *layout = EK_LAYOUT_CHANNELS_LAST;
        *wanted = channels_last(param->shape);
    }
    return has_dims(tensor, *wanted);
}

const char *ek_layout_text(const ek_node *node, const ek_param *param, ek_layout layout, bool features)
{
    int spatial = param->shape.rank - 2;
    bool transposed = begins(node->op->name, "convtranspose");
    switch (layout) {
    case EK_LAYOUT_SAME: return features ? "features channels first" : "";
    case EK_LAYOUT_CHANNELS_LAST: return "channels first";
    case EK_LAYOUT_FLIPPED: return spatial == 1 ? "WIO to IOW, turned round" : "HWIO to IOHW, turned round";
    case EK_LAYOUT_SWAPPED: break;
    }
    if (spatial == 0) return features ? "IO to OI, features channels first" : "IO to OI";
    if (transposed) return spatial == 1 ? "WOI to IOW" : "HWOI to IOHW";
    return spatial == 1 ? "WIO to OIW" : "HWIO to OIHW";
}

/* --- features */

/* A layer that gives each of its features from the one that stands in its place. */
static bool keeps_places(const ek_graph *graph, const ek_node *node)
{
    if (node->input_count == 0 || is_op(node, "linear") || is_op(node, "permute")) return false;
    return ek_shape_equal(graph->node[node->input[0]].out, node->out);
}

/* Channels of one position, or positions of one channel, stand the same in both orders. */
static bool moves(const ek_node *node)
{
    if (!is_op(node, "flatten") && !(is_op(node, "reshape") && node->out.rank == 1)) return false;
    int64_t channels = node->in[0].dim[0];
    return channels > 1 && channels < node->out.dim[0];
}

/* Fills the map of a value of features, which begins at `first` of the whole. *moved: a flattened map is in it. */
static void fill(const ek_graph *graph, int value, int64_t first, int64_t *map, bool *moved)
{
    const ek_node *node = &graph->node[value];
    while (keeps_places(graph, node)) node = &graph->node[node->input[0]];
    int64_t features = ek_shape_count(node->out);
    if (is_op(node, "concat")) {
        fill(graph, node->input[0], first, map, moved);
        fill(graph, node->input[1], first + ek_shape_count(node->in[0]), map, moved);
        return;
    }
    int64_t channels = moves(node) ? node->in[0].dim[0] : 1, positions = features / channels;
    *moved |= channels > 1;
    for (int64_t i = 0; i < features; i++) map[first + i] = first + i % channels * positions + i / channels;
}

ek_status ek_layout_features(const ek_graph *graph, const ek_node *node, int64_t **map)
{
    *map = NULL;
    if (node->input_count == 0 || node->in[0].rank != 1) return EK_OK;
    bool moved = false;
    EK_TRY(EK_NEW(*map, (size_t)node->in[0].dim[0]));
    fill(graph, node->input[0], 0, *map, &moved);
    if (moved) return EK_OK;
    ek_free(*map);
    *map = NULL;
    return EK_OK;
}

/* --- moving */

void ek_layout_convert(ek_layout layout, ek_shape shape, const int64_t *map, const float *in, float *out)
{
    int64_t count = ek_shape_count(shape), a = shape.rank > 0 ? shape.dim[0] : 1,
            b = shape.rank > 1 ? shape.dim[1] : 1;
    int64_t spatial = count == 0 ? 0 : layout == EK_LAYOUT_CHANNELS_LAST ? count / a : count / (a * b);
    switch (layout) {
    case EK_LAYOUT_SAME:
        for (int64_t i = 0; i < count; i++) out[map ? map[i] : i] = in[i];
        break;
    case EK_LAYOUT_SWAPPED:
        for (int64_t k = 0; k < spatial; k++) {
            for (int64_t j = 0; j < b; j++) {
                for (int64_t i = 0; i < a; i++) out[(i * b + (map ? map[j] : j)) * spatial + k] = *in++;
            }
        }
        break;
    case EK_LAYOUT_FLIPPED:
        for (int64_t k = spatial; k-- > 0;) {
            for (int64_t i = 0; i < a; i++) {
                for (int64_t j = 0; j < b; j++) out[(i * b + j) * spatial + k] = *in++;
            }
        }
        break;
    case EK_LAYOUT_CHANNELS_LAST:
        for (int64_t k = 0; k < spatial; k++) {
            for (int64_t i = 0; i < a; i++) out[i * spatial + k] = *in++;
        }
        break;
    }
}
