/*
 * With g the gradient, times the clipping factor, and t the number of the update from 1:
 *
 *   SGD    g += weight_decay*w
 *          buf = momentum*buf + g                 (buf = g at t = 1)
 *          w -= lr*buf                            Nesterov: lr*(g + momentum*buf)
 *
 *   Adam   g += weight_decay*w
 *   AdamW  w -= lr*weight_decay*w                 in its place
 *          m = beta1*m + (1 - beta1)*g            exp_avg
 *          v = beta2*v + (1 - beta2)*g^2          exp_avg_sq
 *          w -= lr/(1 - beta1^t) * m/(sqrt(v)/sqrt(1 - beta2^t) + eps)
 *
 * as in torch.optim (PyTorch 1.13). Sources: Sutskever et al. 2013 for momentum, in PyTorch's form where
 * lr stands outside the buffer; Kingma and Ba 2015 (arXiv:1412.6980); Loshchilov and Hutter 2019
 * (arXiv:1711.05101). Clipping as torch.nn.utils.clip_grad_norm_ (Pascanu et al. 2013): all gradients
 * times clip/(norm + 1e-6) where that is below 1, norm being the 2-norm over all of them together.
 */
#include "train/optimizer.h"

#include "core/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* Floats: large enough to hide the cost of handing it out, and a multiple of the alignment. */
enum { CHUNK = 16384 };

ek_optimizer_options ek_optimizer_options_default(ek_optimizer kind)
{
    return (ek_optimizer_options){
        .kind = kind,
        .lr = kind == EK_OPTIMIZER_SGD ? 0.1 : 0.001,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .weight_decay = kind == EK_OPTIMIZER_ADAMW ? 0.01 : 0,
        .decay_norm_and_bias = true,
    };
}

/* The kernels compute in float. */
static bool is_float(double value, double low) { return value >= low && value <= FLT_MAX; }

static ek_status check_fraction(const char *name, double value)
{
    if (value >= 0 && value < 1) return EK_OK;
    return ek_fail(EK_E_ARGUMENT, "%s must be from 0 to below 1, not %g", name, value);
}

ek_status ek_optimizer_check(const ek_optimizer_options *o)
{
    if (o->kind != EK_OPTIMIZER_SGD && o->kind != EK_OPTIMIZER_ADAM && o->kind != EK_OPTIMIZER_ADAMW)
        return ek_fail(EK_E_ARGUMENT, "there is no optimizer number %d", (int)o->kind);
    if (!is_float(o->lr, 0))
        return ek_fail(EK_E_ARGUMENT, "the learning rate must be 0 or more, and finite, not %g", o->lr);
    if (!is_float(o->weight_decay, 0))
        return ek_fail(EK_E_ARGUMENT, "weight decay must be 0 or more, and finite, not %g", o->weight_decay);
    if (!is_float(o->clip_norm, 0))
        return ek_fail(EK_E_ARGUMENT,
                       "the gradient's largest norm must be 0 (off) or more, and finite, not %g",
                       o->clip_norm);
    if (o->kind == EK_OPTIMIZER_SGD) {
        EK_TRY(check_fraction("momentum", o->momentum));
        if (o->nesterov && o->momentum == 0)
            return ek_fail(EK_E_ARGUMENT, "Nesterov needs a momentum above 0");
        return EK_OK;
    }
    EK_TRY(check_fraction("beta1", o->beta1));
    EK_TRY(check_fraction("beta2", o->beta2));
    if (!is_float(o->eps, FLT_MIN))
        return ek_fail(EK_E_ARGUMENT, "Adam's eps must be above 0, and finite, not %g", o->eps);
    return EK_OK;
}

/* The state arrays of one tensor. */
static ek_status add_state(ek_optimizer_state *state, int index, int64_t count)
{
    bool adam = state->options.kind != EK_OPTIMIZER_SGD;
    if (adam || state->options.momentum > 0) EK_TRY(EK_NEW(state->first[index], (size_t)count));
    if (adam) EK_TRY(EK_NEW(state->second[index], (size_t)count));
    return EK_OK;
}

static float *at(float *array, int64_t offset) { return array ? array + offset : NULL; }

static void add_chunks(ek_optimizer_state *state, const ek_tensor *tensor, int index, int64_t count)
{
    bool decays = tensor->role == EK_ROLE_WEIGHT || state->options.decay_norm_and_bias;
    for (int64_t from = 0; from < count; from += CHUNK) {
        state->chunk[state->chunks++] = (ek_optimizer_chunk){
            .count = count - from < CHUNK ? count - from : CHUNK,
            .w = tensor->data + from,
            .grad = tensor->grad + from,
            .first = at(state->first[index], from),
            .second = at(state->second[index], from),
            .decays = decays,
            .place = (double)from / (double)count,
            .tensor = index,
        };
    }
}

