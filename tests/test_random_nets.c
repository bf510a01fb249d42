/* Random nets with and without fusion against the double reference. Fusion depends on who reads what; the nets of
 * test_fusion.c are the cases that were thought of, these are the others.
 *
 * EK_RANDOM_NETS=5000 build/dev/tests/test_random_nets runs more of them than the test does. */
#include "fused_runs.h"

#include <signal.h>
#include <unistd.h>

/* --- net texts */

enum { MOST_LINES = 64, MOST_TEXT = MOST_LINES * 160, MOST_FEATURES = 2000 };

typedef struct value {
    int c, h, w; /* features have no h and w, sequences no h */
} value;

typedef struct maker {
    ek_random random;
    char text[MOST_TEXT];
    size_t length;
    value value[MOST_LINES]; /* by line; line i has the label Li */
    int lines;
    value at; /* what the next line reads */
    int from; /* its label; 0: that of the last line */
} maker;

static int below(maker *m, int bound) { return (int)ek_random_below(&m->random, (uint64_t)bound); }
static bool one_in(maker *m, int bound) { return below(m, bound) == 0; }

#define ANY(m, list) ((list)[below((m), (int)(sizeof(list) / sizeof *(list)))])

static bool is_map(value v) { return v.h > 0; }
static bool is_features(value v) { return v.w == 0; }
static int positions(value v) { return is_features(v) ? 1 : is_map(v) ? v.h * v.w : v.w; }
static bool same_size(value a, value b) { return a.h == b.h && a.w == b.w; }
static bool same_value(value a, value b) { return a.c == b.c && same_size(a, b); }

__attribute__((format(printf, 2, 3))) static void print(maker *m, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    m->length += (size_t)vsnprintf(m->text + m->length, MOST_TEXT - m->length, format, arguments);
    va_end(arguments);
    assert_true(m->length < MOST_TEXT);
}

/* A line: begin, print the layer and its options, end with the shape of its output. */
static void begin_line(maker *m) { print(m, "L%d: ", m->lines); }

static void end_line(maker *m, value out)
{
    if (m->from) print(m, " from=L%d", m->from);
    print(m, "\n");
    m->from = 0;
    m->value[m->lines++] = m->at = out;
}

static void put(maker *m, const char *layer)
{
    begin_line(m);
    print(m, "%s", layer);
    end_line(m, m->at);
}

static void put_input(maker *m)
{
    value in = {1 + below(m, 30), 0, 0};
    if (!one_in(m, 4)) {
        in.c = 1 + below(m, one_in(m, 6) ? 33 : 4);
        in.h = 1 + below(m, 9);
        in.w = 1 + below(m, one_in(m, 6) ? 40 : 9);
    }
    if (is_map(in) && one_in(m, 3)) in = (value){in.c, 0, in.h * in.w};
    begin_line(m);
    if (is_map(in))
        print(m, "input %dx%dx%d", in.c, in.h, in.w);
    else
        print(m, is_features(in) ? "input %d" : "input %dx%d", in.c, in.w);
    if (one_in(m, 4)) print(m, " mean=0.3 std=1.5");
    if (!is_map(in) && !is_features(in) && one_in(m, 2)) print(m, LENGTHS);
    end_line(m, in);
}

static void put_activation(maker *m)
{
    static const char *const kinds[] = {"relu", "sigmoid", "tanh", "silu", "leakyrelu", "leakyrelu 0.2"};
    static const char *const others[] = {"elu", "prelu", "clip min=-1 max=2", "hardsigmoid", "hardswish"};
    if (!one_in(m, 6)) {
        put(m, ANY(m, kinds));
    } else if (!one_in(m, 6)) {
        put(m, ANY(m, others));
    } else {
        begin_line(m);
        print(m, "prelu %d", m->at.c);
        end_line(m, m->at);
    }
}

/* A small eps would let channels of nearly equal numbers make large ones of their rounding, and a row of batchnorms
 * ever larger ones. */
