#!/bin/bash
# The first thing to run: trains a LeNet with batch normalization on Fashion-MNIST, and shows what its
# first batch normalization has learned. Installs what is missing and builds, so nothing need be there before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n== %s\n' "$*"; }

scripts/install-deps.sh build
data=fashion-mnist
scripts/install-deps.sh data || scripts/get-data.sh fashion-mnist || data=synthetic

say "Building a release (build/release)"
cmake --preset release >/dev/null
cmake --build --preset release --target evenkeel_cli

evenkeel=build/release/evenkeel
out=runs/demo
model=$out/lenet-bn.safetensors
log=$out/lenet-bn.jsonl
mkdir -p $out

if [ $data = fashion-mnist ]; then
    say "Training lenet-bn on Fashion-MNIST: 60,000 images, 10 epochs"
else
    say "Fashion-MNIST cannot be had here; training lenet-bn on the built-in synthetic images instead"
fi
$evenkeel train lenet-bn --data $data --epochs 10 --batch 128 --optimizer sgd --lr 0.1 --out $model --log $log

say "What the first batch normalization learned: a scale (gamma) and a shift (beta) for each channel"
$evenkeel inspect $model --layer net.1

cat <<TEXT

== Done
The model:  $PWD/$model   (PyTorch loads it as a state dict)
The log:    $PWD/$log

Try next, in $PWD:
  $evenkeel eval $model --data $data
  $evenkeel train lenet --data $data --out $out/lenet.safetensors   # without BN it does not learn
  $evenkeel summary lenet-bn
  $evenkeel train --help
  ./test.sh
TEXT
