#include "comm/comm.h"

#include "core/clock.h"
#include "core/memory.h"

#include <math.h>
#include <sched.h>
#include <string.h>

int ek_comm_rank(const ek_comm *comm) { return comm ? comm->rank : 0; }
int ek_comm_ranks(const ek_comm *comm) { return comm ? comm->ranks : 1; }
ek_traffic ek_comm_sent(const ek_comm *comm) { return comm ? comm->sent : (ek_traffic){0}; }

void ek_comm_destroy(ek_comm *comm)
{
    if (comm) comm->driver->destroy(comm);
}

ek_status ek_comm_begin(ek_comm *comm, int rank, int ranks, const ek_driver *driver)
{
    *comm = (ek_comm){.rank = rank, .ranks = ranks, .driver = driver, .timeout = EK_TIMEOUT, .patient = true, .left = ek_now()};
    ek_status status = EK_OK;
    EK_GO(EK_NEW(comm->transfer, 2 * (size_t)ranks));
    EK_GO(driver->create_requests(comm, 2 * ranks, &comm->requests));
done:
    if (status != EK_OK) ek_comm_end(comm);
    return status;
}

void ek_comm_end(ek_comm *comm)
{
    if (comm->requests) comm->driver->destroy_requests(comm->requests);
    ek_free(comm->transfer);
    ek_free(comm->other);
    comm->requests = NULL;
    comm->transfer = NULL;
    comm->other = NULL;
}

/* --- messages */

/* What is under way after a failure never comes. */
static ek_status lose(ek_comm *comm, ek_status status)
{
    comm->lost = true;
    return status;
}

static ek_status is_lost(void) { return ek_fail(EK_E_RANK, "the other ranks are lost since an exchange failed"); }

ek_status ek_comm_start(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count)
{
    if (comm->lost) return is_lost();
    for (int i = 0; i < count; i++) {
        if (!transfer[i].sends) continue;
        comm->sent.messages++;
        comm->sent.bytes += (int64_t)transfer[i].bytes;
    }
    ek_status status = comm->driver->start(comm, requests, transfer, count);
    return status == EK_OK ? EK_OK : lose(comm, status);
}

ek_status ek_comm_test(ek_comm *comm, ek_requests *requests, bool *done)
{
    if (comm->lost) return is_lost();
    ek_status status = comm->driver->test(comm, requests, done);
    return status == EK_OK ? EK_OK : lose(comm, status);
}

ek_status ek_comm_set_timeout(ek_comm *comm, double seconds)
{
    if (!(seconds > 0 && seconds <= 1e9))
        return ek_fail(EK_E_ARGUMENT, "the timeout of ranks must be more than 0 seconds, not %g", seconds);
    if (comm) comm->timeout = seconds;
    return EK_OK;
}

void ek_comm_be_patient(ek_comm *comm, bool patient)
{
    if (!comm) return;
    comm->patient = patient;
    comm->left = ek_now(); /* what took its time is no measure of what a step takes */
}

static ek_status silent(const ek_comm *comm, const ek_transfer *transfer, int count, double waited)
{
    int peer = transfer[0].peer;
    for (int i = count - 1; i >= 0; i--) {
        if (!transfer[i].sends) peer = transfer[i].peer;
    }
    return ek_fail(EK_E_RANK,
                   "rank %d has waited %.0f s for rank %d, which hangs, was stopped, or waits for one that does", comm->rank,
                   waited, peer);
}

ek_status ek_comm_wait(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count)
{
    enum { LOOKS = 200 };      /* until another process may have the core */
    const double longest = 0.1; /* seconds between two looks; more are this process's own rest: it was stopped, as all may be */
    double last = ek_now(), waited = 0, limit;
    bool done = false;
    if (!comm->patient && last - comm->left > comm->busy) comm->busy = last - comm->left;
    limit = comm->patient ? INFINITY : fmax(comm->timeout, 10 * comm->busy);
    for (int64_t look = 0;; look++) {
        EK_TRY(ek_comm_test(comm, requests, &done));
        if (done) break;
        if (look < LOOKS) continue;
        sched_yield();
        double now = ek_now();
        waited += fmin(now - last, longest);
        last = now;
        if (waited > limit) return lose(comm, silent(comm, transfer, count, waited));
    }
    comm->left = ek_now();
    return EK_OK;
}

