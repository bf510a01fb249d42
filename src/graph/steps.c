/*
 * The passes of a training or inference step in their order, forward and backward, what each reads and writes, and
 * how long every buffer lives.
 *
 * Moments: node i runs forward at i, the loss stands at `count`, node i runs backward at 2*count - i.
 *
 * Gradients. The readers of a value, last first, all write into one buffer: the first plainly, each further one adds
 * what is there (ek_grad_out.addend), and the last also multiplies with the derivative of the activation that was read
 * through or computed by the producer, and takes the sums for its batchnorm. So x -> batchnorm -> activation read by others
 * has one gradient buffer, that of the batchnorm's output; the producer of x reads it through the batchnorm's backward
 * formula where it can. An add writes nothing where its own gradient can stand for its input's: as the addend of those that
 * write later, or as the whole of it. Unfused, no activation and no batchnorm is read through: only the addends are left.
 */
#include "core/memory.h"
#include "graph/plan.h"

enum { NONE = -1 };

/* Of a value, while its readers are walked through from the last. */
typedef struct gradient {
    int left;           /* readers that have not written yet */
    ek_place place;     /* where it is kept; NONE: nowhere yet */
    ek_place addend;    /* what the next writer adds: `place` itself, or another's that was not copied */
    ek_writing *writer; /* how the last wrote it, which is writer_node, at `moment` */
    const ek_node *writer_node;
    int64_t writer_channels; /* of the value as the writer reads it */
    int moment;
    bool sums; /* the sums for its batchnorm are taken */
} gradient;

typedef struct builder {
    const ek_net *net;
    ek_graph *graph;
    ek_steps *s;
    int64_t samples;
    bool training, fused;
    ek_place *value;    /* ek_steps.value */
    gradient *gradient; /* by node: of its output */
} builder;

/* --- buffers */

/* Far beyond any memory: where sizes stop, so that no number of layers makes them wrap around. */
#define MOST_FLOATS ((size_t)1 << 44)

static ek_place new_buffer(builder *b, size_t floats, int moment)
{
    if (floats > MOST_FLOATS) floats = MOST_FLOATS;
    b->s->buffer[b->s->buffers] = (ek_buffer){.floats = ek_lane_rows(floats), .from = moment, .to = moment};
    return b->s->buffers++;
}

static ek_place use(builder *b, ek_place place, int moment)
{
    ek_buffer *buffer = &b->s->buffer[place];
    if (moment < buffer->from) buffer->from = moment;
    if (moment > buffer->to) buffer->to = moment;
    return place;
}

static ek_place new_value(builder *b, const ek_node *node, int moment)
{
    return new_buffer(b, (size_t)ek_value_floats(node->out, b->samples), moment);
}

static int backward_moment(const builder *b, const ek_node *node) { return 2 * b->graph->count - node->id; }

/* --- nodes */

/* One that takes part in fusion; other normalizations have passes of their own. */
static bool is_norm(const ek_node *node) { return ek_is_channel_norm(node); }

/* Whether a node has a pass: or, a batchnorm that is read through, its numbers to make ready. */
static bool has_step(const ek_node *node)
{
    return node->op->forward && (node->fusion == EK_ALONE || (node->fusion == EK_BY_READERS && is_norm(node)));
}

static ek_node *input_of(const builder *b, const ek_node *node, int slot)
{
    return &b->graph->node[ek_graph_root(b->graph, node->input[slot])];
}

/* The only reader; NULL: several, or the net's output. */
static ek_node *sole_reader(const builder *b, const ek_node *node)
{
    if (ek_graph_reader_count(b->graph, node->id) != 1) return NULL;
    return &b->graph->node[ek_graph_reader(b->graph, node->id, 0)];
}

/* The last of the nodes that `node` computes with its own (EK_BY_PRODUCER); itself when there are none. */
static ek_node *produced_by(const builder *b, ek_node *node)
{
    ek_node *reader = sole_reader(b, node);
    return reader && reader->fusion == EK_BY_PRODUCER ? produced_by(b, reader) : node;
}

/* The batchnorm that takes the moments of its input from `node`. */
static ek_node *norm_after(const builder *b, const ek_node *node)
{
    for (int k = 0; b->fused && k < ek_graph_reader_count(b->graph, node->id); k++) {
        ek_node *of = &b->graph->node[ek_graph_reader(b->graph, node->id, k)];
        if (!is_norm(of) || !ek_same_channels(node, of)) continue;
        if (of->fusion == EK_BY_PRODUCER || node->op->gives_moments) return of;
    }
    return NULL;
}

