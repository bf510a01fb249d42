#include "onnx/onnx_write.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/shape.h"

#include <string.h>

/* Fields of onnx.proto's messages. */
enum { MODEL_IR = 1, MODEL_PRODUCER = 2, MODEL_PRODUCER_VERSION = 3, MODEL_GRAPH = 7, MODEL_OPSET = 8, MODEL_METADATA = 14 };
enum { OPSET_VERSION = 2 };
enum { ENTRY_KEY = 1, ENTRY_VALUE = 2 };
enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_TYPE = 4, NODE_ATTRIBUTE = 5 };
enum { ATTRIBUTE_NAME = 1, ATTRIBUTE_FLOAT = 2, ATTRIBUTE_INT = 3, ATTRIBUTE_INTS = 8, ATTRIBUTE_TYPE = 20 };
enum { IS_FLOAT = 1, IS_INT = 2, IS_INTS = 7 }; /* values of ATTRIBUTE_TYPE */
enum { TENSOR_DIM = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9 };
enum { FLOAT32 = 1, INT64 = 7 }; /* values of TENSOR_TYPE and ELEMENT_TYPE */
enum { VALUE_NAME = 1, VALUE_TYPE = 2, TYPE_TENSOR = 1, ELEMENT_TYPE = 1, ELEMENT_SHAPE = 2 };
enum { SHAPE_DIM = 1, DIM_VALUE = 1, DIM_NAME = 2 };

void ek_onnx_writer_free(ek_onnx_writer *w)
{
    ek_protobuf_free(&w->node);
    ek_protobuf_free(&w->nodes);
    ek_protobuf_free(&w->ends);
    ek_protobuf_free(&w->about);
    ek_protobuf_free(&w->head);
    ek_protobuf_free(&w->heads);
    for (int i = 0; i < w->tensor_count; i++) ek_free(w->tensor[i].own);
    ek_free(w->tensor);
    *w = (ek_onnx_writer){0};
}

/* --- nodes */

void ek_onnx_node_begin(ek_onnx_writer *w, const char *type, const char *const *inputs)
{
    ek_protobuf_clear(&w->node);
    for (int i = 0; inputs[i]; i++) ek_protobuf_text(&w->node, NODE_INPUT, inputs[i]);
    ek_protobuf_text(&w->node, NODE_TYPE, type);
}

static size_t begin_attribute(ek_onnx_writer *w, const char *name, int type)
{
    size_t start = ek_protobuf_begin(&w->node, NODE_ATTRIBUTE);
    ek_protobuf_text(&w->node, ATTRIBUTE_NAME, name);
    ek_protobuf_int(&w->node, ATTRIBUTE_TYPE, type);
    return start;
}

void ek_onnx_int(ek_onnx_writer *w, const char *name, int64_t value)
{
    size_t start = begin_attribute(w, name, IS_INT);
    ek_protobuf_int(&w->node, ATTRIBUTE_INT, value);
    ek_protobuf_end(&w->node, start);
}

void ek_onnx_float(ek_onnx_writer *w, const char *name, double value)
{
    size_t start = begin_attribute(w, name, IS_FLOAT);
    ek_protobuf_float(&w->node, ATTRIBUTE_FLOAT, (float)value);
    ek_protobuf_end(&w->node, start);
}

void ek_onnx_ints(ek_onnx_writer *w, const char *name, int count, const int64_t *value)
{
    size_t start = begin_attribute(w, name, IS_INTS);
    for (int i = 0; i < count; i++) ek_protobuf_int(&w->node, ATTRIBUTE_INTS, value[i]);
    ek_protobuf_end(&w->node, start);
}

void ek_onnx_node_end(ek_onnx_writer *w, const char *name, const char *const *outputs)
{
    if (*name) ek_protobuf_text(&w->node, NODE_NAME, name);
    for (int i = 0; outputs[i]; i++) ek_protobuf_text(&w->node, NODE_OUTPUT, outputs[i]);
    w->failed |= w->node.failed;
    ek_protobuf_bytes(&w->nodes, GRAPH_NODE, w->node.data, w->node.length);
}

/* --- tensors */

/* The head of a tensor's message, whose numbers stand behind it in the file. */
static ek_onnx_numbers *add_tensor(ek_onnx_writer *w, const char *name, int type, int rank, const int64_t *dim, size_t bytes)
{
    if (w->tensor_count == w->tensor_room) {
        int room = w->tensor_room ? 2 * w->tensor_room : 64;
        ek_onnx_numbers *grown = ek_grow(w->tensor, (size_t)room, sizeof *grown);
        if (!grown) {
            w->failed = true;
            return NULL;
        }
        w->tensor = grown;
        w->tensor_room = room;
    }
    ek_protobuf *m = &w->head;
    ek_protobuf_clear(m);
    for (int i = 0; i < rank; i++) ek_protobuf_int(m, TENSOR_DIM, dim[i]);
    ek_protobuf_int(m, TENSOR_TYPE, type);
    ek_protobuf_text(m, TENSOR_NAME, name);
    ek_protobuf_length(m, TENSOR_RAW, bytes);
    ek_protobuf_length(&w->heads, GRAPH_INITIALIZER, m->length + bytes);
    ek_protobuf_append(&w->heads, m->data, m->length);
    w->failed |= m->failed;
    ek_onnx_numbers *t = &w->tensor[w->tensor_count++];
    *t = (ek_onnx_numbers){.head_end = w->heads.length, .bytes = bytes};
    return t;
}

void ek_onnx_weights(ek_onnx_writer *w, const char *name, ek_shape shape, const float *data)
{
    ek_onnx_numbers *t = add_tensor(w, name, FLOAT32, shape.rank, shape.dim, (size_t)ek_shape_count(shape) * sizeof *data);
    if (t) t->data = data;
}

