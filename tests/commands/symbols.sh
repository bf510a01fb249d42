#!/bin/bash
# What the library exports is what the list says, and every name that others could meet begins with ek_.
#   bash tests/commands/symbols.sh BUILD --update    writes the list anew
set -euo pipefail
library=$1/libevenkeel.a
list=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/exported-symbols.txt
header=$(dirname "$list")/../include/evenkeel.h
command -v readelf >/dev/null || { echo "symbols.sh: skipped, there is no readelf" >&2; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Of each symbol defined for other files: its visibility and name.
readelf -sW "$library" 2>/dev/null |
    awk '($5 == "GLOBAL" || $5 == "WEAK") && $7 != "UND" { print $6, $8 }' | sort -u >"$work/all"
[ -s "$work/all" ] || { echo "symbols.sh: $library has no symbols" >&2; exit 1; }
if grep -vE ' ek_' "$work/all"; then
    echo "symbols.sh: names that do not begin with ek_ can clash with a program's own" >&2
    exit 1
fi
sed -n 's/^DEFAULT //p' "$work/all" | LC_ALL=C sort >"$work/exported"
if [ "${2:-}" = --update ]; then
    cp "$work/exported" "$list"
    exit 0
fi
diff "$list" "$work/exported" >&2 || {
    echo "symbols.sh: the library exports (>) other names than $list says (<); if that is meant: bash $0 $1 --update" >&2
    exit 1
}
# All of them, and no others, are declared for users.
grep -oE '\bek_[a-z0-9_]+\(' "$header" | tr -d '(' | LC_ALL=C sort -u >"$work/declared"
if LC_ALL=C comm -23 "$list" "$work/declared" | grep .; then
    echo "symbols.sh: exported, but not in evenkeel.h" >&2
    exit 1
fi
