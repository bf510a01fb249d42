# Several processes by MPI, with each MPI library that is there: the bits of --shards, evaluation, errors said once, a rank that
# is killed or stopped, and going on with another number of ranks.
source "$(dirname "$0")/testing.bash"
source "$project/tests/commands/mpi.bash"

# A table without its columns of time.
untimed() { cut -d , -f 1-8 "$1"; }
small_net >small.net
train=(train small.net --data synthetic:20 --samples 300 --batch 25 --epochs 2 --valid 0.1 --momentum 0.9 --quiet)

"$evenkeel" "${train[@]}" --json --shards 4 --out four.safetensors >four.json || fail "no shards"
for library in "${libraries[@]}"; do
    # The bits of shards: all ranks have one, or two each.
    for count in 4 2; do
        ranks $count "${train[@]}" --json --shards 4 --out m.safetensors || fail "exit code $?"
        same m.safetensors four.safetensors
        [ "$(wc -l <out)" = 1 ] || fail "not rank 0 alone has answered"
        diff <(grep -o '"[a-z_]*\(loss\|accuracy\)":[0-9.e-]*' four.json) <(grep -o '"[a-z_]*\(loss\|accuracy\)":[0-9.e-]*' out) >&2 ||
            fail "other measures"
    done
    ranks 2 eval four.safetensors --data synthetic:20 --json || fail "exit code $?"
    grep -o '"\(loss\|accuracy\|count\)":[0-9.e-]*' out >of_ranks
    "$evenkeel" eval four.safetensors --data synthetic:20 --json | grep -o '"\(loss\|accuracy\|count\)":[0-9.e-]*' | diff - of_ranks >&2 ||
        fail "eval differs"

    # Recalibration and audit with the bits of one process; of a comparison each rank makes runs.
    for fast in "" --fast; do
        ranks 3 recalibrate four.safetensors --data synthetic:20 --batch 90 $fast --out m.safetensors || fail "exit code $?"
        "$evenkeel" recalibrate four.safetensors --data synthetic:20 --batch 90 $fast --out one.safetensors >out || fail "exit code $?"
        same m.safetensors one.safetensors
    done
    ranks 3 audit four.safetensors --data synthetic:20 --samples 2000 --json --report ranks.html --quiet
    [ $? = 1 ] || fail "audit did not end as one that finds something"
    mv out of_ranks
    "$evenkeel" audit four.safetensors --data synthetic:20 --samples 2000 --json --report ranks.html --quiet | diff - of_ranks >&2 ||
        fail "audit differs"
    comparison=(compare small.net --data synthetic:20 --samples 200 --epochs 2 --vary norm=batch,none,layer --repeat 3 --quiet)
    rm -f c.state
    ranks 2 "${comparison[@]}" --repeat 2 --state c.state --csv ranks.csv || fail "exit code $?"
    [ "$(wc -l <c.state)" = 7 ] || fail "not six runs are in the state"
    ranks 4 "${comparison[@]}" --state c.state --csv ranks.csv || fail "exit code $?"
    "$evenkeel" "${comparison[@]}" --csv one.csv >out || fail "exit code $?"
    diff <(untimed one.csv) <(untimed ranks.csv) >&2 || fail "compare differs"

    # The command without ranks says that it has none.
    timeout 120 "mpirun.$library" -n 2 "$evenkeel" eval four.safetensors --data synthetic:20 >out 2>err </dev/null || fail "exit code $?"
    [ "$(grep -c "note: mpirun has begun 2 processes" err)" = 1 ] || fail "not said once: $(cat err)"

    # A mistake is said once.
    ranks 2 train small.net --out m.safetensors && fail "no data, and no error"
    [ "$(grep -c -- "--data DATA is missing" err)" = 1 ] || fail "not said once: $(cat err)"
    ranks 2 "${train[@]}" --shards 3 --out m.safetensors && fail "3 shards on 2 ranks"
    [ "$(grep -c "shards: 3 cannot be dealt to 2 ranks" err)" = 1 ] || fail "not said once: $(cat err)"

    # Ranks that were given different options do not begin.
    one=("$build/evenkeel-mpi.$library" "${train[@]}" --out m.safetensors)
    command="two ranks of different --epochs"
    timeout 120 "mpirun.$library" -n 1 "${one[@]}" : -n 1 "${one[@]}" --epochs 3 >out 2>err </dev/null && fail "no error"
    grep -q "rank 1 was given other options than rank 0" err || fail "not said: $(cat err)"

    # What one rank alone lacks is said by it, and all end.
    EVENKEEL_ISA=baseline "$build/evenkeel-mpi.$library" --version >out || fail "alone it does not run"

    # A rank that is killed, and one that stops: the others end, and another number of ranks goes on from the checkpoint.
    for signal in KILL STOP; do
        rm -f run.checkpoint
        long=("${train[@]}" --epochs 4000 --checkpoint run.checkpoint --checkpoint-steps 3 --shards 4)
        ranks 2 "${long[@]}" --timeout 2 &
        job=$!
        for ((k = 0; k < 1200; k++)); do [ -s run.checkpoint ] && break; sleep 0.1; done
        victim=
        for process in $(pgrep -f "evenkeel-mpi.$library train small.net"); do
            [ "$(readlink "/proc/$process/cwd")" = "$PWD" ] || continue
            grep -qzE '^(PMI_RANK|OMPI_COMM_WORLD_RANK)=1$' "/proc/$process/environ" && victim=$process
        done
        [ -n "$victim" ] || { fail "rank 1 is not there"; continue; }
        kill -s $signal "$victim"
        wait $job && fail "a run whose rank was lost ended well"
        [ $signal = KILL ] || grep -q "rank 0 has waited" err || fail "nobody says that rank 1 is silent: $(cat err)"
        [ -z "$(pgrep -f "evenkeel-mpi.$library train small.net --data synthetic:20 .*$PWD")" ] || fail "a rank is left"
        at=$(head -c 20000 run.checkpoint | tr ',' '\n' | sed -n 's/.*"evenkeel.train.epochs_done":"\([0-9]*\)".*/\1/p')
        more=("${train[@]}" --epochs $((at + 2)) --shards 4)
        ranks 4 "${more[@]}" --resume run.checkpoint --out m.safetensors || fail "it does not go on: $(cat err)"
        "$evenkeel" "${more[@]}" --out whole.safetensors >out || fail "exit code $?"
        same_tensors m.safetensors whole.safetensors
    done
done
finish
