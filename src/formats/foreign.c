/* Bare weights of another framework, put into a net: which of its layers is which, and its conventions. */
#include "formats/foreign.h"

#include "core/memory.h"
#include "core/text.h"
#include "formats/model_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- conventions (docs/convert.md has their sources) */

static const struct convention {
    const char *name;
    double eps, momentum; /* batchnorm's, as the framework writes them */
    bool keeps;           /* momentum is the share of the old that is kept */
    bool unbiased;        /* the running variance is that with m-1 */
    double sample_eps;    /* of layer, group and instance normalization */
    double rms_eps;       /* 0: as here */
} conventions[] = {
    [EK_FROM_PYTORCH] = {"PyTorch", 1e-5, 0.1, false, true, 1e-5, 0},
    [EK_FROM_KERAS] = {"Keras", 1e-3, 0.99, true, false, 1e-3, 1e-6},
    [EK_FROM_FLAX] = {"Flax", 1e-5, 0.99, true, false, 1e-6, 1e-6},
    [EK_FROM_ONNX] = {"ONNX", 1e-5, 0.9, true, false, 1e-5, 1e-5},
};
enum { FRAMEWORKS = sizeof conventions / sizeof *conventions };

/* One tensor of the net, and what it takes. */
typedef struct taking {
    const ek_param *param;
    const ek_st_tensor *tensor; /* NULL: the file has none, and need not */
    ek_layout layout;
    bool features; /* its features are put in order */
    float *value;
} taking;

/* In how many layers something was set, and in how many the net text had the word. */
typedef struct setting {
    int set, given;
    double value;
} setting;

typedef struct job {
    const ek_net *net;
    const char *path;
    ek_framework from;
    const struct convention *convention;
    ek_foreign_options options;
    ek_sources sources;
    bool any_transposed; /* a layer of the file is transposed by its name */
    ek_source **of;      /* by layer of the net: the file's; NULL where it has no parameters */
    taking *taking;      /* the net's tensors in order */
    int taking_count;
    float *numbers;
    ek_graph changed; /* the net's nodes, with the conventions; the parameters are borrowed */
    setting eps, sample_eps, rms_eps, momentum, variance, kept, features;
    ek_net *made;
} job;

static bool has_parameters(const ek_node *node) { return node->param_count > 0; }
static bool is_op(const ek_node *node, const char *name) { return !strcmp(node->op->name, name); }

/* --- whether a layer of the file can be a layer of the net */

static ek_slot slot_of(ek_role role)
{
    switch (role) {
    case EK_ROLE_WEIGHT:
    case EK_ROLE_GAMMA: return EK_SLOT_WEIGHT;
    case EK_ROLE_BIAS:
    case EK_ROLE_BETA: return EK_SLOT_BIAS;
    case EK_ROLE_RUNNING_MEAN: return EK_SLOT_MEAN;
    case EK_ROLE_RUNNING_VAR: return EK_SLOT_VAR;
    case EK_ROLE_COUNTER: break;
    }
    return EK_SLOT_COUNTER;
}

static const ek_param *param_for(const ek_node *node, ek_slot slot)
{
    for (int k = 0; k < node->param_count; k++) {
        if (slot_of(node->param[k].role) == slot) return &node->param[k];
    }
    return NULL;
}

/* "[3,3,16,32]" */
enum { DIMS = 24 * EK_SAFETENSORS_MAX_RANK };
static const char *dims_text(int rank, const int64_t *dim, char out[DIMS])
{
    int used = snprintf(out, DIMS, "[");
    for (int i = 0; i < rank; i++)
        used += snprintf(out + used, (size_t)(DIMS - used), i ? ",%lld" : "%lld", (long long)dim[i]);
    snprintf(out + used, (size_t)(DIMS - used), "]");
    return out;
}

/* What a layer is to say where it has no such parameter. */
static const char *word_without(ek_slot slot, const ek_node *node)
{
    if (slot == EK_SLOT_WEIGHT) return "scale=false";
    if (slot == EK_SLOT_BIAS) return node->op->normalizes ? "shift=false" : "bias=false";
    return "track=false";
}

