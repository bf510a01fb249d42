/* One self-contained HTML page. The parts are written as HTML into a text as they are added; a picture is a figure with
 * its data as JSON in it, which page/page.js draws. */
#include "lab/report.h"

#include "core/file.h"
#include "core/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The built-in files of src/lab/page, line by line, NULL at the end. */
extern const char *const ek_page_css[], *const ek_page_js[];

enum { MOST_POINTS = 1000 }; /* of one series */

struct ek_report {
    char *title;
    ek_text contents, body;
    int headings;
    bool grid; /* a group of figures is open in the body */
    ek_status status;
    char *error; /* the sentence of `status`; NULL: none */
};

ek_status ek_report_create(const char *title, ek_report **out)
{
    if (!title || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_report_create needs a title and a place for the report");
    ek_report *report;
    EK_TRY(EK_NEW(report, 1));
    report->title = ek_strdup(title);
    if (!report->title) {
        ek_free(report);
        return EK_E_MEMORY;
    }
    *out = report;
    return EK_OK;
}

void ek_report_destroy(ek_report *report)
{
    if (!report) return;
    ek_free(report->title);
    ek_text_free(&report->contents);
    ek_text_free(&report->body);
    ek_free(report->error);
    ek_free(report);
}

void ek_report_keep(ek_report *report, ek_status status)
{
    if (status == EK_OK || report->status != EK_OK) return;
    report->status = status;
    report->error = ek_strdup(ek_error());
}

static bool refuse(ek_report *report, const char *sentence)
{
    ek_report_keep(report, ek_fail(EK_E_ARGUMENT, "%s", sentence));
    return false;
}

/* --- escaping */

static const char *html_entity(char c)
{
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return NULL;
    }
}

/* In JSON within a script element: what could end the element is escaped too. */
static const char *json_escape(char c)
{
    switch (c) {
    case '&': return "\\u0026";
    case '<': return "\\u003c";
    case '>': return "\\u003e";
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\t': return "\\t";
    default: return NULL;
    }
}

/* U+2028 and U+2029, line ends to older scripts. */
static bool is_separator(const char *at)
{
    return !memcmp(at, "\xe2\x80", 2) && ((unsigned char)at[2] & 0xfe) == 0xa8;
}

static void add_escaped(ek_text *to, const char *text, const char *(*escape)(char))
{
    for (const char *at = text ? text : ""; *at;) {
        const char *start = at, *special = escape(*at);
        const unsigned char *next = (const unsigned char *)at;
        bool character = ek_next_character(&next) || *start == '\n' || *start == '\t';
        at = (const char *)next;
        if (special) {
            ek_text_add(to, "%s", special);
        } else if (!character || (at - start == 3 && is_separator(start))) {
            ek_text_add(to, "\xef\xbf\xbd");
        } else {
            ek_text_add(to, "%.*s", (int)(at - start), start);
        }
    }
}

static void add_html(ek_text *to, const char *text) { add_escaped(to, text, html_entity); }

static void add_string(ek_text *to, const char *text)
{
    ek_text_add(to, "\"");
    add_escaped(to, text, json_escape);
    ek_text_add(to, "\"");
}

static void add_number(ek_text *to, double value)
{
    enum { DIGITS = 7 };
    char text[EK_REAL_TEXT];
    if (!isfinite(value)) {
        ek_text_add(to, "null");
    } else if (value == floor(value) && fabs(value) < 1e15) {
        ek_text_add(to, "%.0f", value);
    } else {
        ek_text_add(to, "%s", ek_real_digits(value, DIGITS, text));
    }
}

static void add_numbers(ek_text *to, const char *key, int64_t count, const double *value)
{
    ek_text_add(to, ",\"%s\":[", key);
    for (int64_t i = 0; i < count; i++) {
        if (i) ek_text_add(to, ",");
        add_number(to, value[i]);
    }
    ek_text_add(to, "]");
}

/* --- texts and tables */

/* Figures stand side by side where there is room; what is no figure ends their group. */
static void set_grid(ek_report *report, bool open)
{
    if (report->grid != open) ek_text_add(&report->body, open ? "<div class=\"figures\">\n" : "</div>\n");
    report->grid = open;
}

