/* The steps with their pointers, and the running of them. */
#include "graph/plan.h"

#include "core/memory.h"
#include "norm/batch_norm.h"
#include "ops/batchnorm.h"

#include <string.h>

/* --- from places to pointers */

static float *at(const ek_plan *plan, ek_place place)
{
    return place < 0 ? NULL : plan->arena + plan->steps.buffer[place].offset;
}

static ek_map_in map_in(const ek_plan *plan, const ek_reading *r)
{
    const float *x = at(plan, r->x);
    ek_map_in map = r->norm ? ek_batchnorm_map(r->norm, x) : (ek_map_in){.x = x};
    map.activation = r->f;
    map.slope = r->slope;
    return map;
}

static ek_grad_out grad_out(const ek_plan *plan, const ek_writing *w)
{
    return (ek_grad_out){.g = at(plan, w->g),
                         .addend = at(plan, w->addend),
                         .value = map_in(plan, &w->value),
                         .y = at(plan, w->y),
                         .sums = w->sums ? ek_batchnorm_sums(w->value.norm) : NULL};
}

/* What the op itself writes: all, or its dx plainly. */
static ek_grad_out own_grad_out(const ek_plan *plan, const ek_step *step, int slot)
{
    ek_grad_out all = grad_out(plan, &step->dx[slot]);
    if (step->plain[slot] < 0) return all;
    return (ek_grad_out){.g = at(plan, step->plain[slot]), .value = map_in(plan, &step->x[slot])};
}

static ek_flow flow_of(const ek_plan *plan, const ek_step *step)
{
    ek_flow flow = {
        .y = at(plan, step->y),
        .v = at(plan, step->v),
        .norm = step->norm,
        .f = step->f,
        .slope = step->slope,
        .dy = {.g = at(plan, step->dy)},
        .norm_dx = step->norm_dx,
        .has_moments = step->has_moments,
        .has_sums = step->has_sums,
    };
    for (int k = 0; k < step->node->input_count; k++) {
        flow.x[k] = map_in(plan, &step->x[k]);
        flow.dx[k] = own_grad_out(plan, step, k);
    }
    return flow;
}

/* What every pass of the plan has. */
static void set_room(const ek_net *net, const ek_plan *plan, ek_pass *pass)
{
    pass->context = net->context;
    pass->scratch = at(plan, plan->steps.scratch);
    pass->scratch_each = plan->steps.scratch_each;
    pass->length = (const int32_t *const *)plan->lengths.of;
}

static void make_flows(ek_net *net, ek_plan *plan)
{
    const ek_steps *steps = &plan->steps;
    for (int i = 0; i < net->graph.count; i++) net->graph.node[i].workspace = at(plan, steps->workspace[i]);
    for (int i = 0; i < steps->forward_steps; i++) plan->forward[i] = flow_of(plan, &steps->forward[i]);
    for (int i = 0; i < steps->backward_steps; i++) plan->backward[i] = flow_of(plan, &steps->backward[i]);
    plan->input = at(plan, steps->input);
    plan->logits = at(plan, steps->logits);
    plan->output = at(plan, steps->output);
    plan->output_grad = at(plan, steps->output_grad);
    set_room(net, plan, &plan->pass);
}

ek_status ek_plan_bytes(const ek_net *net, int64_t samples, bool training, size_t *bytes)
{
    ek_steps steps;
    EK_TRY(ek_steps_create(net, samples, training, &steps));
    *bytes = steps.floats * sizeof(float);
    ek_steps_free(&steps);
    return EK_OK;
}

