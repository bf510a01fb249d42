/* A run's measures as a text file for Prometheus, which is replaced as it goes on. */
#ifndef CLI_TRAIN_METRICS_H
#define CLI_TRAIN_METRICS_H

#include "evenkeel.h"

#include <stdbool.h>

typedef struct cli_metrics {
    const char *path; /* NULL: none are asked for */
    char *labels;     /* run="...", on every series */
    char *about;      /* further labels of evenkeel_run_info */
    const ek_context *context;
    double began, written;    /* written: by cli_now, when last */
    double checkpointed;      /* seconds since 1970; 0: not yet */
    int64_t steps, samples;   /* of this process */
    double phase_seconds[EK_PHASES];
    int64_t recent_samples; /* since last written */
    double recent_seconds, images_per_second;
    ek_event start, step, epoch; /* the last of each */
    bool training;
    bool failed; /* it could not be written, which was said */
} cli_metrics;

/* net and data: as given, for labels. path NULL: none are asked for. */
void cli_metrics_open(cli_metrics *metrics, const char *path, const ek_context *context, const char *net, const char *data);
/* Writes at the start, after each epoch, and else once a second at most. The first failure is said, training goes on, and the
 * next time it is tried again. */
void cli_metrics_event(cli_metrics *metrics, const ek_event *event);
/* The run is over, however it ended. */
void cli_metrics_close(cli_metrics *metrics);

#endif
