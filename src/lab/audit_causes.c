/* What was measured, judged: is there a gap, which layers make it, and why. docs/audit.md says the rules in words. */
#include "lab/audit.h"

#include "core/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A momentum up to here averages so long that weights move on meanwhile, if it reaches back over more than this part
 * of the batches; one from here on averages next to nothing. */
static const double SLOW = 0.05, LONG_REACH = 1.0 / 30, FAST = 0.3;
/* A distance that makes a cause worth naming without a gap: 0.15 of a deviation. */
static const double PLAIN = 0.15;
/* Another way of measuring explains the running statistics where the squared distances fall to this part. */
static const double EXPLAINED = 0.5, BATCH_EXPLAINED = 0.9;
/* Statistics this far away are of something else altogether. */
static const double FOREIGN = 0.5;
/* Shifts of the data that are named whatever they do. */
static const double SHIFTED = 0.25;

static double squared(ek_audit_distance d) { return d.mean * d.mean + d.var * d.var; }
static double length_of(ek_audit_distance d) { return sqrt(squared(d)); }

/* --- how bad it is */

/* From what is to what could be; noise: the standard error of the difference of accuracies. */
static ek_severity severity_of(ek_audit_run is, ek_audit_run could, double noise)
{
    double gain = could.accuracy - is.accuracy, loss = is.loss - could.loss;
    if (isfinite(could.loss) && !isfinite(is.loss) && !isnan(is.accuracy)) return EK_SEVERITY_ERROR;
    bool sure = gain > 3 * noise;
    if ((sure && gain >= 0.05) || loss >= 0.5) return EK_SEVERITY_ERROR;
    if ((sure && gain >= 0.02) || loss >= fmax(0.1, 0.25 * could.loss)) return EK_SEVERITY_WARNING;
    return EK_SEVERITY_NOTE;
}

/* NOTE: none to speak of. */
static ek_severity gap_of(const ek_audit *a)
{
    const ek_audit_measured *m = &a->measured;
    if (isnan(m->mended.accuracy)) /* no labels: by what the net decides */
        return m->decided_otherwise >= 0.2    ? EK_SEVERITY_ERROR
               : m->decided_otherwise >= 0.05 ? EK_SEVERITY_WARNING
                                              : EK_SEVERITY_NOTE;
    return severity_of(m->as_is, m->mended, sqrt(m->decided_otherwise / (double)m->count));
}

static ek_severity at_least(ek_severity severity, ek_severity least)
{
    return severity > least ? severity : least;
}

static bool is_far(const ek_audit_layer *l)
{
    return l->mended.mean >= EK_AUDIT_FAR || l->mended.var >= EK_AUDIT_FAR;
}

/* --- words */

static void add_distance(ek_text *text, ek_audit_distance d)
{
    ek_text_add(text, "means off by %.2f deviations, variances by a factor of %.3g (rms)", d.mean,
                exp(d.var));
}

/* "REASON; means off by ...; 42 % of the gap": owned by the caller. */
__attribute__((format(printf, 2, 3))) static char *evidence(const ek_audit_layer *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *reason = ek_vstrf(format, args);
    va_end(args);
    if (!reason) return NULL;
    ek_text text = {0};
    add_distance(&text, l->mended);
    ek_text_add(&text, "; %s", reason);
    if (!isnan(l->share)) ek_text_add(&text, "; %.0f %% of the gap", 100 * l->share);
    ek_free(reason);
    return ek_text_take(&text);
}

/* --- causes that a layer's own options and counts tell */

static ek_status not_converged(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    ek_severity severity =
        gap > EK_SEVERITY_NOTE && n->initial >= EK_AUDIT_MOSTLY_INITIAL ? EK_SEVERITY_ERROR : gap;
    return ek_audit_add(
        a, at_least(severity, EK_SEVERITY_WARNING), "not-converged", n->layer, NULL, 0,
        ek_strf("the running statistics have not converged: with this momentum and so few batches the "
                "initial 0 and 1 are still in them"),
        evidence(l, "%lld batches at momentum %g leave (1-momentum)^batches = %.1f %% of the initial 0 and 1",
                 (long long)n->batches, n->options.momentum, 100 * n->initial),
        ek_audit_recalibrate(a, ""));
}

static ek_status momentum_too_small(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l,
                                    ek_severity gap)
{
    double reach = 1 / n->options.momentum;
    return ek_audit_add(a, gap, "momentum-too-small", n->layer, NULL, 0,
                        ek_strf("the momentum is too small for so short a training: the statistics are of "
                                "weights that have moved on since"),
                        evidence(l, "momentum %g averages over the last %.0f of %lld batches",
                                 n->options.momentum, reach, (long long)n->batches),
                        ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; for further "
                                "training write momentum=0.1 in the "
                                "net text, or train longer",
                                a->model_name, ek_audit_training_data(a)));
}

