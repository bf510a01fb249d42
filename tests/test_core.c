/* Memory, random numbers, threads, texts, replacing files. */
#include "testing.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/shape.h"
#include "core/text.h"
#include "core/threads.h"

#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void memory_is_zeroed_aligned_and_counted(void **state)
{
    (void)state;
    size_t before = ek_memory_count().live_bytes;
    char *p = ek_calloc(3, 100);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % EK_ALIGN, 0);
    for (int i = 0; i < 300; i++) assert_int_equal(p[i], 0);
    assert_int_equal(ek_memory_count().live_bytes - before, 300);
    p[299] = 1;
    p = ek_grow(p, 4, 100);
    assert_int_equal(p[299], 1);
    assert_int_equal(p[300], 0);
    ek_free(p);
    assert_int_equal(ek_memory_count().live_bytes, before);
}

#ifdef __SANITIZE_ADDRESS__
int __asan_address_is_poisoned(const volatile void *address);
static bool is_out_of_bounds(const volatile char *at) { return __asan_address_is_poisoned(at); }

static void the_sanitizer_knows_where_a_block_ends(void **state)
{
    (void)state;
    for (size_t size = 0; size < 3 * EK_ALIGN; size++) {
        char *p = ek_calloc(size, 1);
        assert_non_null(p);
        assert_true(is_out_of_bounds(p - 1));
        assert_true(is_out_of_bounds(p + size));
        assert_true(size == 0 || (!is_out_of_bounds(p) && !is_out_of_bounds(p + size - 1)));
        ek_free(p);
    }
}
#endif

static void memory_refuses_overflow_and_fails_on_demand(void **state)
{
    (void)state;
    assert_null(ek_calloc(SIZE_MAX / 2, 3));
    assert_non_null(strstr(ek_error(), "more than memory can hold"));
    assert_null(ek_calloc(SIZE_MAX / 4, 1));
    /* More than the machine has, and less than its address space: refused, not promised. */
    assert_null(ek_calloc((size_t)sysconf(_SC_PHYS_PAGES) + 1, (size_t)sysconf(_SC_PAGESIZE)));
    assert_non_null(strstr(ek_error(), "more than memory can hold"));
    ek_memory_fail_after(2);
    void *first = ek_calloc(1, 1), *second = ek_calloc(1, 1), *third = ek_calloc(1, 1);
    ek_memory_fail_after(0);
    assert_non_null(first);
    assert_null(second);
    assert_null(third);
    ek_free(first);
}

/* Known answers of Random123's kat_vectors for philox4x32-10. */
static void philox_gives_the_published_numbers(void **state)
{
    (void)state;
    uint32_t out[4];
    ek_philox(0, 0, 0, 0, out);
    assert_int_equal(out[0], 0x6627e8d5u);
    assert_int_equal(out[1], 0xe169c58du);
    assert_int_equal(out[2], 0xbc57ac4cu);
    assert_int_equal(out[3], 0x9b00dbd8u);
    ek_philox(UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT64_MAX, out);
    assert_int_equal(out[0], 0x408f276du);
    assert_int_equal(out[1], 0x41c83b0eu);
    assert_int_equal(out[2], 0xa20bc7c6u);
    assert_int_equal(out[3], 0x6d5451fdu);
}

static void random_numbers_have_their_distributions(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    ek_random random = ek_random_start(1, EK_STREAM_TEST, 0);
    double sum = 0, squares = 0, uniform = 0;
    int64_t histogram[7] = {0};
    for (int i = 0; i < COUNT; i++) {
        double z = ek_random_normal(&random), u = ek_random_uniform(&random);
        sum += z;
        squares += z * z;
        uniform += u;
        assert_true(u >= 0 && u < 1);
        histogram[ek_random_below(&random, 7)]++;
    }
    assert_true(fabs(sum / COUNT) < 0.02);
    assert_true(fabs(squares / COUNT - 1) < 0.03);
    assert_true(fabs(uniform / COUNT - 0.5) < 0.01);
    for (int i = 0; i < 7; i++) assert_true(llabs(histogram[i] - COUNT / 7) < 600);

    int64_t items[100], seen[100] = {0};
    for (int i = 0; i < 100; i++) items[i] = i;
    ek_random_shuffle(&random, items, 100);
    bool moved = false;
    for (int i = 0; i < 100; i++) {
        seen[items[i]]++;
        moved |= items[i] != i;
    }
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    assert_true(moved);
}

