# Ctrl-C: what is trained is saved, and the command that is then named ends with the bits of an unbroken run.
# The log is a pipe, so that the signal comes in the midst of training without any waiting for time.
source "$(dirname "$0")/testing.bash"
set -m # so that commands in the background hear SIGINT
small_net >small.net
mkdir "with space"
run=(train small.net --data synthetic:20 --epochs 3 --batch 4)
exits 0 "${run[@]}" --out unbroken.safetensors

read_steps() { # N: lines of the log on descriptor 3, until so many are steps; others tell of the run and of what was looked at
    local steps=0 line
    while [ $steps -lt "$1" ]; do
        read -r line <&3 || { fail "the log ends after $steps steps"; return; }
        [[ $line == '{"event":"step",'* ]] && steps=$((steps + 1))
    done
}

stop_with() { # SIGNAL OPTIONS: a run that gets the signal after some steps
    local signal=$1
    shift
    command="evenkeel ${run[*]} $* (SIG$signal)"
    rm -f pipe
    mkfifo pipe
    "$evenkeel" "${run[@]}" --log pipe "$@" >out 2>err &
    local pid=$!
    exec 3<pipe
    read_steps 5
    kill -s "$signal" $pid
    cat <&3 >rest
    exec 3<&-
    wait $pid
    local code=$?
    [ "$code" = 1 ] || fail "exit code $code, not 1"
    says err "evenkeel: stopped in epoch "
}

for signal in INT TERM HUP; do
    rm -f ./*.checkpoint stopped.safetensors
    stop_with $signal --out stopped.safetensors --checkpoint "with space/run's.checkpoint"
    says err "the model so far is in stopped.safetensors"
    exits 0 eval stopped.safetensors --data synthetic:20
    cmp -s stopped.safetensors unbroken.safetensors && fail "the run was not stopped"
    exits 0 "${run[@]}" --resume "with space/run's.checkpoint" --out resumed.safetensors --quiet
    same resumed.safetensors unbroken.safetensors
done

# The named command, run as it stands; its log goes to a file now. Both runs have a report of what they saw.
stop_with INT --out stopped.safetensors --checkpoint "with space/run's.checkpoint" --resume="with space/run's.checkpoint" \
    --report run.html
grep -qE "It was stopped after step [1-9]" run.html || fail "the report of the stopped run does not say so"
grep -qF "bn1: inputs, before normalization" run.html || fail "the report of the stopped run lacks what was seen"
resume=$(sed -n '/^Go on with:$/{n;p;}' err | sed 's/--log pipe/--log log.jsonl/')
exits 0 rerun stopped.safetensors --dry-run
grep -qE 'stopped.safetensors was saved when its run was stopped, after step [1-9][0-9]* of [1-9]' err || fail "the model does not say that it was stopped"
echo "$resume" | grep -qF -- "--resume 'with space/run'\\''s.checkpoint'" || fail "no command to resume: $resume"
[ "$(echo "$resume" | grep -o -- '--resume' | wc -l)" = 1 ] || fail "--resume is named twice: $resume"
command=$resume
printf '{"event":"step","step":1,"loss":0}\n' >log.jsonl
eval "$resume" >out 2>err || fail "the named command failed"
says out "resumed from with space/run's.checkpoint after step"
grep -qE "The run was resumed after step [1-9]" run.html || fail "the report of the resumed run does not say so"
same stopped.safetensors unbroken.safetensors
head -n 1 log.jsonl | grep -q '"step":1,' || fail "the log was not continued"
[ "$(wc -l <log.jsonl)" -gt 1 ] || fail "the resumed run wrote no log"

# Without a checkpoint the model is there, and the message says what it is good for.
stop_with INT --out stopped.safetensors
says err "Without --checkpoint the run cannot be resumed"
exits 0 eval stopped.safetensors --data synthetic:20

# Every so many steps a checkpoint is written: it is there before the first of 2,000 steps' epoch ends, for the
# log waits for its reader.
command="evenkeel ${run[*]} --checkpoint-steps 2"
rm -f pipe early.checkpoint
mkfifo pipe
"$evenkeel" "${run[@]}" --log pipe --checkpoint early.checkpoint --checkpoint-steps 2 --quiet >out 2>err &
exec 3<pipe
read_steps 5
[ -s early.checkpoint ] || fail "no checkpoint after four steps"
{ kill -s KILL $! && wait $!; } 2>/dev/null
exec 3<&-

# patiently CONDITION...: waits for it, at most some seconds.
patiently() {
    for _ in {1..500}; do
        "$@" && return
        sleep 0.02
    done
}

# A run that hears signals and waits at its start, for its heading goes into a pipe that is full; descriptor 3 reads
# it. It empties the old log in between.
wait_at_start() { # OPTIONS
    echo old >old.jsonl
    exec 3<>pipe
    dd if=/dev/zero of=pipe bs=4096 count=4096 oflag=nonblock 2>/dev/null
    "$evenkeel" "${run[@]}" --log old.jsonl --quiet "$@" >pipe 2>err &
    patiently [ ! -s old.jsonl ]
    exec 4<pipe 3<&- 3<&4 4<&-
}

# heard PID SIGNAL: the process got the signal: it has no handler for it any more.
heard() {
    local caught
    caught=$(sed -n 's/^SigCgt:[[:space:]]*/0x/p' "/proc/$1/status")
    [ $((caught >> ($(kill -l "$2") - 1) & 1)) = 0 ]
}

