#include "audit_page.h"

#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a table, row by row; all are freed when it is added. */
typedef struct cells {
    char **text;
    int count, room;
} cells;

/* Takes a text from cli_text. */
static void add_cell(cells *c, char *text)
{
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        char **grown = realloc(c->text, (size_t)c->room * sizeof *grown);
        if (!grown) exit(cli_fail("out of memory"));
        c->text = grown;
    }
    c->text[c->count++] = text;
}

static void add_measure(cells *c, double value)
{
    char text[CLI_TEXT_SIZE];
    add_cell(c, cli_text("%s", isfinite(value) ? cli_measure(text, value) : ""));
}

static void add_table(ek_report *report, const char *title, int columns, const char *const *header, cells *c)
{
    ek_report_table(report, title, columns, header, c->count / columns, (const char *const *)c->text);
    for (int i = 0; i < c->count; i++) free(c->text[i]);
    free(c->text);
    *c = (cells){0};
}

/* --- findings */

const char *const cli_severity_name[] = {"note", "warning", "error"};

bool cli_findings_alike(const ek_finding *a, const ek_finding *b)
{
    return a->severity == b->severity && !strcmp(a->code, b->code) && !strcmp(a->text, b->text) &&
           !strcmp(a->mend, b->mend);
}

/* A paragraph; takes a text from cli_text. */
static void add_text(ek_report *report, char *text)
{
    ek_report_text(report, text);
    free(text);
}

/* What holds for findings that are alike once, and the evidence of each. */
static int add_alike(ek_report *report, const ek_audit *audit, int first)
{
    static const char *const header[] = {"layer", "evidence"};
    const ek_finding *f = ek_audit_finding(audit, first);
    cells c = {0};
    int i = first;
    for (; i < ek_audit_finding_count(audit) && cli_findings_alike(f, ek_audit_finding(audit, i)); i++) {
        add_cell(&c, cli_text("%s", ek_audit_finding(audit, i)->label));
        add_cell(&c, cli_text("%s", ek_audit_finding(audit, i)->evidence));
    }
    add_text(report, cli_text("%s, %s: %s.", cli_severity_name[f->severity], f->code, f->text));
    add_table(report, NULL, 2, header, &c);
    add_text(report, cli_text("What mends it: %s", f->mend));
    return i;
}

static void add_findings(ek_report *report, const ek_audit *audit)
{
    ek_report_heading(report, "Findings");
    if (ek_audit_finding_count(audit) == 0) ek_report_text(report, "Nothing was found.");
    for (int i = 0; i < ek_audit_finding_count(audit);) i = add_alike(report, audit, i);
}

/* --- what was measured */

static void add_run(cells *c, const char *name, ek_audit_run run)
{
    add_cell(c, cli_text("%s", name));
    add_measure(c, run.loss);
    add_measure(c, run.accuracy);
}

static void add_measures(ek_report *report, const ek_audit_measured *m, const char *data)
{
    static const char *const header[] = {"normalized by", "loss", "accuracy"};
    cells c = {0};
    ek_report_heading(report, "What the statistics do");
    add_text(report,
             cli_text("%lld samples of %s; the statistics that are compared with are of %lld samples.",
                      (long long)m->count, data, (long long)m->reference_count));
    add_run(&c, "the running statistics, as the model stands", m->as_is);
    add_run(&c, "each batch's own (training mode)", m->training_mode);
    add_run(&c, "measured statistics in every layer, as recalibrated", m->mended);
    if (isfinite(m->adapted.loss) || isfinite(m->adapted.accuracy))
        add_run(&c, "the data's own in every layer", m->adapted);
    add_table(report, NULL, 3, header, &c);
}

