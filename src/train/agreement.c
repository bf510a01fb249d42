#include "train/agreement.h"

#include <math.h>
#include <string.h>

enum { VERSION, ISA, OPTIONS, DATA, TEST, PARAMETERS, POSITION, FACTS };

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    return hash;
}

/* What a checkpoint says of them, and what ranks do alike besides: how long they run, and when they meet for a checkpoint. */
static uint64_t hash_options(const ek_run *run)
{
    const ek_train_options *o = run->options;
    const uint64_t more[] = {(uint64_t)o->epochs, (uint64_t)o->checkpoint_steps, o->checkpoint != NULL};
    uint64_t hash = ek_run_options_hash(run);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) hash = (hash ^ more[i]) * 0x100000001b3;
    return hash;
}

/* The labels stand for the data: its items are too many to be read for this. */
static uint64_t hash_data(const ek_dataset *data)
{
    if (!data) return 0;
    uint64_t hash = 0xcbf29ce484222325 ^ (uint64_t)data->count ^ (uint64_t)data->item << 32;
    for (int64_t i = 0; data->label && i < data->count; i++)
        hash = (hash ^ (uint64_t)data->label[i]) * 0x100000001b3;
    return hash;
}

static ek_status differ(int rank, int fact)
{
    static const char *const texts[FACTS] = {
        [VERSION] = "runs another version of evenkeel than rank 0: install one version on all machines",
        [ISA] = "computes with another instruction set than rank 0: set EVENKEEL_ISA to one that all machines have",
        [OPTIONS] = "was given other options than rank 0",
        [DATA] = "has other data than rank 0",
        [TEST] = "has other test data than rank 0",
        [PARAMETERS] = "begins with other parameters than rank 0",
        [POSITION] = "resumes at another step than rank 0: the checkpoint must be one file that all ranks read",
    };
    return ek_fail(EK_E_RANK, "rank %d %s", rank, texts[fact]);
}

static void merge_lowest(double *into, const double *other, int64_t count)
{
    for (int64_t i = 0; i < count; i++) into[i] = fmin(into[i], other[i]);
}

ek_status ek_agreement_check(ek_comm *comm, const ek_run *run, const ek_dataset *data, const ek_dataset *test)
{
    const ek_net *net = run->trainer->net;
    const uint64_t own[FACTS] = {hash_text(ek_version()),
                                 hash_text(ek_context_isa(net->context)),
                                 hash_options(run),
                                 hash_data(data),
                                 hash_data(test),
                                 ek_net_hash(net),
                                 (uint64_t)ek_run_steps(run)};
    uint64_t first[FACTS];
    memcpy(first, own, sizeof first);
    EK_TRY(ek_comm_broadcast(comm, 0, first, sizeof first));
    double rank[FACTS]; /* the lowest that differs */
    for (int i = 0; i < FACTS; i++) rank[i] = own[i] != first[i] ? ek_comm_rank(comm) : INFINITY;
    EK_TRY(ek_comm_merge(comm, rank, FACTS, merge_lowest));
    for (int i = 0; i < FACTS; i++) {
        if (isfinite(rank[i])) return differ((int)rank[i], i);
    }
    return EK_OK;
}
