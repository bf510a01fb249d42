#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static volatile sig_atomic_t requested;

static void request(int number)
{
    (void)number;
    requested = 1;
    const int saved = errno; /* what was interrupted may be about to read it */
    static const char sign[] = "\nStopping after this step; once more ends at once.\n";
    if (isatty(STDERR_FILENO)) (void)!write(STDERR_FILENO, sign, sizeof sign - 1);
    for (int i = 0; i < SIGNALS; i++) {
        struct sigaction now;
        bool ours = sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == request;
        if (ours) signal(signals[i], SIG_DFL);
    }
    errno = saved;
}

void cli_stop_listen(void)
{
    struct sigaction action = {.sa_handler = request, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++) {
        struct sigaction before;
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) continue;
        sigaction(signals[i], &action, NULL);
    }
}

bool cli_stop_requested(void) { return requested; }
