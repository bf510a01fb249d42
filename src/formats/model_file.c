#include "formats/model_file.h"

#include "core/memory.h"
#include "core/text.h"
#include "graph/metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- writing */

static ek_status add_tensors(const ek_net *net, ek_st_writer *writer)
{
    for (int i = 0; i < net->graph.count; i++) {
        for (int k = 0; k < net->graph.node[i].param_count; k++) {
            const ek_param *param = &net->graph.node[i].param[k];
            bool counter = param->role == EK_ROLE_COUNTER;
            const void *data = counter ? (const void *)&param->counter : param->data;
            EK_TRY(ek_st_add(writer, param->name, counter ? EK_NUMBER_I64 : EK_NUMBER_F32, param->shape.rank,
                             param->shape.dim, data));
        }
    }
    return EK_OK;
}

static ek_status add_entry(void *writer, const char *key, const char *value)
{
    return ek_st_add_metadata(writer, key, value);
}

ek_status ek_model_add(const ek_net *net, ek_st_writer *writer)
{
    EK_TRY(ek_net_check_finite(net));
    EK_TRY(add_tensors(net, writer));
    EK_TRY(ek_st_add_metadata(writer, "format", "pt")); /* what PyTorch's loaders ask for */
    return ek_net_each_metadata(net, add_entry, writer);
}

/* --- reading */

/* A parameter of the net, and what the file has for it. */
typedef struct slot {
    ek_node *node;
    ek_param *param;
    const ek_st_tensor *tensor; /* NULL: not in the file */
    float *value;               /* NULL for counters */
    int64_t counter;
} slot;

typedef struct slots {
    slot *slot; /* sorted by name */
    size_t count;
    float *memory;
} slots;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const slot *)a)->param->name, ((const slot *)b)->param->name);
}
static int name_of(const void *name, const void *at) { return strcmp(name, ((const slot *)at)->param->name); }
static slot *find(const slots *s, const char *name)
{
    return bsearch(name, s->slot, s->count, sizeof *s->slot, name_of);
}

static ek_status make_slots(ek_net *net, slots *out)
{
    size_t numbers = 0;
    EK_TRY(EK_NEW(out->slot, (size_t)ek_net_tensor_count(net)));
    for (int i = 0; i < net->graph.count; i++) {
        ek_node *node = &net->graph.node[i];
        for (int k = 0; k < node->param_count; k++) {
            out->slot[out->count++] = (slot){.node = node, .param = &node->param[k]};
            numbers += (size_t)node->param[k].count;
        }
    }
    if (out->count > 0) qsort(out->slot, out->count, sizeof *out->slot, by_name);
    EK_TRY(EK_NEW(out->memory, numbers));
    float *at = out->memory;
    for (size_t i = 0; i < out->count; i++) {
        if (out->slot[i].param->role == EK_ROLE_COUNTER) continue;
        out->slot[i].value = at;
        at += out->slot[i].param->count;
    }
    return EK_OK;
}

/* "a, b, c, d, e and 3 more" */
static void add_names(ek_text *text, const char *const *names, int count)
{
    enum { SHOWN = 5 };
    for (int i = 0; i < count && i < SHOWN; i++) ek_text_add(text, "%s%.80s", i ? ", " : "", names[i]);
    if (count > SHOWN) ek_text_add(text, " and %d more", count - SHOWN);
}

static ek_status fail_names(const char *const *missing, int missing_count, const char *const *extra,
                            int extra_count)
{
    ek_text text = {0};
    if (missing_count) {
        ek_text_add(&text, "the file lacks ");
        add_names(&text, missing, missing_count);
    }
    if (extra_count) {
        ek_text_add(&text, missing_count ? ", and has " : "the file has ");
        add_names(&text, extra, extra_count);
        ek_text_add(&text, ", which the net lacks");
        const char *near = ek_nearest(extra[0], missing, missing_count);
        if (near) ek_text_add(&text, "; is the first meant to be %s?", near);
    }
    ek_status status = text.failed ? ek_text_status(&text) : ek_fail(EK_E_FORMAT, "%s", text.data);
    ek_text_free(&text);
    return status;
}

