/* One change to a network: another normalization, another place for it, wider layers. Each is a walk over the net's
 * layers, which are then written as a net text and read again: shapes, parameters and redundant biases are those of the
 * new net. */
#include "core/memory.h"
#include "graph/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What becomes of the net's layers, by their index there. */
typedef struct edit {
    const ek_graph *graph; /* as it was: shapes, readers, parameters */
    ek_node *node;         /* as they will be: operator, options, label, inputs */
    bool *out;             /* taken out: its readers read what it read */
    ek_node *after;        /* op not NULL: a layer put behind it, which its readers read */
} edit;

/* --- what a layer is */

static bool is_norm(const ek_node *node) { return node->op->normalizes; }
static bool is_linear(const ek_node *node) { return node->op == ek_op_find("linear"); }
static bool is_prelu(const ek_node *node) { return node->op == ek_op_find("prelu"); }
static bool is_dropout(const ek_node *node) { return node->op == ek_op_find("dropout"); }

static bool is_active(const ek_node *node) { return node->op->activates; }

/* A convolution or a linear layer. */
static bool is_weighted(const ek_node *node) { return node->op->multiply_adds; }

static int count_of(const ek_graph *graph, bool (*is)(const ek_node *node))
{
    int count = 0;
    for (int i = 0; i < graph->count; i++) count += is(&graph->node[i]);
    return count;
}

/* The only reader of a layer; -1: none, or several. */
static int only_reader(const ek_graph *graph, int node)
{
    if (graph->node[node].consumers != 1) return -1;
    int reader = node + 1;
    while (graph->node[reader].input[0] != node && graph->node[reader].input[1] != node) reader++;
    return reader;
}

/* The layer with weights, or the input, that a value's channels come from. */
static const ek_node *source(const ek_graph *graph, int node)
{
    const ek_node *at = &graph->node[node];
    while (at->input_count && !is_weighted(at)) at = &graph->node[at->input[0]];
    return at;
}

/* Marks the hidden layers with weights, those behind which there is a further one; *count of them. */
static ek_status find_hidden(const ek_graph *graph, bool **hidden, int *count)
{
    bool *last = NULL; /* its values come to the output through no layer with weights */
    ek_status status = EK_OK;
    *count = 0;
    EK_GO(EK_NEW(last, (size_t)graph->count));
    EK_GO(EK_NEW(*hidden, (size_t)graph->count));
    last[graph->count - 1] = true;
    for (int i = graph->count - 1; i >= 0; i--) {
        const ek_node *node = &graph->node[i];
        (*hidden)[i] = is_weighted(node) && !last[i];
        *count += (*hidden)[i];
        for (int k = 0; k < node->input_count && !is_weighted(node); k++) last[node->input[k]] |= last[i];
    }
done:
    ek_free(last);
    return status;
}

static ek_status lacks(const char *what) { return ek_fail(EK_E_UNSUPPORTED, "the net has no %s", what); }

/* --- values */

static ek_status unknown_word(const char *what, const char *word, const char *const *words, int count)
{
    const char *near = ek_nearest(word, words, count);
    if (near) return ek_fail(EK_E_ARGUMENT, "%s '%.40s'; did you mean '%s'?", what, word, near);
    ek_text list = {0};
    for (int i = 0; i < count; i++) ek_text_add(&list, "%s%s", i ? ", " : "", words[i]);
    ek_status status = ek_fail(EK_E_ARGUMENT, "%s '%.40s'; there are: %s", what, word, list.data ? list.data : "");
    ek_text_free(&list);
    return status;
}

static ek_status read_word(const char *key, const char *value, const char *const *words, int count, int *out)
{
    char what[32];
    for (*out = 0; *out < count; ++*out) {
        if (!strcmp(value, words[*out])) return EK_OK;
    }
    snprintf(what, sizeof what, "there is no %s", key);
    return unknown_word(what, value, words, count);
}

static ek_status read_number(const char *key, const char *value, double above, double most, double *out)
{
    if (ek_read_real(value, value + strlen(value), out) && *out > above && *out <= most) return EK_OK;
    return ek_fail(EK_E_ARGUMENT, "%s must be a number above %g and at most %g, not '%.40s'", key, above, most, value);
}

/* An option of all layers of a kind. */
static ek_status set_all(edit *e, bool (*is)(const ek_node *node), const char *option, const char *value)
{
    for (int i = 0; i < e->graph->count; i++) {
        if (is(&e->node[i])) EK_TRY(ek_node_set_option(&e->node[i], option, value));
    }
    return EK_OK;
}

/* --- norm */

/* The largest number up to 8 that divides the channels and leaves a group two numbers or more. */
static int groups_of(ek_shape in)
{
    int groups = 8;
    while (groups > 1 && (in.dim[0] % groups || ek_shape_count(in) / groups < 2)) groups--;
    return groups;
}