static ek_status momentum_too_large(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l,
                                    ek_severity gap)
{
    double m = n->options.momentum;
    return ek_audit_add(
        a, gap, "momentum-too-large", n->layer, NULL, 0,
        ek_strf("the momentum is too large: the statistics follow the noise of the last batches"),
        evidence(l, "momentum %g averages no more than (2-momentum)/momentum = %.1f batches", m, (2 - m) / m),
        ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; for further training write "
                "momentum=0.1 in the "
                "net text",
                a->model_name, ek_audit_training_data(a)));
}

static ek_status frozen(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    return ek_audit_add(
        a, gap, "frozen-statistics", n->layer, NULL, 0,
        ek_strf("the layer is frozen, and its statistics are not those of the weights before it any more"),
        evidence(l, "frozen=true keeps the running statistics while weights move"),
        ek_audit_recalibrate(a, ""));
}

static ek_status by_options(ek_audit *a, ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    double m = n->options.momentum, reach = 1 / m;
    bool averages = !n->options.cumulative && !n->options.frozen && !a->recalibrated && n->batches > 0;
    n->mentioned = true;
    if (n->initial >= EK_AUDIT_LEAST_INITIAL) return not_converged(a, n, l, gap);
    if (gap > EK_SEVERITY_NOTE) {
        if (n->options.frozen) return frozen(a, n, l, gap);
        if (averages && m <= SLOW && reach >= LONG_REACH * (double)n->batches)
            return momentum_too_small(a, n, l, gap);
        if (averages && m >= FAST) return momentum_too_large(a, n, l, gap);
    }
    n->mentioned = false;
    return EK_OK;
}

/* --- causes that measuring in other ways tells */

static ek_status dropout_shift(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    return ek_audit_add(
        a, gap, "dropout-shift", n->layer, NULL, 0,
        ek_strf("dropout before the normalization widens its input in training, and not in inference: the "
                "running variance is of another net (Li et al. 2019, arXiv:1801.05134)"),
        evidence(l, "with dropout on they fit: the distance falls from %.2f to %.2f", length_of(l->mended),
                 length_of(l->training)),
        ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; and put dropout after the last "
                "batch normalization",
                a->model_name, ek_audit_training_data(a)));
}

static ek_status small_ghosts(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    return ek_audit_add(
        a, gap, "ghost-too-small", n->layer, NULL, 0,
        ek_strf("ghost batches before the normalization are too small: it saw other values in training than "
                "it sees in "
                "inference"),
        evidence(
            l, "in training mode, with ghost batches of %lld, they fit: the distance falls from %.2f to %.2f",
            (long long)n->ghost, length_of(l->mended), length_of(l->training)),
        ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; for further training write a "
                "larger ghost= in "
                "the net text",
                a->model_name, ek_audit_training_data(a)));
}

/* What training does otherwise than inference, dropout and ghost batches, explains what lies behind it. */
static ek_status by_training_mode(ek_audit *a, ek_severity gap)
{
    double mended = 0, training = 0;
    for (int i = 0; i < a->norms.count; i++) {
        if (a->norm[i].mentioned || !(a->norm[i].after_dropout || a->norm[i].ghost)) continue;
        mended += squared(a->layer[i].mended);
        training += squared(a->layer[i].training);
    }
    if (!(mended >= PLAIN * PLAIN && training <= EXPLAINED * mended)) return EK_OK;
    for (int i = 0; i < a->norms.count; i++) {
        ek_norm_case *n = &a->norm[i];
        if (n->mentioned || !(n->after_dropout || n->ghost) || !is_far(&a->layer[i])) continue;
        n->mentioned = true;
        EK_TRY((n->after_dropout ? dropout_shift : small_ghosts)(a, n, &a->layer[i],
                                                                 at_least(gap, EK_SEVERITY_WARNING)));
    }
    return EK_OK;
}

/* Small batches: normalized by their own statistics, values in deeper layers are spread otherwise than in large ones. So
 * the reference is run in training mode at several sizes, and the size whose statistics the running ones are nearest to is
 * about that of the training. */
enum { PROBES = 6, PROBE_SAMPLES = 2048 };
static const int64_t PROBE_BATCH[PROBES] = {2, 4, 8, 16, 32, 64};

typedef struct probe {
    int64_t batch;
    ek_audit_distance *from; /* [norms] */
    double total;            /* of the squares, over layers that nothing else explains */
} probe;