static void put_norm(maker *m)
{
    static const char *const options[] = {"",
                                          "",
                                          "",
                                          "",
                                          " frozen=true",
                                          " track=false",
                                          " scale=false",
                                          " shift=false",
                                          " scale=false shift=false",
                                          " momentum=none",
                                          " momentum=0.4 unbiased=false",
                                          " ghost=4",
                                          " ghost=7 scale=false",
                                          " r_max=2 d_max=1",
                                          " d_max=0.3 shift=false"};
    begin_line(m);
    print(m, "batchnorm eps=0.1%s", ANY(m, options));
    end_line(m, m->at);
}

/* One of each sample, where it has a few numbers: of two, all become nearly 1 and -1. */
static void put_sample_norm(maker *m)
{
    static const char *const options[] = {"", "", " scale=false", " shift=false", " scale=false shift=false"};
    /* Where lengths are, some samples have but one position. */
    int each = strstr(m->text, LENGTHS) ? 1 : positions(m->at), groups = m->at.c % 2 ? 1 : 2,
        kind = below(m, 4);
    if (m->at.c * each < 8) return;
    if (kind == 2 && each < 4) kind = 0;
    if (kind == 1 && m->at.c / groups * each < 4) groups = 1;
    begin_line(m);
    if (kind == 0) print(m, "layernorm eps=0.1%s", ANY(m, options));
    if (kind == 1) print(m, "groupnorm %d eps=0.1%s", groups, ANY(m, options));
    if (kind == 2) print(m, "instancenorm eps=0.1%s", one_in(m, 2) ? " scale=true shift=true" : "");
    if (kind == 3) print(m, "rmsnorm eps=0.1%s", one_in(m, 3) ? " scale=false" : "");
    end_line(m, m->at);
}

/* Any normalization, more often that of the batch. */
static void put_any_norm(maker *m)
{
    if (one_in(m, 4))
        put_sample_norm(m);
    else
        put_norm(m);
}

typedef struct window {
    int kernel, stride, padding, end, dilation;
} window;

static int reach(window w) { return w.dilation * (w.kernel - 1) + 1; }

static int places(window w, int in)
{
    int room = in + w.padding + w.end - reach(w);
    return room < 0 ? 0 : room / w.stride + 1;
}

static int places_rounded_up(window w, int in)
{
    int room = in + w.padding + w.end - reach(w), count = (room + w.stride - 1) / w.stride + 1;
    return room < 0 ? 0 : (count - 1) * w.stride < in + w.padding ? count : count - 1;
}

static int transposed_places(window w, int in)
{
    int count = (in - 1) * w.stride + reach(w) - w.padding - w.end;
    return count < 0 ? 0 : count;
}

static window any_window(maker *m, int in)
{
    static const int kernels[] = {1, 2, 3, 3, 4, 5, 5};
    window w;
    do {
        w.kernel = ANY(m, kernels);
        w.stride = one_in(m, 3) ? 1 + below(m, 3) : 1;
        w.padding = w.end = below(m, 4);
        w.dilation = one_in(m, 8) ? 2 : 1;
        if (one_in(m, 4)) w.end = below(m, 4);
    } while (places(w, in) == 0);
    return w;
}

/* One that leaves the size as it is. */
static window keeping_window(maker *m)
{
    int kernel = 1 + 2 * below(m, 3), dilation = one_in(m, 8) ? 2 : 1;
    int padding = dilation * (kernel - 1) / 2;
    return (window){kernel, 1, padding, padding, dilation};
}

static int any_groups(maker *m, int in, int out)
{
    const int groups[] = {1, 1, 1, 2, in};
    int chosen = ANY(m, groups);
    return in % chosen == 0 && out % chosen == 0 ? chosen : 1;
}

static void print_window(maker *m, window y, window x)
{
    if (is_map(m->at)) {
        print(m, " kernel=%dx%d stride=%dx%d padding=%dx%d", y.kernel, x.kernel, y.stride, x.stride, y.padding, x.padding);
        print(m, " padding_end=%dx%d dilation=%dx%d", y.end, x.end, y.dilation, x.dilation);
    } else {
        print(m, " kernel=%d stride=%d padding=%d", x.kernel, x.stride, x.padding);
        print(m, " padding_end=%d dilation=%d", x.end, x.dilation);
    }
}

