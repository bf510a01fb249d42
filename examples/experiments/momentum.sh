#!/bin/sh
# How fast the running statistics follow, and what it costs in inference mode.
# momentum.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary momentum=0.001,0.01,0.1,0.5,1,none \
    --epochs 1 --repeat 3 "$@"
