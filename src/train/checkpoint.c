#include "train/checkpoint.h"

#include "core/memory.h"
#include "formats/model_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY "evenkeel.train."

/* --- What the run is: options by name, as texts that must be equal in the checkpoint. Those that its kind of
 * optimizer or schedule does not read are left out. */

enum { MAX_FACTS = 24, MAX_VALUE = 48 };

typedef struct fact {
    const char *name;
    char value[MAX_VALUE];
} fact;

typedef struct facts {
    int count;
    fact at[MAX_FACTS];
} facts;

static void add_text(facts *f, const char *name, const char *value)
{
    fact *added = &f->at[f->count++];
    added->name = name;
    snprintf(added->value, sizeof added->value, "%s", value);
}

static void add_whole(facts *f, const char *name, int64_t value)
{
    char text[MAX_VALUE];
    snprintf(text, sizeof text, "%" PRId64, value);
    add_text(f, name, text);
}

static void add_real(facts *f, const char *name, double value)
{
    char text[EK_REAL_TEXT];
    add_text(f, name, ek_real_text(value, text));
}

static void add_flag(facts *f, const char *name, bool value) { add_text(f, name, value ? "true" : "false"); }

static void describe_optimizer(const ek_optimizer_options *o, facts *f)
{
    static const char *const names[] = {"sgd", "adam", "adamw"};
    add_text(f, "optimizer", names[o->kind]);
    add_real(f, "lr", o->lr);
    add_real(f, "weight_decay", o->weight_decay);
    add_flag(f, "decay_norm_and_bias", o->decay_norm_and_bias);
    add_real(f, "clip_norm", o->clip_norm);
    if (o->kind == EK_OPTIMIZER_SGD) {
        add_real(f, "momentum", o->momentum);
        add_flag(f, "nesterov", o->nesterov);
    } else {
        add_real(f, "beta1", o->beta1);
        add_real(f, "beta2", o->beta2);
        add_real(f, "eps", o->eps);
    }
}

static void describe_schedule(const ek_train_options *o, facts *f)
{
    static const char *const names[] = {"constant", "step", "cosine"};
    add_text(f, "schedule", names[o->schedule]);
    add_real(f, "warmup_epochs", o->warmup_epochs);
    if (o->schedule == EK_SCHEDULE_STEP) {
        add_whole(f, "step_epochs", o->step_epochs);
        add_real(f, "decay", o->decay);
    }
    /* The cosine ends with the run; with the others, a longer run begins like a shorter one. */
    if (o->schedule == EK_SCHEDULE_COSINE) add_whole(f, "epochs", o->epochs);
}

/* Older checkpoints lack what there was not yet. */
static const char accumulate_name[] = "accumulate", shards_name[] = "shards", bn_name[] = "bn";

static const char *before(const char *name)
{
    if (!strcmp(name, accumulate_name) || !strcmp(name, shards_name)) return "1";
    return strcmp(name, bn_name) ? NULL : "sync";
}

static facts describe(const ek_run *run)
{
    const ek_train_options *o = run->options;
    facts f = {0};
    char seed[MAX_VALUE];
    snprintf(seed, sizeof seed, "%" PRIu64, o->seed);
    add_text(&f, "seed", seed);
    char samples[MAX_VALUE];
    if (o->samples > 0) {
        snprintf(samples, sizeof samples, "%" PRId64 " of %" PRId64, o->samples, run->data_count);
        add_text(&f, "samples", samples);
    } else {
        add_whole(&f, "samples", run->data_count);
    }
    add_real(&f, "valid_fraction", o->valid_fraction);
    add_whole(&f, "batch", o->batch);
    add_whole(&f, accumulate_name, o->accumulate);
    add_whole(&f, shards_name, run->shards);
    add_text(&f, bn_name, o->local_bn && run->shards > 1 ? "local" : "sync");
    add_flag(&f, "shuffle", o->shuffle);
    add_flag(&f, "drop_last", o->drop_last);
    describe_optimizer(&o->optimizer, &f);
    describe_schedule(o, &f);
    return f;
}

/* FNV-1a. */
static void hash_bytes(uint64_t *hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) *hash = (*hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
}

uint64_t ek_run_options_hash(const ek_run *run)
{
    facts f = describe(run);
    uint64_t hash = 0xcbf29ce484222325;
    for (int i = 0; i < f.count; i++) {
        hash_bytes(&hash, f.at[i].name, strlen(f.at[i].name));
        hash_bytes(&hash, f.at[i].value, strlen(f.at[i].value) + 1);
    }
    return hash;
}

uint64_t ek_net_hash(const ek_net *net)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor((ek_net *)net, i);
        if (t.data) hash_bytes(&hash, t.data, (size_t)ek_shape_count(t.shape) * sizeof *t.data);
        if (t.counter) hash_bytes(&hash, t.counter, sizeof *t.counter);
    }
    return hash;
}

