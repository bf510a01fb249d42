/*
 * What padding does to batch normalization, and what lengths mend (docs/sequences.md).
 *
 * First the statistics of one batch: sequences of numbers with mean 2 and deviation 1, padded with zeros to one length.
 * With a share p of padding, batch normalization that does not know of it finds
 *
 *   mean' = (1-p)*mean        var' = (1-p)*(var + p*mean^2)
 *
 * Then a classifier: waves of three frequencies in noise, of 60 to 100 positions in training, told apart by a small
 * convolutional net, and tested on sequences of that length and on shorter ones.
 */
#include <evenkeel.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { POSITIONS = 128, BATCH = 256, CLASSES = 3, STEPS = 200, TESTS = 8 };

#define TRY(call) \
    if ((status = (call)) != EK_OK) goto done

static const char bare[] = "input 1x128\n"
                           "n: batchnorm momentum=1 unbiased=false\n"
                           "   globalavgpool\n"
                           "   flatten\n"
                           "   linear 3\n";
static const char classifier[] = "input 1x128\n"
                                 "conv1d 8 kernel=9\n"
                                 "batchnorm\n"
                                 "relu\n"
                                 "conv1d 8 kernel=5 stride=2\n"
                                 "batchnorm\n"
                                 "relu\n"
                                 "globalavgpool\n"
                                 "flatten\n"
                                 "linear 3\n";

/* The same in every run, and on every machine. */
static uint32_t seed = 1;

static double uniform(double low, double high)
{
    seed = seed * 1664525u + 1013904223u;
    return low + (high - low) * (seed >> 8) / 16777216.0;
}

/* Mean 0, deviation 1, near enough to normal. */
static double noise(void)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform(0, 1);
    return sum;
}

/* A batch, padded with zeros. */
typedef struct batch {
    float x[BATCH * POSITIONS];
    int32_t length[BATCH], label[BATCH];
} batch;

static void fill(batch *b, bool waves, int shortest, int longest)
{
    for (int i = 0; i < BATCH; i++) {
        b->length[i] = (int32_t)uniform(shortest, longest + 1);
        b->label[i] = i % CLASSES;
        double step = 0.35 + 0.15 * b->label[i], phase = uniform(0, 6.28);
        for (int t = 0; t < POSITIONS; t++) {
            double value = 2 + (waves ? sin(step * t + phase) : 0) + noise();
            b->x[i * POSITIONS + t] = t < b->length[i] ? (float)value : 0;
        }
    }
}

/* Mean and variance that the batch gives, with its lengths or without. */
static ek_status statistics(ek_context *context, const batch *b, bool lengths, float *mean, float *var)
{
    ek_net *net = NULL;
    ek_trainer *trainer = NULL;
    ek_step_result result;
    ek_tensor found;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_status status;
    TRY(ek_net_create(context, bare, "bare", &net));
    TRY(ek_trainer_create(net, &options, 1, &trainer));
    TRY(ek_trainer_step_lengths(trainer, BATCH, b->x, lengths ? b->length : NULL, b->label, &result));
    TRY(ek_net_find_tensor(net, "n.running_mean", &found));
    *mean = *found.data;
    TRY(ek_net_find_tensor(net, "n.running_var", &found));
    *var = *found.data;
done:
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    return status;
}

/* Of TESTS batches of such lengths. */
static ek_status accuracy(ek_net *net, bool lengths, int shortest, int longest, double *share)
{
    static batch b;
    static float y[BATCH * CLASSES];
    int right = 0;
    for (int test = 0; test < TESTS; test++) {
        fill(&b, true, shortest, longest);
        ek_status status =
            ek_net_forward_lengths(net, EK_MODE_INFERENCE, BATCH, b.x, lengths ? b.length : NULL, y);
        if (status != EK_OK) return status;
        for (int i = 0; i < BATCH; i++) {
            const float *score = y + i * CLASSES;
            int best = score[1] > score[0];
            if (score[2] > score[best]) best = 2;
            right += best == b.label[i];
        }
    }
    *share = (double)right / (BATCH * TESTS);
    return EK_OK;
}

/* Trains on sequences of 60 to 100 positions. */
static ek_status train(ek_context *context, bool lengths, ek_net **net)
{
    static batch b;
    ek_trainer *trainer = NULL;
    ek_step_result result;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    options.lr = 0.01;
    ek_status status;
    seed = 7;
    TRY(ek_net_create(context, classifier, "classifier", net));
    TRY(ek_trainer_create(*net, &options, 1, &trainer));
    for (int step = 0; step < STEPS; step++) {
        fill(&b, true, 60, 100);
        TRY(ek_trainer_set_lr(trainer, options.lr * (1 - (double)step / STEPS)));
        TRY(ek_trainer_step_lengths(trainer, BATCH, b.x, lengths ? b.length : NULL, b.label, &result));
    }
done:
    ek_trainer_destroy(trainer);
    return status;
}

static ek_status show_statistics(ek_context *context)
{
    static const struct {
        int shortest, longest;
    } rows[] = {{128, 128}, {86, 106}, {32, 96}, {8, 56}};
    static batch b;
    ek_status status = EK_OK;
    printf("padding   without lengths     with lengths\n");
    printf("            mean     var      mean     var\n");
    for (int i = 0; i < 4 && status == EK_OK; i++) {
        float mean[2] = {0}, var[2] = {0};
        int64_t alive = 0;
        seed = 3;
        fill(&b, false, rows[i].shortest, rows[i].longest);
        for (int k = 0; k < BATCH; k++) alive += b.length[k];
        for (int k = 0; k < 2 && status == EK_OK; k++) status = statistics(context, &b, k, &mean[k], &var[k]);
        printf("%5.0f %%  %7.3f %7.3f   %7.3f %7.3f\n", 100 - 100.0 * (double)alive / (BATCH * POSITIONS),
               mean[0], var[0], mean[1], var[1]);
    }
    return status;
}

static ek_status show_accuracies(ek_context *context)
{
    ek_status status = EK_OK;
    printf("\naccuracy on      60 to 100   30 to 50   15 to 25 positions\n");
    for (int lengths = 0; lengths < 2; lengths++) {
        static const int shortest[] = {60, 30, 15}, longest[] = {100, 50, 25};
        ek_net *net = NULL;
        double share[3] = {0};
        TRY(train(context, lengths, &net));
        seed = 1000;
        for (int i = 0; i < 3 && status == EK_OK; i++)
            status = accuracy(net, lengths, shortest[i], longest[i], &share[i]);
        printf("%-15s %9.2f %10.2f %10.2f\n", lengths ? "with lengths" : "without lengths", share[0],
               share[1], share[2]);
        ek_net_destroy(net);
    }
done:
    return status;
}

int main(void)
{
    ek_context *context;
    ek_status status = ek_context_create(NULL, &context);
    if (status == EK_OK) {
        status = show_statistics(context);
        if (status == EK_OK) status = show_accuracies(context);
        ek_context_destroy(context);
    }
    if (status == EK_OK) return 0;
    fprintf(stderr, "sequences: %s\n", ek_error());
    return 1;
}
