/* Ranks by MPI: messages between two ranks, without waiting, and nothing else, so that what travels is what src/comm says,
 * and a rank that is silent is noticed. Built into evenkeel-mpi and libevenkeel-mpi alone. */
#include "comm/comm.h"

#include "core/memory.h"
#include "evenkeel-mpi.h"

/* A longer message goes in pieces: MPI counts bytes in an int. */
#define PIECE ((size_t)1 << 30)

typedef struct ranks {
    ek_comm comm;
    MPI_Comm mpi;
} ranks;

struct ek_requests {
    MPI_Request *at;
    bool *sends;
    int count, arrived, most;
};

static ek_status check(int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    if (code == MPI_SUCCESS) return EK_OK;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) text[0] = 0;
    return ek_fail(EK_E_RANK, "MPI: %s", text[0] ? text : "an error without a text");
}

/* What has not arrived after a failure never may: its memory will be another's. */
static void destroy_requests(ek_requests *r)
{
    if (!r) return;
    for (int i = r->arrived; i < r->count; i++) {
        if (r->at[i] == MPI_REQUEST_NULL) continue;
        if (!r->sends[i]) MPI_Cancel(&r->at[i]);
        MPI_Request_free(&r->at[i]);
    }
    ek_free(r->sends);
    ek_free(r->at);
    ek_free(r);
}

static ek_status create_requests(ek_comm *comm, int most, ek_requests **out)
{
    (void)comm;
    ek_requests *r;
    EK_TRY(EK_NEW(r, 1));
    ek_status status = EK_OK;
    r->most = most;
    EK_GO(EK_NEW(r->at, (size_t)most + 1));
    EK_GO(EK_NEW(r->sends, (size_t)most + 1));
    *out = r;
    r = NULL;
done:
    destroy_requests(r);
    return status;
}

static ek_status start_piece(ranks *r, ek_requests *requests, const ek_transfer *t, size_t from, int bytes)
{
    if (requests->count == requests->most) {
        MPI_Request *at = ek_grow(requests->at, (size_t)requests->most * 2, sizeof *at);
        if (at) requests->at = at;
        bool *sends = at ? ek_grow(requests->sends, (size_t)requests->most * 2, sizeof *sends) : NULL;
        if (!sends) return EK_E_MEMORY;
        requests->sends = sends;
        requests->most *= 2;
    }
    MPI_Request *request = &requests->at[requests->count];
    *request = MPI_REQUEST_NULL;
    requests->sends[requests->count++] = t->sends;
    char *data = (char *)t->data + from;
    return check(t->sends ? MPI_Isend(data, bytes, MPI_BYTE, t->peer, t->tag, r->mpi, request)
                          : MPI_Irecv(data, bytes, MPI_BYTE, t->peer, t->tag, r->mpi, request));
}

static ek_status start(ek_comm *comm, ek_requests *requests, const ek_transfer *transfer, int count)
{
    requests->count = requests->arrived = 0;
    for (int i = 0; i < count; i++) {
        const ek_transfer *t = &transfer[i];
        for (size_t from = 0; from < t->bytes; from += PIECE)
            EK_TRY(start_piece((ranks *)comm, requests, t, from, (int)(t->bytes - from < PIECE ? t->bytes - from : PIECE)));
    }
    return EK_OK;
}

static ek_status test(ek_comm *comm, ek_requests *requests, bool *done)
{
    (void)comm;
    for (int arrived = 1; requests->arrived < requests->count; requests->arrived++) {
        EK_TRY(check(MPI_Test(&requests->at[requests->arrived], &arrived, MPI_STATUS_IGNORE)));
        if (!arrived) break;
    }
    *done = requests->arrived == requests->count;
    return EK_OK;
}

static void destroy(ek_comm *comm)
{
    ranks *r = (ranks *)comm;
    ek_comm_end(comm);
    MPI_Comm_free(&r->mpi);
    ek_free(r);
}

static const ek_driver driver = {create_requests, destroy_requests, start, test, destroy};

ek_status ek_comm_create_mpi(MPI_Comm world, ek_comm **out)
{
    int rank, count, started = 0;
    ranks *r;
    if (MPI_Initialized(&started) != MPI_SUCCESS || !started)
        return ek_fail(EK_E_ARGUMENT, "ek_comm_create_mpi comes after MPI_Init");
    EK_TRY(EK_NEW(r, 1));
    ek_status status = EK_OK;
    r->mpi = MPI_COMM_NULL;
    EK_GO(check(MPI_Comm_dup(world, &r->mpi)));
    EK_GO(check(MPI_Comm_set_errhandler(r->mpi, MPI_ERRORS_RETURN)));
    EK_GO(check(MPI_Comm_rank(r->mpi, &rank)));
    EK_GO(check(MPI_Comm_size(r->mpi, &count)));
    EK_GO(ek_comm_begin(&r->comm, rank, count, &driver));
done:
    if (status == EK_OK) {
        *out = &r->comm;
    } else {
        if (r->mpi != MPI_COMM_NULL) MPI_Comm_free(&r->mpi);
        ek_free(r);
    }
    return status;
}
