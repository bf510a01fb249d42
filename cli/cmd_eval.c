#include "commands.h"
#include "common.h"
#include "output.h"

#include <math.h>

typedef struct settings {
    const char *model, *data;
    int split; /* ek_split */
    int64_t batch, threads;
    bool json;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx)."),
    ROW_HEADING("Data:"),
    ROW_REQUIRED("data", "DATA", data,
                 "Labelled data, as for train: a name, a folder (of files, or of images), x.npy,y.npy or a CSV file."),
    ROW_CHOICE("split", "any|train|test", split,
               "Which part; any is the test part where there is one, else all."),
    ROW_INTEGER("batch", "N", batch, 1, 1e6, "Samples taken at a time."),
    ROWS_COMMON,
};

static int print(const settings *s, const ek_metrics *metrics)
{
    double rate = metrics->seconds > 0 ? (double)metrics->count / metrics->seconds : NAN;
    int64_t correct = llround(metrics->accuracy * (double)metrics->count);
    if (s->json) {
        json_t *answer = json_object();
        json_object_set_new(answer, "model", cli_json_text(s->model));
        json_object_set_new(answer, "data", cli_json_text(s->data));
        json_object_set_new(answer, "count", json_integer(metrics->count));
        cli_json_number(answer, "loss", metrics->loss);
        cli_json_number(answer, "accuracy", metrics->accuracy);
        cli_json_number(answer, "seconds", metrics->seconds);
        cli_json_number(answer, "images_per_second", rate);
        return cli_json_answer(answer);
    }
    if (!isfinite(metrics->loss))
        return cli_fail("the loss is not finite: the model or the data holds extreme values");
    char all[CLI_TEXT_SIZE], right[CLI_TEXT_SIZE], speed[CLI_TEXT_SIZE];
    printf("accuracy  %.4f  (%s of %s)\n", metrics->accuracy, cli_count(right, correct),
           cli_count(all, metrics->count));
    printf("loss      %.4f\n", metrics->loss);
    printf("images/s  %s\n", isfinite(rate) ? cli_count(speed, llround(rate)) : "-");
    return CLI_DONE;
}

static int run(int argc, char **argv)
{
    settings s = {.split = EK_SPLIT_ANY, .batch = 256};
    int code;
    if (!cli_parse(&cli_eval, argc, argv, &s, &code)) return code;

    cli_model model;
    ek_dataset *data = NULL;
    ek_metrics metrics;
    code = CLI_FAILED;
    if (!cli_model_open(&model, s.model, s.threads)) goto done;
    cli_warn_untrained(&model, s.model);
    if (ek_dataset_open(s.data, (ek_split)s.split, &data) != EK_OK ||
        ek_evaluate(model.net, data, s.batch, &metrics) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    code = print(&s, &metrics);
done:
    ek_dataset_destroy(data);
    cli_model_close(&model);
    return code;
}

const cli_command cli_eval = {
    .name = "eval",
    .synopsis = "MODEL --data DATA [options]",
    .brief = "measures a model's loss and accuracy",
    .about = "Measures a model on labelled data as it will be used: with the running statistics of its "
             "batch normalization, dropout off.",
    .examples = "  evenkeel eval lenet.safetensors --data fashion-mnist\n"
                "  evenkeel eval lenet.safetensors --data fashion-mnist --split train\n"
                "  evenkeel eval model.safetensors --data x.npy,y.npy --json\n",
    .options = options,
    .run = run,
    .ranks = true,
};
