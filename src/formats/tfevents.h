/* Event files as TensorBoard reads them: a TFRecord for each event, the event in protocol buffers. Numbers of fields are
 * those of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto. */
#ifndef EK_FORMATS_TFEVENTS_H
#define EK_FORMATS_TFEVENTS_H

#include "core/status.h"

/* How values are distributed: bucket i counts those above limit[i-1] and up to limit[i]. */
enum { EK_HISTOGRAM_BUCKETS = 48 };
typedef struct ek_histogram {
    double min, max, count, sum, squares;
    double limit[EK_HISTOGRAM_BUCKETS], bucket[EK_HISTOGRAM_BUCKETS];
} ek_histogram;

/* Of n sorted finite values: buckets of equal width from the least to the most. */
void ek_histogram_fill(ek_histogram *histogram, const float *sorted, int64_t n);

typedef struct ek_tfevents ek_tfevents;

/* A new file events.out.tfevents.SECONDS.HOST.PID.NUMBER in `folder`, which is made where there is none.
 * EK_E_IO  it cannot be made */
ek_status ek_tfevents_create(const char *folder, ek_tfevents **out);
const char *ek_tfevents_path(const ek_tfevents *events);
/* Flushes and closes; with `remove` takes the file away. */
ek_status ek_tfevents_close(ek_tfevents *events, bool remove);

/* Errors stick, and come at flush. A value that is not finite is left out. */
void ek_tfevents_scalar(ek_tfevents *events, int64_t step, const char *tag, double value);
void ek_tfevents_histogram(ek_tfevents *events, int64_t step, const char *tag, const ek_histogram *histogram);
ek_status ek_tfevents_flush(ek_tfevents *events);

/* CRC-32C (Castagnoli), as TFRecords mask it. */
uint32_t ek_crc32c_masked(const void *data, size_t size);

#endif
