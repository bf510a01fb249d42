#include "commands.h"
#include "common.h"
#include "output.h"
#include "picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *model, *layer;
    bool all, json;
    int64_t threads;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx)."),
    ROW_HEADING("What to show:"),
    ROW_TEXT("layer", "LABEL", layer,
             "Only this layer; any layer with parameters, not just normalizations."),
    ROW_FLAG("all", all, "Every value, not just the first 16 of each tensor."),
    ROWS_COMMON,
};

static const char *role_name(ek_role role)
{
    switch (role) {
    case EK_ROLE_WEIGHT: return "weight";
    case EK_ROLE_BIAS: return "bias";
    case EK_ROLE_GAMMA: return "gamma";
    case EK_ROLE_BETA: return "beta";
    case EK_ROLE_RUNNING_MEAN: return "running_mean";
    case EK_ROLE_RUNNING_VAR: return "running_var";
    case EK_ROLE_COUNTER: return "num_batches_tracked";
    }
    return "";
}

typedef struct range {
    int64_t count;
    double least, mean, most;
} range;

static range range_of(const ek_tensor *tensor)
{
    range r = {.count = cli_numbers(tensor->shape), .least = INFINITY, .most = -INFINITY};
    for (int64_t i = 0; i < r.count; i++) {
        double value = (double)tensor->data[i];
        r.mean += value / (double)r.count;
        /* Written so that a NaN stays. */
        if (!(value >= r.least)) r.least = value;
        if (!(value <= r.most)) r.most = value;
    }
    return r;
}

/* Whether a layer is to be shown: the one asked for, or else each normalization that has something to show. */
static bool is_wanted(const settings *s, const ek_layer_info *layer)
{
    return s->layer ? strcmp(layer->label, s->layer) == 0 : layer->normalizes && layer->parameters + layer->buffers > 0;
}

/* The first tensor of a layer, looked for from the tensor `from` of this layer or one before on: a search
 * from the beginning for each would take hours for a net of thousands. */
static int first_tensor(const ek_net *net, int layer, int from)
{
    int owner;
    while ((owner = ek_net_tensor(net, from).layer) >= 0 && owner < layer) from++;
    return from;
}

/* --- JSON */

static json_t *tensor_json(const ek_tensor *tensor)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(tensor->name));
    json_object_set_new(object, "role", json_string(role_name(tensor->role)));
    if (!tensor->data) {
        json_object_set_new(object, "value", json_integer(*tensor->counter));
        return object;
    }
    range r = range_of(tensor);
    json_object_set_new(object, "shape", cli_json_shape(tensor->shape));
    cli_json_number(object, "min", r.least);
    cli_json_number(object, "mean", r.mean);
    cli_json_number(object, "max", r.most);
    json_object_set_new(object, "values", cli_json_floats(tensor->data, r.count));
    return object;
}

static int print_json(const settings *s, const ek_net *net)
{
    json_t *answer = json_object(), *layers = json_array();
    int first = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        if (!is_wanted(s, &layer)) continue;
        json_t *object = json_object(), *tensors = json_array();
        ek_tensor tensor;
        first = first_tensor(net, i, first);
        for (int t = first; (tensor = ek_net_tensor(net, t)).layer == i; t++)
            json_array_append_new(tensors, tensor_json(&tensor));
        json_object_set_new(object, "label", json_string(layer.label));
        json_object_set_new(object, "op", json_string(layer.op));
        json_object_set_new(object, "options", json_string(layer.options));
        json_object_set_new(object, "tensors", tensors);
        json_array_append_new(layers, object);
    }
    json_object_set_new(answer, "model", cli_json_text(s->model));
    json_object_set_new(answer, "layers", layers);
    return cli_json_answer(answer);
}

/* --- for people */

