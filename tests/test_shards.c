/* A step over a batch in shards against the same step over the whole batch; and the same bits wherever the shards are computed:
 * by one process, or by ranks (here threads), by any number of threads. */
#include "steps.h"
#include "thread_comm.h"

#include <sys/stat.h>
#include <unistd.h>

static stepped in_shards(const char *text, int threads, int64_t n, int shards, bool local_bn)
{
    return step_so(text, &(ek_context_options){.threads = threads}, n, (manner){.shards = shards, .local_bn = local_bn});
}

/* The last has empty shards, and some of one sample. */
static void shards_are_the_whole_batch(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{64, 2}, {64, 1}, {50, 3}, {37, 8}, {70, 4}, {5, 8}};
    for (int i = 0; i < NETS; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            char what[64];
            stepped want = step(nets[i], true, 1, sizes[k][0], 0);
            stepped got = in_shards(nets[i], 2, sizes[k][0], (int)sizes[k][1], false);
            snprintf(what, sizeof what, "%d in %d shards", (int)sizes[k][0], (int)sizes[k][1]);
            compare_steps(nets[i], what, &want, &got, rounding);
            drop(&got);
            drop(&want);
        }
    }
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const int threads[] = {2, 3, 8};
    for (int i = 0; i < NETS; i++) {
        for (int local = 0; local < 2; local++) {
            stepped want = in_shards(nets[i], 1, 50, 4, local);
            for (int k = 0; k < 3; k++) {
                stepped got = in_shards(nets[i], threads[k], 50, 4, local);
                compare_steps(nets[i], "threads", &want, &got, same_bits);
                drop(&got);
            }
            drop(&want);
        }
    }
}

