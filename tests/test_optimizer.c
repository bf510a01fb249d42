/* Optimizers against PyTorch's numbers, clipping, refusals, and the learning rate over a run. */
#include "testing.h"

#include "core/memory.h"
#include "oracles/optimizer_golden.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <float.h>
#include <math.h>

/* fc's bias is made redundant by bn: 16 trained numbers in the golden's order. */
static const char net_text[] = "input 3\nfc: linear 2\nbn: batchnorm\nrelu\nout: linear 2\n";

static ek_context *context;

static int open_context(void **state)
{
    (void)state;
    ek_context_options options = ek_context_options_default();
    options.threads = 2;
    return ek_context_create(&options, &context) == EK_OK ? 0 : -1;
}

static int close_context(void **state)
{
    (void)state;
    ek_context_destroy(context);
    return 0;
}

/* Sets every trained number, or its gradient, from its place in the net. */
static void set_weights(ek_net *net)
{
    int64_t i = 0;
    for (int k = 0; k < ek_net_tensor_count(net); k++) {
        ek_tensor tensor = ek_net_tensor(net, k);
        for (int64_t j = 0; tensor.grad && j < ek_shape_count(tensor.shape); j++, i++)
            tensor.data[j] = (float)(0.1 * (double)(i % 7 - 3));
    }
}

static void set_gradients(ek_net *net, int64_t t)
{
    int64_t i = 0;
    for (int k = 0; k < ek_net_tensor_count(net); k++) {
        ek_tensor tensor = ek_net_tensor(net, k);
        for (int64_t j = 0; tensor.grad && j < ek_shape_count(tensor.shape); j++, i++)
            tensor.grad[j] = (float)(0.05 * (double)((3 * i + 5 * t) % 11 - 5));
    }
}

static void assert_weights(ek_net *net, const float *expected, const char *name)
{
    int64_t i = 0;
    for (int k = 0; k < ek_net_tensor_count(net); k++) {
        ek_tensor tensor = ek_net_tensor(net, k);
        for (int64_t j = 0; tensor.grad && j < ek_shape_count(tensor.shape); j++, i++) {
            if (!(fabsf(tensor.data[j] - expected[i]) <= 1e-6f))
                fail_msg("%s: %s[%d] is %.9g, PyTorch has %.9g", name, tensor.name, (int)j, tensor.data[j],
                         expected[i]);
        }
    }
    assert_int_equal(i, 16);
}

static void check_golden(const char *name, ek_optimizer_options options, const float expected[16])
{
    ek_net *net;
    ek_optimizer_state *state;
    assert_ok(ek_net_create(context, net_text, NULL, &net));
    assert_ok(ek_optimizer_create(net, &options, &state));
    set_weights(net);
    for (int t = 1; t <= 5; t++) {
        set_gradients(net, t);
        assert_true(ek_optimizer_update(net, state, options.lr));
    }
    assert_weights(net, expected, name);
    ek_optimizer_destroy(state);
    ek_net_destroy(net);
}

static void sgd_is_pytorchs(void **state)
{
    (void)state;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    check_golden("sgd", options, golden_sgd);
    options.momentum = 0.9;
    check_golden("momentum", options, golden_momentum);
    options.clip_norm = 0.25;
    check_golden("clip", options, golden_sgd_clip);
    options.clip_norm = 100; /* larger than any norm here: as if off */
    check_golden("loose clip", options, golden_momentum);
    options.clip_norm = 0;
    options.nesterov = true;
    options.weight_decay = 0.01;
    check_golden("nesterov", options, golden_nesterov);
    options.nesterov = false;
    options.momentum = 0.5;
    options.weight_decay = 0.1;
    options.decay_norm_and_bias = false;
    check_golden("decay of weights alone", options, golden_sgd_decay_weights);
}

