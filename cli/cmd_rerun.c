#include "commands.h"
#include "common.h"
#include "output.h"
#include "train_record.h"
#include "train_run.h"

#include <errno.h>
#include <libgen.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef cli_train_plan settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model that evenkeel train has written, a .safetensors file."),
    ROW_TEXT("data", "DATA", training.data,
             "Where the data is now. Needed where it was named by a path that does not lead into the model's folder."),
    ROW_TEXT("init", "FILE", init, "Where the file is now that the weights began as; likewise."),
    ROW_FLAG("dry-run", dry_run, "Only print the train command that does the same."),

    ROW_HEADING("Files:"),
    ROW_TEXT("out", "MODEL", out, "Where the new model goes; without it, it is only compared."),
    ROWS_RUN_FILES,
    ROWS_COMMON,
};

/* --- what a model may make the program read */

/* Whether what `path` leads to lies in the folder of `model`. */
static bool lies_beside(const char *path, const char *model)
{
    char *real = realpath(path, NULL), *beside = realpath(model, NULL);
    const char *folder = beside ? dirname(beside) : NULL;
    size_t length = folder ? strlen(folder) : 0;
    if (length == 1) length = 0; /* the root */
    bool inside = real && folder && strncmp(real, folder, length) == 0 && real[length] == '/';
    free(real);
    free(beside);
    return inside;
}

/* A data set that is known by its name, for what the command line can tell: no path at all. */
static bool is_name(const char *data) { return !strpbrk(data, "/.,") && access(data, F_OK) != 0; }

static bool may_read(const char *what, const char *path, const char *option, const char *model)
{
    if (lies_beside(path, model)) return true;
    if (access(path, F_OK) == 0)
        cli_fail("%s names %s as its %s, which does not lie in the model's folder: say that it is to be read, with --%s", model,
                 path, what, option);
    else
        cli_fail("%s names %s as its %s, and that is not there (%s): say where it is now, with --%s", model, path, what,
                 strerror(errno), option);
    return false;
}

static bool may_read_data(const char *data, const char *model)
{
    char *parts = cli_text("%s", data), *rest = parts, *size = strrchr(parts, ':');
    bool scaled = size && !size[1 + strspn(size + 1, "0123456789x")] && !strchr(parts, ',');
    if (scaled && access(parts, F_OK) != 0) *size = 0; /* a folder of images, DIR:3x64x64 */
    bool may = is_name(parts);
    if (!may) {
        do may = may_read("data", strsep(&rest, ","), "data", model);
        while (may && rest);
    }
    free(parts);
    return may;
}

/* --- from the record to a plan */

static bool take_data(settings *plan, const char *given)
{
    if (given)
        plan->training.data = given;
    else if (!plan->dry_run && !may_read_data(plan->training.data, plan->model))
        return false;
    return true;
}

static bool is_unchanged(const char *path, const char *hash, const char *model)
{
    char now[SHA256_DIGEST_STRING_LENGTH];
    if (!SHA256File(path, now)) {
        cli_fail("cannot read %s: %s", path, strerror(errno));
        return false;
    }
    if (strcmp(now, hash) == 0) return true;
    cli_fail("%s is not what %s began as: its SHA-256 is %s, not %s", path, model, now, hash);
    return false;
}

/* The weights that the run begins with: a word, or a file that is as it was. */
static bool take_weights(settings *plan, const json_t *record, const char *given)
{
    const char *weights = cli_record_weights(record), *hash = cli_record_weights_hash(record);
    plan->net = plan->model;
    plan->init = weights;
    if (!hash && cli_is_plain_init(weights)) {
        if (!given) return true;
        cli_fail("the weights of %s began as --init %s, not as a file: leave --init out", plan->model, weights);
        return false;
    }
    if (given) plan->init = given;
    if (!hash) {
        cli_fail("%s does not say what its weights began as", plan->model);
        return false;
    }
    if (!plan->dry_run) {
        if (!given && !may_read("initial weights", weights, "init", plan->model)) return false;
        if (!is_unchanged(plan->init, hash, plan->model)) return false;
    }
    if (cli_ends_with(plan->init, ".onnx")) { /* brings its net */
        plan->net = plan->init;
        plan->init = NULL;
    }
    return true;
}

/* --- the command that does the same */

