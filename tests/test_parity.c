/* One hundred training steps against PyTorch's: each step's loss, and the running statistics they end with.
 *
 * tests/data/parity_NET.json holds what PyTorch gives from the same initial weights and the same batches;
 * tests/oracles/parity.py makes it. That script gets weights, data and Evenkeel's own course from this program:
 *
 *   test_parity NET DIR [DATA]    writes init.safetensors, x.npy, y.npy and course.json into DIR, for the
 *                                 golden's batches or for full ones of other data
 */
#include "testing.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 100, SEED = 1 };
static const double tolerance = 1e-4; /* relative for losses; relative above 1 for running statistics */

/* Adam divides a gradient by its own size, so one of 1e-9 that rounding turns around becomes a whole step the other
 * way, and a ReLU at its kink hands that on: on any full data PyTorch's own float32 is often 1e-2 from its float64
 * after 100 steps. The golden of mlp-bn therefore has few weights and kinks in play, where that does not happen (noise
 * of 3e-7 of the largest gradient ends within 1e-6): 20 features, and batches of 16 items, each four times. */
static const struct recipe {
    const char *net, *data;
    int64_t features; /* of an item that are kept, the rest are zero */
    int64_t distinct; /* items of a batch */
    ek_optimizer optimizer;
    double lr;
    int64_t batch;
} recipes[] = {
    {"lenet-bn", "synthetic", 784, 128, EK_OPTIMIZER_SGD, 0.1, 128},
    {"mlp-bn", "synthetic:784", 20, 16, EK_OPTIMIZER_ADAM, 0.001, 64},
};

typedef struct course {
    const struct recipe *recipe;
    ek_context *context;
    ek_net *net;
    ek_dataset *data;
    char init_hash[17]; /* of the initial weights */
    double loss[STEPS];
} course;

/* FNV-1a over the bits of every tensor's numbers. */
static void hash_weights(const ek_net *net, char text[17])
{
    uint64_t hash = 0xcbf29ce484222325;
    for (int t = 0; t < ek_net_tensor_count(net); t++) {
        ek_tensor tensor = ek_net_tensor(net, t);
        if (!tensor.data) continue;
        int64_t count = 1;
        for (int d = 0; d < tensor.shape.rank; d++) count *= tensor.shape.dim[d];
        const unsigned char *byte = (const unsigned char *)tensor.data;
        for (int64_t i = 0; i < count * (int64_t)sizeof(float); i++) hash = (hash ^ byte[i]) * 0x100000001b3;
    }
    snprintf(text, 17, "%016" PRIx64, hash);
}

static void open_course(course *c, const struct recipe *recipe)
{
    ek_context_options options = ek_context_options_default();
    *c = (course){.recipe = recipe};
    assert_ok(ek_context_create(&options, &c->context));
    assert_ok(ek_net_open(c->context, recipe->net, &c->net));
    assert_ok(ek_net_init(c->net, EK_INIT_DEFAULT, SEED));
    assert_ok(ek_dataset_open(recipe->data, EK_SPLIT_TRAIN, &c->data));
    hash_weights(c->net, c->init_hash);
}

static void close_course(course *c)
{
    ek_dataset_destroy(c->data);
    ek_net_destroy(c->net);
    ek_context_destroy(c->context);
}

/* Items are taken in the order of the data, beginning anew at its end. */
static int item(const course *c, int64_t index, int64_t size, float *x)
{
    int label;
    assert_ok(ek_dataset_item(c->data, index % ek_dataset_count(c->data), x, &label));
    for (int64_t i = c->recipe->features; i < size; i++) x[i] = 0;
    return label;
}

static int64_t item_size(const course *c)
{
    ek_shape shape = ek_dataset_shape(c->data);
    int64_t size = 1;
    for (int d = 0; d < shape.rank; d++) size *= shape.dim[d];
    return size;
}

static void run_course(course *c)
{
    int64_t batch = c->recipe->batch, size = item_size(c), distinct = c->recipe->distinct;
    float *x = malloc((size_t)(batch * size) * sizeof(float));
    int32_t *labels = malloc((size_t)batch * sizeof(int32_t));
    assert_non_null(x);
    assert_non_null(labels);
    ek_optimizer_options options = ek_optimizer_options_default(c->recipe->optimizer);
    options.lr = c->recipe->lr;
    ek_trainer *trainer;
    assert_ok(ek_trainer_create(c->net, &options, SEED, &trainer));
    for (int step = 0; step < STEPS; step++) {
        for (int64_t i = 0; i < batch; i++)
            labels[i] = item(c, step * distinct + i % distinct, size, x + i * size);
        ek_step_result result;
        assert_ok(ek_trainer_step(trainer, batch, x, labels, &result));
        c->loss[step] = result.loss;
    }
    ek_trainer_destroy(trainer);
    free(labels);
    free(x);
}

/* Fails naming the first number that is too far off; one that is NaN is. */
static void assert_near(const char *what, int64_t index, double got, double wanted, double scale)
{
    if (!(fabs(got - wanted) <= tolerance * scale))
        fail_msg("%s[%" PRId64 "] is %.9g, PyTorch's %.9g", what, index, got, wanted);
}

