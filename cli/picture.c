#include "picture.h"

#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LEVELS = 8 };

/* By the locale of the environment, which is asked for without becoming the program's. */
static bool has_utf8(void)
{
    static int known = -1;
    if (known >= 0) return known;
    locale_t locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
    known = locale && strcmp(nl_langinfo_l(CODESET, locale), "UTF-8") == 0;
    if (locale) freelocale(locale);
    return known;
}

/* level 0 is blank, 1 to LEVELS ever higher. */
static char *bars(char text[CLI_PICTURE_BYTES], const int level[CLI_PICTURE_COLUMNS])
{
    static const char *const block[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, *const plain[] = {
                                                                                          " ", ".", ":",
                                                                                          "-", "=", "+",
                                                                                          "*", "#", "@"};
    const char *const *mark = has_utf8() ? block : plain;
    char *end = text;
    *end++ = '|';
    for (int i = 0; i < CLI_PICTURE_COLUMNS; i++) end = stpcpy(end, mark[level[i]]);
    strcpy(end, "|");
    return text;
}

char *cli_histogram(char text[CLI_PICTURE_BYTES], const float *value, int64_t count)
{
    /* Few values fall into few, broad classes. */
    const int classes = count < 40    ? CLI_PICTURE_COLUMNS / 3
                        : count < 160 ? CLI_PICTURE_COLUMNS / 2
                                      : CLI_PICTURE_COLUMNS;
    int64_t in_class[CLI_PICTURE_COLUMNS] = {0}, most = 1;
    int level[CLI_PICTURE_COLUMNS];
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(value[i])) continue;
        if (value[i] < low) low = value[i];
        if (value[i] > high) high = value[i];
    }
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(value[i])) continue;
        /* Where all are equal, they stand in the middle. */
        double share = high > low ? (value[i] - low) / (high - low) : 0.5;
        int at = (int)(share * classes);
        at = at < classes ? at : classes - 1;
        if (++in_class[at] > most) most = in_class[at];
    }
    for (int i = 0; i < CLI_PICTURE_COLUMNS; i++)
        level[i] = (int)ceil((double)in_class[i * classes / CLI_PICTURE_COLUMNS] * LEVELS / (double)most);
    return bars(text, level);
}

void cli_curve_begin(cli_curve *curve, int64_t first, int64_t steps)
{
    *curve = (cli_curve){.first = first, .steps = steps};
}

void cli_curve_add(cli_curve *curve, int64_t step, double value)
{
    int64_t run = curve->steps - curve->first, done = step - curve->first - 1;
    if (run < 1 || done < 0 || done >= run || !isfinite(value)) return;
    int64_t part = (int64_t)((double)done / (double)run * CLI_PICTURE_COLUMNS);
    curve->count[part]++;
    curve->mean[part] += (value - curve->mean[part]) / (double)curve->count[part];
}

char *cli_curve_text(char text[CLI_PICTURE_BYTES], const cli_curve *curve)
{
    int level[CLI_PICTURE_COLUMNS];
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < CLI_PICTURE_COLUMNS; i++) {
        if (curve->count[i] && curve->mean[i] < low) low = curve->mean[i];
        if (curve->count[i] && curve->mean[i] > high) high = curve->mean[i];
    }
    for (int i = 0; i < CLI_PICTURE_COLUMNS; i++) {
        double share = high > low ? (curve->mean[i] - low) / (high - low) : 0;
        level[i] = curve->count[i] ? 1 + (int)lround(share * (LEVELS - 1)) : 0;
    }
    return bars(text, level);
}

double cli_curve_first(const cli_curve *curve)
{
    for (int i = 0; i < CLI_PICTURE_COLUMNS; i++)
        if (curve->count[i]) return curve->mean[i];
    return NAN;
}

double cli_curve_last(const cli_curve *curve)
{
    for (int i = CLI_PICTURE_COLUMNS; i-- > 0;)
        if (curve->count[i]) return curve->mean[i];
    return NAN;
}
