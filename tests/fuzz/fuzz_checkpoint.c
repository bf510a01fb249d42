/* Checkpoints of a given run: what is taken is written and taken again. */
#include "fuzz.h"

#include "checkpoint_run.h"

const fuzz_mutator fuzz_mutate = fuzz_mutate_safetensors;

static ek_run run;
static ek_train_options options;

void fuzz_start(void) { FUZZ_OK(start_run(fuzz_context(), &options, &run)); }

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input.safetensors", data, size), *again = fuzz_path("again.safetensors");
    if (!fuzz_took(ek_checkpoint_read(&run, path))) return;
    const ek_progress at = run.progress;
    fuzz_require(at.step <= run.steps_per_epoch && at.epoch <= options.epochs && at.skipped <= ek_run_steps(&run),
                 "a run is within itself");
    FUZZ_OK(ek_checkpoint_write(&run, again));
    FUZZ_OK(ek_checkpoint_read(&run, again));
    fuzz_require(at.step == run.progress.step && at.epoch == run.progress.epoch && at.skipped == run.progress.skipped &&
                     at.samples == run.progress.samples && at.correct == run.progress.correct,
                 "a run stands where it stood");
}
