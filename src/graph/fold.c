#include "graph/fold.h"

#include "core/memory.h"
#include "graph/builder.h"
#include "norm/fold.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What becomes of a layer. */
typedef struct layer {
    ek_node node;          /* as it will be; op NULL: as it was */
    double *weight, *bias; /* its new numbers; NULL: as they were. Of a normalization: gamma and beta */
    double *map;           /* a number for each of its output, to be added there; NULL: none */
    bool gone;             /* its readers read what it read */
    int readers, reader;   /* how many read its value, and one of them */
    int carries;           /* the layer whose value, in the old net, its value now is; -1: none's */
} layer;

typedef struct fold {
    const ek_graph *graph;
    bool sequences; /* whose lengths differ: nothing may depend on where a sequence ends */
    bool maps;      /* a constant that differs from place to place may become a layer of its own */
    layer *layer;
    ek_fold_list *list;
} fold;

/* y = a*x + b by channel, of a value with this many. */
typedef struct terms {
    int64_t channels;
    double *a, *b;
} terms;

/* Why a layer could not be folded into the one before, and the one after it. */
#define REASON 256
typedef struct reasons {
    char before[REASON], after[REASON];
} reasons;

/* --- the net, as it is by now */

static const ek_node *node_of(const fold *f, int index) { return &f->graph->node[index]; }

/* The layer whose value stands where that of `index` stood. */
static int standing(const fold *f, int index)
{
    while (f->layer[index].gone) index = f->graph->node[index].input[0];
    return index;
}

static int read_by(const fold *f, int index) { return standing(f, node_of(f, index)->input[0]); }

/* "linear 'fc1'", "a relu" */
static const char *name_of(const ek_node *node, char out[EK_LABEL_MAX + 32])
{
    if (*node->label)
        snprintf(out, EK_LABEL_MAX + 32, "%s '%s'", node->op->name, node->label);
    else
        snprintf(out, EK_LABEL_MAX + 32, "%s %s", strchr("aeiou", node->op->name[0]) ? "an" : "a",
                 node->op->name);
    return out;
}

static bool is_affine(const ek_node *node) { return node->op == ek_op_find("affine"); }

/* A layer with weights and, if wanted, a bias for each output: convolutions of all kinds, linear. */
static bool has_weights(const ek_node *node) { return ek_op_attr(node->op, "bias") >= 0; }

static bool is_transposed(const ek_node *node)
{
    return node->op == ek_op_find("convtranspose") || node->op == ek_op_find("convtranspose1d");
}

/* The node with all the parameters that it can have (their data not yet there). */
static ek_status with_all(const ek_node *node, ek_node *out)
{
    static const char *const options[] = {"bias", "scale", "shift"};
    *out = *node;
    out->param_count = 0;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (ek_op_attr(node->op, options[i]) >= 0) EK_TRY(ek_node_set_option(out, options[i], "true"));
    }
    node->op->params(out);
    return EK_OK;
}

/* Whether it ends with y = gamma*(...) + beta, with whole channels of either, and so can take a normalization in. */
static bool has_gains(const ek_node *node)
{
    ek_node all;
    if (ek_op_attr(node->op, "scale") < 0 || ek_op_attr(node->op, "shift") < 0) return false;
    if (with_all(node, &all) != EK_OK) return false;
    return ek_node_param(&all, EK_ROLE_GAMMA)->shape.dim[0] == node->out.dim[0];
}

/* A mean over windows, of which a constant goes through unchanged: zeros of the padding are in none of them. */
static ek_status keeps_constants(const ek_node *node, bool *out)
{
    *out = node->op == ek_op_find("globalavgpool");
    if (node->op != ek_op_find("avgpool")) return EK_OK;
    ek_node one = *node;
    one.in[0].dim[0] = one.out.dim[0] = 1;
    int64_t in = ek_shape_count(one.in[0]), count = ek_shape_count(one.out);
    double *x;
    EK_TRY(EK_NEW(x, (size_t)(in + count)));
    for (int64_t i = 0; i < in; i++) x[i] = 1;
    node->op->reference_forward(&(ek_ref){.n = 1}, &one, (const double *const[]){x, NULL}, x + in);
    *out = true;
    for (int64_t i = 0; i < count; i++) *out &= fabs(x[in + i] - 1) < 1e-9;
    ek_free(x);
    return EK_OK;
}

