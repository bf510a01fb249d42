/* The answer: table, JSON, CSV and report page. */
#include "common.h"
#include "compare.h"
#include "output.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIGURES = 7 }; /* columns beside those of the keys */

static void number_text(char text[CLI_TEXT_SIZE], const char *format, double value)
{
    if (isfinite(value))
        snprintf(text, CLI_TEXT_SIZE, format, value);
    else
        strcpy(text, "-");
}

static void spread_text(char text[CLI_TEXT_SIZE], double mean, double deviation)
{
    number_text(text, "%.4f", mean);
    size_t length = strlen(text);
    if (isfinite(mean) && isfinite(deviation)) snprintf(text + length, CLI_TEXT_SIZE - length, " ± %.4f", deviation);
}

static const char *figure_names(const comparison *c, int column, char text[CLI_TEXT_SIZE])
{
    static const char *const names[FIGURES] = {NULL,      NULL,       "train acc", "train loss",
                                               "seconds", "images/s", "outcome"};
    static const char *const word[] = {"test", "valid", "train"};
    if (names[column]) return names[column];
    snprintf(text, CLI_TEXT_SIZE, "%s %s acc", column ? "best" : "final", word[c->measure]);
    return text;
}

/* The cells of a combination; all are to be freed. */
static void fill_row(const comparison *c, const compare_combination *at, char **cell)
{
    compare_figures f = compare_figures_of(c, at);
    char text[FIGURES - 1][CLI_TEXT_SIZE];
    spread_text(text[0], f.final, f.final_deviation);
    spread_text(text[1], f.best, f.best_deviation);
    number_text(text[2], "%.4f", f.train_accuracy);
    number_text(text[3], f.train_loss < 1000 ? "%.4f" : "%.3g", f.train_loss);
    number_text(text[4], "%.1f", f.seconds);
    number_text(text[5], "%.0f", f.images_per_second);
    if (isfinite(f.images_per_second)) cli_count(text[5], llround(f.images_per_second));
    for (int k = 0; k < c->keys; k++) *cell++ = cli_text("%s", compare_value(c, at, k));
    for (int i = 0; i < FIGURES - 1; i++) *cell++ = cli_text("%s", text[i]);
    *cell = compare_outcomes(&f);
}

static void free_cells(char **cell, int count)
{
    for (int i = 0; i < count; i++) free(cell[i]);
}

/* --- table */

static void print_table(const comparison *c)
{
    cli_table table;
    char *headings = cli_text("%s", ""), text[CLI_TEXT_SIZE];
    for (int i = 0; i < c->keys + FIGURES; i++) {
        bool figure = i >= c->keys, right = figure && i < c->keys + FIGURES - 1;
        char *longer = cli_text("%s%s%s%s", headings, i ? "|" : "", right ? ">" : "",
                                figure ? figure_names(c, i - c->keys, text) : c->key[i].name);
        free(headings);
        headings = longer;
    }
    cli_table_begin(&table, headings);
    free(headings);
    for (int i = 0; i < c->count; i++) {
        char *cell[COMPARE_KEYS + FIGURES];
        fill_row(c, &c->at[i], cell);
        cli_table_cells(&table, (const char *const *)cell);
        free_cells(cell, c->keys + FIGURES);
    }
    cli_table_print(&table);
    cli_table_free(&table);
}

static char *what_was_done(const comparison *c)
{
    char count[CLI_TEXT_SIZE], measured[CLI_TEXT_SIZE];
    long long epochs = c->s->training.epochs, repeat = c->s->repeat, seed = c->s->training.seed;
    char *all = cli_text("%s", "");
    for (int k = 0; k < c->keys; k++) {
        if (c->key[k].count > 1) continue;
        char *longer = cli_text("%s%s %s=%s", all, *all ? "," : " with", c->key[k].name, c->key[k].value[0]);
        free(all);
        all = longer;
    }
    char *seeds = repeat == 1 ? cli_text("seed %lld", seed) : cli_text("seeds %lld to %lld", seed, seed + repeat - 1);
    char *text = cli_text("%s%s on %s: %s samples, %lld epoch%s, %s; accuracy on %s %s samples", c->s->net, all,
                          c->s->training.data, cli_count(count, c->train_count), epochs, epochs == 1 ? "" : "s", seeds,
                          cli_count(measured, c->measured_count), c->measured);
    free(seeds);
    free(all);
    return text;
}

void compare_print(const comparison *c, const char *words)
{
    char *done = what_was_done(c);
    printf("%s\n", done);
    free(done);
    for (int i = 0; i < c->notes; i++) cli_print_wrapped_at(c->note[i], 0, 2);
    putchar('\n');
    print_table(c);
    putchar('\n');
    cli_print_wrapped(words);
}

