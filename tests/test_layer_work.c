/* The work that `evenkeel bench` holds a layer's time against, with layers that are computed within another's pass. */
#include "testing.h"

#include "../cli/layer_work.c"

/* As in cli/output.c, which would bring the whole command. */
int64_t cli_numbers(ek_shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
    return count;
}

enum { BATCH = 3, MOST = 16 };

typedef struct counted {
    ek_context *context;
    ek_net *net;
    ek_layer_time times[MOST];
    layer_work forward[MOST], backward[MOST];
} counted;

static void begin(counted *c, const char *text)
{
    ek_context_options options = {.threads = 1};
    *c = (counted){0};
    assert_ok(ek_context_create(&options, &c->context));
    assert_ok(ek_net_create(c->context, text, NULL, &c->net));
    assert_in_range(ek_net_layer_count(c->net), 1, MOST);
    for (int i = 0; i < MOST; i++) c->times[i] = (ek_layer_time){0, 0, i, i};
}

static void count(counted *c)
{
    assert_true(layer_work_count(c->net, BATCH, c->times, c->forward, c->backward));
}

static void end(counted *c)
{
    ek_net_destroy(c->net);
    ek_context_destroy(c->context);
}

/* numbers: those of a sample's values; parameters: moved once each */
#define assert_work(work, operations, numbers, parameters)                                       \
    do {                                                                                         \
        assert_true((work).flops == BATCH * (operations));                                       \
        assert_true((work).bytes == sizeof(float) * (BATCH * (numbers) + (double)(parameters))); \
    } while (0)

static const char *const chain =
    "input 2x4x4\nc: conv 3 kernel=1 bias=false\nb: batchnorm\nrelu\navgpool 2\nflatten\n"
    "linear 2\n";

static void each_by_itself(void **state)
{
    (void)state;
    counted c;
    begin(&c, chain);
    count(&c);
    assert_work(c.forward[1], 2 * 96.0, 32 + 48, 6);
    assert_work(c.backward[1], 2 * 96.0, 48 + 32, 2 * 6); /* the input has no gradient */
    assert_work(c.forward[2], 0.0, 48 + 48, 6);
    assert_work(c.backward[2], 0.0, 48 + 48 + 48, 2 * 6);
    assert_work(c.forward[4], 0.0, 48 + 12, 0);
    assert_work(c.backward[4], 0.0, 12 + 48, 0); /* needs no value */
    assert_work(c.forward[6], 2 * 24.0, 12 + 2, 26);
    assert_work(c.backward[6], 4 * 24.0, 2 + 12 + 12, 2 * 26);
    end(&c);
}

/* What stays within a pass is not moved. */
static void within_another(void **state)
{
    (void)state;
    counted c;
    begin(&c, chain);
    for (int i = 2; i <= 4; i++) {
        c.times[i].forward_in = 2;
        c.times[i].backward_in = 4;
    }
    c.times[5].forward_in = c.times[5].backward_in = 6;
    count(&c);
    assert_work(c.forward[2], 0.0, 48 + 12, 6);
    assert_work(c.backward[4], 0.0, 12 + 48 + 48, 2 * 6);
    assert_work(c.forward[6], 2 * 24.0, 12 + 2, 26);
    assert_work(c.backward[6], 4 * 24.0, 2 + 12, 2 * 26);
    for (int i = 3; i <= 5; i++) assert_work(c.forward[i], 0.0, 0, 0);
    assert_work(c.backward[2], 0.0, 0, 0);
    assert_work(c.backward[3], 0.0, 0, 0);
    assert_work(c.backward[5], 0.0, 0, 0);
    end(&c);
}

/* A value that a pass reads twice comes in once, and one that two passes read goes out. */
static void branches(void **state)
{
    (void)state;
    counted c;
    begin(&c, "input 2x2x2\ns: conv 2 kernel=1 bias=false\nr: relu\nadd s\nadd r\n");
    for (int i = 2; i <= 3; i++) c.times[i].forward_in = 3;
    count(&c);
    assert_work(c.forward[3], 0.0, 8 + 8 + 8, 0); /* s in, r and their sum out */
    assert_work(c.forward[4], 0.0, 8 + 8 + 8, 0);
    assert_work(c.backward[4], 0.0, 8 + 8 + 8, 0);
    assert_work(c.backward[2], 0.0, 8 + 8 + 8, 0);
    end(&c);
}

/* The gradient of a product wants both of its values, that of what follows it in a concat none. */
static void joins(void **state)
{
    (void)state;
    counted c;
    begin(&c, "input 2x2x2\ns: conv 2 kernel=1 bias=false\nglobalavgpool\nm: mul s\nconcat m from=s\n");
    count(&c);
    assert_work(c.forward[3], 0.0, 2 + 8 + 8, 0);
    assert_work(c.backward[3], 0.0, 8 + 2 + 8 + 2 + 8, 0);
    assert_work(c.forward[4], 0.0, 8 + 8 + 16, 0);
    assert_work(c.backward[4], 0.0, 16 + 8 + 8, 0);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_by_itself),
        cmocka_unit_test(within_another),
        cmocka_unit_test(branches),
        cmocka_unit_test(joins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
