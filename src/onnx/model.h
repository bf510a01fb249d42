/* What an ONNX file says (onnx.proto), as plain structs: names are resolved, numbers are left in the file's bytes. */
#ifndef EK_ONNX_MODEL_H
#define EK_ONNX_MODEL_H

#include "core/protobuf_read.h"

/* TensorProto.DataType */
typedef enum onnx_type {
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8 = 3,
    ONNX_UINT16 = 4,
    ONNX_INT16 = 5,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_UINT32 = 12,
    ONNX_BFLOAT16 = 16,
} onnx_type;

#define ONNX_MAX_RANK 8

/* What lives as long as what it is kept for. */
typedef struct onnx_memory {
    void **block;
    size_t count, room;
} onnx_memory;
/* Zeroed room for count elements of this size; NULL: memory is out. */
void *ek_onnx_keep(onnx_memory *memory, size_t count, size_t size);
void ek_onnx_release(onnx_memory *memory);
#define ONNX_KEEP(memory, pointer, count) \
    (((pointer) = ek_onnx_keep((memory), (count), sizeof *(pointer))) ? EK_OK : EK_E_MEMORY)

typedef struct onnx_tensor {
    const char *name; /* "": none */
    int type;         /* any number: ek_onnx_tensor_check knows which are read */
    int rank;
    int64_t dim[ONNX_MAX_RANK];
    int64_t count;              /* product of the dimensions */
    ek_wire message;            /* all of it, where typed numbers are looked for */
    const unsigned char *bytes; /* raw_data; NULL: none */
    size_t size;
    bool external;
    const char *location;   /* of external data: a path within the model's folder; NULL: none given */
    int64_t offset, length; /* length -1: as much as the tensor needs */
} onnx_tensor;

/* AttributeProto.AttributeType, as far as they are told apart here */
typedef enum onnx_attribute_type {
    ONNX_A_FLOAT = 1,
    ONNX_A_INT = 2,
    ONNX_A_STRING = 3,
    ONNX_A_TENSOR = 4,
    ONNX_A_FLOATS = 6,
    ONNX_A_INTS = 7,
} onnx_attribute_type;

typedef struct onnx_attribute {
    const char *name;
    int type;
    float f;
    int64_t i;
    const char *s;        /* STRING; "" where it holds what no plain text does */
    const onnx_tensor *t; /* TENSOR */
    size_t count;         /* of floats or ints */
    const float *floats;  /* FLOATS */
    const int64_t *ints;  /* INTS */
} onnx_attribute;

typedef struct onnx_node {
    const char *op, *name, *domain;
    int input_count, output_count, attribute_count;
    const int *input, *output; /* indices into onnx_model.value, -1: left out */
    const onnx_attribute *attribute;
} onnx_node;

/* A name that nodes exchange values by. */
typedef struct onnx_name {
    const char *name;
    int producer;                   /* the node, -1: none */
    const onnx_tensor *initializer; /* NULL: none */
    bool is_input;                  /* the graph's */
} onnx_name;

/* An input or output of the graph. */
typedef struct onnx_port {
    int value;
    int type;                   /* 0: unknown */
    int rank;                   /* -1: unknown */
    int64_t dim[ONNX_MAX_RANK]; /* -1: left open */
} onnx_port;

typedef struct onnx_model {
    const char *path;
    unsigned char *file;
    size_t size;
    onnx_memory memory;
    int64_t ir_version, opset;
    const char *producer, *producer_version;
    const char *classes; /* of a file written here (EK_CLASSES_KEY of its metadata); NULL: none */
    int node_count, value_count, initializer_count, input_count, output_count;
    onnx_node *node;
    onnx_name *value; /* sorted by name */
    onnx_tensor *initializer;
    onnx_port *input, *output; /* inputs: those without an initializer */
} onnx_model;

/* Reads and checks the file; `path` must outlive the model.
 * EK_E_FORMAT       it is no ONNX model, or a damaged one; the message says what is wrong
 * EK_E_UNSUPPORTED  its opset is not 1 to 22 */
/* The index of the value of this name; -1: there is none. */
int ek_onnx_find_value(const onnx_model *model, const char *name);
ek_status ek_onnx_model_read(const char *path, onnx_model *out);
void ek_onnx_model_free(onnx_model *model);

/* The product of dimensions. Without those of 0 it must be a number too, since steps are counted in it.
 * false: the dimension *wrong is negative, or too large beside the others. */
bool ek_onnx_count(int rank, const int64_t *dim, int64_t *count, int *wrong);

/* A tensor alone, as in a .pb file: of these bytes, which must outlive it. */
ek_status ek_onnx_tensor_parse(onnx_memory *memory, ek_wire message, onnx_tensor *out);

/* The attribute of this name and type; NULL: there is none. An attribute of the name with another type is EK_E_FORMAT. */
ek_status ek_onnx_find_attribute(const onnx_node *node, const char *name, onnx_attribute_type type,
                                 const onnx_attribute **out);

/* --- numbers of tensors (tensor.c) */

static inline bool ek_onnx_is_real(int type)
{
    return type == ONNX_FLOAT || type == ONNX_DOUBLE || type == ONNX_FLOAT16 || type == ONNX_BFLOAT16;
}
/* "float", "int64", "type 14" */
const char *ek_onnx_type_name(int type);

/* Whether its type is read, and it has as many numbers as its shape says: before room is made for them. For external
 * data, that the file is there and long enough. */
ek_status ek_onnx_tensor_check(const onnx_model *model, const onnx_tensor *tensor);
/* Its `count` numbers; reals for one of a real type, and whole numbers for the others.
 * External data comes from a regular file within the model's folder alone, and through no link. */
ek_status ek_onnx_tensor_reals(const onnx_model *model, const onnx_tensor *tensor, float *out);
ek_status ek_onnx_tensor_whole(const onnx_model *model, const onnx_tensor *tensor, int64_t *out);

#endif
