/* How a model does before and after something was done to it, where the data has labels. */
#ifndef CLI_BEFORE_AFTER_H
#define CLI_BEFORE_AFTER_H

#include "evenkeel.h"

#include <jansson.h>

typedef struct cli_before_after {
    ek_dataset *data; /* NULL: there are no labels, and nothing is measured */
    ek_metrics before, after;
} cli_before_after;

/* A data set as for train, or the items of a single file without labels. */
ek_status cli_open_any_data(const char *spec, ek_split split, const ek_net *net, ek_dataset **out);
/* The data to measure on: the test part of `spec` where there is one, else all; none where `data`, of the same, has no labels. */
ek_status cli_before_after_open(cli_before_after *of, const char *spec, const ek_dataset *data);
void cli_before_after_close(cli_before_after *of);

/* One of the two measures; does nothing without data. */
ek_status cli_before_after_measure(const cli_before_after *of, ek_net *net, int64_t batch, ek_metrics *out);

/* Members measured_on, before and after; a table below an empty line. Both do nothing without data. */
void cli_before_after_json(const cli_before_after *of, json_t *object);
void cli_before_after_print(const cli_before_after *of);

#endif
