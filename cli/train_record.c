#include "train_record.h"

#include "commands.h"
#include "output.h"
#include "ranks.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* --- the machine */

const char *cli_machine(void)
{
    static char name[256],
        text[4096]; /* without an allocation: want of memory gives the machine no other name */
    int file = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, text, sizeof text - 1) : 0;
    if (file >= 0) close(file);
    text[length > 0 ? length : 0] = 0;
    const char *line = strstr(text, "model name"), *value = line ? strchr(line, ':') : NULL;
    if (value) value += strspn(value, ": ");
    if (value) snprintf(name, sizeof name, "%.*s", (int)strcspn(value, "\n"), value);
    struct utsname system;
    if (!*name && uname(&system) == 0) snprintf(name, sizeof name, "%s", system.machine);
    return name;
}

/* Where a run is computed, as far as its bits may depend on it. */
static json_t *host_json(const ek_context *context)
{
    const char *fuse = getenv("EVENKEEL_FUSE");
    json_t *host = json_object();
    json_object_set_new(host, "version", json_string(ek_version()));
    json_object_set_new(host, "machine", cli_json_text(cli_machine()));
    json_object_set_new(host, "isa", json_string(ek_context_isa(context)));
    if (fuse && strcmp(fuse, "off") == 0) json_object_set_new(host, "fuse", json_string(fuse));
    return host;
}

/* --- options */

/* Of train's options those that the trained numbers do not depend on; --init has a place of its own. */
static bool is_recorded(const cli_option *option)
{
    static const char *const other[] = {"init",    "out",    "log",         "checkpoint", "checkpoint-steps",
                                        "resume",  "report", "tensorboard", "metrics",    "quiet",
                                        "threads", "json",   "timeout"};
    if (option->kind <= CLI_OPERAND) return false;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (strcmp(option->name, other[i]) == 0) return false;
    return true;
}

/* As it would be given; NULL: off, which no value says. */
static json_t *option_json(const cli_option *option, const cli_train_plan *plan)
{
    const void *value = (const char *)plan + option->offset;
    char text[CLI_TEXT_SIZE] = "";
    switch (option->kind) {
    case CLI_FLAG: return json_boolean(*(const bool *)value);
    case CLI_TEXT: return *(const char *const *)value ? cli_json_text(*(const char *const *)value) : NULL;
    case CLI_INTEGER:
        if ((double)*(const int64_t *)value < option->least) return NULL;
        snprintf(text, sizeof text, "%lld", (long long)*(const int64_t *)value);
        break;
    case CLI_NUMBER:
        if (option->above && *(const double *)value <= option->least) return NULL;
        cli_real(text, *(const double *)value);
        break;
    case CLI_CHOICE: {
        const char *word = option->value;
        for (int i = 0; i < *(const int *)value; i++) word = strchr(word, '|') + 1;
        snprintf(text, sizeof text, "%.*s", (int)strcspn(word, "|"), word);
        break;
    }
    default: return NULL;
    }
    return json_string(text);
}

/* All of them, with what stands for a default put in its place. */
static json_t *options_json(const cli_train_plan *plan)
{
    cli_train_plan resolved = *plan;
    ek_train_options o = cli_train_options(&plan->training);
    resolved.training.lr = o.optimizer.lr;
    resolved.training.weight_decay = o.optimizer.weight_decay;
    if (!plan->training.shards) resolved.training.shards = ek_comm_ranks(cli_comm());
    json_t *options = json_object();
    for (const cli_option *option = cli_train.options; option->kind != CLI_END; option++) {
        json_t *value = is_recorded(option) ? option_json(option, &resolved) : NULL;
        if (value) json_object_set_new(options, option->name, value);
    }
    return options;
}

/* --- data */

/* Samples in the hash: so many, evenly spread from the first to the last, or fewer where they are large. */
static int64_t hashed_samples(int64_t count, int64_t numbers)
{
    enum { MOST = 1024, LEAST = 16, MOST_NUMBERS = 4 << 20 };
    int64_t most = numbers > 0 && MOST_NUMBERS / numbers < MOST ? MOST_NUMBERS / numbers : MOST;
    if (most < LEAST) most = LEAST;
    return count < most ? count : most;
}

