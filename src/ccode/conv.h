#ifndef EK_CCODE_CONV_H
#define EK_CCODE_CONV_H

#include "ccode/ccode.h"

/* Writes a convolution's function, arrays and call. bias NULL: none. */
void ek_cc_emit_conv(ek_cc_writer *w, const ek_node *node, const float *weight, const float *bias);
/* Words beside its values: the rows of inputs that a row of outputs takes, with zeros around. */
size_t ek_cc_conv_scratch(const ek_cc_window *g);

#endif
