/*
 * Evenkeel: train, examine and ship neural networks with batch normalization.
 *
 * This header is the whole public API, in the order in which a program uses it:
 *
 *   1. Status and errors        every function that can fail says why
 *   2. Context                  threads and instruction set
 *   3. Batch normalization      on plain arrays, without any network
 *   4. Networks                 from a net text or a model file; their tensors
 *   5. Running a network
 *   6. Data sets
 *   7. Training and evaluating
 *   8. Reports                  pages with pictures and tables
 *   9. Observing a run          what its report and its event files show
 *  10. Auditing and mending     what is wrong with a model's normalization, and new statistics for it
 *  11. Folding                  normalizations into the weights beside them, with a certificate
 *  12. Exchange                 ONNX, and the conventions of other frameworks
 *  13. C source                 a net as one C file
 *
 * Conventions
 *   - Handles are opaque: `_create`/`_open` make them, `_destroy` ends them (NULL is fine).
 *   - Options are plain structs taken from `ek_..._options_default()`, so that zero never secretly
 *     means "default".
 *   - Shapes are per sample, without the batch dimension, unless said otherwise: an image is
 *     [c, h, w], a sequence [c, l], a feature vector [f]. Arrays are contiguous, the last dimension fastest.
 *   - On error no output is written, unless the comment says otherwise.
 *   - A context and what was made with it belong to one thread at a time; two contexts are independent.
 */
#ifndef EVENKEEL_H
#define EVENKEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EK_VERSION_MAJOR 0
#define EK_VERSION_MINOR 1
#define EK_VERSION_PATCH 0

#if defined(__GNUC__)
#define EK_API __attribute__((visibility("default")))
#define EK_MUST_CHECK __attribute__((warn_unused_result))
#else
#define EK_API
#define EK_MUST_CHECK
#endif

/* ---------------------------------------------------------------------------------------------
 * 1. Status and errors
 */

#define EK_STATUS_MAP(X)                                                                            \
    X(OK, "done")                                                                                   \
    X(E_ARGUMENT, "an argument is out of its range")                                                \
    X(E_SHAPE, "shapes do not meet")                                                                \
    X(E_MEMORY, "out of memory")                                                                    \
    X(E_NOT_FOUND, "not found")                                                                     \
    X(E_IO, "reading or writing failed")                                                            \
    X(E_FORMAT, "a file's content is not valid")                                                    \
    X(E_UNSUPPORTED, "not supported")                                                               \
    X(E_NUMERIC, "a value is not finite")                                                           \
    X(E_INTERRUPTED, "stopped on request")                                                          \
    X(E_RANK, "another process failed or is silent")

typedef enum ek_status {
#define X(name, text) EK_##name,
    EK_STATUS_MAP(X)
#undef X
} ek_status;

/* The status's name ("EK_E_SHAPE") and a short general text. Never NULL. */
EK_API const char *ek_status_name(ek_status status);
EK_API const char *ek_status_text(ek_status status);

/* One sentence on the last failure on this thread: what was wrong, where, and what to do, such as
 * "conv2 weight [16,3,3,3] expects 3 channels, input has 1". UTF-8 without control characters, whatever stood in the file.
 * Valid until the next failure on this thread; "" when nothing has failed. */
EK_API const char *ek_error(void);

/* "0.1.0" */
EK_API const char *ek_version(void);

/* ---------------------------------------------------------------------------------------------
 * 2. Context
 */

typedef struct ek_context ek_context;
typedef struct ek_comm ek_comm; /* section 14 */

typedef struct ek_context_options {
    int threads;     /* worker threads, 1 to 256; 0: one for each core this process may use */
    const char *isa; /* "reference", "baseline", "avx2", "avx512"; NULL: $EVENKEEL_ISA, else the best */
    ek_comm *comm;   /* NULL; the processes that compute together, and not one alone */
} ek_context_options;

EK_API ek_context_options ek_context_options_default(void);

/* The environment variable EVENKEEL_FUSE=off makes the nets of this context run every layer by itself, with the same
 * results within rounding (docs/design.md); on is the default.
 *
 * EK_E_ARGUMENT     threads out of range, no such instruction set, or EVENKEEL_FUSE is neither on nor off
 * EK_E_UNSUPPORTED  this machine lacks the instruction set asked for */
EK_API EK_MUST_CHECK ek_status ek_context_create(const ek_context_options *options, ek_context **out);
EK_API void ek_context_destroy(ek_context *context);
EK_API const char *ek_context_isa(const ek_context *context);
EK_API int ek_context_threads(const ek_context *context);

/* ---------------------------------------------------------------------------------------------
 * 3. Batch normalization (Ioffe and Szegedy 2015, arXiv:1502.03167) on plain arrays
 *
 * x is [n, c, s]: n samples, c channels, s positions of a channel. [n, c] is s = 1, an image batch
 * [n, c, h, w] is s = h*w. A channel has m = n*s values.
 */

typedef struct ek_batch_norm_options {
    double eps;                /* 1e-5: added to the variance, inside the root; > 0 */
    double momentum;           /* 0.1: running = (1-momentum)*running + momentum*batch; in [0,1] */
    bool cumulative;           /* false; true: the running statistics are the plain average of all
                                  batches, momentum = 1/t for the t-th batch (PyTorch's momentum=None) */
    bool unbiased_running_var; /* true: running_var takes M2/(m-1); false: M2/m */
    bool scale;                /* true: gamma is there */
    bool shift;                /* true: beta is there */
    bool track;                /* true; false: no running statistics, inference uses the batch's */
    bool frozen;               /* false; true: training too uses the running statistics, which stay */
    bool relu;                 /* false; true: a ReLU follows and is part of the operation, forward and
                                  backward, training and inference */
} ek_batch_norm_options;

/* PyTorch's defaults, as in the comments above. */
EK_API ek_batch_norm_options ek_batch_norm_options_default(void);

typedef struct ek_ncs {
    int64_t n, c, s;
} ek_ncs;

/* A layer's arrays, owned by the caller, [c] each. gamma may be NULL when scale is off, beta when
 * shift is off, the running ones when track is off; num_batches_tracked may be NULL unless cumulative. */
typedef struct ek_batch_norm_arrays {
    const float *gamma, *beta;
    float *running_mean, *running_var;
    int64_t *num_batches_tracked;
} ek_batch_norm_arrays;

/* What the forward pass leaves for the backward pass, float [c] each, owned by the caller. The mean is
 * kept as the unevaluated sum mean + mean_low, so that a mean far larger than the deviation loses
 * nothing. var is the biased variance; inv_std = 1/sqrt(var + eps). */
typedef struct ek_batch_norm_saved {
    float *mean, *mean_low, *var, *inv_std;
} ek_batch_norm_saved;

/* Forward, training mode:
 *
 *   mean = sum(x)/m    var = sum((x-mean)^2)/m          per channel
 *   z = gamma*(x - mean)/sqrt(var + eps) + beta
 *   y = z, or max(0, z) with options->relu (a NaN stays a NaN)
 *   running <- as ek_batch_norm_update_running
 *
 * With options->frozen the running statistics take the place of the batch's and do not change.
 *
 * in   x       float [n, c, s]
 * i/o  arrays  running_mean, running_var, num_batches_tracked; untouched where the batch's statistics
 *              are not finite
 * out  y       [n, c, s]; may be x itself, but backward needs x
 * out  saved
 *
 * Arrays may lie anywhere, best at multiples of 64 bytes. A large y that is not x is written past the caches.
 *
 * The statistics are taken in one read of x, in short runs about a value near their mean, and merged in double
 * by Chan, Golub and LeVeque's formula (1979) in an order fixed by the shape: no cancellation, never a
 * negative variance, the same bits for any number of threads.
 *
 * EK_E_SHAPE     m < 2 (the variance of one value says nothing), or a dimension <= 0
 * EK_E_ARGUMENT  eps <= 0, momentum outside [0,1], frozen without track, or a required NULL */
EK_API EK_MUST_CHECK ek_status ek_batch_norm_forward_train(ek_context *context,
                                                           const ek_batch_norm_options *options,
                                                           ek_ncs shape, const float *x,
                                                           const ek_batch_norm_arrays *arrays, float *y,
                                                           const ek_batch_norm_saved *saved);