/* A sample's label and its length as 32-bit integers, then its numbers as 32-bit floats; of a sequence those within its length, as
 * anything may stand beyond. */
static void hash_sample(SHA2_CTX *hash, ek_shape shape, const float *x, int32_t label, int32_t length)
{
    int64_t row = shape.rank > 0 ? shape.dim[shape.rank - 1] : 1, rows = cli_numbers(shape) / row;
    SHA256Update(hash, (const uint8_t *)&label, sizeof label);
    SHA256Update(hash, (const uint8_t *)&length, sizeof length);
    for (int64_t i = 0; i < rows; i++)
        SHA256Update(hash, (const uint8_t *)(x + i * row), (size_t)(length ? length : row) * sizeof *x);
}

static bool hash_samples(const ek_dataset *data, char text[SHA256_DIGEST_STRING_LENGTH])
{
    int64_t count = ek_dataset_count(data), numbers = cli_numbers(ek_dataset_shape(data));
    int64_t hashed = hashed_samples(count, numbers);
    float *x = cli_alloc((size_t)numbers, sizeof *x);
    SHA2_CTX hash;
    bool fine = true;
    SHA256Init(&hash);
    for (int64_t i = 0; fine && i < hashed; i++) {
        int64_t index = hashed > 1 ? i * (count - 1) / (hashed - 1) : 0;
        int label = -1;
        fine = ek_dataset_item(data, index, x, &label) == EK_OK;
        if (fine) hash_sample(&hash, ek_dataset_shape(data), x, label, ek_dataset_length(data, index));
    }
    SHA256End(&hash, text);
    free(x);
    if (!fine) cli_fail_status();
    return fine;
}

/* What data is known again by. NULL: it cannot be read, which was said. */
static json_t *data_json(const ek_dataset *data)
{
    char hash[SHA256_DIGEST_STRING_LENGTH], shape[CLI_TEXT_SIZE];
    if (!hash_samples(data, hash)) return NULL;
    return json_pack("{s:I, s:s, s:i, s:s}", "count", (json_int_t)ek_dataset_count(data), "shape",
                     cli_shape(shape, ek_dataset_shape(data)), "classes", ek_dataset_classes(data), "sha256",
                     hash);
}

static bool add_data(json_t *record, const ek_dataset *train, const ek_dataset *test)
{
    json_t *data = json_object(), *of_train = data_json(train), *of_test = test ? data_json(test) : NULL;
    bool fine = of_train && (of_test || !test);
    json_object_set_new(data, "train", of_train);
    if (of_test) json_object_set_new(data, "test", of_test);
    json_object_set_new(record, "data", data);
    return fine;
}

/* --- making it */

/* A word of --init, or a file and its hash. */
static bool add_weights(json_t *record, const cli_train_plan *plan, const cli_model *model)
{
    const char *weights = plan->init ? plan->init : model->trained ? plan->net : "default";
    bool plain = !(model->trained && !plan->init) && cli_is_plain_init(weights);
    char hash[SHA256_DIGEST_STRING_LENGTH];
    json_object_set_new(record, "weights", cli_json_text(weights));
    if (plain) return true;
    if (SHA256File(weights, hash))
        json_object_set_new(record, "weights_sha256", json_string(hash));
    else
        cli_fail("cannot read %s: %s", weights, strerror(errno));
    return json_object_get(record, "weights_sha256") != NULL;
}

json_t *cli_record_make(const cli_train_plan *plan, const cli_model *model, const ek_dataset *train,
                        const ek_dataset *test)
{
    char net[SHA256_DIGEST_STRING_LENGTH];
    json_t *record = json_object();
    json_object_set_new(record, "options", options_json(plan));
    bool fine = add_weights(record, plan, model) && add_data(record, train, test);
    SHA256Data((const uint8_t *)ek_net_text(model->net), strlen(ek_net_text(model->net)), net);
    json_object_set_new(record, "net_sha256", json_string(net));
    json_object_set_new(record, "on", json_pack("[o]", host_json(model->context)));
    if (fine && cli_json_is_whole()) return record;
    if (!cli_json_is_whole()) cli_fail("out of memory for the record of the run");
    json_decref(record);
    return NULL;
}

