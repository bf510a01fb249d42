/* What an audit measures: every normalization's input over the reference, in inference and in training mode, and the
 * net's answers on the data while the running statistics are exchanged for the reference's, one layer after the other. */
#include "core/memory.h"
#include "lab/audit.h"

#include <math.h>
#include <string.h>

static ek_audit_run run_of(const ek_sweep *s)
{
    return (ek_audit_run){s->loss, s->correct < 0 ? NAN : (double)s->correct / (double)s->count};
}

ek_sweep ek_audit_sweep(ek_audit *a, const ek_audit_set *set, ek_mode mode)
{
    return (ek_sweep){.net = a->net,
                      .dataset = set->dataset,
                      .index = set->index,
                      .count = set->count,
                      .batch = a->options.batch,
                      .mode = mode,
                      .work = &a->work};
}

/* --- distances */

/* In the data's deviations; in a channel that hardly has one, in what inference divides by, and without its ratio, which
 * has nothing to scale. */
static void add_channel(ek_audit_distance *d, const ek_norm_case *n, ek_moments from, double mean, double var)
{
    double eps = n->options.eps, v = from.m2 / from.count;
    double unit = v >= eps ? v : fmax(v, var);
    double z = (mean - from.mean) / sqrt(unit + eps), ratio = log((var + eps) / (v + eps)) * v / (v + eps);
    d->mean += z * z / (double)n->channels;
    d->var += ratio * ratio / (double)n->channels;
}

static ek_audit_distance root(ek_audit_distance d) { return (ek_audit_distance){sqrt(d.mean), sqrt(d.var)}; }

ek_audit_distance ek_audit_running_distance(const ek_norm_case *n, const ek_moments *from)
{
    ek_audit_distance d = {0, 0};
    for (int64_t c = 0; c < n->channels; c++) add_channel(&d, n, from[c], n->mean[c], n->var[c]);
    return root(d);
}

static ek_audit_distance shift_of(const ek_norm_case *n)
{
    ek_audit_distance d = {0, 0};
    for (int64_t c = 0; c < n->channels; c++) {
        ek_moments to = n->data.all[c];
        add_channel(&d, n, n->mended.all[c], to.mean, to.m2 / to.count);
    }
    return root(d);
}

/* --- sweeps over all normalizations; stats[i] belong to norm i, and where there is one more, to the input */

static ek_status sweep_all(ek_audit *a, ek_sweep *sweep, ek_norm_stats *(*stats_of)(ek_norm_case *),
                           ek_norm_stats *input)
{
    ek_status status = EK_OK;
    EK_GO(EK_NEW(sweep->stats, (size_t)a->norms.count + 1));
    for (int i = 0; i < a->norms.count; i++) {
        ek_norm_stats *s = stats_of(&a->norm[i]);
        EK_GO(ek_norm_stats_create(a->net, a->norm[i].layer, s));
        sweep->stats[sweep->stats_count++] = *s; /* the arrays are lent */
    }
    if (input) {
        EK_GO(ek_norm_stats_create(a->net, 0, input));
        sweep->stats[sweep->stats_count++] = *input;
    }
    status = ek_sweep_run(sweep);
done:
    ek_free(sweep->stats);
    sweep->stats = NULL;
    sweep->stats_count = 0;
    return status;
}

static ek_norm_stats *inference_of(ek_norm_case *n) { return &n->inference; }
static ek_norm_stats *training_of(ek_norm_case *n) { return &n->training; }
static ek_norm_stats *data_of(ek_norm_case *n) { return &n->data; }

