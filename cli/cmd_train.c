#include "commands.h"
#include "common.h"
#include "output.h"
#include "picture.h"
#include "progress.h"
#include "stop.h"
#include "train_log.h"
#include "train_pictures.h"
#include "training.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct settings {
    const char *net, *out, *init, *log, *checkpoint, *resume, *report, *tensorboard;
    cli_training training;
    int64_t checkpoint_steps, threads;
    bool json, quiet;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("NET", net, "A shipped net's name, a net text's path, or a model file to train on."),
    ROWS_DATA,
    ROWS_TRAINING,
    ROW_TEXT("init", "WHAT", init,
             "Initial weights: default (PyTorch's), xavier, kaiming, the deviation of a normal distribution "
             "such as 0.01, or a .safetensors FILE with a PyTorch state dict."),

    ROWS_SCHEDULE,

    ROW_HEADING("Files:"),
    ROW_TEXT("out", "MODEL", out,
             "Where the trained model goes (.safetensors, or .onnx for other programs). Replaced only by a whole new model."),
    ROW_TEXT("log", "FILE.jsonl", log, "Write each step and each epoch as one line of JSON."),
    ROW_TEXT("checkpoint", "FILE", checkpoint,
             "Keep all that is needed to go on: rewritten after every epoch, before it is measured, and when stopped by Ctrl-C. "
             "If it cannot be written, training goes on, and the one before it stands."),
    ROW_INTEGER("checkpoint-steps", "N", checkpoint_steps, 1, 0, "Also rewrite it every N steps."),
    ROW_TEXT("resume", "FILE", resume,
             "Go on from a checkpoint, with the same other options; ends with the bits of an unbroken run. "
             "--log is continued."),
    ROW_TEXT("report", "FILE.html", report,
             "Write a page with the run's pictures: loss, accuracy, learning rate, and how each batch "
             "normalization's inputs, outputs and statistics moved."),
    ROW_TEXT("tensorboard", "DIR", tensorboard, "Write scalars and histograms for TensorBoard to a file in DIR."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROWS_COMMON,
};

/* A run, as its listener sees it. */
typedef struct training {
    const settings *s;
    const cli_model *model;
    cli_progress progress;
    cli_curve loss;
    cli_log log;
    cli_events events;
    ek_observer *observer; /* NULL: nobody asks for pictures */
    json_t *epochs; /* measures of each, for --json */
    ek_event start, last;
    bool checkpointed; /* a checkpoint of this run was written */
    bool unsaved;      /* the last one could not be */
    ek_claim *out, *report;
} training;

/* --- options */

/* Whether another option reads or writes this file. */
static bool used_twice(const settings *s, const char *path)
{
    return cli_same_file(path, s->out) || cli_same_file(path, s->checkpoint) || cli_same_file(path, s->resume) ||
           cli_same_file(path, s->net) || cli_same_file(path, s->init);
}

/* What single options cannot say: which files go together. */
static const char *files_wrong(const settings *s)
{
    const char *const written[] = {s->out, s->checkpoint, s->log, s->report};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        const char *lost = cli_would_lose(written[i], s->training.data, s->net);
        if (lost) return lost;
    }
    if (s->out && !cli_is_model_name(s->out)) return "a model is a .safetensors or .onnx file: name --out so";
    if (!s->out && !s->checkpoint) return "nothing would be kept: give --out MODEL (or --checkpoint FILE)";
    if (s->checkpoint_steps && !s->checkpoint) return "--checkpoint-steps needs --checkpoint FILE";
    if (cli_same_file(s->out, s->checkpoint)) return "--out and --checkpoint must be two files";
    if (used_twice(s, s->log) || cli_same_file(s->log, s->report)) return "--log needs a file of its own";
    return used_twice(s, s->report) ? "--report needs a file of its own" : NULL;
}

static bool check(const settings *s, int *code)
{
    *code = CLI_USAGE;
    const char *wrong = files_wrong(s);
    if (!wrong) wrong = cli_training_wrong(&s->training, s->training.optimizer == EK_OPTIMIZER_SGD);
    if (wrong) cli_usage_error(&cli_train, "%s", wrong);
    const char *meant = cli_meant_init(s->init);
    if (meant)
        cli_usage_error(&cli_train, "there is no file '%s' for --init; did you mean '%s'?", s->init, meant);
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
    cli_events_add(&run->events, event, run->model->net, run->observer);
    switch (event->kind) {
    case EK_EVENT_START:
        run->start = *event;
        cli_log_begin(&run->log);
        cli_curve_begin(&run->loss, event->step, event->steps);
        cli_progress_begin(&run->progress, run->s->quiet, event, &run->loss);
        if (!run->s->json) print_header(run);
        break;
    case EK_EVENT_STEP:
        cli_log_event(&run->log, event);
        cli_curve_add(&run->loss, event->step, event->loss);
        cli_progress_step(&run->progress, event);
        break;
    case EK_EVENT_EPOCH:
        on_epoch(run, event);
        cli_log_event(&run->log, event);
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
    fprintf(stderr, "Go on with:\n ");
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--resume") == 0) {
            i++;
        } else if (strncmp(argv[i], "--resume=", strlen("--resume=")) != 0) {
            cli_print_quoted(argv[i]);
        }
    }
    cli_print_quoted("--resume");
    cli_print_quoted(s->checkpoint);
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