static void add_option(json_t *words, const char *name, const char *value)
{
    const char *form = *value == '-' ? "--%s=%s" : "--%s";
    char *word = cli_text(form, name, value);
    json_array_append_new(words, cli_json_text(word));
    if (*value != '-') json_array_append_new(words, cli_json_text(value));
    free(word);
}

static json_t *command_of(const settings *plan, const json_t *record)
{
    json_t *words = json_pack("[s, s]", "evenkeel", "train");
    json_array_append_new(words, cli_json_text(plan->net));
    for (const cli_option *option = cli_train.options; option->kind != CLI_END; option++) {
        const json_t *value = json_object_get(json_object_get(record, "options"), option->name);
        bool data = strcmp(option->name, "data") == 0;
        if (json_is_string(value))
            add_option(words, option->name, data ? plan->training.data : json_string_value(value));
        else if (json_is_true(value))
            json_array_append_new(words, json_sprintf("--%s", option->name));
    }
    if (plan->init) add_option(words, "init", plan->init);
    add_option(words, "out", plan->out ? plan->out : "again.safetensors");
    return words;
}

static int print_command(const settings *plan, const json_t *record)
{
    json_t *words = command_of(plan, record), *word;
    size_t i;
    if (plan->json) return cli_json_answer(json_pack("{s:o}", "command", words));
    fputs("evenkeel", stdout);
    json_array_foreach(words, i, word) {
        if (i > 0) cli_print_quoted(stdout, json_string_value(word));
    }
    putchar('\n');
    json_decref(words);
    return CLI_DONE;
}

/* --- the run */

static void tell_paths(const settings *plan)
{
    const char *weights = plan->init ? plan->init : plan->net;
    bool file = !cli_is_plain_init(weights);
    cli_note("%s is repeated with the data %s%s%s", plan->model, plan->training.data, file ? " and the initial weights " : "",
             file ? weights : "");
}

static int rerun(const settings *given, const cli_model *model, const json_t *record, int argc, char **argv)
{
    settings plan = *given;
    cli_expected expected = {.path = plan.model, .net = model->net, .record = record};
    int code;
    plan.training = cli_training_default();
    plan.expected = &expected;
    if (!cli_record_plan(record, plan.model, &plan) || !take_data(&plan, given->training.data) ||
        !take_weights(&plan, record, given->init))
        return CLI_FAILED;
    if (!cli_train_check(&cli_rerun, &plan, &code)) return code;
    cli_record_tell_stop(record, plan.model);
    if (plan.dry_run) return print_command(&plan, record);
    tell_paths(&plan);
    if (ek_net_metadata(model->net, "evenkeel.recalibrated"))
        cli_note("%s was recalibrated after its training: its running statistics will differ from the run's", plan.model);
    return cli_train_go(&plan, argc, argv);
}

static int run(int argc, char **argv)
{
    settings s = {0};
    int code;
    if (!cli_parse(&cli_rerun, argc, argv, &s, &code)) return code;
    cli_model model;
    json_t *record = NULL;
    code = CLI_FAILED;
    if (cli_model_open(&model, s.model, 1)) record = cli_record_read(s.model, model.net);
    if (record) code = rerun(&s, &model, record, argc, argv);
    json_decref(record);
    cli_model_close(&model);
    return code;
}

const cli_command cli_rerun = {
    .name = "rerun",
    .synopsis = "MODEL [options]",
    .brief = "repeats the training that a model came from, and compares",
    .about = "Trains once more as MODEL says that it was trained: its net, options, seed, initial weights and data. Says "
             "before it begins what is not as it was then (version, processor, instruction set, data), and at the end "
             "whether the result is MODEL to the last bit (of a run that was stopped, it is not); the exit code is 0 where it is, and 1 where it is not. With the same data, version and "
             "instruction set it is, for any number of threads. It reads no file that MODEL names outside MODEL's "
             "folder, unless that is named again by --data or --init, and writes only what options name.",
    .examples = "  evenkeel rerun lenet.safetensors\n"
                "  evenkeel rerun lenet.safetensors --dry-run\n"
                "  evenkeel rerun models/my.safetensors --data data/x.npy,data/y.npy --out again.safetensors\n",
    .options = options,
    .run = run,
    .ranks = true,
};
