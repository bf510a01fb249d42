#include "onnx/model.h"

#include "core/file.h"
#include "core/memory.h"
#include "graph/metadata.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

/* Limits that keep what is made of a file in proportion to it. */
enum {
    MAX_NODES = 1 << 17,
    MAX_TENSORS = 1 << 17,
    MAX_PORTS = 1 << 16,
    MAX_ATTRIBUTES = 256,
    MAX_VALUES = 1 << 14, /* inputs or outputs of a node */
    MIN_OPSET = 1,
    MAX_OPSET = 22,
};
/* Protocol buffers end at 2 GiB; larger models have their weights beside them. */
static const size_t MAX_FILE = ((size_t)1 << 31) - 1;

/* --- memory */

void *ek_onnx_keep(onnx_memory *memory, size_t count, size_t size)
{
    if (memory->count == memory->room) {
        size_t room = memory->room ? 2 * memory->room : 256;
        void **grown = ek_grow(memory->block, room, sizeof *grown);
        if (!grown) return NULL;
        memory->block = grown;
        memory->room = room;
    }
    void *block = ek_calloc(count, size);
    if (block) memory->block[memory->count++] = block;
    return block;
}

void ek_onnx_release(onnx_memory *memory)
{
    for (size_t i = 0; i < memory->count; i++) ek_free(memory->block[i]);
    ek_free(memory->block);
    *memory = (onnx_memory){0};
}

/* --- fields */

static ek_status take_text(onnx_memory *memory, const ek_wire_field *field, const char **out)
{
    const unsigned char *data;
    size_t size;
    EK_TRY(ek_wire_bytes(field, &data, &size));
    char *text;
    EK_TRY(ONNX_KEEP(memory, text, size + 1));
    if (size) memcpy(text, data, size);
    if (strlen(text) != size || !ek_is_plain_text(text))
        return ek_fail(EK_E_FORMAT, "the file is damaged: a name holds what is no text");
    *out = text;
    return EK_OK;
}

/* How often a field is there. */
static ek_status count_fields(ek_wire message, int number, int most, const char *what, int *count)
{
    ek_wire_field field;
    bool more;
    *count = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        if (field.number != number) continue;
        if (*count == most) return ek_fail(EK_E_FORMAT, "it has more than %d %s", most, what);
        ++*count;
    }
}

/* --- tensors */

/* A key and its text, as external_data has them. */
static ek_status take_external(onnx_memory *memory, ek_wire entry, onnx_tensor *tensor)
{
    ek_wire_field field;
    bool more;
    const char *key = "", *value = "";
    for (;;) {
        EK_TRY(ek_wire_next(&entry, &field, &more));
        if (!more) break;
        if (field.number == 1) EK_TRY(take_text(memory, &field, &key));
        if (field.number == 2) EK_TRY(take_text(memory, &field, &value));
    }
    if (!strcmp(key, "location")) tensor->location = value;
    if (strcmp(key, "offset") != 0 && strcmp(key, "length") != 0) return EK_OK;
    int64_t number = 0;
    for (const char *c = value; *c; c++) {
        if (*c < '0' || *c > '9' || number > (INT64_MAX - 9) / 10)
            return ek_fail(EK_E_FORMAT, "the %s of its external data is '%s', which is no number of bytes",
                           key, value);
        number = 10 * number + (*c - '0');
    }
    *(*key == 'o' ? &tensor->offset : &tensor->length) = number;
    return EK_OK;
}

static ek_status take_dims(const ek_wire_field *field, onnx_tensor *tensor)
{
    size_t count;
    EK_TRY(ek_wire_count_ints(field, &count));
    if (count > (size_t)(ONNX_MAX_RANK - tensor->rank))
        return ek_fail(EK_E_UNSUPPORTED, "it has more than %d dimensions", ONNX_MAX_RANK);
    EK_TRY(ek_wire_take_ints(field, tensor->dim + tensor->rank));
    tensor->rank += (int)count;
    return EK_OK;
}

