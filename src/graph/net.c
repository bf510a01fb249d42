/* The public network handle. */
#include "graph/net.h"

#include "core/memory.h"
#include "graph/plan.h"

#include <math.h>
#include <string.h>

/* A value needs a gradient where something trained lies at or above it. */
static void mark_trained(ek_graph *graph)
{
    for (int i = 0; i < graph->count; i++) {
        ek_node *node = &graph->node[i];
        for (int k = 0; k < node->param_count; k++) node->trained |= node->param[k].grad != NULL;
        for (int k = 0; k < node->input_count; k++) node->trained |= graph->node[node->input[k]].trained;
    }
}

static void mark_fusion(ek_net *net)
{
    for (int i = 0; i < net->graph.count; i++) net->graph.node[i].fusion = EK_ALONE;
    if (!net->context->unfused && !net->lengths && !net->keeps) ek_graph_fuse(&net->graph, net->shared);
}

ek_status ek_net_create(ek_context *context, const char *text, const char *origin, ek_net **out)
{
    if (!context || !text || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_create needs a context, a text and a place for the net");
    ek_net *net;
    EK_TRY(EK_NEW(net, 1));
    net->context = context;
    ek_status status = EK_OK;
    EK_GO(ek_graph_parse(text, origin ? origin : "net text", &net->graph));
    EK_GO(ek_graph_allocate(&net->graph));
    mark_trained(&net->graph);
    ek_lengths_mark(&net->graph);
    EK_GO(ek_graph_readers(&net->graph));
    mark_fusion(net);
    ek_graph_init(&net->graph, EK_INIT_DEFAULT, 0);
    EK_GO(EK_NEW(net->options_text, (size_t)net->graph.count));
    for (int i = 0; i < net->graph.count; i++) {
        ek_text options = {0};
        ek_graph_write_options(&net->graph.node[i], &options);
        net->options_text[i] = options.data;
        EK_GO(ek_text_status(&options));
    }
done:
    if (status == EK_OK)
        *out = net;
    else
        ek_net_destroy(net);
    return status;
}

static void free_classes(ek_net *net)
{
    for (int i = 0; i < net->class_count; i++) ek_free(net->class_name[i]);
    ek_free(net->class_name);
    net->class_name = NULL;
    net->class_count = 0;
}

void ek_net_destroy(ek_net *net)
{
    if (!net) return;
    ek_plan_destroy(net->plan);
    free_classes(net);
    for (int i = 0; net->options_text && i < net->graph.count; i++) ek_free(net->options_text[i]);
    ek_free(net->options_text);
    for (int i = 0; i < net->metadata_count; i++) {
        ek_free(net->metadata[i].key);
        ek_free(net->metadata[i].value);
    }
    ek_free(net->metadata);
    for (int i = 0; i < net->note_count; i++) ek_free(net->note[i]);
    ek_free(net->note);
    ek_graph_free(&net->graph);
    ek_free(net);
}

ek_status ek_net_init(ek_net *net, ek_init init, uint64_t seed)
{
    if (init < EK_INIT_DEFAULT || init > EK_INIT_KAIMING)
        return ek_fail(EK_E_ARGUMENT, "there is no initialization number %d", (int)init);
    ek_graph_init(&net->graph, init, seed);
    return ek_net_set_metadata(net, EK_RECALIBRATED_KEY, NULL);
}

static int find_metadata(const ek_net *net, const char *key)
{
    for (int i = 0; i < net->metadata_count; i++) {
        if (!strcmp(net->metadata[i].key, key)) return i;
    }
    return -1;
}

const char *ek_net_metadata(const ek_net *net, const char *key)
{
    int i = find_metadata(net, key);
    return i < 0 ? NULL : net->metadata[i].value;
}

static void drop_metadata(ek_net *net, const char *key)
{
    int i = find_metadata(net, key);
    if (i < 0) return;
    ek_free(net->metadata[i].key);
    ek_free(net->metadata[i].value);
    net->metadata[i] = net->metadata[--net->metadata_count];
}

ek_status ek_net_set_metadata(ek_net *net, const char *key, const char *value)
{
    if (!net || !key) return ek_fail(EK_E_ARGUMENT, "ek_net_set_metadata needs a net and a key");
    if (!value) {
        drop_metadata(net, key);
        return EK_OK;
    }
    struct ek_metadata *grown = ek_grow(net->metadata, (size_t)net->metadata_count + 1, sizeof *grown);
    if (!grown) return EK_E_MEMORY;
    net->metadata = grown;
    struct ek_metadata entry = {ek_strdup(key), ek_strdup(value)};
    if (!entry.key || !entry.value) {
        ek_free(entry.key);
        ek_free(entry.value);
        return EK_E_MEMORY;
    }
    drop_metadata(net, key);
    net->metadata[net->metadata_count++] = entry;
    return EK_OK;
}

ek_status ek_net_add_note(ek_net *net, const char *format, ...)
{
    char **grown = ek_grow(net->note, (size_t)net->note_count + 1, sizeof *grown);
    if (!grown) return EK_E_MEMORY;
    net->note = grown;
    va_list args;
    va_start(args, format);
    char *text = ek_vstrf(format, args);
    va_end(args);
    if (!text) return EK_E_MEMORY;
    net->note[net->note_count++] = text;
    return EK_OK;
}

int ek_net_note_count(const ek_net *net) { return net->note_count; }
const char *ek_net_note(const ek_net *net, int index)
{
    return index >= 0 && index < net->note_count ? net->note[index] : NULL;
}

ek_status ek_net_init_normal(ek_net *net, double deviation, uint64_t seed)
{
    if (!(deviation >= 0) || !isfinite(deviation))
        return ek_fail(EK_E_ARGUMENT, "weights cannot have the deviation %g; it must be 0 or more", deviation);
    ek_graph_init_normal(&net->graph, deviation, seed);
    return EK_OK;
}

ek_status ek_net_set_classes(ek_net *net, const char *const *names, int count)
{
    if (count < 0) return ek_fail(EK_E_ARGUMENT, "there cannot be %d classes", count);
    for (int i = 0; names && i < count; i++) {
        if (names[i] && !ek_is_plain_text(names[i]))
            return ek_fail(EK_E_FORMAT, "the name of class %d is not UTF-8 text without control characters",
                           i);
    }
    char **copy;
    EK_TRY(EK_NEW(copy, (size_t)count));
    for (int i = 0; i < count; i++) {
        copy[i] = ek_strdup(names && names[i] ? names[i] : "");
        if (copy[i]) continue;
        while (i > 0) ek_free(copy[--i]);
        ek_free(copy);
        return EK_E_MEMORY;
    }
    free_classes(net);
    net->class_name = copy;
    net->class_count = count;
    return EK_OK;
}

const char *ek_net_class(const ek_net *net, int index)
{
    bool named = index >= 0 && index < net->class_count && *net->class_name[index];
    return named ? net->class_name[index] : NULL;
}

const char *ek_net_text(const ek_net *net) { return net->graph.text; }
ek_shape ek_net_input_shape(const ek_net *net) { return net->graph.node[0].out; }
ek_shape ek_net_output_shape(const ek_net *net) { return net->graph.node[net->graph.count - 1].out; }
int ek_net_layer_count(const ek_net *net) { return net->graph.count; }

ek_layer_info ek_net_layer(const ek_net *net, int index)
{
    ek_layer_info info = {.label = "", .op = "", .options = "", .inputs = {-1, -1}};
    if (index < 0 || index >= net->graph.count) return info;
    const ek_node *node = &net->graph.node[index];
    info.label = node->label;
    info.op = node->op->name;
    info.options = net->options_text[index] ? net->options_text[index] : "";
    info.output = node->out;
    for (int i = 0; i < node->input_count; i++) info.inputs[i] = node->input[i];
    for (int i = 0; i < node->param_count; i++) {
        const ek_param *param = &node->param[i];
        if (param->redundant)
            info.redundant_bias = true;
        else if (param->role == EK_ROLE_RUNNING_MEAN || param->role == EK_ROLE_RUNNING_VAR)
            info.buffers += param->count;
        else if (param->role != EK_ROLE_COUNTER)
            info.parameters += param->count;
    }
    info.normalizes = node->op->normalizes;
    if (node->op->multiply_adds) info.multiply_adds = node->op->multiply_adds(node);
    return info;
}

size_t ek_net_memory(const ek_net *net, int64_t batch, ek_mode mode)
{
    size_t bytes = 0;
    if (batch < 1 || batch > EK_MAX_BATCH || ek_plan_bytes(net, batch, mode == EK_MODE_TRAINING, &bytes) != EK_OK) return 0;
    return bytes;
}

/* --- tensors, counted over the nodes in order */

int ek_net_tensor_count(const ek_net *net)
{
    int count = 0;
    for (int i = 0; i < net->graph.count; i++) count += net->graph.node[i].param_count;
    return count;
}

static ek_tensor tensor_of(ek_param *param, int layer)
{
    return (ek_tensor){.name = param->name,
                       .role = param->role,
                       .layer = layer,
                       .shape = param->shape,
                       .data = param->data,
                       .grad = param->grad,
                       .counter = param->role == EK_ROLE_COUNTER ? &param->counter : NULL};
}

ek_tensor ek_net_tensor(const ek_net *net, int index)
{
    for (int i = 0; i < net->graph.count; i++) {
        ek_node *node = &net->graph.node[i];
        if (index >= 0 && index < node->param_count) return tensor_of(&node->param[index], i);
        index -= node->param_count;
    }
    return (ek_tensor){.name = "", .layer = -1};
}

ek_status ek_net_find_tensor(const ek_net *net, const char *name, ek_tensor *out)
{
    int count = ek_net_tensor_count(net);
    const char **names;
    EK_TRY(EK_NEW(names, (size_t)count));
    ek_status status = EK_OK;
    for (int i = 0; i < count; i++) {
        ek_tensor tensor = ek_net_tensor(net, i);
        names[i] = tensor.name;
        if (strcmp(name, tensor.name)) continue;
        *out = tensor;
        goto done;
    }
    const char *near = ek_nearest(name, names, count);
    status = ek_fail(EK_E_NOT_FOUND, "the net has no tensor '%s'%s%s%s", name, near ? "; did you mean '" : "",
                     near ? near : "", near ? "'?" : "");
done:
    ek_free(names);
    return status;
}

ek_status ek_net_check_finite(const ek_net *net)
{
    for (int i = 0; i < net->graph.count; i++) {
        for (int k = 0; k < net->graph.node[i].param_count; k++) {
            const ek_param *param = &net->graph.node[i].param[k];
            if (!param->data || net->context->kernels->all_finite(param->count, param->data)) continue;
            return ek_fail(EK_E_NUMERIC,
                           "%s holds a value that is not finite, and such a model is not saved; a smaller learning "
                           "rate usually helps",
                           param->name);
        }
    }
    return EK_OK;
}

/* --- running */

/* The old one goes first: the two together might not fit. */
static ek_status make_plan(ek_net *net, int64_t samples, bool training)
{
    ek_plan_destroy(net->plan);
    net->plan = NULL;
    for (int i = 0; i < net->graph.count; i++) net->graph.node[i].workspace = NULL;
    return ek_plan_create(net, samples, training, &net->plan);
}

static ek_status check_sequences(const ek_net *net)
{
    char text[EK_SHAPE_TEXT];
    ek_shape input = ek_net_input_shape(net);
    if (input.rank == 2) return ek_lengths_check(&net->graph);
    return ek_fail(EK_E_SHAPE,
                   "lengths are for sequences, and the net's input is %s, not CxL (such as 8x100)",
                   ek_shape_text(input, text));
}

/* Where each layer's time is to be looked for. */
static void set_times(ek_net *net)
{
    for (int i = 0; net->times && i < net->graph.count; i++) {
        net->times[i].forward_in = ek_graph_runs_in(&net->graph, i, false);
        net->times[i].backward_in = ek_graph_runs_in(&net->graph, i, true);
    }
}

ek_status ek_net_prepare(ek_net *net, int64_t samples, bool training)
{
    if (samples < 1)
        return ek_fail(EK_E_SHAPE, "a batch has at least one sample, not %lld", (long long)samples);
    if (samples > EK_MAX_BATCH)
        return ek_fail(EK_E_SHAPE, "a batch of %lld samples is too large; at most %lld fit",
                       (long long)samples, (long long)EK_MAX_BATCH);
    ek_plan *old = net->plan;
    if (old && old->capacity >= samples && (old->training || !training)) return EK_OK;
    if (old && old->capacity > samples) samples = old->capacity;
    if (old && old->training) training = true;
    return make_plan(net, samples, training);
}

ek_status ek_net_plan_anew(ek_net *net)
{
    mark_fusion(net);
    set_times(net);
    return net->plan ? make_plan(net, net->plan->capacity, net->plan->training) : EK_OK;
}

ek_status ek_net_use_lengths(ek_net *net, bool on)
{
    if (net->lengths == on) return EK_OK;
    if (on) EK_TRY(check_sequences(net));
    net->lengths = on;
    return ek_net_plan_anew(net);
}

ek_status ek_net_keep_values(ek_net *net, bool on)
{
    if (net->keeps == on) return EK_OK;
    net->keeps = on;
    return ek_net_plan_anew(net);
}

ek_status ek_net_share(ek_net *net, bool on)
{
    if (net->shared == on) return EK_OK;
    net->shared = on;
    return ek_net_plan_anew(net);
}

int32_t *ek_net_lengths(ek_net *net) { return net->lengths ? net->plan->lengths.of[0] : NULL; }

const int32_t *ek_net_layer_lengths(const ek_net *net, int layer)
{
    return net->lengths ? net->plan->lengths.of[layer] : NULL;
}

ek_status ek_net_check_lengths(const ek_net *net, int64_t n, const int32_t *lengths)
{
    if (!lengths) return EK_OK;
    EK_TRY(check_sequences(net));
    int64_t most = ek_net_input_shape(net).dim[1];
    for (int64_t i = 0; i < n; i++) {
        if (lengths[i] < 1 || lengths[i] > most)
            return ek_fail(EK_E_ARGUMENT, "lengths[%lld] is %d; the net's sequences have 1 to %lld positions",
                           (long long)i, (int)lengths[i], (long long)most);
    }
    return EK_OK;
}

void ek_net_set_lengths(ek_net *net, int64_t n, const int32_t *lengths)
{
    int32_t *to = ek_net_lengths(net);
    for (int64_t i = 0; to && i < n; i++)
        to[i] = lengths ? lengths[i] : (int32_t)ek_net_input_shape(net).dim[1];
}

float *ek_net_input(ek_net *net) { return net->plan->input; }
const float *ek_net_logits(ek_net *net) { return net->plan->logits; }
float *ek_net_output_grad(ek_net *net) { return net->plan->output_grad; }

ek_pixels ek_net_pixels(const ek_net *net) { return ek_input_pixels(&net->graph.node[0]); }

typedef struct laying {
    ek_net *net;
    int64_t n, features;
    const float *rows;
    float *to_rows;
    ek_pixels pixels;
} laying;

static void input_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const laying *w = argument;
    int64_t at = block * EK_LANES * w->features, run = w->features / w->pixels.channels * EK_LANES;
    float *lanes = ek_net_input(w->net) + at;
    w->net->context->kernels->rows_to_lanes(w->features, ek_live(w->n, block), w->rows + at, lanes);
    for (int c = 0; c < w->pixels.channels; c++, lanes += run) {
        if (w->pixels.mean[c] == 0 && w->pixels.std[c] == 1) continue;
        for (int64_t i = 0; i < run; i++) lanes[i] = ek_pixel(&w->pixels, c, lanes[i]);
    }
}

