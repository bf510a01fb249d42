/* Measures of an epoch as JSON: in a log, a comparison's state and answers. */
#ifndef CLI_EPOCH_JSON_H
#define CLI_EPOCH_JSON_H

#include "evenkeel.h"

#include <jansson.h>

/* epoch, train_loss, train_accuracy, ..., seconds; what is not finite is left out. */
json_t *cli_epoch_json(const ek_event *epoch);
/* From such an object: what it lacks is NaN. */
ek_event cli_epoch_from_json(const json_t *object);

/* NaN: it is none, or NULL. */
double cli_number_from_json(const json_t *value);

#endif
