/* ek_net_save_c: from a net to its files. */
#include "ccode/quantize.h"
#include "ccode/source.h"

#include "core/file.h"
#include "core/memory.h"
#include "graph/fold.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

ek_c_options ek_c_options_default(void) { return (ek_c_options){.self_test = true, .samples = 512}; }

/* --- names */

static ek_status check_name(const char *name)
{
    bool fits = isalpha((unsigned char)*name) && strlen(name) <= 40;
    for (const char *c = name; *c; c++) fits = fits && (isalnum((unsigned char)*c) || *c == '_') && (unsigned char)*c < 0x80;
    if (fits) return EK_OK;
    return ek_fail(EK_E_ARGUMENT, "'%s' is no name for C: a letter, then letters, digits and '_', at most 40 of them", name);
}

/* The file's name as an identifier: what it cannot hold becomes '_', and "net_" stands in front where it begins with no letter. */
static void name_of_file(const char *stem, char out[EK_CC_NAME_MAX])
{
    size_t n = 0;
    if (!isalpha((unsigned char)*stem)) n = (size_t)snprintf(out, EK_CC_NAME_MAX, "net_");
    for (const char *c = stem; *c && n < 40; c++)
        out[n++] = (char)(isalnum((unsigned char)*c) && (unsigned char)*c < 0x80 ? *c : '_');
    out[n] = 0;
}

typedef struct files {
    char *base;       /* the path without ".c" */
    char *path[3];    /* source, header, test; the last NULL: not wanted */
    const char *stem; /* the header's name begins with it */
} files;

static void free_files(files *f)
{
    for (int i = 0; i < 3; i++) ek_free(f->path[i]);
    ek_free(f->base);
}

static ek_status name_files(const char *path, bool test, files *f)
{
    *f = (files){0};
    if (!ek_ends_with(path, ".c") || strlen(path) < 3 || path[strlen(path) - 3] == '/')
        return ek_fail(EK_E_ARGUMENT, "a C source's path ends in .c, such as net.c, not '%s'", path);
    f->base = ek_strndup(path, strlen(path) - 2);
    if (!f->base) return EK_E_MEMORY;
    const char *slash = strrchr(f->base, '/');
    f->stem = slash ? slash + 1 : f->base;
    ek_status status = EK_OK;
    if (strpbrk(f->stem, "\"\\\n"))
        status = ek_fail(EK_E_ARGUMENT, "a C source cannot include a header whose name has quotes or backslashes: '%s'", f->stem);
    f->path[0] = ek_strdup(path);
    f->path[1] = ek_strf("%s.h", f->base);
    f->path[2] = test ? ek_strf("%s_test.c", f->base) : NULL;
    if (!f->path[0] || !f->path[1] || (test && !f->path[2])) status = EK_E_MEMORY;
    if (status != EK_OK) free_files(f);
    return status;
}

/* All of them, or none. */
static ek_status write_files(const files *f, const ek_text text[3])
{
    ek_replacement r[3] = {{0}};
    ek_status status = EK_OK;
    for (int i = 0; i < 3; i++) EK_GO(ek_text_status(&text[i]));
    for (int i = 0; i < 3 && f->path[i]; i++) {
        EK_GO(ek_replace_begin(&r[i], f->path[i]));
        EK_GO(ek_replace_write(&r[i], text[i].data, text[i].length));
    }
    for (int i = 0; i < 3 && f->path[i]; i++) EK_GO(ek_replace_finish(&r[i]));
done:
    for (int i = 0; i < 3; i++) ek_replace_cancel(&r[i]);
    return status;
}

/* --- the work */

static ek_status check_finite(const ek_net *net)
{
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor tensor = ek_net_tensor(net, i);
        for (int64_t k = 0; tensor.data && k < ek_shape_count(tensor.shape); k++) {
            if (!isfinite(tensor.data[k]))
                return ek_fail(EK_E_NUMERIC, "%s[%lld] is not a finite number; evenkeel audit says what to do", tensor.name, (long long)k);
        }
    }
    return EK_OK;
}

/* What the net gives for the self-test's inputs (want [EK_CC_TESTS][outputs]), how far the folded one is from it, and how far
 * rounding may take another compiler. */