static ek_status take_tensor_field(onnx_memory *memory, const ek_wire *message, const ek_wire_field *field,
                                   onnx_tensor *tensor)
{
    int64_t number = 0;
    ek_wire entry;
    switch (field->number) {
    case 1: return take_dims(field, tensor);
    case 2:
        EK_TRY(ek_wire_int(field, &number));
        tensor->type = number >= 0 && number <= 1000 ? (int)number : 1000;
        return EK_OK;
    case 8: return take_text(memory, field, &tensor->name);
    case 9: return ek_wire_bytes(field, &tensor->bytes, &tensor->size);
    case 13: EK_TRY(ek_wire_enter(message, field, &entry)); return take_external(memory, entry, tensor);
    case 14:
        EK_TRY(ek_wire_int(field, &number));
        tensor->external = number == 1;
        return EK_OK;
    default: return EK_OK;
    }
}

bool ek_onnx_count(int rank, const int64_t *dim, int64_t *count, int *wrong)
{
    int64_t all = 1;
    bool empty = false;
    for (*wrong = 0; *wrong < rank; ++*wrong) {
        int64_t d = dim[*wrong];
        if (d < 0 || __builtin_mul_overflow(all, d ? d : 1, &all)) return false;
        empty |= d == 0;
    }
    *count = empty ? 0 : all;
    return true;
}

ek_status ek_onnx_tensor_parse(onnx_memory *memory, ek_wire message, onnx_tensor *tensor)
{
    *tensor = (onnx_tensor){.name = "", .message = message, .length = -1};
    ek_wire_field field;
    bool more;
    ek_status status;
    for (;;) {
        status = ek_wire_next(&message, &field, &more);
        if (status == EK_OK && !more) break;
        if (status == EK_OK) status = take_tensor_field(memory, &tensor->message, &field, tensor);
        if (status != EK_OK) return ek_fail_in(status, "tensor '%s': ", tensor->name);
    }
    int wrong;
    if (ek_onnx_count(tensor->rank, tensor->dim, &tensor->count, &wrong)) return EK_OK;
    return ek_fail(EK_E_FORMAT, "tensor '%s': its dimension %d is %lld", tensor->name, wrong,
                   (long long)tensor->dim[wrong]);
}

/* --- nodes. Names are kept as texts first; resolve() makes indices of them. */

static ek_status take_numbers(onnx_memory *memory, ek_wire message, onnx_attribute *a)
{
    ek_wire again = message;
    ek_wire_field field;
    bool more;
    size_t ints = 0, floats = 0, count;
    const unsigned char *data;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        count = 0;
        if (field.number == 7) EK_TRY(ek_wire_fixed(&field, 4, &data, &count));
        floats += count;
        count = 0;
        if (field.number == 8) EK_TRY(ek_wire_count_ints(&field, &count));
        ints += count;
    }
    int64_t *whole;
    float *real;
    EK_TRY(ONNX_KEEP(memory, whole, ints));
    EK_TRY(ONNX_KEEP(memory, real, floats));
    a->ints = whole;
    a->floats = real;
    a->count = a->type == ONNX_A_FLOATS ? floats : ints;
    for (;;) {
        EK_TRY(ek_wire_next(&again, &field, &more));
        if (!more) return EK_OK;
        if (field.number == 7) {
            EK_TRY(ek_wire_fixed(&field, 4, &data, &count));
            for (size_t i = 0; i < count; i++, data += 4) {
                uint32_t bits = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                                (uint32_t)data[3] << 24;
                memcpy(real++, &bits, sizeof bits);
            }
        }
        if (field.number == 8) {
            EK_TRY(ek_wire_count_ints(&field, &count));
            EK_TRY(ek_wire_take_ints(&field, whole));
            whole += count;
        }
    }
}

