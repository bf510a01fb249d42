#include "graph/lengths.h"

#include "core/memory.h"

void ek_lengths_mark(ek_graph *graph)
{
    graph->node[0].has_lengths = graph->node[0].out.rank == 2;
    for (int i = 1; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        node->has_lengths = false;
        for (int k = 0; k < node->input_count; k++)
            node->has_lengths |= node->out.rank == 2 && graph->node[node->input[k]].has_lengths;
    }
}

static ek_status refuse(const ek_node *node, int k)
{
    char text[EK_SHAPE_TEXT];
    return ek_fail(EK_E_SHAPE,
                   "%s%s%s in line %d moves the positions of its sequences %s, so that their lengths would mean nothing behind it: "
                   "leave it out, or the lengths",
                   node->op->name, *node->label ? " " : "", node->label, node->line, ek_shape_text(node->in[k], text));
}

ek_status ek_lengths_check(const ek_graph *graph)
{
    for (int i = 1; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        bool moves = node->op->moves_positions && node->op->moves_positions(node);
        for (int k = 0; moves && k < node->input_count; k++)
            if (graph->node[node->input[k]].has_lengths && node->in[k].dim[1] > 1) return refuse(node, k);
    }
    return EK_OK;
}

ek_status ek_lengths_create(const ek_graph *graph, int64_t samples, ek_lengths *out)
{
    int64_t each = ek_blocks(samples) * EK_LANES, count = 0;
    ek_status status = EK_OK;
    *out = (ek_lengths){0};
    for (int i = 0; i < graph->count; i++) count += graph->node[i].has_lengths;
    EK_GO(EK_NEW(out->of, (size_t)graph->count));
    EK_GO(EK_NEW(out->memory, (size_t)(count * each)));
    for (int i = 0, k = 0; i < graph->count; i++)
        if (graph->node[i].has_lengths) out->of[i] = out->memory + k++ * each;
done:
    if (status != EK_OK) ek_lengths_free(out);
    return status;
}

void ek_lengths_free(ek_lengths *lengths)
{
    ek_free(lengths->of);
    ek_free(lengths->memory);
    *lengths = (ek_lengths){0};
}

/* Of two inputs that are joined the shorter counts: there both are alive. One without lengths, or of one position, is alive
 * anywhere. */
static int64_t length_of(const ek_lengths *lengths, const ek_node *node, int64_t sample)
{
    int64_t least = node->out.dim[1];
    for (int k = 0; k < node->input_count; k++) {
        const int32_t *of = lengths->of[node->input[k]];
        if (!of || node->in[k].dim[1] == 1) continue;
        int64_t out = node->op->length ? node->op->length(node, of[sample]) : of[sample];
        if (out < least) least = out;
    }
    return least < 1 ? 1 : least;
}

void ek_lengths_derive(const ek_graph *graph, const ek_lengths *lengths, int64_t n)
{
    for (int i = 0; i < graph->count; i++) {
        int32_t *of = lengths->of[i];
        for (int64_t s = 0; of && i > 0 && s < n; s++)
            of[s] = (int32_t)length_of(lengths, &graph->node[i], s);
        for (int64_t s = n; of && s < ek_blocks(n) * EK_LANES; s++) of[s] = 0;
    }
}

typedef struct cutting {
    const ek_pass *pass;
    const ek_node *node;
    const int32_t *length;
    float *value;
} cutting;

static void cut_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const cutting *w = argument;
    w->pass->kernels->sequence_cut(w->node->out.dim[0], w->node->out.dim[1], w->length + block * EK_LANES, 0,
                                   w->value + block * ek_block_floats(w->node->out));
}

void ek_lengths_cut(const ek_lengths *lengths, const ek_pass *pass, const ek_node *node, float *value)
{
    if (!lengths->of || !lengths->of[node->id]) return;
    cutting w = {.pass = pass, .node = node, .length = lengths->of[node->id], .value = value};
    ek_pool_run(pass->context->pool, ek_blocks(pass->n), cut_piece, &w);
}
