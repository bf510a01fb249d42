/* What the figures show, in words made from the figures alone. */
#include "compare.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTED = 6 };

typedef struct entry {
    const compare_combination *at;
    compare_figures f;
    bool ranked; /* a run of it learned */
} entry;

typedef struct report {
    const comparison *c;
    FILE *out;
    entry *row; /* by combination */
    int ranked;
    const entry *best;
} report;

/* --- lists: "a, b and c" */

typedef struct list {
    FILE *out;
    int count, all;
} list;

/* Before the next item of `all`. False: enough are named, and the rest was counted. */
static bool list_next(list *l)
{
    int at = l->count++;
    if (at >= LISTED && l->all > LISTED + 1) {
        if (at == LISTED) fprintf(l->out, " and %d more", l->all - LISTED);
        return false;
    }
    if (at > 0) fputs(at == l->all - 1 ? " and " : ", ", l->out);
    return true;
}

/* --- accuracy */

static void print_accuracy(const report *r, const entry *row)
{
    fprintf(r->out, "%.4f", row->f.final);
    if (!isnan(row->f.final_deviation)) fprintf(r->out, " ± %.4f", row->f.final_deviation);
}

static int by_accuracy(const void *a, const void *b)
{
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    if (x->f.final != y->f.final) return x->f.final > y->f.final ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

typedef enum relation { NO_DIFFERENCE, LOWER, UNKNOWN } relation;

/* A row beside the best one. */
static relation relation_of(const report *r, const entry *row)
{
    const compare_figures *a = &r->best->f, *b = &row->f;
    if (a->count < 2 || b->count < 2) return UNKNOWN;
    return compare_differ(a->final, a->final_deviation, a->count, b->final, b->final_deviation, b->count) ? LOWER
                                                                                                      : NO_DIFFERENCE;
}

static void list_related(const report *r, const entry *const *order, relation which, const char *before, const char *after)
{
    list l = {.out = r->out};
    for (int i = 1; i < r->ranked; i++) l.all += relation_of(r, order[i]) == which;
    if (l.all == 0) return;
    fputs(before, r->out);
    for (int i = 1; i < r->ranked; i++) {
        if (relation_of(r, order[i]) != which || !list_next(&l)) continue;
        if (which == NO_DIFFERENCE)
            fprintf(r->out, "%s (%.4f)", order[i]->at->name, order[i]->f.final);
        else
            fprintf(r->out, "%s by %.4f", order[i]->at->name, r->best->f.final - order[i]->f.final);
    }
    fputs(after, r->out);
}

/* What one seed each lets one say: the order, and how far the measured data alone can be off. */
static void tell_single(const report *r, const entry *const *order)
{
    const comparison *c = r->c;
    double p = r->best->f.final, error = 1.96 * sqrt(p * (1 - p) / (double)c->measured_count);
    if (r->ranked > 1)
        fprintf(r->out, "; the next is %s with %.4f", order[1]->at->name, order[1]->f.final);
    if (r->ranked > 2)
        fprintf(r->out, ", the lowest %s with %.4f", order[r->ranked - 1]->at->name, order[r->ranked - 1]->f.final);
    char samples[CLI_TEXT_SIZE];
    fprintf(r->out,
            ". Each was trained with one seed, so that the figures do not say what of this is chance; --repeat 3 would. "
            "Measuring on %s samples alone leaves an accuracy uncertain by %.4f.",
            cli_count(samples, c->measured_count), error);
}

static void tell_accuracy(const report *r)
{
    const comparison *c = r->c;
    if (!r->best) {
        fputs("No combination learned.", r->out);
        return;
    }
    const entry **order = cli_alloc((size_t)c->count, sizeof *order);
    int count = 0;
    for (int i = 0; i < c->count; i++) {
        if (r->row[i].ranked) order[count++] = &r->row[i];
    }
    qsort(order, (size_t)count, sizeof *order, by_accuracy);
    long long epochs = c->s->training.epochs;
    fprintf(r->out, "After %lld epoch%s %s has %s %s accuracy%s ", epochs, epochs == 1 ? "" : "s", r->best->at->name,
            count > 1 ? "the highest" : "a", c->measured, count > 1 ? "," : " of");
    print_accuracy(r, r->best);
    bool repeated = false;
    for (int i = 0; i < count; i++) repeated |= order[i]->f.count > 1;
    if (!repeated) {
        tell_single(r, order);
    } else {
        if (r->best->f.count > 1) fprintf(r->out, " (mean and standard deviation of %d seeds)", r->best->f.count);
        fputc('.', r->out);
        list_related(r, order, NO_DIFFERENCE, " No difference to it that these seeds can show: ", ".");
        list_related(r, order, LOWER, " Lower, by more than the seeds' deviation explains: ", ".");
        list_related(r, order, UNKNOWN, " Lower, but of too few seeds to judge: ", ".");
    }
    free(order);
}

/* --- with several keys: the best of each value of the first */

static void tell_by_first(const report *r)
{
    const comparison *c = r->c;
    if (c->keys < 2 || c->key[0].count < 2 || c->key[0].count == c->count) return;
    const entry *best[LISTED + 1] = {NULL};
    list l = {.out = r->out};
    if (c->key[0].count > LISTED + 1) return;
    for (int i = 0; i < c->count; i++) {
        const entry **of = &best[r->row[i].at->value[0]];
        if (r->row[i].ranked && (!*of || by_accuracy(&(const entry *){&r->row[i]}, of) < 0)) *of = &r->row[i];
    }
    for (int v = 0; v < c->key[0].count; v++) l.all += best[v] != NULL;
    if (l.all < 2) return;
    fprintf(r->out, " The best of each %s: ", c->key[0].name);
    for (int v = 0; v < c->key[0].count; v++) {
        if (!best[v] || !list_next(&l)) continue;
        fprintf(r->out, "%s (", best[v]->at->name);
        print_accuracy(r, best[v]);
        fputc(')', r->out);
    }
    fputc('.', r->out);
}

/* --- what did not learn */

/* The reason of the first run that came to it. */
static const char *reason_of(const comparison *c, const compare_combination *at, compare_outcome outcome)
{
    for (int64_t i = 0; i < c->s->repeat; i++) {
        if (at->run[i].outcome == outcome) return at->run[i].reason;
    }
    return "";
}

static void tell_outcome(const report *r, compare_outcome outcome, const char *before)
{
    const comparison *c = r->c;
    list l = {.out = r->out};
    for (int i = 0; i < c->count; i++) l.all += r->row[i].f.runs[outcome] > 0;
    if (l.all == 0) return;
    fputs(before, r->out);
    for (int i = 0; i < c->count; i++) {
        int runs = r->row[i].f.runs[outcome];
        if (runs == 0 || !list_next(&l)) continue;
        fputs(c->at[i].name, r->out);
        if (c->s->repeat > 1) fprintf(r->out, " (%d of %lld runs)", runs, (long long)c->s->repeat);
        if (l.all == 1 || outcome == COMPARE_FAILED)
            fprintf(r->out, ", %s %s", runs > 1 ? "in the first of which" : "where", reason_of(c, &c->at[i], outcome));
    }
    fputc('.', r->out);
}

/* --- training against test, and time */

typedef struct range {
    const entry *low, *high;
    double least, most;
} range;

static void widen(range *r, const entry *row, double value)
{
    if (!isfinite(value)) return;
    if (!r->low || value < r->least) {
        r->low = row;
        r->least = value;
    }
    if (!r->high || value > r->most) {
        r->high = row;
        r->most = value;
    }
}

static void tell_gap(const report *r)
{
    range gap = {0};
    if (r->c->measure == COMPARE_TRAIN) return;
    for (int i = 0; i < r->c->count; i++) {
        const entry *row = &r->row[i];
        if (row->ranked) widen(&gap, row, row->f.train_accuracy - row->f.final);
    }
    if (!gap.low || gap.low == gap.high) return;
    fprintf(r->out, " The training accuracy of the last epoch less the %s accuracy goes from %.4f (%s) to %.4f (%s).",
            r->c->measured, gap.least, gap.low->at->name, gap.most, gap.high->at->name);
}

static void seconds_text(char text[CLI_TEXT_SIZE], double seconds)
{
    snprintf(text, CLI_TEXT_SIZE, seconds >= 10 ? "%.0f s" : "%.2g s", seconds);
}

static void tell_time(const report *r)
{
    range time = {0};
    for (int i = 0; i < r->c->count; i++) {
        if (r->row[i].ranked) widen(&time, &r->row[i], r->row[i].f.seconds);
    }
    if (r->ranked < 2) return;
    char least[CLI_TEXT_SIZE], most[CLI_TEXT_SIZE];
    seconds_text(least, time.least);
    seconds_text(most, time.most);
    if (time.most < 1.1 * time.least)
        fprintf(r->out, " All take about as long, %s a run.", most);
    else
        fprintf(r->out, " A run takes from %s (%s) to %s (%s).", least, time.low->at->name, most, time.high->at->name);
}

static void tell_stopped(const report *r)
{
    const comparison *c = r->c;
    int64_t done = 0;
    for (int i = 0; i < c->count; i++) done += c->s->repeat - r->row[i].f.runs[COMPARE_NOT_RUN];
    if (c->stopped)
        fprintf(r->out, "Stopped after %lld of %lld runs. ", (long long)done, (long long)(c->count * c->s->repeat));
}

char *compare_words(const comparison *c)
{
    char *text = NULL;
    size_t length = 0;
    report r = {.c = c, .out = open_memstream(&text, &length)};
    if (!r.out) exit(cli_fail("out of memory"));
    r.row = cli_alloc((size_t)c->count, sizeof *r.row);
    for (int i = 0; i < c->count; i++) {
        entry *row = &r.row[i];
        *row = (struct entry){.at = &c->at[i], .f = compare_figures_of(c, &c->at[i])};
        row->ranked = row->f.runs[COMPARE_LEARNED] > 0 && isfinite(row->f.final);
        r.ranked += row->ranked;
        if (row->ranked && (!r.best || row->f.final > r.best->f.final)) r.best = row;
    }
    tell_stopped(&r);
    tell_accuracy(&r);
    tell_by_first(&r);
    tell_outcome(&r, COMPARE_AT_CHANCE, " No better than chance: ");
    tell_outcome(&r, COMPARE_DIVERGED, " Diverged: ");
    tell_outcome(&r, COMPARE_FAILED, " Failed: ");
    tell_gap(&r);
    tell_time(&r);
    free(r.row);
    if (fclose(r.out) != 0) exit(cli_fail("out of memory"));
    return text;
}
