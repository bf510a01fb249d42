#include "layer_work.h"

#include "output.h"

#include <stdlib.h>
#include <string.h>

typedef struct counting {
    const ek_net *net;
    int64_t batch;
    int layers;
    int *group;   /* by layer, of the present direction: who leads the pass that it belongs to */
    int *read_by; /* by layer: the last pass that was seen to read its value */
    bool *leaves; /* by layer: another pass than the layer's own reads its value, or it is the net's output */
    bool *trained; /* by layer: something trained lies at or above it */
} counting;

static double value_bytes(const counting *c, int layer)
{
    return (double)cli_numbers(ek_net_layer(c->net, layer).output) * (double)c->batch * sizeof(float);
}

/* Bytes of the value of `layer` for the pass that `reader` belongs to, unless they were counted, or arise in it. */
static double read_once(counting *c, int layer, int reader)
{
    int pass = c->group[reader];
    if (c->group[layer] == pass || c->read_by[layer] == pass) return 0;
    c->read_by[layer] = pass;
    return value_bytes(c, layer);
}

static void begin_direction(counting *c)
{
    for (int i = 0; i < c->layers; i++) {
        c->read_by[i] = -1;
        c->leaves[i] = i == c->layers - 1;
        ek_layer_info layer = ek_net_layer(c->net, i);
        for (int k = 0; k < 2 && layer.inputs[k] >= 0; k++)
            c->leaves[layer.inputs[k]] |= c->group[layer.inputs[k]] != c->group[i];
    }
}

static void count_forward(counting *c, layer_work *work)
{
    begin_direction(c);
    for (int i = 0; i < c->layers; i++) {
        ek_layer_info layer = ek_net_layer(c->net, i);
        layer_work *pass = &work[c->group[i]];
        pass->flops += 2.0 * (double)layer.multiply_adds * (double)c->batch;
        pass->bytes += (double)layer.parameters * sizeof(float);
        for (int k = 0; k < 2 && layer.inputs[k] >= 0; k++) pass->bytes += read_once(c, layer.inputs[k], i);
        if (c->leaves[i]) pass->bytes += value_bytes(c, i);
    }
}

/* Whether the backward formula needs the layer's inputs (or its output, which is as large). */
static bool keeps_value(const char *op)
{
    static const char *const linear[] = {"add",     "sub",     "concat",  "avgpool", "globalavgpool",
                                         "flatten", "reshape", "permute", "dropout", NULL};
    for (int i = 0; linear[i]; i++) {
        if (strcmp(op, linear[i]) == 0) return false;
    }
    return true;
}

static void count_backward(counting *c, layer_work *work)
{
    begin_direction(c);
    for (int i = 1; i < c->layers; i++) {
        if (!c->trained[i]) continue;
        ek_layer_info layer = ek_net_layer(c->net, i);
        layer_work *pass = &work[c->group[i]];
        double each = 2.0 * (double)layer.multiply_adds * (double)c->batch;
        if (layer.parameters > 0) pass->flops += each;
        pass->bytes += 2.0 * (double)layer.parameters * sizeof(float);
        if (c->leaves[i]) pass->bytes += value_bytes(c, i); /* its gradient comes in */
        for (int k = 0; keeps_value(layer.op) && k < 2 && layer.inputs[k] >= 0; k++)
            pass->bytes += read_once(c, layer.inputs[k], i);
        for (int k = 0; k < 2 && layer.inputs[k] >= 0; k++) {
            int from = layer.inputs[k];
            if (!c->trained[from]) continue;
            pass->flops += each;
            if (c->group[from] != c->group[i]) pass->bytes += value_bytes(c, from);
        }
    }
}

static void mark_trained(counting *c)
{
    for (int i = 0; i < c->layers; i++) {
        ek_layer_info layer = ek_net_layer(c->net, i);
        c->trained[i] = layer.parameters > 0;
        for (int k = 0; k < 2 && layer.inputs[k] >= 0; k++) c->trained[i] |= c->trained[layer.inputs[k]];
    }
}

bool layer_work_count(const ek_net *net, int64_t batch, const ek_layer_time *times, layer_work *forward,
                      layer_work *backward)
{
    counting c = {.net = net, .batch = batch, .layers = ek_net_layer_count(net)};
    size_t layers = (size_t)c.layers;
    c.group = calloc(layers, sizeof *c.group);
    c.read_by = calloc(layers, sizeof *c.read_by);
    c.leaves = calloc(layers, sizeof *c.leaves);
    c.trained = calloc(layers, sizeof *c.trained);
    bool fine = c.group && c.read_by && c.leaves && c.trained;
    if (fine) {
        memset(forward, 0, layers * sizeof *forward);
        memset(backward, 0, layers * sizeof *backward);
        mark_trained(&c);
        for (int i = 0; i < c.layers; i++) c.group[i] = times[i].forward_in;
        count_forward(&c, forward);
        for (int i = 0; i < c.layers; i++) c.group[i] = times[i].backward_in;
        count_backward(&c, backward);
    }
    free(c.trained);
    free(c.leaves);
    free(c.read_by);
    free(c.group);
    return fine;
}
