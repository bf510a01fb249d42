#include "audit_page.h"
#include "commands.h"
#include "common.h"
#include "output.h"
#include "ranks.h"
#include "progress.h"
#include "stop.h"

#include <math.h>
#include <string.h>

typedef struct settings {
    const char *model, *data, *train, *report;
    int64_t batch, samples, threads;
    bool json, quiet;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx), however sick."),
    ROW_HEADING("Data:"),
    ROW_TEXT("data", "DATA", data,
             "Labelled data that the model has to work on, as for train. Its test part is taken where there "
             "is one, and "
             "its training part is then what the running statistics should be of."),
    ROW_TEXT("train", "DATA", train,
             "The data that the model was trained on, where it is other data; its training part."),
    ROW_INTEGER("samples", "N", samples, 2, 1e9, "At most so many samples of either, drawn by a fixed seed."),
    ROW_INTEGER("batch", "N", batch, 2, 1e6, "Samples taken at a time."),
    ROW_HEADING("Output:"),
    ROW_TEXT("report", "FILE.html", report, "Also write a page with pictures of the same."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROWS_COMMON,
};

typedef struct tally {
    int count[3]; /* by ek_severity */
} tally;

static tally tally_of(const ek_audit *audit)
{
    tally t = {{0}};
    for (int i = 0; i < ek_audit_finding_count(audit); i++) t.count[ek_audit_finding(audit, i)->severity]++;
    return t;
}

/* --- JSON */

static json_t *run_json(ek_audit_run run)
{
    json_t *object = json_object();
    cli_json_number(object, "loss", run.loss);
    cli_json_number(object, "accuracy", run.accuracy);
    return object;
}

static json_t *distance_json(ek_audit_distance d)
{
    json_t *object = json_object();
    cli_json_number(object, "mean", d.mean);
    cli_json_number(object, "var", d.var);
    return object;
}

static json_t *doubles_json(const double *value, int64_t count)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(array, isfinite(value[i]) ? json_real(value[i]) : json_null());
    return array;
}

static json_t *floats_json(const float *value, int64_t count)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(array, isfinite(value[i]) ? json_real((double)value[i]) : json_null());
    return array;
}

static json_t *finding_json(const ek_finding *f)
{
    json_t *object = json_object();
    json_object_set_new(object, "severity", json_string(cli_severity_name[f->severity]));
    json_object_set_new(object, "code", json_string(f->code));
    json_object_set_new(object, "layer", f->layer < 0 ? json_null() : json_string(f->label));
    json_object_set_new(object, "text", cli_json_text(f->text));
    json_object_set_new(object, "evidence", cli_json_text(f->evidence));
    json_object_set_new(object, "mend", cli_json_text(f->mend));
    json_t *channels = json_array();
    for (int i = 0; i < f->channel_count; i++) json_array_append_new(channels, json_integer(f->channels[i]));
    json_object_set_new(object, "channels", channels);
    return object;
}

static json_t *layer_json(const ek_audit_layer *l)
{
    json_t *object = json_object();
    json_object_set_new(object, "label", json_string(l->label));
    json_object_set_new(object, "batches", json_integer(l->batches));
    cli_json_number(object, "eps", l->eps);
    cli_json_number(object, "momentum", l->momentum);
    json_object_set_new(object, "running_mean", floats_json(l->running_mean, l->channels));
    json_object_set_new(object, "running_var", floats_json(l->running_var, l->channels));
    if (!l->mean) return object;
    json_object_set_new(object, "mean", doubles_json(l->mean, l->channels));
    json_object_set_new(object, "var", doubles_json(l->var, l->channels));
    json_object_set_new(object, "distance_inference", distance_json(l->inference));
    json_object_set_new(object, "distance_training", distance_json(l->training));
    json_object_set_new(object, "distance", distance_json(l->mended));
    json_object_set_new(object, "shift", distance_json(l->shift));
    json_object_set_new(object, "swapped", run_json(l->swapped));
    cli_json_number(object, "output_change", l->output_change);
    cli_json_number(object, "share", l->share);
    json_object_set_new(object, "rank", json_integer(l->rank));
    return object;
}

