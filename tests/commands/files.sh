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
    ulimit -f 1
    exec "$evenkeel" "${train[@]}" --out m.safetensors >out 2>err
) && fail "a model that could not be saved went unnoticed"
says err "evenkeel: cannot write"
same m.safetensors before.safetensors
names >names.after
same names names.after

# A log does not write over the model that it is named after, whatever the path to it.
exits 2 "${train[@]}" --out m.safetensors --log ./m.safetensors
says err "--log needs a file of its own"
exits 2 train m.safetensors --data synthetic:20 --epochs 1 --out n.safetensors --log ./m.safetensors
same m.safetensors before.safetensors

# Nor does anything write over the data or the net text.
printf '%s\n' 1,2,0 2,1,1 1,1,0 >data.csv
printf 'input 2\nlinear 2\n' >data.net
cp data.csv data.before && cp data.net net.before
for option in --out --checkpoint --log --report; do
    exits 2 train data.net --data data.csv --epochs 1 --out n.safetensors $option ./data.csv
    says err "the data would be overwritten"
    exits 2 train data.net --data data.csv --epochs 1 --out n.safetensors $option ./data.net
    says err "the net text would be overwritten"
done
same data.csv data.before
same data.net net.before
rm data.* net.before

# Nor do two names of one file that is not there yet take each other's place.
exits 2 "${train[@]}" --out n.safetensors --checkpoint ./n.safetensors
says err "--out and --checkpoint must be two files"
exits 2 "${train[@]}" --log ./n.safetensors --out n.safetensors
says err "--log needs a file of its own"
names >names.after
same names names.after

# A rate that leaves parameters without a number fails, and leaves the model.
exits 1 "${train[@]}" --optimizer adamw --lr 1e30 --weight-decay 1e38 --out m.safetensors
says err "holds a value that is not finite"
same m.safetensors before.safetensors

# Names that no model file can hold are found before the training.
printf '%s\n' 1,2,caf$'\xe9' 2,3,tea 3,4,tea >latin.csv
printf 'input 2\nlinear 2\n' >two.net
exits 1 train two.net --data latin.csv --epochs 1 --out n.safetensors
silent out
says err "the name of class 0 is not UTF-8"

# A pipe that nobody writes into is refused, not waited for.
mkfifo pipe pipe.safetensors
for path in pipe pipe.safetensors; do
    exits 1 summary "$path"
    says err "it is not a regular file"
done
exits 1 predict m.safetensors pipe
says err "it is not a regular file"
rm pipe pipe.safetensors

# A reader that goes away does not take the training with it.
command="train | true"
rm m.safetensors
"$evenkeel" "${train[@]}" --out m.safetensors 2>err | true
same m.safetensors before.safetensors

finish
