/* Looking on at a run: what comes by event, and at some steps into the batchnorms, between the two passes. */
#include "lab/observe.h"

#include "core/memory.h"
#include "lab/quantiles.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    LOOKS = 100, /* about so many in a run */
    LEAST_STRIDE =
        20,       /* steps between two looks, after the first few: what bounds their cost in short runs */
    ROWS = 512,   /* lane rows read of a batchnorm's values at a look */
    CURVE = 1000, /* points of the loss */
};

/* --- which steps are looked at */

/* The first ones close together, then by a quarter of the way so far, at last evenly; and the last step. */
static int64_t next_look(const ek_seen *seen, int64_t step)
{
    int64_t first = seen->start.step, last = seen->start.steps, run = last - first, done = step - first;
    int64_t most = (run + LOOKS - 1) / LOOKS > LEAST_STRIDE ? (run + LOOKS - 1) / LOOKS : LEAST_STRIDE;
    int64_t stride = done / 3 < 1 ? 1 : done / 3 < most ? done / 3 : most;
    return step < last && step + stride > last ? last : step + stride;
}

static int64_t count_looks(const ek_seen *seen)
{
    int64_t count = 0;
    for (int64_t step = seen->start.step + 1; step <= seen->start.steps; step = next_look(seen, step))
        count++;
    return count;
}

/* --- beginning and end */

static void forget(ek_seen *seen)
{
    for (int i = 0; seen->norm && i < seen->norms; i++) {
        ek_free(seen->norm[i].measure);
        ek_free(seen->norm[i].first_gamma);
    }
    ek_free(seen->norm);
    ek_free(seen->at);
    ek_free(seen->epoch);
    ek_free(seen->steps.memory);
    ek_free(seen->room);
    ek_free(seen->sort_room);
    *seen = (ek_seen){.base = seen->base};
}

static const float *tensor(ek_node *node, ek_role role)
{
    const ek_param *param = ek_node_param(node, role);
    return param ? param->data : NULL;
}

static ek_status begin_norm(const ek_seen *seen, ek_node *node, ek_seen_norm *norm)
{
    int64_t channels = node->in[0].dim[0];
    *norm = (ek_seen_norm){.layer = node->id,
                           .channels = channels,
                           .positions = ek_shape_count(node->in[0]) / channels,
                           .gamma = tensor(node, EK_ROLE_GAMMA),
                           .beta = tensor(node, EK_ROLE_BETA),
                           .running_mean = tensor(node, EK_ROLE_RUNNING_MEAN),
                           .running_var = tensor(node, EK_ROLE_RUNNING_VAR)};
    snprintf(norm->label, sizeof norm->label, "%s", node->label);
    EK_TRY(EK_NEW(norm->measure, (size_t)(EK_SEEN_MEASURES * seen->looks)));
    EK_TRY(EK_NEW(norm->first_gamma, (size_t)(2 * channels)));
    norm->first_beta = norm->first_gamma + channels;
    return EK_OK;
}

static ek_status begin_steps(ek_seen *seen)
{
    ek_seen_steps *s = &seen->steps;
    int64_t steps = seen->start.steps - seen->start.step;
    s->each = (steps + CURVE - 1) / CURVE > 1 ? (steps + CURVE - 1) / CURVE : 1;
    int64_t runs = (steps + s->each - 1) / s->each;
    EK_TRY(EK_NEW(s->memory, (size_t)(5 * runs)));
    s->step = s->memory;
    s->loss = s->step + runs;
    s->low = s->loss + runs;
    s->high = s->low + runs;
    s->lr = s->high + runs;
    return EK_OK;
}