/* The two along an axis; of sequences there is no other. */
static value windows(const maker *m, int channels, int (*count)(window w, int in), window y, window x)
{
    return (value){channels, is_map(m->at) ? count(y, m->at.h) : 0, count(x, m->at.w)};
}

static void put_conv_of(maker *m, const char *op, int channels, window y, window x, value out)
{
    begin_line(m);
    print(m, "%s%s %d", op, is_map(m->at) ? "" : "1d", channels);
    print_window(m, y, x);
    print(m, " groups=%d%s", any_groups(m, m->at.c, channels), one_in(m, 3) ? " bias=false" : "");
    end_line(m, out);
}

static void put_conv(maker *m, int channels, window y, window x)
{
    put_conv_of(m, "conv", channels, y, x, windows(m, channels, places, y, x));
}

/* Where it does not make the map endless. */
static bool put_transposed(maker *m, int channels, window y, window x)
{
    value out = windows(m, channels, transposed_places, y, x);
    bool some = out.w > 0 && (out.h > 0 || !is_map(m->at));
    if (!some || positions(out) > 400) return false;
    put_conv_of(m, "convtranspose", channels, y, x, out);
    return true;
}

static void put_linear(maker *m, int features)
{
    begin_line(m);
    print(m, "linear %d%s", features, one_in(m, 4) ? " bias=false" : "");
    end_line(m, (value){features, 0, 0});
}

static void put_weights(maker *m)
{
    if (is_features(m->at)) {
        put_linear(m, 1 + below(m, 40));
        return;
    }
    window y = any_window(m, is_map(m->at) ? m->at.h : 1), x = any_window(m, m->at.w);
    if (one_in(m, 4) && m->at.h > 2 && m->at.w > 2) y = x = (window){3, 1, 0, 0, 1}; /* has kernels of its own */
    int channels = one_in(m, 5) ? m->at.c : 1 + below(m, one_in(m, 3) ? 20 : 8);
    if (!one_in(m, 6) || !put_transposed(m, channels, y, x)) put_conv(m, channels, y, x);
}

/* A layer with weights whose output can be added to `like`. */
static void put_weights_like(maker *m, value like)
{
    if (!is_features(like))
        put_conv(m, like.c, keeping_window(m), keeping_window(m));
    else
        put_linear(m, like.c);
}

static window pool_window(maker *m, int in)
{
    window w;
    do {
        int kernel = 1 + below(m, 3);
        w = (window){kernel, 1 + below(m, 3), below(m, kernel), below(m, kernel), 1};
        if (one_in(m, 6)) w = (window){2, 1, below(m, 2), below(m, 2), in > 2 ? 2 : 1};
    } while (places(w, in) == 0);
    return w;
}

static void put_pool(maker *m)
{
    value out = {m->at.c, is_map(m->at), 1};
    begin_line(m);
    if (one_in(m, 4)) {
        print(m, "globalavgpool");
    } else {
        window x = pool_window(m, m->at.w), y = is_map(m->at) ? pool_window(m, m->at.h) : x;
        int kind = below(m, 3);
        bool up = one_in(m, 3);
        if (!is_map(m->at)) y = x;
        out = windows(m, m->at.c, up ? places_rounded_up : places, y, x);
        print(m, kind ? "avgpool" : "maxpool");
        print_window(m, y, x);
        print(m, "%s%s", up ? " ceil=true" : "", kind == 2 ? " count_pad=false" : "");
    }
    end_line(m, out);
}

static void put_flatten(maker *m)
{
    int count = m->at.c * positions(m->at);
    if (count > MOST_FEATURES) return;
    begin_line(m);
    print(m, "flatten");
    end_line(m, (value){count, 0, 0});
}

static void put_add(maker *m, int label)
{
    begin_line(m);
    print(m, "add L%d", label);
    end_line(m, m->at);
}

