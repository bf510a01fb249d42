#include "commands.h"
#include "common.h"
#include "output.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *net;
    int64_t batch, threads;
    bool json;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("NET", net, "A shipped net's name, a net text's path or a model file."),
    ROW_HEADING("What to reckon with:"),
    ROW_INTEGER("batch", "N", batch, 1, 1e6, "Batch size that the memory is given for."),
    ROWS_COMMON,
};

typedef struct totals {
    int64_t parameters, buffers, multiply_adds;
    int redundant;
} totals;

static totals add_up(const ek_net *net)
{
    totals sum = {0};
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        sum.parameters += layer.parameters;
        sum.buffers += layer.buffers;
        sum.multiply_adds += layer.multiply_adds;
        sum.redundant += layer.redundant_bias;
    }
    return sum;
}

static json_t *layer_json(const ek_layer_info *layer)
{
    json_t *object = json_object(), *inputs = json_array();
    for (int i = 0; i < 2; i++) {
        if (layer->inputs[i] >= 0) json_array_append_new(inputs, json_integer(layer->inputs[i]));
    }
    json_object_set_new(object, "label", json_string(layer->label));
    json_object_set_new(object, "op", json_string(layer->op));
    json_object_set_new(object, "options", json_string(layer->options));
    json_object_set_new(object, "inputs", inputs);
    json_object_set_new(object, "output", cli_json_shape(layer->output));
    json_object_set_new(object, "parameters", json_integer(layer->parameters));
    json_object_set_new(object, "buffers", json_integer(layer->buffers));
    json_object_set_new(object, "multiply_adds", json_integer(layer->multiply_adds));
    json_object_set_new(object, "redundant_bias", json_boolean(layer->redundant_bias));
    return object;
}

/* Of a step and of a run. False: it cannot be told, which was said. */
static bool find_memory(const settings *s, const ek_net *net, size_t *training, size_t *inference)
{
    *training = ek_net_memory(net, s->batch, EK_MODE_TRAINING);
    *inference = *training ? ek_net_memory(net, s->batch, EK_MODE_INFERENCE) : 0;
    if (*training && *inference) return true;
    cli_fail_status();
    return false;
}

static int print_json(const settings *s, const ek_net *net)
{
    size_t training, inference;
    if (!find_memory(s, net, &training, &inference)) return CLI_FAILED;
    totals sum = add_up(net);
    json_t *answer = json_object(), *layers = json_array(), *notes = json_array();
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        json_array_append_new(layers, layer_json(&layer));
    }
    json_object_set_new(answer, "net", cli_json_text(s->net));
    json_object_set_new(answer, "input", cli_json_shape(ek_net_input_shape(net)));
    json_object_set_new(answer, "output", cli_json_shape(ek_net_output_shape(net)));
    json_object_set_new(answer, "layers", layers);
    json_object_set_new(answer, "parameters", json_integer(sum.parameters));
    json_object_set_new(answer, "buffers", json_integer(sum.buffers));
    json_object_set_new(answer, "multiply_adds", json_integer(sum.multiply_adds));
    json_object_set_new(answer, "batch", json_integer(s->batch));
    json_object_set_new(answer, "memory_training", json_integer((json_int_t)training));
    json_object_set_new(answer, "memory_inference", json_integer((json_int_t)inference));
    json_object_set_new(answer, "text", json_string(ek_net_text(net)));
    for (int i = 0; i < ek_net_note_count(net); i++) json_array_append_new(notes, cli_json_text(ek_net_note(net, i)));
    json_object_set_new(answer, "notes", notes);
    return cli_json_answer(answer);
}

/* A count, or nothing where there is none. */
static const char *cell(char text[CLI_TEXT_SIZE], int64_t count)
{
    return count ? cli_count(text, count) : "";
}

/* As in a net text: the operator, a second layer that it reads, its options, and the first layer that it
 * reads where that is not the one before it. */
static void describe(const ek_net *net, int index, const ek_layer_info *layer, char *text, size_t size)
{
    int first = layer->inputs[0], second = layer->inputs[1];
    bool branches = first >= 0 && first != index - 1;
    snprintf(text, size, "%s%s%s%s%s%s%s", layer->op, second >= 0 ? " " : "",
             second >= 0 ? ek_net_layer(net, second).label : "", layer->options[0] ? " " : "", layer->options,
             branches ? " from=" : "", branches ? ek_net_layer(net, first).label : "");
}

static void print_layers(const ek_net *net)
{
    cli_table table;
    cli_table_begin(&table, "label|layer|>output|>parameters||>multiply-adds");
    for (int i = 0; i < ek_net_layer_count(net); i++) {
        ek_layer_info layer = ek_net_layer(net, i);
        char what[256], shape[CLI_TEXT_SIZE], parameters[CLI_TEXT_SIZE], work[CLI_TEXT_SIZE];
        describe(net, i, &layer, what, sizeof what);
        cli_table_row(&table, layer.label, what, cli_shape(shape, layer.output),
                      cell(parameters, layer.parameters), layer.redundant_bias ? "*" : "",
                      cell(work, layer.multiply_adds));
    }
    cli_table_print(&table);
    cli_table_free(&table);
}

static int print(const settings *s, const ek_net *net)
{
    if (s->json) return print_json(s, net);
    totals sum = add_up(net);
    char text[CLI_TEXT_SIZE], to_train[CLI_TEXT_SIZE];
    size_t training, inference;
    if (!find_memory(s, net, &training, &inference)) return CLI_FAILED;
    print_layers(net);
    printf("\nparameters     %s", cli_count(text, sum.parameters));
    if (sum.buffers) printf(", and %s running statistics", cli_count(text, sum.buffers));
    printf("\nmultiply-adds  %s a sample, forward\n", cli_count(text, sum.multiply_adds));
    printf("memory         %s to train, %s to run, at batch %lld\n",
           cli_bytes(to_train, (double)training), cli_bytes(text, (double)inference), (long long)s->batch);
    if (sum.redundant)
        printf("* its bias is redundant: the normalization that follows subtracts it again, so it is\n"
               "  neither computed nor trained, and stands as zeros in the model file\n");
    if (ek_net_note_count(net)) putchar('\n');
    for (int i = 0; i < ek_net_note_count(net); i++) {
        fputs("- ", stdout);
        cli_print_wrapped_at(ek_net_note(net, i), 2, 2);
    }
    return CLI_DONE;
}

static int run(int argc, char **argv)
{
    settings s = {.batch = 128};
    int code;
    if (!cli_parse(&cli_summary, argc, argv, &s, &code)) return code;
    cli_model model;
    code = cli_model_open(&model, s.net, s.threads) ? print(&s, model.net) : CLI_FAILED;
    cli_model_close(&model);
    return code;
}

const cli_command cli_summary = {
    .name = "summary",
    .synopsis = "NET|MODEL [options]",
    .brief = "shows a net's layers, shapes, parameters and memory",
    .about = "Shows a net layer by layer: the shape that each gives for one sample, its trained parameters, "
             "and the multiply-adds of a forward pass. Biases that a normalization makes redundant "
             "are marked.",
    .examples = "  evenkeel summary lenet-bn\n"
                "  evenkeel summary my.net --batch 32\n"
                "  evenkeel summary lenet.safetensors --json\n",
    .options = options,
    .run = run,
};