void ek_report_heading(ek_report *report, const char *text)
{
    int number = ++report->headings;
    set_grid(report, false);
    ek_text_add(&report->contents, "<li><a href=\"#part%d\">", number);
    add_html(&report->contents, text);
    ek_text_add(&report->contents, "</a></li>\n");
    ek_text_add(&report->body, "<h2 id=\"part%d\">", number);
    add_html(&report->body, text);
    ek_text_add(&report->body, "</h2>\n");
}

void ek_report_text(ek_report *report, const char *text)
{
    set_grid(report, false);
    ek_text_add(&report->body, "<p>");
    add_html(&report->body, text);
    ek_text_add(&report->body, "</p>\n");
}

void ek_report_take_text(ek_report *report, ek_text *text)
{
    ek_report_keep(report, ek_text_status(text));
    if (text->length) ek_report_text(report, text->data);
    ek_text_free(text);
}

/* Digits, with what stands around numbers: "-1.5e-3", "44,426", "98.2 %", "0.91 ± 0.02", a dash for none. */
static bool looks_numeric(const char *cell)
{
    if (!strcmp(cell, "-") || !strcmp(cell, "\xe2\x80\x93")) return true;
    const char *first = cell + strspn(cell, "+-");
    return *first >= '0' && *first <= '9' && cell[strspn(cell, "0123456789+-.,eE% \xc2\xb1")] == '\0';
}

static bool numeric_column(int columns, int column, int rows, const char *const *cells)
{
    bool any = false;
    for (int row = 0; row < rows; row++) {
        const char *cell = cells[(size_t)row * (size_t)columns + (size_t)column];
        if (!cell || !*cell) continue;
        if (!looks_numeric(cell)) return false;
        any = true;
    }
    return any;
}

static void add_row(ek_text *to, const char *element, int columns, const bool *numeric,
                    const char *const *cells)
{
    ek_text_add(to, "<tr>");
    for (int column = 0; column < columns; column++) {
        ek_text_add(to, "<%s%s>", element, numeric[column] ? " class=\"number\"" : "");
        add_html(to, cells[column]);
        ek_text_add(to, "</%s>", element);
    }
    ek_text_add(to, "</tr>\n");
}

static void add_caption(ek_text *to, const char *title)
{
    ek_text_add(to, "<figcaption><span class=\"title\">");
    add_html(to, title);
    ek_text_add(to, "</span></figcaption>\n");
}

static bool check_table(ek_report *report, int columns, const char *const *header, int rows,
                        const char *const *cells)
{
    if (columns < 1 || rows < 0)
        return refuse(report, "a table has at least one column, and no fewer than no rows");
    if (!header || (rows && !cells)) return refuse(report, "a table lacks its header or its cells");
    return true;
}

void ek_report_table(ek_report *report, const char *title, int columns, const char *const *header, int rows,
                     const char *const *cells)
{
    if (!check_table(report, columns, header, rows, cells)) return;
    bool *numeric;
    ek_status status = EK_NEW(numeric, (size_t)columns);
    if (status != EK_OK) {
        ek_report_keep(report, status);
        return;
    }
    for (int i = 0; i < columns; i++) numeric[i] = numeric_column(columns, i, rows, cells);
    ek_text *to = &report->body;
    set_grid(report, false);
    ek_text_add(to, "<figure class=\"table\">\n");
    add_caption(to, title);
    ek_text_add(to, "<div class=\"scroll\"><table>\n<thead>");
    add_row(to, "th", columns, numeric, header);
    ek_text_add(to, "</thead>\n<tbody>\n");
    for (int row = 0; row < rows; row++)
        add_row(to, "td", columns, numeric, cells + (size_t)row * (size_t)columns);
    ek_text_add(to, "</tbody>\n</table></div>\n</figure>\n");
    ek_free(numeric);
}

/* --- pictures */

/* A series as it is drawn: its own arrays, or thinned ones in `room`. */
typedef struct drawn {
    int64_t count, each; /* each: points that one stands for */
    const double *x, *y, *low, *high;
    double *room;
} drawn;