/* Each dimension is the input's, or 1. */
static void put_affine(maker *m)
{
    static const char *const options[] = {"", "", "", " scale=false", " shift=false"};
    value v = m->at;
    if (one_in(m, 3)) v.c = 1;
    if (is_map(v) && one_in(m, 2)) v.h = 1;
    if (!is_features(v) && one_in(m, 2)) v.w = 1;
    begin_line(m);
    print(m, is_map(v) ? "affine %dx%dx%d" : is_features(v) ? "affine %d" : "affine %dx%d", v.c, is_map(v) ? v.h : v.w, v.w);
    print(m, "%s", ANY(m, options));
    end_line(m, m->at);
}

/* The same numbers as another shape, or in another order; lengths would not follow them. */
static void put_shape(maker *m)
{
    value v = m->at, out = v;
    if (is_features(v) || strstr(m->text, LENGTHS)) return;
    begin_line(m);
    if (one_in(m, 2)) {
        if (is_map(v))
            print(m, "reshape %dx%d", v.c, v.h * v.w), out = (value){v.c, 0, v.h * v.w};
        else if (one_in(m, 2))
            print(m, "reshape 1x%dx%d", v.c, v.w), out = (value){1, v.c, v.w};
        else
            print(m, "reshape %dx1x%d", v.c, v.w), out = (value){v.c, 1, v.w};
    } else if (!is_map(v)) {
        print(m, "permute 1,0"), out = (value){v.w, 0, v.c};
    } else if (one_in(m, 2)) {
        print(m, "permute 2,0,1"), out = (value){v.w, v.c, v.h};
    } else {
        print(m, "permute 0,2,1"), out = (value){v.c, v.w, v.h};
    }
    end_line(m, out);
}

static bool fits(int a, int b) { return a == b || a == 1 || b == 1; }

/* A join other than a sum with an earlier value, if the one drawn has a shape for it. What is multiplied goes through a
 * sigmoid, so that numbers do not grow from join to join. */
static void put_join(maker *m)
{
    enum { MOST_CHANNELS = 40 };
    int label = below(m, m->lines);
    value a = m->at, b = m->value[label];
    if (is_map(a) != is_map(b) || is_features(a) != is_features(b)) return;
    if (one_in(m, 3) && same_size(a, b) && a.c + b.c <= MOST_CHANNELS) {
        begin_line(m);
        print(m, "concat L%d", label);
        end_line(m, (value){a.c + b.c, a.h, a.w});
        return;
    }
    if (!fits(a.c, b.c) || !fits(a.h, b.h) || !fits(a.w, b.w)) return;
    static const char *const joins[] = {"add", "sub", "mul"};
    const char *join = ANY(m, joins);
    if (*join == 'm') put(m, "sigmoid");
    begin_line(m);
    print(m, "%s L%d", join, label);
    end_line(m, (value){a.c > b.c ? a.c : b.c, a.h > b.h ? a.h : b.h, a.w > b.w ? a.w : b.w});
}

/* Each channel weighed by what is in all of it. */
static void put_gate(maker *m)
{
    int last = m->lines - 1;
    value of = m->at;
    if (is_features(of)) return;
    begin_line(m);
    print(m, "globalavgpool");
    end_line(m, (value){of.c, is_map(of), 1});
    put(m, "sigmoid");
    begin_line(m);
    print(m, "mul L%d", last);
    end_line(m, of);
}

/* The sum with an earlier value, if the one drawn has the shape. */
static void put_sum(maker *m)
{
    int label = below(m, m->lines);
    if (same_value(m->value[label], m->at)) put_add(m, label);
}

/* A branch from an earlier value, if the one drawn has the size, which comes back to the last in a sum. */
static void put_branch(maker *m)
{
    int last = m->lines - 1, start = below(m, m->lines);
    value like = m->at;
    if (start == last || start == 0 || !same_size(m->value[start], like)) return;
    m->from = start;
    m->at = m->value[start];
    if (m->at.c != like.c || one_in(m, 4))
        put_weights_like(m, like);
    else if (one_in(m, 3))
        put_any_norm(m);
    else
        put_activation(m);
    if (one_in(m, 3)) put_any_norm(m);
    if (one_in(m, 3)) put_activation(m);
    if (one_in(m, 8)) put_weights_like(m, like);
    put_add(m, last);
}

