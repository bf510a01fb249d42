/* Linear layers on lanes: values [block][feature][lane], weights [out][in] as in PyTorch. Features times blocks
 * stand in registers, weights are broadcast from where they lie; only the input gradient of many blocks lays some of
 * them side by side first. An output is one chain of sums whatever tile it falls into. */

/* The register tile: features x blocks, in the weight gradient outputs x vectors of inputs. Eight rows of weights
 * fit the eight ways of a first-level cache even where all fall into one set, a multiple of 4 KB apart. */
#if VL == 16
#define LINEAR_T 8
#define LINEAR_B 3
#define LINEAR_V 3
#elif VL == 8
#define LINEAR_T 6
#define LINEAR_B 1
#define LINEAR_V 2
#else
#define LINEAR_T 2
#define LINEAR_B 1
#define LINEAR_V 4
#endif

enum {
    /* Terms that are summed in a register; longer sums are sums of such parts. It rounds less, and the part of x that
     * all features read stays in the second-level cache. */
    LINEAR_DEPTH = 320,
    LINEAR_SAMPLES = 256, /* the same for the sums over samples: whole blocks */
    LINEAR_PANEL = 4 * LINEAR_T,
    LINEAR_MANY = 8 * LINEAR_B, /* blocks that pay for a panel */
};

/* The next part of `left`, in as few parts of at most `most` as will do, all about as large: 10 is 5 and 5. */
static int64_t linear_part(int64_t left, int64_t most)
{
    int64_t parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

static int64_t linear_least(int64_t a, int64_t b) { return a < b ? a : b; }

/* --- forward and input gradient: y[b][t] = sum over k of w[t, k] * x[b][k] */

typedef struct linear_sums {
    int64_t terms;
    int64_t w_step;           /* floats from row to row of the weights */
    int64_t x_block, y_block; /* floats from block to block */
    bool more;                /* y holds the sum of the parts before */
} linear_sums;

/* A row of the weights belongs to a feature t in the forward pass, to a term k in the input gradient. */
TEMPLATE void linear_tile(const int T, const int B, const bool forward, const linear_sums *g, const float *x, const float *w, const float *bias, float *y)
{
    const int64_t w_t = forward ? g->w_step : 1, w_k = forward ? 1 : g->w_step;
    vf sum[LINEAR_T][LINEAR_B * PARTS];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < B * PARTS; p++) sum[t][p] = splat(0.0f);
    for (int64_t k = 0; k < g->terms; k++, x += EK_LANES, w += w_k) {
        vf v[LINEAR_B * PARTS];
        UNROLL for (int p = 0; p < B * PARTS; p++) v[p] = load(x + p / PARTS * g->x_block + p % PARTS * VL);
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int p = 0; p < B * PARTS; p++) sum[t][p] += v[p] * w[t * w_t];
    }
    float *to[LINEAR_B * PARTS];
    UNROLL for (int p = 0; p < B * PARTS; p++) to[p] = y + p / PARTS * g->y_block + p % PARTS * VL;
    if (g->more)
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int p = 0; p < B * PARTS; p++) sum[t][p] += load(to[p] + t * EK_LANES);
    else if (bias)
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int p = 0; p < B * PARTS; p++) sum[t][p] += bias[t];
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int p = 0; p < B * PARTS; p++) store(to[p] + t * EK_LANES, sum[t][p]);
}

TEMPLATE void linear_blocks(const int T, const bool forward, int64_t blocks, const linear_sums *g, const float *x, const float *w, const float *bias, float *y)
{
    for (int64_t B; blocks > 0; blocks -= B, x += B * g->x_block, y += B * g->y_block) {
        B = linear_part(blocks, LINEAR_B);
        switch (B) {
#if LINEAR_B > 1
        case 3: linear_tile(T, 3, forward, g, x, w, bias, y); break;
        case 2: linear_tile(T, 2, forward, g, x, w, bias, y); break;
#endif
        default: linear_tile(T, 1, forward, g, x, w, bias, y); break;
        }
    }
}

TEMPLATE void linear_features(int64_t T, const bool forward, int64_t blocks, const linear_sums *g, const float *x, const float *w, const float *bias, float *y)
{
    switch (T) {
#if LINEAR_T > 6
    case 8: linear_blocks(8, forward, blocks, g, x, w, bias, y); break;
    case 7: linear_blocks(7, forward, blocks, g, x, w, bias, y); break;
#endif
#if LINEAR_T > 2
    case 6: linear_blocks(6, forward, blocks, g, x, w, bias, y); break;
    case 5: linear_blocks(5, forward, blocks, g, x, w, bias, y); break;
    case 4: linear_blocks(4, forward, blocks, g, x, w, bias, y); break;
    case 3: linear_blocks(3, forward, blocks, g, x, w, bias, y); break;
#endif
    case 2: linear_blocks(2, forward, blocks, g, x, w, bias, y); break;
    default: linear_blocks(1, forward, blocks, g, x, w, bias, y); break;
    }
}