void ek_net_set_input(ek_net *net, int64_t n, const float *x)
{
    laying w = {.net = net, .n = n, .features = ek_shape_count(ek_net_input_shape(net)), .rows = x, .pixels = ek_net_pixels(net)};
    ek_net_clock_start(net);
    ek_pool_run(net->context->pool, ek_blocks(n), input_piece, &w);
    ek_net_set_lengths(net, n, NULL);
    ek_net_clock_lap(net, 0, false);
}

/* Samples are independent of each other, so that a large batch may be cut. */
static bool independent(const ek_net *net, ek_mode mode)
{
    if (mode == EK_MODE_TRAINING) return false;
    for (int i = 0; i < net->graph.count; i++) {
        const ek_node *node = &net->graph.node[i];
        if (ek_is_batchnorm(node) && !ek_batchnorm_options(node).track) return false;
    }
    return true;
}

static void output_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const laying *w = argument;
    int64_t at = block * EK_LANES * w->features;
    w->net->context->kernels->lanes_to_rows(w->features, ek_live(w->n, block), w->net->plan->output + at, w->to_rows + at);
}

static void read_output(ek_net *net, int64_t n, float *y)
{
    laying w = {.net = net, .n = n, .features = ek_shape_count(ek_net_output_shape(net)), .to_rows = y};
    ek_pool_run(net->context->pool, ek_blocks(n), output_piece, &w);
}

