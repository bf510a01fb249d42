#include "commands.h"
#include "common.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *file, *lengths;
    int64_t top, index, threads;
    bool json;
} settings;

enum { ALL_ITEMS = -1 };

static const cli_option options[] = {
    ROW_OPERAND("MODEL", model, "A model file (.safetensors, .onnx)."),
    ROW_OPERAND("FILE", file, "What to classify: an IDX or NPY file, with one item or many, or a PNG or JPEG image (FILE:3x64x64 scales it, "
                "as for train)."),
    ROW_TEXT("lengths", "lengths.npy", lengths,
             "For sequences of unequal lengths: of each item of the file, 1 to l."),
    ROW_HEADING("What to show:"),
    ROW_INTEGER("top", "K", top, 1, 1e6, "How many classes an item, the likeliest first."),
    ROW_INTEGER("index", "I", index, 0, 0, "Only this item of the file, counted from 0."),
    ROWS_COMMON,
};

typedef struct guess {
    int class;
    double probability;
} guess;

/* A run over the items, and where its answers gather. */
typedef struct prediction {
    const settings *s;
    ek_net *net;
    int classes, top;
    bool softmax; /* the net's outputs are probabilities already */
    cli_table table;
    json_t *items;
} prediction;

/* p = exp(x - max)/sum(exp(x - max)) */
static void softmax(const float *x, int count, double *p)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++) most = fmax(most, (double)x[i]);
    for (int i = 0; i < count; i++) sum += p[i] = exp((double)x[i] - most);
    for (int i = 0; i < count; i++) p[i] /= sum;
}

/* The likeliest class left, the first among equals; it counts as taken then. A NaN comes last. */
static guess take_best(double *p, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++) {
        if (p[i] > p[best] || (isnan(p[best]) && !isnan(p[i]))) best = i;
    }
    guess g = {.class = best, .probability = p[best]};
    p[best] = -1;
    return g;
}

static void add_rows(prediction *run, int64_t index, const guess *guesses)
{
    for (int k = 0; k < run->top; k++) {
        const char *name = ek_net_class(run->net, guesses[k].class);
        char item[32] = "", probability[32], number[32];
        if (k == 0) snprintf(item, sizeof item, "%lld", (long long)index);
        snprintf(probability, sizeof probability, "%.4f", guesses[k].probability);
        snprintf(number, sizeof number, "%d", guesses[k].class);
        cli_table_row(&run->table, item, probability, number, name ? name : "");
    }
}

static void add_json(prediction *run, int64_t index, const guess *guesses)
{
    json_t *item = json_object(), *top = json_array();
    for (int k = 0; k < run->top; k++) {
        const char *name = ek_net_class(run->net, guesses[k].class);
        json_t *object = json_object();
        json_object_set_new(object, "class", json_integer(guesses[k].class));
        if (name) json_object_set_new(object, "name", cli_json_text(name));
        cli_json_number(object, "probability", guesses[k].probability);
        json_array_append_new(top, object);
    }
    json_object_set_new(item, "item", json_integer(index));
    json_object_set_new(item, "top", top);
    json_array_append_new(run->items, item);
}

/* One item's outputs [classes]; p [classes] and guesses [top] are room to work in. False: it failed, which
 * was said. */
static bool add_item(prediction *run, int64_t index, const float *output, double *p, guess *guesses)
{
    for (int i = 0; i < run->classes; i++) {
        p[i] = (double)output[i];
        if (isfinite(p[i])) continue;
        cli_fail("the net's output for item %lld is not finite: the item or the model holds extreme values",
                 (long long)index);
        return false;
    }
    if (!run->softmax) softmax(output, run->classes, p);
    for (int k = 0; k < run->top; k++) guesses[k] = take_best(p, run->classes);
    if (run->s->json) {
        add_json(run, index, guesses);
    } else {
        add_rows(run, index, guesses);
    }
    return true;
}

enum { BATCH = 256 };

/* The outputs y of items [from, from + n); x is room for their values. */
static ek_status run_items(const prediction *run, const ek_dataset *items, int64_t from, int64_t n, float *x, float *y)
{
    int64_t size = cli_numbers(ek_net_input_shape(run->net));
    int32_t length[BATCH];
    for (int64_t i = 0; i < n; i++) {
        ek_status status = ek_dataset_item(items, from + i, x + i * size, NULL);
        if (status != EK_OK) return status;
        length[i] = ek_dataset_length(items, from + i);
    }
    return ek_net_forward_lengths(run->net, EK_MODE_INFERENCE, n, x, run->s->lengths ? length : NULL, y);
}