/* --- Where it stands */

typedef struct place {
    const char *name;
    int64_t *value;
} place;

enum { PLACES = 5 };

static void list_places(ek_progress *p, place out[PLACES])
{
    const place list[PLACES] = {
        {KEY "epochs_done", &p->epoch},     {KEY "steps_done", &p->step},       {KEY "skipped", &p->skipped},
        {KEY "epoch_samples", &p->samples}, {KEY "epoch_correct", &p->correct},
    };
    memcpy(out, list, sizeof list);
}

static const char loss_key[] = KEY "epoch_loss_sum";

/* --- The optimizer's tensors */

static const char *first_name(const ek_optimizer_state *state)
{
    return state->options.kind == EK_OPTIMIZER_SGD ? "momentum_buffer" : "exp_avg";
}

static const char second_name[] = "exp_avg_sq";

typedef ek_status (*state_visitor)(void *argument, const char *name, ek_shape shape, float *data);

static ek_status visit(const char *kind, const ek_tensor *tensor, float *data, state_visitor visitor,
                       void *argument)
{
    if (!data) return EK_OK;
    char *name = ek_strf(EK_OPTIMIZER_LABEL ".%s.%s", kind, tensor->name);
    if (!name) return EK_E_MEMORY;
    ek_status status = visitor(argument, name, tensor->shape, data);
    ek_free(name);
    return status;
}

static ek_status for_each_state(const ek_trainer *trainer, state_visitor visitor, void *argument)
{
    const ek_optimizer_state *state = trainer->optimizer;
    for (int i = 0; i < state->count; i++) {
        ek_tensor tensor = ek_net_tensor(trainer->net, i);
        EK_TRY(visit(first_name(state), &tensor, state->first[i], visitor, argument));
        EK_TRY(visit(second_name, &tensor, state->second[i], visitor, argument));
    }
    return EK_OK;
}

/* --- Writing */

/* What reading would refuse does not take the place of a checkpoint that is sound. */
static ek_status write_state(void *writer, const char *name, ek_shape shape, float *data)
{
    for (int64_t i = 0; i < ek_shape_count(shape); i++) {
        if (!isfinite(data[i]))
            return ek_fail(EK_E_NUMERIC,
                           "tensor %s holds a value that is not finite, and such a checkpoint is not "
                           "written; a smaller learning rate or clipping usually helps",
                           name);
    }
    return ek_st_add(writer, name, EK_NUMBER_F32, shape.rank, shape.dim, data);
}

static ek_status add_metadata(ek_st_writer *writer, const ek_run *run)
{
    facts f = describe(run);
    char key[64], value[MAX_VALUE];
    for (int i = 0; i < f.count; i++) {
        snprintf(key, sizeof key, KEY "%s", f.at[i].name);
        EK_TRY(ek_st_add_metadata(writer, key, f.at[i].value));
    }
    ek_progress progress = run->progress;
    place places[PLACES];
    list_places(&progress, places);
    for (int i = 0; i < PLACES; i++) {
        snprintf(value, sizeof value, "%" PRId64, *places[i].value);
        EK_TRY(ek_st_add_metadata(writer, places[i].name, value));
    }
    char loss[EK_REAL_TEXT];
    return ek_st_add_metadata(writer, loss_key, ek_real_text(progress.loss_sum, loss));
}

ek_status ek_checkpoint_write(const ek_run *run, const char *path)
{
    ek_st_writer writer = {0};
    ek_status status = EK_OK;
    EK_GO(ek_model_add(run->trainer->net, &writer));
    EK_GO(for_each_state(run->trainer, write_state, &writer));
    EK_GO(add_metadata(&writer, run));
    EK_GO(ek_st_write(&writer, path));
done:
    ek_st_writer_free(&writer);
    return status;
}

/* --- Reading */

static ek_status check_same_run(const ek_run *run, const ek_safetensors *file, const char *path)
{
    facts f = describe(run);
    char key[64];
    for (int i = 0; i < f.count; i++) {
        snprintf(key, sizeof key, KEY "%s", f.at[i].name);
        const char *there = ek_safetensors_metadata(file, key);
        if (!there) there = before(f.at[i].name);
        if (!there) return ek_fail(EK_E_FORMAT, "%s is a damaged checkpoint: it lacks %s", path, key);
        if (!strcmp(there, f.at[i].value)) continue;
        const char *why = "resume with the options and data that it began with";
        if (!strcmp(f.at[i].name, "epochs")) why = "a cosine schedule is laid out for its number of epochs";
        if (!strcmp(f.at[i].name, shards_name)) why = "the bits depend on the shards, of which ranks may have one or more each";
        return ek_fail(EK_E_ARGUMENT, "%s is of another run: its %s is %.48s, not %s; %s", path, f.at[i].name,
                       there, f.at[i].value, why);
    }
    return EK_OK;
}

