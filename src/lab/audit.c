/* The audit's public handle, and what its parts share. */
#include "lab/audit.h"

#include "core/memory.h"
#include "formats/model_file.h"
#include "ops/batchnorm.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

ek_audit_options ek_audit_options_default(void) { return (ek_audit_options){.batch = 128, .samples = 10000}; }

/* --- findings */

ek_status ek_audit_add(ek_audit *a, ek_severity severity, const char *code, int layer, const int *channels,
                       int count, char *text, char *evidence, char *mend)
{
    int *copy = NULL;
    ek_status status = text && evidence && mend ? EK_OK : EK_E_MEMORY;
    if (status == EK_OK && a->finding_count == a->finding_room) {
        int room = a->finding_room ? 2 * a->finding_room : 16;
        ek_finding *grown = ek_grow(a->finding, (size_t)room, sizeof *grown);
        status = grown ? EK_OK : EK_E_MEMORY;
        if (grown) {
            a->finding = grown;
            a->finding_room = room;
        }
    }
    if (status == EK_OK) status = EK_NEW(copy, (size_t)count);
    if (status != EK_OK) {
        ek_free(text);
        ek_free(evidence);
        ek_free(mend);
        return status;
    }
    if (count > 0) memcpy(copy, channels, (size_t)count * sizeof *copy);
    a->finding[a->finding_count++] = (ek_finding){
        .severity = severity,
        .code = code,
        .layer = layer,
        .label = layer < 0 ? "" : a->net->graph.node[layer].label,
        .text = text,
        .evidence = evidence,
        .mend = mend,
        .channel_count = count,
        .channels = copy,
    };
    return EK_OK;
}

bool ek_audit_found(const ek_audit *a, const char *code, int layer)
{
    for (int i = 0; i < a->finding_count; i++) {
        if (!strcmp(a->finding[i].code, code) && (layer < 0 || a->finding[i].layer == layer)) return true;
    }
    return false;
}

void ek_audit_channels(ek_text *text, const int *channels, int count)
{
    enum { SHOWN = 6 };
    ek_text_add(text, count == 1 ? "channel " : "channels ");
    for (int i = 0; i < count && i < SHOWN; i++) ek_text_add(text, "%s%d", i ? ", " : "", channels[i]);
    if (count > SHOWN) ek_text_add(text, " and %d more", count - SHOWN);
}

/* The worst first; of one severity in the order in which they were found. */
static void sort_findings(ek_audit *a)
{
    for (int i = 1; i < a->finding_count; i++) {
        ek_finding moved = a->finding[i];
        int k = i;
        for (; k > 0 && a->finding[k - 1].severity < moved.severity; k--) a->finding[k] = a->finding[k - 1];
        a->finding[k] = moved;
    }
}

/* --- commands that mend */

/* A word as a shell takes it. */
static char *quoted(const char *word)
{
    bool plain = *word;
    for (const char *c = word; *c; c++)
        plain = plain && (isalnum((unsigned char)*c) || strchr("-_./,:=+@%", *c));
    if (plain) return ek_strdup(word);
    ek_text text = {0};
    ek_text_add(&text, "'");
    for (const char *c = word; *c; c++) {
        if (*c == '\'')
            ek_text_add(&text, "'\\''");
        else
            ek_text_add(&text, "%c", *c);
    }
    ek_text_add(&text, "'");
    return ek_text_take(&text);
}

const char *ek_audit_training_data(const ek_audit *a) { return a->apart ? a->train_name : a->data_name; }

char *ek_audit_recalibrate(const ek_audit *a, const char *more)
{
    return ek_strf("evenkeel recalibrate %s --data %s%s --out mended.safetensors", a->model_name,
                   ek_audit_training_data(a), more);
}

static ek_status make_names(ek_audit *a, const char *path)
{
    const ek_audit_options *o = &a->options;
    a->model_name = quoted(o->model_name ? o->model_name : path);
    a->data_name = quoted(o->data_name ? o->data_name : "DATA");
    a->train_name = quoted(o->train_name ? o->train_name : o->data_name ? o->data_name : "DATA");
    return a->model_name && a->data_name && a->train_name ? EK_OK : EK_E_MEMORY;
}

/* --- the normalizations */

static void describe(ek_audit *a, ek_norm_case *n)
{
    n->options = ek_batchnorm_options(n->node);
    n->sound = n->untouched = true;
    for (int64_t c = 0; c < n->channels; c++) {
        n->sound = n->sound && isfinite(n->mean[c]) && isfinite(n->var[c]) && n->var[c] >= 0;
        n->untouched = n->untouched && n->mean[c] == 0 && n->var[c] == 1;
    }
    bool counts = n->batches > 0 && !n->options.cumulative && !n->options.frozen && !a->recalibrated;
    n->initial = counts ? pow(1 - n->options.momentum, (double)n->batches) : NAN;
}

