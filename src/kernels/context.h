#ifndef EK_KERNELS_CONTEXT_H
#define EK_KERNELS_CONTEXT_H

#include "core/threads.h"
#include "kernels/kernels.h"

struct ek_context {
    ek_pool *pool;
    const ek_kernels *kernels; /* the lane kernels of the chosen instruction set */
    bool reference;            /* run each operator's reference in double instead */
};

#endif