/* Old files (IR 1 and 2) leave the type out: it is then what is there. */
static ek_status take_attribute(onnx_memory *memory, ek_wire message, onnx_attribute *a)
{
    *a = (onnx_attribute){.name = "", .s = ""};
    ek_wire all = message, inner;
    ek_wire_field field;
    bool more;
    int64_t type = 0;
    int seen = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        const unsigned char *data;
        size_t size;
        char *text;
        onnx_tensor *tensor;
        switch (field.number) {
        case 1: EK_TRY(take_text(memory, &field, &a->name)); break;
        case 2:
            EK_TRY(ek_wire_float(&field, &a->f));
            seen = ONNX_A_FLOAT;
            break;
        case 3:
            EK_TRY(ek_wire_int(&field, &a->i));
            seen = ONNX_A_INT;
            break;
        case 4:
            EK_TRY(ek_wire_bytes(&field, &data, &size));
            EK_TRY(ONNX_KEEP(memory, text, size + 1));
            if (size) memcpy(text, data, size);
            a->s = strlen(text) == size && ek_is_plain_text(text) ? text : "";
            seen = ONNX_A_STRING;
            break;
        case 5:
            EK_TRY(ONNX_KEEP(memory, tensor, 1));
            EK_TRY(ek_wire_enter(&all, &field, &inner));
            EK_TRY(ek_onnx_tensor_parse(memory, inner, tensor));
            a->t = tensor;
            seen = ONNX_A_TENSOR;
            break;
        case 7: seen = ONNX_A_FLOATS; break;
        case 8: seen = ONNX_A_INTS; break;
        case 20: EK_TRY(ek_wire_int(&field, &type)); break;
        default: break;
        }
    }
    a->type = type >= 0 && type < 1000 ? (int)type : 1000;
    if (a->type == 0) a->type = seen;
    if (a->type == ONNX_A_TENSOR && !a->t)
        return ek_fail(EK_E_FORMAT, "its attribute '%s' is to hold a tensor, and does not", a->name);
    return take_numbers(memory, all, a);
}

/* A node while its inputs and outputs are names. */
typedef struct raw_node {
    const char **input, **output;
} raw_node;

static ek_status take_node(onnx_memory *memory, ek_wire message, onnx_node *node, raw_node *raw)
{
    *node = (onnx_node){.op = "", .name = "", .domain = ""};
    EK_TRY(count_fields(message, 1, MAX_VALUES, "inputs of a node", &node->input_count));
    EK_TRY(count_fields(message, 2, MAX_VALUES, "outputs of a node", &node->output_count));
    EK_TRY(count_fields(message, 5, MAX_ATTRIBUTES, "attributes of a node", &node->attribute_count));
    onnx_attribute *attribute;
    EK_TRY(ONNX_KEEP(memory, raw->input, (size_t)node->input_count));
    EK_TRY(ONNX_KEEP(memory, raw->output, (size_t)node->output_count));
    EK_TRY(ONNX_KEEP(memory, attribute, (size_t)node->attribute_count));
    node->attribute = attribute;
    const char **input = raw->input, **output = raw->output;
    ek_wire all = message, inner;
    ek_wire_field field;
    bool more;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        switch (field.number) {
        case 1: EK_TRY(take_text(memory, &field, input++)); break;
        case 2: EK_TRY(take_text(memory, &field, output++)); break;
        case 3: EK_TRY(take_text(memory, &field, &node->name)); break;
        case 4: EK_TRY(take_text(memory, &field, &node->op)); break;
        case 7: EK_TRY(take_text(memory, &field, &node->domain)); break;
        case 5:
            EK_TRY(ek_wire_enter(&all, &field, &inner));
            EK_TRY(take_attribute(memory, inner, attribute++));
            break;
        default: break;
        }
    }
}

ek_status ek_onnx_find_attribute(const onnx_node *node, const char *name, onnx_attribute_type type,
                                 const onnx_attribute **out)
{
    *out = NULL;
    for (int i = 0; i < node->attribute_count; i++) {
        if (strcmp(node->attribute[i].name, name) != 0) continue;
        *out = &node->attribute[i];
        /* A list without numbers has no field to tell its type by. */
        bool empty = (*out)->type == 0 && (type == ONNX_A_INTS || type == ONNX_A_FLOATS);
        if ((*out)->type != (int)type && !empty)
            return ek_fail(EK_E_FORMAT, "its attribute '%s' has another type than ONNX gives it", name);
    }
    return EK_OK;
}

/* --- inputs and outputs */

