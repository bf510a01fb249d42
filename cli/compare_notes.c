/* Where a change came to different things in different layers, they are named. */
#include "compare.h"
#include "output.h"

#include <stdlib.h>
#include <string.h>

enum { NAMED = 4 };

__attribute__((format(printf, 2, 3))) static void add_note(comparison *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text;
    if (vasprintf(&text, format, args) < 0) exit(cli_fail("out of memory"));
    va_end(args);
    char **grown = realloc(c->note, (size_t)(c->notes + 1) * sizeof *grown);
    if (!grown) exit(cli_fail("out of memory"));
    c->note = grown;
    c->note[c->notes++] = text;
}

static bool is_active(const char *op)
{
    static const char *const active[] = {"relu", "leakyrelu", "sigmoid", "tanh", "silu",
                                         "elu", "prelu", "clip", "hardsigmoid", "hardswish"};
    for (size_t i = 0; i < sizeof active / sizeof *active; i++) {
        if (strcmp(op, active[i]) == 0) return true;
    }
    return false;
}

/* "net.1, net.5 and 3 more" of the layers that are asked for. */
typedef bool (*asked)(const ek_net *net, int layer, const void *what);

static char *names_of(const ek_net *net, asked is, const void *what)
{
    int count = 0, left = 0;
    char *text = cli_text("%s", "");
    for (int i = 0; i < ek_net_layer_count(net); i++) left += is(net, i, what);
    for (int i = 0, all = left; i < ek_net_layer_count(net) && left > 0; i++) {
        if (!is(net, i, what)) continue;
        const char *between = count == 0 ? "" : left == 1 ? " and " : ", ";
        char *longer = all > NAMED + 1 && count == NAMED
                           ? cli_text("%s and %d more", text, left)
                           : cli_text("%s%s%s", text, between, ek_net_layer(net, i).label);
        free(text);
        text = longer;
        if (all > NAMED + 1 && count == NAMED) break;
        count++;
        left--;
    }
    return text;
}

/* --- norm */

/* A normalization of this kind: "groupnorm 8" counts its groups, but for nothing else of its options. */
static char *kind_of(const ek_net *net, int layer)
{
    ek_layer_info info = ek_net_layer(net, layer);
    if (!info.normalizes) return NULL;
    if (strcmp(info.op, "groupnorm") != 0) return cli_text("%s", info.op);
    return cli_text("%s %.*s", info.op, (int)strcspn(info.options, " "), info.options);
}

static bool is_of_kind(const ek_net *net, int layer, const void *what)
{
    char *kind = kind_of(net, layer);
    bool same = kind && strcmp(kind, what) == 0;
    free(kind);
    return same;
}

/* "norm=group: groupnorm 6 in net.1; groupnorm 8 in net.5 and net.10", where there are two kinds or more. */
static void note_kinds(comparison *c, const ek_net *net, const char *value)
{
    char *text = cli_text("norm=%s:", value), *seen[16];
    int kinds = 0;
    for (int i = 0; i < ek_net_layer_count(net) && kinds < 16; i++) {
        char *kind = kind_of(net, i);
        bool known = !kind;
        for (int k = 0; k < kinds && !known; k++) known = strcmp(kind, seen[k]) == 0;
        if (known) {
            free(kind);
            continue;
        }
        char *names = names_of(net, is_of_kind, kind);
        char *longer = cli_text("%s%s %s in %s", text, kinds ? ";" : "", kind, names);
        free(names);
        free(text);
        text = longer;
        seen[kinds++] = kind;
    }
    bool mixed = strcmp(value, "instance") == 0;
    if (kinds == 1 && strcmp(value, "group") == 0) add_note(c, "norm=group: %s", seen[0]);
    if (kinds > 1) add_note(c, "%s%s", text, mixed ? ", where a channel has one value, and so no statistics" : "");
    for (int k = 0; k < kinds; k++) free(seen[k]);
    free(text);
}

/* --- position */

/* A normalization that is not on the asked side of an activation. */
static bool stays(const ek_net *net, int layer, const void *after)
{
    ek_layer_info info = ek_net_layer(net, layer);
    return info.normalizes && is_active(ek_net_layer(net, info.inputs[0]).op) != *(const bool *)after;
}

static void note_position(comparison *c, const ek_net *net, const char *value)
{
    bool after = strcmp(value, "after") == 0;
    char *names = names_of(net, stays, &after);
    if (*names)
        add_note(c, "position=%s: not moved, as it and an activation are not each other's only reader and input: %s", value,
                 names);
    free(names);
}

/* --- dropout */

static bool reads_dropout(const ek_net *net, int layer, const void *what)
{
    (void)what;
    ek_layer_info info = ek_net_layer(net, layer);
    return info.inputs[0] >= 0 && strcmp(ek_net_layer(net, info.inputs[0]).op, "dropout") == 0;
}

static void note_dropout(comparison *c, const ek_net *net, const char *value)
{
    (void)value;
    char *names = names_of(net, reads_dropout, NULL);
    if (*names) add_note(c, "dropout: in front of %s", names);
    free(names);
}

/* --- all of them */

/* For each value of a key (or the first that has something to note, where once is enough), by the first combination that
 * has it. */
static void note_key(comparison *c, const char *name, void (*note)(comparison *, const ek_net *, const char *), bool once)
{
    int key = compare_find_key(c, name), before = c->notes;
    for (int v = 0; key >= 0 && v < c->key[key].count && !(once && c->notes > before); v++) {
        int i = 0;
        while (c->at[i].value[key] != v) i++;
        ek_net *net = NULL;
        if (ek_net_create(c->context, c->at[i].net, NULL, &net) == EK_OK) note(c, net, c->key[key].value[v]);
        ek_net_destroy(net);
    }
}

static bool is_norm(const ek_net *net, int layer, const void *what)
{
    (void)what;
    return ek_net_layer(net, layer).normalizes;
}

void compare_add_notes(comparison *c)
{
    char *norms = names_of(c->net, is_norm, NULL);
    if (!*norms && compare_find_key(c, "norm") >= 0)
        add_note(c, "%s has no normalization; norm puts one behind each hidden convolution and linear layer", c->s->net);
    free(norms);
    note_key(c, "norm", note_kinds, false);
    note_key(c, "position", note_position, false);
    note_key(c, "dropout", note_dropout, true);
    if (compare_find_key(c, "momentum") >= 0)
        add_note(c, "momentum is batch normalization's: running = (1 - momentum)·running + momentum·batch");
    if (c->measure == COMPARE_TRAIN)
        add_note(c, "%s has no test data, so accuracy is that on the training data as it was seen; --valid 0.1 holds some "
                    "of it out", c->s->training.data);
}
