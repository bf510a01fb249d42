/*
 * A batch in parts, with the statistics of the whole. What BN does to a sample depends on all the others, so the parts
 * cannot be run one after the other: they are swept through again and again, and each sweep takes what the next one needs.
 *
 *   forward   one sweep for each depth of batchnorms, the first first: up to them, gathering their moments (Chan's merge),
 *             with those above normalizing by the moments of the whole batch
 *   backward  one sweep for each depth, the last first: all of the forward pass, then back to them, gathering the sums of
 *             g and g*(x - mean), with those below using the sums of the whole batch
 *   at last   one sweep, forward and back, whose gradients are added up
 *
 * Nothing of a part is kept, so the memory is that of one part. With L depths that lie evenly a step costs about
 * L/2 + L + 1 forward and L/2 + 1 backward passes over the batch; without BN it costs what the whole batch does.
 */
#include "train/trainer.h"

#include "core/memory.h"
#include "ops/batchnorm.h"

#include <math.h>
#include <string.h>

struct ek_parts {
    ek_net *net;
    ek_gather *gather; /* by node */
    /* By node: how many gathering batchnorms, itself among them, lie on the way from the input, and to the output. */
    int *depth, *height;
    int depths, heights;
    float **sum; /* by node and parameter: of the parts' gradients; NULL: not trained, or gathered */
    void *memory;
};

static int64_t channels(const ek_node *node) { return node->in[0].dim[0]; }

static int larger(int a, int b) { return a > b ? a : b; }

static void measure_depths(ek_parts *p)
{
    const ek_graph *graph = &p->net->graph;
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        for (int k = 0; k < node->input_count; k++) p->depth[i] = larger(p->depth[i], p->depth[node->input[k]]);
        p->depth[i] += ek_batchnorm_gathers(node);
        p->depths = larger(p->depths, p->depth[i]);
    }
    for (int i = graph->count - 1; i >= 0; i--) {
        const ek_node *node = &graph->node[i];
        p->height[i] += ek_batchnorm_gathers(node) && node->trained;
        for (int k = 0; k < node->input_count; k++)
            p->height[node->input[k]] = larger(p->height[node->input[k]], p->height[i]);
        p->heights = larger(p->heights, p->height[i]);
    }
}

/* Whether a parameter's gradient comes whole from the gathered sums. */
static bool comes_whole(const ek_node *node, const ek_param *param)
{
    return ek_batchnorm_gathers(node) && (param->role == EK_ROLE_GAMMA || param->role == EK_ROLE_BETA);
}

/* All doubles, counted or (with `at`) handed out. */
static size_t lay_out(ek_parts *p, double *at)
{
    const ek_graph *graph = &p->net->graph;
    size_t used = 0;
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        if (ek_batchnorm_gathers(node)) {
            size_t c = (size_t)channels(node), moments = c * sizeof(ek_moments) / sizeof(double);
            if (at) p->gather[i] = (ek_gather){.moments = (void *)(at + used), .sums = at + used + moments};
            used += moments + 2 * c;
        }
        for (int k = 0; k < node->param_count; k++) {
            const ek_param *param = &node->param[k];
            if (!param->grad || comes_whole(node, param)) continue;
            if (at) p->sum[i * EK_MAX_PARAMS + k] = (float *)(at + used);
            used += ek_lane_rows((size_t)param->count) / 2;
        }
    }
    return used;
}

ek_status ek_parts_check(const ek_net *net)
{
    if (net->context->reference)
        return ek_fail(EK_E_UNSUPPORTED, "the reference (EVENKEEL_ISA=reference) runs a batch as a whole, not in parts");
    for (int i = 0; i < net->graph.count; i++) {
        const ek_node *node = &net->graph.node[i];
        if (ek_is_batchnorm(node) && ek_ghost_size(node) > 0)
            return ek_fail(EK_E_UNSUPPORTED,
                           "%s normalizes by ghost batches, which parts of a batch would cut elsewhere: run the batch as a "
                           "whole, or drop ghost",
                           node->label);
    }
    return EK_OK;
}

ek_status ek_parts_create(ek_net *net, ek_parts **out)
{
    EK_TRY(ek_parts_check(net));
    size_t nodes = (size_t)net->graph.count;
    ek_parts *p;
    double *memory;
    EK_TRY(EK_NEW(p, 1));
    ek_status status = EK_OK;
    p->net = net;
    EK_GO(EK_NEW(p->gather, nodes));
    EK_GO(EK_NEW(p->depth, nodes));
    EK_GO(EK_NEW(p->height, nodes));
    EK_GO(EK_NEW(p->sum, nodes * EK_MAX_PARAMS));
    EK_GO(EK_NEW(memory, lay_out(p, NULL) + 1));
    p->memory = memory;
    lay_out(p, memory);
    measure_depths(p);
done:
    if (status == EK_OK)
        *out = p;
    else
        ek_parts_destroy(p);
    return status;
}

void ek_parts_destroy(ek_parts *p)
{
    if (!p) return;
    ek_free(p->memory);
    ek_free(p->sum);
    ek_free(p->height);
    ek_free(p->depth);
    ek_free(p->gather);
    ek_free(p);
}

/* --- sweeps */

typedef struct sweep {
    ek_parts *parts;
    ek_loss *loss;
    const ek_parted_batch *batch;
    double sum; /* of the losses */
    int64_t correct;
} sweep;

