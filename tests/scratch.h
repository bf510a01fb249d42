/* One file that exists for the tests' time. */
#ifndef EK_TESTS_SCRATCH_H
#define EK_TESTS_SCRATCH_H

#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/evenkeel-test-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    int file = mkstemp(path);
    return file < 0 ? -1 : close(file);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

#endif