static ek_status begin_norms(ek_seen *seen, ek_graph *graph)
{
    int count = 0;
    int64_t channels = 0;
    for (int i = 0; i < graph->count; i++) count += ek_is_batchnorm(&graph->node[i]);
    EK_TRY(EK_NEW(seen->norm, (size_t)count));
    for (int i = 0; i < graph->count; i++) {
        if (!ek_is_batchnorm(&graph->node[i])) continue;
        EK_TRY(begin_norm(seen, &graph->node[i], &seen->norm[seen->norms++]));
        if (channels < graph->node[i].in[0].dim[0]) channels = graph->node[i].in[0].dim[0];
    }
    /* A thread's room: values before and after, or two numbers of each channel. */
    seen->room_values = ROWS * EK_LANES > channels ? ROWS * EK_LANES : channels;
    size_t threads = (size_t)ek_pool_threads(seen->net->context->pool);
    EK_TRY(EK_NEW(seen->room, threads * 2 * (size_t)seen->room_values));
    return EK_NEW(seen->sort_room, threads * 2 * (size_t)seen->room_values);
}

static ek_status begin(ek_observer *observer, ek_net *net, const ek_event *start)
{
    ek_seen *seen = (ek_seen *)observer;
    forget(seen);
    seen->net = net;
    seen->start = seen->last = *start;
    seen->step = start->step;
    seen->next = start->step + 1;
    seen->looks = count_looks(seen);
    ek_status status = EK_OK;
    EK_GO(EK_NEW(seen->at, (size_t)seen->looks));
    EK_GO(begin_steps(seen));
    EK_GO(begin_norms(seen, &net->graph));
done:
    if (status != EK_OK) forget(seen);
    return status;
}

/* --- a look at one batchnorm */

static void put_quantiles(const ek_seen *seen, ek_seen_norm *norm, int measure, int count,
                          const float *sorted, int64_t n)
{
    static const double seven[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99}, five[] = {0, 0.25, 0.5, 0.75, 1};
    const double *q = count == EK_SEEN_SEVEN ? seven : five;
    for (int i = 0; i < count; i++)
        norm->measure[(measure + i) * seen->looks + seen->look] = ek_quantile(sorted, n, q[i]);
}

static uint64_t mixed(uint64_t x) /* SplitMix64's finish (Steele, Lea and Flood 2014) */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Lane rows, as many of each channel, spread over blocks and positions, at each look others: one at a random place of
 * each of `each` equal parts. All there are, where they are few. */
static int64_t read_values(const ek_seen *seen, const ek_seen_norm *norm, float *before, float *after)
{
    int64_t places = norm->positions * ek_blocks(seen->n),
            channels = norm->channels < ROWS ? norm->channels : ROWS;
    int64_t each = ROWS / channels < places ? ROWS / channels : places, count = 0;
    for (int64_t i = 0; i < channels; i++) {
        int64_t channel = i * norm->channels / channels;
        for (int64_t k = 0; k < each; k++) {
            int64_t from = k * places / each, to = (k + 1) * places / each;
            uint64_t chance = mixed((uint64_t)seen->step << 40 ^ (uint64_t)(channel * each + k));
            int64_t place = from + (int64_t)(chance % (uint64_t)(to - from));
            float row[2][EK_LANES];
            int live = ek_net_norm_row(seen->net, norm->layer, place / norm->positions,
                                       channel * norm->positions + place % norm->positions, row[0], row[1]);
            memcpy(before + count, row[0], (size_t)live * sizeof *before);
            memcpy(after + count, row[1], (size_t)live * sizeof *after);
            count += live;
        }
    }
    return count;
}

static void look_at_values(const ek_seen *seen, ek_seen_norm *norm, float *room, uint32_t *sort_room)
{
    float *before = room, *after = room + seen->room_values;
    int64_t count = read_values(seen, norm, before, after);
    int64_t finite = ek_sort_finite(before, count, sort_room);
    put_quantiles(seen, norm, EK_SEEN_BEFORE, EK_SEEN_SEVEN, before, finite);
    ek_histogram_fill(&norm->inputs, before, finite);
    finite = ek_sort_finite(after, count, sort_room);
    put_quantiles(seen, norm, EK_SEEN_AFTER, EK_SEEN_SEVEN, after, finite);
}