/* A layer without weights through which, at inference, a*x + b goes as it is. */
static ek_status lets_through(const fold *f, const ek_node *node, bool *out)
{
    bool cut = f->sequences && node->in[0].rank == 2 &&
               node->in[0].dim[1] > 1; /* ends somewhere else for each sample */
    *out = true;
    if (node->op == ek_op_find("dropout")) return EK_OK;
    if (node->input_count == 1 && !node->op->forward) {
        *out = !cut;
        return EK_OK;
    }
    EK_TRY(keeps_constants(node, out));
    if (cut && node->op != ek_op_find("globalavgpool")) *out = false;
    return EK_OK;
}

/* --- terms */

static void terms_free(terms *t)
{
    ek_free(t->a);
    *t = (terms){0};
}

static ek_status terms_new(int64_t channels, terms *out)
{
    *out = (terms){.channels = channels};
    EK_TRY(EK_NEW(out->a, 2 * (size_t)channels));
    out->b = out->a + channels;
    return EK_OK;
}

/* Those for the value at the other side of `node`, which lets them through. Another shape of the same numbers must have
 * each of its channels within one of the present. */
static ek_status pass_terms(const ek_node *node, ek_shape from, ek_shape to, terms *t, bool *fits)
{
    if (node->op->forward) return EK_OK;
    int64_t old_run = ek_shape_count(from) / from.dim[0], run = ek_shape_count(to) / to.dim[0];
    *fits = old_run % run == 0;
    if (!*fits || old_run == run) return EK_OK;
    terms spread;
    EK_TRY(terms_new(to.dim[0], &spread));
    for (int64_t c = 0; c < spread.channels; c++) {
        spread.a[c] = t->a[c * run / old_run];
        spread.b[c] = t->b[c * run / old_run];
    }
    terms_free(t);
    *t = spread;
    return EK_OK;
}

/* A parameter's numbers as they are by now. */
static double number_of(const fold *f, int index, ek_role role, int64_t i)
{
    const layer *l = &f->layer[index];
    if (l->weight) return role == EK_ROLE_WEIGHT || role == EK_ROLE_GAMMA ? l->weight[i] : l->bias[i];
    const float *data = ek_node_data((ek_node *)node_of(f, index), role);
    return data ? data[i] : role == EK_ROLE_GAMMA ? 1 : 0;
}

static void affine_terms(const fold *f, int index, int64_t numbers, terms *out)
{
    for (int64_t c = 0; c < out->channels; c++) {
        out->a[c] = number_of(f, index, EK_ROLE_GAMMA, numbers == 1 ? 0 : c);
        out->b[c] = number_of(f, index, EK_ROLE_BETA, numbers == 1 ? 0 : c);
    }
}

static ek_status norm_terms(const fold *f, int index, terms *out)
{
    ek_node *node = (ek_node *)node_of(f, index);
    double *gains;
    EK_TRY(EK_NEW(gains, 2 * (size_t)out->channels));
    for (int64_t c = 0; c < out->channels; c++) {
        gains[c] = number_of(f, index, EK_ROLE_GAMMA, c);
        gains[out->channels + c] = number_of(f, index, EK_ROLE_BETA, c);
    }
    ek_fold_terms(out->channels, ek_batchnorm_options(node).eps, gains, gains + out->channels,
                  ek_node_data(node, EK_ROLE_RUNNING_MEAN), ek_node_data(node, EK_ROLE_RUNNING_VAR), out->a,
                  out->b);
    ek_free(gains);
    return EK_OK;
}