/* What running statistics of batches of this size would be: the averages of the batches' own. */
static ek_status run_probe(ek_audit *a, probe *p)
{
    ek_sweep sweep = ek_audit_sweep(a, &a->reference, EK_MODE_TRAINING);
    ek_status status = EK_OK;
    sweep.batch = p->batch;
    sweep.count = sweep.count < PROBE_SAMPLES ? sweep.count : PROBE_SAMPLES;
    sweep.stats_only = true;
    EK_GO(EK_NEW(p->from, (size_t)a->norms.count));
    EK_GO(EK_NEW(sweep.stats, (size_t)a->norms.count));
    for (int i = 0; i < a->norms.count; i++)
        EK_GO(ek_norm_stats_create(a->net, a->norm[i].layer, &sweep.stats[sweep.stats_count++]));
    EK_GO(ek_sweep_run(&sweep));
    for (int i = 0; i < a->norms.count; i++) {
        ek_norm_stats *s = &sweep.stats[i];
        for (int64_t c = 0; c < s->channels; c++)
            s->all[c] = (ek_moments){1, s->batch_mean[c].mean, s->batch_var[c]};
        p->from[i] = ek_audit_running_distance(&a->norm[i], s->all);
        if (!a->norm[i].mentioned) p->total += squared(p->from[i]);
    }
done:
    for (int i = 0; sweep.stats && i < sweep.stats_count; i++) ek_norm_stats_free(&sweep.stats[i]);
    ek_free(sweep.stats);
    return status;
}

/* Where the whole training had too small a batch, all that is far is explained: by the fit, or by the noise. */
static char *batch_evidence(const ek_audit_layer *l, int64_t best, double near, int64_t large, double far)
{
    if (near < far)
        return evidence(
            l, "they fit training mode at batches of about %lld (distance %.2f) better than at %lld (%.2f)",
            (long long)best, near, (long long)large, far);
    return evidence(l, "the noise of batches of about %lld, which the other layers tell", (long long)best);
}

static ek_status small_batch(ek_audit *a, ek_severity gap, const probe *best, const probe *large)
{
    for (int i = 0; i < a->norms.count; i++) {
        ek_norm_case *n = &a->norm[i];
        if (n->mentioned || !is_far(&a->layer[i])) continue;
        n->mentioned = true;
        EK_TRY(ek_audit_add(
            a, at_least(gap, EK_SEVERITY_WARNING), "batch-too-small", n->layer, NULL, 0,
            ek_strf("the training batch was too small: statistics of so few samples are noise, and deeper "
                    "layers saw other values than they see in inference"),
            batch_evidence(&a->layer[i], best->batch, length_of(best->from[i]), large->batch,
                           length_of(large->from[i])),
            ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; or train again with --batch "
                    "32 or more, or with frozen=true",
                    a->model_name, ek_audit_training_data(a))));
    }
    return EK_OK;
}

static ek_status by_batch(ek_audit *a, ek_severity gap)
{
    probe probes[PROBES] = {{0}};
    ek_status status = EK_OK;
    int best = 0;
    bool plain = false;
    for (int i = 0; i < a->norms.count; i++)
        plain = plain || (!a->norm[i].mentioned && length_of(a->layer[i].mended) >= PLAIN);
    if (!plain || a->reference.count < 4 * PROBE_BATCH[PROBES - 1]) return EK_OK;
    for (int k = 0; k < PROBES; k++) {
        probes[k].batch = PROBE_BATCH[k];
        EK_GO(run_probe(a, &probes[k]));
        if (probes[k].total < probes[best].total) best = k;
    }
    const probe *large = &probes[PROBES - 1];
    int64_t most = gap > EK_SEVERITY_NOTE ? 8 : 4;
    if (PROBE_BATCH[best] <= most && probes[best].total <= BATCH_EXPLAINED * large->total)
        status = small_batch(a, gap, &probes[best], large);
done:
    for (int k = 0; k < PROBES; k++) ek_free(probes[k].from);
    return status;
}

/* --- what is left */

/* The factor that all the layer's deviations share, as inputs on another scale give; 0: they share none. */
static double common_factor(const ek_norm_case *n)
{
    double mean = 0, squares = 0;
    for (int64_t c = 0; c < n->channels; c++) {
        if (n->mended_var[c] < n->options.eps) return 0;
    }
    for (int64_t c = 0; c < n->channels; c++) mean += log(n->var[c] / n->mended_var[c]) / (double)n->channels;
    for (int64_t c = 0; c < n->channels; c++) {
        double off = log(n->var[c] / n->mended_var[c]) - mean;
        squares += off * off / (double)n->channels;
    }
    return fabs(mean) > 1 && squares < 0.04 * mean * mean ? exp(mean / 2) : 0;
}

