/*
 * A batch in shards, each with a net of its own (where a process has but one, the net itself). All take their samples through the
 * net at the same time and meet at each batchnorm, forward and backward, where the moments and sums of all are merged
 * (src/ops/batchnorm.c); then their gradients are added up, and the net takes one update. With several ranks the sums travel in
 * buckets, those of the last layers while the first are still being computed.
 *
 * Batchnorms that normalize by their shard alone (local_bn, ghost batches) exchange their moments once, at the end, for the
 * running statistics.
 */
#include "train/trainer.h"

#include "core/memory.h"
#include "graph/plan.h"
#include "ops/batchnorm.h"
#include "train/sharding.h"

#include <math.h>
#include <string.h>

/* Floats that a bucket has at least: large enough that the time for its bytes is longer than that for its messages. */
enum { BUCKET = 1 << 18 };

/* A gradient that is summed over the shards: of parameter `param` of a node, in the vector of all. */
typedef struct tensor {
    int node, param;
    int64_t first, count;
} tensor;

typedef struct shard {
    ek_shard place;
    ek_context *context; /* NULL: the trainer's */
    ek_net *net;
    ek_loss loss;
    ek_gather *gather;   /* by node */
    ek_moments *moments; /* of all gathers: of synchronized batchnorms first */
    double *sums;
} shard;

struct ek_sharding {
    ek_net *net;
    ek_comm *comm; /* NULL: there is one process */
    int shards, local, first;
    bool local_bn;
    int64_t samples; /* of a batch, at most */
    ek_shards *group;
    shard *shard; /* [local] */
    /* Of batchnorms: those that all shards share in each pass, and those that they share at the end. */
    int64_t synchronized_channels, other_channels;

    tensor *tensor; /* from the net's end to its beginning */
    int tensors;
    int64_t floats;
    ek_sum *sum; /* NULL: one rank */
    int buckets, started;
    int *bucket_node;    /* by bucket: its lowest node */
    int64_t *bucket_end; /* and where it ends in the vector */
    ek_status failed; /* of what is sent in the backward pass */

    const ek_parted_batch *batch; /* the present one */
    double totals[3];             /* loss, correct, stop */
};

int64_t ek_shard_samples(int64_t n, int shards, int64_t index, int64_t *first)
{
    *first = n * index / shards;
    return n * (index + 1) / shards - *first;
}

/* --- what there is */

/* Whether its statistics are taken from all shards in each pass; else, of those that keep statistics, at the end. */
static bool is_synchronized(const ek_sharding *s, const ek_node *node) { return !s->local_bn && ek_batchnorm_gathers(node); }

static bool is_shared_at_the_end(const ek_sharding *s, const ek_node *node)
{
    return ek_is_batchnorm(node) && ek_node_param((ek_node *)node, EK_ROLE_RUNNING_MEAN) &&
           !ek_batchnorm_options(node).frozen && !is_synchronized(s, node);
}

static void count_channels(ek_sharding *s)
{
    for (int i = 0; i < s->net->graph.count; i++) {
        const ek_node *node = &s->net->graph.node[i];
        if (is_synchronized(s, node)) s->synchronized_channels += node->in[0].dim[0];
        if (is_shared_at_the_end(s, node)) s->other_channels += node->in[0].dim[0];
    }
}

/* A gradient that each shard computes from the sums of all is the same in all. */
static bool comes_whole(const ek_sharding *s, const ek_node *node, const ek_param *param)
{
    return is_synchronized(s, node) && (param->role == EK_ROLE_GAMMA || param->role == EK_ROLE_BETA);
}

static ek_status list_tensors(ek_sharding *s)
{
    const ek_graph *graph = &s->net->graph;
    EK_TRY(EK_NEW(s->tensor, (size_t)graph->count * EK_MAX_PARAMS));
    for (int i = graph->count - 1; i >= 0; i--) {
        for (int k = 0; k < graph->node[i].param_count; k++) {
            const ek_param *param = &graph->node[i].param[k];
            if (!param->grad || comes_whole(s, &graph->node[i], param)) continue;
            s->tensor[s->tensors++] = (tensor){i, k, s->floats, param->count};
            s->floats += param->count;
        }
    }
    return EK_OK;
}

