/* Layers of eight bits: as C, and run here by the very functions that the C has (parts/), so that both give the same numbers. */
#include "ccode/conv.h"
#include "ccode/quantize.h"

#include <stdio.h>
#include <string.h>

#include "ccode/parts/requantize.inc"
#include "ccode/parts/window.inc"
#include "ccode/parts/steps.inc"
#include "ccode/parts/exponential.inc"
#include "ccode/parts/softmax.inc"
#include "ccode/parts/int8_quantize.inc"
#include "ccode/parts/int8_dequantize.inc"
#include "ccode/parts/int8_gather.inc"
#include "ccode/parts/int8_linear.inc"
#include "ccode/parts/int8_lookup.inc"
#include "ccode/parts/int8_maxpool.inc"
#include "ccode/parts/int8_avgpool.inc"
#include "ccode/parts/int8_sum.inc"
#include "ccode/parts/int8_product.inc"
#include "ccode/parts/int8_spread.inc"
#include "ccode/parts/int8_concat.inc"

/* One layer at work: written where w is there, run where memory is. */
typedef struct work {
    const ek_cc_plan *plan;
    const ek_cc_quantized *q;
    const ek_node *node;
    const ek_cc_numbers *n;
    const ek_cc_range *x[EK_MAX_INPUTS], *y;
    limits cut;
    ek_cc_writer *w;
    int32_t *memory;
    const float *in;
    float *out;
} work;

static bool is(const ek_node *node, const char *op) { return !strcmp(node->op->name, op); }
static int count_of(const ek_node *node) { return (int)ek_shape_count(node->out); }

static int8_t *place(const work *k, int node)
{
    return (int8_t *)(k->memory + k->plan->spaces[k->plan->space[k->plan->root[node]]].offset);
}
static int8_t *input_place(const work *k, int slot) { return place(k, k->node->input[slot]); }

/* The pointers of a call: inputs, then the output. */
static void write_end(const work *k)
{
    char text[EK_CC_PLACE_MAX];
    for (int i = 0; i < k->node->input_count; i++)
        ek_text_add(&k->w->body, "%s, ", ek_cc_place(k->w, k->node->input[i], text));
    ek_text_add(&k->w->body, "%s);\n", ek_cc_place(k->w, k->node->id, text));
}

static const char *cut_text(const work *k, char text[64])
{
    snprintf(text, 64, "(limits){%d, %d, %d}", k->cut.zero, k->cut.low, k->cut.high);
    return text;
}

/* --- the input and the output */

static void input(const work *k)
{
    ek_pixels pixels = ek_input_pixels(k->node);
    float mean[EK_MAX_RANK], scale[EK_MAX_RANK];
    const char *label = k->w ? k->w->names[k->node->id] : NULL;
    int positions = count_of(k->node) / pixels.channels;
    for (int c = 0; c < pixels.channels; c++) {
        mean[c] = (float)pixels.mean[c];
        scale[c] = (float)(1 / (pixels.std[c] * k->y->scale));
    }
    if (!k->w) {
        int8_quantize(pixels.channels, positions, mean, scale, k->y->zero, k->in, place(k, 0));
        return;
    }
    ek_cc_use(k->w, "int8_quantize");
    ek_cc_floats(k->w, k->node, "mean", pixels.channels, mean);
    ek_cc_floats(k->w, k->node, "scale", pixels.channels, scale);
    ek_text_add(&k->w->body, "    int8_quantize(%d, %d, %s_mean, %s_scale, %d, in, ", pixels.channels, positions, label, label,
                k->y->zero);
    write_end(k);
}

static void output(const work *k, const ek_node *softmax_node)
{
    char number[EK_REAL_TEXT], text[EK_CC_PLACE_MAX];
    int count = count_of(k->node);
    ek_cc_axis axis = {0};
    if (softmax_node) axis = ek_cc_axis_of(softmax_node);
    if (!k->w) {
        int8_dequantize(count, (float)k->y->scale, k->y->zero, place(k, k->node->id), k->out);
        if (softmax_node) softmax(axis.outer, axis.count, axis.step, k->out);
        return;
    }
    ek_cc_use(k->w, "int8_dequantize");
    ek_text_add(&k->w->body, "    int8_dequantize(%d, %s, %d, %s, out);\n", count, ek_cc_float((float)k->y->scale, number),
                k->y->zero, ek_cc_place(k->w, k->node->id, text));
    if (!softmax_node) return;
    ek_cc_use(k->w, "softmax");
    ek_text_add(&k->w->body, "    softmax(%d, %d, %d, out);\n", axis.outer, axis.count, axis.step);
}

