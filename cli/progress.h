/* How far training is, on stderr: a bar on a terminal, a plain line now and then elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "evenkeel.h"

#include "picture.h"

typedef struct cli_progress {
    bool quiet, bar;
    bool shown;         /* a bar stands on the terminal's line */
    int64_t first_step; /* steps done before this run, by the one it resumes */
    double drawn;       /* event time of the last drawing, in seconds */
    double loss;        /* smoothed */
    const cli_curve *curve; /* of the loss; NULL: none is drawn */
} cli_progress;

void cli_progress_begin(cli_progress *progress, bool quiet, const ek_event *start, const cli_curve *curve);
void cli_progress_step(cli_progress *progress, const ek_event *step);
/* Takes the bar away, so that something else can be printed. */
void cli_progress_clear(cli_progress *progress);

#endif
