/* From a model's nodes to a net: which are needed, in which order, what each becomes, and what cannot be read. */
#include "onnx/import.h"

#include "core/memory.h"
#include "graph/metadata.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct onnx_problem {
    const onnx_node *node;
    const char *why;
    bool told;
} onnx_problem;

/* --- order */

/* Depth first from the value that the net is to give: what it needs, inputs before users. */
typedef struct walk {
    const onnx_model *model;
    int *order, count;     /* nodes, each behind those that it reads */
    unsigned char *colour; /* by node: 0 not seen, 1 on the way, 2 in order */
    int *stack, *next;     /* nodes on the way, and which input of each is looked at next */
} walk;

const char *ek_onnx_shown_name(const onnx_model *model, const onnx_node *node)
{
    if (*node->name) return node->name;
    for (int k = 0; k < node->output_count; k++) {
        if (node->output[k] >= 0) return model->value[node->output[k]].name;
    }
    return "without a name";
}

static ek_status visit(walk *w, int first)
{
    int depth = 0;
    w->stack[0] = first;
    w->next[0] = 0;
    w->colour[first] = 1;
    while (depth >= 0) {
        const onnx_node *node = &w->model->node[w->stack[depth]];
        if (w->next[depth] == node->input_count) {
            w->colour[w->stack[depth]] = 2;
            w->order[w->count++] = w->stack[depth--];
            continue;
        }
        int value = node->input[w->next[depth]++];
        if (value < 0) continue;
        const onnx_name *name = &w->model->value[value];
        if (name->producer < 0) {
            if (name->initializer || name->is_input) continue;
            return ek_fail(EK_E_FORMAT, "%s '%s' reads '%s', which nothing gives", node->op,
                           ek_onnx_shown_name(w->model, node), name->name);
        }
        if (w->colour[name->producer] == 1)
            return ek_fail(EK_E_FORMAT,
                           "its nodes go in a circle: %s '%s' reads '%s', which is made of what it gives",
                           node->op, ek_onnx_shown_name(w->model, node), name->name);
        if (w->colour[name->producer] == 2) continue;
        depth++;
        w->stack[depth] = name->producer;
        w->next[depth] = 0;
        w->colour[name->producer] = 1;
    }
    return EK_OK;
}

/* The order of the file where it is one, so that layers stand as its author had them. */
static void prefer_file_order(walk *w)
{
    for (int i = 0; i < w->count; i++) {
        const onnx_node *node = &w->model->node[w->order[i]];
        for (int k = 0; k < node->input_count; k++) {
            if (node->input[k] >= 0 && w->model->value[node->input[k]].producer >= w->order[i]) return;
        }
    }
    int count = 0;
    for (int i = 0; i < w->model->node_count; i++) {
        if (w->colour[i] == 2) w->order[count++] = i;
    }
}

static ek_status find_order(onnx_import *im, int output, int **order, int *count)
{
    size_t nodes = (size_t)im->model->node_count;
    walk w = {.model = im->model};
    EK_TRY(ONNX_KEEP(&im->memory, w.order, nodes));
    EK_TRY(ONNX_KEEP(&im->memory, w.colour, nodes));
    EK_TRY(ONNX_KEEP(&im->memory, w.stack, nodes));
    EK_TRY(ONNX_KEEP(&im->memory, w.next, nodes));
    if (im->model->value[output].producer >= 0) EK_TRY(visit(&w, im->model->value[output].producer));
    prefer_file_order(&w);
    *order = w.order;
    *count = w.count;
    return EK_OK;
}

/* --- words */

static const char *keep_text(onnx_import *im, const char *format, va_list args)
{
    char *text = ek_vstrf(format, args);
    char *kept = text ? ek_onnx_keep(&im->memory, strlen(text) + 1, 1) : NULL;
    if (kept) strcpy(kept, text);
    ek_free(text);
    return kept;
}

ek_status ek_onnx_note(onnx_import *im, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = keep_text(im, format, args);
    va_end(args);
    if (!text) return EK_E_MEMORY;
    for (int i = 0; i < im->note_count; i++) {
        if (!strcmp(im->note[i], text)) return EK_OK;
    }
    if (im->note_count == im->note_room) {
        int room = im->note_room ? 2 * im->note_room : 16;
        const char **grown = ek_grow(im->note, (size_t)room, sizeof *grown);
        if (!grown) return EK_E_MEMORY;
        im->note = grown;
        im->note_room = room;
    }
    im->note[im->note_count++] = text;
    return EK_OK;
}

ek_status ek_onnx_touches_batch(onnx_import *im, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = keep_text(im, format, args);
    va_end(args);
    if (!text) return EK_E_MEMORY;
    im->batch_problems += im->lead;
    return ek_fail(EK_E_UNSUPPORTED, "%s", text);
}

/* A node that cannot be read: what it gives stays unknown, and the rest is looked at as far as that goes. */
static ek_status add_problem(onnx_import *im, const onnx_node *node, ek_status status)
{
    if (status == EK_E_MEMORY || status == EK_E_IO)
        return ek_fail_in(status, "%s '%s': ", node->op, ek_onnx_shown_name(im->model, node));
    size_t length = strlen(ek_error());
    char *why = ek_onnx_keep(&im->memory, length + 1, 1);
    if (!why) return EK_E_MEMORY;
    strcpy(why, ek_error());
    if (im->problems == im->problem_room) {
        int room = im->problem_room ? 2 * im->problem_room : 16;
        onnx_problem *grown = ek_grow(im->list, (size_t)room, sizeof *grown);
        if (!grown) return EK_E_MEMORY;
        im->list = grown;
        im->problem_room = room;
    }
    im->list[im->problems++] = (onnx_problem){.node = node, .why = why};
    if (im->worst == EK_OK || status != EK_E_UNSUPPORTED) im->worst = status;
    return EK_OK;
}