/* --- sums */

/* Row by row, tap by tap. */
static void run_conv(const work *k, const ek_cc_window *g)
{
    const ek_cc_numbers *n = k->n;
    const int in = g->ci / g->groups, out = g->co / g->groups;
    const int wide = (g->wo - 1) * g->stride_w + (g->kw - 1) * g->dilation_w + 1;
    int32_t *sum = k->memory + k->plan->scratch[k->node->id];
    int8_t *room = (int8_t *)(sum + ek_cc_conv_sums(g)), *y = place(k, k->node->id);
    for (int o = 0; o < g->co; o++) {
        const int8_t *x = input_place(k, 0) + (int64_t)(o / out) * in * g->hi * g->wi;
        for (int p = 0; p < g->ho; p++) {
            for (int q = 0; q < g->wo; q++) sum[q] = n->bias[o];
            for (int i = 0; i < in; i++) {
                for (int r = 0; r < g->kh; r++) {
                    const int8_t *w = n->weight + ((int64_t)(o * in + i) * g->kh + r) * g->kw;
                    const int top = p * g->stride_h + r * g->dilation_h;
                    const int8_t *from = x + ((int64_t)i * g->hi + top) * g->wi;
                    if (g->padded) {
                        int8_gather(1, g->hi, g->wi, top - g->pad_h, g->pad_w, 1, 1, wide, k->x[0]->zero, x + (int64_t)i * g->hi * g->wi, room);
                        from = room;
                    }
                    for (int l = 0; l < g->kw; l++, from += g->dilation_w)
                        for (int q = 0; q < g->wo; q++) sum[q] += w[l] * from[q * g->stride_w];
                }
            }
            for (int q = 0; q < g->wo; q++)
                *y++ = limited(scaled(sum[q], n->multiplier[o], n->shift[o]) + k->cut.zero, k->cut.low, k->cut.high);
        }
    }
}

static void sums(const work *k)
{
    ek_cc_window g = ek_cc_sum_window(k->node);
    const ek_cc_numbers *n = k->n;
    bool linear = is(k->node, "linear");
    char text[64];
    if (!k->w && linear)
        int8_linear(g.ci, g.co, n->weight, n->bias, n->multiplier, n->shift, k->cut, input_place(k, 0), place(k, k->node->id));
    if (!k->w && !linear) run_conv(k, &g);
    if (!k->w) return;
    const char *label = k->w->names[k->node->id];
    ek_cc_bytes(k->w, k->node, "weight", n->weights, n->weight);
    ek_cc_words(k->w, k->node, "bias", g.co, n->bias);
    ek_cc_words(k->w, k->node, "multiplier", g.co, n->multiplier);
    ek_cc_bytes(k->w, k->node, "shift", g.co, n->shift);
    if (!linear) {
        ek_cc_emit_int8_conv(k->w, k->node, &g, k->x[0]->zero, cut_text(k, text));
        return;
    }
    ek_cc_use(k->w, "int8_linear");
    ek_text_add(&k->w->body, "    int8_linear(%d, %d, %s_weight, %s_bias, %s_multiplier, %s_shift, %s, ", g.ci, g.co, label,
                label, label, label, cut_text(k, text));
    write_end(k);
}

size_t ek_cc_int8_scratch(const ek_node *node)
{
    if (!ek_cc_sums(node) || is(node, "linear")) return 0;
    ek_cc_window g = ek_cc_sum_window(node);
    return ek_cc_conv_scratch(&g, true);
}

/* --- functions of one number */

static void table(const work *k)
{
    if (!k->w) {
        int8_lookup(count_of(k->node), k->n->table[0], input_place(k, 0), place(k, k->node->id));
        return;
    }
    ek_cc_use(k->w, "int8_lookup");
    ek_cc_bytes(k->w, k->node, "table", 256, k->n->table[0]);
    ek_text_add(&k->w->body, "    int8_lookup(%d, %s_table, ", count_of(k->node), k->w->names[k->node->id]);
    write_end(k);
}

/* --- pools */

