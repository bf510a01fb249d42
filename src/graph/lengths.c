#include "graph/lengths.h"

#include "core/memory.h"

static bool is_sequence(const ek_node *node) { return node->out.rank == 2; }

ek_status ek_lengths_create(const ek_graph *graph, int64_t samples, ek_lengths *out)
{
    int64_t each = ek_blocks(samples) * EK_LANES, count = 0;
    ek_status status = EK_OK;
    *out = (ek_lengths){0};
    for (int i = 0; i < graph->count; i++) count += is_sequence(&graph->node[i]);
    EK_GO(EK_NEW(out->of, (size_t)graph->count));
    EK_GO(EK_NEW(out->memory, (size_t)(count * each)));
    for (int i = 0, k = 0; i < graph->count; i++)
        if (is_sequence(&graph->node[i])) out->of[i] = out->memory + k++ * each;
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

/* Of two inputs that are joined the shorter counts: there both are alive. */
static int64_t length_of(const ek_lengths *lengths, const ek_node *node, int64_t sample)
{
    int64_t least = node->out.dim[1];
    for (int k = 0; k < node->input_count; k++) {
        int64_t in = lengths->of[node->input[k]][sample],
                out = node->op->length ? node->op->length(node, in) : in;
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