static void show(const ek_norm_case *n, ek_audit_layer *shown)
{
    const ek_audit_distance none = {NAN, NAN};
    const ek_param *gamma = ek_node_param((ek_node *)n->node, EK_ROLE_GAMMA);
    *shown = (ek_audit_layer){
        .layer = n->layer,
        .label = n->node->label,
        .channels = n->channels,
        .batches = n->batches,
        .eps = n->options.eps,
        .momentum = n->options.cumulative ? NAN : n->options.momentum,
        .gamma = gamma ? gamma->data : NULL,
        .running_mean = n->mean,
        .running_var = n->var,
        .inference = none,
        .training = none,
        .mended = none,
        .shift = none,
        .swapped = {NAN, NAN},
        .output_change = NAN,
        .share = NAN,
    };
}

/* By node, what lies before it on any way that training does otherwise than inference. */
typedef struct before {
    bool dropout;
    int64_t ghost; /* the smallest; 0: none */
} before;

static int64_t smaller_ghost(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static ek_status look_before(const ek_graph *graph, before **out)
{
    EK_TRY(EK_NEW(*out, (size_t)graph->count));
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        for (int k = 0; k < node->input_count; k++) {
            const ek_node *from = &graph->node[node->input[k]];
            const before *there = &(*out)[from->id];
            (*out)[i].dropout |= there->dropout || from->op == ek_op_find("dropout");
            int64_t ghost = smaller_ghost(there->ghost, ek_is_batchnorm(from) ? ek_ghost_size(from) : 0);
            (*out)[i].ghost = smaller_ghost((*out)[i].ghost, ghost);
        }
    }
    return EK_OK;
}

static ek_status take_norm(ek_audit *a, int i, const before *all)
{
    ek_norm_case *n = &a->norm[i];
    n->layer = a->norms.layer[i];
    n->depth = a->norms.depth[i];
    n->node = &a->net->graph.node[n->layer];
    n->after_dropout = all[n->layer].dropout;
    n->ghost = all[n->layer].ghost;
    ek_running r = ek_net_running(a->net, n->layer);
    n->channels = r.channels;
    n->batches = *r.batches;
    EK_TRY(EK_NEW(n->mean, (size_t)r.channels));
    EK_TRY(EK_NEW(n->var, (size_t)r.channels));
    memcpy(n->mean, r.mean, (size_t)r.channels * sizeof *n->mean);
    memcpy(n->var, r.var, (size_t)r.channels * sizeof *n->var);
    describe(a, n);
    show(n, &a->layer[i]);
    return EK_OK;
}

static ek_status take_norms(ek_audit *a)
{
    before *all = NULL;
    ek_status status = EK_OK;
    EK_GO(ek_norm_list_create(a->net, &a->norms));
    EK_GO(EK_NEW(a->norm, (size_t)a->norms.count));
    EK_GO(EK_NEW(a->layer, (size_t)a->norms.count));
    EK_GO(look_before(&a->net->graph, &all));
    for (int i = 0; i < a->norms.count; i++) EK_GO(take_norm(a, i, all));
done:
    ek_free(all);
    return status;
}

/* --- data */

/* At most `samples` of the set, drawn by a fixed seed: batches are then mixtures, whatever the file's order. */
static ek_status take_set(const ek_audit *a, const ek_dataset *dataset, const char *what, ek_audit_set *out)
{
    if (dataset->count < 2)
        return ek_fail(EK_E_SHAPE, "%s has one sample or none; an audit needs two at least", what);
    ek_status fits = ek_dataset_check(dataset, a->net);
    if (fits != EK_OK) return ek_fail_in(fits, "%s: ", what);
    out->dataset = dataset;
    out->count = dataset->count < a->options.samples ? dataset->count : a->options.samples;
    EK_TRY(EK_NEW(out->index, (size_t)dataset->count));
    for (int64_t i = 0; i < dataset->count; i++) out->index[i] = i;
    EK_TRY(ek_epoch_order(out->index, dataset->count, 1, 1, true));
    return EK_OK;
}

static ek_status take_data(ek_audit *a)
{
    const ek_audit_options *o = &a->options;
    if (!o->data) return EK_OK;
    a->apart = o->train != NULL;
    EK_TRY(take_set(a, o->data, "the data", &a->data));
    EK_TRY(take_set(a, o->train ? o->train : o->data, "the training data", &a->reference));
    a->measured = (ek_audit_measured){
        .count = a->data.count, .reference_count = a->reference.count, .adapted = {NAN, NAN}};
    int sweeps_of_reference = 2 + a->norms.depths, sweeps_of_data = a->norms.count + 1 + (a->apart ? 2 : 0);
    a->work =
        (ek_work){o->progress, o->user, 0,
                  (double)a->reference.count * sweeps_of_reference + (double)a->data.count * sweeps_of_data};
    return EK_OK;
}