enum { PIECES = 1000, NOBODY = 8 };

/* Plain ints: a piece given to two threads, or still running when its run returns, is a race that the thread sanitizer
 * sees. */
typedef struct marks {
    int threads;
    int done[PIECES], by_thread[NOBODY + 1];
} marks;

static void mark(void *argument, int64_t piece, int thread)
{
    marks *m = argument;
    m->done[piece]++;
    m->by_thread[thread >= 0 && thread < m->threads ? thread : NOBODY]++;
}

static void every_piece_runs_once(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 2, 3, 5, 7, 8, 9, 16, 31, 64, 257, PIECES};
    enum { SIZES = sizeof sizes / sizeof *sizes, ROUNDS = 1300 };
    for (int threads = 1; threads <= 8; threads++) {
        ek_pool *pool;
        assert_ok(ek_pool_create(threads, &pool));
        assert_int_equal(ek_pool_threads(pool), threads);
        marks m = {.threads = threads};
        int expected[PIECES] = {0}, all = 0, by_all = 0;
        for (int round = 0; round < ROUNDS; round++) {
            int64_t pieces = sizes[round % SIZES];
            ek_pool_run(pool, pieces, mark, &m);
            for (int64_t i = 0; i < pieces; i++) expected[i]++;
            all += (int)pieces;
            assert_memory_equal(m.done, expected, sizeof expected);
            if (round % 400 == 399) usleep(2000); /* now the workers sleep */
        }
        for (int i = 0; i < threads; i++) by_all += m.by_thread[i];
        assert_int_equal(by_all, all);
        ek_pool_destroy(pool);
    }
}

/* Pieces as unlike as can be, and pools that end at any moment. */
static void doze(void *argument, int64_t piece, int thread)
{
    (void)thread;
    if (piece == 0) usleep(300); /* longer than a caller looks before it sleeps */
    ((int *)argument)[piece]++;
}

static void slow_pieces_are_waited_for(void **state)
{
    (void)state;
    for (int round = 0; round < 60; round++) {
        ek_pool *pool;
        int done[12] = {0}, runs = round % 4;
        assert_ok(ek_pool_create(2 + round % 3, &pool));
        for (int i = 0; i < runs; i++) ek_pool_run(pool, 12, doze, done);
        for (int i = 0; i < 12; i++) assert_int_equal(done[i], runs);
        ek_pool_destroy(pool);
    }
}

/* Of two pieces each waits for the other to begin, so that they must be with two threads: a caller that leaves all
 * work undivided hangs. */
static void meet(void *argument, int64_t piece, int thread)
{
    (void)thread;
    atomic_int *begun = argument;
    atomic_store(&begun[piece], 1);
    while (!atomic_load(&begun[1 - piece])) sched_yield();
}

static void two_threads_work_at_once(void **state)
{
    (void)state;
    ek_pool *pool;
    assert_ok(ek_pool_create(2, &pool));
    for (int round = 0; round < 50; round++) {
        atomic_int begun[2] = {0};
        if (round % 10 == 0) usleep(2000);
        ek_pool_run(pool, 2, meet, begun);
    }
    ek_pool_destroy(pool);
}

static void the_nearest_name_is_found(void **state)
{
    (void)state;
    static const char *const names[] = {"kernel", "stride", "padding", "bias"};
    assert_string_equal(ek_nearest("kernl", names, 4), "kernel");
    assert_string_equal(ek_nearest("biass", names, 4), "bias");
    assert_string_equal(ek_nearest("tsride", names, 4), "stride");
    assert_null(ek_nearest("zebra", names, 4));
    assert_int_equal(ek_edit_distance("", "abc"), 3);
    assert_int_equal(ek_edit_distance("ab", "ba"), 1);
}

