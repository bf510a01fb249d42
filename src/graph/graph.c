#include "graph/graph.h"

#include "core/memory.h"
#include "core/random.h"

#include <math.h>

static ek_status check_shape(const ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    int64_t count = 1;
    bool fits = true;
    for (int i = 0; i < node->out.rank; i++) {
        fits &= node->out.dim[i] <= EK_MAX_DIM;
        if (fits) count *= node->out.dim[i];
        fits &= count <= EK_MAX_COUNT;
    }
    if (fits) return EK_OK;
    return ek_fail(
        EK_E_SHAPE,
        "the output of %s would be %s; a dimension is at most %lld, and a layer has at most %lld values",
        node->op->name, ek_shape_text(node->out, text), (long long)EK_MAX_DIM, (long long)EK_MAX_COUNT);
}

static ek_status too_many(const ek_param *param)
{
    return ek_fail(EK_E_SHAPE, "%s takes the net's parameters beyond %lld, the most there may be", param->name,
                   (long long)EK_MAX_COUNT);
}

static ek_status check_rank(const ek_node *node)
{
    char text[EK_SHAPE_TEXT];
    for (int k = 0; k < node->input_count && !node->op->any_rank; k++) {
        if (node->in[k].rank > 3)
            return ek_fail(EK_E_SHAPE, "%s works on at most 3 dimensions, its input is %s; put 'reshape' before it",
                           node->op->name, ek_shape_text(node->in[k], text));
    }
    return EK_OK;
}

ek_status ek_node_settle(ek_graph *graph, ek_node *node)
{
    for (int k = 0; k < node->input_count; k++) node->in[k] = graph->node[node->input[k]].out;
    EK_TRY(check_rank(node));
    EK_TRY(node->op->shape(node));
    EK_TRY(check_shape(node));
    if (node->op->params) node->op->params(node);
    for (int k = 0; k < node->param_count; k++) {
        if (node->param[k].count > EK_MAX_COUNT)
            return too_many(&node->param[k]);
    }
    return EK_OK;
}

static ek_status build_node(ek_graph *graph, ek_node *node, int64_t *parameters)
{
    EK_TRY(ek_node_settle(graph, node));
    for (int k = 0; k < node->input_count; k++) graph->node[node->input[k]].consumers++;
    for (int k = 0; k < node->param_count; k++) {
        if ((*parameters += node->param[k].count) > EK_MAX_COUNT)
            return too_many(&node->param[k]);
    }
    return EK_OK;
}

static void mark_redundant(ek_graph *graph)
{
    for (int i = 1; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        if (!node->op->cancels_bias || !node->op->cancels_bias(node)) continue;
        ek_node *producer = &graph->node[node->input[0]];
        ek_param *bias = ek_node_param(producer, EK_ROLE_BIAS);
        if (bias && producer->consumers == 1) bias->redundant = true;
    }
}

ek_node *ek_graph_redundant_by(ek_graph *graph, const ek_node *node)
{
    for (int k = 0; k < node->param_count; k++) {
        if (!node->param[k].redundant) continue;
        for (int i = node->id + 1; i < graph->count; i++) {
            if (graph->node[i].input[0] == node->id) return &graph->node[i];
        }
    }
    return NULL;
}

int ek_graph_logits(const ek_graph *graph)
{
    const ek_node *last = &graph->node[graph->count - 1];
    return last->op == ek_op_find("softmax") && last->out.rank == 1 ? last->input[0] : last->id;
}

ek_status ek_graph_build(ek_graph *graph, const char *origin)
{
    int64_t parameters = 0;
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        node->id = i;
        ek_status status = build_node(graph, node, &parameters);
        if (status != EK_OK) return ek_fail_in(status, "%s:%d:%d: ", origin, node->line, node->column);
    }
    for (int i = 0; i < graph->count - 1; i++) {
        const ek_node *node = &graph->node[i];
        if (node->consumers > 0) continue;
        return ek_fail(
            EK_E_FORMAT,
            "%s:%d:%d: the output of '%s' is never used: read it with from= or add, or remove the layer",
            origin, node->line, node->column, *node->label ? node->label : node->op->name);
    }
    mark_redundant(graph);
    return EK_OK;
}

void ek_graph_free(ek_graph *graph)
{
    ek_free(graph->memory);
    ek_free(graph->text);
    ek_free(graph->reader);
    ek_free(graph->first_reader);
    ek_free(graph->node);
    *graph = (ek_graph){0};
}

/* --- readers */

int ek_graph_root(const ek_graph *graph, int node)
{
    while (!graph->node[node].op->forward && graph->node[node].input_count) node = graph->node[node].input[0];
    return node;
}