/* Numbers that are no numbers: the weights can only be had from elsewhere. */
static ek_status add_not_finite(ek_audit *a, char *evidence)
{
    return ek_audit_add(
        a, EK_SEVERITY_ERROR, "activations-not-finite", -1, NULL, 0,
        ek_strf("the net's own values are not finite on this data"), evidence,
        ek_strf("take an earlier checkpoint, or train again with a smaller --lr or with --clip 1"));
}

static ek_status measure(ek_audit *a)
{
    if (!a->options.data || a->norms.count == 0 || ek_audit_found(a, "weights-not-finite", -1)) return EK_OK;
    ek_status status = ek_audit_measure(a);
    if (status == EK_E_NUMERIC) return add_not_finite(a, ek_strf("%s", ek_error()));
    EK_TRY(status);
    a->has_measures = true;
    /* Behind the last normalization nothing else looks. */
    if (a->options.data->label && !isfinite(a->measured.mended.loss))
        EK_TRY(add_not_finite(a, ek_strf("the loss is not finite, not with measured statistics either")));
    return ek_audit_causes(a);
}

/* --- the handle */

static ek_status check(ek_context *context, const char *path, const ek_audit_options *o, ek_audit **out)
{
    if (!context || !path || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_audit_create needs a context, a path and a place for the audit");
    if (o->batch < 2) return ek_fail(EK_E_ARGUMENT, "batch must be 2 or more, not %lld", (long long)o->batch);
    if (o->samples < 2)
        return ek_fail(EK_E_ARGUMENT, "samples must be 2 or more, not %lld", (long long)o->samples);
    if (o->train && !o->data)
        return ek_fail(EK_E_ARGUMENT, "training data alone is no data to audit the model with");
    return EK_OK;
}

ek_status ek_audit_create(ek_context *context, const char *path, const ek_audit_options *options,
                          ek_audit **out)
{
    ek_audit_options o = options ? *options : ek_audit_options_default();
    EK_TRY(check(context, path, &o, out));
    ek_safetensors file = {0}; /* of an ONNX model there is none, and the net alone is examined */
    ek_audit *a = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(a, 1));
    a->options = o;
    EK_GO(make_names(a, path));
    EK_GO(ek_model_is_onnx(path, &a->onnx));
    if (a->onnx) {
        EK_GO(ek_net_open_sick(context, path, &a->net));
    } else {
        EK_GO(ek_safetensors_read(path, &file));
        EK_GO(ek_model_net(context, &file, path, &a->net));
        EK_GO(ek_model_take(a->net, &file, path, true));
    }
    a->recalibrated = ek_net_metadata(a->net, EK_RECALIBRATED_KEY) != NULL;
    EK_GO(take_norms(a));
    EK_GO(take_data(a));
    EK_GO(ek_audit_model(a, &file));
    EK_GO(measure(a));
    sort_findings(a);
done:
    ek_safetensors_free(&file);
    if (status == EK_OK)
        *out = a;
    else
        ek_audit_destroy(a);
    return status;
}

static void free_norm(ek_norm_case *n)
{
    ek_free(n->mean);
    ek_free(n->var);
    ek_norm_stats_free(&n->inference);
    ek_norm_stats_free(&n->training);
    ek_norm_stats_free(&n->mended);
    ek_norm_stats_free(&n->data);
    ek_free(n->mended_mean);
    ek_free(n->mended_var);
}

void ek_audit_destroy(ek_audit *a)
{
    if (!a) return;
    for (int i = 0; i < a->finding_count; i++) {
        ek_free((char *)a->finding[i].text);
        ek_free((char *)a->finding[i].evidence);
        ek_free((char *)a->finding[i].mend);
        ek_free((int *)a->finding[i].channels);
    }
    ek_free(a->finding);
    for (int i = 0; a->norm && i < a->norms.count; i++) free_norm(&a->norm[i]);
    ek_free(a->norm);
    ek_free(a->layer);
    ek_norm_list_free(&a->norms);
    ek_norm_stats_free(&a->input);
    ek_norm_stats_free(&a->data_input);
    ek_free(a->data.index);
    ek_free(a->reference.index);
    ek_free(a->model_name);
    ek_free(a->data_name);
    ek_free(a->train_name);
    ek_net_destroy(a->net);
    ek_free(a);
}

int ek_audit_finding_count(const ek_audit *a) { return a->finding_count; }
int ek_audit_layer_count(const ek_audit *a) { return a->norms.count; }

const ek_finding *ek_audit_finding(const ek_audit *a, int index)
{
    return index >= 0 && index < a->finding_count ? &a->finding[index] : NULL;
}

const ek_audit_layer *ek_audit_layer_at(const ek_audit *a, int index)
{
    return index >= 0 && index < a->norms.count ? &a->layer[index] : NULL;
}

const ek_audit_measured *ek_audit_measures(const ek_audit *a)
{
    return a->has_measures ? &a->measured : NULL;
}