/* What stands in a message may come from a file, and a terminal obeys it. */
static void messages_are_plain(void **state)
{
    (void)state;
    assert_int_equal(ek_fail(EK_E_FORMAT, "no '%s' here", "a\x1b[2J\n\x7f\xc2\x9b\xff\xc3\xa4"), EK_E_FORMAT);
    assert_string_equal(ek_error(), "no 'a?[2J?????\xc3\xa4' here");
    assert_int_equal(ek_fail_in(EK_E_IO, "%.1s\t: ", "\xc3\xa4"), EK_E_IO); /* cut within a character */
    assert_string_equal(ek_error(), "??: no 'a?[2J?????\xc3\xa4' here");
    char endless[20000];
    memset(endless, 'x', sizeof endless);
    endless[sizeof endless - 1] = 0;
    ek_fail(EK_E_FORMAT, "%s", endless);
    ek_fail_in(EK_E_FORMAT, "%s", endless);
    assert_true(strlen(ek_error()) < sizeof endless);
}

static void memory_has_a_limit_on_demand(void **state)
{
    (void)state;
    size_t live = ek_memory_count().live_bytes;
    ek_memory_fail_beyond(live + 100);
    assert_null(ek_calloc(101, 1));
    void *block = ek_calloc(100, 1);
    assert_non_null(block);
    assert_null(ek_calloc(1, 1));
    ek_memory_fail_beyond(0);
    ek_free(block);
    assert_int_equal(ek_memory_count().live_bytes, live);
}

static void texts_grow(void **state)
{
    (void)state;
    ek_text text = {0};
    for (int i = 0; i < 1000; i++) ek_text_add(&text, "%d,", i);
    assert_ok(ek_text_status(&text));
    assert_int_equal(text.length, 3890);
    assert_string_equal(text.data + text.length - 4, "999,");
    ek_text_free(&text);
    char shape[EK_SHAPE_TEXT];
    assert_string_equal(ek_shape_text((ek_shape){3, {1, 28, 28}}, shape), "1x28x28");
}

static void write_file(const char *path, const char *content)
{
    ek_replacement r;
    assert_ok(ek_replace_begin(&r, path));
    assert_ok(ek_replace_write(&r, content, strlen(content)));
    assert_ok(ek_replace_finish(&r));
}

static void assert_content(const char *path, const char *content)
{
    unsigned char *data;
    size_t size;
    assert_ok(ek_file_read(path, 1000, &data, &size));
    assert_int_equal(size, strlen(content));
    assert_memory_equal(data, content, size);
    ek_free(data);
}

static void numbers_are_written_and_read(void)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.5, "-0.5"},
                 {0.1, "0.1"},
                 {1e-5, "1e-5"},
                 {4096, "4096"},
                 {1e300, "1e300"},
                 {-2.5e-300, "-2.5e-300"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e15, "1e15"},
                 {123456789.25, "123456789.25"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[EK_REAL_TEXT];
        assert_string_equal(ek_real_text(cases[i].value, text), cases[i].text);
        double value = 7;
        assert_true(ek_read_real(text, text + strlen(text), &value));
        assert_true(value == cases[i].value);
    }
    static const char *const none[] = {"", "0,5", "nan", "inf", "0x1", "1.5.2", "1e", "1 "};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        double value;
        assert_false(ek_read_real(none[i], none[i] + strlen(none[i]), &value));
    }
}

