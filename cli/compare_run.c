/* The runs, one after the other: of all combinations with the first seed, then with the next. So an unfinished
 * comparison says something of each, and whatever else the machine does falls upon all. Of several ranks each makes a run by itself;
 * then they tell each other what came of it. */
#include "compare.h"
#include "output.h"
#include "progress.h"
#include "ranks.h"
#include "stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const compare_outcome_word[COMPARE_OUTCOMES] = {"not run", "learned", "at chance", "diverged", "failed"};

double compare_accuracy(const comparison *c, const ek_event *epoch)
{
    switch (c->measure) {
    case COMPARE_TEST: return epoch->test_accuracy;
    case COMPARE_VALID: return epoch->valid_accuracy;
    case COMPARE_TRAIN: break;
    }
    return epoch->train_accuracy;
}

void compare_measure_run(const comparison *c, compare_run *run)
{
    run->final = run->best = run->train_accuracy = run->train_loss = run->seconds = run->images_per_second = NAN;
    run->best_epoch = 0;
    double inverse = 0; /* seconds for an image, summed over the epochs */
    for (int i = 0; i < run->epochs; i++) {
        const ek_event *epoch = &run->epoch[i];
        double accuracy = compare_accuracy(c, epoch);
        inverse += 1 / epoch->images_per_second;
        if (isnan(accuracy) || run->best >= accuracy) continue;
        run->best = accuracy;
        run->best_epoch = i + 1;
    }
    if (run->epochs == 0) return;
    const ek_event *last = &run->epoch[run->epochs - 1];
    run->final = compare_accuracy(c, last);
    run->train_accuracy = last->train_accuracy;
    run->train_loss = last->train_loss;
    run->seconds = last->seconds;
    run->images_per_second = run->epochs / inverse;
}

/* --- one run */

typedef struct watch {
    compare_run *run;
    cli_progress *progress;
    int64_t skipped, step; /* by the end of the last epoch */
    int64_t lost;          /* steps of the present epoch that changed nothing, of all its steps */
    int64_t steps;
    bool diverged;
} watch;

static bool listen(void *user, const ek_event *event)
{
    watch *w = user;
    compare_run *run = w->run;
    if (event->kind == EK_EVENT_STEP) {
        cli_progress_step(w->progress, event);
    } else if (event->kind == EK_EVENT_EPOCH) {
        run->epoch[run->epochs++] = *event;
        run->skipped = event->skipped;
        w->lost = event->skipped - w->skipped;
        w->steps = event->step - w->step;
        w->skipped = event->skipped;
        w->step = event->step;
        w->diverged = 2 * w->lost > w->steps;
    }
    return !w->diverged && !cli_stop_requested();
}

static void judge(const comparison *c, compare_run *run, const watch *w)
{
    double guessing = log(ek_dataset_classes(c->train)), q = c->chance;
    double error = sqrt(q * (1 - q) / (double)c->train_count);
    if (w->diverged) {
        run->outcome = COMPARE_DIVERGED;
        run->reason = cli_text("the loss or a gradient was not finite in %lld of the %lld steps of epoch %d",
                               (long long)w->lost, (long long)w->steps, run->epochs);
    } else if (!(run->train_loss <= 2 * guessing)) {
        run->outcome = COMPARE_DIVERGED;
        run->reason = cli_text("the training loss ended at %.4g, more than twice that of guessing, %.4g", run->train_loss,
                               guessing);
    } else if (run->train_accuracy <= q + 3 * error) {
        run->outcome = COMPARE_AT_CHANCE;
        run->reason = cli_text("the training accuracy ended at %.4f; the largest class has %.4f of the data",
                               run->train_accuracy, q);
    } else {
        run->outcome = COMPARE_LEARNED;
        run->reason = cli_text("%s", "");
    }
}

static ek_status train(const comparison *c, const compare_combination *at, int64_t seed, watch *w)
{
    ek_net *net = NULL;
    ek_status status = ek_net_create(c->context, at->net, at->name, &net);
    if (status == EK_OK) status = cli_init_net(net, at->s.init, (uint64_t)seed);
    if (status == EK_OK) {
        ek_train_options o = cli_train_options(&at->s.training);
        o.seed = (uint64_t)seed;
        o.listener = listen;
        o.user = w;
        status = ek_train(net, c->train, c->test, &o);
    }
    ek_net_destroy(net);
    return status;
}

