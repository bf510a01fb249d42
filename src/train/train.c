#include "core/clock.h"
#include "core/memory.h"
#include "train/agreement.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Far beyond use; keeps numbers of steps far from overflow. */
#define MAX_EPOCHS 1000000

ek_train_options ek_train_options_default(void)
{
    return (ek_train_options){
        .epochs = 10,
        .batch = 128,
        .accumulate = 1,
        .optimizer = ek_optimizer_options_default(EK_OPTIMIZER_SGD),
        .schedule = EK_SCHEDULE_CONSTANT,
        .step_epochs = 30,
        .decay = 0.1,
        .seed = 1,
        .shuffle = true,
    };
}

/* A run of ek_train: what a checkpoint holds of it, and the rest. */
typedef struct training {
    ek_run run;
    ek_net *net;
    const ek_dataset *data, *test;
    int64_t *train_index, *valid_index;
    int64_t valid_count;
    double began;         /* by ek_now */
    /* Of the present epoch, in this process: */
    double train_seconds, phase_seconds[EK_PHASES];
    int64_t train_images;
    ek_traffic sent;
    ek_comm *comm;   /* NULL: this process alone */
    int first_shard, local_shards; /* of this process */
    bool wants_stop; /* the listener wants no more, which other ranks are told with the next step */
    bool stop;       /* no more steps */
    bool saved;      /* the checkpoint is of the present position */
    ek_claim *claim;   /* to the checkpoint */
    ek_status unsaved; /* of the last checkpoint that was due */
    char why[512];     /* its sentence, where it is not EK_OK */
} training;

static ek_status check_options(const ek_train_options *o, int shards)
{
    if (o->epochs < 1 || o->epochs > MAX_EPOCHS)
        return ek_fail(EK_E_ARGUMENT, "epochs must be 1 to %d, not %lld", MAX_EPOCHS, (long long)o->epochs);
    if (o->batch < 1) return ek_fail(EK_E_ARGUMENT, "batch must be 1 or more, not %lld", (long long)o->batch);
    if (o->accumulate < 1 || o->accumulate > EK_MAX_BATCH)
        return ek_fail(EK_E_ARGUMENT, "accumulate must be 1 to %lld, not %lld", (long long)EK_MAX_BATCH,
                       (long long)o->accumulate);
    if (o->batch > EK_MAX_BATCH / o->accumulate)
        return ek_fail(EK_E_ARGUMENT, "%lld times a batch of %lld is more than the %lld samples that a step takes",
                       (long long)o->accumulate, (long long)o->batch, (long long)EK_MAX_BATCH);
    if (o->accumulate > 1 && shards > 1)
        return ek_fail(EK_E_ARGUMENT,
                       "a batch is either run in parts one after the other (accumulate is %lld) or cut into shards (%d): give a "
                       "larger batch, or no more than one shard",
                       (long long)o->accumulate, shards);
    EK_TRY(ek_optimizer_check(&o->optimizer));
    EK_TRY(ek_schedule_check(o));
    if (o->checkpoint_steps < 0)
        return ek_fail(EK_E_ARGUMENT, "checkpoint_steps must be 0 (off) or more, not %lld",
                       (long long)o->checkpoint_steps);
    if (o->checkpoint_steps > 0 && !o->checkpoint)
        return ek_fail(EK_E_ARGUMENT, "checkpoint_steps is %lld, but no checkpoint file is named",
                       (long long)o->checkpoint_steps);
    return EK_OK;
}

/* Samples of a step. */
static int64_t step_samples(const ek_train_options *o) { return o->batch * o->accumulate; }

static bool in_shards(const training *t) { return t->run.shards != 1 || t->comm; }

/* Rank 0 alone writes. */
static bool writes(const training *t) { return ek_comm_rank(t->comm) == 0; }