ek_status ek_plan_create(ek_net *net, int64_t samples, bool training, ek_plan **out)
{
    ek_plan *plan;
    EK_TRY(EK_NEW(plan, 1));
    ek_status status = EK_OK;
    plan->capacity = samples;
    plan->training = training;
    EK_GO(ek_steps_create(net, samples, training, &plan->steps));
    EK_GO(EK_NEW(plan->forward, (size_t)plan->steps.forward_steps));
    EK_GO(EK_NEW(plan->backward, (size_t)plan->steps.backward_steps));
    EK_GO(EK_NEW(plan->arena, plan->steps.floats));
    if (net->lengths) EK_GO(ek_lengths_create(&net->graph, samples, &plan->lengths));
    if (net->context->reference) EK_GO(ek_oracle_create(net, samples, &plan->oracle));
    make_flows(net, plan);
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
    ek_lengths_free(&plan->lengths);
    ek_free(plan->arena);
    ek_free(plan->backward);
    ek_free(plan->forward);
    ek_steps_free(&plan->steps);
    ek_free(plan);
}

/* --- running */

/* An empty shard has nothing to do but where the others wait for it. */
static bool takes_part(const ek_pass *pass, const ek_node *node) { return pass->n > 0 || node->gather; }

static ek_status check_layers(const ek_graph *graph, const ek_pass *pass)
{
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        if (node->op->check && takes_part(pass, node)) EK_TRY(node->op->check(pass, node));
    }
    return EK_OK;
}

ek_status ek_net_check(const ek_net *net, int64_t n, int32_t length, ek_mode mode)
{
    ek_lengths lengths = {0};
    if (length) {
        EK_TRY(ek_lengths_create(&net->graph, n, &lengths));
        for (int64_t i = 0; i < n; i++) lengths.of[0][i] = length;
        ek_lengths_derive(&net->graph, &lengths, n);
    }
    ek_pass pass = {.n = n, .training = mode == EK_MODE_TRAINING, .length = (const int32_t *const *)lengths.of};
    ek_status status = check_layers(&net->graph, &pass);
    ek_lengths_free(&lengths);
    return status;
}

/* All steps of nodes before `end`. */
static ek_status run_forward(ek_net *net, const ek_pass *wanted, int end)
{
    ek_plan *plan = net->plan;
    ek_graph *graph = &net->graph;
    ek_pass *pass = &plan->pass;
    *pass = *wanted;
    if (plan->lengths.of) ek_lengths_derive(graph, &plan->lengths, pass->n);
    EK_TRY(check_layers(graph, pass));
    if (plan->oracle) {
        ek_oracle_forward(plan->oracle, net);
        return EK_OK;
    }
    ek_net_clock_start(net);
    ek_lengths_cut(&plan->lengths, pass, &graph->node[0], plan->input);
    ek_net_clock_lap(net, 0, false);
    for (int i = 0; i < plan->steps.forward_steps; i++) {
        ek_node *node = plan->steps.forward[i].node;
        if (node->id >= end) break;
        if (!takes_part(pass, node)) continue;
        node->op->forward(pass, node, &plan->forward[i]);
        ek_lengths_cut(&plan->lengths, pass, node, plan->forward[i].y);
        ek_net_clock_lap(net, node->id, false);
    }
    return EK_OK;
}

static ek_pass pass_of(const ek_net *net, int64_t n, ek_mode mode, uint64_t seed, uint64_t step)
{
    ek_pass pass = net->plan->pass; /* context and scratch stay */
    pass.kernels = net->context->kernels;
    pass.n = n;
    pass.first = 0;
    pass.training = mode == EK_MODE_TRAINING;
    pass.seed = seed;
    pass.step = step;
    return pass;
}

ek_status ek_net_run_forward(ek_net *net, int64_t n, ek_mode mode, uint64_t seed, uint64_t step)
{
    ek_pass pass = pass_of(net, n, mode, seed, step);
    return run_forward(net, &pass, net->graph.count);
}

ek_status ek_net_run_to(ek_net *net, int layer, int64_t n, ek_mode mode, uint64_t seed, uint64_t step)
{
    ek_pass pass = pass_of(net, n, mode, seed, step);
    return run_forward(net, &pass, layer);
}