static int answer(const training *run, bool stopped)
{
    const settings *s = run->s;
    if (!s->json) {
        print_loss(run);
        if (stopped) return CLI_DONE;
        if (s->out) printf("\nmodel: %s\n", s->out);
        if (s->log) printf("log: %s\n", s->log);
        if (s->report) printf("report: %s\n", s->report);
        if (s->tensorboard) printf("events: %s\n", ek_event_file_path(run->events.file));
        return CLI_DONE;
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
    return cli_json_answer(object);
}

/* Also of a run that was stopped, or that learned nothing. False: it cannot be written, which was said. */
static bool write_report(const training *run)
{
    const settings *s = run->s;
    char parameters[CLI_TEXT_SIZE], shape[CLI_TEXT_SIZE];
    if (!s->report) return true;
    const cli_training *t = &s->training;
    char *title = cli_text("%s on %s", s->net, t->data), *batch = batch_text(t);
    char *about = cli_text("%s parameters, input %s. %s, learning rate %g, %s, seed %lld.",
                           cli_count(parameters, cli_parameters(run->model->net)),
                           cli_shape(shape, ek_net_input_shape(run->model->net)), optimizer_name[t->optimizer],
                           learning_rate(t), batch, (long long)t->seed);
    bool written = cli_report_write(s->report, title, about, run->observer);
    free(about);
    free(batch);
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
    bool trained = run->last.kind == EK_EVENT_EPOCH && run->last.epoch == run->last.epochs;
    if (status != EK_OK && !stopped) cli_fail_status();
    if (status != EK_OK && !stopped && !(trained && run->unsaved)) return CLI_FAILED;
    bool learned = run->last.step == 0 || run->last.skipped < run->last.step;
    bool saved = !learned || save(run, argc, argv); /* before the page: what can fail there must not cost the model */
    bool reported = write_report(run);
    if (!learned)
        return cli_fail(
            "no step had a finite loss and gradient: nothing was learned, and no model is saved; try "
            "a smaller --lr, and look for extreme values in the data");
    warn_skipped(&run->last);
    if (stopped) print_stopped(run, saved, argc, argv);
    if (!saved) return CLI_FAILED;
    int code = answer(run, stopped);
    return stopped || !reported || run->unsaved ? CLI_FAILED : code;
}

static int run(int argc, char **argv)
{
    settings s = {.training = cli_training_default()};
    int code;
    if (!cli_parse(&cli_train, argc, argv, &s, &code) || !check(&s, &code)) return code;
    /* A reader of the answer that goes away must not take the training with it. */
    signal(SIGPIPE, SIG_IGN);

    cli_model model;
    training run = {.s = &s, .model = &model, .epochs = json_array()};
    ek_dataset *data = NULL, *test = NULL;
    code = CLI_FAILED;
    if (!cli_model_open(&model, s.net, s.threads)) goto done;
    if (cli_open_data(s.training.data, &data, &test) != EK_OK || init_weights(&s, &model) != EK_OK ||
        name_classes(data, model.net) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    if (!cli_claim(s.out, &run.out) || !cli_claim(s.report, &run.report)) goto done;
    if ((s.report || s.tensorboard) && ek_observer_create(&run.observer) != EK_OK) {
        cli_fail_status();
        goto done;
    }
    if (!cli_events_open(&run.events, s.tensorboard)) goto done;
    if (!cli_log_open(&run.log, s.log, s.resume != NULL)) goto done;
    code = train(&run, data, test, argc, argv);
done:
    cli_log_close(&run.log);
    cli_events_close(&run.events);
    if (run.log.failed || run.events.failed) code = CLI_FAILED;
    ek_claim_release(run.out);
    ek_claim_release(run.report);
    ek_observer_destroy(run.observer);
    json_decref(run.epochs);
    ek_dataset_destroy(test);
    ek_dataset_destroy(data);
    cli_model_close(&model);
    return code;
}

const cli_command cli_train = {
    .name = "train",
    .synopsis = "NET --data DATA --out MODEL [options]",
    .brief = "trains a net and saves the model",
    .about =
        "Trains a net with cross-entropy and shows after each epoch the loss and accuracy on the training "
        "data as it was seen, the accuracy on the test data where there is any, and the speed. "
        "Ctrl-C, like SIGTERM and SIGHUP, stops after the present step, saves the model so far and says how to go on; the "
        "exit code is then 1. A second Ctrl-C ends at once.",
    .examples = "  evenkeel train lenet-bn --data fashion-mnist --out lenet.safetensors\n"
                "  evenkeel train mlp-bn --data mnist --optimizer adam --batch 64 --valid 0.2 \\\n"
                "      --out mlp.safetensors\n"
                "  evenkeel train resnet20 --data synthetic:3x32x32 --schedule cosine \\\n"
                "      --warmup 1 --momentum 0.9 --weight-decay 1e-4 --no-decay-norm \\\n"
                "      --log run.jsonl --checkpoint run.checkpoint --out resnet.safetensors\n"
                "  evenkeel train lenet-bn --data fashion-mnist --out lenet.safetensors \\\n"
                "      --report run.html --tensorboard runs/lenet\n"
                "  evenkeel train my.net --data x.npy,y.npy --init state.safetensors \\\n"
                "      --out my.safetensors\n",
    .options = options,
    .run = run,
};