static json_t *measures_json(const ek_audit_measured *m)
{
    json_t *object = json_object();
    json_object_set_new(object, "count", json_integer(m->count));
    json_object_set_new(object, "reference_count", json_integer(m->reference_count));
    json_object_set_new(object, "as_is", run_json(m->as_is));
    json_object_set_new(object, "training_mode", run_json(m->training_mode));
    json_object_set_new(object, "mended", run_json(m->mended));
    json_object_set_new(object, "adapted", run_json(m->adapted));
    cli_json_number(object, "decided_otherwise", m->decided_otherwise);
    cli_json_number(object, "output_change", m->output_change);
    return object;
}

static int answer_json(const settings *s, const ek_audit *audit)
{
    tally t = tally_of(audit);
    json_t *answer = json_object(), *findings = json_array(), *layers = json_array();
    for (int i = 0; i < ek_audit_finding_count(audit); i++)
        json_array_append_new(findings, finding_json(ek_audit_finding(audit, i)));
    for (int i = 0; i < ek_audit_layer_count(audit); i++)
        json_array_append_new(layers, layer_json(ek_audit_layer_at(audit, i)));
    json_object_set_new(answer, "model", cli_json_text(s->model));
    if (s->data) json_object_set_new(answer, "data", cli_json_text(s->data));
    json_object_set_new(answer, "healthy",
                        json_boolean(t.count[EK_SEVERITY_ERROR] + t.count[EK_SEVERITY_WARNING] == 0));
    json_object_set_new(answer, "errors", json_integer(t.count[EK_SEVERITY_ERROR]));
    json_object_set_new(answer, "warnings", json_integer(t.count[EK_SEVERITY_WARNING]));
    json_object_set_new(answer, "notes", json_integer(t.count[EK_SEVERITY_NOTE]));
    json_object_set_new(answer, "findings", findings);
    if (ek_audit_measures(audit))
        json_object_set_new(answer, "measured", measures_json(ek_audit_measures(audit)));
    json_object_set_new(answer, "layers", layers);
    if (s->report) json_object_set_new(answer, "report", cli_json_text(s->report));
    return cli_json_answer(answer);
}

/* --- for people */

static void add_run(cli_table *table, const char *name, ek_audit_run run, const char *what)
{
    char loss[CLI_TEXT_SIZE], accuracy[CLI_TEXT_SIZE];
    cli_table_row(table, name, cli_measure(loss, run.loss), cli_measure(accuracy, run.accuracy), what);
}

static void print_runs(const ek_audit_measured *m, bool apart)
{
    cli_table table;
    cli_table_begin(&table, "normalized by|>loss|>accuracy|");
    add_run(&table, "running statistics", m->as_is, "as the model stands");
    add_run(&table, "each batch's own", m->training_mode, "training mode, dropout on");
    add_run(&table, apart ? "the training data's" : "the data's", m->mended, "as recalibrated");
    if (isfinite(m->adapted.loss) || isfinite(m->adapted.accuracy))
        add_run(&table, "the data's", m->adapted, "as recalibrated on the data itself");
    cli_table_print(&table);
    cli_table_free(&table);
}

static double length_of(ek_audit_distance d) { return hypot(d.mean, d.var); }

static void add_layer(cli_table *table, const ek_audit_layer *l)
{
    char text[7][CLI_TEXT_SIZE];
    snprintf(text[6], CLI_TEXT_SIZE, isfinite(l->share) ? "%.0f%%" : "-", 100 * l->share);
    cli_table_row(table, l->label, cli_measure(text[0], l->mended.mean), cli_measure(text[1], l->mended.var),
                  cli_measure(text[2], length_of(l->training)), cli_measure(text[3], length_of(l->inference)),
                  cli_measure(text[4], length_of(l->shift)), cli_measure(text[5], l->swapped.accuracy),
                  text[6]);
}