static ek_status take_dim(ek_wire message, int64_t *dim)
{
    ek_wire_field field;
    bool more;
    *dim = -1;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        if (field.number == 1) EK_TRY(ek_wire_int(&field, dim));
    }
    if (*dim < 1) *dim = -1; /* some exporters write 0 for what is open */
    return EK_OK;
}

static ek_status take_shape(ek_wire message, onnx_port *port)
{
    ek_wire all = message, inner;
    ek_wire_field field;
    bool more;
    port->rank = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        if (field.number != 1) continue;
        if (port->rank == ONNX_MAX_RANK)
            return ek_fail(EK_E_UNSUPPORTED, "it has more than %d dimensions", ONNX_MAX_RANK);
        EK_TRY(ek_wire_enter(&all, &field, &inner));
        EK_TRY(take_dim(inner, &port->dim[port->rank++]));
    }
}

static ek_status take_tensor_type(ek_wire message, onnx_port *port)
{
    ek_wire all = message, inner;
    ek_wire_field field;
    bool more;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        int64_t number;
        if (field.number == 1) {
            EK_TRY(ek_wire_int(&field, &number));
            port->type = number >= 0 && number < 1000 ? (int)number : 1000;
        }
        if (field.number == 2) {
            EK_TRY(ek_wire_enter(&all, &field, &inner));
            EK_TRY(take_shape(inner, port));
        }
    }
}

/* ValueInfoProto: a name (1) and a type (2), in which a tensor's (1) is looked for. */
static ek_status take_port(onnx_memory *memory, ek_wire message, onnx_port *port, const char **name)
{
    *port = (onnx_port){.rank = -1};
    *name = "";
    ek_wire all = message, type, inner;
    ek_wire_field field;
    bool more;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return EK_OK;
        if (field.number == 1) EK_TRY(take_text(memory, &field, name));
        if (field.number != 2) continue;
        EK_TRY(ek_wire_enter(&all, &field, &type));
        ek_wire within = type;
        for (;;) {
            EK_TRY(ek_wire_next(&type, &field, &more));
            if (!more) break;
            if (field.number != 1) continue;
            EK_TRY(ek_wire_enter(&within, &field, &inner));
            EK_TRY(take_tensor_type(inner, port));
        }
    }
}

/* --- the graph */

typedef struct raw_graph {
    raw_node *node;
    const char **input, **output;
} raw_graph;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}
static int text_of_name(const void *text, const void *name)
{
    return strcmp(text, ((const onnx_name *)name)->name);
}

int ek_onnx_find_value(const onnx_model *model, const char *name)
{
    if (!*name || !model->value_count) return -1;
    const onnx_name *found =
        bsearch(name, model->value, (size_t)model->value_count, sizeof *found, text_of_name);
    return found ? (int)(found - model->value) : -1;
}

/* All names, sorted, each once. */
static ek_status list_names(onnx_model *model, const raw_graph *raw)
{
    size_t most = (size_t)model->initializer_count + (size_t)model->input_count + (size_t)model->output_count,
           count = 0;
    for (int i = 0; i < model->node_count; i++)
        most += (size_t)model->node[i].input_count + (size_t)model->node[i].output_count;
    if (most > INT32_MAX / 2) return ek_fail(EK_E_FORMAT, "it has too many names");
    const char **name;
    EK_TRY(ONNX_KEEP(&model->memory, name, most));
    for (int i = 0; i < model->initializer_count; i++) name[count++] = model->initializer[i].name;
    for (int i = 0; i < model->input_count; i++) name[count++] = raw->input[i];
    for (int i = 0; i < model->output_count; i++) name[count++] = raw->output[i];
    for (int i = 0; i < model->node_count; i++) {
        for (int k = 0; k < model->node[i].input_count; k++) name[count++] = raw->node[i].input[k];
        for (int k = 0; k < model->node[i].output_count; k++) name[count++] = raw->node[i].output[k];
    }
    if (count) qsort(name, count, sizeof *name, by_text);
    EK_TRY(ONNX_KEEP(&model->memory, model->value, count));
    for (size_t i = 0; i < count; i++) {
        if (!*name[i] || (i > 0 && !strcmp(name[i], name[i - 1]))) continue;
        model->value[model->value_count++] = (onnx_name){.name = name[i], .producer = -1};
    }
    return EK_OK;
}

