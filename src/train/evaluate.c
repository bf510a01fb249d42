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

/* Of each batch the sum of its losses, then how many are right: an entry for each, so that they are added up in one order,
 * whichever rank ran them. */
typedef struct tally {
    double *loss, *correct; /* one after the other in memory */
    int64_t batches;
} tally;

static ek_status run_batch(ek_net *net, ek_loss *loss, int64_t n, const int32_t *labels, double *sum, double *correct)
{
    EK_TRY(ek_net_run_forward(net, n, EK_MODE_INFERENCE, 0, 0));
    int64_t right;
    *sum = ek_loss_sum(loss, net, n, labels, 0, &right);
    *correct = (double)right;
    return EK_OK;
}

/* This rank's share of the batches, then what the others found. */
static ek_status run_batches(ek_net *net, ek_loss *loss, ek_batches *batches, const tally *t)
{
    ek_comm *comm = net->context->comm;
    int64_t end = t->batches * (ek_comm_rank(comm) + 1) / ek_comm_ranks(comm), n;
    while (batches->next < end) {
        int64_t number = batches->next;
        EK_TRY(ek_batches_next(batches, &n));
        EK_TRY(run_batch(net, loss, n, batches->labels, &t->loss[number], &t->correct[number]));
    }
    return ek_comm_ranks(comm) > 1 ? ek_comm_merge(comm, t->loss, 2 * t->batches, ek_merge_sum) : EK_OK;
}

ek_status ek_evaluate_at(ek_net *net, const ek_dataset *dataset, const int64_t *index, int64_t count,
                         int64_t batch, ek_metrics *out)
{
    double began = ek_now(), sum = 0, correct = 0;
    ek_loss loss = {0};
    tally t = {.batches = ek_batch_count(count, batch, false)};
    ek_comm *comm = net->context->comm;
    ek_batches batches = {.net = net,
                          .dataset = dataset,
                          .index = index,
                          .count = count,
                          .batch = batch,
                          .next = t.batches * ek_comm_rank(comm) / ek_comm_ranks(comm)};
    ek_status status = EK_OK;
    int64_t largest = ek_batch_largest(count, batch, false);
    EK_GO(EK_NEW(t.loss, 2 * (size_t)t.batches));
    t.correct = t.loss + t.batches;
    EK_GO(ek_net_use_lengths(net, dataset->length));
    EK_GO(ek_net_prepare(net, largest, false));
    EK_GO(ek_loss_reserve(&loss, largest));
    EK_GO(ek_batches_start(&batches));
    EK_GO(ek_comm_begin_pieces(comm, t.batches));
    EK_GO(run_batches(net, &loss, &batches, &t));
    EK_GO(ek_comm_settle(comm));
    for (int64_t i = 0; i < t.batches; i++) {
        sum += t.loss[i];
        correct += t.correct[i];
    }
    *out = (ek_metrics){
        .count = count,
        .loss = sum / (double)count,
        .accuracy = correct / (double)count,
        .seconds = ek_now() - began,
    };
done:
    ek_batches_end(&batches);
    ek_loss_free(&loss);
    ek_free(t.loss);
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
