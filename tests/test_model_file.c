/* Model files: what is saved comes back; what does not fit is refused, with the net as it was. */
#include "testing.h"

#include "scratch.h"

#include "core/memory.h"
#include "formats/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static ek_context *context;

static const char text[] = "input 3x4x4\n"
                           "c: conv 2 kernel=3\n"
                           "n: batchnorm momentum=none\n"
                           "   flatten\n"
                           "f: linear 3\n"
                           "m: batchnorm track=false\n"
                           "g: linear 2\n";

static int start(void **state) { return make_path(state) != 0 || ek_context_create(NULL, &context) != EK_OK; }

static int finish(void **state)
{
    ek_context_destroy(context);
    return remove_path(state);
}

static ek_net *make_net(void)
{
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    return net;
}

static ek_tensor tensor(const ek_net *net, const char *name)
{
    ek_tensor t = {0};
    assert_ok(ek_net_find_tensor(net, name, &t));
    return t;
}

/* All numbers of both, bit by bit. */
static bool same_numbers(const ek_net *a, const ek_net *b)
{
    assert_int_equal(ek_net_tensor_count(a), ek_net_tensor_count(b));
    bool same = true;
    for (int i = 0; i < ek_net_tensor_count(a); i++) {
        ek_tensor x = ek_net_tensor(a, i), y = ek_net_tensor(b, i);
        assert_string_equal(x.name, y.name);
        if (x.counter)
            same &= *x.counter == *y.counter;
        else
            same &= !memcmp(x.data, y.data, (size_t)ek_shape_count(x.shape) * sizeof(float));
    }
    return same;
}

/* --- writing and reading */

static void test_round_trip(void **state)
{
    (void)state;
    ek_net *net = make_net(), *copy;
    assert_ok(ek_net_init(net, EK_INIT_KAIMING, 5));
    tensor(net, "n.running_mean").data[1] = -3.5f;
    tensor(net, "n.running_var").data[0] = 1e-30f;
    *tensor(net, "n.num_batches_tracked").counter = (int64_t)1 << 40;
    const char *const classes[] = {"T-shirt/top", "\xc3\x84pfel \"rot\""};
    assert_ok(ek_net_set_classes(net, classes, 2));
    assert_ok(ek_net_save(net, path));

    char named[64];
    snprintf(named, sizeof named, "%s.safetensors", path);
    assert_int_equal(rename(path, named), 0);
    assert_ok(ek_net_open(context, named, &copy));
    assert_int_equal(rename(named, path), 0);
    assert_string_equal(ek_net_text(net), ek_net_text(copy));
    assert_true(same_numbers(net, copy));
    assert_string_equal(ek_net_class(copy, 0), classes[0]);
    assert_string_equal(ek_net_class(copy, 1), classes[1]);
    assert_null(ek_net_class(copy, 2));
    ek_net_destroy(copy);
    ek_net_destroy(net);
}

static void assert_stored(const ek_safetensors *file, const char *name, ek_number dtype, int rank,
                          int64_t count)
{
    const ek_st_tensor *t = ek_safetensors_find(file, name);
    if (!t) fail_msg("there is no tensor %s", name);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->rank, rank);
    assert_int_equal(t->count, count);
}

static void test_what_is_in_the_file(void **state)
{
    (void)state;
    ek_net *net = make_net();
    assert_ok(ek_net_save(net, path));
    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    assert_int_equal(file.count, 13);
    assert_stored(&file, "c.weight", EK_NUMBER_F32, 4, 54);
    assert_stored(&file, "n.running_var", EK_NUMBER_F32, 1, 2);
    assert_stored(&file, "n.num_batches_tracked", EK_NUMBER_I64, 0, 1);
    assert_stored(&file, "c.bias", EK_NUMBER_F32, 1, 2); /* redundant: zeros */
    float bias[2] = {1, 1};
    assert_ok(ek_st_to_float(ek_safetensors_find(&file, "c.bias"), bias));
    assert_true(bias[0] == 0 && bias[1] == 0);

    assert_string_equal(ek_safetensors_metadata(&file, "format"), "pt");
    assert_string_equal(ek_safetensors_metadata(&file, "evenkeel.version"), ek_version());
    assert_string_equal(ek_safetensors_metadata(&file, "evenkeel.net"), ek_net_text(net));
    assert_null(ek_safetensors_metadata(&file, "evenkeel.classes"));
    const char *conventions = ek_safetensors_metadata(&file, "evenkeel.batch_norm");
    assert_non_null(
        strstr(conventions, "\"n\":{\"eps\":1e-5,\"momentum\":null,\"running_var\":\"unbiased\"}"));
    assert_non_null(
        strstr(conventions, "\"m\":{\"eps\":1e-5,\"momentum\":0.1,\"running_var\":\"unbiased\",\"track\":false}"));
    ek_safetensors_free(&file);
    ek_net_destroy(net);
}

