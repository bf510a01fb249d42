/* From --vary to the combinations: every net is built and every option checked before the first run. */
#include "common.h"
#include "compare.h"
#include "output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COMBINATIONS = 10000, SHOWN = 8 };

/* Keys that change no net: options of the training. */
static const char *const option_keys[] = {"batch", "lr", "optimizer", "init"};
enum { OPTION_KEYS = 4, MOST_NAMES = 32 };

static bool is_option(const char *key)
{
    for (int i = 0; i < OPTION_KEYS; i++) {
        if (strcmp(key, option_keys[i]) == 0) return true;
    }
    return false;
}

int compare_find_key(const comparison *c, const char *name)
{
    for (int k = 0; k < c->keys; k++) {
        if (strcmp(c->key[k].name, name) == 0) return k;
    }
    return -1;
}

/* --- reading --vary */

static int unknown_key(const cli_command *command, const char *key)
{
    const char *names[MOST_NAMES];
    int count = 0;
    for (; ek_vary_key(count); count++) names[count] = ek_vary_key(count);
    for (int i = 0; i < OPTION_KEYS; i++) names[count++] = option_keys[i];
    const char *near = cli_nearest(key, names, count);
    if (near) return cli_usage_error(command, "--vary knows no '%s'; did you mean '%s'?", key, near);
    return cli_usage_error(command, "--vary knows no '%s'; evenkeel help compare lists what it knows", key);
}

static bool is_known(const char *key)
{
    for (int i = 0; ek_vary_key(i); i++) {
        if (strcmp(key, ek_vary_key(i)) == 0) return true;
    }
    return is_option(key);
}

static int read_values(const cli_command *command, compare_key *key, const char *list)
{
    int most = 1;
    for (const char *at = list; *at; at++) most += *at == ',';
    key->value = cli_alloc((size_t)most, sizeof *key->value);
    for (const char *at = list;; at++) {
        int length = (int)strcspn(at, ",");
        if (length == 0) return cli_usage_error(command, "--vary %s=%s lacks a value", key->name, list);
        char *value = key->value[key->count++] = cli_text("%.*s", length, at);
        for (int i = 0; i < key->count - 1; i++) {
            if (strcmp(value, key->value[i]) == 0)
                return cli_usage_error(command, "--vary %s=%s has %s twice", key->name, list, value);
        }
        at += length;
        if (!*at) return CLI_DONE;
    }
}

static int read_vary(comparison *c, const cli_command *command)
{
    for (const char *const *word = c->s->vary.word; *word; word++) {
        size_t length = strcspn(*word, "=");
        if (!(*word)[length] || length == 0)
            return cli_usage_error(command, "--vary expects KEY=V1,V2,..., such as norm=batch,none, not '%s'", *word);
        char *name = cli_text("%.*s", (int)length, *word);
        bool twice = compare_find_key(c, name) >= 0;
        compare_key *key = &c->key[c->keys++];
        key->name = name;
        if (twice)
            return cli_usage_error(command, "%s is varied twice; give all its values at once: --vary %s=V1,V2,...", name,
                                   name);
        if (!is_known(name)) return unknown_key(command, name);
        int code = read_values(command, key, *word + length + 1);
        if (code) return code;
    }
    return CLI_DONE;
}

/* --- single values */

static int store_value(const cli_command *command, const char *key, const char *value, compare_settings *s)
{
    if (strcmp(key, "init") != 0) return cli_store(command, key, value, s) ? CLI_DONE : CLI_USAGE;
    s->init = value;
    return CLI_DONE;
}

static int check_init(const comparison *c, const cli_command *command, const char *init)
{
    if (!init) return CLI_DONE;
    const char *meant = cli_meant_init(init);
    if (meant) return cli_usage_error(command, "there is no init '%s'; did you mean '%s'?", init, meant);
    if (!cli_is_plain_init(init))
        return cli_usage_error(command, "init expects default, xavier, kaiming or a deviation such as 0.01, not '%s'",
                               init);
    /* As a trial: the net that was given is never trained. */
    if (cli_init_net(c->net, init, 1) != EK_OK) return cli_usage_error(command, "init=%s: %s", init, ek_error());
    return CLI_DONE;
}

