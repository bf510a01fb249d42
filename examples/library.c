#include <evenkeel.h>
#include <stdio.h>

static bool show(void *user, const ek_event *event)
{
    (void)user;
    if (event->kind == EK_EVENT_EPOCH)
        printf("epoch %d: loss %.3f, test accuracy %.3f\n", (int)event->epoch, event->train_loss, event->test_accuracy);
    return true; /* false would save and stop */
}

int main(void)
{
    const char *text = "input 1x28x28\n"
                       "conv1: conv 8 kernel=5 stride=2\n"
                       "bn1:   batchnorm\n"
                       "       relu\n"
                       "       flatten\n"
                       "fc:    linear 10\n";
    ek_context *context = NULL;
    ek_net *net = NULL;
    ek_dataset *train = NULL, *test = NULL;
    ek_train_options options = ek_train_options_default();
    options.epochs = 3;
    options.listener = show;

    ek_status status = ek_context_create(NULL, &context);
    if (!status) status = ek_net_create(context, text, NULL, &net);
    if (!status) status = ek_dataset_open("synthetic", EK_SPLIT_TRAIN, &train);
    if (!status) status = ek_dataset_open("synthetic", EK_SPLIT_TEST, &test);
    if (!status) status = ek_train(net, train, test, &options);
    if (!status) status = ek_net_save(net, "small.safetensors");
    if (status) fprintf(stderr, "%s\n", ek_error());

    ek_dataset_destroy(test);
    ek_dataset_destroy(train);
    ek_net_destroy(net);
    ek_context_destroy(context);
    return status != EK_OK;
}
