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
    of_block.g += block * floats;
    if (o->addend) of_block.addend += block * floats;
    if (o->y) of_block.y += block * floats;
    of_block.value = ek_map_block(pass, &o->value, block, floats);
    of_block.channels = (int)channels;
    if (o->sums) of_block.sums += block * 2 * channels;
    return of_block;
}

bool ek_grad_out_plain(const ek_grad_out *o)
{
    return !o->addend && !o->sums && o->value.activation == EK_IDENTITY;
}
