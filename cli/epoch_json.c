#include "epoch_json.h"

#include "output.h"

#include <math.h>

json_t *cli_epoch_json(const ek_event *epoch)
{
    json_t *object = json_object();
    json_object_set_new(object, "epoch", json_integer(epoch->epoch));
    cli_json_number(object, "train_loss", epoch->train_loss);
    cli_json_number(object, "train_accuracy", epoch->train_accuracy);
    cli_json_number(object, "valid_loss", epoch->valid_loss);
    cli_json_number(object, "valid_accuracy", epoch->valid_accuracy);
    cli_json_number(object, "test_loss", epoch->test_loss);
    cli_json_number(object, "test_accuracy", epoch->test_accuracy);
    cli_json_number(object, "images_per_second", epoch->images_per_second);
    cli_json_number(object, "seconds", epoch->seconds);
    return object;
}

double cli_number_from_json(const json_t *value) { return json_is_number(value) ? json_number_value(value) : NAN; }

static double measure(const json_t *object, const char *key) { return cli_number_from_json(json_object_get(object, key)); }

ek_event cli_epoch_from_json(const json_t *object)
{
    return (ek_event){.kind = EK_EVENT_EPOCH,
                      .epoch = json_integer_value(json_object_get(object, "epoch")),
                      .train_loss = measure(object, "train_loss"),
                      .train_accuracy = measure(object, "train_accuracy"),
                      .valid_loss = measure(object, "valid_loss"),
                      .valid_accuracy = measure(object, "valid_accuracy"),
                      .test_loss = measure(object, "test_loss"),
                      .test_accuracy = measure(object, "test_accuracy"),
                      .images_per_second = measure(object, "images_per_second"),
                      .seconds = measure(object, "seconds")};
}
