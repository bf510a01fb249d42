/* Ranks by MPI. Rank 0 speaks. What others print on stdout is dropped, and what they print on stderr is kept until the end: a failure that
 * all have (a wrong option) is said once, by rank 0, and one that is a rank's own with its number. */
#include "evenkeel-mpi.h"

#include "options.h"
#include "output.h"
#include "ranks.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int rank, ranks = 1, threads;
static ek_comm *comm;
static bool shared, ended;
static int true_stderr = -1; /* of ranks that keep theirs */

/* Cores for each rank, where nobody has bound the ranks to cores of their own. */
static int threads_of_rank(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, neighbours = 1;
    if (cores < sysconf(_SC_NPROCESSORS_ONLN)) return cores;
    MPI_Comm machine;
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine) != MPI_SUCCESS) return 1;
    MPI_Comm_size(machine, &neighbours);
    MPI_Comm_free(&machine);
    return cores / neighbours > 1 ? cores / neighbours : 1;
}

static bool be_quiet(void)
{
    int kept = memfd_create("stderr", 0);
    if (kept >= 0) true_stderr = dup(STDERR_FILENO);
    if (true_stderr >= 0) dup2(kept, STDERR_FILENO); /* else it speaks there */
    if (kept >= 0) close(kept);
    if (freopen("/dev/null", "w", stdout)) return true;
    cli_fail("rank %d cannot open /dev/null: %s", rank, strerror(errno));
    return false;
}

static void say_failures(void);

/* Without memory a command ends at once. */
static void end_suddenly(void)
{
    if (!ended && rank > 0) say_failures();
}

bool cli_ranks_begin(int *argc, char ***argv)
{
    int provided;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        cli_fail("MPI cannot be begun");
        return false;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (provided < MPI_THREAD_FUNNELED) {
        cli_fail("this MPI library knows no threads (MPI_THREAD_FUNNELED)");
        return false;
    }
    threads = threads_of_rank();
    atexit(end_suddenly);
    if (rank > 0 && !be_quiet()) return false;
    if (ek_comm_create_mpi(MPI_COMM_WORLD, &comm) == EK_OK) return true;
    cli_fail_status();
    return false;
}

/* Whether all ranks end with one code; a rank that failed waits for the others no longer than a second. */
static bool all_end_alike(int code)
{
    int own[2] = {code, -code}, most[2], done = 0;
    MPI_Request request;
    if (MPI_Iallreduce(own, most, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
    for (int waited = 0; code == CLI_DONE || waited < 1000; waited++) {
        MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        if (done) return most[0] == -most[1];
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

/* What this rank kept: its failures, with its number. */
static void say_failures(void)
{
    static char line[16384];
    FILE *kept = fdopen(dup(STDERR_FILENO), "r"), *out = fdopen(true_stderr, "w");
    const char *prefix = "evenkeel: ";
    if (!kept || !out) return;
    rewind(kept);
    while (fgets(line, sizeof line, kept)) {
        bool said = !strncmp(line, prefix, strlen(prefix)) && strncmp(line, "evenkeel: note: ", 16) != 0;
        if (said) fprintf(out, "evenkeel: rank %d: %s", rank, line + strlen(prefix));
    }
    fflush(out);
    fclose(kept);
}

int cli_ranks_end(int code)
{
    fflush(stderr);
    ended = true;
    bool alike = all_end_alike(code);
    if (!alike && code != CLI_DONE) {
        if (rank > 0) say_failures();
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); /* for mpirun to pass on what was said */
        MPI_Abort(MPI_COMM_WORLD, code);
    }
    ek_comm_destroy(comm);
    MPI_Finalize();
    return code;
}

int cli_rank_count(void) { return ranks; }
ek_comm *cli_comm(void) { return shared && ranks > 1 ? comm : NULL; }

bool cli_ranks_share(bool command_shares)
{
    shared = command_shares;
    return shared || rank == 0;
}

bool cli_speaks(void) { return rank == 0; }
int cli_default_threads(void) { return threads; }
