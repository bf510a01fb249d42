#include "train/loss.h"

#include "core/memory.h"

ek_status ek_loss_reserve(ek_loss *loss, int64_t samples)
{
    if (samples <= loss->capacity) return EK_OK;
    ek_loss grown = {.capacity = samples};
    ek_status status = EK_OK;
    EK_GO(EK_NEW(grown.each, (size_t)samples));
    EK_GO(EK_NEW(grown.correct, (size_t)ek_blocks(samples)));
    ek_loss_free(loss);
    *loss = grown;
    return EK_OK;
done:
    ek_loss_free(&grown);
    return status;
}

void ek_loss_free(ek_loss *loss)
{
    ek_free(loss->each);
    ek_free(loss->correct);
    *loss = (ek_loss){0};
}

typedef struct work {
    const ek_kernels *kernels;
    ek_loss *loss;
    int64_t n, classes;
    float scale;
    const float *logits;
    float *dlogits;
    const int32_t *labels;
} work;

static void run_piece(void *argument, int64_t block, int thread)
{
    (void)thread;
    const work *w = argument;
    int64_t first = block * EK_LANES, at = first * w->classes;
    w->kernels->cross_entropy(ek_live(w->n, block), w->classes, w->logits + at, w->labels + first,
                              w->scale, w->loss->each + first, &w->loss->correct[block],
                              w->dlogits ? w->dlogits + at : NULL);
}

double ek_loss_sum(ek_loss *loss, ek_net *net, int64_t n, const int32_t *labels, int64_t mean_of,
                   int64_t *correct)
{
    work w = {
        .kernels = net->context->kernels,
        .loss = loss,
        .n = n,
        .classes = ek_shape_count(ek_net_output_shape(net)),
        .logits = ek_net_logits(net),
        .scale = mean_of ? (float)(1.0 / (double)mean_of) : 0,
        .dlogits = mean_of ? ek_net_output_grad(net) : NULL,
        .labels = labels,
    };
    ek_pool_run(net->context->pool, ek_blocks(n), run_piece, &w);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += loss->each[i];
    *correct = 0;
    for (int64_t i = 0; i < ek_blocks(n); i++) *correct += loss->correct[i];
    return sum;
}
