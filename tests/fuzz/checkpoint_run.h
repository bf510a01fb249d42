/* The run whose checkpoints are fuzzed. */
#ifndef EK_TESTS_CHECKPOINT_RUN_H
#define EK_TESTS_CHECKPOINT_RUN_H

#include "train/checkpoint.h"

/* The caller ends run->trainer, and its net. */
static ek_status start_run(ek_context *context, ek_train_options *options, ek_run *run)
{
    ek_net *net;
    EK_TRY(ek_net_create(context, "input 2\nlinear 2 bias=false\nbatchnorm\nrelu\nlinear 2\n", NULL, &net));
    *options = ek_train_options_default();
    options->batch = 4;
    options->optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    *run = (ek_run){.options = options, .data_count = 40, .train_count = 40, .steps_per_epoch = 10};
    return ek_trainer_create(net, &options->optimizer, options->seed, &run->trainer);
}

#endif
