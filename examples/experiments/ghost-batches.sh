#!/bin/sh
# Ghost batches: the statistics of small batches in steps of large ones.
# ghost-batches.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare mlp-bn --data "$data" --vary ghost=0,8,32,128 \
    --batch 1024 --lr 0.5 --samples 10000 --epochs 20 --schedule cosine --repeat 3 "$@"
