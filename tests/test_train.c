/* Single steps, whole runs, and runs that were interrupted and resumed. */
#include "testing.h"

#include "core/memory.h"
#include "core/random.h"
#include "data/dataset.h"
#include "formats/safetensors.h"
#include "train/evaluate.h"
#include "train/schedule.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Both layouts, both kinds of BN, dropout, and a redundant bias. */
static const char net_text[] = "input 1x6x6\n"
                               "c: conv 4 kernel=3\n"
                               "cn: batchnorm\n"
                               "relu\n"
                               "flatten\n"
                               "dropout 0.1\n"
                               "f: linear 10\n"
                               "fn: batchnorm\n"
                               "sigmoid\n"
                               "out: linear 3\n";

enum { FEATURES = 36, CLASSES = 3 };

static ek_context *context;
static char folder[] = "/tmp/evenkeel-train-XXXXXX";
static char checkpoint_path[sizeof folder + 32], changed_path[sizeof folder + 32];

static ek_context *context_of(int threads)
{
    ek_context *made;
    ek_context_options options = ek_context_options_default();
    options.threads = threads;
    assert_ok(ek_context_create(&options, &made));
    return made;
}

static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/checkpoint.safetensors", folder);
    snprintf(changed_path, sizeof changed_path, "%s/changed.safetensors", folder);
    context = context_of(2);
    return 0;
}

static int end(void **state)
{
    (void)state;
    ek_context_destroy(context);
    unlink(checkpoint_path);
    unlink(changed_path);
    return rmdir(folder); /* fails where something was left behind */
}

/* --- data and nets */

/* Noise with a third of the image brighter, by the class. */
static ek_dataset *make_data(int64_t count, uint64_t seed)
{
    ek_dataset *data;
    assert_ok(EK_NEW(data, 1));
    *data = (ek_dataset){.count = count, .shape = {3, {1, 6, 6}}, .item = FEATURES, .classes = CLASSES};
    assert_ok(EK_NEW(data->label, (size_t)count));
    assert_ok(EK_NEW(data->floats, (size_t)(count * FEATURES)));
    ek_random random = ek_random_start(seed, EK_STREAM_TEST, 0);
    for (int64_t i = 0; i < count; i++) {
        int label = data->label[i] = (int32_t)ek_random_below(&random, CLASSES);
        for (int j = 0; j < FEATURES; j++) {
            double light = j / (FEATURES / CLASSES) == label ? 0.2 : 0;
            data->floats[i * FEATURES + j] = (float)(0.7 * ek_random_uniform(&random) + light);
        }
    }
    return data;
}

static ek_net *make_net(ek_context *of)
{
    ek_net *net;
    assert_ok(ek_net_create(of, net_text, NULL, &net));
    return net;
}

static size_t tensor_bytes(const ek_tensor *tensor)
{
    return tensor->counter ? sizeof *tensor->counter : (size_t)ek_shape_count(tensor->shape) * sizeof(float);
}

static const void *tensor_data(const ek_tensor *tensor)
{
    return tensor->counter ? (const void *)tensor->counter : tensor->data;
}

static void assert_same_bits(const ek_net *a, const ek_net *b)
{
    assert_int_equal(ek_net_tensor_count(a), ek_net_tensor_count(b));
    for (int i = 0; i < ek_net_tensor_count(a); i++) {
        ek_tensor x = ek_net_tensor(a, i), y = ek_net_tensor(b, i);
        if (memcmp(tensor_data(&x), tensor_data(&y), tensor_bytes(&x))) fail_msg("%s differs", x.name);
    }
}

static void copy_tensors(const ek_net *from, ek_net *to)
{
    for (int i = 0; i < ek_net_tensor_count(from); i++) {
        ek_tensor x = ek_net_tensor(from, i), y = ek_net_tensor(to, i);
        memcpy(y.counter ? (void *)y.counter : y.data, tensor_data(&x), tensor_bytes(&x));
    }
}

/* --- a listener that remembers, and stops when told to */

typedef struct record {
    int64_t stop_at; /* step, 0: never */
    int starts, steps, skips, epochs, checkpoints;
    double loss[64];             /* by step */
    double phase_seconds[EK_PHASES]; /* of the steps of the present epoch */
    ek_event start, step, epoch; /* the last of each */
} record;

static bool listen(void *user, const ek_event *event)
{
    record *r = user;
    switch (event->kind) {
    case EK_EVENT_START:
        r->starts++;
        r->start = *event;
        memset(r->phase_seconds, 0, sizeof r->phase_seconds);
        break;
    case EK_EVENT_STEP:
        if (r->steps < 64) r->loss[r->steps] = event->loss;
        r->steps++;
        r->skips += event->step_skipped;
        r->step = *event;
        for (int i = 0; i < EK_PHASES; i++) r->phase_seconds[i] += event->phase_seconds[i];
        return event->step != r->stop_at;
    case EK_EVENT_EPOCH:
        r->epochs++;
        r->epoch = *event;
        assert_memory_equal(r->phase_seconds, event->phase_seconds, sizeof r->phase_seconds);
        memset(r->phase_seconds, 0, sizeof r->phase_seconds);
        break;
    case EK_EVENT_CHECKPOINT:
        r->checkpoints++;
        assert_string_equal(event->path, checkpoint_path);
        break;
    }
    return true;
}

static ek_train_options options_for(record *r)
{
    ek_train_options options = ek_train_options_default();
    options.epochs = 3;
    options.batch = 16;
    options.optimizer.momentum = 0.9;
    options.listener = listen;
    options.user = r;
    return options;
}

/* --- single steps */

