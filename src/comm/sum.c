/* Sums of long vectors. Each rank adds up a slice of a bucket, which all others send it, and sends the sums to all: twice
 * (ranks-1)/ranks of the vector for each rank, however many there are, which is the least there can be. */
#include "comm/comm.h"

#include "core/memory.h"

#include <string.h>

typedef enum stage { WAITS, SCATTERS, GATHERS, DONE } stage;

typedef struct bucket {
    int64_t first, count; /* floats of the vector */
    stage stage;
    ek_requests *requests;
    ek_transfer *transfer; /* [2*(ranks-1)] */
    int transfers;
    float *arriving; /* the others' numbers of this rank's slice, [rank][slice] */
} bucket;

struct ek_sum {
    ek_comm *comm;
    int buckets;
    bucket *bucket;
    float *vector, *arriving;
    ek_transfer *transfer;
    float **part; /* [rank] */
};

static int64_t slice_begin(const bucket *b, int rank, int ranks) { return b->first + b->count * rank / ranks; }
static int64_t slice_count(const bucket *b, int rank, int ranks)
{
    return slice_begin(b, rank + 1, ranks) - slice_begin(b, rank, ranks);
}

ek_status ek_sum_create(ek_comm *comm, const int64_t *end, int buckets, ek_sum **out)
{
    int ranks = comm->ranks;
    ek_sum *s;
    EK_TRY(EK_NEW(s, 1));
    ek_status status = EK_OK;
    s->comm = comm;
    s->buckets = buckets;
    EK_GO(EK_NEW(s->bucket, (size_t)buckets));
    EK_GO(EK_NEW(s->part, (size_t)ranks));
    EK_GO(EK_NEW(s->transfer, 2 * (size_t)ranks * (size_t)buckets));
    EK_GO(EK_NEW(s->vector, (size_t)end[buckets - 1]));
    int64_t arriving = 0;
    for (int i = 0; i < buckets; i++) {
        bucket *b = &s->bucket[i];
        b->first = i ? end[i - 1] : 0;
        b->count = end[i] - b->first;
        b->transfer = s->transfer + 2 * ranks * i;
        arriving += ranks * slice_count(b, comm->rank, ranks);
        EK_GO(comm->driver->create_requests(comm, 2 * ranks, &b->requests));
    }
    EK_GO(EK_NEW(s->arriving, (size_t)arriving + 1));
    float *at = s->arriving;
    for (int i = 0; i < buckets; i++) {
        s->bucket[i].arriving = at;
        at += ranks * slice_count(&s->bucket[i], comm->rank, ranks);
    }
done:
    if (status == EK_OK)
        *out = s;
    else
        ek_sum_destroy(s);
    return status;
}

void ek_sum_destroy(ek_sum *s)
{
    if (!s) return;
    bool under_way = false;
    for (int i = 0; s->bucket && i < s->buckets; i++) {
        under_way |= s->bucket[i].stage == SCATTERS || s->bucket[i].stage == GATHERS;
        if (s->bucket[i].requests) s->comm->driver->destroy_requests(s->bucket[i].requests);
    }
    /* What is under way after a failure may still come: into memory that nobody else has, then. */
    if (!under_way) {
        ek_free(s->arriving);
        ek_free(s->vector);
    }
    ek_free(s->transfer);
    ek_free(s->part);
    ek_free(s->bucket);
    ek_free(s);
}

float *ek_sum_vector(const ek_sum *sum) { return sum->vector; }

/* Slices go to and come from all other ranks: of rank `to` (-1: of each its own) out of the vector, into `in` (NULL: the vector
 * itself). */
static void add_transfer(bucket *b, int peer, int tag, bool sends, float *data, int64_t count)
{
    if (count > 0)
        b->transfer[b->transfers++] =
            (ek_transfer){.peer = peer, .tag = tag, .sends = sends, .data = data, .bytes = (size_t)count * sizeof *data};
}

/* Others begin with the rank after this one, so that not all begin with rank 0. */
static int other(const ek_comm *comm, int i) { return (comm->rank + 1 + i) % comm->ranks; }

ek_status ek_sum_start(ek_sum *s, int index)
{
    ek_comm *comm = s->comm;
    bucket *b = &s->bucket[index];
    int64_t own = slice_count(b, comm->rank, comm->ranks);
    b->transfers = 0;
    b->stage = SCATTERS;
    for (int i = 0; i < comm->ranks - 1; i++) {
        int peer = other(comm, i), tag = 1 + 2 * index;
        add_transfer(b, peer, tag, false, b->arriving + peer * own, own);
        add_transfer(b, peer, tag, true, s->vector + slice_begin(b, peer, comm->ranks), slice_count(b, peer, comm->ranks));
    }
    return ek_comm_start(comm, b->requests, b->transfer, b->transfers);
}

static void add(float *into, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) into[i] += from[i];
}

/* By the pairwise tree. */
static void sum_slice(ek_sum *s, bucket *b)
{
    ek_comm *comm = s->comm;
    int64_t own = slice_count(b, comm->rank, comm->ranks);
    float *slice = s->vector + slice_begin(b, comm->rank, comm->ranks);
    for (int rank = 0; rank < comm->ranks; rank++) s->part[rank] = rank == comm->rank ? slice : b->arriving + rank * own;
    for (int gap = 1; gap < comm->ranks; gap *= 2)
        for (int i = 0; i + gap < comm->ranks; i += 2 * gap) add(s->part[i], s->part[i + gap], own);
    if (comm->rank > 0) memcpy(slice, s->part[0], (size_t)own * sizeof *slice);
}

static ek_status send_sums(ek_sum *s, bucket *b, int index)
{
    ek_comm *comm = s->comm;
    float *slice = s->vector + slice_begin(b, comm->rank, comm->ranks);
    int64_t own = slice_count(b, comm->rank, comm->ranks);
    b->transfers = 0;
    b->stage = GATHERS;
    for (int i = 0; i < comm->ranks - 1; i++) {
        int peer = other(comm, i), tag = 2 + 2 * index;
        add_transfer(b, peer, tag, false, s->vector + slice_begin(b, peer, comm->ranks), slice_count(b, peer, comm->ranks));
        add_transfer(b, peer, tag, true, slice, own);
    }
    return ek_comm_start(comm, b->requests, b->transfer, b->transfers);
}

/* After what the bucket waits for has arrived. */
static ek_status go_on(ek_sum *s, bucket *b)
{
    if (b->stage == GATHERS) {
        b->stage = DONE;
        return EK_OK;
    }
    sum_slice(s, b);
    return send_sums(s, b, (int)(b - s->bucket));
}

ek_status ek_sum_poll(ek_sum *s)
{
    for (int i = 0; i < s->buckets; i++) {
        bucket *b = &s->bucket[i];
        bool done = false;
        if (b->stage != SCATTERS && b->stage != GATHERS) continue;
        EK_TRY(ek_comm_test(s->comm, b->requests, &done));
        if (done) EK_TRY(go_on(s, b));
    }
    return EK_OK;
}

ek_status ek_sum_finish(ek_sum *s)
{
    for (stage until = SCATTERS; until <= GATHERS; until++) {
        for (int i = 0; i < s->buckets; i++) {
            bucket *b = &s->bucket[i];
            if (b->stage != until) continue;
            EK_TRY(ek_comm_wait(s->comm, b->requests, b->transfer, b->transfers));
            EK_TRY(go_on(s, b));
        }
    }
    for (int i = 0; i < s->buckets; i++) s->bucket[i].stage = WAITS;
    return EK_OK;
}
