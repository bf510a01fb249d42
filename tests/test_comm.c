/* What ranks exchange: merges in a fixed order, broadcasts, sums of long vectors, and what becomes of a rank that is silent. */
#include "thread_comm.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* Not associative, nor the same either way round: it shows the order in which all were merged. */
static void merge_order(double *into, const double *other, int64_t count)
{
    for (int64_t i = 0; i < count; i++) into[i] = into[i] * 0.7310585786 + other[i] * 1.3130352854 + 0.1;
}

static double number(int rank, int64_t i) { return sin((double)(rank * 31 + i * 7 + 1)); }

static double by_tree(int ranks, int64_t i)
{
    double v[MOST_RANKS];
    for (int r = 0; r < ranks; r++) v[r] = number(r, i);
    for (int gap = 1; gap < ranks; gap *= 2)
        for (int r = 0; r + gap < ranks; r += 2 * gap) merge_order(&v[r], &v[r + gap], 1);
    return v[0];
}

enum { COUNT = 37 };

static void merge_twice(ek_comm *comm, void *argument)
{
    double *data = argument;
    for (int turn = 0; turn < 2; turn++) { /* nothing may be left over */
        for (int64_t i = 0; i < COUNT; i++) data[i] = number(comm->rank, i);
        assert_ok(ek_comm_merge(comm, data, COUNT, merge_order));
    }
}

static void merges_by_the_tree(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= MOST_RANKS; ranks++) {
        double data[MOST_RANKS][COUNT];
        run_ranks(ranks, merge_twice, data, sizeof data[0]);
        for (int r = 0; r < ranks; r++)
            for (int64_t i = 0; i < COUNT; i++) assert_true(data[r][i] == by_tree(ranks, i));
    }
}

static void broadcast(ek_comm *comm, void *argument)
{
    int64_t *word = argument;
    for (int root = 0; root < comm->ranks; root++) {
        *word = comm->rank == root ? 4711 + root : -comm->rank;
        assert_ok(ek_comm_broadcast(comm, root, word, sizeof *word));
        assert_int_equal(*word, 4711 + root);
    }
    assert_fails(EK_E_ARGUMENT, "no rank", ek_comm_broadcast(comm, comm->ranks, word, sizeof *word));
}

static void broadcasts_reach_all(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= MOST_RANKS; ranks++) {
        int64_t word[MOST_RANKS] = {0};
        run_ranks(ranks, broadcast, word, sizeof word[0]);
        for (int r = 0; r < ranks; r++) assert_int_equal(word[r], 4711 + ranks - 1);
    }
}

/* One bucket is smaller than there are ranks, one is empty. */
static const int64_t bucket_end[] = {101, 104, 104, 200};
enum { BUCKETS = 4, FLOATS = 200 };

static float item(int rank, int64_t i) { return (float)number(rank, i) * (rank % 2 ? 1e3f : 1e-3f); }

typedef struct summed {
    float sum[FLOATS];
    ek_traffic sent;
} summed;

static void sum_up(ek_comm *comm, void *argument)
{
    summed *out = argument;
    ek_sum *sum;
    assert_ok(ek_sum_create(comm, bucket_end, BUCKETS, &sum));
    for (int turn = 0; turn < 2; turn++) {
        ek_traffic before = ek_comm_sent(comm);
        for (int b = 0; b < BUCKETS; b++) {
            for (int64_t i = b ? bucket_end[b - 1] : 0; i < bucket_end[b]; i++) ek_sum_vector(sum)[i] = item(comm->rank, i);
            assert_ok(ek_sum_start(sum, b));
            if (b % 2) assert_ok(ek_sum_poll(sum));
        }
        assert_ok(ek_sum_finish(sum));
        ek_traffic after = ek_comm_sent(comm);
        out->sent = (ek_traffic){after.messages - before.messages, after.bytes - before.bytes};
    }
    memcpy(out->sum, ek_sum_vector(sum), sizeof out->sum);
    ek_sum_destroy(sum);
}

static void sums_by_the_tree(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= MOST_RANKS; ranks++) {
        static summed out[MOST_RANKS];
        int64_t bytes = 0;
        run_ranks(ranks, sum_up, out, sizeof out[0]);
        for (int64_t i = 0; i < FLOATS; i++) {
            float v[MOST_RANKS];
            for (int r = 0; r < ranks; r++) v[r] = item(r, i);
            for (int gap = 1; gap < ranks; gap *= 2)
                for (int r = 0; r + gap < ranks; r += 2 * gap) v[r] += v[r + gap];
            for (int r = 0; r < ranks; r++) assert_true(out[r].sum[i] == v[0]);
        }
        for (int r = 0; r < ranks; r++) bytes += out[r].sent.bytes;
        assert_int_equal(bytes, 2 * (ranks - 1) * FLOATS * (int64_t)sizeof(float)); /* the least there can be */
    }
}

static void wait_in_vain(ek_comm *comm, void *argument)
{
    ek_status *status = argument;
    double x = 1;
    assert_ok(ek_comm_set_timeout(comm, 0.2));
    *status = ek_comm_merge(comm, &x, 1, ek_merge_sum);
    if (*status == EK_OK) return;
    assert_non_null(strstr(ek_error(), "rank 1, which hangs"));
    assert_fails(EK_E_RANK, "are lost", ek_comm_merge(comm, &x, 1, ek_merge_sum)); /* without waiting again */
}

static void silence_is_noticed(void **state)
{
    (void)state;
    ek_status status[2];
    the_post.silent = 1;
    run_ranks(2, wait_in_vain, status, sizeof status[0]);
    the_post.silent = -1;
    assert_int_equal(status[0], EK_E_RANK);
    assert_int_equal(status[1], EK_OK);
    assert_fails(EK_E_ARGUMENT, "more than 0", ek_comm_set_timeout(NULL, 0));
    assert_fails(EK_E_ARGUMENT, "more than 0", ek_comm_set_timeout(NULL, NAN));
}

/* A rank that is stopped while it waits, as all ranks of a job may be, and goes on after longer than the timeout. */
static atomic_bool awake;

static ek_status test_and_rest(ek_comm *comm, ek_requests *requests, bool *done)
{
    static int looks;
    if (++looks == 300) {
        nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 500000000}, NULL);
        awake = true;
    }
    return thread_test(comm, requests, done);
}

static void rest(ek_comm *comm, void *argument)
{
    static const ek_driver resting = {thread_create_requests, thread_destroy_requests, thread_start, test_and_rest, thread_destroy};
    ek_status *status = argument;
    double x = 1;
    assert_ok(ek_comm_set_timeout(comm, 1));
    if (comm->rank == 0) comm->driver = &resting;
    while (comm->rank == 1 && !awake) sched_yield();
    *status = ek_comm_merge(comm, &x, 1, ek_merge_sum);
}

static void own_rest_is_not_silence(void **state)
{
    (void)state;
    ek_status status[2];
    run_ranks(2, rest, status, sizeof status[0]);
    assert_int_equal(status[0], EK_OK);
    assert_int_equal(status[1], EK_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_the_tree),
        cmocka_unit_test(broadcasts_reach_all),
        cmocka_unit_test(sums_by_the_tree),
        cmocka_unit_test(silence_is_noticed),
        cmocka_unit_test(own_rest_is_not_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
