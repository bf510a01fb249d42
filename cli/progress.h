/* How far training, or another long work, is, on stderr: a bar on a terminal, a plain line now and then elsewhere. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "evenkeel.h"

#include "picture.h"

typedef struct cli_progress {
    bool quiet, bar;
    bool shown;         /* a bar stands on the terminal's line */
    int64_t first_step; /* steps done before this run, by the one it resumes */
    double began;       /* by cli_now */
    double drawn;       /* the same, at the last drawing */
    double loss;        /* smoothed */
    const cli_curve *curve; /* of the loss; NULL: none is drawn */

    /* Where it is one of several runs; NULL: it is not. */
    const char *name;     /* "run 3/15 norm=layer" */
    int run, runs;        /* runs before it, and in all */
    double later_seconds; /* what those to come will take, as far as is known, */
    int later_runs;       /* and how many may take as long as this one */
} cli_progress;

/* start: as a run began; NULL: nothing is done yet. */
void cli_progress_begin(cli_progress *progress, bool quiet, const ek_event *start, const cli_curve *curve);
/* The next of several runs: the fields for them are set by the caller. */
void cli_progress_next(cli_progress *progress);
void cli_progress_step(cli_progress *progress, const ek_event *step);
/* An ek_watch with a cli_progress for its user: draws, and asks to stop after Ctrl-C (stop.h). */
bool cli_progress_work(void *progress, double share);
/* Takes the bar away, so that something else can be printed. */
void cli_progress_clear(cli_progress *progress);

#endif
