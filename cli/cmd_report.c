#include "commands.h"
#include "common.h"
#include "log_read.h"
#include "output.h"
#include "train_pictures.h"

#include <stdlib.h>

typedef struct settings {
    const char *log, *out;
    bool json;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("LOG", log, "What evenkeel train --log has written, so far or to its end."),
    ROW_HEADING("Files:"),
    ROW_REQUIRED("out", "FILE.html", out, "Where the page goes."),
    ROW_HEADING("General:"),
    ROW_FLAG("json", json, "Answer with one JSON object."),
    {.kind = CLI_END},
};

static int answer(const settings *s)
{
    if (!s->json) {
        printf("report: %s\n", s->out);
        return CLI_DONE;
    }
    json_t *object = json_object();
    json_object_set_new(object, "log", cli_json_text(s->log));
    json_object_set_new(object, "report", cli_json_text(s->out));
    return cli_json_answer(object);
}

static int run(int argc, char **argv)
{
    settings s = {0};
    int code;
    if (!cli_parse(&cli_report, argc, argv, &s, &code)) return code;
    if (cli_same_file(s.log, s.out)) return cli_usage_error(&cli_report, "the report would replace its log");
    if (!cli_can_write(s.out)) return CLI_FAILED;
    ek_observer *observer;
    char *title = NULL, *about = NULL;
    if (ek_observer_create(&observer) != EK_OK) return cli_fail_status();
    bool fine = cli_log_read(s.log, observer, &title, &about) && cli_report_write(s.out, title, about, observer);
    ek_observer_destroy(observer);
    free(about);
    free(title);
    return fine ? answer(&s) : CLI_FAILED;
}

const cli_command cli_report = {
    .name = "report",
    .synopsis = "LOG --out FILE.html [options]",
    .brief = "makes a training run's report from its log",
    .about = "Writes the page that train --report writes, from a log of train --log: of a run that had none, that is "
             "still under way, or that was killed. A run that was interrupted and resumed into the same log is shown as one.",
    .examples = "  evenkeel train lenet-bn --data fashion-mnist --log run.jsonl --out lenet.safetensors\n"
                "  evenkeel report run.jsonl --out run.html\n",
    .options = options,
    .run = run,
};