/* A locale with a decimal comma, made here, because a machine may have none: false where that cannot be done. */
static bool use_comma(const char *folder)
{
    char command[400];
    snprintf(command, sizeof command,
             "cd %s && printf 'LC_NUMERIC\\ndecimal_point \",\"\\nthousands_sep \"\"\\ngrouping -1\\n"
             "END LC_NUMERIC\\n' >comma && localedef -c -i ./comma ./xx_XX >log 2>&1",
             folder);
    (void)!system(command); /* it warns of all that a whole locale would have */
    setenv("LOCPATH", folder, 1);
    return setlocale(LC_NUMERIC, "xx_XX") && *localeconv()->decimal_point == ',';
}

static void numbers_have_a_point_in_every_locale(void **state)
{
    (void)state;
    numbers_are_written_and_read();
    char folder[] = "/tmp/ek_test_XXXXXX", command[64];
    assert_non_null(mkdtemp(folder));
    bool comma = use_comma(folder);
    if (comma) numbers_are_written_and_read();
    setlocale(LC_NUMERIC, "C");
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    if (!comma) skip(); /* localedef needs the package locales */
}

static void files_are_replaced_whole_or_not(void **state)
{
    (void)state;
    char folder[] = "/tmp/ek_test_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = ek_strf("%s/model", folder), *link = ek_strf("%s/link", folder);
    write_file(path, "one");
    assert_content(path, "one");
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(chmod(path, 0640), 0);
    write_file(link, "two");
    assert_content(path, "two");
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640); /* its permissions stay */

    ek_replacement r;
    assert_ok(ek_replace_begin(&r, path));
    assert_ok(ek_replace_write(&r, "thr", 3));
    ek_replace_cancel(&r);
    assert_content(path, "two");

    assert_fails(EK_E_NOT_FOUND, "cannot write", ek_replace_begin(&r, "/no/such/folder/model"));
    assert_fails(EK_E_IO, "folder", ek_replace_begin(&r, folder));
    assert_fails(EK_E_IO, "not a regular file", ek_replace_begin(&r, "/dev/full"));

    unsigned char *data;
    size_t size;
    assert_fails(EK_E_FORMAT, "at most 2", ek_file_read(path, 2, &data, &size));
    assert_fails(EK_E_IO, "folder", ek_file_read(folder, 10, &data, &size));
    unsigned char begin[4];
    assert_ok(ek_file_begin(path, sizeof begin, begin, &size));
    assert_int_equal(size, 3);
    assert_memory_equal(begin, "two", 3);
    assert_fails(EK_E_NOT_FOUND, "cannot open", ek_file_begin("/no/such/file", 1, begin, &size));
    unlink(path);
    /* A pipe that nobody writes into is refused, not waited for. */
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(EK_E_IO, "not a regular file", ek_file_read(path, 10, &data, &size));
    assert_fails(EK_E_IO, "not a regular file", ek_file_begin(path, sizeof begin, begin, &size));
    unlink(path);
    unlink(link);
    assert_int_equal(rmdir(folder), 0); /* nothing was left beside */
    ek_free(path);
    ek_free(link);
}

/* What a killed process left is taken away; what another one is writing is not. */
static void half_written_files_are_taken_away(void **state)
{
    (void)state;
    char folder[] = "/tmp/ek_test_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = ek_strf("%s/model", folder), *half = ek_strf("%s/model.unfinished", folder),
         *second = ek_strf("%s/model.unfinished-1", folder);
    int left = open(half, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(left, "ha", 2), 2);
    close(left);
    write_file(path, "one");
    assert_content(path, "one");
    assert_int_equal(access(half, F_OK), -1);

    ek_replacement first;
    assert_ok(ek_replace_begin(&first, path));
    assert_ok(ek_replace_write(&first, "first", 5));
    assert_int_equal(access(half, F_OK), 0);
    ek_replacement other;
    assert_ok(ek_replace_begin(&other, path));
    assert_int_equal(access(second, F_OK), 0);
    assert_ok(ek_replace_write(&other, "other", 5));
    assert_ok(ek_replace_finish(&other));
    assert_content(path, "other");
    assert_ok(ek_replace_finish(&first));
    assert_content(path, "first");
    assert_ok(ek_file_write(path, "all", 3));
    assert_content(path, "all");
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* nothing was left beside */
    ek_free(path);
    ek_free(half);
    ek_free(second);
}

