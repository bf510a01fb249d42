/* The convolutions of a net in C: a function for each kernel that it has, its taps written out, so that the inner loop runs
 * along a row of outputs and is a vector loop to any compiler. Those of eight bits sum into a row of words, and bring each row
 * to the scale of the output when it is complete. */
#include "ccode/conv.h"

#include <stdio.h>

/* What one inner loop does: `channels` inputs times `rows` by `columns` taps for `outputs` rows of outputs. What is not
 * written out is looped over around it. */
typedef struct unrolling {
    int channels, rows, columns, outputs;
} unrolling;

static int divisor(int of, int most)
{
    while (of % most) most /= 2;
    return most;
}

static unrolling unroll(const ek_cc_window *g)
{
    enum { MOST_TAPS = 12, MOST_PRODUCTS = 20 };
    unrolling u = {1, 1, g->kw, 1};
    if (g->kh * g->kw <= 9) u.rows = g->kh;
    if (g->kw > MOST_TAPS) u.columns = 1;
    if (g->kh * g->kw == 1) u.channels = divisor(g->ci / g->groups, 4);
    int taps = u.channels * u.rows * u.columns;
    u.outputs = divisor(g->co / g->groups, taps * 4 <= MOST_PRODUCTS ? 4 : taps * 2 <= MOST_PRODUCTS ? 2 : 1);
    return u;
}

static int wide_of(const ek_cc_window *g) { return (g->wo - 1) * g->stride_w + (g->kw - 1) * g->dilation_w + 1; }

static size_t room_of(const ek_cc_window *g)
{
    return g->padded ? (size_t)(g->ci / g->groups) * (size_t)g->kh * (size_t)wide_of(g) : 0;
}

size_t ek_cc_conv_sums(const ek_cc_window *g)
{
    unrolling u = unroll(g);
    return (size_t)u.outputs * (size_t)g->wo;
}

/* A kernel of one tap that takes every position sees a map as a row. (Not those of eight bits, whose sums would be as long.) */
static ek_cc_window as_row(ek_cc_window g)
{
    if (g.kh * g.kw > 1 || g.padded || g.stride_h != 1 || g.stride_w != 1) return g;
    g.wi *= g.hi;
    g.wo *= g.ho;
    g.hi = g.ho = 1;
    return g;
}

size_t ek_cc_conv_scratch(const ek_cc_window *g, bool int8) { return int8 ? ek_cc_conv_sums(g) + (room_of(g) + 3) / 4 : room_of(g); }

static void function_name(const ek_cc_window *g, const unrolling *u, bool int8, char name[EK_CC_NAME_MAX])
{
    char stride[14] = "", dilation[14] = "", way[14];
    if (g->stride_h != 1 || g->stride_w != 1) snprintf(stride, sizeof stride, "_s%dx%d", g->stride_h, g->stride_w);
    if (g->dilation_h != 1 || g->dilation_w != 1)
        snprintf(dilation, sizeof dilation, "_d%dx%d", g->dilation_h, g->dilation_w);
    snprintf(way, sizeof way, "_%dto%d", u->channels, u->outputs);
    snprintf(name, EK_CC_NAME_MAX, "%sconv_%dx%d%.12s%.12s%.12s%s", int8 ? "int8_" : "", g->kh, g->kw, stride, dilation, way, g->padded ? "_padded" : "");
}

/* The inner loop: n outputs of each of u->outputs rows. */
static void write_row(ek_text *f, const char *name, const ek_cc_window *g, const unrolling *u, bool int8)
{
    const char *in = int8 ? "int8_t" : "float", *sum = int8 ? "int32_t" : "float";
    int inputs = u->channels * u->rows, taps = inputs * u->columns;
    ek_text_add(f, "static inline void %s_row(int n", name);
    for (int b = 0; b < u->outputs; b++) ek_text_add(f, ", const %s *restrict w%d", in, b);
    for (int i = 0; i < inputs; i++) ek_text_add(f, ", const %s *restrict x%d", in, i);
    for (int b = 0; b < u->outputs; b++) ek_text_add(f, ", %s *restrict y%d", sum, b);
    ek_text_add(f, ")\n{\n    for (int q = 0; q < n; q++) {\n");
    for (int b = 0; b < u->outputs; b++) {
        ek_text_add(f, "        y%d[q] +=", b);
        for (int t = 0; t < taps; t++) {
            int shift = t % u->columns * g->dilation_w;
            ek_text_add(f, "%s%sw%d[%d] * x%d[", t ? " +" : "", t % 4 == 0 && t ? "\n            " : " ", b, t,
                        t / u->columns);
            if (g->stride_w > 1)
                ek_text_add(f, "%d * q", g->stride_w);
            else
                ek_text_add(f, "q");
            if (shift) ek_text_add(f, " + %d", shift);
            ek_text_add(f, "]");
        }
        ek_text_add(f, ";\n");
    }
    ek_text_add(f, "    }\n}\n\n");
}