ek_status ek_net_forward(ek_net *net, ek_mode mode, int64_t n, const float *x, float *y)
{
    return ek_net_forward_lengths(net, mode, n, x, NULL, y);
}

ek_status ek_net_forward_lengths(ek_net *net, ek_mode mode, int64_t n, const float *x, const int32_t *lengths,
                                 float *y)
{
    enum { CUT = 512 };
    if (!net || !x || !y)
        return ek_fail(EK_E_ARGUMENT, "ek_net_forward needs a net, an input and room for the output");
    EK_TRY(ek_net_check_lengths(net, n, lengths));
    EK_TRY(ek_net_use_lengths(net, lengths));
    int64_t each = independent(net, mode) && n > CUT ? CUT : n;
    EK_TRY(ek_net_prepare(net, each, false));
    int64_t in = ek_shape_count(ek_net_input_shape(net)), out = ek_shape_count(ek_net_output_shape(net));
    for (int64_t at = 0; at < n; at += each) {
        int64_t size = n - at < each ? n - at : each;
        ek_net_set_input(net, size, x + at * in);
        if (lengths) ek_net_set_lengths(net, size, lengths + at);
        EK_TRY(ek_net_run_alone(net, size, mode));
        read_output(net, size, y + at * out);
    }
    return EK_OK;
}

ek_status ek_net_time_layers(ek_net *net, ek_layer_time *times)
{
    if (!net) return ek_fail(EK_E_ARGUMENT, "ek_net_time_layers needs a net");
    if (times && net->context->reference)
        return ek_fail(EK_E_UNSUPPORTED, "the reference (EVENKEEL_ISA=reference) runs a net as a whole and "
                                         "knows no times of layers");
    for (int i = 0; times && i < net->graph.count; i++) times[i] = (ek_layer_time){0};
    net->times = times;
    set_times(net);
    return EK_OK;
}