/* Of the samples to train on only so many: the first of a shuffle of their own. */
static ek_status draw_samples(training *t)
{
    const ek_train_options *o = t->run.options;
    if (o->samples < 0)
        return ek_fail(EK_E_ARGUMENT, "samples must be 0 (all) or more, not %lld", (long long)o->samples);
    if (o->samples > t->run.train_count)
        return ek_fail(EK_E_ARGUMENT, "samples=%lld is more than the %lld there are to train on",
                       (long long)o->samples, (long long)t->run.train_count);
    if (o->samples == 0) return EK_OK;
    EK_TRY(ek_epoch_order(t->train_index, t->run.train_count, o->seed, 0, true));
    t->run.train_count = o->samples;
    return EK_OK;
}

/* Of the sequences to train on; 0: they have no lengths. */
static int32_t shortest(const training *t)
{
    const int32_t *length = t->data->length;
    int32_t least = length ? length[t->train_index[0]] : 0;
    for (int64_t i = 1; length && i < t->run.train_count; i++) {
        if (length[t->train_index[i]] < least) least = length[t->train_index[i]];
    }
    return least;
}

/* Every layer can take the batches of an epoch: the first, and the last, which may be another size; were they of the
 * shortest sequences. */
static ek_status check_batches(const training *t)
{
    const ek_run *run = &t->run;
    const ek_train_options *o = run->options;
    int32_t length = shortest(t);
    for (int last = 0; last < 2; last++) {
        int64_t first, size;
        ek_batch_range(run->train_count, step_samples(o), o->drop_last, last ? run->steps_per_epoch - 1 : 0, &first, &size);
        EK_TRY(ek_net_check(t->net, size, length, EK_MODE_TRAINING));
        if (in_shards(t)) EK_TRY(ek_sharding_check(t->net, t->run.shards, o->local_bn, size));
    }
    return EK_OK;
}

/* Everything that can be wrong is found here, before the first step. */
static ek_status prepare(training *t)
{
    const ek_train_options *o = t->run.options;
    t->comm = ek_comm_ranks(t->net->context->comm) > 1 ? t->net->context->comm : NULL;
    t->run.shards = o->shards ? o->shards : ek_comm_ranks(t->comm);
    t->local_shards = t->run.shards / ek_comm_ranks(t->comm);
    t->first_shard = t->local_shards * ek_comm_rank(t->comm);
    EK_TRY(check_options(o, t->run.shards));
    EK_TRY(ek_labelled_check(t->data, t->net, "the training data"));
    if (t->test) EK_TRY(ek_labelled_check(t->test, t->net, "the test data"));
    EK_TRY(ek_split_indices(t->data->count, o->valid_fraction, o->seed, &t->train_index, &t->run.train_count,
                            &t->valid_index, &t->valid_count));
    EK_TRY(draw_samples(t));
    t->run.data_count = t->data->count;
    t->run.steps_per_epoch = ek_batch_count(t->run.train_count, step_samples(o), o->drop_last);
    if (t->run.steps_per_epoch < 1)
        return ek_fail(EK_E_ARGUMENT,
                       "%lld training samples fill no batch of %lld; ask for a smaller batch, or do not drop "
                       "the last one",
                       (long long)t->run.train_count, (long long)step_samples(o));
    EK_TRY(check_batches(t));
    if (o->accumulate > 1) EK_TRY(ek_parts_check(t->net));
    /* So that a wrong path is found before hours of training. */
    if (o->checkpoint && writes(t)) EK_TRY(ek_file_claim(o->checkpoint, &t->claim));
    EK_TRY(ek_net_use_lengths(t->net, t->data->length));
    return ek_trainer_create(t->net, &o->optimizer, o->seed, &t->run.trainer);
}

static ek_status make_room(training *t)
{
    const ek_train_options *o = t->run.options;
    if (in_shards(t))
        EK_TRY(ek_trainer_reserve_shards(t->run.trainer, t->run.shards, o->local_bn,
                                         ek_batch_largest(t->run.train_count, o->batch, o->drop_last)));
    else if (o->accumulate > 1)
        EK_TRY(ek_trainer_reserve_parts(t->run.trainer, o->batch));
    else
        EK_TRY(ek_trainer_reserve(t->run.trainer, ek_batch_largest(t->run.train_count, o->batch, o->drop_last)));
    if (o->resume) EK_TRY(ek_checkpoint_read(&t->run, o->resume));
    return t->comm ? ek_agreement_check(t->comm, &t->run, t->data, t->test) : EK_OK;
}