/* Turns `node`, which reads values of this shape, into a normalization, with the eps, scale and shift of the one it
 * was. */
static ek_status set_norm(ek_node *node, const char *name, ek_shape in)
{
    static const char *const kept[] = {"eps", "scale", "shift"};
    /* One position has no statistics; the features of a sample are then normalized together. */
    bool single = ek_shape_count(in) == in.dim[0];
    const ek_op *op = ek_op_find(single && !strcmp(name, "instancenorm") ? "layernorm" : name);
    const ek_node before = *node;
    if (before.op == op) return EK_OK;
    ek_node_set_op(node, op);
    for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) {
        int from = ek_op_attr(before.op, kept[k]), to = ek_op_attr(op, kept[k]);
        if (from >= 0 && to >= 0) node->attr[to] = before.attr[from];
    }
    char groups[16];
    snprintf(groups, sizeof groups, "%d", groups_of(in));
    return strcmp(op->name, "groupnorm") ? EK_OK : ek_node_set_option(node, "groups", groups);
}

/* Behind each hidden layer with weights, for a net that has no normalization. */
static ek_status insert_norms(edit *e, const char *name)
{
    bool *hidden = NULL;
    int count;
    ek_status status = EK_OK;
    EK_GO(find_hidden(e->graph, &hidden, &count));
    EK_GO(count ? EK_OK : lacks("hidden layer that could be normalized"));
    for (int i = 0; i < e->graph->count; i++) {
        if (!hidden[i]) continue;
        ek_node_set_op(&e->after[i], ek_op_find("batchnorm"));
        EK_GO(set_norm(&e->after[i], name, e->graph->node[i].out));
    }
done:
    ek_free(hidden);
    return status;
}

static ek_status vary_norm(edit *e, const char *value)
{
    static const char *const words[] = {"none", "batch", "layer", "group", "instance", "rms"};
    static const char *const names[] = {NULL, "batchnorm", "layernorm", "groupnorm", "instancenorm", "rmsnorm"};
    int which;
    EK_TRY(read_word("norm", value, words, sizeof words / sizeof *words, &which));
    if (which && !count_of(e->graph, is_norm)) return insert_norms(e, names[which]);
    for (int i = 0; i < e->graph->count; i++) {
        const ek_node *node = &e->graph->node[i];
        e->out[i] = is_norm(node) && !which;
        if (is_norm(node) && which) EK_TRY(set_norm(&e->node[i], names[which], node->in[0]));
    }
    return EK_OK;
}

/* --- position */

/* Two layers, of which the second alone reads the first, change places. */
static void swap(edit *e, int first, int second)
{
    ek_node *a = &e->node[first], *b = &e->node[second];
    const ek_node kept = *a;
    *a = *b;
    *b = kept;
    memcpy(b->input, a->input, sizeof b->input);
    memcpy(a->input, kept.input, sizeof a->input);
}

static ek_status vary_position(edit *e, const char *value)
{
    static const char *const words[] = {"before", "after"};
    const ek_graph *graph = e->graph;
    int after, beside = 0;
    EK_TRY(read_word("position", value, words, 2, &after));
    EK_TRY(count_of(graph, is_norm) ? EK_OK : lacks("normalization that could be moved"));
    for (int i = 1; i < graph->count; i++) {
        int reader = only_reader(graph, i);
        if (reader < 0) continue;
        const ek_node *first = &graph->node[i], *second = &graph->node[reader];
        bool before = is_norm(first) && is_active(second), behind = is_active(first) && is_norm(second);
        beside += before || behind;
        if (after ? before : behind) swap(e, i, reader);
    }
    return beside ? EK_OK : lacks("normalization that stands next to an activation");
}

/* --- single options */

static ek_status vary_momentum(edit *e, const char *value)
{
    EK_TRY(count_of(e->graph, ek_is_batchnorm) ? EK_OK : lacks("batch normalization, whose momentum this is"));
    return set_all(e, ek_is_batchnorm, "momentum", value);
}

static ek_status vary_ghost(edit *e, const char *value)
{
    EK_TRY(count_of(e->graph, ek_is_batchnorm) ? EK_OK : lacks("batch normalization, whose batches could be cut"));
    return set_all(e, ek_is_batchnorm, "ghost", value);
}

static ek_status vary_eps(edit *e, const char *value)
{
    EK_TRY(count_of(e->graph, is_norm) ? EK_OK : lacks("normalization, whose eps this is"));
    return set_all(e, is_norm, "eps", value);
}