ek_status ek_net_run_alone(ek_net *net, int64_t n, ek_mode mode)
{
    const ek_context *context = net->context;
    bool few = mode == EK_MODE_INFERENCE && n <= context->few->lanes;
    ek_pass pass = pass_of(net, n, mode, 0, 0);
    if (few) pass.kernels = context->few;
    return run_forward(net, &pass, net->graph.count);
}

ek_status ek_net_run_part(ek_net *net, int64_t first, int64_t n, uint64_t seed, uint64_t step, int last)
{
    ek_pass pass = pass_of(net, n, EK_MODE_TRAINING, seed, step);
    pass.first = first;
    return run_forward(net, &pass, last + 1);
}

/* What a normalization reads; of the input, the input itself. */
static const ek_node *read_by(const ek_net *net, int layer)
{
    const ek_node *node = &net->graph.node[layer];
    return node->input_count ? &net->graph.node[node->input[0]] : node;
}

static const float *value_of(const ek_net *net, const ek_node *node)
{
    return at(net->plan, net->plan->steps.value[ek_graph_root(&net->graph, node->id)]);
}

void ek_net_norm_input(const ek_net *net, int layer, int64_t first, int64_t n, float *out)
{
    const ek_plan *plan = net->plan;
    const ek_node *from = read_by(net, layer);
    if (plan->oracle) {
        ek_oracle_value(plan->oracle, from, first, n, out);
        return;
    }
    int64_t elements = ek_shape_count(from->out);
    const float *x = value_of(net, from);
    for (int64_t at_sample = 0; at_sample < n; at_sample += EK_LANES) {
        int live = n - at_sample < EK_LANES ? (int)(n - at_sample) : EK_LANES;
        const float *lanes = x + (first + at_sample) / EK_LANES * elements * EK_LANES;
        plan->pass.kernels->lanes_to_rows(elements, live, lanes, out + at_sample * elements);
    }
}

void ek_net_value(const ek_net *net, int layer, int64_t n, double *out)
{
    const ek_plan *plan = net->plan;
    const ek_node *node = &net->graph.node[layer];
    int64_t elements = ek_shape_count(node->out);
    if (plan->oracle) {
        memcpy(out, ek_oracle_values(plan->oracle, node), (size_t)(n * elements) * sizeof *out);
        return;
    }
    const float *lanes = value_of(net, node);
    for (int64_t i = 0; i < n; i++) {
        const float *from = lanes + i / EK_LANES * elements * EK_LANES + i % EK_LANES;
        for (int64_t e = 0; e < elements; e++) out[i * elements + e] = from[e * EK_LANES];
    }
}

int ek_net_norm_row(const ek_net *net, int layer, int64_t block, int64_t element, float before[EK_LANES],
                    float after[EK_LANES])
{
    const ek_plan *plan = net->plan;
    const ek_node *node = &net->graph.node[layer];
    const int live = ek_live(plan->pass.n, block);
    const int32_t *length = ek_block_length(&plan->pass, node, block);
    int64_t elements = ek_shape_count(node->in[0]), positions = elements / node->in[0].dim[0];
    float x[EK_LANES] = {0}, y[EK_LANES];
    if (plan->oracle) {
        ek_oracle_row(plan->oracle, read_by(net, layer), block, element, live, x);
        ek_oracle_row(plan->oracle, node, block, element, live, y);
    } else {
        memcpy(x, value_of(net, read_by(net, layer)) + (block * elements + element) * EK_LANES, sizeof x);
        ek_batchnorm_row(&plan->pass, node, block, element / positions, x, y);
    }
    int count = 0;
    for (int i = 0; i < live; i++) {
        if (length && element % positions >= length[i]) continue;
        before[count] = x[i];
        after[count++] = y[i];
    }
    return count;
}

ek_batch_norm_saved ek_net_norm_saved(const ek_net *net, int layer, bool *batch)
{
    return ek_batchnorm_saved(&net->plan->pass, &net->graph.node[layer], batch);
}