/* --- merging */

void ek_merge_sum(double *into, const double *other, int64_t count)
{
    for (int64_t i = 0; i < count; i++) into[i] += other[i];
}

static ek_status make_room(ek_comm *comm, int64_t count)
{
    if (count <= comm->capacity) return EK_OK;
    ek_free(comm->other);
    comm->capacity = 0;
    EK_TRY(EK_NEW(comm->other, (size_t)count));
    comm->capacity = count;
    return EK_OK;
}

/* A level of the tree: ranks in runs of `gap`, whose merge all of a run have. Neighbouring runs give each other theirs, rank
 * by rank; where the later run is a short one, its last rank gives it to those that have no partner in it. */
static int partner_of(int rank, int gap, int ranks)
{
    int partner = rank ^ gap;
    return partner < ranks ? partner : ranks - 1;
}

static ek_status merge_level(ek_comm *comm, int gap, double *data, int64_t count, ek_merge merge)
{
    int first = (comm->rank / gap ^ 1) * gap; /* of the other run */
    if (first >= comm->ranks) return EK_OK;
    int end = first + gap < comm->ranks ? first + gap : comm->ranks, used = 0;
    size_t bytes = (size_t)count * sizeof *data;
    comm->transfer[used++] =
        (ek_transfer){.peer = partner_of(comm->rank, gap, comm->ranks), .data = comm->other, .bytes = bytes};
    for (int rank = first; rank < end; rank++) {
        if (partner_of(rank, gap, comm->ranks) == comm->rank)
            comm->transfer[used++] = (ek_transfer){.peer = rank, .sends = true, .data = data, .bytes = bytes};
    }
    EK_TRY(ek_comm_start(comm, comm->requests, comm->transfer, used));
    EK_TRY(ek_comm_wait(comm, comm->requests, comm->transfer, used));
    if (first > comm->rank) {
        merge(data, comm->other, count);
    } else {
        merge(comm->other, data, count);
        memcpy(data, comm->other, bytes);
    }
    return EK_OK;
}

ek_status ek_comm_merge(ek_comm *comm, double *data, int64_t count, ek_merge merge)
{
    if (comm->lost) return is_lost(); /* and what was under way may still come into the room */
    EK_TRY(make_room(comm, count));
    for (int gap = 1; gap < comm->ranks; gap *= 2) EK_TRY(merge_level(comm, gap, data, count, merge));
    return EK_OK;
}

ek_status ek_comm_settle(ek_comm *comm)
{
    double nothing = 0;
    if (!comm || !comm->patient) return EK_OK;
    EK_TRY(ek_comm_merge(comm, &nothing, 1, ek_merge_sum));
    ek_comm_be_patient(comm, false);
    return EK_OK;
}

ek_status ek_comm_begin_pieces(ek_comm *comm, int64_t pieces)
{
    if (pieces > ek_comm_ranks(comm)) return ek_comm_settle(comm);
    ek_comm_be_patient(comm, true);
    return EK_OK;
}

ek_status ek_comm_broadcast(ek_comm *comm, int root, void *data, size_t bytes)
{
    int top = 1, ranks = ek_comm_ranks(comm);
    if (root < 0 || root >= ranks) return ek_fail(EK_E_ARGUMENT, "there is no rank %d of %d", root, ranks);
    while (top < ranks) top *= 2;
    for (int gap = top / 2; gap > 0; gap /= 2) {
        int place = (comm->rank - root + ranks) % ranks; /* the root's is 0 */
        bool has = place % (2 * gap) == 0, wants = place % (2 * gap) == gap;
        int peer = has ? place + gap : place - gap;
        if ((!has && !wants) || peer >= ranks) continue;
        ek_transfer t = {.peer = (peer + root) % ranks, .sends = has, .data = data, .bytes = bytes};
        EK_TRY(ek_comm_start(comm, comm->requests, &t, 1));
        EK_TRY(ek_comm_wait(comm, comm->requests, &t, 1));
    }
    return EK_OK;
}