/* The file has the tensor, the layer not; tensor NULL: the other way round. */
static ek_status misfit_tensor(const ek_source *source, const ek_st_tensor *tensor, ek_slot slot,
                               const ek_node *node)
{
    static const char *const names[] = {"weight", "bias", "running_mean", "running_var",
                                        "num_batches_tracked"};
    if (tensor)
        return ek_fail(EK_E_FORMAT, "the file has %.80s, and %s (%s) no %s: is it to be without %s?",
                       tensor->name, node->label, node->op->name, names[slot], word_without(slot, node));
    return ek_fail(EK_E_FORMAT, "the file's %.80s has no %s, and %s (%s) one: is it to be %s?",
                   *source->path ? source->path : "layer", names[slot], node->label, node->op->name,
                   word_without(slot, node));
}

static ek_status misfit_shape(const job *j, const ek_st_tensor *tensor, const ek_param *param,
                              ek_shape wanted)
{
    char there[DIMS], here[DIMS];
    return ek_fail(EK_E_SHAPE, "%.80s is %s, and %s needs %s in %s's order", tensor->name,
                   dims_text(tensor->rank, tensor->dim, there), param->name,
                   dims_text(wanted.rank, wanted.dim, here), j->convention->name);
}

static bool fits(const job *j, const ek_node *node, const ek_source *source)
{
    bool transposed = !strncmp(node->op->name, "convtranspose", strlen("convtranspose"));
    if (source->transposed && !transposed) return false;
    if (transposed && j->any_transposed && !source->transposed) return false;
    for (int slot = 0; slot < EK_SLOTS; slot++) {
        const ek_param *param = param_for(node, slot);
        const ek_st_tensor *tensor = source->tensor[slot];
        ek_layout layout;
        bool needed = param && !param->redundant && slot != EK_SLOT_COUNTER;
        if (tensor ? !param : needed) return false;
        if (tensor && !ek_layout_find(j->from, node, param, tensor, &layout, NULL)) return false;
    }
    return true;
}

/* Why it does not. */
static ek_status misfit(const job *j, const ek_node *node, const ek_source *source)
{
    for (int slot = 0; slot < EK_SLOTS; slot++) {
        const ek_param *param = param_for(node, slot);
        const ek_st_tensor *tensor = source->tensor[slot];
        ek_layout layout;
        ek_shape wanted;
        bool needed = param && !param->redundant && slot != EK_SLOT_COUNTER;
        if (tensor ? !param : needed) return misfit_tensor(source, tensor, slot, node);
        if (tensor && !ek_layout_find(j->from, node, param, tensor, &layout, &wanted))
            return misfit_shape(j, tensor, param, wanted);
    }
    return ek_fail(EK_E_FORMAT, "the file's %s is a transposed layer, %s (%s) is not, or the other way round",
                   source->path, node->label, node->op->name);
}

/* --- which layer is which */

/* A path that is the label, or ends in it: "module.net.1" and "net/1" for net.1. */
static bool is_called(const char *path, const char *label)
{
    size_t length = strlen(path), wanted = strlen(label);
    if (wanted > length || (wanted < length && path[length - wanted - 1] != '/')) return false;
    for (path += length - wanted; *label; path++, label++) {
        if (*path != (*label == '.' ? '/' : *label)) return false;
    }
    return true;
}

/* True where each layer of the net has one of its name, and only one. */
static bool match_labels(job *j)
{
    const ek_graph *graph = &j->net->graph;
    bool all = true;
    for (int i = 0; i < graph->count && all; i++) {
        if (!has_parameters(&graph->node[i])) continue;
        for (int s = 0; s < j->sources.count && all; s++) {
            ek_source *source = &j->sources.source[s];
            if (!is_called(source->path, graph->node[i].label)) continue;
            all = !j->of[i] && !source->taken;
            source->taken = true;
            j->of[i] = source;
        }
        all = all && j->of[i];
    }
    if (all) return true;
    for (int s = 0; s < j->sources.count; s++) j->sources.source[s].taken = false;
    memset(j->of, 0, (size_t)graph->count * sizeof *j->of);
    return false;
}

/* What else the file has, for a message. */
static ek_status fail_left(const job *j, const char *but)
{
    enum { SHOWN = 5 };
    ek_text list = {0};
    int count = 0;
    for (int s = 0; s < j->sources.count; s++) {
        const ek_source *source = &j->sources.source[s];
        if (!source->taken && count++ < SHOWN)
            ek_text_add(&list, "%s%.80s", count > 1 ? ", " : "", source->path);
    }
    if (count > SHOWN) ek_text_add(&list, " and %d more", count - SHOWN);
    ek_status status = ek_text_status(&list);
    if (status == EK_OK) status = ek_fail(EK_E_FORMAT, "%s%s", but, count ? list.data : "none");
    ek_text_free(&list);
    return status;
}

