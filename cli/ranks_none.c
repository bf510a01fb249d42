#include "ranks.h"

bool cli_ranks_begin(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return true;
}

int cli_ranks_end(int code) { return code; }
int cli_rank_count(void) { return 1; }
ek_comm *cli_comm(void) { return NULL; }

bool cli_ranks_share(bool command_shares)
{
    (void)command_shares;
    return true;
}

bool cli_speaks(void) { return true; }
int cli_default_threads(void) { return 0; }
