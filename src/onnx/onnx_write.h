/* Writing ONNX models (onnx.ai; the messages of onnx.proto 1.12): opset 17 and IR version 8, which ONNX's checker of 1.12 and
 * every runtime since takes. A model is gathered first, then written as a whole. Numbers of initializers stay where they
 * are until then, so that a large net is not copied.
 *
 * What fails while gathering (memory) is kept, and comes out of ek_onnx_write. */
#ifndef EK_ONNX_ONNX_WRITE_H
#define EK_ONNX_ONNX_WRITE_H

#include "core/protobuf_write.h"

enum { EK_ONNX_OPSET = 17, EK_ONNX_IR = 8 };

/* The numbers of an initializer, which follow its head in the file. */
typedef struct ek_onnx_numbers {
    size_t head_end; /* in heads; it begins where the one before ends */
    const void *data;
    size_t bytes;
    void *own; /* data, where it is the writer's */
} ek_onnx_numbers;

typedef struct ek_onnx_writer {
    ek_protobuf node;  /* the one that is being made */
    ek_protobuf nodes; /* those that are done, as fields of the graph */
    ek_protobuf head;  /* that of one initializer */
    ek_protobuf heads; /* of initializers, likewise */
    ek_protobuf ends;  /* name, input and output, likewise */
    ek_protobuf about; /* metadata, as fields of the model */
    ek_onnx_numbers *tensor;
    int tensor_count, tensor_room;
    bool failed; /* memory ran out */
} ek_onnx_writer;

void ek_onnx_writer_free(ek_onnx_writer *writer); /* starts empty: {0} */

/* A node: inputs by the names of values and initializers ("": one that is left out), ended by NULL. Then its attributes,
 * then its end, with its name ("": none) and those of what it gives, ended by NULL. */
void ek_onnx_node_begin(ek_onnx_writer *writer, const char *type, const char *const *inputs);
void ek_onnx_int(ek_onnx_writer *writer, const char *name, int64_t value);
void ek_onnx_float(ek_onnx_writer *writer, const char *name, double value); /* rounded to float32 */
void ek_onnx_ints(ek_onnx_writer *writer, const char *name, int count, const int64_t *value);
void ek_onnx_node_end(ek_onnx_writer *writer, const char *name, const char *const *outputs);

/* An initializer whose numbers must live until the file is written; shape.rank may be 0. */
void ek_onnx_weights(ek_onnx_writer *writer, const char *name, ek_shape shape, const float *data);
/* Those whose numbers are copied; of float32, `count` of them are given, and the rest are as the last one. */
void ek_onnx_floats(ek_onnx_writer *writer, const char *name, ek_shape shape, int64_t count, const float *value);
void ek_onnx_wholes(ek_onnx_writer *writer, const char *name, int64_t count, const int64_t *value);

/* The graph's name, and its input and output: float32 [N, sample's shape]. */
void ek_onnx_ends(ek_onnx_writer *writer, const char *graph, const char *input, ek_shape in, const char *output, ek_shape out);

void ek_onnx_metadata(ek_onnx_writer *writer, const char *key, const char *value);

/* Writes the model, whole or not at all.
 * EK_E_UNSUPPORTED  it would be larger than a protocol buffer may be, 2^31 - 1 bytes */
ek_status ek_onnx_write(const ek_onnx_writer *writer, const char *path);

#endif