static void pool(const work *k)
{
    ek_cc_window c = ek_cc_window_of(k->node);
    window g = {c.ci, c.hi, c.wi, c.ho, c.wo, c.kh, c.kw, c.stride_h, c.stride_w, c.pad_h, c.pad_w, c.end_h, c.end_w,
                c.dilation_h, c.dilation_w};
    bool max = is(k->node, "maxpool");
    int count_pad = (int)ek_cc_option(k->node, "count_pad", 0, 1);
    ek_cc_factor f = ek_cc_factor_of(k->x[0]->scale / k->y->scale / ((double)c.kh * c.kw));
    char text[64];
    if (!k->w && max) int8_maxpool(&g, input_place(k, 0), place(k, k->node->id));
    if (!k->w && !max)
        int8_avgpool(&g, count_pad, k->x[0]->zero, f.multiplier, f.shift, k->cut, input_place(k, 0), place(k, k->node->id));
    if (!k->w) return;
    const char *label = k->w->names[k->node->id];
    ek_cc_use(k->w, max ? "int8_maxpool" : "int8_avgpool");
    ek_text_add(&k->w->arrays, "static const struct window %s_window = {%d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %d};\n",
                label, g.c, g.hi, g.wi, g.ho, g.wo, g.kh, g.kw, g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.end_h, g.end_w,
                g.dilation_h, g.dilation_w);
    if (max)
        ek_text_add(&k->w->body, "    int8_maxpool(&%s_window, ", label);
    else
        ek_text_add(&k->w->body, "    int8_avgpool(&%s_window, %d, %d, %d, %d, %s, ", label, count_pad, k->x[0]->zero, f.multiplier,
                    f.shift, cut_text(k, text));
    write_end(k);
}

/* --- two values, and values in another order */

/* How a value of `shape` is read as one of the node's output. */
static steps repeated(const ek_node *node, ek_shape shape)
{
    steps s = {{1, 1, 1, 1}, {0}};
    int step = 1;
    for (int d = node->out.rank - 1; d >= 0; d--) {
        int at = 4 - node->out.rank + d;
        s.dim[at] = (int)node->out.dim[d];
        s.step[at] = shape.dim[d] == 1 ? 0 : step;
        step *= (int)shape.dim[d];
    }
    return s;
}

static void write_steps(const work *k, const char *what, const steps *s)
{
    ek_cc_use(k->w, "steps");
    ek_text_add(&k->w->arrays, "static const struct steps %s_%s = {{%d, %d, %d, %d}, {%d, %d, %d, %d}};\n",
                k->w->names[k->node->id], what, s->dim[0], s->dim[1], s->dim[2], s->dim[3], s->step[0], s->step[1], s->step[2],
                s->step[3]);
}

/* Both factors with the shift of the larger. */
static weighing weigh(const work *k)
{
    double x = k->x[0]->scale / k->y->scale, z = k->x[1]->scale / k->y->scale;
    double larger = x > z ? x : z;
    ek_cc_factor f = ek_cc_factor_of(larger);
    int sign = is(k->node, "sub") ? -1 : 1;
    return (weighing){.x_zero = k->x[0]->zero, .z_zero = k->x[1]->zero, .shift = f.shift,
                      .x_multiplier = (int32_t)(f.multiplier * (x / larger)),
                      .z_multiplier = sign * (int32_t)(f.multiplier * (z / larger))};
}

static void sum(const work *k)
{
    weighing by = weigh(k);
    steps first = repeated(k->node, k->node->in[0]), second = repeated(k->node, k->node->in[1]);
    char text[64];
    if (!k->w) {
        int8_sum(&first, &second, by, k->cut, input_place(k, 0), input_place(k, 1), place(k, k->node->id));
        return;
    }
    const char *label = k->w->names[k->node->id];
    ek_cc_use(k->w, "int8_sum");
    write_steps(k, "first", &first);
    write_steps(k, "second", &second);
    ek_text_add(&k->w->body, "    int8_sum(&%s_first, &%s_second, (weighing){%d, %d, %d, %d, %d}, %s, ", label, label, by.x_zero,
                by.z_zero, by.shift, by.x_multiplier, by.z_multiplier, cut_text(k, text));
    write_end(k);
}

