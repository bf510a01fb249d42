/*
 * Batch normalization from scratch: what the texts write in a page of Python, in a page of C.
 *
 * For each channel (a feature of a [n, f] batch, a map of an [n, c, h, w] batch), in training:
 *
 *   mean = average of the channel's values over the batch (and over the positions of an image)
 *   var  = average of (x - mean)^2
 *   xhat = (x - mean) / sqrt(var + eps)        mean 0, variance 1
 *   y    = gamma*xhat + beta                   the scale and the shift that training finds useful
 *
 * In prediction there may be no batch to average over, and an answer should not depend on what else is in
 * it: so training also keeps moving averages of mean and var, and prediction uses those.
 *
 * Only main, at the end, uses the library: to compare.
 */
#include <evenkeel.h>

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { MAX_CHANNELS = 8, MAX_VALUES = 64 };

typedef struct tensor {
    int rank, shape[4]; /* 2: [n, f]; 4: [n, c, h, w] */
    float data[MAX_VALUES];
} tensor;

/* The three sizes that batch normalization sees: samples, channels, positions of a channel. */
static int samples(const tensor *x) { return x->shape[0]; }
static int channels(const tensor *x) { return x->shape[1]; }
static int positions(const tensor *x) { return x->rank == 4 ? x->shape[2] * x->shape[3] : 1; }

/* Index of sample i, channel c, position p. */
static int at(const tensor *x, int i, int c, int p) { return (i * channels(x) + c) * positions(x) + p; }

static void channel_statistics(const tensor *x, int c, double *mean, double *var)
{
    int m = samples(x) * positions(x);
    double sum = 0, squares = 0;
    for (int i = 0; i < samples(x); i++)
        for (int p = 0; p < positions(x); p++) sum += x->data[at(x, i, c, p)];
    *mean = sum / m;
    /* From the deviations: mean(x^2) - mean^2 is the same on paper, but loses its digits, and can come out
     * negative, where the mean is large beside the deviation. */
    for (int i = 0; i < samples(x); i++)
        for (int p = 0; p < positions(x); p++) {
            double deviation = x->data[at(x, i, c, p)] - *mean;
            squares += deviation * deviation;
        }
    *var = squares / m;
}

/* The function of the texts. In training it also moves moving_mean and moving_var towards the batch's. */
static void batch_norm(bool training, const tensor *x, const float *gamma, const float *beta,
                       float *moving_mean, float *moving_var, double eps, double momentum, tensor *y)
{
    assert((x->rank == 2 || x->rank == 4) && channels(x) <= MAX_CHANNELS);
    *y = *x; /* the shape */
    for (int c = 0; c < channels(x); c++) {
        double mean = moving_mean[c], var = moving_var[c];
        if (training) {
            channel_statistics(x, c, &mean, &var);
            moving_mean[c] = (float)((1 - momentum) * moving_mean[c] + momentum * mean);
            moving_var[c] = (float)((1 - momentum) * moving_var[c] + momentum * var);
        }
        for (int i = 0; i < samples(x); i++)
            for (int p = 0; p < positions(x); p++) {
                double xhat = (x->data[at(x, i, c, p)] - mean) / sqrt(var + eps);
                y->data[at(x, i, c, p)] = (float)(gamma[c] * xhat + beta[c]);
            }
    }
}

/* The layer: the function's parameters, and what its gradients need. */
typedef struct batch_norm_layer {
    float gamma[MAX_CHANNELS], beta[MAX_CHANNELS];             /* trained */
    float moving_mean[MAX_CHANNELS], moving_var[MAX_CHANNELS]; /* kept, not trained */
    float dgamma[MAX_CHANNELS], dbeta[MAX_CHANNELS];           /* from backward */
    double eps, momentum;
    tensor x; /* the last training batch */
} batch_norm_layer;

/* At first the layer only normalizes: scale 1, shift 0. */
static batch_norm_layer layer_create(void)
{
    batch_norm_layer layer = {.eps = 1e-5, .momentum = 0.1};
    for (int c = 0; c < MAX_CHANNELS; c++) layer.gamma[c] = layer.moving_var[c] = 1;
    return layer;
}

static void layer_forward(batch_norm_layer *layer, bool training, const tensor *x, tensor *y)
{
    if (training) layer->x = *x;
    batch_norm(training, x, layer->gamma, layer->beta, layer->moving_mean, layer->moving_var, layer->eps,
               layer->momentum, y);
}

/* Gradients of a training pass, from dy = dL/dy. beta is added to every value and gamma multiplies xhat:
 *
 *   dbeta = sum(dy)    dgamma = sum(dy*xhat)
 *
 * An x acts on the loss directly, but also moves the mean and the variance of its whole channel. Put
 * together, the chain rule leaves dy without its average and without its part along xhat:
 *
 *   dx = gamma/sqrt(var + eps) * (dy - dbeta/m - xhat*dgamma/m)
 */
