#include "before_after.h"
#include "commands.h"
#include "common.h"
#include "output.h"
#include "ranks.h"
#include "progress.h"
#include "stop.h"

#include <math.h>
#include <string.h>

typedef struct settings {
    const char *model, *data, *out;
    int split; /* in the order of splits */
    int64_t batch, threads;
    double blend;
    bool fast, json, quiet;
} settings;

static const ek_split splits[] = {EK_SPLIT_TRAIN, EK_SPLIT_TEST, EK_SPLIT_ANY};

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model,
                "A model file (.safetensors, .onnx), also one whose running statistics are not finite."),
    ROW_HEADING("Data:"),
    ROW_REQUIRED(
        "data", "DATA", data,
        "As for train: a name, a folder, x.npy,y.npy or a CSV file; or one IDX or NPY file without labels."),
    ROW_CHOICE("split", "train|test|any", split,
               "Which part the statistics are of; train is all where there is one part, any the test part "
               "where there "
               "is one."),
    ROW_INTEGER("batch", "N", batch, 1, 1e6,
                "Samples taken at a time; without --fast the result does not depend on it, but for rounding."),
    ROW_HEADING("Statistics:"),
    {ROW_AT(CLI_NUMBER, "blend", blend,
            "New statistics are (1-A) times the old and A times the measured ones."),
     .value = "A", .least = 0, .most = 1, .above = true},
    ROW_FLAG("fast", fast,
             "One pass over the data for all layers, each batch normalized by its own statistics on the way: exact for "
             "layers with no normalization before them, near it for the others, and nearer the larger --batch is."),
    ROW_HEADING("Files:"),
    ROW_REQUIRED("out", "MODEL", out,
                 "Where the mended model goes (.safetensors, or .onnx for other programs); may be MODEL itself. Replaced "
                 "only by a whole new model."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROWS_COMMON,
};

typedef struct job {
    const settings *s;
    cli_model model;
    ek_dataset *data;
    cli_before_after measures;
} job;

static ek_status mend(job *j, cli_progress *progress)
{
    const settings *s = j->s;
    ek_recalibrate_options o = ek_recalibrate_options_default();
    o.batch = s->batch;
    o.blend = s->blend;
    o.fast = s->fast;
    o.progress = cli_progress_work;
    o.user = progress;
    ek_net *net = j->model.net;
    ek_status status = cli_before_after_measure(&j->measures, net, s->batch, &j->measures.before);
    if (status == EK_OK) status = ek_recalibrate(net, j->data, &o);
    if (status == EK_OK) status = cli_before_after_measure(&j->measures, net, s->batch, &j->measures.after);
    cli_progress_clear(progress);
    return status == EK_OK && cli_speaks() ? cli_save_model(net, s->out) : status;
}

static int norms_of(const ek_net *net)
{
    int count = 0;
    for (int i = 0; i < ek_net_tensor_count(net); i++)
        count += ek_net_tensor(net, i).role == EK_ROLE_RUNNING_MEAN;
    return count;
}

static int answer(const job *j)
{
    const settings *s = j->s;
    char a[CLI_TEXT_SIZE];
    if (s->json) {
        json_t *object = json_object();
        json_object_set_new(object, "model", cli_json_text(s->model));
        json_object_set_new(object, "data", cli_json_text(s->data));
        json_object_set_new(object, "out", cli_json_text(s->out));
        json_object_set_new(object, "layers", json_integer(norms_of(j->model.net)));
        json_object_set_new(object, "samples", json_integer(ek_dataset_count(j->data)));
        cli_json_number(object, "blend", s->blend);
        json_object_set_new(object, "fast", json_boolean(s->fast));
        cli_before_after_json(&j->measures, object);
        return cli_json_answer(object);
    }
    printf("%s: %d batch normalizations have the statistics of %s samples of %s\n", s->model,
           norms_of(j->model.net), cli_count(a, ek_dataset_count(j->data)), s->data);
    cli_before_after_print(&j->measures);
    printf("\nmodel: %s\n", s->out);
    return CLI_DONE;
}

static int run(int argc, char **argv)
{
    settings s = {.batch = 128, .blend = 1};
    int code;
    if (!cli_parse(&cli_recalibrate, argc, argv, &s, &code)) return code;
    const char *lost = cli_would_lose(s.out, s.data, s.model);
    if (lost) return cli_usage_error(&cli_recalibrate, "%s", lost);
    if (!cli_is_model_name(s.out))
        return cli_usage_error(&cli_recalibrate, "a model is a .safetensors or .onnx file, not %s", s.out);
    job j = {.s = &s};
    cli_progress progress;
    code = CLI_FAILED;
    if (!cli_model_open_sick(&j.model, s.model, s.threads)) goto done;
    cli_warn_untrained(&j.model, s.model);
    if (cli_speaks() && !cli_can_write(s.out)) goto done;
    cli_stop_listen();
    cli_progress_begin(&progress, s.quiet, &(ek_event){0}, NULL);
    if (cli_open_any_data(s.data, splits[s.split], j.model.net, &j.data) != EK_OK ||
        cli_before_after_open(&j.measures, s.data, j.data) != EK_OK || mend(&j, &progress) != EK_OK)
        cli_fail_status();
    else
        code = answer(&j);
done:
    cli_before_after_close(&j.measures);
    ek_dataset_destroy(j.data);
    cli_model_close(&j.model);
    return code;
}

const cli_command cli_recalibrate = {
    .name = "recalibrate",
    .synopsis = "MODEL --data DATA --out MODEL [options]",
    .brief = "gives batch normalization the statistics of a data set",
    .about = "Measures the mean and variance of what each batch normalization reads, over the whole data set "
             "and not over "
             "single batches, and puts them in the place of its running statistics. It goes through the net "
             "from the "
             "input on, so that each layer is measured on what the mended layers before it give; dropout is "
             "off. That takes a pass over the data for each layer in a row; --fast takes one for all. Weights, "
             "gamma and beta stay. This mends statistics that have not converged, come from other weights or "
             "are lost, and "
             "with --split test or data of another kind it fits a net to that kind. Where the data has "
             "labels, loss and "
             "accuracy are measured before and after, on the test part where there is one. Ctrl-C leaves all "
             "files as "
             "they were.",
    .examples = "  evenkeel recalibrate lenet.safetensors --data fashion-mnist --out mended.safetensors\n"
                "  evenkeel recalibrate model.safetensors --data x.npy --out model.safetensors\n"
                "  evenkeel recalibrate model.safetensors --data camera2.npy,labels.npy --blend 0.3 \\\n"
                "      --out camera2.safetensors\n",
    .options = options,
    .run = run,
    .ranks = true,
};