/* "Resize (/up1/Resize, /up2/Resize): there is no such layer here; Loop (...): ..." */
static void tell_problems(onnx_import *im, ek_text *text)
{
    enum { ROOM = 6000 };
    int left = im->problems;
    for (int i = 0; i < im->problems && text->length < ROOM; i++) {
        onnx_problem *first = &im->list[i];
        if (first->told) continue;
        ek_text_add(text, "%s%s (", i ? "; " : "", first->node->op);
        for (int k = i; k < im->problems && text->length < ROOM; k++) {
            onnx_problem *other = &im->list[k];
            if (other->told || strcmp(other->node->op, first->node->op) != 0 ||
                strcmp(other->why, first->why) != 0)
                continue;
            ek_text_add(text, "%s%.200s", k > i ? ", " : "", ek_onnx_shown_name(im->model, other->node));
            other->told = true;
            left--;
        }
        ek_text_add(text, "): %s", first->why);
    }
    if (left) ek_text_add(text, "; and %d more", left);
}

static ek_status fail_problems(onnx_import *im)
{
    ek_text text = {0};
    tell_problems(im, &text);
    ek_status status = ek_text_status(&text);
    if (status == EK_OK) status = ek_fail(im->worst, "cannot be read as a net: %s", text.data);
    ek_text_free(&text);
    return status;
}

/* --- values */

onnx_value *ek_onnx_input(onnx_import *im, const onnx_node *node, int k)
{
    return k < node->input_count && node->input[k] >= 0 ? &im->value[node->input[k]] : NULL;
}

static onnx_value *output_of(onnx_import *im, const onnx_node *node)
{
    return node->output_count > 0 && node->output[0] >= 0 ? &im->value[node->output[0]] : NULL;
}

void ek_onnx_give_more(onnx_import *im, const onnx_node *node, onnx_layer layer, const onnx_affine *affine,
                       const int64_t *pad)
{
    onnx_value *value = output_of(im, node);
    if (!value) return;
    value->kind = ONNX_LAYER;
    value->layer = layer;
    value->affine = affine ? *affine : (onnx_affine){0};
    if (pad) memcpy(value->pad, pad, sizeof value->pad);
}

void ek_onnx_give(onnx_import *im, const onnx_node *node, onnx_layer layer)
{
    ek_onnx_give_more(im, node, layer, NULL, NULL);
}

void ek_onnx_give_constant(onnx_import *im, const onnx_node *node, onnx_constant *constant)
{
    onnx_value *value = output_of(im, node);
    if (!value) return;
    value->kind = ONNX_CONSTANT;
    value->constant = constant;
    if (!constant->name) constant->name = im->model->value[node->output[0]].name;
}

void ek_onnx_pass_on(onnx_import *im, const onnx_node *node)
{
    const onnx_value *from = ek_onnx_input(im, node, 0);
    onnx_value *value = output_of(im, node);
    if (!value || !from) return;
    int readers = value->readers, reader = value->reader;
    *value = *from;
    value->readers = readers;
    value->reader = reader;
}

/* Nets have no constants of their own: a linear layer gives one as its bias, with weights of zero for the input's mean. */
ek_status ek_onnx_constant_layer(onnx_import *im, const onnx_node *node, onnx_constant *c, ek_shape shape,
                                 onnx_layer *out)
{
    onnx_layer x = {.index = 0, .shape = ek_builder_shape(&im->builder, 0)};
    if (!ek_onnx_is_real(c->type))
        return ek_fail(EK_E_FORMAT, "'%s' is %s, and goes with real numbers", c->name,
                       ek_onnx_type_name(c->type));
    if (c->count < 1) return ek_fail(EK_E_UNSUPPORTED, "'%s' is empty", c->name);
    if (c->layer == 0) {
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape2(1, ek_shape_count(x.shape)), &x));
        EK_TRY(ek_onnx_add(im, node, NULL, "globalavgpool", x.index, -1, &x, " "));
        EK_TRY(ek_onnx_reshape(im, x, ek_onnx_shape1(1), &x));
        EK_TRY(ek_onnx_add(im, node, c, "linear", x.index, -1, &x, "out=%lld", (long long)c->count));
        EK_TRY(ek_onnx_fill(im, x.index, EK_ROLE_BIAS, c, "constant"));
        EK_TRY(ek_onnx_note(im,
                            "'%s' is a constant among values that layers compute: it is the bias of a linear "
                            "layer whose weights "
                            "are 0",
                            c->name));
        c->layer = x.index;
    }
    x = (onnx_layer){.index = c->layer, .shape = ek_onnx_shape1(c->count)};
    return ek_onnx_reshape(im, x, shape, out);
}

static ek_status layer_of_constant(onnx_import *im, const onnx_node *node, onnx_constant *c, onnx_layer *out)
{
    if (im->lead && (c->rank < 1 || c->dim[0] != 1))
        return ek_onnx_touches_batch(im, "'%s' is a constant by sample", c->name);
    if (c->rank - im->lead > EK_MAX_VALUE_RANK)
        return ek_fail(EK_E_UNSUPPORTED, "'%s' has %d dimensions", c->name, c->rank);
    ek_shape shape = {.rank = c->rank - im->lead};
    for (int i = 0; i < shape.rank; i++) shape.dim[i] = c->dim[i + im->lead];
    return ek_onnx_constant_layer(im, node, c, shape, out);
}

static ek_status any_layer(onnx_import *im, const onnx_node *node, int k, int most, onnx_layer *out,
                           int64_t pad[4])
{
    onnx_value *value = ek_onnx_input(im, node, k);
    if (!value) return ek_fail(EK_E_FORMAT, "its input %d is left out", k);
    if (pad) memset(pad, 0, sizeof value->pad);
    if (value->kind == ONNX_CONSTANT) return layer_of_constant(im, node, value->constant, out);
    EK_TRY(ek_onnx_settle(im, value, !pad));
    *out = value->layer;
    if (pad) memcpy(pad, value->pad, sizeof value->pad);
    if (out->shape.rank > most)
        return ek_fail(EK_E_UNSUPPORTED, "it computes with %d dimensions; at most %d are read",
                       out->shape.rank + im->lead, most + im->lead);
    return EK_OK;
}

ek_status ek_onnx_padded_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out, int64_t pad[4])
{
    return any_layer(im, node, k, EK_MAX_VALUE_RANK, out, pad);
}

