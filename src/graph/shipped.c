/* The shipped nets: nets/NAME.net, built in by cmake/embed_nets.cmake. */
#include "graph/graph.h"

#include <string.h>

extern const struct ek_shipped_net {
    const char *name, *text;
} ek_shipped_nets[]; /* ended by a NULL name */

static const struct ek_shipped_net *net_at(int index)
{
    for (int i = 0; index >= 0 && ek_shipped_nets[i].name; i++) {
        if (i == index) return &ek_shipped_nets[i];
    }
    return NULL;
}

const char *ek_shipped_net_name(int index) { return net_at(index) ? net_at(index)->name : NULL; }
const char *ek_shipped_net_text(int index) { return net_at(index) ? net_at(index)->text : NULL; }

int ek_shipped_net_find(const char *name)
{
    for (int i = 0; ek_shipped_nets[i].name; i++) {
        if (!strcmp(ek_shipped_nets[i].name, name)) return i;
    }
    return -1;
}