/* Forward, inference mode: z = gamma*(x - running_mean)/sqrt(running_var + eps) + beta; y = z, or max(0, z)
 * with options->relu.
 * Without track the batch's own statistics serve, as in PyTorch. y may be x.
 * saved may be NULL; otherwise it receives what was used, for a backward pass through inference. */
EK_API EK_MUST_CHECK ek_status ek_batch_norm_forward_inference(ek_context *context,
                                                               const ek_batch_norm_options *options,
                                                               ek_ncs shape, const float *x,
                                                               const ek_batch_norm_arrays *arrays,
                                                               float *y, const ek_batch_norm_saved *saved);

typedef enum ek_mode {
    EK_MODE_INFERENCE, /* running statistics; dropout off */
    EK_MODE_TRAINING,  /* batch statistics; dropout on */
} ek_mode;

/* Backward. With dy = dL/dy and xhat = (x - mean)*inv_std:
 *
 *   g = dy, or with options->relu 0 where z <= 0 and dy elsewhere; z is computed again from x, to the bits of
 *       the forward pass, so that y is not needed
 *   dbeta = sum(g)    dgamma = sum(g*xhat)
 *   training:            dx = gamma*inv_std*(g - dbeta/m - xhat*dgamma/m)
 *   inference or frozen: dx = gamma*inv_std*g
 *
 * mode and saved are those of the forward pass. Without track, inference mode used the batch's
 * statistics, and so the training formula holds there too.
 *
 * in   x, dy  [n, c, s]
 * in   arrays gamma, and with relu beta: those of the forward pass; may be NULL where neither is there
 * out  dx     [n, c, s], may be dy itself; NULL: not wanted
 * out  dgamma, dbeta  [c]; NULL: not wanted */
typedef struct ek_batch_norm_gradients {
    float *dx, *dgamma, *dbeta;
} ek_batch_norm_gradients;

EK_API EK_MUST_CHECK ek_status ek_batch_norm_backward(ek_context *context,
                                                      const ek_batch_norm_options *options, ek_mode mode,
                                                      ek_ncs shape, const float *x, const float *dy,
                                                      const ek_batch_norm_arrays *arrays,
                                                      const ek_batch_norm_saved *saved,
                                                      const ek_batch_norm_gradients *gradients);

/* Running update from a batch of m values a channel:
 *
 *   running_mean <- (1-a)*running_mean + a*mean
 *   running_var  <- (1-a)*running_var  + a*var*m/(m-1)     or a*var where the convention is biased
 *   a = momentum, or 1/t with t counted from 1 where cumulative
 *
 * Nothing changes when any channel's mean or variance is not finite; *updated (may be NULL) says so. */
EK_API EK_MUST_CHECK ek_status ek_batch_norm_update_running(const ek_batch_norm_options *options,
                                                            int64_t m, int64_t c,
                                                            const ek_batch_norm_saved *saved,
                                                            const ek_batch_norm_arrays *arrays,
                                                            bool *updated);

/* ---------------------------------------------------------------------------------------------
 * 4. Networks
 */

#define EK_MAX_RANK 5 /* a value of a net has at most 4 dimensions, and a batch of them one more */

typedef struct ek_shape {
    int rank;                  /* 0 (a single number) to EK_MAX_RANK */
    int64_t dim[EK_MAX_RANK];
} ek_shape;

typedef struct ek_net ek_net;

/* A network from a net text (docs/net-text.md), its parameters at PyTorch's default initialization
 * for seed 0.
 *
 *   input 1x28x28
 *   conv1: conv 6 kernel=5
 *   bn1:   batchnorm
 *          sigmoid
 *          ...
 *
 * `origin` names the text in errors ("lenet.net"); NULL: "net text". The context must outlive the net. */
EK_API EK_MUST_CHECK ek_status ek_net_create(ek_context *context, const char *text, const char *origin,
                                             ek_net **out);

/* A network from a shipped net's name ("lenet-bn"), a net text's path, or a model's path: a safetensors file under any
 * name, with its trained parameters, or an ONNX model (ek_net_open_onnx). */
EK_API EK_MUST_CHECK ek_status ek_net_open(ek_context *context, const char *name_or_path, ek_net **out);

/* The same, but a model is taken as it is, with values that ek_net_open refuses: not finite, a negative variance, a
 * count of batches that cannot be. For examining it (ek_audit_create) and mending it (ek_recalibrate); ek_net_save
 * still refuses what is not finite. */
EK_API EK_MUST_CHECK ek_status ek_net_open_sick(ek_context *context, const char *name_or_path, ek_net **out);

/* Whether ek_net_open takes it for a model: by its ending .safetensors or .onnx, or by its first eight bytes: a
 * header's length with zeros at its end, or the beginning of an ONNX model, which no net text has. Only a regular file is looked into, so that a
 * pipe loses nothing. */
EK_API bool ek_is_model(const char *path);

EK_API void ek_net_destroy(ek_net *net);

/* What the import of a net has to say, a sentence each: conventions that were translated, what is only of use in training
 * and was left out. A net from a net text or a model file has none. NULL past the end; lives as long as the net. */
EK_API int ek_net_note_count(const ek_net *net);
EK_API const char *ek_net_note(const ek_net *net, int index);

/* The shipped nets: names and texts; NULL past the end. */
EK_API const char *ek_shipped_net_name(int index);
EK_API const char *ek_shipped_net_text(int index);

typedef enum ek_init {
    EK_INIT_DEFAULT, /* PyTorch's: uniform in +-1/sqrt(fan_in), weights and biases */
    EK_INIT_XAVIER,  /* uniform in +-sqrt(6/(fan_in + fan_out)), biases 0 (Glorot and Bengio 2010) */
    EK_INIT_KAIMING, /* normal, deviation sqrt(2/fan_in), biases 0 (He et al. 2015) */
} ek_init;

/* New random parameters; BN starts at gamma 1, beta 0, running_mean 0, running_var 1. */
EK_API EK_MUST_CHECK ek_status ek_net_init(ek_net *net, ek_init init, uint64_t seed);

/* The same with weights from a normal distribution of this deviation (0 or more) about 0, biases 0. */
EK_API EK_MUST_CHECK ek_status ek_net_init_normal(ek_net *net, double deviation, uint64_t seed);

/* Takes the parameters of a .safetensors file (a PyTorch state dict, or a model) by their names; every
 * parameter of the net must be there with its shape, save num_batches_tracked. Tensors that the net
 * lacks are an error too. A bias that a following normalization makes redundant is moved into its running_mean, if it
 * has one.
 * On error the net is as it was. */
EK_API EK_MUST_CHECK ek_status ek_net_load_weights(ek_net *net, const char *path);

/* Writes the model: parameters under their PyTorch names, the net text and the BN conventions in
 * __metadata__. Written beside the path, synced, then renamed: the file is whole or as before.
 * EK_E_NUMERIC  a parameter is not finite: the file would not open again */
EK_API EK_MUST_CHECK ek_status ek_net_save(const ek_net *net, const char *path);

/* Class names, for predict; kept in the model file. UTF-8 without control characters (else EK_E_FORMAT).
 * names may be NULL (count 0: none). */
EK_API EK_MUST_CHECK ek_status ek_net_set_classes(ek_net *net, const char *const *names, int count);
EK_API const char *ek_net_class(const ek_net *net, int index); /* NULL where unnamed */

/* What else is noted about the net, a text by its key, kept in the model file; value NULL: taken away. Keys that begin
 * with "evenkeel." belong to this library. EK_RUN_KEY is for how the model came to be: whoever trains it sets it in the
 * listener, at EK_EVENT_START. ek_train takes away what stood there before; of a resumed run it is then what the
 * checkpoint holds. A key that is not there has NULL. */
#define EK_RUN_KEY "evenkeel.run"
EK_API EK_MUST_CHECK ek_status ek_net_set_metadata(ek_net *net, const char *key, const char *value);
EK_API const char *ek_net_metadata(const ek_net *net, const char *key);

/* The net as canonical net text; lives as long as the net. */
EK_API const char *ek_net_text(const ek_net *net);
EK_API ek_shape ek_net_input_shape(const ek_net *net);
EK_API ek_shape ek_net_output_shape(const ek_net *net);