/* False: it was stopped, and is as if it had not begun. */
static bool run_one(const comparison *c, compare_combination *at, int64_t number, cli_progress *progress)
{
    compare_run *run = &at->run[number];
    watch w = {.run = run, .progress = progress};
    run->epoch = cli_alloc((size_t)at->s.training.epochs, sizeof *run->epoch);
    ek_status status = train(c, at, compare_seed(c, number), &w);
    if (status == EK_E_INTERRUPTED && !w.diverged) {
        free(run->epoch);
        *run = (compare_run){0};
        return false;
    }
    compare_measure_run(c, run);
    if (status == EK_OK || w.diverged) {
        judge(c, run, &w);
    } else {
        run->outcome = COMPARE_FAILED;
        run->reason = cli_text("%s", ek_error());
    }
    return true;
}

/* --- all of them */

/* What the runs to come will take: as another seed of the same took, else as the mean of all that are done; where none
 * is, as the present one. */
static void look_ahead(const comparison *c, cli_progress *progress)
{
    double sum = 0;
    int64_t finished = 0, unknown = 0;
    progress->later_seconds = 0;
    for (int i = 0; i < c->count; i++) {
        double own = 0;
        int64_t known = 0, missing = 0;
        for (int64_t r = 0; r < c->s->repeat; r++) {
            const compare_run *run = &c->at[i].run[r];
            missing += run->outcome == COMPARE_NOT_RUN;
            if (run->outcome == COMPARE_NOT_RUN || isnan(run->seconds)) continue;
            own += run->seconds;
            known++;
        }
        sum += own;
        finished += known;
        if (known)
            progress->later_seconds += own / (double)known * (double)missing;
        else
            unknown += missing;
    }
    /* The present one is among the missing. */
    if (finished) {
        progress->later_seconds += sum / (double)finished * (double)unknown;
        progress->later_seconds -= progress->later_seconds / (double)(progress->runs - progress->run);
    }
    progress->later_runs = finished ? 0 : (int)(unknown - 1);
}

/* The next runs that nobody has made, one for each rank; -1: there are no more. */
static void deal(const comparison *c, int64_t *next, int ranks)
{
    int64_t all = c->count * c->s->repeat, k = 0;
    for (int rank = 0; rank < ranks; rank++) {
        while (k < all && c->at[k % c->count].run[k / c->count].outcome != COMPARE_NOT_RUN) k++;
        next[rank] = k < all ? k++ : -1;
    }
}

/* Own run, and then those of the others. */
static void run_round(comparison *c, compare_state *state, const int64_t *next, int ranks, cli_progress *progress)
{
    int64_t own = next[ek_comm_rank(cli_comm())];
    if (own >= 0) {
        compare_combination *at = &c->at[own % c->count];
        char *name = cli_text("run %d/%d %s", progress->run + 1, progress->runs, at->name);
        progress->name = name;
        look_ahead(c, progress);
        cli_progress_next(progress);
        if (!cli_stop_requested()) run_one(c, at, own / c->count, progress);
        cli_progress_clear(progress);
        free(name);
    }
    for (int rank = 0; rank < ranks && next[rank] >= 0; rank++) {
        compare_combination *at = &c->at[next[rank] % c->count];
        int64_t run = next[rank] / c->count;
        if (ranks > 1 && !compare_share_run(c, rank, at, run)) {
            c->stopped = true;
            return;
        }
        if (at->run[run].outcome == COMPARE_NOT_RUN) {
            c->stopped = true;
            continue;
        }
        compare_state_add(state, c, at, run);
        progress->run++;
    }
}

void compare_run_all(comparison *c, compare_state *state, int done)
{
    int ranks = ek_comm_ranks(cli_comm());
    int64_t *next = cli_alloc((size_t)ranks, sizeof *next);
    cli_progress progress;
    cli_progress_begin(&progress, c->s->quiet, NULL, NULL);
    progress.runs = (int)(c->count * c->s->repeat);
    progress.run = done;
    while (!c->stopped) {
        deal(c, next, ranks);
        if (next[0] < 0) break;
        run_round(c, state, next, ranks, &progress);
    }
    free(next);
}
