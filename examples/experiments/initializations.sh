#!/bin/sh
# Initial weights from far too small to far too large, with batch normalization and without.
# initializations.sh DATA OPTION... takes other data, and further options of evenkeel compare.
evenkeel=${EVENKEEL:-build/release/evenkeel} data=${1:-fashion-mnist}
[ $# = 0 ] || shift
exec "$evenkeel" compare mlp-bn --data "$data" --vary norm=batch,none --vary init=default,xavier,kaiming,0.001,0.3 \
    --epochs 2 --repeat 3 "$@"