static ek_status foreign(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    double factor = n->depth == 0 ? common_factor(n) : 0;
    char *more =
        factor > 0
            ? evidence(l, "all its deviations are about %.3g times the data's: inputs on another scale",
                       factor)
            : evidence(l, "neither counts, momentum, dropout nor batch size explain so much");
    return ek_audit_add(a, gap, "foreign-statistics", n->layer, NULL, 0,
                        a->apart
                            ? ek_strf("the running statistics are not of these weights and this training "
                                      "data: of another model, of weights "
                                      "before they were changed, or of inputs that were prepared otherwise")
                            : ek_strf("the running statistics are not of these weights and this data: of "
                                      "another model, of inputs prepared "
                                      "otherwise, or of training data unlike this (--train DATA tells)"),
                        more, ek_audit_recalibrate(a, ""));
}

static ek_status trailing(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    char momentum[EK_REAL_TEXT];
    return ek_audit_add(a, gap, "trailing-statistics", n->layer, NULL, 0,
                        ek_strf("the running statistics trail behind the weights, which were still moving "
                                "fast, or are of somewhat other data"),
                        evidence(l, "%lld batches at momentum %s; no other cause explains the distance",
                                 (long long)n->batches,
                                 ek_real_text(n->options.cumulative ? NAN : n->options.momentum, momentum)),
                        ek_strf("evenkeel recalibrate %s --data %s --out mended.safetensors; or let the "
                                "learning rate fall: train with "
                                "--schedule cosine",
                                a->model_name, ek_audit_training_data(a)));
}

/* Where an eps or a gain changes what a layer gives, those below read other values than in training: a consequence. */
static int first_changed_depth(const ek_audit *a)
{
    int depth = a->norms.depths;
    for (int i = 0; i < a->norms.count; i++) {
        bool changed = ek_audit_found(a, "eps-does-not-fit", a->norm[i].layer) ||
                       ek_audit_found(a, "gain-outlier", a->norm[i].layer);
        if (changed && a->norm[i].depth < depth) depth = a->norm[i].depth;
    }
    return depth;
}

static ek_status unexplained(ek_audit *a, ek_severity gap)
{
    int changed = first_changed_depth(a);
    double most = 0;
    if (gap == EK_SEVERITY_NOTE) return EK_OK;
    for (int i = 0; i < a->norms.count; i++) {
        if (!a->norm[i].mentioned) most = fmax(most, length_of(a->layer[i].mended));
    }
    for (int rank = 1; rank <= a->norms.count; rank++) {
        for (int i = 0; i < a->norms.count; i++) {
            const ek_audit_layer *l = &a->layer[i];
            if (l->rank != rank || a->norm[i].mentioned || !is_far(l) || a->norm[i].depth > changed) continue;
            EK_TRY((most >= FOREIGN ? foreign : trailing)(a, &a->norm[i], l, gap));
        }
    }
    return EK_OK;
}

/* --- data unlike the training data */

typedef struct channel_shift {
    int channel;
    double z, ratio;
} channel_shift;

static int by_shift(const void *a, const void *b)
{
    double x = fabs(((const channel_shift *)a)->z), y = fabs(((const channel_shift *)b)->z);
    return (x < y) - (x > y);
}

/* "input deviation 0.35, here 0.18, ...; channel 3 by 2.1 deviations, ..." */
static void describe_shift(ek_text *text, const ek_audit *a, const ek_norm_case *n,
                           const channel_shift *shift)
{
    enum { SHOWN = 4 };
    for (int64_t c = 0; c < a->input.channels && c < SHOWN && a->net->graph.node[0].out.rank > 1; c++) {
        ek_moments t = a->input.all[c], d = a->data_input.all[c];
        ek_text_add(text, "input channel %d: mean %.3g, in training %.3g; deviation %.3g, in training %.3g. ",
                    (int)c, d.mean, t.mean, sqrt(d.m2 / d.count), sqrt(t.m2 / t.count));
    }
    for (int i = 0; i < n->channels && i < SHOWN; i++)
        ek_text_add(text, "%s%d by %+.2f deviations and x%.2f in deviation", i ? ", " : "most in channel ",
                    shift[i].channel, shift[i].z, sqrt(shift[i].ratio));
}

