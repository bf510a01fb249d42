/* Prometheus' text format, version 0.0.4: "# HELP", "# TYPE", then name{label="value"} number. */
#include "train_metrics.h"

#include "common.h"
#include "output.h"
#include "train_log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const double write_every = 1; /* seconds */

static double now_of_day(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* --- labels */

/* name="value", with what the format asks for escaped, and bytes that it forbids as '?'. */
static char *label(const char *name, const char *value)
{
    json_t *clean = cli_json_text(value); /* UTF-8 */
    const char *from = clean ? json_string_value(clean) : "";
    char *escaped = cli_alloc(2 * strlen(from) + 1, 1), *to = escaped;
    for (; *from; from++) {
        if (*from == '\\' || *from == '"' || *from == '\n') *to++ = '\\';
        *to++ = *from == '\n' ? 'n' : *from;
    }
    char *text = cli_text("%s=\"%s\"", name, escaped);
    free(escaped);
    json_decref(clean);
    return text;
}

/* What tells the runs of one machine apart: the file's name, without its ending. */
static char *run_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    return cli_text("%.*s", (int)(strlen(name) - (cli_ends_with(name, ".prom") ? strlen(".prom") : 0)), name);
}

void cli_metrics_open(cli_metrics *m, const char *path, const ek_context *context, const char *net, const char *data)
{
    *m = (cli_metrics){.path = path, .context = context, .began = now_of_day()};
    if (!path) return;
    char *name = run_name(path), *of_net = label("net", net), *of_data = label("data", data);
    m->labels = label("run", name);
    m->about = cli_text("%s,%s", of_net, of_data);
    free(of_data);
    free(of_net);
    free(name);
}

/* --- writing */

/* A family of series. */
static void begin(FILE *file, const char *name, const char *type, const char *help)
{
    fprintf(file, "# HELP evenkeel_%s %s\n# TYPE evenkeel_%s %s\n", name, help, name, type);
}

static void put(const cli_metrics *m, FILE *file, const char *name, const char *more, double value)
{
    char text[CLI_TEXT_SIZE];
    fprintf(file, "evenkeel_%s{%s%s%s} %s\n", name, m->labels, *more ? "," : "", more,
            isnan(value)   ? "NaN"
            : isinf(value) ? value > 0 ? "+Inf" : "-Inf"
                           : cli_real(text, value));
}

static void gauge(const cli_metrics *m, FILE *file, const char *name, double value, const char *help)
{
    begin(file, name, "gauge", help);
    put(m, file, name, "", value);
}

static void counter(const cli_metrics *m, FILE *file, const char *name, double value, const char *help)
{
    begin(file, name, "counter", help);
    put(m, file, name, "", value);
}

/* Of the sets that there are; none before the first epoch's end. */
static void by_set(const cli_metrics *m, FILE *file, const char *name, double train, double valid, double test,
                   const char *help)
{
    const struct {
        const char *label;
        double value;
    } all[] = {{"set=\"train\"", train}, {"set=\"valid\"", valid}, {"set=\"test\"", test}};
    if (m->epoch.kind != EK_EVENT_EPOCH) return;
    begin(file, name, "gauge", help);
    for (int i = 0; i < 3; i++)
        if (!isnan(all[i].value)) put(m, file, name, all[i].label, all[i].value);
}

static void put_info(const cli_metrics *m, FILE *file)
{
    char *version = label("version", ek_version()), *isa = label("isa", ek_context_isa(m->context));
    char *build = cli_text("%s,%s", version, isa);
    begin(file, "build_info", "gauge", "The version of Evenkeel and the instruction set in use.");
    put(m, file, "build_info", build, 1);
    begin(file, "run_info", "gauge", "The net and the data, as they were given.");
    put(m, file, "run_info", m->about, 1);
    free(build);
    free(isa);
    free(version);
}

static void put_progress(const cli_metrics *m, FILE *file)
{
    bool stepped = m->step.kind == EK_EVENT_STEP;
    const ek_event *last = stepped ? &m->step : &m->start;
    gauge(m, file, "training", m->training, "1 while training, 0 when the run has ended.");
    gauge(m, file, "start_time_seconds", m->began, "When the run began, or was resumed, since 1970.");
    gauge(m, file, "threads", ek_context_threads(m->context), "Worker threads.");
    gauge(m, file, "epoch", (double)last->epoch, "The present epoch, from 1.");
    gauge(m, file, "planned_epochs", (double)last->epochs, "Epochs that the run will have.");
    gauge(m, file, "step", (double)last->step, "Steps done of the run, those before it was resumed among them.");
    gauge(m, file, "planned_steps", (double)last->steps, "Steps that the run will have.");
    counter(m, file, "steps_total", (double)m->steps, "Steps done by this process.");
    counter(m, file, "samples_total", (double)m->samples, "Samples that this process has trained on, each time it saw them.");
    counter(m, file, "skipped_steps_total", (double)(last->skipped - m->start.skipped),
            "Those of these steps that changed nothing, because their loss or gradient was not finite.");
    begin(file, "step_seconds_total", "counter", "Time of this process's steps, by phase.");
    for (int i = 0; i < EK_PHASES; i++) {
        char *of_phase = label("phase", cli_phase_name[i]);
        put(m, file, "step_seconds_total", of_phase, m->phase_seconds[i]);
        free(of_phase);
    }
}

