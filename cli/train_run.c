#include "train_run.h"

#include "epoch_json.h"
#include "output.h"
#include "picture.h"
#include "progress.h"
#include "ranks.h"
#include "stop.h"
#include "train_log.h"
#include "train_metrics.h"
#include "train_pictures.h"
#include "train_record.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef cli_train_plan settings;

/* A run, as its listener sees it. */
typedef struct training {
    const settings *s;
    const cli_model *model;
    cli_progress progress;
    cli_curve loss;
    cli_log log;
    cli_events events;
    cli_metrics metrics;
    json_t *record;
    const char *const *command; /* as given, for the log */
    ek_observer *observer;      /* NULL: nobody asks for pictures */
    json_t *epochs; /* measures of each, for --json */
    ek_event start, last;
    bool checkpointed; /* a checkpoint of this run was written */
    bool unsaved;      /* the last one could not be */
    ek_claim *out, *report, *metrics_file;
    bool failed;       /* the record could not be kept, which was said */
} training;

/* --- options */

/* Whether another option reads or writes this file. */
static bool used_twice(const settings *s, const char *path)
{
    return cli_same_file(path, s->out) || cli_same_file(path, s->checkpoint) || cli_same_file(path, s->resume) ||
           cli_same_file(path, s->net) || cli_same_file(path, s->init) || cli_same_file(path, s->model);
}

/* What single options cannot say: which files go together. */
static const char *files_wrong(const settings *s)
{
    const char *const written[] = {s->out, s->checkpoint, s->log, s->report, s->metrics};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        const char *lost = cli_would_lose(written[i], s->training.data, s->net);
        if (lost) return lost;
    }
    if (s->out && !cli_is_model_name(s->out)) return "a model is a .safetensors or .onnx file: name --out so";
    if (!s->out && !s->checkpoint && !s->model) return "nothing would be kept: give --out MODEL (or --checkpoint FILE)";
    if (cli_same_file(s->out, s->model)) return "--out would replace the model that the new one is compared with";
    if (cli_same_file(s->checkpoint, s->model)) return "--checkpoint would replace the model";
    if (s->checkpoint_steps && !s->checkpoint) return "--checkpoint-steps needs --checkpoint FILE";
    if (cli_same_file(s->out, s->checkpoint)) return "--out and --checkpoint must be two files";
    if (used_twice(s, s->log) || cli_same_file(s->log, s->report)) return "--log needs a file of its own";
    if (used_twice(s, s->metrics) || cli_same_file(s->metrics, s->log) || cli_same_file(s->metrics, s->report))
        return "--metrics needs a file of its own";
    return used_twice(s, s->report) ? "--report needs a file of its own" : NULL;
}

bool cli_train_check(const cli_command *command, const cli_train_plan *s, int *code)
{
    *code = CLI_USAGE;
    const char *wrong = files_wrong(s);
    if (!wrong) wrong = cli_training_wrong(&s->training, s->training.optimizer == EK_OPTIMIZER_SGD);
    if (wrong) cli_usage_error(command, "%s", wrong);
    const char *meant = cli_meant_init(s->init);
    if (meant)
        cli_usage_error(command, "there is no file '%s' for --init; did you mean '%s'?", s->init, meant);
    return !wrong && !meant;
}

/* --- what the listener prints */

static const char *const optimizer_name[] = {"sgd", "adam", "adamw"};

/* "batch 16 times 8"; free it. */
static char *batch_text(const cli_training *t)
{
    return t->accumulate > 1 ? cli_text("batch %lld times %lld", (long long)t->batch, (long long)t->accumulate)
                             : cli_text("batch %lld", (long long)t->batch);
}

static double learning_rate(const cli_training *t) { return cli_train_options(t).optimizer.lr; }

static void print_header(const training *run)
{
    const settings *s = run->s;
    const cli_training *t = &s->training;
    const ek_event *start = &run->start;
    char a[CLI_TEXT_SIZE], b[CLI_TEXT_SIZE];
    printf("%s: %s parameters, input %s\n", s->net, cli_count(a, cli_parameters(run->model->net)),
           cli_shape(b, ek_net_input_shape(run->model->net)));
    printf("%s: %s to train on", t->data, cli_count(a, start->train_count));
    if (start->valid_count) printf(", %s held out", cli_count(a, start->valid_count));
    if (start->test_count) printf(", %s to test", cli_count(a, start->test_count));
    int threads = ek_context_threads(run->model->context);
    char *batch = batch_text(t);
    printf("\n%s, learning rate %g, %s, seed %lld; %d thread%s, %s\n", optimizer_name[t->optimizer], learning_rate(t),
           batch, (long long)t->seed, threads, threads == 1 ? "" : "s", ek_context_isa(run->model->context));
    free(batch);
    if (start->step > 0) printf("resumed from %s after step %s\n", s->resume, cli_count(a, start->step));
    if (start->step >= start->steps) printf("all of its %s epochs were done already\n", cli_count(a, start->epochs));
    printf("\n%*s  %7s  %9s%s%s  %9s\n", 5, "epoch", "loss", "train acc",
           start->valid_count ? "  valid acc" : "", start->test_count ? "   test acc" : "", "images/s");
    fflush(stdout);
}

