#include "before_after.h"
#include "commands.h"
#include "common.h"
#include "output.h"
#include "progress.h"
#include "stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *out, *net, *name, *data;
    int from; /* 0: nowhere else; then ek_framework + 1 */
    double eps, momentum;
    bool fold, int8, keep_eps, json, quiet;
    int64_t threads;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx), a net text or a shipped net; with --net a file of bare weights "
                                "(.safetensors)."),
    ROW_HEADING("Files:"),
    ROW_REQUIRED("out", "FILE", out,
                 "What it becomes, by its ending: .safetensors a model, .onnx an ONNX model for other programs, .c a "
                 "C source, with a header and a self-test beside it, .net or .txt its net text without the parameters. "
                 "Replaced only by a whole new file."),
    ROW_TEXT("net", "NET", net,
             "The net that the weights in MODEL are for: a shipped net, a net text, or a model, whose own weights do not "
             "matter."),
    ROW_FLAG("fold", fold, "Fold batch normalizations into the weights beside them first, as evenkeel fold does. In a C source they "
                           "always are."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROW_HEADING("C source:"),
    ROW_TEXT("name", "NAME", name, "Prefix of its functions, NAME_predict; without it made of FILE's name."),
    ROW_FLAG("int8", int8, "Weights and values as whole numbers of eight bits."),
    ROW_TEXT("data", "DATA", data,
             "For --int8: samples like those to come, as for train, or one IDX or NPY file. Ranges are taken from the training "
             "part where there is one; what is lost is measured on the test part where there is one."),
    ROW_HEADING("Weights of other frameworks:"),
    ROW_CHOICE("from", "evenkeel|pytorch|keras|flax|onnx", from,
               "Whose names, orders of axes and conventions of batch normalization the weights have."),
    ROW_POSITIVE("eps", "E", eps, "Batch normalization's eps there; without it what the net text says, else the framework's default."),
    ROW_NUMBER("momentum", "M", momentum, 0, 1,
               "Batch normalization's momentum as the framework writes it: keras, flax and onnx keep this share of the old "
               "statistics. Without it what the net text says, else the framework's default."),
    ROW_FLAG("keep-eps", keep_eps, "Keep the net's eps, and multiply gamma by sqrt((v + eps here)/(v + eps there)) instead."),
    ROWS_COMMON,
};

/* What is converted, and what is to be said of it. */
typedef struct job {
    const settings *s;
    cli_model model;
    ek_fold *fold;        /* NULL: not folded */
    const ek_net *net;    /* what is written */
    ek_dataset *data, *test;
    cli_progress progress;
    ek_c_answer c;        /* of a C source */
    json_t *taken;   /* of --json */
    cli_table table; /* else */
    bool listed;
} job;

/* --- endings: what FILE can be */

/* Each gives false where it failed, which was said. */

static bool saved(ek_status status)
{
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}

static bool write_model(job *j) { return saved(ek_net_save(j->net, j->s->out)); }
static bool write_onnx(job *j) { return saved(ek_net_save_onnx(j->net, j->s->out)); }

static bool write_text(job *j)
{
    const char *text = ek_net_text(j->net);
    return cli_write_file(j->s->out, text, strlen(text));
}

static bool write_c(job *j)
{
    ek_c_options o = ek_c_options_default();
    o.name = j->s->name;
    o.int8 = j->s->int8;
    o.data = j->data;
    o.test = j->test;
    o.progress = cli_progress_work;
    o.user = &j->progress;
    ek_status status = ek_net_save_c(j->net, &o, j->s->out, &j->c);
    cli_progress_clear(&j->progress);
    return saved(status);
}

static const struct format {
    const char *ending, *what;
    bool (*write)(job *j);
} formats[] = {
    {".safetensors", "model", write_model},
    {".onnx", "ONNX model", write_onnx},
    {".c", "C source", write_c},
    {".net", "net text", write_text},
    {".txt", "net text", write_text},
};
enum { FORMATS = sizeof formats / sizeof *formats };

/* NULL: none, which was said. */
static const struct format *find_format(const char *out)
{
    const char *name = strrchr(out, '/'), *endings[FORMATS];
    const char *dot = strrchr(name ? name : out, '.');
    char all[128] = "";
    for (int i = 0; i < FORMATS; i++) {
        if (dot && strcmp(dot, formats[i].ending) == 0) return &formats[i];
        endings[i] = formats[i].ending;
        strcat(strcat(all, i ? ", " : ""), endings[i]);
    }
    const char *nearest = dot ? cli_nearest(dot, endings, FORMATS) : NULL;
    if (nearest)
        cli_usage_error(&cli_convert, "%s ends in '%s'; did you mean '%s'?", out, dot, nearest);
    else
        cli_usage_error(&cli_convert, "%s must end in what it is to become, one of %s", out, all);
    return NULL;
}

/* --- weights of others */