/* --- Telling the listener */

static ek_event event_here(const training *t, ek_event_kind kind)
{
    const ek_run *run = &t->run;
    int64_t step = ek_run_steps(run), epochs = run->options->epochs;
    /* At the border between two epochs the start belongs to the next, all else to the one just done. */
    int64_t epoch = kind == EK_EVENT_START ? run->progress.epoch + 1
                                           : (step + run->steps_per_epoch - 1) / run->steps_per_epoch;
    epoch = epoch < 1 ? 1 : epoch > epochs ? epochs : epoch;
    return (ek_event){
        .kind = kind,
        .epoch = epoch,
        .epochs = epochs,
        .step = step,
        .steps = epochs * run->steps_per_epoch,
        .train_count = run->train_count,
        .valid_count = t->valid_count,
        .test_count = t->test ? t->test->count : 0,
        .skipped = run->progress.skipped,
        .loss = NAN,
        .lr = NAN,
        .train_loss = NAN,
        .train_accuracy = NAN,
        .valid_loss = NAN,
        .valid_accuracy = NAN,
        .test_loss = NAN,
        .test_accuracy = NAN,
        .images_per_second = NAN,
        .seconds = ek_now() - t->began,
    };
}

static void tell(training *t, const ek_event *event)
{
    const ek_train_options *o = t->run.options;
    if (o->observer) o->observer->event(o->observer, event);
    if (o->listener && !o->listener(o->user, event)) t->wants_stop = true;
    if (!t->comm) t->stop = t->wants_stop;
}

/* --- The loop */

/* By rank 0, while the others wait as long as it takes; all are told what became of it, and go on alike. */
static ek_status write_checkpoint(training *t)
{
    ek_comm_be_patient(t->comm, true);
    ek_status status = writes(t) ? ek_checkpoint_write(&t->run, t->run.options->checkpoint) : EK_OK;
    if (status != EK_OK) snprintf(t->why, sizeof t->why, "%s", ek_error());
    if (writes(t)) ek_comm_be_patient(t->comm, false); /* the others have nothing to do meanwhile */
    EK_TRY(ek_comm_broadcast(t->comm, 0, &status, sizeof status));
    EK_TRY(ek_comm_broadcast(t->comm, 0, t->why, sizeof t->why));
    ek_comm_be_patient(t->comm, false);
    return status == EK_OK ? EK_OK : ek_fail(status, "%s", t->why);
}

/* For want of room or memory the run goes on: hours are not lost for a disk that is full for a minute. A state that is
 * sick itself ends it. */
static ek_status save(training *t)
{
    ek_status status = write_checkpoint(t);
    bool passes = status == EK_E_IO || status == EK_E_NOT_FOUND || status == EK_E_MEMORY;
    if (status != EK_OK && !passes) return status;
    t->saved = status == EK_OK;
    t->unsaved = status;
    ek_event event = event_here(t, EK_EVENT_CHECKPOINT);
    event.path = t->run.options->checkpoint;
    if (!t->saved) event.failed = t->why;
    tell(t, &event);
    return EK_OK;
}

/* Where the step's time went: `data` seconds into its batch, before the trainer's clock began. */
static void take_phases(training *t, double data, ek_event *event)
{
    for (int i = 0; i < EK_PHASES; i++) {
        event->phase_seconds[i] = t->run.trainer->phases.seconds[i] + (i == EK_PHASE_DATA ? data : 0);
        t->phase_seconds[i] += event->phase_seconds[i];
    }
}

static void take_traffic(training *t, ek_traffic before, ek_event *event)
{
    ek_traffic now = ek_comm_sent(t->comm);
    event->sent = (ek_traffic){now.messages - before.messages, now.bytes - before.bytes};
    t->sent.messages += event->sent.messages;
    t->sent.bytes += event->sent.bytes;
}