static ek_status vary_activation(edit *e, const char *value)
{
    static const char *const words[] = {"relu", "sigmoid", "tanh", "silu", "leakyrelu"};
    int which;
    EK_TRY(read_word("activation", value, words, sizeof words / sizeof *words, &which));
    EK_TRY(count_of(e->graph, is_active) ? EK_OK : lacks("activation"));
    for (int i = 0; i < e->graph->count; i++) {
        ek_node *node = &e->node[i];
        if (is_active(node) && node->op != ek_op_find(value)) ek_node_set_op(node, ek_op_find(value));
    }
    return EK_OK;
}

/* --- width */

static int64_t scaled(int64_t count, double factor) { return fmax(1, floor((double)count * factor + 0.5)); }

static ek_status set_count(ek_node *node, const char *option, int64_t count)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)count);
    return ek_node_set_option(node, option, text);
}

/* Groups that are single channels stay so. */
static ek_status widen(edit *e, int node, double factor)
{
    const ek_node *was = &e->graph->node[node], *from = source(e->graph, was->input[0]);
    int groups = ek_op_attr(was->op, "groups");
    bool apart = groups >= 0 && ek_attr_int(was, groups) > 1 && ek_attr_int(was, groups) == was->in[0].dim[0];
    int64_t out = scaled(was->out.dim[0], factor);
    if (apart) {
        int64_t channels = from->input_count ? scaled(was->in[0].dim[0], factor) : was->in[0].dim[0];
        out = channels * (was->out.dim[0] / was->in[0].dim[0]);
        EK_TRY(set_count(&e->node[node], "groups", channels));
    }
    return set_count(&e->node[node], "out", out);
}

/* A prelu has weights for all channels as before, or for all numbers that a flatten made of them. */
static ek_status widen_prelu(edit *e, int node)
{
    const ek_node *was = &e->graph->node[node], *from = source(e->graph, node);
    int n = ek_op_attr(was->op, "n");
    if (!from->input_count || ek_attr_int(was, n) == 1) return EK_OK;
    int64_t out = ek_attr_int(&e->node[from->id], ek_op_attr(from->op, "out"));
    return set_count(&e->node[node], "n", ek_attr_int(was, n) / from->out.dim[0] * out);
}

static ek_status vary_width(edit *e, const char *value)
{
    double factor;
    bool *hidden = NULL;
    int count;
    ek_status status = EK_OK;
    EK_GO(read_number("width", value, 0, 1000, &factor));
    EK_GO(find_hidden(e->graph, &hidden, &count));
    EK_GO(count ? EK_OK : lacks("hidden layer that could be wider"));
    for (int i = 0; i < e->graph->count; i++) {
        if (hidden[i]) EK_GO(widen(e, i, factor));
        if (is_prelu(&e->graph->node[i])) EK_GO(widen_prelu(e, i));
    }
done:
    ek_free(hidden);
    return status;
}

/* --- dropout */

static ek_status put_dropout(edit *e, int behind, const char *value)
{
    ek_node_set_op(&e->after[behind], ek_op_find("dropout"));
    return ek_node_set_option(&e->after[behind], "p", value);
}

/* The end of a linear layer's activation and normalization, in whichever order they come; -1: nothing active
 * follows it, or nothing reads it. */
static int active_end(const ek_graph *graph, int linear)
{
    bool active = false;
    int end = linear;
    for (int next; (next = only_reader(graph, end)) >= 0; end = next) {
        const ek_node *node = &graph->node[next];
        if (!is_norm(node) && !is_active(node)) break;
        active |= is_active(node);
    }
    return active && graph->node[end].consumers ? end : -1;
}

static ek_status vary_dropout(edit *e, const char *value)
{
    const ek_graph *graph = e->graph;
    double p;
    ek_node trial = {0};
    ek_node_set_op(&trial, ek_op_find("dropout"));
    EK_TRY(ek_node_set_option(&trial, "p", value));
    p = ek_attr_real(&trial, ek_op_attr(trial.op, "p"));
    if (p > 0 && count_of(graph, is_dropout)) return set_all(e, is_dropout, "p", value);
    int put = 0, last = -1;
    for (int i = 0; i < graph->count; i++) {
        e->out[i] = is_dropout(&graph->node[i]);
        if (!is_linear(&graph->node[i])) continue;
        last = i;
        int end = active_end(graph, i);
        if (end < 0 || p == 0) continue;
        EK_TRY(put_dropout(e, end, value));
        put++;
    }
    if (put || p == 0) return EK_OK;
    /* The classifier of a convolutional net: what it reads. */
    if (last < 0 || !source(graph, graph->node[last].input[0])->input_count)
        return lacks("hidden layer before a linear one, where dropout could stand");
    return put_dropout(e, graph->node[last].input[0], value);
}

/* --- the new net */

