#include "kernels/lane_tables.h"

#include "core/status.h"

#include <string.h>

typedef struct lane_table {
    const char *name;
    const ek_kernels *kernels; /* NULL: not for this kind of machine */
    const ek_kernels *few;     /* for few samples */
    bool (*runs)(void);
} lane_table;

static bool always(void) { return true; }

#if defined(__x86_64__)
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

/* The best first. */
static const lane_table tables[] = {
#if defined(__x86_64__)
    {"avx512", &ek_kernels_avx512, &ek_kernels_avx2_few, has_avx512},
    {"avx2", &ek_kernels_avx2, &ek_kernels_avx2_few, has_avx2},
#else
    {"avx512", NULL, NULL, NULL},
    {"avx2", NULL, NULL, NULL},
#endif
    {"baseline", &ek_kernels_baseline, &ek_kernels_baseline_few, always},
};
enum { TABLES = sizeof tables / sizeof *tables };

static bool runs_here(const lane_table *table) { return table->kernels && table->runs(); }

ek_status ek_kernels_choose(const char *name, const ek_kernels **out)
{
    for (int i = 0; i < TABLES; i++) {
        if (name && strcmp(name, tables[i].name) != 0) continue;
        if (runs_here(&tables[i])) {
            *out = tables[i].kernels;
            return EK_OK;
        }
        if (name)
            return ek_fail(
                EK_E_UNSUPPORTED,
                "this machine lacks the instruction set %s; give no name to have the best that it has", name);
    }
    return ek_fail(EK_E_ARGUMENT,
                   "there is no instruction set \"%s\"; the names are baseline, avx2, avx512 and reference",
                   name);
}

const ek_kernels *ek_kernels_few(const ek_kernels *kernels)
{
    for (int i = 0; i < TABLES; i++) {
        if (tables[i].kernels == kernels) return tables[i].few;
    }
    return kernels;
}