/* gamma or beta: how it is spread over the channels, and how far it is from where it was. */
static void look_at_parameter(const ek_seen *seen, ek_seen_norm *norm, const float *value, float *first,
                              int measure, int moved, float *room, uint32_t *sort_room)
{
    double sum = 0;
    if (!value) return;
    if (seen->look == 0) memcpy(first, value, (size_t)norm->channels * sizeof *first);
    for (int64_t i = 0; i < norm->channels; i++) {
        double step = (double)value[i] - first[i];
        sum += step * step;
        room[i] = value[i];
    }
    norm->measure[moved * seen->looks + seen->look] = sqrt(sum / (double)norm->channels);
    put_quantiles(seen, norm, measure, EK_SEEN_FIVE, room, ek_sort_finite(room, norm->channels, sort_room));
}

/* The running statistics as they are before this step's update, against the batch's. A channel whose batch variance is
 * 0 has neither. */
static void look_at_statistics(const ek_seen *seen, ek_seen_norm *norm, const ek_batch_norm_saved *saved,
                               float *room, uint32_t *sort_room)
{
    float *gap = room, *ratio = room + seen->room_values;
    if (!norm->running_mean) return;
    for (int64_t i = 0; i < norm->channels; i++) {
        double var = saved->var[i];
        gap[i] = var > 0 ? (float)(fabs((double)norm->running_mean[i] - saved->mean[i]) / sqrt(var)) : NAN;
        ratio[i] = var > 0 ? (float)(norm->running_var[i] / var) : NAN;
    }
    int64_t finite = ek_sort_finite(gap, norm->channels, sort_room);
    put_quantiles(seen, norm, EK_SEEN_MEAN_GAP, EK_SEEN_FIVE, gap, finite);
    finite = ek_sort_finite(ratio, norm->channels, sort_room);
    put_quantiles(seen, norm, EK_SEEN_VAR_RATIO, EK_SEEN_FIVE, ratio, finite);
}

static void look_piece(void *argument, int64_t piece, int thread)
{
    const ek_seen *seen = argument;
    ek_seen_norm *norm = &seen->norm[piece];
    float *room = seen->room + 2 * seen->room_values * thread;
    uint32_t *sort_room = seen->sort_room + 2 * seen->room_values * thread;
    ek_batch_norm_saved saved = ek_net_norm_saved(seen->net, norm->layer, &norm->batch);
    look_at_values(seen, norm, room, sort_room);
    look_at_parameter(seen, norm, norm->gamma, norm->first_gamma, EK_SEEN_GAMMA, EK_SEEN_GAMMA_MOVED, room,
                      sort_room);
    look_at_parameter(seen, norm, norm->beta, norm->first_beta, EK_SEEN_BETA, EK_SEEN_BETA_MOVED, room,
                      sort_room);
    if (norm->batch) look_at_statistics(seen, norm, &saved, room, sort_room);
}

static void forward(ek_observer *observer, const ek_net *net, int64_t n)
{
    ek_seen *seen = (ek_seen *)observer;
    if (++seen->step < seen->next || seen->look == seen->looks) return;
    seen->net = net;
    seen->n = n;
    seen->next = next_look(seen, seen->step);
    seen->at[seen->look] = (double)seen->step;
    ek_pool_run(net->context->pool, seen->norms, look_piece, seen);
    seen->look++;
}

/* --- events */

static void add_loss(ek_seen_steps *s, int64_t run, double loss)
{
    if (!isfinite(loss)) return;
    s->finite++;
    s->loss[run] = s->finite == 1 ? loss : s->loss[run] + (loss - s->loss[run]) / (double)s->finite;
    if (!(s->low[run] <= loss)) s->low[run] = loss;
    if (!(s->high[run] >= loss)) s->high[run] = loss;
}

static void add_step(ek_seen *seen, const ek_event *event)
{
    ek_seen_steps *s = &seen->steps;
    int64_t run = (event->step - seen->start.step - 1) / s->each;
    if (run == s->count) {
        s->count++;
        s->finite = 0;
        s->loss[run] = s->low[run] = s->high[run] = NAN;
    }
    s->step[run] = (double)event->step;
    s->lr[run] = event->lr;
    add_loss(s, run, event->loss);
}

