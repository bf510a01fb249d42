/* Whether all ranks are about to train the same. */
#ifndef EK_TRAIN_AGREEMENT_H
#define EK_TRAIN_AGREEMENT_H

#include "data/dataset.h"
#include "train/checkpoint.h"

/* Called by all ranks alike; test NULL: there is none.
 * EK_E_RANK  a rank differs from rank 0 in version, instruction set, options, data, parameters or where the run stands: results would
 *            not be those of one process, or the ranks would wait for each other for ever. All ranks are told. */
ek_status ek_agreement_check(ek_comm *comm, const ek_run *run, const ek_dataset *data, const ek_dataset *test);

#endif
