/* The attributes that convolutions and pools share. */
#ifndef EK_ONNX_WINDOW_H
#define EK_ONNX_WINDOW_H

#include "onnx/import.h"

enum { ONNX_MAX_WINDOW = 3 }; /* dimensions */

typedef struct onnx_window {
    int dims;
    int64_t kernel[ONNX_MAX_WINDOW], stride[ONNX_MAX_WINDOW], dilation[ONNX_MAX_WINDOW];
    int64_t begin[ONNX_MAX_WINDOW], end[ONNX_MAX_WINDOW]; /* zeros before and behind */
    bool same, same_lower; /* auto_pad SAME_UPPER or SAME_LOWER: zeros are still to be found */
} onnx_window;

/* kernel: that of the weights, NULL: kernel_shape must be there. */
ek_status ek_onnx_window(const onnx_node *node, int dims, const int64_t *kernel, onnx_window *out);
/* Zeros of auto_pad SAME, for an input of these sizes: the output has ceil(size/stride). */
void ek_onnx_window_same(onnx_window *w, const int64_t *size);

/* " stride=2x1 padding=1": of dimensions first to first + count - 1. */
void ek_onnx_window_options(const onnx_window *w, int first, int count, ek_text *out);
/* " name=2x1" */
void ek_onnx_pair_option(ek_text *out, const char *name, const int64_t *value, int count);

#endif
