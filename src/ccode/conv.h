#ifndef EK_CCODE_CONV_H
#define EK_CCODE_CONV_H

#include "ccode/ccode.h"

/* Writes a convolution's function, arrays and call. bias NULL: none. */
void ek_cc_emit_conv(ek_cc_writer *w, const ek_node *node, const float *weight, const float *bias);
/* Words beside its values: the rows of inputs that a row of outputs takes, with zeros around. */
size_t ek_cc_conv_scratch(const ek_cc_window *g, bool int8);
/* Of eight bits: the words of its sums, behind which stand the rows of inputs. */
size_t ek_cc_conv_sums(const ek_cc_window *g);
/* The same of eight bits, whose arrays stand there; and the sums. limits: those of the output, as C. */
void ek_cc_emit_int8_conv(ek_cc_writer *w, const ek_node *node, const ek_cc_window *g, int zero_of_x, const char *limits);

#endif
