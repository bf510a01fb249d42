/* How a net is trained: the options that `train` and `compare` share. */
#ifndef CLI_TRAINING_H
#define CLI_TRAINING_H

#include "evenkeel.h"
#include "options.h"

typedef struct cli_training {
    const char *data;
    int64_t epochs, batch, accumulate, shards, samples, seed, step_epochs;
    int bn; /* sync, local */
    int optimizer, schedule;
    double lr, momentum, weight_decay, decay, warmup, clip, valid;
    bool nesterov, no_decay_norm, no_shuffle, drop_last;
} cli_training;

/* Their rows, for a command whose settings have a cli_training called `training`. */
/* clang-format off */
#define ROWS_DATA \
    ROW_HEADING("Data:"), \
    ROW_REQUIRED("data", "DATA", training.data, \
                 "fashion-mnist, mnist, synthetic (or synthetic:3x32x32), a folder with IDX files or " \
                 "{train,test}_{x,y}.npy, a folder with a folder of PNG or JPEG images for each class (DIR:3x64x64 scales " \
                 "them), x.npy,y.npy, or a CSV file with the class in the last column. What is too large for memory is " \
                 "read as it is needed. " \
                 "Sequences [n, c, l] of unequal lengths have them in {train,test}_lengths.npy or as a third file, " \
                 "x.npy,y.npy,lengths.npy."), \
    ROW_NUMBER("valid", "SHARE", training.valid, 0, 0.9, \
               "Hold out this share of the training data, chosen by the seed, and measure it after each epoch."), \
    ROW_INTEGER("samples", "N", training.samples, 1, 0, \
                "Train on so many of the training data only, chosen by the seed."), \
    ROW_FLAG("no-shuffle", training.no_shuffle, "Take the samples in the order of the file."), \
    ROW_FLAG("drop-last", training.drop_last, \
             "Leave out a last batch that is not full. Without it a last batch of one joins the batch before it.")

#define ROWS_TRAINING \
    ROW_HEADING("Training:"), \
    ROW_INTEGER("epochs", "N", training.epochs, 1, 1e6, "Passes over the training data."), \
    ROW_INTEGER("batch", "N", training.batch, 1, 1e6, "Samples a step."), \
    ROW_INTEGER("accumulate", "K", training.accumulate, 1, 1e6, \
                "Take K batches for a step, with the memory of one: the same steps as a batch K times as large, its " \
                "batch normalization included. Costs time: each BN layer adds passes."), \
    ROW_CHOICE("optimizer", "sgd|adam|adamw", training.optimizer, "How the parameters are updated."), \
    ROW_POSITIVE("lr", "RATE", training.lr, "Learning rate (default 0.1 for sgd, 0.001 for adam and adamw)."), \
    ROW_NUMBER("momentum", "M", training.momentum, 0, 1, "Momentum of sgd (default 0). 0.9 is usual."), \
    ROW_FLAG("nesterov", training.nesterov, "Nesterov's momentum."), \
    ROW_NUMBER("weight-decay", "D", training.weight_decay, 0, 0, "Weight decay (default 0; 0.01 for adamw)."), \
    ROW_FLAG("no-decay-norm", training.no_decay_norm, "Exempt gamma, beta and biases from weight decay."), \
    ROW_POSITIVE("clip", "NORM", training.clip, \
                 "Scale the gradients down where their norm over the whole net is above this."), \
    ROW_INTEGER("seed", "S", training.seed, 0, 0, \
                "Fixes the initial weights, the order of the data, dropout, --valid and --samples. The same " \
                "seed gives the same bits.")

#define ROWS_SCHEDULE \
    ROW_HEADING("Learning rate over time:"), \
    ROW_CHOICE("schedule", "constant|step|cosine", training.schedule, "cosine falls to 0 over the whole run."), \
    ROW_INTEGER("step-epochs", "N", training.step_epochs, 1, 1e6, "For step: epochs between two changes."), \
    ROW_POSITIVE("lr-decay", "F", training.decay, "For step: what the rate is multiplied by."), \
    ROW_NUMBER("warmup", "EPOCHS", training.warmup, 0, 0, "Rise from 0 over the first epochs; fractions are allowed.")
/* clang-format on */

cli_training cli_training_default(void);
/* What single options cannot say: which of them do not go together. NULL: all do. sgd: it is the optimizer. */
const char *cli_training_wrong(const cli_training *training, bool sgd);
ek_train_options cli_train_options(const cli_training *training);

/* Training data, and test data where there is any, else NULL. */
ek_status cli_open_data(const char *spec, ek_dataset **train, ek_dataset **test);

/* Initial weights: NULL or a word of ek_init, the deviation of a normal distribution, or a file. */
ek_status cli_init_net(ek_net *net, const char *init, uint64_t seed);
/* Whether it is one of the first two, which any net can take. */
bool cli_is_plain_init(const char *init);
/* The word that was meant, where `init` is none of all these; else NULL. */
const char *cli_meant_init(const char *init);

#endif
