/* The lane kernels, compiled once for each instruction set (EK_KERNELS_ISA) into one table. */
#include "kernels/lane_tables.h"

#include "kernels/lane_vector.h"

#include "kernels/lane_norm.h"
#include "kernels/lane_activation.h"
#include "kernels/lane_io.h"
#include "kernels/lane_sample_norm.h"
#include "kernels/lane_sequence.h"
#include "kernels/lane_conv.h"
#include "kernels/lane_linear.h"
#include "kernels/lane_pool.h"
#include "kernels/lane_layout.h"
#include "kernels/lane_loss.h"
#include "kernels/lane_optimizer.h"

#define JOIN(a, b) a##b
#define TABLE(isa) JOIN(ek_kernels_, isa)
#define TEXT(x) #x
#define NAME(isa) TEXT(isa)

/* Tables for few samples serve inference alone; what they lack is not compiled into them. */
#define WHOLE(kernel) (LANES == EK_LANES ? (kernel) : NULL)

const ek_kernels TABLE(EK_KERNELS_ISA) = {
    .name = NAME(EK_KERNELS_ISA),
    .lanes = LANES,
    .conv_pack_forward = conv_pack_forward,
    .conv_forward = conv_forward,
    .conv_pack_backward = WHOLE(conv_pack_backward),
    .conv_backward = WHOLE(conv_backward),
    .linear_forward = linear_forward,
    .linear_backward_data = WHOLE(linear_backward_data),
    .linear_backward_weights = WHOLE(linear_backward_weights),
    .avgpool_forward = avgpool_forward,
    .avgpool_backward = WHOLE(avgpool_backward),
    .maxpool_forward = maxpool_forward,
    .maxpool_backward = WHOLE(maxpool_backward),
    .map_read = map_read,
    .grad_read = WHOLE(grad_read),
    .grad_write = WHOLE(grad_write),
    .moments = moments,
    .map_add = map_add,
    .sequence_cut = sequence_cut,
    .add = add,
    .runs_moments = WHOLE(runs_moments),
    .runs_apply = WHOLE(runs_apply),
    .runs_backward_sums = WHOLE(runs_backward_sums),
    .runs_backward_apply = WHOLE(runs_backward_apply),
    .columns_moments = WHOLE(columns_moments),
    .columns_apply = WHOLE(columns_apply),
    .columns_backward_sums = WHOLE(columns_backward_sums),
    .columns_backward_apply = WHOLE(columns_backward_apply),
    .sample_moments = sample_moments,
    .sample_apply = sample_apply,
    .sample_backward_sums = WHOLE(sample_backward_sums),
    .sample_backward_apply = WHOLE(sample_backward_apply),
    .lanes_to_rows = lanes_to_rows,
    .rows_to_lanes = rows_to_lanes,
    .cross_entropy = WHOLE(cross_entropy),
    .softmax = softmax,
    .softmax_backward = WHOLE(softmax_backward),
    .sgd = WHOLE(sgd),
    .adam = WHOLE(adam),
    .sum_squares = WHOLE(sum_squares),
    .all_finite = WHOLE(all_finite),
};