/* What the run began with, from the checkpoint's record. */
static void take_over(json_t *record, const json_t *before)
{
    static const char *const began[] = {"weights", "weights_sha256"};
    for (size_t i = 0; i < sizeof began / sizeof *began; i++) {
        json_object_del(record, began[i]);
        if (json_object_get(before, began[i]))
            json_object_set(record, began[i], json_object_get(before, began[i]));
    }
    if (!json_equal(json_object_get(record, "data"), json_object_get(before, "data")))
        cli_note("the data is not what the run began with");
    json_t *hosts = json_deep_copy(json_object_get(before, "on")), *now = json_object_get(record, "on");
    if (!json_equal(json_array_get(hosts, json_array_size(hosts) - 1), json_array_get(now, 0)))
        json_array_extend(hosts, now);
    json_object_set_new(record, "on", hosts);
}

static bool is_record(const json_t *record)
{
    const json_t *on = json_object_get(record, "on");
    size_t i;
    json_t *host;
    json_array_foreach(on, i, host)
    {
        for (const char *key = "version\0machine\0isa\0"; *key; key += strlen(key) + 1)
            if (!json_is_string(json_object_get(host, key))) return false;
    }
    return json_array_size(on) > 0 && json_is_object(json_object_get(record, "options")) &&
           json_is_string(json_object_get(record, "weights")) &&
           json_is_string(json_object_get(record, "net_sha256")) &&
           json_is_object(json_object_get(record, "data"));
}

bool cli_record_keep(json_t *record, ek_net *net, bool resumed)
{
    const char *text = resumed ? ek_net_metadata(net, EK_RUN_KEY) : NULL;
    json_t *before = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    char *made = NULL;
    bool known = !resumed || is_record(before);
    if (before && known) take_over(record, before);
    if (known)
        made = json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS); /* however it was put together */
    else
        cli_note(
            "the checkpoint does not say how its run began; evenkeel rerun will not be able to repeat it");
    bool fine = (made || !known) && ek_net_set_metadata(net, EK_RUN_KEY, made) == EK_OK;
    if (!fine) cli_fail("out of memory for the record of the run");
    free(made);
    json_decref(before);
    return fine;
}

void cli_record_stop(ek_net *net, int64_t step, int64_t steps)
{
    const char *text = ek_net_metadata(net, EK_RUN_KEY);
    if (!text) return;
    json_t *record = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *stopped = json_pack("{s:I, s:I}", "step", (json_int_t)step, "steps", (json_int_t)steps);
    bool fine = json_object_set_new(record, "stopped", stopped) == 0;
    char *made = fine ? json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (!made || ek_net_set_metadata(net, EK_RUN_KEY, made) != EK_OK)
        cli_fail("out of memory for the record of the run: the model does not say that it was stopped");
    free(made);
    json_decref(record);
}

/* --- reading it */

/* No control characters: those of ASCII, and U+0080 to U+009F, which a terminal may obey too. */
static bool is_clean_text(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    for (; *c; c++)
        if (iscntrl(*c) || (c[0] == 0xc2 && c[1] < 0xa0)) return false;
    return true;
}

/* Texts go to a terminal and into names of files. */
static bool is_clean(const json_t *value)
{
    const char *key;
    json_t *inner;
    size_t i;
    if (json_is_string(value)) return is_clean_text(json_string_value(value));
    json_object_foreach((json_t *)value, key, inner) {
        if (!is_clean_text(key) || !is_clean(inner)) return false;
    }
    json_array_foreach(value, i, inner) {
        if (!is_clean(inner)) return false;
    }
    return true;
}

json_t *cli_record_read(const char *name, const ek_net *net)
{
    const char *text = ek_net_metadata(net, EK_RUN_KEY);
    char hash[SHA256_DIGEST_STRING_LENGTH];
    if (!text) {
        cli_fail("%s does not say how it was trained, as models of evenkeel train in .safetensors files do: "
                 "it cannot be repeated",
                 name);
        return NULL;
    }
    json_t *record = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    SHA256Data((const uint8_t *)ek_net_text(net), strlen(ek_net_text(net)), hash);
    if (!is_record(record) || !is_clean(record))
        cli_fail("what %s says of its training (" EK_RUN_KEY
                 ") is damaged, or of another version: it cannot be repeated",
                 name);
    else if (strcmp(hash, json_string_value(json_object_get(record, "net_sha256"))) != 0)
        cli_fail("the net of %s was changed after its training (folded?): repeat the run by the model as it "
                 "was trained",
                 name);
    else
        return record;
    json_decref(record);
    return NULL;
}

