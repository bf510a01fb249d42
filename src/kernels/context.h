#ifndef EK_KERNELS_CONTEXT_H
#define EK_KERNELS_CONTEXT_H

#include "comm/comm.h"
#include "core/threads.h"
#include "kernels/kernels.h"

struct ek_context {
    ek_pool *pool;
    const ek_kernels *kernels; /* the lane kernels of the chosen instruction set */
    const ek_kernels *few;     /* for inference on so few samples that it computes all of them */
    ek_comm *comm;             /* NULL: this process alone */
    bool reference;            /* run each operator's reference in double instead */
    bool unfused;              /* every node of a net runs a pass of its own */
};

#endif
