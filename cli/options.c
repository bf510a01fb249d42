#include "options.h"

#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 26, WORD = 32, MAX_NAMES = 64 };

/* --- suggestions */

static int least_of(int a, int b, int c)
{
    int least = a < b ? a : b;
    return least < c ? least : c;
}

/* Edit distance with adjacent swaps counted as one (Damerau's), over the first WORD letters. */
static int distance(const char *a, const char *b)
{
    int n = (int)strnlen(a, WORD), m = (int)strnlen(b, WORD);
    int d[WORD + 1][WORD + 1];
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] = least_of(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *cli_nearest(const char *wrong, const char *const *names, int count)
{
    size_t length = strlen(wrong);
    const char *best = NULL;
    /* A third of the letters, and at least one, may be wrong. */
    int best_distance = length / 3 > 1 ? (int)(length / 3) : 1;
    for (int i = 0; i < count; i++) {
        /* A beginning is meant whatever is missing: --check for --checkpoint. */
        if (length >= 3 && strncmp(wrong, names[i], length) == 0) return names[i];
        int d = distance(wrong, names[i]);
        if (d < best_distance || (d == best_distance && !best)) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}

int cli_usage_error(const cli_command *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "evenkeel: ");
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nSee: evenkeel help%s%s\n", command ? " " : "", command ? command->name : "");
    return CLI_USAGE;
}

/* --- help */

static const void *value_of(const cli_option *option, const void *settings)
{
    return (const char *)settings + option->offset;
}

/* " (default 10)", or nothing where the option is off by default or its help says more. */
static void default_text(const cli_option *option, const void *settings, char *text, size_t size)
{
    text[0] = '\0';
    const void *value = value_of(option, settings);
    if (option->kind == CLI_INTEGER && *(const int64_t *)value > 0) {
        snprintf(text, size, " (default %lld)", (long long)*(const int64_t *)value);
    } else if (option->kind == CLI_NUMBER && *(const double *)value != 0 && !isnan(*(const double *)value)) {
        snprintf(text, size, " (default %g)", *(const double *)value);
    } else if (option->kind == CLI_CHOICE) {
        const char *word = option->value;
        for (int i = 0; i < *(const int *)value; i++) word = strchr(word, '|') + 1;
        snprintf(text, size, " (default %.*s)", (int)strcspn(word, "|"), word);
    }
}

char *cli_option_help(const cli_option *option, const void *settings)
{
    char fallback[64] = "";
    if (option->kind > CLI_OPERAND) default_text(option, settings, fallback, sizeof fallback);
    return cli_text("%s%s", option->help, fallback);
}

static void print_option(const cli_option *option, const void *settings)
{
    if (option->kind == CLI_HEADING) {
        printf("\n%s\n", option->name);
        return;
    }
    int column = option->kind == CLI_OPERAND ? printf("  %s", option->name) : printf("  --%s", option->name);
    if (option->value) column += printf(" %s", option->value);
    if (column > HELP_COLUMN - 2) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", HELP_COLUMN - column, "");
    char *text = cli_option_help(option, settings);
    cli_print_wrapped_at(text, HELP_COLUMN, HELP_COLUMN);
    free(text);
}

static void print_help(const cli_command *command, const void *settings)
{
    printf("Usage: evenkeel %s %s\n\n", command->name, command->synopsis);
    cli_print_wrapped(command->about);
    putchar('\n');
    for (const cli_option *option = command->options; option->kind != CLI_END; option++)
        print_option(option, settings);
    if (command->after) printf("\n%s", command->after);
    printf("\nExamples:\n%s", command->examples);
}

static cli_printer printer = print_help;

void cli_print_help_by(cli_printer other) { printer = other; }

static bool wants_help(int argc, char **argv)
{
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

/* --- parsing */

static const cli_option *find(const cli_command *command, const char *name, size_t length)
{
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (option->kind <= CLI_OPERAND) continue;
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0) return option;
    }
    return NULL;
}

static int unknown_option(const cli_command *command, const char *argument, size_t length)
{
    const char *names[MAX_NAMES] = {"help"};
    int count = 1;
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (option->kind > CLI_OPERAND && count < MAX_NAMES) names[count++] = option->name;
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, argument);
    const char *nearest = cli_nearest(name + strspn(name, "-"), names, count);
    if (nearest) return cli_usage_error(command, "unknown option '%s'; did you mean '--%s'?", name, nearest);
    return cli_usage_error(command, "%s has no option '%s'", command->name, name);
}

static void expected_text(const cli_option *option, char *text, size_t size)
{
    int used = snprintf(text, size, "a %snumber", option->kind == CLI_INTEGER ? "whole " : "");
    const char *from = option->above ? " above" : option->most ? " from" : " of at least";
    used += snprintf(text + used, size - (size_t)used, "%s %.15g", from, option->least);
    if (option->most) snprintf(text + used, size - (size_t)used, " to %.15g", option->most);
}

static bool read_integer(const cli_option *option, const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)number < option->least) return false;
    if (option->most && (double)number > option->most) return false;
    *value = number;
    return true;
}

static bool read_number(const cli_option *option, const char *text, double *value)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !isfinite(number) || number < option->least) return false;
    if ((option->above && number <= option->least) || (option->most && number > option->most)) return false;
    *value = number;
    return true;
}