static ek_status part_forward(const sweep *s, int64_t first, int64_t n, int last)
{
    const ek_parted_batch *batch = s->batch;
    EK_TRY(batch->fill(batch->user, s->parts->net, first, n));
    ek_phases_lap(batch->phases, EK_PHASE_DATA);
    EK_TRY(ek_net_run_part(s->parts->net, first, n, batch->seed, batch->step, last));
    ek_phases_lap(batch->phases, EK_PHASE_FORWARD);
    return EK_OK;
}

/* Forward, the loss, and back down to `last`. */
static ek_status part_whole(sweep *s, int64_t first, int64_t n, int last)
{
    ek_net *net = s->parts->net;
    int64_t correct;
    EK_TRY(part_forward(s, first, n, net->graph.count));
    s->sum += ek_loss_sum(s->loss, net, n, s->batch->labels + first, s->batch->n, &correct);
    s->correct += correct;
    ek_observer *observer = s->batch->observer;
    if (observer && first == 0 && last == 0) observer->forward(observer, net, n);
    ek_phases_lap(s->batch->phases, EK_PHASE_FORWARD);
    ek_net_run_part_backward(net, last);
    ek_phases_lap(s->batch->phases, EK_PHASE_BACKWARD);
    return EK_OK;
}

static int64_t part_size(const ek_parted_batch *batch, int64_t first)
{
    return batch->n - first < batch->part ? batch->n - first : batch->part;
}

/* Sets the stage of the batchnorms whose `level` is `wanted`, and gives the first and the last of them. */
static void set_stage(ek_parts *p, const int *level, int wanted, ek_stage stage, int *first, int *last)
{
    const ek_graph *graph = &p->net->graph;
    *first = graph->count;
    *last = 0;
    for (int i = 0; i < graph->count; i++) {
        ek_gather *g = &p->gather[i];
        if (!g->moments || level[i] != wanted || (level == p->height && !graph->node[i].trained)) continue;
        size_t c = (size_t)channels(&graph->node[i]);
        if (stage == EK_STAGE_MOMENTS) memset(g->moments, 0, c * sizeof *g->moments);
        if (stage == EK_STAGE_SUMS) memset(g->sums, 0, 2 * c * sizeof *g->sums);
        g->stage = stage;
        *first = i < *first ? i : *first;
        *last = i;
    }
}

static ek_status gather_moments(sweep *s)
{
    int first, last;
    for (int level = 1; level <= s->parts->depths; level++) {
        set_stage(s->parts, s->parts->depth, level, EK_STAGE_MOMENTS, &first, &last);
        for (int64_t at = 0; at < s->batch->n; at += s->batch->part)
            EK_TRY(part_forward(s, at, part_size(s->batch, at), last));
        set_stage(s->parts, s->parts->depth, level, EK_STAGE_NORMALIZES, &first, &last);
    }
    return EK_OK;
}

static ek_status gather_sums(sweep *s)
{
    int first, last;
    for (int level = 1; level <= s->parts->heights; level++) {
        set_stage(s->parts, s->parts->height, level, EK_STAGE_SUMS, &first, &last);
        s->sum = 0;
        s->correct = 0;
        for (int64_t at = 0; at < s->batch->n; at += s->batch->part)
            EK_TRY(part_whole(s, at, part_size(s->batch, at), first));
        if (!isfinite(s->sum)) return EK_OK;
        set_stage(s->parts, s->parts->height, level, EK_STAGE_ALL, &first, &last);
    }
    return EK_OK;
}

/* Adds the gradients of the part that was just run to the sums; those of the last part receive the sums. */
static void add_gradients(const ek_parts *p, bool first, bool last)
{
    const ek_graph *graph = &p->net->graph;
    for (int i = 0; i < graph->count * EK_MAX_PARAMS; i++) {
        const ek_param *param = &graph->node[i / EK_MAX_PARAMS].param[i % EK_MAX_PARAMS];
        float *sum = p->sum[i];
        if (!sum) continue;
        if (!first)
            p->net->context->kernels->add(param->count, sum, param->grad, last ? param->grad : sum);
        else if (!last)
            memcpy(sum, param->grad, (size_t)param->count * sizeof *sum);
    }
}

static ek_status gather_gradients(sweep *s)
{
    s->sum = 0;
    s->correct = 0;
    for (int64_t at = 0; at < s->batch->n; at += s->batch->part) {
        int64_t n = part_size(s->batch, at);
        EK_TRY(part_whole(s, at, n, 0));
        add_gradients(s->parts, at == 0, at + n == s->batch->n);
    }
    return EK_OK;
}

static void begin_gathering(ek_parts *p, int64_t samples)
{
    for (int i = 0; i < p->net->graph.count; i++) {
        if (!p->gather[i].moments) continue;
        p->gather[i].samples = samples;
        p->gather[i].stage = EK_STAGE_NOTHING;
        p->net->graph.node[i].gather = &p->gather[i];
    }
}

void ek_parts_end(ek_parts *p)
{
    for (int i = 0; i < p->net->graph.count; i++) p->net->graph.node[i].gather = NULL;
}

ek_status ek_parts_run(ek_parts *p, ek_loss *loss, const ek_parted_batch *batch, double *sum, int64_t *correct)
{
    sweep s = {.parts = p, .loss = loss, .batch = batch};
    begin_gathering(p, batch->n);
    EK_TRY(gather_moments(&s));
    EK_TRY(gather_sums(&s));
    if (isfinite(s.sum)) EK_TRY(gather_gradients(&s));
    *sum = s.sum;
    *correct = s.correct;
    return EK_OK;
}