static void linear_forward(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *x, const float *w, const float *bias, float *y)
{
    int64_t depth = linear_part(g->in, LINEAR_DEPTH);
    for (int64_t k = 0; k < g->in; k += depth) {
        const linear_sums sums = {
            .terms = linear_least(depth, g->in - k),
            .w_step = g->in,
            .x_block = g->in * EK_LANES,
            .y_block = g->out * EK_LANES,
            .more = k > 0,
        };
        for (int64_t o = first, T; o < first + count; o += T) {
            T = linear_part(first + count - o, LINEAR_T);
            linear_features(T, true, blocks, &sums, x + k * EK_LANES, w + o * g->in + k, bias ? bias + o : NULL, y + o * EK_LANES);
        }
    }
}

/* Inputs [first, first + count) from outputs [k, k + g->terms). Where many blocks use these weights they are first
 * laid side by side: their rows, whole pages apart in a wide layer, fall into the same sets of a cache. */
static void linear_some_inputs(int64_t blocks, linear_sums g, int64_t count, const float *dy, const float *w, float *dx)
{
    float panel[LINEAR_DEPTH * LINEAR_PANEL];
    if (blocks >= LINEAR_MANY) {
        for (int64_t k = 0; k < g.terms; k++) memcpy(panel + k * count, w + k * g.w_step, (size_t)count * sizeof *w);
        w = panel;
        g.w_step = count;
    }
    for (int64_t i = 0, T; i < count; i += T) {
        T = linear_part(count - i, LINEAR_T);
        linear_features(T, false, blocks, &g, dy, w + i, NULL, dx + i * EK_LANES);
    }
}

static void linear_backward_data(const ek_linear *g, int64_t blocks, int64_t first, int64_t count, const float *dy, const float *w, float *dx)
{
    int64_t depth = linear_part(g->out, LINEAR_DEPTH);
    for (int64_t k = 0; k < g->out; k += depth) {
        const linear_sums sums = {
            .terms = linear_least(depth, g->out - k),
            .w_step = g->in,
            .x_block = g->out * EK_LANES,
            .y_block = g->in * EK_LANES,
            .more = k > 0,
        };
        for (int64_t i = first, n; i < first + count; i += n) {
            n = linear_least(LINEAR_PANEL, first + count - i);
            linear_some_inputs(blocks, sums, n, dy + k * EK_LANES, w + k * g->in + i, dx + i * EK_LANES);
        }
    }
}

/* --- weight gradient: outputs times vectors of inputs stand in registers while the samples pass */

typedef struct linear_samples {
    int64_t count;
    int64_t x_row, dy_block, dw_row; /* floats from row to row, block to block */
    int64_t last; /* where the last vector begins: at the end of a row it overlaps the one before */
} linear_samples;

/* sum[t][j] = sum of dy[t] * x[at[j]...] over the part that begins with sample `first` */
TEMPLATE void linear_weight_sums(const int T, const int V, const linear_samples *g, int64_t first, const int64_t *at, const float *x, const float *dy, vf sum[][LINEAR_V])
{
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int j = 0; j < V; j++) sum[t][j] = splat(0.0f);
    x += first * g->x_row;
    dy += first / EK_LANES * g->dy_block;
    for (int64_t left = linear_least(LINEAR_SAMPLES, g->count - first); left > 0; left -= EK_LANES, dy += g->dy_block)
        for (int lane = 0, live = ek_live(left, 0); lane < live; lane++, x += g->x_row) {
            vf v[LINEAR_V];
            UNROLL for (int j = 0; j < V; j++) v[j] = load(x + at[j]);
            UNROLL for (int t = 0; t < T; t++)
                UNROLL for (int j = 0; j < V; j++) sum[t][j] += v[j] * dy[t * EK_LANES + lane];
        }
}

TEMPLATE void linear_weight_tile(const int T, const int V, const linear_samples *g, const float *x, const float *dy, float *dw)
{
    float total[LINEAR_T][LINEAR_V][VL]; /* of the parts before */
    vf sum[LINEAR_T][LINEAR_V];
    int64_t at[LINEAR_V]; /* where the vectors begin */
    UNROLL for (int j = 0; j < V - 1; j++) at[j] = j * VL;
    at[V - 1] = g->last;
    linear_weight_sums(T, V, g, 0, at, x, dy, sum);
    for (int64_t s = LINEAR_SAMPLES; s < g->count; s += LINEAR_SAMPLES) {
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int j = 0; j < V; j++) store(total[t][j], sum[t][j]);
        linear_weight_sums(T, V, g, s, at, x, dy, sum);
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int j = 0; j < V; j++) sum[t][j] += load(total[t][j]);
    }
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int j = 0; j < V; j++) store(dw + t * g->dw_row + at[j], sum[t][j]);
}

