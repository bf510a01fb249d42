#include "ops/walk.h"

enum { LAST = EK_MAX_VALUE_RANK - 1 };

ek_strides ek_strides_of(ek_shape shape, ek_shape as)
{
    ek_strides strides = {{0}};
    int64_t step = 1;
    for (int d = shape.rank - 1; d >= 0; d--) {
        strides.step[d] = shape.dim[d] == as.dim[d] ? step : 0;
        step *= shape.dim[d];
    }
    return strides;
}

ek_walk ek_walk_begin(ek_shape shape, ek_strides first, ek_strides second)
{
    ek_walk w = {.run = 1};
    int outer = LAST;
    for (int d = 0; d <= LAST; d++) w.dim[d] = 1;
    for (int d = shape.rank - 1; d >= 0; d--) {
        if (shape.dim[d] == 1) continue;
        int64_t size = w.dim[outer];
        bool follows = first.step[d] == w.other[0].step[outer] * size && second.step[d] == w.other[1].step[outer] * size;
        if (size > 1 && follows) {
            w.dim[outer] *= shape.dim[d];
            continue;
        }
        if (size > 1) outer--;
        w.dim[outer] = shape.dim[d];
        w.other[0].step[outer] = first.step[d];
        w.other[1].step[outer] = second.step[d];
    }
    w.run = w.dim[LAST];
    w.step[0] = w.other[0].step[LAST];
    w.step[1] = w.other[1].step[LAST];
    return w;
}

bool ek_walk_next(ek_walk *w)
{
    w->here += w->run;
    for (int d = LAST - 1; d >= 0; d--) {
        bool carry = ++w->at[d] == w->dim[d];
        if (carry) w->at[d] = 0;
        int64_t steps = carry ? 1 - w->dim[d] : 1;
        for (int k = 0; k < 2; k++) w->there[k] += steps * w->other[k].step[d];
        if (!carry) return true;
    }
    return false;
}
