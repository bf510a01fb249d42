#include "lab/recalibrate.h"

#include "core/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- which normalizations, and how deep */

static bool is_tracked(const ek_node *node)
{
    return ek_is_batchnorm(node) && ek_node_param((ek_node *)node, EK_ROLE_RUNNING_MEAN);
}

ek_status ek_norm_list_create(const ek_net *net, ek_norm_list *out)
{
    const ek_graph *graph = &net->graph;
    int *below = NULL; /* by node: tracked normalizations at most on a way to its output */
    ek_status status = EK_OK;
    *out = (ek_norm_list){0};
    EK_GO(EK_NEW(below, (size_t)graph->count));
    EK_GO(EK_NEW(out->layer, (size_t)graph->count));
    EK_GO(EK_NEW(out->depth, (size_t)graph->count));
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        for (int k = 0; k < node->input_count; k++) {
            if (below[node->input[k]] > below[i]) below[i] = below[node->input[k]];
        }
        if (!is_tracked(node)) continue;
        out->layer[out->count] = i;
        out->depth[out->count++] = below[i]++;
        if (below[i] > out->depths) out->depths = below[i];
    }
done:
    ek_free(below);
    if (status != EK_OK) ek_norm_list_free(out);
    return status;
}

void ek_norm_list_free(ek_norm_list *list)
{
    ek_free(list->layer);
    ek_free(list->depth);
    *list = (ek_norm_list){0};
}

/* --- running statistics */

ek_running ek_net_running(const ek_net *net, int layer)
{
    ek_node *node = (ek_node *)&net->graph.node[layer];
    ek_param *mean = ek_node_param(node, EK_ROLE_RUNNING_MEAN);
    return (ek_running){mean->count, mean->data, ek_node_param(node, EK_ROLE_RUNNING_VAR)->data,
                        &ek_node_param(node, EK_ROLE_COUNTER)->counter};
}

ek_status ek_norm_stats_check(const ek_net *net, const ek_norm_stats *s)
{
    const char *label = net->graph.node[s->layer].label;
    for (int64_t c = 0; c < s->channels; c++) {
        if (s->all[c].count < 2)
            return ek_fail(EK_E_SHAPE,
                           "%s has one value a channel in all the data, and one value has no variance: give "
                           "more samples",
                           label);
        if (!isfinite(s->all[c].mean) || !isfinite(s->all[c].m2))
            return ek_fail(
                EK_E_NUMERIC,
                "what %s reads is not finite in channel %lld: a weight before it or the data holds "
                "extreme values, which no statistics mend",
                label, (long long)c);
    }
    return EK_OK;
}

double ek_norm_stats_var(const ek_net *net, const ek_norm_stats *s, int64_t channel)
{
    bool unbiased = ek_batchnorm_options(&net->graph.node[s->layer]).unbiased_running_var;
    return s->all[channel].m2 / (s->all[channel].count - (unbiased ? 1 : 0));
}

void ek_norm_stats_write(const ek_net *net, const ek_norm_stats *s, double blend)
{
    ek_running running = ek_net_running(net, s->layer);
    for (int64_t c = 0; c < s->channels; c++) {
        bool sound = isfinite(running.mean[c]) && isfinite(running.var[c]) && running.var[c] >= 0;
        double now = sound ? blend : 1, before = 1 - now;
        double mean = now * s->all[c].mean, var = now * ek_norm_stats_var(net, s, c);
        running.mean[c] = (float)(before > 0 ? before * running.mean[c] + mean : mean);
        running.var[c] = (float)(before > 0 ? before * running.var[c] + var : var);
    }
}

/* --- the whole net */

ek_recalibrate_options ek_recalibrate_options_default(void)
{
    return (ek_recalibrate_options){.batch = 128, .blend = 1};
}

/* What the statistics were, to go back to. */
typedef struct kept {
    float *values;
    int64_t *batches;
} kept;

static ek_status keep(const ek_net *net, const ek_norm_list *norms, kept *out)
{
    size_t values = 0;
    for (int i = 0; i < norms->count; i++)
        values += 2 * (size_t)ek_net_running(net, norms->layer[i]).channels;
    EK_TRY(EK_NEW(out->values, values));
    EK_TRY(EK_NEW(out->batches, (size_t)norms->count));
    float *at = out->values;
    for (int i = 0; i < norms->count; i++) {
        ek_running r = ek_net_running(net, norms->layer[i]);
        for (int64_t c = 0; c < r.channels; c++) *at++ = r.mean[c];
        for (int64_t c = 0; c < r.channels; c++) *at++ = r.var[c];
        out->batches[i] = *r.batches;
    }
    return EK_OK;
}

static void restore(const ek_net *net, const ek_norm_list *norms, const kept *from)
{
    const float *at = from->values;
    for (int i = 0; at && from->batches && i < norms->count; i++) {
        ek_running r = ek_net_running(net, norms->layer[i]);
        for (int64_t c = 0; c < r.channels; c++) r.mean[c] = *at++;
        for (int64_t c = 0; c < r.channels; c++) r.var[c] = *at++;
        *r.batches = from->batches[i];
    }
}