/* A piece is a block of samples. */
typedef struct measuring {
    const ek_net *net;
    const ek_node *from;
    ek_moments *parts; /* [block][channel] */
} measuring;

static void moments_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const measuring *m = argument;
    const ek_pass *pass = &m->net->plan->pass;
    const int32_t *length = pass->length ? pass->length[m->from->id] : NULL;
    ek_block_moments(pass, m->from->out, length ? length + block * EK_LANES : NULL, block,
                     value_of(m->net, m->from) + block * ek_block_floats(m->from->out),
                     m->parts + block * m->from->out.dim[0]);
}

void ek_net_norm_moments(const ek_net *net, int layer, ek_moments *parts, ek_moments *out)
{
    const ek_plan *plan = net->plan;
    measuring m = {net, read_by(net, layer), parts};
    int64_t channels = m.from->out.dim[0];
    if (plan->oracle) {
        ek_oracle_moments(plan->oracle, m.from, plan->pass.n, plan->pass.length ? plan->pass.length[m.from->id] : NULL, out);
        return;
    }
    ek_pool_run(plan->pass.context->pool, ek_blocks(plan->pass.n), moments_piece, &m);
    for (int64_t c = 0; c < channels; c++) out[c] = ek_moments_merge_all(parts + c, ek_blocks(plan->pass.n), channels);
}

/* What the op could not write itself. */
typedef struct rest {
    const ek_pass *pass;
    ek_shape shape;
    ek_grad_out out;
    const float *from;
} rest;

static void rest_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const rest *r = argument;
    int64_t floats = ek_block_floats(r->shape);
    ek_slab slab = {r->shape.dim[0], ek_channel_floats(r->shape), 1, floats, ek_live(r->pass->n, block)};
    ek_grad_out o = ek_grad_out_block(r->pass, &r->out, block, floats, slab.channels);
    r->pass->kernels->grad_write(&slab, &o, r->from + block * floats);
}

static void backward_step(const ek_plan *plan, int index)
{
    const ek_step *step = &plan->steps.backward[index];
    const ek_pass *pass = &plan->pass;
    ek_flow flow = plan->backward[index];
    ek_lengths_cut(&plan->lengths, pass, step->node, at(plan, step->dy));
    if (step->dy_norm) flow.dy = ek_batchnorm_gradient(pass, step->dy_norm, at(plan, step->dy_x), flow.dy.g);
    step->node->op->backward(pass, step->node, &flow);
    for (int k = 0; k < step->node->input_count; k++) {
        if (step->plain[k] < 0) continue;
        rest r = {pass, step->node->in[k], grad_out(plan, &step->dx[k]), at(plan, step->plain[k])};
        ek_pool_run(pass->context->pool, ek_blocks(pass->n), rest_piece, &r);
    }
}

static void clear_gradients(ek_net *net)
{
    for (int i = 0; i < net->graph.count * EK_MAX_PARAMS; i++) {
        ek_param *param = &net->graph.node[i / EK_MAX_PARAMS].param[i % EK_MAX_PARAMS];
        if (param->grad) memset(param->grad, 0, (size_t)param->count * sizeof *param->grad);
    }
}

void ek_net_run_backward(ek_net *net) { ek_net_run_part_backward(net, 0); }

void ek_net_run_part_backward(ek_net *net, int last)
{
    const ek_plan *plan = net->plan;
    if (plan->oracle) {
        ek_oracle_backward(plan->oracle, net);
        return;
    }
    if (plan->pass.n == 0) clear_gradients(net);
    ek_net_clock_start(net);
    for (int i = 0; i < plan->steps.backward_steps; i++) {
        if (plan->steps.backward[i].node->id < last) break;
        if (takes_part(&plan->pass, plan->steps.backward[i].node)) backward_step(plan, i);
        if (net->on_gradients) net->on_gradients(net->on_gradients_user, plan->steps.backward[i].node->id);
        ek_net_clock_lap(net, plan->steps.backward[i].node->id, true);
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
