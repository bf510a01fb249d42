/* Softmax and cross-entropy of one lane block of logits [classes]. */

/* A sample's largest logit; a NaN is passed over. */
TEMPLATE vf largest_logit(int64_t classes, const float *x)
{
    vf max = splat(-INFINITY);
    for (int64_t i = 0; i < classes; i++) {
        vf v = load(x + i * EK_LANES);
        max = select(v > max, v, max);
    }
    return max;
}

/* sum(exp(x - max)), added in double, so that a sum just above 1 keeps what is above it. */
TEMPLATE void exp_sum(int64_t classes, const float *x, vf max, vd *sum)
{
    *sum = (vd){0};
    for (int64_t i = 0; i < classes; i++) *sum += __builtin_convertvector(exp_vector(load(x + i * EK_LANES) - max), vd);
}

/* y = exp(x - max)/sum*scale in live lanes, 0 in dead ones */
TEMPLATE void softmax_part(int64_t classes, const float *x, vf max, const vd *sum, float scale, vi mask, float *y)
{
    vf divisor = __builtin_convertvector(*sum, vf);
    for (int64_t i = 0; i < classes; i++) {
        vf p = exp_vector(load(x + i * EK_LANES) - max) / divisor;
        store(y + i * EK_LANES, keep(mask, p * scale));
    }
}

static void softmax(int live, int64_t classes, const float *x, float *y)
{
    lane_mask mask = mask_of(live);
    for (int p = 0; p < PARTS; p++, x += VL, y += VL) {
        vf max = largest_logit(classes, x);
        vd sum;
        exp_sum(classes, x, max, &sum);
        softmax_part(classes, x, max, &sum, 1.0f, mask.part[p], y);
    }
}

static void softmax_backward(int64_t classes, const float *y, const float *dy, float *dx)
{
    for (int p = 0; p < PARTS; p++, y += VL, dy += VL, dx += VL) {
        vd dot = {0};
        for (int64_t i = 0; i < classes; i++)
            dot += __builtin_convertvector(load(dy + i * EK_LANES), vd) * __builtin_convertvector(load(y + i * EK_LANES), vd);
        vf all = __builtin_convertvector(dot, vf);
        for (int64_t i = 0; i < classes; i++)
            store(dx + i * EK_LANES, load(y + i * EK_LANES) * (load(dy + i * EK_LANES) - all));
    }
}

/* Whether the label is the first of the largest; a sample with a NaN is never right. x points to its lane. */
static bool is_correct(const float *x, float max, double sum, int32_t label)
{
    if (isnan(sum) || x[label * EK_LANES] != max) return false;
    for (int32_t j = 0; j < label; j++)
        if (x[j * EK_LANES] == max) return false;
    return true;
}

/* loss = log(sum(exp(x - max))) - (x[label] - max) */
static void cross_entropy(int live, int64_t classes, const float *logits, const int32_t *labels, float scale, double *losses, int64_t *correct, float *dlogits)
{
    *correct = 0;
    lane_mask mask = mask_of(live);
    for (int p = 0; p < PARTS; p++) {
        const float *x = logits + p * VL;
        vf max = largest_logit(classes, x);
        vd sum;
        exp_sum(classes, x, max, &sum);
        if (dlogits) softmax_part(classes, x, max, &sum, scale, mask.part[p], dlogits + p * VL);
        for (int i = 0, s = p * VL; i < VL && s < live; i++, s++) {
            int32_t label = labels[s];
            losses[s] = log(sum[i]) - ((double)x[label * EK_LANES + i] - max[i]);
            *correct += is_correct(x + i, max[i], sum[i], label);
            if (dlogits) dlogits[label * EK_LANES + s] -= scale;
        }
    }
}