/* --- JSON */

static void set_spread(json_t *object, const char *key, double mean, double deviation)
{
    json_t *spread = json_object();
    cli_json_number(spread, "mean", mean);
    cli_json_number(spread, "deviation", deviation);
    json_object_set_new(object, key, spread);
}

static json_t *row_json(const comparison *c, const compare_combination *at)
{
    compare_figures f = compare_figures_of(c, at);
    json_t *row = json_object(), *vary = json_object();
    for (int k = 0; k < c->keys; k++) json_object_set_new(vary, c->key[k].name, cli_json_text(compare_value(c, at, k)));
    json_object_set_new(row, "vary", vary);
    json_object_set_new(row, "parameters", json_integer(at->parameters));
    json_object_set_new(row, "net", json_string(at->net));
    for (int i = 0; i < COMPARE_OUTCOMES; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s", compare_outcome_word[i]);
        for (char *space = key; (space = strchr(space, ' '));) *space = '_';
        json_object_set_new(row, key, json_integer(f.runs[i]));
    }
    set_spread(row, "final", f.final, f.final_deviation);
    set_spread(row, "best", f.best, f.best_deviation);
    cli_json_number(row, "train_accuracy", f.train_accuracy);
    cli_json_number(row, "train_loss", f.train_loss);
    cli_json_number(row, "seconds", f.seconds);
    cli_json_number(row, "images_per_second", f.images_per_second);
    return row;
}

void compare_print_json(const comparison *c, const char *words)
{
    json_t *object = json_object(), *vary = json_array(), *notes = json_array(), *rows = json_array(), *runs = json_array();
    for (int k = 0; k < c->keys; k++) {
        json_t *values = json_array();
        for (int i = 0; i < c->key[k].count; i++) json_array_append_new(values, cli_json_text(c->key[k].value[i]));
        json_array_append_new(vary, json_pack("{s:s, s:o}", "key", c->key[k].name, "values", values));
    }
    for (int i = 0; i < c->notes; i++) json_array_append_new(notes, cli_json_text(c->note[i]));
    for (int i = 0; i < c->count; i++) {
        json_array_append_new(rows, row_json(c, &c->at[i]));
        for (int64_t r = 0; r < c->s->repeat; r++) {
            if (c->at[i].run[r].outcome != COMPARE_NOT_RUN) json_array_append_new(runs, compare_run_json(c, &c->at[i], r));
        }
    }
    json_object_set_new(object, "net", cli_json_text(c->s->net));
    json_object_set_new(object, "data", cli_json_text(c->s->training.data));
    json_object_set_new(object, "epochs", json_integer(c->s->training.epochs));
    json_object_set_new(object, "repeat", json_integer(c->s->repeat));
    json_object_set_new(object, "seed", json_integer(c->s->training.seed));
    json_object_set_new(object, "train_count", json_integer(c->train_count));
    json_object_set_new(object, "measured_on", json_string(c->measured));
    json_object_set_new(object, "measured_count", json_integer(c->measured_count));
    json_object_set_new(object, "chance", json_real(c->chance));
    json_object_set_new(object, "threads", json_integer(ek_context_threads(c->context)));
    json_object_set_new(object, "isa", json_string(ek_context_isa(c->context)));
    json_object_set_new(object, "vary", vary);
    json_object_set_new(object, "notes", notes);
    json_object_set_new(object, "rows", rows);
    json_object_set_new(object, "runs", runs);
    json_object_set_new(object, "text", cli_json_text(words));
    json_object_set_new(object, "stopped", json_boolean(c->stopped));
    (void)cli_json_answer(object);
}

/* --- CSV: a line for each run */