/* As the model stands, in both modes. `logits` receives its answers. */
static ek_status measure_as_is(ek_audit *a, float *logits)
{
    ek_sweep inference = ek_audit_sweep(a, &a->reference, EK_MODE_INFERENCE);
    ek_sweep training = ek_audit_sweep(a, &a->reference, EK_MODE_TRAINING);
    if (!a->apart) inference.logits = logits;
    EK_TRY(sweep_all(a, &inference, inference_of, &a->input));
    EK_TRY(sweep_all(a, &training, training_of, NULL));
    if (a->apart) {
        inference = ek_audit_sweep(a, &a->data, EK_MODE_INFERENCE);
        training = ek_audit_sweep(a, &a->data, EK_MODE_TRAINING);
        inference.logits = logits;
        EK_TRY(ek_sweep_run(&inference));
        EK_TRY(ek_sweep_run(&training));
    }
    a->measured.as_is = run_of(&inference);
    a->measured.training_mode = run_of(&training);
    for (int i = 0; i < a->norms.count; i++) {
        ek_norm_case *n = &a->norm[i];
        a->layer[i].inference = ek_audit_running_distance(n, n->inference.all);
        a->layer[i].training = ek_audit_running_distance(n, n->training.all);
    }
    return EK_OK;
}

/* --- the swap */

static void put_statistics(const ek_audit *a, const ek_norm_case *n, bool mended)
{
    ek_running r = ek_net_running(a->net, n->layer);
    for (int64_t c = 0; c < n->channels; c++) {
        r.mean[c] = mended ? (float)n->mended_mean[c] : n->mean[c];
        r.var[c] = mended ? (float)n->mended_var[c] : n->var[c];
    }
}

static ek_status take_mended(ek_audit *a, ek_norm_case *n, ek_audit_layer *shown)
{
    EK_TRY(ek_norm_stats_check(a->net, &n->mended));
    EK_TRY(EK_NEW(n->mended_mean, (size_t)n->channels));
    EK_TRY(EK_NEW(n->mended_var, (size_t)n->channels));
    for (int64_t c = 0; c < n->channels; c++) {
        n->mended_mean[c] = n->mended.all[c].mean;
        n->mended_var[c] = ek_norm_stats_var(a->net, &n->mended, c);
    }
    shown->mean = n->mended_mean;
    shown->var = n->mended_var;
    shown->mended = ek_audit_running_distance(n, n->mended.all);
    return EK_OK;
}

/* What the normalizations of a depth read when all before them are mended. */
static ek_status measure_depth(ek_audit *a, int depth)
{
    ek_sweep sweep = ek_audit_sweep(a, &a->reference, EK_MODE_INFERENCE);
    ek_status status = EK_OK;
    sweep.stats_only = true;
    EK_GO(EK_NEW(sweep.stats, (size_t)a->norms.count));
    for (int i = 0; i < a->norms.count; i++) {
        if (a->norm[i].depth != depth) continue;
        EK_GO(ek_norm_stats_create(a->net, a->norm[i].layer, &a->norm[i].mended));
        sweep.stats[sweep.stats_count++] = a->norm[i].mended;
    }
    EK_GO(ek_sweep_run(&sweep));
    for (int i = 0; i < a->norms.count; i++) {
        if (a->norm[i].depth == depth) EK_GO(take_mended(a, &a->norm[i], &a->layer[i]));
    }
done:
    ek_free(sweep.stats);
    return status;
}

static ek_status swap_depth(ek_audit *a, int depth, float *logits)
{
    EK_TRY(measure_depth(a, depth));
    for (int i = 0; i < a->norms.count; i++) {
        if (a->norm[i].depth != depth) continue;
        put_statistics(a, &a->norm[i], true);
        ek_sweep sweep = ek_audit_sweep(a, &a->data, EK_MODE_INFERENCE);
        sweep.logits = logits;
        EK_TRY(ek_sweep_run(&sweep));
        a->layer[i].swapped = run_of(&sweep);
        a->layer[i].output_change = sweep.change;
    }
    return EK_OK;
}

/* The mended net against the model as it is, whose answers are `logits`. */
static ek_status measure_mended(ek_audit *a, float *logits)
{
    ek_sweep sweep = ek_audit_sweep(a, &a->data, EK_MODE_INFERENCE);
    sweep.logits = logits;
    if (a->apart)
        EK_TRY(sweep_all(a, &sweep, data_of, &a->data_input));
    else
        EK_TRY(ek_sweep_run(&sweep));
    a->measured.mended = run_of(&sweep);
    a->measured.output_change = sweep.change;
    a->measured.decided_otherwise = (double)sweep.decided / (double)sweep.count;
    for (int i = 0; a->apart && i < a->norms.count; i++) a->layer[i].shift = shift_of(&a->norm[i]);
    return EK_OK;
}