ek_status ek_graph_readers(ek_graph *graph)
{
    size_t count = (size_t)graph->count;
    EK_TRY(EK_NEW(graph->first_reader, count + 1));
    EK_TRY(EK_NEW(graph->reader, count * EK_MAX_INPUTS));
    /* A first walk counts; begun at the end of its part, each list is then filled from the back. */
    for (int fill = 0; fill < 2; fill++) {
        for (int i = graph->count - 1; i > 0; i--) {
            const ek_node *node = &graph->node[i];
            for (int slot = node->input_count - 1; node->op->forward && slot >= 0; slot--) {
                int *at = &graph->first_reader[ek_graph_root(graph, node->input[slot])];
                if (fill)
                    graph->reader[--*at] = i;
                else
                    ++*at;
            }
        }
        for (int i = 0; !fill && i < graph->count; i++) graph->first_reader[i + 1] += graph->first_reader[i];
    }
    return EK_OK;
}

int ek_graph_reader_count(const ek_graph *graph, int node)
{
    return graph->first_reader[node + 1] - graph->first_reader[node];
}

int ek_graph_reader(const ek_graph *graph, int node, int index)
{
    return graph->reader[graph->first_reader[node] + index];
}

/* --- parameters */

static bool is_trained(const ek_param *param)
{
    switch (param->role) {
    case EK_ROLE_WEIGHT:
    case EK_ROLE_GAMMA:
    case EK_ROLE_BETA: return true;
    case EK_ROLE_BIAS: return !param->redundant;
    case EK_ROLE_RUNNING_MEAN:
    case EK_ROLE_RUNNING_VAR:
    case EK_ROLE_COUNTER: break;
    }
    return false;
}

static void fill(ek_param *param, float value)
{
    for (int64_t i = 0; i < param->count; i++) param->data[i] = value;
}

/* What needs no random numbers; weights that do, and biases, are set to zero. */
static void reset(ek_param *param)
{
    param->counter = 0;
    bool one = param->role == EK_ROLE_GAMMA || param->role == EK_ROLE_RUNNING_VAR;
    if (param->data) fill(param, one ? 1 : param->start);
}

/* Numbers of all parameters, each beginning at a multiple of 64 bytes; with memory, handed out. */
static size_t lay_out(ek_graph *graph, float *memory)
{
    size_t used = 0;
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].param_count; k++) {
            ek_param *param = &graph->node[i].param[k];
            if (param->role == EK_ROLE_COUNTER) continue;
            size_t room = ek_lane_rows((size_t)param->count);
            if (memory) param->data = memory + used;
            used += room;
            if (!is_trained(param)) continue;
            if (memory) param->grad = memory + used;
            used += room;
        }
    }
    return used;
}

ek_status ek_graph_allocate(ek_graph *graph)
{
    EK_TRY(EK_NEW(graph->memory, lay_out(graph, NULL)));
    lay_out(graph, graph->memory);
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].param_count; k++) reset(&graph->node[i].param[k]);
    }
    return EK_OK;
}

static void fill_uniform(ek_param *param, ek_random *random, double bound)
{
    for (int64_t i = 0; i < param->count; i++)
        param->data[i] = (float)((2 * ek_random_uniform(random) - 1) * bound);
}

static void fill_normal(ek_param *param, ek_random *random, double deviation)
{
    for (int64_t i = 0; i < param->count; i++) param->data[i] = (float)(ek_random_normal(random) * deviation);
}

/* A weight or bias by one of the rules, or by a `deviation` that is not negative. */
static void draw(ek_param *param, ek_init init, double deviation, ek_random random)
{
    double fan_in = (double)param->fan_in, fan_out = (double)param->fan_out;
    bool bias = param->role == EK_ROLE_BIAS;
    if ((!bias && param->role != EK_ROLE_WEIGHT) || param->redundant || param->start != 0) return;
    if (deviation >= 0) {
        if (!bias) fill_normal(param, &random, deviation);
        return;
    }
    switch (init) {
    case EK_INIT_DEFAULT: fill_uniform(param, &random, 1 / sqrt(fan_in)); break;
    case EK_INIT_XAVIER:
        if (!bias) fill_uniform(param, &random, sqrt(6 / (fan_in + fan_out)));
        break;
    case EK_INIT_KAIMING:
        if (!bias) fill_normal(param, &random, sqrt(2 / fan_in));
        break;
    }
}

static void draw_all(ek_graph *graph, ek_init init, double deviation, uint64_t seed)
{
    uint32_t index = 0; /* over the net's parameters */
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].param_count; k++) {
            ek_param *param = &graph->node[i].param[k];
            reset(param);
            draw(param, init, deviation, ek_random_start(seed, EK_STREAM_INIT, index++));
        }
    }
}

void ek_graph_init(ek_graph *graph, ek_init init, uint64_t seed) { draw_all(graph, init, -1, seed); }

void ek_graph_init_normal(ek_graph *graph, double deviation, uint64_t seed)
{
    draw_all(graph, EK_INIT_DEFAULT, deviation, seed);
}
