#ifndef EK_CCODE_SOURCE_H
#define EK_CCODE_SOURCE_H

#include "ccode/ccode.h"

typedef struct ek_cc_source {
    const ek_net *net;       /* as it was given */
    const ek_cc_writer *writer; /* all layers are written */
    const char *header_name; /* "net.h" */
} ek_cc_source;

void ek_cc_write_header(const ek_cc_source *source, ek_text *out);
void ek_cc_write_source(const ek_cc_source *source, ek_text *out);

/* The inputs of the self-test: sample `index`, which the generated program makes the same. Even numbers in [-2, 2), in units of a
 * channel's std about its mean; of an int8 net the centres of its steps, so that rounding decides nothing. */
typedef struct ek_cc_samples {
    ek_pixels pixels;
    int64_t count;     /* numbers of one */
    double step;       /* int8: of the quantized input; 0: floats */
    int zero;          /* its zero point */
} ek_cc_samples;
void ek_cc_sample(const ek_cc_samples *samples, int index, float *x);

enum { EK_CC_TESTS = 4, EK_CC_TEST_OUTPUTS = 256 };
/* want [EK_CC_TESTS][outputs]: what the net gives; tolerance: by how much another compiler's may differ. */
void ek_cc_write_test(const ek_cc_source *source, const ek_cc_samples *samples, const float *want, float tolerance, ek_text *out);

#endif
