# Event files for TensorBoard: what stands in them, and what happens where they cannot be written.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 3 --batch 256 --valid 0.25)

exits 0 "${train[@]}" --out a.safetensors --log a.jsonl --tensorboard runs/deep/a --json
events=$(sed 's/.*"events":"\([^"]*\)".*/\1/' out)
[[ $events == runs/deep/a/events.out.tfevents.* && -s $events ]] || fail "no event file: $events"
exits 0 inspect a.safetensors --json
cp out inspect.json
if [ -x /usr/bin/python3 ]; then
    command="tensorboard.py"
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$project/tests/commands/tensorboard.py" "$events" a.jsonl inspect.json ||
        fail "the event file is not right"
    # Epochs of two steps, fewer than there are from one look to the next.
    exits 0 train small.net --data synthetic:20 --epochs 20 --batch 256 --samples 512 --valid 0.25 --out a.safetensors \
        --log a.jsonl --tensorboard runs/short
    exits 0 inspect a.safetensors --json
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$project/tests/commands/tensorboard.py" runs/short/* a.jsonl out ||
        fail "the event file of short epochs is not right"
    exits 0 "${train[@]}" --out a.safetensors
fi

# It changes nothing in the training, and another run has another file.
exits 0 "${train[@]}" --out b.safetensors
same a.safetensors b.safetensors
exits 0 "${train[@]}" --out b.safetensors --tensorboard runs/deep/a
says out "events: runs/deep/a/events.out.tfevents."
[ "$(find runs/deep/a -type f | wc -l)" = 2 ] || fail "two runs have not two files"

# Found before training.
echo precious >file
exits 1 "${train[@]}" --out c.safetensors --tensorboard file
says err "cannot write event files to file: file is not a folder"
exits 1 "${train[@]}" --out c.safetensors --tensorboard file/below
exits 2 "${train[@]}" --out c.safetensors --tensorboard ''
[ "$(cat file)" = precious ] || fail "the file was changed"
[ -e c.safetensors ] && fail "it trained without its event file"

# A run that never begins leaves none.
exits 1 "${train[@]}" --out c.safetensors --tensorboard other --resume nowhere.checkpoint
[ -z "$(find other -type f)" ] || fail "a run that never began left an event file"

# A disk that is full, here a file that may not grow: training goes on without it.
command="evenkeel ${train[*]} (full disk)"
(
    trap '' XFSZ
    ulimit -f 8
    "$evenkeel" "${train[@]}" --out d.safetensors --tensorboard full >out 2>err
)
[ $? = 1 ] || fail "a full disk was not reported by the exit code"
says err "File too large; the event file ends there"
[ "$(grep -c 'event file' err)" = 1 ] || fail "it was said more than once"
same d.safetensors b.safetensors
finish