static void product(const work *k)
{
    steps first = repeated(k->node, k->node->in[0]), second = repeated(k->node, k->node->in[1]);
    ek_cc_factor f = ek_cc_factor_of(k->x[0]->scale * k->x[1]->scale / k->y->scale);
    char text[64];
    if (!k->w) {
        int8_product(&first, &second, k->x[0]->zero, k->x[1]->zero, f.multiplier, f.shift, k->cut, input_place(k, 0),
                     input_place(k, 1), place(k, k->node->id));
        return;
    }
    const char *label = k->w->names[k->node->id];
    ek_cc_use(k->w, "int8_product");
    write_steps(k, "first", &first);
    write_steps(k, "second", &second);
    ek_text_add(&k->w->body, "    int8_product(&%s_first, &%s_second, %d, %d, %d, %d, %s, ", label, label, k->x[0]->zero,
                k->x[1]->zero, f.multiplier, f.shift, cut_text(k, text));
    write_end(k);
}

static void concat(const work *k)
{
    int outer = ek_cc_axis_of(k->node).outer, part[2];
    for (int i = 0; i < 2; i++) part[i] = (int)ek_shape_count(k->node->in[i]) / outer;
    if (!k->w) {
        int8_concat(outer, part[0], part[1], k->n->table[0], k->n->table[1], input_place(k, 0), input_place(k, 1),
                    place(k, k->node->id));
        return;
    }
    const char *label = k->w->names[k->node->id];
    ek_cc_use(k->w, "int8_concat");
    ek_cc_bytes(k->w, k->node, "first", 256, k->n->table[0]);
    ek_cc_bytes(k->w, k->node, "second", 256, k->n->table[1]);
    ek_text_add(&k->w->body, "    int8_concat(%d, %d, %d, %s_first, %s_second, ", outer, part[0], part[1], label, label);
    write_end(k);
}

static void permute(const work *k)
{
    steps s = {{1, 1, 1, 1}, {0}};
    int rank = k->node->out.rank;
    for (int d = 0; d < rank; d++) {
        int from = (int)k->node->attr[0].v[d], at = 4 - rank + d;
        s.dim[at] = (int)k->node->out.dim[d];
        s.step[at] = 1;
        for (int e = from + 1; e < rank; e++) s.step[at] *= (int)k->node->in[0].dim[e];
    }
    if (!k->w) {
        int8_spread(&s, input_place(k, 0), place(k, k->node->id));
        return;
    }
    ek_cc_use(k->w, "int8_spread");
    write_steps(k, "order", &s);
    ek_text_add(&k->w->body, "    int8_spread(&%s_order, ", k->w->names[k->node->id]);
    write_end(k);
}

/* --- all of them */

static void layer(const work *k)
{
    static const struct {
        const char *op;
        void (*work)(const work *k);
    } layers[] = {{"input", input},     {"avgpool", pool}, {"maxpool", pool}, {"globalavgpool", pool}, {"add", sum},
                  {"sub", sum},         {"mul", product},  {"concat", concat}, {"permute", permute}};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (!is(k->node, layers[i].op)) continue;
        layers[i].work(k);
        return;
    }
    if (ek_cc_sums(k->node))
        sums(k);
    else
        table(k);
}

static void go(work k)
{
    const ek_graph *graph = k.plan->graph;
    int end = k.plan->root[graph->count - 1];
    for (int i = 0; i < graph->count; i++) {
        if (k.plan->root[i] != i) continue;
        k.node = &graph->node[i];
        k.n = &k.q->numbers[i];
        k.y = &k.q->range[i];
        k.cut = (limits){k.y->zero, k.n->low, k.n->high};
        for (int s = 0; s < k.node->input_count; s++) k.x[s] = &k.q->range[k.plan->root[k.node->input[s]]];
        layer(&k);
    }
    k.node = &graph->node[end];
    k.y = &k.q->range[end];
    output(&k, k.q->softmax >= 0 ? &graph->node[k.q->softmax] : NULL);
}

void ek_cc_int8_emit(ek_cc_writer *w, const ek_cc_quantized *q) { go((work){.plan = w->plan, .q = q, .w = w}); }

void ek_cc_int8_run(const ek_cc_plan *plan, const ek_cc_quantized *q, int32_t *memory, const float *in, float *out)
{
    go((work){.plan = plan, .q = q, .memory = memory, .in = in, .out = out});
}
