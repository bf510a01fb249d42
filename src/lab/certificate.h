/* Whether a folded net computes what the net did: both run on the same inputs, and every difference is looked at. */
#ifndef EK_LAB_CERTIFICATE_H
#define EK_LAB_CERTIFICATE_H

#include "data/dataset.h"
#include "graph/fold.h"

enum { EK_FOLD_MOST_RUNS = 5 };

struct ek_fold {
    ek_net *net; /* folded */
    ek_fold_list list;
    ek_folded *layer; /* [list.count] */
    char *words;      /* their labels */
    ek_fold_run run[EK_FOLD_MOST_RUNS];
    int runs;
    double bound;
};

/* Fills run, runs and the layers' errors, of any net that claims to be the fold of `net`. */
EK_MUST_CHECK ek_status ek_fold_certify(ek_fold *fold, ek_net *net, const ek_fold_options *options);

#endif