/* The largest difference, of the largest number; NULL: none. */
static double farthest(const float *want, const float *got, int64_t count)
{
    double most = 0, largest = 1e-30;
    for (int64_t i = 0; want && got && i < count; i++) {
        most = fmax(most, fabs((double)want[i] - got[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    return most / largest;
}

typedef struct rank_step {
    const char *text;
    int64_t n;
    int shards;
    bool local_bn;
    stepped got;
} rank_step;

static void step_of_rank(ek_comm *comm, void *argument)
{
    rank_step *r = argument;
    r->got = step_so(r->text, &(ek_context_options){.threads = 1 + comm->rank % 2, .comm = comm}, r->n,
                     (manner){.shards = r->shards, .local_bn = r->local_bn});
}

/* Every rank ends with the bits of one process with as many shards. */
static void check_ranks(const char *text, int64_t n, int shards, int ranks, bool local_bn)
{
    rank_step of[MOST_RANKS];
    char what[64];
    stepped want = in_shards(text, 1, n, shards, local_bn);
    for (int r = 0; r < ranks; r++) of[r] = (rank_step){.text = text, .n = n, .shards = shards, .local_bn = local_bn};
    run_ranks(ranks, step_of_rank, of, sizeof of[0]);
    for (int r = 0; r < ranks; r++) {
        snprintf(what, sizeof what, "%d in %d shards, rank %d of %d", (int)n, shards, r, ranks);
        compare_steps(text, what, &want, &of[r].got, same_bits);
        drop(&of[r].got);
    }
    drop(&want);
}

static void ranks_give_the_bits_of_shards(void **state)
{
    (void)state;
    static const int cuts[][3] = {{40, 2, 2}, {40, 8, 2}, {41, 8, 4}, {41, 8, 8}, {33, 3, 3}, {5, 6, 3}, {33, 7, 7}};
    for (int i = 0; i < NETS; i++)
        for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) check_ranks(nets[i], cuts[k][0], cuts[k][1], cuts[k][2], false);
    for (int i = 0; i < NETS; i++) check_ranks(nets[i], 41, 4, 2, true);
}

/* Gradients that fill several buckets, which travel while others are computed. */
static void many_buckets(void **state)
{
    (void)state;
    check_ranks("input 600\nlinear 700\nbatchnorm\nrelu\nlinear 800\nbatchnorm\nrelu\nlinear 500\nrelu\nlinear 10", 20, 4, 4, false);
}

/* A shard that normalizes by itself is a ghost batch. */
static void local_is_ghost(void **state)
{
    (void)state;
    static const char *const text[2] = {"input 2x5x5\nconv 4 kernel=3\nbatchnorm\nrelu\nflatten\nlinear 5\nbatchnorm\nrelu\nlinear 3",
                                        "input 2x5x5\nconv 4 kernel=3\nbatchnorm ghost=12\nrelu\nflatten\nlinear 5\n"
                                        "batchnorm ghost=12\nrelu\nlinear 3"};
    stepped want = step(text[1], true, 1, 48, 0), got = in_shards(text[0], 2, 48, 4, true);
    compare_steps(text[1], "local", &want, &got, rounding);
    drop(&got);
    got = in_shards(text[1], 2, 48, 2, false); /* and ghost batches lie within shards */
    compare_steps(text[1], "ghost", &want, &got, rounding);
    drop(&got);
    drop(&want);
}

/* Against the whole batch in double (the reference, which has nothing in common with these passes): loss, gradients and running
 * statistics of uneven shares lie within 1e-6 of it, of the largest of each tensor. The net has one batchnorm: behind another its
 * scale has hardly a gradient, of which rounding is the larger part however the batch is cut. */
static void close_to_double(void **state)
{
    (void)state;
    static const char text[] = "input 3x9x9\nconv 8 kernel=3 padding=1\nbatchnorm\nsilu\nflatten\nlinear 5";
    static const int cuts[][2] = {{45, 8}, {23, 4}, {50, 3}};
    for (int k = 0; k < 3; k++) {
        stepped want = step_so(text, &(ek_context_options){.threads = 1, .isa = "reference"}, cuts[k][0], (manner){.once = true});
        stepped got = step_so(text, &(ek_context_options){.threads = 2}, cuts[k][0], (manner){.shards = cuts[k][1], .once = true});
        double worst = fabs(want.result.loss - got.result.loss);
        for (int i = 0; i < ek_net_tensor_count(want.net); i++) {
            ek_tensor a = ek_net_tensor(want.net, i), b = ek_net_tensor(got.net, i);
            double of_data = farthest(a.data, b.data, ek_shape_count(a.shape)), of_grad = farthest(a.grad, b.grad, ek_shape_count(a.shape));
            worst = fmax(worst, fmax(of_data, of_grad));
        }
        print_message("%d samples in %d shards: %.2g of the largest\n", cuts[k][0], cuts[k][1], worst);
        assert_true(worst < 1e-6);
        drop(&got);
        drop(&want);
    }
}

/* Empty shards have nothing to normalize, whatever the others normalize by; the first of 8 is one. */
static void empty_shards_are_left_out(void **state)
{
    (void)state;
    static const char local[] = "input 2x5x5\nconv 4 kernel=3\nbatchnorm\nrelu\nflatten\nlinear 3",
                      ghost[] = "input 2x5x5\nconv 4 kernel=3\nbatchnorm ghost=1\nrelu\nflatten\nlinear 3";
    stepped want = step(ghost, true, 1, 5, 0), got = in_shards(local, 2, 5, 8, true);
    compare_steps(local, "5 in 8 local shards", &want, &got, rounding);
    drop(&got);
    got = in_shards(ghost, 2, 5, 8, false);
    compare_steps(ghost, "5 in 8 shards", &want, &got, rounding);
    drop(&got);
    drop(&want);
    check_ranks(local, 5, 8, 4, true);
}

/* After it, passes are of whole batches again, and fused. */
static void nothing_is_left_over(void **state)
{
    (void)state;
    static const char text[] = "input 6\nlinear 8\nbatchnorm\nrelu\nlinear 3";
    stepped a = in_shards(text, 1, 24, 2, false), b = in_shards(text, 1, 24, 2, false);
    float x[20 * 6], y[2][20 * 3];
    fill(x, 20 * 6, 3, 2);
    assert_ok(ek_net_forward(a.net, EK_MODE_TRAINING, 20, x, y[0]));
    assert_ok(ek_net_save(b.net, "shards.safetensors"));
    drop(&b);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &b.context));
    assert_ok(ek_net_open(b.context, "shards.safetensors", &b.net));
    remove("shards.safetensors");
    assert_ok(ek_net_forward(b.net, EK_MODE_TRAINING, 20, x, y[1]));
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    drop(&a);
    drop(&b);
}

/* The last shard's samples cannot be read. */
static ek_status fill_but_the_last(void *user, ek_net *net, int64_t first, int64_t n)
{
    (void)user;
    static const float x[8 * 6];
    if (first == 24) return ek_fail(EK_E_IO, "cannot read");
    ek_net_set_input(net, n, x);
    return EK_OK;
}

typedef struct failed_step {
    ek_status status;
    bool waited;
} failed_step;

static void fail_a_step(ek_comm *comm, void *argument)
{
    failed_step *out = argument;
    ek_context *context;
    ek_net *net;
    ek_trainer *trainer;
    ek_step_result result;
    bool stop;
    static const int32_t labels[32];
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_comm_set_timeout(comm, 0.5));
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .comm = comm}, &context));
    assert_ok(ek_net_create(context, "input 6\nlinear 8\nbatchnorm\nrelu\nlinear 3", NULL, &net));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_ok(ek_trainer_reserve_shards(trainer, 4, true, 32));
    ek_parted_batch batch = {.n = 32, .fill = fill_but_the_last, .labels = labels};
    out->status = ek_trainer_run_shards(trainer, &batch, &result, &stop);
    out->waited = comm->lost;
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* A rank whose own shard fails says so, and does not first wait for the others, which wait for it. */
static void a_shard_that_fails_ends_its_rank(void **state)
{
    (void)state;
    failed_step of[2];
    run_ranks(2, fail_a_step, of, sizeof of[0]);
    assert_int_equal(of[0].status, EK_E_RANK);
    assert_int_equal(of[1].status, EK_E_IO);
    assert_false(of[1].waited);
}