/* Items first to last-1, some at a time. False: it failed, which was said. */
static bool predict(prediction *run, const ek_dataset *items, int64_t first, int64_t last)
{
    int64_t size = cli_numbers(ek_net_input_shape(run->net));
    float *x = calloc((size_t)(BATCH * size), sizeof *x);
    float *y = calloc((size_t)BATCH * (size_t)run->classes, sizeof *y);
    double *p = calloc((size_t)run->classes, sizeof *p);
    guess *guesses = calloc((size_t)run->top, sizeof *guesses);
    bool done = x && y && p && guesses;
    if (!done) cli_fail("out of memory");
    for (int64_t from = first; from < last && done; from += BATCH) {
        int64_t n = last - from < BATCH ? last - from : BATCH;
        done = run_items(run, items, from, n, x, y) == EK_OK;
        if (!done) cli_fail_status();
        for (int64_t i = 0; i < n && done; i++)
            done = add_item(run, from + i, y + i * run->classes, p, guesses);
    }
    free(x);
    free(y);
    free(p);
    free(guesses);
    return done;
}

static int answer(prediction *run)
{
    if (!run->s->json) {
        cli_table_print(&run->table);
        return CLI_DONE;
    }
    json_t *object = json_object();
    json_object_set_new(object, "model", cli_json_text(run->s->model));
    json_object_set_new(object, "file", cli_json_text(run->s->file));
    json_object_set(object, "items", run->items);
    return cli_json_answer(object);
}

static int predict_file(const settings *s, const cli_model *model)
{
    ek_net *net = model->net;
    ek_dataset *items = NULL;
    ek_shape input = ek_net_input_shape(net);
    ek_status status = s->lengths ? ek_dataset_open_sequences(s->file, s->lengths, input, &items)
                                  : ek_dataset_open_items(s->file, input, &items);
    if (status != EK_OK) return cli_fail_status();
    int64_t count = ek_dataset_count(items), first = s->index == ALL_ITEMS ? 0 : s->index;
    int64_t last = s->index == ALL_ITEMS ? count : first + 1;
    if (last > count) {
        ek_dataset_destroy(items);
        return cli_fail("%s has %lld items, counted from 0: there is no item %lld", s->file, (long long)count,
                        (long long)s->index);
    }
    prediction run = {.s = s, .net = net, .items = json_array()};
    run.classes = (int)cli_numbers(ek_net_output_shape(net));
    run.top = s->top < run.classes ? (int)s->top : run.classes;
    run.softmax = strcmp(ek_net_layer(net, ek_net_layer_count(net) - 1).op, "softmax") == 0;
    cli_table_begin(&run.table, ">item|>probability|>class|");
    int code = predict(&run, items, first, last) ? answer(&run) : CLI_FAILED;
    cli_table_free(&run.table);
    json_decref(run.items);
    ek_dataset_destroy(items);
    return code;
}

static int run(int argc, char **argv)
{
    settings s = {.top = 5, .index = ALL_ITEMS};
    int code;
    if (!cli_parse(&cli_predict, argc, argv, &s, &code)) return code;
    cli_model model;
    code = CLI_FAILED;
    if (cli_model_open(&model, s.model, s.threads)) {
        cli_warn_untrained(&model, s.model);
        code = predict_file(&s, &model);
    }
    cli_model_close(&model);
    return code;
}

const cli_command cli_predict = {
    .name = "predict",
    .synopsis = "MODEL FILE [options]",
    .brief = "classifies images: the likeliest classes with probabilities",
    .about =
        "Classifies the items of a file and shows the likeliest classes of each, with the names that the "
        "training data gave them.",
    .examples = "  evenkeel predict lenet.safetensors boot.png\n"
                "  evenkeel predict lenet.safetensors x.npy --top 1\n"
                "  evenkeel predict lenet.safetensors t10k-images-idx3-ubyte --index 7 --json\n",
    .options = options,
    .run = run,
};