static void write_call(ek_text *f, const char *name, const ek_cc_window *g, const unrolling *u, bool int8, bool loop_k,
                       bool loop_l)
{
    ek_text_add(f, "%s_row(wo", name);
    for (int b = 0; b < u->outputs; b++) {
        ek_text_add(f, ", v + ");
        if (b) ek_text_add(f, "%d * in * %d + ", b, g->kh * g->kw);
        ek_text_add(f, "i * %d", g->kh * g->kw);
        if (loop_k) ek_text_add(f, " + k * %d", g->kw);
        if (loop_l) ek_text_add(f, " + l");
    }
    for (int c = 0; c < u->channels; c++) {
        for (int k = 0; k < u->rows; k++) {
            ek_text_add(f, ", from + ");
            if (u->channels > 1)
                ek_text_add(f, "(i + %d) * channel", c);
            else
                ek_text_add(f, "i * channel");
            if (loop_k) ek_text_add(f, " + k * line");
            if (k) ek_text_add(f, " + %d * line", k);
            if (loop_l) ek_text_add(f, " + l * %d", g->dilation_w);
        }
    }
    for (int b = 0; b < u->outputs; b++) {
        if (b)
            ek_text_add(f, ", to + %d * %s", b, int8 ? "wo" : "map");
        else
            ek_text_add(f, ", to");
    }
    ek_text_add(f, ");\n");
}

/* Its head, up to the rows that a row of outputs reads. */
static void write_head(ek_text *f, const char *name, const ek_cc_window *g, bool int8)
{
    const char *type = int8 ? "int8_t" : "float";
    ek_text_add(f, "static void %s(int ci, int hi, int wi, int co, int ho, int wo, int groups, %sconst %s *restrict w,\n", name,
                g->padded ? "int top, int left, " : "", type);
    if (int8)
        ek_text_add(f, "    const int32_t *restrict bias, const int32_t *restrict multiplier, const int8_t *restrict shift,%s limits cut,\n"
                       "    const int8_t *restrict x, int32_t *restrict to,%s int8_t *restrict y)\n{\n",
                    g->padded ? " int zero," : "", g->padded ? " int8_t *restrict room," : "");
    else
        ek_text_add(f, "    const float *restrict bias, const float *restrict x,%s float *restrict y)\n{\n",
                    g->padded ? " float *restrict room," : "");
    ek_text_add(f, "    const int in = ci / groups, out = co / groups, map = ho * wo;\n");
    if (g->padded) {
        ek_text_add(f, "    const int wide = (wo - 1) * %d + %d, channel = %d * wide%s;\n", g->stride_w,
                    (g->kw - 1) * g->dilation_w + 1, g->kh, g->kh > 1 ? ", line = wide" : "");
    } else {
        ek_text_add(f, "    const int channel = hi * wi");
        if (g->kh > 1) ek_text_add(f, ", line = %d * wi", g->dilation_h);
        ek_text_add(f, ";\n");
    }
    ek_text_add(f, "    for (int g = 0; g < groups; g++, x += in * hi * wi)\n"
                   "        for (int p = 0; p < ho; p++) {\n");
    if (g->padded)
        ek_text_add(f, "            const %s *const from = room;\n"
                       "            %sgather(in, hi, wi, p * %d - top, left, %d, %d, wide,%s x, room);\n",
                    type, int8 ? "int8_" : "", g->stride_h, g->kh, g->dilation_h, int8 ? " zero," : "");
    else
        ek_text_add(f, "            const %s *const from = x + p * %d * wi;\n", type, g->stride_h);
}

/* A row of words, complete, becomes a row of outputs. */
static void write_rescaling(ek_text *f, const unrolling *u)
{
    ek_text_add(f, "                for (int b = 0; b < %d; b++) {\n"
                   "                    const int32_t m = multiplier[o + b];\n"
                   "                    const int s = shift[o + b];\n"
                   "                    for (int q = 0; q < wo; q++)\n"
                   "                        y[(o + b) * map + p * wo + q] =\n"
                   "                            limited(scaled(to[b * wo + q], m, s) + cut.zero, cut.low, cut.high);\n"
                   "                }\n",
                u->outputs);
}