/* One layer, for summaries. Strings live as long as the net. */
typedef struct ek_layer_info {
    const char *label;       /* "net.1", "" where the layer has none */
    const char *op;          /* "batchnorm" */
    const char *options;     /* "6 kernel=5", canonical */
    int inputs[2];           /* indices of the layers it reads, -1: none */
    ek_shape output;
    int64_t parameters;      /* trained numbers, redundant biases not counted */
    int64_t buffers;         /* running statistics */
    int64_t multiply_adds;   /* a sample, forward */
    bool redundant_bias;     /* has a bias that the following normalization cancels: neither computed nor trained */
    bool normalizes;         /* batchnorm, layernorm, groupnorm, instancenorm or rmsnorm */
} ek_layer_info;

EK_API int ek_net_layer_count(const ek_net *net);
EK_API ek_layer_info ek_net_layer(const ek_net *net, int index);

/* Bytes that one step of `batch` samples needs for values, gradients and workspace; 0 where batch is below 1 or
 * above 2^24, which is the most that a pass takes. */
EK_API size_t ek_net_memory(const ek_net *net, int64_t batch, ek_mode mode);

/* The same net without its batch normalizations, freshly initialized: who read one reads what it normalized. All
 * other layers keep their options, so that a convolution without a bias stays without. For measuring what BN
 * costs and what it does. */
EK_API EK_MUST_CHECK ek_status ek_net_without_norm(const ek_net *net, ek_net **out);

/* The same net with one change, freshly initialized; `compare --vary` is made of it. Layers keep their labels. Hidden
 * layers are the convolutions and linear layers behind which there is a further one.
 *
 *   width       F in (0, 1000]: hidden layers have round(F * out) channels or features, at least one
 *   activation  relu, sigmoid, tanh, silu, leakyrelu: all activations become this one
 *   norm        none: takes the normalizations out, as ek_net_without_norm. batch, layer, group, instance, rms: each
 *               becomes this one, with the eps, scale and shift that it has; a net without any gets one behind each
 *               hidden layer. group: into the largest number of groups up to 8 that divides the channels and
 *               leaves two numbers or more to a group.
 *               instance: of a feature vector, or of channels of a single value, which have no statistics of their
 *               own, a layer normalization
 *   position    before, after: a normalization and an activation that alone read one another change places. Others,
 *               as one whose sum with a shortcut is then activated, stay
 *   momentum    batch normalization's, in PyTorch's sense, or none
 *   eps         of all normalizations
 *   ghost       batch normalization's: samples of a ghost batch, 0 for the whole batch
 *   dropout     P in [0, 0.999]: of the dropout layers that there are (0 takes them out); a net without any gets one
 *               behind the activation and normalization of each linear layer, where something reads them; where no
 *               linear layer has such, one in front of the last linear layer
 *
 * EK_E_ARGUMENT     no such key or value; the message says which is meant
 * EK_E_UNSUPPORTED  the net has nothing that the key could change
 * EK_E_SHAPE        the changed net's shapes do not meet */
EK_API EK_MUST_CHECK ek_status ek_net_vary(const ek_net *net, const char *key, const char *value, ek_net **out);

/* The keys of ek_net_vary, in the order in which changes that go together are best made; NULL past the end. */
EK_API const char *ek_vary_key(int index);

typedef enum ek_role {
    EK_ROLE_WEIGHT,
    EK_ROLE_BIAS,
    EK_ROLE_GAMMA,
    EK_ROLE_BETA,
    EK_ROLE_RUNNING_MEAN,
    EK_ROLE_RUNNING_VAR,
    EK_ROLE_COUNTER, /* num_batches_tracked: data is NULL, counter points at the number */
} ek_role;

/* One tensor of the net; pointers live as long as the net, and data may be written. */
typedef struct ek_tensor {
    const char *name; /* "net.1.running_mean" */
    ek_role role;
    int layer;      /* index of its layer */
    ek_shape shape; /* PyTorch's */
    float *data;
    float *grad;    /* NULL for buffers and redundant biases; valid after a training step */
    int64_t *counter;
} ek_tensor;

EK_API int ek_net_tensor_count(const ek_net *net);
EK_API ek_tensor ek_net_tensor(const ek_net *net, int index);

/* EK_E_NOT_FOUND  no such tensor; the message names the nearest */
EK_API EK_MUST_CHECK ek_status ek_net_find_tensor(const ek_net *net, const char *name, ek_tensor *out);

/* ---------------------------------------------------------------------------------------------
 * 5. Running a network
 */

/* y = net(x) for n samples: x [n, input shape], y [n, output shape]. Image bytes count as 0 to 1.
 * The first call at a size makes a plan; later ones of that size or less allocate nothing.
 * In training mode dropout is on and BN uses the batch's statistics, but no running statistic changes.
 * EK_E_SHAPE  n < 1, or one value a channel for a BN in training mode (the message names the layer) */
EK_API EK_MUST_CHECK ek_status ek_net_forward(ek_net *net, ek_mode mode, int64_t n, const float *x, float *y);

/* The same for sequences [c, l] of unequal lengths: of sample i only the first lengths[i] positions, 1 to l, are alive; what
 * x holds beyond them does not matter. The output is that of each sample alone, cut to its length, in the same net with
 * an input that short: padding enters no statistic, no maximum and no mean, and what a convolution sees beyond the end is
 * zeros. A layer that gives sequences has outputs for
 *
 *   floor((length + 2*padding - dilation*(kernel-1) - 1)/stride) + 1      positions, at least 1 (conv1d and pools)
 *
 * of the sample, after a join the fewer of its two inputs'; in y the others are 0. docs/sequences.md says more.
 * lengths [n]; NULL: all positions are alive, as in ek_net_forward.
 * EK_E_SHAPE     the net's input is not [c, l], or a layer (permute, reshape, concat) moves positions; else as
 *                ek_net_forward
 * EK_E_ARGUMENT  a length is not 1 to l; the message names it */
EK_API EK_MUST_CHECK ek_status ek_net_forward_lengths(ek_net *net, ek_mode mode, int64_t n, const float *x,
                                                      const int32_t *lengths, float *y);

/* Where a pass spends its time: seconds in one layer. The input's forward is the laying out of the batch. A layer that
 * has no pass of its own, because it is computed within another's, has 0 there. */
typedef struct ek_layer_time {
    double forward, backward;
    int forward_in, backward_in; /* the layer within whose pass it is computed; its own index: by itself */
} ek_layer_time;

/* From now on every pass of the net, a training step's too, adds to times[layer]; times has
 * ek_net_layer_count(net) entries, which begin at 0 here, and must live until NULL takes its place.
 * EK_E_UNSUPPORTED  the context runs the reference, which knows no times of layers */
EK_API EK_MUST_CHECK ek_status ek_net_time_layers(ek_net *net, ek_layer_time *times);

/* ---------------------------------------------------------------------------------------------
 * 6. Data sets
 */

typedef struct ek_dataset ek_dataset;

typedef enum ek_split {
    EK_SPLIT_ANY,   /* the test split where there is one, else the only one */
    EK_SPLIT_TRAIN,
    EK_SPLIT_TEST,
} ek_split;

/* Opens labelled data:
 *
 *   fashion-mnist, mnist  by name, in $EVENKEEL_DATA, then the usual places (docs/data.md)
 *   synthetic             seeded images 1x28x28 of 10 classes; synthetic:3x32x32 and synthetic:20 for
 *                         other shapes
 *   DIR                   a folder with IDX files (gz or not), or {train,test}_{x,y}.npy, and for sequences of unequal
 *                         lengths {train,test}_lengths.npy
 *   DIR, DIR:3x64x64      a folder of PNG and JPEG images, a folder for each class: DIR/boot/1.png; or in DIR/train
 *                         and DIR/test; of one size, or scaled to that size, the middle cut out
 *   x.npy,y.npy           arrays; x.npy,y.npy,lengths.npy: sequences [n, c, l] (or [n, l]) of these lengths
 *   FILE.csv              numbers, the class in the last column, a header line allowed
 *
 * Bytes stay bytes in memory and count as 0 to 1; other numbers count as they are. Items that take more than a quarter of
 * the memory that the process may have (or than $EVENKEEL_DATA_MEMORY says) are not kept there: they are read from their
 * files whenever they are needed, so that those must stay as they are, and what uses the data may fail with EK_E_IO,
 * EK_E_FORMAT or EK_E_NUMERIC where they cannot be read.
 * EK_E_NOT_FOUND    no such data; the message says how to get it, or that there is no such split
 * EK_E_UNSUPPORTED  too large for memory, and packed or in Fortran's order; images without their library */