static void a_step_trains_and_allocates_nothing(void **state)
{
    (void)state;
    ek_net *net = make_net(context);
    ek_dataset *data = make_data(64, 1);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    ek_trainer *trainer;
    ek_step_result first, last;
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step(trainer, 64, data->floats, data->label, &first));
    assert_ok(ek_trainer_set_lr(trainer, 0.01));
    uint64_t allocations = ek_memory_count().allocations;
    for (int i = 0; i < 50; i++) assert_ok(ek_trainer_step(trainer, 64, data->floats, data->label, &last));
    assert_int_equal(ek_memory_count().allocations, allocations);
    assert_true(fabs(first.loss - log(CLASSES)) < 0.5);
    assert_true(last.loss < 0.5 * first.loss);
    assert_true(last.correct > 50 && !last.skipped);
    ek_trainer_destroy(trainer);
    ek_dataset_destroy(data);
    ek_net_destroy(net);
}

/* From weights of zero every class has probability 1/3: loss log(3), a bias's gradient 1/3 - its share. */
static void loss_and_gradient_are_the_means(void **state)
{
    (void)state;
    enum { N = 100 }; /* several pieces of work */
    ek_net *net;
    ek_dataset *data = make_data(N, 1);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_trainer *trainer;
    ek_step_result result;
    ek_tensor weight, bias;
    assert_ok(ek_net_create(context, "input 1x6x6\nflatten\nout: linear 3\n", NULL, &net));
    assert_ok(ek_net_find_tensor(net, "out.weight", &weight));
    assert_ok(ek_net_find_tensor(net, "out.bias", &bias));
    memset(weight.data, 0, tensor_bytes(&weight));
    memset(bias.data, 0, tensor_bytes(&bias));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step(trainer, N, data->floats, data->label, &result));
    int share[CLASSES] = {0};
    for (int i = 0; i < N; i++) share[data->label[i]]++;
    assert_true(fabs(result.loss - log(CLASSES)) < 1e-6);
    assert_int_equal(result.correct, share[0]); /* the first of equals is taken */
    for (int c = 0; c < CLASSES; c++)
        assert_true(fabs(bias.grad[c] - (1.0 / CLASSES - share[c] / (double)N)) < 1e-6);
    for (int c = 0; c < CLASSES; c++) assert_true(bias.data[c] == -0.1f * bias.grad[c]);
    ek_trainer_destroy(trainer);
    ek_dataset_destroy(data);
    ek_net_destroy(net);
}

/* Of whole batches and of parts; the listener checks that an epoch's are the sums of its steps'. */
static void a_step_knows_where_its_time_went(void **state)
{
    (void)state;
    ek_dataset *data = make_data(40, 1);
    for (int accumulate = 1; accumulate <= 2; accumulate++) {
        record r = {0};
        ek_train_options options = options_for(&r);
        ek_net *net = make_net(context);
        options.accumulate = accumulate;
        assert_ok(ek_train(net, data, NULL, &options));
        double sum = 0;
        for (int i = 0; i < EK_PHASES; i++) {
            assert_true(r.step.phase_seconds[i] > 0 || i == EK_PHASE_EXCHANGE);
            sum += r.step.phase_seconds[i];
        }
        assert_true(sum < r.step.seconds);
        ek_net_destroy(net);
    }
    ek_dataset_destroy(data);
}

static void each_step_has_its_own_dropout(void **state)
{
    (void)state;
    ek_dataset *data = make_data(32, 1);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_step_result result[2][3];
    options.lr = 0;
    for (int run = 0; run < 2; run++) {
        ek_net *net = make_net(context);
        ek_trainer *trainer;
        assert_ok(ek_trainer_create(net, &options, 1, &trainer));
        for (int i = 0; i < 3; i++)
            assert_ok(ek_trainer_step(trainer, 32, data->floats, data->label, &result[run][i]));
        ek_trainer_destroy(trainer);
        ek_net_destroy(net);
    }
    assert_true(result[0][0].loss != result[0][1].loss && result[0][1].loss != result[0][2].loss);
    for (int i = 0; i < 3; i++) assert_true(result[0][i].loss == result[1][i].loss);
    ek_dataset_destroy(data);
}

static void bad_labels_and_rates_are_refused(void **state)
{
    (void)state;
    ek_net *net = make_net(context), *before = make_net(context);
    ek_dataset *data = make_data(8, 1);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_trainer *trainer;
    ek_step_result result;
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    data->label[5] = 3;
    assert_fails(EK_E_ARGUMENT, "labels[5] is 3",
                 ek_trainer_step(trainer, 8, data->floats, data->label, &result));
    data->label[2] = -1;
    assert_fails(EK_E_ARGUMENT, "labels[2] is -1",
                 ek_trainer_step(trainer, 8, data->floats, data->label, &result));
    assert_fails(EK_E_SHAPE, "at least one", ek_trainer_step(trainer, 0, data->floats, data->label, &result));
    assert_fails(EK_E_SHAPE, "fn", ek_trainer_step(trainer, 1, data->floats, data->label, &result));
    assert_fails(EK_E_ARGUMENT, "learning rate", ek_trainer_set_lr(trainer, NAN));
    options.lr = -1;
    ek_trainer *none = NULL;
    assert_fails(EK_E_ARGUMENT, "learning rate", ek_trainer_create(net, &options, 1, &none));
    assert_null(none);
    assert_same_bits(net, before);
    ek_trainer_destroy(trainer);
    ek_dataset_destroy(data);
    ek_net_destroy(before);
    ek_net_destroy(net);
}

static void a_net_without_one_number_a_class_is_refused(void **state)
{
    (void)state;
    ek_net *net;
    ek_trainer *trainer;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_net_create(context, "input 1x6x6\nconv 3 kernel=3\n", NULL, &net));
    assert_fails(EK_E_SHAPE, "3x4x4", ek_trainer_create(net, &options, 1, &trainer));
    ek_net_destroy(net);
    assert_ok(ek_net_create(context, "input 6\nlinear 3\nsoftmax\n", NULL, &net));
    assert_fails(EK_E_ARGUMENT, "leave that line out", ek_trainer_create(net, &options, 1, &trainer));
    ek_net_destroy(net);
}

