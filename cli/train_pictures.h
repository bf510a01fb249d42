/* The pictures of a training run: a report page, and event files for TensorBoard. */
#ifndef CLI_TRAIN_PICTURES_H
#define CLI_TRAIN_PICTURES_H

#include "evenkeel.h"

typedef struct cli_events {
    ek_event_file *file; /* NULL: none is asked for */
    bool begun;
    bool failed; /* it could not be written; nothing was tried after it */
} cli_events;

/* folder NULL: none is asked for. False: it cannot be written, which was said. */
bool cli_events_open(cli_events *events, const char *folder);
/* The first failure is reported, and training goes on. */
void cli_events_add(cli_events *events, const ek_event *event, const ek_net *net,
                    const ek_observer *observer);
/* A file that was made for a run that never began goes too. */
void cli_events_close(cli_events *events);

/* The page of a run: `about` says what it was. False: it failed, which was said. */
bool cli_report_write(const char *path, const char *title, const char *about, const ek_observer *observer);

#endif
