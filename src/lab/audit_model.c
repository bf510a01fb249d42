/* What can be told from a model alone: findings in its tensors, options and counts. docs/audit.md has the codes. */
#include "lab/audit.h"

#include "core/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Momenta from here on are the other convention's: running = momentum*running + (1-momentum)*batch. */
static const double OTHER_MOMENTUM = 0.9;
/* gamma below this part of the layer's rms gamma has switched its channel off. */
static const double DEAD = 1e-3;
/* A gain is out of line from this factor and this many robust deviations above the layer's median. */
static const double GAIN_FACTOR = 20, GAIN_DEVIATIONS = 8;
/* A variance is none below this part of the layer's median, or when this near to what is left of the initial 1. */
static const double NO_VARIANCE = 1e-6, NEAR_INITIAL = 1e-3;
/* eps may have this part of v + eps in a layer's median channel. */
static const double EPS_PART = 0.1;

/* A list of channels. */
typedef struct channels {
    int *at;
    int count;
} channels;

static ek_status new_channels(const ek_norm_case *n, channels *out)
{
    out->count = 0;
    return EK_NEW(out->at, (size_t)n->channels);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts. 0 where there is none. */
static double median(double *value, int64_t count)
{
    if (count == 0) return 0;
    qsort(value, (size_t)count, sizeof *value, by_value);
    return count % 2 ? value[count / 2] : (value[count / 2 - 1] + value[count / 2]) / 2;
}

static const float *data_of(const ek_norm_case *n, ek_role role)
{
    const ek_param *param = ek_node_param((ek_node *)n->node, role);
    return param ? param->data : NULL;
}

/* "channels 3 and 5 of 16", owned by the caller. */
static char *of_channels(const ek_norm_case *n, const channels *list)
{
    ek_text text = {0};
    ek_audit_channels(&text, list->at, list->count);
    ek_text_add(&text, " of %lld", (long long)n->channels);
    return ek_text_take(&text);
}

/* A finding about a list of channels, named before the evidence; nothing where the list is empty. */
static ek_status add_channels(ek_audit *a, ek_severity severity, const char *code, const ek_norm_case *n,
                              const channels *list, const char *text, char *evidence, char *mend)
{
    if (list->count == 0) {
        ek_free(evidence);
        ek_free(mend);
        return EK_OK;
    }
    char *which = of_channels(n, list);
    char *all = which && evidence ? ek_strf("%s: %s", which, evidence) : NULL;
    ek_free(which);
    ek_free(evidence);
    return ek_audit_add(a, severity, code, n->layer, list->at, list->count, ek_strdup(text), all, mend);
}

/* --- tensors of any layer */

static bool is_running(const ek_param *p)
{
    return p->role == EK_ROLE_RUNNING_MEAN || p->role == EK_ROLE_RUNNING_VAR;
}

static ek_status check_finite(ek_audit *a, int layer, const ek_param *p)
{
    int64_t bad = 0, first = 0;
    for (int64_t i = p->count - 1; i >= 0; i--) {
        if (isfinite(p->data[i])) continue;
        bad++;
        first = i;
    }
    if (!bad) return EK_OK;
    char *evidence = ek_strf("%s: %lld of %lld values, the first is number %lld, %g", p->name, (long long)bad,
                             (long long)p->count, (long long)first, (double)p->data[first]);
    if (is_running(p))
        return ek_audit_add(a, EK_SEVERITY_ERROR, "statistics-not-finite", layer, NULL, 0,
                            ek_strf("running statistics are not finite: every answer of the net is lost"),
                            evidence, ek_audit_recalibrate(a, ""));
    return ek_audit_add(
        a, EK_SEVERITY_ERROR, "weights-not-finite", layer, NULL, 0,
        ek_strf("trained values are not finite, which nothing but other values mends"), evidence,
        ek_strf("take an earlier checkpoint, or train again with a smaller --lr or with --clip 1"));
}

/* Running statistics that fade are another matter: a channel without variance. */
static ek_status check_subnormal(ek_audit *a, int layer, const ek_param *p)
{
    int64_t small = 0;
    for (int64_t i = 0; !is_running(p) && i < p->count; i++)
        small += p->data[i] != 0 && fabsf(p->data[i]) < FLT_MIN;
    if (!small) return EK_OK;
    return ek_audit_add(
        a, EK_SEVERITY_WARNING, "subnormal-weights", layer, NULL, 0,
        ek_strf("weights have decayed into subnormal numbers: they do nothing any more, and cost many times "
                "the time of others"),
        ek_strf("%s: %lld of %lld values are not 0 and below %.3g", p->name, (long long)small,
                (long long)p->count, (double)FLT_MIN),
        ek_strf("evenkeel train %s --data %s --epochs 1 --weight-decay 0 --out mended.safetensors",
                a->model_name, ek_audit_training_data(a)));
}

static ek_status check_redundant_bias(ek_audit *a, int layer, const ek_param *p, const ek_safetensors *file)
{
    const ek_st_tensor *tensor = p->redundant ? ek_safetensors_find(file, p->name) : NULL;
    if (!tensor || tensor->count != p->count) return EK_OK;
    float *value;
    EK_TRY(EK_NEW(value, (size_t)p->count));
    double most = 0;
    ek_status status = ek_st_to_float(tensor, value);
    for (int64_t i = 0; status == EK_OK && i < p->count; i++) most = fmax(most, fabs((double)value[i]));
    ek_free(value);
    if (status != EK_OK || most == 0) return status;
    const ek_node *norm = ek_graph_redundant_by(&a->net->graph, &a->net->graph.node[layer]);
    return ek_audit_add(a, EK_SEVERITY_NOTE, "redundant-bias", layer, NULL, 0,
                        ek_strf("a bias before a normalization is taken away again by it: it was never "
                                "trained and changes nothing"),
                        ek_strf("%s is up to %.3g in the file; %s subtracts it with the mean", p->name, most,
                                norm ? norm->label : "the next layer"),
                        ek_strf("nothing has to be done: Evenkeel moves it into running_mean, and every "
                                "model that it saves has zeros there"));
}

static ek_status check_tensors(ek_audit *a, const ek_safetensors *file)
{
    for (int i = 0; i < a->net->graph.count; i++) {
        const ek_node *node = &a->net->graph.node[i];
        for (int k = 0; k < node->param_count; k++) {
            const ek_param *p = &node->param[k];
            if (p->role == EK_ROLE_COUNTER) continue;
            EK_TRY(check_finite(a, i, p));
            EK_TRY(check_subnormal(a, i, p));
            EK_TRY(check_redundant_bias(a, i, p, file));
        }
    }
    return EK_OK;
}

/* --- layers without running statistics */

static ek_status check_untracked(ek_audit *a)
{
    for (int i = 0; i < a->net->graph.count; i++) {
        const ek_node *node = &a->net->graph.node[i];
        if (!ek_is_batchnorm(node) || ek_batchnorm_options(node).track) continue;
        EK_TRY(ek_audit_add(
            a, EK_SEVERITY_WARNING, "no-running-statistics", i, NULL, 0,
            ek_strf("inference takes the statistics of each batch, so that an answer depends on the samples "
                    "beside it"),
            ek_strf(
                "track=false, as PyTorch's track_running_stats=False, or an export in training mode, gives"),
            a->onnx ? ek_strf("evenkeel convert %s --bn inference --out mended.safetensors reads it with the running statistics that "
                              "are in the file; --data then says whether they are any good",
                              a->model_name)
                    : ek_strf("take track=false out of the net text, take the parameters over with evenkeel train NET "
                              "--init, then "
                              "evenkeel recalibrate")));
    }
    return EK_OK;
}

/* --- momentum and counts */

static ek_status check_momentum(ek_audit *a, const ek_norm_case *n)
{
    double m = n->options.momentum;
    if (n->options.cumulative || n->options.frozen) return EK_OK;
    if (m == 0)
        return ek_audit_add(a, EK_SEVERITY_WARNING, "momentum-zero", n->layer, NULL, 0,
                            ek_strf("momentum 0 never takes a batch into the running statistics"),
                            ek_strf("running = (1-momentum)*running + momentum*batch; the default is 0.1"),
                            ek_audit_recalibrate(a, ""));
    if (m < OTHER_MOMENTUM) return EK_OK;
    char *evidence =
        m == 1 ? ek_strf("momentum=1: the running statistics are those of the last batch alone; exports to "
                         "ONNX write 1 for "
                         "PyTorch's momentum=None, which is momentum=none here")
               : ek_strf("momentum=%g: here running = (1-momentum)*running + momentum*batch, so that the "
                         "last batch alone "
                         "has %g %% of the statistics; Keras, Flax and ONNX call %g what is %g here",
                         m, 100 * m, m, 1 - m);
    return ek_audit_add(
        a, EK_SEVERITY_WARNING, "momentum-convention", n->layer, NULL, 0,
        ek_strf("the momentum is of the other convention: the running statistics follow the last batch"),
        evidence,
        m == 1 ? ek_strf("write momentum=none in the net text for further training; for the model as it is: "
                         "evenkeel recalibrate %s --data %s --out mended.safetensors",
                         a->model_name, ek_audit_training_data(a))
               : ek_strf("write momentum=%g in the net text for further training; for the model as it is: "
                         "evenkeel recalibrate %s --data %s --out mended.safetensors",
                         1 - m, a->model_name, ek_audit_training_data(a)));
}

static ek_status check_count(ek_audit *a, const ek_norm_case *n)
{
    static const int64_t MOST = (int64_t)1 << 53;
    if (n->batches < 0 || n->batches > MOST)
        return ek_audit_add(
            a, EK_SEVERITY_ERROR, "count-impossible", n->layer, NULL, 0,
            ek_strf("num_batches_tracked is no count of batches, and the model cannot be used so"),
            ek_strf("it is %lld", (long long)n->batches), ek_audit_recalibrate(a, ""));
    if (n->batches > 0 || n->untouched || a->recalibrated || n->options.frozen) return EK_OK;
    if (n->options.cumulative)
        return ek_audit_add(
            a, EK_SEVERITY_WARNING, "count-zero", n->layer, NULL, 0,
            ek_strf("the statistics have moved but the count is 0: the first batch of further training would "
                    "replace them"),
            ek_strf("momentum=none averages with 1/t, and t begins at 1 again"), ek_audit_recalibrate(a, ""));
    return ek_audit_add(
        a, EK_SEVERITY_NOTE, "count-zero", n->layer, NULL, 0,
        ek_strf("the statistics have moved but the count of batches is 0: nothing tells how far they are"),
        ek_strf("num_batches_tracked is 0, as in files of Keras, ONNX and old PyTorch"),
        ek_strf("nothing has to be done; with --data the statistics themselves are measured"));
}

/* Without data all that can be told is what the initial 0 and 1 still weigh; with data audit_causes.c says more. */
static ek_status check_converged(ek_audit *a, const ek_norm_case *n)
{
    if (a->options.data || n->untouched || !n->sound || !(n->initial >= EK_AUDIT_LEAST_INITIAL)) return EK_OK;
    for (int64_t c = 0; c < n->channels; c++) {
        if (n->var[c] < n->initial * (1 - NEAR_INITIAL))
            return EK_OK; /* less than the rest of the initial 1: they began elsewhere */
    }
    return ek_audit_add(
        a, n->initial >= EK_AUDIT_MOSTLY_INITIAL ? EK_SEVERITY_ERROR : EK_SEVERITY_WARNING, "not-converged",
        n->layer, NULL, 0,
        ek_strf("the running statistics have not converged: with this momentum and so few batches the "
                "initial 0 and 1 are still in them"),
        ek_strf("%lld batches at momentum %g leave (1-momentum)^batches = %.1f %% of the initial values",
                (long long)n->batches, n->options.momentum, 100 * n->initial),
        ek_audit_recalibrate(a, ""));
}

static bool all_are(const float *value, int64_t count, float what)
{
    for (int64_t i = 0; value && i < count; i++) {
        if (value[i] != what) return false;
    }
    return true;
}

static ek_status check_untouched(ek_audit *a, const ek_norm_case *n)
{
    if (!n->untouched) return EK_OK;
    bool trained = !all_are(data_of(n, EK_ROLE_GAMMA), n->channels, 1) ||
                   !all_are(data_of(n, EK_ROLE_BETA), n->channels, 0);
    const char *why =
        n->options.frozen ? "the layer is frozen, so that training never moves them"
        : n->options.momentum == 0 && !n->options.cumulative ? "momentum 0 never moves them"
        : n->batches > 0 ? "batches were counted, so they were lost afterwards: weights were loaded or "
                           "exported without their buffers"
        : trained ? "gamma and beta were trained, so the statistics were left behind: weights loaded without "
                    "their buffers, or trained in inference mode"
                  : "gamma and beta are initial too: the layer was never trained";
    return ek_audit_add(a, EK_SEVERITY_ERROR, "untouched-statistics", n->layer, NULL, 0,
                        ek_strf("running statistics are the initial 0 and 1: inference does not normalize"),
                        ek_strf("all %lld means are 0 and variances 1, num_batches_tracked is %lld; %s",
                                (long long)n->channels, (long long)n->batches, why),
                        ek_audit_recalibrate(a, ""));
}

/* --- channels */

static ek_status check_negative(ek_audit *a, const ek_norm_case *n, channels *list)
{
    float least = 0;
    list->count = 0;
    for (int64_t c = 0; c < n->channels; c++) {
        if (!(n->var[c] < 0)) continue;
        list->at[list->count++] = (int)c;
        if (n->var[c] < least) least = n->var[c];
    }
    return add_channels(
        a, EK_SEVERITY_ERROR, "negative-variance", n, list,
        "a running variance is negative, which no variance is: the root gives NaN, or a wrong gain",
        ek_strf("down to %g; averages of E[x^2]-E[x]^2 in single precision, or weights averaged or shifted "
                "with their buffers, give such",
                (double)least),
        ek_audit_recalibrate(a, ""));
}

static bool is_constant(const ek_norm_case *n, int64_t c, double middle)
{
    double v = n->var[c];
    if (v == 0 || (v > 0 && v < NO_VARIANCE * middle && v < n->options.eps)) return true;
    /* From the initial 1 nothing was added in any batch. */
    bool left = isfinite(n->initial) && n->initial < 0.5 && v > 0;
    return left && fabs(v / n->initial - 1) < NEAR_INITIAL && v < 0.1 * middle;
}

static ek_status check_constant(ek_audit *a, const ek_norm_case *n, double *room, channels *list)
{
    list->count = 0;
    if (n->untouched) return EK_OK;
    for (int64_t c = 0; c < n->channels; c++) room[c] = n->var[c];
    double middle = median(room, n->channels);
    for (int64_t c = 0; c < n->channels; c++) {
        if (is_constant(n, c, middle)) list->at[list->count++] = (int)c;
    }
    return add_channels(
        a, EK_SEVERITY_WARNING, "constant-channel", n, list,
        "a channel's input never varied in training; whatever does vary there later is multiplied by up to "
        "1/sqrt(eps)",
        ek_strf("variance %.3g, the layer's median is %.3g; 1/sqrt(eps) is %.3g",
                list->count ? (double)n->var[list->at[0]] : 0, middle, 1 / sqrt(n->options.eps)),
        ek_strf("look at what feeds the channel (dead filters, pixels that are always the same); "
                "evenkeel inspect %s --layer %s --all",
                a->model_name, n->node->label));
}

static ek_status check_dead(ek_audit *a, const ek_norm_case *n, channels *list)
{
    const float *gamma = data_of(n, EK_ROLE_GAMMA);
    double squares = 0;
    list->count = 0;
    for (int64_t c = 0; gamma && c < n->channels; c++) squares += (double)gamma[c] * gamma[c];
    double rms = sqrt(squares / (double)n->channels);
    for (int64_t c = 0; gamma && c < n->channels; c++) {
        if (fabs((double)gamma[c]) < fmax(DEAD * rms, 1e-6)) list->at[list->count++] = (int)c;
    }
    return add_channels(
        a, EK_SEVERITY_WARNING, "dead-channel", n, list,
        "gamma is 0 or next to it: the channel gives a constant, whatever it reads, and costs as much as the "
        "others",
        ek_strf("|gamma| %.3g and below, the layer's rms is %.3g",
                list->count ? fabs((double)gamma[list->at[0]]) : 0, rms),
        ek_strf(
            "train again with --no-decay-norm or less --weight-decay, or with fewer channels: evenkeel train "
            "%s --data %s --no-decay-norm --out mended.safetensors",
            a->model_name, ek_audit_training_data(a)));
}

static double gain(const ek_norm_case *n, int64_t c)
{
    const float *gamma = data_of(n, EK_ROLE_GAMMA);
    return fabs(gamma ? (double)gamma[c] : 1) / sqrt((double)n->var[c] + n->options.eps);
}

/* By the median and the median deviation of the gains' logarithms. Dead channels have no gain to speak of. */
static ek_status check_gain(ek_audit *a, const ek_norm_case *n, double *room, channels *list)
{
    int64_t live = 0;
    list->count = 0;
    for (int64_t c = 0; c < n->channels; c++) {
        if (gain(n, c) > 0) room[live++] = log(gain(n, c));
    }
    double middle = median(room, live);
    for (int64_t i = 0; i < live; i++) room[i] = fabs(room[i] - middle);
    double deviation = 1.4826 * median(room, live);
    double limit = middle + fmax(log(GAIN_FACTOR), GAIN_DEVIATIONS * deviation), most = 0;
    for (int64_t c = 0; live > 3 && c < n->channels; c++) {
        if (!(gain(n, c) > 0) || log(gain(n, c)) <= limit) continue;
        list->at[list->count++] = (int)c;
        most = fmax(most, gain(n, c));
    }
    return add_channels(a, EK_SEVERITY_WARNING, "gain-outlier", n, list,
                        "a channel's gain |gamma|/sqrt(v+eps) is far above the layer's others: it drowns "
                        "them, and small errors grow in it",
                        ek_strf("gain up to %.3g, the layer's median is %.3g", most, exp(middle)),
                        ek_audit_recalibrate(a, ""));
}

static ek_status check_eps(ek_audit *a, const ek_norm_case *n, double *room)
{
    double eps = n->options.eps;
    if (n->untouched) return EK_OK;
    for (int64_t c = 0; c < n->channels; c++) room[c] = n->var[c];
    double middle = median(room, n->channels), part = eps / (middle + eps);
    if (middle <= 0 || part < EPS_PART) return EK_OK;
    return ek_audit_add(
        a, EK_SEVERITY_WARNING, "eps-does-not-fit", n->layer, NULL, 0,
        ek_strf("eps is not small against the variances: the layer does not bring its input to deviation 1"),
        ek_strf("eps is %g, the median variance %.3g: eps is %.0f %% of their sum, and a normalized channel "
                "has deviation %.2f; "
                "eps is 1e-5 in PyTorch and Flax, 1e-3 in Keras",
                eps, middle, 100 * part, sqrt(middle / (middle + eps))),
        ek_strf("if the weights were trained with another eps, write that one in the net text; otherwise "
                "give the layer "
                "larger inputs, or eps=1e-5, and train again"));
}

static ek_status check_norm(ek_audit *a, const ek_norm_case *n)
{
    channels list = {0};
    double *room = NULL;
    ek_status status = EK_OK;
    EK_GO(new_channels(n, &list));
    EK_GO(EK_NEW(room, (size_t)n->channels));
    EK_GO(check_negative(a, n, &list));
    EK_GO(check_untouched(a, n));
    EK_GO(check_converged(a, n));
    EK_GO(check_momentum(a, n));
    EK_GO(check_count(a, n));
    EK_GO(check_dead(a, n, &list));
    if (n->sound) {
        EK_GO(check_constant(a, n, room, &list));
        if (list.count == 0) EK_GO(check_gain(a, n, room, &list));
        EK_GO(check_eps(a, n, room));
    }
done:
    ek_free(room);
    ek_free(list.at);
    return status;
}

ek_status ek_audit_model(ek_audit *a, const ek_safetensors *file)
{
    EK_TRY(check_tensors(a, file));
    EK_TRY(check_untracked(a));
    for (int i = 0; i < a->norms.count; i++) EK_TRY(check_norm(a, &a->norm[i]));
    return EK_OK;
}
