/*
 * A log is read twice. A run that was killed went on from its last checkpoint, so that steps after it stand there twice, and
 * the later ones hold: the first reading finds where parts begin, and after which step; the second tells the lines that hold.
 */
#include "log_read.h"

#include "epoch_json.h"
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *path;
    FILE *file;
    char *line;
    size_t room;
    int64_t number; /* of the line, from 1 */
    json_t *object; /* of the line; NULL: it is broken */
    bool last;      /* nothing comes after it */
} reader;

static bool failed(const reader *r, const char *why)
{
    if (r->number)
        cli_fail("%s, line %lld: %s", r->path, (long long)r->number, why);
    else
        cli_fail("%s: %s", r->path, why);
    return false;
}

/* The next line; false after the last. */
static bool next(reader *r)
{
    json_decref(r->object);
    r->object = NULL;
    ssize_t length = getline(&r->line, &r->room, r->file);
    if (length < 0) return false;
    r->number++;
    r->object = json_loadb(r->line, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    int c = getc(r->file);
    r->last = c == EOF;
    if (!r->last) ungetc(c, r->file);
    return true;
}

static void rewind_reader(reader *r)
{
    rewind(r->file);
    r->number = 0;
}

static const char *kind_of(const json_t *line)
{
    const char *kind = json_string_value(json_object_get(line, "event"));
    return kind ? kind : "";
}

static bool is(const json_t *line, const char *kind) { return strcmp(kind_of(line), kind) == 0; }
static bool has(const json_t *line, const char *key) { return json_is_true(json_object_get(line, key)); }
static int64_t whole(const json_t *line, const char *key)
{
    return json_integer_value(json_object_get(line, key));
}

/* --- the parts of a run */

typedef struct part {
    int64_t line; /* of its start */
    int64_t step; /* after which it begins */
    int64_t most; /* the last of its steps that holds */
} part;

typedef struct parts {
    part *part;
    int count;
    json_t *last; /* the start of the last */
} parts;

static bool find_parts(reader *r, parts *p)
{
    static const int64_t endless = INT64_MAX;
    rewind_reader(r);
    while (next(r)) {
        if (!is(r->object, "start")) continue;
        part *grown = realloc(p->part, sizeof *grown * (size_t)(p->count + 1));
        if (!grown) return failed(r, "out of memory");
        p->part = grown;
        grown[p->count++] = (part){.line = r->number, .step = whole(r->object, "step"), .most = endless};
        json_decref(p->last);
        p->last = json_incref(r->object);
    }
    if (ferror(r->file)) return failed(r, strerror(errno));
    int64_t most = endless;
    for (int i = p->count - 1; i >= 0; i--) {
        p->part[i].most = most;
        if (p->part[i].step < most) most = p->part[i].step;
    }
    r->number = 0;
    return p->count > 0 ||
           failed(r, "this is no log of evenkeel train --log: no line of it says that a run starts");
}

/* --- its lines */

static ek_event event_of(const json_t *line, ek_event_kind kind)
{
    ek_event event = cli_epoch_from_json(line);
    event.kind = kind;
    event.step = whole(line, "step");
    event.step_skipped = has(line, "skipped");
    event.loss = cli_number_from_json(json_object_get(line, "loss"));
    event.lr = cli_number_from_json(json_object_get(line, "lr"));
    return event;
}

static bool tell_look(reader *r, ek_observer *observer, const json_t *line, int64_t step)
{
    ek_look look = {.layer = json_string_value(json_object_get(line, "layer")),
                    .channels = whole(line, "channels"),
                    .positions = whole(line, "positions"),
                    .gamma = has(line, "gamma"),
                    .beta = has(line, "beta"),
                    .running = has(line, "running"),
                    .frozen = has(line, "frozen"),
                    .step = step};
    const json_t *measures = json_object_get(line, "measures");
    if (!look.layer) return failed(r, "a look at a layer lacks its name");
    if (step > 0 && json_array_size(measures) != EK_LOOK_MEASURES)
        return failed(r, "a look at a layer lacks measures");
    for (size_t i = 0; step > 0 && i < EK_LOOK_MEASURES; i++)
        look.measure[i] = cli_number_from_json(json_array_get(measures, i));
    return ek_observer_retell_look(observer, &look) == EK_OK || failed(r, ek_error());
}

/* The run begins as its first part, and is as long as its last says. */
static bool tell_start(reader *r, const parts *p, ek_observer *observer)
{
    ek_event start = {.kind = EK_EVENT_START,
                      .step = p->part[0].step,
                      .epochs = whole(p->last, "epochs"),
                      .steps = whole(p->last, "steps"),
                      .skipped = whole(r->object, "skipped"),
                      .train_count = whole(p->last, "train_count"),
                      .valid_count = whole(p->last, "valid_count"),
                      .test_count = whole(p->last, "test_count")};
    if (ek_observer_retell(observer, &start) != EK_OK) return failed(r, ek_error());
    size_t i;
    json_t *norm;
    json_array_foreach(json_object_get(r->object, "batchnorms"), i, norm) {
        if (!tell_look(r, observer, norm, 0)) return false;
    }
    return true;
}

static bool tell_event(reader *r, ek_observer *observer, ek_event event, int64_t *skipped)
{
    if (event.kind == EK_EVENT_STEP) *skipped += event.step_skipped;
    event.skipped = *skipped;
    return ek_observer_retell(observer, &event) == EK_OK || failed(r, ek_error());
}

/* A line of a part that begins after `first`. */
static bool tell_line(reader *r, const parts *p, int at, ek_observer *observer, int64_t *skipped)
{
    const json_t *line = r->object;
    if (is(line, "start")) {
        if (at == 0) *skipped = whole(line, "skipped");
        return at > 0 || tell_start(r, p, observer);
    }
    if (!line) { /* where a run was killed, and the next part begins */
        bool cut = r->last || (at + 1 < p->count && p->part[at + 1].line == r->number + 1);
        return cut || failed(r, "this is not JSON");
    }
    if (at < 0) return failed(r, "this comes before any start of a run");
    if (whole(line, "step") > p->part[at].most) return true;
    if (is(line, "step")) return tell_event(r, observer, event_of(line, EK_EVENT_STEP), skipped);
    if (is(line, "epoch")) return tell_event(r, observer, event_of(line, EK_EVENT_EPOCH), skipped);
    if (is(line, "look")) return tell_look(r, observer, line, whole(line, "step"));
    return failed(r, "this is no line of a log of evenkeel train");
}

static bool tell_lines(reader *r, const parts *p, ek_observer *observer)
{
    int at = -1;
    int64_t skipped = 0;
    rewind_reader(r);
    while (next(r)) {
        if (at + 1 < p->count && p->part[at + 1].line == r->number) at++;
        if (!tell_line(r, p, at, observer, &skipped)) return false;
    }
    return !ferror(r->file) || failed(r, strerror(errno));
}

static char *text_of(const json_t *start, const char *key)
{
    const char *text = json_string_value(json_object_get(start, key));
    return cli_text("%s", text ? text : "");
}

bool cli_log_read(const char *path, ek_observer *observer, char **title, char **about)
{
    reader r = {.path = path, .file = fopen(path, "r")};
    parts p = {0};
    if (!r.file) {
        cli_fail("cannot read the log %s: %s", path, strerror(errno));
        return false;
    }
    bool fine = find_parts(&r, &p) && tell_lines(&r, &p, observer);
    if (fine) {
        *title = text_of(p.last, "title");
        *about = text_of(p.last, "about");
    }
    json_decref(r.object);
    json_decref(p.last);
    free(p.part);
    free(r.line);
    fclose(r.file);
    return fine;
}
