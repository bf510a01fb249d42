#include "progress.h"

#include "common.h"
#include "output.h"
#include "stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double bar_every = 0.1, line_every = 10; /* seconds */

void cli_progress_begin(cli_progress *progress, bool quiet, const ek_event *start, const cli_curve *curve)
{
    const char *terminal = getenv("TERM");
    bool can_redraw = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    double now = cli_now();
    *progress = (cli_progress){.quiet = quiet, .bar = can_redraw, .began = now, .drawn = now, .loss = NAN, .curve = curve};
    if (start) progress->first_step = start->step;
}

void cli_progress_next(cli_progress *progress)
{
    progress->first_step = 0;
    progress->loss = NAN;
}

/* Whether it is time to draw again. */
static bool is_due(cli_progress *progress)
{
    double now = cli_now();
    if (progress->quiet || now - progress->drawn < (progress->bar ? bar_every : line_every)) return false;
    progress->drawn = now;
    return true;
}

void cli_progress_clear(cli_progress *progress)
{
    if (!progress->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->shown = false;
}

static int terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

enum { MAX_WORDS = 160 };

/* "BEFORE[=======>      ]AFTER |█▅▃▂▁▁   |  0:12 left"; the bar takes what room there is, and the curve (NULL: none) is
 * left out where it would leave too little. before and after: at most MAX_WORDS. */
static void draw_line(const char *before, double share, const char *after, const cli_curve *curve, const char *left)
{
    enum { MAX_BAR = 40, SHORT_BAR = 10, CURVE = CLI_PICTURE_COLUMNS + 3 };
    char picture[CLI_PICTURE_BYTES + 1] = "";
    int width = terminal_width() - 1;
    int room = width - (int)(strlen(before) + strlen(after) + strlen(left)) - 2 - 7;
    if (curve && room >= CURVE + SHORT_BAR) {
        picture[0] = ' ';
        cli_curve_text(picture + 1, curve);
        room -= CURVE;
    }
    int bar = room > MAX_BAR ? MAX_BAR : room;
    char line[2 * MAX_WORDS + MAX_BAR + CLI_PICTURE_BYTES + 64];
    if (bar < 5) {
        snprintf(line, sizeof line, "%s%s  %s left", before, after + 1, left);
        line[width < (int)sizeof line ? width : (int)sizeof line - 1] = '\0';
    } else {
        char cells[MAX_BAR + 1];
        int full = (int)(share * bar);
        for (int i = 0; i < bar; i++) cells[i] = i < full ? '=' : i == full ? '>' : ' ';
        cells[bar] = '\0';
        snprintf(line, sizeof line, "%s[%s]%s%s  %s left", before, cells, after, picture, left);
    }
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
}

/* "epoch 2/10"; of several runs "run 3/15 norm=layer, epoch 2/10". */
static void name_epoch(const cli_progress *progress, const ek_event *step, int most, char text[MAX_WORDS])
{
    snprintf(text, MAX_WORDS, "%.*s%sepoch %lld/%lld", most, progress->name ? progress->name : "", progress->name ? ", " : "",
             (long long)step->epoch, (long long)step->epochs);
}

/* "epoch 2/10 [=======>      ]  47%  loss 0.4123 |█▅▃▂▁▁   |  0:12 left" */
static void draw_bar(const cli_progress *progress, const ek_event *step, const char *left)
{
    enum { MOST_NAME = 48 };
    char before[MAX_WORDS], after[MAX_WORDS];
    double share = (double)step->step / (double)step->steps;
    if (progress->name) share = (progress->run + share) / progress->runs;
    name_epoch(progress, step, MOST_NAME, before);
    strcat(before, " ");
    snprintf(after, sizeof after, " %3.0f%%  loss %.4f", 100 * share, progress->loss);
    draw_line(before, share, after, progress->curve, left);
}

void cli_progress_step(cli_progress *progress, const ek_event *step)
{
    if (isfinite(step->loss))
        progress->loss = isnan(progress->loss) ? step->loss : 0.95 * progress->loss + 0.05 * step->loss;
    if (!is_due(progress)) return;

    int64_t done = step->step - progress->first_step;
    double each = done > 0 ? step->seconds / (double)done : 0, whole = each * (double)step->steps;
    char left[CLI_TEXT_SIZE], epoch[MAX_WORDS];
    cli_duration(left, each * (double)(step->steps - step->step) + progress->later_seconds + progress->later_runs * whole);
    if (progress->bar) {
        draw_bar(progress, step, left);
        progress->shown = true;
    } else {
        name_epoch(progress, step, MAX_WORDS / 2, epoch);
        fprintf(stderr, "%s, step %lld of %lld, loss %.4f, %s left\n", epoch, (long long)step->step, (long long)step->steps,
                progress->loss, left);
    }
}

bool cli_progress_work(void *user, double share)
{
    cli_progress *progress = user;
    if (!is_due(progress)) return !cli_stop_requested();
    double seconds = cli_now() - progress->began;
    char left[CLI_TEXT_SIZE], after[MAX_WORDS];
    cli_duration(left, share > 0 ? seconds / share - seconds : 0);
    snprintf(after, sizeof after, " %3.0f%%", 100 * share);
    if (progress->bar) {
        draw_line("measuring ", share, after, NULL, left);
        progress->shown = true;
    } else {
        fprintf(stderr, "measuring: %.0f%%, %s left\n", 100 * share, left);
    }
    return !cli_stop_requested();
}
