/*
 * Ranks: processes that compute one thing together, each with a share of the data.
 *
 * What they exchange is merged in one fixed order, the pairwise tree over the ranks' numbers:
 *
 *   for gap = 1, 2, 4, ...: rank i takes in what rank i + gap has, for i = 0, 2 gap, 4 gap, ...
 *
 * so that every rank has the same result, to the last bit, and it is that of one process that does the same with its
 * shards (comm/shards.h). MPI is behind the driver, in mpi.c, and known nowhere else.
 */
#ifndef EK_COMM_COMM_H
#define EK_COMM_COMM_H

#include "core/status.h"

#define EK_TIMEOUT 10.0 /* seconds */
#define EK_MAX_SHARDS 65536

/* A message to or from a rank. Of one pair of ranks those of one tag arrive in the order in which they were sent. */
typedef struct ek_transfer {
    int peer, tag;
    bool sends;
    void *data;
    size_t bytes;
} ek_transfer;

/* Messages under way. */
typedef struct ek_requests ek_requests;

typedef struct ek_driver {
    /* Room for so many messages at once. */
    ek_status (*create_requests)(ek_comm *comm, int most, ek_requests **out);
    void (*destroy_requests)(ek_requests *requests);
    /* Starts messages, whose data stays untouched until test says *done: all have arrived. */
    ek_status (*start)(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count);
    ek_status (*test)(ek_comm *comm, ek_requests *requests, bool *done);
    void (*destroy)(ek_comm *comm);
} ek_driver;

struct ek_comm {
    int rank, ranks;
    const ek_driver *driver;
    bool lost;       /* an exchange failed: there will be no other */
    double timeout; /* seconds that a rank may be silent, see ek_comm_wait */
    bool patient;    /* all may take their time: data is being opened, or what no step waits for is done */
    double busy;     /* the longest time that this rank computed between two exchanges */
    double left;     /* when its last exchange ended, by ek_now */
    ek_traffic sent;
    ek_requests *requests; /* of ek_comm_merge */
    ek_transfer *transfer; /* [2*ranks] */
    double *other;         /* what another rank has, [capacity] */
    int64_t capacity;
};

/* What a driver's own create function begins with; *comm is part of a larger struct. */
ek_status ek_comm_begin(ek_comm *comm, int rank, int ranks, const ek_driver *driver);
void ek_comm_end(ek_comm *comm);

/* Begins an ek_driver's messages, counted. */
ek_status ek_comm_start(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count);
/* *done: all have arrived. */
ek_status ek_comm_test(ek_comm *comm, ek_requests *requests, bool *done);
/* Until all have arrived. A rank that is silent for longer than `timeout`, and than ten times what this rank took between any
 * two exchanges so far, hangs or is gone.
 * EK_E_RANK  one is silent, or MPI fails; nothing can be exchanged any more */
ek_status ek_comm_wait(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count);

/* *into takes in `other`, whose ranks come after those of `into`. */
typedef void (*ek_merge)(double *into, const double *other, int64_t count);
void ek_merge_sum(double *into, const double *other, int64_t count);

/* data [count] becomes the merge of all ranks', on each of them. About log2(ranks) messages. */
ek_status ek_comm_merge(ek_comm *comm, double *data, int64_t count, ek_merge merge);
/* Until all are there, however long it takes; from now on all compute alike, and nobody may be silent. NULL, or when that is so
 * already: nothing. */
ek_status ek_comm_settle(ek_comm *comm);
/* While all may take their time (opening data, writing a checkpoint) nobody is taken for hanging. */
void ek_comm_be_patient(ek_comm *comm, bool patient);

/* As the one or the other, for work of which each rank has `pieces`/ranks: where that is one at most, those with none or a smaller
 * one know nothing of what a piece takes. All call it alike, and ek_comm_settle after it. */
ek_status ek_comm_begin_pieces(ek_comm *comm, int64_t pieces);

/* --- sums of long vectors of floats, in buckets that travel on their own, and while something else is computed */

typedef struct ek_sum ek_sum;

/* Buckets lie one after the other in a vector: bucket i is [end[i-1], end[i]). */
ek_status ek_sum_create(ek_comm *comm, const int64_t *end, int buckets, ek_sum **out);
void ek_sum_destroy(ek_sum *sum);
/* The vector: this rank's numbers, and after ek_sum_finish the sums. */
float *ek_sum_vector(const ek_sum *sum);
/* The bucket's numbers are in place, and are not touched until the end. */
ek_status ek_sum_start(ek_sum *sum, int bucket);
/* Takes what has arrived; called now and then. */
ek_status ek_sum_poll(ek_sum *sum);
ek_status ek_sum_finish(ek_sum *sum);

#endif