static void add_swaps(ek_report *report, const ek_audit *audit, const ek_audit_measured *m)
{
    int count = ek_audit_layer_count(audit);
    double *x = cli_alloc((size_t)count + 1, sizeof *x), *loss = cli_alloc((size_t)count + 1, sizeof *loss),
           *accuracy = cli_alloc((size_t)count + 1, sizeof *accuracy),
           *share = cli_alloc((size_t)count, sizeof *share);
    const char **label = cli_alloc((size_t)count, sizeof *label);
    loss[0] = m->as_is.loss;
    accuracy[0] = m->as_is.accuracy;
    for (int i = 0; i < count; i++) {
        const ek_audit_layer *l = ek_audit_layer_at(audit, i);
        x[i + 1] = i + 1;
        loss[i + 1] = l->swapped.loss;
        accuracy[i + 1] = l->swapped.accuracy;
        share[i] = round(1000 * l->share) / 10;
        label[i] = l->label;
    }
    ek_report_chart chart = {.title = "From the running statistics to measured ones, layer by layer",
                             .x_label = "layers that have measured statistics, from the input on",
                             .y_label = "accuracy",
                             .note = "0: the model as it stands; layers in the order of the net"};
    ek_report_lines(report, &chart, 1,
                    &(ek_report_series){.name = "accuracy", .count = count + 1, .x = x, .y = accuracy});
    chart.title = "The same, loss";
    chart.y_label = "loss";
    ek_report_lines(report, &chart, 1,
                    &(ek_report_series){.name = "loss", .count = count + 1, .x = x, .y = loss});
    bool shares = false;
    for (int i = 0; i < count; i++) shares = shares || isfinite(share[i]);
    ek_report_chart bars = {
        .title = "What each layer adds to the gap",
        .x_label = "layer",
        .y_label = "% of the gap",
        .note = "below 0: alone it makes things worse, while the layers after it are not mended"};
    if (shares) ek_report_bars(report, &bars, count, label, share);
    free(x);
    free(loss);
    free(accuracy);
    free(share);
    free(label);
}

static void add_layers(ek_report *report, const ek_audit *audit)
{
    static const char *const header[] = {"layer",
                                         "batches",
                                         "momentum",
                                         "eps",
                                         "mean off",
                                         "variance off",
                                         "mean off in training mode",
                                         "data shift of the mean",
                                         "of the variance",
                                         "% of the gap"};
    cells c = {0};
    for (int i = 0; i < ek_audit_layer_count(audit); i++) {
        const ek_audit_layer *l = ek_audit_layer_at(audit, i);
        add_cell(&c, cli_text("%s", l->label));
        add_cell(&c, cli_text("%lld", (long long)l->batches));
        if (isnan(l->momentum))
            add_cell(&c, cli_text("none"));
        else
            add_cell(&c, cli_text("%g", l->momentum));
        add_cell(&c, cli_text("%g", l->eps));
        add_measure(&c, l->mended.mean);
        add_measure(&c, l->mended.var);
        add_measure(&c, l->training.mean);
        add_measure(&c, l->shift.mean);
        add_measure(&c, l->shift.var);
        add_cell(&c, isfinite(l->share) ? cli_text("%.1f", 100 * l->share) : cli_text("%s", ""));
    }
    add_table(report,
              "Distances of the running statistics: rms over the channels, means in deviations, variances as "
              "logarithms",
              10, header, &c);
}

/* --- channel by channel */

static void add_channels(ek_report *report, const ek_audit_layer *l)
{
    int64_t n = l->channels;
    double *x = cli_alloc((size_t)n, sizeof *x), *mean = cli_alloc((size_t)n, sizeof *mean),
           *var = cli_alloc((size_t)n, sizeof *var);
    char *title = cli_text("%s: running statistics against measured ones", l->label);
    for (int64_t c = 0; c < n; c++) {
        double v = l->var[c] + l->eps;
        x[c] = (double)c;
        mean[c] = (l->running_mean[c] - l->mean[c]) / sqrt(v);
        var[c] = log((l->running_var[c] + l->eps) / v);
    }
    const ek_report_series series[] = {
        {.name = "mean, in deviations", .count = n, .x = x, .y = mean},
        {.name = "variance, logarithm of the ratio", .count = n, .x = x, .y = var}};
    const ek_report_chart chart = {.title = title, .x_label = "channel", .y_label = "distance"};
    ek_report_lines(report, &chart, 2, series);
    free(title);
    free(x);
    free(mean);
    free(var);
}

ek_status cli_audit_page(const ek_audit *audit, const char *model, const char *data, const char *path)
{
    enum { MOST_LAYERS = 64 };
    char *title = cli_text("Audit of %s", model);
    ek_report *report;
    ek_status status = ek_report_create(title, &report);
    free(title);
    if (status != EK_OK) return status;
    const ek_audit_measured *m = ek_audit_measures(audit);
    add_findings(report, audit);
    if (m) {
        add_measures(report, m, data);
        add_swaps(report, audit, m);
        add_layers(report, audit);
        ek_report_heading(report, "Channel by channel");
        for (int i = 0; i < ek_audit_layer_count(audit) && i < MOST_LAYERS; i++)
            add_channels(report, ek_audit_layer_at(audit, i));
    }
    status = ek_report_write(report, path);
    ek_report_destroy(report);
    return status;
}
