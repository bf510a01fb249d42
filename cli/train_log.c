#include "train_log.h"

#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool cli_log_open(cli_log *log, const char *path, bool append)
{
    *log = (cli_log){.path = path, .append = append};
    if (!path) return true;
    log->created = access(path, F_OK) != 0;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    log->file = descriptor < 0 ? NULL : fdopen(descriptor, "a");
    if (log->file) return true;
    cli_fail("cannot write the log %s: %s", path, strerror(errno));
    if (descriptor >= 0) close(descriptor);
    return false;
}

static void report(cli_log *log)
{
    log->failed = true;
    cli_fail("cannot write the log %s: %s; it ends there", log->path, strerror(errno));
}

void cli_log_begin(cli_log *log)
{
    if (!log->file) return;
    log->begun = true;
    struct stat info;
    bool regular = fstat(fileno(log->file), &info) == 0 && S_ISREG(info.st_mode);
    if (regular && !log->append && ftruncate(fileno(log->file), 0) != 0) report(log);
}

json_t *cli_epoch_json(const ek_event *epoch)
{
    json_t *object = json_object();
    json_object_set_new(object, "epoch", json_integer(epoch->epoch));
    cli_json_number(object, "train_loss", epoch->train_loss);
    cli_json_number(object, "train_accuracy", epoch->train_accuracy);
    cli_json_number(object, "valid_loss", epoch->valid_loss);
    cli_json_number(object, "valid_accuracy", epoch->valid_accuracy);
    cli_json_number(object, "test_accuracy", epoch->test_accuracy);
    cli_json_number(object, "images_per_second", epoch->images_per_second);
    cli_json_number(object, "seconds", epoch->seconds);
    return object;
}

static json_t *step_json(const ek_event *step)
{
    json_t *object = json_object();
    json_object_set_new(object, "step", json_integer(step->step));
    cli_json_number(object, "loss", step->loss);
    if (step->step_skipped) json_object_set_new(object, "skipped", json_true());
    return object;
}

void cli_log_event(cli_log *log, const ek_event *event)
{
    if (!log->file || log->failed) return;
    bool epoch = event->kind == EK_EVENT_EPOCH;
    json_t *line = json_pack("{s:s}", "event", epoch ? "epoch" : "step");
    json_t *measures = epoch ? cli_epoch_json(event) : step_json(event);
    json_object_update(line, measures);
    cli_json_write(log->file, line);
    json_decref(measures);
    json_decref(line);
    if (fflush(log->file) != 0) report(log);
}

void cli_log_close(cli_log *log)
{
    if (!log->file) return;
    if (fclose(log->file) != 0 && !log->failed) report(log);
    log->file = NULL;
    if (log->created && !log->begun) unlink(log->path);
}