static void assert_convention(const char *conventions, const char *words)
{
    if (!strstr(conventions, words)) fail_msg("%s lacks %s", conventions, words);
}

static void test_every_convention_is_told(void **state)
{
    (void)state;
    ek_net *net, *copy;
    assert_ok(ek_net_create(context,
                            "input 4\na: batchnorm ghost=8 unbiased=false\nb: batchnorm frozen=true\n"
                            "c: batchnorm r_max=3 d_max=2.5 renorm_steps=100 scale=false\nlayernorm\nd: batchnorm shift=false",
                            NULL, &net));
    assert_ok(ek_net_save(net, path));
    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    const char *conventions = ek_safetensors_metadata(&file, "evenkeel.batch_norm");
    assert_convention(conventions, "\"a\":{\"eps\":1e-5,\"momentum\":0.1,\"running_var\":\"biased\",\"ghost\":8}");
    assert_convention(conventions, "\"b\":{\"eps\":1e-5,\"momentum\":0.1,\"running_var\":\"unbiased\",\"frozen\":true}");
    assert_convention(conventions, "\"r_max\":3.0,\"d_max\":2.5,\"renorm_steps\":100}");
    assert_convention(conventions, "\"d\":{\"eps\":1e-5,\"momentum\":0.1,\"running_var\":\"unbiased\"}}");
    assert_null(ek_safetensors_find(&file, "c.weight"));
    assert_null(ek_safetensors_find(&file, "d.bias"));
    assert_non_null(ek_safetensors_find(&file, "c.bias"));
    ek_safetensors_free(&file);
    char named[64];
    snprintf(named, sizeof named, "%s.safetensors", path);
    assert_int_equal(rename(path, named), 0);
    assert_ok(ek_net_open(context, named, &copy));
    assert_int_equal(rename(named, path), 0);
    assert_string_equal(ek_net_text(net), ek_net_text(copy));
    ek_net_destroy(copy);
    ek_net_destroy(net);
}

/* Under PyTorch's names and shapes. */
static void test_normalizations_of_samples_in_the_file(void **state)
{
    (void)state;
    ek_net *net, *copy;
    const char *of_samples = "input 4x3x5\nl: layernorm\ng: groupnorm 2\nc: conv 6 kernel=1\ni: instancenorm scale=true shift=true\n"
                             "instancenorm\nr: rmsnorm\n";
    assert_ok(ek_net_create(context, of_samples, NULL, &net));
    assert_ok(ek_net_init(net, EK_INIT_KAIMING, 5));
    tensor(net, "l.weight").data[59] = 0.5f;
    tensor(net, "r.weight").data[1] = -2;
    assert_true(tensor(net, "g.weight").data[3] == 1 && tensor(net, "g.bias").data[3] == 0);
    assert_ok(ek_net_save(net, path));
    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    assert_int_equal(file.count, 9);
    assert_stored(&file, "l.weight", EK_NUMBER_F32, 3, 60);
    assert_stored(&file, "l.bias", EK_NUMBER_F32, 3, 60);
    assert_stored(&file, "g.weight", EK_NUMBER_F32, 1, 4);
    assert_stored(&file, "i.bias", EK_NUMBER_F32, 1, 6);
    assert_stored(&file, "r.weight", EK_NUMBER_F32, 3, 90);
    assert_null(ek_safetensors_metadata(&file, "evenkeel.batch_norm"));

    /* A bias before instancenorm comes in and is dropped. */
    float bias[6] = {1, 2, 3, 4, 5, 6};
    assert_int_equal(ek_safetensors_find(&file, "c.bias")->count, 6);
    assert_ok(ek_net_create(context, of_samples, NULL, &copy));
    memcpy((void *)ek_safetensors_find(&file, "c.bias")->bytes, bias, sizeof bias);
    assert_ok(ek_model_take(copy, &file, path, false));
    assert_true(tensor(copy, "c.bias").data[5] == 0);
    assert_true(same_numbers(net, copy));
    ek_safetensors_free(&file);
    ek_net_destroy(copy);
    ek_net_destroy(net);
}

