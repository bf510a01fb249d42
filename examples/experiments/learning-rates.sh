#!/bin/sh
# Learning rates from 0.001 to 10, with batch normalization and without.
# learning-rates.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary norm=batch,none --vary lr=0.001,0.01,0.1,1,10 \
    --epochs 3 --repeat 3 "$@"
