/* Stopping on request: Ctrl-C, and being told to end, are remembered instead of ending the program. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP only set a mark; the second one ends the program at once.
 * A signal that was ignored stays ignored (nohup). */
void cli_stop_listen(void);
bool cli_stop_requested(void);

#endif
