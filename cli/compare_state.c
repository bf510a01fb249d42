/* The state of a comparison: a line of JSON that says what is compared, then one for each finished run. */
#include "compare.h"
#include "epoch_json.h"
#include "output.h"
#include "ranks.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- writing */

static json_t *vary_json(const comparison *c, const compare_combination *at)
{
    json_t *vary = json_object();
    for (int k = 0; k < c->keys; k++)
        json_object_set_new(vary, c->key[k].name, cli_json_text(compare_value(c, at, k)));
    return vary;
}

json_t *compare_run_json(const comparison *c, const compare_combination *at, int64_t number)
{
    const compare_run *run = &at->run[number];
    json_t *object = json_object(), *epochs = json_array();
    json_object_set_new(object, "vary", vary_json(c, at));
    json_object_set_new(object, "seed", json_integer(compare_seed(c, number)));
    json_object_set_new(object, "outcome", json_string(compare_outcome_word[run->outcome]));
    if (*run->reason) json_object_set_new(object, "reason", cli_json_text(run->reason));
    cli_json_number(object, "final", run->final);
    cli_json_number(object, "best", run->best);
    json_object_set_new(object, "best_epoch", json_integer(run->best_epoch));
    cli_json_number(object, "train_accuracy", run->train_accuracy);
    cli_json_number(object, "train_loss", run->train_loss);
    cli_json_number(object, "seconds", run->seconds);
    cli_json_number(object, "images_per_second", run->images_per_second);
    json_object_set_new(object, "skipped", json_integer(run->skipped));
    for (int i = 0; i < run->epochs; i++) json_array_append_new(epochs, cli_epoch_json(&run->epoch[i]));
    json_object_set_new(object, "epochs", epochs);
    return object;
}

/* All that must be the same for a run to count: net, data and options. */
static json_t *header_json(const comparison *c)
{
    const compare_settings *s = c->s;
    ek_train_options o = cli_train_options(&s->training);
    json_t *h = json_pack("{s:s}", "evenkeel", "compare");
    json_object_set_new(h, "net", json_string(ek_net_text(c->net)));
    json_object_set_new(h, "data", cli_json_text(s->training.data));
    json_object_set_new(h, "train_samples", json_integer(ek_dataset_count(c->train)));
    json_object_set_new(h, "test_samples", json_integer(c->test ? ek_dataset_count(c->test) : 0));
    json_object_set_new(h, "epochs", json_integer(o.epochs));
    json_object_set_new(h, "batch", json_integer(o.batch));
    /* A state of before there was accumulation lacks it. */
    if (o.accumulate > 1) json_object_set_new(h, "accumulate", json_integer(o.accumulate));
    json_object_set_new(h, "samples", json_integer(o.samples));
    json_object_set_new(h, "optimizer", json_integer(s->training.optimizer));
    cli_json_number(h, "lr", s->training.lr);
    json_object_set_new(h, "momentum", json_real(s->training.momentum));
    json_object_set_new(h, "nesterov", json_boolean(s->training.nesterov));
    cli_json_number(h, "weight-decay", s->training.weight_decay);
    json_object_set_new(h, "no-decay-norm", json_boolean(s->training.no_decay_norm));
    json_object_set_new(h, "clip", json_real(s->training.clip));
    json_object_set_new(h, "init", cli_json_text(s->init ? s->init : "default"));
    json_object_set_new(h, "schedule", json_integer(s->training.schedule));
    json_object_set_new(h, "step-epochs", json_integer(o.step_epochs));
    json_object_set_new(h, "lr-decay", json_real(o.decay));
    json_object_set_new(h, "warmup", json_real(o.warmup_epochs));
    json_object_set_new(h, "valid", json_real(o.valid_fraction));
    json_object_set_new(h, "no-shuffle", json_boolean(s->training.no_shuffle));
    json_object_set_new(h, "drop-last", json_boolean(s->training.drop_last));
    return h;
}

static void write_line(compare_state *state, const json_t *line)
{
    if (!state->file || state->failed) return;
    if (cli_json_write_exact(state->file, line) && fflush(state->file) == 0 &&
        fsync(fileno(state->file)) == 0)
        return;
    state->failed = true;
    cli_fail("cannot write %s: %s; runs from here on are not in it", state->path, strerror(errno));
}