/* Every tensor finds its parameter, and every parameter, save counters, its tensor. */
static ek_status match(slots *s, const ek_safetensors *file)
{
    static const char state[] = EK_OPTIMIZER_LABEL ".";
    const char **missing = NULL, **extra = NULL;
    int missing_count = 0, extra_count = 0;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(missing, s->count));
    EK_GO(EK_NEW(extra, (size_t)file->count));
    for (int i = 0; i < file->count; i++) {
        const char *name = file->tensor[i].name;
        slot *wanted = find(s, name);
        if (wanted)
            wanted->tensor = &file->tensor[i];
        else if (strncmp(name, state, strlen(state)))
            extra[extra_count++] = name;
    }
    for (size_t i = 0; i < s->count; i++) {
        const slot *wanted = &s->slot[i];
        if (!wanted->tensor && wanted->param->role != EK_ROLE_COUNTER)
            missing[missing_count++] = wanted->param->name;
    }
    if (missing_count || extra_count) status = fail_names(missing, missing_count, extra, extra_count);
done:
    ek_free(missing);
    ek_free(extra);
    return status;
}

/* "[6,1,5,5]" */
enum { DIMS_TEXT = 24 * EK_SAFETENSORS_MAX_RANK };
static const char *dims_text(int rank, const int64_t *dim, char out[DIMS_TEXT])
{
    size_t used = (size_t)snprintf(out, DIMS_TEXT, "[");
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(out + used, DIMS_TEXT - used, i ? ",%lld" : "%lld", (long long)dim[i]);
    snprintf(out + used, DIMS_TEXT - used, "]");
    return out;
}

static ek_status check_dims(const ek_param *param, const ek_st_tensor *tensor)
{
    bool same = param->shape.rank == tensor->rank;
    for (int i = 0; same && i < tensor->rank; i++) same = param->shape.dim[i] == tensor->dim[i];
    char there[DIMS_TEXT], here[DIMS_TEXT];
    return same ? EK_OK
                : ek_fail(EK_E_SHAPE, "%s is %s in the file, the net needs %s", param->name,
                          dims_text(tensor->rank, tensor->dim, there),
                          dims_text(param->shape.rank, param->shape.dim, here));
}

static ek_status check_values(const ek_param *param, const float *value)
{
    for (int64_t i = 0; i < param->count; i++) {
        if (!isfinite(value[i]))
            return ek_fail(EK_E_NUMERIC, "%s holds a value that is not finite, number %lld", param->name, (long long)i);
        if (param->role == EK_ROLE_RUNNING_VAR && value[i] < 0)
            return ek_fail(EK_E_NUMERIC, "%s holds %g, and a variance is never negative", param->name, (double)value[i]);
    }
    return EK_OK;
}

ek_status ek_model_check(const ek_net *net, const char *path)
{
    for (int i = 0; i < net->graph.count; i++) {
        for (int k = 0; k < net->graph.node[i].param_count; k++) {
            const ek_param *param = &net->graph.node[i].param[k];
            if (!param->data || check_values(param, param->data) == EK_OK) continue;
            ek_fail_in(EK_E_NUMERIC, "%s: ", path);
            return ek_fail(EK_E_NUMERIC, EK_SICK_ADVICE, ek_error(), path);
        }
    }
    return EK_OK;
}

/* Far beyond any training, and far below where counting on would overflow. */
static const int64_t MAX_BATCHES = (int64_t)1 << 53;

static ek_status read_slot(slot *s, bool sick)
{
    if (!s->tensor) return EK_OK; /* a counter of an old file: 0 */
    EK_TRY(check_dims(s->param, s->tensor));
    if (s->param->role != EK_ROLE_COUNTER) {
        EK_TRY(ek_st_to_float(s->tensor, s->value));
        return sick ? EK_OK : check_values(s->param, s->value);
    }
    EK_TRY(ek_st_to_int64(s->tensor, &s->counter));
    if (sick || (s->counter >= 0 && s->counter <= MAX_BATCHES)) return EK_OK;
    return ek_fail(EK_E_NUMERIC, "%s is %lld, which no count of batches can be", s->param->name,
                   (long long)s->counter);
}

/* A redundant bias b adds to what the normalization behind it sees, and a running mean has b in it; this net computes
 * without b. Moved, exactly up to one rounding: running_mean - b. Where no running mean is kept, the batch's or the
 * sample's own takes b away. */
static ek_status move_bias(ek_net *net, const slots *s, const slot *bias, bool sick)
{
    ek_node *norm = ek_graph_redundant_by(&net->graph, bias->node);
    ek_param *param = ek_node_param(norm, EK_ROLE_RUNNING_MEAN);
    const slot *mean = param ? find(s, param->name) : NULL;
    for (int64_t i = 0; mean && i < param->count; i++)
        mean->value[i] = (float)((double)mean->value[i] - bias->value[i]);
    memset(bias->value, 0, (size_t)bias->param->count * sizeof *bias->value);
    return mean && !sick ? check_values(mean->param, mean->value) : EK_OK;
}

