/* A run as an observer saw it, as sections of a report. */
#include "lab/observe.h"
#include "lab/report.h"

#include "core/memory.h"

#include <math.h>
#include <stdio.h>

/* --- the run in words and as a table */

static void add_summary(ek_report *report, const ek_seen *seen)
{
    const ek_event *start = &seen->start, *last = &seen->last;
    ek_text text = {0};
    char a[EK_REAL_TEXT], b[EK_REAL_TEXT], c[EK_REAL_TEXT];
    ek_text_add(&text, "%s steps over %s samples, %s epoch%s.", ek_count_text(start->steps, a),
                ek_count_text(start->train_count, b), ek_count_text(start->epochs, c),
                start->epochs == 1 ? "" : "s");
    if (start->step > 0)
        ek_text_add(&text, " The run was resumed after step %s: what came before is not shown.",
                    ek_count_text(start->step, a));
    if (last->step < start->steps)
        ek_text_add(&text, " It was stopped after step %s.", ek_count_text(last->step, a));
    if (last->skipped > 0)
        ek_text_add(&text, " Steps that changed nothing, because their loss or gradient was not finite: %s.",
                    ek_count_text(last->skipped, a));
    ek_report_take_text(report, &text);
}

typedef double (*measure_of)(const ek_event *epoch);
static double train_loss(const ek_event *e) { return e->train_loss; }
static double valid_loss(const ek_event *e) { return e->valid_loss; }
static double test_loss(const ek_event *e) { return e->test_loss; }
static double train_accuracy(const ek_event *e) { return e->train_accuracy; }
static double valid_accuracy(const ek_event *e) { return e->valid_accuracy; }
static double test_accuracy(const ek_event *e) { return e->test_accuracy; }
static double speed(const ek_event *e) { return e->images_per_second; }
static double step_of(const ek_event *e) { return (double)e->step; }
static double epoch_of(const ek_event *e) { return (double)e->epoch; }

static bool has(const ek_seen *seen, measure_of measure)
{
    for (int64_t i = 0; i < seen->epochs; i++)
        if (isfinite(measure(&seen->epoch[i]))) return true;
    return false;
}

static char *cell_text(double value, bool whole)
{
    char text[EK_REAL_TEXT];
    if (!isfinite(value)) return ek_strdup("-");
    return whole ? ek_strdup(ek_count_text((int64_t)value, text)) : ek_strf("%.4f", value);
}

/* All epochs, or each so many where they are very many; the last one always. */
static void add_epochs(ek_report *report, const ek_seen *seen)
{
    enum { COLUMNS = 8, MOST = 60 };
    static const struct {
        const char *name;
        measure_of measure;
        bool whole;
    } all[COLUMNS] = {{"epoch", epoch_of, true},
                      {"train loss", train_loss, false},
                      {"valid loss", valid_loss, false},
                      {"test loss", test_loss, false},
                      {"train accuracy", train_accuracy, false},
                      {"valid accuracy", valid_accuracy, false},
                      {"test accuracy", test_accuracy, false},
                      {"images/s", speed, true}};
    const char *header[COLUMNS];
    int shown[COLUMNS], columns = 0, rows = 0;
    int64_t each = (seen->epochs + MOST - 1) / MOST;
    char **cell = NULL, title[64] = "Epochs";
    for (int i = 0; i < COLUMNS; i++) {
        if (!has(seen, all[i].measure)) continue;
        header[columns] = all[i].name;
        shown[columns++] = i;
    }
    if (!columns) return;
    if (each > 1) snprintf(title, sizeof title, "Each %lld epochs", (long long)each);
    ek_status status = EK_OK;
    EK_GO(EK_NEW(cell, (MOST + 1) * COLUMNS));
    for (int64_t i = 0; i < seen->epochs; i++) {
        if ((i + 1) % each && i + 1 < seen->epochs) continue;
        for (int k = 0; k < columns; k++) {
            char *text = cell_text(all[shown[k]].measure(&seen->epoch[i]), all[shown[k]].whole);
            if (!text) status = EK_E_MEMORY;
            cell[rows * columns + k] = text;
        }
        rows++;
    }
    if (status == EK_OK) ek_report_table(report, title, columns, header, rows, (const char *const *)cell);
done:
    ek_report_keep(report, status);
    for (int i = 0; cell && i < rows * columns; i++) ek_free(cell[i]);
    ek_free(cell);
}

/* --- the run's pictures */

/* Columns of numbers for series, freed together. */
typedef struct columns {
    double *memory;
    int64_t count; /* numbers in a column */
} columns;

static double *column(const columns *c, int index) { return c->memory + index * c->count; }

static void fill_epochs(const ek_seen *seen, measure_of measure, double *out)
{
    for (int64_t i = 0; i < seen->epochs; i++) out[i] = measure(&seen->epoch[i]);
}

