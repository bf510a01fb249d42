/* Elementwise functions. */

TEMPLATE vf activate(const ek_activation kind, float slope, vf x)
{
    switch (kind) {
    case EK_IDENTITY: return x;
    case EK_RELU: return select(x <= 0.0f, splat(0.0f), x); /* a NaN stays */
    case EK_LEAKY_RELU: return select(x > 0.0f, x, x * slope);
    case EK_SIGMOID: return sigmoid_vector(x);
    case EK_TANH: return tanh_vector(x);
    case EK_SILU: return MAXIMUM(splat(-88.0f), x) * sigmoid_vector(x); /* 0, near enough, below */
    }
    return x;
}

/* dx from dy and whichever of x and y the formula wants. */
TEMPLATE vf activate_backward(const ek_activation kind, float slope, vf x, vf y, vf dy)
{
    switch (kind) {
    case EK_IDENTITY: return dy;
    case EK_RELU: return select(y <= 0.0f, splat(0.0f), dy);
    case EK_LEAKY_RELU: return select(x > 0.0f, dy, dy * slope);
    case EK_SIGMOID: return dy * (y * (1.0f - y));
    case EK_TANH: return dy * (1.0f - y * y);
    case EK_SILU: {
        vf s = sigmoid_vector(x);
        return dy * (s * (1.0f + x * (1.0f - s)));
    }
    }
    return dy;
}

static void add(int64_t count, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < count; i += VL) {
        int n = at_most_vl(count - i);
        store_n(y + i, load_n(a + i, n) + load_n(b + i, n), n);
    }
}