/* What the layer does to each channel; out->a NULL: it is none that could be folded, and *reason says why. */
static ek_status terms_of(const fold *f, int index, terms *out, const char **reason)
{
    const ek_node *node = node_of(f, index);
    ek_node all;
    *out = (terms){0};
    *reason = "each sample is normalized by its own statistics";
    if (ek_is_batchnorm(node)) {
        *reason = "track=false: at inference too the batch's own statistics count";
        if (!ek_batchnorm_options(node).track) return EK_OK;
        EK_TRY(terms_new(node->out.dim[0], out));
        ek_status status = norm_terms(f, index, out);
        if (status != EK_OK) {
            terms_free(out);
            return status;
        }
    } else if (is_affine(node)) {
        *reason = "it has a number for each place, not one a channel";
        EK_TRY(with_all(node, &all));
        int64_t numbers = ek_node_param(&all, EK_ROLE_GAMMA)->count;
        bool channels =
            numbers == node->out.dim[0] && ek_node_param(&all, EK_ROLE_GAMMA)->shape.dim[0] == numbers;
        if (numbers != 1 && !channels) return EK_OK;
        EK_TRY(terms_new(node->out.dim[0], out));
        affine_terms(f, index, numbers, out);
    }
    for (int64_t c = 0; c < out->channels; c++) {
        if (isfinite(out->a[c]) && isfinite(out->b[c])) continue;
        *reason = "its numbers are not finite";
        terms_free(out);
    }
    return EK_OK;
}

static bool is_identity(const terms *t)
{
    for (int64_t c = 0; c < t->channels; c++) {
        if (t->a[c] != 1 || t->b[c] != 0) return false;
    }
    return true;
}

/* --- a layer's new numbers */

typedef struct numbers {
    ek_node node;
    double *weight, *bias;
    int64_t weights, biases;
} numbers;

static void numbers_free(numbers *n)
{
    ek_free(n->weight);
    ek_free(n->bias);
    *n = (numbers){0};
}

/* A copy of what they are, to be changed. */
static ek_status numbers_of(const fold *f, int index, numbers *out)
{
    const ek_node *node = node_of(f, index);
    *out = (numbers){0};
    EK_TRY(with_all(node, &out->node));
    ek_role weight = has_weights(node) ? EK_ROLE_WEIGHT : EK_ROLE_GAMMA,
            bias = has_weights(node) ? EK_ROLE_BIAS : EK_ROLE_BETA;
    out->weights = ek_node_param(&out->node, weight)->count;
    out->biases = ek_node_param(&out->node, bias)->count;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(out->weight, (size_t)out->weights));
    EK_GO(EK_NEW(out->bias, (size_t)out->biases));
    for (int64_t i = 0; i < out->weights; i++) out->weight[i] = number_of(f, index, weight, i);
    for (int64_t i = 0; i < out->biases; i++) out->bias[i] = number_of(f, index, bias, i);
done:
    if (status != EK_OK) numbers_free(out);
    return status;
}

static bool fit_floats(int64_t count, const double *x)
{
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite((float)x[i])) return false;
    }
    return true;
}

/* The layer takes them; or not, where a float cannot hold them. */
static bool take_numbers(fold *f, int index, const numbers *n)
{
    layer *l = &f->layer[index];
    if (!fit_floats(n->weights, n->weight) || !fit_floats(n->biases, n->bias)) return false;
    ek_free(l->weight);
    ek_free(l->bias);
    l->node = n->node;
    l->weight = n->weight;
    l->bias = n->bias;
    return true;
}

static ek_fold_weights geometry_of(const ek_node *node, int64_t weights)
{
    int groups = ek_op_attr(node->op, "groups");
    ek_fold_weights g = {.in = node->in[0].dim[0],
                         .out = node->out.dim[0],
                         .groups = groups < 0 ? 1 : ek_attr_int(node, groups),
                         .transposed = is_transposed(node)};
    g.cells = weights / (g.out * (g.in / g.groups));
    return g;
}

/* --- into the layer before */

/* Upwards from the layer, as long as only this way leads from there: to the layer that could take it in. */
static ek_status find_before(const fold *f, int index, terms *t, int *out, char *why)
{
    char name[EK_LABEL_MAX + 32];
    for (int at = read_by(f, index);; at = read_by(f, at)) {
        const ek_node *node = node_of(f, at);
        bool through = false, fits = true;
        *out = -1;
        if (at > 0) EK_TRY(lets_through(f, node, &through));
        if (at == 0) {
            snprintf(why, REASON, "it reads the net's input");
        } else if (!through && !has_weights(node) && !has_gains(node)) {
            snprintf(why, REASON, "it reads %s, which has no weights", name_of(node, name));
        } else if (f->layer[at].readers > 1) {
            snprintf(why, REASON, "others too read %s", name_of(node, name));
        } else if (!through) {
            *out = at;
        } else {
            EK_TRY(pass_terms(node, node->out, node->in[0], t, &fits));
            if (fits) continue;
            snprintf(why, REASON, "%s lies before it, and places of one channel are scaled apart",
                     name_of(node, name));
        }
        return EK_OK;
    }
}