EK_API EK_MUST_CHECK ek_status ek_dataset_open(const char *spec, ek_split split, ek_dataset **out);

/* Unlabelled single items to predict: an IDX or NPY file (all its items, or one), or a PNG or JPEG, which must
 * have `shape` (grey or RGB by its channels; EK_E_SHAPE says both sides); FILE:3x64x64 scales an image as DIR:3x64x64 does. */
EK_API EK_MUST_CHECK ek_status ek_dataset_open_items(const char *path, ek_shape shape, ek_dataset **out);
/* The same of sequences [c, l] of unequal lengths, which the file `lengths` has as ek_lengths_read wants them. What stands
 * beyond a length may be NaN.
 * EK_E_SHAPE  `shape` is no sequence, or there are not as many lengths as items */
EK_API EK_MUST_CHECK ek_status ek_dataset_open_sequences(const char *path, const char *lengths, ek_shape shape,
                                                         ek_dataset **out);
EK_API void ek_dataset_destroy(ek_dataset *dataset);

EK_API int64_t ek_dataset_count(const ek_dataset *dataset);
EK_API ek_shape ek_dataset_shape(const ek_dataset *dataset);
EK_API int ek_dataset_classes(const ek_dataset *dataset);
EK_API const char *ek_dataset_class(const ek_dataset *dataset, int index); /* NULL where unnamed */

/* How many positions of an item, a sequence [c, l], are alive; 0: the data has no lengths. */
EK_API int32_t ek_dataset_length(const ek_dataset *dataset, int64_t index);

/* One item as floats, and its label (-1: none); x or label may be NULL. */
EK_API EK_MUST_CHECK ek_status ek_dataset_item(const ek_dataset *dataset, int64_t index, float *x, int *label);

/* Arrays in NumPy's format, for `run`: reals and integers (uint64 apart) are read as float, bytes as 0 to 1.
 * The caller frees *data with ek_array_free. shape->rank up to EK_MAX_RANK, the batch dimension first. */
EK_API EK_MUST_CHECK ek_status ek_array_read(const char *path, ek_shape *shape, float **data);
EK_API EK_MUST_CHECK ek_status ek_array_write(const char *path, ek_shape shape, const float *data);
EK_API void ek_array_free(float *data);

/* The lengths of n sequences of up to `positions` positions, [n] whole numbers from 1 to `positions` in NumPy's format.
 * EK_E_SHAPE   there are not n of them
 * EK_E_FORMAT  one is out of range; the message names it */
EK_API EK_MUST_CHECK ek_status ek_lengths_read(const char *path, int64_t n, int64_t positions,
                                               int32_t *lengths);

/* ---------------------------------------------------------------------------------------------
 * 7. Training and evaluating
 */

typedef enum ek_optimizer {
    EK_OPTIMIZER_SGD,
    EK_OPTIMIZER_ADAM,  /* Kingma and Ba 2015; weight decay added to the gradient */
    EK_OPTIMIZER_ADAMW, /* Loshchilov and Hutter 2019; weight decay apart from the gradient */
} ek_optimizer;

typedef enum ek_schedule {
    EK_SCHEDULE_CONSTANT,
    EK_SCHEDULE_STEP,   /* lr * decay^(epoch / step_epochs), whole steps */
    EK_SCHEDULE_COSINE, /* from lr to 0 along half a cosine over the run (Loshchilov and Hutter 2017) */
} ek_schedule;

typedef struct ek_optimizer_options {
    ek_optimizer kind;   /* SGD */
    double lr;           /* 0.1; ek_optimizer_options_default(kind) gives 0.001 for Adam and AdamW */
    double momentum;     /* 0 (SGD) */
    bool nesterov;       /* false (SGD) */
    double beta1, beta2; /* 0.9, 0.999 (Adam, AdamW) */
    double eps;          /* 1e-8 (Adam, AdamW) */
    double weight_decay; /* 0; AdamW: 0.01 */
    bool decay_norm_and_bias; /* true: weight decay acts on gamma, beta and biases too, as in PyTorch */
    double clip_norm;    /* 0: off; else the gradients' global 2-norm is held to this */
} ek_optimizer_options;

EK_API ek_optimizer_options ek_optimizer_options_default(ek_optimizer kind);

/* Training one batch at a time, for a loop of one's own. */
typedef struct ek_trainer ek_trainer;

EK_API EK_MUST_CHECK ek_status ek_trainer_create(ek_net *net, const ek_optimizer_options *options,
                                                 uint64_t seed, ek_trainer **out);
EK_API void ek_trainer_destroy(ek_trainer *trainer);
EK_API EK_MUST_CHECK ek_status ek_trainer_set_lr(ek_trainer *trainer, double lr);

typedef struct ek_step_result {
    double loss;       /* mean cross-entropy of the batch, from logits, before the update */
    int64_t correct;   /* samples whose largest logit was their class's */
    bool skipped;      /* the loss or a gradient was not finite: nothing in the model changed */
} ek_step_result;

/* One step: forward, mean cross-entropy, backward, update of parameters and running statistics.
 * x [n, input shape], labels [n] in 0 to classes-1.
 * A non-finite loss or gradient changes nothing, sets result->skipped, and is EK_OK. */
EK_API EK_MUST_CHECK ek_status ek_trainer_step(ek_trainer *trainer, int64_t n, const float *x,
                                               const int32_t *labels, ek_step_result *result);

/* The same for sequences of unequal lengths, as in ek_net_forward_lengths: padding gets no gradient and gives none.
 * lengths [n]; NULL: all positions are alive. */
EK_API EK_MUST_CHECK ek_status ek_trainer_step_lengths(ek_trainer *trainer, int64_t n, const float *x,
                                                       const int32_t *lengths, const int32_t *labels,
                                                       ek_step_result *result);

/* The same step with the memory of `part` samples: gradient accumulation, but with the batch normalization of the whole
 * batch. Loss, gradients, updates and running statistics are those of ek_trainer_step to rounding; frameworks
 * that run the parts one after the other normalize each by itself, and so give another gradient.
 *
 * What BN does to a sample depends on all others, so the parts are run several times: the moments of each BN are gathered
 * in turn (count, mean, M2, merged by Chan's formula) with the BNs before it already those of the whole batch, then the
 * sums of the backward pass, then the gradients. With L batchnorms one after the other a step takes about 3L/2 + 1
 * forward and L/2 + 1 backward passes over the batch; without BN one of each. Dropout draws what the whole batch draws.
 *
 * EK_E_UNSUPPORTED  the net has ghost batches, or the context runs the reference */
EK_API EK_MUST_CHECK ek_status ek_trainer_step_in_parts(ek_trainer *trainer, int64_t n, int64_t part, const float *x,
                                                        const int32_t *labels, ek_step_result *result);

/* The same step with the batch cut into shards, as several machines would compute it: shard i takes samples [n*i/shards,
 * n*(i+1)/shards), which may be none. What is summed over samples is summed within each shard, and then over the shards by the pairwise
 * tree (shard i takes in shard i + gap, for gap = 1, 2, 4, ...): so that the result does not depend on where the shards
 * are computed, to the last bit, and differs from ek_trainer_step's by rounding. Where the context has a comm its ranks
 * compute shards/ranks each, and give the same arguments.
 *
 * Batch normalization takes the moments (count, mean, M2) of the whole batch, merged by Chan's formula in one exchange a layer, and
 * in the backward pass the sums of g and g*(x - mean) in another. local_bn: each shard normalizes by its own samples, as ghost
 * batches do, and the running statistics take the moments of all. Dropout draws what the whole batch draws.
 *
 * EK_E_ARGUMENT     shards is no multiple of the ranks, or each rank's part of it no power of two
 * EK_E_SHAPE        local_bn or ghost batches, and a shard with one value a channel
 * EK_E_UNSUPPORTED  the context runs the reference
 * EK_E_RANK         another rank failed or is silent: nothing can be computed together any more */
EK_API EK_MUST_CHECK ek_status ek_trainer_step_in_shards(ek_trainer *trainer, int64_t n, int shards, bool local_bn,
                                                         const float *x, const int32_t *labels, ek_step_result *result);

typedef enum ek_event_kind {
    EK_EVENT_START,      /* once, before the first step; after a resume at its position */
    EK_EVENT_STEP,
    EK_EVENT_EPOCH,
    EK_EVENT_CHECKPOINT, /* one was written, or could not be */
} ek_event_kind;