/* The layer of the file that was most likely meant: of those left the first of as many dimensions and, of normalizations, with
 * running statistics where they are wanted. */
static const ek_source *meant(const job *j, const ek_node *node)
{
    int rank = 0;
    for (int k = 0; k < node->param_count; k++) {
        if (slot_of(node->param[k].role) == EK_SLOT_WEIGHT) rank = node->param[k].shape.rank;
    }
    bool tracks = param_for(node, EK_SLOT_MEAN);
    for (int s = 0; s < j->sources.count; s++) {
        const ek_source *source = &j->sources.source[s];
        const ek_st_tensor *weight = source->tensor[EK_SLOT_WEIGHT];
        bool same = tracks ? source->tensor[EK_SLOT_MEAN] != NULL
                           : weight && weight->rank == rank && !source->tensor[EK_SLOT_MEAN];
        if (!source->taken && same) return source;
    }
    return NULL;
}

static ek_status fail_layer(const job *j, const ek_node *node)
{
    const ek_source *nearest = meant(j, node);
    if (nearest) {
        ek_status status = misfit(j, node, nearest);
        return ek_fail_in(status,
                          "no layer of the file fits %s; the first one left of its kind: ", node->label);
    }
    char but[200];
    snprintf(but, sizeof but, "the file has no layer left that could be %s (%s); left are: ", node->label,
             node->op->name);
    return fail_left(j, but);
}

static ek_status match_order(job *j)
{
    const ek_graph *graph = &j->net->graph;
    int first = 0; /* all before it are taken */
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        if (!has_parameters(node)) continue;
        while (first < j->sources.count && j->sources.source[first].taken) first++;
        for (int s = first; s < j->sources.count && !j->of[i]; s++) {
            ek_source *source = &j->sources.source[s];
            if (source->taken || !fits(j, node, source)) continue;
            source->taken = true;
            j->of[i] = source;
        }
        if (!j->of[i]) return fail_layer(j, node);
    }
    return EK_OK;
}

/* The layer before that `layer` could as well change places with; -1: none. */
static int twin_before(const job *j, int layer)
{
    enum { FAR = 200 };
    const ek_node *node = j->net->graph.node;
    for (int i = layer - 1; i >= 0 && i > layer - FAR; i--) {
        if (j->of[i] && fits(j, &node[i], j->of[layer]) && fits(j, &node[layer], j->of[i])) return i;
    }
    return -1;
}

/* Two that could change places, in an order that only the alphabet gives, may be the wrong way round. */
static ek_status note_alphabet(job *j)
{
    for (int i = 0; i < j->net->graph.count; i++) {
        int twin = j->of[i] ? twin_before(j, i) : -1;
        if (twin < 0) continue;
        const ek_source *a = j->of[twin], *b = j->of[i];
        bool numbered = a->order >= 0 && b->order >= 0;
        if (!numbered) ek_path_order(a->path, b->path, &numbered);
        if (numbered) continue;
        return ek_net_add_note(
            j->made,
            "Check the list: %s and %s have the same shapes, and only the alphabet told which comes "
            "first; numbers in front of the names would",
            a->path, b->path);
    }
    return EK_OK;
}

static ek_status match(job *j, bool *by_order)
{
    EK_TRY(EK_NEW(j->of, (size_t)j->net->graph.count));
    for (int s = 0; s < j->sources.count; s++) j->any_transposed |= j->sources.source[s].transposed;
    *by_order = !match_labels(j);
    if (*by_order) EK_TRY(match_order(j));
    for (int i = 0; i < j->net->graph.count; i++) {
        const ek_node *node = &j->net->graph.node[i];
        if (j->of[i] && !fits(j, node, j->of[i])) return misfit(j, node, j->of[i]);
    }
    for (int s = 0; s < j->sources.count; s++) {
        if (!j->sources.source[s].taken)
            return fail_left(j, "the file has layers for which the net has none: ");
    }
    return EK_OK;
}

/* --- conventions */

/* Sets an option that a layer has, unless the net text gave it. */
static void set_option(ek_node *node, const char *name, double value, bool always, setting *told)
{
    int i = ek_op_attr(node->op, name);
    if (i < 0 || node->attr[i].v[0] == value) return;
    if (node->attr[i].given && !always) {
        told->given++;
        return;
    }
    told->set++;
    told->value = value;
    node->attr[i] = (ek_attr){.n = 1, .given = true, .v = {value}};
}