TEMPLATE void linear_weight_vectors(const int T, int64_t V, const linear_samples *g, const float *x, const float *dy, float *dw)
{
    switch (V) {
#if LINEAR_V > 3
    case 4: linear_weight_tile(T, 4, g, x, dy, dw); break;
#endif
#if LINEAR_V > 2
    case 3: linear_weight_tile(T, 3, g, x, dy, dw); break;
#endif
    case 2: linear_weight_tile(T, 2, g, x, dy, dw); break;
    default: linear_weight_tile(T, 1, g, x, dy, dw); break;
    }
}

static void linear_weight_outputs(int64_t T, int64_t V, const linear_samples *g, const float *x, const float *dy, float *dw)
{
    switch (T) {
#if LINEAR_T > 6
    case 8: linear_weight_vectors(8, V, g, x, dy, dw); break;
    case 7: linear_weight_vectors(7, V, g, x, dy, dw); break;
#endif
#if LINEAR_T > 2
    case 6: linear_weight_vectors(6, V, g, x, dy, dw); break;
    case 5: linear_weight_vectors(5, V, g, x, dy, dw); break;
    case 4: linear_weight_vectors(4, V, g, x, dy, dw); break;
    case 3: linear_weight_vectors(3, V, g, x, dy, dw); break;
#endif
    case 2: linear_weight_vectors(2, V, g, x, dy, dw); break;
    default: linear_weight_vectors(1, V, g, x, dy, dw); break;
    }
}

/* `count` outputs, rows of at least one vector. */
static void linear_weights(int64_t in, linear_samples g, int64_t count, const float *x, const float *dy, float *dw)
{
    int64_t vectors = (in + VL - 1) / VL;
    for (int64_t v = 0, V; v < vectors; v += V) {
        V = linear_part(vectors - v, LINEAR_V);
        g.last = linear_least((v + V) * VL, in) - (v + 1) * VL;
        for (int64_t o = 0, T; o < count; o += T) {
            T = linear_part(count - o, LINEAR_T);
            linear_weight_outputs(T, V, &g, x + v * VL, dy + o * EK_LANES, dw + o * g.dw_row + v * VL);
        }
    }
}

/* Rows narrower than a vector: through wider ones. */
static void linear_narrow_weights(int64_t in, const linear_samples *g, int64_t count, const float *x, const float *dy, float *dw)
{
    float rows[LINEAR_SAMPLES * VL] = {0}, tile[LINEAR_T * VL];
    for (int64_t s = 0; s < g->count; s += LINEAR_SAMPLES) {
        const linear_samples part = {linear_least(LINEAR_SAMPLES, g->count - s), VL, g->dy_block, VL, 0};
        for (int64_t i = 0; i < part.count; i++) memcpy(rows + i * VL, x + (s + i) * in, (size_t)in * sizeof *x);
        for (int64_t o = 0, T; o < count; o += T) {
            T = linear_part(count - o, LINEAR_T);
            linear_weight_outputs(T, 1, &part, rows, dy + s / EK_LANES * g->dy_block + o * EK_LANES, tile);
            for (int64_t t = 0; t < T; t++)
                for (int64_t i = 0; i < in; i++) dw[(o + t) * in + i] = (s > 0 ? dw[(o + t) * in + i] : 0) + tile[t * VL + i];
        }
    }
}

/* sums[o] = sum over all lanes of dy[o] */
static void linear_bias_sums(const linear_samples *g, int64_t count, const float *dy, float *sums)
{
    for (int64_t o = 0; o < count; o++, dy += EK_LANES) {
        vf sum = splat(0.0f);
        for (int64_t block = 0; block < ek_blocks(g->count); block++)
            for (int part = 0; part < EK_LANES; part += VL) sum += load(dy + block * g->dy_block + part);
        sums[o] = (float)sum_lanes(sum);
    }
}

static void linear_backward_weights(const ek_linear *g, int64_t samples, int64_t first, int64_t count, const float *x_rows, const float *dy, float *dw, float *dbias)
{
    const linear_samples all = {samples, g->in, g->out * EK_LANES, g->in, 0};
    dy += first * EK_LANES;
    dw += first * g->in;
    if (g->in < VL) linear_narrow_weights(g->in, &all, count, x_rows, dy, dw);
    else linear_weights(g->in, all, count, x_rows, dy, dw);
    if (dbias) linear_bias_sums(&all, count, dy, dbias + first);
}
