/* ONNX models (onnx.ai), opsets 1 to 22, as nets. */
#ifndef EK_ONNX_ONNX_H
#define EK_ONNX_ONNX_H

#include "graph/net.h"

/* The net of an .onnx file, with notes on what was translated. Its numbers are as they are in the file, finite or not.
 * options NULL: the default ones. */
ek_status ek_onnx_open_with(ek_context *context, const char *path, const ek_onnx_options *options, ek_net **out);

/* For tests: inputs of the graph, by name, that are given as constants; each a TensorProto. */
typedef struct ek_onnx_bound {
    const char *name;
    const void *data;
    size_t size;
} ek_onnx_bound;
ek_status ek_onnx_open_bound(ek_context *context, const char *path, const ek_onnx_options *options, int count,
                             const ek_onnx_bound *bound, ek_net **out);

/* Whether the first bytes of a file look like an ONNX model's. */
bool ek_onnx_is_model(const unsigned char *bytes, size_t size);

#endif
