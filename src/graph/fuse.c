/*
 * Fusion: which nodes have no pass of their own.
 *
 * - linear, batchnorm, activation, linear, where one of the two between may be missing: the first linear finishes the
 *   others' features in the piece that computes them (EK_BY_PRODUCER), and the second does so with the gradients.
 * - add, activation: one pass (EK_BY_PRODUCER), where the derivative can be told from the output.
 * - batchnorm and activations otherwise: where all readers of the value can apply a recipe as they read, they do
 *   (EK_BY_READERS) and the value is never stored.
 *
 * Of normalizations only batchnorm takes part, and not in ghost batches: its numbers are those of a channel, not of a sample.
 * Where a batch is cut into shards a linear cannot finish its batchnorm, since all shards must have come that far.
 *
 * src/graph/steps.c follows these marks; without them every node runs alone, with the same results but for rounding.
 */
#include "graph/graph.h"

/* The node that alone reads `node`, whose value is no output of the net; NULL: there is none such. */
static ek_node *sole_reader(ek_graph *graph, int node)
{
    if (ek_graph_reader_count(graph, node) != 1 || node == ek_graph_logits(graph)) return NULL;
    return &graph->node[ek_graph_reader(graph, node, 0)];
}

static bool is_op(const ek_node *node, const char *name) { return node && node->op == ek_op_find(name); }

static bool is_activation(const ek_node *node)
{
    ek_activation kind;
    float slope;
    return node && ek_is_activation(node, &kind, &slope);
}

/* relu costs nothing to apply again for each reader; an exponential does. */
static bool is_cheap(const ek_node *node)
{
    ek_activation kind;
    float slope;
    return ek_is_activation(node, &kind, &slope) && (kind == EK_RELU || kind == EK_LEAKY_RELU);
}

static void fuse_linear(ek_graph *graph, int linear, bool shared)
{
    ek_node *norm = NULL, *activation = NULL, *next = sole_reader(graph, linear);
    if (next && !shared && ek_is_channel_norm(next) && ek_same_channels(&graph->node[linear], next)) {
        norm = next;
        next = sole_reader(graph, norm->id);
    }
    if (is_activation(next)) {
        activation = next;
        next = sole_reader(graph, activation->id);
    }
    if (!is_op(next, "linear")) return;
    if (norm) norm->fusion = EK_BY_PRODUCER;
    if (activation) activation->fusion = EK_BY_PRODUCER;
}

static void fuse_add(ek_graph *graph, int add)
{
    ek_node *activation = sole_reader(graph, add);
    ek_activation kind;
    float slope;
    if (ek_broadcasts(&graph->node[add])) return;
    if (!activation || !ek_is_activation(activation, &kind, &slope) || !ek_told_by_output(kind)) return;
    /* Where the net ends, the gradient that comes in is the activation's own. */
    if (ek_graph_reader_count(graph, activation->id) > 0) activation->fusion = EK_BY_PRODUCER;
}

static bool all_read_recipes(ek_graph *graph, int node, bool activations_too)
{
    for (int k = 0; k < ek_graph_reader_count(graph, node); k++) {
        const ek_node *of = &graph->node[ek_graph_reader(graph, node, k)];
        if (!of->op->reads_maps || ek_broadcasts(of) || of->fusion != EK_ALONE) return false;
        if (is_activation(of) && !activations_too) return false;
        if (!ek_same_channels(&graph->node[node], of)) return false;
    }
    return ek_graph_reader_count(graph, node) > 0 && node != ek_graph_logits(graph);
}

static bool activation_by_readers(ek_graph *graph, const ek_node *node)
{
    int from = ek_graph_root(graph, node->input[0]);
    const ek_node *input = &graph->node[from];
    bool on_norm = ek_is_channel_norm(input);
    if (node->input[0] != from || input->fusion != EK_ALONE || is_activation(input)) return false;
    if (ek_graph_reader_count(graph, from) != 1 || from == ek_graph_logits(graph)) return false;
    /* Without a BN between, the input itself must be stored, and plain. */
    if (!on_norm && !input->op->forward && input->input_count) return false;
    return (is_cheap(node) || ek_graph_reader_count(graph, node->id) == 1) && all_read_recipes(graph, node->id, false);
}

static bool norm_by_readers(ek_graph *graph, const ek_node *node)
{
    if (all_read_recipes(graph, node->id, true)) return true;
    const ek_node *reader = sole_reader(graph, node->id);
    return is_activation(reader) && reader->fusion == EK_BY_READERS;
}

void ek_graph_fuse(ek_graph *graph, bool shared)
{
    for (int i = 1; i < graph->count; i++) {
        if (is_op(&graph->node[i], "linear")) fuse_linear(graph, i, shared);
        if (is_op(&graph->node[i], "add")) fuse_add(graph, i);
    }
    for (int i = graph->count - 1; i > 0; i--) {
        ek_node *node = &graph->node[i];
        if (node->fusion != EK_ALONE) continue;
        bool by_readers = is_activation(node) ? activation_by_readers(graph, node)
                                              : ek_is_channel_norm(node) && norm_by_readers(graph, node);
        if (by_readers) node->fusion = EK_BY_READERS;
    }
}

int ek_graph_runs_in(const ek_graph *graph, int node, bool backward)
{
    node = ek_graph_root(graph, node);
    const ek_node *of = &graph->node[node];
    if (of->fusion == EK_ALONE) return node;
    if (of->fusion == EK_BY_PRODUCER && !backward) return ek_graph_runs_in(graph, of->input[0], backward);
    return ek_graph_runs_in(graph, ek_graph_reader(graph, node, 0), backward);
}