void compare_state_add(compare_state *state, const comparison *c, const compare_combination *at, int64_t run)
{
    json_t *line = compare_run_json(c, at, run);
    write_line(state, line);
    json_decref(line);
}

/* --- reading */

static compare_combination *find_combination(const comparison *c, const json_t *vary)
{
    for (int i = 0; i < c->count; i++) {
        json_t *own = vary_json(c, &c->at[i]);
        bool same = json_equal(own, vary);
        json_decref(own);
        if (same) return &c->at[i];
    }
    return NULL;
}

static bool read_run(const comparison *c, const json_t *line, compare_run *run)
{
    const char *word = json_string_value(json_object_get(line, "outcome"));
    const char *reason = json_string_value(json_object_get(line, "reason"));
    const json_t *epochs = json_object_get(line, "epochs");
    int outcome = COMPARE_OUTCOMES - 1;
    while (word && outcome > 0 && strcmp(word, compare_outcome_word[outcome]) != 0) outcome--;
    size_t count = json_array_size(epochs);
    if (!word || outcome == COMPARE_NOT_RUN || (int64_t)count > c->s->training.epochs) return false;
    run->outcome = outcome;
    run->reason = cli_text("%s", reason ? reason : "");
    run->skipped = json_integer_value(json_object_get(line, "skipped"));
    run->epoch = cli_alloc(count, sizeof *run->epoch);
    run->epochs = (int)count;
    for (int i = 0; i < run->epochs; i++) {
        run->epoch[i] = cli_epoch_from_json(json_array_get(epochs, (size_t)i));
        run->epoch[i].epoch = i + 1;
    }
    compare_measure_run(c, run);
    return true;
}

/* A run that this comparison has, and has not yet; others are left alone: it may be a part of a larger one. */
static bool take_run(comparison *c, const json_t *line, int *done)
{
    const json_t *vary = json_object_get(line, "vary"), *seed = json_object_get(line, "seed");
    if (!json_is_object(vary) || !json_is_integer(seed)) return false;
    compare_combination *at = find_combination(c, vary);
    int64_t index;
    bool far = __builtin_sub_overflow((int64_t)json_integer_value(seed), c->s->training.seed, &index);
    if (!at || far || index < 0 || index >= c->s->repeat || at->run[index].outcome != COMPARE_NOT_RUN)
        return true;
    if (!read_run(c, line, &at->run[index])) return false;
    ++*done;
    return true;
}

