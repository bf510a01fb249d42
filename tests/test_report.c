/* Report pages: what is added stands in them, escaped; pictures' data is JSON; nothing is lost on failure. */
#include "testing.h"

#include "scratch.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

/* The file at `path`, ended by a zero; the caller frees it. */
static char *slurp(void)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, size, file), size);
    text[size] = '\0';
    fclose(file);
    return text;
}

/* The data of the index-th picture. */
static json_t *picture(const char *page, int index)
{
    static const char begin[] = "<script type=\"application/json\">";
    for (int i = 0; i <= index; i++) {
        page = strstr(page, begin);
        assert_non_null(page);
        page += strlen(begin);
    }
    json_error_t error;
    json_t *data =
        json_loadb(page, (size_t)(strstr(page, "</script>") - page), JSON_REJECT_DUPLICATES, &error);
    if (!data) fail_msg("picture %d is no JSON: %s", index, error.text);
    return data;
}

static const double x[] = {1, 2, 3, 4}, y[] = {0.5, NAN, 1e-7, -INFINITY}, low[] = {0, 1, 2, 3},
                    high[] = {4, 5, 6, 7};
#define HOSTILE "<b>&\"'</script><!--\\\n\xe2\x80\xa8\xff\x01 \xc3\xa9"

/* All kinds of parts; tests/commands/browser.sh takes this page into a browser. */
static void fill(ek_report *report)
{
    const char *header[] = {"run", "accuracy", HOSTILE};
    const char *cells[] = {"a, \"quoted\"", "0.5 \xc2\xb1 0.1", "x", "b", "-", NULL};
    const char *labels[] = {"first", HOSTILE, "third"};
    const double values[] = {0.25, NAN, -3};
    const ek_report_series series[] = {{"line", 4, x, y, NULL, NULL},
                                       {"band", 4, x, NULL, low, high},
                                       {HOSTILE, 4, x, high, NULL, NULL},
                                       {"elsewhere", 2, high, low, NULL, NULL}};
    ek_report_heading(report, "Part " HOSTILE);
    ek_report_text(report, "A paragraph " HOSTILE);
    ek_report_table(report, "Table " HOSTILE, 3, header, 2, cells);
    ek_report_lines(
        report,
        &(ek_report_chart){.title = "Lines " HOSTILE, .x_label = "step", .y_label = "loss", .note = HOSTILE},
        4, series);
    ek_report_lines(
        report, &(ek_report_chart){.title = "Logarithmic", .x_label = "step", .log_x = true, .log_y = true},
        3, series);
    ek_report_bars(report, &(ek_report_chart){.title = "Bars", .x_label = "layer", .y_label = "gap"}, 3,
                   labels, values);
    ek_report_lines(report, &(ek_report_chart){.title = "Empty"}, 0, NULL);
    ek_report_bars(report, &(ek_report_chart){.title = "No bars"}, 0, NULL, NULL);
    for (int i = 0; i < 3; i++) ek_report_heading(report, "Another part");
}

static void whole_page(void **state)
{
    (void)state;
    ek_report *report;
    assert_ok(ek_report_create("Title " HOSTILE, &report));
    fill(report);
    assert_ok(ek_report_write(report, path));
    ek_report_destroy(report);
    const char *
        kept = getenv("EVENKEEL_TEST_PAGE"),
       *escaped =
           "&lt;b&gt;&amp;&quot;&#39;&lt;/script&gt;&lt;!--\\\n\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9";
    char *page = slurp();
    if (kept) {
        FILE *copy = fopen(kept, "wb");
        assert_non_null(copy);
        fputs(page, copy);
        assert_int_equal(fclose(copy), 0);
    }
    assert_null(strstr(page, "<b>"));
    assert_null(strstr(page, "\xff"));
    assert_null(strstr(page, "\xe2\x80\xa8"));
    assert_null(
        strstr(page, "http://www.w3.org/1999")); /* nothing is fetched: the one address is a name space */
    for (const char *before[] = {"<title>Title ", "<h1>Title ", "</a></li>\n", "\">Part ", "<p>A paragraph ",
                                 "\"title\">Table ", "\"title\">Lines ", "<th>", NULL},
                    **at = before;
         *at; at++) {
        const char *part = strstr(page, *at);
        if (!part) fail_msg("there is no %s", *at);
    }
    int count = 0;
    for (const char *at = page; (at = strstr(at, escaped)); at++) count++;
    assert_int_equal(count, 9);
    assert_non_null(strstr(page, "<td class=\"number\">0.5 \xc2\xb1 0.1</td>"));
    assert_non_null(strstr(page, "<td>a, &quot;quoted&quot;</td>"));
    assert_non_null(strstr(page, "<nav"));

    json_t *lines = picture(page, 0), *series = json_object_get(lines, "series"),
           *line = json_array_get(series, 0);
    assert_int_equal(json_array_size(series), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(series, 2), "name")),
                        "<b>&\"'</script><!--\\\n\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9");
    assert_true(json_number_value(json_array_get(json_object_get(line, "y"), 0)) == 0.5);
    assert_true(json_is_null(json_array_get(json_object_get(line, "y"), 1)));
    assert_true(json_number_value(json_array_get(json_object_get(line, "y"), 2)) == 1e-7);
    assert_true(json_is_null(json_array_get(json_object_get(line, "y"), 3)));
    assert_null(json_object_get(json_array_get(series, 1), "x")); /* that of the series before */
    assert_null(json_object_get(json_array_get(series, 1), "y"));
    assert_non_null(json_object_get(json_array_get(series, 3), "x"));
    json_decref(lines);
    json_t *bars = picture(page, 2);
    assert_string_equal(json_string_value(json_object_get(bars, "kind")), "bars");
    assert_true(json_is_null(json_array_get(json_object_get(bars, "values"), 1)));
    json_decref(bars);
    json_decref(picture(page, 3));
    json_decref(picture(page, 4));
    free(page);
}