static double mean_of(const double *value, int64_t count)
{
    double sum = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(value[i])) continue;
        sum += value[i];
        finite++;
    }
    return finite ? sum / (double)finite : NAN;
}

static double most_of(const double *value, int64_t count, double sign)
{
    double most = NAN;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(value[i]) && !(sign * value[i] <= sign * most)) most = value[i];
    return most;
}

/* Runs of `each` neighbours become their mean, in a band from the least to the most. */
static ek_status thin(const ek_report_series *s, drawn *d)
{
    d->each = (s->count + MOST_POINTS - 1) / MOST_POINTS;
    d->count = (s->count + d->each - 1) / d->each;
    EK_TRY(EK_NEW(d->room, (size_t)(4 * d->count)));
    double *x = d->room, *y = x + d->count, *low = y + d->count, *high = low + d->count;
    const double *least = s->low ? s->low : s->y, *greatest = s->high ? s->high : s->y;
    for (int64_t i = 0; i < d->count; i++) {
        int64_t first = i * d->each, run = first + d->each > s->count ? s->count - first : d->each;
        x[i] = mean_of(s->x + first, run);
        if (s->y) y[i] = mean_of(s->y + first, run);
        low[i] = most_of(least + first, run, -1);
        high[i] = most_of(greatest + first, run, 1);
    }
    d->x = x;
    d->y = s->y ? y : NULL;
    d->low = low;
    d->high = high;
    return EK_OK;
}

static ek_status make_drawn(const ek_report_series *s, drawn *d)
{
    *d = (drawn){.count = s->count, .each = 1, .x = s->x, .y = s->y, .low = s->low, .high = s->high};
    return s->count > MOST_POINTS ? thin(s, d) : EK_OK;
}

/* The series without x has the x of the one before it. */
static void add_series(ek_text *to, const char *name, const drawn *d, const drawn *before)
{
    bool same_x =
        before && before->count == d->count && !memcmp(before->x, d->x, (size_t)d->count * sizeof *d->x);
    ek_text_add(to, "{\"name\":");
    add_string(to, name);
    if (!same_x) add_numbers(to, "x", d->count, d->x);
    if (d->y) add_numbers(to, "y", d->count, d->y);
    if (d->low) add_numbers(to, "low", d->count, d->low);
    if (d->high) add_numbers(to, "high", d->count, d->high);
    ek_text_add(to, "}");
}

static void begin_chart(ek_report *report, const char *kind, const ek_report_chart *chart)
{
    ek_text *to = &report->body;
    set_grid(report, true);
    ek_text_add(to, "<figure class=\"chart\">\n");
    add_caption(to, chart->title);
    ek_text_add(to, "<script type=\"application/json\">{\"kind\":\"%s\",\"logX\":%s,\"logY\":%s,\"x\":", kind,
                chart->log_x ? "true" : "false", chart->log_y ? "true" : "false");
    add_string(to, chart->x_label);
    ek_text_add(to, ",\"y\":");
    add_string(to, chart->y_label);
}

static void end_chart(ek_report *report, const ek_report_chart *chart, int64_t thinned)
{
    ek_text *to = &report->body;
    ek_text_add(to, "}</script>\n");
    if (chart->note || thinned > 1) ek_text_add(to, "<p class=\"note\">");
    add_html(to, chart->note);
    if (thinned > 1)
        ek_text_add(to,
                    "%sA point stands for up to %lld: their mean, and a band from their least to their most.",
                    chart->note ? " " : "", (long long)thinned);
    if (chart->note || thinned > 1) ek_text_add(to, "</p>\n");
    ek_text_add(to, "</figure>\n");
}

static bool check_lines(ek_report *report, const ek_report_chart *chart, int count,
                        const ek_report_series *series)
{
    if (!chart || count < 0 || (count && !series))
        return refuse(report, "a picture lacks its description or its series");
    for (int i = 0; i < count; i++) {
        const ek_report_series *s = &series[i];
        bool band = s->low && s->high;
        if (s->count < 0 || (s->count && (!s->x || (!s->y && !band))) || !s->low != !s->high)
            return refuse(report, "a series of a picture needs x and y, or x, low and high");
    }
    return true;
}

