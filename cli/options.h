/* Commands and their options, described by tables: parsing, help and suggestions all read the same rows. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cli_kind {
    CLI_END,
    CLI_HEADING, /* a line in the help; `name` is its text */
    CLI_OPERAND, /* const char *: an argument by its place, required unless the settings name one */
    CLI_FLAG,    /* bool */
    CLI_INTEGER, /* int64_t in [least, most] */
    CLI_NUMBER,  /* double in [least, most]; NaN stands for "not given" */
    CLI_TEXT,    /* const char * */
    CLI_WORDS,   /* cli_words: may be given several times */
    CLI_CHOICE,  /* int: which of the words in `value`, as in "sgd|adam|adamw" */
} cli_kind;

/* The values of an option that may be given several times, in their order; those after the last are NULL. */
enum { CLI_MOST_WORDS = 16 };
typedef struct cli_words {
    const char *word[CLI_MOST_WORDS + 1];
} cli_words;

typedef struct cli_option {
    cli_kind kind;
    const char *name;  /* "epochs"; an operand's "NET" */
    const char *value; /* what the help calls the value: "N" */
    size_t offset;     /* of the value in the command's settings */
    const char *help;
    double least, most; /* most 0: no upper bound */
    bool above;         /* the number must be above `least`, not just at it */
    bool required;
} cli_option;

/* Rows of a table; `field` is a member of the command's `settings`. */
/* clang-format off */
#define ROW_AT(which, option, field, text) \
    .kind = which, .name = option, .offset = offsetof(settings, field), .help = text
#define ROW_HEADING(text) {.kind = CLI_HEADING, .name = text}
#define ROW_OPERAND(label, field, text) {ROW_AT(CLI_OPERAND, label, field, text)}
#define ROW_FLAG(option, field, text) {ROW_AT(CLI_FLAG, option, field, text)}
#define ROW_TEXT(option, label, field, text) {ROW_AT(CLI_TEXT, option, field, text), .value = label}
#define ROW_REQUIRED(option, label, field, text) \
    {ROW_AT(CLI_TEXT, option, field, text), .value = label, .required = true}
#define ROW_REQUIRED_WORDS(option, label, field, text) \
    {ROW_AT(CLI_WORDS, option, field, text), .value = label, .required = true}
#define ROW_CHOICE(option, words, field, text) {ROW_AT(CLI_CHOICE, option, field, text), .value = words}
#define ROW_INTEGER(option, label, field, low, high, text) \
    {ROW_AT(CLI_INTEGER, option, field, text), .value = label, .least = low, .most = high}
#define ROW_NUMBER(option, label, field, low, high, text) \
    {ROW_AT(CLI_NUMBER, option, field, text), .value = label, .least = low, .most = high}
#define ROW_POSITIVE(option, label, field, text) \
    {ROW_AT(CLI_NUMBER, option, field, text), .value = label, .above = true}

/* Ends every command's table. */
#define ROWS_COMMON \
    ROW_HEADING("General:"), \
    ROW_INTEGER("threads", "N", threads, 1, 256, \
                "Worker threads; without it one for each core. The result is the same to the last bit " \
                "for any number."), \
    ROW_FLAG("json", json, "Answer with one JSON object."), \
    {.kind = CLI_END}
/* clang-format on */

typedef struct cli_command {
    const char *name;
    const char *synopsis; /* what follows the name: "MODEL --data DATA [options]" */
    const char *brief;    /* one line for the list of commands */
    const char *about;    /* a paragraph */
    const char *examples; /* lines, indented by two */
    const char *after;    /* lines between options and examples; NULL: none */
    const cli_option *options;
    int (*run)(int argc, char **argv); /* argv[0] the program, argv[1] the command; gives the exit code */
    bool ranks; /* of several processes (evenkeel-mpi) all run it, each a share; else rank 0 alone does */
} cli_command;

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* Reads the arguments into `settings`, which hold the defaults. False: the command ends with *exit_code,
 * because help was asked for and printed, or because the arguments are wrong and the reason was said. */
bool cli_parse(const cli_command *command, int argc, char **argv, void *settings, int *exit_code);

/* What cli_parse does where help is asked for: it prints it for a terminal, unless another printer was set. `settings` hold
 * the defaults. */
typedef void (*cli_printer)(const cli_command *command, const void *settings);
void cli_print_help_by(cli_printer printer);
/* An option's help with its default behind it; free it. */
char *cli_option_help(const cli_option *option, const void *settings);

/* Stores `text` as if --NAME TEXT were among the arguments. False: it is wrong, which was said. */
bool cli_store(const cli_command *command, const char *name, const char *text, void *settings);

/* "evenkeel: sentence" and where help is, on stderr. Gives CLI_USAGE. */
__attribute__((format(printf, 2, 3))) int cli_usage_error(const cli_command *command, const char *format,
                                                          ...);

/* The name nearest to `wrong`, or NULL when none is near enough to be meant. */
const char *cli_nearest(const char *wrong, const char *const *names, int count);

#endif
