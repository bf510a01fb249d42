#include "train/schedule.h"

#include <math.h>

ek_status ek_schedule_check(const ek_train_options *o)
{
    if (o->schedule != EK_SCHEDULE_CONSTANT && o->schedule != EK_SCHEDULE_STEP &&
        o->schedule != EK_SCHEDULE_COSINE)
        return ek_fail(EK_E_ARGUMENT, "there is no learning-rate schedule number %d", (int)o->schedule);
    if (!(o->warmup_epochs >= 0) || !isfinite(o->warmup_epochs))
        return ek_fail(EK_E_ARGUMENT, "warm-up must take 0 or more epochs, not %g", o->warmup_epochs);
    if (o->schedule != EK_SCHEDULE_STEP) return EK_OK;
    if (o->step_epochs < 1)
        return ek_fail(EK_E_ARGUMENT, "the learning rate must step every 1 or more epochs, not %lld",
                       (long long)o->step_epochs);
    if (!(o->decay > 0 && o->decay <= 1))
        return ek_fail(EK_E_ARGUMENT, "each step must multiply the learning rate by above 0 to 1, not by %g",
                       o->decay);
    return EK_OK;
}

/* Warm-up multiplies the schedule's rate by (step + 1)/warm, so that its first step already learns and its
 * last has the full rate. The cosine begins where warm-up ends (Loshchilov and Hutter 2017, arXiv:1608.03983,
 * without restarts):
 *
 *   lr/2 * (1 + cos(pi * (step - warm)/(steps - warm)))
 */
double ek_schedule_lr(const ek_train_options *o, int64_t step, int64_t steps_per_epoch)
{
    double lr = o->optimizer.lr, now = (double)step;
    double warm = o->warmup_epochs * (double)steps_per_epoch,
           steps = (double)o->epochs * (double)steps_per_epoch;
    if (o->schedule == EK_SCHEDULE_STEP)
        lr *= pow(o->decay, (double)(step / steps_per_epoch / o->step_epochs));
    if (o->schedule == EK_SCHEDULE_COSINE && now > warm)
        lr *= 0.5 * (1 + cos(M_PI * (now - warm) / (steps - warm)));
    return now + 1 < warm ? lr * (now + 1) / warm : lr;
}