/* A softmax at the end changes what a net gives, not how it is measured. */
static void a_softmax_at_the_end_changes_no_measure(void **state)
{
    (void)state;
    ek_dataset *data = make_data(40, 1);
    ek_metrics metrics[2];
    for (int i = 0; i < 2; i++) {
        ek_net *net;
        assert_ok(
            ek_net_create(context, i ? "input 36\nlinear 5\nsoftmax" : "input 36\nlinear 5", NULL, &net));
        assert_ok(ek_evaluate(net, data, 16, &metrics[i]));
        ek_net_destroy(net);
    }
    assert_true(metrics[0].loss == metrics[1].loss);
    assert_true(metrics[0].accuracy == metrics[1].accuracy);
    ek_dataset_destroy(data);
}

/* A NaN in the input makes the loss NaN; large logits behind a BN of tiny values make a gradient infinite. */
static void a_skipped_step_changes_no_tensor(void **state)
{
    (void)state;
    ek_net *net = make_net(context), *before = make_net(context);
    ek_dataset *data = make_data(32, 1);
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    ek_trainer *trainer;
    ek_step_result result;
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_step(trainer, 32, data->floats, data->label, &result));
    assert_false(result.skipped);
    copy_tensors(net, before);
    float held = data->floats[100];
    data->floats[100] = NAN;
    assert_ok(ek_trainer_step(trainer, 32, data->floats, data->label, &result));
    assert_true(result.skipped && !isfinite(result.loss));
    assert_same_bits(net, before);
    assert_int_equal(trainer->optimizer->step, 1);
    data->floats[100] = held;

    ek_tensor f, out;
    assert_ok(ek_net_find_tensor(net, "f.weight", &f));
    assert_ok(ek_net_find_tensor(net, "out.weight", &out));
    for (int64_t i = 0; i < ek_shape_count(f.shape); i++) f.data[i] *= 1e-9f;
    for (int64_t i = 0; i < ek_shape_count(out.shape); i++) out.data[i] = i < 10 ? 3e37f : -3e37f;
    copy_tensors(net, before);
    assert_ok(ek_trainer_step(trainer, 32, data->floats, data->label, &result));
    assert_true(result.skipped && isfinite(result.loss));
    assert_same_bits(net, before);
    ek_trainer_destroy(trainer);
    ek_dataset_destroy(data);
    ek_net_destroy(before);
    ek_net_destroy(net);
}

/* --- whole runs */

static void a_run_learns_and_tells(void **state)
{
    (void)state;
    record r = {0};
    ek_net *net = make_net(context);
    ek_dataset *data = make_data(400, 1), *test = make_data(150, 2);
    ek_train_options options = options_for(&r);
    ek_metrics metrics;
    options.epochs = 8;
    options.valid_fraction = 0.25;
    options.schedule = EK_SCHEDULE_COSINE;
    assert_ok(ek_train(net, data, test, &options));
    assert_int_equal(r.starts, 1);
    assert_int_equal(r.epochs, 8);
    assert_int_equal(r.checkpoints, 0);
    assert_int_equal(r.start.step, 0);
    assert_int_equal(r.start.epoch, 1);
    assert_int_equal(r.start.train_count, 300);
    assert_int_equal(r.start.valid_count, 100);
    assert_int_equal(r.start.test_count, 150);
    assert_int_equal(r.steps, 8 * 19); /* 300 = 18*16 + 12 */
    assert_int_equal(r.step.steps, r.steps);
    assert_int_equal(r.step.step, r.steps);
    assert_int_equal(r.epoch.epoch, 8);
    assert_true(r.loss[0] > 0.8);
    assert_true(r.epoch.train_loss < 0.6 && r.epoch.train_accuracy > 0.75);
    assert_true(r.epoch.valid_accuracy > 0.75 && r.epoch.test_accuracy > 0.75);
    assert_true(r.epoch.images_per_second > 0 && r.epoch.seconds > 0);
    assert_true(isnan(r.step.test_loss) && isnan(r.epoch.loss));
    assert_true(r.step.lr == ek_schedule_lr(&options, r.steps - 1, 19) && isnan(r.epoch.lr));

    assert_ok(ek_evaluate(net, test, 16, &metrics));
    assert_int_equal(metrics.count, 150);
    assert_true(metrics.loss == r.epoch.test_loss && metrics.accuracy == r.epoch.test_accuracy);
    assert_ok(ek_evaluate(net, test, 1000000, &metrics));
    assert_true(fabs(metrics.loss - r.epoch.test_loss) < 1e-6);
    assert_true(metrics.accuracy == r.epoch.test_accuracy);

    int64_t *trained, *held, trained_count, held_count;
    assert_ok(ek_split_indices(400, 0.25, options.seed, &trained, &trained_count, &held, &held_count));
    assert_ok(ek_evaluate_at(net, data, held, held_count, 16, &metrics));
    assert_true(metrics.loss == r.epoch.valid_loss && metrics.accuracy == r.epoch.valid_accuracy);
    ek_free(trained);
    ek_free(held);
    ek_dataset_destroy(data);
    ek_dataset_destroy(test);
    ek_net_destroy(net);
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    ek_dataset *data = make_data(300, 1);
    ek_context *contexts[3];
    ek_net *nets[3];
    double loss[3];
    for (int i = 0; i < 3; i++) {
        record r = {0};
        ek_train_options options = options_for(&r);
        options.batch = 150; /* several pieces of everything */
        options.optimizer.clip_norm = 0.5;
        contexts[i] = context_of(i + 1);
        nets[i] = make_net(contexts[i]);
        assert_ok(ek_train(nets[i], data, NULL, &options));
        loss[i] = r.epoch.train_loss;
    }
    for (int i = 1; i < 3; i++) {
        assert_same_bits(nets[0], nets[i]);
        assert_true(loss[i] == loss[0]);
    }
    for (int i = 0; i < 3; i++) {
        ek_net_destroy(nets[i]);
        ek_context_destroy(contexts[i]);
    }
    ek_dataset_destroy(data);
}

