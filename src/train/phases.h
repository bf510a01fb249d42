/* The clock of a step: how long each phase of it took. */
#ifndef EK_TRAIN_PHASES_H
#define EK_TRAIN_PHASES_H

#include "core/clock.h"
#include "evenkeel.h"

typedef struct ek_phases {
    double seconds[EK_PHASES];
    double lap; /* when the phase under way began, by ek_now */
} ek_phases;

static inline void ek_phases_begin(ek_phases *phases) { *phases = (ek_phases){.lap = ek_now()}; }

/* What was done since the last call, or since the beginning, was of this phase. */
static inline void ek_phases_lap(ek_phases *phases, ek_phase phase)
{
    double now = ek_now();
    phases->seconds[phase] += now - phases->lap;
    phases->lap = now;
}

#endif
