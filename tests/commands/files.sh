# Files that cannot be written, and models that must survive.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 1)

# Known before training: no header is printed, nothing is left.
mkdir folder
touch file
for option in --out --checkpoint --log; do
    for path in nowhere/x folder file/x; do
        kept=(--out kept.safetensors)
        [ "$option" = --out ] && kept=()
        exits 1 "${train[@]}" "${kept[@]}" "$option" "$path"
        silent out
        says err "evenkeel: cannot write"
        says err "$path"
    done
done
[ -e kept.safetensors ] && fail "training went on without a place for its files"

# A full disk for the log is reported, and the model is saved all the same.
exits 1 "${train[@]}" --out m.safetensors --log /dev/full
says err "evenkeel: cannot write the log /dev/full: No space left on device"
[ "$(grep -c "cannot write the log" err)" = 1 ] || fail "the full disk was reported more than once"
exits 0 eval m.safetensors --data synthetic:20

# Training that fails leaves model and log as they were, and nothing beside them.
cp m.safetensors before.safetensors
echo "kept" >run.jsonl
names() { ls -A | grep -v '^names'; }
names >names
for data in synthetic:21 nowhere.csv; do
    exits 1 train small.net --data "$data" --out m.safetensors --log run.jsonl
    silent out
    same m.safetensors before.safetensors
    [ "$(cat run.jsonl)" = kept ] || fail "the log of an earlier run is gone"
    exits 1 train small.net --data "$data" --out n.safetensors --log n.jsonl
done
names >names.after
same names names.after

# So does a disk that is full when the model is saved: here, no file may grow beyond 1 KiB.
command="train with a full disk"
(
    trap '' XFSZ
    ulimit -f 1
    exec "$evenkeel" "${train[@]}" --out m.safetensors >out 2>err
) && fail "a model that could not be saved went unnoticed"
says err "evenkeel: cannot write"
same m.safetensors before.safetensors
names >names.after
same names names.after

# A reader that goes away does not take the training with it.
command="train | true"
rm m.safetensors
"$evenkeel" "${train[@]}" --out m.safetensors 2>err | true
same m.safetensors before.safetensors

finish
