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
            "training takes the cross-entropy of logits, and this net ends in softmax: leave that line out");
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

ek_status ek_trainer_run(ek_trainer *trainer, int64_t n, const int32_t *labels, ek_step_result *result)
{
    ek_net *net = trainer->net;
    EK_TRY(ek_net_run_forward(net, n, EK_MODE_TRAINING, trainer->seed, (uint64_t)trainer->step));
    trainer->step++;

    ek_step_result r = {0};
    r.loss = ek_loss_sum(&trainer->loss, net, n, labels, true, &r.correct) / (double)n;
    r.skipped = !isfinite(r.loss);
    if (!r.skipped) {
        ek_net_run_backward(net);
        r.skipped = !ek_optimizer_update(net, trainer->optimizer, trainer->lr);
    }
    if (!r.skipped) ek_net_commit(net);
    *result = r;
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
    if (!trainer || !x || !labels || !result)
        return ek_fail(EK_E_ARGUMENT,
                       "ek_trainer_step needs a trainer, an input, labels and a place for the result");
    int64_t classes = ek_shape_count(ek_net_output_shape(trainer->net));
    for (int64_t i = 0; i < n; i++) {
        if (labels[i] < 0 || labels[i] >= classes)
            return ek_fail(EK_E_ARGUMENT, "labels[%lld] is %d; the net's classes are 0 to %lld", (long long)i,
                           (int)labels[i], (long long)classes - 1);
    }
    EK_TRY(ek_net_check_lengths(trainer->net, n, lengths));
    EK_TRY(ek_net_use_lengths(trainer->net, lengths));
    EK_TRY(ek_trainer_reserve(trainer, n));
    ek_net_set_input(trainer->net, n, x);
    if (lengths) ek_net_set_lengths(trainer->net, n, lengths);
    return ek_trainer_run(trainer, n, labels, result);
}