/* By what they add to the gap. */
static void print_layers(const ek_audit *audit)
{
    enum { SHOWN = 24 };
    int count = ek_audit_layer_count(audit);
    cli_table table;
    cli_table_begin(
        &table,
        "layer|>means off|>variances off|>in training|>in inference|>data shift|>mended to here|>of the gap");
    for (int rank = 1; rank <= count && rank <= SHOWN; rank++) {
        for (int i = 0; i < count; i++) {
            const ek_audit_layer *l = ek_audit_layer_at(audit, i);
            if (l->rank == rank) add_layer(&table, l);
        }
    }
    putchar('\n');
    cli_table_print(&table);
    cli_table_free(&table);
    if (count > SHOWN) printf("and %d more (--json)\n", count - SHOWN);
}

/* What holds for findings that are alike once, then the evidence of each; the labels of like evidence stand together. */
static int print_findings(const ek_audit *audit, int first)
{
    enum { SHOWN = 6 };
    const ek_finding *f = ek_audit_finding(audit, first);
    int count = ek_audit_finding_count(audit), i = first, lines = 0;
    printf("\n%s: %s\n  %s\n", cli_severity_name[f->severity], f->code, f->text);
    for (; i < count && lines < SHOWN && cli_findings_alike(f, ek_audit_finding(audit, i)); lines++) {
        const ek_finding *one = ek_audit_finding(audit, i);
        printf("  - %s", one->label);
        for (i++; i < count && cli_findings_alike(f, ek_audit_finding(audit, i)) &&
                  !strcmp(ek_audit_finding(audit, i)->evidence, one->evidence);
             i++)
            printf(", %s", ek_audit_finding(audit, i)->label);
        printf("%s%s\n", *one->label ? ": " : "", one->evidence);
    }
    int rest = i;
    while (rest < count && cli_findings_alike(f, ek_audit_finding(audit, rest))) rest++;
    if (rest > i) printf("  - and %d more\n", rest - i);
    printf("  mend: %s\n", f->mend);
    return rest;
}

static void print_count(int count, const char *one) { printf("%d %s%s", count, one, count == 1 ? "" : "s"); }

static int answer(const settings *s, const ek_audit *audit, bool apart)
{
    char a[CLI_TEXT_SIZE], b[CLI_TEXT_SIZE];
    tally t = tally_of(audit);
    const ek_audit_measured *m = ek_audit_measures(audit);
    printf("%s: ", s->model);
    print_count(ek_audit_layer_count(audit), "batch normalization");
    printf(" with running statistics\n");
    if (m) {
        printf("%s: %s samples", s->data, cli_count(a, m->count));
        if (apart) printf(", against %s of the training data", cli_count(b, m->reference_count));
        printf("\n\n");
        print_runs(m, apart);
        print_layers(audit);
    }
    for (int i = 0; i < ek_audit_finding_count(audit);) i = print_findings(audit, i);
    putchar('\n');
    if (ek_audit_finding_count(audit) == 0) {
        printf("nothing found%s\n", s->data ? "" : "; with --data the statistics are measured too");
        return CLI_DONE;
    }
    print_count(t.count[EK_SEVERITY_ERROR], "error");
    printf(", ");
    print_count(t.count[EK_SEVERITY_WARNING], "warning");
    printf(", ");
    print_count(t.count[EK_SEVERITY_NOTE], "note");
    printf("; docs/audit.md explains them\n");
    return CLI_DONE;
}

/* --- the run */

/* The data, and its training part where that is another one. */
static ek_status open_data(const settings *s, ek_dataset **data, ek_dataset **train)
{
    if (!s->data) return EK_OK;
    ek_status status = ek_dataset_open(s->data, EK_SPLIT_ANY, data);
    if (status != EK_OK) return status;
    if (s->train) return ek_dataset_open(s->train, EK_SPLIT_TRAIN, train);
    ek_dataset *test;
    status = ek_dataset_open(s->data, EK_SPLIT_TEST, &test);
    if (status == EK_E_NOT_FOUND) return EK_OK; /* one set */
    if (status == EK_OK) ek_dataset_destroy(test);
    return status == EK_OK ? ek_dataset_open(s->data, EK_SPLIT_TRAIN, train) : status;
}