# A signal that the command was told to ignore stays ignored.
command="evenkeel ${run[*]} (SIGHUP, ignored)"
(
    trap '' HUP
    exec "$evenkeel" "${run[@]}" --log pipe --out ignoring.safetensors --quiet >out 2>err
) &
exec 3<pipe
read_steps 5
kill -s HUP $!
cat <&3 >rest
exec 3<&-
wait $! || fail "exit code $?, not 0"
same ignoring.safetensors unbroken.safetensors

# So it does after another one came; and a second Ctrl-C ends at once. The thread sanitizer holds signals back
# while a write waits, and so cannot tell.
if ! grep -q '^EVENKEEL_SANITIZE:.*thread' "$(dirname "$evenkeel")/CMakeCache.txt"; then
    command="evenkeel ${run[*]} (SIGTERM, then SIGHUP, ignored)"
    (
        trap '' HUP
        wait_at_start --out ignoring.safetensors
        kill -s TERM $!
        patiently heard $! TERM
        kill -s HUP $!
        cat <&3 >rest
        wait $!
    )
    code=$?
    [ $code = 1 ] || fail "exit code $code, not 1"
    says err "the model so far is in ignoring.safetensors"
    exits 0 eval ignoring.safetensors --data synthetic:20
    cmp -s ignoring.safetensors unbroken.safetensors && fail "the run was not stopped"

    command="evenkeel ${run[*]} (SIGINT twice)"
    wait_at_start --out at-once.safetensors
    kill -s INT $!
    patiently heard $! INT
    kill -s INT $!
    cat <&3 >rest
    wait $! 2>/dev/null
    code=$?
    exec 3<&-
    [ $code = 130 ] || fail "exit code $code, not 130"
    [ -e at-once.safetensors ] && fail "a run that was to end at once saved its model"
fi

# A checkpoint of another run is refused.
exits 1 "${run[@]}" --out stopped.safetensors --resume "with space/run's.checkpoint" --seed 2
silent out

# One with accumulation goes on with the same bits, and is no other run's.
parts=(train small.net --data synthetic:20 --batch 16 --samples 500 --quiet)
exits 0 "${parts[@]}" --epochs 3 --accumulate 3 --out whole.safetensors
exits 0 "${parts[@]}" --epochs 2 --accumulate 3 --checkpoint parts.checkpoint
exits 0 "${parts[@]}" --epochs 3 --accumulate 3 --resume parts.checkpoint --out resumed.safetensors
same whole.safetensors resumed.safetensors
exits 0 "${parts[@]}" --epochs 2 --accumulate 3 --resume parts.checkpoint --out finished.safetensors
says out "all of its 2 epochs were done already"
for other in 1 2; do
    exits 1 "${parts[@]}" --epochs 3 --accumulate $other --resume parts.checkpoint --out resumed.safetensors
    silent out
    says err "parts.checkpoint is of another run: its accumulate is 3, not $other;"
done

finish