static ek_status make_buckets(ek_sharding *s)
{
    EK_TRY(EK_NEW(s->bucket_end, (size_t)s->tensors + 1));
    EK_TRY(EK_NEW(s->bucket_node, (size_t)s->tensors + 1));
    int64_t begin = 0;
    for (int i = 0; i < s->tensors; i++) {
        const tensor *t = &s->tensor[i];
        bool last_of_node = i + 1 == s->tensors || s->tensor[i + 1].node != t->node;
        if (i + 1 < s->tensors && (!last_of_node || t->first + t->count - begin < BUCKET)) continue;
        s->bucket_end[s->buckets] = begin = t->first + t->count;
        s->bucket_node[s->buckets++] = t->node;
    }
    return s->buckets > 0 ? ek_sum_create(s->comm, s->bucket_end, s->buckets, &s->sum) : EK_OK;
}

static ek_status make_gathers(ek_sharding *s, shard *of)
{
    const ek_graph *graph = &s->net->graph;
    EK_TRY(EK_NEW(of->gather, (size_t)graph->count));
    EK_TRY(EK_NEW(of->moments, (size_t)(s->synchronized_channels + s->other_channels) + 1));
    EK_TRY(EK_NEW(of->sums, 2 * (size_t)s->synchronized_channels + 1));
    int64_t at = 0, other = s->synchronized_channels;
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        ek_gather *g = &of->gather[i];
        g->shard = &of->place;
        if (is_synchronized(s, node)) {
            g->moments = of->moments + at;
            g->sums = of->sums + 2 * at;
            at += node->in[0].dim[0];
        } else if (is_shared_at_the_end(s, node)) {
            g->moments = of->moments + other;
            other += node->in[0].dim[0];
        }
    }
    return EK_OK;
}

/* A net like the trainer's, for a thread of its own; its numbers come with each step. */
static ek_status make_twin(const ek_sharding *s, shard *of)
{
    int threads = ek_context_threads(s->net->context) / s->local;
    ek_context_options options = {.threads = threads > 0 ? threads : 1, .isa = ek_context_isa(s->net->context)};
    ek_text text = {0};
    ek_status status = EK_OK;
    EK_GO(ek_context_create(&options, &of->context));
    of->context->unfused = s->net->context->unfused;
    EK_GO(ek_graph_write(&s->net->graph, &text));
    EK_GO(ek_text_status(&text));
    EK_GO(ek_net_create(of->context, text.data, "shard", &of->net));
    EK_GO(ek_net_share(of->net, !s->local_bn));
    EK_GO(ek_net_use_lengths(of->net, s->net->lengths));
done:
    ek_text_free(&text);
    return status;
}

static ek_status make_shard(ek_sharding *s, int index, int64_t samples)
{
    shard *of = &s->shard[index];
    int64_t first, most = 1;
    of->place = (ek_shard){s->group, index};
    of->net = s->net;
    if (s->local > 1) {
        of->net = NULL;
        EK_TRY(make_twin(s, of));
    }
    for (int i = 0; i < s->shards; i++) { /* a smaller batch may be cut elsewhere, but no larger */
        int64_t n = ek_shard_samples(samples, s->shards, i, &first);
        most = n > most ? n : most;
    }
    EK_TRY(ek_net_prepare(of->net, most, true));
    EK_TRY(ek_loss_reserve(&of->loss, most));
    return make_gathers(s, of);
}