static void the_last_batch_is_joined_kept_or_dropped(void **state)
{
    (void)state;
    const struct {
        int64_t count, batch, steps;
        bool drop_last;
    } cases[] = {
        {33, 16, 2, false}, {33, 16, 2, true}, {40, 16, 3, false}, {40, 16, 2, true}, {5, 16, 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record r = {0};
        ek_net *net = make_net(context);
        ek_dataset *data = make_data(cases[i].count, 1);
        ek_train_options options = options_for(&r);
        options.epochs = 1;
        options.batch = cases[i].batch;
        options.drop_last = cases[i].drop_last;
        assert_ok(ek_train(net, data, NULL, &options));
        assert_int_equal(r.steps, cases[i].steps);
        ek_dataset_destroy(data);
        ek_net_destroy(net);
    }
}

/* With a learning rate of 0, equal losses are equal batches. */
static void the_order_is_new_in_each_epoch(void **state)
{
    (void)state;
    ek_dataset *data = make_data(64, 1);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        record r = {0};
        ek_net *net;
        ek_train_options options = options_for(&r);
        options.optimizer.lr = 0;
        options.shuffle = shuffle;
        assert_ok(ek_net_create(context, "input 1x6x6\nflatten\nlinear 3\n", NULL, &net));
        assert_ok(ek_train(net, data, NULL, &options));
        assert_int_equal(r.loss[0] != r.loss[4], shuffle);
        assert_int_equal(r.loss[4] != r.loss[8], shuffle);
        ek_net_destroy(net);
    }
    ek_dataset_destroy(data);
}

static void a_bad_sample_skips_its_steps_alone(void **state)
{
    (void)state;
    record r = {0};
    ek_net *net = make_net(context);
    ek_dataset *data = make_data(64, 1);
    ek_train_options options = options_for(&r);
    data->floats[7 * FEATURES] = NAN;
    assert_ok(ek_train(net, data, NULL, &options));
    assert_int_equal(r.epoch.skipped, 3); /* once an epoch */
    assert_int_equal(r.skips, 3);
    assert_true(isfinite(r.epoch.train_loss));
    ek_tensor mean;
    assert_ok(ek_net_find_tensor(net, "cn.running_mean", &mean));
    for (int i = 0; i < 4; i++) assert_true(isfinite(mean.data[i]));
    ek_dataset_destroy(data);
    ek_net_destroy(net);
}

/* The check alone says the same, and how many steps there would be. */
static void a_check_trains_nothing(void **state)
{
    (void)state;
    record r = {0};
    ek_net *net = make_net(context), *before = make_net(context);
    ek_dataset *data = make_data(40, 1);
    ek_train_options o = options_for(&r);
    int64_t steps = 0;
    assert_ok(ek_train_check(net, data, NULL, &o, &steps));
    assert_int_equal(steps, 9);
    o.batch = 1;
    assert_fails(EK_E_SHAPE, "fn", ek_train_check(net, data, NULL, &o, &steps));
    o.batch = 13; /* the one that is left over joins the last batch */
    assert_ok(ek_train_check(net, data, NULL, &o, NULL));
    assert_fails(EK_E_ARGUMENT, "needs a net", ek_train_check(NULL, data, NULL, &o, NULL));
    ek_net *ghosts;
    o.accumulate = 2;
    assert_ok(ek_net_create(context, "input 1x6x6\nflatten\ng: batchnorm ghost=4\nlinear 3", NULL, &ghosts));
    assert_fails(EK_E_UNSUPPORTED, "g normalizes by ghost batches", ek_train_check(ghosts, data, NULL, &o, NULL));
    ek_net_destroy(ghosts);
    assert_int_equal(r.starts, 0);
    assert_same_bits(net, before);
    ek_dataset_destroy(data);
    ek_net_destroy(net);
    ek_net_destroy(before);
}

/* Training on so many samples: chosen by the seed, all of them once an epoch. */
static void a_part_of_the_data_is_trained_on(void **state)
{
    (void)state;
    record r = {0};
    double loss[3];
    for (int run = 0; run < 3; run++) {
        ek_net *net = make_net(context);
        ek_dataset *data = make_data(40, 1);
        ek_train_options o = options_for(&r);
        r = (record){0};
        o.samples = 20;
        o.valid_fraction = 0.25;
        o.epochs = 1;
        o.seed = run < 2 ? 1 : 2;
        assert_ok(ek_train(net, data, NULL, &o));
        assert_int_equal(r.start.train_count, 20);
        assert_int_equal(r.start.valid_count, 10);
        assert_int_equal(r.steps, 2);
        loss[run] = r.epoch.train_loss;
        ek_dataset_destroy(data);
        ek_net_destroy(net);
    }
    assert_true(loss[0] == loss[1] && loss[0] != loss[2]);
}

