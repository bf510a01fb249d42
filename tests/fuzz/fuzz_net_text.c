/* Net texts. What is taken is written and read again, which must give the same text, and run. */
#include "fuzz.h"

#include "core/memory.h"
#include "graph/graph.h"

#include <string.h>

enum { FEW = 1 << 14 }; /* parameters, which take their time to be drawn */

const fuzz_mutator fuzz_mutate = NULL;

void fuzz_start(void) {}

void fuzz_one(const unsigned char *data, size_t size)
{
    char *text = ek_strndup((const char *)data, size);
    ek_graph graph, again;
    bool took = fuzz_took(ek_graph_parse(text, "fuzz.net", &graph));
    ek_free(text);
    if (!took) return;
    FUZZ_OK(ek_graph_parse(graph.text, "canonical", &again));
    fuzz_require(!strcmp(graph.text, again.text), "a canonical text is read as what it is");
    fuzz_require(graph.count == again.count, "a canonical text has as many layers");
    int64_t parameters = 0;
    for (int i = 0; i < graph.count; i++) {
        for (int k = 0; k < graph.node[i].param_count; k++) parameters += graph.node[i].param[k].count;
    }
    ek_net *net;
    if (parameters <= FEW && fuzz_built(ek_net_create(fuzz_context(), graph.text, NULL, &net))) {
        fuzz_use_net(net);
        ek_net_destroy(net);
    }
    ek_graph_free(&again);
    ek_graph_free(&graph);
}