static void scale_before(const ek_node *node, const terms *t, numbers *n)
{
    if (has_weights(node)) {
        ek_fold_weights g = geometry_of(node, n->weights);
        ek_fold_outputs(&g, t->a, n->weight);
    } else {
        for (int64_t i = 0; i < n->weights; i++) n->weight[i] *= t->a[i * t->channels / n->weights];
    }
    for (int64_t i = 0; i < n->biases; i++) {
        int64_t c = i * t->channels / n->biases;
        n->bias[i] = t->a[c] * n->bias[i] + t->b[c];
    }
}

/* Takes the layer out; what it read is read by its readers. */
static void take_out(fold *f, int index)
{
    int before = read_by(f, index);
    f->layer[index].gone = true;
    f->layer[before].readers += f->layer[index].readers - 1;
    f->layer[before].reader = f->layer[index].reader;
}

/* *into: where it went; -1: nowhere, why says it. */
static ek_status fold_before(fold *f, int index, const terms *of, int *into, char *why)
{
    terms t = {0};
    numbers n = {0};
    ek_status status = EK_OK;
    EK_GO(terms_new(of->channels, &t));
    memcpy(t.a, of->a, 2 * (size_t)of->channels * sizeof(double));
    EK_GO(find_before(f, index, &t, into, why));
    if (*into < 0) goto done;
    EK_GO(numbers_of(f, *into, &n));
    scale_before(node_of(f, *into), &t, &n);
    if (!take_numbers(f, *into, &n)) {
        char name[EK_LABEL_MAX + 32];
        snprintf(why, REASON, "the numbers of %s would overflow", name_of(node_of(f, *into), name));
        numbers_free(&n);
        *into = -1;
        goto done;
    }
    int last = read_by(f, index);
    for (int at = last; at != *into; at = read_by(f, at)) f->layer[at].carries = -1;
    f->layer[*into].carries = -1;
    f->layer[last].carries = f->layer[index].carries;
    take_out(f, index);
done:
    terms_free(&t);
    return status;
}

/* --- into the layer after */

/* Downwards, as long as only one layer reads: to that with weights. */
static ek_status find_after(const fold *f, int index, terms *t, int *out, char *why)
{
    char name[EK_LABEL_MAX + 32];
    for (int at = index;;) {
        int readers = f->layer[at].readers, next = f->layer[at].reader;
        const ek_node *node = node_of(f, next);
        bool through = false, fits = true;
        *out = -1;
        if (readers == 1) EK_TRY(lets_through(f, node, &through));
        if (readers == 0) {
            snprintf(why, REASON, "it ends the net");
        } else if (readers > 1) {
            snprintf(why, REASON, "%d layers read it", readers);
        } else if (!through && !has_weights(node)) {
            snprintf(why, REASON, "%s follows, which has no weights", name_of(node, name));
        } else if (!through) {
            *out = next;
        } else {
            EK_TRY(pass_terms(node, node->in[0], node->out, t, &fits));
            at = next;
            if (fits) continue;
            snprintf(why, REASON, "%s follows, which mixes channels", name_of(node, name));
        }
        return EK_OK;
    }
}

/* What the constant b of a layer's inputs adds to each number of its output. The layer itself says so, in double: its
 * weights summed over the inputs of a group, run on ones, which zero padding surrounds as it does the input. */
static ek_status constant_map(const ek_node *node, const ek_fold_weights *g, const double *b,
                              const double *weight, double *map)
{
    ek_node one = *node;
    double *sums, *ones = NULL;
    ek_status status = EK_OK;
    one.in[0].dim[0] = g->groups;
    int64_t count = ek_shape_count(one.in[0]);
    EK_GO(EK_NEW(sums, (size_t)(g->out * g->cells)));
    EK_GO(EK_NEW(ones, (size_t)count));
    ek_fold_sums(g, b, weight, sums);
    for (int64_t i = 0; i < count; i++) ones[i] = 1;
    node->op->reference_forward(&(ek_ref){.n = 1, .param = {sums}}, &one, (const double *const[]){ones, NULL},
                                map);
done:
    ek_free(sums);
    ek_free(ones);
    return status;
}