/* With the data's own statistics in every layer. */
static ek_status measure_adapted(ek_audit *a)
{
    ek_sweep sweep = ek_audit_sweep(a, &a->data, EK_MODE_INFERENCE);
    sweep.stats_only = true;
    for (int depth = 0; depth < a->norms.depths; depth++) EK_TRY(ek_mend_depth(&sweep, &a->norms, depth, 1));
    sweep.stats_only = false;
    EK_TRY(ek_sweep_run(&sweep));
    a->measured.adapted = run_of(&sweep);
    return EK_OK;
}

static bool shifted(const ek_audit *a)
{
    for (int i = 0; a->apart && i < a->norms.count; i++) {
        if (a->layer[i].shift.mean > EK_AUDIT_FAR || a->layer[i].shift.var > EK_AUDIT_FAR) return true;
    }
    return false;
}

/* --- shares of the gap */

/* How bad a run is, on a scale that all of them have: loss, else errors, else NaN. */
static double badness(const ek_audit *a, ek_audit_run run)
{
    bool losses = isfinite(a->measured.as_is.loss) && isfinite(a->measured.mended.loss);
    for (int i = 0; i < a->norms.count; i++) losses = losses && isfinite(a->layer[i].swapped.loss);
    return losses ? run.loss : -run.accuracy;
}

static void set_shares(ek_audit *a)
{
    static const double LEAST = 0.005; /* of loss or accuracy: below it there is no gap to share */
    double before = badness(a, a->measured.as_is), gap = before - badness(a, a->measured.mended), changes = 0;
    for (int i = 0; i < a->norms.count; i++) changes += a->layer[i].output_change;
    for (int k = 0; k < a->norms.depths; k++) {
        for (int i = 0; i < a->norms.count; i++) { /* in the order of the swaps */
            if (a->norm[i].depth != k) continue;
            ek_audit_layer *l = &a->layer[i];
            double now = badness(a, l->swapped);
            if (isnan(gap))
                l->share = changes > 0 ? l->output_change / changes : NAN;
            else
                l->share = fabs(gap) > LEAST ? (before - now) / gap : NAN;
            before = now;
        }
    }
}

static bool adds_more(const ek_audit_layer *a, const ek_audit_layer *b)
{
    if (!isnan(a->share) && !isnan(b->share) && a->share != b->share) return a->share > b->share;
    return a->output_change > b->output_change;
}

static void set_ranks(ek_audit *a)
{
    for (int i = 0; i < a->norms.count; i++) {
        a->layer[i].rank = 1;
        for (int k = 0; k < a->norms.count; k++) {
            bool above = adds_more(&a->layer[k], &a->layer[i]);
            bool equal = !above && !adds_more(&a->layer[i], &a->layer[k]);
            if (k != i && (above || (equal && k < i))) a->layer[i].rank++;
        }
    }
}

ek_status ek_audit_measure(ek_audit *a)
{
    size_t numbers = (size_t)(a->data.count * ek_shape_count(ek_net_output_shape(a->net)));
    float *first = NULL, *logits = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(first, numbers));
    EK_GO(EK_NEW(logits, numbers));
    EK_GO(measure_as_is(a, first));
    memcpy(logits, first, numbers * sizeof *logits);
    for (int depth = 0; depth < a->norms.depths; depth++) EK_GO(swap_depth(a, depth, logits));
    EK_GO(measure_mended(a, first));
    set_shares(a);
    set_ranks(a);
    if (shifted(a)) EK_GO(measure_adapted(a));
done:
    for (int i = 0; i < a->norms.count; i++) put_statistics(a, &a->norm[i], false);
    ek_free(first);
    ek_free(logits);
    return status;
}
