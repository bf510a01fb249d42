#!/bin/bash
# Installs what Evenkeel needs, a group at a time, and only what is missing:
#
#   scripts/install-deps.sh GROUP...
#
#   build    compiler, CMake and libraries
#   data     Fashion-MNIST
#   test     cmocka, clang as the second compiler, C++ for a consumer, groff for the man pages
#   fuzz     clang with libFuzzer and the sanitizers' libraries
#   packages what Debian packages and the completion of other shells are checked with
#   mpi      MPICH, for evenkeel-mpi
#   openmpi  Open MPI, for the same, with which the tests run too
#   oracles  PyTorch, ONNX's checker and ONNX's test models, which results are compared with
#   browser  Chromium and protoc, which the tests of reports and event files also use where they are there
#   cross    compilers for 32 bits and for Cortex-M, which the tests of C source also use where they are there
#   bench    the fast BLAS libraries that PyTorch's speed hangs on, oneDNN, and strip for the binary's size
#
# On Debian and Ubuntu with apt, through sudo when not root. When all is there, nothing is fetched, and
# neither network nor root is needed. Elsewhere it looks for the tools themselves and names what to install.
set -euo pipefail

declare -A packages=(
    [build]="gcc libc6-dev cmake ninja-build pkg-config libjansson-dev libmd-dev zlib1g-dev libpng-dev libjpeg-dev"
    [data]="dataset-fashion-mnist"
    [test]="libcmocka-dev clang g++ binutils gzip groff-base"
    [fuzz]="clang libclang-rt-dev"
    [packages]="dpkg-dev lintian zsh fish"
    [mpi]="mpich libmpich-dev"
    [openmpi]="openmpi-bin libopenmpi-dev"
    [oracles]="python3 python3-numpy python3-torch python3-onnx libonnx-testdata"
    [browser]="chromium protobuf-compiler python3"
    [cross]="gcc-multilib gcc-arm-none-eabi libnewlib-arm-none-eabi"
    [bench]="libblis4-openmp libopenblas0-pthread libdnnl-dev binutils"
)

fail() { echo "install-deps.sh: $*" >&2; exit 1; }

have() {
    local tool
    for tool; do command -v "$tool" >/dev/null || return 1; done
}

# Whether a group is there, on a system whose packages we cannot ask for.
present() {
    case $1 in
        build) have gcc cmake ninja pkg-config && pkg-config --exists jansson libmd zlib libpng libjpeg ;;
        data) [ -d /usr/share/datasets/fashion-mnist ] || [ -d "${EVENKEEL_DATA:-}/fashion-mnist" ] ;;
        test) have clang g++ readelf gzip groff && pkg-config --exists cmocka ;;
        fuzz) have clang && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
            clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null ;;
        packages) have dpkg-deb lintian zsh fish ;;
        mpi) have mpirun mpicc ;;
        openmpi) have mpirun.openmpi mpicc.openmpi ;;
        oracles) /usr/bin/python3 -c 'import numpy, onnx, torch' 2>/dev/null ;;
        browser) have chromium protoc python3 ;;
        cross) have arm-none-eabi-gcc ;;
        bench) have strip ;;
    esac
}

[ $# -gt 0 ] || fail "name a group: build, data, test, fuzz, packages, mpi, openmpi, oracles, browser, cross or bench"
for group; do
    [ -n "${packages[$group]:-}" ] || fail "no group '$group'; there are build, data, test, fuzz, packages, mpi, openmpi, oracles, browser, cross and bench"
done

if ! have apt-get dpkg-query; then
    for group; do
        present "$group" || fail "there is no apt here; please install what this system calls these Debian" \
            "packages, then try again: ${packages[$group]}"
    done
    exit 0
fi

missing=()
for group; do
    for package in ${packages[$group]}; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing+=("$package")
    done
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "there is no sudo here; as root, please run:" \
        "apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1 && return
    cat "$log" >&2
    return 1
}

echo "Installing ${missing[*]}" >&2
# A mirror that fails need not matter: the lists at hand may do.
apt update || echo "install-deps.sh: apt-get update failed; trying with the package lists at hand" >&2
apt install --yes --no-install-recommends "${missing[@]}" || fail "apt could not install: ${missing[*]}"