static void put_any(maker *m)
{
    enum { WEIGHTS, NORM, ACTIVATION, SUM, BRANCH, POOL, DROPOUT, FLATTEN, AFFINE, SHAPE, JOIN, GATE };
    static const int kinds[] = {WEIGHTS, WEIGHTS,    WEIGHTS,    WEIGHTS,    NORM,    NORM,
                                NORM,    ACTIVATION, ACTIVATION, ACTIVATION, SUM,     BRANCH,
                                BRANCH,  BRANCH,     BRANCH,     POOL,       DROPOUT, FLATTEN,
                                AFFINE,  SHAPE,      JOIN,       JOIN,       GATE};
    switch (ANY(m, kinds)) {
    case WEIGHTS: put_weights(m); break;
    case NORM: put_any_norm(m); break;
    case ACTIVATION: put_activation(m); break;
    case SUM: put_sum(m); break;
    case BRANCH: put_branch(m); break;
    case POOL:
        if (!is_features(m->at)) put_pool(m);
        break;
    case DROPOUT:
        if (one_in(m, 2)) put(m, "dropout 0.3");
        break;
    case FLATTEN: put_flatten(m); break;
    case AFFINE: put_affine(m); break;
    case SHAPE: put_shape(m); break;
    case JOIN: put_join(m); break;
    case GATE: put_gate(m); break;
    }
}

/* Most nets end in features, some in softmax, some with whatever came. */
static void put_end(maker *m)
{
    if (!is_features(m->at) && one_in(m, 2)) put_flatten(m);
    if (!is_features(m->at)) return;
    if (one_in(m, 2)) put_linear(m, 4);
    if (one_in(m, 6)) put(m, "softmax");
}

static void make_net(maker *m, int seed)
{
    *m = (maker){.random = ek_random_start((uint64_t)seed, EK_STREAM_TEST, 0)};
    put_input(m);
    enum { A_BRANCH_AND_THE_END = 8 };
    for (int left = 3 + below(m, 14); left > 0 && m->lines < MOST_LINES - A_BRANCH_AND_THE_END; left--)
        put_any(m);
    put_end(m);
}

/* --- running them */

/* The nets that run: about 5 seconds in the dev build. */
#define NETS 250

/* A number at a kink, that of relu or of the largest in a window, may be rounded to its other side, which changes a
 * gradient more than rounding alone does; and batchnorms one after the other make rounding larger. */
static const tolerance rounding = {2e-3, 4e-4};

/* Its seed and text are printed after a failure, which leaves the test by a jump. */
static struct {
    int seed; /* -1: none is at work */
    char name[24];
    maker maker;
} net = {.seed = -1};

static int print_net(void **state)
{
    (void)state;
    if (net.seed >= 0) fprintf(stderr, "%s\n%s\n", net.name, net.maker.text); /* cmocka would cut it short */
    net.seed = -1;
    return 0;
}

/* Numbers written beside their buffer end in an abort by malloc or free, from which no test returns. */
static void print_net_of_abort(int signal)
{
    (void)signal;
    if (net.seed < 0 || write(STDERR_FILENO, net.name, strlen(net.name)) < 0) return;
    if (write(STDERR_FILENO, "\n", 1) < 0 || write(STDERR_FILENO, net.maker.text, net.maker.length) < 0)
        return;
}

static int nets_to_run(void)
{
    const char *wish = getenv("EK_RANDOM_NETS");
    return wish ? atoi(wish) : NETS;
}

static bool next_net(void)
{
    if (++net.seed >= nets_to_run()) {
        net.seed = -1;
        return false;
    }
    snprintf(net.name, sizeof net.name, "seed %d", net.seed);
    make_net(&net.maker, net.seed);
    return true;
}

/* Each seed has one, so that all take their turn; NULL, the best, where this processor lacks it. */
static const char *isa_of(int seed)
{
    static const char *const isas[] = {NULL, "baseline", "avx2"};
    const ek_kernels *there;
    const char *isa = isas[seed % 3];
    return isa && ek_kernels_choose(isa, &there) == EK_OK ? isa : NULL;
}

