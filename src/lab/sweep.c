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
done:
    if (status != EK_OK) ek_norm_stats_free(out);
    return status;
}

void ek_norm_stats_free(ek_norm_stats *stats)
{
    ek_free(stats->all);
    ek_free(stats->batch_mean);
    ek_free(stats->batch_var);
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
static void add_batch(ek_norm_stats *s, bool whole, const ek_moments *batch)
{
    for (int64_t c = 0; c < s->channels; c++) {
        ek_moments b = batch[c];
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

/* False: no more is wanted. */
static bool tell(ek_work *work, int64_t samples)
{
    if (!work) return true;
    work->done += (double)samples;
    return !work->progress || work->progress(work->user, work->all > 0 ? fmin(work->done / work->all, 1) : 1);
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

/* What a batch gives, in doubles, since ranks tell it each other: these, and the moments of what each normalization read. */
enum { SAMPLES, STOP, LOSS, CORRECT, DIFFERENCE, SPREAD, DECIDED, MOMENTS };

typedef struct run {
    ek_batches batches;
    ek_loss loss;
    ek_moments *parts;
    float *buffer;
    double *record; /* of each rank's batch, [rank][size] */
    int64_t size;
    bool stop;      /* this rank wants no more */
    double loss_sum, difference, spread, decided; /* of all batches */
} run;

static ek_status make_record(const ek_sweep *s, run *r)
{
    r->size = MOMENTS;
    for (int i = 0; i < s->stats_count; i++) r->size += 3 * s->stats[i].channels;
    return EK_NEW(r->record, (size_t)(r->size * ek_comm_ranks(s->net->context->comm)));
}

static ek_status measure_batch(ek_sweep *s, run *r, int64_t number, double *record)
{
    int64_t n, right;
    EK_TRY(ek_batches_next(&r->batches, &n));
    uint64_t step = (uint64_t)number + 1;
    if (s->stats_only)
        EK_TRY(ek_net_run_to(s->net, last_layer(s), n, s->mode, 0, step));
    else
        EK_TRY(ek_net_run_forward(s->net, n, s->mode, 0, step));
    record[SAMPLES] = (double)n;
    ek_moments *moments = (ek_moments *)(record + MOMENTS);
    for (int i = 0; i < s->stats_count; i++) {
        ek_net_norm_moments(s->net, s->stats[i].layer, r->parts, moments);
        moments += s->stats[i].channels;
    }
    if (s->stats_only) return EK_OK;
    if (s->dataset->label) {
        record[LOSS] = ek_loss_sum(&r->loss, s->net, n, r->batches.labels, 0, &right);
        record[CORRECT] = (double)right;
    }
    comparison c = {0};
    int64_t outputs = ek_shape_count(ek_net_output_shape(s->net));
    if (s->logits) take_logits(s, n, s->logits + r->batches.first * outputs, r->buffer, &c);
    record[DIFFERENCE] = c.difference;
    record[SPREAD] = c.spread;
    record[DECIDED] = (double)c.decided;
    return EK_OK;
}

static void add_record(ek_sweep *s, run *r, const double *record)
{
    int64_t n = (int64_t)record[SAMPLES];
    const ek_moments *moments = (const ek_moments *)(record + MOMENTS);
    for (int i = 0; i < s->stats_count; i++) {
        add_batch(&s->stats[i], n == s->batch || n == s->count, moments);
        moments += s->stats[i].channels;
    }
    r->loss_sum += record[LOSS];
    s->correct += (int64_t)record[CORRECT];
    r->difference += record[DIFFERENCE];
    r->spread += record[SPREAD];
    r->decided += record[DECIDED];
}

/* A batch for each rank, from batch `first` on; what they give is added up in the batches' order, on all ranks alike. */
static ek_status run_round(ek_sweep *s, run *r, int64_t first, int64_t batches)
{
    ek_comm *comm = s->net->context->comm;
    int rank = ek_comm_rank(comm), ranks = ek_comm_ranks(comm);
    double *own = r->record + rank * r->size, stop = 0, samples = 0;
    for (int64_t i = 0; i < r->size * ranks; i++) r->record[i] = -0.0; /* x + -0.0 is x */
    if (first + rank < batches) EK_TRY(measure_batch(s, r, first + rank, own));
    own[STOP] = r->stop;
    if (ranks > 1) EK_TRY(ek_comm_merge(comm, r->record, r->size * ranks, ek_merge_sum));
    for (int i = 0; i < ranks; i++) {
        const double *record = r->record + i * r->size;
        stop += record[STOP];
        samples += record[SAMPLES];
        if (first + i < batches) add_record(s, r, record);
    }
    if (stop > 0) return ek_fail(EK_E_INTERRUPTED, "stopped on request; nothing was changed");
    r->stop = !tell(s->work, (int64_t)samples);
    /* Other ranks are told with the next round; after the last one all is done. */
    return r->stop && ranks == 1 ? ek_fail(EK_E_INTERRUPTED, "stopped on request; nothing was changed") : EK_OK;
}

ek_status ek_sweep_run(ek_sweep *s)
{
    ek_comm *comm = s->net->context->comm;
    int ranks = ek_comm_ranks(comm);
    run r = {.batches = {.net = s->net,
                         .dataset = s->dataset,
                         .index = s->index,
                         .count = s->count,
                         .batch = s->batch,
                         .next = ek_comm_rank(comm),
                         .stride = ranks}};
    ek_status status = EK_OK;
    int64_t largest_batch = ek_batch_largest(s->count, s->batch, false), batches = ek_batch_count(s->count, s->batch, false);
    EK_GO(ek_net_prepare(s->net, largest_batch, true));
    EK_GO(ek_loss_reserve(&r.loss, largest_batch));
    EK_GO(make_parts(s, largest_batch, &r.parts));
    EK_GO(EK_NEW(r.buffer, (size_t)(EK_LANES * ek_shape_count(ek_net_output_shape(s->net)))));
    EK_GO(make_record(s, &r));
    EK_GO(ek_batches_start(&r.batches));
    EK_GO(ek_comm_begin_pieces(comm, batches));
    for (int i = 0; i < s->stats_count; i++) clear(&s->stats[i]);
    s->correct = 0;
    for (int64_t first = 0; first < batches; first += ranks) EK_GO(run_round(s, &r, first, batches));
    EK_GO(ek_comm_settle(comm));
    bool labels = s->dataset->label && !s->stats_only;
    s->loss = labels ? r.loss_sum / (double)s->count : NAN;
    if (!labels) s->correct = -1;
    s->change = sqrt(r.difference / r.spread);
    s->decided = (int64_t)r.decided;
done:
    ek_batches_end(&r.batches);
    ek_loss_free(&r.loss);
    ek_free(r.parts);
    ek_free(r.buffer);
    ek_free(r.record);
    return status;
}
