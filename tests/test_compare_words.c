/* What `evenkeel compare` says of figures: no more than they show. */
#include "testing.h"

#include "../cli/compare_figures.c"
#include "../cli/compare_words.c"
#include "../cli/output.c"

#include <math.h>

const char *const compare_outcome_word[COMPARE_OUTCOMES] = {"not run", "learned", "at chance", "diverged", "failed"};

enum { MOST = 9, SEEDS = 3 };

/* A comparison by hand: the final accuracies of each combination's seeds. */
typedef struct made {
    compare_settings s;
    comparison c;
    compare_combination at[MOST];
    compare_run run[MOST][SEEDS];
    char name[MOST][32];
    char reason[32];
} made;

static void begin(made *m, int seeds)
{
    memset(m, 0, sizeof *m);
    m->s = (compare_settings){.net = "net", .repeat = seeds, .training = {.epochs = 2, .seed = 1}};
    m->c = (comparison){.s = &m->s, .at = m->at, .measured = "test", .measured_count = 10000, .keys = 1};
    m->c.key[0] = (compare_key){.name = (char *)"key"};
    strcpy(m->reason, "it went wrong");
}

static void add(made *m, double a, double b, double c)
{
    int i = m->c.count++;
    const double final[SEEDS] = {a, b, c};
    snprintf(m->name[i], sizeof m->name[i], "key=%c", 'a' + i);
    m->at[i] = (compare_combination){.value = {i}, .name = m->name[i], .run = m->run[i]};
    m->c.key[0].count = m->c.count;
    for (int r = 0; r < m->s.repeat; r++)
        m->run[i][r] = (compare_run){.outcome = COMPARE_LEARNED,
                                     .reason = m->reason,
                                     .epochs = 2,
                                     .final = final[r],
                                     .best = final[r],
                                     .train_accuracy = 0.95,
                                     .train_loss = 0.1,
                                     .seconds = 2,
                                     .images_per_second = 1000};
}

static void says(const made *m, const char *expected)
{
    char *words = compare_words(&m->c);
    assert_string_equal(words, expected);
    free(words);
}

/* By hand: a ± 0.01, b within it, c far below. */
static void several_seeds(void **state)
{
    (void)state;
    made m;
    begin(&m, 3);
    add(&m, 0.90, 0.91, 0.92);
    add(&m, 0.89, 0.91, 0.90);
    add(&m, 0.70, 0.71, 0.72);
    m.run[2][0].seconds = 8;
    says(&m, "After 2 epochs key=a has the highest test accuracy, 0.9100 ± 0.0100 (mean and standard deviation of 3 seeds). "
             "No difference to it that these seeds can show: key=b (0.9000). Lower, by more than the seeds' deviation "
             "explains: key=c by 0.2000. The training accuracy of the last epoch less the test accuracy goes from 0.0400 "
             "(key=a) to 0.2400 (key=c). A run takes from 2 s (key=a) to 4 s (key=c).");
    /* Two of three are too few to compare what is left with. */
    m.run[1][0].outcome = m.run[1][1].outcome = COMPARE_DIVERGED;
    m.run[2][1].outcome = COMPARE_FAILED;
    m.run[2][0].seconds = 2;
    says(&m, "After 2 epochs key=a has the highest test accuracy, 0.9100 ± 0.0100 (mean and standard deviation of 3 seeds). "
             "Lower, by more than the seeds' deviation explains: key=c by 0.2000. Lower, but of too few seeds to judge: "
             "key=b by 0.0100. Diverged: key=b (2 of 3 runs), in the first of which it went wrong. Failed: key=c (1 of 3 runs), where it "
             "went wrong. The training accuracy of the last epoch less the test accuracy goes from 0.0400 (key=a) to 0.2400 "
             "(key=c). All take about as long, 2 s a run.");
}

