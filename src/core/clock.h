#ifndef EK_CORE_CLOCK_H
#define EK_CORE_CLOCK_H

#include <time.h>

/* Seconds on a clock that only goes forward. */
static inline double ek_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