static bool take_option(const char *key, const json_t *value, const char *name, cli_train_plan *plan)
{
    const cli_option *option = cli_train.options;
    while (option->kind != CLI_END && !(is_recorded(option) && strcmp(option->name, key) == 0)) option++;
    bool flag = option->kind == CLI_FLAG;
    if (option->kind == CLI_END || !(flag ? json_is_boolean(value) : json_is_string(value))) {
        cli_fail("%s was trained with --%s, which this version does not know so", name, key);
        return false;
    }
    if (flag) *(bool *)((char *)plan + option->offset) = json_is_true(value);
    return flag || cli_store(&cli_train, key, json_string_value(value), plan);
}

bool cli_record_plan(const json_t *record, const char *name, cli_train_plan *plan)
{
    const char *key;
    json_t *value, *options = json_object_get(record, "options");
    json_object_foreach(options, key, value) {
        if (take_option(key, value, name, plan)) continue;
        fprintf(stderr, "This is what %s says of its training.\n", name);
        return false;
    }
    if (plan->training.data) return true;
    cli_fail("%s does not say what data it was trained on", name);
    return false;
}

void cli_record_tell_stop(const json_t *record, const char *name)
{
    const json_t *stopped = json_object_get(record, "stopped");
    if (json_is_object(stopped))
        cli_note("%s was saved when its run was stopped, after step %lld of %lld; repeated, the run goes on "
                 "to its end",
                 name, (long long)json_integer_value(json_object_get(stopped, "step")),
                 (long long)json_integer_value(json_object_get(stopped, "steps")));
}

const char *cli_record_weights(const json_t *record)
{
    return json_string_value(json_object_get(record, "weights"));
}
const char *cli_record_weights_hash(const json_t *record)
{
    return json_string_value(json_object_get(record, "weights_sha256"));
}

/* --- two of them */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static void compare_data(const json_t *then, const json_t *now, const char *split)
{
    const json_t *a = json_object_get(then, split), *b = json_object_get(now, split);
    if (json_equal((json_t *)a, (json_t *)b)) return;
    if (!a || !b) {
        cli_note("there was %s %s data then, and there is %s now", a ? "" : "no", split, b ? "some" : "none");
        return;
    }
    json_int_t count = json_integer_value(json_object_get(a, "count")),
               here = json_integer_value(json_object_get(b, "count"));
    cli_note("the %s data is another: %lld samples of %s then, %lld of %s now%s", split, (long long)count,
             text_of(a, "shape"), (long long)here, text_of(b, "shape"),
             count == here ? ", with other content" : "");
}

void cli_record_compare(const json_t *then, const json_t *now)
{
    static const struct {
        const char *key, *what, *remedy;
    } all[] = {{"version", "the version", ""},
               {"machine", "the processor", ""},
               {"isa", "the instruction set", "; EVENKEEL_ISA chooses it"},
               {"fuse", "EVENKEEL_FUSE", ""}};
    const json_t *hosts = json_object_get(then, "on"), *a = json_array_get(hosts, json_array_size(hosts) - 1);
    const json_t *b = json_array_get(json_object_get(now, "on"), 0);
    if (json_array_size(hosts) > 1)
        cli_note("it was interrupted, and went on elsewhere: its bits may depend on both places");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(text_of(a, all[i].key), text_of(b, all[i].key)) != 0)
            cli_note("%s was %s then, and is %s now%s", all[i].what, text_of(a, all[i].key),
                     text_of(b, all[i].key), all[i].remedy);
    }
    const json_t *was = json_object_get(then, "data"), *is = json_object_get(now, "data");
    compare_data(was, is, "train");
    compare_data(was, is, "test");
}