static bool is_constant(ek_shape shape, const double *map)
{
    int64_t run = ek_shape_count(shape) / shape.dim[0];
    for (int64_t i = 0; i < shape.dim[0] * run; i++) {
        if (map[i] != map[i / run * run]) return false;
    }
    return true;
}

/* What was added before, the bias or a map in its place, goes into the map. */
static ek_status use_map(ek_node *node, double *map, const double *bias, const double *old_map)
{
    int64_t run = ek_shape_count(node->out) / node->out.dim[0];
    for (int64_t i = 0; i < node->out.dim[0] * run; i++) map[i] += old_map ? old_map[i] : bias[i / run];
    EK_TRY(ek_node_set_option(node, "bias", "false"));
    node->param_count = 0;
    node->op->params(node);
    return EK_OK;
}

/* The numbers of the layer after, and a map where one is needed (else NULL). */
static ek_status scale_after(const fold *f, int into, const terms *t, numbers *n, double **map, char *why)
{
    const ek_node *node = node_of(f, into);
    ek_fold_weights g = geometry_of(node, n->weights);
    char name[EK_LABEL_MAX + 32];
    EK_TRY(EK_NEW(*map, (size_t)ek_shape_count(node->out)));
    EK_TRY(constant_map(node, &g, t->b, n->weight, *map));
    ek_fold_inputs(&g, t->a, n->weight);
    bool constant = is_constant(node->out, *map), ends = f->sequences && node->in[0].rank == 2;
    if (ends && (!constant || g.cells > 1)) {
        snprintf(why, REASON, "what %s makes of its constant depends on a sequence's length",
                 name_of(node, name));
        return EK_OK;
    }
    if (!constant && !f->maps) {
        snprintf(why, REASON, "what %s makes of its constant differs from place to place", name_of(node, name));
        return EK_OK;
    }
    if (!constant || f->layer[into].map) return use_map(&n->node, *map, n->bias, f->layer[into].map);
    for (int64_t o = 0; o < g.out; o++) n->bias[o] += (*map)[o * ek_shape_count(node->out) / g.out];
    ek_free(*map);
    *map = NULL;
    return EK_OK;
}

static ek_status fold_after(fold *f, int index, const terms *of, int *into, char *why)
{
    terms t = {0};
    numbers n = {0};
    double *map = NULL;
    ek_status status = EK_OK;
    EK_GO(terms_new(of->channels, &t));
    memcpy(t.a, of->a, 2 * (size_t)of->channels * sizeof(double));
    EK_GO(find_after(f, index, &t, into, why));
    if (*into < 0) goto done;
    EK_GO(numbers_of(f, *into, &n));
    EK_GO(scale_after(f, *into, &t, &n, &map, why));
    if (!*why && ((map && !fit_floats(ek_shape_count(n.node.out), map)) || !take_numbers(f, *into, &n))) {
        char name[EK_LABEL_MAX + 32];
        snprintf(why, REASON, "the numbers of %s would overflow", name_of(&n.node, name));
    }
    if (*why) {
        *into = -1;
        goto done;
    }
    ek_free(f->layer[*into].map);
    f->layer[*into].map = map;
    n = (numbers){0};
    map = NULL;
    for (int at = f->layer[index].reader; at != *into; at = f->layer[at].reader) f->layer[at].carries = -1;
    take_out(f, index);
done:
    numbers_free(&n);
    ek_free(map);
    terms_free(&t);
    return status;
}

/* --- all of them */

static ek_fold_entry *entry_of(const fold *f, int index)
{
    for (int i = 0; i < f->list->count; i++) {
        if (f->list->entry[i].layer == index) return &f->list->entry[i];
    }
    return NULL;
}

static void record(const fold *f, int index, ek_fold_how how, int into)
{
    ek_fold_entry *entry = entry_of(f, index);
    entry->how = how;
    entry->into = into;
}

/* The net would be its input alone. */
static bool is_all(const fold *f, int index)
{
    return f->layer[index].readers == 0 && read_by(f, index) == 0;
}

