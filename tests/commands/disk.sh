# Places that fail while a run is under way: a full disk, a folder that goes away, one that can only be read, and another
# run that wants the same files. The run goes on, what was there stands, and the exit code says that something is missing.
source "$(dirname "$0")/testing.bash"
small_net >small.net
# 5,000 steps, whose log is more than a pipe holds: a run waits for its reader in the first epoch and in the second.
run=(train small.net --data synthetic:20 --batch 4 --momentum 0.9 --quiet)
exits 0 "${run[@]}" --epochs 2 --out unbroken.safetensors --checkpoint unbroken.checkpoint

# log_of LINES: reads so many lines of the pipe that a run in the background has for its log, so that it is in the midst.
log_of() { for ((line = 0; line < $1; line++)); do read -r _ <&3; done; }

# begin OPTIONS...: that run.
begin() {
    command="evenkeel ${run[*]} --log pipe $*"
    rm -f pipe
    mkfifo pipe
    "$evenkeel" "${run[@]}" --log pipe "$@" >out.of-run 2>err.of-run &
    pid=$!
    exec 3<pipe
}

# ends CODE: it does with this exit code.
ends() {
    cat <&3 >rest
    exec 3<&-
    wait $pid
    local code=$?
    mv out.of-run out && mv err.of-run err
    [ "$code" = "$1" ] || fail "exit code $code, not $1"
}

# vanish: the folder goes away, whatever is written in it just now.
vanish() { until rm -rf gone 2>/dev/null && [ ! -e gone ]; do :; done; }

said() { [ "$(grep -c -- "$1" err)" = "$2" ] || fail "not said $2 times: $1"; }

# A disk with room for a model, and not for a checkpoint, which is twice as large: that of the first epoch stands.
exits 0 "${run[@]}" --epochs 1 --checkpoint run.checkpoint
cp run.checkpoint first.checkpoint
size=$(($(stat -c %s first.checkpoint) / 1024 - 1))
command="a run with files of at most $size KiB"
(
    ulimit -f $size
    exec "$evenkeel" "${run[@]}" --epochs 2 --resume run.checkpoint --checkpoint run.checkpoint --checkpoint-steps 300 \
        --out m.safetensors >out 2>err
)
code=$?
[ $code = 1 ] || fail "exit code $code, not 1"
said "run.checkpoint: File too large; what was there stands" 1
says err "all is trained, but the last checkpoint is missing: cannot write"
same run.checkpoint first.checkpoint
same m.safetensors unbroken.safetensors
[ -e run.checkpoint.unfinished ] && fail "half a checkpoint is left"
exits 0 "${run[@]}" --epochs 2 --resume run.checkpoint --out m.safetensors
same m.safetensors unbroken.safetensors

# Stopped with no room for the checkpoint: the model is saved, and the checkpoint before it is named.
ulimit_begin() {
    command="a run with files of at most $size KiB, stopped"
    rm -f pipe
    mkfifo pipe
    (
        ulimit -f $size
        exec "$evenkeel" "${run[@]}" --epochs 2 --resume run.checkpoint --checkpoint run.checkpoint --log pipe --out m.safetensors \
            >out.of-run 2>err.of-run
    ) &
    pid=$!
    exec 3<pipe
}
ulimit_begin
log_of 4
kill -s TERM $pid
ends 1
says err "the model so far is in m.safetensors"
says err "the checkpoint of this step could not be written"
same run.checkpoint first.checkpoint
exits 0 eval m.safetensors --data synthetic:20

# A folder that goes away, for good and for a while.
mkdir gone
begin --epochs 2 --checkpoint gone/run.checkpoint --checkpoint-steps 200 --out m.safetensors
log_of 8
vanish
ends 1
said "cannot write .*gone/run.checkpoint: No such file or directory; what was there stands" 1
same m.safetensors unbroken.safetensors
mkdir gone
begin --epochs 2 --checkpoint gone/run.checkpoint --checkpoint-steps 200 --out m.safetensors
log_of 8
vanish
for _ in {1..500}; do
    grep -q "No such file" err.of-run && break
    log_of 100
done
mkdir gone
ends 0
said "the checkpoint of step [0-9]* could be written again" 1
same gone/run.checkpoint unbroken.checkpoint

