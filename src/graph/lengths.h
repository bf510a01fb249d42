/* Batches of sequences of unequal lengths: of a sample's sequence [c, l] the first `length` positions are alive, the others
 * are padding. Every value [c, l] of the net has lengths of its own, which the layers give from those of the input
 * (ek_op.length). What is beyond holds 0 after every node's forward pass, so that the next sees what it would see if the
 * sample were that short, and the gradient is put to 0 there before every node's backward pass. So most operators need
 * not know of lengths: batchnorm and the pools do.
 *
 * Nodes run unfused then: between two that are computed together there would be no moment for it. */
#ifndef EK_GRAPH_LENGTHS_H
#define EK_GRAPH_LENGTHS_H

#include "graph/graph.h"

typedef struct ek_lengths {
    int32_t *memory;
    int32_t **of; /* by node: [samples, in whole lane blocks]; NULL: it is no sequence, or made of none */
} ek_lengths;

/* Sets node->has_lengths. */
void ek_lengths_mark(ek_graph *graph);
/* Whether lengths that the input has can be followed through the net. EK_E_SHAPE: a layer moves positions. */
ek_status ek_lengths_check(const ek_graph *graph);

ek_status ek_lengths_create(const ek_graph *graph, int64_t samples, ek_lengths *out);
void ek_lengths_free(ek_lengths *lengths);
/* From the input's lengths of n samples to those of all nodes. */
void ek_lengths_derive(const ek_graph *graph, const ek_lengths *lengths, int64_t n);

/* Puts a node's output, or its gradient, to 0 beyond its lengths; nothing where it has none. */
void ek_lengths_cut(const ek_lengths *lengths, const ek_pass *pass, const ek_node *node, float *value);

#endif