/* What a step spends its time on. */
typedef enum ek_phase {
    EK_PHASE_DATA,     /* the batch into the net's input */
    EK_PHASE_FORWARD,  /* the forward pass and the loss */
    EK_PHASE_BACKWARD,
    EK_PHASE_EXCHANGE, /* between processes; of one process 0 */
    EK_PHASE_UPDATE,   /* of parameters and running statistics */
    EK_PHASES,
} ek_phase;

/* What a process sends to others. */
typedef struct ek_traffic {
    int64_t messages, bytes;
} ek_traffic;

/* What a listener is told. Fields that a kind of event lacks are 0, or NaN for measures. */
typedef struct ek_event {
    ek_event_kind kind;
    int64_t epoch, epochs;           /* the current epoch from 1, and how many in all */
    int64_t step, steps;             /* over the whole run, from 1 */
    int64_t train_count, valid_count, test_count; /* samples */
    int64_t skipped;                 /* steps skipped so far, see ek_step_result */
    bool step_skipped;               /* STEP: this one was */
    double loss, lr;                 /* STEP */
    int64_t samples;                 /* STEP: of its batch */
    double train_loss, train_accuracy;
    double valid_loss, valid_accuracy;
    double test_loss, test_accuracy; /* EPOCH; NaN where there is no such set */
    double images_per_second;        /* EPOCH: training alone */
    double phase_seconds[EK_PHASES]; /* STEP: of it; EPOCH: of its steps in this process */
    ek_traffic sent;                 /* STEP: in it; EPOCH: in its steps, by this process to other ranks */
    double seconds;                  /* since the run began, or was resumed */
    const char *path;                /* CHECKPOINT */
    const char *failed;              /* CHECKPOINT: why it could not be written; NULL: it was */
} ek_event;

/* false: stop after saving what is trained; ek_train then returns EK_E_INTERRUPTED. */
typedef bool (*ek_listener)(void *user, const ek_event *event);

typedef struct ek_observer ek_observer; /* section 9 */

typedef struct ek_train_options {
    int64_t epochs;                 /* 10 */
    int64_t batch;                  /* 128 */
    int64_t accumulate;             /* 1: a step takes so many batches, as if they were one: see
                                       ek_trainer_step_in_parts */
    int shards;                     /* 0: one a rank; a batch is cut into so many: see ek_trainer_step_in_shards */
    bool local_bn;                  /* false; true: each shard normalizes by its own samples */
    ek_optimizer_options optimizer; /* SGD, lr 0.1 */
    ek_schedule schedule;           /* constant */
    int64_t step_epochs;            /* 30 */
    double decay;                   /* 0.1 */
    double warmup_epochs;           /* 0: the learning rate rises linearly from 0 over these */
    uint64_t seed;                  /* 1: shuffling, dropout, validation split */
    double valid_fraction;          /* 0: this share of the training data is held out */
    int64_t samples;                /* 0: all of the rest is trained on; else so many of it, chosen by the seed */
    bool shuffle;                   /* true */
    bool drop_last;                 /* false: a short last batch is used (of one: joined to the batch
                                       before it); true: dropped */
    const char *checkpoint;         /* NULL; a file rewritten after every epoch (before and after it is measured) and
                                       when stopped */
    int64_t checkpoint_steps;       /* 0; also after every so many steps */
    const char *resume;             /* NULL; a checkpoint to go on from */
    ek_listener listener;           /* NULL */
    void *user;
    ek_observer *observer;          /* NULL; looks on at the run, for a report */
} ek_train_options;

EK_API ek_train_options ek_train_options_default(void);

/* Trains the net on `train`, and after each epoch measures it on `test` (may be NULL). options NULL: the defaults.
 * One seed gives the same bits for any number of threads, and of ranks with the same shards, interrupted and resumed or not.
 * Where the context has a comm all ranks call it alike; each reads its share of each batch, and rank 0 alone writes the checkpoint, which
 * all must be able to read to resume. Each rank's listener may ask to stop: all stop together, a step later at most.
 *
 *
 * A checkpoint that cannot be written, for a disk that is full or a folder that went away, ends no run: the earlier one stands,
 * the listener is told, and the next is tried at its time. Where the last one fails, the net is trained all the same. The checkpoint
 * is claimed (ek_file_claim) for the time of the run.
 *
 * EK_E_SHAPE        the data does not fit the net's input or its number of classes
 * EK_E_INTERRUPTED  the listener asked to stop; the net holds what was trained
 * EK_E_ARGUMENT     an option is out of range, or the checkpoint is of another run
 * EK_E_IO           the checkpoint is another run's to write; or all was trained, and the last checkpoint, which the
 *                   listener was told of, could not be written (so also EK_E_MEMORY) */
EK_API EK_MUST_CHECK ek_status ek_train(ek_net *net, const ek_dataset *train, const ek_dataset *test,
                                        const ek_train_options *options);

/* Finds what ek_train would refuse, its errors in their place, and trains nothing; *steps (may be NULL): how many it
 * would take. A batch too large for the memory is found in training alone. */
EK_API EK_MUST_CHECK ek_status ek_train_check(ek_net *net, const ek_dataset *train, const ek_dataset *test,
                                              const ek_train_options *options, int64_t *steps);

typedef struct ek_metrics {
    int64_t count;
    double loss;     /* mean cross-entropy */
    double accuracy; /* 0 to 1 */
    double seconds;
} ek_metrics;

/* Inference mode over the whole set, `batch` samples at a time. */
EK_API EK_MUST_CHECK ek_status ek_evaluate(ek_net *net, const ek_dataset *dataset, int64_t batch,
                                           ek_metrics *out);

/* Keeps a file for this process, which will write it when long work is done: whoever else claims it, here or on another machine
 * that shares the folder, is refused with EK_E_IO and told who has it. Nothing is written to the file itself; the claim is a lock on
 * path.lock, which the system gives up with the process, however that ends, so that what a killed process leaves is in nobody's
 * way. Where the file system has no locks, nobody is refused.
 * EK_E_IO  also: a file cannot be made there, or `path` is no regular file */
typedef struct ek_claim ek_claim;
EK_API EK_MUST_CHECK ek_status ek_file_claim(const char *path, ek_claim **out);
EK_API void ek_claim_release(ek_claim *claim);

/* Replaces a file, or makes it: written beside the path (path.unfinished), synced, then renamed, so that it is whole or as before.
 * What a process left there that was killed is taken away. */
EK_API EK_MUST_CHECK ek_status ek_file_write(const char *path, const void *data, size_t size);

/* ---------------------------------------------------------------------------------------------
 * 8. Reports
 *
 * A report is one HTML file with texts, tables and pictures: no network, no other file, light and dark, for screens of
 * any width and for print. Pictures are drawn by a script in the page: series are switched off and on in the legend,
 * values are shown where the pointer, a finger or the arrow keys stand, and what a picture or table shows is saved as
 * CSV. Without scripts the texts and tables can still be read.
 *
 * Parts stand in the page in the order in which they were added. All texts are copied and escaped; bytes that are not
 * UTF-8 appear as U+FFFD. Adding never fails by itself: the first error is kept and comes out of ek_report_write.
 */

typedef struct ek_report ek_report;

EK_API EK_MUST_CHECK ek_status ek_report_create(const char *title, ek_report **out);
EK_API void ek_report_destroy(ek_report *report);

EK_API void ek_report_heading(ek_report *report, const char *text);
EK_API void ek_report_text(ek_report *report, const char *text); /* a paragraph */

/* A table: `header` has a text for each column, `cells` one for each cell, row by row. A column whose cells all look
 * like numbers, or are empty, stands to the right. title NULL: none. */
EK_API void ek_report_table(ek_report *report, const char *title, int columns, const char *const *header, int rows,
                            const char *const *cells);

/* A number that is not finite leaves a gap. Points are joined in their order, as a rule with x rising. */
typedef struct ek_report_series {
    const char *name;
    int64_t count;
    const double *x, *y;      /* y NULL: a band alone, in the colour of the series before it */
    const double *low, *high; /* a band around y; NULL: none */
} ek_report_series;

typedef struct ek_report_chart {
    const char *title, *x_label, *y_label, *note; /* note: a sentence below; NULL: none */
    bool log_x, log_y;                            /* what is not above 0 leaves a gap there */
} ek_report_chart;

/* Lines. A series of more than 1000 points is thinned: of each run of neighbours the mean is drawn, with a band from
 * the least to the most. */
