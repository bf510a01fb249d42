#include "bench_measure.h"
#include "commands.h"
#include "common.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *net;
    int64_t batch, threads;
    double seconds;
    int optimizer;
    bool floors, without_bn, json;
} settings;

static const cli_option options[] = {
    ROW_OPERAND(
        "NET", net,
        "A shipped net's name, a net text's path or a model file (default lenet-bn). It is given random "
        "data, and nothing is saved."),
    ROW_HEADING("What is measured:"),
    ROW_INTEGER("batch", "N", batch, 1, 1e6, "Samples a step."),
    ROW_CHOICE("optimizer", "sgd|adam|adamw", optimizer, "How the parameters are updated."),
    ROW_POSITIVE("seconds", "S", seconds, "How long the steps are repeated."),
    ROW_FLAG("floors", floors, "Only the floors, in arrays too large for any cache; no net."),
    ROW_FLAG("without-bn", without_bn,
             "Measure nothing; print the net text without its batch normalizations."),
    ROWS_COMMON,
};

static const char *const optimizers[] = /* in the order of ek_optimizer */
    {"sgd", "adam", "adamw"};

/* What a layer's passes took, and what they take at least. */
typedef struct row {
    double seconds, flops, bytes, floor;
    bool by_memory; /* the larger part of its floor is that of the memory */
} row;

static void add_pass(row *r, double seconds, layer_work work, const cli_floors *floors)
{
    double copy = floors->copy > floors->stream ? floors->copy : floors->stream;
    double arithmetic = work.flops / floors->fma, memory = work.bytes / copy;
    if (fmax(arithmetic, memory) > r->floor) r->by_memory = memory > arithmetic;
    r->seconds += seconds;
    r->flops += work.flops;
    r->bytes += work.bytes;
    r->floor += fmax(arithmetic, memory);
}

static row row_of(const bench_result *r, int layer)
{
    row sum = {0};
    add_pass(&sum, r->time[layer].forward, r->forward[layer], &r->floors);
    if (r->trains) add_pass(&sum, r->time[layer].backward, r->backward[layer], &r->floors);
    return sum;
}

static row sum_of(const bench_result *r)
{
    row sum = {0};
    for (int i = 0; i < r->layers; i++) {
        row layer = row_of(r, i);
        sum.seconds += layer.seconds;
        sum.flops += layer.flops;
        sum.bytes += layer.bytes;
        sum.floor += layer.floor;
    }
    return sum;
}

/* --- for people */

/* A layer's label, or its operator where it has none; a long one is cut. */
static const char *name_of(const ek_net *net, int index, char text[CLI_TEXT_SIZE])
{
    enum { MOST = 22 };
    ek_layer_info layer = ek_net_layer(net, index);
    const char *name = *layer.label ? layer.label : layer.op;
    snprintf(text, CLI_TEXT_SIZE, strlen(name) > MOST ? "%.*s.." : "%.*s", MOST, name);
    return text;
}

static const char *fixed(char text[CLI_TEXT_SIZE], const char *format, double value)
{
    text[0] = '\0';
    if (value > 0) snprintf(text, CLI_TEXT_SIZE, format, value);
    return text;
}

/* What bounds a layer, or in whose pass it is computed. */
static const char *bound(const bench_result *r, const ek_net *net, int layer, const row *sums,
                         char text[CLI_TEXT_SIZE])
{
    char name[CLI_TEXT_SIZE];
    const ek_layer_time *time = &r->time[layer];
    int host = time->forward_in != layer ? time->forward_in : time->backward_in;
    text[0] = '\0';
    if (host != layer)
        snprintf(text, CLI_TEXT_SIZE, "in %.24s", name_of(net, host, name));
    else if (sums->seconds > 0 && sums->floor > 0)
        snprintf(text, CLI_TEXT_SIZE, "%s", sums->by_memory ? "memory" : "FMA");
    return text;
}

static void print_row(cli_table *table, const char *label, const char *layer, double forward, double backward,
                      const row *r, const char *bound_by)
{
    char cell[5][CLI_TEXT_SIZE];
    bool timed = r->seconds > 0;
    cli_table_row(table, label, layer, fixed(cell[0], "%.3f", forward * 1e3),
                  fixed(cell[1], "%.3f", backward * 1e3),
                  fixed(cell[2], "%.1f", timed ? r->flops / r->seconds * 1e-9 : 0),
                  fixed(cell[3], "%.1f", timed ? r->bytes / r->seconds * 1e-9 : 0),
                  fixed(cell[4], "%.0f%%", timed ? 100 * r->floor / r->seconds : 0), bound_by);
}