static int check_value(const comparison *c, const cli_command *command, const char *key, const char *value)
{
    compare_settings trial = *c->s;
    if (strcmp(key, "init") == 0) return check_init(c, command, value);
    if (is_option(key)) return store_value(command, key, value, &trial);
    ek_net *net = NULL;
    ek_status status = ek_net_vary(c->net, key, value, &net);
    ek_net_destroy(net);
    /* What this net alone cannot take, it may together with another change. */
    if (status != EK_E_ARGUMENT) return CLI_DONE;
    return cli_usage_error(command, "--vary %s=%s: %s", key, value, ek_error());
}

static int check_values(const comparison *c, const cli_command *command)
{
    bool sgd = c->s->training.optimizer == EK_OPTIMIZER_SGD;
    int key = compare_find_key(c, "optimizer");
    for (int i = 0; key >= 0 && i < c->key[key].count; i++) sgd |= strcmp(c->key[key].value[i], "sgd") == 0;
    const char *wrong = cli_training_wrong(&c->s->training, sgd);
    if (wrong) return cli_usage_error(command, "%s", wrong);
    int code = check_init(c, command, c->s->init);
    for (int k = 0; k < c->keys && !code; k++) {
        for (int i = 0; i < c->key[k].count && !code; i++)
            code = check_value(c, command, c->key[k].name, c->key[k].value[i]);
    }
    return code;
}

/* --- combinations */

/* The net with all its changes, in the order in which they go together. */
static ek_status build_net(const comparison *c, const compare_combination *at, ek_net **out)
{
    ek_net *net = NULL;
    ek_status status = ek_net_create(c->context, ek_net_text(c->net), c->s->net, &net);
    for (int i = 0; status == EK_OK && ek_vary_key(i); i++) {
        int key = compare_find_key(c, ek_vary_key(i));
        if (key < 0) continue;
        ek_net *changed = NULL;
        status = ek_net_vary(net, ek_vary_key(i), compare_value(c, at, key), &changed);
        ek_net_destroy(net);
        net = changed;
    }
    if (status == EK_OK)
        *out = net;
    else
        ek_net_destroy(net);
    return status;
}

static ek_status make_combination(const comparison *c, const cli_command *command, compare_combination *at)
{
    at->s = *c->s;
    for (int k = 0; k < c->keys; k++) {
        if (is_option(c->key[k].name)) (void)store_value(command, c->key[k].name, compare_value(c, at, k), &at->s);
    }
    at->name = compare_name(c, at, -1);
    at->run = cli_alloc((size_t)c->s->repeat, sizeof *at->run);
    ek_net *net;
    ek_status status = build_net(c, at, &net);
    if (status != EK_OK) return status;
    at->net = cli_text("%s", ek_net_text(net));
    at->parameters = cli_parameters(net);
    ek_train_options o = cli_train_options(&at->s.training);
    status = ek_train_check(net, c->train, c->test, &o, NULL);
    ek_net_destroy(net);
    return status;
}

char *compare_name(const comparison *c, const compare_combination *at, int without)
{
    char *text = NULL;
    bool single = true; /* all keys have but one value */
    for (int k = 0; k < c->keys; k++) single &= c->key[k].count == 1;
    for (int k = 0; k < c->keys; k++) {
        if (k == without || (c->key[k].count == 1 && !single)) continue;
        char *longer = cli_text("%s%s%s=%s", text ? text : "", text ? " " : "", c->key[k].name, compare_value(c, at, k));
        free(text);
        text = longer;
    }
    return text ? text : cli_text("%s", c->s->net);
}

/* The next one in the order of the table: the last key changes first. */
static void count_up(const comparison *c, int value[COMPARE_KEYS])
{
    for (int k = c->keys - 1; k >= 0 && ++value[k] == c->key[k].count; k--) value[k] = 0;
}