EK_API void ek_report_lines(ek_report *report, const ek_report_chart *chart, int count,
                            const ek_report_series *series);

/* Bars, one below the other: x_label names what the labels are, y_label the values; log_x is not looked at. */
EK_API void ek_report_bars(ek_report *report, const ek_report_chart *chart, int count, const char *const *labels,
                           const double *values);

/* Writes the page; more may be added, and written again, after it. The file is whole or as before.
 * EK_E_ARGUMENT  something added lacked what it needs
 * EK_E_IO        the file cannot be written; EK_E_NOT_FOUND: there is no such folder */
EK_API EK_MUST_CHECK ek_status ek_report_write(ek_report *report, const char *path);

/* ---------------------------------------------------------------------------------------------
 * 9. Observing a run
 *
 * An observer looks on at a run of ek_train (ek_train_options.observer) and keeps what its pictures need: the loss and
 * learning rate of each step, the measures of each epoch, and of each batchnorm at some 100 steps, the first ones close
 * together: how its inputs are distributed before and after the normalization, its gamma and beta, and how far the
 * running statistics are from the batch's. It changes no bit of the training and allocates nothing in a step; of a
 * batchnorm it looks at some 8,000 values each time.
 *
 * After the run, stopped or not, it holds what it has seen; with another run it begins anew. It needs the net only
 * during the run.
 */

EK_API EK_MUST_CHECK ek_status ek_observer_create(ek_observer **out);
EK_API void ek_observer_destroy(ek_observer *observer);

/* What is seen of a batchnorm at a step, in numbers that can be kept, as in a log, and told to another observer. */
enum { EK_LOOK_MEASURES = 36 };
typedef struct ek_look {
    const char *layer; /* its label */
    int64_t channels, positions;
    bool gamma, beta, running; /* it has them */
    bool frozen;               /* it normalizes by its running statistics */
    int64_t step;              /* 0: it was not looked at yet */
    /* Quantiles of the values before the normalization, at 1, 5, 25, 50, 75, 95 and 99 %, and after it; over the
     * channels, at 0, 25, 50, 75 and 100 %, of gamma, beta, |running_mean - mean|/deviation and running_var/var; the root
     * mean square of what gamma and beta moved since the first look. 0 where it has none. */
    double measure[EK_LOOK_MEASURES];
} ek_look;

/* The last look at batchnorm number `index`. false: the run has not so many. The label lives as long as the observer's run. */
EK_API bool ek_observer_look(const ek_observer *observer, int index, ek_look *look);

/* Tells an observer a run that is over, or another's, so that a report of it is the same: first EK_EVENT_START, then the
 * batchnorms, each a look with step 0, then steps in their order, the looks at them, and epochs.
 * EK_E_ARGUMENT  out of order, or not as the start says */
EK_API EK_MUST_CHECK ek_status ek_observer_retell(ek_observer *observer, const ek_event *event);
EK_API EK_MUST_CHECK ek_status ek_observer_retell_look(ek_observer *observer, const ek_look *look);

/* What was seen, as sections of a report: the run, then each batchnorm (docs/reports.md). */
EK_API void ek_report_training(ek_report *report, const ek_observer *observer);

/* A run for TensorBoard: a new event file in a folder, which is made where there is none.
 * EK_E_IO  it cannot be made */
typedef struct ek_event_file ek_event_file;
EK_API EK_MUST_CHECK ek_status ek_event_file_create(const char *folder, ek_event_file **out);
EK_API const char *ek_event_file_path(const ek_event_file *file);

/* What an event says, to be called by a listener: loss and learning rate of the steps (in a run of more than 10,000, of
 * so many of them); at an epoch's end its measures, and histograms of each normalization's gamma, beta and running
 * statistics, and of a batchnorm's inputs as the observer (may be NULL) saw them last. An epoch is on disk, for TensorBoard to
 * show, when this returns.
 * EK_E_IO  it cannot be written; later calls say so again, and write nothing */
EK_API EK_MUST_CHECK ek_status ek_event_file_add(ek_event_file *file, const ek_event *event, const ek_net *net,
                                                 const ek_observer *observer);

/* keep false: the file is taken away, as one of a run that never began. */
EK_API EK_MUST_CHECK ek_status ek_event_file_close(ek_event_file *file, bool keep);

/* ---------------------------------------------------------------------------------------------
 * 10. Auditing and mending
 */

/* Told now and then how much of a long work is done, from 0 to 1. false: stop; the work then fails with
 * EK_E_INTERRUPTED and leaves everything as it was. */
typedef bool (*ek_watch)(void *user, double share);

typedef struct ek_recalibrate_options {
    int64_t batch;        /* 128: samples taken at a time; the statistics do not depend on it, but for rounding, unless fast */
    double blend;         /* 1: running = (1-blend)*running + blend*measured; in (0, 1] */
    bool fast;            /* false; true: all normalizations in one pass, see below */
    ek_watch progress;    /* NULL */
    void *user;
} ek_recalibrate_options;

EK_API ek_recalibrate_options ek_recalibrate_options_default(void);

/* Gives every batch normalization that keeps running statistics those of the whole data set, in inference mode
 * (dropout off), one depth of the net after the other, so that each normalization is measured on the inputs that the
 * mended ones before it give. Per channel, over all m values:
 *
 *   running_mean = sum(x)/m    running_var = sum((x-mean)^2)/(m-1), or /m where the layer's convention is biased
 *
 * The moments of batches are merged in double by Chan, Golub and LeVeque's formula, weighted by their counts, so that
 * the variance between batches is kept and a short last batch counts for what it is. (Averaging the batches' own
 * statistics, as PyTorch's update_bn does, has neither.) num_batches_tracked becomes the number of batches, and the
 * model remembers that its statistics were measured. options NULL: the defaults.
 *
 * With `fast` the data is run through once instead of once for each depth. The normalizations before another are not
 * mended yet then, and their old statistics may be the very thing to be mended; so each batch is normalized by its own
 * statistics, dropout off, and what the layers read is pooled in the same exact way. Layers with no normalization before them get
 * the same statistics as without `fast`; those further down what they read behind batches' statistics, which come near the
 * others' as the batch grows.
 *
 * EK_E_ARGUMENT     there is no batch normalization with running statistics, or an option is out of range
 * EK_E_SHAPE        the data does not fit, or a channel has fewer than two values (with `fast`, in some batch)
 * EK_E_NUMERIC      what a normalization reads is not finite (the message names it); statistics cannot mend that
 * EK_E_INTERRUPTED  the progress asked to stop
 * On error the net is as it was. */
EK_API EK_MUST_CHECK ek_status ek_recalibrate(ek_net *net, const ek_dataset *dataset,
                                              const ek_recalibrate_options *options);

typedef enum ek_severity {
    EK_SEVERITY_NOTE,    /* worth knowing; nothing is wrong */
    EK_SEVERITY_WARNING, /* likely to hurt, or hurts a little */
    EK_SEVERITY_ERROR,   /* the model does not do what was trained */
} ek_severity;

/* Something found. Texts live as long as the audit. docs/audit.md explains every code. */
typedef struct ek_finding {
    ek_severity severity;
    const char *code;     /* "not-converged" */
    int layer;            /* -1: the model as a whole */
    const char *label;    /* the layer's; "" for the model */
    const char *text;     /* what is wrong, one sentence */
    const char *evidence; /* the figures that say so */
    const char *mend;     /* what mends it: a command where there is one */
    int channel_count;    /* of those that are concerned; 0: all, or none in particular */
    const int *channels;
} ek_finding;

/* How the net does on the data, one way of normalizing after another. Without labels loss and accuracy are NaN. */
typedef struct ek_audit_run {
    double loss, accuracy;
} ek_audit_run;

/* What was measured with data. "The reference" is the training data where it was given, else the data. */
typedef struct ek_audit_measured {
    int64_t count, reference_count; /* samples used */
    ek_audit_run as_is;             /* the running statistics, inference mode */
    ek_audit_run training_mode;     /* batches of options.batch by their own statistics, dropout on */
    ek_audit_run mended;            /* the reference's statistics in every layer */
    ek_audit_run adapted;           /* the data's own statistics in every layer; NaN where the reference is the data, or
                                       the two do not differ */
    double decided_otherwise;       /* share of the samples whose largest output changes from as_is to mended */
    double output_change;           /* rms change of the outputs from as_is to mended, against the rms of mended outputs
                                       about their sample's mean */
} ek_audit_measured;

