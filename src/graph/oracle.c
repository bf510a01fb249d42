#include "graph/plan.h"

#include "core/memory.h"

#include <string.h>

struct ek_oracle {
    double *memory;
    double **value, **grad, **kept;  /* by node */
    double *(*param)[EK_MAX_PARAMS]; /* NULL: counters and redundant biases */
    double *(*param_grad)[EK_MAX_PARAMS];
};

/* All doubles, counted or (with `at`) handed out. */
static size_t lay_out(const ek_graph *graph, int64_t samples, ek_oracle *o, double *at)
{
    size_t used = 0;
#define TAKE(where, count)           \
    do {                             \
        if (at) (where) = at + used; \
        used += (size_t)(count);     \
    } while (0)
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        int64_t count = ek_shape_count(node->out) * samples;
        TAKE(o->value[i], count);
        TAKE(o->grad[i], count);
        if (node->op->reference_kept) TAKE(o->kept[i], node->op->reference_kept(node));
        for (int p = 0; p < node->param_count; p++) {
            if (node->param[p].role == EK_ROLE_COUNTER || node->param[p].redundant) continue;
            TAKE(o->param[i][p], node->param[p].count);
            if (node->param[p].grad) TAKE(o->param_grad[i][p], node->param[p].count);
        }
    }
#undef TAKE
    return used;
}

ek_status ek_oracle_create(ek_net *net, int64_t samples, ek_oracle **out)
{
    size_t nodes = (size_t)net->graph.count;
    ek_oracle *o;
    EK_TRY(EK_NEW(o, 1));
    ek_status status = EK_OK;
    EK_GO(EK_NEW(o->value, nodes));
    EK_GO(EK_NEW(o->grad, nodes));
    EK_GO(EK_NEW(o->kept, nodes));
    EK_GO(EK_NEW(o->param, nodes));
    EK_GO(EK_NEW(o->param_grad, nodes));
    EK_GO(EK_NEW(o->memory, lay_out(&net->graph, samples, o, NULL)));
    lay_out(&net->graph, samples, o, o->memory);
done:
    if (status == EK_OK)
        *out = o;
    else
        ek_oracle_destroy(o);
    return status;
}

void ek_oracle_destroy(ek_oracle *o)
{
    if (!o) return;
    ek_free(o->memory);
    ek_free(o->param_grad);
    ek_free(o->param);
    ek_free(o->kept);
    ek_free(o->grad);
    ek_free(o->value);
    ek_free(o);
}

/* Position of element e of sample n in a value's float buffer. */
static int64_t position(ek_shape shape, int64_t n, int64_t e)
{
    int64_t elements = ek_shape_count(shape);
    return (n / EK_LANES * elements + e) * EK_LANES + n % EK_LANES;
}

static void to_plain(ek_shape shape, int64_t n, const float *from, double *to)
{
    int64_t elements = ek_shape_count(shape);
    for (int64_t s = 0; s < n; s++) {
        for (int64_t e = 0; e < elements; e++) to[s * elements + e] = from[position(shape, s, e)];
    }
}

static void from_plain(ek_shape shape, int64_t n, const double *from, float *to)
{
    int64_t elements = ek_shape_count(shape);
    for (int64_t s = 0; s < n; s++) {
        for (int64_t e = 0; e < elements; e++) to[position(shape, s, e)] = (float)from[s * elements + e];
    }
}

/* A node's value, or its gradient, is 0 beyond its lengths. */
static void cut(const ek_net *net, const ek_node *node, double *value)
{
    const ek_pass *pass = &net->plan->pass;
    if (!pass->length || !pass->length[node->id]) return;
    int64_t rows = node->out.dim[0], positions = node->out.dim[1];
    for (int64_t s = 0; s < pass->n; s++)
        for (int64_t r = s * rows; r < (s + 1) * rows; r++)
            for (int64_t i = pass->length[node->id][s]; i < positions; i++) value[r * positions + i] = 0;
}

static ek_ref ref_of(const ek_oracle *o, const ek_net *net, int node)
{
    const ek_pass *pass = &net->plan->pass;
    ek_ref ref = {.n = pass->n,
                  .training = pass->training,
                  .seed = pass->seed,
                  .step = pass->step,
                  .length = pass->length,
                  .kept = o->kept[node]};
    memcpy(ref.param, o->param[node], sizeof ref.param);
    memcpy(ref.grad, o->param_grad[node], sizeof ref.grad);
    return ref;
}