ek_status ek_sharding_check(const ek_net *net, int shards, bool local_bn, int64_t n)
{
    int ranks = ek_comm_ranks(net->context->comm);
    if (shards == 0) shards = ranks;
    if (net->context->reference)
        return ek_fail(EK_E_UNSUPPORTED, "the reference (EVENKEEL_ISA=reference) runs a batch as a whole, not in shards");
    if (shards < 1 || shards > EK_MAX_SHARDS)
        return ek_fail(EK_E_ARGUMENT, "shards must be 1 to %d, not %d", EK_MAX_SHARDS, shards);
    if (shards % ranks)
        return ek_fail(EK_E_ARGUMENT,
                       "shards: %d cannot be dealt to %d ranks; take a number of ranks that divides %d, or a multiple of %d shards",
                       shards, ranks, shards, ranks);
    bool ghost = false;
    for (int i = 0; i < net->graph.count; i++)
        ghost |= ek_is_batchnorm(&net->graph.node[i]) && ek_ghost_size(&net->graph.node[i]) > 0;
    for (int i = 0; (local_bn || ghost) && i < shards; i++) {
        int64_t first, size = ek_shard_samples(n, shards, i, &first);
        if (size == 0) continue;
        ek_status status = ek_net_check(net, size, 0, EK_MODE_TRAINING);
        if (status != EK_OK)
            return ek_fail_in(status, "shard %d of %d has %lld of a batch's %lld samples: ", i, shards, (long long)size,
                              (long long)n);
    }
    return EK_OK;
}

ek_status ek_sharding_create(ek_net *net, int shards, bool local_bn, int64_t samples, ek_sharding **out)
{
    EK_TRY(ek_sharding_check(net, shards, local_bn, samples));
    ek_sharding *s;
    EK_TRY(EK_NEW(s, 1));
    ek_status status = EK_OK;
    ek_comm *comm = net->context->comm;
    int ranks = ek_comm_ranks(comm);
    s->net = net;
    s->comm = ranks > 1 ? comm : NULL;
    s->shards = shards ? shards : ranks;
    s->local = s->shards / ranks;
    s->first = s->local * ek_comm_rank(comm);
    s->local_bn = local_bn;
    s->samples = samples;
    count_channels(s);
    EK_GO(ek_shards_create(s->comm, s->local, ek_context_threads(net->context), &s->group));
    /* The net itself too, which measures in between: as it does where it is a shard. */
    EK_GO(ek_net_share(net, !local_bn));
    EK_GO(list_tensors(s));
    if (s->comm) EK_GO(make_buckets(s));
    EK_GO(EK_NEW(s->shard, (size_t)s->local));
    for (int i = 0; i < s->local; i++) EK_GO(make_shard(s, i, samples));
done:
    if (status == EK_OK)
        *out = s;
    else
        ek_sharding_destroy(s);
    return status;
}

void ek_sharding_destroy(ek_sharding *s)
{
    if (!s) return;
    ek_status whole = ek_net_share(s->net, false); /* without memory now, it plans anew when it is run */
    (void)whole;
    ek_shards_destroy(s->group);
    for (int i = 0; s->shard && i < s->local; i++) {
        shard *of = &s->shard[i];
        if (of->net != s->net) ek_net_destroy(of->net);
        ek_context_destroy(of->context);
        ek_loss_free(&of->loss);
        ek_free(of->gather);
        ek_free(of->moments);
        ek_free(of->sums);
    }
    ek_free(s->shard);
    ek_sum_destroy(s->sum);
    ek_free(s->bucket_node);
    ek_free(s->bucket_end);
    ek_free(s->tensor);
    ek_free(s);
}

bool ek_sharding_fits(const ek_sharding *s, int shards, bool local_bn, int64_t samples)
{
    return (shards ? shards : ek_comm_ranks(s->net->context->comm)) == s->shards && local_bn == s->local_bn && samples <= s->samples;
}

/* --- between the net and those of the shards */

static void copy_param(const ek_param *from, ek_param *to)
{
    to->counter = from->counter;
    if (to->data) memcpy(to->data, from->data, (size_t)to->count * sizeof *to->data);
}

static void take_numbers(const ek_net *from, ek_net *to)
{
    for (int i = 0; from != to && i < to->graph.count; i++) {
        for (int k = 0; k < to->graph.node[i].param_count; k++)
            copy_param(&from->graph.node[i].param[k], &to->graph.node[i].param[k]);
    }
}

static float *gradient(const ek_net *net, const tensor *t) { return net->graph.node[t->node].param[t->param].grad; }

/* --- gradients */

/* Numbers [begin, end) of the vector of all gradients that lie in tensor t: *at in it, and how many. */
static int64_t overlap(const tensor *t, int64_t begin, int64_t end, int64_t *at)
{
    int64_t from = t->first > begin ? t->first : begin, to = t->first + t->count < end ? t->first + t->count : end;
    *at = from - t->first;
    return to - from;
}