/* A hundred thousand points fit into some tens of kilobytes, and no outlier is lost. */
static void thinning(void **state)
{
    (void)state;
    enum { MANY = 100000, SPIKE = 54321, GAP = 70000 };
    double *steps = calloc(MANY, sizeof *steps), *loss = calloc(MANY, sizeof *loss);
    assert_true(steps && loss);
    for (int i = 0; i < MANY; i++) {
        steps[i] = i + 1;
        loss[i] = i == SPIKE ? 100 : i >= GAP && i < GAP + 1000 ? NAN : i % 2;
    }
    ek_report *report;
    assert_ok(ek_report_create("many", &report));
    ek_report_lines(report, &(ek_report_chart){.title = "Loss"}, 1,
                    &(ek_report_series){"loss", MANY, steps, loss, NULL, NULL});
    assert_ok(ek_report_write(report, path));
    ek_report_destroy(report);
    char *page = slurp();
    assert_true(strlen(page) < 100000);
    json_t *data = picture(page, 0), *series = json_array_get(json_object_get(data, "series"), 0);
    json_t *mean = json_object_get(series, "y"), *most = json_object_get(series, "high"),
           *least = json_object_get(series, "low");
    assert_int_equal(json_array_size(mean), 1000);
    assert_true(json_number_value(json_array_get(json_object_get(series, "x"), 0)) == 50.5);
    assert_true(json_number_value(json_array_get(mean, 0)) == 0.5);
    assert_true(json_number_value(json_array_get(least, 0)) == 0 &&
                json_number_value(json_array_get(most, 0)) == 1);
    assert_true(json_number_value(json_array_get(most, SPIKE / 100)) == 100);
    assert_true(json_is_null(json_array_get(mean, GAP / 100)) &&
                json_is_null(json_array_get(most, GAP / 100)));
    assert_non_null(strstr(page, "A point stands for up to 100"));
    json_decref(data);
    free(page);
    free(steps);
    free(loss);
}

/* The first mistake comes out at the end, and the file stays. */
static void failures(void **state)
{
    (void)state;
    const char *header[] = {"a"};
    static const struct {
        int which;
        const char *words;
    } wrong[] = {{0, "needs x and y"},       {1, "needs x and y"},   {2, "lacks its header or its cells"},
                 {3, "at least one column"}, {4, "with bars lacks"}, {5, "lacks its description"}};
    FILE *file = fopen(path, "w");
    fputs("before", file);
    fclose(file);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ek_report *report;
        ek_report_chart chart = {.title = "t"};
        assert_ok(ek_report_create("wrong", &report));
        switch (wrong[i].which) {
        case 0: ek_report_lines(report, &chart, 1, &(ek_report_series){"s", 4, x, NULL, NULL, NULL}); break;
        case 1: ek_report_lines(report, &chart, 1, &(ek_report_series){"s", 4, x, y, low, NULL}); break;
        case 2: ek_report_table(report, "t", 1, header, 1, NULL); break;
        case 3: ek_report_table(report, "t", 0, header, 1, header); break;
        case 4: ek_report_bars(report, &chart, 1, header, NULL); break;
        default: ek_report_lines(report, NULL, 0, NULL); break;
        }
        ek_report_table(report, "t", -1, header, 1, header);
        assert_fails(EK_E_ARGUMENT, wrong[i].words, ek_report_write(report, path));
        ek_report_destroy(report);
    }
    char *page = slurp();
    assert_string_equal(page, "before");
    free(page);
    ek_report *report;
    assert_ok(ek_report_create("nowhere", &report));
    assert_fails(EK_E_NOT_FOUND, "cannot write /nowhere/at/all.html",
                 ek_report_write(report, "/nowhere/at/all.html"));
    ek_report_destroy(report);
    assert_fails(EK_E_ARGUMENT, "needs a title", ek_report_create(NULL, &report));
}

static void want_of_memory(void **state)
{
    (void)state;
    for (failing f = {0}; fail_next(&f);) {
        ek_report *report = NULL;
        f.status = ek_report_create("title", &report);
        if (f.status != EK_OK) continue;
        fill(report);
        f.status = ek_report_write(report, path);
        ek_report_destroy(report);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_page),
        cmocka_unit_test(thinning),
        cmocka_unit_test(failures),
        cmocka_unit_test(want_of_memory),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
