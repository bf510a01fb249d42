/* What several commands do: opening a net, and finding out early whether a file can be written. */
#ifndef CLI_COMMON_H
#define CLI_COMMON_H

#include "evenkeel.h"

#include <stdio.h>

typedef struct cli_model {
    ek_context *context;
    ek_net *net;
    bool trained; /* from a model file, not a net text */
} cli_model;

/* threads 0: one for each core. False: it failed, which was said. */
bool cli_model_open(cli_model *model, const char *name, int64_t threads);
/* The same for who examines or mends a model: whatever values it holds (ek_net_open_sick). */
bool cli_model_open_sick(cli_model *model, const char *name, int64_t threads);
/* The same for what each of several ranks does by itself. */
bool cli_model_open_alone(cli_model *model, const char *name, int64_t threads);
void cli_model_close(cli_model *model);
/* For commands that only make sense with trained parameters. */
void cli_warn_untrained(const cli_model *model, const char *name);
/* Trained numbers of the whole net. */
int64_t cli_parameters(const ek_net *net);

/* The lengths in the file `path` of n sequences for the model, which is called `name`; *lengths (free) stays NULL where
 * path is. False: it failed, which was said. */
bool cli_read_lengths(const cli_model *model, const char *name, const char *path, int64_t n,
                      int32_t **lengths);

/* Seconds on a clock that only goes forward. */
double cli_now(void);

bool cli_ends_with(const char *text, const char *end);
/* Whether a model is written to `path`: not where its ending says that something else is wanted there (.c, .net, .txt). */
bool cli_is_model_name(const char *path);
/* Writes a model: for other programs where the path ends in .onnx, else with ek_net_save. */
ek_status cli_save_model(const ek_net *net, const char *path);

/* Whether there is a regular file. */
bool cli_is_file(const char *path);
/* Keeps a file for this run, which writes it at its end (ek_file_claim). path NULL: none is written. False: it cannot be
 * written, or is another run's to write, which was said. */
bool cli_claim(const char *path, ek_claim **claim);
/* Whether `path` can be written or replaced: claimed, and given up again. False: no, which was said. */
bool cli_can_write(const char *path);
/* Replaces a file by a text, wholly or not at all. False: it could not, which was said. */
bool cli_write_file(const char *path, const char *text, size_t length);
/* Two names of one file, or of one that is still to be made. A name may be NULL. */
bool cli_same_file(const char *a, const char *b);
/* Why an output must not go to `path`: it is one of the files that the data (--data: x.npy,y.npy or one file) lies in, or
 * the net's text; NULL: it may. Any may be NULL. */
const char *cli_would_lose(const char *path, const char *data, const char *net);

/* A word of a command, a blank before it, quoted as a shell needs it. */
void cli_print_quoted(FILE *file, const char *word);

#endif