static void wrong_options_and_data_are_refused_before_training(void **state)
{
    (void)state;
    record r = {0};
    ek_net *net = make_net(context), *before = make_net(context);
    ek_dataset *data = make_data(40, 1);
    const ek_train_options good = options_for(&r);
    ek_train_options o = good;
#define REFUSED(change, status, words)                              \
    do {                                                            \
        o = good;                                                   \
        change;                                                     \
        assert_fails(status, words, ek_train(net, data, NULL, &o)); \
    } while (0)
    REFUSED(o.epochs = 0, EK_E_ARGUMENT, "epochs");
    REFUSED(o.batch = 0, EK_E_ARGUMENT, "batch");
    REFUSED(o.valid_fraction = 1, EK_E_ARGUMENT, "validation");
    REFUSED(o.valid_fraction = NAN, EK_E_ARGUMENT, "validation");
    REFUSED(o.valid_fraction = 1e-9, EK_E_ARGUMENT, "holding out 1e-09 of 40");
    REFUSED(o.optimizer.lr = INFINITY, EK_E_ARGUMENT, "learning rate");
    REFUSED(o.warmup_epochs = NAN, EK_E_ARGUMENT, "warm-up");
    REFUSED(o.checkpoint_steps = -1, EK_E_ARGUMENT, "checkpoint_steps");
    REFUSED(o.checkpoint_steps = 5, EK_E_ARGUMENT, "no checkpoint");
    REFUSED((o.batch = 41, o.drop_last = true), EK_E_ARGUMENT, "batch");
    REFUSED(o.checkpoint = "/no-such-folder/file", EK_E_NOT_FOUND, "/no-such-folder/file");
    REFUSED(o.checkpoint = folder, EK_E_IO, "a folder");
    REFUSED(o.resume = "/no-such-file", EK_E_NOT_FOUND, "/no-such-file");
    REFUSED(o.batch = 1, EK_E_SHAPE, "fn");
    REFUSED(o.samples = -1, EK_E_ARGUMENT, "samples");
    REFUSED((o.samples = 31, o.valid_fraction = 0.25), EK_E_ARGUMENT, "samples=31 is more than the 30");
    assert_int_equal(r.steps, 0);
    assert_int_equal(r.starts, 0);
#undef REFUSED
    ek_metrics metrics;
    assert_fails(EK_E_ARGUMENT, "batch", ek_evaluate(net, data, 0, &metrics));
    data->shape = (ek_shape){3, {1, 4, 9}};
    assert_fails(EK_E_SHAPE, "1x4x9", ek_train(net, data, NULL, &good));
    assert_fails(EK_E_SHAPE, "1x4x9", ek_evaluate(net, data, 8, &metrics));
    data->shape = (ek_shape){3, {1, 6, 6}};
    data->classes = 4;
    assert_fails(EK_E_SHAPE, "4", ek_train(net, data, NULL, &good));
    data->classes = CLASSES;
    int32_t *label = data->label;
    data->label = NULL;
    assert_fails(EK_E_ARGUMENT, "no labels", ek_evaluate(net, data, 8, &metrics));
    data->label = label;
    assert_same_bits(net, before);
    ek_dataset_destroy(data);
    ek_net_destroy(before);
    ek_net_destroy(net);
}

static void null_pointers_are_refused(void **state)
{
    (void)state;
    ek_net *net = make_net(context);
    ek_dataset *data = make_data(40, 1);
    ek_trainer *trainer;
    ek_metrics metrics;
    ek_step_result result;
    assert_fails(EK_E_ARGUMENT, "ek_train needs", ek_train(NULL, data, NULL, NULL));
    assert_fails(EK_E_ARGUMENT, "ek_train needs", ek_train(net, NULL, NULL, NULL));
    assert_fails(EK_E_ARGUMENT, "ek_evaluate needs", ek_evaluate(net, NULL, 8, &metrics));
    assert_fails(EK_E_ARGUMENT, "ek_trainer_create needs", ek_trainer_create(net, NULL, 1, &trainer));
    assert_fails(EK_E_ARGUMENT, "ek_trainer_step needs", ek_trainer_step(NULL, 1, NULL, NULL, &result));
    assert_fails(EK_E_ARGUMENT, "ek_net_save needs", ek_net_save(net, NULL));
    assert_fails(EK_E_ARGUMENT, "ek_net_load_weights needs", ek_net_load_weights(net, NULL));
    ek_dataset_destroy(data);
    ek_net_destroy(net);
}

/* --- interrupted and resumed */

/* A run stopped after `stop` steps and resumed by a new net gives the unbroken run's bits. */
static void check_resume(ek_train_options options, const ek_dataset *data, const ek_dataset *test,
                         int64_t stop)
{
    record unbroken = {0}, broken = {.stop_at = stop}, resumed = {0};
    ek_net *whole = make_net(context), *net = make_net(context);
    options.user = &unbroken;
    assert_ok(ek_train(whole, data, test, &options));

    options.checkpoint = checkpoint_path;
    options.user = &broken;
    assert_fails(EK_E_INTERRUPTED, checkpoint_path, ek_train(net, data, test, &options));
    assert_int_equal(broken.steps, stop);
    ek_net_destroy(net);

    net = make_net(context);
    assert_ok(ek_net_init(net, EK_INIT_XAVIER, 99));
    options.resume = checkpoint_path;
    options.user = &resumed;
    assert_ok(ek_train(net, data, test, &options));
    assert_int_equal(resumed.start.step, stop);
    assert_int_equal(resumed.steps, unbroken.steps - stop);
    assert_int_equal(resumed.epoch.skipped, unbroken.epoch.skipped);
    assert_true(resumed.epoch.train_loss == unbroken.epoch.train_loss);
    assert_true(resumed.epoch.train_accuracy == unbroken.epoch.train_accuracy);
    assert_true(resumed.epoch.test_loss == unbroken.epoch.test_loss);
    assert_same_bits(net, whole);
    ek_net_destroy(whole);
    ek_net_destroy(net);
}

