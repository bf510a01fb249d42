/* The commands: cmd_NAME.c each. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "options.h"

extern const cli_command cli_train, cli_rerun, cli_report, cli_eval, cli_predict, cli_run, cli_summary, cli_inspect,
    cli_bench, cli_audit, cli_recalibrate, cli_compare, cli_fold, cli_convert;

/* All, in the order of the help; ended by NULL. */
extern const cli_command *const cli_commands[];
const cli_command *cli_find_command(const char *name); /* NULL */

/* What the help, the man page and the shells' completion say of all of it. */
extern const struct cli_overview {
    const char *about, *start, *environment, *exits;
} cli_overview;

/* On stdout; they give the exit code. command NULL: the page of all. */
int cli_print_man(const cli_command *command);
int cli_print_completion(const char *shell);

#endif
