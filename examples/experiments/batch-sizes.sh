#!/bin/sh
# Batch normalization from batches of 2 to 512, beside a normalization that knows no batch.
# batch-sizes.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary norm=batch,group --vary batch=2,8,32,128,512 \
    --samples 10000 --epochs 3 --repeat 3 "$@"
