/* Man pages out of what the help says (man(7)'s macros). */
#include "commands.h"
#include "output.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A text within a line: hyphens that are typed, no escapes. */
static void put(const char *text)
{
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\'')
            fputs("\\(aq", stdout);
        else if (*text == '"')
            fputs("\\(dq", stdout);
        else
            putchar(*text);
    }
}

/* A text that begins a line: no request. */
static void put_line(const char *text)
{
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    put(text);
    putchar('\n');
}

/* Lines as they stand. */
static void put_lines(const char *text)
{
    puts(".nf");
    while (*text) {
        size_t length = strcspn(text, "\n");
        char *line = cli_text("%.*s", (int)length, text);
        if (*line)
            put_line(line);
        else
            puts(".sp");
        free(line);
        text += length + (text[length] == '\n');
    }
    puts(".fi");
}

static void put_head(const char *name, const char *what)
{
    printf(".TH ");
    for (const char *c = name; *c; c++) putchar(toupper((unsigned char)*c));
    printf(" 1 \"\" \"Evenkeel %s\" Evenkeel\n.SH NAME\n%s \\- ", ek_version(), name);
    put_line(what);
}

static void put_option(const cli_option *option, const void *settings)
{
    if (option->kind == CLI_HEADING) {
        printf(".SS ");
        char *name = cli_text("%.*s", (int)strcspn(option->name, ":"), option->name);
        put_line(name);
        free(name);
        return;
    }
    puts(".TP");
    if (option->kind == CLI_OPERAND) {
        printf(".I ");
        put(option->name);
    } else {
        printf(".BI ");
        put("--");
        put(option->name);
        if (option->value) {
            printf(" \" ");
            put(option->value);
            putchar('"');
        }
    }
    putchar('\n');
    char *help = cli_option_help(option, settings);
    put_line(help);
    free(help);
}

static void put_see_also(const cli_command *but)
{
    printf(".SH SEE ALSO\n");
    if (but) printf(".BR evenkeel (1)");
    for (int i = 0; cli_commands[i]; i++) {
        if (cli_commands[i] == but) continue;
        if (i || but) puts(",");
        printf(".BR evenkeel\\-%s (1)", cli_commands[i]->name);
    }
    putchar('\n');
}

static void print_command(const cli_command *command, const void *settings)
{
    char *name = cli_text("evenkeel-%s", command->name);
    put_head(name, command->brief);
    free(name);
    printf(".SH SYNOPSIS\n.B evenkeel %s\n", command->name);
    put_line(command->synopsis);
    puts(".SH DESCRIPTION");
    put_line(command->about);
    puts(".SH OPTIONS");
    for (const cli_option *option = command->options; option->kind != CLI_END; option++)
        put_option(option, settings);
    if (command->after) {
        puts(".SH NOTES");
        put_lines(command->after);
    }
    puts(".SH EXAMPLES");
    put_lines(command->examples);
    put_see_also(command);
}

static void print_all(void)
{
    put_head("evenkeel", "trains, examines and ships neural networks with batch normalization");
    puts(".SH SYNOPSIS\n.B evenkeel\n.I COMMAND\n\\&...\n.SH DESCRIPTION");
    put_line(cli_overview.about);
    puts(".SH COMMANDS");
    for (int i = 0; cli_commands[i]; i++) {
        printf(".TP\n.BR evenkeel\\-%s (1)\n", cli_commands[i]->name);
        put_line(cli_commands[i]->brief);
    }
    puts(".SH SHIPPED NETS");
    for (int i = 0; ek_shipped_net_name(i); i++) put_line(ek_shipped_net_name(i));
    puts(".SH EXAMPLES");
    put_lines(cli_overview.start);
    puts(".SH ENVIRONMENT");
    put_lines(cli_overview.environment);
    puts(".SH EXIT STATUS");
    put_lines(cli_overview.exits);
    put_see_also(NULL);
}

int cli_print_man(const cli_command *command)
{
    if (!command) {
        print_all();
        return CLI_DONE;
    }
    /* The command has the defaults of its options. */
    char name[] = "evenkeel", word[] = "--help";
    char *arguments[] = {name, NULL, word, NULL};
    cli_print_help_by(print_command);
    return command->run(3, arguments);
}