/* A batch normalization with running statistics, in the order of the net. Distances compare the running statistics
 * (m_r, v_r) with measured ones (m, v):
 *
 *   mean  rms over the channels of (m_r - m)/sqrt(v + eps)
 *   var   rms over the channels of log((v_r + eps)/(v + eps)) * v/(v + eps)
 *
 * (where v < eps, in units of sqrt(max(v, v_r) + eps)).
 *
 * NaN: not measured, or the running statistics are not finite. Arrays [channels] live as long as the audit; those of
 * the data are NULL without data. */
typedef struct ek_audit_distance {
    double mean, var;
} ek_audit_distance;

typedef struct ek_audit_layer {
    int layer;
    const char *label;
    int64_t channels, batches; /* batches: num_batches_tracked */
    double eps, momentum;      /* momentum NaN: the average of all batches */
    const float *gamma;        /* NULL: none */
    const float *running_mean, *running_var;
    const double *mean, *var;  /* the reference's, with all normalizations before it mended */
    ek_audit_distance inference; /* from the reference's as this model's inference mode sees it */
    ek_audit_distance training;  /* from the reference's in training mode */
    ek_audit_distance mended;    /* from mean and var above */
    ek_audit_distance shift;     /* of the data's from the reference's, both mended; NaN: they are the same data */
    ek_audit_run swapped;        /* with the reference's statistics here and in all layers before */
    double output_change;        /* rms change of the outputs by this swap, as in ek_audit_measured */
    double share;                /* of the way from as_is to mended: its part of the fall in loss (without labels, of the
                                    output changes); may be negative; NaN where there is none to speak of */
    int rank;                    /* 1: the largest share; 0 without data */
} ek_audit_layer;

typedef struct ek_audit ek_audit;

typedef struct ek_audit_options {
    const ek_dataset *data;  /* NULL: the model alone. What it has to work on */
    const ek_dataset *train; /* NULL. What it was trained on: tells wrong statistics from unlike data */
    const char *model_name;  /* NULL: the path. Names for the commands that mend */
    const char *data_name, *train_name; /* NULL: "DATA" */
    int64_t batch;           /* 128: of the sweeps; the statistics do not depend on it, but for rounding */
    int64_t samples;         /* 10000: at most so many of either data set, drawn by a fixed seed */
    ek_watch progress;       /* NULL */
    void *user;
} ek_audit_options;

EK_API ek_audit_options ek_audit_options_default(void);

/* Examines the batch normalizations of a model file, opened as by ek_net_open_sick; the file is only read. options
 * NULL: the defaults.
 * EK_E_INTERRUPTED  the progress asked to stop
 * Others as for ek_net_open and ek_evaluate; a sickness of the model is a finding, not an error. */
EK_API EK_MUST_CHECK ek_status ek_audit_create(ek_context *context, const char *path, const ek_audit_options *options,
                                               ek_audit **out);
EK_API void ek_audit_destroy(ek_audit *audit);

/* Findings, the worst first. */
EK_API int ek_audit_finding_count(const ek_audit *audit);
EK_API const ek_finding *ek_audit_finding(const ek_audit *audit, int index);
EK_API int ek_audit_layer_count(const ek_audit *audit);
EK_API const ek_audit_layer *ek_audit_layer_at(const ek_audit *audit, int index);
EK_API const ek_audit_measured *ek_audit_measures(const ek_audit *audit); /* NULL without data */

/* ---------------------------------------------------------------------------------------------
 * 11. Folding
 */

typedef enum ek_fold_how {
    EK_FOLD_KEPT,      /* the reason says why */
    EK_FOLD_BEFORE,    /* into the weights of the layer before it */
    EK_FOLD_AFTER,     /* into the weights of the layer after it */
    EK_FOLD_AFTER_MAP, /* the same; what zero padding lets through of its constant differs from place to place, and has
                          become a layer of its own behind, `affine` with a bias for each number */
    EK_FOLD_IDENTITY,  /* it changed nothing, and is gone */
} ek_fold_how;

/* A normalization, or an affine layer. Texts live as long as the fold. */
typedef struct ek_folded {
    int layer; /* its index in the net */
    const char *label, *op;
    ek_fold_how how;
    int into; /* the layer of the net that has taken it in; -1: none */
    const char *into_label;
    const char *reason; /* why it was kept; NULL: it was not */
    double error;       /* the largest difference there between the two nets, over the largest number there is; NaN where no
                           layer has the same value in both */
} ek_folded;

/* Both nets on the same inputs, in inference mode. */
typedef struct ek_fold_run {
    const char *input;     /* "uniform", "normal", "lengths", "data", "double" */
    int64_t samples;
    double difference;     /* the largest |output of the folded net - output of the net|, */
    double relative;       /* over the largest |output| of the net in this run */
    int64_t sample, output; /* where: a sample of the run, of "data" its index in the data set; and a number of its output */
    double value, folded;  /* the two numbers there */
} ek_fold_run;

typedef struct ek_fold_options {
    const ek_dataset *data; /* NULL; inputs to compare on, beside random ones */
    int64_t samples;        /* 64: of each kind of input, those of the data spread evenly over it */
    double bound;           /* 1e-4: no run's relative difference may be larger; above 0 */
    uint64_t seed;          /* 1: of the random inputs */
    ek_watch progress;      /* NULL */
    void *user;
} ek_fold_options;

EK_API ek_fold_options ek_fold_options_default(void);

/* A net that computes the same in inference mode, with its batch normalizations folded, and the certificate for it. With
 *
 *   a = gamma/sqrt(running_var + eps)    b = beta - running_mean*a      by channel, y = a*x + b
 *
 * one goes into the layer before (convolutions of all kinds, linear; weights W, bias c),
 *
 *   W' = a*W    c' = a*c + b             by output channel
 *
 * where nothing else reads that layer; else into the layer after, where that alone reads it,
 *
 *   W' = W*a    c' = c + sum of W*b      by input channel
 *
 * and where zero padding keeps b from a part of the sum, c' is found for each place of the output. All of it is computed
 * in double and rounded once. Dropout, flatten and means over whole windows may lie between. Of several normalizations in a
 * row the later goes into gamma and beta of the earlier; affine layers with a number a channel are folded like them. Other
 * norms normalize each sample by itself, and stay. docs/fold.md has all the rules.
 *
 * The certificate: both nets run on `samples` inputs each, drawn uniformly from 0 to 1 and from the normal distribution, of
 * sequences also with random lengths, on those of the data, and on a few in double, by the reference, which shows what the
 * rounding of the folded weights alone does ("double"; not of nets that take it long). The net's plan is made anew.
 *
 * EK_E_SHAPE        the data does not fit
 * EK_E_NUMERIC      the net's own output is not finite
 * EK_E_ARGUMENT     an option is out of range
 * EK_E_INTERRUPTED  the progress asked to stop
 * A bound that does not hold is no error: ek_fold_holds says it. */
typedef struct ek_fold ek_fold;
EK_API EK_MUST_CHECK ek_status ek_fold_create(ek_net *net, const ek_fold_options *options, ek_fold **out);
EK_API void ek_fold_destroy(ek_fold *fold);

/* The folded net, which is the fold's; to be saved only where the certificate holds. */
EK_API ek_net *ek_fold_net(const ek_fold *fold);
/* Every difference is within the bound. */
EK_API bool ek_fold_holds(const ek_fold *fold);

/* In the order of the net, and of the list above. */
EK_API int ek_fold_layer_count(const ek_fold *fold);
EK_API const ek_folded *ek_fold_layer(const ek_fold *fold, int index);
EK_API int ek_fold_run_count(const ek_fold *fold);
EK_API const ek_fold_run *ek_fold_run_at(const ek_fold *fold, int index);

/* ---------------------------------------------------------------------------------------------
 * 12. Exchange
 */

/* How an ONNX model is read. */
typedef struct ek_onnx_options {
    ek_shape input;     /* rank 0: as the file says; else the shape of a sample, for a file that leaves sizes open */
    const char *output; /* NULL: the only one; else the name of the output, or of any value that a node gives, that the
                           net is to end with: such as what goes into a last Softmax, to train the net */
    bool bn_inference;  /* false; true: a batch normalization exported in training mode uses its running statistics at
                           inference, as one exported in inference mode */
} ek_onnx_options;

