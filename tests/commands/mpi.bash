# What the command tests with several processes source after testing.bash: the MPI libraries that are there, in libraries.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# What MPI libraries do inside is not ours: they leak, and UCX, which MPICH stands on, watches the memory of threads that the
# thread sanitizer has already taken leave of.
export ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS="ignore_noninstrumented_modules=1 ${TSAN_OPTIONS:-}" UCX_MEM_EVENTS=no
build=$(dirname "$evenkeel")
libraries=()
for library in mpich openmpi; do
    [ -x "$build/evenkeel-mpi.$library" ] && command -v mpirun.$library >/dev/null && libraries+=($library)
done
[ ${#libraries[@]} -gt 0 ] || { echo "no MPI library was built with"; exit 77; }

# ranks R WORDS...: the command on so many ranks, with $library.
ranks() {
    command="mpirun -n $1 evenkeel-mpi.$library ${*:2}"
    timeout 120 "mpirun.$library" -n "$1" "$build/evenkeel-mpi.$library" "${@:2}" >out 2>err </dev/null
}