static int tell_impossible(const comparison *c, const cli_command *command, char *const *reason, int impossible)
{
    for (int i = 0, shown = 0; i < c->count && shown < SHOWN; i++) {
        if (!reason[i]) continue;
        cli_fail("%s is impossible: %s", c->at[i].name, reason[i]);
        shown++;
    }
    if (impossible > SHOWN) cli_fail("... and %d more", impossible - SHOWN);
    return cli_usage_error(command, "%d of %d combinations cannot be, so none was run; leave out a value, or compare in parts",
                           impossible, c->count);
}

static int make_combinations(comparison *c, const cli_command *command)
{
    int64_t count = 1;
    for (int k = 0; k < c->keys; k++) {
        count *= c->key[k].count;
        if (count * c->s->repeat > MOST_COMBINATIONS)
            return cli_usage_error(command, "that would be %lld runs or more; %d are the most", (long long)(count * c->s->repeat),
                                   MOST_COMBINATIONS);
    }
    c->at = cli_alloc((size_t)count, sizeof *c->at);
    int value[COMPARE_KEYS] = {0}, impossible = 0;
    bool alike = true; /* what is wrong has nothing to do with what is varied */
    char **reason = cli_alloc((size_t)count, sizeof *reason);
    for (; c->count < count; count_up(c, value)) {
        compare_combination *at = &c->at[c->count];
        memcpy(at->value, value, sizeof value);
        bool possible = make_combination(c, command, at) == EK_OK;
        if (!possible) reason[c->count] = cli_text("%s", ek_error());
        impossible += !possible;
        alike = alike && !possible && strcmp(reason[c->count], reason[0]) == 0;
        c->count++;
    }
    int code = impossible == 0 ? CLI_DONE
               : alike         ? cli_usage_error(command, "%s", reason[0])
                               : tell_impossible(c, command, reason, impossible);
    for (int i = 0; i < c->count; i++) free(reason[i]);
    free(reason);
    return code;
}

/* --- data */

/* What is measured, and what naming always the largest class would reach. */
static ek_status look_at_data(comparison *c)
{
    int64_t count = ek_dataset_count(c->train), largest = 0;
    int classes = ek_dataset_classes(c->train), label;
    int64_t *of_class = cli_alloc((size_t)(classes > 0 ? classes : 1), sizeof *of_class);
    ek_status status = EK_OK;
    for (int64_t i = 0; i < count && status == EK_OK; i++) {
        status = ek_dataset_item(c->train, i, NULL, &label);
        if (status == EK_OK && label >= 0 && ++of_class[label] > largest) largest = of_class[label];
    }
    free(of_class);
    int64_t held = (int64_t)floor((double)count * c->s->training.valid + 0.5);
    c->chance = count > 0 ? (double)largest / (double)count : 0;
    c->measure = c->test ? COMPARE_TEST : held ? COMPARE_VALID : COMPARE_TRAIN;
    static const char *const words[] = {"test", "validation", "training"};
    c->measured = words[c->measure];
    c->train_count = c->s->training.samples ? c->s->training.samples : count - held;
    c->measured_count = c->test ? ek_dataset_count(c->test) : held ? held : c->train_count;
    return status;
}

int compare_plan(comparison *c, const cli_command *command)
{
    int code = read_vary(c, command);
    if (!code) code = check_values(c, command);
    if (code) return code;
    if (cli_open_data(c->s->training.data, &c->train, &c->test) != EK_OK || look_at_data(c) != EK_OK)
        return cli_fail_status();
    return make_combinations(c, command);
}

void compare_free(comparison *c)
{
    for (int i = 0; i < c->count; i++) {
        compare_combination *at = &c->at[i];
        for (int64_t r = 0; at->run && r < c->s->repeat; r++) {
            free(at->run[r].reason);
            free(at->run[r].epoch);
        }
        free(at->run);
        free(at->name);
        free(at->net);
    }
    free(c->at);
    for (int k = 0; k < c->keys; k++) {
        for (int i = 0; i < c->key[k].count; i++) free(c->key[k].value[i]);
        free(c->key[k].value);
        free(c->key[k].name);
    }
    for (int i = 0; i < c->notes; i++) free(c->note[i]);
    free(c->note);
    ek_dataset_destroy(c->test);
    ek_dataset_destroy(c->train);
}