/* A column; a measure that is not finite, as where all steps were skipped, is a dash. */
static void print_measure(int width, double measure)
{
    if (isfinite(measure))
        printf("  %*.4f", width, measure);
    else
        printf("  %*s", width, "-");
}

static void print_epoch(const training *run, const ek_event *epoch)
{
    char speed[CLI_TEXT_SIZE];
    printf("%5lld", (long long)epoch->epoch);
    print_measure(7, epoch->train_loss);
    print_measure(9, epoch->train_accuracy);
    if (run->start.valid_count) print_measure(9, epoch->valid_accuracy);
    if (run->start.test_count) print_measure(9, epoch->test_accuracy);
    printf("  %9s\n",
           cli_count(speed, isfinite(epoch->images_per_second) ? llround(epoch->images_per_second) : 0));
    fflush(stdout);
}

/* The loss of the steps, from its first to its last. */
static void print_loss(const training *run)
{
    char picture[CLI_PICTURE_BYTES];
    if (isfinite(cli_curve_first(&run->loss)))
        printf("\nloss  %.4f %s %.4f\n", cli_curve_first(&run->loss), cli_curve_text(picture, &run->loss),
               cli_curve_last(&run->loss));
}

static void on_epoch(training *run, const ek_event *epoch)
{
    cli_progress_clear(&run->progress);
    json_array_append_new(run->epochs, cli_epoch_json(epoch));
    if (!run->s->json) print_epoch(run, epoch);
}

/* What a report says the run is; free both. */
static void describe(const training *run, char **title, char **about)
{
    const settings *s = run->s;
    const cli_training *t = &s->training;
    char parameters[CLI_TEXT_SIZE], shape[CLI_TEXT_SIZE], *batch = batch_text(t);
    *title = cli_text("%s on %s", s->net, t->data);
    *about = cli_text("%s parameters, input %s. %s, learning rate %g, %s, seed %lld.",
                      cli_count(parameters, cli_parameters(run->model->net)),
                      cli_shape(shape, ek_net_input_shape(run->model->net)), optimizer_name[t->optimizer],
                      learning_rate(t), batch, (long long)t->seed);
    free(batch);
}

/* What the log says of the run as it begins, beside what the model's record does: what changes from run to run. */
static json_t *log_head(const training *run, int64_t now)
{
    char date[32], *title, *about;
    time_t seconds = (time_t)now;
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    describe(run, &title, &about);
    json_t *head = json_object(), *command = json_array();
    for (const char *const *word = run->command; *word; word++) json_array_append_new(command, cli_json_text(*word));
    json_object_set_new(head, "title", cli_json_text(title));
    json_object_set_new(head, "about", cli_json_text(about));
    json_object_set_new(head, "date", json_string(date));
    json_object_set_new(head, "command", command);
    json_object_set_new(head, "version", json_string(ek_version()));
    json_object_set_new(head, "machine", cli_json_text(cli_machine()));
    json_object_set_new(head, "isa", json_string(ek_context_isa(run->model->context)));
    json_object_set_new(head, "threads", json_integer(ek_context_threads(run->model->context)));
    json_object_set_new(head, "net", json_string(ek_net_text(run->model->net)));
    json_object_set(head, "run", run->record);
    free(about);
    free(title);
    return head;
}

static void begin_log(training *run)
{
    if (!run->s->log) return;
    json_t *head = log_head(run, (int64_t)time(NULL));
    cli_log_begin(&run->log, &run->start, head, run->observer);
    json_decref(head);
}

/* Of several that fail one after the other, the first is told. */
static void on_checkpoint(training *run, const ek_event *event)
{
    bool again = run->unsaved;
    run->unsaved = event->failed != NULL;
    run->checkpointed |= !run->unsaved;
    if (run->unsaved == again) return;
    cli_progress_clear(&run->progress);
    if (run->unsaved)
        cli_note("%s; what was there stands, and the next checkpoint is tried when it is due", event->failed);
    else
        cli_note("the checkpoint of step %lld could be written again", (long long)event->step);
}

