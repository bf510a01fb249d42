#include "graph/plan.h"

#include "core/memory.h"

/* Walks the arena's parts in their order: with a plan, hands out their places; without, only counts. */
typedef struct walk {
    float *at;
    size_t floats;
} walk;

/* Far beyond any memory: where counting stops, so that no number of layers makes it wrap around. */
#define MOST_FLOATS ((size_t)1 << 50)

static float *take(walk *w, size_t floats)
{
    float *place = w->at ? w->at + w->floats : NULL;
    w->floats += ek_lane_rows(floats);
    if (w->floats > MOST_FLOATS) w->floats = MOST_FLOATS;
    return place;
}

static size_t lay_out(const ek_net *net, int64_t samples, bool training, ek_plan *plan)
{
    const ek_graph *graph = &net->graph;
    walk w = {.at = plan ? plan->arena : NULL};
    size_t scratch = 0, shared = 0;
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        size_t floats = (size_t)ek_value_floats(node->out, samples);
        float *value = take(&w, floats);
        bool wanted = training && node->trained;
        float *grad = wanted ? take(&w, floats) : NULL;
        float *workspace = node->op->workspace ? take(&w, node->op->workspace(node, samples)) : NULL;
        if (wanted && node->consumers > 1 && floats > shared) shared = floats;
        if (node->op->scratch && node->op->scratch(node, samples) > scratch)
            scratch = node->op->scratch(node, samples);
        if (!plan) continue;
        plan->value[i] = value;
        plan->grad[i] = grad;
        node->workspace = workspace;
    }
    for (int i = 0; i < EK_MAX_INPUTS; i++) {
        float *spare = shared ? take(&w, shared) : NULL;
        if (plan) plan->spare[i] = spare;
    }
    size_t threads = (size_t)ek_pool_threads(net->context->pool);
    float *place = take(&w, ek_lane_rows(scratch) * threads);
    if (plan) {
        plan->pass.scratch = place;
        plan->pass.scratch_each = ek_lane_rows(scratch);
    }
    return w.floats * sizeof(float);
}

size_t ek_plan_bytes(const ek_net *net, int64_t samples, bool training)
{
    return lay_out(net, samples, training, NULL);
}

ek_status ek_plan_create(ek_net *net, int64_t samples, bool training, ek_plan **out)
{
    size_t nodes = (size_t)net->graph.count;
    ek_plan *plan;
    EK_TRY(EK_NEW(plan, 1));
    ek_status status = EK_OK;
    plan->capacity = samples;
    plan->training = training;
    EK_GO(EK_NEW(plan->value, nodes));
    EK_GO(EK_NEW(plan->grad, nodes));
    EK_GO(EK_NEW(plan->started, nodes));
    EK_GO(EK_NEW(plan->arena, ek_plan_bytes(net, samples, training) / sizeof(float)));
    if (net->context->reference) EK_GO(ek_oracle_create(net, samples, &plan->oracle));
    lay_out(net, samples, training, plan);
    plan->pass.context = net->context;
done:
    if (status == EK_OK)
        *out = plan;
    else
        ek_plan_destroy(plan);
    return status;
}

void ek_plan_destroy(ek_plan *plan)
{
    if (!plan) return;
    ek_oracle_destroy(plan->oracle);
    ek_free(plan->arena);
    ek_free(plan->started);
    ek_free(plan->grad);
    ek_free(plan->value);
    ek_free(plan);
}

/* --- running */

ek_status ek_net_run_forward(ek_net *net, int64_t n, ek_mode mode, uint64_t seed, uint64_t step)
{
    ek_plan *plan = net->plan;
    ek_graph *graph = &net->graph;
    ek_pass *pass = &plan->pass;
    pass->n = n;
    pass->training = mode == EK_MODE_TRAINING;
    pass->seed = seed;
    pass->step = step;
    if (plan->oracle) {
        /* The operators' own refusals hold for the oracle too; only they know them. */
        for (int i = 0; i < graph->count; i++) {
            if (graph->node[i].op->check) EK_TRY(graph->node[i].op->check(pass, &graph->node[i]));
        }
        ek_oracle_forward(plan->oracle, net);
        return EK_OK;
    }
    ek_net_clock_start(net);
    for (int i = 1; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        const float *x[EK_MAX_INPUTS] = {NULL};
        for (int k = 0; k < node->input_count; k++) x[k] = plan->value[node->input[k]];
        if (node->op->check) EK_TRY(node->op->check(pass, node));
        node->op->forward(pass, node, x, plan->value[i]);
        ek_net_clock_lap(net, i, false);
    }
    return EK_OK;
}

/* The first user of a value writes its gradient, later ones write beside it and are added. */
void ek_net_run_backward(ek_net *net)
{
    ek_plan *plan = net->plan;
    ek_graph *graph = &net->graph;
    if (plan->oracle) {
        ek_oracle_backward(plan->oracle, net);
        return;
    }
    for (int i = 0; i < graph->count; i++) plan->started[i] = false;
    ek_net_clock_start(net);
    for (int i = graph->count - 1; i > 0; i--) {
        ek_node *node = &graph->node[i];
        if (!plan->grad[i]) continue;
        const float *x[EK_MAX_INPUTS] = {NULL};
        float *dx[EK_MAX_INPUTS] = {NULL};
        bool beside[EK_MAX_INPUTS] = {false};
        for (int k = 0; k < node->input_count; k++) {
            int from = node->input[k];
            x[k] = plan->value[from];
            if (!plan->grad[from]) continue;
            beside[k] = plan->started[from];
            dx[k] = beside[k] ? plan->spare[k] : plan->grad[from];
            plan->started[from] = true;
        }
        node->op->backward(&plan->pass, node, x, plan->value[i], plan->grad[i], dx);
        for (int k = 0; k < node->input_count; k++) {
            if (!beside[k]) continue;
            float *sum = plan->grad[node->input[k]];
            net->context->kernels->add(ek_value_floats(node->in[k], plan->pass.n), sum, dx[k], sum);
        }
        ek_net_clock_lap(net, i, true);
    }
}

void ek_net_commit(ek_net *net)
{
    if (net->plan->oracle) {
        ek_oracle_commit(net->plan->oracle, net);
        return;
    }
    for (int i = 0; i < net->graph.count; i++) {
        ek_node *node = &net->graph.node[i];
        if (node->op->commit) node->op->commit(&net->plan->pass, node);
    }
}