void ek_oracle_forward(ek_oracle *o, ek_net *net)
{
    ek_graph *graph = &net->graph;
    int64_t n = net->plan->pass.n;
    to_plain(graph->node[0].out, n, net->plan->input, o->value[0]);
    cut(net, &graph->node[0], o->value[0]);
    for (int i = 1; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        for (int p = 0; p < node->param_count; p++) {
            for (int64_t k = 0; o->param[i][p] && k < node->param[p].count; k++)
                o->param[i][p][k] = node->param[p].data[k];
        }
        const double *x[EK_MAX_INPUTS] = {NULL};
        for (int k = 0; k < node->input_count; k++) x[k] = o->value[node->input[k]];
        ek_ref ref = ref_of(o, net, i);
        node->op->reference_forward(&ref, node, x, o->value[i]);
        cut(net, node, o->value[i]);
    }
    int last = graph->count - 1, logits = ek_graph_logits(graph);
    from_plain(graph->node[last].out, n, o->value[last], net->plan->output);
    if (logits != last) from_plain(graph->node[logits].out, n, o->value[logits], net->plan->logits);
}

void ek_oracle_backward(ek_oracle *o, ek_net *net)
{
    ek_graph *graph = &net->graph;
    int64_t n = net->plan->pass.n;
    int last = graph->count - 1;
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        memset(o->grad[i], 0, (size_t)(ek_shape_count(node->out) * n) * sizeof(double));
        for (int p = 0; p < node->param_count; p++) {
            if (o->param_grad[i][p])
                memset(o->param_grad[i][p], 0, (size_t)node->param[p].count * sizeof(double));
        }
    }
    if (!net->plan->output_grad) return; /* nothing in the net is trained */
    to_plain(graph->node[last].out, n, net->plan->output_grad, o->grad[last]);
    for (int i = last; i > 0; i--) {
        ek_node *node = &graph->node[i];
        const double *x[EK_MAX_INPUTS] = {NULL};
        double *dx[EK_MAX_INPUTS] = {NULL};
        for (int k = 0; k < node->input_count; k++) {
            x[k] = o->value[node->input[k]];
            dx[k] = o->grad[node->input[k]];
        }
        ek_ref ref = ref_of(o, net, i);
        cut(net, node, o->grad[i]);
        node->op->reference_backward(&ref, node, x, o->value[i], o->grad[i], dx);
        for (int p = 0; p < node->param_count; p++) {
            for (int64_t k = 0; o->param_grad[i][p] && k < node->param[p].count; k++)
                node->param[p].grad[k] = (float)o->param_grad[i][p][k];
        }
    }
}

void ek_oracle_commit(ek_oracle *o, ek_net *net)
{
    for (int i = 0; i < net->graph.count; i++) {
        ek_node *node = &net->graph.node[i];
        ek_ref ref = ref_of(o, net, i);
        if (node->op->reference_commit) node->op->reference_commit(&ref, node);
    }
}

const double *ek_oracle_values(const ek_oracle *o, const ek_node *node) { return o->value[node->id]; }

void ek_oracle_value(const ek_oracle *o, const ek_node *node, int64_t first, int64_t n, float *out)
{
    int64_t elements = ek_shape_count(node->out);
    const double *from = o->value[node->id] + first * elements;
    for (int64_t i = 0; i < n * elements; i++) out[i] = (float)from[i];
}

void ek_oracle_row(const ek_oracle *o, const ek_node *node, int64_t block, int64_t element, int live, float *out)
{
    int64_t elements = ek_shape_count(node->out);
    const double *from = o->value[node->id] + block * EK_LANES * elements + element;
    for (int i = 0; i < live; i++) out[i] = (float)from[i * elements];
}

void ek_oracle_moments(const ek_oracle *o, const ek_node *node, int64_t n, const int32_t *length, ek_moments *out)
{
    int64_t channels = node->out.dim[0], run = ek_shape_count(node->out) / channels;
    for (int64_t c = 0; c < channels; c++) {
        out[c] = (ek_moments){0};
        for (int64_t i = 0; i < n * run; i++) {
            if (length && i % run >= length[i / run]) continue;
            double x = o->value[node->id][(i / run * channels + c) * run + i % run];
            ek_moments_merge(&out[c], (ek_moments){.count = 1, .mean = x});
        }
    }
}
