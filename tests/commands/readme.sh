#!/usr/bin/env bash
# The README's C program is examples/library.c, which is compiled with everything else, and it runs.
set -euo pipefail
build=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '1d;$d' >"$folder/library.c"
diff "$folder/library.c" "$root/examples/library.c"
cd "$folder"
"$build/examples/library" | tee output
grep -q '^test accuracy 0\.[89]' output
test -s small.safetensors
