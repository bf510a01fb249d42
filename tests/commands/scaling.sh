# What ranks send in a step is what bench/scaling.py counts, to the byte: as the log says, and as seen from between the command and MPI.
source "$(dirname "$0")/testing.bash"
source "$project/tests/commands/mpi.bash"
export PYTHONDONTWRITEBYTECODE=1
command -v python3 >/dev/null || { echo "there is no python3"; exit 77; }

# predicted NET R SYNC|LOCAL: messages and bytes of a step, a line for each rank.
predicted() {
    python3 "$project/bench/scaling.py" --evenkeel "$evenkeel" traffic "$1" --ranks "$2" --bn "$3" --json |
        python3 -c 'import json, sys
[each] = json.load(sys.stdin).values()
[each] = each.values()
for rank in each: print(rank["messages"], rank["bytes"])'
}

# Without a test set, whose measuring would take longer than the step.
for net in lenet-bn:784:28,\ 28 mlp-bn:784:28,\ 28 resnet20:3072:3,\ 32,\ 32; do
    IFS=: read -r name size shape <<<"$net"
    head -c $((48 * size)) /dev/zero | tr '\0' '\7' | npy $name.npy '|u1' "48, $shape"
done
head -c 48 /dev/zero | npy labels.npy '|u1' 48,

# trains LIBRARY NET R SYNC|LOCAL STEPS [VARIABLE=VALUE...]: leaves the log in run.jsonl.
trains() {
    command="$1 $2 on $3 ranks, --bn $4, $5 steps"
    timeout 300 "mpirun.$1" -n "$3" env "${@:6}" "$build/evenkeel-mpi.$1" train "$2" --data "$2.npy,labels.npy" --bn "$4" \
        --batch 16 --samples $((16 * $5)) --epochs 1 --threads 1 --quiet --log run.jsonl --out m.safetensors >out 2>err </dev/null ||
        fail "exit code $?"
}

# logged: messages and bytes of the epoch.
logged() { sed -n 's/.*"sent":{"messages":\([0-9]*\),"bytes":\([0-9]*\)}.*/\1 \2/p' run.jsonl; }

# sends_as_predicted NET R SYNC|LOCAL
sends_as_predicted() {
    trains "${libraries[0]}" "$1" "$2" "$3" 1
    predicted "$1" "$2" "$3" >of_ranks
    [ "$(logged)" = "$(sed -n 1p of_ranks)" ] || fail "sent $(logged), predicted $(sed -n 1p of_ranks)"
}
for net in lenet-bn mlp-bn resnet20; do
    for ranks in 2 3 4 8; do sends_as_predicted $net $ranks sync; done
done
sends_as_predicted lenet-bn 3 local

# Two steps more: what each rank gives to MPI.
for library in "${libraries[@]}"; do
    counter=$build/tests/libmpi_traffic.$library.so
    [ -f "$counter" ] || continue # a sanitizer wants to be loaded first
    for steps in 1 3; do
        trains $library lenet-bn 3 sync $steps "LD_PRELOAD=$counter" "MPI_TRAFFIC=$scratch/after$steps"
    done
    predicted lenet-bn 3 sync >of_ranks
    for rank in 0 1 2; do
        read -r messages bytes <after1.$rank
        read -r more_messages more_bytes <after3.$rank
        [ "$(((more_messages - messages) / 2)) $(((more_bytes - bytes) / 2))" = "$(sed -n $((rank + 1))p of_ranks)" ] ||
            fail "rank $rank gave MPI $messages $bytes in a run of 1 step and $more_messages $more_bytes in one of 3"
    done
done
finish
