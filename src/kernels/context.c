#include "kernels/context.h"

#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

ek_context_options ek_context_options_default(void) { return (ek_context_options){0}; }

ek_status ek_context_create(const ek_context_options *options, ek_context **out)
{
    ek_context_options o = options ? *options : ek_context_options_default();
    if (o.threads < 0 || o.threads > 256)
        return ek_fail(EK_E_ARGUMENT, "threads must be 1 to 256, or 0 for one a core, not %d", o.threads);
    const char *isa = o.isa ? o.isa : getenv("EVENKEEL_ISA");
    if (isa && !*isa) isa = NULL;
    const char *fuse = getenv("EVENKEEL_FUSE");
    bool unfused = fuse && !strcmp(fuse, "off");
    if (fuse && *fuse && !unfused && strcmp(fuse, "on") != 0)
        return ek_fail(EK_E_ARGUMENT, "EVENKEEL_FUSE is on or off, not '%s'", fuse);

    ek_context *context;
    EK_TRY(EK_NEW(context, 1));
    ek_status status = EK_OK;
    /* The reference needs no lane kernels, but what lies beside the operators (batches, optimizers) does. */
    context->unfused = unfused;
    context->comm = o.comm;
    context->reference = isa && !strcmp(isa, "reference");
    EK_GO(ek_kernels_choose(context->reference ? "baseline" : isa, &context->kernels));
    context->few = ek_kernels_few(context->kernels);
    EK_GO(ek_pool_create(o.threads ? o.threads : ek_cores(), &context->pool));
done:
    if (status == EK_OK)
        *out = context;
    else
        ek_context_destroy(context);
    return status;
}

void ek_context_destroy(ek_context *context)
{
    if (!context) return;
    ek_pool_destroy(context->pool);
    ek_free(context);
}

const char *ek_context_isa(const ek_context *context)
{
    return context->reference ? "reference" : context->kernels->name;
}
int ek_context_threads(const ek_context *context) { return ek_pool_threads(context->pool); }