/* 1 - 0.99 is 0.01, and not the 0.010000000000000009 of doubles. */
static double momentum_here(const struct convention *of, double theirs)
{
    return of->keeps ? round((1 - theirs) * 1e12) / 1e12 : theirs;
}

/* tf.keras before Keras 3 takes the unbiased variance in its fused layer, which is for maps. */
static bool is_unbiased(const job *j, const ek_node *node)
{
    bool fused = j->from == EK_FROM_KERAS && j->sources.colons && node->in[0].rank > 1;
    return j->convention->unbiased || fused;
}

static void set_batchnorm(job *j, ek_node *node)
{
    const struct convention *of = j->convention;
    bool eps_asked = !isnan(j->options.eps), momentum_asked = !isnan(j->options.momentum);
    if (!j->options.keep_eps)
        set_option(node, "eps", eps_asked ? j->options.eps : of->eps, eps_asked, &j->eps);
    if (!ek_batchnorm_options(node).track) return;
    double momentum = momentum_here(of, momentum_asked ? j->options.momentum : of->momentum);
    set_option(node, "momentum", momentum, momentum_asked, &j->momentum);
    set_option(node, "unbiased", is_unbiased(j, node), false, &j->variance);
}

/* The nodes with the framework's conventions; their parameters are borrowed. */
static ek_status set_conventions(job *j)
{
    const ek_graph *graph = &j->net->graph;
    EK_TRY(EK_NEW(j->changed.node, (size_t)graph->count));
    memcpy(j->changed.node, graph->node, (size_t)graph->count * sizeof *graph->node);
    j->changed.count = graph->count;
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &j->changed.node[i];
        bool rms = is_op(node, "rmsnorm");
        double eps = rms ? j->convention->rms_eps : j->convention->sample_eps;
        if (ek_is_batchnorm(node))
            set_batchnorm(j, node);
        else if (node->op->normalizes && eps > 0)
            set_option(node, "eps", eps, false, rms ? &j->rms_eps : &j->sample_eps);
    }
    return EK_OK;
}

__attribute__((format(printf, 3, 4))) static ek_status note_setting(job *j, const setting *told,
                                                                    const char *format, ...)
{
    if (told->set == 0) return EK_OK;
    va_list args;
    va_start(args, format);
    char *text = ek_vstrf(format, args);
    va_end(args);
    if (!text) return EK_E_MEMORY;
    ek_status status =
        ek_net_add_note(j->made, "%s (%d layer%s)", text, told->set, told->set == 1 ? "" : "s");
    ek_free(text);
    return status;
}

static ek_status note_conventions(job *j)
{
    const struct convention *of = j->convention;
    char value[EK_REAL_TEXT], theirs[EK_REAL_TEXT];
    const char *asked = isnan(j->options.eps) ? "'s default" : "'s, as was said";
    EK_TRY(note_setting(j, &j->eps, "Inference: batchnorm's eps is %s, %s%s",
                        ek_real_text(j->eps.value, value), of->name, asked));
    EK_TRY(note_setting(j, &j->sample_eps,
                        "Inference: eps of layernorm, groupnorm and instancenorm is %s, %s's default",
                        ek_real_text(of->sample_eps, value), of->name));
    EK_TRY(note_setting(j, &j->rms_eps, "Inference: rmsnorm's eps is %s, %s's default",
                        ek_real_text(of->rms_eps, value), of->name));
    EK_TRY(note_setting(j, &j->kept,
                        "Inference: batchnorm's eps stays the net's, and gamma was multiplied by "
                        "sqrt((v + eps)/(v + %s)) for it",
                        ek_real_text(j->kept.value, value)));
    if (j->eps.given)
        EK_TRY(ek_net_add_note(j->made,
                               "Inference: batchnorm's eps is the net text's, not %s's default (%d layer%s)",
                               of->name, j->eps.given, j->eps.given == 1 ? "" : "s"));
    EK_TRY(note_setting(
        j, &j->features,
        "Inference: features of a flattened map were put from height, width, channels into channels, "
        "height, width"));
    double momentum = isnan(j->options.momentum) ? of->momentum : j->options.momentum;
    EK_TRY(note_setting(
        j, &j->momentum,
        "Further training only: batchnorm's momentum is %s, the share of the new; %s writes %s%s",
        ek_real_text(j->momentum.value, value), of->name, ek_real_text(momentum, theirs),
        of->keeps ? ", the share of the old" : ""));
    return note_setting(j, &j->variance,
                        "Further training only: running_var takes the %s variance, as %s does (unbiased=%s); "
                        "what it holds was copied as it is",
                        j->variance.value != 0 ? "unbiased" : "biased",
                        j->sources.colons && j->from == EK_FROM_KERAS ? "tf.keras" : of->name,
                        j->variance.value != 0 ? "true" : "false");
}