static void one_seed(void **state)
{
    (void)state;
    made m;
    begin(&m, 1);
    add(&m, 0.8, 0, 0);
    says(&m, "After 2 epochs key=a has a test accuracy of 0.8000. Each was trained with one seed, so that the figures do not "
             "say what of this is chance; --repeat 3 would. Measuring on 10,000 samples alone leaves an accuracy uncertain "
             "by 0.0078.");
    add(&m, 0.9, 0, 0);
    add(&m, 0.5, 0, 0);
    m.run[2][0].outcome = COMPARE_AT_CHANCE;
    says(&m, "After 2 epochs key=b has the highest test accuracy, 0.9000; the next is key=a with 0.8000. Each was trained with "
             "one seed, so that the figures do not say what of this is chance; --repeat 3 would. Measuring on 10,000 samples "
             "alone leaves an accuracy uncertain by 0.0059. No better than chance: key=c, where it went wrong. The training "
             "accuracy of the last epoch less the test accuracy goes from 0.0500 (key=b) to 0.1500 (key=a). All take about as "
             "long, 2 s a run.");
    for (int i = 0; i < 3; i++) m.run[i][0].outcome = COMPARE_DIVERGED;
    says(&m, "No combination learned. Diverged: key=a, key=b and key=c.");
    m.c.stopped = true;
    for (int i = 1; i < 3; i++) m.run[i][0].outcome = COMPARE_NOT_RUN;
    says(&m, "Stopped after 1 of 3 runs. No combination learned. Diverged: key=a, where it went wrong.");
}

static void many_are_counted(void **state)
{
    (void)state;
    made m;
    begin(&m, 1);
    for (int i = 0; i < MOST; i++) {
        add(&m, 0, 0, 0);
        m.run[i][0].outcome = COMPARE_AT_CHANCE;
    }
    says(&m, "No combination learned. No better than chance: key=a, key=b, key=c, key=d, key=e, key=f and 3 more.");
}

/* With two keys, the best of each value of the first. */
static void two_keys(void **state)
{
    (void)state;
    made m;
    begin(&m, 3);
    for (int i = 0; i < 4; i++) {
        double base = i == 1 ? 0.9 : i == 2 ? 0.8 : 0.5;
        add(&m, base, base, base);
        m.at[i].value[0] = i / 2;
        m.at[i].value[1] = i % 2;
    }
    m.c.keys = 2;
    m.c.key[0].count = m.c.key[1].count = 2;
    char *words = compare_words(&m.c);
    assert_non_null(strstr(words, " The best of each key: key=b (0.9000 ± 0.0000) and key=c (0.8000 ± 0.0000)."));
    assert_non_null(strstr(words, "explains: key=c by 0.1000, key=a by 0.4000 and key=d by 0.4000."));
    free(words);
}

/* Against scipy.stats.ttest_ind(equal_var=False): means 0 and d, deviations 1 and 2, 3 and 4 runs: p = 0.05 at
 * d = 3.0103. */
static void welch(void **state)
{
    (void)state;
    assert_false(compare_differ(0, 1, 3, 2.8, 2, 4));
    assert_true(compare_differ(0, 1, 3, 3.3, 2, 4));
    assert_true(compare_differ(3.3, 2, 4, 0, 1, 3));
    assert_false(compare_differ(0.5, 0, 2, 0.5, 0, 2));
    assert_true(compare_differ(0.5, 0, 2, 0.6, 0, 2));
    assert_false(compare_differ(0, 1, 1000, 0.08, 1, 1000));
    assert_true(compare_differ(0, 1, 1000, 0.1, 1, 1000));
}

static void figures(void **state)
{
    (void)state;
    made m;
    begin(&m, 3);
    add(&m, 0.1, 0.2, 0.6);
    compare_figures f = compare_figures_of(&m.c, &m.at[0]);
    assert_float_equal(f.final, 0.3, 1e-12);
    assert_float_equal(f.final_deviation, 0.264575131, 1e-9);
    m.run[0][0].outcome = COMPARE_DIVERGED;
    m.run[0][1].outcome = COMPARE_AT_CHANCE;
    f = compare_figures_of(&m.c, &m.at[0]);
    assert_float_equal(f.final, 0.4, 1e-12);
    assert_int_equal(f.count, 2);
    char *outcomes = compare_outcomes(&f);
    assert_string_equal(outcomes, "1 learned, 1 at chance, 1 diverged");
    free(outcomes);
    m.run[0][1].outcome = m.run[0][2].outcome = COMPARE_FAILED;
    f = compare_figures_of(&m.c, &m.at[0]);
    assert_float_equal(f.final, 0.1, 1e-12);
    assert_true(isnan(f.final_deviation));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_seeds), cmocka_unit_test(one_seed), cmocka_unit_test(many_are_counted),
        cmocka_unit_test(two_keys),      cmocka_unit_test(welch),    cmocka_unit_test(figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
