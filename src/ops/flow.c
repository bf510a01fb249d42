/* A node's flow, block by block. */
#include "ops/op.h"

ek_map_in ek_map_block(const ek_pass *pass, const ek_map_in *m, int64_t block, int64_t floats)
{
    ek_map_in of_block = *m;
    if (m->x) of_block.x += block * floats;
    of_block.live = ek_live(pass->n, block);
    return of_block;
}

ek_grad_in ek_grad_in_block(const ek_pass *pass, const ek_grad_in *d, int64_t block, int64_t floats)
{
    ek_grad_in of_block = *d;
    of_block.g += block * floats;
    if (d->x) of_block.x += block * floats;
    of_block.live = ek_live(pass->n, block);
    return of_block;
}

ek_grad_out ek_grad_out_block(const ek_pass *pass, const ek_grad_out *o, int64_t block, int64_t floats,
                              int64_t channels)
{
    ek_grad_out of_block = *o;
    if (o->g) of_block.g += block * floats;
    if (o->addend) of_block.addend += block * floats;
    if (o->y) of_block.y += block * floats;
    of_block.value = ek_map_block(pass, &o->value, block, floats);
    of_block.channels = (int)channels;
    if (o->sums) of_block.sums += block * 2 * channels;
    return of_block;
}

ek_map_in ek_map_channels(ek_map_in m, int64_t first, int64_t length)
{
    if (m.x) m.x += first * length;
    if (m.mean) m.mean += first, m.a += first, m.b += first;
    return m;
}

ek_grad_in ek_grad_in_channels(ek_grad_in d, int64_t first, int64_t length)
{
    d.g += first * length;
    if (d.x) d.x += first * length, d.mean += first, d.a += first, d.b += first, d.c += first;
    return d;
}

ek_grad_out ek_grad_out_channels(const ek_grad_out *o, int64_t first, int64_t length, int64_t channels)
{
    ek_grad_out part = *o;
    part.g += first * length;
    if (o->addend) part.addend += first * length;
    if (o->y) part.y += first * length;
    part.value = ek_map_channels(o->value, first, length);
    part.channels = (int)channels;
    if (o->sums) part.sums += first;
    return part;
}

unsigned ek_grad_out_asks(const ek_grad_out *o)
{
    return (o->sums ? EK_WRITES_SUMS : 0u) | (o->value.activation != EK_IDENTITY ? EK_WRITES_ACTIVATION : 0u) |
           (o->addend ? EK_WRITES_ADDEND : 0u);
}

void ek_block_moments(const ek_pass *pass, ek_shape shape, const int32_t *length, int64_t block, const float *x,
                      ek_moments *out)
{
    int64_t channels = shape.dim[0], each = ek_channel_floats(shape);
    int live = ek_live(pass->n, block);
    if (!length) {
        ek_slab slab = {channels, each, 1, ek_block_floats(shape), live};
        pass->kernels->moments(&slab, x, out);
        return;
    }
    for (int64_t c = 0; c < channels; c++) { /* each lane's, put together */
        ek_sample_slab slab = {.groups = 1, .channels = 1, .rows = each / EK_LANES, .live = live, .length = length};
        ek_sample_moments lanes;
        pass->kernels->sample_moments(&slab, x + c * each, &lanes);
        out[c] = (ek_moments){0};
        for (int i = 0; i < live; i++)
            ek_moments_merge(&out[c], (ek_moments){lanes.count[i], lanes.mean[i], lanes.m2[i]});
    }
}
