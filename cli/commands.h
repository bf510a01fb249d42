/* The commands: cmd_NAME.c each. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "options.h"

extern const cli_command cli_train, cli_eval, cli_predict, cli_run, cli_summary, cli_inspect,
    cli_bench, cli_audit, cli_recalibrate, cli_compare, cli_fold, cli_convert;

#endif