/* --- numbers */

/* gamma*sqrt((v + eps here)/(v + eps there)): the same outputs with the net's own eps. */
static ek_status keep_eps(job *j, const ek_node *node, taking *first)
{
    float *gamma = NULL, *var = NULL;
    double there = isnan(j->options.eps) ? j->convention->eps : j->options.eps,
           here = ek_batchnorm_options(node).eps;
    for (int k = 0; k < node->param_count; k++) {
        if (node->param[k].role == EK_ROLE_GAMMA) gamma = first[k].value;
        if (node->param[k].role == EK_ROLE_RUNNING_VAR) var = first[k].value;
    }
    if (here == there) return EK_OK;
    if (!gamma || !var)
        return ek_fail(EK_E_UNSUPPORTED, "the eps of %s cannot be kept: it has no %s to make up for it",
                       node->label, gamma ? "running variance" : "gamma");
    for (int64_t i = 0; i < node->in[0].dim[0]; i++)
        gamma[i] = (float)(gamma[i] * sqrt((var[i] + here) / (var[i] + there)));
    j->kept.set++;
    j->kept.value = there;
    return EK_OK;
}

static ek_status take_tensor(const job *j, const ek_node *node, const int64_t *map, taking *t)
{
    if (!t->tensor || t->param->role == EK_ROLE_COUNTER) return EK_OK;
    ek_layout_find(j->from, node, t->param, t->tensor, &t->layout, NULL);
    bool linear = is_op(node, "linear");
    t->features = map && (linear ? t->param->role == EK_ROLE_WEIGHT : t->param->count == node->in[0].dim[0]);
    if (t->layout == EK_LAYOUT_SAME && !t->features) return ek_st_to_float(t->tensor, t->value);
    float *there;
    EK_TRY(EK_NEW(there, (size_t)t->param->count));
    ek_status status = ek_st_to_float(t->tensor, there);
    if (status == EK_OK)
        ek_layout_convert(t->layout, t->param->shape, t->features ? map : NULL, there, t->value);
    ek_free(there);
    return status;
}

static ek_status take_layer(job *j, int layer, taking *first)
{
    const ek_graph *graph = &j->net->graph;
    const ek_node *node = &graph->node[layer];
    int64_t *map = NULL;
    ek_status status = EK_OK;
    bool channels_last = j->from == EK_FROM_KERAS || j->from == EK_FROM_FLAX;
    if (channels_last) EK_GO(ek_layout_features(graph, node, &map));
    if (map && is_op(node, "groupnorm")) {
        status = ek_fail(EK_E_UNSUPPORTED, "%s groups features of a flattened map, which %s groups otherwise",
                         node->label, j->convention->name);
        goto done;
    }
    for (int k = 0; k < node->param_count; k++) EK_GO(take_tensor(j, node, map, &first[k]));
    j->features.set += map != NULL;
    if (j->options.keep_eps && ek_is_batchnorm(node)) status = keep_eps(j, node, first);
done:
    ek_free(map);
    return status;
}

/* Room for all, and what goes where; then the numbers. */
static ek_status take_all(job *j)
{
    const ek_graph *graph = &j->net->graph;
    size_t numbers = 0;
    EK_TRY(EK_NEW(j->taking, (size_t)ek_net_tensor_count(j->net)));
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].param_count; k++) {
            const ek_param *param = &graph->node[i].param[k];
            j->taking[j->taking_count++] =
                (taking){.param = param, .tensor = j->of[i]->tensor[slot_of(param->role)]};
            numbers += (size_t)param->count;
        }
    }
    EK_TRY(EK_NEW(j->numbers, numbers));
    float *at = j->numbers;
    for (int t = 0; t < j->taking_count; t++) {
        j->taking[t].value = at;
        at += j->taking[t].param->count;
    }
    taking *first = j->taking;
    for (int i = 0; i < graph->count; i++) {
        if (j->of[i]) EK_TRY(take_layer(j, i, first));
        first += graph->node[i].param_count;
    }
    return EK_OK;
}

