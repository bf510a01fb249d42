#include "commands.h"
#include "common.h"
#include "output.h"

#include <stdlib.h>

typedef struct settings {
    const char *model, *input, *output, *lengths;
    int mode; /* ek_mode */
    int64_t threads;
    bool json;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx)."),
    ROW_HEADING("Data:"),
    ROW_REQUIRED("input", "x.npy", input,
                 "The samples: [n, ...], each of the net's input shape. Bytes count as 0 to 1, other numbers "
                 "as they are."),
    ROW_REQUIRED("output", "y.npy", output, "Where the outputs go: float32 [n, ...]."),
    ROW_TEXT("lengths", "lengths.npy", lengths,
             "For sequences [n, c, l] of unequal lengths: [n] whole numbers, 1 to l. What is beyond a "
             "sample's length "
             "does not matter, and the output is 0 there."),
    ROW_CHOICE("mode", "eval|train", mode,
               "eval normalizes by the running statistics. train normalizes by the statistics of these n "
               "samples and drops out, as a training step would; nothing in the model changes."),
    ROWS_COMMON,
};

/* The next dimension from *i on that is not 1; 1 when there is none. */
static int64_t next_dimension(ek_shape shape, int *i)
{
    while (*i < shape.rank && shape.dim[*i] == 1) ++*i;
    return *i < shape.rank ? shape.dim[(*i)++] : 1;
}

/* Whether samples of the array have the net's input shape. Dimensions of 1 may be missing, and either side
 * may be flat: neither changes the order of the numbers. */
static bool fits(ek_shape array, ek_shape input)
{
    if (array.rank < 1) return false;
    ek_shape sample = {.rank = array.rank - 1};
    for (int i = 0; i < sample.rank; i++) sample.dim[i] = array.dim[i + 1];
    if (cli_numbers(sample) != cli_numbers(input)) return false;
    if (sample.rank == 1 || input.rank == 1) return true;
    for (int i = 0, j = 0; i < sample.rank || j < input.rank;) {
        if (next_dimension(sample, &i) != next_dimension(input, &j)) return false;
    }
    return true;
}

/* [n, output shape] and room for it. */
static float *make_output(const ek_net *net, int64_t n, ek_shape *shape)
{
    ek_shape one = ek_net_output_shape(net);
    *shape = (ek_shape){.rank = one.rank + 1, .dim = {n}};
    if (shape->rank > EK_MAX_RANK) return NULL;
    for (int i = 0; i < one.rank; i++) shape->dim[i + 1] = one.dim[i];
    return calloc((size_t)n, (size_t)cli_numbers(one) * sizeof(float));
}

static int print(const settings *s, ek_shape shape)
{
    static const char *const mode[] = {"eval", "train"};
    if (s->json) {
        json_t *answer = json_object();
        json_object_set_new(answer, "model", cli_json_text(s->model));
        json_object_set_new(answer, "input", cli_json_text(s->input));
        json_object_set_new(answer, "output", cli_json_text(s->output));
        json_object_set_new(answer, "mode", json_string(mode[s->mode]));
        json_object_set_new(answer, "shape", cli_json_shape(shape));
        return cli_json_answer(answer);
    }
    char text[CLI_TEXT_SIZE];
    printf("%s: %s, %s mode\n", s->output, cli_shape(text, shape), mode[s->mode]);
    return CLI_DONE;
}

static int run(int argc, char **argv)
{
    settings s = {.mode = EK_MODE_INFERENCE};
    int code;
    if (!cli_parse(&cli_run, argc, argv, &s, &code)) return code;
    if (cli_same_file(s.output, s.input) || cli_same_file(s.output, s.lengths) || cli_same_file(s.output, s.model))
        return cli_usage_error(&cli_run, "--output needs a file of its own");

    cli_model model;
    ek_shape shape, result;
    float *x = NULL, *y = NULL;
    int32_t *lengths = NULL;
    code = CLI_FAILED;
    if (!cli_model_open(&model, s.model, s.threads)) goto done;
    cli_warn_untrained(&model, s.model);
    if (ek_array_read(s.input, &shape, &x) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    if (!fits(shape, ek_net_input_shape(model.net))) {
        char have[CLI_TEXT_SIZE], want[CLI_TEXT_SIZE];
        cli_fail("%s has shape %s, but %s takes samples of %s: give n samples as [n, ...]", s.input,
                 cli_shape(have, shape), s.model, cli_shape(want, ek_net_input_shape(model.net)));
        goto done;
    }
    if (!cli_read_lengths(&model, s.model, s.lengths, shape.dim[0], &lengths)) goto done;
    if (!cli_can_write(s.output)) goto done;
    y = make_output(model.net, shape.dim[0], &result);
    if (!y) {
        cli_fail("no room for the outputs of %lld samples", (long long)shape.dim[0]);
        goto done;
    }
    if (ek_net_forward_lengths(model.net, (ek_mode)s.mode, shape.dim[0], x, lengths, y) != EK_OK ||
        ek_array_write(s.output, result, y) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    code = print(&s, result);
done:
    free(lengths);
    free(y);
    ek_array_free(x);
    cli_model_close(&model);
    return code;
}

const cli_command cli_run = {
    .name = "run",
    .synopsis = "MODEL --input x.npy --output y.npy [options]",
    .brief = "runs a model on an array, for use in other programs",
    .about = "Runs a model on a NumPy array, all samples in one batch, and writes what its last layer gives "
             "(for a classifier: logits, unless the net ends in softmax).",
    .examples = "  evenkeel run lenet.safetensors --input x.npy --output logits.npy\n"
                "  evenkeel run lenet.safetensors --input x.npy --output y.npy --mode train\n"
                "  evenkeel run speech.safetensors --input x.npy --lengths lengths.npy --output y.npy\n",
    .options = options,
    .run = run,
};