static ek_status try_before(fold *f, int index, reasons *why)
{
    const char *unfit;
    terms t;
    int into = -1;
    EK_TRY(terms_of(f, index, &t, &unfit));
    if (!t.a) return EK_OK;
    ek_status status = EK_OK;
    if (is_identity(&t) && !is_all(f, index)) {
        int before = read_by(f, index);
        if (f->layer[before].carries < 0) f->layer[before].carries = f->layer[index].carries;
        take_out(f, index);
        record(f, index, EK_FOLD_IDENTITY, -1);
    } else {
        status = fold_before(f, index, &t, &into, why->before);
        if (into >= 0) record(f, index, EK_FOLD_BEFORE, into);
    }
    terms_free(&t);
    return status;
}

static ek_status try_after(fold *f, int index, reasons *why)
{
    const char *unfit;
    terms t;
    int into = -1;
    ek_fold_entry *entry = entry_of(f, index);
    EK_TRY(terms_of(f, index, &t, &unfit));
    ek_status status = EK_OK;
    if (t.a) status = fold_after(f, index, &t, &into, why->after);
    if (into >= 0) {
        record(f, index, f->layer[into].map ? EK_FOLD_AFTER_MAP : EK_FOLD_AFTER, into);
    } else if (status == EK_OK) {
        entry->reason = t.a ? ek_strf("%s, and %s", why->before, why->after) : ek_strdup(unfit);
        if (!entry->reason) status = EK_E_MEMORY;
    }
    terms_free(&t);
    return status;
}

static void count_readers(fold *f)
{
    for (int i = 0; i < f->graph->count; i++) {
        const ek_node *node = node_of(f, i);
        f->layer[i].carries = i;
        for (int k = 0; k < node->input_count; k++) {
            f->layer[node->input[k]].readers++;
            f->layer[node->input[k]].reader = i;
        }
    }
}

static ek_status list_all(fold *f)
{
    EK_TRY(EK_NEW(f->list->entry, (size_t)f->graph->count));
    for (int i = 0; i < f->graph->count; i++) {
        const ek_node *node = node_of(f, i);
        if (!node->op->normalizes && !is_affine(node)) continue;
        f->list->entry[f->list->count++] = (ek_fold_entry){.layer = i, .how = EK_FOLD_KEPT, .into = -1};
    }
    return EK_OK;
}

/* First all into the layers before them, which changes the weights alone; then the rest, the last first, so that what
 * follows a normalization is no longer one. */
static ek_status fold_all(fold *f)
{
    reasons *why;
    EK_TRY(EK_NEW(why, (size_t)f->list->count));
    ek_status status = EK_OK;
    for (int i = 0; i < f->list->count; i++) EK_GO(try_before(f, f->list->entry[i].layer, &why[i]));
    for (int i = f->list->count - 1; i >= 0; i--) {
        if (f->list->entry[i].how == EK_FOLD_KEPT) EK_GO(try_after(f, f->list->entry[i].layer, &why[i]));
    }
done:
    ek_free(why);
    return status;
}

/* --- the new net */

static void round_into(int64_t count, const double *from, float *to)
{
    for (int64_t i = 0; i < count; i++) to[i] = (float)from[i];
}

/* What folding has not changed: running statistics. */
static void keep_statistics(const ek_node *from, ek_node *to)
{
    for (int k = 0; k < from->param_count; k++) {
        const ek_param *param = &from->param[k];
        if (param->role == EK_ROLE_COUNTER) ek_node_param(to, param->role)->counter = param->counter;
        if (param->role == EK_ROLE_RUNNING_MEAN || param->role == EK_ROLE_RUNNING_VAR)
            memcpy(ek_node_data(to, param->role), param->data, (size_t)param->count * sizeof(float));
    }
}

static ek_status build_changed(const fold *f, ek_builder *b, int index, int first, int second, int *out)
{
    const layer *l = &f->layer[index];
    EK_TRY(ek_builder_copy(b, &l->node, first, second, out));
    ek_node *made = ek_builder_node(b, *out);
    bool weights = has_weights(made);
    ek_param *weight = ek_node_param(made, weights ? EK_ROLE_WEIGHT : EK_ROLE_GAMMA);
    ek_param *bias = ek_node_param(made, weights ? EK_ROLE_BIAS : EK_ROLE_BETA);
    round_into(weight->count, l->weight, weight->data);
    if (bias) round_into(bias->count, l->bias, bias->data);
    keep_statistics(node_of(f, index), made);
    return EK_OK;
}