ek_status ek_onnx_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out)
{
    return any_layer(im, node, k, EK_MAX_VALUE_RANK, out, NULL);
}

ek_status ek_onnx_moved_layer(onnx_import *im, const onnx_node *node, int k, onnx_layer *out)
{
    return any_layer(im, node, k, EK_MAX_RANK, out, NULL);
}

ek_status ek_onnx_constant_input(onnx_import *im, const onnx_node *node, int k, bool needed, const char *what,
                                 onnx_constant **out)
{
    *out = NULL;
    const onnx_value *value = ek_onnx_input(im, node, k);
    if (!value) return needed ? ek_fail(EK_E_FORMAT, "its %s is left out", what) : EK_OK;
    if (value->kind != ONNX_CONSTANT)
        return ek_fail(EK_E_UNSUPPORTED, "its %s is computed, not constant", what);
    *out = value->constant;
    return EK_OK;
}

/* --- attributes */

ek_status ek_onnx_get_int(const onnx_node *node, const char *name, int64_t fallback, int64_t *out)
{
    const onnx_attribute *a;
    EK_TRY(ek_onnx_find_attribute(node, name, ONNX_A_INT, &a));
    *out = a ? a->i : fallback;
    return EK_OK;
}

double ek_onnx_as_written(float f)
{
    for (int digits = 1; digits <= 9; digits++) {
        char text[EK_REAL_TEXT];
        double value;
        snprintf(text, sizeof text, "%.*e", digits - 1, (double)f);
        for (char *c = text; *c; c++) {
            if (*c == ',') *c = '.'; /* the locale's */
        }
        if (ek_read_real(text, text + strlen(text), &value) && (float)value == f) return value;
    }
    return (double)f;
}

ek_status ek_onnx_get_float(const onnx_node *node, const char *name, double fallback, double *out)
{
    const onnx_attribute *a;
    EK_TRY(ek_onnx_find_attribute(node, name, ONNX_A_FLOAT, &a));
    *out = a ? ek_onnx_as_written(a->f) : fallback;
    return EK_OK;
}

ek_status ek_onnx_get_text(const onnx_node *node, const char *name, const char *fallback, const char **out)
{
    const onnx_attribute *a;
    EK_TRY(ek_onnx_find_attribute(node, name, ONNX_A_STRING, &a));
    *out = a ? a->s : fallback;
    return EK_OK;
}

ek_status ek_onnx_get_ints(const onnx_node *node, const char *name, const int64_t **ints, int *count)
{
    const onnx_attribute *a;
    EK_TRY(ek_onnx_find_attribute(node, name, ONNX_A_INTS, &a));
    if (a && a->count > INT32_MAX) return ek_fail(EK_E_FORMAT, "its attribute '%s' is too long", name);
    *ints = a ? a->ints : NULL;
    *count = a ? (int)a->count : 0;
    return EK_OK;
}

ek_status ek_onnx_axes(onnx_import *im, const onnx_node *node, int64_t input_since,
                       int64_t axes[ONNX_MAX_RANK], int *count, bool *there)
{
    *count = 0;
    if (im->model->opset < input_since) {
        const int64_t *ints;
        int given;
        EK_TRY(ek_onnx_get_ints(node, "axes", &ints, &given));
        *there = ints != NULL;
        if (given > ONNX_MAX_RANK) return ek_fail(EK_E_FORMAT, "it has %d axes", given);
        for (*count = 0; *count < given; ++*count) axes[*count] = ints[*count];
        return EK_OK;
    }
    onnx_constant *c;
    EK_TRY(ek_onnx_constant_input(im, node, 1, false, "list of axes", &c));
    *there = c != NULL;
    if (!c) return EK_OK;
    if (c->count > ONNX_MAX_RANK) return ek_fail(EK_E_FORMAT, "it has %lld axes", (long long)c->count);
    EK_TRY(ek_onnx_load(im, c));
    if (!c->whole) return ek_fail(EK_E_FORMAT, "its axes are no whole numbers");
    for (*count = 0; *count < (int)c->count; ++*count) axes[*count] = c->whole[*count];
    return EK_OK;
}

ek_status ek_onnx_axis(onnx_import *im, int64_t axis, int rank, bool batch_allowed, int *out)
{
    if (axis < -rank || axis >= rank)
        return ek_fail(EK_E_FORMAT, "its axis %lld is none of %d dimensions", (long long)axis, rank);
    if (axis < 0) axis += rank;
    *out = (int)axis - im->lead;
    if (*out < 0 && !batch_allowed) return ek_onnx_touches_batch(im, "it works along the batch");
    return EK_OK;
}

/* --- layers */

static bool strip(char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    if (length <= tail || strcmp(text + length - tail, end) != 0) return false;
    text[length - tail] = 0;
    return true;
}

const char *ek_onnx_label(onnx_import *im, const onnx_constant *weight)
{
    static const char *const ends[] = {".weight", ".gamma", ".scale",  ".kernel",   ".slope",  "_weight",
                                       "_gamma",  "/gamma", "/kernel", "/kernel:0", "/gamma:0"};
    if (!weight || !weight->name) return NULL;
    size_t size = strlen(weight->name) + 1;
    char *label = ek_onnx_keep(&im->memory, size, 1);
    if (label) memcpy(label, weight->name, size);
    for (size_t i = 0; label && i < sizeof ends / sizeof *ends; i++) {
        if (strip(label, ends[i])) return label;
    }
    return NULL;
}

/* "conv1" from the weights conv1.weight, or from the node /conv1/Conv. */
static void choose_label(onnx_import *im, const onnx_node *node, const onnx_constant *weight, char *label,
                         size_t size)
{
    const char *name = ek_onnx_label(im, weight);
    bool of_node = !name;
    if (of_node) name = node->name + (*node->name == '/');
    size_t length = strlen(name);
    snprintf(label, size, "%s", length < size ? name : name + length - size + 1); /* its end says more */
    char end[64];
    snprintf(end, sizeof end, "/%.60s", node->op);
    if (of_node) strip(label, end);
}