static void write_function(ek_text *f, const char *name, const ek_cc_window *g, const unrolling *u, bool int8)
{
    bool loop_k = u->rows < g->kh, loop_l = u->columns < g->kw;
    ek_text_add(f, "/* Convolution: x [ci][hi][wi], w [co][ci/groups][%d][%d], y [co][ho][wo]. */\n", g->kh, g->kw);
    write_row(f, name, g, u, int8);
    write_head(f, name, g, int8);
    ek_text_add(f, "            for (int o = g * out; o < (g + 1) * out; o += %d) {\n"
                   "                const %s *const v = w + o * in * %d;\n",
                u->outputs, int8 ? "int8_t" : "float", g->kh * g->kw);
    if (!int8) ek_text_add(f, "                float *const to = y + o * map + p * wo;\n");
    ek_text_add(f, "                for (int b = 0; b < %d; b++)\n"
                   "                    for (int q = 0; q < wo; q++) to[b * %s + q] = %s;\n",
                u->outputs, int8 ? "wo" : "map", int8 ? "bias[o + b]" : "bias ? bias[o + b] : 0.0f");
    ek_text_add(f, "                for (int i = 0; i < in; i += %d)\n", u->channels);
    if (loop_k) ek_text_add(f, "                    for (int k = 0; k < %d; k++)\n", g->kh);
    if (loop_l) ek_text_add(f, "                        for (int l = 0; l < %d; l++)\n", g->kw);
    ek_text_add(f, "                            ");
    write_call(f, name, g, u, int8, loop_k, loop_l);
    if (int8) write_rescaling(f, u);
    ek_text_add(f, "            }\n        }\n}\n\n");
}

/* The function of this shape's kernel, and the call up to the weights. */
static void begin_call(ek_cc_writer *w, const ek_cc_window *g, bool int8)
{
    unrolling u = unroll(g);
    char name[EK_CC_NAME_MAX];
    function_name(g, &u, int8, name);
    if (g->padded) ek_cc_use(w, int8 ? "int8_gather" : "gather");
    if (ek_cc_once(w, name)) write_function(&w->functions, name, g, &u, int8);
    ek_text_add(&w->body, "    %s(%d, %d, %d, %d, %d, %d, %d, ", name, g->ci, g->hi, g->wi, g->co, g->ho, g->wo, g->groups);
    if (g->padded) ek_text_add(&w->body, "%d, %d, ", g->pad_h, g->pad_w);
}

void ek_cc_emit_conv(ek_cc_writer *w, const ek_node *node, const float *weight, const float *bias)
{
    ek_cc_window g = as_row(ek_cc_window_of(node));
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX], room[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id];
    ek_cc_floats(w, node, "weight", (int64_t)g.co * (g.ci / g.groups) * g.kh * g.kw, weight);
    if (bias) ek_cc_floats(w, node, "bias", g.co, bias);
    begin_call(w, &g, false);
    ek_text_add(&w->body, "%s_weight, %s%s, %s, ", label, bias ? label : "NULL", bias ? "_bias" : "",
                ek_cc_place(w, node->input[0], x));
    if (g.padded) ek_text_add(&w->body, "%s, ", ek_cc_scratch(w, node->id, room));
    ek_text_add(&w->body, "%s);\n", ek_cc_place(w, node->id, y));
}

void ek_cc_emit_int8_conv(ek_cc_writer *w, const ek_node *node, const ek_cc_window *g, int zero_of_x, const char *limits)
{
    char x[EK_CC_PLACE_MAX], y[EK_CC_PLACE_MAX], sums[EK_CC_PLACE_MAX];
    const char *label = w->names[node->id];
    ek_cc_use(w, "requantize");
    begin_call(w, g, true);
    ek_text_add(&w->body, "%s_weight, %s_bias, %s_multiplier, %s_shift, ", label, label, label, label);
    if (g->padded) ek_text_add(&w->body, "%d, ", zero_of_x);
    ek_text_add(&w->body, "%s, %s, %s, ", limits, ek_cc_place(w, node->input[0], x), ek_cc_scratch(w, node->id, sums));
    if (g->padded) ek_text_add(&w->body, "bytes + %zu, ", 4 * (w->plan->scratch[node->id] + ek_cc_conv_sums(g)));
    ek_text_add(&w->body, "%s);\n", ek_cc_place(w, node->id, y));
}
