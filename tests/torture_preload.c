/* Preloaded into the command by tests/commands/torture.sh: its allocation number $TORTURE_AT fails, alone or, with
 * $TORTURE_ON, all after it too. How many there were goes to the file $TORTURE_COUNT. */
#include "failing_malloc.h"

#if defined(FAILS_MALLOC)
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void begin(void)
{
    const char *number = getenv("TORTURE_AT");
    failing_malloc.alone = !getenv("TORTURE_ON");
    atomic_store(&failing_malloc.at, number ? strtoull(number, NULL, 10) : 0);
    atomic_store(&failing_malloc.on, true);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("TORTURE_COUNT");
    atomic_store(&failing_malloc.on, false);
    int file = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (file < 0) return;
    (void)!dprintf(file, "%llu\n", (unsigned long long)atomic_load(&failing_malloc.calls));
    close(file);
}
#endif