/* Adds up the local shards' numbers [begin, end), by the pairwise tree; to the net or, where there are other ranks, to what goes
 * to them. */
static void add_local(ek_sharding *s, int64_t begin, int64_t end)
{
    const ek_kernels *kernels = s->net->context->kernels;
    for (int i = 0; i < s->tensors; i++) {
        const tensor *t = &s->tensor[i];
        int64_t at, count = overlap(t, begin, end, &at);
        if (count <= 0) continue;
        for (int gap = 1; gap < s->local; gap *= 2) {
            for (int k = 0; k + gap < s->local; k += 2 * gap) {
                float *into = gradient(s->shard[k].net, t) + at;
                kernels->add(count, into, gradient(s->shard[k + gap].net, t) + at, into);
            }
        }
        float *to = s->sum ? ek_sum_vector(s->sum) + t->first + at : gradient(s->net, t) + at;
        const float *sum = gradient(s->shard[0].net, t) + at;
        if (to != sum) memcpy(to, sum, (size_t)count * sizeof *to);
    }
}

/* Sends the buckets whose gradients are complete down to `layer`. */
static void send_down_to(ek_sharding *s, int layer)
{
    for (; s->failed == EK_OK && s->started < s->buckets && s->bucket_node[s->started] >= layer; s->started++) {
        int64_t begin = s->started > 0 ? s->bucket_end[s->started - 1] : 0;
        if (s->local == 1) add_local(s, begin, s->bucket_end[s->started]);
        s->failed = ek_sum_start(s->sum, s->started);
    }
    if (s->failed == EK_OK) s->failed = ek_sum_poll(s->sum);
}

static void on_gradients(void *sharding, int layer) { send_down_to(sharding, layer); }

/* By shard 0, when all local sums are in place. */
static ek_status exchange_gradients(ek_sharding *s)
{
    send_down_to(s, 0);
    EK_TRY(s->failed);
    EK_TRY(ek_sum_finish(s->sum));
    for (int i = 0; i < s->tensors; i++) {
        const tensor *t = &s->tensor[i];
        memcpy(gradient(s->net, t), ek_sum_vector(s->sum) + t->first, (size_t)t->count * sizeof(float));
    }
    return EK_OK;
}

/* Those that came whole, out of the first shard's net. */
static void take_whole_gradients(const ek_sharding *s)
{
    const ek_net *from = s->shard[0].net;
    for (int i = 0; from != s->net && i < s->net->graph.count; i++) {
        for (int k = 0; k < s->net->graph.node[i].param_count; k++) {
            const ek_param *param = &s->net->graph.node[i].param[k];
            if (param->grad && comes_whole(s, &s->net->graph.node[i], param))
                memcpy(param->grad, from->graph.node[i].param[k].grad, (size_t)param->count * sizeof(float));
        }
    }
}

static ek_status add_gradients(ek_sharding *s, int index)
{
    if (s->local > 1) {
        ek_shard_meet(&s->shard[index].place);
        if (ek_shards_failed(s->group)) return EK_OK;
        add_local(s, s->floats * index / s->local, s->floats * (index + 1) / s->local);
        ek_shard_meet(&s->shard[index].place);
    }
    if (index > 0) return EK_OK;
    if (s->sum) EK_TRY(exchange_gradients(s));
    take_whole_gradients(s);
    return EK_OK;
}

/* --- a step */

static void begin_gathering(const ek_sharding *s, shard *of)
{
    for (int i = 0; i < of->net->graph.count; i++) {
        if (!is_synchronized(s, &of->net->graph.node[i])) continue;
        of->gather[i].samples = s->batch->n;
        of->gather[i].stage = EK_STAGE_NOTHING;
        of->net->graph.node[i].gather = &of->gather[i];
    }
}

static void end_gathering(shard *of)
{
    for (int i = 0; i < of->net->graph.count; i++) of->net->graph.node[i].gather = NULL;
}