static void put_measures(const cli_metrics *m, FILE *file)
{
    const ek_event *e = &m->epoch;
    if (m->step.kind == EK_EVENT_STEP) {
        gauge(m, file, "images_per_second", m->images_per_second, "Samples a second in the last steps, training alone.");
        gauge(m, file, "loss", m->step.loss, "Mean cross-entropy of the last step's batch.");
        gauge(m, file, "learning_rate", m->step.lr, "Learning rate of the last step.");
    }
    by_set(m, file, "epoch_loss", e->train_loss, e->valid_loss, e->test_loss, "Mean cross-entropy in the last whole epoch.");
    by_set(m, file, "epoch_accuracy", e->train_accuracy, e->valid_accuracy, e->test_accuracy,
           "Share of samples that were classified rightly in the last whole epoch.");
}

static void put_machine(const cli_metrics *m, FILE *file)
{
    struct rusage usage;
    long pages = 0;
    FILE *memory = fopen("/proc/self/statm", "r");
    if (memory && fscanf(memory, "%*s %ld", &pages) == 1)
        gauge(m, file, "resident_memory_bytes", (double)pages * (double)sysconf(_SC_PAGESIZE), "Memory in use.");
    if (memory) fclose(memory);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        gauge(m, file, "resident_memory_peak_bytes", 1024.0 * (double)usage.ru_maxrss, "Most memory in use so far.");
    if (m->checkpointed > 0)
        gauge(m, file, "last_checkpoint_time_seconds", m->checkpointed, "When the last checkpoint was written, since 1970.");
}

/* Beside its place, then renamed: a reader finds the whole of one. Not synced, as it is out of date in a second anyway. The name
 * of the new file does not end in .prom, which a collector takes for another file to read. */
static bool replace(const cli_metrics *m)
{
    char *real = realpath(m->path, NULL), *trial = cli_text("%s.XXXXXX", real ? real : m->path);
    int descriptor = mkstemp(trial), why = errno;
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    bool fine = file != NULL;
    if (fine) {
        put_info(m, file);
        put_progress(m, file);
        put_measures(m, file);
        put_machine(m, file);
        fine = fflush(file) == 0 && !ferror(file) && fchmod(descriptor, 0644) == 0; /* collectors are other users */
        why = errno;
    }
    if (file ? fclose(file) != 0 && fine : descriptor >= 0 && close(descriptor) != 0) fine = false;
    if (fine && rename(trial, real ? real : m->path) != 0) {
        why = errno;
        fine = false;
    }
    if (!fine && descriptor >= 0) unlink(trial);
    free(trial);
    free(real);
    errno = why;
    return fine;
}

static void write_now(cli_metrics *m)
{
    if (m->recent_seconds > 0) m->images_per_second = (double)m->recent_samples / m->recent_seconds;
    m->recent_samples = 0;
    m->recent_seconds = 0;
    if (!replace(m) && !m->failed) {
        m->failed = true;
        cli_note("cannot write the metrics %s: %s; training goes on, and so does trying", m->path, strerror(errno));
    }
    m->written = cli_now();
}

static void add_step(cli_metrics *m, const ek_event *step)
{
    m->step = *step;
    m->steps++;
    m->samples += step->samples;
    m->recent_samples += step->samples;
    for (int i = 0; i < EK_PHASES; i++) {
        m->phase_seconds[i] += step->phase_seconds[i];
        m->recent_seconds += step->phase_seconds[i];
    }
}

void cli_metrics_event(cli_metrics *m, const ek_event *event)
{
    if (!m->path) return;
    switch (event->kind) {
    case EK_EVENT_START:
        m->start = *event;
        m->training = true;
        write_now(m);
        break;
    case EK_EVENT_STEP:
        add_step(m, event);
        if (cli_now() - m->written >= write_every) write_now(m);
        break;
    case EK_EVENT_EPOCH:
        m->epoch = *event;
        write_now(m);
        break;
    case EK_EVENT_CHECKPOINT: m->checkpointed = now_of_day(); break;
    }
}

void cli_metrics_close(cli_metrics *m)
{
    if (m->training) {
        m->training = false;
        write_now(m);
    }
    free(m->about);
    free(m->labels);
    m->about = m->labels = NULL;
}