/* One batch: the step, its event, and a checkpoint where one is due. */
static ek_status run_step(training *t, ek_batches *batches)
{
    ek_run *run = &t->run;
    ek_progress *at = &run->progress;
    const ek_train_options *o = run->options;
    double began = ek_now(), lr = ek_schedule_lr(o, ek_run_steps(run), run->steps_per_epoch);
    int64_t n;
    ek_step_result result;
    ek_traffic sent = ek_comm_sent(t->comm);
    EK_TRY(ek_batches_next(batches, &n));
    double data = ek_now() - began;
    EK_TRY(ek_trainer_set_lr(run->trainer, lr));
    ek_parted_batch batch = {.n = n, .part = o->batch, .fill = ek_batches_fill, .user = batches, .labels = batches->labels,
                             .stop = t->wants_stop};
    if (in_shards(t)) {
        EK_TRY(ek_trainer_run_shards(run->trainer, &batch, &result, &t->stop));
    } else if (batches->in_parts) {
        EK_TRY(ek_trainer_run_parts(run->trainer, &batch, &result));
    } else {
        EK_TRY(ek_trainer_run(run->trainer, n, batches->labels, &result));
    }
    t->train_seconds += ek_now() - began;
    t->train_images += n;

    at->step++;
    t->saved = false;
    if (result.skipped) {
        at->skipped++;
    } else {
        at->samples += n;
        at->correct += result.correct;
        at->loss_sum += result.loss * (double)n;
    }
    ek_event event = event_here(t, EK_EVENT_STEP);
    event.step_skipped = result.skipped;
    event.loss = result.loss;
    event.lr = lr;
    event.samples = n;
    take_phases(t, data, &event);
    take_traffic(t, sent, &event);
    tell(t, &event);
    bool due = o->checkpoint_steps > 0 && ek_run_steps(run) % o->checkpoint_steps == 0;
    return due ? save(t) : EK_OK;
}

static ek_status run_steps(training *t)
{
    ek_run *run = &t->run;
    const ek_train_options *o = run->options;
    ek_batches batches = {.net = t->net,
                          .dataset = t->data,
                          .index = t->train_index,
                          .count = run->train_count,
                          .batch = step_samples(o),
                          .drop_last = o->drop_last,
                          .in_parts = o->accumulate > 1 || in_shards(t),
                          .share_first = t->first_shard,
                          .share_end = t->first_shard + t->local_shards,
                          .shares = in_shards(t) ? run->shards : 0,
                          .next = run->progress.step};
    ek_status status = EK_OK;
    EK_GO(ek_epoch_order(t->train_index, run->train_count, o->seed, run->progress.epoch + 1, o->shuffle));
    EK_GO(ek_batches_start(&batches));
    while (!t->stop && run->progress.step < run->steps_per_epoch) EK_GO(run_step(t, &batches));
done:
    ek_batches_end(&batches);
    return status;
}

/* After an epoch's last step: measures, the event, the checkpoint. Measuring takes its time, and nobody asks the listener
 * meanwhile: what was trained is kept before it. */
static ek_status finish_epoch(training *t)
{
    ek_progress *at = &t->run.progress;
    const ek_train_options *o = t->run.options;
    if (o->checkpoint && (t->valid_count > 0 || t->test) && !t->saved) {
        EK_TRY(save(t));
        if (t->stop) return EK_OK;
    }
    ek_event event = event_here(t, EK_EVENT_EPOCH);
    ek_metrics metrics;
    event.train_loss = at->loss_sum / (double)at->samples;
    event.train_accuracy = (double)at->correct / (double)at->samples;
    event.images_per_second = (double)t->train_images / t->train_seconds;
    if (t->valid_count > 0) {
        EK_TRY(ek_evaluate_at(t->net, t->data, t->valid_index, t->valid_count, o->batch, &metrics));
        event.valid_loss = metrics.loss;
        event.valid_accuracy = metrics.accuracy;
    }
    if (t->test) {
        EK_TRY(ek_evaluate(t->net, t->test, o->batch, &metrics));
        event.test_loss = metrics.loss;
        event.test_accuracy = metrics.accuracy;
    }
    event.seconds = ek_now() - t->began;
    *at = (ek_progress){.epoch = at->epoch + 1, .skipped = at->skipped};
    memcpy(event.phase_seconds, t->phase_seconds, sizeof event.phase_seconds);
    memset(t->phase_seconds, 0, sizeof t->phase_seconds);
    event.sent = t->sent;
    t->sent = (ek_traffic){0};
    t->train_seconds = 0;
    t->train_images = 0;
    t->saved = false;
    tell(t, &event);
    return o->checkpoint ? save(t) : EK_OK;
}

