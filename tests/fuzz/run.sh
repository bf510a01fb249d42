#!/bin/bash
# Fuzzes the readers, one after the other, and prints a table:
#
#   tests/fuzz/run.sh [OPTION...] BUILD [READER...]
#
# BUILD is the build folder of the preset fuzz. READER is idx, gz, npy, csv, safetensors, onnx, net_text, checkpoint,
# png or jpeg; by default all.
#
#   --runs N       executions of each (10000000)
#   --seconds S    the most time for each (7200)
#   --corpus DIR   keeps what reaches new code in DIR/READER and begins with it; by default it is forgotten
#   --logs DIR     libFuzzer's words in DIR/READER.log, and what it finds as DIR/READER-crash-...; by default here
#   --seeds DIR    more to begin with, in DIR/READER
#   --short        20000 executions, as the tests run them: the same ones every time
#
# On a busy machine a timeout may be the machine's: run what was kept once more, alone. What is found goes into tests/fuzz/found/READER, which every build's tests replay. Exit 1 if anything was.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
runs=10000000 seconds=7200 corpus= logs=. seeds= short=
while [ $# -gt 0 ]; do
    case $1 in
    --runs) runs=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --corpus) corpus=$2; shift 2 ;;
    --logs) logs=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    --short) short=yes runs=20000 seconds=300; shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    -*) echo "run.sh: unknown option '$1'" >&2; exit 2 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || { echo "usage: run.sh [OPTION...] BUILD [READER...]" >&2; exit 2; }
build=$1/tests/fuzz
shift
[ $# -gt 0 ] || set -- net_text png jpeg gz safetensors checkpoint onnx idx npy csv

# Inputs are short: what is long adds no new path, and takes time.
longest() {
    case $1 in
    onnx) echo 8192 ;;
    safetensors | checkpoint) echo 4096 ;;
    gz) echo 512 ;; # which may hold half a megabyte
    net_text) echo 1024 ;;
    *) echo 2048 ;;
    esac
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -z "$short" ] || logs=$work
mkdir -p "$logs"
[ -d "$build/seeds" ] || "$build/fuzz_seeds" "$build/seeds"

# The last number that libFuzzer has given for a word.
last() { sed -n "s/.*$1: *\([0-9]*\).*/\1/p" "$2" | tail -1; }

status=0
printf '%-12s %12s %8s %8s %8s %8s %6s  %s\n' reader executions seconds per-s edges features rss-MB result
for reader; do
    new=$work/new
    [ -z "$corpus" ] || new=$corpus/$reader
    mkdir -p "$new"
    from=("$new" "$build/seeds/$reader")
    [ ! -d "$here/found/$reader" ] || from+=("$here/found/$reader")
    [ -z "$seeds" ] || [ ! -d "$seeds/$reader" ] || from+=("$seeds/$reader")
    options=(-runs="$runs" -max_total_time="$seconds" -max_len="$(longest "$reader")" -rss_limit_mb=2048 -timeout=10
        -print_final_stats=1 -artifact_prefix="$logs/$reader-")
    [ ! -f "$here/$reader.dict" ] || options+=(-dict="$here/$reader.dict")
    [ -z "$short" ] || options+=(-seed=1)
    log=$logs/$reader.log
    began=$SECONDS result=clean
    "$build/fuzz_$reader" "${options[@]}" "${from[@]}" >"$log" 2>&1 || result=found
    took=$((SECONDS - began))
    executions=$(last 'stat::number_of_executed_units' "$log")
    printf '%-12s %12s %8s %8s %8s %8s %6s  %s\n' "$reader" "${executions:-?}" "$took" \
        "$((${executions:-0} / (took > 0 ? took : 1)))" "$(last ' cov' "$log")" "$(last ' ft' "$log")" \
        "$(last 'stat::peak_rss_mb' "$log")" "$result"
    if [ $result = found ]; then
        status=1
        grep -aE "^(==|fuzz:|SUMMARY)|runtime error|artifact" "$log" | tail -12 >&2 || true
    fi
    rm -rf "$work/new"
done
exit $status
