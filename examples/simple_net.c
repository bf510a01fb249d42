/*
 * The texts' SimpleNet: a linear layer, batch normalization, ReLU, run in training mode.
 *
 * The seven inputs are the six points one step from the origin along the axes, and the origin itself. The
 * linear layer only scales each axis, so column j of its output holds one +a, one -a and five zeros, with
 * another a in each column. Batch normalization takes the scale off again:
 *
 *   mean = 0    var = 2*a^2/7    a / sqrt(var) = sqrt(7/2) = 1.8708    whatever a is
 *
 * so that the column becomes one +1.8708, one -1.8708 and five zeros, and ReLU leaves one 1.8708 and six
 * zeros. (eps is too small beside var to be seen in four decimals.)
 */
#include <evenkeel.h>

#include <math.h>
#include <stdio.h>

enum { SAMPLES = 7, FEATURES = 3 };

static const char net_text[] = "input 3\n"
                               "fc1: linear 3\n"
                               "bn1: batchnorm\n"
                               "     relu\n";

static const float input[SAMPLES][FEATURES] = {
    {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {-1, 0, 0}, {0, -1, 0}, {0, 0, -1}, {0, 0, 0},
};

/* fc1.weight is [outputs, inputs], as in PyTorch: each output looks at one input, at a scale of its own. */
static const float scales[FEATURES] = {0.5f, 3, 100};

static ek_status run(ek_context *context, float output[SAMPLES][FEATURES])
{
    ek_net *net;
    ek_tensor weight;
    ek_status status = ek_net_create(context, net_text, "SimpleNet", &net);
    if (status != EK_OK) return status;
    status = ek_net_find_tensor(net, "fc1.weight", &weight);
    if (status == EK_OK) {
        for (int i = 0; i < FEATURES; i++)
            for (int j = 0; j < FEATURES; j++) weight.data[i * FEATURES + j] = i == j ? scales[i] : 0;
        status = ek_net_forward(net, EK_MODE_TRAINING, SAMPLES, &input[0][0], &output[0][0]);
    }
    ek_net_destroy(net);
    return status;
}

/* One sqrt(7/2) and six zeros? */
static bool column_is_right(float output[SAMPLES][FEATURES], int column)
{
    int peaks = 0, zeros = 0;
    for (int i = 0; i < SAMPLES; i++) {
        peaks += fabs(output[i][column] - sqrt(3.5)) < 1e-3;
        zeros += fabs(output[i][column]) < 1e-3;
    }
    return peaks == 1 && zeros == SAMPLES - 1;
}

int main(void)
{
    float output[SAMPLES][FEATURES];
    ek_context *context;
    ek_status status = ek_context_create(NULL, &context);
    if (status == EK_OK) {
        status = run(context, output);
        ek_context_destroy(context);
    }
    if (status != EK_OK) {
        fprintf(stderr, "simple_net: %s\n", ek_error());
        return 1;
    }

    for (int i = 0; i < SAMPLES; i++) printf("%8.4f %8.4f %8.4f\n", output[i][0], output[i][1], output[i][2]);
    for (int j = 0; j < FEATURES; j++)
        if (!column_is_right(output, j)) {
            fprintf(stderr, "simple_net: column %d should be one 1.8708 and six zeros\n", j + 1);
            return 1;
        }
    return 0;
}
