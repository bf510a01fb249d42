#include "train/evaluate.h"

#include "core/clock.h"
#include "core/memory.h"
#include "train/loss.h"

ek_status ek_labelled_check(const ek_dataset *dataset, const ek_net *net, const char *what)
{
    if (dataset->count < 1) return ek_fail(EK_E_SHAPE, "%s is empty", what);
    if (!dataset->label) return ek_fail(EK_E_ARGUMENT, "%s has no labels", what);
    ek_status status = ek_dataset_check(dataset, net);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", what);
}

static ek_status run_batch(ek_net *net, ek_loss *loss, int64_t n, const int32_t *labels, double *sum,
                           int64_t *correct)
{
    EK_TRY(ek_net_run_forward(net, n, EK_MODE_INFERENCE, 0, 0));
    int64_t right;
    *sum += ek_loss_sum(loss, net, n, labels, 0, &right);
    *correct += right;
    return EK_OK;
}

ek_status ek_evaluate_at(ek_net *net, const ek_dataset *dataset, const int64_t *index, int64_t count,
                         int64_t batch, ek_metrics *out)
{
    double began = ek_now(), sum = 0;
    int64_t correct = 0, n;
    ek_loss loss = {0};
    ek_batches batches = {.net = net, .dataset = dataset, .index = index, .count = count, .batch = batch};
    ek_status status = EK_OK;
    int64_t largest = ek_batch_largest(count, batch, false);
    EK_GO(ek_net_use_lengths(net, dataset->length));
    EK_GO(ek_net_prepare(net, largest, false));
    EK_GO(ek_loss_reserve(&loss, largest));
    EK_GO(ek_batches_start(&batches));
    for (;;) {
        EK_GO(ek_batches_next(&batches, &n));
        if (n == 0) break;
        EK_GO(run_batch(net, &loss, n, batches.labels, &sum, &correct));
    }
    *out = (ek_metrics){
        .count = count,
        .loss = sum / (double)count,
        .accuracy = (double)correct / (double)count,
        .seconds = ek_now() - began,
    };
done:
    ek_batches_end(&batches);
    ek_loss_free(&loss);
    return status;
}

ek_status ek_evaluate(ek_net *net, const ek_dataset *dataset, int64_t batch, ek_metrics *out)
{
    if (!net || !dataset || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_evaluate needs a net, data and a place for the measures");
    if (batch < 1) return ek_fail(EK_E_ARGUMENT, "batch must be 1 or more, not %lld", (long long)batch);
    EK_TRY(ek_labelled_check(dataset, net, "the data"));
    int64_t *index;
    EK_TRY(EK_NEW(index, (size_t)dataset->count));
    for (int64_t i = 0; i < dataset->count; i++) index[i] = i;
    ek_status status = ek_evaluate_at(net, dataset, index, dataset->count, batch, out);
    ek_free(index);
    return status;
}
