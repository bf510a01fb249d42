/* A network as a directed acyclic graph of nodes, inputs before users; node 0 is the input, the last node
 * the output. */
#ifndef EK_GRAPH_GRAPH_H
#define EK_GRAPH_GRAPH_H

#include "core/text.h"
#include "ops/op.h"

typedef struct ek_graph {
    ek_node *node;
    int count, room;
    int *reader;       /* of each node: from first_reader[node], in their order */
    int *first_reader; /* [count + 1] */
    char *text;    /* canonical net text */
    float *memory; /* all parameters and their gradients */
} ek_graph;

/* Limits that keep every size within its type. */
#define EK_MAX_LAYERS 10000
#define EK_MAX_NET_TEXT (1 << 20) /* bytes */
#define EK_MAX_DIM ((int64_t)1 << 24)
#define EK_MAX_BATCH ((int64_t)1 << 24) /* samples */
#define EK_MAX_COUNT ((int64_t)1 << 30) /* numbers in a sample's value, and in all parameters */

/* No layer is called so: "optimizer.exp_avg.net.1.weight" is training state in a checkpoint. */
#define EK_OPTIMIZER_LABEL "optimizer"

/* Parses a net text, finds shapes and parameters (data not yet there), marks redundant biases.
 * Errors: "lenet.net:3:12: conv has no option 'kernl'; did you mean 'kernel'?" */
ek_status ek_graph_parse(const char *text, const char *origin, ek_graph *out);
/* The half of it that knows no text: ids, shapes, parameters, consumers and redundant biases, for nodes that
 * have their op, attr, input, label (those with parameters), line and column. */
ek_status ek_graph_build(ek_graph *graph, const char *origin);
/* Shape and parameters (data not yet there) of one node, whose inputs have theirs. */
ek_status ek_node_settle(ek_graph *graph, ek_node *node);
void ek_graph_free(ek_graph *graph); /* also parameters' data */

/* Canonical net text: parsing it gives the same graph. Appends to `out`. */
ek_status ek_graph_write(const ek_graph *graph, ek_text *out);
/* The canonical options of one node: "6 kernel=5". Appends. */
void ek_graph_write_options(const ek_node *node, ek_text *out);

/* For who changes a graph before it is written: another operator with its options at their defaults, and an option
 * from its text. EK_E_ARGUMENT: "eps of batchnorm must be a number from 1e-30 to 1e6, not 'x'". */
void ek_node_set_op(ek_node *node, const ek_op *op);
ek_status ek_node_set_option(ek_node *node, const char *name, const char *value);

/* Gives every parameter memory: zeros, gamma and running_var ones, what is not drawn its start. */
ek_status ek_graph_allocate(ek_graph *graph);
/* Random weights and biases; the draw of a parameter depends on the seed and its index alone. */
void ek_graph_init(ek_graph *graph, ek_init init, uint64_t seed);
/* Weights from a normal distribution about 0, biases 0. */
void ek_graph_init_normal(ek_graph *graph, double deviation, uint64_t seed);

/* The normalization that makes node's bias redundant; NULL: none. */
ek_node *ek_graph_redundant_by(ek_graph *graph, const ek_node *node);

/* The node in whose buffer node's numbers lie: flatten and reshape pass their input's on. */
int ek_graph_root(const ek_graph *graph, int node);
/* Finds the readers of each root: the nodes with a pass that take its value, straight or reshaped; one that takes
 * it twice is there twice. */
ek_status ek_graph_readers(ek_graph *graph);
int ek_graph_reader_count(const ek_graph *graph, int node);
int ek_graph_reader(const ek_graph *graph, int node, int index);
/* Whether `reader` takes node's value with the channels that it has: there is no flatten or reshape
 * between that changes them. */
static inline bool ek_same_channels(const ek_node *node, const ek_node *reader)
{
    return reader->in[0].dim[0] == node->out.dim[0];
}
/* Sets node->fusion (src/graph/fuse.c). */
void ek_graph_fuse(ek_graph *graph, bool shared);
/* The node in whose pass `node` is computed, or its gradient taken back. */
int ek_graph_runs_in(const ek_graph *graph, int node, bool backward);

/* The node whose values are the logits: the last, or the one before a softmax of features at the end. */
int ek_graph_logits(const ek_graph *graph);

/* Index of a shipped net by name, -1 if none. Nets: nets/NAME.net, built in. */
int ek_shipped_net_find(const char *name);

#endif
