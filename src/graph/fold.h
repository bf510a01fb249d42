/* Folding: batch normalizations into the weights of the layers beside them. */
#ifndef EK_GRAPH_FOLD_H
#define EK_GRAPH_FOLD_H

#include "graph/net.h"

/* What became of a normalization, or of an affine layer. */
typedef struct ek_fold_entry {
    int layer; /* of the net it was in */
    ek_fold_how how;
    int into;     /* the layer of that net which has taken it in; -1: none */
    char *reason; /* why it was kept; NULL: it was not */
} ek_fold_entry;

typedef struct ek_fold_list {
    ek_fold_entry *entry; /* in the order of the net */
    int count;
    int *
        same; /* by layer of the folded net: the layer of the net it came from that has the same value; -1: none */
} ek_fold_list;

void ek_fold_list_free(ek_fold_list *list);

/* A net that computes the same in inference mode, where every batch normalization that can be is folded, and affine layers
 * that have a number a channel like them. Labels, class names, notes and metadata stay; dropout stays, and is folded across
 * as the nothing that it is at inference. list: what was done, for ek_fold_list_free. */
ek_status ek_net_fold_listed(const ek_net *net, ek_fold_list *list, ek_net **out);
/* The same without the list. maps false: a normalization stays where its constant would differ from place to place, and be a
 * layer with as many numbers as the value has. */
ek_status ek_net_fold(const ek_net *net, bool maps, ek_net **out);

#endif
