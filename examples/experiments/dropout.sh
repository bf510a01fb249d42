#!/bin/sh
# Batch normalization as a regularizer, beside dropout, on few samples.
# dropout.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare mlp-bn --data "$data" --vary norm=none,batch --vary dropout=0,0.2,0.5 \
    --samples 5000 --epochs 20 --batch 64 --schedule cosine --repeat 3 "$@"