/* Of the batchnorms that normalized by their shard alone: what all of them saw, in one exchange. */
static void share_statistics(const ek_sharding *s, shard *of)
{
    ek_graph *graph = &of->net->graph;
    if (s->other_channels == 0) return;
    for (int i = 0; i < graph->count; i++) {
        if (is_shared_at_the_end(s, &graph->node[i]))
            ek_batchnorm_own_moments(&of->net->plan->pass, &graph->node[i], of->gather[i].moments);
    }
    ek_moments_of_all_shards(&of->place, of->moments + s->synchronized_channels, s->other_channels);
    for (int i = 0; i < graph->count; i++) {
        if (is_shared_at_the_end(s, &graph->node[i])) ek_batchnorm_take_moments(&graph->node[i], &of->gather[i]);
    }
}

/* What the first shard took to meet the others in a phase is no part of it. */
static void lap(const ek_sharding *s, int index, ek_phases *phases, ek_phase phase)
{
    ek_phases_lap(phases, phase);
    if (index > 0) return;
    double meeting = ek_shards_meeting_seconds(s->group);
    phases->seconds[phase] -= meeting;
    phases->seconds[EK_PHASE_EXCHANGE] += meeting;
}

static ek_status run_shard(void *argument, int index)
{
    ek_sharding *s = argument;
    const ek_parted_batch *batch = s->batch;
    shard *of = &s->shard[index];
    ek_phases aside = {.lap = 0}, *phases = index == 0 ? batch->phases : &aside;
    int64_t first, n = ek_shard_samples(batch->n, s->shards, s->first + index, &first), correct = 0;
    take_numbers(s->net, of->net);
    if (n > 0) EK_TRY(batch->fill(batch->user, of->net, first, n));
    ek_phases_lap(phases, EK_PHASE_DATA);

    begin_gathering(s, of);
    EK_TRY(ek_net_run_part(of->net, first, n, batch->seed, batch->step, of->net->graph.count));
    double totals[3] = {0, 0, batch->stop};
    if (n > 0) totals[0] = ek_loss_sum(&of->loss, of->net, n, batch->labels + first, batch->n, &correct);
    totals[1] = (double)correct;
    ek_shard_merge(&of->place, totals, 3, ek_merge_sum);
    if (index == 0) memcpy(s->totals, totals, sizeof totals);
    bool first_of_all = s->first + index == 0 && n > 0;
    if (first_of_all && batch->observer && isfinite(totals[0])) batch->observer->forward(batch->observer, of->net, n);
    lap(s, index, phases, EK_PHASE_FORWARD);
    if (!isfinite(totals[0]) || ek_shards_failed(s->group)) return EK_OK;

    ek_net_run_part_backward(of->net, 0);
    lap(s, index, phases, EK_PHASE_BACKWARD);
    EK_TRY(add_gradients(s, index));
    share_statistics(s, of);
    lap(s, index, phases, EK_PHASE_EXCHANGE);
    return EK_OK;
}

ek_status ek_sharding_run(ek_sharding *s, const ek_parted_batch *batch, double *sum, int64_t *correct, bool *stop)
{
    s->batch = batch;
    s->started = 0;
    s->failed = EK_OK;
    if (s->sum && s->local == 1) {
        s->net->on_gradients = on_gradients;
        s->net->on_gradients_user = s;
    }
    ek_status status = ek_shards_run(s->group, run_shard, s);
    s->net->on_gradients = NULL;
    *sum = s->totals[0];
    *correct = (int64_t)s->totals[1];
    *stop = s->totals[2] > 0;
    return status;
}

void ek_sharding_commit(ek_sharding *s)
{
    ek_net *from = s->shard[0].net;
    ek_net_commit(from);
    for (int i = 0; from != s->net && i < from->graph.count; i++) {
        for (int k = 0; k < from->graph.node[i].param_count; k++) {
            ek_param *param = &from->graph.node[i].param[k];
            bool statistics = param->role == EK_ROLE_RUNNING_MEAN || param->role == EK_ROLE_RUNNING_VAR || param->role == EK_ROLE_COUNTER;
            if (statistics) copy_param(param, &s->net->graph.node[i].param[k]);
        }
    }
}

void ek_sharding_end(ek_sharding *s)
{
    for (int i = 0; i < s->local; i++) end_gathering(&s->shard[i]);
}