static void adam_is_pytorchs(void **state)
{
    (void)state;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    options.lr = 0.01;
    check_golden("adam", options, golden_adam);
    options.beta1 = 0.8;
    options.beta2 = 0.95;
    options.eps = 1e-3;
    options.weight_decay = 0.1;
    check_golden("adam with decay", options, golden_adam_decay);
}

static void adamw_is_pytorchs(void **state)
{
    (void)state;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAMW);
    options.lr = 0.01;
    options.weight_decay = 0.1;
    check_golden("adamw", options, golden_adamw);
    options.decay_norm_and_bias = false;
    options.clip_norm = 0.25;
    check_golden("adamw, decay of weights alone", options, golden_adamw_decay_weights);
}

/* 60000 weights are several pieces of work, the last one short. */
static void large_tensors_are_updated_whole(void **state)
{
    (void)state;
    ek_net *net;
    ek_optimizer_state *optimizer;
    ek_tensor weight;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_net_create(context, "input 300\nfc: linear 200\n", NULL, &net));
    assert_ok(ek_optimizer_create(net, &options, &optimizer));
    assert_ok(ek_net_find_tensor(net, "fc.weight", &weight));
    for (int i = 0; i < 60000; i++) {
        weight.data[i] = 0;
        weight.grad[i] = (float)i;
    }
    assert_true(ek_optimizer_update(net, optimizer, 0.5));
    for (int i = 0; i < 60000; i++) assert_true(weight.data[i] == -0.5f * (float)i);
    ek_optimizer_destroy(optimizer);
    ek_net_destroy(net);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    ek_net *net;
    ek_optimizer_state *optimizer;
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    assert_ok(ek_net_create(context, net_text, NULL, &net));
    for (int clip = 0; clip < 2; clip++) {
        options.clip_norm = clip;
        assert_ok(ek_optimizer_create(net, &options, &optimizer));
        set_weights(net);
        set_gradients(net, 1);
        ek_tensor last = ek_net_tensor(net, ek_net_tensor_count(net) - 1), first = ek_net_tensor(net, 0);
        last.grad[1] = clip ? NAN : INFINITY;
        assert_false(ek_optimizer_update(net, optimizer, 0.1));
        assert_true(first.data[0] == (float)(0.1 * -3));
        assert_true(optimizer->first[0][0] == 0 && optimizer->second[0][0] == 0);
        assert_int_equal(optimizer->step, 0);
        ek_optimizer_destroy(optimizer);
    }
    ek_net_destroy(net);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    ek_optimizer_options sgd = ek_optimizer_options_default(EK_OPTIMIZER_SGD), o = sgd;
    assert_ok(ek_optimizer_check(&o));
    o.lr = -1;
    assert_fails(EK_E_ARGUMENT, "learning rate", ek_optimizer_check(&o));
    o.lr = NAN;
    assert_fails(EK_E_ARGUMENT, "learning rate", ek_optimizer_check(&o));
    o.lr = 1e300; /* no float */
    assert_fails(EK_E_ARGUMENT, "learning rate", ek_optimizer_check(&o));
    o = sgd;
    o.momentum = 1;
    assert_fails(EK_E_ARGUMENT, "momentum", ek_optimizer_check(&o));
    o = sgd;
    o.nesterov = true;
    assert_fails(EK_E_ARGUMENT, "Nesterov", ek_optimizer_check(&o));
    o = sgd;
    o.weight_decay = -0.1;
    assert_fails(EK_E_ARGUMENT, "weight decay", ek_optimizer_check(&o));
    o = sgd;
    o.clip_norm = INFINITY;
    assert_fails(EK_E_ARGUMENT, "norm", ek_optimizer_check(&o));
    o = sgd;
    o.kind = (ek_optimizer)7;
    assert_fails(EK_E_ARGUMENT, "7", ek_optimizer_check(&o));
    o = ek_optimizer_options_default(EK_OPTIMIZER_ADAM);
    assert_true(o.lr == 0.001 && o.weight_decay == 0);
    o.beta2 = 1;
    assert_fails(EK_E_ARGUMENT, "beta2", ek_optimizer_check(&o));
    o = ek_optimizer_options_default(EK_OPTIMIZER_ADAMW);
    assert_true(o.weight_decay == 0.01);
    o.eps = 0;
    assert_fails(EK_E_ARGUMENT, "eps", ek_optimizer_check(&o));
}