static ek_status add_map(const fold *f, ek_builder *b, int index, int *at)
{
    char shape[EK_SHAPE_TEXT], wish[EK_LABEL_MAX + 16];
    const ek_node *node = node_of(f, index);
    snprintf(wish, sizeof wish, "%s.bias_map", node->label);
    EK_TRY(ek_builder_add(b, wish, "affine", *at, -1, at, "shape=%s scale=false",
                          ek_shape_text(node->out, shape)));
    round_into(ek_shape_count(node->out), f->layer[index].map, ek_builder_data(b, *at, EK_ROLE_BETA));
    return EK_OK;
}

/* place: by layer of the old net, its index in the new one. */
static ek_status build_layer(const fold *f, ek_builder *b, int index, int *place)
{
    const ek_node *node = node_of(f, index);
    const layer *l = &f->layer[index];
    int *same = f->list->same, input[EK_MAX_INPUTS] = {-1, -1}, at;
    for (int k = 0; k < node->input_count; k++) input[k] = place[standing(f, node->input[k])];
    if (l->weight)
        EK_TRY(build_changed(f, b, index, input[0], input[1], &at));
    else
        EK_TRY(ek_builder_copy(b, node, input[0], input[1], &at));
    same[at] = l->map ? -1 : l->carries;
    if (l->map) {
        EK_TRY(add_map(f, b, index, &at));
        same[at] = l->carries;
    }
    place[index] = at;
    return EK_OK;
}

/* What else belongs to a net. */
static ek_status keep_words(const ek_net *net, ek_net *to)
{
    EK_TRY(ek_net_set_classes(to, (const char *const *)net->class_name, net->class_count));
    for (int i = 0; i < net->metadata_count; i++)
        EK_TRY(ek_net_set_metadata(to, net->metadata[i].key, net->metadata[i].value));
    for (int i = 0; i < net->note_count; i++) EK_TRY(ek_net_add_note(to, "%s", net->note[i]));
    return EK_OK;
}

static ek_status build(const fold *f, const ek_net *net, ek_net **out)
{
    ek_builder b = {0};
    ek_net *made = NULL;
    int *place = NULL, last = f->graph->count - 1;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(place, (size_t)f->graph->count));
    EK_GO(EK_NEW(f->list->same, 2 * (size_t)f->graph->count));
    for (int i = 0; i <= last; i++) {
        if (!f->layer[i].gone) EK_GO(build_layer(f, &b, i, place));
    }
    EK_GO(ek_builder_finish(&b, net->context, "folded", place[standing(f, last)], &made));
    EK_GO(keep_words(net, made));
    *out = made;
    made = NULL;
done:
    ek_net_destroy(made);
    ek_builder_free(&b);
    ek_free(place);
    return status;
}

void ek_fold_list_free(ek_fold_list *list)
{
    for (int i = 0; i < list->count; i++) ek_free(list->entry[i].reason);
    ek_free(list->entry);
    ek_free(list->same);
    *list = (ek_fold_list){0};
}

static ek_status fold_net(const ek_net *net, bool maps, ek_fold_list *list, ek_net **out)
{
    fold f = {.graph = &net->graph, .sequences = net->graph.node[0].out.rank == 2, .maps = maps, .list = list};
    ek_status status = EK_OK;
    *list = (ek_fold_list){0};
    EK_GO(EK_NEW(f.layer, (size_t)f.graph->count));
    count_readers(&f);
    EK_GO(list_all(&f));
    EK_GO(fold_all(&f));
    EK_GO(build(&f, net, out));
done:
    for (int i = 0; f.layer && i < f.graph->count; i++) {
        ek_free(f.layer[i].weight);
        ek_free(f.layer[i].bias);
        ek_free(f.layer[i].map);
    }
    ek_free(f.layer);
    if (status != EK_OK) ek_fold_list_free(list);
    return status;
}

ek_status ek_net_fold_listed(const ek_net *net, ek_fold_list *list, ek_net **out)
{
    return fold_net(net, true, list, out);
}

ek_status ek_net_fold(const ek_net *net, bool maps, ek_net **out)
{
    ek_fold_list list;
    EK_TRY(fold_net(net, maps, &list, out));
    ek_fold_list_free(&list);
    return EK_OK;
}