static void print_layers(const bench_result *r, const ek_net *net)
{
    cli_table table;
    cli_table_begin(&table, "label|layer|>fwd ms|>bwd ms|>GFLOP/s|>GB/s|>of floor|bound by");
    double forward = 0, backward = 0;
    for (int i = 0; i < r->layers; i++) {
        char label[CLI_TEXT_SIZE], by[CLI_TEXT_SIZE];
        ek_layer_info layer = ek_net_layer(net, i);
        row sums = row_of(r, i);
        forward += r->time[i].forward;
        backward += r->time[i].backward;
        print_row(&table, *layer.label ? name_of(net, i, label) : "", layer.op, r->time[i].forward,
                  r->time[i].backward, &sums, bound(r, net, i, &sums, by));
    }
    row sums = sum_of(r);
    print_row(&table, "", "all of them", forward, backward, &sums, "");
    cli_table_print(&table);
    cli_table_free(&table);
}

static void print_rate(const char *what, double seconds, int64_t batch, const char *unit)
{
    char count[CLI_TEXT_SIZE];
    printf("%-11s%s images/s, %.3f ms a %s", what, cli_count(count, llround((double)batch / seconds)),
           seconds * 1e3, unit);
}

static void print_floors(const cli_floors *f)
{
    char bytes[CLI_TEXT_SIZE];
    printf("FMA %.1f GFLOP/s; in %s: read %.1f, copy %.1f", f->fma * 1e-9, cli_bytes(bytes, (double)f->bytes),
           f->read * 1e-9, f->copy * 1e-9);
    if (f->stream > 0) printf(", streaming copy %.1f", f->stream * 1e-9);
    printf(" GB/s\n");
}

static int print(const settings *s, const cli_model *model, const bench_result *r)
{
    char planned[CLI_TEXT_SIZE], peak[CLI_TEXT_SIZE];
    printf("%s, batch %lld, %s, %d thread%s, %s\n\n", s->net, (long long)s->batch,
           r->trains ? optimizers[s->optimizer] : "inference", ek_context_threads(model->context),
           ek_context_threads(model->context) == 1 ? "" : "s", ek_context_isa(model->context));
    print_layers(r, model->net);
    printf("\n");
    if (r->trains) {
        print_rate("training", r->step, s->batch, "step");
        printf("\n           of it %.3f ms in layers (their floors: %.3f), %.3f ms for loss and update\n",
               sum_of(r).seconds * 1e3, sum_of(r).floor * 1e3, r->outside * 1e3);
    }
    print_rate("inference", r->inference, s->batch, "batch");
    printf("; one image %s us\n", cli_count(planned, llround(r->single * 1e6)));
    if (r->norms > 0)
        printf("BN tax     %.3f: without its %d batchnorm layer%s a step takes %.3f ms\n", r->tax, r->norms,
               r->norms == 1 ? "" : "s", r->plain_step * 1e3);
    printf("memory     %s laid out for a step, %s the whole process at most\n",
           cli_bytes(planned, (double)r->planned), cli_bytes(peak, (double)r->peak));
    printf("floors     ");
    print_floors(&r->floors);
    return CLI_DONE;
}

/* --- JSON */

static json_t *floors_json(const cli_floors *f)
{
    json_t *object = json_object();
    json_object_set_new(object, "threads", json_integer(f->threads));
    json_object_set_new(object, "bytes", json_integer((json_int_t)f->bytes));
    cli_json_number(object, "fma_flops", f->fma);
    cli_json_number(object, "read_bytes_per_second", f->read);
    cli_json_number(object, "copy_bytes_per_second", f->copy);
    if (f->stream > 0) cli_json_number(object, "stream_bytes_per_second", f->stream);
    return object;
}

static json_t *layer_json(const bench_result *r, const ek_net *net, int index)
{
    json_t *object = json_object();
    ek_layer_info layer = ek_net_layer(net, index);
    const ek_layer_time *time = &r->time[index];
    row sums = row_of(r, index);
    json_object_set_new(object, "label", json_string(layer.label));
    json_object_set_new(object, "op", json_string(layer.op));
    cli_json_number(object, "forward_seconds", time->forward);
    cli_json_number(object, "backward_seconds", time->backward);
    json_object_set_new(object, "forward_in", json_integer(time->forward_in));
    json_object_set_new(object, "backward_in", json_integer(time->backward_in));
    cli_json_number(object, "flops", sums.flops);
    cli_json_number(object, "bytes", sums.bytes);
    cli_json_number(object, "floor_seconds", sums.floor);
    json_object_set_new(object, "bound", json_string(sums.by_memory ? "memory" : "fma"));
    return object;
}