static void take(void *user, const ek_taken *taken)
{
    job *j = user;
    if (j->taken) {
        json_t *row = json_object();
        json_object_set_new(row, "tensor", json_string(taken->tensor));
        json_object_set_new(row, "shape", cli_json_shape(taken->shape));
        json_object_set_new(row, "source", cli_json_text(taken->source));
        json_object_set_new(row, "source_shape", cli_json_shape(taken->source_shape));
        json_object_set_new(row, "change", json_string(taken->change));
        json_array_append_new(j->taken, row);
        return;
    }
    char here[CLI_TEXT_SIZE], there[CLI_TEXT_SIZE];
    if (!j->listed) cli_table_begin(&j->table, "tensor|shape|from|shape there|change");
    j->listed = true;
    cli_table_row(&j->table, taken->tensor, cli_shape(here, taken->shape), taken->source, cli_shape(there, taken->source_shape),
                  taken->change);
}

static ek_status take_weights(job *j)
{
    const settings *s = j->s;
    if (s->from == 0) return ek_net_load_weights(j->model.net, s->model);
    ek_foreign_options o = ek_foreign_options_default();
    o.eps = s->eps;
    o.momentum = s->momentum;
    o.keep_eps = s->keep_eps;
    o.taken = take;
    o.user = j;
    ek_net *net;
    ek_status status = ek_net_take_foreign(j->model.net, s->model, (ek_framework)(s->from - 1), &o, &net);
    if (status != EK_OK) return status;
    ek_net_destroy(j->model.net);
    j->model.net = net;
    return EK_OK;
}

/* --- folding, and the data of --int8 */

/* False: it failed, which was said. */
static bool fold(job *j)
{
    ek_fold_options o = ek_fold_options_default();
    o.progress = cli_progress_work;
    o.user = &j->progress;
    ek_status status = ek_fold_create(j->model.net, &o, &j->fold);
    cli_progress_clear(&j->progress);
    if (!saved(status)) return false;
    if (!ek_fold_holds(j->fold)) {
        cli_fail("the folded net is not the same within %g; evenkeel fold %s shows where, and nothing was written", o.bound,
                 j->s->model);
        return false;
    }
    j->net = ek_fold_net(j->fold);
    return true;
}

static bool open_data(job *j)
{
    const char *data = j->s->data;
    if (!data) return true;
    bool train = !cli_is_file(data) && ek_dataset_open(data, EK_SPLIT_TRAIN, &j->data) == EK_OK;
    if (!train && !saved(cli_open_any_data(data, EK_SPLIT_ANY, j->net, &j->data))) return false;
    return saved(cli_open_any_data(data, EK_SPLIT_ANY, j->net, &j->test));
}

/* --- the answer */

static json_t *c_json(const ek_c_answer *c)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(c->name));
    json_object_set_new(object, "weight_bytes", json_integer(c->weight_bytes));
    json_object_set_new(object, "memory_bytes", json_integer(c->memory_bytes));
    json_object_set_new(object, "multiply_adds", json_integer(c->multiply_adds));
    cli_json_number(object, "difference", c->difference);
    if (c->test_count == 0) return object;
    json_object_set_new(object, "test_count", json_integer(c->test_count));
    cli_json_number(object, "accuracy", c->accuracy);
    cli_json_number(object, "int8_accuracy", c->int8_accuracy);
    cli_json_number(object, "same_class", c->same_class);
    return object;
}

static void print_c(const ek_c_answer *c)
{
    char text[CLI_TEXT_SIZE], more[CLI_TEXT_SIZE];
    printf("int %s_predict(const float *in, float *out)\n\n", c->name);
    printf("weights        %s\n", cli_bytes(text, (double)c->weight_bytes));
    printf("memory         %s\n", cli_bytes(text, (double)c->memory_bytes));
    printf("multiply-adds  %s\n", cli_count(text, c->multiply_adds));
    if (isfinite(c->difference)) printf("difference     %.2g at most\n", c->difference);
    if (c->test_count > 0 && isfinite(c->accuracy))
        printf("accuracy       %s in eight bits, %s before\n", cli_measure(text, c->int8_accuracy), cli_measure(more, c->accuracy));
    if (c->test_count > 0)
        printf("same class     %s, of %s samples\n", cli_measure(text, c->same_class), cli_count(more, c->test_count));
    putchar('\n');
}

/* How many normalizations were folded. */
static int folded(const job *j)
{
    int count = 0;
    for (int i = 0; j->fold && i < ek_fold_layer_count(j->fold); i++) count += ek_fold_layer(j->fold, i)->how != EK_FOLD_KEPT;
    return count;
}

