#include "before_after.h"
#include "commands.h"
#include "common.h"
#include "output.h"
#include "progress.h"
#include "stop.h"

#include <math.h>
#include <string.h>

typedef struct settings {
    const char *model, *data, *out;
    int64_t samples, seed, threads;
    double bound;
    bool json, quiet;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file, or a net that is read like one."),
    ROW_HEADING("Certificate:"),
    ROW_TEXT("data", "DATA", data,
             "Compare on samples of it too: data as for train, or one IDX or NPY file without labels. With "
             "labels, loss "
             "and accuracy are measured before and after, on the test part where there is one."),
    ROW_INTEGER("samples", "N", samples, 1, 1e9, "So many of each kind of input."),
    ROW_INTEGER("seed", "N", seed, 0, 9e15, "Of the random inputs."),
    ROW_POSITIVE("bound", "X", bound,
                 "The largest difference that is accepted, as a share of the largest output. With a larger "
                 "one nothing is "
                 "written."),
    ROW_HEADING("Files:"),
    ROW_REQUIRED("out", "MODEL", out,
                 "Where the folded model goes (.safetensors, or .onnx for other programs). Replaced only by "
                 "a whole new "
                 "model."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROWS_COMMON,
};

typedef struct job {
    const settings *s;
    cli_model model;
    ek_dataset *data;
    ek_fold *fold;
    cli_before_after measures;
} job;

/* --- words */

static const char *const how_name[] = {
    [EK_FOLD_KEPT] = "kept",           [EK_FOLD_BEFORE] = "before",     [EK_FOLD_AFTER] = "after",
    [EK_FOLD_AFTER_MAP] = "after-map", [EK_FOLD_IDENTITY] = "identity",
};

static const char *const how_text[] = {
    [EK_FOLD_KEPT] = "kept",
    [EK_FOLD_BEFORE] = "the layer before",
    [EK_FOLD_AFTER] = "the layer after",
    [EK_FOLD_AFTER_MAP] = "the layer after, with a bias map",
    [EK_FOLD_IDENTITY] = "changed nothing",
};

static const char *input_text(const char *input)
{
    static const char *const texts[][2] = {
        {"uniform", "random, 0 to 1"}, {"normal", "random, normal"}, {"lengths", "random lengths"},
        {"data", "the data"},          {"double", "in double"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(texts[i][0], input) == 0) return texts[i][1];
    }
    return input;
}

static const char *share_text(char text[CLI_TEXT_SIZE], double share)
{
    *text = '\0';
    if (!isnan(share)) snprintf(text, CLI_TEXT_SIZE, share == 0 ? "0" : "%.1e", share);
    return text;
}

static const char *name_of(const ek_folded *layer) { return *layer->label ? layer->label : layer->op; }

/* By kind: normalizations, affine layers. */
typedef struct tally {
    int all[2], folded[2];
} tally;

static tally tally_of(const ek_fold *fold)
{
    tally t = {0};
    for (int i = 0; i < ek_fold_layer_count(fold); i++) {
        const ek_folded *layer = ek_fold_layer(fold, i);
        bool affine = strcmp(layer->op, "affine") == 0;
        t.all[affine]++;
        t.folded[affine] += layer->how != EK_FOLD_KEPT;
    }
    return t;
}

/* The run with the largest difference for its outputs. */
static const ek_fold_run *worst_of(const ek_fold *fold)
{
    const ek_fold_run *worst = ek_fold_run_at(fold, 0);
    for (int i = 1; i < ek_fold_run_count(fold); i++) {
        if (!(ek_fold_run_at(fold, i)->relative <= worst->relative)) worst = ek_fold_run_at(fold, i);
    }
    return worst;
}

/* --- answers */

static json_t *layer_json(const ek_folded *layer)
{
    json_t *object = json_object();
    json_object_set_new(object, "label", json_string(layer->label));
    json_object_set_new(object, "op", json_string(layer->op));
    json_object_set_new(object, "how", json_string(how_name[layer->how]));
    if (layer->into >= 0) json_object_set_new(object, "into", json_string(layer->into_label));
    if (layer->reason) json_object_set_new(object, "reason", json_string(layer->reason));
    cli_json_number(object, "error", layer->error);
    return object;
}

static json_t *run_json(const ek_fold_run *run)
{
    json_t *object = json_object();
    json_object_set_new(object, "input", json_string(run->input));
    json_object_set_new(object, "samples", json_integer(run->samples));
    cli_json_number(object, "difference", run->difference);
    cli_json_number(object, "relative", run->relative);
    json_object_set_new(object, "sample", json_integer(run->sample));
    json_object_set_new(object, "output", json_integer(run->output));
    cli_json_number(object, "value", run->value);
    cli_json_number(object, "folded", run->folded);
    return object;
}

static int answer_json(const job *j)
{
    const settings *s = j->s;
    json_t *object = json_object(), *layers = json_array(), *runs = json_array();
    tally t = tally_of(j->fold);
    int folded = t.folded[0] + t.folded[1];
    for (int i = 0; i < ek_fold_layer_count(j->fold); i++)
        json_array_append_new(layers, layer_json(ek_fold_layer(j->fold, i)));
    for (int i = 0; i < ek_fold_run_count(j->fold); i++)
        json_array_append_new(runs, run_json(ek_fold_run_at(j->fold, i)));
    json_object_set_new(object, "model", cli_json_text(s->model));
    json_object_set_new(object, "out", cli_json_text(s->out));
    json_object_set_new(object, "folded", json_integer(folded));
    json_object_set_new(object, "kept", json_integer(ek_fold_layer_count(j->fold) - folded));
    cli_json_number(object, "bound", s->bound);
    cli_json_number(object, "relative", worst_of(j->fold)->relative);
    json_object_set_new(object, "layers", layers);
    json_object_set_new(object, "runs", runs);
    if (s->data) json_object_set_new(object, "data", cli_json_text(s->data));
    cli_before_after_json(&j->measures, object);
    return cli_json_answer(object);
}

static void print_folded(const ek_fold *fold, const ek_net *net)
{
    char error[CLI_TEXT_SIZE];
    cli_table table;
    cli_table_begin(&table, "layer|folded into||how|>largest error");
    for (int i = 0; i < ek_fold_layer_count(fold); i++) {
        const ek_folded *layer = ek_fold_layer(fold, i);
        if (layer->how == EK_FOLD_KEPT) continue;
        cli_table_row(&table, name_of(layer), layer->into < 0 ? "-" : layer->into_label,
                      layer->into < 0 ? "" : ek_net_layer(net, layer->into).op, how_text[layer->how],
                      share_text(error, layer->error));
    }
    if (table.cells > table.columns) {
        printf("\n");
        cli_table_print(&table);
    }
    cli_table_free(&table);
}

static void print_kept(const ek_fold *fold)
{
    bool said = false;
    for (int i = 0; i < ek_fold_layer_count(fold); i++) {
        const ek_folded *layer = ek_fold_layer(fold, i);
        if (layer->how != EK_FOLD_KEPT) continue;
        if (!said) printf("\nnot folded:\n");
        said = true;
        cli_print_wrapped_at(layer->reason, printf("  %s:", name_of(layer)), 4);
    }
}

static void print_runs(const ek_fold *fold)
{
    char text[5][CLI_TEXT_SIZE];
    cli_table table;
    cli_table_begin(&table, "input|>samples|>largest difference|>of the largest output|>at sample|>output");
    for (int i = 0; i < ek_fold_run_count(fold); i++) {
        const ek_fold_run *run = ek_fold_run_at(fold, i);
        bool differs = run->difference > 0;
        snprintf(text[3], CLI_TEXT_SIZE, differs ? "%lld" : "-", (long long)run->sample);
        snprintf(text[4], CLI_TEXT_SIZE, differs ? "%lld" : "-", (long long)run->output);
        cli_table_row(&table, input_text(run->input), cli_count(text[0], run->samples),
                      share_text(text[1], run->difference), share_text(text[2], run->relative), text[3],
                      text[4]);
    }
    printf("\n");
    cli_table_print(&table);
    cli_table_free(&table);
}

static int answer(const job *j)
{
    if (j->s->json) return answer_json(j);
    char bound[CLI_TEXT_SIZE];
    tally t = tally_of(j->fold);
    printf("%s: %d of %d normalization%s", j->s->model, t.folded[0], t.all[0], t.all[0] == 1 ? "" : "s");
    if (t.all[1] > 0) printf(" and %d of %d affine layer%s", t.folded[1], t.all[1], t.all[1] == 1 ? "" : "s");
    printf(" folded\n");
    print_folded(j->fold, j->model.net);
    print_kept(j->fold);
    print_runs(j->fold);
    printf("within the bound of %s\n", share_text(bound, j->s->bound));
    cli_before_after_print(&j->measures);
    printf("\nmodel: %s\n", j->s->out);
    return CLI_DONE;
}

/* --- the work */

static ek_status fold(job *j, cli_progress *progress)
{
    const settings *s = j->s;
    ek_fold_options o = ek_fold_options_default();
    o.data = j->data;
    o.samples = s->samples;
    o.bound = s->bound;
    o.seed = (uint64_t)s->seed;
    o.progress = cli_progress_work;
    o.user = progress;
    ek_status status = ek_fold_create(j->model.net, &o, &j->fold);
    cli_before_after *m = &j->measures;
    if (status == EK_OK && ek_fold_holds(j->fold)) {
        status = cli_before_after_measure(m, j->model.net, 256, &m->before);
        if (status == EK_OK) status = cli_before_after_measure(m, ek_fold_net(j->fold), 256, &m->after);
    }
    cli_progress_clear(progress);
    return status;
}

static int refuse(const job *j)
{
    const ek_fold_run *worst = worst_of(j->fold);
    return cli_fail(
        "the folded net is not the same: on input '%s' (sample %lld) output %lld is %.9g and was %.9g, a "
        "difference of %.2g of the largest output, where %.2g is allowed (--bound); nothing was written",
        input_text(worst->input), (long long)worst->sample, (long long)worst->output, worst->folded,
        worst->value, worst->relative, j->s->bound);
}

static ek_status open_data(job *j)
{
    if (!j->s->data) return EK_OK;
    ek_status status = cli_open_any_data(j->s->data, EK_SPLIT_ANY, j->model.net, &j->data);
    return status == EK_OK ? cli_before_after_open(&j->measures, j->s->data, j->data) : status;
}

static int run(int argc, char **argv)
{
    settings s = {.samples = 64, .seed = 1, .bound = 1e-4};
    int code;
    if (!cli_parse(&cli_fold, argc, argv, &s, &code)) return code;
    const char *lost = cli_would_lose(s.out, s.data, s.model);
    if (lost) return cli_usage_error(&cli_fold, "%s", lost);
    if (cli_same_file(s.out, s.model))
        return cli_usage_error(
            &cli_fold, "a folded model can no longer be trained as before; give --out a file of its own");
    if (!cli_is_model_name(s.out))
        return cli_usage_error(&cli_fold, "a model is a .safetensors or .onnx file, not %s", s.out);
    job j = {.s = &s};
    cli_progress progress;
    code = CLI_FAILED;
    if (!cli_model_open(&j.model, s.model, s.threads)) goto done;
    cli_warn_untrained(&j.model, s.model);
    if (!cli_can_write(s.out)) goto done;
    cli_stop_listen();
    cli_progress_begin(&progress, s.quiet, &(ek_event){0}, NULL);
    if (open_data(&j) != EK_OK || fold(&j, &progress) != EK_OK)
        cli_fail_status();
    else if (!ek_fold_holds(j.fold))
        refuse(&j);
    else if (cli_save_model(ek_fold_net(j.fold), s.out) != EK_OK)
        cli_fail_status();
    else
        code = answer(&j);
done:
    ek_fold_destroy(j.fold);
    cli_before_after_close(&j.measures);
    ek_dataset_destroy(j.data);
    cli_model_close(&j.model);
    return code;
}

const cli_command cli_fold = {
    .name = "fold",
    .synopsis = "MODEL --out MODEL [options]",
    .brief = "folds batch normalization into the weights beside it, with proof",
    .about = "At inference a batch normalization multiplies each channel by a number and adds another, and "
             "so can the layer "
             "before it, or else the one after it: its weights and bias take both in, and the normalization "
             "is gone. Works "
             "with convolutions of every kind and linear layers, also through dropout, flatten and average "
             "pooling, and with "
             "zero padding, exactly. What cannot be folded stays, and the reason is said. All is computed in "
             "double. Then "
             "both networks run on the same inputs, random and of DATA, and the largest difference is shown, "
             "where it is, "
             "and for each layer; in double too, which tells the rounding of the new weights from that of "
             "running in float. "
             "Nothing is written where a difference exceeds the bound. A folded model is for inference: what "
             "it would learn "
             "in training is no longer normalized.",
    .examples =
        "  evenkeel fold lenet.safetensors --out folded.safetensors\n"
        "  evenkeel fold resnet.safetensors --out folded.onnx --data fashion-mnist\n"
        "  evenkeel fold model.safetensors --out folded.safetensors --samples 1000 --bound 1e-6 --json\n",
    .options = options,
    .run = run,
};