# The model's own folder: with a checkpoint the work is there, without one it goes to a temporary folder.
rm -f gone/*
begin --epochs 2 --checkpoint run.checkpoint --out gone/m.safetensors
log_of 8
vanish
ends 1
says err "cannot write gone/m.safetensors: No such file or directory"
says err "All that was trained is in the checkpoint. Go on with:"
resume=$(sed -n '/Go on with:$/{n;p;}' err | sed 's/--log pipe//')
mkdir gone
eval "$resume" >out 2>err || fail "the named command failed: $resume"
same gone/m.safetensors unbroken.safetensors
mkdir temporary
TMPDIR=$PWD/temporary begin --epochs 2 --out gone/m.safetensors
log_of 8
vanish
ends 1
says err "The model was saved as $PWD/temporary/evenkeel-"
same temporary/evenkeel-*/m.safetensors unbroken.safetensors

# Two runs into one file: the second is told who has it, and changes nothing.
for option in --checkpoint --out --report; do
    [ $option = --out ] && file=theirs.safetensors || file=theirs
    kept=(--out kept.safetensors) mine=(--out mine.safetensors)
    [ $option = --out ] && kept=() mine=()
    begin --epochs 2 "${kept[@]}" $option $file
    log_of 3
    exits 1 "${run[@]}" --epochs 1 "${mine[@]}" $option ./$file
    silent out
    says err "cannot write ./$file: another run will (process $pid on $(uname -n)); wait for it, stop it, or name another file"
    [ -e mine.safetensors ] && fail "something was written"
    [ -e $file.lock ] || fail "there is no lock"
    ends 0
    [ -e $file.lock ] && fail "the lock is left"
done
same theirs.safetensors unbroken.safetensors
echo kept >log.jsonl
(
    exec 4>>log.jsonl
    flock 4
    exits 1 "${run[@]}" --epochs 1 --out mine.safetensors --log log.jsonl
    silent out
    says err "cannot write the log log.jsonl: another run writes it; name another file"
    [ "$(cat log.jsonl)" = kept ] || fail "the log was changed"
    exit $failures
) || failures=$((failures + 1))

# One that was killed is in nobody's way, and its half line of the log is not continued.
begin --epochs 2 --checkpoint run.checkpoint --checkpoint-steps 200
log_of 3
{ kill -s KILL $pid; wait $pid; } 2>/dev/null
exec 3<&-
[ -e run.checkpoint.lock ] || fail "the lock went away"
printf '{"event":"step","step":1,"loss":2.5}\n{"event":"st' >log.jsonl
exits 0 "${run[@]}" --epochs 2 --resume run.checkpoint --checkpoint run.checkpoint --out m.safetensors --log log.jsonl
same m.safetensors unbroken.safetensors
[ -e run.checkpoint.lock ] && fail "the lock of the killed run is left"
grep -vn '^{.*}$' log.jsonl && fail "the log has half a line"
head -n 1 log.jsonl | grep -q '"loss":2.5' || fail "the log was not continued"

# Folders that can only be read, and disks with room for one checkpoint, where they can be had.
if [ "$(id -u)" = 0 ] && mkdir disk && mount -t tmpfs -o size=$((size * 2 * 1024)) none disk 2>/dev/null; then
    trap 'umount "$scratch/disk"; rm -rf "$scratch"' EXIT
    begin --epochs 2 --checkpoint disk/run.checkpoint --out m.safetensors --checkpoint-steps 1000
    ends 1
    said "cannot write .*disk/run.checkpoint: No space left on device; what was there stands" 1
    same m.safetensors unbroken.safetensors
    exits 0 "${run[@]}" --epochs 2 --resume disk/run.checkpoint --out m.safetensors
    says out "resumed from disk/run.checkpoint after step 1,000"
    same m.safetensors unbroken.safetensors
    [ "$(ls disk)" = run.checkpoint ] || fail "something is left on the full disk"
    mount -o remount,ro disk
    cp disk/run.checkpoint before
    exits 1 "${run[@]}" --epochs 2 --checkpoint disk/run.checkpoint --resume disk/run.checkpoint
    silent out
    says err "disk/run.checkpoint: Read-only file system"
    same disk/run.checkpoint before
fi
if [ "$(id -u)" != 0 ]; then
    mkdir sealed
    cp first.checkpoint sealed/run.checkpoint
    chmod 500 sealed
    exits 1 "${run[@]}" --epochs 2 --resume sealed/run.checkpoint --checkpoint sealed/run.checkpoint
    silent out
    says err "cannot write sealed/run.checkpoint: Permission denied"
    chmod 700 sealed
    same first.checkpoint sealed/run.checkpoint
fi

finish
