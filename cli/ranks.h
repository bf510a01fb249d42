/* The processes that run one command together: this one alone (ranks_none.c), or those that mpirun has started (ranks_mpi.c,
 * in evenkeel-mpi). */
#ifndef CLI_RANKS_H
#define CLI_RANKS_H

#include "evenkeel.h"

/* First in main. False: it failed, which was said. */
bool cli_ranks_begin(int *argc, char ***argv);
/* Last, with the exit code so far; gives the exit code. */
int cli_ranks_end(int code);

/* How many processes share the work, as far as they know of each other. */
int cli_rank_count(void);
/* The ranks; NULL: this process alone, or the command leaves the work to rank 0. */
ek_comm *cli_comm(void);
/* The command about to run is one that the ranks share (cli_command.ranks), or rank 0's: then this gives false on the others,
 * which have nothing to do. */
bool cli_ranks_share(bool command_shares);
/* Whether this process prints, and writes files: rank 0. */
bool cli_speaks(void);
/* Threads of a process that asked for none; 0: one a core. */
int cli_default_threads(void);

#endif
