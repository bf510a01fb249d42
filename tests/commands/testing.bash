# What every command test sources, with the build folder as $1: a scratch folder to work in, taken away at
# the end, and a few checks. A test ends with `finish`.
set -u
evenkeel=$(cd "$1" && pwd)/evenkeel
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failures=0
command="(none)"

fail() {
    failures=$((failures + 1))
    echo "FAILED: $1" >&2
    echo "  after: $command" >&2
    sed 's/^/  stdout: /' out 2>/dev/null | head -n 20 >&2
    sed 's/^/  stderr: /' err 2>/dev/null | head -n 20 >&2
}

# exits CODE ARGUMENTS: runs the command; its output lies in the files out and err.
exits() {
    local expected=$1 code
    shift
    command="evenkeel $*"
    "$evenkeel" "$@" >out 2>err
    code=$?
    [ "$code" = "$expected" ] || fail "exit code $code, not $expected"
}

# says out|err TEXT: the last command printed this text.
says() { grep -qF -- "$2" "$1" || fail "std$1 does not say: $2"; }

# silent out|err: the last command printed nothing there.
silent() { [ ! -s "$1" ] || fail "std$1 is not empty"; }

# prints: the last command's stdout is exactly what comes on this function's stdin.
prints() { diff - out >&2 || fail "stdout is not as expected (< expected, > printed)"; }

# until_it_listens PID: until the command, no longer the shell that began it, has a handler for SIGINT, or has ended.
until_it_listens() {
    local caught
    while kill -0 "$1" 2>/dev/null; do
        if [ "$(readlink "/proc/$1/exe")" = "$(readlink -f "$evenkeel")" ]; then
            caught=$(sed -n 's/^SigCgt:[[:space:]]*/0x/p' "/proc/$1/status" 2>/dev/null)
            ((${caught:-0} & 2)) && return
        fi
        sleep 0.01
    done
}

same() { cmp "$1" "$2" >&2 || fail "$1 and $2 differ"; }

# tensors FILE: the numbers of a model file, without what it says of itself.
tensors() { tail -c "+$((9 + $(od -A n -t u8 -N 8 "$1")))" "$1"; }
same_tensors() { cmp <(tensors "$1") <(tensors "$2") >&2 || fail "the numbers of $1 and $2 differ"; }

# npy FILE DTYPE SHAPE: a NumPy array with the data from stdin, as in: npy x.npy '|u1' '2, 4'
npy() {
    local header="{'descr': '$2', 'fortran_order': False, 'shape': ($3), }"
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "$header"; cat; } >"$1"
}

# A net that trains in no time: on the synthetic features synthetic:20.
small_net() {
    cat <<'END'
input 20
fc1: linear 16
bn1: batchnorm
     relu
fc2: linear 10
END
}

finish() {
    [ "$failures" = 0 ] || exit 1
    exit 0
}
