/* A network as a directed acyclic graph of nodes, inputs before users; node 0 is the input, the last node
 * the output. */
#ifndef EK_GRAPH_GRAPH_H
#define EK_GRAPH_GRAPH_H

#include "core/text.h"
#include "ops/op.h"

typedef struct ek_graph {
    ek_node *node;
    int count, room;
    char *text; /* canonical net text */
} ek_graph;

/* Parses a net text, finds shapes and parameters (data not yet there), marks redundant biases.
 * Errors: "lenet.net:3:12: unknown option 'kernl' of conv; did you mean 'kernel'?" */
ek_status ek_graph_parse(const char *text, const char *origin, ek_graph *out);
void ek_graph_free(ek_graph *graph); /* also parameters' data */

/* Canonical net text: parsing it gives the same graph. Appends to `out`. */
ek_status ek_graph_write(const ek_graph *graph, ek_text *out);
/* The canonical options of one node: "6 kernel=5". Appends. */
void ek_graph_write_options(const ek_node *node, ek_text *out);

/* Gives every parameter memory: zeros, gamma and running_var ones. */
ek_status ek_graph_allocate(ek_graph *graph);
/* Random weights and biases; the draw of a parameter depends on the seed and its index alone. */
void ek_graph_init(ek_graph *graph, ek_init init, uint64_t seed);

/* The batchnorm that makes node's bias redundant; NULL: none. */
ek_node *ek_graph_redundant_by(ek_graph *graph, const ek_node *node);

/* Index of a shipped net by name, -1 if none. Nets: nets/NAME.net, built in. */
int ek_shipped_net_find(const char *name);

#endif
