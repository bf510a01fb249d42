/* add, sub, mul, div of two values whose dimensions are equal, or 1 in one of them, which then stands for all of the
 * other's. These passes read bare arrays and write plainly; an add of equal shapes has faster ones (add.c). */
#ifndef EK_OPS_ARITHMETIC_H
#define EK_OPS_ARITHMETIC_H

#include "ops/op.h"

ek_status ek_arithmetic_shape(ek_node *node);
size_t ek_arithmetic_scratch(const ek_node *node, int64_t samples);
void ek_arithmetic_forward(const ek_pass *pass, ek_node *node, const ek_flow *flow);
void ek_arithmetic_backward(const ek_pass *pass, ek_node *node, const ek_flow *flow);
void ek_arithmetic_reference_forward(const ek_ref *ref, const ek_node *node, const double *const x[], double *y);
void ek_arithmetic_reference_backward(const ek_ref *ref, const ek_node *node, const double *const x[], const double *y,
                                      const double *dy, double *const dx[]);

#endif
