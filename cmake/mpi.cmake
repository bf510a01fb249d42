# evenkeel-mpi and libevenkeel-mpi, where an MPI library is: the command and the library with src/comm/mpi.c. The two most
# usual ones are known by pkg-config, and both may be there: then the tests run both, and mpicc says which one is installed.
set(EVENKEEL_MPI AUTO CACHE STRING "evenkeel-mpi: ON, OFF, or AUTO: where an MPI library is found")

# evenkeel_mpi(SUFFIX TARGET): libevenkeel-mpiSUFFIX and evenkeel-mpiSUFFIX with the MPI library TARGET.
function(evenkeel_mpi suffix mpi)
    add_library(evenkeel_mpi${suffix} STATIC src/comm/mpi.c)
    set_target_properties(evenkeel_mpi${suffix} PROPERTIES OUTPUT_NAME evenkeel-mpi${suffix})
    target_include_directories(evenkeel_mpi${suffix} PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> PRIVATE src)
    target_link_libraries(evenkeel_mpi${suffix} PUBLIC evenkeel ${mpi} PRIVATE $<BUILD_INTERFACE:evenkeel_flags>)
    add_executable(evenkeel_mpi_cli${suffix} cli/ranks_mpi.c $<TARGET_OBJECTS:evenkeel_cli_objects>)
    set_target_properties(evenkeel_mpi_cli${suffix} PROPERTIES OUTPUT_NAME evenkeel-mpi${suffix})
    target_link_libraries(evenkeel_mpi_cli${suffix} PRIVATE evenkeel_mpi${suffix} evenkeel evenkeel_flags PkgConfig::JANSSON
                          PkgConfig::LIBMD Threads::Threads)
    target_link_options(evenkeel_mpi_cli${suffix} PRIVATE -Wl,--gc-sections)
endfunction()

if(NOT EVENKEEL_MPI STREQUAL OFF)
    find_package(MPI QUIET COMPONENTS C)
    if(MPI_C_FOUND)
        evenkeel_mpi("" MPI::MPI_C)
    elseif(EVENKEEL_MPI STREQUAL ON)
        message(FATAL_ERROR "There is no MPI library: scripts/install-deps.sh mpi")
    endif()
    pkg_check_modules(MPICH QUIET IMPORTED_TARGET mpich)
    pkg_check_modules(OPENMPI QUIET IMPORTED_TARGET ompi-c)
    if(EVENKEEL_TESTS AND MPICH_FOUND)
        evenkeel_mpi(.mpich PkgConfig::MPICH)
    endif()
    if(EVENKEEL_TESTS AND OPENMPI_FOUND)
        evenkeel_mpi(.openmpi PkgConfig::OPENMPI)
    endif()
endif()
