#include "lab/sweep.h"

#include "core/memory.h"
#include "train/loss.h"

#include <math.h>
#include <string.h>

/* --- statistics */

ek_status ek_norm_stats_create(const ek_net *net, int layer, ek_norm_stats *out)
{
    const ek_node *node = &net->graph.node[layer];
    ek_shape shape = node->input_count ? node->in[0] : node->out;
    ek_status status = EK_OK;
    *out = (ek_norm_stats){.layer = layer, .channels = shape.dim[0]};
    EK_GO(EK_NEW(out->all, (size_t)out->channels));
    EK_GO(EK_NEW(out->batch_mean, (size_t)out->channels));
    EK_GO(EK_NEW(out->batch_var, (size_t)out->channels));
    EK_GO(EK_NEW(out->batch, (size_t)out->channels));
done:
    if (status != EK_OK) ek_norm_stats_free(out);
    return status;
}

void ek_norm_stats_free(ek_norm_stats *stats)
{
    ek_free(stats->all);
    ek_free(stats->batch_mean);
    ek_free(stats->batch_var);
    ek_free(stats->batch);
    *stats = (ek_norm_stats){0};
}

static void clear(ek_norm_stats *s)
{
    for (int64_t c = 0; c < s->channels; c++) {
        s->all[c] = s->batch_mean[c] = (ek_moments){0};
        s->batch_var[c] = 0;
    }
}

/* whole: the batch has the size of the others, so that its mean scatters as theirs do. */
static void add_batch(const ek_net *net, ek_norm_stats *s, bool whole, ek_moments *parts)
{
    ek_net_norm_moments(net, s->layer, parts, s->batch);
    for (int64_t c = 0; c < s->channels; c++) {
        ek_moments b = s->batch[c];
        ek_moments_merge(&s->all[c], b);
        if (!whole) continue;
        ek_moments_merge(&s->batch_mean[c], (ek_moments){.count = 1, .mean = b.mean});
        s->batch_var[c] += (b.m2 / (b.count - 1) - s->batch_var[c]) / s->batch_mean[c].count;
    }
}

/* --- logits */

typedef struct comparison {
    double difference, spread; /* sums of squares */
    int64_t decided;
} comparison;

static int64_t largest(const float *row, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++) {
        if (row[i] > row[best]) best = i;
    }
    return best;
}

static void compare_row(comparison *c, const float *before, const float *now, int64_t outputs)
{
    double mean = 0;
    for (int64_t i = 0; i < outputs; i++) mean += now[i] / (double)outputs;
    for (int64_t i = 0; i < outputs; i++) {
        double off = (double)now[i] - before[i], about = now[i] - mean;
        c->difference += off * off;
        c->spread += about * about;
    }
    c->decided += largest(before, outputs) != largest(now, outputs);
}

/* The n samples of the last pass; their rows begin at `rows`. */
static void take_logits(const ek_sweep *s, int64_t n, float *rows, float *buffer, comparison *c)
{
    int64_t outputs = ek_shape_count(ek_net_output_shape(s->net));
    for (int64_t block = 0; block < ek_blocks(n); block++) {
        int live = ek_live(n, block);
        float *at = rows + block * EK_LANES * outputs;
        s->net->context->kernels->lanes_to_rows(outputs, live,
                                                ek_net_logits(s->net) + block * EK_LANES * outputs, buffer);
        for (int i = 0; i < live; i++) compare_row(c, at + i * outputs, buffer + i * outputs, outputs);
        memcpy(at, buffer, (size_t)(live * outputs) * sizeof *at);
    }
}

/* --- the sweep */

static ek_status tell(ek_work *work, int64_t samples)
{
    if (!work) return EK_OK;
    work->done += (double)samples;
    if (!work->progress || work->progress(work->user, work->all > 0 ? fmin(work->done / work->all, 1) : 1))
        return EK_OK;
    return ek_fail(EK_E_INTERRUPTED, "stopped on request; nothing was changed");
}

/* Room for the moments of a batch's blocks, of the widest of the layers. */
static ek_status make_parts(const ek_sweep *s, int64_t samples, ek_moments **parts)
{
    int64_t widest = 0;
    for (int i = 0; i < s->stats_count; i++) {
        if (s->stats[i].channels > widest) widest = s->stats[i].channels;
    }
    return EK_NEW(*parts, (size_t)(widest * ek_blocks(samples)));
}

static int last_layer(const ek_sweep *s)
{
    int last = 0;
    for (int i = 0; i < s->stats_count; i++) {
        if (s->stats[i].layer > last) last = s->stats[i].layer;
    }
    return last;
}

typedef struct run {
    ek_batches batches;
    ek_loss loss;
    ek_moments *parts;
    float *buffer;
    comparison logits;
    double loss_sum;
} run;

static ek_status run_batch(ek_sweep *s, run *r, int64_t n, int64_t first)
{
    uint64_t step = (uint64_t)r->batches.next;
    if (s->stats_only)
        EK_TRY(ek_net_run_to(s->net, last_layer(s), n, s->mode, 0, step));
    else
        EK_TRY(ek_net_run_forward(s->net, n, s->mode, 0, step));
    bool whole = n == s->batch || n == s->count;
    for (int i = 0; i < s->stats_count; i++) add_batch(s->net, &s->stats[i], whole, r->parts);
    if (s->stats_only) return EK_OK;
    int64_t right, outputs = ek_shape_count(ek_net_output_shape(s->net));
    if (s->dataset->label) {
        r->loss_sum += ek_loss_sum(&r->loss, s->net, n, r->batches.labels, 0, &right);
        s->correct += right;
    }
    if (s->logits) take_logits(s, n, s->logits + first * outputs, r->buffer, &r->logits);
    return EK_OK;
}

ek_status ek_sweep_run(ek_sweep *s)
{
    run r = {
        .batches = {
            .net = s->net, .dataset = s->dataset, .index = s->index, .count = s->count, .batch = s->batch}};
    ek_status status = EK_OK;
    int64_t largest_batch = ek_batch_largest(s->count, s->batch, false), n, first = 0;
    EK_GO(ek_net_prepare(s->net, largest_batch, true));
    EK_GO(ek_loss_reserve(&r.loss, largest_batch));
    EK_GO(make_parts(s, largest_batch, &r.parts));
    EK_GO(EK_NEW(r.buffer, (size_t)(EK_LANES * ek_shape_count(ek_net_output_shape(s->net)))));
    EK_GO(ek_batches_start(&r.batches));
    for (int i = 0; i < s->stats_count; i++) clear(&s->stats[i]);
    s->correct = 0;
    for (;;) {
        EK_GO(ek_batches_next(&r.batches, &n));
        if (n == 0) break;
        EK_GO(run_batch(s, &r, n, first));
        EK_GO(tell(s->work, n));
        first += n;
    }
    bool labels = s->dataset->label && !s->stats_only;
    s->loss = labels ? r.loss_sum / (double)s->count : NAN;
    if (!labels) s->correct = -1;
    s->change = sqrt(r.logits.difference / r.logits.spread);
    s->decided = r.logits.decided;
done:
    ek_batches_end(&r.batches);
    ek_loss_free(&r.loss);
    ek_free(r.parts);
    ek_free(r.buffer);
    return status;
}