static bool listen(void *user, const ek_event *event)
{
    training *run = user;
    cli_metrics_event(&run->metrics, event);
    cli_events_add(&run->events, event, run->model->net, run->observer);
    switch (event->kind) {
    case EK_EVENT_START:
        run->start = *event;
        run->failed = !cli_record_keep(run->record, run->model->net, run->s->resume != NULL);
        if (run->failed) return false;
        begin_log(run);
        cli_curve_begin(&run->loss, event->step, event->steps);
        cli_progress_begin(&run->progress, run->s->quiet, event, &run->loss);
        if (!run->s->json) print_header(run);
        break;
    case EK_EVENT_STEP:
        cli_log_event(&run->log, event, run->observer);
        cli_curve_add(&run->loss, event->step, event->loss);
        cli_progress_step(&run->progress, event);
        break;
    case EK_EVENT_EPOCH:
        on_epoch(run, event);
        cli_log_event(&run->log, event, run->observer);
        break;
    case EK_EVENT_CHECKPOINT: on_checkpoint(run, event); break;
    }
    if (event->kind != EK_EVENT_CHECKPOINT) run->last = *event;
    return !cli_stop_requested();
}

/* --- how to go on after Ctrl-C */

/* The command as it was given, with this run's checkpoint to resume. */
static void print_resume(const settings *s, int argc, char **argv)
{
    int ranks = ek_comm_ranks(cli_comm());
    fprintf(stderr, "Go on with:\n ");
    if (ranks > 1) fprintf(stderr, " mpirun -n %d", ranks);
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--resume") == 0) {
            i++;
        } else if (strncmp(argv[i], "--resume=", strlen("--resume=")) != 0) {
            cli_print_quoted(stderr, argv[i]);
        }
    }
    cli_print_quoted(stderr, "--resume");
    cli_print_quoted(stderr, s->checkpoint);
    fputc('\n', stderr);
}

static void print_stopped(const training *run, bool saved, int argc, char **argv)
{
    const settings *s = run->s;
    const ek_event *last = &run->last;
    bool kept = saved && s->out;
    cli_fail("stopped in epoch %lld of %lld, after step %lld of %lld%s%s", (long long)last->epoch,
             (long long)last->epochs, (long long)last->step, (long long)last->steps,
             kept ? "; the model so far is in " : "", kept ? s->out : "");
    if (run->unsaved)
        cli_fail("the checkpoint of this step could not be written%s",
                 run->checkpointed ? "; the one before it is as it was" : "");
    if (run->checkpointed) {
        print_resume(s, argc, argv);
    } else if (kept) {
        fprintf(stderr,
                "Without --checkpoint the run cannot be resumed, but evenkeel train %s ... trains on from "
                "there.\n",
                s->out);
    }
}

/* --- the run */

static ek_status init_weights(const settings *s, const cli_model *model)
{
    if (!s->init && model->trained) return EK_OK;
    return cli_init_net(model->net, s->init, (uint64_t)s->training.seed);
}

static ek_status name_classes(const ek_dataset *data, ek_net *net)
{
    enum { MAX_CLASSES = 65536 };
    static const char *names[MAX_CLASSES];
    int count = ek_dataset_classes(data);
    if (count < 1 || count > MAX_CLASSES || !ek_dataset_class(data, 0)) return EK_OK;
    for (int i = 0; i < count; i++) names[i] = ek_dataset_class(data, i);
    return ek_net_set_classes(net, names, count);
}

static void warn_skipped(const ek_event *last)
{
    if (last->skipped)
        cli_note(
            "%lld of %lld steps changed nothing, because their loss or gradient was not finite; a smaller "
            "--lr usually helps",
            (long long)last->skipped, (long long)last->step);
}

/* How a model differs from the one expected. */
typedef struct difference {
    int tensors;
    const char *first;
    double most;
} difference;

static bool same_tensor(const ek_tensor *a, const ek_tensor *b, double *most)
{
    if (!a->data) return *a->counter == *b->counter;
    int64_t count = cli_numbers(a->shape);
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (d > *most) *most = d;
    }
    return memcmp(a->data, b->data, (size_t)count * sizeof *a->data) == 0;
}

