/* One optimizer step over a tensor, by PyTorch's formulas. */
#include <float.h>

/* g = grad*grad_scale + weight_decay*w; buf = first ? g : momentum*buf + g
 * w -= lr*(nesterov ? g + momentum*buf : buf); without momentum w -= lr*g and buf may be NULL */
static void sgd(const ek_sgd_step *step, int64_t count, float *w, const float *grad, float *momentum)
{
    for (int64_t i = 0; i < count; i += VL) {
        int n = at_most_vl(count - i);
        vf weight = load_n(w + i, n);
        vf g = load_n(grad + i, n) * step->grad_scale + weight * step->weight_decay;
        if (step->momentum != 0) {
            vf buffer = step->first ? g : load_n(momentum + i, n) * step->momentum + g;
            store_n(momentum + i, buffer, n);
            g = step->nesterov ? buffer * step->momentum + g : buffer;
        }
        store_n(w + i, weight - g * step->lr, n);
    }
}

/* g = grad*grad_scale; decoupled: w *= 1 - lr*weight_decay, else g += weight_decay*w
 * m = beta1*m + (1 - beta1)*g; v = beta2*v + (1 - beta2)*g^2
 * w -= lr/correction1 * m / (sqrt(v)/correction2_sqrt + eps)
 * The last with correction2_sqrt in rate and eps, which saves a division. */
static void adam(const ek_adam_step *step, int64_t count, float *w, const float *grad, float *exp_avg, float *exp_avg_sq)
{
    const float beta1 = (float)step->beta1, rest1 = (float)(1 - step->beta1);
    const float beta2 = (float)step->beta2, rest2 = (float)(1 - step->beta2);
    const float rate = (float)(step->lr / step->correction1 * step->correction2_sqrt);
    const float eps = (float)fmax(step->eps * step->correction2_sqrt, FLT_MIN); /* not 0, for 0/eps */
    const float grad_scale = (float)step->grad_scale, decay = (float)step->weight_decay;
    const float shrink = (float)(1 - step->lr * step->weight_decay);
    for (int64_t i = 0; i < count; i += VL) {
        int n = at_most_vl(count - i);
        vf weight = load_n(w + i, n), g = load_n(grad + i, n) * grad_scale;
        if (step->decoupled) weight *= shrink;
        else g += weight * decay;
        vf m = load_n(exp_avg + i, n) * beta1 + g * rest1;
        vf v = load_n(exp_avg_sq + i, n) * beta2 + g * g * rest2;
        store_n(exp_avg + i, m, n);
        store_n(exp_avg_sq + i, v, n);
        store_n(w + i, weight - m * rate / (square_root(v) + eps), n);
    }
}