static ek_status add_shift(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity severity)
{
    ek_text text = {0};
    channel_shift *shift = NULL;
    int *channels = NULL, count = 0;
    const ek_audit_measured *m = &a->measured;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(shift, (size_t)n->channels));
    EK_GO(EK_NEW(channels, (size_t)n->channels));
    for (int64_t c = 0; c < n->channels; c++) {
        ek_moments t = n->mended.all[c], d = n->data.all[c];
        double vt = t.m2 / t.count + n->options.eps, vd = d.m2 / d.count + n->options.eps;
        shift[c] = (channel_shift){(int)c, (d.mean - t.mean) / sqrt(vt), vd / vt};
    }
    qsort(shift, (size_t)n->channels, sizeof *shift, by_shift);
    for (int64_t c = 0; c < n->channels; c++) {
        if (fabs(shift[c].z) >= EK_AUDIT_FAR) channels[count++] = shift[c].channel;
    }
    ek_text_add(&text, "what it reads differs from the training data: ");
    add_distance(&text, l->shift);
    ek_text_add(&text, "; ");
    describe_shift(&text, a, n, shift);
    if (!isnan(m->adapted.accuracy))
        ek_text_add(&text, "; accuracy %.4f with the training data's statistics, %.4f with the data's own",
                    m->mended.accuracy, m->adapted.accuracy);
    status = ek_audit_add(a, severity, "domain-shift", n->layer, channels, count,
                          ek_strf("the data is unlike the training data: the statistics fit what was trained "
                                  "on, and not what comes in"),
                          ek_text_take(&text),
                          ek_strf("make the inputs alike (scale, mean=, std= of the net's input line), or "
                                  "fit the statistics: evenkeel "
                                  "recalibrate %s --data %s --split any --out mended.safetensors",
                                  a->model_name, a->data_name));
done:
    ek_free(shift);
    ek_free(channels);
    return status;
}

/* Named at the first normalizations, where it comes in; where it only shows later, at the layer where it shows most. */
static ek_status by_shift_of_data(ek_audit *a)
{
    const ek_audit_measured *m = &a->measured;
    if (!a->apart || (isnan(m->adapted.loss) && isnan(m->adapted.accuracy))) return EK_OK;
    int most = 0;
    bool first = false;
    for (int i = 0; i < a->norms.count; i++) {
        if (length_of(a->layer[i].shift) > length_of(a->layer[most].shift)) most = i;
        first = first || (a->norm[i].depth == 0 && length_of(a->layer[i].shift) >= EK_AUDIT_FAR);
    }
    double p = m->mended.accuracy;
    ek_severity severity = severity_of(m->mended, m->adapted, sqrt(p * (1 - p) / (double)m->count));
    if (length_of(a->layer[most].shift) >= SHIFTED) severity = at_least(severity, EK_SEVERITY_WARNING);
    for (int i = 0; severity > EK_SEVERITY_NOTE && i < a->norms.count; i++) {
        bool named =
            first ? a->norm[i].depth == 0 && length_of(a->layer[i].shift) >= EK_AUDIT_FAR : i == most;
        if (named) EK_TRY(add_shift(a, &a->norm[i], &a->layer[i], severity));
    }
    return EK_OK;
}

/* --- all of it */

/* What the model alone has told already; it is as bad as its effect. */
static bool is_explained(ek_audit *a, const ek_norm_case *n, const ek_audit_layer *l, ek_severity gap)
{
    bool told = false;
    for (int i = 0; i < a->finding_count; i++) {
        ek_finding *f = &a->finding[i];
        bool tells = !strncmp(f->code, "momentum-", strlen("momentum-")) || !strcmp(f->code, "gain-outlier");
        if (f->layer != n->layer || !tells) continue;
        told = true;
        if (is_far(l)) f->severity = at_least(f->severity, gap);
    }
    return !n->sound || n->untouched || told;
}

ek_status ek_audit_causes(ek_audit *a)
{
    ek_severity gap = gap_of(a);
    bool left = false;
    for (int i = 0; i < a->norms.count; i++)
        a->norm[i].mentioned = is_explained(a, &a->norm[i], &a->layer[i], gap);
    for (int rank = 1; rank <= a->norms.count; rank++) {
        for (int i = 0; i < a->norms.count; i++) {
            if (a->layer[i].rank == rank && !a->norm[i].mentioned && is_far(&a->layer[i]))
                EK_TRY(by_options(a, &a->norm[i], &a->layer[i], gap));
        }
    }
    EK_TRY(by_training_mode(a, gap));
    for (int i = 0; i < a->norms.count; i++) left = left || (!a->norm[i].mentioned && is_far(&a->layer[i]));
    if (left && first_changed_depth(a) == a->norms.depths) EK_TRY(by_batch(a, gap));
    EK_TRY(unexplained(a, gap));
    return by_shift_of_data(a);
}
