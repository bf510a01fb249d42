/* Convolution along one axis, for the forward pass and the gradient of its input alike:
 *
 *   position of the source element that output o reads at tap k = (o*stride + k*dilation - offset) / unstride
 *
 * where it divides and falls into [0, in); nothing elsewhere. Forward: unstride 1, offset the padding.
 * Input gradient: the source is dy, stride 1, unstride the forward stride, offset dilation*(taps-1) -
 * padding, and the taps in reverse order. */
#ifndef EK_KERNELS_CONV_AXIS_H
#define EK_KERNELS_CONV_AXIS_H

#include <stdint.h>

typedef struct conv_axis {
    int out, in, taps, stride, dilation, offset, unstride;
} conv_axis;

static inline conv_axis conv_forward_axis(int out, int in, int taps, int stride, int dilation, int padding)
{
    return (conv_axis){out, in, taps, stride, dilation, padding, 1};
}

static inline conv_axis conv_backward_axis(int out, int in, int taps, int stride, int dilation, int padding)
{
    return (conv_axis){in, out, taps, 1, dilation, dilation * (taps - 1) - padding, stride};
}

/* Zeros that put every position into [-before, in + after). */
typedef struct conv_border {
    int before, after;
} conv_border;

static inline conv_border conv_axis_border(const conv_axis *a)
{
    int before = a->offset / a->unstride;
    int last = ((a->out - 1) * a->stride + (a->taps - 1) * a->dilation - a->offset) / a->unstride;
    int after = last - (a->in - 1);
    return (conv_border){before > 0 ? before : 0, after > 0 ? after : 0};
}

#endif