EK_API ek_onnx_options ek_onnx_options_default(void);

/* A network from an ONNX model (opsets 6 to 22, docs/onnx.md), which ek_net_open reads too, with the default options: an
 * ordinary net, whose notes (ek_net_note) say what was translated. options NULL: the defaults.
 * EK_E_UNSUPPORTED  nodes that no layer here does; the message names all of them, and why
 * EK_E_FORMAT       the file is damaged, or is no ONNX model
 * EK_E_SHAPE        options->input does not fit the file's, or shapes in it do not meet
 * EK_E_NOT_FOUND    there is no such file or value
 * EK_E_NUMERIC      a parameter is not finite, or a variance negative */
EK_API EK_MUST_CHECK ek_status ek_net_open_onnx(ek_context *context, const char *path, const ek_onnx_options *options,
                                                ek_net **out);

typedef enum ek_framework {
    EK_FROM_PYTORCH,
    EK_FROM_KERAS,
    EK_FROM_FLAX,
    EK_FROM_ONNX,
} ek_framework;

/* Where a tensor of the net came from. */
typedef struct ek_taken {
    const char *tensor, *source; /* "conv1.weight", "sequential/conv2d/kernel" */
    ek_shape shape, source_shape;
    const char *change;          /* "HWIO to OIHW"; "": none */
} ek_taken;

typedef struct ek_foreign_options {
    double eps;      /* NaN: batchnorm's eps is what the net says, else the framework's default. A number: this one, in all */
    double momentum; /* NaN: likewise. A number: this one, as the framework writes it; Keras, Flax and ONNX keep this share
                        of the old statistics, PyTorch takes this share of the new */
    bool keep_eps;   /* false; true: batchnorm's eps stays the net's, and gamma becomes gamma*sqrt((v + net's)/(v + theirs)) */
    void (*taken)(void *user, const ek_taken *taken); /* NULL. Told of each tensor, when all is done; valid during the call */
    void *user;
} ek_foreign_options;

EK_API ek_foreign_options ek_foreign_options_default(void);

/* The same net with the weights of a .safetensors file that another framework's arrays were written to, under the names
 * that they have there (docs/convert.md). Names are matched by the net's labels where the file has all of them, with any
 * prefix; else layer by layer in the order of the names (of the numbers in front of them, where there are), each going to
 * the first layer that it fits. Channels-last arrays are put in order, features of a flattened map too; the net's
 * normalizations take the framework's eps, momentum and kind of running variance where the net text says nothing.
 * Running statistics are copied as they are. Notes (ek_net_note) say what this means for inference and what for further
 * training alone.
 *
 * A bias that a normalization makes redundant may be missing, and num_batches_tracked. options NULL: the defaults.
 *
 * EK_E_FORMAT       a tensor or a layer is missing, left over, or nothing that a layer has
 * EK_E_SHAPE        shapes do not meet; the message says what the net needs in the framework's order
 * EK_E_NUMERIC      a value is not finite, or a variance negative
 * EK_E_UNSUPPORTED  the net has a layer whose order of numbers the framework cannot have */
EK_API EK_MUST_CHECK ek_status ek_net_take_foreign(const ek_net *net, const char *path, ek_framework from,
                                                   const ek_foreign_options *options, ek_net **out);

/* Writes the net as an ONNX model for other programs: opset 17, IR version 8, one input "input" float32 [N, input shape] and
 * one output "output" [N, output shape] of any number of samples N, in inference mode. The normalization of the input's
 * pixels is part of it, so that image bytes are given as 0 to 1. Tensors keep their names; batch normalizations stay
 * what they are, unless the net was folded before. Net text, class names and conventions stand in its metadata. docs/onnx.md
 * has what becomes what. Written beside the path, synced, then renamed: the file is whole or as before.
 * EK_E_NUMERIC      a parameter is not finite
 * EK_E_UNSUPPORTED  the file would be larger than 2^31 - 1 bytes, which is the most that ONNX files have */
EK_API EK_MUST_CHECK ek_status ek_net_save_onnx(const ek_net *net, const char *path);

/* ---------------------------------------------------------------------------------------------
 * 13. C source
 *
 * A net as one C99 source and its header, for products: no allocation, no dependency but libm, weights as constants, all working
 * memory planned beforehand. docs/c-source.md says how the files are used, and how they are made.
 */

typedef struct ek_c_options {
    const char *name;          /* NULL: from the file's name. Prefix of what is visible: NAME_predict */
    bool self_test;            /* true: a program PATH_test.c beside it, which compares with what the net gives */
    bool int8;                 /* false; true: weights and values are numbers of eight bits, ranges taken from `data` */
    const ek_dataset *data;    /* NULL; int8: samples like those to come, labels not needed */
    int64_t samples;           /* 512: at most so many of it are looked at, spread over it */
    const ek_dataset *test;    /* NULL; int8: how much is lost is measured on all of it. May be `data` */
    ek_watch progress;         /* NULL */
    void *user;
} ek_c_options;

EK_API ek_c_options ek_c_options_default(void);

/* What was written. Measures that were not taken are NaN, or 0. */
typedef struct ek_c_answer {
    char name[64];                       /* the prefix */
    int64_t weight_bytes, memory_bytes;  /* constants, and static working memory */
    int64_t multiply_adds;               /* of a run */
    double difference;                   /* the largest of an output from the net's: of the net with its normalizations folded, on
                                            the self-test's inputs; of int8 on `test` */
    int64_t test_count;                  /* int8: samples of `test` */
    double accuracy, int8_accuracy;      /* where it has labels: as floats, and as written */
    double same_class;                   /* share of them whose largest output is the same */
} ek_c_answer;

/* Writes the net, in inference mode with its batch normalizations folded (ek_net_fold), as C:
 *
 *   PATH.c, PATH.h    int NAME_predict(const float *in, float *out), and NAME_run in memory that the caller gives;
 *                     the header says sizes, layout and what is returned
 *   PATH_test.c       a program that returns 0 where the source gives what the net does
 *
 * path ends in ".c". With int8, convolutions and linear layers compute in whole numbers alone, which are the same on every machine:
 * weights symmetric by output channel, values by layer with a zero point. options NULL: the defaults; answer may be NULL. All files
 * are written beside their places and then renamed; on error, those that were there are as they were.
 *
 * EK_E_UNSUPPORTED  a layer cannot be written; the message names all of them
 * EK_E_ARGUMENT     the path or name cannot be, or int8 without data
 * EK_E_SHAPE        the data does not fit the net
 * EK_E_NUMERIC      a weight, or with int8 a value, is not finite
 * EK_E_INTERRUPTED  the progress asked to stop */
EK_API EK_MUST_CHECK ek_status ek_net_save_c(const ek_net *net, const ek_c_options *options, const char *path, ek_c_answer *answer);

/* ---------------------------------------------------------------------------------------------
 * 14. Several processes
 *
 * Ranks 0 to ranks-1 run the same program, each with a context that has the comm, and call the same functions with the same
 * arguments; what differs is which samples each reads and computes on. ek_train, ek_evaluate, ek_recalibrate and ek_audit use them; all of
 * them get the answer. evenkeel-mpi.h makes a comm of MPI's processes.
 *
 * A rank that fails, hangs or is gone is noticed by those that wait for it: they get EK_E_RANK, after which the comm is of no use,
 * and the program should end all ranks (MPI_Abort).
 */

/* Of one process (NULL) they are 0 and 1. */
EK_API int ek_comm_rank(const ek_comm *comm);
EK_API int ek_comm_ranks(const ek_comm *comm);
/* Seconds that a rank may keep others waiting, where ten times the longest that a rank computed between two exchanges is not more:
 * 10. Opening data and writing checkpoints may take any time; a batch that is read from a file counts with its step.
 * EK_E_ARGUMENT  not above 0 */
EK_API EK_MUST_CHECK ek_status ek_comm_set_timeout(ek_comm *comm, double seconds);

/* What this rank has sent so far. */
EK_API ek_traffic ek_comm_sent(const ek_comm *comm);

/* data [bytes] of rank `root` goes to all; all call it alike. NULL: nothing to do.
 * EK_E_ARGUMENT  there is no such rank
 * EK_E_RANK      another rank failed or is silent */
EK_API EK_MUST_CHECK ek_status ek_comm_broadcast(ek_comm *comm, int root, void *data, size_t bytes);

EK_API void ek_comm_destroy(ek_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