static int print_json(const settings *s, const cli_model *model, const bench_result *r)
{
    json_t *answer = json_object(), *layers = json_array();
    for (int i = 0; i < r->layers; i++) json_array_append_new(layers, layer_json(r, model->net, i));
    json_object_set_new(answer, "net", cli_json_text(s->net));
    json_object_set_new(answer, "batch", json_integer(s->batch));
    json_object_set_new(answer, "optimizer", r->trains ? json_string(optimizers[s->optimizer]) : json_null());
    json_object_set_new(answer, "threads", json_integer(ek_context_threads(model->context)));
    json_object_set_new(answer, "isa", json_string(ek_context_isa(model->context)));
    json_object_set_new(answer, "layers", layers);
    cli_json_number(answer, "outside_layers_seconds", r->outside);
    if (r->trains) {
        cli_json_number(answer, "step_seconds", r->step);
        cli_json_number(answer, "training_images_per_second", (double)s->batch / r->step);
    }
    cli_json_number(answer, "inference_seconds", r->inference);
    cli_json_number(answer, "inference_images_per_second", (double)s->batch / r->inference);
    cli_json_number(answer, "one_image_seconds", r->single);
    cli_json_number(answer, "step_without_bn_seconds", r->plain_step);
    cli_json_number(answer, "bn_tax", r->tax);
    json_object_set_new(answer, "memory_planned", json_integer((json_int_t)r->planned));
    json_object_set_new(answer, "memory_peak", json_integer((json_int_t)r->peak));
    json_object_set_new(answer, "floors", floors_json(&r->floors));
    return cli_json_answer(answer);
}

/* --- running */

static int run_floors(const settings *s)
{
    ek_context_options o = ek_context_options_default();
    o.threads = (int)s->threads;
    ek_context *context;
    if (ek_context_create(&o, &context) != EK_OK) return cli_fail_status();
    cli_floors floors;
    int code = CLI_FAILED;
    if (cli_floors_measure(ek_context_isa(context), ek_context_threads(context), CLI_FLOORS_MEMORY,
                           &floors)) {
        code = CLI_DONE;
        if (s->json)
            code = cli_json_answer(floors_json(&floors));
        else
            print_floors(&floors);
    }
    ek_context_destroy(context);
    return code;
}

static int run_without_bn(const settings *s, const cli_model *model)
{
    ek_net *plain;
    if (ek_net_without_norm(model->net, &plain) != EK_OK) return cli_fail_status();
    int code = CLI_DONE;
    if (s->json) {
        json_t *answer = json_object();
        json_object_set_new(answer, "text", json_string(ek_net_text(plain)));
        code = cli_json_answer(answer);
    } else {
        printf("%s", ek_net_text(plain));
    }
    ek_net_destroy(plain);
    return code;
}

static int run_net(const settings *s, const cli_model *model)
{
    bench_settings b = {.batch = s->batch, .seconds = s->seconds, .optimizer = (ek_optimizer)s->optimizer};
    bench_result result;
    int code = CLI_FAILED;
    if (bench_measure(model->context, model->net, &b, &result))
        code = s->json ? print_json(s, model, &result) : print(s, model, &result);
    bench_result_free(&result);
    return code;
}

static int run(int argc, char **argv)
{
    settings s = {.net = "lenet-bn", .batch = 128, .seconds = 3};
    int code;
    if (!cli_parse(&cli_bench, argc, argv, &s, &code)) return code;
    if (s.floors && s.without_bn)
        return cli_usage_error(&cli_bench, "--floors and --without-bn are two questions");
    if (s.floors) return run_floors(&s);
    cli_model model;
    code = CLI_FAILED;
    if (cli_model_open(&model, s.net, s.threads))
        code = s.without_bn ? run_without_bn(&s, &model) : run_net(&s, &model);
    cli_model_close(&model);
    return code;
}

const cli_command cli_bench = {
    .name = "bench",
    .synopsis = "[NET|MODEL] [options]",
    .brief = "times a net's layers and holds them against what the machine can do",
    .about = "Times training steps of a net, layer by layer. Each layer's floor is the time that it cannot "
             "go below: "
             "its arithmetic at the machine's peak of multiply-adds (FMA), or its values once in and once "
             "out of memory, "
             "whichever takes longer; both speeds are measured in the same run, the memory's in as many "
             "bytes as the "
             "step uses. A layer near 100% is as fast as it can be; one above it had its values in a "
             "nearer cache, or is a convolution that takes fewer multiplications than its definition. "
             "A layer marked \"in X\" is computed within the pass of layer X. The BN tax is a step's time "
             "over that of the "
             "same net without its batch normalizations. All times are medians, taken in turns.",
    .examples = "  evenkeel bench\n"
                "  evenkeel bench resnet20 --batch 64 --threads 1\n"
                "  evenkeel bench my.net --optimizer adam --seconds 10 --json\n"
                "  evenkeel bench resnet20 --without-bn > plain.net\n"
                "  evenkeel bench --floors\n",
    .options = options,
    .run = run,
};
