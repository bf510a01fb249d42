#include "c_source.h"
#include "before_after.h"
#include "output.h"
#include "progress.h"
#include "stop.h"

#include <math.h>
#include <stdio.h>

/* Ranges are of the training part, where there is one, and what is lost is measured on the test part. */
static ek_status open_data(const cli_c_source *source, const ek_net *net, ek_dataset **data, ek_dataset **test)
{
    if (!source->data) return EK_OK;
    ek_status status = cli_open_any_data(source->data, EK_SPLIT_TRAIN, net, data);
    if (status == EK_E_NOT_FOUND) status = cli_open_any_data(source->data, EK_SPLIT_ANY, net, data);
    return status == EK_OK ? cli_open_any_data(source->data, EK_SPLIT_ANY, net, test) : status;
}

bool cli_c_source_write(const cli_c_source *source, const ek_net *net, const char *path, ek_c_answer *answer)
{
    ek_dataset *data = NULL, *test = NULL;
    ek_c_options o = ek_c_options_default();
    cli_progress progress;
    cli_stop_listen();
    cli_progress_begin(&progress, source->quiet, &(ek_event){0}, NULL);
    ek_status status = open_data(source, net, &data, &test);
    o.name = source->name;
    o.int8 = source->int8;
    o.data = data;
    o.test = test;
    o.samples = source->samples;
    o.progress = cli_progress_work;
    o.user = &progress;
    if (status == EK_OK) status = ek_net_save_c(net, &o, path, answer);
    cli_progress_clear(&progress);
    ek_dataset_destroy(data);
    ek_dataset_destroy(test);
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}

json_t *cli_c_source_json(const ek_c_answer *answer)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(answer->name));
    json_object_set_new(object, "weight_bytes", json_integer(answer->weight_bytes));
    json_object_set_new(object, "memory_bytes", json_integer(answer->memory_bytes));
    json_object_set_new(object, "multiply_adds", json_integer(answer->multiply_adds));
    cli_json_number(object, "difference", answer->difference);
    if (!answer->test_count) return object;
    json_object_set_new(object, "test_count", json_integer(answer->test_count));
    cli_json_number(object, "accuracy", answer->accuracy);
    cli_json_number(object, "int8_accuracy", answer->int8_accuracy);
    cli_json_number(object, "same_class", answer->same_class);
    return object;
}

void cli_c_source_print(const ek_c_answer *answer)
{
    char text[CLI_TEXT_SIZE];
    printf("int %s_predict(const float *in, float *out)\n\n", answer->name);
    printf("weights         %s\n", cli_bytes(text, (double)answer->weight_bytes));
    printf("static memory   %s\n", cli_bytes(text, (double)answer->memory_bytes));
    printf("multiply-adds   %s\n", cli_count(text, answer->multiply_adds));
    if (!answer->test_count) {
        if (!isnan(answer->difference)) printf("largest difference that folding makes  %.2g\n", answer->difference);
        putchar('\n');
        return;
    }
    printf("\non %s samples, in floats and in eight bits:\n", cli_count(text, answer->test_count));
    if (!isnan(answer->accuracy))
        printf("accuracy        %.4f, %.4f (%+.4f)\n", answer->accuracy, answer->int8_accuracy,
               answer->int8_accuracy - answer->accuracy);
    printf("the same class  %.2f %%\n", 100 * answer->same_class);
    printf("largest difference of an output  %.3g\n\n", answer->difference);
}