static void layer_backward(batch_norm_layer *layer, const tensor *dy, tensor *dx)
{
    const tensor *x = &layer->x;
    int m = samples(x) * positions(x);
    *dx = *x;
    for (int c = 0; c < channels(x); c++) {
        double mean, var, dgamma = 0, dbeta = 0;
        channel_statistics(x, c, &mean, &var);
        double inv_std = 1 / sqrt(var + layer->eps);
        for (int i = 0; i < samples(x); i++)
            for (int p = 0; p < positions(x); p++) {
                int k = at(x, i, c, p);
                dbeta += dy->data[k];
                dgamma += dy->data[k] * (x->data[k] - mean) * inv_std;
            }
        for (int i = 0; i < samples(x); i++)
            for (int p = 0; p < positions(x); p++) {
                int k = at(x, i, c, p);
                double xhat = (x->data[k] - mean) * inv_std;
                dx->data[k] =
                    (float)(layer->gamma[c] * inv_std * (dy->data[k] - dbeta / m - xhat * dgamma / m));
            }
        layer->dgamma[c] = (float)dgamma;
        layer->dbeta[c] = (float)dbeta;
    }
}

/* --- from here on: the same with the library, and the comparison */

static double difference(const float *a, const float *b, int count)
{
    double largest = 0;
    for (int i = 0; i < count; i++) {
        double apart = fabs((double)a[i] - b[i]);
        largest = fmax(largest, isnan(apart) ? INFINITY : apart);
    }
    return largest;
}

/* Training, backward and prediction on x, both ways. Returns the largest difference; 1 on an error. */
static double compare(ek_context *context, const tensor *x, const tensor *dy, tensor *y)
{
    batch_norm_layer layer = layer_create();
    for (int c = 0; c < channels(x); c++)
        layer.gamma[c] = 1 + 0.5f * (float)c, layer.beta[c] = 0.25f * (float)c;
    float running_mean[MAX_CHANNELS] = {0}, running_var[MAX_CHANNELS];
    for (int c = 0; c < MAX_CHANNELS; c++) running_var[c] = 1;

    tensor dx, predicted;
    layer_forward(&layer, true, x, y);
    layer_backward(&layer, dy, &dx);
    layer_forward(&layer, false, x, &predicted);

    /* The texts' moving variance is the biased one, M2/m; PyTorch's layer, and so the library's default,
     * keeps M2/(m-1). Momentum 0.1 is the share of the new batch: "keep 0.9" in other frameworks' words. */
    ek_batch_norm_options options = ek_batch_norm_options_default();
    options.momentum = 0.1;
    options.unbiased_running_var = false;

    ek_ncs shape = {samples(x), channels(x), positions(x)};
    float saved_data[4][MAX_CHANNELS], lib_dgamma[MAX_CHANNELS], lib_dbeta[MAX_CHANNELS];
    float lib_y[MAX_VALUES], lib_dx[MAX_VALUES], lib_predicted[MAX_VALUES];
    ek_batch_norm_saved saved = {saved_data[0], saved_data[1], saved_data[2], saved_data[3]};
    ek_batch_norm_arrays arrays = {
        .gamma = layer.gamma, .beta = layer.beta, .running_mean = running_mean, .running_var = running_var};
    ek_batch_norm_gradients gradients = {lib_dx, lib_dgamma, lib_dbeta};
    if (ek_batch_norm_forward_train(context, &options, shape, x->data, &arrays, lib_y, &saved) != EK_OK ||
        ek_batch_norm_backward(context, &options, EK_MODE_TRAINING, shape, x->data, dy->data, &arrays, &saved,
                               &gradients) != EK_OK ||
        ek_batch_norm_forward_inference(context, &options, shape, x->data, &arrays, lib_predicted, NULL) !=
            EK_OK) {
        fprintf(stderr, "batch_norm_from_scratch: %s\n", ek_error());
        return 1;
    }

    int c = channels(x), count = samples(x) * c * positions(x);
    double outputs =
        fmax(difference(y->data, lib_y, count), difference(predicted.data, lib_predicted, count));
    double slopes = fmax(difference(layer.dgamma, lib_dgamma, c), difference(layer.dbeta, lib_dbeta, c));
    double moved =
        fmax(difference(layer.moving_mean, running_mean, c), difference(layer.moving_var, running_var, c));
    return fmax(fmax(outputs, moved), fmax(slopes, difference(dx.data, lib_dx, count)));
}

int main(void)
{
    /* Four samples of two features, which differ tenfold in size; after BN they do not. */
    tensor small = {2, {4, 2}, {1, 10, 2, 30, 3, 20, 6, 40}},
           small_dy = {2, {4, 2}, {1, 0, 0, -1, 0.5f, 2, 0, 1}};
    tensor image = {4, {2, 3, 2, 2}, {0}}, image_dy = image, y;
    for (int i = 0; i < 24; i++) {
        image.data[i] = (float)sin(1.7 * i) + (float)(i / 4 % 3);
        image_dy.data[i] = (float)cos(2.3 * i);
    }

    ek_context *context;
    if (ek_context_create(NULL, &context) != EK_OK) {
        fprintf(stderr, "batch_norm_from_scratch: %s\n", ek_error());
        return 1;
    }
    double worst = compare(context, &image, &image_dy, &y);
    worst = fmax(worst, compare(context, &small, &small_dy, &y));
    ek_context_destroy(context);

    printf("x            y = gamma*(x - mean)/sqrt(var + eps) + beta, gamma 1 and 1.5, beta 0 and 0.25\n");
    for (int i = 0; i < 4; i++)
        printf("%2g %5g    %8.4f %8.4f\n", small.data[2 * i], small.data[2 * i + 1], y.data[2 * i],
               y.data[2 * i + 1]);
    printf("largest difference from the library: %.1e\n", worst);
    return worst > 1e-5;
}
