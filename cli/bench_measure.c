#include "bench_measure.h"

#include "common.h"
#include "output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Runs are taken in turns, so that a busy machine slows all alike, and in bursts, so that each finds the caches as in
 * a run of its own: the first pass of a burst does not count. */
static const double burst_seconds = 0.06;
enum { MOST_SAMPLES = 4000, MOST_LAYER_SAMPLES = 1 << 22 };

/* --- samples, of which the median counts */

typedef struct samples {
    int count, room;
    double *value;
} samples;

static void *room_for(size_t count, size_t size)
{
    void *room = calloc(count, size);
    if (!room) exit(cli_fail("out of memory"));
    return room;
}

static void add_sample(samples *s, double value)
{
    if (!s->value) *s = (samples){.room = MOST_SAMPLES, .value = room_for(MOST_SAMPLES, sizeof(double))};
    if (s->count < s->room) s->value[s->count++] = value;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double median(double *value, int count)
{
    if (count < 1) return NAN;
    qsort(value, (size_t)count, sizeof *value, ascending);
    return 0.5 * (value[(count - 1) / 2] + value[count / 2]);
}

static double end_samples(samples *s)
{
    double middle = median(s->value, s->count);
    free(s->value);
    return middle;
}

/* False: it failed, which is said. */
static bool went_well(ek_status status)
{
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}

/* --- a net with random data */

typedef struct subject {
    ek_net *net;
    ek_trainer *trainer; /* NULL: it cannot be trained */
    int64_t batch;
    float *x, *y;
    int32_t *labels;
} subject;

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8; /* 24 bits */
}

static bool subject_begin(subject *s, ek_net *net, const bench_settings *settings)
{
    int64_t in = cli_numbers(ek_net_input_shape(net)), classes = cli_numbers(ek_net_output_shape(net));
    size_t batch = (size_t)settings->batch;
    *s = (subject){.net = net,
                   .batch = settings->batch,
                   .x = room_for(batch * (size_t)in, sizeof *s->x),
                   .y = room_for(batch * (size_t)classes, sizeof *s->y),
                   .labels = room_for(batch, sizeof *s->labels)};
    uint32_t random = 1;
    for (int64_t i = 0; i < settings->batch * in; i++) s->x[i] = (float)next_random(&random) * 0x1p-24f;
    for (int64_t i = 0; i < settings->batch; i++) s->labels[i] = (int32_t)(next_random(&random) % classes);
    ek_optimizer_options optimizer = ek_optimizer_options_default(settings->optimizer);
    optimizer.lr = 1e-4; /* there is nothing to learn, but much to lose */
    ek_status status = ek_trainer_create(net, &optimizer, 1, &s->trainer);
    if (status == EK_E_SHAPE || status == EK_E_ARGUMENT) return true;
    return went_well(status);
}

static void subject_end(subject *s)
{
    ek_trainer_destroy(s->trainer);
    free(s->labels);
    free(s->y);
    free(s->x);
}

/* --- passes; false: it failed, which was said */

static bool infer(subject *s, int64_t n)
{
    return went_well(ek_net_forward(s->net, EK_MODE_INFERENCE, n, s->x, s->y));
}

static bool infer_batch(subject *s) { return infer(s, s->batch); }
static bool infer_one(subject *s) { return infer(s, 1); }

static bool step(subject *s)
{
    if (!s->trainer) return infer_batch(s);
    ek_step_result result;
    if (!went_well(ek_trainer_step(s->trainer, s->batch, s->x, s->labels, &result))) return false;
    if (result.skipped)
        cli_fail("the loss of random data is not finite, so that steps are cut short: look at the net's "
                 "parameters");
    return !result.skipped;
}

/* --- the step's layers */

typedef struct layer_log {
    int layers, room, steps;
    ek_layer_time *now;
    samples outside;            /* of a step, outside all layers */
    double *forward, *backward; /* [layer][room] */
} layer_log;

static void layer_log_begin(layer_log *log, int layers)
{
    int room = MOST_LAYER_SAMPLES / layers;
    *log = (layer_log){.layers = layers, .room = room < MOST_SAMPLES ? room : MOST_SAMPLES};
    log->now = room_for((size_t)layers, sizeof *log->now);
    log->forward = room_for((size_t)layers * (size_t)log->room, sizeof *log->forward);
    log->backward = room_for((size_t)layers * (size_t)log->room, sizeof *log->backward);
}

static void layer_log_keep(layer_log *log, double step_seconds)
{
    if (log->steps == log->room) return;
    double outside = step_seconds;
    for (int i = 0; i < log->layers; i++) {
        outside -= log->now[i].forward + log->now[i].backward;
        log->forward[i * log->room + log->steps] = log->now[i].forward;
        log->backward[i * log->room + log->steps] = log->now[i].backward;
    }
    add_sample(&log->outside, outside);
    log->steps++;
}