static void a_resumed_run_ends_with_the_unbroken_runs_bits(void **state)
{
    (void)state;
    record r = {0};
    ek_dataset *data = make_data(83, 1), *test = make_data(40, 2); /* 83: 62 train, 4 steps an epoch */
    data->floats[7 * FEATURES] = NAN;                              /* skipped steps too */
    ek_train_options sgd = options_for(&r);
    sgd.valid_fraction = 0.25;
    sgd.warmup_epochs = 1;
    ek_train_options adam = sgd;
    adam.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    adam.schedule = EK_SCHEDULE_COSINE;
    ek_train_options plain = sgd;
    plain.optimizer.momentum = 0;
    plain.shuffle = false;
    for (int64_t stop = 1; stop <= 11; stop += stop == 4 ? 1 : 3)
        check_resume(sgd, data, test, stop); /* 1 4 5 8 11 */
    check_resume(adam, data, test, 6);
    check_resume(adam, data, test, 8);
    check_resume(plain, data, test, 11);
    ek_dataset_destroy(test);
    ek_dataset_destroy(data);
}

static void stop_in_second_epoch(ek_train_options options, const ek_dataset *data)
{
    record r = {.stop_at = 5};
    ek_net *net = make_net(context);
    options.checkpoint = checkpoint_path;
    options.user = &r;
    assert_fails(EK_E_INTERRUPTED, "step 5", ek_train(net, data, NULL, &options));
    ek_net_destroy(net);
}

static void more_epochs_go_on_where_a_run_ended(void **state)
{
    (void)state;
    record r = {0}, longer = {0};
    ek_dataset *data = make_data(64, 1);
    ek_net *net = make_net(context), *whole = make_net(context);
    ek_train_options options = options_for(&r);
    options.epochs = 2;
    options.checkpoint = checkpoint_path;
    options.checkpoint_steps = 3;
    assert_ok(ek_train(net, data, NULL, &options));
    assert_int_equal(r.checkpoints, 2 + 2); /* after steps 3 and 6, and each epoch */
    options.resume = checkpoint_path;
    r = (record){0};
    assert_ok(ek_train(net, data, NULL, &options)); /* nothing left to do */
    assert_int_equal(r.starts, 1);
    assert_int_equal(r.steps, 0);
    assert_int_equal(r.start.epoch, 2); /* of 2 */
    options.epochs = 4;
    assert_ok(ek_train(net, data, NULL, &options));
    assert_int_equal(r.start.epoch, 3);
    options = options_for(&longer);
    options.epochs = 4;
    assert_ok(ek_train(whole, data, NULL, &options));
    assert_same_bits(net, whole);
    ek_dataset_destroy(data);
    ek_net_destroy(whole);
    ek_net_destroy(net);
}

static bool stop_at_checkpoint(void *user, const ek_event *event)
{
    int *epochs = user;
    *epochs += event->kind == EK_EVENT_EPOCH;
    return event->kind != EK_EVENT_CHECKPOINT;
}

/* What is trained is kept before it is measured: who stops there goes on with the measuring. */
static void an_epoch_is_kept_before_it_is_measured(void **state)
{
    (void)state;
    record r = {0}, unbroken = {0};
    int epochs = 0;
    ek_dataset *data = make_data(64, 1), *test = make_data(40, 2);
    ek_net *net = make_net(context), *whole = make_net(context);
    ek_train_options options = options_for(&r);
    options.checkpoint = checkpoint_path;
    options.epochs = 2;
    options.listener = stop_at_checkpoint;
    options.user = &epochs;
    assert_fails(EK_E_INTERRUPTED, "after step 4 of 8", ek_train(net, data, test, &options));
    assert_int_equal(epochs, 0);
    options = options_for(&r);
    options.epochs = 2;
    options.resume = checkpoint_path;
    assert_ok(ek_train(net, data, test, &options));
    assert_int_equal(r.steps, 4);
    assert_int_equal(r.epochs, 2);
    options = options_for(&unbroken);
    options.epochs = 2;
    assert_ok(ek_train(whole, data, test, &options));
    assert_same_bits(net, whole);
    assert_true(r.epoch.test_loss == unbroken.epoch.test_loss);
    ek_dataset_destroy(test);
    ek_dataset_destroy(data);
    ek_net_destroy(whole);
    ek_net_destroy(net);
}

typedef struct vanishing {
    const char *folder;
    int failed, written;
} vanishing;

static bool remove_folder(void *user, const ek_event *event)
{
    vanishing *v = user;
    if (event->kind == EK_EVENT_STEP && event->step == 1) {
        char command[64];
        snprintf(command, sizeof command, "rm -r %s", v->folder);
        assert_int_equal(system(command), 0);
    }
    if (event->kind != EK_EVENT_CHECKPOINT) return true;
    v->failed += event->failed && strstr(event->failed, "cannot write");
    v->written += !event->failed;
    return true;
}

/* Training is not lost for a checkpoint that is. */
static void a_checkpoint_that_fails_ends_no_run(void **state)
{
    (void)state;
    char place[] = "/tmp/evenkeel-train-XXXXXX", path[64];
    assert_non_null(mkdtemp(place));
    snprintf(path, sizeof path, "%s/checkpoint", place);
    vanishing v = {.folder = place};
    record r = {0};
    ek_dataset *data = make_data(64, 1);
    ek_net *net = make_net(context), *whole = make_net(context);
    ek_train_options options = options_for(&r);
    assert_ok(ek_train(whole, data, NULL, &options));
    options.checkpoint = path;
    options.checkpoint_steps = 2;
    options.listener = remove_folder;
    options.user = &v;
    assert_fails(EK_E_IO, "all is trained, but the last checkpoint is missing: cannot write",
                 ek_train(net, data, NULL, &options));
    assert_int_equal(v.failed, 6 + 3); /* every two of 12 steps, and each epoch */
    assert_int_equal(v.written, 0);
    assert_same_bits(net, whole);
    ek_dataset_destroy(data);
    ek_net_destroy(whole);
    ek_net_destroy(net);
}

