/* A step in parts against the same step over the whole batch: loss, gradients, parameters and running statistics. */
#include "steps.h"

static void parts_are_the_whole_batch(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{64, 16}, {48, 21}, {37, 6}, {33, 4}, {16, 16}};
    for (int i = 0; i < NETS; i++)
        for (int fused = 0; fused < 2; fused++)
            for (int k = 0; k < 5; k++) {
                char what[64];
                stepped want = step(nets[i], fused, 1, sizes[k][0], 0);
                stepped got = step(nets[i], fused, 2, sizes[k][0], sizes[k][1]);
                snprintf(what, sizeof what, "%s, %d in parts of %d", fused ? "fused" : "unfused", (int)sizes[k][0],
                         (int)sizes[k][1]);
                compare_steps(nets[i], what, &want, &got, rounding);
                drop(&got);
                drop(&want);
            }
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (int i = 0; i < NETS; i++) {
        stepped want = step(nets[i], true, 1, 50, 16), got = step(nets[i], true, 3, 50, 16);
        compare_steps(nets[i], "threads", &want, &got, same_bits);
        drop(&got);
        drop(&want);
    }
}

/* After a step in parts, passes in training mode are of whole batches again. */
static void nothing_is_left_over(void **state)
{
    (void)state;
    stepped a = step(nets[0], true, 1, 32, 8), b = step(nets[0], true, 1, 32, 8);
    float x[20 * 144], y[2][20 * 10];
    fill(x, 20 * 144, 3, 2);
    assert_ok(ek_net_forward(a.net, EK_MODE_TRAINING, 20, x, y[0]));
    assert_ok(ek_net_save(b.net, "parts.safetensors"));
    drop(&b);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &b.context));
    assert_ok(ek_net_open(b.context, "parts.safetensors", &b.net));
    remove("parts.safetensors");
    assert_ok(ek_net_forward(b.net, EK_MODE_TRAINING, 20, x, y[1]));
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    drop(&a);
    drop(&b);
}

static void memory_is_that_of_a_part(void **state)
{
    (void)state;
    stepped s = step(nets[0], true, 1, 128, 16);
    assert_int_equal(s.net->plan->capacity, 16);
    drop(&s);
}

static void what_cannot_be_done_is_said(void **state)
{
    (void)state;
    stepped s = {0};
    ek_trainer *trainer;
    ek_step_result result;
    float x[8] = {0};
    int32_t labels[4] = {0};
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &s.context));
    assert_ok(ek_net_create(s.context, "input 2\nlinear 3\nbn: batchnorm ghost=2\nlinear 2", NULL, &s.net));
    assert_ok(ek_trainer_create(s.net, &options, 1, &trainer));
    assert_fails(EK_E_UNSUPPORTED, "bn normalizes by ghost batches",
                 ek_trainer_step_in_parts(trainer, 4, 2, x, labels, &result));
    assert_fails(EK_E_SHAPE, "1 sample or more", ek_trainer_step_in_parts(trainer, 4, 0, x, labels, &result));
    ek_trainer_destroy(trainer);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_the_whole_batch),    cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(nothing_is_left_over),         cmocka_unit_test(memory_is_that_of_a_part),
        cmocka_unit_test(what_cannot_be_done_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