/* --- forward */

static ek_reading reading_of(builder *b, const ek_node *node, int moment)
{
    if (node->fusion != EK_BY_READERS) return (ek_reading){.x = use(b, b->value[node->id], moment)};
    ek_reading reading = reading_of(b, input_of(b, node, 0), moment);
    if (is_norm(node))
        reading.norm = (ek_node *)node;
    else
        ek_is_activation(node, &reading.f, &reading.slope);
    return reading;
}

/* The output of `node` and of those that it computes with it. */
static void forward_output(builder *b, ek_node *node, ek_step *step)
{
    int moment = node->id;
    ek_node *end = produced_by(b, node);
    step->norm = norm_after(b, node);
    step->y = b->value[node->id] = new_value(b, node, moment);
    if (b->net->keeps) use(b, step->y, b->graph->count);
    if (end == node) return;
    ek_is_activation(end, &step->f, &step->slope);
    /* An add's sum is not wanted itself; of a linear the backward pass wants both. */
    bool both = node->input_count == 1 && b->training;
    b->value[end->id] = both ? new_value(b, end, moment) : step->y;
    if (node->input_count == 1) step->v = b->value[end->id];
}

static ek_step *new_step(ek_step *steps, int *count, ek_node *node)
{
    ek_step *step = &steps[(*count)++];
    *step = (ek_step){.node = node, .y = NONE, .v = NONE, .dy = NONE, .dy_x = NONE};
    for (int k = 0; k < EK_MAX_INPUTS; k++) {
        step->x[k].x = step->dx[k].g = step->dx[k].addend = step->dx[k].y = step->dx[k].value.x = NONE;
        step->plain[k] = NONE;
    }
    return step;
}

static void forward_step(builder *b, ek_node *node)
{
    ek_step *step = new_step(b->s->forward, &b->s->forward_steps, node);
    for (int k = 0; k < node->input_count; k++) step->x[k] = reading_of(b, input_of(b, node, k), node->id);
    if (is_norm(node)) step->has_moments = norm_after(b, input_of(b, node, 0)) == node;
    if (node->fusion == EK_ALONE) forward_output(b, node, step);
}

/* What a normalization read is kept for the backward pass; where there is none, because nothing is trained, it is kept as
 * long, for ek_net_norm_input. */
static void keep_norm_input(builder *b, const ek_node *node)
{
    if (b->training && node->op->normalizes) use(b, b->value[input_of(b, node, 0)->id], b->graph->count);
}

static void forward_steps(builder *b)
{
    ek_graph *graph = b->graph;
    int loss = graph->count;
    b->s->input = b->value[0] = new_value(b, &graph->node[0], 0);
    for (int i = 1; i < graph->count; i++) {
        if (has_step(&graph->node[i])) forward_step(b, &graph->node[i]);
        keep_norm_input(b, &graph->node[i]);
    }
    if (b->training || b->net->keeps) use(b, b->value[0], loss); /* for ek_net_norm_moments, too */
    b->s->output = use(b, b->value[ek_graph_root(graph, graph->count - 1)], loss);
    b->s->logits = use(b, b->value[ek_graph_root(graph, ek_graph_logits(graph))], loss);
}

/* --- backward */

/* The node whose entry in b->gradient keeps the gradient of node's output: activations that were read through, or computed by their
 * producer, have been taken back when it is complete, and so has the batchnorm of a linear. */
static ek_node *owner_of(const builder *b, ek_node *node)
{
    bool norm = is_norm(node);
    bool passed_on = node->op->forward && (norm ? node->fusion == EK_BY_PRODUCER : node->fusion != EK_ALONE);
    return passed_on ? owner_of(b, input_of(b, node, 0)) : node;
}

/* The batchnorm through which `node` reads its dy: dx of its only reader. */
static ek_node *dy_norm_of(const builder *b, const ek_node *node)
{
    ek_node *reader = sole_reader(b, node);
    bool norm = reader && is_norm(reader) && reader->fusion != EK_BY_PRODUCER && ek_same_channels(node, reader);
    return b->fused && norm && node->fusion == EK_ALONE && node->op->reads_gradients ? reader : NULL;
}