static ek_status resolve_names(onnx_model *model, int count, const char *const *name, const int **out)
{
    int *index;
    EK_TRY(ONNX_KEEP(&model->memory, index, (size_t)count));
    for (int i = 0; i < count; i++) index[i] = ek_onnx_find_value(model, name[i]);
    *out = index;
    return EK_OK;
}

static ek_status made_twice(const onnx_name *value)
{
    return ek_fail(EK_E_FORMAT, "'%s' is given twice", value->name);
}

static ek_status resolve(onnx_model *model, const raw_graph *raw)
{
    EK_TRY(list_names(model, raw));
    for (int i = 0; i < model->initializer_count; i++) {
        int index = ek_onnx_find_value(model, model->initializer[i].name);
        if (index < 0) return ek_fail(EK_E_FORMAT, "an initializer has no name");
        if (model->value[index].initializer) return made_twice(&model->value[index]);
        model->value[index].initializer = &model->initializer[i];
    }
    for (int i = 0; i < model->node_count; i++) {
        onnx_node *node = &model->node[i];
        EK_TRY(resolve_names(model, node->input_count, raw->node[i].input, &node->input));
        EK_TRY(resolve_names(model, node->output_count, raw->node[i].output, &node->output));
        for (int k = 0; k < node->output_count; k++) {
            if (node->output[k] < 0) continue;
            onnx_name *value = &model->value[node->output[k]];
            if (value->producer >= 0 || value->initializer) return made_twice(value);
            value->producer = i;
        }
    }
    for (int i = 0; i < model->output_count; i++) model->output[i].value = ek_onnx_find_value(model, raw->output[i]);
    /* Initializers may be listed as inputs too (IR 3): those are none. */
    int inputs = 0;
    for (int i = 0; i < model->input_count; i++) {
        int index = ek_onnx_find_value(model, raw->input[i]);
        if (index < 0) return ek_fail(EK_E_FORMAT, "an input has no name");
        onnx_name *value = &model->value[index];
        if (value->producer >= 0 || value->is_input) return made_twice(value);
        value->is_input = true;
        if (value->initializer) continue;
        model->input[inputs] = model->input[i];
        model->input[inputs++].value = index;
    }
    model->input_count = inputs;
    return EK_OK;
}

static ek_status take_graph(onnx_model *model, ek_wire message)
{
    onnx_memory *memory = &model->memory;
    int sparse;
    EK_TRY(count_fields(message, 1, MAX_NODES, "nodes", &model->node_count));
    EK_TRY(count_fields(message, 5, MAX_TENSORS, "initializers", &model->initializer_count));
    EK_TRY(count_fields(message, 11, MAX_PORTS, "inputs", &model->input_count));
    EK_TRY(count_fields(message, 12, MAX_PORTS, "outputs", &model->output_count));
    EK_TRY(count_fields(message, 15, MAX_TENSORS, "sparse initializers", &sparse));
    if (sparse) return ek_fail(EK_E_UNSUPPORTED, "it has sparse initializers, which are not read");
    raw_graph raw;
    EK_TRY(ONNX_KEEP(memory, raw.node, (size_t)model->node_count));
    EK_TRY(ONNX_KEEP(memory, raw.input, (size_t)model->input_count));
    EK_TRY(ONNX_KEEP(memory, raw.output, (size_t)model->output_count));
    EK_TRY(ONNX_KEEP(memory, model->node, (size_t)model->node_count));
    EK_TRY(ONNX_KEEP(memory, model->initializer, (size_t)model->initializer_count));
    EK_TRY(ONNX_KEEP(memory, model->input, (size_t)model->input_count));
    EK_TRY(ONNX_KEEP(memory, model->output, (size_t)model->output_count));
    int nodes = 0, initializers = 0, inputs = 0, outputs = 0;
    ek_wire all = message, inner;
    ek_wire_field field;
    bool more;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) return resolve(model, &raw);
        int number = field.number;
        if (number != 1 && number != 5 && number != 11 && number != 12) continue;
        EK_TRY(ek_wire_enter(&all, &field, &inner));
        ek_status status = EK_OK;
        if (number == 1) {
            status = take_node(memory, inner, &model->node[nodes], &raw.node[nodes]);
            if (status != EK_OK)
                return ek_fail_in(status, "node %d, %s '%s': ", nodes, model->node[nodes].op,
                                  model->node[nodes].name);
            nodes++;
        } else if (number == 5) {
            EK_TRY(ek_onnx_tensor_parse(memory, inner, &model->initializer[initializers++]));
        } else if (number == 11) {
            status = take_port(memory, inner, &model->input[inputs], &raw.input[inputs]);
            if (status != EK_OK) return ek_fail_in(status, "input '%s': ", raw.input[inputs]);
            inputs++;
        } else {
            status = take_port(memory, inner, &model->output[outputs], &raw.output[outputs]);
            if (status != EK_OK) return ek_fail_in(status, "output '%s': ", raw.output[outputs]);
            outputs++;
        }
    }
}

