/* Net texts: docs/net-text.md. The operators' own tables (ek_attr_spec) are the grammar. */
#include "core/memory.h"
#include "graph/graph.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers */

static bool read_whole(const char *at, const char *end, double *out)
{
    double value = 0;
    for (const char *c = at; c < end; c++) {
        if (*c < '0' || *c > '9') return false;
        if (value < 1e15) value = value * 10 + (*c - '0'); /* beyond every range, and still exact */
    }
    *out = value;
    return at < end;
}

/* --- words and errors */

typedef struct word {
    const char *at;
    int length, column; /* from 1 */
} word;

typedef struct parser {
    ek_graph *graph;
    const char *origin;
    int number;                  /* of the line, from 1 */
    const char *line, *at, *end; /* the line, what is left of it, where it or its content ends */
    int *label;                  /* hash table: node index + 1, or 0 */
    uint32_t slots;              /* of it: four for each line, and so over three for each layer */
} parser;

/* A word for a message, cut where it is endless. */
#define SHOWN(w) ((w).length < 40 ? (w).length : 40), (w).at

__attribute__((format(printf, 3, 4))) static ek_status fail_at(const parser *p, int column,
                                                               const char *format, ...)
{
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ek_fail(EK_E_FORMAT, "%s:%d:%d: %s", p->origin, p->number, column, text);
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static bool next_word(parser *p, word *out)
{
    while (p->at < p->end && is_blank(*p->at)) p->at++;
    const char *start = p->at;
    while (p->at < p->end && !is_blank(*p->at)) p->at++;
    *out = (word){start, (int)(p->at - start), (int)(start - p->line) + 1};
    return out->length > 0;
}

/* The part of a word from `from` on. */
static word word_after(word w, int from) { return (word){w.at + from, w.length - from, w.column + from}; }

/* Zero-ended, cut to a label's room. */
static void copy_word(word w, char out[EK_LABEL_MAX])
{
    size_t length = w.length < EK_LABEL_MAX ? (size_t)w.length : EK_LABEL_MAX - 1;
    memcpy(out, w.at, length);
    out[length] = 0;
}

static bool word_is(word w, const char *text)
{
    return strlen(text) == (size_t)w.length && !memcmp(w.at, text, (size_t)w.length);
}

/* "unknown layer 'cov'; did you mean 'conv'?", or what there is. */
static ek_status fail_unknown(const parser *p, word w, const char *what, const char *const *names, int count,
                              const char *others)
{
    enum { LISTED = 40 };
    char text[EK_LABEL_MAX];
    copy_word(w, text);
    const char *near = ek_nearest(text, names, count);
    if (near) return fail_at(p, w.column, "%s '%.*s'; did you mean '%s'?", what, SHOWN(w), near);
    ek_text list = {0};
    for (int i = 0; i < count && i < LISTED; i++) ek_text_add(&list, "%s%s", i ? ", " : "", names[i]);
    if (count > LISTED) ek_text_add(&list, ", ...");
    ek_status status =
        fail_at(p, w.column, "%s '%.*s'; %s%s", what, SHOWN(w), others, list.data ? list.data : "none");
    ek_text_free(&list);
    return status;
}

/* --- labels */

static ek_status make_slots(parser *p, const char *text)
{
    uint32_t lines = 1;
    for (const char *c = text; (c = strchr(c, '\n')); c++) lines++;
    if (lines > EK_MAX_LAYERS) lines = EK_MAX_LAYERS;
    p->slots = 4 * lines;
    return EK_NEW(p->label, p->slots);
}

/* Where a label is, or would go: FNV-1a, then the next free slot. */
static int *label_slot(const parser *p, const char *label)
{
    uint32_t hash = 2166136261u;
    for (const char *c = label; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    for (;; hash++) {
        int *slot = &p->label[hash % p->slots];
        if (!*slot || !strcmp(p->graph->node[*slot - 1].label, label)) return slot;
    }
}

/* The layer above that has this label. */
static ek_status find_label(const parser *p, word w, int *out)
{
    char label[EK_LABEL_MAX];
    copy_word(w, label);
    int found = w.length < EK_LABEL_MAX && w.length > 0 ? *label_slot(p, label) : 0;
    if (found) {
        *out = found - 1;
        return EK_OK;
    }
    const char **names;
    EK_TRY(EK_NEW(names, (size_t)p->graph->count));
    int count = 0;
    for (int i = 0; i < p->graph->count - 1; i++) {
        if (*p->graph->node[i].label) names[count++] = p->graph->node[i].label;
    }
    ek_status status =
        fail_unknown(p, w, "no layer above has the label", names, count, "the labels above are: ");
    ek_free(names);
    return status;
}

static ek_status read_label(const parser *p, word w, ek_node *node)
{
    if (w.length == 0) return fail_at(p, w.column, "a label is missing before ':'");
    if (w.length >= EK_LABEL_MAX)
        return fail_at(p, w.column, "a label has at most %d characters, this one has %d", EK_LABEL_MAX - 1,
                       w.length);
    for (int i = 0; i < w.length; i++) {
        char c = w.at[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
            c == '.' || c == '-')
            continue;
        return fail_at(p, w.column + i, "'%c' cannot be in a label; letters, digits, '_', '.' and '-' can",
                       c);
    }
    copy_word(w, node->label);
    if (!strcmp(node->label, EK_OPTIMIZER_LABEL) ||
        !strncmp(node->label, EK_OPTIMIZER_LABEL ".", strlen(EK_OPTIMIZER_LABEL ".")))
        return fail_at(p, w.column,
                       "'" EK_OPTIMIZER_LABEL
                       "' names the training state in checkpoints; choose another label");
    int taken = *label_slot(p, node->label);
    if (taken)
        return fail_at(p, w.column, "the label '%s' is taken by line %d; choose another", node->label,
                       p->graph->node[taken - 1].line);
    return EK_OK;
}

/* conv1, conv2, ... for layers whose parameters need a name. */
static void number_labels(const parser *p)
{
    const ek_op *op;
    for (int o = 0; (op = ek_op_at(o)); o++) {
        int number = 0;
        for (int i = 0; i < p->graph->count; i++) {
            ek_node *node = &p->graph->node[i];
            if (node->op != op || !op->params || *node->label) continue;
            char label[EK_LABEL_MAX];
            int *slot;
            do {
                snprintf(label, sizeof label, "%s%d", op->name, ++number);
                slot = label_slot(p, label);
            } while (*slot);
            strcpy(node->label, label);
            *slot = i + 1;
        }
    }
}

/* --- options */

static int option_count(const ek_op *op)
{
    int count = 0;
    while (op->attrs[count].name) count++;
    return count;
}

/* What a value of this option may be. */
static const char *expected(const ek_attr_spec *spec, char out[200])
{
    char low[EK_REAL_TEXT], high[EK_REAL_TEXT];
    ek_real_text(spec->min, low);
    ek_real_text(spec->max, high);
    const char *format = "";
    switch (spec->type) {
    case EK_ATTR_COUNT: format = "a whole number from %s to %s"; break;
    case EK_ATTR_PAIR: format = "K or HxW, whole numbers from %s to %s"; break;
    case EK_ATTR_SHAPE: format = "whole numbers from %s to %s with x between, such as 1x28x28"; break;
    case EK_ATTR_REAL:
        format = spec->allow_none ? "a number from %s to %s, or none" : "a number from %s to %s";
        break;
    case EK_ATTR_LIST: format = "numbers from %s to %s with commas between, at most 4"; break;
    case EK_ATTR_BOOL: return strcpy(out, "true or false");
    }
    snprintf(out, 200, format, low, high);
    return out;
}

static bool read_numbers(const ek_attr_spec *spec, word w, ek_attr *attr)
{
    bool list = spec->type == EK_ATTR_LIST, shape = spec->type == EK_ATTR_SHAPE,
         pair = spec->type == EK_ATTR_PAIR;
    int most = list || shape ? EK_MAX_VALUE_RANK : pair ? 2 : 1;
    const char *end = w.at + w.length;
    attr->n = 0;
    for (const char *at = w.at; attr->n < most;) {
        const char *stop = memchr(at, list ? ',' : 'x', (size_t)(end - at));
        if (!stop) stop = end;
        double *value = &attr->v[attr->n++];
        bool read =
            list || spec->type == EK_ATTR_REAL ? ek_read_real(at, stop, value) : read_whole(at, stop, value);
        if (!read || !(*value >= spec->min && *value <= spec->max)) return false;
        if (stop == end) {
            if (pair && attr->n == 1) attr->v[attr->n++] = *value;
            return true;
        }
        at = stop + 1;
    }
    return false;
}

/* False: no value of this option is written so. */
static bool read_attr(const ek_attr_spec *spec, word w, ek_attr *attr)
{
    attr->given = true;
    if (spec->type != EK_ATTR_BOOL && !(spec->allow_none && word_is(w, "none")))
        return read_numbers(spec, w, attr);
    attr->n = 1;
    attr->v[0] = spec->type != EK_ATTR_BOOL ? NAN : word_is(w, "true");
    return spec->type != EK_ATTR_BOOL || attr->v[0] != 0 || word_is(w, "false");
}

static ek_status read_value(const parser *p, const ek_op *op, const ek_attr_spec *spec, word w, ek_attr *attr)
{
    char text[200];
    if (read_attr(spec, w, attr)) return EK_OK;
    return fail_at(p, w.column, "%s of %s must be %s, not '%.*s'", spec->name, op->name, expected(spec, text),
                   SHOWN(w));
}

ek_status ek_node_set_option(ek_node *node, const char *name, const char *value)
{
    const ek_op *op = node->op;
    word w = {value, (int)strnlen(value, EK_MAX_NET_TEXT), 1};
    char text[200];
    int i = ek_op_attr(op, name);
    if (i < 0) return ek_fail(EK_E_ARGUMENT, "%s has no option '%s'", op->name, name);
    ek_attr attr = {0};
    if (!read_attr(&op->attrs[i], w, &attr))
        return ek_fail(EK_E_ARGUMENT, "%s of %s must be %s, not '%.*s'", name, op->name,
                       expected(&op->attrs[i], text), SHOWN(w));
    node->attr[i] = attr;
    return EK_OK;
}

/* NAME=VALUE; from=LABEL is every layer's. */
static ek_status read_option(const parser *p, ek_node *node, word w, int name_length, bool *from_given)
{
    word name = {w.at, name_length, w.column}, value = word_after(w, name_length + 1);
    const ek_op *op = node->op;
    if (word_is(name, "from")) {
        if (op->inputs == 0) return fail_at(p, name.column, "%s reads no other layer; drop from=", op->name);
        if (*from_given) return fail_at(p, name.column, "from is given twice");
        *from_given = true;
        return find_label(p, value, &node->input[0]);
    }
    const char *names[EK_MAX_ATTRS + 1];
    int count = option_count(op);
    for (int i = 0; i < count; i++) {
        names[i] = op->attrs[i].name;
        if (!word_is(name, names[i])) continue;
        if (node->attr[i].given) return fail_at(p, name.column, "%s is given twice", names[i]);
        return read_value(p, op, &op->attrs[i], value, &node->attr[i]);
    }
    char what[80];
    names[count++] = "from";
    snprintf(what, sizeof what, "%s has no option", op->name);
    return fail_unknown(p, name, what, names, count, "its options are: ");
}

/* A value without a name: the second layer to read, then the positional options in their order. */
static ek_status read_positional(const parser *p, ek_node *node, word w, int position)
{
    const ek_op *op = node->op;
    if (op->inputs == 2 && position-- == 0) return find_label(p, w, &node->input[1]);
    for (int i = 0; op->attrs[i].name; i++) {
        if (op->attrs[i].positional && position-- == 0)
            return read_value(p, op, &op->attrs[i], w, &node->attr[i]);
    }
    return fail_at(p, w.column,
                   "'%.*s' is one value too many for %s; options are written name=value, without blanks",
                   SHOWN(w), op->name);
}

static ek_attr default_attr(const ek_attr_spec *spec)
{
    return (ek_attr){.n = spec->type == EK_ATTR_PAIR ? 2 : 1, .v = {spec->fallback, spec->fallback}};
}

static ek_status fill_defaults(const parser *p, ek_node *node)
{
    for (int i = 0; node->op->attrs[i].name; i++) {
        const ek_attr_spec *spec = &node->op->attrs[i];
        if (node->attr[i].given) continue;
        if (spec->required)
            return fail_at(p, node->column, "%s needs %s%s (%s)", node->op->name,
                           spec->positional ? "a value for " : spec->name,
                           spec->positional ? spec->name : "=", spec->help);
        node->attr[i] = default_attr(spec);
    }
    return EK_OK;
}

void ek_node_set_op(ek_node *node, const ek_op *op)
{
    node->op = op;
    node->input_count = op->inputs;
    for (int i = 0; op->attrs[i].name; i++) node->attr[i] = default_attr(&op->attrs[i]);
}

/* --- lines */

static ek_status add_node(const parser *p, ek_node **out)
{
    ek_graph *graph = p->graph;
    if (graph->count == EK_MAX_LAYERS) return fail_at(p, 1, "a net has at most %d layers", EK_MAX_LAYERS);
    if (graph->count == graph->room) {
        int room = graph->room ? 2 * graph->room : 32;
        ek_node *grown = ek_grow(graph->node, (size_t)room, sizeof *grown);
        if (!grown) return EK_E_MEMORY;
        graph->node = grown;
        graph->room = room;
    }
    *out = &graph->node[graph->count++];
    **out = (ek_node){.line = p->number, .input = {graph->count - 2, -1}};
    return EK_OK;
}

/* conv2d is near conv1d, but means conv: in other frameworks' names the dimensions stand at the end. */
static bool is_with_dimensions(const char *name)
{
    size_t length = strlen(name);
    char plain[EK_LABEL_MAX] = "";
    if (length > 2) memcpy(plain, name, length - 2);
    return ek_ends_with(name, "2d") && ek_op_find(plain);
}

static ek_status read_operator(const parser *p, word w, ek_node *node)
{
    char name[EK_LABEL_MAX];
    copy_word(w, name);
    node->column = w.column;
    node->op = w.length < EK_LABEL_MAX ? ek_op_find(name) : NULL;
    if (!node->op && is_with_dimensions(name))
        return fail_at(p, w.column, "there is no layer '%s'; did you mean '%.*s'?", name,
                       (int)strlen(name) - 2, name);
    if (!node->op) {
        const char *names[64];
        int count = 0;
        for (; count < 64 && ek_op_at(count); count++) names[count] = ek_op_at(count)->name;
        return fail_unknown(p, w, "there is no layer", names, count, "the layers are: ");
    }
    node->input_count = node->op->inputs;
    bool first = p->graph->count == 1, input = node->op->inputs == 0;
    if (first && !input)
        return fail_at(p, w.column, "a net begins with its input, such as 'input 1x28x28', not with %s",
                       node->op->name);
    if (!first && input)
        return fail_at(p, w.column, "a net has one %s, and line %d has it", node->op->name,
                       p->graph->node[0].line);
    return EK_OK;
}

static ek_status read_layer(parser *p)
{
    word w;
    if (!next_word(p, &w)) return EK_OK;
    ek_node *node = NULL;
    EK_TRY(add_node(p, &node));
    const char *colon = memchr(w.at, ':', (size_t)w.length);
    if (colon) {
        int length = (int)(colon - w.at);
        EK_TRY(read_label(p, (word){w.at, length, w.column}, node));
        w = word_after(w, length + 1);
        if (w.length == 0 && !next_word(p, &w))
            return fail_at(p, w.column,
                           "the label '%s' has no layer; both stand on one line, as in '%s: relu'",
                           node->label, node->label);
    }
    EK_TRY(read_operator(p, w, node));

    int positions = 0;
    bool named = false, from_given = false;
    while (next_word(p, &w)) {
        const char *equals = memchr(w.at, '=', (size_t)w.length);
        if (equals) {
            named = true;
            EK_TRY(read_option(p, node, w, (int)(equals - w.at), &from_given));
        } else if (named) {
            return fail_at(p, w.column,
                           "'%.*s' has no name and so must stand before the options; options are written "
                           "name=value, without blanks",
                           SHOWN(w));
        } else {
            EK_TRY(read_positional(p, node, w, positions++));
        }
    }
    if (node->op->inputs == 2 && node->input[1] < 0)
        return fail_at(p, node->column, "%s needs the label of a second layer, as in '%s conv1'",
                       node->op->name, node->op->name);
    if (*node->label) *label_slot(p, node->label) = p->graph->count;
    return fill_defaults(p, node);
}

/* Sets p->end to where the line's content ends: a comment, or the line. */
static ek_status scan_line(parser *p, const char *line_end)
{
    const char *hash = memchr(p->line, '#', (size_t)(line_end - p->line));
    p->end = hash ? hash : line_end;
    if (!hash && p->end > p->line && p->end[-1] == '\r') p->end--;
    for (const char *c = p->line; c < p->end; c++) {
        if (*c >= ' ' && *c <= '~') continue;
        if (*c != '\t')
            return fail_at(p, (int)(c - p->line) + 1,
                           "byte 0x%02x cannot be here; a net text is plain ASCII save for comments",
                           (unsigned char)*c);
    }
    return EK_OK;
}

static ek_status read_layers(parser *p, const char *text)
{
    for (const char *next = text; next; p->number++) {
        const char *end = strchr(next, '\n');
        p->line = p->at = next;
        EK_TRY(scan_line(p, end ? end : next + strlen(next)));
        EK_TRY(read_layer(p));
        next = end ? end + 1 : NULL;
    }
    if (p->graph->count > 0) return EK_OK;
    p->number = 1;
    return fail_at(p, 1, "there is no layer; a net begins with its input, such as 'input 1x28x28'");
}

ek_status ek_graph_parse(const char *text, const char *origin, ek_graph *out)
{
    ek_graph graph = {0};
    ek_text canonical = {0};
    parser p = {.graph = &graph, .origin = origin, .number = 1};
    ek_status status = EK_OK;
    if (strnlen(text, EK_MAX_NET_TEXT + 1) > EK_MAX_NET_TEXT) {
        status = ek_fail(EK_E_FORMAT, "%s: a net text has at most %d bytes, this one has more", origin,
                         EK_MAX_NET_TEXT);
        goto done;
    }
    EK_GO(make_slots(&p, text));
    EK_GO(read_layers(&p, text));
    number_labels(&p);
    EK_GO(ek_graph_build(&graph, origin));
    EK_GO(ek_graph_write(&graph, &canonical));
    if (canonical.length > EK_MAX_NET_TEXT) {
        status =
            ek_fail(EK_E_FORMAT,
                    "%s: written out with its labels, the net has more than %d bytes; use shorter labels",
                    origin, EK_MAX_NET_TEXT);
        goto done;
    }
    graph.text = canonical.data;
    canonical = (ek_text){0};
done:
    ek_free(p.label);
    ek_text_free(&canonical);
    if (status == EK_OK)
        *out = graph;
    else
        ek_graph_free(&graph);
    return status;
}

/* --- writing */

static bool is_default(const ek_attr_spec *spec, const ek_attr *attr)
{
    if (spec->required || attr->n != (spec->type == EK_ATTR_PAIR ? 2 : 1)) return false;
    for (int i = 0; i < attr->n; i++) {
        if (attr->v[i] != spec->fallback && !(isnan(attr->v[i]) && isnan(spec->fallback))) return false;
    }
    return true;
}

static void write_value(const ek_attr_spec *spec, const ek_attr *attr, ek_text *out)
{
    char text[EK_REAL_TEXT];
    if (spec->type == EK_ATTR_BOOL) {
        ek_text_add(out, attr->v[0] != 0 ? "true" : "false");
        return;
    }
    int n = spec->type == EK_ATTR_PAIR && attr->v[0] == attr->v[1] ? 1 : attr->n;
    const char *between = spec->type == EK_ATTR_LIST ? "," : "x";
    for (int i = 0; i < n; i++) ek_text_add(out, "%s%s", i ? between : "", ek_real_text(attr->v[i], text));
}

void ek_graph_write_options(const ek_node *node, ek_text *out)
{
    const ek_attr_spec *specs = node->op->attrs;
    int count = option_count(node->op), positional = -1; /* the last one that must be written */
    for (int i = 0; i < count; i++) {
        if (specs[i].positional && !is_default(&specs[i], &node->attr[i])) positional = i;
    }
    const char *blank = "";
    for (int named = 0; named < 2; named++) {
        for (int i = 0; i < count; i++) {
            if (specs[i].positional == (bool)named) continue;
            if (named ? is_default(&specs[i], &node->attr[i]) : i > positional) continue;
            ek_text_add(out, "%s%s%s", blank, named ? specs[i].name : "", named ? "=" : "");
            write_value(&specs[i], &node->attr[i], out);
            blank = " ";
        }
    }
}

/* Where the layers stand: two blanks after the longest label, but labels longer than most stick out. */
static int label_width(const ek_graph *graph)
{
    enum { LEAST = 7, MOST = 24 };
    int width = LEAST;
    for (int i = 0; i < graph->count; i++) {
        int needed = (int)strlen(graph->node[i].label) + 3;
        if (needed > width) width = needed;
    }
    return width < MOST ? width : MOST;
}

ek_status ek_graph_write(const ek_graph *graph, ek_text *out)
{
    int width = label_width(graph);
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        char head[EK_LABEL_MAX + 2] = "";
        if (*node->label) snprintf(head, sizeof head, "%s: ", node->label);
        /* As in the texts, the input without a label stands where the labels do, its shape with the layers. */
        if (node->input_count == 0 && !*node->label)
            ek_text_add(out, "%-*s", width, node->op->name);
        else
            ek_text_add(out, "%-*s%s", width, head, node->op->name);

        ek_text options = {0};
        ek_graph_write_options(node, &options);
        if (node->input_count == 2) ek_text_add(out, " %s", graph->node[node->input[1]].label);
        bool blank = node->input_count > 0 || *node->label;
        if (options.length > 0) ek_text_add(out, "%s%s", blank ? " " : "", options.data);
        if (node->input_count > 0 && node->input[0] != i - 1)
            ek_text_add(out, " from=%s", graph->node[node->input[0]].label);
        ek_text_add(out, "\n");
        out->failed |= options.failed;
        ek_text_free(&options);
    }
    return ek_text_status(out);
}