/* The mean over a window around each point, and the least and the most in it. */
static void smooth(const ek_seen_steps *s, int64_t window, double *mean, double *low, double *high)
{
    for (int64_t i = 0; i < s->count; i++) {
        int64_t from = i - window / 2 < 0 ? 0 : i - window / 2;
        int64_t to = from + window > s->count ? s->count : from + window, finite = 0;
        mean[i] = 0;
        low[i] = high[i] = NAN;
        for (int64_t k = from; k < to; k++) {
            if (!isfinite(s->loss[k])) continue;
            mean[i] += s->loss[k];
            finite++;
            if (!(low[i] <= s->low[k])) low[i] = s->low[k];
            if (!(high[i] >= s->high[k])) high[i] = s->high[k];
        }
        mean[i] = finite ? mean[i] / (double)finite : NAN;
    }
}

/* Whether the losses stretch so far that only a logarithmic axis shows them all. */
static bool stretches(const double *value, int64_t count)
{
    enum { FAR = 50 };
    double least = INFINITY, most = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(value[i])) continue;
        if (value[i] < least) least = value[i];
        if (value[i] > most) most = value[i];
    }
    return least > 0 && most > FAR * least;
}

static void add_loss(ek_report *report, const ek_seen *seen)
{
    enum { WINDOWS = 50 };
    const ek_seen_steps *s = &seen->steps;
    int64_t window = s->count / WINDOWS > 1 ? s->count / WINDOWS : 1;
    columns step = {.count = s->count}, epoch = {.count = seen->epochs};
    char name[64], note[160];
    int series = 1;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(step.memory, (size_t)(3 * s->count)));
    EK_GO(EK_NEW(epoch.memory, (size_t)(3 * seen->epochs)));
    smooth(s, window, column(&step, 0), column(&step, 1), column(&step, 2));
    fill_epochs(seen, step_of, column(&epoch, 0));
    fill_epochs(seen, valid_loss, column(&epoch, 1));
    fill_epochs(seen, test_loss, column(&epoch, 2));
    window *= s->each;
    snprintf(name, sizeof name, window > 1 ? "train, mean of %lld steps" : "train", (long long)window);
    snprintf(note, sizeof note, "Of the batch, before the step's update%s",
             window > 1 ? "; the band goes from the least to the most of the steps around." : ".");
    ek_report_series all[3] = {{name, s->count, s->step, column(&step, 0),
                                window > 1 ? column(&step, 1) : NULL, window > 1 ? column(&step, 2) : NULL}};
    if (has(seen, valid_loss))
        all[series++] =
            (ek_report_series){"valid", seen->epochs, column(&epoch, 0), column(&epoch, 1), NULL, NULL};
    if (has(seen, test_loss))
        all[series++] =
            (ek_report_series){"test", seen->epochs, column(&epoch, 0), column(&epoch, 2), NULL, NULL};
    ek_report_lines(report,
                    &(ek_report_chart){.title = "Loss",
                                       .x_label = "step",
                                       .y_label = "mean cross-entropy",
                                       .note = note,
                                       .log_y = stretches(column(&step, 0), s->count)},
                    series, all);
done:
    ek_report_keep(report, status);
    ek_free(step.memory);
    ek_free(epoch.memory);
}

/* Measures of the epochs, those there are. */
static void add_by_epoch(ek_report *report, const ek_seen *seen, const char *title, const char *label,
                         int count, const char *const *name, const measure_of *measure)
{
    enum { MOST = 3 };
    ek_report_series all[MOST];
    columns c = {.count = seen->epochs};
    int series = 0;
    ek_status status = EK_NEW(c.memory, (size_t)((MOST + 1) * seen->epochs));
    if (status == EK_OK) {
        fill_epochs(seen, epoch_of, column(&c, MOST));
        for (int i = 0; i < count; i++) {
            if (!has(seen, measure[i])) continue;
            fill_epochs(seen, measure[i], column(&c, i));
            all[series++] =
                (ek_report_series){name[i], seen->epochs, column(&c, MOST), column(&c, i), NULL, NULL};
        }
        if (series)
            ek_report_lines(report, &(ek_report_chart){.title = title, .x_label = "epoch", .y_label = label},
                            series, all);
    }
    ek_report_keep(report, status);
    ek_free(c.memory);
}

static void add_run(ek_report *report, const ek_seen *seen)
{
    static const char *const sets[] = {"train", "valid", "test"};
    const ek_seen_steps *s = &seen->steps;
    ek_report_heading(report, "The run");
    add_summary(report, seen);
    add_epochs(report, seen);
    add_loss(report, seen);
    add_by_epoch(report, seen, "Accuracy", "share of samples", 3, sets,
                 (measure_of[]){train_accuracy, valid_accuracy, test_accuracy});
    ek_report_lines(
        report, &(ek_report_chart){.title = "Learning rate", .x_label = "step", .y_label = "learning rate"},
        1, &(ek_report_series){"learning rate", s->count, s->step, s->lr, NULL, NULL});
    add_by_epoch(report, seen, "Speed", "samples a second, training alone", 1,
                 (const char *const[]){"training"}, (measure_of[]){speed});
}

/* --- batchnorms */

