#include "compare.h"
#include "output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Mean and standard deviation (of a sample: n - 1) of one number of some runs; *count: how many have it. */
typedef struct spread {
    double mean, squares;
    int count;
} spread;

/* Welford's update. */
static void take(spread *s, double value)
{
    if (!isfinite(value)) return;
    double delta = value - s->mean;
    s->count++;
    s->mean += delta / s->count;
    s->squares += delta * (value - s->mean);
}

static double mean_of(const spread *s) { return s->count ? s->mean : NAN; }
static double deviation_of(const spread *s) { return s->count > 1 ? sqrt(s->squares / (s->count - 1)) : NAN; }

compare_figures compare_figures_of(const comparison *c, const compare_combination *at)
{
    compare_figures f = {0};
    spread final = {0}, best = {0}, accuracy = {0}, loss = {0}, seconds = {0}, speed = {0};
    for (int64_t r = 0; r < c->s->repeat; r++) f.runs[at->run[r].outcome]++;
    int good = f.runs[COMPARE_LEARNED] + f.runs[COMPARE_AT_CHANCE];
    for (int64_t r = 0; r < c->s->repeat; r++) {
        const compare_run *run = &at->run[r];
        bool in_means = good ? run->outcome == COMPARE_LEARNED || run->outcome == COMPARE_AT_CHANCE
                             : run->outcome == COMPARE_DIVERGED;
        if (!in_means) continue;
        f.count++;
        take(&final, run->final);
        take(&best, run->best);
        take(&accuracy, run->train_accuracy);
        take(&loss, run->train_loss);
        take(&seconds, run->seconds);
        take(&speed, run->images_per_second);
    }
    f.final = mean_of(&final);
    f.final_deviation = deviation_of(&final);
    f.best = mean_of(&best);
    f.best_deviation = deviation_of(&best);
    f.train_accuracy = mean_of(&accuracy);
    f.train_loss = mean_of(&loss);
    f.seconds = mean_of(&seconds);
    f.images_per_second = mean_of(&speed);
    return f;
}

char *compare_outcomes(const compare_figures *f)
{
    int kinds = 0;
    for (int i = 0; i < COMPARE_OUTCOMES; i++) kinds += f->runs[i] > 0;
    char *text = NULL;
    for (int i = 1; i <= COMPARE_OUTCOMES; i++) {
        int outcome = i % COMPARE_OUTCOMES; /* those that were not run last */
        if (f->runs[outcome] == 0) continue;
        if (kinds == 1) return cli_text("%s", compare_outcome_word[outcome]);
        char *longer = cli_text("%s%s%d %s", text ? text : "", text ? ", " : "", f->runs[outcome],
                                compare_outcome_word[outcome]);
        free(text);
        text = longer;
    }
    return text;
}

/* Student's t, 97.5 % quantile, by degrees of freedom from 1; between two rows the larger one. */
static double quantile(double freedom)
{
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    enum { ROWS = sizeof t / sizeof *t };
    if (freedom >= 120) return 1.980;
    if (freedom >= ROWS) return t[ROWS - 1];
    return t[freedom < 1 ? 0 : (int)freedom - 1];
}

bool compare_differ(double mean_a, double deviation_a, int count_a, double mean_b, double deviation_b, int count_b)
{
    double a = deviation_a * deviation_a / count_a, b = deviation_b * deviation_b / count_b, error = a + b;
    if (error == 0) return mean_a != mean_b;
    double freedom = error * error / (a * a / (count_a - 1) + b * b / (count_b - 1));
    return fabs(mean_a - mean_b) > quantile(freedom) * sqrt(error);
}