/* `value` as the writers of its gradient see it; the last also takes back what was done to it. */
static void describe_value(builder *b, ek_node *value, int moment, bool last, ek_writing *o)
{
    ek_node *owner = owner_of(b, value);
    if (value->fusion == EK_BY_READERS)
        o->value = reading_of(b, value, moment);
    else
        o->value.x = use(b, b->value[owner->id], moment);
    if (!last) {
        o->value.f = EK_IDENTITY;
        return;
    }
    for (ek_node *node = value; value->fusion == EK_BY_PRODUCER && node != owner; node = input_of(b, node, 0)) {
        if (is_norm(node))
            o->value.norm = node;
        else
            ek_is_activation(node, &o->value.f, &o->value.slope);
        o->y = use(b, b->value[value->id], moment);
    }
    o->sums = o->value.norm;
}

/* Whether the gradient of the add `node` can stand for that of `value`, which nothing else reads: there is nothing
 * to do to it but to take a batchnorm's sums, and who wrote it takes them. */
static bool share_gradient(builder *b, ek_node *node, ek_node *value)
{
    const gradient *of_sum = &b->gradient[owner_of(b, node)->id];
    ek_writing wanted = {.y = NONE}, *writer = of_sum->writer;
    describe_value(b, value, backward_moment(b, node), true, &wanted);
    if (wanted.value.f != EK_IDENTITY || value->fusion == EK_BY_PRODUCER) return false;
    if (!wanted.sums) return true;
    /* The writer sees the same channels, and keeps the activation that it takes back: its own or the sum's, if that is
     * told by the output. */
    if (!writer || writer->value.norm || (writer->value.f != EK_IDENTITY && writer->y == NONE)) return false;
    ek_activation f;
    float slope;
    ek_is_activation(of_sum->writer_node, &f, &slope);
    if (!ek_told_by_output(f) || value->out.dim[0] != of_sum->writer_channels) return false;
    writer->value.x = use(b, wanted.value.x, of_sum->moment);
    writer->value.norm = wanted.value.norm;
    writer->sums = true;
    return true;
}

/* Whether an add needs no pass for an input, because others read its own gradient instead. */
static bool passes_on(builder *b, ek_node *node, ek_node *value, gradient *of)
{
    ek_place sum = b->gradient[owner_of(b, node)->id].place;
    if (!b->fused || node->op != ek_op_find("add") || ek_broadcasts(node) || of->addend != NONE) return false;
    if (of->left > 0) {
        of->addend = sum;
        return true;
    }
    if (!share_gradient(b, node, value)) return false;
    of->place = sum;
    of->sums = value->fusion == EK_BY_READERS && is_norm(value);
    return true;
}

static void write_input(builder *b, ek_node *node, int slot, ek_step *step)
{
    int moment = backward_moment(b, node);
    ek_node *value = input_of(b, node, slot), *owner = owner_of(b, value);
    gradient *of = &b->gradient[owner->id];
    if (!value->trained) return;
    of->left--;
    if (is_norm(node) && dy_norm_of(b, value) == node) return;
    if (passes_on(b, node, value, of)) return;
    ek_writing *o = &step->dx[slot];
    if (of->place == NONE) of->place = new_value(b, owner, moment);
    o->g = use(b, of->place, moment);
    if (of->addend != NONE) o->addend = use(b, of->addend, moment);
    describe_value(b, value, moment, of->left == 0, o);
    of->addend = of->place;
    of->writer = o;
    of->writer_node = node;
    of->writer_channels = node->in[slot].dim[0];
    of->moment = moment;
    of->sums = o->sums;
}

static void backward_step(builder *b, ek_node *node)
{
    int moment = backward_moment(b, node);
    const gradient *own = &b->gradient[owner_of(b, node)->id];
    ek_step *step = new_step(b->s->backward, &b->s->backward_steps, node);
    for (int k = 0; k < node->input_count; k++) step->x[k] = reading_of(b, input_of(b, node, k), moment);
    if (b->value[node->id] != NONE) step->y = use(b, b->value[node->id], moment);
    step->dy_norm = dy_norm_of(b, node);
    if (step->dy_norm) {
        step->dy = use(b, b->gradient[step->dy_norm->id].place, moment);
        step->dy_x = step->y;
    } else {
        step->dy = use(b, own->place, moment);
    }
    step->has_sums = is_norm(node) && own->sums;
    for (int k = 0; k < node->input_count; k++) write_input(b, node, k, step);
}