static void compare(const course *c, const json_t *golden)
{
    const char *init = json_string_value(json_object_get(golden, "init_hash"));
    assert_non_null(init);
    if (strcmp(init, c->init_hash) != 0)
        fail_msg("initial weights have changed (%s, were %s): tests/oracles/parity.py BUILD --write makes "
                 "new goldens",
                 c->init_hash, init);
    const json_t *losses = json_object_get(golden, "loss");
    assert_int_equal(json_array_size(losses), STEPS);
    for (int step = 0; step < STEPS; step++) {
        double wanted = json_number_value(json_array_get(losses, (size_t)step));
        assert_near("loss", step, c->loss[step], wanted, wanted);
    }
    const char *name;
    json_t *values;
    json_object_foreach(json_object_get(golden, "running"), name, values)
    {
        ek_tensor tensor;
        assert_ok(ek_net_find_tensor(c->net, name, &tensor));
        assert_int_equal(json_array_size(values), tensor.shape.dim[0]);
        for (int64_t i = 0; i < tensor.shape.dim[0]; i++) {
            double wanted = json_number_value(json_array_get(values, (size_t)i));
            assert_near(name, i, (double)tensor.data[i], wanted, fmax(1, fabs(wanted)));
        }
    }
}

static void test_recipe(void **state)
{
    char path[512];
    const struct recipe *recipe = *state;
    snprintf(path, sizeof path, "%s/parity_%s.json", EK_TEST_DATA, recipe->net);
    json_error_t error;
    json_t *golden = json_load_file(path, 0, &error);
    if (!golden) fail_msg("%s: %s", path, error.text);
    course c;
    open_course(&c, recipe);
    run_course(&c);
    compare(&c, golden);
    close_course(&c);
    json_decref(golden);
}

/* --- for the script */

static void write_data(const course *c, const char *directory)
{
    char path[512];
    int64_t size = item_size(c), count = STEPS * c->recipe->distinct;
    float *x = malloc((size_t)(count * size) * sizeof(float));
    float *y = malloc((size_t)count * sizeof(float));
    assert_non_null(x);
    assert_non_null(y);
    for (int64_t i = 0; i < count; i++) y[i] = (float)item(c, i, size, x + i * size);
    snprintf(path, sizeof path, "%s/x.npy", directory);
    ek_shape one = ek_dataset_shape(c->data), shape = {one.rank + 1, {count}};
    memcpy(shape.dim + 1, one.dim, sizeof *one.dim * (size_t)one.rank);
    assert_ok(ek_array_write(path, shape, x));
    snprintf(path, sizeof path, "%s/y.npy", directory);
    assert_ok(ek_array_write(path, (ek_shape){1, {count}}, y));
    free(y);
    free(x);
}

static void write_course(const course *c, const char *directory)
{
    static const char *const optimizer_name[] = {"sgd", "adam", "adamw"};
    json_t *loss = json_array(), *running = json_object();
    for (int step = 0; step < STEPS; step++) json_array_append_new(loss, json_real(c->loss[step]));
    for (int t = 0; t < ek_net_tensor_count(c->net); t++) {
        ek_tensor tensor = ek_net_tensor(c->net, t);
        if (tensor.role != EK_ROLE_RUNNING_MEAN && tensor.role != EK_ROLE_RUNNING_VAR) continue;
        json_t *values = json_array();
        for (int64_t i = 0; i < tensor.shape.dim[0]; i++)
            json_array_append_new(values, json_real((double)tensor.data[i]));
        json_object_set_new(running, tensor.name, values);
    }
    json_t *all = json_pack("{ss ss sf sI sI ss so so}", "net", c->recipe->net, "optimizer",
                            optimizer_name[c->recipe->optimizer], "lr", c->recipe->lr, "batch",
                            (json_int_t)c->recipe->batch, "distinct", (json_int_t)c->recipe->distinct,
                            "init_hash", c->init_hash, "loss", loss, "running", running);
    assert_non_null(all);
    char path[512];
    snprintf(path, sizeof path, "%s/course.json", directory);
    assert_int_equal(json_dump_file(all, path, 0), 0);
    json_decref(all);
}

static const char **arguments; /* NET DIR [DATA] */

static void write_for_script(void **state)
{
    (void)state;
    struct recipe recipe = {0};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (strcmp(recipes[i].net, arguments[0]) == 0) recipe = recipes[i];
    assert_non_null(recipe.net);
    if (arguments[2]) {
        recipe.data = arguments[2];
        recipe.features = INT64_MAX;
        recipe.distinct = recipe.batch;
    }
    course c;
    open_course(&c, &recipe);
    char path[512];
    snprintf(path, sizeof path, "%s/init.safetensors", arguments[1]);
    assert_ok(ek_net_save(c.net, path));
    write_data(&c, arguments[1]);
    run_course(&c);
    write_course(&c, arguments[1]);
    close_course(&c);
}

int main(int argc, const char **argv)
{
    if (argc == 3 || argc == 4) {
        arguments = argv + 1;
        const struct CMUnitTest script[] = {cmocka_unit_test(write_for_script)};
        return cmocka_run_group_tests(script, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        {"parity of lenet-bn with SGD", test_recipe, NULL, NULL, (void *)&recipes[0]},
        {"parity of mlp-bn with Adam", test_recipe, NULL, NULL, (void *)&recipes[1]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