static ek_status compare_folded(ek_net *net, ek_net *folded, const ek_cc_samples *samples, float *want, float *tolerance,
                                double *difference)
{
    int64_t outputs = ek_shape_count(ek_net_output_shape(net));
    float *x = NULL, *y = NULL, largest = 0;
    ek_status status = EK_OK;
    EK_GO(EK_NEW(x, (size_t)(EK_CC_TESTS * samples->count)));
    EK_GO(EK_NEW(y, (size_t)(EK_CC_TESTS * outputs)));
    for (int t = 0; t < EK_CC_TESTS; t++) ek_cc_sample(samples, t, x + t * samples->count);
    EK_GO(ek_net_forward(net, EK_MODE_INFERENCE, EK_CC_TESTS, x, want));
    EK_GO(ek_net_forward(folded, EK_MODE_INFERENCE, EK_CC_TESTS, x, y));
    *difference = 0;
    for (int64_t i = 0; i < EK_CC_TESTS * outputs; i++) {
        if (!isfinite(want[i]) || !isfinite(y[i])) {
            status = ek_fail(EK_E_NUMERIC, "the net gives what is no finite number, for inputs between mean - 2*std and mean + 2*std");
            goto done;
        }
        *difference = fmax(*difference, fabs((double)y[i] - want[i]));
        largest = fmaxf(largest, fabsf(want[i]));
    }
    *tolerance = 1e-4f * largest + 1e-6f;
done:
    ek_free(y);
    ek_free(x);
    return status;
}

static void emit_layers(ek_cc_writer *w)
{
    const ek_graph *graph = w->plan->graph;
    char y[EK_CC_PLACE_MAX];
    int end = w->plan->root[graph->count - 1];
    for (int i = 0; i < graph->count; i++) {
        bool idle = w->plan->root[i] != i || (i == 0 && !ek_cc_has_pixels(&graph->node[0]));
        if (!idle) ek_cc_layer_of(&graph->node[i])->emit(w, &graph->node[i]);
    }
    if (strcmp(ek_cc_place(w, end, y), "out"))
        ek_text_add(&w->body, "    memcpy(out, %s, %zu);\n", y, (size_t)ek_shape_count(graph->node[end].out) * sizeof(float));
    ek_cc_use(w, "largest");
}

static int64_t multiply_adds(const ek_net *net)
{
    int64_t sum = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) sum += ek_net_layer(net, i).multiply_adds;
    return sum;
}

/* What was made of a net, to be written. */
typedef struct source_job {
    ek_net *net, *folded;
    const ek_c_options *options;
    ek_cc_quantized q; /* int8 */
    ek_cc_plan plan;
    ek_cc_writer writer;
    ek_cc_samples samples;
    float *want, tolerance;
} source_job;

/* The self-test of eight bits wants the very same whole numbers: what the same functions give here. */
static ek_status run_int8(source_job *j)
{
    int64_t outputs = ek_shape_count(ek_net_output_shape(j->net));
    float *x = NULL;
    int32_t *memory = NULL;
    ek_status status = EK_OK;
    j->samples.step = j->q.range[0].scale;
    j->samples.zero = j->q.range[0].zero;
    EK_GO(EK_NEW(x, (size_t)j->samples.count));
    EK_GO(EK_NEW(memory, j->plan.words));
    for (int t = 0; t < EK_CC_TESTS; t++) {
        ek_cc_sample(&j->samples, t, x);
        ek_cc_int8_run(&j->plan, &j->q, memory, x, j->want + t * outputs);
    }
    double step = j->q.range[j->plan.root[j->folded->graph.count - 1]].scale;
    j->tolerance = j->q.softmax >= 0 ? 1e-5f : (float)(step / 4);
done:
    ek_free(memory);
    ek_free(x);
    return status;
}

static ek_status make_int8(source_job *j, ek_c_answer *answer)
{
    EK_TRY(ek_cc_quantize(j->folded, j->options, &j->q));
    EK_TRY(ek_cc_plan_create(&j->folded->graph, j->q.absorbed, &j->plan));
    EK_TRY(ek_cc_writer_begin(&j->plan, answer->name, &j->writer));
    EK_TRY(run_int8(j));
    if (j->options->test) EK_TRY(ek_cc_measure(j->net, &j->plan, &j->q, j->options, answer));
    ek_cc_int8_emit(&j->writer, &j->q);
    ek_cc_use(&j->writer, "largest");
    return EK_OK;
}

