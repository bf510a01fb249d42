/* How a model came to be, as it stands in its metadata (EK_RUN_KEY): the options that its numbers depend on, what its weights
 * began as, the data, and where it was trained. Nothing in it depends on the number of threads, the date, the names of other
 * outputs, or on whether the run was interrupted and resumed, so that models of equal runs are equal files. */
#ifndef CLI_TRAIN_RECORD_H
#define CLI_TRAIN_RECORD_H

#include "train_run.h"

#include <jansson.h>

/* What tells this machine from others: the processor's name. */
const char *cli_machine(void);

/* Of a run that is about to begin. NULL: a file or the data cannot be read, which was said. */
json_t *cli_record_make(const cli_train_plan *plan, const cli_model *model, const ek_dataset *train, const ek_dataset *test);
/* Puts it into the net. Of a resumed run, whose net has its checkpoint's record, what the run began with is taken over
 * from that one, and this machine is added where it is another. False: it failed, which was said. */
bool cli_record_keep(json_t *record, ek_net *net, bool resumed);

/* The net's record says that it was saved when its run was stopped, after `step` of `steps`; where that fails, so much is said. */
void cli_record_stop(ek_net *net, int64_t step, int64_t steps);

/* The record of the model `name`, checked to be one, whose texts have no control characters. NULL: it has none, or the
 * net is not the one that was trained, which was said. */
json_t *cli_record_read(const char *name, const ek_net *net);
/* Its options as the plan's, each checked as if it had been given. False: one is wrong, which was said. */
bool cli_record_plan(const json_t *record, const char *name, cli_train_plan *plan);
/* A note where it is of a run that was stopped: repeated, that goes on to its end. */
void cli_record_tell_stop(const json_t *record, const char *name);
const char *cli_record_weights(const json_t *record);
/* Of the file that the weights began as; NULL: it was none. */
const char *cli_record_weights_hash(const json_t *record);

/* Notes for what of `now` is not as in `then`. */
void cli_record_compare(const json_t *then, const json_t *now);

#endif
