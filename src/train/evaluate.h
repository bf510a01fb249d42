#ifndef EK_TRAIN_EVALUATE_H
#define EK_TRAIN_EVALUATE_H

#include "data/batches.h"

/* The data fits the net, as ek_dataset_check, and is labelled and not empty. `what` names it in errors. */
ek_status ek_labelled_check(const ek_dataset *dataset, const ek_net *net, const char *what);

/* ek_evaluate over the samples index[0..count). */
ek_status ek_evaluate_at(ek_net *net, const ek_dataset *dataset, const int64_t *index, int64_t count,
                         int64_t batch, ek_metrics *out);

#endif
