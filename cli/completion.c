/* Completion scripts of shells, out of the tables that options are parsed by. */
#include "commands.h"
#include "output.h"

#include <stdlib.h>
#include <string.h>

/* The words of a choice, with blanks between. */
static void put_words(const char *choice)
{
    for (; *choice; choice++) putchar(*choice == '|' ? ' ' : *choice);
}

static void put_nets(void)
{
    for (int i = 0; ek_shipped_net_name(i); i++) printf("%s%s", i ? " " : "", ek_shipped_net_name(i));
}

static bool is_option(const cli_option *option) { return option->kind > CLI_OPERAND; }
static bool takes_file(const cli_option *option)
{
    return option->kind == CLI_TEXT || option->kind == CLI_WORDS;
}

/* The first clause of a help text, as far as it stands in no way of the quotes of any shell. */
static void put_help(const char *help)
{
    size_t length = 0;
    while (help[length] && !strchr(";:.'\"\\`$[]", help[length])) length++;
    printf("%.*s", (int)length, help);
}

/* --- bash */

static void put_bash_command(const cli_command *command)
{
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (option->kind != CLI_CHOICE) continue;
        printf("    '%s --%s') words='", command->name, option->name);
        put_words(option->value);
        printf("' ;;\n");
    }
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (option->kind == CLI_INTEGER || option->kind == CLI_NUMBER)
            printf("    '%s --%s') return ;;\n", command->name, option->name);
    }
    printf("    '%s '*) options='", command->name);
    for (const cli_option *option = command->options; option->kind != CLI_END; option++) {
        if (is_option(option)) printf("--%s ", option->name);
    }
    printf("--help' ;;\n");
}

static void print_bash(void)
{
    printf("# bash completion for evenkeel\n"
           "_evenkeel() {\n"
           "    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} "
           "before=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    local words='' options='' commands='");
    for (int i = 0; cli_commands[i]; i++) printf("%s ", cli_commands[i]->name);
    printf("help'\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$commands --version\" -- \"$current\")\n"
           "        return\n"
           "    fi\n"
           "    case \"$command $before\" in\n"
           "    'help '*) words=$commands ;;\n");
    for (int i = 0; cli_commands[i]; i++) put_bash_command(cli_commands[i]);
    printf("    esac\n"
           "    if [ -n \"$words\" ]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
           "    elif [ \"${current:0:1}\" = - ]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
           "    else\n"
           "        compopt -o filenames 2>/dev/null\n"
           "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\"; compgen -W '");
    put_nets();
    printf("' -- \"$current\")\n"
           "    fi\n"
           "}\n"
           "complete -F _evenkeel evenkeel\n");
}

/* --- zsh */

static void put_zsh_option(const cli_option *option)
{
    if (!is_option(option)) return;
    printf("        '--%s[", option->name);
    put_help(option->help);
    putchar(']');
    if (option->kind == CLI_CHOICE) {
        printf(":%s:(", option->name);
        put_words(option->value);
        putchar(')');
    } else if (option->kind != CLI_FLAG) {
        printf(":%s:%s", option->name, takes_file(option) ? "_files" : " ");
    }
    printf("' \\\n");
}

static void print_zsh(void)
{
    printf("#compdef evenkeel\n"
           "_evenkeel_file() {\n"
           "    _alternative 'nets:shipped net:(");
    put_nets();
    printf(")' 'files:file:_files'\n"
           "}\n"
           "_evenkeel() {\n"
           "    local -a commands=(\n");
    for (int i = 0; cli_commands[i]; i++) {
        printf("        '%s:", cli_commands[i]->name);
        put_help(cli_commands[i]->brief);
        printf("'\n");
    }
    printf("        'help:options and examples of a command'\n"
           "    )\n"
           "    if (( CURRENT == 2 )); then\n"
           "        _describe command commands\n"
           "        return\n"
           "    fi\n"
           "    local command=$words[2]\n"
           "    shift words\n"
           "    (( CURRENT-- ))\n"
           "    case $command in\n"
           "    help) _describe command commands ;;\n");
    for (int i = 0; cli_commands[i]; i++) {
        printf("    %s) _arguments \\\n", cli_commands[i]->name);
        for (const cli_option *option = cli_commands[i]->options; option->kind != CLI_END; option++)
            put_zsh_option(option);
        printf("        '*:file:_evenkeel_file' ;;\n");
    }
    printf("    esac\n"
           "}\n"
           "_evenkeel \"$@\"\n");
}

/* --- fish */

static void put_fish_option(const cli_command *command, const cli_option *option)
{
    if (!is_option(option)) return;
    printf("complete -c evenkeel -n '__fish_seen_subcommand_from %s' -l %s -d '", command->name,
           option->name);
    put_help(option->help);
    putchar('\'');
    if (option->kind == CLI_CHOICE) {
        printf(" -xa '");
        put_words(option->value);
        putchar('\'');
    } else if (option->kind != CLI_FLAG) {
        printf(takes_file(option) ? " -rF" : " -x");
    }
    putchar('\n');
}

static void print_fish(void)
{
    printf("# fish completion for evenkeel\n"
           "complete -c evenkeel -n __fish_use_subcommand -f\n");
    for (int i = 0; cli_commands[i]; i++) {
        printf("complete -c evenkeel -n __fish_use_subcommand -a %s -d '", cli_commands[i]->name);
        put_help(cli_commands[i]->brief);
        printf("'\n");
    }
    printf("complete -c evenkeel -n __fish_use_subcommand -a help -d 'options and examples of a command'\n"
           "complete -c evenkeel -n 'not __fish_use_subcommand' -a '");
    put_nets();
    printf("'\n");
    for (int i = 0; cli_commands[i]; i++) {
        for (const cli_option *option = cli_commands[i]->options; option->kind != CLI_END; option++)
            put_fish_option(cli_commands[i], option);
    }
}

int cli_print_completion(const char *shell)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    static void (*const print[])(void) = {print_bash, print_zsh, print_fish};
    for (int i = 0; i < 3; i++) {
        if (strcmp(shell, shells[i])) continue;
        print[i]();
        return CLI_DONE;
    }
    return cli_usage_error(NULL, "completion is there for bash, zsh and fish, not '%s'", shell);
}
