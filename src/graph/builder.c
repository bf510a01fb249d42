#include "graph/builder.h"

#include "core/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ek_builder_free(ek_builder *builder)
{
    for (int i = 0; builder->memory && i < builder->graph.count; i++) ek_free(builder->memory[i]);
    ek_free(builder->memory);
    ek_graph_free(&builder->graph);
    *builder = (ek_builder){0};
}

/* --- labels */

static bool is_taken(const ek_graph *graph, const char *label)
{
    if (!strcmp(label, EK_OPTIMIZER_LABEL)) return true;
    for (int i = 0; i < graph->count; i++) {
        if (!strcmp(graph->node[i].label, label)) return true;
    }
    return false;
}

/* A number that makes a label of the stem which is not taken: behind all those that are. */
static int free_number(const ek_graph *graph, const char *stem, int first)
{
    enum { DIGITS = 8 };
    size_t length = strlen(stem);
    for (int i = 0; i < graph->count; i++) {
        const char *number = graph->node[i].label + length;
        if (strncmp(graph->node[i].label, stem, length) != 0) continue;
        size_t digits = strspn(number, "0123456789");
        if (digits < 1 || digits > DIGITS || number[digits]) continue;
        int taken = atoi(number);
        if (taken >= first) first = taken + 1;
    }
    return first;
}

/* A wish as a label may be; one that is too long keeps its end, which says more than its beginning. */
static void choose_label(const ek_graph *graph, const char *wish, char out[EK_LABEL_MAX])
{
    enum { ROOM = EK_LABEL_MAX - 13 }; /* and a number behind it */
    char plain[ROOM + 2];
    size_t length = strlen(wish);
    if (length > ROOM) wish += length - ROOM;
    snprintf(plain, ROOM + 1, "%s", wish);
    for (char *c = plain; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("_.-", *c)) *c = '_';
    }
    size_t reserved = strlen(EK_OPTIMIZER_LABEL);
    if (!strncmp(plain, EK_OPTIMIZER_LABEL ".", reserved + 1)) plain[reserved] = '_';
    snprintf(out, EK_LABEL_MAX, "%s", plain);
    if (!is_taken(graph, out)) return;
    strcat(plain, "_");
    snprintf(out, EK_LABEL_MAX, "%s%d", plain, free_number(graph, plain, 2));
}

/* The net text names who is read from elsewhere than the next line, and who has parameters. */
static void name_sources(ek_graph *graph)
{
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        bool named = node->param_count > 0;
        for (int r = i + 1; r < graph->count && !named; r++) {
            const ek_node *reader = &graph->node[r];
            named = (reader->input[0] == i && r != i + 1) || (reader->input_count == 2 && reader->input[1] == i);
        }
        if (named && !*node->label)
            snprintf(node->label, EK_LABEL_MAX, "%s%d", node->op->name, free_number(graph, node->op->name, 1));
    }
}

/* --- layers */

