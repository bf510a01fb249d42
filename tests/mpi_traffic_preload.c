/* Counts what a process gives to MPI, between it and the library: to be loaded with LD_PRELOAD. At its end each rank writes the
 * messages that it sent, and their bytes, into the file $MPI_TRAFFIC.RANK. */
#include <mpi.h>

#include <stdio.h>
#include <stdlib.h>

#define SEEN __attribute__((visibility("default")))

static long long messages, bytes;

SEEN int MPI_Isend(const void *data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
                   MPI_Request *request)
{
    int size;
    if (PMPI_Type_size(type, &size) == MPI_SUCCESS) {
        messages++;
        bytes += (long long)count * size;
    }
    return PMPI_Isend(data, count, type, peer, tag, comm, request);
}

SEEN int MPI_Finalize(void)
{
    int rank;
    char path[4096];
    const char *name = getenv("MPI_TRAFFIC");
    if (name && PMPI_Comm_rank(MPI_COMM_WORLD, &rank) == MPI_SUCCESS) {
        snprintf(path, sizeof path, "%s.%d", name, rank);
        FILE *file = fopen(path, "w");
        if (file) {
            fprintf(file, "%lld %lld\n", messages, bytes);
            fclose(file);
        }
    }
    return PMPI_Finalize();
}