static ek_status make_floats(source_job *j, ek_c_answer *answer)
{
    EK_TRY(ek_cc_plan_create(&j->folded->graph, NULL, &j->plan));
    EK_TRY(ek_cc_writer_begin(&j->plan, answer->name, &j->writer));
    EK_TRY(compare_folded(j->net, j->folded, &j->samples, j->want, &j->tolerance, &answer->difference));
    emit_layers(&j->writer);
    return EK_OK;
}

static ek_status write_source(const source_job *j, const files *f)
{
    ek_text text[3] = {{0}};
    char *header = ek_strf("%s.h", f->stem);
    ek_status status = header ? EK_OK : EK_E_MEMORY;
    EK_GO(status);
    EK_GO(ek_text_status(&j->writer.arrays));
    EK_GO(ek_text_status(&j->writer.functions));
    EK_GO(ek_text_status(&j->writer.body));
    ek_cc_source source = {.net = j->net, .writer = &j->writer, .header_name = header};
    ek_cc_write_source(&source, &text[0]);
    ek_cc_write_header(&source, &text[1]);
    if (j->options->self_test) ek_cc_write_test(&source, &j->samples, j->want, j->tolerance, &text[2]);
    EK_GO(write_files(f, text));
done:
    for (int i = 0; i < 3; i++) ek_text_free(&text[i]);
    ek_free(header);
    return status;
}

static ek_status save(ek_net *net, ek_net *folded, const ek_c_options *o, const files *f, ek_c_answer *answer)
{
    source_job j = {.net = net, .folded = folded, .options = o, .q.softmax = -1, .samples.pixels = ek_net_pixels(net)};
    j.samples.count = ek_shape_count(ek_net_input_shape(net));
    ek_status status = EK_OK;
    EK_GO(EK_NEW(j.want, (size_t)(EK_CC_TESTS * ek_shape_count(ek_net_output_shape(net)))));
    EK_GO(o->int8 ? make_int8(&j, answer) : make_floats(&j, answer));
    EK_GO(write_source(&j, f));
    answer->weight_bytes = j.writer.weight_bytes;
    answer->memory_bytes = (int64_t)(4 * j.plan.words);
    answer->multiply_adds = multiply_adds(folded);
done:
    ek_free(j.want);
    ek_cc_writer_free(&j.writer);
    ek_cc_plan_free(&j.plan);
    ek_cc_quantized_free(&j.q);
    return status;
}

static ek_status check_options(const ek_net *net, const ek_c_options *o)
{
    if (o->name) EK_TRY(check_name(o->name));
    if (!o->int8) return EK_OK;
    if (!o->data) return ek_fail(EK_E_ARGUMENT, "int8 needs data to take ranges from");
    if (o->samples < 1) return ek_fail(EK_E_ARGUMENT, "samples must be 1 or more, not %lld", (long long)o->samples);
    EK_TRY(ek_cc_check_data(net, o->data, "the data"));
    return o->test ? ek_cc_check_data(net, o->test, "the test data") : EK_OK;
}

ek_status ek_net_save_c(const ek_net *net, const ek_c_options *options, const char *path, ek_c_answer *answer)
{
    if (!net || !path) return ek_fail(EK_E_ARGUMENT, "ek_net_save_c needs a net and a path");
    ek_c_options o = options ? *options : ek_c_options_default();
    ek_c_answer local = {.difference = NAN, .accuracy = NAN, .int8_accuracy = NAN, .same_class = NAN};
    files f;
    ek_net *folded = NULL;
    EK_TRY(name_files(path, o.self_test, &f));
    ek_status status = EK_OK;
    EK_GO(check_options(net, &o));
    name_of_file(o.name ? o.name : f.stem, local.name);
    EK_GO(check_finite(net));
    EK_GO(ek_net_fold(net, false, &folded));
    EK_GO(ek_cc_layers_check(&folded->graph));
    if (o.int8) EK_GO(ek_cc_int8_check(&folded->graph));
    EK_GO(save((ek_net *)net, folded, &o, &f, &local));
    if (answer) *answer = local;
done:
    ek_net_destroy(folded);
    free_files(&f);
    return status;
}
