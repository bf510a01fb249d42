#!/bin/sh
# The sigmoid LeNet with batch normalization and without.
# bn-or-none.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare lenet-bn --data "$data" --vary norm=batch,none --epochs 5 --repeat 3 \
    --lr 0.9 --batch 256 "$@"
