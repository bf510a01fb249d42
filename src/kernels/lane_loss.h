/* Softmax and cross-entropy over the rows of [n, classes]. */

static float row_max(int64_t classes, const float *x)
{
    vf max = splat(-INFINITY);
    for (int64_t j = 0; j < classes; j += VL) {
        int n = at_most_vl(classes - j);
        vf v = select(first_lanes(n), load_n(x + j, n), splat(-INFINITY));
        max = select(v > max, v, max);
    }
    return max_lanes(max);
}

TEMPLATE vf exp_of_row(const float *x, float max, int n) { return keep(first_lanes(n), exp_vector(load_n(x, n) - max)); }

/* sum(exp(x - max)); lanes are added in double, so that a sum just above 1 keeps what is above it */
static double row_exp_sum(int64_t classes, const float *x, float max)
{
    vf sum = {0};
    for (int64_t j = 0; j < classes; j += VL) sum += exp_of_row(x + j, max, at_most_vl(classes - j));
    return sum_lanes(sum);
}

/* y = exp(x - max) / sum * scale */
static void row_softmax(int64_t classes, const float *x, float max, double sum, float scale_by, float *y)
{
    float divisor = (float)sum;
    for (int64_t j = 0; j < classes; j += VL) {
        int n = at_most_vl(classes - j);
        store_n(y + j, exp_of_row(x + j, max, n) / divisor * scale_by, n);
    }
}

static void softmax(int64_t n, int64_t classes, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i++, x += classes, y += classes) {
        float max = row_max(classes, x);
        row_softmax(classes, x, max, row_exp_sum(classes, x, max), 1.0f, y);
    }
}

/* Whether the label is the first of the largest; a row with a NaN is never right. */
static bool is_correct(const float *x, float max, double sum, int32_t label)
{
    if (isnan(sum) || x[label] != max) return false;
    for (int32_t j = 0; j < label; j++)
        if (x[j] == max) return false;
    return true;
}

/* loss = log(sum(exp(x - max))) - (x[label] - max) */
static void cross_entropy(int64_t n, int64_t classes, const float *logits, const int32_t *labels, float scale_by, double *losses, int64_t *correct, float *dlogits)
{
    *correct = 0;
    for (int64_t i = 0; i < n; i++, logits += classes) {
        int32_t label = labels[i];
        float max = row_max(classes, logits);
        double sum = row_exp_sum(classes, logits, max);
        losses[i] = log(sum) - ((double)logits[label] - max);
        *correct += is_correct(logits, max, sum, label);
        if (!dlogits) continue;
        row_softmax(classes, logits, max, sum, scale_by, dlogits);
        dlogits[label] -= scale_by;
        dlogits += classes;
    }
}