static int64_t samples_of(int seed)
{
    static const int64_t sizes[] = {19, 5, 16, 37};
    return sizes[seed % 4];
}

/* One instruction set, fused or not, on two threads against the reference and bit for bit against one thread. */
static void check_run(const run *want, bool fused, ek_mode mode)
{
    int64_t n = samples_of(net.seed);
    const char *isa = isa_of(net.seed);
    run one = begin(net.maker.text, isa, fused, 1, n, mode),
        two = begin(net.maker.text, isa, fused, 2, n, mode);
    char what[64];
    snprintf(what, sizeof what, "%s, %s, n=%d, %s", isa ? isa : "best", fused ? "fused" : "unfused", (int)n,
             mode == EK_MODE_TRAINING ? "training" : "inference");
    compare_runs(net.name, what, want, &two, n, rounding);
    compare_runs(net.name, "threads", &one, &two, n, same_bits);
    end(&one);
    end(&two);
}

static void check_mode(ek_mode mode)
{
    run want = begin(net.maker.text, "reference", false, 1, samples_of(net.seed), mode);
    check_run(&want, false, mode);
    check_run(&want, true, mode);
    end(&want);
}

static void random_nets_match_the_reference(void **state)
{
    (void)state;
    while (next_net()) {
        check_mode(EK_MODE_TRAINING);
        if (net.seed % 5 == 0) check_mode(EK_MODE_INFERENCE);
    }
}

/* After a larger batch, which leaves its numbers in lanes that few samples do not fill. */
static void random_nets_on_few_samples_match_the_reference(void **state)
{
    (void)state;
    while (next_net()) {
        /* One value a channel has no variance of its own, which track=false would want. */
        bool wants_two = strstr(net.maker.text, "track=false");
        int64_t sizes[] = {18, 1 + net.seed % 7 + wants_two};
        outputs want = infer(net.maker.text, "reference", sizes, 2),
                got = infer(net.maker.text, isa_of(net.seed), sizes, 2);
        compare(net.name, "few", "output", want.y, got.y, want.count, rounding);
        free(want.y);
        free(got.y);
    }
}

/* --- as ONNX models */

/* Only the model's numbers may be rounded: eps, and the mean and deviation of pixels. */
static const tolerance same_net = {1e-5, 1e-6};

static void random_nets_come_back_from_onnx(void **state)
{
    (void)state;
    char path[] = "/tmp/evenkeel-test-XXXXXX.onnx";
    int file = mkstemps(path, (int)strlen(".onnx"));
    assert_true(file >= 0);
    close(file);
    ek_context *context;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .isa = "reference"}, &context));
    while (next_net()) {
        if (net.seed % 2) continue;
        ek_net *one, *two;
        assert_ok(ek_net_create(context, net.maker.text, NULL, &one));
        set_norms(one);
        assert_ok(ek_net_save_onnx(one, path));
        assert_ok(ek_net_open(context, path, &two));
        assert_true(ek_shape_equal(ek_net_output_shape(one), ek_net_output_shape(two)));
        enum { SAMPLES = 3 };
        int64_t in = SAMPLES * ek_shape_count(ek_net_input_shape(one)),
                out = SAMPLES * ek_shape_count(ek_net_output_shape(one));
        float *x = malloc((size_t)(in + 2 * out) * sizeof *x), *want = x + in, *got = want + out;
        fill(x, in, 1, 1);
        assert_ok(ek_net_forward(one, EK_MODE_INFERENCE, SAMPLES, x, want));
        assert_ok(ek_net_forward(two, EK_MODE_INFERENCE, SAMPLES, x, got));
        compare(net.name, "from ONNX", "output", want, got, out, same_net);
        free(x);
        ek_net_destroy(one);
        ek_net_destroy(two);
    }
    ek_context_destroy(context);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(random_nets_match_the_reference, print_net),
        cmocka_unit_test_teardown(random_nets_on_few_samples_match_the_reference, print_net),
        cmocka_unit_test_teardown(random_nets_come_back_from_onnx, print_net),
    };
    signal(SIGABRT, print_net_of_abort);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
