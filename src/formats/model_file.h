/* A model file: a net's tensors, text, classes and conventions as one .safetensors file. */
#ifndef EK_FORMATS_MODEL_FILE_H
#define EK_FORMATS_MODEL_FILE_H

#include "formats/safetensors.h"
#include "graph/net.h"

/* Adds all of the net (redundant biases as zeros, num_batches_tracked as int64 scalar). */
ek_status ek_model_add(const ek_net *net, ek_st_writer *writer);
/* Parameters by name; a checkpoint's optimizer state is passed over. Checks everything before changing
 * anything. `path` names the file in errors. sick: values that no sound model has are taken too (not finite, a negative
 * variance, an impossible count), for those who examine or mend them. */
ek_status ek_model_take(ek_net *net, const ek_safetensors *file, const char *path, bool sick);
/* EK_E_NUMERIC where a parameter holds what no sound model has, as ek_model_take says it. */
ek_status ek_model_check(const ek_net *net, const char *path);
#define EK_SICK_ADVICE "%s; evenkeel audit %s says what to do"
/* Whether a model is an ONNX one: by its ending, else by how it begins. */
ek_status ek_model_is_onnx(const char *path, bool *onnx);
/* A net from an open model file, without the tensors. EK_E_FORMAT where it carries no net text: says to
 * give the net and use --init. */
ek_status ek_model_net(ek_context *context, const ek_safetensors *file, const char *path, ek_net **out);

#endif