/* What the parameters of a net take, beside the file: here, in the net, and their gradients. */
static ek_status check_memory(const onnx_import *im)
{
    double numbers = 0;
    for (int i = 0; i < im->builder.graph.count; i++) {
        const ek_node *node = &im->builder.graph.node[i];
        for (int k = 0; k < node->param_count; k++) numbers += (double)node->param[k].count;
    }
    double need = 3 * numbers * sizeof(float),
           have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (have <= 0 || need <= have) return EK_OK;
    return ek_fail(EK_E_MEMORY, "its parameters need %.1f GiB, and this machine has %.1f", need / 0x1p30,
                   have / 0x1p30);
}

ek_status ek_onnx_add(onnx_import *im, const onnx_node *node, const onnx_constant *weight, const char *op,
                      int first, int second, onnx_layer *out, const char *options, ...)
{
    va_list args;
    va_start(args, options);
    char *text = ek_vstrf(options, args), label[256] = "";
    va_end(args);
    if (!text) return EK_E_MEMORY;
    if (weight) choose_label(im, node, weight, label, sizeof label);
    ek_status status =
        ek_builder_add(&im->builder, weight ? label : NULL, op, first, second, &out->index, "%s", text);
    ek_free(text);
    if (status != EK_OK)
        return status == EK_E_MEMORY || status == EK_E_UNSUPPORTED ? status
                                                                   : ek_fail_in(status, "as %s: ", op);
    out->shape = ek_builder_shape(&im->builder, out->index);
    return ek_builder_node(&im->builder, out->index)->param_count ? check_memory(im) : EK_OK;
}

/* Reshapes are looked through: only the last of several counts. */
static int source_of(onnx_import *im, int index)
{
    const ek_node *node = ek_builder_node(&im->builder, index);
    while (!strcmp(node->op->name, "flatten") || !strcmp(node->op->name, "reshape")) {
        index = node->input[0];
        node = ek_builder_node(&im->builder, index);
    }
    return index;
}

/* As builders have it: a shape of more dimensions than a layer may have is features. */
static ek_shape held_shape(ek_shape shape)
{
    if (shape.rank == 0) return ek_onnx_shape1(1);
    return shape.rank > EK_MAX_VALUE_RANK ? ek_onnx_shape1(ek_shape_count(shape)) : shape;
}

ek_status ek_onnx_reshape(onnx_import *im, onnx_layer x, ek_shape shape, onnx_layer *out)
{
    ek_shape wanted = held_shape(shape);
    if (!ek_shape_equal(ek_builder_shape(&im->builder, x.index), wanted)) {
        x.index = source_of(im, x.index);
        if (!ek_shape_equal(ek_builder_shape(&im->builder, x.index), wanted))
            EK_TRY(ek_builder_add(
                &im->builder, NULL, wanted.rank == 1 ? "flatten" : "reshape", x.index, -1, &x.index, "%s%s",
                wanted.rank == 1 ? "" : "shape=", wanted.rank == 1 ? "" : ONNX_SHAPE(wanted)));
    }
    *out = (onnx_layer){.index = x.index, .shape = shape};
    return EK_OK;
}

/* Two permutations after each other are one, or none. */
static ek_status add_permute(onnx_import *im, onnx_layer x, const int *axis, onnx_layer *out)
{
    int all[EK_MAX_RANK], rank = x.shape.rank;
    memcpy(all, axis, (size_t)rank * sizeof *all);
    EK_TRY(ek_onnx_reshape(im, x, x.shape, &x));
    const ek_node *before = ek_builder_node(&im->builder, x.index);
    if (!strcmp(before->op->name, "permute")) {
        bool same = true;
        for (int i = 0; i < rank; i++) {
            all[i] = (int)before->attr[0].v[all[i]];
            same &= all[i] == i;
        }
        x = (onnx_layer){.index = before->input[0], .shape = before->in[0]};
        if (same) {
            *out = x;
            return EK_OK;
        }
    }
    ek_text text = {0};
    for (int i = 0; i < rank; i++) ek_text_add(&text, i ? ",%d" : "%d", all[i]);
    ek_status status = ek_text_status(&text);
    if (status == EK_OK)
        status = ek_onnx_add(im, NULL, NULL, "permute", x.index, -1, out, "axes=%s", text.data);
    ek_text_free(&text);
    return status;
}

/* Dimensions of one number may go anywhere, and neighbours that stay so are one: what is left. *gone: by dimension of the
 * result, whether it is within the one before. */
static int join_neighbours(ek_shape x, const int *axis, ek_shape *joined, int *order)
{
    int of[EK_MAX_RANK], kept = 0,
                         count = 0; /* of: x's dimensions of more than one number, in the result's order */
    for (int i = 0; i < x.rank; i++) {
        if (x.dim[axis[i]] != 1) of[kept++] = axis[i];
    }
    int group[EK_MAX_RANK], last = -1; /* by dimension of x: which group begins there, else -1 */
    for (int i = 0; i < x.rank; i++) group[i] = -1;
    int64_t size[EK_MAX_RANK];
    for (int i = 0; i < kept; i++) {
        bool next = last >= 0;
        for (int k = last + 1; next && k < of[i]; k++) next = x.dim[k] == 1;
        if (next && of[i] > last) {
            size[count - 1] *= x.dim[of[i]];
        } else {
            group[of[i]] = count;
            size[count++] = x.dim[of[i]];
        }
        last = of[i];
    }
    joined->rank = 0;
    for (int i = 0; i < x.rank; i++) {
        if (group[i] < 0) continue;
        order[group[i]] = joined->rank;
        joined->dim[joined->rank++] = size[group[i]];
    }
    return count;
}

