/* The operators that layers do. */
#include "onnx/import.h"

#include <string.h>

static const struct {
    const char *op;
    onnx_translator translate;
} operators[] = {
    {"Add", ek_onnx_arithmetic},
    {"AveragePool", ek_onnx_pool},
    {"BatchNormalization", ek_onnx_batch_norm},
    {"Cast", ek_onnx_cast},
    {"Clip", ek_onnx_clip},
    {"Concat", ek_onnx_concat},
    {"Conv", ek_onnx_conv},
    {"ConvTranspose", ek_onnx_conv_transpose},
    {"Div", ek_onnx_arithmetic},
    {"Dropout", ek_onnx_dropout},
    {"Elu", ek_onnx_activation},
    {"Flatten", ek_onnx_flatten},
    {"Gemm", ek_onnx_gemm},
    {"GlobalAveragePool", ek_onnx_global_pool},
    {"GlobalMaxPool", ek_onnx_global_pool},
    {"GroupNormalization", ek_onnx_group_norm},
    {"HardSigmoid", ek_onnx_activation},
    {"HardSwish", ek_onnx_activation},
    {"Identity", ek_onnx_identity},
    {"InstanceNormalization", ek_onnx_instance_norm},
    {"LayerNormalization", ek_onnx_layer_norm},
    {"LeakyRelu", ek_onnx_activation},
    {"MatMul", ek_onnx_matmul},
    {"MaxPool", ek_onnx_pool},
    {"Mul", ek_onnx_arithmetic},
    {"Neg", ek_onnx_neg},
    {"PRelu", ek_onnx_prelu},
    {"Pad", ek_onnx_pad},
    {"ReduceMean", ek_onnx_reduce_mean},
    {"Relu", ek_onnx_activation},
    {"Reshape", ek_onnx_reshape_node},
    {"Resize", ek_onnx_resize},
    {"Shape", ek_onnx_shape},
    {"Sigmoid", ek_onnx_activation},
    {"Softmax", ek_onnx_softmax},
    {"Squeeze", ek_onnx_squeeze},
    {"Sub", ek_onnx_arithmetic},
    {"Sum", ek_onnx_sum},
    {"Tanh", ek_onnx_activation},
    {"Transpose", ek_onnx_transpose},
    {"Unsqueeze", ek_onnx_unsqueeze},
    {"Upsample", ek_onnx_resize},
};

onnx_translator ek_onnx_operator(const char *op)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!strcmp(operators[i].op, op)) return operators[i].translate;
    }
    return NULL;
}
