#include "graph/metadata.h"

#include "core/json.h"
#include "core/memory.h"

#include <string.h>

/* Whom entries are told. */
typedef struct teller {
    ek_tell tell;
    void *user;
} teller;

/* Tells JSON under a key, and lets go of it. NULL, or a hole in it, means that memory ran out. */
static ek_status tell_json(const teller *to, const char *key, json_t *json)
{
    ek_text text = {0};
    ek_status status = EK_OK;
    EK_GO(ek_json_write(json, JSON_COMPACT | JSON_REAL_PRECISION(15), &text));
    EK_GO(to->tell(to->user, key, text.data));
done:
    json_decref(json);
    ek_text_free(&text);
    return status;
}

static ek_status tell_classes(const ek_net *net, const teller *to)
{
    json_t *names = json_array();
    for (int i = 0; i < net->class_count; i++) {
        if (json_array_append_new(names, json_string(net->class_name[i])) == 0) continue;
        json_decref(names);
        return ek_fail(EK_E_MEMORY, "out of memory for the names of the model's classes");
    }
    return tell_json(to, EK_CLASSES_KEY, names);
}

/* What a normalization does beside eps and the running statistics, as the net text says it, where it does it. */
static int add_options(const ek_node *node, json_t *layer)
{
    static const char *const told[] = {"track", "frozen", "ghost", "r_max", "d_max", "renorm_steps"};
    int failed = 0;
    for (int i = 0; node->op->attrs[i].name; i++) {
        const ek_attr_spec *spec = &node->op->attrs[i];
        double value = node->attr[i].v[0];
        for (size_t k = 0; k < sizeof told / sizeof *told; k++) {
            if (strcmp(spec->name, told[k]) || value == spec->fallback) continue;
            json_t *json = spec->type == EK_ATTR_BOOL    ? json_boolean(value != 0)
                           : spec->type == EK_ATTR_COUNT ? json_integer((json_int_t)value)
                                                         : json_real(value);
            failed |= json_object_set_new(layer, spec->name, json);
        }
    }
    return failed;
}

/* The conventions by layer, for readers of other frameworks; the net text holds them for this one. */
static ek_status tell_conventions(const ek_net *net, const teller *to)
{
    json_t *layers = json_object();
    int failed = 0;
    for (int i = 0; i < net->graph.count; i++) {
        const ek_node *node = &net->graph.node[i];
        if (!ek_is_batchnorm(node)) continue;
        ek_batch_norm_options o = ek_batchnorm_options(node);
        json_t *layer = json_pack("{s:f, s:o, s:s}", "eps", o.eps, "momentum",
                                  o.cumulative ? json_null() : json_real(o.momentum), "running_var",
                                  o.unbiased_running_var ? "unbiased" : "biased");
        failed |= add_options(node, layer) | json_object_set_new(layers, node->label, layer);
    }
    if (failed || json_object_size(layers) == 0) {
        json_decref(layers);
        return failed ? ek_fail(EK_E_MEMORY, "out of memory for the model's conventions") : EK_OK;
    }
    return tell_json(
        to, "evenkeel.batch_norm",
        json_pack("{s:s, s:s, s:o}", "momentum",
                  "running = (1-momentum)*running + momentum*batch; null: the average of all batches",
                  "running_var", "unbiased: M2/(m-1); biased: M2/m; batches are normalized with M2/m",
                  "layers", layers));
}

ek_status ek_net_each_metadata(const ek_net *net, ek_tell tell, void *user)
{
    teller to = {tell, user};
    for (int i = 0; i < net->metadata_count; i++) EK_TRY(tell(user, net->metadata[i].key, net->metadata[i].value));
    EK_TRY(tell(user, "evenkeel.version", ek_version()));
    EK_TRY(tell(user, EK_NET_KEY, net->graph.text));
    if (net->class_count > 0) EK_TRY(tell_classes(net, &to));
    return tell_conventions(net, &to);
}

ek_status ek_net_take_classes(ek_net *net, const char *text)
{
    if (!text) return EK_OK;
    json_t *json;
    json_error_t error;
    ek_status status = ek_json_read(text, strlen(text), 0, &json, &error);
    if (status == EK_E_MEMORY) return status;
    size_t count = json_array_size(json); /* 0 where it is no array */
    const char **names = NULL;
    EK_GO(EK_NEW(names, count));
    for (size_t i = 0; i < count; i++) names[i] = json_string_value(json_array_get(json, i));
    bool fine = json_is_array(json);
    for (size_t i = 0; i < count; i++) fine &= names[i] != NULL;
    if (fine)
        status = ek_net_set_classes(net, names, (int)count);
    else
        status = ek_fail(EK_E_FORMAT, "its " EK_CLASSES_KEY " is not a JSON array of names");
done:
    ek_free(names);
    json_decref(json);
    return status;
}
