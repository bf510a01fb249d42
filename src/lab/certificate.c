#include "lab/certificate.h"

#include "core/memory.h"
#include "core/random.h"
#include "graph/builder.h"

#include <math.h>
#include <string.h>

enum {
    BATCH = 32,
    LAYER_SAMPLES = 16, /* of each run on which the layers are compared, too: all their values are kept */
    DOUBLE_SAMPLES = 4,
};
/* Multiply-adds that the reference takes a second or so for. */
#define DOUBLE_WORK 1e9

/* What one run needs. */
typedef struct run {
    ek_fold *fold;
    ek_net *net, *folded; /* the two */
    const ek_fold_options *options;
    ek_fold_run *of; /* what is found */
    double scale;    /* the largest number of the net's output */
    ek_random random;
    float *x;          /* [BATCH, input] */
    int32_t *length;   /* [BATCH] */
    double *a, *b;     /* a layer's values in the two nets */
    double *done, all; /* samples */
} run;

/* --- inputs */

static bool is(const run *r, const char *input) { return !strcmp(r->of->input, input); }

static int64_t data_index(const run *r, int64_t sample)
{
    return sample * r->options->data->count / r->of->samples;
}

/* Samples [first, first + n); *lengths NULL: they have none. */
static ek_status draw(run *r, int64_t first, int64_t n, const int32_t **lengths)
{
    ek_shape shape = ek_net_input_shape(r->net);
    int64_t each = ek_shape_count(shape);
    *lengths = NULL;
    if (is(r, "data")) {
        const ek_dataset *data = r->options->data;
        for (int64_t i = 0; i < n; i++) {
            EK_TRY(ek_dataset_item(data, data_index(r, first + i), r->x + i * each, NULL));
            if (data->length) r->length[i] = data->length[data_index(r, first + i)];
        }
        if (data->length) *lengths = r->length;
        return EK_OK;
    }
    bool uniform = is(r, "uniform") || is(r, "double");
    for (int64_t i = 0; i < n * each; i++)
        r->x[i] = (float)(uniform ? ek_random_uniform(&r->random) : ek_random_normal(&r->random));
    if (!is(r, "lengths")) return EK_OK;
    for (int64_t i = 0; i < n; i++)
        r->length[i] = 1 + (int32_t)ek_random_below(&r->random, (uint64_t)shape.dim[1]);
    *lengths = r->length;
    return EK_OK;
}

/* --- comparing */

static ek_status run_net(ek_net *net, int64_t n, const float *x, const int32_t *lengths)
{
    EK_TRY(ek_net_use_lengths(net, lengths));
    EK_TRY(ek_net_prepare(net, n, false));
    ek_net_set_input(net, n, x);
    if (lengths) ek_net_set_lengths(net, n, lengths);
    return ek_net_run_alone(net, n, EK_MODE_INFERENCE);
}

/* A number that is finite in one net alone is infinitely far away. */
static double distance(double value, double folded)
{
    double off = fabs(folded - value);
    return isfinite(off) ? off : INFINITY;
}

static ek_status compare_outputs(run *r, int64_t first, int64_t n)
{
    int64_t outputs = ek_shape_count(ek_net_output_shape(r->net));
    ek_net_value(r->net, r->net->graph.count - 1, n, r->a);
    ek_net_value(r->folded, r->folded->graph.count - 1, n, r->b);
    for (int64_t i = 0; i < n * outputs; i++) {
        int64_t sample = first + i / outputs;
        if (!isfinite(r->a[i]))
            return ek_fail(
                EK_E_NUMERIC,
                "the net itself, before any folding, gives %g for sample %lld of the %s input: examine it "
                "with audit",
                r->a[i], (long long)sample, r->of->input);
        double off = distance(r->a[i], r->b[i]);
        r->scale = fmax(r->scale, fabs(r->a[i]));
        if (off < r->of->difference || (off == r->of->difference && r->of->sample >= 0)) continue;
        r->of->difference = off;
        r->of->sample = is(r, "data") ? data_index(r, sample) : sample;
        r->of->output = i % outputs;
        r->of->value = r->a[i];
        r->of->folded = r->b[i];
    }
    return EK_OK;
}

/* The layer of the folded net that has a layer's value of the net; -1: none. */
static int layer_with(const ek_fold *fold, int value)
{
    for (int i = 0; i < fold->net->graph.count; i++) {
        if (fold->list.same[i] == value) return i;
    }
    return -1;
}

/* The layer of the folded net whose value shows what came of an entry: that behind the normalization itself, or behind the
 * layer after it; or behind the last normalization that went into the same layer. */
static int layer_behind(const ek_fold *fold, const ek_folded *layer)
{
    bool after = layer->how == EK_FOLD_AFTER || layer->how == EK_FOLD_AFTER_MAP;
    if (layer->how == EK_FOLD_KEPT) return -1;
    int behind = layer_with(fold, after ? layer->into : layer->layer);
    for (int i = fold->list.count - 1; behind < 0 && i >= 0; i--) {
        const ek_fold_entry *other = &fold->list.entry[i];
        if (other->how == EK_FOLD_BEFORE && other->into == layer->into)
            behind = layer_with(fold, other->layer);
    }
    return behind;
}

