/* A comparison: the combinations of what is varied, their runs, and what is told of them. */
#ifndef CLI_COMPARE_H
#define CLI_COMPARE_H

#include "evenkeel.h"
#include "options.h"
#include "training.h"

#include <jansson.h>
#include <stdio.h>

typedef struct compare_settings {
    const char *net, *init, *csv, *report, *state;
    cli_training training;
    cli_words vary;
    int64_t repeat, threads;
    bool json, quiet;
} compare_settings;

/* What became of a run:
 *   diverged   in an epoch more than half of the steps had a loss or gradient that was not finite, and the run ended
 *              there; or the training loss of its last epoch is above 2 ln(classes), twice that of guessing
 *   at chance  the training accuracy of its last epoch is that of naming always the largest class, or less, to three
 *              standard errors
 *   failed     an error, such as want of memory */
typedef enum compare_outcome {
    COMPARE_NOT_RUN,
    COMPARE_LEARNED,
    COMPARE_AT_CHANCE,
    COMPARE_DIVERGED,
    COMPARE_FAILED,
} compare_outcome;
enum { COMPARE_OUTCOMES = 5 };
extern const char *const compare_outcome_word[COMPARE_OUTCOMES];

typedef struct compare_run {
    compare_outcome outcome;
    char *reason; /* in words; "" where it learned */
    int64_t skipped;
    int epochs;
    ek_event *epoch;
    /* From the epochs; NaN where there is none. */
    double final, best, train_accuracy, train_loss, seconds, images_per_second;
    int best_epoch;
} compare_run;

enum { COMPARE_KEYS = CLI_MOST_WORDS };

typedef struct compare_key {
    char *name;
    int count;
    char **value; /* as they were given */
} compare_key;

typedef struct compare_combination {
    int value[COMPARE_KEYS]; /* of each key, which */
    char *name;              /* "norm=batch lr=0.1" */
    char *net;               /* its text */
    compare_settings s;      /* with its batch, lr, optimizer and init */
    int64_t parameters;
    compare_run *run; /* by seed */
} compare_combination;

/* What accuracy is told: on the test data, else on the share held out, else on the training data as it was seen. */
typedef enum compare_measure { COMPARE_TEST, COMPARE_VALID, COMPARE_TRAIN } compare_measure;

typedef struct comparison {
    const compare_settings *s;
    ek_context *context;
    ek_net *net; /* as it was given */
    ek_dataset *train, *test;
    compare_measure measure;
    const char *measured; /* "test", "validation", "training" */
    int64_t train_count, measured_count;
    double chance; /* the share of the training data's largest class */
    int keys;
    compare_key key[COMPARE_KEYS];
    int count;
    compare_combination *at;
    int notes;
    char **note;
    bool stopped;
} comparison;

/* --- compare_plan.c: all that can be wrong is found here. CLI_DONE, or the exit code of what was said. */
int compare_plan(comparison *c, const cli_command *command);
void compare_free(comparison *c);
/* Index of a key; -1: it is not varied. */
int compare_find_key(const comparison *c, const char *name);
/* "norm=batch lr=0.1": the keys that have several values, but for one (-1: all); free it. */
char *compare_name(const comparison *c, const compare_combination *at, int without);
/* The seed of a run, by its index. */
static inline int64_t compare_seed(const comparison *c, int64_t run) { return c->s->training.seed + run; }
static inline const char *compare_value(const comparison *c, const compare_combination *at, int key)
{
    return c->key[key].value[at->value[key]];
}

/* --- compare_notes.c: what the changes came to, layer by layer, where it is not plain. */
void compare_add_notes(comparison *c);

/* --- compare_state.c */
typedef struct compare_state {
    const char *path;
    FILE *file; /* NULL: none is kept */
    bool failed;
} compare_state;

/* Takes the runs that the file holds; a file that is not there begins. False: it cannot be, which was said. */
bool compare_state_open(compare_state *state, comparison *c, int *done);
/* A run is finished. A failure to write is said once. */
void compare_state_add(compare_state *state, const comparison *c, const compare_combination *at, int64_t run);
void compare_state_close(compare_state *state);
/* A run with its curve: {"vary":{...},"seed":1,"outcome":...,"epochs":[...]}. */
json_t *compare_run_json(const comparison *c, const compare_combination *at, int64_t run);

/* Of several ranks: what rank `root` knows of a run, that it is finished, all get to know. NULL: it is not. False: the other ranks are
 * lost, which was said. */
bool compare_share_run(comparison *c, int root, compare_combination *at, int64_t run);
/* The same for all runs that rank 0 knows; *done counts them. */
bool compare_share_all(comparison *c, int *done);

/* --- compare_run.c: makes all runs but the `done` ones, till a stop is asked for. */
void compare_run_all(comparison *c, compare_state *state, int done);
/* final to best_epoch, from the epochs. */
void compare_measure_run(const comparison *c, compare_run *run);
double compare_accuracy(const comparison *c, const ek_event *epoch);

/* --- compare_figures.c: what the runs of a combination come to. */
typedef struct compare_figures {
    int runs[COMPARE_OUTCOMES]; /* how many came to what */
    int count;                  /* runs that the means are of: those that neither diverged nor failed, or where there
                                   are none, those that diverged */
    double final, final_deviation, best, best_deviation; /* deviation: NaN of less than two */
    double train_accuracy, train_loss, seconds, images_per_second;
} compare_figures;

compare_figures compare_figures_of(const comparison *c, const compare_combination *at);
/* Whether two means differ by more than their deviations explain: Welch's t test at 95 %, two-sided. Both of two runs
 * or more. */
bool compare_differ(double mean_a, double deviation_a, int count_a, double mean_b, double deviation_b, int count_b);
/* "2 learned, 1 diverged" */
char *compare_outcomes(const compare_figures *f);

/* --- compare_words.c: a paragraph on what the figures show; free it. */
char *compare_words(const comparison *c);

/* --- compare_answer.c. False: a file could not be written, which was said. */
void compare_print(const comparison *c, const char *words);
void compare_print_json(const comparison *c, const char *words);
bool compare_write_csv(const comparison *c, const char *path);
bool compare_write_report(const comparison *c, const char *words, const char *path);

#endif