static void a_claim_is_one_process_s(void **state)
{
    (void)state;
    char folder[] = "/tmp/ek_test_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = ek_strf("%s/model", folder), *lock = ek_strf("%s/model.lock", folder), *link = ek_strf("%s/link", folder);
    ek_claim *claim, *other;
    assert_int_equal(symlink(path, link), 0);
    write_file(path, "kept");
    assert_ok(ek_file_claim(path, &claim));
    assert_fails(EK_E_IO, "another run will (process ", ek_file_claim(path, &other));
    assert_fails(EK_E_IO, "name another file", ek_file_claim(link, &other));
    ek_claim_release(claim);
    assert_int_equal(access(lock, F_OK), -1);
    assert_content(path, "kept");
    int left = open(lock, O_WRONLY | O_CREAT, 0600); /* of a process that was killed */
    assert_int_equal(write(left, "process 1\n", 10), 10);
    close(left);
    assert_ok(ek_file_claim(link, &claim));
    ek_claim_release(claim);
    ek_claim_release(NULL);
    assert_int_equal(access(lock, F_OK), -1);
    assert_fails(EK_E_IO, "is a folder", ek_file_claim(folder, &claim));
    assert_fails(EK_E_NOT_FOUND, "cannot write /no/such", ek_file_claim("/no/such/folder/model", &claim));
    unlink(path);
    unlink(link);
    assert_int_equal(rmdir(folder), 0);
    ek_free(path);
    ek_free(lock);
    ek_free(link);
}

static void a_new_file_is_as_open_as_the_mask_allows(void **state)
{
    (void)state;
    static const mode_t rows[][2] = {{022, 0644}, {027, 0640}};
    char folder[] = "/tmp/ek_test_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = ek_strf("%s/model", folder);
    for (int i = 0; i < 2; i++) {
        struct stat info;
        mode_t before = umask(rows[i][0]);
        write_file(path, "one");
        mode_t after = umask(before);
        assert_int_equal(after, rows[i][0]);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, rows[i][1]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
    ek_free(path);
}

static void contexts_choose_and_refuse(void **state)
{
    (void)state;
    ek_context *context = NULL;
    ek_context_options options = {.threads = 3, .isa = "baseline"};
    assert_ok(ek_context_create(&options, &context));
    assert_int_equal(ek_context_threads(context), 3);
    assert_string_equal(ek_context_isa(context), "baseline");
    ek_context_destroy(context);
    options.isa = "avx9";
    assert_fails(EK_E_ARGUMENT, "avx9", ek_context_create(&options, &context));
    options.isa = "reference";
    assert_ok(ek_context_create(&options, &context));
    assert_string_equal(ek_context_isa(context), "reference");
    ek_context_destroy(context);
    options.threads = 300;
    assert_fails(EK_E_ARGUMENT, "300", ek_context_create(&options, &context));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_counted),
#ifdef __SANITIZE_ADDRESS__
        cmocka_unit_test(the_sanitizer_knows_where_a_block_ends),
#endif
        cmocka_unit_test(memory_refuses_overflow_and_fails_on_demand),
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(random_numbers_have_their_distributions),
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(slow_pieces_are_waited_for),
        cmocka_unit_test(two_threads_work_at_once),
        cmocka_unit_test(the_nearest_name_is_found),
        cmocka_unit_test(texts_grow),
        cmocka_unit_test(messages_are_plain),
        cmocka_unit_test(memory_has_a_limit_on_demand),
        cmocka_unit_test(numbers_have_a_point_in_every_locale),
        cmocka_unit_test(files_are_replaced_whole_or_not),
        cmocka_unit_test(half_written_files_are_taken_away),
        cmocka_unit_test(a_claim_is_one_process_s),
        cmocka_unit_test(a_new_file_is_as_open_as_the_mask_allows),
        cmocka_unit_test(contexts_choose_and_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