static bool read_choice(const cli_option *option, const char *text, int *value)
{
    int index = 0;
    for (const char *word = option->value;; index++) {
        size_t length = strcspn(word, "|");
        if (strlen(text) == length && strncmp(text, word, length) == 0) {
            *value = index;
            return true;
        }
        if (!word[length]) return false;
        word += length + 1;
    }
}

/* "; did you mean 'sgd'?" where a word of the choice is near; else `meant` stays. */
static void meant_word(const cli_option *option, const char *text, char *meant, size_t size)
{
    enum { MOST = 16, LONGEST = 32 };
    char words[MOST][LONGEST];
    const char *names[MOST];
    int count = 0;
    for (const char *word = option->value; count < MOST; word++) {
        int length = (int)strcspn(word, "|");
        snprintf(words[count], LONGEST, "%.*s", length, word);
        names[count] = words[count];
        count++;
        word += length;
        if (!*word) break;
    }
    const char *near = cli_nearest(text, names, count);
    if (near) snprintf(meant, size, "; did you mean '%s'?", near);
}

static bool add_word(const cli_command *command, const cli_option *option, const char *text, cli_words *words)
{
    int count = 0;
    while (words->word[count]) count++;
    if (count == CLI_MOST_WORDS) {
        cli_usage_error(command, "--%s can be given %d times at most", option->name, CLI_MOST_WORDS);
        return false;
    }
    words->word[count] = text;
    return true;
}

static bool store(const cli_command *command, const cli_option *option, const char *text, void *settings)
{
    void *value = (char *)settings + option->offset;
    char expected[128], meant[64] = "";
    expected_text(option, expected, sizeof expected);
    switch (option->kind) {
    case CLI_INTEGER:
        if (read_integer(option, text, value)) return true;
        break;
    case CLI_NUMBER:
        if (read_number(option, text, value)) return true;
        break;
    case CLI_CHOICE:
        if (read_choice(option, text, value)) return true;
        snprintf(expected, sizeof expected, "one of %s", option->value);
        meant_word(option, text, meant, sizeof meant);
        break;
    case CLI_WORDS:
        if (*text) return add_word(command, option, text, value);
        snprintf(expected, sizeof expected, "%s", option->value);
        break;
    default:
        *(const char **)value = text;
        if (*text) return true;
        snprintf(expected, sizeof expected, "a name");
    }
    cli_usage_error(command, "%s%s expects %s, not '%s'%s", option->kind == CLI_OPERAND ? "" : "--",
                    option->name, expected, text, meant);
    return false;
}

bool cli_store(const cli_command *command, const char *name, const char *text, void *settings)
{
    return store(command, find(command, name, strlen(name)), text, settings);
}

/* One "--name value", "--name=value" or "--flag" at argv[*i]; *i moves past its value. */
static bool parse_option(const cli_command *command, int argc, char **argv, int *i, void *settings)
{
    const char *argument = argv[*i];
    size_t length = strcspn(argument, "=");
    const char *attached = argument[length] ? argument + length + 1 : NULL;
    const cli_option *option =
        length > 2 && argument[1] == '-' ? find(command, argument + 2, length - 2) : NULL;
    if (!option) {
        unknown_option(command, argument, length);
        return false;
    }
    if (option->kind == CLI_FLAG) {
        if (attached) {
            cli_usage_error(command, "--%s takes no value, but '%s' was given", option->name, attached);
            return false;
        }
        *(bool *)((char *)settings + option->offset) = true;
        return true;
    }
    if (!attached && *i + 1 < argc && strncmp(argv[*i + 1], "--", 2) != 0) attached = argv[++*i];
    if (!attached) {
        cli_usage_error(command, "--%s needs a value: --%s %s", option->name, option->name, option->value);
        return false;
    }
    return store(command, option, attached, settings);
}

static const cli_option *next_operand(const cli_option *option)
{
    while (option->kind != CLI_END && option->kind != CLI_OPERAND) option++;
    return option;
}

static bool parse_all(const cli_command *command, int argc, char **argv, void *settings)
{
    const cli_option *operand = next_operand(command->options);
    bool only_operands = false;
    for (int i = 2; i < argc; i++) {
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1]) {
            if (!parse_option(command, argc, argv, &i, settings)) return false;
        } else if (operand->kind == CLI_END) {
            cli_usage_error(command, "unexpected argument '%s'", argv[i]);
            return false;
        } else {
            if (!store(command, operand, argv[i], settings)) return false;
            operand = next_operand(operand + 1);
        }
    }
    if (operand->kind != CLI_END && !*(const char *const *)value_of(operand, settings)) {
        cli_usage_error(command, "%s is missing: evenkeel %s %s", operand->name, command->name,
                        command->synopsis);
        return false;
    }
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (!option->required || *(const char *const *)value_of(option, settings)) continue;
        cli_usage_error(command, "--%s %s is missing: evenkeel %s %s", option->name, option->value,
                        command->name, command->synopsis);
        return false;
    }
    return true;
}

bool cli_parse(const cli_command *command, int argc, char **argv, void *settings, int *exit_code)
{
    if (wants_help(argc, argv)) {
        printer(command, settings);
        *exit_code = CLI_DONE;
        return false;
    }
    *exit_code = CLI_USAGE;
    return parse_all(command, argc, argv, settings);
}