/* Both are of one net text. */
static difference compare_models(const ek_net *net, const ek_net *expected)
{
    difference d = {0};
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor a = ek_net_tensor(net, i), b = ek_net_tensor(expected, i);
        if (same_tensor(&a, &b, &d.most)) continue;
        if (!d.tensors++) d.first = a.name;
    }
    return d;
}

static void print_difference(const training *run, const difference *d)
{
    const char *path = run->s->expected->path;
    int count = ek_net_tensor_count(run->model->net);
    if (d->tensors == 0)
        printf("\nthe same as %s, to the last bit of its %d tensors\n", path, count);
    else
        printf("\nnot the same as %s: %d of %d tensors differ, %s first, by %.3g at most\n", path, d->tensors, count, d->first,
               d->most);
}

/* Gives the exit code: that of a run that was to give a model again says whether it did. */
static int answer(const training *run, bool stopped)
{
    const settings *s = run->s;
    bool compared = s->expected && !stopped;
    difference d = compared ? compare_models(run->model->net, s->expected->net) : (difference){0};
    int code = d.tensors ? CLI_FAILED : CLI_DONE;
    if (!s->json) {
        print_loss(run);
        if (compared) print_difference(run, &d);
        if (stopped) return code;
        if (s->out) printf("\nmodel: %s\n", s->out);
        if (s->log) printf("log: %s\n", s->log);
        if (s->report) printf("report: %s\n", s->report);
        if (s->tensorboard) printf("events: %s\n", ek_event_file_path(run->events.file));
        return code;
    }
    json_t *object = json_object();
    json_object_set_new(object, "net", cli_json_text(s->net));
    json_object_set_new(object, "data", cli_json_text(s->training.data));
    json_object_set_new(object, "parameters", json_integer(cli_parameters(run->model->net)));
    json_object_set_new(object, "train_count", json_integer(run->start.train_count));
    json_object_set_new(object, "valid_count", json_integer(run->start.valid_count));
    json_object_set_new(object, "test_count", json_integer(run->start.test_count));
    json_object_set_new(object, "threads", json_integer(ek_context_threads(run->model->context)));
    json_object_set_new(object, "isa", json_string(ek_context_isa(run->model->context)));
    json_object_set(object, "epochs", run->epochs);
    json_object_set_new(object, "steps", json_integer(run->last.step));
    json_object_set_new(object, "skipped", json_integer(run->last.skipped));
    json_object_set_new(object, "stopped", json_boolean(stopped));
    if (s->out) json_object_set_new(object, "out", cli_json_text(s->out));
    if (s->checkpoint) json_object_set_new(object, "checkpoint", cli_json_text(s->checkpoint));
    if (s->log) json_object_set_new(object, "log", cli_json_text(s->log));
    if (s->report) json_object_set_new(object, "report", cli_json_text(s->report));
    if (s->tensorboard)
        json_object_set_new(object, "events", cli_json_text(ek_event_file_path(run->events.file)));
    if (s->metrics) json_object_set_new(object, "metrics", cli_json_text(s->metrics));
    if (compared) {
        json_object_set_new(object, "same", json_boolean(!d.tensors));
        json_object_set_new(object, "tensors_that_differ", json_integer(d.tensors));
    }
    return cli_json_answer(object) == CLI_DONE ? code : CLI_FAILED;
}

/* Also of a run that was stopped, or that learned nothing. False: it cannot be written, which was said. */
static bool write_report(const training *run)
{
    const settings *s = run->s;
    char *title, *about;
    if (!s->report) return true;
    describe(run, &title, &about);
    bool written = cli_report_write(s->report, title, about, run->observer);
    free(about);
    free(title);
    return written;
}

/* A model that cannot go where it should, for a disk that is full or a folder that went away: the work is not lost where
 * a checkpoint has it, or there is room for it among temporary files. */
static void rescue(const training *run, int argc, char **argv)
{
    const settings *s = run->s;
    const char *temporary = getenv("TMPDIR"), *slash = strrchr(s->out, '/');
    if (run->checkpointed && !run->unsaved) {
        fprintf(stderr, "All that was trained is in the checkpoint. ");
        print_resume(s, argc, argv);
        return;
    }
    char *folder = cli_text("%s/evenkeel-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (mkdtemp(folder)) {
        char *path = cli_text("%s/%s", folder, slash ? slash + 1 : s->out);
        if (cli_save_model(run->model->net, path) == EK_OK) {
            fprintf(stderr, "The model was saved as %s instead.\n", path);
        } else {
            cli_fail_status();
            rmdir(folder);
        }
        free(path);
    }
    free(folder);
}

