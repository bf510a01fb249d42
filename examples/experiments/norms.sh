#!/bin/sh
# Batch, layer, group and instance normalization.
# norms.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary norm=batch,layer,group,instance --epochs 3 --repeat 3 "$@"