static bool is_taken(const ek_graph *graph, const char *label)
{
    for (int i = 0; i < graph->count; i++) {
        if (!strcmp(graph->node[i].label, label)) return true;
    }
    return false;
}

/* The net text names whoever is read from elsewhere than the next line: after the first layer that stood behind it
 * and went (wish, by layer), else after its operator. */
static void name_sources(ek_graph *graph, const char *const *wish)
{
    for (int i = 1; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].input_count; k++) {
            int from = graph->node[i].input[k];
            ek_node *node = &graph->node[from];
            if (*node->label || (k == 0 && from == i - 1)) continue;
            char label[EK_LABEL_MAX] = "";
            if (wish[from]) strcpy(label, wish[from]);
            for (int number = 1; !*label || is_taken(graph, label); number++)
                snprintf(label, sizeof label, "%s%d", node->op->name, number);
            strcpy(node->label, label);
        }
    }
}

/* The layers as they will be. place: by old layer, where its value comes from; wish: by new layer. */
static void lay_out(const edit *e, ek_graph *varied, int *place, const char **wish)
{
    for (int i = 0; i < e->graph->count; i++) {
        const ek_node *node = &e->node[i];
        if (e->out[i]) {
            place[i] = place[node->input[0]];
            if (!wish[place[i]] && *node->label) wish[place[i]] = node->label;
            continue;
        }
        ek_node *copy = &varied->node[varied->count++];
        *copy = *node;
        for (int k = 0; k < node->input_count; k++) copy->input[k] = place[node->input[k]];
        if (e->after[i].op) {
            varied->node[varied->count] = e->after[i];
            varied->node[varied->count].input[0] = varied->count - 1;
            varied->count++;
        }
        place[i] = varied->count - 1;
    }
}

static ek_status write_net(const edit *e, ek_context *context, const char *origin, ek_net **out)
{
    size_t most = 2 * (size_t)e->graph->count;
    ek_graph varied = {0};
    ek_text text = {0};
    int *place = NULL;
    const char **wish = NULL;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(place, most));
    EK_GO(EK_NEW(wish, most));
    EK_GO(EK_NEW(varied.node, most));
    lay_out(e, &varied, place, wish);
    name_sources(&varied, wish);
    EK_GO(ek_graph_write(&varied, &text));
    EK_GO(ek_net_create(context, text.data, origin, out));
done:
    ek_text_free(&text);
    ek_free(varied.node);
    ek_free(wish);
    ek_free(place);
    return status;
}

typedef ek_status (*change)(edit *e, const char *value);

static ek_status apply(const ek_net *net, change make, const char *value, const char *origin, ek_net **out)
{
    size_t count = (size_t)net->graph.count;
    edit e = {.graph = &net->graph};
    ek_status status = EK_OK;
    EK_GO(EK_NEW(e.node, count));
    EK_GO(EK_NEW(e.out, count));
    EK_GO(EK_NEW(e.after, count));
    memcpy(e.node, net->graph.node, count * sizeof *e.node);
    EK_GO(make(&e, value));
    EK_GO(write_net(&e, net->context, origin, out));
done:
    ek_free(e.after);
    ek_free(e.out);
    ek_free(e.node);
    return status;
}

/* In the order in which changes that go together are made. */
static const struct {
    const char *key;
    change make;
} changes[] = {
    {"width", vary_width},       {"activation", vary_activation}, {"norm", vary_norm},
    {"position", vary_position}, {"momentum", vary_momentum},     {"eps", vary_eps},
    {"ghost", vary_ghost},       {"dropout", vary_dropout},
};
enum { CHANGES = sizeof changes / sizeof *changes };

const char *ek_vary_key(int index) { return index >= 0 && index < CHANGES ? changes[index].key : NULL; }

ek_status ek_net_vary(const ek_net *net, const char *key, const char *value, ek_net **out)
{
    if (!net || !key || !value || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_vary needs a net, a key, a value and a place for the other net");
    const char *keys[CHANGES];
    char origin[80];
    for (int i = 0; i < CHANGES; i++) {
        keys[i] = changes[i].key;
        if (strcmp(key, keys[i])) continue;
        snprintf(origin, sizeof origin, "the net with %s=%.40s", key, value);
        return apply(net, changes[i].make, value, origin, out);
    }
    return unknown_word("a net has no", key, keys, CHANGES);
}

static ek_status take_batchnorms_out(edit *e, const char *value)
{
    (void)value;
    for (int i = 0; i < e->graph->count; i++) e->out[i] = ek_is_batchnorm(&e->graph->node[i]);
    return EK_OK;
}

ek_status ek_net_without_norm(const ek_net *net, ek_net **out)
{
    if (!net || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_without_norm needs a net and a place for the other");
    return apply(net, take_batchnorms_out, NULL, "the net without batch normalization", out);
}