/* More dimensions than a layer has: each that is out of place goes in front of those before it, as [before, those, it, behind]. */
static ek_status permute_in_turns(onnx_import *im, onnx_layer x, const int *order, onnx_layer *out)
{
    static const int swap[] = {0, 2, 1, 3};
    ek_shape now = x.shape;
    int at[EK_MAX_RANK]; /* which dimension of x stands where */
    for (int i = 0; i < now.rank; i++) at[i] = i;
    for (int i = 0; i < now.rank; i++) {
        int from = i;
        while (at[from] != order[i]) from++;
        if (from == i) continue;
        ek_shape four = {.rank = 4, .dim = {1, 1, now.dim[from], 1}};
        for (int k = 0; k < now.rank; k++) {
            if (k != from) four.dim[k < i ? 0 : k < from ? 1 : 3] *= now.dim[k];
        }
        EK_TRY(ek_onnx_reshape(im, x, four, &x));
        EK_TRY(add_permute(im, x, swap, &x));
        int64_t moved = now.dim[from];
        memmove(now.dim + i + 1, now.dim + i, (size_t)(from - i) * sizeof *now.dim);
        memmove(at + i + 1, at + i, (size_t)(from - i) * sizeof *at);
        now.dim[i] = moved;
        at[i] = order[i];
    }
    *out = x;
    return EK_OK;
}

ek_status ek_onnx_permute(onnx_import *im, onnx_layer x, const int *axis, onnx_layer *out)
{
    ek_shape shape = {.rank = x.shape.rank}, joined;
    int order[EK_MAX_RANK];
    for (int i = 0; i < shape.rank; i++) shape.dim[i] = x.shape.dim[axis[i]];
    int rank = join_neighbours(x.shape, axis, &joined, order);
    if (x.shape.rank > EK_MAX_VALUE_RANK || rank < 2) {
        EK_TRY(ek_onnx_reshape(im, x, joined, &x));
        if (rank > EK_MAX_VALUE_RANK)
            EK_TRY(permute_in_turns(im, x, order, &x));
        else if (rank > 1)
            EK_TRY(add_permute(im, x, order, &x));
    } else {
        EK_TRY(add_permute(im, x, axis, &x));
    }
    return ek_onnx_reshape(im, x, shape, out);
}

ek_status ek_onnx_as_map(onnx_import *im, onnx_layer x, onnx_layer *out)
{
    ek_shape s = x.shape;
    if (s.rank == 4) s = ek_onnx_shape3(s.dim[0], s.dim[1] * s.dim[2], s.dim[3]);
    return ek_onnx_reshape(im, x, s, out);
}

ek_status ek_onnx_fill(onnx_import *im, int layer, ek_role role, onnx_constant *from, const char *what)
{
    const ek_param *param = ek_node_param(ek_builder_node(&im->builder, layer), role);
    if (!param || param->count != from->count)
        return ek_fail(EK_E_FORMAT, "its %s has %lld numbers, and its shapes ask for %lld", what,
                       (long long)from->count, param ? (long long)param->count : 0LL);
    from->takers++;
    return ek_onnx_copy(im, from, param->data);
}

/* Zeros around a map: a convolution of each channel with a single 1. */
static ek_status settle_pads(onnx_import *im, onnx_value *value)
{
    const int64_t *p = value->pad;
    if (!(p[0] | p[1] | p[2] | p[3])) return EK_OK;
    onnx_layer out;
    long long channels = value->layer.shape.dim[0];
    if (value->layer.shape.rank == 3)
        EK_TRY(ek_onnx_add(im, NULL, NULL, "conv", value->layer.index, -1, &out,
                           "out=%lld kernel=1 groups=%lld bias=false padding=%lldx%lld padding_end=%lldx%lld",
                           channels, channels, (long long)p[0], (long long)p[1], (long long)p[2],
                           (long long)p[3]));
    else
        EK_TRY(ek_onnx_add(im, NULL, NULL, "conv1d", value->layer.index, -1, &out,
                           "out=%lld kernel=1 groups=%lld bias=false padding=%lld padding_end=%lld", channels,
                           channels, (long long)p[0], (long long)p[2]));
    float *weight = ek_builder_data(&im->builder, out.index, EK_ROLE_WEIGHT);
    for (long long i = 0; i < channels; i++) weight[i] = 1;
    value->layer = out;
    memset(value->pad, 0, sizeof value->pad);
    return ek_onnx_note(
        im, "zeros around a map that no convolution takes as padding are made by a convolution of ones");
}

ek_status ek_onnx_settle(onnx_import *im, onnx_value *value, bool pads)
{
    const onnx_affine *a = &value->affine;
    if (a->scale || a->shift) {
        onnx_layer out;
        int64_t count = ek_shape_count(a->shape);
        int index;
        EK_TRY(ek_builder_add(&im->builder, a->label, "affine", value->layer.index, -1, &index,
                              "shape=%s scale=%s shift=%s", a->shape.rank ? ONNX_SHAPE(a->shape) : "1",
                              a->scale ? "true" : "false", a->shift ? "true" : "false"));
        out = (onnx_layer){.index = index, .shape = value->layer.shape};
        float *scale = ek_builder_data(&im->builder, index, EK_ROLE_GAMMA);
        float *shift = ek_builder_data(&im->builder, index, EK_ROLE_BETA);
        for (int64_t i = 0; i < count; i++) {
            if (scale) scale[i] = (float)a->scale[i];
            if (shift) shift[i] = (float)a->shift[i];
        }
        value->layer = out;
        value->affine = (onnx_affine){0};
        EK_TRY(check_memory(im));
    }
    return pads ? settle_pads(im, value) : EK_OK;
}

ek_status ek_onnx_bias_ahead(onnx_import *im, const onnx_node *node, ek_shape out, int axis,
                             onnx_constant **bias)
{
    *bias = NULL;
    const onnx_value *value = output_of(im, node);
    if (!value || value->readers != 1 || value->reader < 0 || im->model->opset < 7) return EK_OK;
    const onnx_node *add = &im->model->node[value->reader];
    if (strcmp(add->op, "Add") != 0 || add->input_count != 2 || add->output_count != 1 || add->output[0] < 0)
        return EK_OK;
    int beside = add->input[add->input[0] == node->output[0]];
    if (beside < 0) return EK_OK;
    const onnx_value *other = &im->value[beside];
    if (other->kind != ONNX_CONSTANT || other->constant->count != out.dim[axis]) return EK_OK;
    const onnx_constant *c = other->constant;
    int from_end = out.rank - axis; /* where the dimension must stand in the constant, counted from its end */
    if (c->rank > out.rank + im->lead || c->rank < from_end || c->dim[c->rank - from_end] != c->count)
        return EK_OK;
    if (!ek_onnx_is_real(c->type)) return EK_OK;
    *bias = other->constant;
    im->done[value->reader] = true;
    return EK_OK;
}