static void compare_layer(run *r, ek_folded *layer, int64_t n)
{
    int behind = layer_behind(r->fold, layer);
    if (behind < 0) return;
    int64_t count = n * ek_shape_count(r->folded->graph.node[behind].out);
    double most = 0, scale = 0;
    ek_net_value(r->net, r->fold->list.same[behind], n, r->a);
    ek_net_value(r->folded, behind, n, r->b);
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, distance(r->a[i], r->b[i]));
        scale = fmax(scale, fabs(r->a[i]));
    }
    double error = most > 0 ? most / scale : 0;
    if (!(layer->error >= error)) layer->error = error;
}

/* The batch that was run is run again with all values kept. */
static ek_status compare_layers(run *r, int64_t n, const int32_t *lengths)
{
    if (n > LAYER_SAMPLES) n = LAYER_SAMPLES;
    EK_TRY(ek_net_keep_values(r->net, true));
    EK_TRY(ek_net_keep_values(r->folded, true));
    EK_TRY(run_net(r->net, n, r->x, lengths));
    EK_TRY(run_net(r->folded, n, r->x, lengths));
    for (int i = 0; i < r->fold->list.count; i++) compare_layer(r, &r->fold->layer[i], n);
    return EK_OK;
}

/* --- runs */

static ek_status tell(run *r, int64_t samples)
{
    const ek_fold_options *o = r->options;
    *r->done += (double)samples;
    if (!o->progress || o->progress(o->user, *r->done / r->all)) return EK_OK;
    return ek_fail(EK_E_INTERRUPTED, "stopped on request; nothing was written");
}

static ek_status run_batch(run *r, int64_t first, int64_t n)
{
    const int32_t *lengths;
    EK_TRY(draw(r, first, n, &lengths));
    EK_TRY(run_net(r->net, n, r->x, lengths));
    EK_TRY(run_net(r->folded, n, r->x, lengths));
    EK_TRY(compare_outputs(r, first, n));
    if (first > 0 || is(r, "double")) return tell(r, n);
    ek_status status = compare_layers(r, n, lengths);
    ek_status net_back = ek_net_keep_values(r->net, false),
              folded_back = ek_net_keep_values(r->folded, false);
    EK_TRY(status);
    EK_TRY(net_back);
    EK_TRY(folded_back);
    return tell(r, n);
}

static int64_t largest_value(const ek_net *net)
{
    int64_t largest = 0;
    for (int i = 0; i < net->graph.count; i++) {
        int64_t count = ek_shape_count(net->graph.node[i].out);
        if (count > largest) largest = count;
    }
    return largest;
}

static ek_status run_all(run *r)
{
    int64_t outputs = ek_shape_count(ek_net_output_shape(r->net)),
            values = largest_value(r->net) * LAYER_SAMPLES;
    if (values < outputs * BATCH) values = outputs * BATCH;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(r->x, (size_t)(ek_shape_count(ek_net_input_shape(r->net)) * BATCH)));
    EK_GO(EK_NEW(r->length, BATCH));
    EK_GO(EK_NEW(r->a, (size_t)values));
    EK_GO(EK_NEW(r->b, (size_t)values));
    for (int64_t at = 0; at < r->of->samples; at += BATCH) {
        int64_t left = r->of->samples - at;
        EK_GO(run_batch(r, at, left < BATCH ? left : BATCH));
    }
    r->of->relative = r->of->difference > 0 ? r->of->difference / r->scale : 0;
done:
    ek_free(r->x);
    ek_free(r->length);
    ek_free(r->a);
    ek_free(r->b);
    return status;
}

static double work_of(const ek_net *net)
{
    double work = 1;
    for (int i = 0; i < net->graph.count; i++) work += (double)ek_net_layer(net, i).multiply_adds;
    return work;
}

/* In double, both nets in a context of the reference. */
static ek_status run_double(run *r)
{
    ek_context_options options = {.threads = 1, .isa = "reference"};
    ek_context *context = NULL;
    ek_net *net = NULL, *folded = NULL;
    ek_status status = EK_OK;
    EK_GO(ek_context_create(&options, &context));
    EK_GO(ek_net_copy(r->net, context, &net));
    EK_GO(ek_net_copy(r->folded, context, &folded));
    r->net = net;
    r->folded = folded;
    EK_GO(run_all(r));
done:
    ek_net_destroy(net);
    ek_net_destroy(folded);
    ek_context_destroy(context);
    return status;
}

static void add_run(ek_fold *fold, const char *input, int64_t samples)
{
    fold->run[fold->runs++] = (ek_fold_run){.input = input, .samples = samples, .sample = -1, .output = -1};
}

