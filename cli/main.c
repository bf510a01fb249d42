/* evenkeel: the command line. Exit codes: 0 done, 1 failed, 2 wrong usage. */
#include "commands.h"
#include "output.h"
#include "ranks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

const cli_command *const cli_commands[] = {
    &cli_train,   &cli_rerun,   &cli_report, &cli_compare,     &cli_eval, &cli_predict, &cli_run,
    &cli_summary, &cli_inspect, &cli_audit,  &cli_recalibrate, &cli_fold, &cli_convert, &cli_bench, NULL,
};
enum { COMMANDS = sizeof cli_commands / sizeof cli_commands[0] - 1 };

const struct cli_overview cli_overview = {
    .about = "Evenkeel trains, examines and ships neural networks with batch normalization.",
    .start = "  evenkeel summary lenet-bn\n"
             "  evenkeel train lenet-bn --data synthetic --epochs 3 --out lenet.safetensors\n"
             "  evenkeel inspect lenet.safetensors\n",
    .environment = "EVENKEEL_DATA=DIR says where data sets lie; EVENKEEL_DATA_MEMORY=SIZE, such as 4G, how large\n"
                   "one may be to be kept in memory. EVENKEEL_ISA=reference|baseline|avx2|avx512\n"
                   "chooses the instruction set; EVENKEEL_FUSE=off gives every layer a pass of its own.\n",
    .exits = "Exit codes: 0 done, 1 failed, 2 wrong usage.\n",
};

static int print_help(void)
{
    printf("%s\n"
           "\n"
           "Usage: evenkeel COMMAND ...\n"
           "\n"
           "Commands:\n",
           cli_overview.about);
    for (int i = 0; i < COMMANDS; i++) printf("  %-12s %s\n", cli_commands[i]->name, cli_commands[i]->brief);
    printf("\n"
           "  evenkeel help COMMAND    options and examples of a command\n"
           "  evenkeel --version       the version\n"
           "\n"
           "Shipped nets:\n ");
    for (int i = 0; ek_shipped_net_name(i); i++) printf(" %s", ek_shipped_net_name(i));
    printf("\n\nStart here:\n%s\n%s%s", cli_overview.start, cli_overview.environment, cli_overview.exits);
    return CLI_DONE;
}

const cli_command *cli_find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(cli_commands[i]->name, name) == 0) return cli_commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COMMANDS + 3] = {"help", "--help", "--version"};
    for (int i = 0; i < COMMANDS; i++) names[i + 3] = cli_commands[i]->name;
    const char *nearest = cli_nearest(name, names, COMMANDS + 3);
    if (nearest) return cli_usage_error(NULL, "unknown command '%s'; did you mean '%s'?", name, nearest);
    return cli_usage_error(NULL, "unknown command '%s'", name);
}

static int help(char *program, const char *name)
{
    if (!name || strcmp(name, "help") == 0) return print_help();
    const cli_command *command = cli_find_command(name);
    char word[] = "--help";
    char *arguments[] = {program, NULL, word, NULL};
    return command ? command->run(3, arguments) : unknown_command(name);
}

/* For the build, which makes man pages and completion of it: help --man [COMMAND]. */
static int man(const char *name)
{
    const cli_command *command = name ? cli_find_command(name) : NULL;
    return name && !command ? unknown_command(name) : cli_print_man(command);
}

static int run(int argc, char **argv)
{
    if (argc < 2) return cli_usage_error(NULL, "a command is missing, such as: evenkeel summary lenet-bn");
    const char *first = argv[1], *second = argc > 2 ? argv[2] : NULL;
    if (strcmp(first, "help") == 0 || strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        bool is_man = second && strcmp(second, "--man") == 0;
        return is_man ? man(argc > 3 ? argv[3] : NULL) : help(argv[0], second);
    }
    if (strcmp(first, "completion") == 0) return cli_print_completion(second ? second : "");
    if (strcmp(first, "--version") == 0) {
        printf("evenkeel %s\n", ek_version());
        return CLI_DONE;
    }
    const cli_command *command = cli_find_command(first);
    if (!command) return unknown_command(first);
    return cli_ranks_share(command->ranks) ? command->run(argc, argv) : CLI_DONE;
}

/* Processes that mpirun has begun, each of which takes itself for the only one, do all of the work as many times. */
static void note_strangers(void)
{
    static const char *const of[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const char *size = getenv(of[i][0]), *rank = getenv(of[i][1]);
        if (!size || atoi(size) < 2 || !rank || atoi(rank) != 0 || cli_rank_count() > 1) continue;
        cli_note("mpirun has begun %d processes, and each does all of the work alone; evenkeel-mpi shares it, begun by the "
                 "mpirun of the MPI library that it was built with",
                 atoi(size));
    }
}

int main(int argc, char **argv)
{
    /* A file that outgrows the limit for files is then an error, and leaves no part of itself behind. */
    signal(SIGXFSZ, SIG_IGN);
    if (!cli_ranks_begin(&argc, &argv)) return CLI_FAILED;
    note_strangers();
    cli_json_begin();
    int code = run(argc, argv);
    /* An answer that did not arrive is a failure. */
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == CLI_DONE)
        code = cli_fail("cannot write the answer: %s",
                        errno ? strerror(errno) : "standard output is closed or full");
    return cli_ranks_end(code);
}