/* --- schedules: 10 epochs of 4 steps, lr 0.8 */

static ek_train_options schedule(ek_schedule kind)
{
    ek_train_options options = ek_train_options_default();
    options.epochs = 10;
    options.optimizer.lr = 0.8;
    options.schedule = kind;
    return options;
}

static void assert_lr(const ek_train_options *options, int64_t step, double expected)
{
    double lr = ek_schedule_lr(options, step, 4);
    if (!(fabs(lr - expected) < 1e-12)) fail_msg("step %d has lr %.17g, not %.17g", (int)step, lr, expected);
}

static void schedules_give_the_rate_by_hand(void **state)
{
    (void)state;
    ek_train_options constant = schedule(EK_SCHEDULE_CONSTANT);
    assert_lr(&constant, 0, 0.8);
    assert_lr(&constant, 39, 0.8);

    ek_train_options step = schedule(EK_SCHEDULE_STEP);
    step.step_epochs = 3;
    step.decay = 0.5;
    assert_lr(&step, 11, 0.8); /* last of the third epoch */
    assert_lr(&step, 12, 0.4);
    assert_lr(&step, 24, 0.2);
    assert_lr(&step, 39, 0.1);

    ek_train_options cosine = schedule(EK_SCHEDULE_COSINE);
    assert_lr(&cosine, 0, 0.8);
    assert_lr(&cosine, 10, 0.4 * (1 + sqrt(0.5)));
    assert_lr(&cosine, 20, 0.4);
    assert_lr(&cosine, 40, 0);
}

static void warm_up_rises_to_the_schedule(void **state)
{
    (void)state;
    ek_train_options options = schedule(EK_SCHEDULE_COSINE);
    options.warmup_epochs = 2.5; /* 10 steps */
    assert_lr(&options, 0, 0.08);
    assert_lr(&options, 4, 0.4);
    assert_lr(&options, 9, 0.8);
    assert_lr(&options, 10, 0.8);
    assert_lr(&options, 25, 0.4);

    options = schedule(EK_SCHEDULE_STEP);
    options.warmup_epochs = 2;
    options.step_epochs = 1;
    options.decay = 0.5;
    assert_lr(&options, 3, 0.4);
    assert_lr(&options, 4, 0.25);
    assert_lr(&options, 8, 0.2);
}

static void schedules_out_of_range_are_refused(void **state)
{
    (void)state;
    ek_train_options o = schedule(EK_SCHEDULE_STEP);
    assert_ok(ek_schedule_check(&o));
    o.step_epochs = 0;
    assert_fails(EK_E_ARGUMENT, "epochs", ek_schedule_check(&o));
    o = schedule(EK_SCHEDULE_STEP);
    o.decay = NAN;
    assert_fails(EK_E_ARGUMENT, "multiply", ek_schedule_check(&o));
    o = schedule(EK_SCHEDULE_CONSTANT);
    o.warmup_epochs = -1;
    assert_fails(EK_E_ARGUMENT, "warm-up", ek_schedule_check(&o));
    o = schedule((ek_schedule)9);
    assert_fails(EK_E_ARGUMENT, "9", ek_schedule_check(&o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_is_pytorchs),
        cmocka_unit_test(adam_is_pytorchs),
        cmocka_unit_test(adamw_is_pytorchs),
        cmocka_unit_test(large_tensors_are_updated_whole),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(schedules_give_the_rate_by_hand),
        cmocka_unit_test(warm_up_rises_to_the_schedule),
        cmocka_unit_test(schedules_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
