#!/bin/bash
# Runs the experiments and puts their output into docs/experiments.md, below each "$ examples/experiments/NAME.sh".
# update.sh [NAME...]: only these. What fails leaves the document as it is. EVENKEEL names the binary.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
document=docs/experiments.md
new=$(mktemp) output=$(mktemp)
trap 'rm -f "$new" "$output"' EXIT
[ $# -gt 0 ] || set -- $(sed -n 's|^\$ examples/experiments/\(.*\)\.sh$|\1|p' $document)
for name; do
    grep -qxF "\$ examples/experiments/$name.sh" $document || { echo "$document has no experiment $name" >&2; exit 1; }
    echo "$name" >&2
    sh "examples/experiments/$name.sh" >"$output"
    awk -v command="\$ examples/experiments/$name.sh" -v output="$output" '
        /^```$/ { inside = 0 }
        !inside { print }
        $0 == command { inside = 1; while ((getline line <output) > 0) print line }
    ' $document >"$new"
    cat "$new" >$document
done