/* --- one reading of the graph */

static ek_status give_output_of_reader(onnx_import *im, const onnx_node *node)
{
    const onnx_value *from = output_of(im, node);
    if (!from || from->readers != 1 || from->reader < 0 || !im->done[from->reader]) return EK_OK;
    ek_onnx_give(im, &im->model->node[from->reader], from->layer);
    return EK_OK;
}

/* Outputs beyond the first are for training; one that is read all the same was not made. */
static ek_status check_outputs(onnx_import *im, const onnx_node *node)
{
    for (int k = 1; k < node->output_count; k++) {
        if (node->output[k] < 0) continue;
        const onnx_value *value = &im->value[node->output[k]];
        if (value->readers == 0 || value->kind != ONNX_UNKNOWN) continue;
        ek_fail(EK_E_UNSUPPORTED, "its output '%s' is read, and only its first is made here",
                im->model->value[node->output[k]].name);
        EK_TRY(add_problem(im, node, EK_E_UNSUPPORTED));
    }
    return EK_OK;
}

static ek_status translate(onnx_import *im, const onnx_node *node)
{
    bool unknown = false, constant = node->input_count > 0;
    for (int k = 0; k < node->input_count; k++) {
        const onnx_value *value = ek_onnx_input(im, node, k);
        unknown |= value && value->kind == ONNX_UNKNOWN;
        constant &= !value || value->kind == ONNX_CONSTANT;
    }
    bool standard = !*node->domain || !strcmp(node->domain, "ai.onnx");
    onnx_translator translator = standard ? ek_onnx_operator(node->op) : NULL;
    bool folds = standard && ek_onnx_folds(node->op);
    ek_status status = EK_OK;
    if (!standard)
        status = ek_fail(EK_E_UNSUPPORTED, "operators of '%s' are not read", node->domain);
    else if (!translator && !folds)
        status = ek_fail(EK_E_UNSUPPORTED, "there is no such layer here");
    else if (unknown)
        return EK_OK; /* the reason is told elsewhere */
    else if (folds && (constant || !strcmp(node->op, "Constant")))
        status = ek_onnx_fold(im, node);
    else if (translator)
        status = translator(im, node);
    else
        status = ek_fail(EK_E_UNSUPPORTED, "it is computed only of constants, and reads what layers compute");
    if (status != EK_OK) return add_problem(im, node, status);
    EK_TRY(give_output_of_reader(im, node));
    return check_outputs(im, node);
}

static ek_status constant_of_tensor(onnx_import *im, const char *name, const onnx_tensor *tensor,
                                    onnx_value *value)
{
    EK_TRY(ek_onnx_tensor_check(im->model, tensor));
    onnx_constant *c;
    EK_TRY(ONNX_KEEP(&im->memory, c, 1));
    *c = (onnx_constant){
        .name = name, .type = tensor->type, .rank = tensor->rank, .count = tensor->count, .tensor = tensor};
    memcpy(c->dim, tensor->dim, sizeof c->dim);
    value->kind = ONNX_CONSTANT;
    value->constant = c;
    return EK_OK;
}

/* The shape of a sample, of the file's and the caller's. */
static ek_status input_shape(onnx_import *im, const onnx_port *port, const char *name, ek_shape *out)
{
    ek_shape given = im->options->input;
    if (port->rank < 0 && !given.rank)
        return ek_fail(EK_E_UNSUPPORTED, "the shape of its input '%s' is left open: give that of a sample",
                       name);
    int rank = port->rank < 0 ? given.rank + 1 : port->rank;
    if (given.rank && given.rank != rank - 1)
        return ek_fail(EK_E_SHAPE,
                       "its input '%s' has %d dimensions with the batch, and the shape given has %d without",
                       name, rank, given.rank);
    if (rank < im->lead)
        return ek_onnx_touches_batch(im, "its input '%s' is a single number without a batch", name);
    if (rank - im->lead > EK_MAX_VALUE_RANK)
        return ek_fail(EK_E_UNSUPPORTED, "its input '%s' has %d dimensions; at most %d are read", name, rank,
                       EK_MAX_VALUE_RANK + im->lead);
    im->batch = port->rank > 0 ? port->dim[0] : -1;
    *out = (ek_shape){.rank = rank - im->lead};
    ek_text open = {0};
    bool missing = false;
    for (int i = 0; i < rank; i++) {
        int64_t dim = port->rank > 0 ? port->dim[i] : -1;
        if (i > 0 && given.rank) {
            if (dim > 0 && dim != given.dim[i - 1]) {
                ek_text_free(&open);
                return ek_fail(EK_E_SHAPE, "dimension %d of its input '%s' is %lld, not %lld", i, name,
                               (long long)dim, (long long)given.dim[i - 1]);
            }
            dim = given.dim[i - 1];
        }
        if (i > 0) ek_text_add(&open, i > 1 ? "x" : "");
        if (i > 0 && dim > 0) ek_text_add(&open, "%lld", (long long)dim);
        if (i > 0 && dim < 0) ek_text_add(&open, "?");
        missing |= i > 0 && dim < 0;
        if (i >= im->lead) out->dim[i - im->lead] = dim < 0 ? 1 : dim;
    }
    ek_status status = open.failed ? ek_text_status(&open) : EK_OK;
    if (status == EK_OK && missing)
        status = ek_fail(
            EK_E_UNSUPPORTED,
            "its input '%s' leaves sizes open: a sample is %s. Give them: evenkeel convert %s --input SHAPE "
            "--out model.safetensors",
            name, open.data, im->model->path);
    ek_text_free(&open);
    return status;
}

