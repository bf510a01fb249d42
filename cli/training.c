#include "training.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

cli_training cli_training_default(void)
{
    ek_train_options d = ek_train_options_default();
    return (cli_training){
        .epochs = d.epochs,
        .batch = d.batch,
        .accumulate = d.accumulate,
        .seed = (int64_t)d.seed,
        .step_epochs = d.step_epochs,
        .decay = d.decay,
        .lr = NAN,
        .weight_decay = NAN,
    };
}

const char *cli_training_wrong(const cli_training *t, bool sgd)
{
    cli_training d = cli_training_default();
    if (!sgd && (t->momentum > 0 || t->nesterov)) return "--momentum and --nesterov belong to --optimizer sgd";
    if (t->nesterov && t->momentum == 0) return "--nesterov needs --momentum, such as --momentum 0.9";
    if (t->schedule != EK_SCHEDULE_STEP && (t->step_epochs != d.step_epochs || t->decay != d.decay))
        return "--step-epochs and --lr-decay belong to --schedule step";
    return NULL;
}

ek_train_options cli_train_options(const cli_training *t)
{
    ek_train_options o = ek_train_options_default();
    o.epochs = t->epochs;
    o.batch = t->batch;
    o.accumulate = t->accumulate;
    o.shards = (int)t->shards;
    o.local_bn = t->bn;
    o.optimizer = ek_optimizer_options_default((ek_optimizer)t->optimizer);
    if (!isnan(t->lr)) o.optimizer.lr = t->lr;
    if (!isnan(t->weight_decay)) o.optimizer.weight_decay = t->weight_decay;
    if (t->optimizer == EK_OPTIMIZER_SGD) {
        o.optimizer.momentum = t->momentum;
        o.optimizer.nesterov = t->nesterov;
    }
    o.optimizer.decay_norm_and_bias = !t->no_decay_norm;
    o.optimizer.clip_norm = t->clip;
    o.schedule = (ek_schedule)t->schedule;
    o.step_epochs = t->step_epochs;
    o.decay = t->decay;
    o.warmup_epochs = t->warmup;
    o.seed = (uint64_t)t->seed;
    o.valid_fraction = t->valid;
    o.samples = t->samples;
    o.shuffle = !t->no_shuffle;
    o.drop_last = t->drop_last;
    return o;
}

ek_status cli_open_data(const char *spec, ek_dataset **train, ek_dataset **test)
{
    ek_status status = ek_dataset_open(spec, EK_SPLIT_TRAIN, train);
    if (status != EK_OK) return status;
    status = ek_dataset_open(spec, EK_SPLIT_TEST, test);
    return status == EK_E_NOT_FOUND ? EK_OK : status;
}

/* --- initial weights */

static const char *const init_words[] = /* in the order of ek_init */
    {"default", "xavier", "kaiming"};

static int init_word(const char *init)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(init, init_words[i]) == 0) return i;
    }
    return -1;
}

static bool read_deviation(const char *init, double *deviation)
{
    char *end;
    *deviation = strtod(init, &end);
    return end != init && !*end && isfinite(*deviation);
}

bool cli_is_plain_init(const char *init)
{
    double deviation;
    return init_word(init) >= 0 || read_deviation(init, &deviation);
}

const char *cli_meant_init(const char *init)
{
    struct stat info;
    if (!init || cli_is_plain_init(init) || stat(init, &info) == 0) return NULL;
    return cli_nearest(init, init_words, 3);
}

ek_status cli_init_net(ek_net *net, const char *init, uint64_t seed)
{
    double deviation;
    int word = init ? init_word(init) : EK_INIT_DEFAULT;
    if (word >= 0) return ek_net_init(net, (ek_init)word, seed);
    if (read_deviation(init, &deviation)) return ek_net_init_normal(net, deviation, seed);
    return ek_net_load_weights(net, init);
}