/* The medians go into `out`. */
static void layer_log_end(layer_log *log, bench_result *out)
{
    for (int i = 0; i < log->layers; i++) {
        out->time[i] = log->now[i];
        out->time[i].forward = median(log->forward + i * log->room, log->steps);
        out->time[i].backward = median(log->backward + i * log->room, log->steps);
    }
    out->outside = end_samples(&log->outside);
    free(log->now);
    free(log->forward);
    free(log->backward);
}

/* --- bursts */

/* Repeats a pass for a while. log: where its layers' times go, or NULL. *middle: the burst's median. */
static bool burst(subject *s, bool (*pass)(subject *), samples *all, layer_log *log, double *middle)
{
    samples own = {0};
    double begin = cli_now(), before = begin, now = begin;
    bool fine = true;
    for (int i = 0; fine && (i < 2 || now - begin < burst_seconds); i++, before = now) {
        /* Also sets the layers' times back to 0. */
        fine = (!log || went_well(ek_net_time_layers(s->net, log->now))) && pass(s);
        now = cli_now();
        if (i == 0) continue;
        add_sample(all, now - before);
        add_sample(&own, now - before);
        if (log) layer_log_keep(log, now - before);
    }
    if (log && fine) fine = went_well(ek_net_time_layers(s->net, NULL));
    double own_median = end_samples(&own);
    if (middle) *middle = own_median;
    return fine;
}

/* plain: the net without BN, or NULL. */
static bool run_rounds(subject *s, subject *plain, double seconds, layer_log *log, bench_result *out)
{
    samples steps = {0}, plain_steps = {0}, batches = {0}, singles = {0}, ratios = {0};
    double end = cli_now() + seconds, middle, plain_middle;
    bool fine;
    do {
        fine = burst(s, step, &steps, log, &middle);
        if (fine && plain) {
            fine = burst(plain, step, &plain_steps, NULL, &plain_middle);
            add_sample(&ratios, middle / plain_middle);
        }
        fine =
            fine && burst(s, infer_batch, &batches, NULL, NULL) && burst(s, infer_one, &singles, NULL, NULL);
    } while (fine && cli_now() < end);
    out->step = end_samples(&steps);
    out->plain_step = end_samples(&plain_steps);
    out->inference = end_samples(&batches);
    out->single = end_samples(&singles);
    out->tax = end_samples(&ratios);
    return fine;
}

/* --- all of it */

static int count_norms(const ek_net *net)
{
    int count = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) count += !strcmp(ek_net_layer(net, i).op, "batchnorm");
    return count;
}

static size_t process_peak(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024;
}

static size_t within(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The net's peak is taken before the floors' arrays and the second net are there. */
static bool measure(ek_context *context, subject *s, const bench_settings *settings, bench_result *out)
{
    layer_log log;
    subject plain = {0};
    ek_net *plain_net = NULL;
    ek_mode mode = s->trainer ? EK_MODE_TRAINING : EK_MODE_INFERENCE;
    bool fine = step(s) && step(s);
    out->trains = s->trainer;
    out->peak = process_peak();
    out->planned = ek_net_memory(s->net, s->batch, mode);
    layer_log_begin(&log, out->layers);
    fine = fine && cli_floors_measure(ek_context_isa(context), ek_context_threads(context),
                                      within(out->planned, 1 << 20, CLI_FLOORS_MEMORY), &out->floors);
    if (fine && out->norms > 0) {
        fine = went_well(ek_net_without_norm(s->net, &plain_net));
        fine = fine && subject_begin(&plain, plain_net, settings) && step(&plain);
    }
    fine = fine && run_rounds(s, plain_net ? &plain : NULL, settings->seconds, &log, out);
    layer_log_end(&log, out);
    subject_end(&plain);
    ek_net_destroy(plain_net);
    return fine;
}

bool bench_measure(ek_context *context, ek_net *net, const bench_settings *settings, bench_result *out)
{
    size_t layers = (size_t)ek_net_layer_count(net);
    *out = (bench_result){.layers = (int)layers,
                          .norms = count_norms(net),
                          .time = room_for(layers, sizeof *out->time),
                          .forward = room_for(layers, sizeof *out->forward),
                          .backward = room_for(layers, sizeof *out->backward)};
    subject s;
    bool fine = subject_begin(&s, net, settings) && measure(context, &s, settings, out);
    subject_end(&s);
    if (fine && !layer_work_count(net, settings->batch, out->time, out->forward, out->backward)) {
        cli_fail("out of memory");
        fine = false;
    }
    return fine;
}

void bench_result_free(bench_result *result)
{
    free(result->time);
    free(result->forward);
    free(result->backward);
    *result = (bench_result){0};
}