ek_status ek_mend_depth(ek_sweep *sweep, const ek_norm_list *norms, int depth, double blend)
{
    ek_status status = EK_OK;
    sweep->stats_count = 0;
    EK_GO(EK_NEW(sweep->stats, (size_t)norms->count));
    for (int i = 0; i < norms->count; i++) {
        if (depth < 0 || norms->depth[i] == depth)
            EK_GO(ek_norm_stats_create(sweep->net, norms->layer[i], &sweep->stats[sweep->stats_count++]));
    }
    EK_GO(ek_sweep_run(sweep));
    for (int i = 0; i < sweep->stats_count; i++) EK_GO(ek_norm_stats_check(sweep->net, &sweep->stats[i]));
    for (int i = 0; i < sweep->stats_count; i++) {
        ek_norm_stats_write(sweep->net, &sweep->stats[i], blend);
        *ek_net_running(sweep->net, sweep->stats[i].layer).batches =
            ek_batch_count(sweep->count, sweep->batch, false);
    }
done:
    for (int i = 0; sweep->stats && i < sweep->stats_count; i++) ek_norm_stats_free(&sweep->stats[i]);
    ek_free(sweep->stats);
    sweep->stats = NULL;
    sweep->stats_count = 0;
    return status;
}

/* --- all in one sweep */

/* Options that would keep a batch from being normalized by its own statistics as a whole, or would change what is read. */
static const struct {
    const char *op, *option;
    double off;
} noise[] = {
    {"dropout", "p", 0},       {"batchnorm", "frozen", 0}, {"batchnorm", "ghost", 0},
    {"batchnorm", "r_max", 1}, {"batchnorm", "d_max", 0},
};
enum { NOISE = sizeof noise / sizeof *noise };

/* The option's number, changed in place by who holds it; NULL: the layer has no such. */
static double *option_of(ek_node *node, int which)
{
    int index = strcmp(node->op->name, noise[which].op) ? -1 : ek_op_attr(node->op, noise[which].option);
    return index < 0 ? NULL : &node->attr[index].v[0];
}

/* Switches it off, and keeps what was, [layer][NOISE]. */
static void quieten(ek_graph *graph, double *was)
{
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < NOISE; k++) {
            double *option = option_of(&graph->node[i], k);
            if (option) was[i * NOISE + k] = *option;
            if (option) *option = noise[k].off;
        }
    }
}

static void unquieten(ek_graph *graph, const double *was)
{
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < NOISE; k++) {
            double *option = option_of(&graph->node[i], k);
            if (option) *option = was[i * NOISE + k];
        }
    }
}

static ek_status mend_fast(ek_sweep *sweep, const ek_norm_list *norms, double blend)
{
    ek_net *net = sweep->net;
    double *was;
    EK_TRY(EK_NEW(was, (size_t)net->graph.count * NOISE));
    quieten(&net->graph, was);
    sweep->mode = EK_MODE_TRAINING;
    ek_status status = ek_net_plan_anew(net);
    if (status == EK_OK) status = ek_mend_depth(sweep, norms, -1, blend);
    unquieten(&net->graph, was);
    ek_free(was);
    ek_status back = ek_net_plan_anew(net);
    return status == EK_OK ? back : status;
}

static ek_status mend_by_depth(ek_sweep *sweep, const ek_norm_list *norms, double blend)
{
    for (int depth = 0; depth < norms->depths; depth++) EK_TRY(ek_mend_depth(sweep, norms, depth, blend));
    return EK_OK;
}

static ek_status check(const ek_net *net, const ek_dataset *dataset, const ek_recalibrate_options *o)
{
    if (!net || !dataset) return ek_fail(EK_E_ARGUMENT, "ek_recalibrate needs a net and data");
    if (o->batch < 1) return ek_fail(EK_E_ARGUMENT, "batch must be 1 or more, not %lld", (long long)o->batch);
    if (!(o->blend > 0 && o->blend <= 1))
        return ek_fail(EK_E_ARGUMENT, "blend must be above 0 and at most 1, not %g", o->blend);
    if (dataset->count < 1) return ek_fail(EK_E_SHAPE, "the data is empty");
    ek_status status = ek_dataset_check(dataset, net);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "the data: ");
}

static ek_status note(ek_net *net, int64_t samples, const ek_recalibrate_options *o)
{
    char text[64];
    snprintf(text, sizeof text, "%lld samples, blend %g%s", (long long)samples, o->blend, o->fast ? ", in one pass" : "");
    return ek_net_set_metadata(net, EK_RECALIBRATED_KEY, text);
}

ek_status ek_recalibrate(ek_net *net, const ek_dataset *dataset, const ek_recalibrate_options *options)
{
    ek_recalibrate_options o = options ? *options : ek_recalibrate_options_default();
    EK_TRY(check(net, dataset, &o));
    ek_norm_list norms;
    EK_TRY(ek_norm_list_create(net, &norms));
    kept before = {0};
    int64_t *index = NULL;
    ek_status status = EK_OK;
    if (norms.count == 0)
        EK_GO(ek_fail(EK_E_ARGUMENT,
                      "the net has no batch normalization with running statistics: there is nothing to "
                      "recalibrate"));
    EK_GO(keep(net, &norms, &before));
    EK_GO(EK_NEW(index, (size_t)dataset->count));
    for (int64_t i = 0; i < dataset->count; i++) index[i] = i;
    ek_work work = {o.progress, o.user, 0, (double)dataset->count * (o.fast ? 1 : norms.depths)};
    ek_sweep sweep = {.net = net,
                      .dataset = dataset,
                      .index = index,
                      .count = dataset->count,
                      .batch = o.batch,
                      .mode = EK_MODE_INFERENCE,
                      .stats_only = true,
                      .work = &work};
    EK_GO((o.fast ? mend_fast : mend_by_depth)(&sweep, &norms, o.blend));
    EK_GO(note(net, dataset->count, &o));
done:
    if (status != EK_OK) restore(net, &norms, &before);
    ek_free(before.values);
    ek_free(before.batches);
    ek_free(index);
    ek_norm_list_free(&norms);
    return status;
}
