/* Trains a small net for a few steps through the installed library, so that every dependency is linked. */
#include <evenkeel.h>

#include <stdio.h>

static const char net_text[] = "input 2\n"
                               "fc1: linear 8\n"
                               "bn1: batchnorm\n"
                               "     relu\n"
                               "fc2: linear 2\n";

/* Four points of two classes, exclusive or. */
static const float points[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
static const int32_t labels[4] = {0, 1, 1, 0};

static ek_status learn(ek_net *net)
{
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    ek_trainer *trainer = NULL;
    ek_status status = ek_trainer_create(net, &options, 1, &trainer);
    ek_step_result result = {0};
    for (int step = 0; status == EK_OK && step < 500; step++)
        status = ek_trainer_step(trainer, 4, points[0], labels, &result);
    ek_trainer_destroy(trainer);
    if (status == EK_OK) printf("Evenkeel %s, exclusive or, loss %.4f\n", ek_version(), result.loss);
    return status == EK_OK && !(result.loss < 0.3) ? EK_E_NUMERIC : status;
}

int main(void)
{
    ek_context_options options = ek_context_options_default();
    ek_context *context = NULL;
    ek_net *net = NULL;
    ek_status status = ek_context_create(&options, &context);
    if (status == EK_OK) status = ek_net_create(context, net_text, NULL, &net);
    if (status == EK_OK) status = learn(net);
    if (status == EK_OK) status = ek_net_save(net, "consumer.safetensors");
    if (status != EK_OK) fprintf(stderr, "consumer: %s: %s\n", ek_status_name(status), ek_error());
    ek_net_destroy(net);
    ek_context_destroy(context);
    return status != EK_OK;
}
