/* The source and its header, around what the layers wrote. */
#include "ccode/source.h"

#include "ops/batchnorm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- what is said about the net */

/* Of all parameters (FNV-1a, 64 bits): which weights a file was made from. */
static uint64_t fingerprint(const ek_net *net)
{
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor tensor = ek_net_tensor(net, i);
        const unsigned char *bytes = (const unsigned char *)tensor.data;
        for (size_t k = 0; bytes && k < (size_t)ek_shape_count(tensor.shape) * sizeof(float); k++)
            hash = (hash ^ bytes[k]) * 1099511628211u;
    }
    return hash;
}

static void write_pixels(ek_text *out, const ek_net *net)
{
    ek_pixels pixels = ek_net_pixels(net);
    char number[EK_REAL_TEXT];
    if (!ek_cc_has_pixels(&net->graph.node[0])) return;
    ek_text_add(out, " *       It is normalized inside, (x - mean)/std, by mean");
    for (int i = 0; i < pixels.channels; i++) ek_text_add(out, "%s %s", i ? "," : "", ek_real_text(pixels.mean[i], number));
    ek_text_add(out, " and std");
    for (int i = 0; i < pixels.channels; i++) ek_text_add(out, "%s %s", i ? "," : "", ek_real_text(pixels.std[i], number));
    ek_text_add(out, ": give it as it comes.\n");
}

static void write_layout(ek_text *out, ek_shape shape)
{
    static const char *const layouts[] = {"one number", "features", "channels x positions", "channels x height x width",
                                          "four dimensions"};
    char text[EK_SHAPE_TEXT];
    ek_text_add(out, "%s (%s)%s", ek_shape_text(shape, text), layouts[shape.rank],
                shape.rank > 1 ? ", the last dimension the fastest" : "");
}

/* The net, a line in a comment each. Its labels hold nothing that could end the comment. */
static void write_net(ek_text *out, const ek_net *net)
{
    for (const char *line = ek_net_text(net), *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end) break;
        ek_text_add(out, " *   %.*s\n", (int)(end - line), line);
    }
}