static ek_status examine(const settings *s, ek_context *context, const ek_dataset *data,
                         const ek_dataset *train, ek_audit **out)
{
    cli_progress progress;
    ek_audit_options o = ek_audit_options_default();
    o.data = data;
    o.train = train;
    o.data_name = s->data;
    o.train_name = s->train;
    o.batch = s->batch;
    o.samples = s->samples;
    o.progress = cli_progress_work;
    o.user = &progress;
    cli_stop_listen();
    cli_progress_begin(&progress, s->quiet, &(ek_event){0}, NULL);
    ek_status status = ek_audit_create(context, s->model, &o, out);
    cli_progress_clear(&progress);
    return status;
}

static int run(int argc, char **argv)
{
    settings s = {.batch = 128, .samples = 10000};
    int code;
    if (!cli_parse(&cli_audit, argc, argv, &s, &code)) return code;
    if (s.train && !s.data)
        return cli_usage_error(&cli_audit, "--train needs --data: the data that the model has to work on");
    if (cli_same_file(s.report, s.model))
        return cli_usage_error(&cli_audit, "the model would be overwritten; name another file for --report");
    const char *lost = cli_would_lose(s.report, s.data, NULL);
    if (!lost) lost = cli_would_lose(s.report, s.train, NULL);
    if (lost) return cli_usage_error(&cli_audit, "%s", lost);
    if (!cli_speaks()) s.report = NULL;
    if (s.report && !cli_can_write(s.report)) return CLI_FAILED;
    ek_context_options o = ek_context_options_default();
    o.threads = s.threads ? (int)s.threads : cli_default_threads();
    o.comm = cli_comm();
    ek_context *context = NULL;
    ek_dataset *data = NULL, *train = NULL;
    ek_audit *audit = NULL;
    code = CLI_FAILED;
    if (!ek_is_model(s.model) && cli_is_file(s.model)) {
        cli_fail("%s is a net text, which has nothing to audit; evenkeel train makes a model of it", s.model);
    } else if (ek_context_create(&o, &context) != EK_OK || open_data(&s, &data, &train) != EK_OK ||
               examine(&s, context, data, train, &audit) != EK_OK ||
               (s.report && cli_audit_page(audit, s.model, s.data, s.report) != EK_OK)) {
        cli_fail_status();
    } else {
        tally t = tally_of(audit);
        code = s.json ? answer_json(&s, audit) : answer(&s, audit, train != NULL);
        if (!s.json && s.report) printf("\nreport: %s\n", s.report);
        if (t.count[EK_SEVERITY_ERROR] + t.count[EK_SEVERITY_WARNING] > 0) code = CLI_FAILED;
    }
    ek_audit_destroy(audit);
    ek_dataset_destroy(train);
    ek_dataset_destroy(data);
    ek_context_destroy(context);
    return code;
}

const cli_command cli_audit = {
    .name = "audit",
    .synopsis = "MODEL [--data DATA] [options]",
    .brief = "finds what is wrong with a model's batch normalization",
    .about = "Examines the batch normalizations of a model: values that cannot be, statistics that were "
             "never trained or have "
             "not converged, dead channels, gains out of line, an eps or a momentum of another convention. "
             "With data it also "
             "measures what each layer reads, exchanges the running statistics for the data's, one layer "
             "after the other, "
             "ranks the layers by what they add to the gap, and says what the likely cause is: statistics "
             "not converged, "
             "momentum or batch too small or too large, data unlike the training data, dropout, or "
             "statistics of another "
             "model. Each finding comes with its evidence and with what mends it. The model is only read. "
             "The exit code is 0 "
             "where nothing is wrong, notes apart, and 1 where something is; it is also 1, with a sentence "
             "on stderr and no "
             "answer on stdout, where the audit itself failed.",
    .examples = "  evenkeel audit lenet.safetensors\n"
                "  evenkeel audit lenet.safetensors --data fashion-mnist --report audit.html\n"
                "  evenkeel audit model.safetensors --data camera2.npy,labels2.npy \\\n"
                "      --train camera1.npy,labels1.npy\n"
                "  evenkeel audit model.safetensors --data folder --json > audit.json || exit 1\n",
    .options = options,
    .run = run,
    .ranks = true,
};
