#include "train_log.h"

#include "epoch_json.h"
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two runs in one log would be told apart by nobody. The lock ends with the process. */
static bool is_another_runs(int descriptor)
{
    struct stat info;
    return fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode) && flock(descriptor, LOCK_EX | LOCK_NB) != 0 &&
           errno == EWOULDBLOCK;
}

bool cli_log_open(cli_log *log, const char *path, bool append)
{
    *log = (cli_log){.path = path, .append = append};
    if (!path) return true;
    log->created = access(path, F_OK) != 0;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    bool taken = descriptor >= 0 && is_another_runs(descriptor);
    log->file = descriptor < 0 || taken ? NULL : fdopen(descriptor, "a");
    if (log->file) return true;
    cli_fail("cannot write the log %s: %s", path, taken ? "another run writes it; name another file" : strerror(errno));
    if (descriptor >= 0) close(descriptor);
    return false;
}

static void report(cli_log *log)
{
    log->failed = true;
    cli_fail("cannot write the log %s: %s; it ends there", log->path, strerror(errno));
}

/* Where the last whole line of `size` bytes ends: a run that was killed, or met a full disk, may have left half a line. */
static off_t end_of_lines(const char *path, off_t size)
{
    enum { LONGEST = 1 << 20 }; /* beyond that it is no log */
    FILE *file = fopen(path, "rb");
    off_t end = size;
    int c = 0;
    while (file && end > 0 && size - end < LONGEST && c != EOF && c != '\n')
        c = fseeko(file, --end, SEEK_SET) == 0 ? getc(file) : EOF;
    if (file) fclose(file);
    return c == '\n' ? end + 1 : size;
}

static void end_write(cli_log *log)
{
    if (fflush(log->file) != 0 || ferror(log->file)) report(log);
}

/* The batchnorms that will be looked at. */
static json_t *norms_json(const ek_observer *observer)
{
    json_t *norms = json_array();
    ek_look look;
    for (int i = 0; ek_observer_look(observer, i, &look); i++)
        json_array_append_new(norms, json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "layer", look.layer, "channels",
                                               (json_int_t)look.channels, "positions", (json_int_t)look.positions, "gamma",
                                               look.gamma, "beta", look.beta, "running", look.running));
    return norms;
}

void cli_log_begin(cli_log *log, const ek_event *start, const json_t *about, const ek_observer *observer)
{
    if (!log->file) return;
    log->begun = true;
    struct stat info;
    if (fstat(fileno(log->file), &info) == 0 && S_ISREG(info.st_mode)) {
        off_t kept = log->append ? end_of_lines(log->path, info.st_size) : 0;
        if (kept < info.st_size && ftruncate(fileno(log->file), kept) != 0) {
            report(log);
            return;
        }
    }
    json_t *line = json_pack("{s:s}", "event", "start");
    json_object_update(line, (json_t *)about);
    json_object_set_new(line, "epochs", json_integer(start->epochs));
    json_object_set_new(line, "step", json_integer(start->step));
    json_object_set_new(line, "steps", json_integer(start->steps));
    json_object_set_new(line, "skipped", json_integer(start->skipped));
    json_object_set_new(line, "train_count", json_integer(start->train_count));
    json_object_set_new(line, "valid_count", json_integer(start->valid_count));
    json_object_set_new(line, "test_count", json_integer(start->test_count));
    json_object_set_new(line, "batchnorms", norms_json(observer));
    bool written = cli_json_write_exact(log->file, line);
    json_decref(line);
    if (written)
        end_write(log);
    else
        report(log);
}

/* A number that is not finite has no JSON. */
static void put_member(FILE *file, const char *key, double value)
{
    char text[CLI_TEXT_SIZE];
    if (isfinite(value)) fprintf(file, ",\"%s\":%s", key, cli_real(text, value));
}

static void put_step(FILE *file, const ek_event *step)
{
    fprintf(file, "{\"event\":\"step\",\"step\":%lld", (long long)step->step);
    put_member(file, "loss", step->loss);
    put_member(file, "lr", step->lr);
    fprintf(file, "%s}\n", step->step_skipped ? ",\"skipped\":true" : "");
}

static void put_look(FILE *file, const ek_look *look)
{
    char text[CLI_TEXT_SIZE];
    json_t *layer = json_string(look->layer);
    fprintf(file, "{\"event\":\"look\",\"step\":%lld,\"layer\":", (long long)look->step);
    json_dumpf(layer, file, JSON_ENCODE_ANY);
    fprintf(file, "%s,\"measures\":[", look->frozen ? ",\"frozen\":true" : "");
    for (int i = 0; i < EK_LOOK_MEASURES; i++)
        fprintf(file, "%s%s", i ? "," : "", isfinite(look->measure[i]) ? cli_real(text, look->measure[i]) : "null");
    fputs("]}\n", file);
    json_decref(layer);
}

const char *const cli_phase_name[EK_PHASES] = {"data", "forward", "backward", "exchange", "update"};

static void put_epoch(FILE *file, const ek_event *epoch)
{
    json_t *measures = cli_epoch_json(epoch), *value;
    const char *key;
    fprintf(file, "{\"event\":\"epoch\",\"epoch\":%lld,\"step\":%lld", (long long)epoch->epoch, (long long)epoch->step);
    json_object_foreach(measures, key, value) {
        if (json_is_real(value)) put_member(file, key, json_real_value(value));
    }
    fputs(",\"phase_seconds\":{", file);
    for (int i = 0; i < EK_PHASES; i++) {
        char text[CLI_TEXT_SIZE];
        fprintf(file, "%s\"%s\":%s", i ? "," : "", cli_phase_name[i], cli_real(text, epoch->phase_seconds[i]));
    }
    fputs("}", file);
    if (epoch->sent.messages > 0)
        fprintf(file, ",\"sent\":{\"messages\":%lld,\"bytes\":%lld}", (long long)epoch->sent.messages,
                (long long)epoch->sent.bytes);
    fputs("}\n", file);
    json_decref(measures);
}

void cli_log_event(cli_log *log, const ek_event *event, const ek_observer *observer)
{
    ek_look look;
    if (!log->file || log->failed) return;
    if (event->kind == EK_EVENT_EPOCH) {
        put_epoch(log->file, event);
    } else {
        put_step(log->file, event);
        for (int i = 0; ek_observer_look(observer, i, &look) && look.step == event->step; i++) put_look(log->file, &look);
    }
    end_write(log);
}

void cli_log_close(cli_log *log)
{
    if (!log->file) return;
    if (fclose(log->file) != 0 && !log->failed) report(log);
    log->file = NULL;
    if (log->created && !log->begun) unlink(log->path);
}