/* The model at its place, or said where it is. */
static bool save(const training *run, int argc, char **argv)
{
    if (!run->s->out || cli_save_model(run->model->net, run->s->out) == EK_OK) return true;
    cli_fail_status();
    rescue(run, argc, argv);
    return false;
}

/* Trains, saves what was trained, also after a stop, and says so. */
static int train(training *run, const ek_dataset *data, const ek_dataset *test, int argc, char **argv)
{
    const settings *s = run->s;
    ek_train_options o = cli_train_options(&s->training);
    o.checkpoint = s->checkpoint;
    o.checkpoint_steps = s->checkpoint_steps;
    o.resume = s->resume;
    o.listener = listen;
    o.observer = run->observer;
    o.user = run;
    cli_stop_listen();
    ek_status status = ek_train(run->model->net, data, test, &o);
    cli_progress_clear(&run->progress);
    bool stopped = status == EK_E_INTERRUPTED;
    if (run->failed) return CLI_FAILED;
    bool trained = run->last.kind == EK_EVENT_EPOCH && run->last.epoch == run->last.epochs;
    if (status != EK_OK && !stopped) cli_fail_status();
    if (status != EK_OK && !stopped && !(trained && run->unsaved)) return CLI_FAILED;
    bool learned = run->last.step == 0 || run->last.skipped < run->last.step;
    if (stopped) cli_record_stop(run->model->net, run->last.step, run->last.steps);
    bool saved = !learned || save(run, argc, argv); /* before the page: what can fail there must not cost the model */
    bool reported = write_report(run);
    if (!learned)
        return cli_fail(
            "no step had a finite loss and gradient: nothing was learned, and no model is saved; try "
            "a smaller --lr, and look for extreme values in the data");
    warn_skipped(&run->last);
    int code = saved ? answer(run, stopped) : CLI_FAILED;
    fflush(stdout);
    if (stopped) print_stopped(run, saved, argc, argv); /* last, since it names the command that goes on */
    return stopped || !reported || run->unsaved ? CLI_FAILED : code;
}

/* What the run needs beside its net and data. False: something cannot be had, which was said. */
static bool open_files(training *run)
{
    const settings *s = run->s;
    if (!cli_claim(s->out, &run->out) || !cli_claim(s->report, &run->report) || !cli_claim(s->metrics, &run->metrics_file))
        return false;
    if ((s->report || s->tensorboard || s->log) && ek_observer_create(&run->observer) != EK_OK) {
        cli_fail_status();
        return false;
    }
    cli_metrics_open(&run->metrics, s->metrics, run->model->context, s->net, s->training.data);
    return cli_events_open(&run->events, s->tensorboard) && cli_log_open(&run->log, s->log, s->resume != NULL);
}

/* Of several ranks, all but the first. Checkpoints are the library's, which knows. */
static void write_nothing(cli_train_plan *plan)
{
    plan->out = plan->log = plan->report = plan->tensorboard = plan->metrics = NULL;
    plan->quiet = true;
}

int cli_train_go(const cli_train_plan *plan, int argc, char **argv)
{
    cli_train_plan own = *plan, *s = &own;
    if (!cli_speaks()) write_nothing(&own);
    /* A reader of the answer that goes away must not take the training with it. */
    signal(SIGPIPE, SIG_IGN);

    cli_model model;
    training run = {.s = s, .model = &model, .epochs = json_array(), .command = (const char *const *)argv};
    ek_dataset *data = NULL, *test = NULL;
    int code = CLI_FAILED;
    if (!cli_model_open(&model, s->net, s->threads)) goto done;
    if (s->timeout > 0 && ek_comm_set_timeout(cli_comm(), s->timeout) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    if (cli_open_data(s->training.data, &data, &test) != EK_OK || init_weights(s, &model) != EK_OK ||
        name_classes(data, model.net) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    run.record = cli_record_make(s, &model, data, test);
    if (!run.record || !open_files(&run)) goto done;
    if (s->expected) cli_record_compare(s->expected->record, run.record);
    code = train(&run, data, test, argc, argv);
done:
    cli_metrics_close(&run.metrics);
    cli_log_close(&run.log);
    cli_events_close(&run.events);
    if (run.log.failed || run.events.failed) code = CLI_FAILED;
    ek_claim_release(run.out);
    ek_claim_release(run.report);
    ek_claim_release(run.metrics_file);
    ek_observer_destroy(run.observer);
    json_decref(run.record);
    json_decref(run.epochs);
    ek_dataset_destroy(test);
    ek_dataset_destroy(data);
    cli_model_close(&model);
    return code;
}