ek_status ek_model_take(ek_net *net, const ek_safetensors *file, const char *path, bool sick)
{
    slots s = {0};
    ek_status status = EK_OK;
    EK_GO(make_slots(net, &s));
    EK_GO(match(&s, file));
    for (size_t i = 0; i < s.count; i++) EK_GO(read_slot(&s.slot[i], sick));
    for (size_t i = 0; i < s.count; i++) {
        if (s.slot[i].param->redundant) EK_GO(move_bias(net, &s, &s.slot[i], sick));
    }
    for (size_t i = 0; i < s.count; i++) {
        ek_param *param = s.slot[i].param;
        if (param->role == EK_ROLE_COUNTER)
            param->counter = s.slot[i].counter;
        else
            memcpy(param->data, s.slot[i].value, (size_t)param->count * sizeof *param->data);
    }
done:
    if (status != EK_OK) ek_fail_in(status, "%s: ", path);
    ek_free(s.slot);
    ek_free(s.memory);
    return status;
}

/* --- a net from a file */

/* A text may ask for gigabytes; a file of its parameters has at least a byte for each. */
static ek_status check_size(const char *text, const char *origin, const ek_safetensors *file)
{
    ek_graph graph;
    EK_TRY(ek_graph_parse(text, origin, &graph));
    uint64_t numbers = 0;
    for (int i = 0; i < graph.count; i++) {
        for (int k = 0; k < graph.node[i].param_count; k++) numbers += (uint64_t)graph.node[i].param[k].count;
    }
    ek_graph_free(&graph);
    if (numbers <= file->size) return EK_OK;
    return ek_fail(EK_E_FORMAT, "%s has %llu parameters, more than the file's %zu bytes can hold", origin,
                   (unsigned long long)numbers, file->size);
}

/* What of this program's own is kept, and not told anew as the model is written. */
static bool is_kept(const char *key) { return !strcmp(key, EK_RECALIBRATED_KEY) || !strcmp(key, EK_RUN_KEY); }

/* What others wrote about the model stays with it, in numbers that leave room for what is written here. */
static ek_status keep_metadata(ek_net *net, const ek_safetensors *file)
{
    enum { MOST = 1024 };
    EK_TRY(EK_NEW(net->metadata, (size_t)file->metadata_count));
    for (int i = 0; i < file->metadata_count; i++) {
        bool own = !strncmp(file->metadata[i].key, EK_OWN_KEYS, strlen(EK_OWN_KEYS));
        if (!strcmp(file->metadata[i].key, "format") || (own && !is_kept(file->metadata[i].key))) continue;
        if (net->metadata_count == MOST)
            return ek_fail(EK_E_FORMAT, "its metadata has more than %d entries of others; no more are kept",
                           MOST);
        struct ek_metadata *kept = &net->metadata[net->metadata_count++];
        kept->key = ek_strdup(file->metadata[i].key);
        kept->value = ek_strdup(file->metadata[i].value);
        if (!kept->key || !kept->value) return EK_E_MEMORY;
    }
    return EK_OK;
}

ek_status ek_model_net(ek_context *context, const ek_safetensors *file, const char *path, ek_net **out)
{
    const char *text = ek_safetensors_metadata(file, EK_NET_KEY);
    if (!text)
        return ek_fail(EK_E_FORMAT,
                       "%s has no net text in it (it was written elsewhere): give the net and take the "
                       "parameters with --init %s",
                       path, path);
    ek_net *net = NULL;
    ek_status status = EK_OK;
    char *origin = ek_strf("%s, net text", path);
    if (!origin) return EK_E_MEMORY;
    EK_GO(check_size(text, origin, file));
    EK_GO(ek_net_create(context, text, origin, &net));
    status = ek_net_take_classes(net, ek_safetensors_metadata(file, EK_CLASSES_KEY));
    if (status == EK_OK) status = keep_metadata(net, file);
    if (status == EK_E_FORMAT) ek_fail_in(status, "%s: ", path);
done:
    ek_free(origin);
    if (status == EK_OK)
        *out = net;
    else
        ek_net_destroy(net);
    return status;
}
