#include "train_log.h"

#include "output.h"

#include <errno.h>
#include <fcntl.h>
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

void cli_log_begin(cli_log *log)
{
    if (!log->file) return;
    log->begun = true;
    struct stat info;
    if (fstat(fileno(log->file), &info) != 0 || !S_ISREG(info.st_mode)) return;
    off_t kept = log->append ? end_of_lines(log->path, info.st_size) : 0;
    if (kept < info.st_size && ftruncate(fileno(log->file), kept) != 0) report(log);
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
    bool written = cli_json_write(log->file, line) && fflush(log->file) == 0;
    json_decref(measures);
    json_decref(line);
    if (!written) report(log);
}

void cli_log_close(cli_log *log)
{
    if (!log->file) return;
    if (fclose(log->file) != 0 && !log->failed) report(log);
    log->file = NULL;
    if (log->created && !log->begun) unlink(log->path);
}