void ek_report_lines(ek_report *report, const ek_report_chart *chart, int count,
                     const ek_report_series *series)
{
    if (!check_lines(report, chart, count, series)) return;
    drawn *all;
    int64_t each = 1;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(all, (size_t)count));
    for (int i = 0; i < count; i++) {
        EK_GO(make_drawn(&series[i], &all[i]));
        if (all[i].each > each) each = all[i].each;
    }
    begin_chart(report, "lines", chart);
    ek_text_add(&report->body, ",\"series\":[");
    for (int i = 0; i < count; i++) {
        if (i) ek_text_add(&report->body, ",");
        add_series(&report->body, series[i].name, &all[i], i ? &all[i - 1] : NULL);
    }
    ek_text_add(&report->body, "]");
    end_chart(report, chart, each);
done:
    for (int i = 0; all && i < count; i++) ek_free(all[i].room);
    ek_free(all);
    ek_report_keep(report, status);
}

void ek_report_bars(ek_report *report, const ek_report_chart *chart, int count, const char *const *labels,
                    const double *values)
{
    if (!chart || count < 0 || (count && (!labels || !values))) {
        refuse(report, "a picture with bars lacks its description, labels or values");
        return;
    }
    begin_chart(report, "bars", chart);
    ek_text_add(&report->body, ",\"labels\":[");
    for (int i = 0; i < count; i++) {
        if (i) ek_text_add(&report->body, ",");
        add_string(&report->body, labels[i]);
    }
    ek_text_add(&report->body, "]");
    add_numbers(&report->body, "values", count, values);
    end_chart(report, chart, 1);
}

/* --- the page */

static void add_lines(ek_text *to, const char *const *line)
{
    for (; *line; line++) ek_text_add(to, "%s", *line);
}

static ek_status add_text(ek_text *to, const ek_text *from)
{
    EK_TRY(ek_text_status(from));
    if (from->length) ek_text_add(to, "%s", from->data);
    return EK_OK;
}

/* The policy forbids all that the page could load: it must live by itself. */
static void begin_page(const ek_report *report, ek_text *page)
{
    ek_text_add(page,
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta name=\"color-scheme\" content=\"light dark\">\n"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
                "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
                "<link rel=\"icon\" href=\"data:,\">\n<title>");
    add_html(page, report->title);
    ek_text_add(page, "</title>\n<style>\n");
    add_lines(page, ek_page_css);
    ek_text_add(page, "</style>\n</head>\n<body>\n<main>\n<h1>");
    add_html(page, report->title);
    ek_text_add(
        page, "</h1>\n<noscript><p class=\"note\">The pictures are drawn by a script in this page, which is "
              "switched off; texts and tables are all here.</p></noscript>\n");
}

static ek_status make_page(const ek_report *report, ek_text *page)
{
    enum { CONTENTS_FROM = 4 };
    begin_page(report, page);
    if (report->headings >= CONTENTS_FROM) {
        ek_text_add(page, "<nav aria-label=\"Contents\"><ul>\n");
        EK_TRY(add_text(page, &report->contents));
        ek_text_add(page, "</ul></nav>\n");
    }
    EK_TRY(add_text(page, &report->body));
    ek_text_add(page, "%s<footer>Written by Evenkeel %s.</footer>\n</main>\n<script>\n",
                report->grid ? "</div>\n" : "", ek_version());
    add_lines(page, ek_page_js);
    ek_text_add(page, "</script>\n</body>\n</html>\n");
    return ek_text_status(page);
}

ek_status ek_report_write(ek_report *report, const char *path)
{
    if (!report || !path) return ek_fail(EK_E_ARGUMENT, "ek_report_write needs a report and a path");
    if (report->status != EK_OK)
        return ek_fail(report->status, "%s", report->error ? report->error : "out of memory for a report");
    ek_text page = {0};
    ek_replacement file = {0};
    ek_status status = EK_OK;
    EK_GO(make_page(report, &page));
    EK_GO(ek_replace_begin(&file, path));
    EK_GO(ek_replace_write(&file, page.data, page.length));
    EK_GO(ek_replace_finish(&file));
done:
    ek_replace_cancel(&file);
    ek_text_free(&page);
    return status;
}
