/* input SHAPE [mean=...] [std=...]: where a batch enters, of features [f], sequences [c, l], maps [c, h, w], or four
 * dimensions. Pixels are normalized, (x - mean)/std a channel, by whoever writes the batch (ek_net_pixels), so that training,
 * evaluation and exports agree. */
#include "ops/op.h"

enum { SHAPE, MEAN, STD };

static ek_status shape(ek_node *node)
{
    const ek_attr *dims = &node->attr[SHAPE];
    node->out = (ek_shape){.rank = dims->n};
    for (int i = 0; i < dims->n; i++) node->out.dim[i] = (int64_t)dims->v[i];

    int64_t channels = dims->n > 1 ? node->out.dim[0] : 1;
    for (int i = MEAN; i <= STD; i++) {
        int n = node->attr[i].n;
        if (n != 1 && n != channels)
            return ek_fail(EK_E_SHAPE, "%s has %d values for %lld channel%s: give one, or one for each",
                           i == MEAN ? "mean" : "std", n, (long long)channels, channels == 1 ? "" : "s");
    }
    return EK_OK;
}

ek_pixels ek_input_pixels(const ek_node *node)
{
    const ek_attr *mean = &node->attr[MEAN], *std = &node->attr[STD];
    ek_pixels pixels = {.channels = mean->n > std->n ? mean->n : std->n};
    for (int i = 0; i < pixels.channels; i++) {
        pixels.mean[i] = mean->v[mean->n > 1 ? i : 0];
        pixels.std[i] = std->v[std->n > 1 ? i : 0];
    }
    return pixels;
}

const ek_op ek_op_input = {
    .name = "input",
    .inputs = 0,
    .attrs = {{"shape", EK_ATTR_SHAPE, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help =
                   "784; 8x100 (channels, positions of a sequence); or 1x28x28 (channels, height, width)"},
              {"mean", EK_ATTR_LIST, .fallback = 0, .min = -1e30, .max = 1e30,
               .help = "subtracted, one value or one a channel; image bytes count as 0 to 1"},
              {"std", EK_ATTR_LIST, .fallback = 1, .min = 1e-30, .max = 1e30, .help = "then divided by"}},
    .shape = shape,
};