/* The net, and the numbers as a file of its own would have them: what such a file is checked for, they are. */
static ek_status make(job *j)
{
    ek_text text = {0};
    ek_safetensors own = {0};
    ek_status status = EK_OK;
    EK_GO(ek_graph_write(&j->changed, &text));
    EK_GO(ek_net_create(j->net->context, text.data, "the net with the conventions", &j->made));
    EK_GO(ek_net_set_classes(j->made, (const char *const *)j->net->class_name, j->net->class_count));
    EK_GO(EK_NEW(own.tensor, (size_t)j->taking_count));
    for (int t = 0; t < j->taking_count; t++) {
        const taking *from = &j->taking[t];
        bool counter = from->param->role == EK_ROLE_COUNTER;
        if (counter && !from->tensor) continue;
        ek_st_tensor *to = &own.tensor[own.count++];
        if (counter)
            *to = *from->tensor;
        else
            *to = (ek_st_tensor){.dtype = EK_NUMBER_F32,
                                 .rank = from->param->shape.rank,
                                 .count = from->param->count,
                                 .bytes = (const unsigned char *)from->value};
        if (!counter) memcpy(to->dim, from->param->shape.dim, sizeof from->param->shape.dim);
        to->name = (char *)from->param->name;
    }
    status = ek_model_take(j->made, &own, j->path, false);
done:
    ek_free(own.tensor);
    ek_text_free(&text);
    return status;
}

static void tell(const job *j)
{
    int t = 0;
    for (int i = 0; i < j->net->graph.count; i++) {
        const ek_node *node = &j->net->graph.node[i];
        for (int k = 0; k < node->param_count; k++, t++) {
            const taking *from = &j->taking[t];
            if (!from->tensor) continue;
            ek_taken taken = {.tensor = from->param->name,
                              .source = from->tensor->name,
                              .shape = from->param->shape,
                              .source_shape = {.rank = from->tensor->rank},
                              .change = ek_layout_text(node, from->param, from->layout, from->features)};
            memcpy(taken.source_shape.dim, from->tensor->dim, sizeof taken.source_shape.dim);
            j->options.taken(j->options.user, &taken);
        }
    }
}

/* --- the public function */

ek_foreign_options ek_foreign_options_default(void)
{
    return (ek_foreign_options){.eps = NAN, .momentum = NAN};
}

static ek_status check_options(const ek_foreign_options *o, ek_framework from)
{
    if (from < 0 || (int)from >= FRAMEWORKS)
        return ek_fail(EK_E_ARGUMENT, "there is no framework number %d", (int)from);
    if (!isnan(o->eps) && !(o->eps > 0 && isfinite(o->eps)))
        return ek_fail(EK_E_ARGUMENT, "eps must be above 0, not %g", o->eps);
    if (!isnan(o->momentum) && !(o->momentum >= 0 && o->momentum <= 1))
        return ek_fail(EK_E_ARGUMENT, "momentum must be from 0 to 1, not %g", o->momentum);
    return EK_OK;
}

ek_status ek_net_take_foreign(const ek_net *net, const char *path, ek_framework from,
                              const ek_foreign_options *options, ek_net **out)
{
    if (!net || !path || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_take_foreign needs a net, a path and a place for the new net");
    job j = {
        .net = net, .path = path, .from = from, .options = options ? *options : ek_foreign_options_default()};
    EK_TRY(check_options(&j.options, from));
    j.convention = &conventions[from];
    ek_safetensors file;
    EK_TRY(ek_safetensors_read(path, &file));
    bool by_order;
    ek_status status = ek_sources_read(&file, from, &j.sources);
    if (status == EK_OK) status = match(&j, &by_order);
    if (status == EK_OK) status = set_conventions(&j);
    if (status == EK_OK) status = take_all(&j);
    if (status != EK_OK) {
        ek_fail_in(status, "%s: ", path);
        goto done;
    }
    EK_GO(make(&j));
    if (by_order) EK_GO(note_alphabet(&j));
    EK_GO(note_conventions(&j));
    if (j.options.taken) tell(&j);
done:
    if (status == EK_OK)
        *out = j.made;
    else
        ek_net_destroy(j.made);
    ek_free(j.numbers);
    ek_free(j.taking);
    ek_free(j.of);
    ek_free(j.changed.node);
    ek_sources_free(&j.sources);
    ek_safetensors_free(&file);
    return status;
}
