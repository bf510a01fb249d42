/* A training run out of its log (train_log.h). */
#ifndef CLI_LOG_READ_H
#define CLI_LOG_READ_H

#include "evenkeel.h"

/* Tells an observer all that the log says; a run that was interrupted and resumed becomes one. *title and *about (free both) say
 * what it was. False: the log cannot be read, or is none, which was said. */
bool cli_log_read(const char *path, ek_observer *observer, char **title, char **about);

#endif