static ek_status add_input(onnx_import *im, const onnx_port *port)
{
    const char *name = im->model->value[port->value].name;
    onnx_value *value = &im->value[port->value];
    if (port->type && !ek_onnx_is_real(port->type))
        return ek_fail(EK_E_UNSUPPORTED, "its input '%s' holds %s; nets read real numbers", name,
                       ek_onnx_type_name(port->type));
    if (port->type && port->type != ONNX_FLOAT)
        EK_TRY(ek_onnx_note(im, "its input '%s' is %s: everything is computed in 32-bit float here", name,
                            ek_onnx_type_name(port->type)));
    ek_shape shape;
    EK_TRY(input_shape(im, port, name, &shape));
    value->kind = ONNX_LAYER;
    value->layer.shape = shape;
    EK_TRY(ek_builder_add(&im->builder, NULL, "input", -1, -1, &value->layer.index, "shape=%s",
                          shape.rank ? ONNX_SHAPE(shape) : "1"));
    return EK_OK;
}

/* Inputs that the net's output depends on: one enters, others must be bound. */
static ek_status add_inputs(onnx_import *im, int bound_count, const ek_onnx_bound *bound,
                            const onnx_tensor *tensors)
{
    const onnx_port *entry = NULL;
    ek_text names = {0};
    int entries = 0;
    ek_status status = EK_OK;
    for (int i = 0; i < im->model->input_count && status == EK_OK; i++) {
        const onnx_port *port = &im->model->input[i];
        const char *name = im->model->value[port->value].name;
        const onnx_tensor *tensor = NULL;
        for (int k = 0; k < bound_count; k++) {
            if (!strcmp(bound[k].name, name)) tensor = &tensors[k];
        }
        if (tensor) {
            status = constant_of_tensor(im, name, tensor, &im->value[port->value]);
        } else if (im->value[port->value].readers) {
            ek_text_add(&names, "%s%s", entries++ ? ", " : "", name);
            entry = port;
        }
    }
    if (status == EK_OK) status = ek_text_status(&names);
    if (status == EK_OK && entries != 1)
        status = entries ? ek_fail(EK_E_UNSUPPORTED, "it has %d inputs (%.800s); a net has one", entries,
                                   names.data)
                         : ek_fail(EK_E_UNSUPPORTED, "what it gives does not depend on an input");
    ek_text_free(&names);
    return status == EK_OK ? add_input(im, entry) : status;
}

static ek_status count_readers(onnx_import *im, const int *order, int count, int output)
{
    for (int i = 0; i < count; i++) {
        const onnx_node *node = &im->model->node[order[i]];
        for (int k = 0; k < node->input_count; k++) {
            if (node->input[k] < 0) continue;
            onnx_value *value = &im->value[node->input[k]];
            value->readers++;
            value->reader = order[i];
        }
    }
    im->value[output].readers++;
    im->value[output].reader = -1;
    return EK_OK;
}

static ek_status add_initializers(onnx_import *im)
{
    for (int i = 0; i < im->model->value_count; i++) {
        const onnx_name *name = &im->model->value[i];
        if (name->initializer && im->value[i].readers)
            EK_TRY(constant_of_tensor(im, name->name, name->initializer, &im->value[i]));
    }
    return EK_OK;
}

/* EK_OK with im->problems where nodes cannot be read. */
static ek_status read_graph(onnx_import *im, int output, int bound_count, const ek_onnx_bound *bound,
                            const onnx_tensor *tensors)
{
    int *order, count;
    EK_TRY(ONNX_KEEP(&im->memory, im->value, (size_t)im->model->value_count));
    EK_TRY(ONNX_KEEP(&im->memory, im->done, (size_t)im->model->node_count));
    im->room = ((int64_t)1 << 24) + 2 * (int64_t)im->model->size;
    EK_TRY(find_order(im, output, &order, &count));
    EK_TRY(count_readers(im, order, count, output));
    EK_TRY(add_initializers(im));
    EK_TRY(add_inputs(im, bound_count, bound, tensors));
    /* Constants first, so that those who look ahead find them. */
    for (int i = 0; i < count; i++) {
        const onnx_node *node = &im->model->node[order[i]];
        if (strcmp(node->op, "Constant") != 0) continue;
        im->done[order[i]] = true;
        EK_TRY(translate(im, node));
    }
    for (int i = 0; i < count; i++) {
        if (!im->done[order[i]]) EK_TRY(translate(im, &im->model->node[order[i]]));
    }
    onnx_value *value = &im->value[output];
    if (im->problems) return EK_OK;
    if (value->kind != ONNX_LAYER)
        return ek_fail(EK_E_UNSUPPORTED, "its output '%s' does not depend on its input",
                       im->model->value[output].name);
    return ek_onnx_settle(im, value, true);
}

static void end_reading(onnx_import *im)
{
    ek_builder_free(&im->builder);
    ek_text_free(&im->in_training);
    ek_free(im->note);
    ek_free(im->list);
    ek_onnx_release(&im->memory);
}

/* --- the net */

/* The one that is asked for, else the file's only one. Any value that a node gives can be asked for. */
static ek_status find_output(const onnx_model *model, const ek_onnx_options *options, int *output)
{
    *output = -1;
    ek_text names = {0};
    for (int i = 0; i < model->output_count; i++) {
        int value = model->output[i].value;
        if (value < 0) continue;
        ek_text_add(&names, "%s%s", names.length ? ", " : "", model->value[value].name);
        if (options->output ? !strcmp(model->value[value].name, options->output) : model->output_count == 1)
            *output = value;
    }
    if (*output < 0 && options->output) {
        int value = ek_onnx_find_value(model, options->output);
        if (value >= 0 && model->value[value].producer >= 0) *output = value;
    }
    ek_status status = names.failed ? ek_text_status(&names) : EK_OK;
    if (status == EK_OK && *output < 0) {
        if (options->output)
            status = ek_fail(EK_E_NOT_FOUND, "it has no output '%s', and no node gives it; its outputs are %.800s",
                             options->output, names.data ? names.data : "none");
        else if (model->output_count)
            status = ek_fail(EK_E_UNSUPPORTED, "it has %d outputs (%.800s); a net has one: choose it",
                             model->output_count, names.data ? names.data : "");
        else
            status = ek_fail(EK_E_FORMAT, "it has no output");
    }
    ek_text_free(&names);
    return status;
}

