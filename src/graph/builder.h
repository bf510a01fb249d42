/* A net made layer by layer, where the shape of each value is known at once: for imports, and for passes that make another
 * net out of one. */
#ifndef EK_GRAPH_BUILDER_H
#define EK_GRAPH_BUILDER_H

#include "graph/net.h"

typedef struct ek_builder {
    ek_graph graph; /* so far: the nodes with their options, inputs, shapes and parameters */
    float **memory; /* by node: the numbers of its parameters */
} ek_builder;

/* Starts empty: {0}. */
void ek_builder_free(ek_builder *builder);

/* A further layer, which reads the layers `first` and `second` (-1: none). `label` is a wish (NULL: none): what a label
 * cannot hold is replaced, and one that is taken gets a number. The options are name=value with blanks between, those
 * that need no name in a net text too: "out=6 kernel=5x3". Its weights begin as zeros, gamma and running_var as ones.
 * *index is that of the layer. On error, which says what does not meet as for a net text, without a place, the builder is as
 * it was. */
__attribute__((format(printf, 7, 8))) ek_status ek_builder_add(ek_builder *builder, const char *label, const char *op, int first,
                                                               int second, int *index, const char *options, ...);
/* The same layer as another net has, with the numbers of its parameters. */
ek_status ek_builder_copy(ek_builder *builder, const ek_node *node, int first, int second, int *index);

static inline ek_shape ek_builder_shape(const ek_builder *builder, int index) { return builder->graph.node[index].out; }
/* For further questions and for its parameters; valid until the next layer is added. */
static inline ek_node *ek_builder_node(ek_builder *builder, int index) { return &builder->graph.node[index]; }
/* A parameter's numbers, to be written; NULL: it has none. They stay where they are. */
float *ek_builder_data(ek_builder *builder, int index, ek_role role);

/* The net that ends with the layer `output`. Layers that it does not need are left out; a bias that a normalization makes
 * redundant is moved into its running_mean, where there is one. */
ek_status ek_builder_finish(const ek_builder *builder, ek_context *context, const char *origin, int output, ek_net **out);

/* The same net for another context, with its numbers; class names, notes and metadata are not copied. */
ek_status ek_net_copy(const ek_net *net, ek_context *context, ek_net **out);

#endif