static void a_checkpoint_opens_as_a_model(void **state)
{
    (void)state;
    record r = {0};
    ek_dataset *data = make_data(64, 1);
    ek_net *net = make_net(context), *opened;
    ek_train_options options = options_for(&r);
    options.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAMW);
    options.checkpoint = checkpoint_path;
    assert_ok(ek_train(net, data, NULL, &options));
    assert_ok(ek_net_open(context, checkpoint_path, &opened));
    assert_same_bits(net, opened);
    /* And what is saved of it is a plain model, no checkpoint. */
    assert_ok(ek_net_save(opened, changed_path));
    options.resume = changed_path;
    assert_fails(EK_E_FORMAT, "not a checkpoint", ek_train(net, data, NULL, &options));
    /* It trains on as a net of its own, and its checkpoints are its own too. */
    options.resume = NULL;
    assert_ok(ek_train(opened, data, NULL, &options));
    options.resume = checkpoint_path;
    assert_ok(ek_train(opened, data, NULL, &options));
    ek_dataset_destroy(data);
    ek_net_destroy(opened);
    ek_net_destroy(net);
}

static void another_runs_checkpoint_is_refused(void **state)
{
    (void)state;
    record r = {0};
    ek_dataset *data = make_data(64, 1), *more = make_data(65, 1);
    ek_net *net = make_net(context), *before = make_net(context), *other;
    ek_train_options good = options_for(&r), o;
    stop_in_second_epoch(good, data);
    good.resume = checkpoint_path;
#define REFUSED(change, words)                                             \
    do {                                                                   \
        o = good;                                                          \
        change;                                                            \
        assert_fails(EK_E_ARGUMENT, words, ek_train(net, data, NULL, &o)); \
    } while (0)
    REFUSED(o.batch = 32, "its batch is 16, not 32");
    REFUSED(o.seed = 2, "its seed is 1, not 2");
    REFUSED(o.optimizer.lr = 0.25, "its lr is 0.1, not 0.25");
    REFUSED(o.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAM), "its optimizer is sgd, not adam");
    REFUSED(o.optimizer.momentum = 0, "its momentum is 0.9, not 0");
    REFUSED(o.optimizer.nesterov = true, "its nesterov is false, not true");
    REFUSED(o.optimizer.weight_decay = 0.5, "its weight_decay is 0, not 0.5");
    REFUSED(o.optimizer.decay_norm_and_bias = false, "its decay_norm_and_bias is true, not false");
    REFUSED(o.optimizer.clip_norm = 1, "its clip_norm is 0, not 1");
    REFUSED(o.warmup_epochs = 0.5, "its warmup_epochs is 0, not 0.5");
    REFUSED(o.schedule = EK_SCHEDULE_COSINE, "its schedule is constant, not cosine");
    REFUSED(o.shuffle = false, "its shuffle is true, not false");
    REFUSED(o.drop_last = true, "its drop_last is false, not true");
    REFUSED(o.valid_fraction = 0.5, "its valid_fraction is 0, not 0.5");
    REFUSED(o.samples = 32, "its samples is 64, not 32 of 64");
    REFUSED(o.epochs = 1, "ask for more epochs");
    assert_fails(EK_E_ARGUMENT, "its samples is 64, not 65", ek_train(net, more, NULL, &good));
    assert_ok(ek_net_create(context, "input 1x6x6\nflatten\nout: linear 3\n", NULL, &other));
    assert_fails(EK_E_ARGUMENT, "its net is another", ek_train(other, data, NULL, &good));
    good.schedule = EK_SCHEDULE_STEP;
    good.resume = NULL;
    stop_in_second_epoch(good, data);
    good.resume = checkpoint_path;
    REFUSED(o.step_epochs = 3, "its step_epochs is 30, not 3");
    REFUSED(o.decay = 0.5, "its decay is 0.1, not 0.5");
#undef REFUSED
    good.schedule = EK_SCHEDULE_COSINE;
    good.resume = NULL;
    stop_in_second_epoch(good, data);
    good.resume = checkpoint_path;
    good.epochs = 9;
    assert_fails(EK_E_ARGUMENT, "a cosine schedule", ek_train(net, data, NULL, &good));
    assert_same_bits(net, before);
    assert_int_equal(r.starts, 0);
    ek_net_destroy(other);
    ek_net_destroy(before);
    ek_net_destroy(net);
    ek_dataset_destroy(more);
    ek_dataset_destroy(data);
}

/* Copies the checkpoint with one metadata value (NULL: left out), or one tensor's first number, changed. */
static void change(const char *key, const char *value, float number)
{
    ek_safetensors file = {0};
    ek_st_writer writer = {0};
    assert_ok(ek_safetensors_read(checkpoint_path, &file));
    bool found = false;
    for (int i = 0; i < file.metadata_count; i++) {
        bool this = !strcmp(file.metadata[i].key, key);
        found |= this;
        if (!this)
            assert_ok(ek_st_add_metadata(&writer, file.metadata[i].key, file.metadata[i].value));
        else if (value)
            assert_ok(ek_st_add_metadata(&writer, key, value));
    }
    for (int i = 0; i < file.count; i++) {
        ek_st_tensor *tensor = &file.tensor[i];
        bool this = !strcmp(tensor->name, key);
        found |= this;
        if (this && number == 0) continue; /* left out */
        if (this) memcpy(file.memory + (tensor->bytes - file.memory), &number, sizeof number);
        assert_ok(ek_st_add(&writer, tensor->name, tensor->dtype, tensor->rank, tensor->dim, tensor->bytes));
    }
    assert_true(found);
    assert_ok(ek_st_write(&writer, changed_path));
    ek_st_writer_free(&writer);
    ek_safetensors_free(&file);
}