static ek_status check_same_net(const ek_net *net, const ek_safetensors *file, const char *path)
{
    ek_net *there;
    EK_TRY(ek_model_net(net->context, file, path, &there));
    bool same = !strcmp(ek_net_text(there), ek_net_text(net));
    ek_net_destroy(there);
    return same
               ? EK_OK
               : ek_fail(EK_E_ARGUMENT, "%s is of another run: its net is another; `summary` shows it", path);
}

static ek_status damaged(const char *path, const char *key, const char *value)
{
    return ek_fail(EK_E_FORMAT, "%s is a damaged checkpoint: %s is %.48s", path, key,
                   value ? value : "missing");
}

static bool parse_whole(const char *text, int64_t *out)
{
    if (!text || *text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end) return false;
    *out = value;
    return true;
}

/* The numbers in range, one by one and together. */
static ek_status read_progress(const ek_run *run, const ek_safetensors *file, const char *path,
                               ek_progress *out)
{
    place places[PLACES];
    list_places(out, places);
    for (int i = 0; i < PLACES; i++) {
        const char *text = ek_safetensors_metadata(file, places[i].name);
        if (!parse_whole(text, places[i].value)) return damaged(path, places[i].name, text);
    }
    const char *text = ek_safetensors_metadata(file, loss_key);
    if (!text || !ek_read_real(text, text + strlen(text), &out->loss_sum) ||
        !(out->loss_sum >= 0 && isfinite(out->loss_sum)))
        return damaged(path, loss_key, text);

    int64_t steps;
    bool sound = out->step <= run->steps_per_epoch &&
                 !__builtin_mul_overflow(out->epoch, run->steps_per_epoch, &steps) &&
                 !__builtin_add_overflow(steps, out->step, &steps) && out->skipped <= steps &&
                 out->samples <= run->train_count && out->correct <= out->samples;
    if (!sound)
        return ek_fail(EK_E_FORMAT, "%s is a damaged checkpoint: its position lies outside the run", path);
    if (out->epoch + (out->step > 0) > run->options->epochs)
        return ek_fail(EK_E_ARGUMENT,
                       "%s has come %" PRId64 " epochs far, and epochs is %" PRId64 "; ask for more epochs",
                       path, out->epoch + (out->step > 0), run->options->epochs);
    return EK_OK;
}

static ek_status read_state(void *argument, const char *name, ek_shape shape, float *data)
{
    const ek_st_tensor *tensor = ek_safetensors_find(argument, name);
    if (!tensor) return ek_fail(EK_E_FORMAT, "tensor %s is missing", name);
    bool same =
        tensor->rank == shape.rank && !memcmp(tensor->dim, shape.dim, sizeof *shape.dim * (size_t)shape.rank);
    if (!same) return ek_fail(EK_E_FORMAT, "tensor %s has another shape than its parameter", name);
    EK_TRY(ek_st_to_float(tensor, data));
    static const char squares[] = EK_OPTIMIZER_LABEL ".exp_avg_sq.";
    bool square = !strncmp(name, squares, strlen(squares));
    for (int64_t i = 0; i < tensor->count; i++) {
        if (!isfinite(data[i]))
            return ek_fail(EK_E_FORMAT, "tensor %s holds a value that is not finite", name);
        if (square && data[i] < 0)
            return ek_fail(EK_E_FORMAT, "tensor %s holds a negative mean of squares", name);
    }
    return EK_OK;
}

ek_status ek_checkpoint_read(ek_run *run, const char *path)
{
    ek_trainer *trainer = run->trainer;
    ek_progress progress;
    ek_safetensors file = {0};
    EK_TRY(ek_safetensors_read(path, &file));
    ek_status status = EK_OK;
    if (!ek_safetensors_metadata(&file, KEY "seed")) {
        status = ek_fail(
            EK_E_FORMAT,
            "%s is not a checkpoint; to train a model on, give it as the net or as initial weights", path);
        goto done;
    }
    EK_GO(check_same_net(trainer->net, &file, path));
    EK_GO(check_same_run(run, &file, path));
    EK_GO(read_progress(run, &file, path, &progress));
    status = for_each_state(trainer, read_state, &file);
    if (status != EK_OK) {
        ek_fail_in(status, "%s is a damaged checkpoint: ", path);
        goto done;
    }
    EK_GO(ek_net_set_metadata(trainer->net, EK_RUN_KEY, ek_safetensors_metadata(&file, EK_RUN_KEY)));
    EK_GO(ek_model_take(trainer->net, &file, path, false));
    run->progress = progress;
    trainer->step = ek_run_steps(run);
    trainer->optimizer->step = trainer->step - progress.skipped;
done:
    ek_safetensors_free(&file);
    return status;
}
