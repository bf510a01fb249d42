/* linear OUT: y = x W^T + bias, weights [out, in] as in PyTorch. */
#include "ops/op.h"

#include <string.h>

enum { OUT, BIAS };

static ek_status shape(ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    if (node->in[0].rank != 1)
        return ek_fail(EK_E_SHAPE,
                       "linear works on features, its input is the map %s; put 'flatten' before it",
                       ek_shape_text(node->in[0], text));
    node->out = (ek_shape){1, {ek_attr_int(node, OUT)}};
    return EK_OK;
}

static void params(ek_node *node)
{
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    ek_node_add_weights(node, (ek_shape){2, {out, in}}, in, out, ek_attr_bool(node, BIAS));
}

static int64_t multiply_adds(const ek_node *node) { return node->in[0].dim[0] * node->out.dim[0]; }

/* The three products sum over the inputs, the outputs and the samples. */
static size_t scratch(const ek_node *node, int64_t samples)
{
    int64_t longest = node->in[0].dim[0] > node->out.dim[0] ? node->in[0].dim[0] : node->out.dim[0];
    return ek_gemm_thread_scratch(longest > samples ? longest : samples);
}

static void multiply(const ek_pass *pass, const ek_gemm *g)
{
    ek_gemm_run(pass->context->kernels, pass->context->pool, g, pass->scratch);
}

static void forward(const ek_pass *pass, ek_node *node, const float *const x[], float *y)
{
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    ek_param *bias = ek_node_live_bias(node);
    multiply(pass, &(ek_gemm){.m = pass->n,
                              .n = out,
                              .k = in,
                              .a = x[0],
                              .a_row = in,
                              .a_col = 1,
                              .b = node->param[0].data,
                              .b_row = 1,
                              .b_col = in,
                              .bias = bias ? bias->data : NULL,
                              .c = y,
                              .ldc = out});
}

static void backward(const ek_pass *pass, ek_node *node, const float *const x[], const float *y,
                     const float *dy, float *const dx[])
{
    (void)y;
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    multiply(pass, &(ek_gemm){.m = out,
                              .n = in,
                              .k = pass->n,
                              .a = dy,
                              .a_row = 1,
                              .a_col = out,
                              .b = x[0],
                              .b_row = in,
                              .b_col = 1,
                              .c = node->param[0].grad,
                              .ldc = in});
    if (dx[0])
        multiply(pass, &(ek_gemm){.m = pass->n,
                                  .n = in,
                                  .k = out,
                                  .a = dy,
                                  .a_row = out,
                                  .a_col = 1,
                                  .b = node->param[0].data,
                                  .b_row = in,
                                  .b_col = 1,
                                  .c = dx[0],
                                  .ldc = in});
    ek_param *bias = ek_node_live_bias(node);
    if (!bias) return;
    memcpy(bias->grad, dy, (size_t)out * sizeof *dy);
    for (int64_t n = 1; n < pass->n; n++)
        pass->context->kernels->add(out, bias->grad, dy + n * out, bias->grad);
}

static void reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y)
{
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    for (int64_t n = 0; n < ref->n; n++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = ref->param[1] ? ref->param[1][o] : 0;
            for (int64_t i = 0; i < in; i++) sum += ref->param[0][o * in + i] * x[0][n * in + i];
            y[n * out + o] = sum;
        }
    }
}

static void reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[],
                               const double *y, const double *dy, double *const dx[])
{
    (void)y;
    int64_t in = node->in[0].dim[0], out = node->out.dim[0];
    for (int64_t n = 0; n < ref->n; n++) {
        for (int64_t o = 0; o < out; o++) {
            double g = dy[n * out + o];
            if (ref->grad[1]) ref->grad[1][o] += g;
            for (int64_t i = 0; i < in; i++) {
                if (ref->grad[0]) ref->grad[0][o * in + i] += g * x[0][n * in + i];
                if (dx[0]) dx[0][n * in + i] += g * ref->param[0][o * in + i];
            }
        }
    }
}

const ek_op ek_op_linear = {
    .name = "linear",
    .inputs = 1,
    .attrs = {{"out", EK_ATTR_COUNT, .positional = true, .required = true, .min = 1, .max = 1 << 24,
               .help = "output features"},
              {"bias", EK_ATTR_BOOL, .fallback = 1, .max = 1, .help = "add a bias"}},
    .shape = shape,
    .params = params,
    .scratch = scratch,
    .multiply_adds = multiply_adds,
    .forward = forward,
    .backward = backward,
    .reference_forward = reference_forward,
    .reference_backward = reference_backward,
};