typedef struct vanishing_run {
    const ek_dataset *data;
    const char *folder;
    ek_status status;
    int failed, epochs;
} vanishing_run;

static bool remove_folder(void *user, const ek_event *event)
{
    vanishing_run *v = user;
    char path[64];
    if (event->kind == EK_EVENT_START && v->folder) {
        snprintf(path, sizeof path, "%s/checkpoint.lock", v->folder);
        remove(path);
        assert_int_equal(rmdir(v->folder), 0);
    }
    v->failed += event->failed != NULL;
    v->epochs += event->kind == EK_EVENT_EPOCH;
    return true;
}

static void train_without_folder(ek_comm *comm, void *argument)
{
    vanishing_run *v = argument;
    ek_context *context;
    ek_net *net;
    ek_train_options options = ek_train_options_default();
    options.epochs = 2;
    options.batch = 16;
    options.samples = 64;
    options.valid_fraction = 0.01;
    options.checkpoint = "vanished/checkpoint";
    options.checkpoint_steps = 4; /* an epoch's last step */
    options.listener = remove_folder;
    options.user = v;
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .comm = comm}, &context));
    assert_ok(ek_net_create(context, "input 20\nlinear 4\nbatchnorm\nrelu\nlinear 10", NULL, &net));
    assert_ok(ek_net_init(net, EK_INIT_DEFAULT, 1));
    v->status = ek_train(net, v->data, NULL, &options);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