void ek_cc_write_header(const ek_cc_source *s, ek_text *out)
{
    const char *name = s->writer->name, *upper = s->writer->upper;
    ek_shape in = ek_net_input_shape(s->net), result = ek_net_output_shape(s->net);
    bool classes = ek_net_class(s->net, 0) && result.rank == 1;
    ek_text_add(out, "/* %s: a neural network in C99. Written by evenkeel %s; do not edit.\n *\n", name, ek_version());
    ek_text_add(out, " * in    float [%s_INPUTS]: ", upper);
    write_layout(out, in);
    ek_text_add(out, ".\n");
    write_pixels(out, s->net);
    if (in.rank == 3) ek_text_add(out, " *       Bytes of images count as 0 to 1: give byte/255.0f.\n");
    ek_text_add(out, " * out   float [%s_OUTPUTS]: ", upper);
    write_layout(out, result);
    ek_text_add(out, ". It must not overlap with `in`.\n *\n");
    if (s->writer->plan->int8)
        ek_text_add(out, " * Inside, weights and values are numbers of 8 bits; only `in` and `out` are floats.\n *\n");
    ek_text_add(out,
                " * Both functions return the index of the largest number of `out`, the first of equal ones: the class,\n"
                " * where the net tells classes%s; -1 where none is a number. They allocate nothing and keep nothing from\n"
                " * call to call.\n */\n",
                result.rank == 1 && ek_shape_count(result) > 1 ? "" : ", which one with such an output may not");
    ek_text_add(out, "#ifndef %s_H\n#define %s_H\n\n", upper, upper);
    ek_text_add(out, "#define %s_INPUTS %lld\n#define %s_OUTPUTS %lld\n#define %s_MEMORY %zu /* bytes */\n\n", upper,
                (long long)ek_shape_count(in), upper, (long long)ek_shape_count(result), upper, 4 * s->writer->plan->words);
    ek_text_add(out, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    ek_text_add(out,
                "/* Works in %s_MEMORY bytes of static memory: not for two threads at once. Defining %s_NO_STATIC where the\n"
                " * source is compiled leaves it out, with its memory. */\nint %s_predict(const float *in, float *out);\n\n",
                upper, upper, name);
    ek_text_add(out,
                "/* The same in memory that the caller gives: %s_MEMORY bytes, aligned as for a float, holding anything. For\n"
                " * several threads, a memory of their own each; for a place of your choice; or to share it with other work. */\n"
                "int %s_run(void *memory, const float *in, float *out);\n",
                upper, name);
    if (classes) ek_text_add(out, "\nextern const char *const %s_classes[%s_OUTPUTS];\n", name, upper);
    ek_text_add(out, "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}

static void write_classes(const ek_cc_source *s, ek_text *out)
{
    int64_t count = ek_shape_count(ek_net_output_shape(s->net));
    if (!ek_net_class(s->net, 0) || ek_net_output_shape(s->net).rank != 1) return;
    ek_text_add(out, "const char *const %s_classes[%lld] = {\n", s->writer->name, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const char *name = ek_net_class(s->net, (int)i);
        ek_text_add(out, "    \"");
        ek_cc_string(out, name ? name : "");
        ek_text_add(out, "\",\n");
    }
    ek_text_add(out, "};\n\n");
}

/* Pointers into the memory, for what is used of them. */
static void write_pointers(const ek_cc_source *s, ek_text *out)
{
    const ek_text *body = &s->writer->body;
    static const char *const pointers[][3] = {
        {"floats", "float", "memory"}, {"words", "int32_t", "memory"}, {"bytes", "int8_t", "memory"}};
    bool used = false;
    for (int i = 0; i < 3; i++) {
        char word[16];
        snprintf(word, sizeof word, "%s +", pointers[i][0]);
        if (!body->data || !strstr(body->data, word)) continue;
        ek_text_add(out, "    %s *const %s = (%s *)memory;\n", pointers[i][1], pointers[i][0], pointers[i][1]);
        used = true;
    }
    if (!used) ek_text_add(out, "    (void)memory;\n");
}

void ek_cc_write_source(const ek_cc_source *s, ek_text *out)
{
    const ek_cc_writer *w = s->writer;
    const char *upper = w->upper;
    size_t words = w->plan->words ? w->plan->words : 1;
    ek_text_add(out, "/* %s: a neural network in C99. Written by evenkeel %s; do not edit. %s says how it is used.\n *\n", w->name,
                ek_version(), s->header_name);
    ek_text_add(out, " * Weights with the fingerprint %016" PRIx64 ", of\n *\n", fingerprint(s->net));
    write_net(out, s->net);
    ek_text_add(out, " *\n * Batch normalizations are folded into the weights where they can be. In the functions below x is what is read, y\n"
                     " * what is written, and n a count; maps lie as [channel][height][width].\n */\n");
    ek_text_add(out, "#include \"%s\"\n\n#include <limits.h>\n#include <math.h>\n#include <stdint.h>\n#include <string.h>\n\n"
                     "#if INT_MAX < 0x7FFFFFFF\n#error \"int must have 32 bits\"\n#endif\n\n",
                s->header_name);
    /* The shapes of tables are declared before the tables, with the functions that take them. */
    ek_text_add(out, "%s", w->functions.data ? w->functions.data : "");
    ek_text_add(out, "%s\n", w->arrays.data ? w->arrays.data : "");
    write_classes(s, out);
    ek_text_add(out, "int %s_run(void *memory, const float *in, float *out)\n{\n", w->name);
    write_pointers(s, out);
    ek_text_add(out, "%s    return largest(%s_OUTPUTS, out);\n}\n\n", w->body.data ? w->body.data : "", upper);
    ek_text_add(out, "#ifndef %s_NO_STATIC\nint %s_predict(const float *in, float *out)\n{\n", upper, w->name);
    ek_text_add(out, "    static %s memory[%zu];\n    return %s_run(memory, in, out);\n}\n#endif\n",
                w->plan->int8 ? "int32_t" : "float", words, w->name);
}