static ek_status note_shared(onnx_import *im)
{
    for (int i = 0; i < im->model->value_count; i++) {
        const onnx_value *value = &im->value[i];
        if (value->kind == ONNX_CONSTANT && value->constant->takers > 1 && value->constant->count > 1)
            EK_TRY(ek_onnx_note(
                im,
                "'%s' is shared by %d layers in the file: each has a copy here, and training would part them",
                im->model->value[i].name, value->constant->takers));
    }
    return EK_OK;
}

/* One note on all that were exported in training mode, with the names of the first ones. */
static ek_status note_training(onnx_import *im)
{
    if (im->in_training.failed) return ek_text_status(&im->in_training);
    const char *names = im->in_training.data;
    if (!names) return EK_OK;
    if (im->options->bn_inference)
        return ek_onnx_note(im,
                            "BatchNormalization %s: exported in training mode; as asked for, the running "
                            "statistics are used at "
                            "inference",
                            names);
    return ek_onnx_note(
        im,
        "BatchNormalization %s: exported in training mode, so that the statistics of the batch are used at "
        "inference too (track=false). That is rarely meant; the usual cause is an exporter called without "
        "eval(). evenkeel convert --bn inference reads it with its running statistics",
        names);
}

/* Training needs logits, and whoever has the file has no line to leave out. */
static ek_status note_softmax(const onnx_model *model, int output, ek_net *net)
{
    int producer = model->value[output].producer;
    if (producer < 0 || ek_graph_logits(&net->graph) == net->graph.count - 1) return EK_OK;
    const onnx_node *last = &model->node[producer];
    if (strcmp(last->op, "Softmax") != 0 || last->input_count < 1 || last->input[0] < 0) return EK_OK;
    return ek_net_add_note(net,
                           "it ends in Softmax, and training takes what goes into that: for training, "
                           "evenkeel convert --output %s ends before it",
                           model->value[last->input[0]].name);
}

static ek_status make_net(onnx_import *im, int output, ek_net **out)
{
    EK_TRY(note_training(im));
    EK_TRY(note_shared(im));
    ek_net *net = NULL;
    ek_status status = EK_OK;
    EK_GO(ek_builder_finish(&im->builder, im->context, im->model->path, im->value[output].layer.index, &net));
    EK_GO(ek_net_add_note(net, "ONNX, opset %lld%s%s%s%s", (long long)im->model->opset,
                          *im->model->producer ? ", written by " : "", im->model->producer,
                          *im->model->producer_version ? " " : "", im->model->producer_version));
    for (int i = 0; i < im->note_count; i++) EK_GO(ek_net_add_note(net, "%s", im->note[i]));
    EK_GO(note_softmax(im->model, output, net));
    EK_GO(ek_net_take_classes(net, im->model->classes));
    *out = net;
    net = NULL;
done:
    ek_net_destroy(net);
    return status;
}

static ek_status open_model(ek_context *context, onnx_model *model, const ek_onnx_options *options,
                            int bound_count, const ek_onnx_bound *bound, ek_net **out)
{
    onnx_memory memory = {0};
    onnx_tensor *tensors;
    int output;
    onnx_import first = {.context = context, .model = model, .options = options, .lead = 1};
    onnx_import whole = first;
    whole.lead = 0;
    ek_status status = EK_OK;
    EK_GO(find_output(model, options, &output));
    EK_GO(ONNX_KEEP(&memory, tensors, (size_t)bound_count));
    for (int i = 0; i < bound_count; i++)
        EK_GO(ek_onnx_tensor_parse(&memory, ek_wire_begin(bound[i].data, bound[i].size), &tensors[i]));
    status = read_graph(&first, output, bound_count, bound, tensors);
    bool batch = first.batch_problems > 0 && first.batch_problems >= first.problems;
    if (status == EK_OK && first.problems == 0) {
        status = make_net(&first, output, out);
        goto done;
    }
    if (batch && (status == EK_OK || status == EK_E_UNSUPPORTED)) {
        char *why = ek_strdup(ek_error());
        ek_status again = why ? read_graph(&whole, output, bound_count, bound, tensors) : EK_E_MEMORY;
        if (again == EK_OK && whole.problems == 0) {
            again = ek_onnx_note(
                &whole,
                "a sample is the whole array, without a batch: in the file something happens along the "
                "first dimension (%s)",
                first.problems ? first.list[0].why : why);
            status = again == EK_OK ? make_net(&whole, output, out) : again;
            ek_free(why);
            goto done;
        }
        if (status != EK_OK && why) ek_fail(status, "%s", why);
        ek_free(why);
    }
    if (status == EK_OK) status = fail_problems(&first);
done:
    end_reading(&first);
    end_reading(&whole);
    ek_onnx_release(&memory);
    return status;
}

ek_onnx_options ek_onnx_options_default(void) { return (ek_onnx_options){0}; }

ek_status ek_onnx_open_bound(ek_context *context, const char *path, const ek_onnx_options *options, int count,
                             const ek_onnx_bound *bound, ek_net **out)
{
    ek_onnx_options plain = ek_onnx_options_default();
    onnx_model model;
    EK_TRY(ek_onnx_model_read(path, &model));
    ek_status status = open_model(context, &model, options ? options : &plain, count, bound, out);
    ek_onnx_model_free(&model);
    return status == EK_OK ? status : ek_fail_in(status, "%s: ", path);
}

ek_status ek_onnx_open_with(ek_context *context, const char *path, const ek_onnx_options *options,
                            ek_net **out)
{
    return ek_onnx_open_bound(context, path, options, 0, NULL, out);
}

/* ModelProto: ir_version (field 1, a small number), then a further field of it. */
bool ek_onnx_is_model(const unsigned char *bytes, size_t size)
{
    return size >= 4 && bytes[0] == 0x08 && bytes[1] >= 1 && bytes[1] <= 32 &&
           (bytes[2] == 0x12 || bytes[2] == 0x1a || bytes[2] == 0x22 || bytes[2] == 0x28 ||
            bytes[2] == 0x32 || bytes[2] == 0x3a || bytes[2] == 0x42 || bytes[2] == 0x72) &&
           !(size >= 8 && !bytes[4] && !bytes[5] && !bytes[6] && !bytes[7]);
}