static void test_metadata_of_others_stays(void **state)
{
    (void)state;
    ek_net *net = make_net(), *copy, *again;
    ek_st_writer writer = {0};
    assert_ok(ek_model_add(net, &writer));
    assert_ok(ek_st_add_metadata(&writer, "author", "somebody"));
    assert_ok(ek_st_add_metadata(&writer, "evenkeel.train.step", "7"));
    assert_ok(ek_st_write(&writer, path));
    ek_st_writer_free(&writer);

    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    assert_ok(ek_model_net(context, &file, path, &copy));
    ek_safetensors_free(&file);
    assert_ok(ek_net_save(copy, path));
    assert_ok(ek_safetensors_read(path, &file));
    assert_string_equal(ek_safetensors_metadata(&file, "author"), "somebody");
    assert_null(ek_safetensors_metadata(&file, "evenkeel.train.step"));
    assert_ok(ek_model_net(context, &file, path, &again));
    assert_int_equal(again->metadata_count, 1);
    ek_safetensors_free(&file);
    ek_net_destroy(again);
    ek_net_destroy(copy);
    ek_net_destroy(net);
}

static void test_metadata_of_others_is_limited(void **state)
{
    (void)state;
    ek_net *net = make_net(), *copy;
    for (int entries = 1024; entries <= 1025; entries++) {
        ek_st_writer writer = {0};
        char key[16];
        assert_ok(ek_model_add(net, &writer));
        for (int i = 0; i < entries; i++) {
            snprintf(key, sizeof key, "%d", i);
            assert_ok(ek_st_add_metadata(&writer, key, ""));
        }
        assert_ok(ek_st_write(&writer, path));
        ek_st_writer_free(&writer);
        ek_safetensors file;
        assert_ok(ek_safetensors_read(path, &file));
        if (entries > 1024) {
            assert_fails(EK_E_FORMAT, "more than 1024 entries of others",
                         ek_model_net(context, &file, path, &copy));
        } else {
            assert_ok(ek_model_net(context, &file, path, &copy));
            ek_net_destroy(copy);
        }
        ek_safetensors_free(&file);
    }
    ek_net_destroy(net);
}

/* --- state dicts from elsewhere */

/* The net's tensors with one of them replaced, left out (dtype -1) or added. */
typedef struct change {
    const char *name;
    int dtype, rank;
    int64_t dim[5];
    double value; /* of every element; NAN and INFINITY too */
} change;

static void write_changed(const ek_net *net, const change *changes, int count)
{
    static double numbers[256];
    ek_st_writer writer = {0};
    double *next = numbers;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        bool changed = false;
        for (int k = 0; k < count; k++) changed |= !strcmp(changes[k].name, t.name);
        if (changed) continue;
        const void *data = t.counter ? (const void *)t.counter : t.data;
        assert_ok(ek_st_add(&writer, t.name, t.counter ? EK_NUMBER_I64 : EK_NUMBER_F32, t.shape.rank,
                            t.shape.dim, data));
    }
    for (int k = 0; k < count; k++) {
        const change *c = &changes[k];
        if (c->dtype < 0) continue;
        int64_t n = 1;
        for (int i = 0; i < c->rank; i++) n *= c->dim[i];
        assert_true(next + n <= numbers + 256);
        for (int64_t i = 0; i < n; i++) {
            if (c->dtype == EK_NUMBER_I64)
                memcpy(&next[i], &(int64_t){(int64_t)c->value}, sizeof *next);
            else
                next[i] = c->value;
        }
        assert_ok(ek_st_add(&writer, c->name, (ek_number)c->dtype, c->rank, c->dim, next));
        next += n;
    }
    assert_ok(ek_st_write(&writer, path));
    ek_st_writer_free(&writer);
}

