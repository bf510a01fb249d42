/* A run of training from its options to its answer: what `train` and `rerun` do. */
#ifndef CLI_TRAIN_RUN_H
#define CLI_TRAIN_RUN_H

#include "common.h"
#include "training.h"

#include <jansson.h>

/* The model that a run is to give again. */
typedef struct cli_expected {
    const char *path;
    const ek_net *net;
    const json_t *record; /* cli_record_read */
} cli_expected;

/* The settings of both commands. */
typedef struct cli_train_plan {
    const char *net, *out, *init, *log, *checkpoint, *resume, *report, *tensorboard, *metrics;
    cli_training training;
    int64_t checkpoint_steps, threads;
    double timeout; /* 0: the default */
    bool json, quiet;
    const char *model; /* rerun's operand */
    bool dry_run;
    const cli_expected *expected; /* of rerun; NULL: nobody knows yet what comes of it */
} cli_train_plan;

/* Their rows for files, for settings that are a cli_train_plan. */
/* clang-format off */
#define ROWS_RUN_FILES \
    ROW_TEXT("log", "FILE.jsonl", log, \
             "Write each step and each epoch as one line of JSON, and all that evenkeel report needs for a report of it."), \
    ROW_TEXT("checkpoint", "FILE", checkpoint, \
             "Keep all that is needed to go on: rewritten after every epoch, before it is measured, and when stopped by Ctrl-C. " \
             "If it cannot be written, training goes on, and the one before it stands."), \
    ROW_INTEGER("checkpoint-steps", "N", checkpoint_steps, 1, 0, "Also rewrite it every N steps."), \
    ROW_TEXT("resume", "FILE", resume, \
             "Go on from a checkpoint, with the same other options; ends with the bits of an unbroken run. " \
             "--log is continued."), \
    ROW_TEXT("report", "FILE.html", report, \
             "Write a page with the run's pictures: loss, accuracy, learning rate, and how each batch " \
             "normalization's inputs, outputs and statistics moved."), \
    ROW_TEXT("tensorboard", "DIR", tensorboard, "Write scalars and histograms for TensorBoard to a file in DIR."), \
    ROW_TEXT("metrics", "FILE.prom", metrics, \
             "Keep a file for Prometheus up to date while training: images a second, loss, where the time of a step goes, " \
             "memory, skipped steps."), \
    ROW_FLAG("quiet", quiet, "No progress on stderr.")
/* clang-format on */

/* What single options cannot say: which of them do not go together. False: that was said, and *code is the command's. */
bool cli_train_check(const cli_command *command, const cli_train_plan *plan, int *code);

/* Trains, writes all that is asked for, and answers. `arguments` are the command's, for how to go on after Ctrl-C. Gives the exit
 * code: also CLI_FAILED where the model is not the expected one. */
int cli_train_go(const cli_train_plan *plan, int argc, char **argv);

#endif