static void add_epoch(ek_seen *seen, const ek_event *event)
{
    if (seen->epochs == seen->epoch_room) {
        int64_t room = seen->epoch_room ? 2 * seen->epoch_room : 16;
        ek_event *grown = ek_grow(seen->epoch, (size_t)room, sizeof *grown);
        if (!grown) {
            seen->status = EK_E_MEMORY;
            return;
        }
        seen->epoch = grown;
        seen->epoch_room = room;
    }
    seen->epoch[seen->epochs++] = *event;
}

static void on_event(ek_observer *observer, const ek_event *event)
{
    ek_seen *seen = (ek_seen *)observer;
    if (event->kind == EK_EVENT_STEP) {
        seen->step = event->step; /* a batch in parts that is skipped has no forward pass to look at */
        add_step(seen, event);
    }
    if (event->kind == EK_EVENT_EPOCH) add_epoch(seen, event);
    if (event->kind == EK_EVENT_STEP || event->kind == EK_EVENT_EPOCH) seen->last = *event;
}

/* --- told again */

bool ek_observer_look(const ek_observer *observer, int index, ek_look *look)
{
    const ek_seen *seen = ek_seen_of(observer);
    if (index < 0 || index >= seen->norms) return false;
    const ek_seen_norm *norm = &seen->norm[index];
    *look = (ek_look){.layer = norm->label,
                      .channels = norm->channels,
                      .positions = norm->positions,
                      .gamma = norm->gamma != NULL,
                      .beta = norm->beta != NULL,
                      .running = norm->running_mean != NULL};
    if (seen->look == 0) return true;
    look->step = (int64_t)seen->at[seen->look - 1];
    look->frozen = !norm->batch;
    for (int i = 0; i < EK_SEEN_MEASURES; i++) look->measure[i] = ek_seen_measure(seen, norm, i)[seen->look - 1];
    return true;
}

static ek_status out_of_order(const char *what, int64_t step, int64_t after)
{
    return ek_fail(EK_E_ARGUMENT, "%s is of step %lld, which cannot follow step %lld", what, (long long)step, (long long)after);
}

static ek_status retell_start(ek_seen *seen, const ek_event *start)
{
    static const int64_t most = (int64_t)1 << 53;
    if (start->step < 0 || start->steps < start->step || start->steps > most)
        return ek_fail(EK_E_ARGUMENT, "a run cannot begin after step %lld of %lld", (long long)start->step,
                       (long long)start->steps);
    forget(seen);
    seen->start = seen->last = *start;
    seen->looks = count_looks(seen) + 1;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(seen->at, (size_t)seen->looks));
    EK_GO(begin_steps(seen));
done:
    if (status != EK_OK) forget(seen);
    return status;
}

ek_status ek_observer_retell(ek_observer *observer, const ek_event *event)
{
    if (!observer || !event) return ek_fail(EK_E_ARGUMENT, "ek_observer_retell needs an observer and an event");
    ek_seen *seen = (ek_seen *)observer;
    if (event->kind == EK_EVENT_START) return retell_start(seen, event);
    if (event->kind == EK_EVENT_CHECKPOINT) return EK_OK;
    if (!seen->at) return ek_fail(EK_E_ARGUMENT, "a run that is told begins with its start");
    bool step = event->kind == EK_EVENT_STEP;
    if (event->step != seen->last.step + step || event->step > seen->start.steps)
        return out_of_order(step ? "a step" : "an epoch", event->step, seen->last.step);
    bool again = !step && seen->epochs > 0 && seen->epoch[seen->epochs - 1].epoch == event->epoch;
    if (again) seen->epochs--; /* a run that was killed after it, and had a checkpoint of before */
    on_event(observer, event);
    return seen->status;
}

static ek_seen_norm *find_norm(const ek_seen *seen, const char *layer)
{
    for (int i = 0; i < seen->norms; i++)
        if (!strcmp(seen->norm[i].label, layer)) return &seen->norm[i];
    return NULL;
}