static void list_runs(ek_fold *fold, const ek_net *net, const ek_fold_options *o)
{
    int64_t in_double = (int64_t)fmin(DOUBLE_SAMPLES, DOUBLE_WORK / work_of(net));
    fold->runs = 0;
    add_run(fold, "uniform", o->samples);
    add_run(fold, "normal", o->samples);
    if (ek_net_input_shape(net).rank == 2) add_run(fold, "lengths", o->samples);
    if (o->data) add_run(fold, "data", o->data->count < o->samples ? o->data->count : o->samples);
    if (in_double > 0 && !net->context->reference) add_run(fold, "double", in_double);
}

ek_status ek_fold_certify(ek_fold *fold, ek_net *net, const ek_fold_options *options)
{
    double done = 0, all = 0;
    fold->bound = options->bound;
    list_runs(fold, net, options);
    for (int i = 0; i < fold->list.count; i++) fold->layer[i].error = NAN;
    for (int i = 0; i < fold->runs; i++) all += (double)fold->run[i].samples;
    for (int i = 0; i < fold->runs; i++) {
        run r = {.fold = fold,
                 .net = net,
                 .folded = fold->net,
                 .options = options,
                 .of = &fold->run[i],
                 .random = ek_random_start(options->seed, EK_STREAM_TEST, (uint32_t)i),
                 .done = &done,
                 .all = all};
        EK_TRY(is(&r, "double") ? run_double(&r) : run_all(&r));
    }
    return EK_OK;
}

/* --- the handle */

ek_fold_options ek_fold_options_default(void)
{
    return (ek_fold_options){.samples = 64, .bound = 1e-4, .seed = 1};
}

static ek_status check(const ek_net *net, const ek_fold_options *o)
{
    if (!net) return ek_fail(EK_E_ARGUMENT, "ek_fold_create needs a net");
    if (o->samples < 1)
        return ek_fail(EK_E_ARGUMENT, "samples must be 1 or more, not %lld", (long long)o->samples);
    if (!(o->bound > 0)) return ek_fail(EK_E_ARGUMENT, "bound must be above 0, not %g", o->bound);
    if (!o->data) return EK_OK;
    if (o->data->count < 1) return ek_fail(EK_E_SHAPE, "the data is empty");
    ek_status status = ek_dataset_check(o->data, net);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "the data: ");
}

/* The list with the texts that outlive the net. */
static ek_status describe(ek_fold *fold, const ek_net *net)
{
    EK_TRY(EK_NEW(fold->layer, (size_t)fold->list.count));
    EK_TRY(EK_NEW(fold->words, 2 * (size_t)fold->list.count * EK_LABEL_MAX));
    for (int i = 0; i < fold->list.count; i++) {
        const ek_fold_entry *entry = &fold->list.entry[i];
        char *label = fold->words + (size_t)(2 * i) * EK_LABEL_MAX, *into = label + EK_LABEL_MAX;
        strcpy(label, net->graph.node[entry->layer].label);
        if (entry->into >= 0) strcpy(into, net->graph.node[entry->into].label);
        fold->layer[i] = (ek_folded){.layer = entry->layer,
                                     .label = label,
                                     .op = net->graph.node[entry->layer].op->name,
                                     .how = entry->how,
                                     .into = entry->into,
                                     .into_label = into,
                                     .reason = entry->reason,
                                     .error = NAN};
    }
    return EK_OK;
}

ek_status ek_fold_create(ek_net *net, const ek_fold_options *options, ek_fold **out)
{
    ek_fold_options o = options ? *options : ek_fold_options_default();
    ek_fold *fold;
    EK_TRY(check(net, &o));
    EK_TRY(EK_NEW(fold, 1));
    ek_status status = EK_OK;
    EK_GO(ek_net_fold_listed(net, &fold->list, &fold->net));
    EK_GO(describe(fold, net));
    EK_GO(ek_fold_certify(fold, net, &o));
done:
    if (status == EK_OK)
        *out = fold;
    else
        ek_fold_destroy(fold);
    return status;
}

void ek_fold_destroy(ek_fold *fold)
{
    if (!fold) return;
    ek_net_destroy(fold->net);
    ek_fold_list_free(&fold->list);
    ek_free(fold->layer);
    ek_free(fold->words);
    ek_free(fold);
}

ek_net *ek_fold_net(const ek_fold *fold) { return fold->net; }

bool ek_fold_holds(const ek_fold *fold)
{
    for (int i = 0; i < fold->runs; i++) {
        if (!(fold->run[i].relative <= fold->bound)) return false;
    }
    return true;
}

int ek_fold_layer_count(const ek_fold *fold) { return fold->list.count; }

const ek_folded *ek_fold_layer(const ek_fold *fold, int index)
{
    return index >= 0 && index < fold->list.count ? &fold->layer[index] : NULL;
}

int ek_fold_run_count(const ek_fold *fold) { return fold->runs; }

const ek_fold_run *ek_fold_run_at(const ek_fold *fold, int index)
{
    return index >= 0 && index < fold->runs ? &fold->run[index] : NULL;
}
