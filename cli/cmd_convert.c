#include "c_source.h"
#include "commands.h"
#include "common.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *out, *net;
    int from; /* 0: nowhere else; then ek_framework + 1 */
    double eps, momentum;
    const char *input, *output;
    int bn; /* 0: as exported, 1: inference */
    bool keep_eps, fold, json;
    int64_t threads;
    cli_c_source source;
} settings;

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file, a net text or a shipped net; with --net a file of bare weights (.safetensors)."),
    ROW_HEADING("Files:"),
    ROW_REQUIRED("out", "FILE", out,
                 "What it becomes, by its ending: .safetensors a model, .onnx an ONNX model for other programs, .c C source for "
                 "products, with a header and a self-test beside it, .net or .txt its net text without the parameters. "
                 "Replaced only by a whole new file."),
    ROW_FLAG("fold", fold, "Fold the batch normalizations first, with the certificate of evenkeel fold; in C source they always are."),
    ROW_FLAG("quiet", source.quiet, "No progress on stderr."),
    ROW_HEADING("C source:"),
    ROW_TEXT("name", "NAME", source.name, "What the functions begin with: NAME_predict. Without it, the file's name."),
    ROW_FLAG("int8", source.int8, "Weights and values as numbers of eight bits; needs --data, and says what is lost."),
    ROW_TEXT("data", "DATA", source.data,
             "As for train: ranges come from its training part, and what eight bits lose is measured on its test part."),
    ROW_INTEGER("samples", "N", source.samples, 1, 1e6, "So many of it are looked at for ranges, spread over it."),
    ROW_HEADING("Bare weights, and those of other frameworks:"),
    ROW_TEXT("net", "NET", net,
             "The net that the weights in MODEL are for: a shipped net, a net text, or a model, whose own weights do not "
             "matter."),
    ROW_CHOICE("from", "evenkeel|pytorch|keras|flax|onnx", from,
               "Whose names, orders of axes and conventions of batch normalization the weights have."),
    ROW_POSITIVE("eps", "E", eps, "Batch normalization's eps there; without it what the net text says, else the framework's default."),
    ROW_NUMBER("momentum", "M", momentum, 0, 1,
               "Batch normalization's momentum as the framework writes it: keras, flax and onnx keep this share of the old "
               "statistics. Without it what the net text says, else the framework's default."),
    ROW_FLAG("keep-eps", keep_eps, "Keep the net's eps, and multiply gamma by sqrt((v + eps here)/(v + eps there)) instead."),
    ROW_HEADING("ONNX models that are read:"),
    ROW_TEXT("input", "SHAPE", input, "A sample's shape, such as 3x48x192, where the file leaves sizes open."),
    ROW_TEXT("output", "NAME", output,
             "The value that the net is to end with: one of several outputs, or what any node gives, such as what goes "
             "into a last Softmax, which no net that is trained can have."),
    ROW_CHOICE("bn", "exported|inference", bn,
               "What a batch normalization that was exported in training mode does at inference: exported, take the batch's "
               "statistics as the file says; inference, take its running statistics, which is nearly always meant."),
    ROWS_COMMON,
};

/* What is converted, and what is to be said of it. */
typedef struct job {
    const settings *s;
    cli_model model;
    json_t *taken;   /* of --json */
    cli_table table; /* else */
    bool listed;
    ek_fold *fold; /* NULL: as it is */
    ek_c_answer source;
} job;

static ek_net *net_of(const job *j) { return j->fold ? ek_fold_net(j->fold) : j->model.net; }

/* --- endings: what FILE can be */

/* Each gives false where it failed, which was said. */

static bool saved(ek_status status)
{
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}

static bool write_model(job *j) { return saved(ek_net_save(net_of(j), j->s->out)); }

static bool write_onnx(job *j) { return saved(ek_net_save_onnx(net_of(j), j->s->out)); }

static bool write_text(job *j)
{
    const char *text = ek_net_text(net_of(j));
    return cli_write_file(j->s->out, text, strlen(text));
}