/* Ends with its last epoch, or early with t->stop. */
static ek_status run_all(training *t)
{
    const ek_train_options *o = t->run.options;
    t->began = ek_now();
    ek_event event = event_here(t, EK_EVENT_START);
    if (!o->resume) EK_TRY(ek_net_set_metadata(t->net, EK_RUN_KEY, NULL));
    t->run.trainer->observer = o->observer;
    if (o->observer) EK_TRY(o->observer->begin(o->observer, t->net, &event));
    tell(t, &event);
    EK_TRY(ek_comm_settle(t->comm));
    while (!t->stop && t->run.progress.epoch < o->epochs) {
        EK_TRY(run_steps(t));
        if (!t->stop) EK_TRY(finish_epoch(t));
    }
    if (t->stop && o->checkpoint && !t->saved) EK_TRY(save(t));
    return EK_OK;
}

static ek_status fail_stopped(const training *t)
{
    const char *checkpoint = t->run.options->checkpoint;
    return ek_fail(EK_E_INTERRUPTED, "stopped on request after step %lld of %lld; %s%s", (long long)ek_run_steps(&t->run),
                   (long long)(t->run.options->epochs * t->run.steps_per_epoch),
                   !checkpoint  ? "without a checkpoint it cannot be resumed"
                   : t->unsaved ? "the checkpoint of this place could not be written: "
                                : "to go on, resume from ",
                   !checkpoint ? "" : t->unsaved ? t->why : checkpoint);
}

static void finish(training *t)
{
    ek_comm_be_patient(t->comm, true);
    ek_trainer_destroy(t->run.trainer);
    ek_claim_release(t->claim);
    ek_free(t->train_index);
    ek_free(t->valid_index);
}

ek_status ek_train(ek_net *net, const ek_dataset *train, const ek_dataset *test,
                   const ek_train_options *options)
{
    const ek_train_options defaults = ek_train_options_default();
    if (!net || !train) return ek_fail(EK_E_ARGUMENT, "ek_train needs a net and training data");
    if (!options) options = &defaults;
    training t = {.run = {.options = options}, .net = net, .data = train, .test = test};
    ek_status status = EK_OK;
    EK_GO(prepare(&t));
    EK_GO(make_room(&t));
    EK_GO(run_all(&t));
    if (t.stop && t.run.progress.epoch < options->epochs) /* else it came when all was done */
        status = fail_stopped(&t);
    else if (t.unsaved != EK_OK)
        status = ek_fail(t.unsaved == EK_E_MEMORY ? EK_E_MEMORY : EK_E_IO, "all is trained, but the last checkpoint is missing: %s", t.why);
done:
    finish(&t);
    return status;
}

ek_status ek_train_check(ek_net *net, const ek_dataset *train, const ek_dataset *test,
                         const ek_train_options *options, int64_t *steps)
{
    const ek_train_options defaults = ek_train_options_default();
    if (!net || !train) return ek_fail(EK_E_ARGUMENT, "ek_train_check needs a net and training data");
    if (!options) options = &defaults;
    training t = {.run = {.options = options}, .net = net, .data = train, .test = test};
    ek_status status = prepare(&t);
    if (status == EK_OK && steps) *steps = options->epochs * t.run.steps_per_epoch;
    finish(&t);
    return status;
}
