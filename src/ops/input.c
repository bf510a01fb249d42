/* input SHAPE [mean=...] [std=...]: where a batch enters. Pixels are normalized, (x - mean)/std a channel,
 * by whoever writes the batch (ek_net_pixels), so that training, evaluation and exports agree. */
#include "core/text.h"
#include "ops/op.h"

enum { SHAPE, MEAN, STD };

static ek_status shape(ek_node *node)
{
    const ek_attr *dims = &node->attr[SHAPE];
    if (dims->n != 1 && dims->n != 3)
        return ek_fail(EK_E_SHAPE,
                       "an input is F features or CxHxW, such as 784 or 1x28x28; this one has %d dimensions",
                       dims->n);
    node->out = (ek_shape){.rank = dims->n};
    for (int i = 0; i < dims->n; i++) node->out.dim[i] = (int64_t)dims->v[i];

    int64_t channels = dims->n == 3 ? node->out.dim[0] : 1;
    for (int i = MEAN; i <= STD; i++) {
        int n = node->attr[i].n;
        if (n != 1 && n != channels)
            return ek_fail(EK_E_SHAPE, "%s has %d values for %lld channel%s: give one, or one for each",
                           i == MEAN ? "mean" : "std", n, (long long)channels, channels == 1 ? "" : "s");
    }
    return EK_OK;
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    (void)pass, (void)node, (void)x, (void)y; /* the batch is already in place */
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)pass, (void)node, (void)x, (void)y, (void)dy, (void)dx;
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    (void)ref, (void)node, (void)x, (void)y;
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)ref, (void)node, (void)x, (void)y, (void)dy, (void)dx;
}

const ek_op ek_op_input = {
    .name = "input",
    .help = "where data enters: F features or CxHxW",
    .inputs = 0,
    .attrs = {{"shape", EK_ATTR_SHAPE, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "784, or 1x28x28 (channels, height, width)"},
              {"mean", EK_ATTR_LIST, .fallback = 0, .min = -1e30, .max = 1e30,
               .help = "subtracted, one value or one a channel; image bytes count as 0 to 1"},
              {"std", EK_ATTR_LIST, .fallback = 1, .min = 1e-30, .max = 1e30, .help = "then divided by"}},
    .shape = shape,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