/* --- the file */

static ek_status take_opset(onnx_memory *memory, ek_wire message, int64_t *opset)
{
    ek_wire_field field;
    bool more;
    const char *domain = "";
    int64_t version = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        if (field.number == 1) EK_TRY(take_text(memory, &field, &domain));
        if (field.number == 2) EK_TRY(ek_wire_int(&field, &version));
    }
    if (!*domain || !strcmp(domain, "ai.onnx")) *opset = version;
    return EK_OK;
}

/* Others may write into it whatever they like. */
static ek_status take_metadata(onnx_model *model, ek_wire message)
{
    ek_wire_field field, value = {0};
    bool more, ours = false;
    size_t length = strlen(EK_CLASSES_KEY);
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        if (field.number == 1) ours = field.size == length && !memcmp(field.data, EK_CLASSES_KEY, length);
        if (field.number == 2) value = field;
    }
    return ours && value.number ? take_text(&model->memory, &value, &model->classes) : EK_OK;
}

static ek_status take_model(onnx_model *model)
{
    ek_wire message = ek_wire_begin(model->file, model->size), all = message, graph = {0}, inner;
    ek_wire_field field;
    bool more;
    int graphs = 0;
    for (;;) {
        EK_TRY(ek_wire_next(&message, &field, &more));
        if (!more) break;
        switch (field.number) {
        case 1: EK_TRY(ek_wire_int(&field, &model->ir_version)); break;
        case 2: EK_TRY(take_text(&model->memory, &field, &model->producer)); break;
        case 3: EK_TRY(take_text(&model->memory, &field, &model->producer_version)); break;
        case 7:
            EK_TRY(ek_wire_enter(&all, &field, &graph));
            graphs++;
            break;
        case 8:
            EK_TRY(ek_wire_enter(&all, &field, &inner));
            EK_TRY(take_opset(&model->memory, inner, &model->opset));
            break;
        case 14:
            EK_TRY(ek_wire_enter(&all, &field, &inner));
            EK_TRY(take_metadata(model, inner));
            break;
        default: break;
        }
    }
    if (graphs != 1)
        return ek_fail(EK_E_FORMAT, "it is no ONNX model: it has %s graph", graphs ? "more than one" : "no");
    if (model->opset < MIN_OPSET || model->opset > MAX_OPSET)
        return ek_fail(EK_E_UNSUPPORTED,
                       "it is of opset %lld; opsets %d to %d are read. onnx.version_converter translates",
                       (long long)model->opset, MIN_OPSET, MAX_OPSET);
    return take_graph(model, graph);
}

ek_status ek_onnx_model_read(const char *path, onnx_model *out)
{
    *out = (onnx_model){.path = path, .producer = "", .producer_version = ""};
    ek_status status = ek_file_read(path, MAX_FILE, &out->file, &out->size);
    if (status != EK_OK) return status;
    status = take_model(out);
    if (status == EK_OK) return EK_OK;
    ek_onnx_model_free(out);
    return ek_fail_in(status, "%s: ", path);
}

void ek_onnx_model_free(onnx_model *model)
{
    ek_onnx_release(&model->memory);
    ek_free(model->file);
    *model = (onnx_model){0};
}
