#!/bin/bash
# scripts/get-data.sh: wrong files are never installed, failing says what to do, and nothing is left behind.
set -euo pipefail
script=$(cd "$(dirname "$0")/../.." && pwd)/scripts/get-data.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "get_data.sh: $*" >&2; cat "$work/err" >&2; exit 1; }

# Every tool that could fetch is replaced: curl brings well-packed nonsense, npm nothing.
mkdir "$work/bin"
cat >"$work/bin/curl" <<'END'
#!/bin/bash
while [ "$1" != -o ]; do shift; done
echo nonsense | gzip >"$2"
END
printf '#!/bin/bash\nexit 1\n' >"$work/bin/npm"
chmod +x "$work/bin/"*
export PATH=$work/bin:$PATH
unset EVENKEEL_DATA
export XDG_DATA_HOME=$work/share

status=0
"$script" letters 2>"$work/err" || status=$?
[ $status = 2 ] || fail "an unknown set gave $status, not 2"
grep -q "usage: get-data.sh" "$work/err" || fail "no usage"

status=0
"$script" mnist 2>"$work/err" || status=$?
[ $status = 1 ] || fail "wrong files gave $status, not 1"
grep -q "SHA-256 is wrong" "$work/err" || fail "the wrong files were not noticed"
grep -q "mnist could not be fetched; check the network, or install npm" "$work/err" || fail "no remedy"
[ -d "$work/share/evenkeel" ] || fail "the wrong folder was used"
[ -z "$(find "$work/share" -type f)" ] || fail "files were left behind"

# Right files are installed, unpacked, and nothing else is; a fake sha256sum finds right whatever is there.
cat >"$work/bin/sha256sum" <<'END'
#!/bin/bash
while read -r _ name; do [ -s "$name" ] || exit 1; done
END
chmod +x "$work/bin/sha256sum"
place=$work/share/evenkeel/mnist
"$script" mnist 2>"$work/err" || fail "right files were not accepted"
grep -q "mnist is in $place" "$work/err" || fail "it was not said where they are"
[ "$(cat "$place"/t{rain,10k}-{images-idx3,labels-idx1}-ubyte)" = $'nonsense\nnonsense\nnonsense\nnonsense' ] ||
    fail "not the four files that were brought"
[ "$(find "$work/share" -type f | wc -l)" = 4 ] || fail "files were left beside them"

# Files that are there are checked, and need no network.
printf '#!/bin/bash\nexit 1\n' >"$work/bin/curl"
"$script" mnist 2>"$work/err" || fail "what is there was not accepted"
grep -q "mnist is already in $place" "$work/err" || fail "what is there was not recognized"
rm "$place/t10k-labels-idx1-ubyte"
"$script" mnist 2>"$work/err" && fail "a file is missing, and nobody noticed"

# So are the real ones where this machine has them, by their real sums.
rm "$work/bin/sha256sum"
place=$HOME/.local/share/evenkeel/mnist
if [ -e "$place/t10k-labels-idx1-ubyte" ]; then
    "$script" mnist "$place" 2>"$work/err" || fail "what is there was not accepted"
    grep -q "mnist is already in $place" "$work/err" || fail "what is there was not recognized"
fi