static void test_state_dict(void **state)
{
    (void)state;
    ek_net *from = make_net(), *net = make_net();
    assert_ok(ek_net_init(from, EK_INIT_XAVIER, 9));
    tensor(from, "n.running_mean").data[0] = 0.75f;
    *tensor(net, "n.num_batches_tracked").counter = 3;
    /* An old state dict without the counter, a double among its tensors, biases before both BNs, and the
     * optimizer's state. */
    const change changes[] = {
        {"n.num_batches_tracked", -1, 0, {0}, 0},
        {"f.weight", EK_NUMBER_F64, 2, {3, 8}, 0.1},
        {"c.bias", EK_NUMBER_F64, 1, {2}, 0.5},
        {"f.bias", EK_NUMBER_F64, 1, {3}, 1e30},
        {"optimizer.c.weight", EK_NUMBER_F64, 1, {4}, NAN},
    };
    write_changed(from, changes, 5);
    assert_ok(ek_net_load_weights(net, path));
    assert_int_equal(*tensor(net, "n.num_batches_tracked").counter, 0);
    assert_true(tensor(net, "f.weight").data[7] == 0.1f);
    assert_true(tensor(net, "n.running_mean").data[0] == 0.25f);
    assert_true(tensor(net, "n.running_mean").data[1] == -0.5f);
    assert_true(tensor(net, "c.bias").data[0] == 0 && tensor(net, "f.bias").data[0] == 0);
    assert_memory_equal(tensor(net, "c.weight").data, tensor(from, "c.weight").data, 54 * sizeof(float));
    ek_net_destroy(net);
    ek_net_destroy(from);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        change change[2];
        ek_status status;
        const char *sentence; /* after the path */
    } cases[] = {
        {{{"g.weight", -1, 0, {0}, 0}}, EK_E_FORMAT, ": the file lacks g.weight"},
        {{{"g.weight", -1, 0, {0}, 0}, {"c.bias", -1, 0, {0}, 0}},
         EK_E_FORMAT,
         ": the file lacks c.bias, g.weight"},
        {{{"h.weight", EK_NUMBER_F64, 1, {1}, 0}, {"x\n", EK_NUMBER_F64, 1, {1}, 0}},
         EK_E_FORMAT,
         ": the file has h.weight, x?, which the net lacks"},
        {{{"g.weight", -1, 0, {0}, 0}, {"g.wieght", EK_NUMBER_F64, 2, {2, 3}, 0}},
         EK_E_FORMAT,
         ": the file lacks g.weight, and has g.wieght, which the net lacks; is the first meant to be "
         "g.weight?"},
        {{{"c.weight", EK_NUMBER_F64, 4, {2, 3, 3, 2}, 0}},
         EK_E_SHAPE,
         ": c.weight is [2,3,3,2] in the file, the net needs [2,3,3,3]"},
        {{{"g.bias", EK_NUMBER_F64, 2, {1, 2}, 0}},
         EK_E_SHAPE,
         ": g.bias is [1,2] in the file, the net needs [2]"},
        {{{"n.num_batches_tracked", EK_NUMBER_I64, 1, {2}, 0}},
         EK_E_SHAPE,
         ": n.num_batches_tracked is [2] in the file, the net needs []"},
        {{{"n.num_batches_tracked", EK_NUMBER_I64, 0, {0}, -1}},
         EK_E_NUMERIC,
         ": n.num_batches_tracked is -1, which no count of batches can be"},
        {{{"n.num_batches_tracked", EK_NUMBER_I64, 0, {0}, 9.2e18}},
         EK_E_NUMERIC,
         ": n.num_batches_tracked is 92"},
        {{{"g.bias", EK_NUMBER_F64, 1, {2}, NAN}},
         EK_E_NUMERIC,
         ": g.bias holds a value that is not finite, number 0"},
        {{{"n.running_mean", EK_NUMBER_F64, 1, {2}, INFINITY}},
         EK_E_NUMERIC,
         ": n.running_mean holds a value that is not finite"},
        {{{"n.weight", EK_NUMBER_F64, 1, {2}, 1e300}},
         EK_E_FORMAT,
         ": tensor 'n.weight': element 0 is 1e+300, too large"},
        {{{"n.running_var", EK_NUMBER_F64, 1, {2}, -0.5}},
         EK_E_NUMERIC,
         ": n.running_var holds -0.5, and a variance is never negative"},
        {{{"n.running_mean", EK_NUMBER_F64, 1, {2}, -3e38}, {"c.bias", EK_NUMBER_F64, 1, {2}, 3e38}},
         EK_E_NUMERIC,
         ": n.running_mean holds a value that is not finite"},
    };
    ek_net *from = make_net(), *net = make_net(), *before = make_net();
    assert_ok(ek_net_init(from, EK_INIT_DEFAULT, 8));
    assert_false(same_numbers(from, net));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed(from, cases[i].change, cases[i].change[1].name ? 2 : 1);
        if (ek_net_load_weights(net, path) != cases[i].status) fail_msg("case %zu: %s", i, ek_error());
        assert_int_equal(strncmp(ek_error(), path, strlen(path)), 0);
        if (strncmp(ek_error() + strlen(path), cases[i].sentence, strlen(cases[i].sentence)))
            fail_msg("\"%s\" does not say \"%s\"", ek_error(), cases[i].sentence);
        assert_true(same_numbers(net, before));
    }
    ek_net_destroy(before);
    ek_net_destroy(net);
    ek_net_destroy(from);
}

static void test_many_names(void **state)
{
    (void)state;
    ek_net *net = make_net();
    ek_st_writer writer = {0};
    assert_ok(ek_st_write(&writer, path));
    assert_fails(EK_E_FORMAT, ": the file lacks c.bias, c.weight, f.bias, f.weight, g.bias and 7 more",
                 ek_net_load_weights(net, path));
    ek_net_destroy(net);
}