static void a_damaged_checkpoint_is_refused(void **state)
{
    (void)state;
    record r = {0};
    ek_dataset *data = make_data(64, 1);
    ek_net *net = make_net(context), *before = make_net(context);
    ek_train_options options = options_for(&r);
    options.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    stop_in_second_epoch(options, data);
    const struct {
        const char *key, *value;
        float number;
    } changes[] = {
        {"evenkeel.train.batch", NULL, 0},
        {"evenkeel.train.epochs_done", NULL, 0},
        {"evenkeel.train.epochs_done", "-1", 0},
        {"evenkeel.train.epochs_done", "9223372036854775807", 0},
        {"evenkeel.train.epochs_done", "99999999999999999999", 0},
        {"evenkeel.train.epochs_done", "1x", 0},
        {"evenkeel.train.steps_done", "5", 0}, /* an epoch has 4 */
        {"evenkeel.train.steps_done", "", 0},
        {"evenkeel.train.skipped", "6", 0}, /* of 5 */
        {"evenkeel.train.epoch_samples", "65", 0},
        {"evenkeel.train.epoch_correct", "17", 0}, /* of 16 */
        {"evenkeel.train.epoch_loss_sum", "nan", 0},
        {"evenkeel.train.epoch_loss_sum", "0x1p+1", 0},
        {"evenkeel.train.epoch_loss_sum", "1e99999", 0},
        {"evenkeel.train.epoch_loss_sum", "-2", 0},
        {"optimizer.exp_avg.c.weight", "", NAN},
        {"optimizer.exp_avg.c.weight", "", 0},
        {"optimizer.exp_avg_sq.fn.bias", "", INFINITY},
        {"optimizer.exp_avg_sq.fn.bias", "", -1},
    };
    options.resume = changed_path;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        change(changes[i].key, changes[i].value, changes[i].number);
        assert_fails(EK_E_FORMAT, changed_path, ek_train(net, data, NULL, &options));
        assert_same_bits(net, before);
    }
    change("evenkeel.train.epoch_samples", "16", 0); /* as it was: the way of changing it is sound */
    assert_ok(ek_train(net, data, NULL, &options));
    ek_net_destroy(before);
    ek_net_destroy(net);
    ek_dataset_destroy(data);
}

/* Gradients whose squares are infinite leave Adam in a state that reading would refuse. */
static void a_checkpoint_that_is_not_finite_is_not_written(void **state)
{
    (void)state;
    record r = {0};
    ek_net *net;
    ek_dataset *data = make_data(64, 1);
    ek_train_options options = options_for(&r);
    assert_ok(ek_net_create(context, "input 36\nl: linear 3\n", NULL, &net));
    options.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    options.checkpoint = checkpoint_path;
    assert_ok(ek_train(net, data, NULL, &options));
    for (int i = 0; i < 64 * FEATURES; i++) data->floats[i] *= 1e25f;
    assert_fails(EK_E_NUMERIC, "optimizer.exp_avg_sq.l.weight holds a value that is not finite",
                 ek_train(net, data, NULL, &options));
    ek_net *kept = NULL;
    assert_ok(ek_net_open(context, checkpoint_path, &kept));
    ek_net_destroy(kept);
    ek_net_destroy(net);
    ek_dataset_destroy(data);
}

/* The n-th allocation fails, for n = 1, 2, ... until there are no more: each time an error, and no leak. */
static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    record r = {0};
    ek_dataset *data = make_data(20, 1);
    ek_train_options options = options_for(&r);
    options.epochs = 1;
    options.valid_fraction = 0.25;
    options.checkpoint = checkpoint_path;
    ek_status status;
    uint64_t calls = 0;
    do {
        ek_net *net = make_net(context);
        size_t live = ek_memory_count().live_bytes;
        ek_memory_fail_after(++calls);
        status = ek_train(net, data, data, &options);
        ek_memory_fail_after(0);
        if (status != EK_OK && status != EK_E_MEMORY) fail_msg("allocation %d: %s", (int)calls, ek_error());
        if (status != EK_OK && net->plan == NULL) assert_int_equal(ek_memory_count().live_bytes, live);
        ek_net_destroy(net);
    } while (status == EK_E_MEMORY);
    assert_true(calls > 50);
    ek_dataset_destroy(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_trains_and_allocates_nothing),
        cmocka_unit_test(loss_and_gradient_are_the_means),
        cmocka_unit_test(a_step_knows_where_its_time_went),
        cmocka_unit_test(each_step_has_its_own_dropout),
        cmocka_unit_test(bad_labels_and_rates_are_refused),
        cmocka_unit_test(a_net_without_one_number_a_class_is_refused),
        cmocka_unit_test(null_pointers_are_refused),
        cmocka_unit_test(a_softmax_at_the_end_changes_no_measure),
        cmocka_unit_test(a_skipped_step_changes_no_tensor),
        cmocka_unit_test(a_run_learns_and_tells),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(the_last_batch_is_joined_kept_or_dropped),
        cmocka_unit_test(the_order_is_new_in_each_epoch),
        cmocka_unit_test(a_bad_sample_skips_its_steps_alone),
        cmocka_unit_test(a_check_trains_nothing),
        cmocka_unit_test(a_part_of_the_data_is_trained_on),
        cmocka_unit_test(wrong_options_and_data_are_refused_before_training),
        cmocka_unit_test(a_resumed_run_ends_with_the_unbroken_runs_bits),
        cmocka_unit_test(more_epochs_go_on_where_a_run_ended),
        cmocka_unit_test(an_epoch_is_kept_before_it_is_measured),
        cmocka_unit_test(a_checkpoint_that_fails_ends_no_run),
        cmocka_unit_test(a_checkpoint_opens_as_a_model),
        cmocka_unit_test(another_runs_checkpoint_is_refused),
        cmocka_unit_test(a_damaged_checkpoint_is_refused),
        cmocka_unit_test(a_checkpoint_that_is_not_finite_is_not_written),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
