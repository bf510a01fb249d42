# kill -9 at random moments, most of them while a checkpoint is written: whatever was reached, going on from there ends
# with the bits of a run that nobody disturbed, and nothing is left lying about. A second argument is how many kills
# there are, one to three of them a run: 200 for the whole campaign.
source "$(dirname "$0")/testing.bash"
wanted=${2:-8}
cat >wide.net <<'END'
input 20
linear 256
batchnorm
relu
dropout 0.2
linear 128
linear 10
END
# Two steps for each checkpoint, so that a run spends most of its time in writing them.
train=(train wide.net --data synthetic:20 --samples 1500 --batch 30 --epochs 2 --valid 0.1 --momentum 0.9 --schedule cosine
    --checkpoint-steps 2 --quiet)
mkdir whole run
began=${EPOCHREALTIME/[.,]/}
exits 0 "${train[@]}" --out whole/model.safetensors --checkpoint whole/run.checkpoint --log whole/log.jsonl
lasts=$((${EPOCHREALTIME/[.,]/} - began)) # microseconds
grep -o '"event":"step",.*' whole/log.jsonl | sort -u >steps

# start OPTIONS...: a run in the background, its process in $pid.
start() {
    command="evenkeel ${train[*]} --checkpoint run/run.checkpoint $*"
    "$evenkeel" "${train[@]}" --out run/model.safetensors --checkpoint run/run.checkpoint --log run/log.jsonl "$@" >out 2>err &
    pid=$!
}

kills=0 late=0 writing=0 runs=0 anew=0
while [ $kills -lt "$wanted" ] && [ $late -lt $((20 + wanted)) ]; do
    rm -f run/*
    for ((k = 0; k < 1 + runs % 3 && kills < wanted; k++)); do
        resume=()
        [ -e run/run.checkpoint ] && resume=(--resume run/run.checkpoint)
        start "${resume[@]}"
        printf -v wait '%d.%06d' $(((RANDOM * 32768 + RANDOM) % lasts / 1000000)) $(((RANDOM * 32768 + RANDOM) % lasts % 1000000))
        sleep "$wait"
        { kill -s KILL $pid; wait $pid; } 2>/dev/null
        code=$?
        if [ $code = 137 ]; then
            kills=$((kills + 1))
        elif [ $code = 0 ]; then
            late=$((late + 1))
        else
            fail "a run that was to be killed ended with $code"
        fi
        left=(run/*.unfinished*)
        [ -e "${left[0]}" ] && writing=$((writing + 1))
        [ ${#left[@]} -le 1 ] || fail "killed runs leave more and more: ${left[*]}"
    done
    resume=()
    [ -e run/run.checkpoint ] && resume=(--resume run/run.checkpoint)
    [ -e run/run.checkpoint ] || anew=$((anew + 1))
    start "${resume[@]}"
    wait $pid || fail "the run after the kills failed"
    same run/model.safetensors whole/model.safetensors
    same run/run.checkpoint whole/run.checkpoint
    # Steps that were done again stand in the log again, with the same numbers.
    grep -o '"event":"step",.*' run/log.jsonl | sort -u | diff - steps >&2 || fail "the log's steps are not those of an unbroken run"
    names=$(cd run && echo *)
    [ "$names" = "log.jsonl model.safetensors run.checkpoint" ] || fail "something is left: $names"
    runs=$((runs + 1))
done
[ "$kills" = "$wanted" ] || fail "of $wanted kills $kills came before the run was done"
echo "$kills kills in $runs runs, $writing of them left a file half written; $anew runs had no checkpoint yet"
finish
