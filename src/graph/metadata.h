/* What a file says about a net beside its numbers, as texts by key: net text, class names, batch normalization's conventions. */
#ifndef EK_GRAPH_METADATA_H
#define EK_GRAPH_METADATA_H

#include "graph/net.h"

#define EK_OWN_KEYS "evenkeel." /* how those of this program begin */
#define EK_NET_KEY "evenkeel.net"
#define EK_CLASSES_KEY "evenkeel.classes" /* a JSON array of names */

/* Tells each entry: what others noted, the version, the net text, the classes where there are names, and the conventions by
 * layer where there are batch normalizations. The first failure of `tell` ends it. */
typedef ek_status (*ek_tell)(void *user, const char *key, const char *value);
ek_status ek_net_each_metadata(const ek_net *net, ek_tell tell, void *user);

/* The names of EK_CLASSES_KEY (NULL: none, fine). */
ek_status ek_net_take_classes(ek_net *net, const char *text);

#endif
