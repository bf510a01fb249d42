#include "common.h"

#include "output.h"
#include "ranks.h"

#include <ctype.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool open_by(ek_status (*open)(ek_context *, const char *, ek_net **), cli_model *model, const char *name,
                    int64_t threads, ek_comm *comm)
{
    *model = (cli_model){.trained = ek_is_model(name)};
    ek_context_options options = ek_context_options_default();
    options.threads = threads ? (int)threads : cli_default_threads();
    options.comm = comm;
    if (ek_context_create(&options, &model->context) == EK_OK &&
        open(model->context, name, &model->net) == EK_OK)
        return true;
    cli_fail_status();
    return false;
}

bool cli_model_open(cli_model *model, const char *name, int64_t threads)
{
    return open_by(ek_net_open, model, name, threads, cli_comm());
}

bool cli_model_open_alone(cli_model *model, const char *name, int64_t threads)
{
    return open_by(ek_net_open, model, name, threads, NULL);
}

bool cli_model_open_sick(cli_model *model, const char *name, int64_t threads)
{
    return open_by(ek_net_open_sick, model, name, threads, cli_comm());
}

void cli_model_close(cli_model *model)
{
    ek_net_destroy(model->net);
    ek_context_destroy(model->context);
    *model = (cli_model){0};
}

void cli_warn_untrained(const cli_model *model, const char *name)
{
    if (!model->trained)
        cli_note("%s is a net text, so its parameters are random; evenkeel train makes a model", name);
}

int64_t cli_parameters(const ek_net *net)
{
    int64_t count = 0;
    for (int i = 0; i < ek_net_layer_count(net); i++) count += ek_net_layer(net, i).parameters;
    return count;
}

bool cli_read_lengths(const cli_model *model, const char *name, const char *path, int64_t n,
                      int32_t **lengths)
{
    ek_shape input = ek_net_input_shape(model->net);
    char text[CLI_TEXT_SIZE];
    *lengths = NULL;
    if (!path) return true;
    if (input.rank != 2) {
        cli_fail("--lengths is for sequences, and %s takes samples of %s, not CxL (such as 8x100)", name,
                 cli_shape(text, input));
        return false;
    }
    *lengths = calloc((size_t)n, sizeof **lengths);
    if (*lengths && ek_lengths_read(path, n, input.dim[1], *lengths) == EK_OK) return true;
    *lengths ? cli_fail_status() : cli_fail("no room for the lengths of %lld samples", (long long)n);
    free(*lengths);
    *lengths = NULL;
    return false;
}

bool cli_ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

bool cli_is_model_name(const char *path)
{
    return !cli_ends_with(path, ".c") && !cli_ends_with(path, ".net") && !cli_ends_with(path, ".txt");
}

ek_status cli_save_model(const ek_net *net, const char *path)
{
    return cli_ends_with(path, ".onnx") ? ek_net_save_onnx(net, path) : ek_net_save(net, path);
}

double cli_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool cli_is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool cli_claim(const char *path, ek_claim **claim)
{
    *claim = NULL;
    if (!path || ek_file_claim(path, claim) == EK_OK) return true;
    cli_fail_status();
    return false;
}

bool cli_can_write(const char *path)
{
    ek_claim *claim;
    if (!cli_claim(path, &claim)) return false;
    ek_claim_release(claim);
    return true;
}

bool cli_write_file(const char *path, const char *text, size_t length)
{
    if (ek_file_write(path, text, length) == EK_OK) return true;
    cli_fail_status();
    return false;
}

static bool one_inode(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool cli_same_file(const char *a, const char *b)
{
    if (!a || !b) return false;
    if (strcmp(a, b) == 0 || one_inode(a, b)) return true;
    /* Neither is there yet: equal names in one folder. */
    char *folder_a = strdup(a), *folder_b = strdup(b);
    const char *slash_a = strrchr(a, '/'), *slash_b = strrchr(b, '/');
    bool same = folder_a && folder_b && strcmp(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b) == 0 &&
                one_inode(dirname(folder_a), dirname(folder_b));
    free(folder_a);
    free(folder_b);
    return same;
}

static bool is_part_of(const char *path, const char *data)
{
    bool same = cli_same_file(path, data);
    char *parts = data ? cli_text("%s", data) : NULL, *rest = parts;
    for (char *part; !same && (part = strsep(&rest, ","));) same = cli_same_file(path, part);
    free(parts);
    return same;
}

const char *cli_would_lose(const char *path, const char *data, const char *net)
{
    if (!path || !cli_is_file(path)) return NULL;
    if (is_part_of(path, data)) return "the data would be overwritten; name another file for the output";
    if (cli_same_file(path, net) && !ek_is_model(net))
        return "the net text would be overwritten; name another file for the output";
    return NULL;
}

void cli_print_quoted(FILE *file, const char *word)
{
    bool plain = *word;
    for (const char *c = word; *c; c++)
        plain = plain && (isalnum((unsigned char)*c) || strchr("-_./,:=+@%", *c));
    fputc(' ', file);
    if (plain) {
        fputs(word, file);
        return;
    }
    fputc('\'', file);
    for (const char *c = word; *c; c++) {
        if (*c == '\'') {
            fputs("'\\''", file);
        } else {
            fputc(*c, file);
        }
    }
    fputc('\'', file);
}