/* Room of its own for a tensor's numbers. */
static void *own(ek_onnx_writer *w, ek_onnx_numbers *t)
{
    if (!t) return NULL;
    t->data = t->own = ek_calloc(t->bytes, 1);
    w->failed |= !t->own;
    return t->own;
}

void ek_onnx_floats(ek_onnx_writer *w, const char *name, ek_shape shape, int64_t count, const float *value)
{
    int64_t all = ek_shape_count(shape);
    float *to = own(w, add_tensor(w, name, FLOAT32, shape.rank, shape.dim, (size_t)all * sizeof *to));
    for (int64_t i = 0; to && i < all; i++) to[i] = value[i < count ? i : count - 1];
}

void ek_onnx_wholes(ek_onnx_writer *w, const char *name, int64_t count, const int64_t *value)
{
    size_t bytes = (size_t)count * sizeof *value;
    int64_t *to = own(w, add_tensor(w, name, INT64, 1, &count, bytes));
    if (to) memcpy(to, value, bytes);
}

/* --- the graph's ends, and metadata */

static void add_value(ek_onnx_writer *w, int field, const char *name, ek_shape shape)
{
    ek_protobuf *m = &w->ends;
    size_t value = ek_protobuf_begin(m, field);
    ek_protobuf_text(m, VALUE_NAME, name);
    size_t type = ek_protobuf_begin(m, VALUE_TYPE), tensor = ek_protobuf_begin(m, TYPE_TENSOR);
    ek_protobuf_int(m, ELEMENT_TYPE, FLOAT32);
    size_t dims = ek_protobuf_begin(m, ELEMENT_SHAPE);
    for (int i = -1; i < shape.rank; i++) {
        size_t dim = ek_protobuf_begin(m, SHAPE_DIM);
        if (i < 0)
            ek_protobuf_text(m, DIM_NAME, "N");
        else
            ek_protobuf_int(m, DIM_VALUE, shape.dim[i]);
        ek_protobuf_end(m, dim);
    }
    ek_protobuf_end(m, dims);
    ek_protobuf_end(m, tensor);
    ek_protobuf_end(m, type);
    ek_protobuf_end(m, value);
}

void ek_onnx_ends(ek_onnx_writer *w, const char *graph, const char *input, ek_shape in, const char *output, ek_shape out)
{
    ek_protobuf_text(&w->ends, GRAPH_NAME, graph);
    add_value(w, GRAPH_INPUT, input, in);
    add_value(w, GRAPH_OUTPUT, output, out);
}

void ek_onnx_metadata(ek_onnx_writer *w, const char *key, const char *value)
{
    size_t start = ek_protobuf_begin(&w->about, MODEL_METADATA);
    ek_protobuf_text(&w->about, ENTRY_KEY, key);
    ek_protobuf_text(&w->about, ENTRY_VALUE, value);
    ek_protobuf_end(&w->about, start);
}

/* --- the file */

/* The model up to its graph, of which `size` bytes follow. */
static void begin_model(ek_protobuf *m, size_t size)
{
    ek_protobuf_int(m, MODEL_IR, EK_ONNX_IR);
    ek_protobuf_text(m, MODEL_PRODUCER, "evenkeel");
    ek_protobuf_text(m, MODEL_PRODUCER_VERSION, ek_version());
    size_t opset = ek_protobuf_begin(m, MODEL_OPSET);
    ek_protobuf_int(m, OPSET_VERSION, EK_ONNX_OPSET);
    ek_protobuf_end(m, opset);
    ek_protobuf_length(m, MODEL_GRAPH, size);
}

static ek_status write_buffer(ek_replacement *file, const ek_protobuf *m) { return ek_replace_write(file, m->data, m->length); }

static ek_status write_tensors(ek_replacement *file, const ek_onnx_writer *w)
{
    size_t head = 0;
    for (int i = 0; i < w->tensor_count; i++) {
        const ek_onnx_numbers *t = &w->tensor[i];
        EK_TRY(ek_replace_write(file, w->heads.data + head, t->head_end - head));
        EK_TRY(ek_replace_write(file, t->data, t->bytes));
        head = t->head_end;
    }
    return EK_OK;
}

ek_status ek_onnx_write(const ek_onnx_writer *w, const char *path)
{
    static const size_t most = INT32_MAX; /* of a protocol buffer */
    ek_status status = EK_OK;
    ek_replacement file = {0};
    ek_protobuf begin = {0};
    size_t size = w->nodes.length + w->heads.length + w->ends.length;
    for (int i = 0; i < w->tensor_count; i++) size += w->tensor[i].bytes;
    begin_model(&begin, size);
    bool failed = w->failed || w->nodes.failed || w->heads.failed || w->ends.failed || w->about.failed || begin.failed;
    EK_GO(failed ? ek_fail(EK_E_MEMORY, "out of memory for the ONNX model") : EK_OK);
    size += begin.length + w->about.length;
    if (size > most) {
        status = ek_fail(EK_E_UNSUPPORTED,
                         "cannot write %s: the net takes %.2f GB, and an ONNX file holds at most 2.14; a .safetensors file "
                         "holds it",
                         path, (double)size / 1e9);
        goto done;
    }
    EK_GO(ek_replace_begin(&file, path));
    EK_GO(write_buffer(&file, &begin));
    EK_GO(write_buffer(&file, &w->nodes));
    EK_GO(write_tensors(&file, w));
    EK_GO(write_buffer(&file, &w->ends));
    EK_GO(write_buffer(&file, &w->about));
    EK_GO(ek_replace_finish(&file));
done:
    ek_replace_cancel(&file);
    ek_protobuf_free(&begin);
    return status;
}
