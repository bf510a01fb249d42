/* A net without its batch normalizations: each reader of one reads what it normalized. */
#include "core/memory.h"
#include "graph/net.h"

#include <string.h>

/* The net text names whoever is read from elsewhere than the next line; a layer that only a normalization
 * followed may have no name, and then takes that normalization's. */
static void name_sources(ek_graph *plain, const char *const *norm_label)
{
    for (int i = 1; i < plain->count; i++) {
        const ek_node *node = &plain->node[i];
        for (int k = 0; k < node->input_count; k++) {
            int from = node->input[k];
            ek_node *source = &plain->node[from];
            bool named = k > 0 || from != i - 1;
            if (named && !*source->label) strcpy(source->label, norm_label[from]);
        }
    }
}

/* The layers that stay, copied into `plain` as far as a text needs them. place: by layer of `graph`, where its value
 * comes from in `plain`; norm_label: by layer of `plain`, the first normalization that read it. */
static void take_out(const ek_graph *graph, ek_graph *plain, int *place, const char **norm_label)
{
    const ek_op *norm = ek_op_find("batchnorm");
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        if (node->op == norm) {
            place[i] = place[node->input[0]];
            if (!norm_label[place[i]]) norm_label[place[i]] = node->label;
            continue;
        }
        place[i] = plain->count;
        ek_node *copy = &plain->node[plain->count++];
        *copy = *node;
        for (int k = 0; k < node->input_count; k++) copy->input[k] = place[node->input[k]];
    }
}

ek_status ek_net_without_norm(const ek_net *net, ek_net **out)
{
    if (!net || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_without_norm needs a net and a place for the other");
    const ek_graph *graph = &net->graph;
    size_t count = (size_t)graph->count;
    ek_graph plain = {0};
    ek_text text = {0};
    int *place = NULL;
    const char **norm_label = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(place, count));
    EK_GO(EK_NEW(norm_label, count));
    EK_GO(EK_NEW(plain.node, count));
    take_out(graph, &plain, place, norm_label);
    name_sources(&plain, norm_label);
    EK_GO(ek_graph_write(&plain, &text));
    EK_GO(ek_net_create(net->context, text.data, "the net without batch normalization", out));
done:
    ek_text_free(&text);
    ek_free(plain.node);
    ek_free(norm_label);
    ek_free(place);
    return status;
}
