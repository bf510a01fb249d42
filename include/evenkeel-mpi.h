/* Evenkeel on several machines, by MPI: with libevenkeel-mpi, beside libevenkeel and an MPI library (MPICH, Open MPI).
 *
 *   MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
 *   ek_comm_create_mpi(MPI_COMM_WORLD, &comm);
 *   ek_context_options options = ek_context_options_default();
 *   options.comm = comm;
 *   ek_context_create(&options, &context);     and then as in one process, on every rank
 *
 * See section 14 of evenkeel.h. */
#ifndef EVENKEEL_MPI_H
#define EVENKEEL_MPI_H

#include "evenkeel.h"

#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ranks of `world`, which is not used itself (MPI_Comm_dup). All of them call it, and ek_comm_destroy before MPI_Finalize.
 * Only the thread that calls the library's functions calls MPI: MPI_THREAD_FUNNELED is enough.
 * EK_E_ARGUMENT  MPI was not begun
 * EK_E_RANK      MPI fails */
EK_API EK_MUST_CHECK ek_status ek_comm_create_mpi(MPI_Comm world, ek_comm **out);

#ifdef __cplusplus
}
#endif

#endif
