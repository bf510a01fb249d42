#ifndef EK_TRAIN_SCHEDULE_H
#define EK_TRAIN_SCHEDULE_H

#include "core/status.h"

ek_status ek_schedule_check(const ek_train_options *options);
/* The learning rate of a step (from 0) of a run of steps_per_epoch * epochs steps. */
double ek_schedule_lr(const ek_train_options *options, int64_t step, int64_t steps_per_epoch);

#endif