static void print_values(const ek_tensor *tensor, int64_t count, bool all)
{
    enum { FIRST = 16, A_LINE = 8 };
    int64_t shown = all || count <= FIRST ? count : FIRST;
    for (int64_t i = 0; i < shown; i++)
        printf("%s%9.4g%s", i % A_LINE ? " " : "    ", (double)tensor->data[i],
               i % A_LINE == A_LINE - 1 || i == shown - 1 ? "\n" : "");
    if (shown < count) printf("    ... %lld more (--all)\n", (long long)(count - shown));
}

static void print_tensor(const ek_tensor *tensor, bool all)
{
    range r = range_of(tensor);
    char picture[CLI_PICTURE_BYTES];
    printf("  %-13s min %-10.4g mean %-10.4g max %-10.4g %s\n", role_name(tensor->role), r.least, r.mean, r.most,
           cli_histogram(picture, tensor->data, r.count));
    print_values(tensor, r.count, all);
}

/* `tensors`: the index of its first. */
static void print_layer(const settings *s, const ek_net *net, int index, const ek_layer_info *layer,
                        int tensors)
{
    char shape[CLI_TEXT_SIZE];
    ek_tensor tensor;
    printf("%s  %s%s%s, output %s", layer->label, layer->op, layer->options[0] ? " " : "", layer->options,
           cli_shape(shape, layer->output));
    for (int t = tensors; (tensor = ek_net_tensor(net, t)).layer == index; t++) {
        if (tensor.counter) printf(", %lld batches tracked", (long long)*tensor.counter);
    }
    putchar('\n');
    for (int t = tensors; (tensor = ek_net_tensor(net, t)).layer == index; t++) {
        if (tensor.data) print_tensor(&tensor, s->all);
    }
}

static void print(const settings *s, const ek_net *net)
{
    bool first = true;
    int tensors = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        if (!is_wanted(s, &layer)) continue;
        if (!first) putchar('\n');
        first = false;
        tensors = first_tensor(net, i, tensors);
        print_layer(s, net, i, &layer, tensors);
    }
    if (first) printf("%s has no normalization with parameters\n", s->model);
}

/* That the label asked for exists; its absence is said with the nearest one. */
static bool check_label(const settings *s, const ek_net *net)
{
    enum { MAX_LABELS = 1024 };
    const char *labels[MAX_LABELS];
    int count = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        const char *label = ek_net_layer(net, i).label;
        if (strcmp(label, s->layer) == 0) return true;
        if (label[0] && count < MAX_LABELS) labels[count++] = label;
    }
    const char *nearest = cli_nearest(s->layer, labels, count);
    if (nearest) {
        cli_fail("%s has no layer '%s'; did you mean '%s'?", s->model, s->layer, nearest);
    } else {
        cli_fail("%s has no layer '%s'; evenkeel summary %s lists them", s->model, s->layer, s->model);
    }
    return false;
}

static int run(int argc, char **argv)
{
    settings s = {0};
    int code;
    if (!cli_parse(&cli_inspect, argc, argv, &s, &code)) return code;
    cli_model model;
    code = CLI_FAILED;
    if (cli_model_open(&model, s.model, s.threads) && (!s.layer || check_label(&s, model.net))) {
        code = CLI_DONE;
        if (s.json) {
            code = print_json(&s, model.net);
        } else {
            print(&s, model.net);
        }
    }
    cli_model_close(&model);
    return code;
}

const cli_command cli_inspect = {
    .name = "inspect",
    .synopsis = "MODEL [options]",
    .brief = "shows gamma, beta and running statistics, layer by layer",
    .about = "Shows what a model's normalizations have learned, layer by layer: scale (gamma) and shift (beta), and of "
             "batch normalization the running mean and variance that it normalizes by outside training; for each "
             "the smallest, mean and largest value, a histogram from the smallest to the largest, then the values, channel "
             "by channel (of layernorm and rmsnorm number by number).",
    .examples = "  evenkeel inspect lenet.safetensors\n"
                "  evenkeel inspect lenet.safetensors --layer net.1 --all\n"
                "  evenkeel inspect lenet.safetensors --json\n",
    .options = options,
    .run = run,
};