/* A chart of quantiles, kept from `measure` on: the median, and bands about it. */
static void add_quantiles(ek_report *report, const ek_seen *seen, const ek_seen_norm *norm,
                          const ek_report_chart *chart, int measure, int count)
{
    static const char *const seven[] = {"median", "25 to 75 %", "5 to 95 %", "1 to 99 %"},
                             *const five[] = {"median of the channels", "middle half", "all channels"};
    const char *const *name = count == EK_SEEN_SEVEN ? seven : five;
    int middle = count / 2;
    ek_report_series series[EK_SEEN_SEVEN / 2 + 1];
    for (int i = 0; i <= middle; i++) {
        series[i] = (ek_report_series){.name = name[i], .count = seen->look, .x = seen->at};
        if (i == 0) series[i].y = ek_seen_measure(seen, norm, measure + middle);
        if (i == 0) continue;
        series[i].low = ek_seen_measure(seen, norm, measure + middle - i);
        series[i].high = ek_seen_measure(seen, norm, measure + middle + i);
    }
    ek_report_lines(report, chart, middle + 1, series);
}

static void add_chart(ek_report *report, const ek_seen *seen, const ek_seen_norm *norm, const char *what,
                      const char *label, int measure, int count, bool log_y)
{
    char title[EK_LABEL_MAX + 80];
    snprintf(title, sizeof title, "%s: %s", norm->label, what);
    add_quantiles(report, seen, norm,
                  &(ek_report_chart){.title = title, .x_label = "step", .y_label = label, .log_y = log_y},
                  measure, count);
}

static void add_moved(ek_report *report, const ek_seen *seen, const ek_seen_norm *norm)
{
    char title[EK_LABEL_MAX + 80];
    ek_report_series series[2];
    int count = 0;
    if (norm->gamma)
        series[count++] = (ek_report_series){
            "gamma", seen->look, seen->at, ek_seen_measure(seen, norm, EK_SEEN_GAMMA_MOVED), NULL, NULL};
    if (norm->beta)
        series[count++] = (ek_report_series){
            "beta", seen->look, seen->at, ek_seen_measure(seen, norm, EK_SEEN_BETA_MOVED), NULL, NULL};
    if (!count) return;
    snprintf(title, sizeof title, "%s: how far gamma and beta moved", norm->label);
    ek_report_lines(
        report,
        &(ek_report_chart){.title = title, .x_label = "step", .y_label = "rms distance from the start"},
        count, series);
}

static void add_norm(ek_report *report, const ek_seen *seen, const ek_seen_norm *norm)
{
    ek_text text = {0};
    ek_report_heading(report, norm->label);
    ek_text_add(&text, "batchnorm of %lld %s", (long long)norm->channels,
                norm->positions > 1 ? "channels" : "features");
    if (norm->positions > 1)
        ek_text_add(&text, ", each with %lld positions a sample", (long long)norm->positions);
    ek_text_add(&text, "%s", norm->batch ? "." : ". It is frozen: it normalizes by its running statistics.");
    ek_report_take_text(report, &text);
    add_chart(report, seen, norm, "inputs, before normalization", "value", EK_SEEN_BEFORE, EK_SEEN_SEVEN,
              false);
    add_chart(report, seen, norm, "outputs, after it", "value", EK_SEEN_AFTER, EK_SEEN_SEVEN, false);
    if (norm->gamma)
        add_chart(report, seen, norm, "gamma, the scale", "gamma", EK_SEEN_GAMMA, EK_SEEN_FIVE, false);
    if (norm->beta)
        add_chart(report, seen, norm, "beta, the shift", "beta", EK_SEEN_BETA, EK_SEEN_FIVE, false);
    if (norm->batch && norm->running_mean) {
        add_chart(report, seen, norm, "running mean against the batch's", "distance in deviations",
                  EK_SEEN_MEAN_GAP, EK_SEEN_FIVE, false);
        add_chart(report, seen, norm, "running variance against the batch's", "running / batch",
                  EK_SEEN_VAR_RATIO, EK_SEEN_FIVE, true);
    }
    add_moved(report, seen, norm);
}

void ek_report_training(ek_report *report, const ek_observer *observer)
{
    if (!report || !observer) return;
    const ek_seen *seen = ek_seen_of(observer);
    ek_report_keep(report, seen->status);
    add_run(report, seen);
    ek_report_heading(report, "Batch normalization");
    if (seen->norms == 0) {
        ek_report_text(report, "This net has none.");
        return;
    }
    ek_text text = {0};
    ek_text_add(
        &text,
        "Seen at %lld steps, each time in up to some 8,000 values of a layer. Inputs: where their "
        "distribution wanders, whatever reads them would have to follow; that is the covariate shift. "
        "Outputs: the same values after normalization, gamma and beta, as the next layer gets them. "
        "Running statistics stand against the batch's before they take it in: a distance near 0 and a "
        "ratio near 1 mean that inference will do what training did.",
        (long long)seen->look);
    ek_report_take_text(report, &text);
    for (int i = 0; seen->look > 0 && i < seen->norms; i++) add_norm(report, seen, &seen->norm[i]);
}