static ek_status set_options(ek_node *node, char *options)
{
    char *rest = NULL;
    for (char *word = strtok_r(options, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        if (!equals) return ek_fail(EK_E_ARGUMENT, "'%s' is no option name=value", word);
        *equals = 0;
        EK_TRY(ek_node_set_option(node, word, equals + 1));
    }
    return EK_OK;
}

/* Shape and parameters of a node that has its operator, options and inputs; *memory: their numbers. */
static ek_status settle(ek_builder *builder, ek_node *node, float **memory)
{
    EK_TRY(ek_node_settle(&builder->graph, node));
    size_t floats = 0;
    for (int k = 0; k < node->param_count; k++) floats += ek_lane_rows((size_t)node->param[k].count);
    EK_TRY(EK_NEW(*memory, floats));
    float *at = *memory;
    for (int k = 0; k < node->param_count; k++) {
        ek_param *param = &node->param[k];
        if (param->role == EK_ROLE_COUNTER) continue;
        param->data = at;
        at += ek_lane_rows((size_t)param->count);
        bool one = param->role == EK_ROLE_GAMMA || param->role == EK_ROLE_RUNNING_VAR;
        for (int64_t i = 0; i < param->count; i++) param->data[i] = one ? 1.0f : param->start;
    }
    return EK_OK;
}

static ek_status make_room(ek_builder *builder)
{
    ek_graph *graph = &builder->graph;
    if (graph->count == EK_MAX_LAYERS) return ek_fail(EK_E_UNSUPPORTED, "a net has at most %d layers", EK_MAX_LAYERS);
    if (graph->count < graph->room) return EK_OK;
    int room = graph->room ? 2 * graph->room : 32;
    float **memory = ek_grow(builder->memory, (size_t)room, sizeof *memory);
    if (!memory) return EK_E_MEMORY;
    builder->memory = memory;
    ek_node *node = ek_grow(graph->node, (size_t)room, sizeof *node);
    if (!node) return EK_E_MEMORY;
    graph->node = node;
    graph->room = room;
    return EK_OK;
}

static ek_status append(ek_builder *builder, ek_node *node, const char *label, int first, int second, int *index)
{
    ek_graph *graph = &builder->graph;
    float *memory = NULL;
    node->id = graph->count;
    node->input[0] = first;
    node->input[1] = second;
    *node->label = 0;
    if (label && *label) choose_label(graph, label, node->label);
    ek_status status = settle(builder, node, &memory);
    if (status == EK_OK) status = make_room(builder);
    if (status != EK_OK) {
        ek_free(memory);
        return status;
    }
    builder->memory[graph->count] = memory;
    graph->node[graph->count] = *node;
    *index = graph->count++;
    return EK_OK;
}

ek_status ek_builder_add(ek_builder *builder, const char *label, const char *op, int first, int second, int *index,
                         const char *options, ...)
{
    const ek_op *found = ek_op_find(op);
    if (!found) return ek_fail(EK_E_UNSUPPORTED, "there is no layer '%s'", op);
    va_list args;
    va_start(args, options);
    char *text = ek_vstrf(options, args);
    va_end(args);
    if (!text) return EK_E_MEMORY;
    ek_node node = {0};
    ek_node_set_op(&node, found);
    ek_status status = set_options(&node, text);
    if (status == EK_OK) status = append(builder, &node, label, first, second, index);
    ek_free(text);
    return status;
}

ek_status ek_builder_copy(ek_builder *builder, const ek_node *node, int first, int second, int *index)
{
    ek_node copy = {.op = node->op, .input_count = node->input_count};
    memcpy(copy.attr, node->attr, sizeof copy.attr);
    EK_TRY(append(builder, &copy, node->label, first, second, index));
    ek_node *made = &builder->graph.node[*index];
    for (int k = 0; k < node->param_count; k++) {
        const ek_param *from = &node->param[k];
        made->param[k].counter = from->counter;
        if (from->data) memcpy(made->param[k].data, from->data, (size_t)from->count * sizeof(float));
    }
    return EK_OK;
}

float *ek_builder_data(ek_builder *builder, int index, ek_role role)
{
    return ek_node_data(&builder->graph.node[index], role);
}

/* --- the net */

/* What `output` needs, in order; place: by node of the builder, where it went, or -1. */
static void lay_out(const ek_builder *builder, int output, ek_graph *graph, int *place)
{
    for (int i = 0; i <= output; i++) place[i] = i == output || i == 0 ? 0 : -1;
    for (int i = output; i > 0; i--) {
        const ek_node *node = &builder->graph.node[i];
        for (int k = 0; k < node->input_count && place[i] >= 0; k++) place[node->input[k]] = 0;
    }
    for (int i = 0; i <= output; i++) {
        if (place[i] < 0) continue;
        place[i] = graph->count;
        ek_node *copy = &graph->node[graph->count++];
        *copy = builder->graph.node[i];
        for (int k = 0; k < copy->input_count; k++) copy->input[k] = place[copy->input[k]];
    }
}

static void take_bias_out(ek_graph *graph, const ek_node *node, const ek_param *bias)
{
    float *mean = ek_node_data(ek_graph_redundant_by(graph, node), EK_ROLE_RUNNING_MEAN);
    for (int64_t i = 0; mean && i < bias->count; i++) mean[i] = (float)((double)mean[i] - bias->data[i]);
}

/* from: the laid out nodes, whose order and parameters are the net's. */
static void copy_numbers(const ek_graph *from, ek_graph *to)
{
    for (int i = 0; i < to->count; i++) {
        for (int k = 0; k < to->node[i].param_count; k++) {
            const ek_param *source = &from->node[i].param[k];
            ek_param *param = &to->node[i].param[k];
            param->counter = source->counter;
            if (param->data && !param->redundant)
                memcpy(param->data, source->data, (size_t)param->count * sizeof(float));
        }
    }
    for (int i = 0; i < to->count; i++) {
        for (int k = 0; k < to->node[i].param_count; k++) {
            if (to->node[i].param[k].redundant) take_bias_out(to, &to->node[i], &from->node[i].param[k]);
        }
    }
}

ek_status ek_builder_finish(const ek_builder *builder, ek_context *context, const char *origin, int output, ek_net **out)
{
    ek_graph graph = {0};
    ek_text text = {0};
    ek_net *net = NULL;
    int *place = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(place, (size_t)output + 1));
    EK_GO(EK_NEW(graph.node, (size_t)output + 1));
    lay_out(builder, output, &graph, place);
    name_sources(&graph);
    EK_GO(ek_graph_write(&graph, &text));
    EK_GO(ek_text_status(&text));
    EK_GO(ek_net_create(context, text.data, origin, &net));
    copy_numbers(&graph, &net->graph);
    *out = net;
done:
    ek_text_free(&text);
    ek_free(graph.node);
    ek_free(place);
    return status;
}

ek_status ek_net_copy(const ek_net *net, ek_context *context, ek_net **out)
{
    ek_builder b = {0};
    ek_status status = EK_OK;
    int index = 0;
    for (int i = 0; i < net->graph.count; i++) {
        const ek_node *node = &net->graph.node[i];
        EK_GO(ek_builder_copy(&b, node, node->input[0], node->input[1], &index));
    }
    EK_GO(ek_builder_finish(&b, context, "copy", index, out));
done:
    ek_builder_free(&b);
    return status;
}
