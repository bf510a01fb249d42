/* How far training is, on stderr: a bar on a terminal, a plain line now and then elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "evenkeel.h"

typedef struct cli_progress {
    bool quiet, bar;
    bool shown;         /* a bar stands on the terminal's line */
    int64_t first_step; /* steps done before this run, by the one it resumes */
    double drawn;       /* when it was last drawn, by cli_now */
    double loss;        /* smoothed */

    /* Where it is one of several runs; NULL: it is not. */
    const char *name;     /* "run 3/15 norm=layer" */
    int run, runs;        /* runs before it, and in all */
    double later_seconds; /* what those to come will take, as far as is known, */
    int later_runs;       /* and how many may take as long as this one */
} cli_progress;

void cli_progress_begin(cli_progress *progress, bool quiet, const ek_event *start);
/* The next of several runs: the fields for them are set by the caller. */
void cli_progress_next(cli_progress *progress);
void cli_progress_step(cli_progress *progress, const ek_event *step);
/* Takes the bar away, so that something else can be printed. */
void cli_progress_clear(cli_progress *progress);

#endif