static void csv_text(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

static void csv_number(FILE *out, double value)
{
    fputc(',', out);
    if (isfinite(value)) fprintf(out, "%.9g", value);
}

static void csv_run(FILE *out, const comparison *c, const compare_combination *at, int64_t number)
{
    const compare_run *run = &at->run[number];
    for (int k = 0; k < c->keys; k++) {
        csv_text(out, compare_value(c, at, k));
        fputc(',', out);
    }
    fprintf(out, "%lld,%s,", (long long)compare_seed(c, number), compare_outcome_word[run->outcome]);
    csv_text(out, run->reason);
    csv_number(out, run->final);
    csv_number(out, run->best);
    fprintf(out, ",%d", run->best_epoch);
    csv_number(out, run->train_accuracy);
    csv_number(out, run->train_loss);
    fprintf(out, ",%d,%lld", run->epochs, (long long)run->skipped);
    csv_number(out, run->seconds);
    csv_number(out, run->images_per_second);
    fputc('\n', out);
}

bool compare_write_csv(const comparison *c, const char *path)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out) exit(cli_fail("out of memory"));
    for (int k = 0; k < c->keys; k++) fprintf(out, "%s,", c->key[k].name);
    fprintf(out, "seed,outcome,reason,final_%s_accuracy,best_%s_accuracy,best_epoch,train_accuracy,train_loss,epochs,skipped,"
                 "seconds,images_per_second\n", c->measured, c->measured);
    for (int i = 0; i < c->count; i++) {
        for (int64_t r = 0; r < c->s->repeat; r++) {
            if (c->at[i].run[r].outcome != COMPARE_NOT_RUN) csv_run(out, c, &c->at[i], r);
        }
    }
    if (fclose(out) != 0) exit(cli_fail("out of memory"));
    bool written = cli_write_file(path, text, length);
    free(text);
    return written;
}

/* --- report */

static double train_loss_of(const comparison *c, const ek_event *epoch) { return (void)c, epoch->train_loss; }
static double train_accuracy_of(const comparison *c, const ek_event *epoch) { return (void)c, epoch->train_accuracy; }

typedef double (*measure)(const comparison *c, const ek_event *epoch);

/* The curve of a combination: by epoch the mean over the seeds, and from the least to the most. `room`: four numbers
 * an epoch. */
static ek_report_series curve(const comparison *c, const compare_combination *at, measure of, double *room)
{
    int64_t epochs = c->s->training.epochs;
    double *x = room, *y = room + epochs, *low = room + 2 * epochs, *high = room + 3 * epochs;
    int most = 0;
    for (int64_t e = 0; e < epochs; e++) {
        int count = 0;
        x[e] = (double)(e + 1);
        y[e] = 0;
        low[e] = INFINITY;
        high[e] = -INFINITY;
        for (int64_t r = 0; r < c->s->repeat; r++) {
            if (e >= at->run[r].epochs) continue;
            double value = of(c, &at->run[r].epoch[e]);
            if (!isfinite(value)) continue;
            y[e] += value;
            low[e] = fmin(low[e], value);
            high[e] = fmax(high[e], value);
            count++;
        }
        y[e] = count ? y[e] / count : NAN;
        if (!count) low[e] = high[e] = NAN;
        if (count > most) most = count;
    }
    return (ek_report_series){.name = at->name, .count = epochs, .x = x, .y = y, .low = most > 1 ? low : NULL,
                              .high = most > 1 ? high : NULL};
}

static void add_curves(ek_report *report, const comparison *c, const char *title, const char *label, measure of)
{
    int64_t epochs = c->s->training.epochs;
    double *room = cli_alloc((size_t)(c->count * epochs), 4 * sizeof *room);
    ek_report_series *series = cli_alloc((size_t)c->count, sizeof *series);
    for (int i = 0; i < c->count; i++) series[i] = curve(c, &c->at[i], of, room + 4 * epochs * i);
    ek_report_lines(report,
                    &(ek_report_chart){.title = title,
                                       .x_label = "epoch",
                                       .y_label = label,
                                       .note = c->s->repeat > 1 ? "Means over the seeds; bands from the least to the most."
                                                                : NULL},
                    c->count, series);
    free(series);
    free(room);
}

/* The values of a key as numbers; false: they are none, or too few for a line. */
static bool read_numbers(const compare_key *key, double *x, bool *spread)
{
    double least = INFINITY, most = -INFINITY;
    for (int i = 0; i < key->count; i++) {
        char *end;
        x[i] = strtod(key->value[i], &end);
        if (*end || !isfinite(x[i])) return false;
        least = fmin(least, x[i]);
        most = fmax(most, x[i]);
    }
    *spread = least > 0 && most >= 10 * least;
    return key->count >= 3;
}

typedef struct point {
    double x, y, low, high;
} point;