/* By their place within their tensor, not tensor by tensor: a thread takes a run of chunks, and so updates the part of
 * every tensor whose gradient it computed, which lies in its cache. */
static int by_place(const void *a, const void *b)
{
    const ek_optimizer_chunk *x = a, *y = b;
    return x->place != y->place ? (x->place > y->place) - (x->place < y->place) : x->tensor - y->tensor;
}

ek_status ek_optimizer_create(ek_net *net, const ek_optimizer_options *options, ek_optimizer_state **out)
{
    EK_TRY(ek_optimizer_check(options));
    ek_optimizer_state *state;
    EK_TRY(EK_NEW(state, 1));
    ek_status status = EK_OK;
    state->options = *options;
    state->count = ek_net_tensor_count(net);
    EK_GO(EK_NEW(state->first, (size_t)state->count));
    EK_GO(EK_NEW(state->second, (size_t)state->count));
    int64_t chunks = 0;
    for (int i = 0; i < state->count; i++) {
        ek_tensor tensor = ek_net_tensor(net, i);
        if (!tensor.grad) continue;
        int64_t count = ek_shape_count(tensor.shape);
        EK_GO(add_state(state, i, count));
        chunks += (count + CHUNK - 1) / CHUNK;
    }
    EK_GO(EK_NEW(state->chunk, (size_t)chunks));
    EK_GO(EK_NEW(state->measure, (size_t)chunks));
    for (int i = 0; i < state->count; i++) {
        ek_tensor tensor = ek_net_tensor(net, i);
        if (tensor.grad) add_chunks(state, &tensor, i, ek_shape_count(tensor.shape));
    }
    qsort(state->chunk, (size_t)state->chunks, sizeof *state->chunk, by_place);
done:
    if (status == EK_OK)
        *out = state;
    else
        ek_optimizer_destroy(state);
    return status;
}

void ek_optimizer_destroy(ek_optimizer_state *state)
{
    if (!state) return;
    for (int i = 0; i < state->count; i++) {
        if (state->first) ek_free(state->first[i]);
        if (state->second) ek_free(state->second[i]);
    }
    ek_free(state->first);
    ek_free(state->second);
    ek_free(state->chunk);
    ek_free(state->measure);
    ek_free(state);
}

typedef struct update {
    const ek_kernels *kernels;
    ek_optimizer_state *state;
    ek_sgd_step sgd;
    ek_adam_step adam;
} update;

/* The squares' sum, which only clipping needs; NaN where the gradient is not finite. */
static void measure_chunk(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const update *u = argument;
    const ek_optimizer_chunk *chunk = &u->state->chunk[piece];
    double *measure = &u->state->measure[piece];
    if (!u->kernels->all_finite(chunk->count, chunk->grad))
        *measure = NAN;
    else
        *measure = u->state->options.clip_norm > 0 ? u->kernels->sum_squares(chunk->count, chunk->grad) : 0;
}

static void update_chunk(void *argument, int64_t piece, int thread)
{
    (void)thread;
    const update *u = argument;
    const ek_optimizer_chunk *chunk = &u->state->chunk[piece];
    if (u->state->options.kind == EK_OPTIMIZER_SGD) {
        ek_sgd_step step = u->sgd;
        if (!chunk->decays) step.weight_decay = 0;
        u->kernels->sgd(&step, chunk->count, chunk->w, chunk->grad, chunk->first);
    } else {
        ek_adam_step step = u->adam;
        if (!chunk->decays) step.weight_decay = 0;
        u->kernels->adam(&step, chunk->count, chunk->w, chunk->grad, chunk->first, chunk->second);
    }
}

bool ek_optimizer_update(ek_net *net, ek_optimizer_state *state, double lr)
{
    const ek_optimizer_options *o = &state->options;
    update u = {.kernels = net->context->kernels, .state = state};
    ek_pool_run(net->context->pool, state->chunks, measure_chunk, &u);
    double squares = 0;
    for (int64_t i = 0; i < state->chunks; i++) squares += state->measure[i];
    if (!isfinite(squares)) return false;
    double scale = o->clip_norm > 0 ? fmin(1, o->clip_norm / (sqrt(squares) + 1e-6)) : 1;

    double t = (double)++state->step;
    u.sgd = (ek_sgd_step){
        .lr = (float)lr,
        .momentum = (float)o->momentum,
        .weight_decay = (float)o->weight_decay,
        .grad_scale = (float)scale,
        .nesterov = o->nesterov,
        .first = state->step == 1,
    };
    u.adam = (ek_adam_step){
        .lr = lr,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .eps = o->eps,
        .weight_decay = o->weight_decay,
        .grad_scale = scale,
        .correction1 = 1 - pow(o->beta1, t),
        .correction2_sqrt = sqrt(1 - pow(o->beta2, t)),
        .decoupled = o->kind == EK_OPTIMIZER_ADAMW,
    };
    ek_pool_run(net->context->pool, state->chunks, update_chunk, &u);
    return true;
}
