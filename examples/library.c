#include <evenkeel.h>
#include <stdio.h>

int main(void)
{
    const char *text = "input 1x28x28\n"
                       "conv 8 kernel=5 stride=2\n"
                       "batchnorm\n"
                       "relu\n"
                       "flatten\n"
                       "linear 10\n";
    ek_context *context = NULL;
    ek_net *net = NULL;
    ek_dataset *train = NULL, *test = NULL;
    ek_train_options options = ek_train_options_default();
    options.epochs = 3;
    ek_metrics metrics;
    ek_status status = ek_context_create(NULL, &context);
    if (!status) status = ek_net_create(context, text, NULL, &net);
    if (!status) status = ek_dataset_open("synthetic", EK_SPLIT_TRAIN, &train);
    if (!status) status = ek_dataset_open("synthetic", EK_SPLIT_TEST, &test);
    if (!status) status = ek_train(net, train, NULL, &options);
    if (!status) status = ek_evaluate(net, test, 256, &metrics);
    if (!status) status = ek_net_save(net, "small.safetensors");
    if (status)
        fprintf(stderr, "%s\n", ek_error());
    else
        printf("test accuracy %.3f\n", metrics.accuracy);
    ek_dataset_destroy(test);
    ek_dataset_destroy(train);
    ek_net_destroy(net);
    ek_context_destroy(context);
    return status != EK_OK;
}