static int by_x(const void *a, const void *b)
{
    const point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

/* Those that agree in all keys but one, by which they are drawn. */
static bool same_but(const comparison *c, const compare_combination *a, const compare_combination *b, int key)
{
    for (int k = 0; k < c->keys; k++) {
        if (k != key && a->value[k] != b->value[k]) return false;
    }
    return true;
}

/* Accuracy against a key whose values are numbers: a line for each combination of the others. */
static void add_against(ek_report *report, const comparison *c, int key)
{
    int values = c->key[key].count, lines = 0;
    double *x = cli_alloc((size_t)values, sizeof *x);
    bool spread;
    if (!read_numbers(&c->key[key], x, &spread)) {
        free(x);
        return;
    }
    point *points = cli_alloc((size_t)values, sizeof *points);
    double *room = cli_alloc((size_t)c->count, 4 * sizeof *room);
    ek_report_series *series = cli_alloc((size_t)c->count, sizeof *series);
    for (int i = 0; i < c->count; i++) {
        if (c->at[i].value[key] != 0) continue;
        for (int k = 0; k < c->count; k++) {
            if (!same_but(c, &c->at[i], &c->at[k], key)) continue;
            compare_figures f = compare_figures_of(c, &c->at[k]);
            double deviation = isnan(f.final_deviation) ? 0 : f.final_deviation;
            int v = c->at[k].value[key];
            points[v] = (point){x[v], f.final, f.final - deviation, f.final + deviation};
        }
        qsort(points, (size_t)values, sizeof *points, by_x);
        double *at = room + 4 * values * lines;
        for (int v = 0; v < values; v++) {
            at[v] = points[v].x;
            at[values + v] = points[v].y;
            at[2 * values + v] = points[v].low;
            at[3 * values + v] = points[v].high;
        }
        bool band = c->s->repeat > 1;
        series[lines++] = (ek_report_series){compare_name(c, &c->at[i], key), values, at, at + values,
                                             band ? at + 2 * values : NULL, band ? at + 3 * values : NULL};
    }
    char *title = cli_text("Final %s accuracy against %s", c->measured, c->key[key].name);
    ek_report_lines(report,
                    &(ek_report_chart){.title = title,
                                       .x_label = c->key[key].name,
                                       .y_label = "accuracy",
                                       .note = c->s->repeat > 1 ? "Means over the seeds; bands of one standard deviation."
                                                                : NULL,
                                       .log_x = spread},
                    lines, series);
    for (int i = 0; i < lines; i++) free((char *)series[i].name);
    free(title);
    free(series);
    free(room);
    free(points);
    free(x);
}

static void add_bars(ek_report *report, const comparison *c)
{
    const char **label = cli_alloc((size_t)c->count, sizeof *label);
    double *value = cli_alloc((size_t)c->count, sizeof *value);
    for (int i = 0; i < c->count; i++) {
        label[i] = c->at[i].name;
        value[i] = compare_figures_of(c, &c->at[i]).final;
    }
    char *title = cli_text("Final %s accuracy", c->measured);
    ek_report_bars(report, &(ek_report_chart){.title = title, .x_label = "combination", .y_label = "accuracy"}, c->count,
                   label, value);
    free(title);
    free(value);
    free(label);
}

static void add_table(ek_report *report, const comparison *c)
{
    int columns = c->keys + FIGURES;
    char **cell = cli_alloc((size_t)(c->count * columns), sizeof *cell);
    char names[FIGURES][CLI_TEXT_SIZE];
    const char *header[COMPARE_KEYS + FIGURES];
    for (int i = 0; i < columns; i++)
        header[i] = i < c->keys ? c->key[i].name : figure_names(c, i - c->keys, names[i - c->keys]);
    for (int i = 0; i < c->count; i++) fill_row(c, &c->at[i], cell + i * columns);
    ek_report_table(report, NULL, columns, header, c->count, (const char *const *)cell);
    free_cells(cell, c->count * columns);
    free(cell);
}

bool compare_write_report(const comparison *c, const char *words, const char *path)
{
    ek_report *report = NULL;
    char *done = what_was_done(c), *title = cli_text("%s, compared", c->s->net);
    char *accuracy = cli_text("%c%s accuracy", toupper((unsigned char)*c->measured), c->measured + 1);
    ek_status status = ek_report_create(title, &report);
    if (status == EK_OK) {
        ek_report_text(report, done);
        ek_report_text(report, words);
        add_table(report, c);
        for (int i = 0; i < c->notes; i++) ek_report_text(report, c->note[i]);
        ek_report_heading(report, "Accuracy");
        add_bars(report, c);
        for (int k = 0; k < c->keys; k++) add_against(report, c, k);
        add_curves(report, c, accuracy, "accuracy", compare_accuracy);
        if (c->measure != COMPARE_TRAIN)
            add_curves(report, c, "Training accuracy, as the epoch went", "accuracy", train_accuracy_of);
        ek_report_heading(report, "Loss");
        add_curves(report, c, "Training loss", "cross-entropy", train_loss_of);
        status = ek_report_write(report, path);
    }
    ek_report_destroy(report);
    free(accuracy);
    free(title);
    free(done);
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}
