/* A network: graph, parameters and the plan it runs by. */
#ifndef EK_GRAPH_NET_H
#define EK_GRAPH_NET_H

#include "core/clock.h"
#include "graph/graph.h"

typedef struct ek_plan ek_plan;

struct ek_net {
    ek_context *context;
    ek_graph graph;
    ek_plan *plan; /* made when first run, remade when a larger batch comes */
    bool lengths;  /* batches are sequences of unequal lengths, and the plan is for them */
    bool keeps;    /* every layer runs a pass of its own, whose output stays until the next forward pass */
    bool shared;   /* its batchnorms may be those of several shards */
    char **class_name;
    int class_count;
    char **options_text; /* by layer, for ek_net_layer */
    struct ek_metadata { /* further metadata of the model file it came from, kept */
        char *key, *value;
    } * metadata;
    int metadata_count;
    /* Called in the backward pass when the gradients of all layers from `layer` on are there; NULL: nobody asks. */
    void (*on_gradients)(void *user, int layer);
    void *on_gradients_user;
    char **note; /* what its import has to say */
    int note_count;
    ek_layer_time *times; /* NULL: nobody asks */
    double lap;           /* when the layer under way began, by ek_now */
};

/* The clock of ek_net_time_layers: started as a pass begins, and read as each layer's part of it ends. */
static inline void ek_net_clock_start(ek_net *net)
{
    if (net->times) net->lap = ek_now();
}

static inline void ek_net_clock_lap(ek_net *net, int layer, bool backward)
{
    if (!net->times) return;
    double now = ek_now();
    *(backward ? &net->times[layer].backward : &net->times[layer].forward) += now - net->lap;
    net->lap = now;
}

/* Whether every layer can take a batch of n; of sequences with lengths, one whose samples are all that short (0: without). */
ek_status ek_net_check(const ek_net *net, int64_t n, int32_t length, ek_mode mode);

/* Whether all parameters are finite, as those of a model that is saved must be.
 * EK_E_NUMERIC  the message names the one that is not */
ek_status ek_net_check_finite(const ek_net *net);

/* The running of one batch, for the trainer, evaluation and ek_net_forward. */

/* Room for `samples`; backward too where `training`. */
ek_status ek_net_prepare(ek_net *net, int64_t samples, bool training);
/* Whether the batches to come have lengths: of each sample's sequence [c, l] only the first so many positions are alive
 * (graph/lengths.h). Called before ek_net_prepare, or after: what was prepared is prepared again, and the input to be
 * written anew.
 * EK_E_SHAPE  the net's input is no sequence, or a layer moves its positions */
ek_status ek_net_use_lengths(ek_net *net, bool on);
/* Where the batch maker writes the lengths, 1 to l; NULL: they are not in use. */
int32_t *ek_net_lengths(ek_net *net);
/* `lengths` [n] (NULL: fine) fit the net: its input is a sequence, and each is 1 to l. */
ek_status ek_net_check_lengths(const ek_net *net, int64_t n, const int32_t *lengths);
/* How many positions of the output of `layer` are alive in the last forward pass, by sample; NULL: all. */
const int32_t *ek_net_layer_lengths(const ek_net *net, int layer);
/* For who has changed a layer's option in place: the net runs by it from now on. Options of shape or parameters are not
 * changed so. */
ek_status ek_net_plan_anew(ek_net *net);

/* Whether the output of every layer is kept, for ek_net_value, at the price of running each by itself. */
ek_status ek_net_keep_values(ek_net *net, bool on);
/* The output of `layer` in the last forward pass, n samples of it, plain [n, c, ...]: of the net's last layer, and of others where
 * values are kept. The reference's own numbers, where it runs. */
void ek_net_value(const ek_net *net, int layer, int64_t n, double *out);

/* Whether batches may be cut into shards, each run by a net of its own: a batchnorm then always runs a pass, where shards meet. */
ek_status ek_net_share(ek_net *net, bool on);

/* Where the batch maker writes the input, in lane blocks. */
float *ek_net_input(ek_net *net);
/* x is in place, its pixels normalized (ek_net_pixels) by whoever wrote it.
 * seed and step choose the dropout masks. */
ek_status ek_net_run_forward(ek_net *net, int64_t n, ek_mode mode, uint64_t seed, uint64_t step);
/* The same where no backward pass follows: few samples take less time. */
ek_status ek_net_run_alone(ek_net *net, int64_t n, ek_mode mode);
/* The same for a part of a batch in training: samples [first, first + n) of it, up to the layer `last`; what lies beyond
 * is not computed. And its backward pass, down to the layer `last`. */
ek_status ek_net_run_part(ek_net *net, int64_t first, int64_t n, uint64_t seed, uint64_t step, int last);
/* Of no samples (a shard may have none) those batchnorms alone run that take part in what all shards exchange, and
 * gradients are zero. */
void ek_net_run_part_backward(ek_net *net, int last);
/* The output of the last forward pass, or what goes into a softmax at its end, in lane blocks. */
const float *ek_net_logits(ek_net *net);
/* Where the gradient of the output goes. */
float *ek_net_output_grad(ek_net *net);
void ek_net_run_backward(ek_net *net);
/* Running statistics of the last training pass. */
void ek_net_commit(ek_net *net);

/* What the normalization `layer` (ek_layer_info.normalizes) read in the last forward pass, of samples [first, first + n), plain [n, c, ...].
 * It is kept for the backward pass: the net is prepared for training, and no backward pass came since; the mode may be
 * either. first is a multiple of EK_LANES. Beyond a sequence's length (ek_net_layer_lengths) stands 0. */
void ek_net_norm_input(const ek_net *net, int layer, int64_t first, int64_t n, float *out);

/* The same for a batchnorm, by samples of it: in `block`, the lane row of `element` (channel * positions + position),
 * before and after the normalization (gamma and beta in it, an activation not). Gives how many
 * of its lanes are alive, which stand first. */
int ek_net_norm_row(const ek_net *net, int layer, int64_t block, int64_t element, float before[EK_LANES],
                    float after[EK_LANES]);
/* Mean and biased variance of each channel that a batchnorm normalized by in it: the batch's (*batch), or the running
 * ones. */
ek_batch_norm_saved ek_net_norm_saved(const ek_net *net, int layer, bool *batch);
/* A forward pass that ends where what `layer` reads has been made. */
ek_status ek_net_run_to(ek_net *net, int layer, int64_t n, ek_mode mode, uint64_t seed, uint64_t step);
/* Moments of what the normalization `layer` read in the last forward pass, or of the input (layer 0), over all samples
 * by channel. Conditions as for ek_net_norm_input. parts: room for [ek_blocks(n)][channels]; out [channels]. */
void ek_net_norm_moments(const ek_net *net, int layer, ek_moments *parts, ek_moments *out);

/* In the net's metadata (ek_net_set_metadata): running statistics were measured, not averaged in training. */
#define EK_RECALIBRATED_KEY "evenkeel.recalibrated"

/* A further sentence for ek_net_note. */
__attribute__((format(printf, 2, 3))) ek_status ek_net_add_note(ek_net *net, const char *format, ...);

/* Plain [n, shape] into the net's input; where lengths are in use all positions are alive until ek_net_set_lengths. */
void ek_net_set_input(ek_net *net, int64_t n, const float *x);
/* lengths [n], which fit; NULL: all positions are alive. */
void ek_net_set_lengths(ek_net *net, int64_t n, const int32_t *lengths);

/* The normalization of the net's input. */
ek_pixels ek_net_pixels(const ek_net *net);

#endif