static ek_status retell_norm(ek_seen *seen, const ek_look *look)
{
    static const float there = 0; /* that it has one is all that a report asks for */
    if (strlen(look->layer) >= EK_LABEL_MAX || seen->look > 0 || find_norm(seen, look->layer))
        return ek_fail(EK_E_ARGUMENT, "there cannot be a batchnorm '%.*s' here", EK_LABEL_MAX, look->layer);
    ek_seen_norm *grown = ek_grow(seen->norm, (size_t)seen->norms + 1, sizeof *grown), *norm;
    if (!grown) return EK_E_MEMORY;
    seen->norm = grown;
    norm = &grown[seen->norms];
    *norm = (ek_seen_norm){.channels = look->channels,
                           .positions = look->positions,
                           .gamma = look->gamma ? &there : NULL,
                           .beta = look->beta ? &there : NULL,
                           .running_mean = look->running ? &there : NULL};
    snprintf(norm->label, sizeof norm->label, "%s", look->layer);
    EK_TRY(EK_NEW(norm->measure, (size_t)(EK_SEEN_MEASURES * seen->looks)));
    seen->norms++;
    return EK_OK;
}

/* Room for twice as many looks: a run that was resumed has more of them. */
static ek_status more_looks(ek_seen *seen)
{
    int64_t looks = 2 * seen->looks;
    double *at = ek_grow(seen->at, (size_t)looks, sizeof *at);
    if (!at) return EK_E_MEMORY;
    seen->at = at;
    double **measure;
    EK_TRY(EK_NEW(measure, (size_t)seen->norms));
    ek_status status = EK_OK;
    for (int i = 0; i < seen->norms; i++) EK_GO(EK_NEW(measure[i], (size_t)(EK_SEEN_MEASURES * looks)));
    for (int i = 0; i < seen->norms; i++) {
        for (int k = 0; k < EK_SEEN_MEASURES; k++)
            memcpy(measure[i] + k * looks, ek_seen_measure(seen, &seen->norm[i], k), (size_t)seen->look * sizeof(double));
        double *old = seen->norm[i].measure;
        seen->norm[i].measure = measure[i];
        measure[i] = old;
    }
    seen->looks = looks;
done:
    for (int i = 0; i < seen->norms; i++) ek_free(measure[i]);
    ek_free(measure);
    return status;
}

ek_status ek_observer_retell_look(ek_observer *observer, const ek_look *look)
{
    if (!observer || !look || !look->layer)
        return ek_fail(EK_E_ARGUMENT, "ek_observer_retell_look needs an observer and a look at a layer");
    ek_seen *seen = (ek_seen *)observer;
    if (!seen->at) return ek_fail(EK_E_ARGUMENT, "a run that is told begins with its start");
    if (look->step == 0) return retell_norm(seen, look);
    ek_seen_norm *norm = find_norm(seen, look->layer);
    if (!norm) return ek_fail(EK_E_ARGUMENT, "the run's start knows no batchnorm '%.*s'", EK_LABEL_MAX, look->layer);
    double before = seen->look ? seen->at[seen->look - 1] : (double)seen->start.step;
    if (look->step != seen->last.step || (double)look->step < before)
        return out_of_order("a look", look->step, seen->last.step);
    if (seen->look == 0 || (double)look->step > before) { /* the first of this step */
        if (seen->look == seen->looks) EK_TRY(more_looks(seen));
        seen->at[seen->look++] = (double)look->step;
        for (int i = 0; i < seen->norms; i++)
            for (int k = 0; k < EK_SEEN_MEASURES; k++) seen->norm[i].measure[k * seen->looks + seen->look - 1] = NAN;
    }
    norm->batch = !look->frozen;
    for (int i = 0; i < EK_SEEN_MEASURES; i++) norm->measure[i * seen->looks + seen->look - 1] = look->measure[i];
    return EK_OK;
}

ek_status ek_observer_create(ek_observer **out)
{
    if (!out) return ek_fail(EK_E_ARGUMENT, "ek_observer_create needs a place for the observer");
    ek_seen *seen;
    EK_TRY(EK_NEW(seen, 1));
    seen->base = (ek_observer){.begin = begin, .forward = forward, .event = on_event};
    *out = &seen->base;
    return EK_OK;
}

void ek_observer_destroy(ek_observer *observer)
{
    if (!observer) return;
    forget((ek_seen *)observer);
    ek_free(observer);
}