static bool write_source(job *j)
{
    return cli_c_source_write(&j->s->source, j->model.net, j->s->out, &j->source);
}

static const struct format {
    const char *ending, *what;
    bool (*write)(job *j);
} formats[] = {
    {".safetensors", "model", write_model},
    {".onnx", "ONNX model", write_onnx},
    {".c", "C source", write_source},
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

/* --- folding first */

static bool fold(job *j)
{
    ek_fold *folded;
    if (!saved(ek_fold_create(j->model.net, NULL, &folded))) return false;
    bool holds = ek_fold_holds(folded);
    if (holds)
        j->fold = folded;
    else
        ek_fold_destroy(folded);
    if (!holds) cli_fail("folded, it does not give the same; evenkeel fold %s --out FILE says where", j->s->model);
    return holds;
}

static int folded_count(const job *j)
{
    int count = 0;
    for (int i = 0; i < ek_fold_layer_count(j->fold); i++) count += ek_fold_layer(j->fold, i)->how != EK_FOLD_KEPT;
    return count;
}

/* --- the answer */

static int answer(const job *j, const struct format *format)
{
    const ek_net *net = j->model.net;
    bool source = *j->source.name;
    if (j->s->json) {
        json_t *object = json_object(), *notes = json_array();
        for (int i = 0; i < ek_net_note_count(net); i++) json_array_append_new(notes, cli_json_text(ek_net_note(net, i)));
        json_object_set_new(object, "model", cli_json_text(j->s->model));
        json_object_set_new(object, "out", cli_json_text(j->s->out));
        json_object_set_new(object, "format", json_string(format->what));
        json_object_set_new(object, "parameters", json_integer(cli_parameters(net_of(j))));
        if (j->fold) {
            json_object_set_new(object, "folded", json_integer(folded_count(j)));
            json_object_set_new(object, "kept", json_integer(ek_fold_layer_count(j->fold) - folded_count(j)));
        }
        if (source) json_object_set_new(object, "c", cli_c_source_json(&j->source));
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
    if (j->fold)
        printf("%d of %d normalizations folded\n", folded_count(j), ek_fold_layer_count(j->fold));
    if (source) cli_c_source_print(&j->source);
    printf("%s%s: %s\n", ek_net_note_count(net) ? "\n" : "", format->what, j->s->out);
    return CLI_DONE;
}

/* --- ONNX */

/* "3x48x192"; rank 0 where it is none. */
static ek_shape read_shape(const char *text)
{
    ek_shape shape = {0};
    for (char *end; *text; text = *end ? end + 1 : end) {
        long size = strtol(text, &end, 10);
        bool ends = !*end || (*end == 'x' && end[1]);
        if (end == text || !ends || size < 1 || size > 1 << 24 || shape.rank == EK_MAX_RANK - 1) return (ek_shape){0};
        shape.dim[shape.rank++] = size;
    }
    return shape;
}

/* False where it failed, which was said. */
static bool open_onnx(job *j)
{
    const settings *s = j->s;
    ek_onnx_options o = ek_onnx_options_default();
    if (s->input) o.input = read_shape(s->input);
    o.output = s->output;
    o.bn_inference = s->bn == 1;
    j->model = (cli_model){.trained = true};
    ek_context_options context = ek_context_options_default();
    context.threads = (int)s->threads;
    return saved(ek_context_create(&context, &j->model.context)) &&
           saved(ek_net_open_onnx(j->model.context, s->model, &o, &j->model.net));
}

static bool asks_onnx(const settings *s) { return s->input || s->output || s->bn; }

static bool open_what_is_converted(job *j)
{
    const settings *s = j->s;
    return asks_onnx(s) ? open_onnx(j) : cli_model_open(&j->model, s->net ? s->net : s->model, s->threads);
}

/* Options that say nothing without others. */
static const char *useless(const settings *s)
{
    if (asks_onnx(s) && s->net) return "--input, --output and --bn are for an ONNX model, and --net is for bare weights";
    if (s->input && !read_shape(s->input).rank) return "--input must be a sample's shape such as 3x48x192, of 1 to 4 dimensions";
    if (s->from && !s->net) return "--from is for bare weights: --net says which net they are for";
    if (!s->from && (!isnan(s->eps) || !isnan(s->momentum) || s->keep_eps))
        return "--eps, --momentum and --keep-eps translate the conventions of --from, which is missing";
    if (!cli_ends_with(s->out, ".c") && (s->source.name || s->source.int8 || s->source.data))
        return "--name, --int8 and --data are for C source: --out FILE.c";
    if (s->source.int8 && !s->source.data) return "--int8 needs --data DATA, from which the ranges come";
    if (s->source.data && !s->source.int8) return "--data is for --int8, which is missing";
    if (s->fold && cli_same_file(s->out, s->model))
        return "folded, it can no longer be trained as before; name another file for the output";
    if (cli_is_file(s->out) && s->net && (cli_same_file(s->out, s->model) || cli_same_file(s->out, s->net)))
        return "what it is made from would be overwritten; name another file for the output";
    if (cli_same_file(s->out, s->model) && !ek_is_model(s->model))
        return "the net text would be overwritten; name another file for the output";
    return NULL;
}

static int run(int argc, char **argv)
{
    settings s = {.eps = NAN, .momentum = NAN, .source = {.samples = 512}};
    int code;
    if (!cli_parse(&cli_convert, argc, argv, &s, &code)) return code;
    const struct format *format = find_format(s.out);
    if (!format) return CLI_USAGE;
    const char *wrong = useless(&s);
    if (wrong) return cli_usage_error(&cli_convert, "%s", wrong);
    job j = {.s = &s, .taken = s.json ? json_array() : NULL};
    code = CLI_FAILED;
    if (!open_what_is_converted(&j)) goto done;
    if (!s.net) cli_warn_untrained(&j.model, s.model);
    if (!cli_can_write(s.out)) goto done;
    if (s.net && take_weights(&j) != EK_OK)
        cli_fail_status();
    else if ((!s.fold || format->write == write_source || fold(&j)) && format->write(&j))
        code = answer(&j, format);
done:
    if (j.listed) cli_table_free(&j.table);
    json_decref(j.taken);
    ek_fold_destroy(j.fold);
    cli_model_close(&j.model);
    return code;
}

const cli_command cli_convert = {
    .name = "convert",
    .synopsis = "MODEL --out FILE [options]",
    .brief = "makes one kind of file from another, or from another framework's weights",
    .about = "Turns a model into another kind of file, which FILE's ending names. An ONNX model becomes an ordinary net, and what was "
             "translated is said (docs/onnx.md). With --net, MODEL holds weights alone, and "
             "--from says which framework they come from: names are matched with the net's layers, axes put in order, and the "
             "conventions of batch normalization translated: momentum, eps, and which running variance is kept. Where each "
             "tensor went is listed, and what changes for inference and what only for further training is said. "
             "docs/convert.md says how to write such a file.",
    .examples = "  evenkeel convert lenet.safetensors --out lenet.onnx\n"
                "  evenkeel convert lenet.safetensors --fold --out folded.onnx\n"
                "  evenkeel convert lenet.safetensors --out lenet.c\n"
                "  evenkeel convert lenet.safetensors --out lenet8.c --int8 --data fashion-mnist\n"
                "  evenkeel convert lenet.safetensors --out lenet.net\n"
                "  evenkeel convert theirs.onnx --out model.safetensors\n"
                "  evenkeel convert theirs.onnx --input 3x48x192 --bn inference --out model.safetensors\n"
                "  evenkeel convert state_dict.safetensors --net lenet-bn --out lenet.safetensors\n"
                "  evenkeel convert keras.safetensors --from keras --net my.net --out model.safetensors\n"
                "  evenkeel convert flax.safetensors --from flax --net my.net --momentum 0.9 --out model.safetensors\n",
    .options = options,
    .run = run,
};
