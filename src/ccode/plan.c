/* Where the values of a net lie in one static memory.
 *
 * A layer that works number by number, and a pool without padding, writes over its input where nobody reads that again;
 * such chains share a space. At any moment a space has the size of what lives in it then: behind a pool it is smaller. The
 * largest are placed first, each as low as it meets none that lives at the same time. */
#include "ccode/quantize.h"

#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

bool ek_cc_is_alias(const ek_node *node)
{
    return node->input_count && (!node->op->forward || !strcmp(node->op->name, "dropout"));
}

bool ek_cc_has_pixels(const ek_node *input)
{
    ek_pixels pixels = ek_input_pixels(input);
    for (int i = 0; i < pixels.channels; i++) {
        if (pixels.mean[i] != 0 || pixels.std[i] != 1) return true;
    }
    return false;
}

static size_t words_of(const ek_cc_plan *plan, int node)
{
    size_t count = (size_t)ek_shape_count(plan->graph->node[node].out);
    return plan->int8 ? (count + 3) / 4 : count;
}

/* The last node that reads each root's value. */
static void find_readers(const ek_graph *graph, const int *root, int *last)
{
    for (int i = 0; i < graph->count; i++) last[i] = i;
    for (int i = 1; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        for (int k = 0; root[i] == i && k < node->input_count; k++) last[root[node->input[k]]] = i;
    }
    last[root[graph->count - 1]] = graph->count;
}

static int new_space(ek_cc_plan *plan, int node)
{
    plan->spaces[plan->space_count] = (ek_cc_space){.words = words_of(plan, node)};
    return plan->space_count++;
}

/* The space of an input that the output may take; -1: none. */
static int space_to_take(const ek_cc_plan *plan, const ek_node *node)
{
    ek_cc_over over = ek_cc_over_of(node, plan->int8);
    bool final = node->id == plan->root[plan->graph->count - 1];
    int other = node->input_count == 2 ? plan->space[plan->root[node->input[1]]] : -1;
    for (int k = 0; over != EK_CC_APART && k < (over == EK_CC_OVER_EITHER ? node->input_count : 1); k++) {
        int from = plan->root[node->input[k]], space = plan->space[from];
        const ek_cc_space *s = &plan->spaces[space];
        bool free = plan->last[from] == node->id && s->where == EK_CC_MEMORY;
        bool twice = node->input_count == 2 && plan->space[plan->root[node->input[0]]] == other;
        size_t words = words_of(plan, node->id);
        /* What ends the net is written to `out`, and a whole chain with it, where it fits. */
        bool fits = final && !plan->int8 ? s->words == words : s->words >= words;
        bool whole = words_of(plan, from) >= words && ek_shape_count(node->in[k]) >= ek_shape_count(node->out);
        if (free && fits && whole && !twice) return space;
    }
    return -1;
}

static void place_node(ek_cc_plan *plan, const ek_node *node)
{
    int space = node->input_count ? space_to_take(plan, node) : -1;
    if (space < 0) space = new_space(plan, node->id);
    plan->space[node->id] = space;
}

static size_t scratch_of(const ek_cc_plan *plan, const ek_node *node)
{
    const ek_cc_layer *layer = ek_cc_layer_of(node);
    if (plan->int8) return ek_cc_int8_scratch(node);
    return layer->scratch ? layer->scratch(node) : 0;
}

/* What lives from one layer to another in a place: a value, or scratch. Those of one place stand side by side. */
typedef struct tenant {
    int place, from, to;
    size_t words, largest; /* largest: of its place */
    size_t offset;         /* of the place */
} tenant;

