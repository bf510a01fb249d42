#ifndef EK_CORE_CONTEXT_H
#define EK_CORE_CONTEXT_H

#include "core/threads.h"

struct ek_context {
    ek_pool *pool;
    const struct ek_kernels *kernels; /* the lane kernels of the chosen instruction set */
    bool reference;                   /* run each operator's reference in double instead */
};

#endif