/* "its epochs is 3, not 5" */
static bool same_comparison(const comparison *c, const json_t *there, const char *path)
{
    json_t *here = header_json(c), *value;
    const char *key = NULL, *at;
    json_object_foreach(here, at, value)
    {
        if (!key && !json_equal(json_object_get(there, at), value)) key = at;
    }
    /* One that was left to its default is not there. */
    json_object_foreach((json_t *)there, at, value)
    {
        if (!key && !json_object_get(here, at)) key = at;
    }
    if (key && strcmp(key, "net") == 0) {
        cli_fail("%s is of another comparison: its net is another", path);
    } else if (key) {
        char *was = json_dumps(json_object_get(there, key), JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        char *is = json_dumps(json_object_get(here, key), JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        cli_fail("%s is of another comparison: its %s is %s, not %s; give the options that it began with, or "
                 "another file",
                 path, key, was ? was : "not given", is ? is : "left to its default");
        free(was);
        free(is);
    }
    json_decref(here);
    return !key;
}

static bool read_line(comparison *c, const char *path, int number_of, const char *text, size_t length,
                      int *done)
{
    json_error_t error;
    json_t *line = json_loadb(text, length, 0, &error);
    const char *kind = json_string_value(json_object_get(line, "evenkeel"));
    bool fine = true;
    if (number_of == 1 && (!kind || strcmp(kind, "compare") != 0)) {
        cli_fail("%s is not the state of a comparison; give another file", path);
        fine = false;
    } else if (number_of == 1) {
        fine = same_comparison(c, line, path);
    } else if (!take_run(c, line, done)) {
        cli_fail("%s:%d: not a run of a comparison; take the line out, or give another file", path,
                 number_of);
        fine = false;
    }
    json_decref(line);
    return fine;
}

/* A last line without its end was cut off as it was written, and goes. */
static bool read_all(compare_state *state, comparison *c, int *done, int *lines)
{
    char *text = NULL;
    size_t room = 0;
    off_t whole = 0;
    bool fine = true;
    *lines = 0;
    for (ssize_t length; fine && (length = getline(&text, &room, state->file)) > 0;) {
        if (text[length - 1] != '\n') break;
        fine = read_line(c, state->path, ++*lines, text, (size_t)length, done);
        whole += length;
    }
    free(text);
    if (fine && *lines == 0 && fseek(state->file, 0, SEEK_END) == 0 && ftell(state->file) > 0) {
        cli_fail("%s is not the state of a comparison; give another file", state->path);
        return false;
    }
    if (fine && ftruncate(fileno(state->file), whole) == 0) return true;
    if (fine) cli_fail("cannot write %s: %s", state->path, strerror(errno));
    return false;
}

bool compare_state_open(compare_state *state, comparison *c, int *done)
{
    *state = (compare_state){.path = c->s->state};
    *done = 0;
    if (!state->path) return true;
    struct stat info;
    state->file = fopen(state->path, "a+");
    if (!state->file || fstat(fileno(state->file), &info) != 0) {
        cli_fail("cannot write %s: %s", state->path, strerror(errno));
        return false;
    }
    if (!S_ISREG(info.st_mode)) {
        cli_fail("cannot keep the state in %s: it is not a regular file", state->path);
        return false;
    }
    if (flock(fileno(state->file), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        cli_fail("%s is in use by another comparison", state->path);
        return false;
    }
    int lines;
    rewind(state->file);
    if (!read_all(state, c, done, &lines)) return false;
    if (lines == 0) {
        json_t *header = header_json(c);
        write_line(state, header);
        json_decref(header);
    }
    return !state->failed;
}

void compare_state_close(compare_state *state)
{
    if (state->file) fclose(state->file);
    state->file = NULL;
}

/* --- ranks */

/* A text of the root, of any length, on all; free it. NULL: the other ranks are lost, which was said. */
static char *share_text(int root, char *text)
{
    int64_t length = text ? (int64_t)strlen(text) : 0;
    bool own = ek_comm_rank(cli_comm()) == root,
         fine = ek_comm_broadcast(cli_comm(), root, &length, sizeof length) == EK_OK;
    char *shared = cli_alloc((size_t)length + 1, 1);
    if (own && text) memcpy(shared, text, (size_t)length);
    fine = fine && ek_comm_broadcast(cli_comm(), root, shared, (size_t)length) == EK_OK;
    free(text);
    if (fine) return shared;
    cli_fail_status();
    free(shared);
    return NULL;
}

bool compare_share_run(comparison *c, int root, compare_combination *at, int64_t run)
{
    bool own = ek_comm_rank(cli_comm()) == root, known = own && at->run[run].outcome != COMPARE_NOT_RUN;
    json_t *object = known ? compare_run_json(c, at, run) : NULL;
    char *text = share_text(root, object ? json_dumps(object, JSON_COMPACT) : NULL);
    json_decref(object);
    if (!text) return false;
    json_t *line = *text && !own ? json_loads(text, 0, NULL) : NULL;
    bool fine = !line || read_run(c, line, &at->run[run]);
    json_decref(line);
    free(text);
    return fine;
}

bool compare_share_all(comparison *c, int *done)
{
    int64_t count = *done;
    if (!cli_comm()) return true;
    if (ek_comm_broadcast(cli_comm(), 0, &count, sizeof count) != EK_OK) {
        cli_fail_status();
        return false;
    }
    *done = (int)count;
    for (int64_t k = 0; count > 0 && k < c->count * c->s->repeat; k++) {
        if (!compare_share_run(c, 0, &c->at[k % c->count], k / c->count)) return false;
    }
    return true;
}
