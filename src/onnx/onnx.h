/* ONNX models (onnx.ai), opsets 6 to 22, as nets. */
#ifndef EK_ONNX_ONNX_H
#define EK_ONNX_ONNX_H

#include "graph/net.h"

/* The net of an .onnx file, with notes on what was translated. */
ek_status ek_onnx_open(ek_context *context, const char *path, ek_net **out);

#endif
