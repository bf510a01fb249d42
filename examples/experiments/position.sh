#!/bin/sh
# Batch normalization before and after the activation.
# position.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary activation=sigmoid,relu --vary position=before,after \
    --epochs 3 --repeat 3 "$@"
