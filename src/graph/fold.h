/* Folding: batch normalizations into the weights of the layers beside them. */
#ifndef EK_GRAPH_FOLD_H
#define EK_GRAPH_FOLD_H

#include "graph/net.h"

/* A net that computes the same in inference mode, where every batch normalization that can be is folded. */
ek_status ek_net_fold(const ek_net *net, ek_net **out);

#endif