static unsigned asks(const ek_writing *o)
{
    return (o->sums ? EK_WRITES_SUMS : 0u) | (o->value.f != EK_IDENTITY ? EK_WRITES_ACTIVATION : 0u) |
           (o->addend != NONE ? EK_WRITES_ADDEND : 0u);
}

/* What a node cannot write is done after it. */
static void split_writing(builder *b, ek_step *step, int slot)
{
    const ek_writing *o = &step->dx[slot];
    unsigned writes = ek_broadcasts(step->node) ? 0 : step->node->op->writes;
    if (o->g == NONE || !(asks(o) & ~writes)) return;
    int moment = backward_moment(b, step->node);
    step->plain[slot] = o->addend == NONE ? o->g : new_value(b, input_of(b, step->node, slot), moment);
}

static void backward_steps(builder *b)
{
    ek_graph *graph = b->graph;
    ek_node *last = &graph->node[ek_graph_root(graph, graph->count - 1)];
    if (!last->trained) return;
    for (int i = 0; i < graph->count; i++) {
        b->gradient[i] = (gradient){.place = NONE, .addend = NONE};
    }
    for (int i = 0; i < graph->count; i++) {
        const ek_node *node = &graph->node[i];
        for (int k = 0; has_step(node) && k < node->input_count; k++)
            b->gradient[owner_of(b, input_of(b, node, k))->id].left++;
    }
    b->s->output_grad = b->gradient[last->id].place = new_value(b, last, graph->count);
    for (int i = graph->count - 1; i > 0; i--) {
        if (has_step(&graph->node[i]) && graph->node[i].trained) backward_step(b, &graph->node[i]);
    }
    for (int i = 0; i < b->s->backward_steps; i++) {
        ek_step *step = &b->s->backward[i];
        for (int k = 0; k < step->node->input_count; k++) {
            split_writing(b, step, k);
            const ek_node *norm = step->dx[k].value.norm;
            if (norm && norm->fusion == EK_BY_PRODUCER) step->norm_dx = step->dx[k].value.norm;
        }
    }
}

/* --- all of it */

static void rooms(builder *b)
{
    int end = 2 * b->graph->count;
    size_t scratch = 0;
    for (int i = 0; i < b->graph->count; i++) {
        const ek_node *node = &b->graph->node[i];
        size_t floats = node->op->workspace ? node->op->workspace(node, b->samples, b->training) : 0;
        b->s->workspace[i] = floats ? use(b, new_buffer(b, floats, 0), end) : NONE;
        size_t wanted = node->op->scratch ? node->op->scratch(node, b->samples) : 0;
        if (wanted > scratch) scratch = wanted;
    }
    b->s->scratch_each = ek_lane_rows(scratch > MOST_FLOATS ? MOST_FLOATS : scratch);
    size_t threads = (size_t)ek_pool_threads(b->net->context->pool);
    b->s->scratch = use(b, new_buffer(b, b->s->scratch_each * threads, 0), end);
}

ek_status ek_steps_create(const ek_net *net, int64_t samples, bool training, ek_steps *out)
{
    size_t nodes = (size_t)net->graph.count;
    builder b = {.net = net,
                 .graph = (ek_graph *)&net->graph,
                 .s = out,
                 .samples = samples,
                 .training = training,
                 .fused = !net->context->unfused && !net->lengths && !net->keeps};
    ek_status status = EK_OK;
    *out = (ek_steps){.output_grad = NONE};
    EK_GO(EK_NEW(out->forward, nodes));
    EK_GO(EK_NEW(out->backward, nodes));
    EK_GO(EK_NEW(out->workspace, nodes));
    /* Of each node a value, what else it computes, a gradient, two spares and a workspace. */
    EK_GO(EK_NEW(out->buffer, nodes * 6 + 1));
    EK_GO(EK_NEW(out->value, nodes));
    b.value = out->value;
    EK_GO(EK_NEW(b.gradient, nodes));
    for (size_t i = 0; i < nodes; i++) b.value[i] = NONE;
    forward_steps(&b);
    if (training) backward_steps(&b);
    rooms(&b);
    EK_GO(ek_arena_lay_out(out->buffer, out->buffers, &out->floats));
done:
    ek_free(b.gradient);
    if (status != EK_OK) ek_steps_free(out);
    return status;
}

void ek_steps_free(ek_steps *steps)
{
    ek_free(steps->buffer);
    ek_free(steps->workspace);
    ek_free(steps->value);
    ek_free(steps->backward);
    ek_free(steps->forward);
    *steps = (ek_steps){0};
}