/* Metadata that is absent or was tampered with. */
static void test_bad_metadata(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *sentence;
    } cases[] = {
        {"author", "x",
         "/tmp/m has no net text in it (it was written elsewhere): give the net and take the parameters with "
         "--init /tmp/m"},
        {"evenkeel.net", "input 3\nrelo",
         "/tmp/m, net text:2:1: there is no layer 'relo'; did you mean 'relu'?"},
        {"evenkeel.net", "input 10000000\nlinear 100",
         "/tmp/m, net text has 1000000100 parameters, more than the file's"},
        {"evenkeel.classes", "{\"a\":1}", "/tmp/m: its evenkeel.classes is not a JSON array of names"},
        {"evenkeel.classes", "[\"a\",1]", "/tmp/m: its evenkeel.classes is not a JSON array of names"},
        {"evenkeel.classes", "[\"a\",\"\\u001b[31m\"]",
         "/tmp/m: the name of class 1 is not UTF-8 text without control characters"},
        {"evenkeel.classes", "[\"a\"", "/tmp/m: its evenkeel.classes is not a JSON array of names"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ek_st_writer writer = {0};
        ek_safetensors file;
        ek_net *net = NULL;
        if (!strcmp(cases[i].key, "evenkeel.classes"))
            assert_ok(ek_st_add_metadata(&writer, "evenkeel.net", "input 3\nrelu"));
        assert_ok(ek_st_add_metadata(&writer, cases[i].key, cases[i].value));
        assert_ok(ek_st_write(&writer, path));
        ek_st_writer_free(&writer);
        assert_ok(ek_safetensors_read(path, &file));
        assert_fails(EK_E_FORMAT, cases[i].sentence, ek_model_net(context, &file, "/tmp/m", &net));
        assert_int_equal(strncmp(ek_error(), "/tmp/m", 6), 0);
        assert_null(net);
        ek_safetensors_free(&file);
    }
}

/* A class name that no file can hold is refused when it is given, not after the training. */
static void test_class_names_are_plain(void **state)
{
    (void)state;
    ek_net *net = make_net();
    const char *const bad[] = {"\xff",     "caf\xe9", "\xc0\xaf",    "\xed\xa0\x80", "\xf4\x90\x80\x80",
                               "\xe2\x82", "a\nb",    "\x1b[31mred", "\x7f",         "\xc2\x9b"};
    const char *const good[] = {"", "caf\xc3\xa9", "\xe2\x82\xac \xf0\x9f\x99\x82"};
    assert_ok(ek_net_set_classes(net, good, 3));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *const names[] = {"fine", bad[i]};
        assert_fails(EK_E_FORMAT, "the name of class 1 is not UTF-8", ek_net_set_classes(net, names, 2));
        assert_string_equal(ek_net_class(net, 1), good[1]);
    }
    ek_net_destroy(net);
}

/* A model that would be refused when read does not replace one that is sound. */
static void test_what_is_not_finite_is_not_saved(void **state)
{
    (void)state;
    ek_net *net = make_net(), *before = make_net();
    assert_ok(ek_net_save(net, path));
    ek_tensor tensor;
    assert_ok(ek_net_find_tensor(net, "g.bias", &tensor));
    tensor.data[1] = INFINITY;
    assert_fails(EK_E_NUMERIC, "g.bias holds a value that is not finite", ek_net_save(net, path));
    assert_ok(ek_net_load_weights(net, path));
    assert_true(same_numbers(net, before));
    ek_net_destroy(before);
    ek_net_destroy(net);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    ek_net *net = make_net();
    assert_ok(ek_net_save(net, path));
    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    for (failing f = {0}; fail_next(&f);) {
        ek_net *copy = NULL;
        f.status = ek_model_net(context, &file, path, &copy);
        if (f.status == EK_OK) f.status = ek_model_take(copy, &file, path, false);
        ek_net_destroy(copy);
    }
    ek_safetensors_free(&file);
    ek_net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_what_is_in_the_file),
        cmocka_unit_test(test_every_convention_is_told),
        cmocka_unit_test(test_normalizations_of_samples_in_the_file),
        cmocka_unit_test(test_metadata_of_others_stays),
        cmocka_unit_test(test_metadata_of_others_is_limited),
        cmocka_unit_test(test_state_dict),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_bad_metadata),
        cmocka_unit_test(test_class_names_are_plain),
        cmocka_unit_test(test_what_is_not_finite_is_not_saved),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
