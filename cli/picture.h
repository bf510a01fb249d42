/* Small pictures in text: a row of bars, one a character, of block elements where the terminal's texts are UTF-8 and of
 * plain characters elsewhere. */
#ifndef CLI_PICTURE_H
#define CLI_PICTURE_H

#include <stdint.h>

/* Columns, and bytes with the bars on both sides and the ending zero. */
enum { CLI_PICTURE_COLUMNS = 24, CLI_PICTURE_BYTES = 3 * CLI_PICTURE_COLUMNS + 3 };

/* "|  ▂▅█▃▁ |": how values are distributed from the least to the most. Those that are not finite are left out. */
char *cli_histogram(char text[CLI_PICTURE_BYTES], const float *value, int64_t count);

/* A measure over the steps of a run, in CLI_PICTURE_COLUMNS equal parts. */
typedef struct cli_curve {
    int64_t first, steps; /* done before; in all */
    double mean[CLI_PICTURE_COLUMNS];
    int64_t count[CLI_PICTURE_COLUMNS];
} cli_curve;

void cli_curve_begin(cli_curve *curve, int64_t first, int64_t steps);
void cli_curve_add(cli_curve *curve, int64_t step, double value);
/* Bars from the least mean of a part to the greatest; a part with none is blank. */
char *cli_curve_text(char text[CLI_PICTURE_BYTES], const cli_curve *curve);
/* The mean of the first part that has one, and of the last; NaN: none has. */
double cli_curve_first(const cli_curve *curve);
double cli_curve_last(const cli_curve *curve);

#endif