/* Rank 0 alone writes, and all ranks know what became of it: one that thought it was written would go another way. */
static void a_checkpoint_that_fails_ends_no_rank(void **state)
{
    (void)state;
    vanishing_run of[2] = {{.folder = "vanished"}, {.folder = NULL}};
    ek_dataset *data;
    assert_ok(ek_dataset_open("synthetic:20", EK_SPLIT_TRAIN, &data));
    assert_int_equal(mkdir("vanished", 0777), 0);
    of[0].data = of[1].data = data;
    run_ranks(2, train_without_folder, of, sizeof of[0]);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(of[r].status, EK_E_IO);
        assert_int_equal(of[r].failed, 6); /* every four of 8 steps, before each measuring and after it */
        assert_int_equal(of[r].epochs, 2);
    }
    ek_dataset_destroy(data);
}

/* Of one batch rank 0 has nothing to run, and waits for rank 1 however long it takes. */
static void measure_late(ek_comm *comm, void *argument)
{
    const ek_dataset *data = *(ek_dataset **)argument;
    ek_context *context;
    ek_net *net;
    ek_metrics metrics = {0};
    assert_ok(ek_comm_set_timeout(comm, 0.2));
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1, .comm = comm}, &context));
    assert_ok(ek_net_create(context, "input 20\nlinear 10", NULL, &net));
    if (comm->rank == 1) usleep(600000);
    assert_ok(ek_evaluate(net, data, ek_dataset_count(data), &metrics));
    assert_true(metrics.count == ek_dataset_count(data));
    ek_net_destroy(net);
    ek_context_destroy(context);
}

static void a_rank_without_a_batch_is_patient(void **state)
{
    (void)state;
    ek_dataset *data;
    assert_ok(ek_dataset_open("synthetic:20", EK_SPLIT_TEST, &data));
    ek_dataset *of[2] = {data, data};
    run_ranks(2, measure_late, of, sizeof of[0]);
    ek_dataset_destroy(data);
}

static void what_cannot_be_done_is_said(void **state)
{
    (void)state;
    ek_context *context;
    ek_net *net;
    ek_trainer *trainer;
    ek_step_result result;
    float x[10] = {0};
    int32_t labels[5] = {0};
    ek_optimizer_options options = ek_optimizer_options_default(EK_OPTIMIZER_SGD);
    assert_ok(ek_context_create(&(ek_context_options){.threads = 1}, &context));
    assert_ok(ek_net_create(context, "input 2\nlinear 3\nbn: batchnorm\nlinear 2", NULL, &net));
    assert_ok(ek_trainer_create(net, &options, 1, &trainer));
    assert_fails(EK_E_SHAPE, "shard 0 of 4 has 1 of a batch's 5 samples: bn",
                 ek_trainer_step_in_shards(trainer, 5, 4, true, x, labels, &result));
    assert_fails(EK_E_ARGUMENT, "1 to 65536", ek_trainer_step_in_shards(trainer, 5, -1, false, x, labels, &result));
    assert_fails(EK_E_SHAPE, "one value a channel", ek_trainer_step_in_shards(trainer, 1, 2, false, x, labels, &result));
    assert_fails(EK_E_SHAPE, "1 sample or more", ek_trainer_step_in_shards(trainer, 0, 2, false, x, labels, &result));
    ek_trainer_destroy(trainer);
    ek_net_destroy(net);
    ek_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_the_whole_batch),  cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(ranks_give_the_bits_of_shards), cmocka_unit_test(many_buckets),
        cmocka_unit_test(local_is_ghost),              cmocka_unit_test(empty_shards_are_left_out),
        cmocka_unit_test(nothing_is_left_over),        cmocka_unit_test(a_shard_that_fails_ends_its_rank),
        cmocka_unit_test(a_checkpoint_that_fails_ends_no_rank), cmocka_unit_test(a_rank_without_a_batch_is_patient),
        cmocka_unit_test(close_to_double),
        cmocka_unit_test(what_cannot_be_done_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
