/* ONNX models made by hand, a line of text for each part of them. */
#ifndef EK_TESTS_ONNX_MAKING_H
#define EK_TESTS_ONNX_MAKING_H

#include "core/protobuf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOAT = 1, UINT_8 = 2, INT64 = 7 };
static ek_protobuf graph;

static void begin(void) { ek_protobuf_clear(&graph); }

/* "3,4": numbers one after the other; an empty text has none. */
static int numbers(const char *text, double *out)
{
    int count = 0;
    for (char *end; *text; text = *end ? end + 1 : end) out[count++] = strtod(text, &end);
    return count;
}

/* field 11: an input, 12: an output. "N": left open. */
static void port(int field, const char *name, int type, const char *dims)
{
    size_t info = ek_protobuf_begin(&graph, field);
    ek_protobuf_text(&graph, 1, name);
    size_t a = ek_protobuf_begin(&graph, 2), b = ek_protobuf_begin(&graph, 1);
    ek_protobuf_int(&graph, 1, type);
    size_t shape = ek_protobuf_begin(&graph, 2);
    for (const char *at = dims; *at; at += strcspn(at, ","), at += *at == ',') {
        size_t dim = ek_protobuf_begin(&graph, 1);
        if (*at == 'N')
            ek_protobuf_text(&graph, 2, "N");
        else
            ek_protobuf_int(&graph, 1, atoll(at));
        ek_protobuf_end(&graph, dim);
    }
    ek_protobuf_end(&graph, shape);
    ek_protobuf_end(&graph, b);
    ek_protobuf_end(&graph, a);
    ek_protobuf_end(&graph, info);
}

static void input(const char *name, const char *dims) { port(11, name, FLOAT, dims); }
static void output(const char *name) { port(12, name, FLOAT, ""); }

/* The fields of a tensor, typed; of int64 in field 7, of float in field 4, else in field 5. */
static void tensor_fields(ek_protobuf *m, const char *name, int type, const char *dims, const char *values)
{
    double dim[16], value[512];
    int rank = numbers(dims, dim), count = numbers(values, value);
    for (int i = 0; i < rank; i++) ek_protobuf_int(m, 1, (int64_t)dim[i]);
    ek_protobuf_int(m, 2, type);
    for (int i = 0; i < count; i++) {
        if (type == FLOAT)
            ek_protobuf_float(m, 4, (float)value[i]);
        else
            ek_protobuf_int(m, type == INT64 ? 7 : 5, (int64_t)value[i]);
    }
    ek_protobuf_text(m, 8, name);
}

static void tensor(const char *name, int type, const char *dims, const char *values)
{
    size_t start = ek_protobuf_begin(&graph, 5);
    tensor_fields(&graph, name, type, dims, values);
    ek_protobuf_end(&graph, start);
}
static void floats(const char *name, const char *dims, const char *values)
{
    tensor(name, FLOAT, dims, values);
}
static void wholes(const char *name, const char *dims, const char *values)
{
    tensor(name, INT64, dims, values);
}

static void names(int field, const char *text)
{
    while (*text) {
        size_t length = strcspn(text, " ");
        bool none = length == 1 && *text == '-';
        ek_protobuf_bytes(&graph, field, text, none ? 0 : length);
        text += length;
        text += *text == ' ';
    }
}

/* "axis=i1 alpha=f0.5 auto_pad=sVALID pads=l1,1": an int, a float, a text, a list of ints; "value=t7:2:3,4" a tensor of
 * type 7, dimensions and numbers. */
static void attributes(const char *text)
{
    char copy[512], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        *value++ = 0;
        size_t start = ek_protobuf_begin(&graph, 5);
        ek_protobuf_text(&graph, 1, word);
        double list[64];
        int count;
        switch (*value++) {
        case 'i': ek_protobuf_int(&graph, 3, atoll(value)), ek_protobuf_int(&graph, 20, 2); break;
        case 'f': ek_protobuf_float(&graph, 2, strtof(value, NULL)), ek_protobuf_int(&graph, 20, 1); break;
        case 's': ek_protobuf_text(&graph, 4, value), ek_protobuf_int(&graph, 20, 3); break;
        case 'l':
            count = numbers(value, list);
            for (int i = 0; i < count; i++) ek_protobuf_int(&graph, 8, (int64_t)list[i]);
            ek_protobuf_int(&graph, 20, 7);
            break;
        default: {
            char *dims = strchr(value, ':') + 1, *data = strchr(dims, ':') + 1;
            dims[-1] = data[-1] = 0;
            size_t t = ek_protobuf_begin(&graph, 5);
            tensor_fields(&graph, "", atoi(value), dims, data);
            ek_protobuf_end(&graph, t);
            ek_protobuf_int(&graph, 20, 4);
        }
        }
        ek_protobuf_end(&graph, start);
    }
}

/* Inputs and outputs with blanks between; "-": left out. Without a first output it has no name. */
static void node(const char *op, const char *inputs, const char *outputs, const char *options)
{
    size_t start = ek_protobuf_begin(&graph, 1);
    names(1, inputs);
    names(2, outputs);
    if (*outputs != '-') ek_protobuf_text(&graph, 3, outputs);
    ek_protobuf_text(&graph, 4, op);
    attributes(options);
    ek_protobuf_end(&graph, start);
}

/* The graph as a whole model; *m is empty before. */
static void make_model(int opset, ek_protobuf *m)
{
    ek_protobuf_int(m, 1, 8);
    ek_protobuf_text(m, 2, "test");
    ek_protobuf_bytes(m, 7, graph.data, graph.length);
    size_t set = ek_protobuf_begin(m, 8);
    ek_protobuf_int(m, 2, opset);
    ek_protobuf_end(m, set);
    m->failed |= graph.failed;
}

#endif
