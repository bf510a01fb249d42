/* The log of a training run: one JSON object a line, from which a report of the run can be made (log_read.h). */
#ifndef CLI_TRAIN_LOG_H
#define CLI_TRAIN_LOG_H

#include "evenkeel.h"

#include <jansson.h>
#include <stdio.h>

typedef struct cli_log {
    const char *path; /* NULL: no log is kept */
    FILE *file;
    bool append;  /* after what the file holds, for a resumed run */
    bool created; /* the file was not there before */
    bool begun;
    bool failed; /* a line could not be written; none was tried after it */
} cli_log;

/* Opens without changing what the file holds. False: it cannot be written, which was said. */
bool cli_log_open(cli_log *log, const char *path, bool append);
/* Training begins: what the file held goes, unless appending. `about` (not taken) says what the run is, beside what the event and
 * the observer do. */
void cli_log_begin(cli_log *log, const ek_event *start, const json_t *about, const ek_observer *observer);
/* A line for a step, with what was looked at in it, or an epoch. The first failure is reported, and training goes on. */
void cli_log_event(cli_log *log, const ek_event *event, const ek_observer *observer);
/* A file that was made for a run that never began goes too. */
void cli_log_close(cli_log *log);

/* "data", "forward", ... */
extern const char *const cli_phase_name[EK_PHASES];

#endif
