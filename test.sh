#!/bin/bash
# Installs what the tests need, builds, and runs them:
#
#   ./test.sh             with gcc, the tests that need only light packages: a minute or two
#   ./test.sh --oracles   all there is: also the tests that compare with PyTorch and ONNX Runtime, look at reports in a
#                         browser and compile C source for other machines, all of which it installs (ONNX Runtime
#                         where npm is there); then optimized builds of gcc and clang, the address, undefined
#                         and thread sanitizers, and some fuzzing of every reader
#
# The last line counts the tests of all builds, as CTest does. Exit 0 if none failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

groups=(build data test mpi)
oracles=OFF
for argument; do
    case $argument in
        --oracles) oracles=ON; groups+=(oracles browser cross packages fuzz openmpi) ;;
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' test.sh; exit 0 ;;
        *) echo "test.sh: unknown option '$argument'; usage: ./test.sh [--oracles]" >&2; exit 2 ;;
    esac
done

passed=0 failed=0 skipped=0

# check PRESET [CMAKE-OPTION...]: builds a preset and runs its tests; a build that fails counts as a failed test.
check() {
    local preset=$1 report=$PWD/build/$1/ctest.xml
    local tests=0 failures=0 skips=0
    shift
    echo "== $preset"
    if ! { cmake --preset "$preset" "$@" >/dev/null && cmake --build --preset "$preset"; }; then
        echo "test.sh: the build '$preset' failed" >&2
        failed=$((failed + 1))
        return
    fi
    rm -f "$report"
    ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error --output-junit "$report" || true
    if ! read -r tests failures skips < <(sed -n '
            /<testsuite /,/>/ { H }
            ${ x; s/.*tests="\([0-9]*\)".*failures="\([0-9]*\)".*skipped="\([0-9]*\)".*/\1 \2 \3/p }
            ' "$report"); then
        echo "test.sh: the tests of '$preset' left no report" >&2
        failed=$((failed + 1))
        return
    fi
    passed=$((passed + tests - failures - skips))
    failed=$((failed + failures))
    skipped=$((skipped + skips))
}

scripts/install-deps.sh "${groups[@]}"
if [ $oracles = ON ]; then
    scripts/get-onnx-oracles.sh || echo "test.sh: what compares with ONNX Runtime is skipped" >&2
fi
export CC=gcc # the preset clang sets its own
check dev -DEVENKEEL_ORACLES=$oracles
if [ $oracles = ON ]; then
    check release -DEVENKEEL_WERROR=ON -DEVENKEEL_ORACLES=OFF
    check clang -DEVENKEEL_ORACLES=OFF
    check asan -DEVENKEEL_ORACLES=OFF
    check tsan -DEVENKEEL_ORACLES=OFF
    check fuzz
fi

echo "$passed passed, $failed failed$([ $skipped -eq 0 ] || echo ", $skipped skipped")"
[ $failed -eq 0 ]
