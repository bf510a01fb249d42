#!/usr/bin/env bash
# The committed numbers of tests/test_batch_norm.c are still PyTorch's. Needs python3-torch, else says so.
set -eu
python=/usr/bin/python3
if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "skipped: python3-torch is not installed"
    exit 0
fi
"$python" "$(dirname "$0")/../oracles/batch_norm_golden.py" --check
