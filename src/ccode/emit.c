/* Texts of C: names, numbers, arrays, and the shared functions of parts/. */
#include "ccode/ccode.h"

#include "core/memory.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- names */

static bool is_taken(const ek_cc_writer *w, const ek_node *node, const char *name)
{
    for (int i = 0; i < node->id; i++) {
        if (!strcmp(w->names[i], name)) return true;
    }
    return false;
}

/* A label as an identifier; arrays get further words behind it, so that it is never a keyword or a function. */
static void name_node(const ek_cc_writer *w, const ek_node *node, char out[EK_CC_NAME_MAX])
{
    char plain[EK_LABEL_MAX];
    snprintf(plain, sizeof plain, "%s", node->label);
    for (char *c = plain; *c; c++) {
        if (!isalnum((unsigned char)*c)) *c = '_';
    }
    bool letter = isalpha((unsigned char)*plain);
    if (!*plain)
        snprintf(out, EK_CC_NAME_MAX, "%s%d", node->op->name, node->id);
    else
        snprintf(out, EK_CC_NAME_MAX, "%s%.40s", letter ? "" : "layer_", plain);
    for (int n = node->id; is_taken(w, node, out); n += w->plan->graph->count)
        snprintf(out, EK_CC_NAME_MAX, "layer%d_%.40s", n, plain);
}

ek_status ek_cc_writer_begin(const ek_cc_plan *plan, const char *name, ek_cc_writer *w)
{
    *w = (ek_cc_writer){.plan = plan, .name = name};
    for (size_t i = 0; name[i] && i + 1 < EK_CC_NAME_MAX; i++) w->upper[i] = (char)toupper((unsigned char)name[i]);
    ek_status status = EK_OK;
    EK_GO(EK_NEW(w->names, (size_t)plan->graph->count));
    EK_GO(EK_NEW(w->made, (size_t)plan->graph->count * EK_CC_FUNCTIONS_MAX));
    for (int i = 0; i < plan->graph->count; i++) name_node(w, &plan->graph->node[i], w->names[i]);
done:
    if (status != EK_OK) ek_cc_writer_free(w);
    return status;
}

void ek_cc_writer_free(ek_cc_writer *w)
{
    ek_text_free(&w->arrays);
    ek_text_free(&w->functions);
    ek_text_free(&w->body);
    ek_free(w->made);
    ek_free(w->names);
    *w = (ek_cc_writer){0};
}

/* --- shared functions, which the build makes texts of (cmake/embed_texts.cmake) */

extern const struct ek_cc_part {
    const char *name, *text;
} ek_cc_parts[];

static const struct {
    const char *part, *needs;
} needs[] = {
    {"elu", "exponential"},     {"sigmoid", "exponential"}, {"silu", "exponential"}, {"tangent", "exponential"},
    {"softmax", "exponential"}, {"maxpool", "window"},      {"avgpool", "window"},   {"spread", "steps"},
    {"int8_maxpool", "window"}, {"int8_avgpool", "window"}, {"int8_avgpool", "requantize"},
    {"int8_linear", "requantize"}, {"int8_spread", "steps"},      {"int8_sum", "steps"},     {"int8_sum", "requantize"},
    {"int8_product", "steps"},  {"int8_product", "requantize"},
};

void ek_cc_use(ek_cc_writer *w, const char *part)
{
    for (int i = 0; i < w->used_count; i++) {
        if (!strcmp(w->used[i], part)) return;
    }
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        if (!strcmp(needs[i].part, part)) ek_cc_use(w, needs[i].needs);
    }
    w->used[w->used_count++] = part;
    for (int i = 0; ek_cc_parts[i].name; i++) {
        if (!strcmp(ek_cc_parts[i].name, part)) ek_text_add(&w->functions, "%s", ek_cc_parts[i].text);
    }
}

bool ek_cc_once(ek_cc_writer *w, const char *name)
{
    for (int i = 0; i < w->made_count; i++) {
        if (!strcmp(w->made[i], name)) return false;
    }
    snprintf(w->made[w->made_count++], EK_CC_NAME_MAX, "%s", name);
    return true;
}

/* --- numbers and arrays */

/* Six digits where they say the same, else nine, which say it of any float. */
const char *ek_cc_float(float value, char buffer[EK_REAL_TEXT])
{
    double read;
    if (isinf(value) || isnan(value)) return strcpy(buffer, isnan(value) ? "NAN" : value > 0 ? "INFINITY" : "-INFINITY");
    ek_real_digits(value, 6, buffer);
    if (!ek_read_real(buffer, buffer + strlen(buffer), &read) || (float)read != value) ek_real_digits(value, 9, buffer);
    if (!strpbrk(buffer, ".e")) strcat(buffer, ".0");
    return strcat(buffer, "f");
}

void ek_cc_array(ek_cc_writer *w, const char *type, const ek_node *node, const char *what, int64_t count, ek_cc_at at, const void *data)
{
    bool real = !strcmp(type, "float");
    char number[EK_REAL_TEXT];
    ek_text_add(&w->arrays, "static const %s %s_%s[%lld] = {", type, w->names[node->id], what, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        if (i % (real ? 8 : 20) == 0) ek_text_add(&w->arrays, "\n   ");
        if (real)
            ek_text_add(&w->arrays, " %s,", ek_cc_float((float)at(data, i), number));
        else
            ek_text_add(&w->arrays, " %lld,", (long long)at(data, i));
    }
    ek_text_add(&w->arrays, "\n};\n");
    w->weight_bytes += count * (!strcmp(type, "int8_t") ? 1 : 4);
}

static double float_at(const void *data, int64_t i) { return ((const float *)data)[i]; }

void ek_cc_floats(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const float *data)
{
    ek_cc_array(w, "float", node, what, count, float_at, data);
}

static double byte_at(const void *data, int64_t i) { return ((const int8_t *)data)[i]; }
static double word_at(const void *data, int64_t i) { return ((const int32_t *)data)[i]; }

void ek_cc_bytes(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const int8_t *data)
{
    ek_cc_array(w, "int8_t", node, what, count, byte_at, data);
}

void ek_cc_words(ek_cc_writer *w, const ek_node *node, const char *what, int64_t count, const int32_t *data)
{
    ek_cc_array(w, "int32_t", node, what, count, word_at, data);
}

void ek_cc_string(ek_text *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c > 0x7e)
            ek_text_add(out, "\\%03o", *c);
        else
            ek_text_add(out, "%s%c", strchr("\"\\?", *c) ? "\\" : "", *c);
    }
}

/* --- places */

const char *ek_cc_place(const ek_cc_writer *w, int node, char buffer[EK_CC_PLACE_MAX])
{
    const ek_cc_space *space = &w->plan->spaces[w->plan->space[w->plan->root[node]]];
    if (space->where != EK_CC_MEMORY) return strcpy(buffer, space->where == EK_CC_IN ? "in" : "out");
    if (w->plan->int8)
        snprintf(buffer, EK_CC_PLACE_MAX, "bytes + %zu", 4 * space->offset);
    else
        snprintf(buffer, EK_CC_PLACE_MAX, "floats + %zu", space->offset);
    return buffer;
}

const char *ek_cc_scratch(const ek_cc_writer *w, int node, char buffer[EK_CC_PLACE_MAX])
{
    snprintf(buffer, EK_CC_PLACE_MAX, "%s + %zu", w->plan->int8 ? "words" : "floats", w->plan->scratch[node]);
    return buffer;
}