static int answer(const job *j, const struct format *format)
{
    const ek_net *net = j->model.net;
    int fold_count = j->fold ? ek_fold_layer_count(j->fold) : 0;
    if (j->s->json) {
        json_t *object = json_object(), *notes = json_array();
        for (int i = 0; i < ek_net_note_count(net); i++) json_array_append_new(notes, cli_json_text(ek_net_note(net, i)));
        json_object_set_new(object, "model", cli_json_text(j->s->model));
        json_object_set_new(object, "out", cli_json_text(j->s->out));
        json_object_set_new(object, "format", json_string(format->what));
        json_object_set_new(object, "parameters", json_integer(cli_parameters(j->net)));
        if (j->fold) json_object_set_new(object, "folded", json_integer(folded(j)));
        if (j->fold) json_object_set_new(object, "kept", json_integer(fold_count - folded(j)));
        if (*j->c.name) json_object_set_new(object, "c", c_json(&j->c));
        if (j->s->from) json_object_set(object, "taken", j->taken);
        json_object_set_new(object, "notes", notes);
        return cli_json_answer(object);
    }
    if (j->listed) {
        cli_table_print(&j->table);
        putchar('\n');
    }
    for (int i = 0; i < ek_net_note_count(net); i++) {
        fputs("- ", stdout);
        cli_print_wrapped_at(ek_net_note(net, i), 2, 2);
    }
    if (ek_net_note_count(net)) putchar('\n');
    if (j->fold) printf("%d of %d normalization%s folded\n\n", folded(j), fold_count, fold_count == 1 ? "" : "s");
    if (*j->c.name) print_c(&j->c);
    printf("%s: %s\n", format->what, j->s->out);
    return CLI_DONE;
}

/* Options that say nothing without others. */
static const char *useless(const settings *s, const struct format *format)
{
    if (format->write != write_c && (s->name || s->int8 || s->data))
        return "--name, --int8 and --data are for a C source: --out FILE.c";
    if (s->int8 != (s->data != NULL)) return s->int8 ? "--int8 needs samples to take ranges from: --data DATA" : "--data is for --int8, which is missing";
    if (s->fold && cli_same_file(s->out, s->model))
        return "a folded model can no longer be trained as before; give --out a file of its own";
    if (cli_would_lose(s->out, s->data, s->net)) return cli_would_lose(s->out, s->data, s->net);
    if (s->from && !s->net) return "--from is for bare weights: --net says which net they are for";
    if (!s->from && (!isnan(s->eps) || !isnan(s->momentum) || s->keep_eps))
        return "--eps, --momentum and --keep-eps translate the conventions of --from, which is missing";
    if (cli_is_file(s->out) && s->net && (cli_same_file(s->out, s->model) || cli_same_file(s->out, s->net)))
        return "what it is made from would be overwritten; name another file for the output";
    if (cli_same_file(s->out, s->model) && !ek_is_model(s->model))
        return "the net text would be overwritten; name another file for the output";
    return NULL;
}

static int run(int argc, char **argv)
{
    settings s = {.eps = NAN, .momentum = NAN};
    int code;
    if (!cli_parse(&cli_convert, argc, argv, &s, &code)) return code;
    const struct format *format = find_format(s.out);
    if (!format) return CLI_USAGE;
    const char *wrong = useless(&s, format);
    if (wrong) return cli_usage_error(&cli_convert, "%s", wrong);
    job j = {.s = &s, .taken = s.json ? json_array() : NULL};
    code = CLI_FAILED;
    if (!cli_model_open(&j.model, s.net ? s.net : s.model, s.threads)) goto done;
    if (!s.net) cli_warn_untrained(&j.model, s.model);
    if (!cli_can_write(s.out)) goto done;
    cli_stop_listen();
    cli_progress_begin(&j.progress, s.quiet, &(ek_event){0}, NULL);
    if (s.net && !saved(take_weights(&j))) goto done;
    j.net = j.model.net;
    /* What makes a C source folds by itself. */
    if (s.fold && format->write != write_c && !fold(&j)) goto done;
    if (open_data(&j) && format->write(&j)) code = answer(&j, format);
done:
    ek_dataset_destroy(j.data);
    ek_dataset_destroy(j.test);
    ek_fold_destroy(j.fold);
    if (j.listed) cli_table_free(&j.table);
    json_decref(j.taken);
    cli_model_close(&j.model);
    return code;
}

const cli_command cli_convert = {
    .name = "convert",
    .synopsis = "MODEL --out FILE [options]",
    .brief = "makes one kind of file from another, or from another framework's weights",
    .about = "Turns a model into another kind of file, which FILE's ending names. With --net, MODEL holds weights alone, and "
             "--from says which framework they come from: names are matched with the net's layers, axes put in order, and the "
             "conventions of batch normalization translated: momentum, eps, and which running variance is kept. Where each "
             "tensor went is listed, and what changes for inference and what only for further training is said. "
             "docs/convert.md says how to write such a file.",
    .examples = "  evenkeel convert lenet.safetensors --out lenet.onnx --fold\n"
                "  evenkeel convert model.onnx --out model.safetensors\n"
                "  evenkeel convert lenet.safetensors --out lenet.c --int8 --data fashion-mnist\n"
                "  evenkeel convert lenet.safetensors --out lenet.net\n"
                "  evenkeel convert state_dict.safetensors --net lenet-bn --out lenet.safetensors\n"
                "  evenkeel convert keras.safetensors --from keras --net my.net --out model.safetensors\n"
                "  evenkeel convert flax.safetensors --from flax --net my.net --momentum 0.9 --out model.safetensors\n",
    .options = options,
    .run = run,
};
