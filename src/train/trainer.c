#include "train/trainer.h"

#include "core/memory.h"

#include <float.h>
#include <math.h>

ek_status ek_trainer_create(ek_net *net, const ek_optimizer_options *options, uint64_t seed, ek_trainer **out)
{
    if (!net || !options || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_trainer_create needs a net, options and a place for the trainer");
    ek_shape output = ek_net_output_shape(net);
    char text[EK_SHAPE_TEXT];
    if (output.rank != 1)
        return ek_fail(
            EK_E_SHAPE,
            "training needs a net whose output is one number a class, this one's is %s; end it with "
            "flatten and linear",
            ek_shape_text(output, text));
    if (ek_graph_logits(&net->graph) != net->graph.count - 1)
        return ek_fail(
            EK_E_ARGUMENT,
            "training takes the cross-entropy of logits, and this net ends in softmax: leave that line out; "
            "of an ONNX model, end the net before it (convert --output NAME, which a note of the model names)");
    ek_trainer *trainer;
    EK_TRY(EK_NEW(trainer, 1));
    ek_status status = EK_OK;
    trainer->net = net;
    trainer->lr = options->lr;
    trainer->seed = seed;
    EK_GO(ek_optimizer_create(net, options, &trainer->optimizer));
done:
    if (status == EK_OK)
        *out = trainer;
    else
        ek_trainer_destroy(trainer);
    return status;
}

void ek_trainer_destroy(ek_trainer *trainer)
{
    if (!trainer) return;
    ek_optimizer_destroy(trainer->optimizer);
    ek_loss_free(&trainer->loss);
    ek_parts_destroy(trainer->parts);
    ek_sharding_destroy(trainer->sharding);
    ek_free(trainer);
}

ek_status ek_trainer_set_lr(ek_trainer *trainer, double lr)
{
    if (!(lr >= 0 && lr <= FLT_MAX))
        return ek_fail(EK_E_ARGUMENT, "the learning rate must be 0 or more, and finite, not %g", lr);
    trainer->lr = lr;
    return EK_OK;
}

ek_status ek_trainer_reserve(ek_trainer *trainer, int64_t samples)
{
    EK_TRY(ek_net_prepare(trainer->net, samples, true));
    return ek_loss_reserve(&trainer->loss, samples);
}

ek_status ek_trainer_reserve_parts(ek_trainer *trainer, int64_t part)
{
    EK_TRY(ek_trainer_reserve(trainer, part));
    return trainer->parts ? EK_OK : ek_parts_create(trainer->net, &trainer->parts);
}

ek_status ek_trainer_reserve_shards(ek_trainer *trainer, int shards, bool local_bn, int64_t samples)
{
    ek_sharding_destroy(trainer->sharding);
    trainer->sharding = NULL;
    return ek_sharding_create(trainer->net, shards, local_bn, samples, &trainer->sharding);
}

/* The update from the gradients; false: nothing changed. */
static bool update(ek_trainer *trainer)
{
    bool updated = ek_optimizer_update(trainer->net, trainer->optimizer, trainer->lr);
    if (updated) ek_net_commit(trainer->net);
    ek_phases_lap(&trainer->phases, EK_PHASE_UPDATE);
    return updated;
}

ek_status ek_trainer_run(ek_trainer *trainer, int64_t n, const int32_t *labels, ek_step_result *result)
{
    ek_net *net = trainer->net;
    ek_phases_begin(&trainer->phases);
    EK_TRY(ek_net_run_forward(net, n, EK_MODE_TRAINING, trainer->seed, (uint64_t)trainer->step));
    trainer->step++;

    ek_step_result r = {0};
    r.loss = ek_loss_sum(&trainer->loss, net, n, labels, n, &r.correct) / (double)n;
    r.skipped = !isfinite(r.loss);
    if (trainer->observer) trainer->observer->forward(trainer->observer, net, n);
    ek_phases_lap(&trainer->phases, EK_PHASE_FORWARD);
    if (!r.skipped) {
        ek_net_run_backward(net);
        ek_phases_lap(&trainer->phases, EK_PHASE_BACKWARD);
        r.skipped = !update(trainer);
    }
    *result = r;
    return EK_OK;
}

/* The batch with what the trainer knows of its step, whose clock begins. */
static ek_parted_batch of_trainer(ek_trainer *trainer, const ek_parted_batch *batch)
{
    ek_parted_batch whole = *batch;
    whole.seed = trainer->seed;
    whole.step = (uint64_t)trainer->step;
    whole.observer = trainer->observer;
    whole.phases = &trainer->phases;
    ek_phases_begin(&trainer->phases);
    return whole;
}

ek_status ek_trainer_run_parts(ek_trainer *trainer, const ek_parted_batch *batch, ek_step_result *result)
{
    ek_parted_batch whole = of_trainer(trainer, batch);
    ek_step_result r = {0};
    ek_status status = EK_OK;
    EK_GO(ek_parts_run(trainer->parts, &trainer->loss, &whole, &r.loss, &r.correct));
    trainer->step++;
    r.loss /= (double)batch->n;
    r.skipped = !isfinite(r.loss) || !update(trainer);
    *result = r;
done:
    ek_parts_end(trainer->parts);
    return status;
}

ek_status ek_trainer_run_shards(ek_trainer *trainer, const ek_parted_batch *batch, ek_step_result *result, bool *stop)
{
    ek_parted_batch whole = of_trainer(trainer, batch);
    ek_step_result r = {0};
    ek_status status = EK_OK;
    EK_GO(ek_sharding_run(trainer->sharding, &whole, &r.loss, &r.correct, stop));
    trainer->step++;
    r.loss /= (double)batch->n;
    r.skipped = !isfinite(r.loss) || !ek_optimizer_update(trainer->net, trainer->optimizer, trainer->lr);
    if (!r.skipped) ek_sharding_commit(trainer->sharding);
    ek_phases_lap(&trainer->phases, EK_PHASE_UPDATE);
    *result = r;
done:
    ek_sharding_end(trainer->sharding);
    return status;
}

static ek_status check_step(const ek_trainer *trainer, int64_t n, const float *x, const int32_t *labels,
                            const ek_step_result *result)
{
    if (!trainer || !x || !labels || !result)
        return ek_fail(EK_E_ARGUMENT,
                       "ek_trainer_step needs a trainer, an input, labels and a place for the result");
    int64_t classes = ek_shape_count(ek_net_output_shape(trainer->net));
    for (int64_t i = 0; i < n; i++) {
        if (labels[i] < 0 || labels[i] >= classes)
            return ek_fail(EK_E_ARGUMENT, "labels[%lld] is %d; the net's classes are 0 to %lld", (long long)i,
                           (int)labels[i], (long long)classes - 1);
    }
    return EK_OK;
}

ek_status ek_trainer_step(ek_trainer *trainer, int64_t n, const float *x, const int32_t *labels,
                          ek_step_result *result)
{
    return ek_trainer_step_lengths(trainer, n, x, NULL, labels, result);
}

ek_status ek_trainer_step_lengths(ek_trainer *trainer, int64_t n, const float *x, const int32_t *lengths,
                                  const int32_t *labels, ek_step_result *result)
{
    EK_TRY(check_step(trainer, n, x, labels, result));
    EK_TRY(ek_net_check_lengths(trainer->net, n, lengths));
    EK_TRY(ek_net_use_lengths(trainer->net, lengths));
    EK_TRY(ek_trainer_reserve(trainer, n));
    ek_net_set_input(trainer->net, n, x);
    if (lengths) ek_net_set_lengths(trainer->net, n, lengths);
    return ek_trainer_run(trainer, n, labels, result);
}

/* user: an array whose samples are put in part by part. */
static ek_status fill_from_array(void *user, ek_net *net, int64_t first, int64_t n)
{
    const float *x = user;
    ek_net_set_input(net, n, x + first * ek_shape_count(ek_net_input_shape(net)));
    return EK_OK;
}

ek_status ek_trainer_step_in_parts(ek_trainer *trainer, int64_t n, int64_t part, const float *x, const int32_t *labels,
                                   ek_step_result *result)
{
    EK_TRY(check_step(trainer, n, x, labels, result));
    if (n < 1 || part < 1)
        return ek_fail(EK_E_SHAPE, "a batch and its parts have 1 sample or more, not %lld and %lld", (long long)n,
                       (long long)part);
    EK_TRY(ek_net_use_lengths(trainer->net, false));
    ek_parted_batch batch = {.n = n, .part = part, .fill = fill_from_array, .user = (void *)x, .labels = labels};
    EK_TRY(ek_trainer_reserve_parts(trainer, part < n ? part : n));
    return ek_trainer_run_parts(trainer, &batch, result);
}

ek_status ek_trainer_step_in_shards(ek_trainer *trainer, int64_t n, int shards, bool local_bn, const float *x,
                                    const int32_t *labels, ek_step_result *result)
{
    EK_TRY(check_step(trainer, n, x, labels, result));
    if (n < 1) return ek_fail(EK_E_SHAPE, "a batch has 1 sample or more, not %lld", (long long)n);
    EK_TRY(ek_net_check(trainer->net, n, 0, EK_MODE_TRAINING));
    EK_TRY(ek_net_use_lengths(trainer->net, false));
    if (!trainer->sharding || !ek_sharding_fits(trainer->sharding, shards, local_bn, n))
        EK_TRY(ek_trainer_reserve_shards(trainer, shards, local_bn, n));
    ek_parted_batch batch = {.n = n, .fill = fill_from_array, .user = (void *)x, .labels = labels};
    bool stop;
    return ek_trainer_run_shards(trainer, &batch, result, &stop);
}