static int by_size(const void *a, const void *b)
{
    const tenant *x = a, *y = b;
    if (x->largest != y->largest) return x->largest < y->largest ? 1 : -1;
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

static bool meet(const tenant *a, size_t offset, const tenant *b)
{
    return a->from <= b->to && b->from <= a->to && offset < b->offset + b->words && b->offset < offset + a->words;
}

/* The lowest offset for tenants [first, end), those of one place, where they meet none that is placed. */
static size_t lowest(const tenant *t, int first, int end)
{
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = first; i < end; i++) {
            for (int k = 0; k < first; k++) {
                if (!meet(&t[i], offset, &t[k])) continue;
                offset = t[k].offset + t[k].words;
                moved = true;
            }
        }
    }
    return offset;
}

static int list_tenants(const ek_cc_plan *plan, tenant *t)
{
    int count = 0, nodes = plan->graph->count;
    for (int i = 0; i < nodes; i++) {
        if (plan->root[i] != i) continue;
        const ek_cc_space *s = &plan->spaces[plan->space[i]];
        size_t scratch = scratch_of(plan, &plan->graph->node[i]);
        if (s->where == EK_CC_MEMORY)
            t[count++] = (tenant){plan->space[i], i, plan->last[i], words_of(plan, i), s->words, 0};
        if (scratch) t[count++] = (tenant){nodes + i, i, i, scratch, scratch, 0};
    }
    return count;
}

static ek_status lay_out(ek_cc_plan *plan)
{
    int nodes = plan->graph->count;
    tenant *t;
    EK_TRY(EK_NEW(t, 2 * (size_t)nodes));
    int count = list_tenants(plan, t);
    qsort(t, (size_t)count, sizeof *t, by_size);
    for (int first = 0, end; first < count; first = end) {
        for (end = first; end < count && t[end].place == t[first].place;) end++;
        size_t offset = lowest(t, first, end);
        for (int i = first; i < end; i++) t[i].offset = offset;
        if (t[first].place < nodes)
            plan->spaces[t[first].place].offset = offset;
        else
            plan->scratch[t[first].place - nodes] = offset;
        if (offset + t[first].largest > plan->words) plan->words = offset + t[first].largest;
    }
    ek_free(t);
    return EK_OK;
}

ek_status ek_cc_plan_create(const ek_graph *graph, const bool *absorbed, ek_cc_plan *out)
{
    bool int8 = absorbed;
    size_t nodes = (size_t)graph->count;
    ek_status status = EK_OK;
    *out = (ek_cc_plan){.graph = graph, .int8 = int8};
    EK_GO(EK_NEW(out->root, nodes));
    EK_GO(EK_NEW(out->space, nodes));
    EK_GO(EK_NEW(out->spaces, nodes));
    EK_GO(EK_NEW(out->scratch, nodes));
    EK_GO(EK_NEW(out->last, nodes));
    for (int i = 0; i < graph->count; i++)
        out->root[i] = ek_cc_is_alias(&graph->node[i]) || (absorbed && absorbed[i]) ? out->root[graph->node[i].input[0]] : i;
    find_readers(graph, out->root, out->last);
    for (int i = 0; i < graph->count; i++) {
        if (out->root[i] != i) continue;
        place_node(out, &graph->node[i]);
        if (i == 0 && !int8 && !ek_cc_has_pixels(&graph->node[0])) out->spaces[0].where = EK_CC_IN;
    }
    ek_cc_space *end = &out->spaces[out->space[out->root[graph->count - 1]]];
    if (!int8 && end->where == EK_CC_MEMORY) end->where = EK_CC_OUT;
    EK_GO(lay_out(out));
done:
    if (status != EK_OK) ek_cc_plan_free(out);
    return status;
}

void ek_cc_plan_free(ek_cc_plan *plan)
{
    ek_free(plan->scratch);
    ek_free(plan->spaces);
    ek_free(plan->space);
    ek_free(plan->last);
    ek_free(plan->root);
    *plan = (ek_cc_plan){0};
}

bool ek_cc_same_place(const ek_cc_plan *plan, int a, int b)
{
    return plan->space[plan->root[a]] == plan->space[plan->root[b]];
}
