# Training, measuring, predicting, running and inspecting, from end to end.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 2 --batch 256)

exits 0 "${train[@]}" --out a.safetensors --log a.jsonl --valid 0.25
says out "small.net: 522 parameters, input 20"
says out "epoch     loss  train acc  valid acc   test acc   images/s"
says out "model: a.safetensors"
[ "$(grep -c '^ *[12]  ' out)" = 2 ] || fail "there are not two rows of epochs"
[ "$(grep -c '^{"event":"epoch","epoch":[12],"step":[24][48],"train_loss":[0-9.e-]*,"train_accuracy":[0-9.]*,"valid_loss":[0-9.e-]*,"valid_accuracy":[0-9.]*,"test_loss":[0-9.e-]*,"test_accuracy":[0-9.]*,"images_per_second":[0-9.e+]*,"seconds":[0-9.e-]*,"phase_seconds":{"data":[0-9.e-]*,"forward":[0-9.e-]*,"backward":[0-9.e-]*,"exchange":0,"update":[0-9.e-]*}}$' a.jsonl)" = 2 ] ||
    fail "the log lacks an epoch: $(grep epoch a.jsonl)"
grep -q '^{"event":"step","step":1,"loss":[0-9.]*,"lr":0.1}$' a.jsonl || fail "the log lacks step 1: $(head -n 1 a.jsonl)"

# A new run replaces the log.
steps=$((2 * 24)) # 6,000 samples are 24 batches
[ "$(grep -vc '"event":"look"' a.jsonl)" = $((steps + 2 + 1)) ] || fail "the log has not a line for each step and epoch, and one more"
exits 0 "${train[@]}" --out a.safetensors --log a.jsonl --valid 0.25
[ "$(grep -vc '"event":"look"' a.jsonl)" = $((steps + 2 + 1)) ] || fail "a second run did not replace the log"

# What a run lacks is left out.
exits 0 "${train[@]}" --out b.safetensors --log b.jsonl --json --quiet
silent err
says out '"epochs":[{"epoch":1,'
says out '"stopped":false'
grep -q 'valid_loss\|valid_acc' b.jsonl && fail "there is no validation to log"

# The same seed gives the same bits, for any number of threads; another seed others.
exits 0 "${train[@]}" --out c.safetensors --threads 1
exits 0 "${train[@]}" --out d.safetensors --threads 2
same c.safetensors d.safetensors
same b.safetensors c.safetensors
exits 0 "${train[@]}" --out e.safetensors --seed 2
cp c.safetensors any.name # a model is known by its first bytes too
exits 0 eval any.name --data synthetic:20
silent err
cmp -s <(tensors c.safetensors) <(tensors e.safetensors) && fail "seeds 1 and 2 gave the same model"

exits 0 "${train[@]}" --out order1.safetensors --init c.safetensors
exits 0 "${train[@]}" --out order2.safetensors --init c.safetensors --seed 2
cmp -s <(tensors order1.safetensors) <(tensors order2.safetensors) && fail "seeds 1 and 2 took the data in the same order"

# Every option reaches the training.
for more in "--optimizer adam" "--optimizer adamw --weight-decay 0.1" "--lr 0.05" "--momentum 0.9" \
    "--momentum 0.9 --nesterov" "--weight-decay 0.1" "--weight-decay 0.1 --no-decay-norm" "--schedule cosine" \
    "--schedule step --step-epochs 1" "--warmup 1" "--clip 0.01" "--no-shuffle" "--init xavier" "--init kaiming" \
    "--init 0.01" "--samples 1000" \
    "--batch 255" "--batch 255 --drop-last"; do
    # shellcheck disable=SC2086
    exits 0 "${train[@]}" --out option.safetensors $more
    for other in c.safetensors option-*; do
        [ -e "$other" ] && cmp -s <(tensors option.safetensors) <(tensors "$other") && fail "$more trained as $other did"
    done
    mv option.safetensors "option-${more// /}"
done

# Training goes on from a model, and from a state dict.
exits 0 train c.safetensors --data synthetic:20 --epochs 1 --out f.safetensors
exits 0 train small.net --init c.safetensors --data synthetic:20 --epochs 1 --out g.safetensors
same f.safetensors g.safetensors

exits 0 eval c.safetensors --data synthetic:20
says out "accuracy  0."
says out " of 2,000)"
cp out first
exits 0 eval c.safetensors --data synthetic:20 --batch 7 --split test
diff <(grep -v images/s first) <(grep -v images/s out) >&2 || fail "the batch size changed the result"
exits 0 eval c.safetensors --data synthetic:20 --split train --json
says out '"count":8000,"loss":0.'
says out '"accuracy":0.'
exits 0 eval c.safetensors --data synthetic:20 --split any --json
says out '"count":2000,'
exits 0 eval small.net --data synthetic:20
says err "its parameters are random"

# Two items of 20 features; the same probabilities by any way.
head -c 40 /dev/zero | npy x.npy '|u1' '2, 20'
exits 0 predict c.safetensors x.npy --top 3
[ "$(wc -l <out)" = 7 ] || fail "not a heading and two items of three lines"
exits 0 predict c.safetensors x.npy --index 1 --top 1 --json
says out '"items":[{"item":1,"top":[{"class":'
exits 0 predict c.safetensors x.npy --top 99
[ "$(wc -l <out)" = 21 ] || fail "there are not ten classes for each of two items"
awk 'NR > 1 { sum += $(NF - 1) } END { exit !(sum > 1.99 && sum < 2.01) }' out || fail "probabilities do not sum to 1"
exits 1 predict c.safetensors x.npy --index 2
says err "x.npy has 2 items, counted from 0: there is no item 2"

# Classes are called what the training data calls them.
printf '%s\n' 1,2,cat 2,3,dog 3,1,eel >pets.csv
printf 'input 2\nlinear 3\n' >pets.net
exits 0 train pets.net --data pets.csv --epochs 1 --out pets.safetensors
head -c 2 /dev/zero | npy pet.npy '|u1' '1, 2'
exits 0 predict pets.safetensors pet.npy
[ "$(awk 'NR > 1 { print $(NF - 1), $NF }' out | sort)" = $'0 cat\n1 dog\n2 eel' ] || fail "classes lack their names"
exits 0 predict pets.safetensors pet.npy --json
for class in '0,"name":"cat"' '1,"name":"dog"' '2,"name":"eel"'; do says out "{\"class\":$class,"; done

# Where the net ends in softmax, its outputs are the probabilities.
{ small_net; echo softmax; } >softmax.net
exits 0 run softmax.net --input x.npy --output p.npy
exits 0 predict softmax.net x.npy --index 0 --top 10
awk 'NR > 1 { print $NF, $(NF - 1) }' out | sort -n | cut -d ' ' -f 2 >predicted
od -A n -t f4 -w4 -v -j 128 -N 40 p.npy | awk '{ printf "%.4f\n", $1 }' >outputs
same predicted outputs

exits 0 run c.safetensors --input x.npy --output y.npy
says out "y.npy: 2x10, eval mode"
[ "$(wc -c <y.npy)" = $((128 + 2 * 10 * 4)) ] || fail "y.npy does not hold 2x10 floats"
exits 0 run c.safetensors --input x.npy --output y-train.npy --mode train --json
says out '"shape":[2,10]'
cmp -s y.npy y-train.npy && fail "training mode normalized by the running statistics"
head -c 42 /dev/zero | npy wrong.npy '|u1' '2, 21'
exits 1 run c.safetensors --input wrong.npy --output z.npy
says err "wrong.npy has shape 2x21"
[ -e z.npy ] && fail "a failed run left z.npy"
exits 1 run c.safetensors --input x.npy --output nowhere/y.npy
says err "cannot write nowhere/y.npy: No such file or directory"

exits 0 inspect c.safetensors
says out "bn1  batchnorm, output 16, "
says out "  gamma         min "
says out "  running_var   min "
exits 0 inspect c.safetensors --layer fc2
says out "... 144 more (--all)"
exits 0 inspect c.safetensors --layer fc2 --all
grep -q "more" out && fail "--all left values out"
exits 0 inspect c.safetensors --json
says out '"role":"running_mean"'
says out '"role":"num_batches_tracked","value":64}' # two epochs of 8,000/256
sed 's/.*"role":"gamma",[^}]*"values":\[\([^]]*\)\].*/\1/' out | tr , '\n' | sort -g >gamma
says out "\"role\":\"gamma\",\"shape\":[16],\"min\":$(head -n 1 gamma),\"mean\":"
says out ",\"max\":$(tail -n 1 gamma),\"values\":["
exits 1 inspect c.safetensors --layer bn2
says err "c.safetensors has no layer 'bn2'; did you mean 'bn1'?"
exits 0 inspect lenet
says out "lenet has no normalization with parameters"

# Steps that change nothing are told: here the one in four whose sums overflow.
{
    for class in 0 1 2 0 1 2 0 1; do printf '%s,' {1..20}; echo $class; done
    printf '3e38,%.0s' {1..20}
    echo 2
    for class in 0 1 2 0 1 2 0; do printf '%s,' {20..1}; echo $class; done
} >some.csv
exits 0 train small.net --data some.csv --epochs 1 --batch 4 --out some.safetensors --log some.jsonl --json
says out '"steps":4,"skipped":1,'
says err "note: 1 of 4 steps changed nothing"
[ "$(grep -c '^{"event":"step","step":[1-4],.*"skipped":true}$' some.jsonl)" = 1 ] || fail "the log does not tell"
[ "$(grep -c '"skipped":true' some.jsonl)" = 1 ] || fail "the log tells of more than one skipped step"

# Where no step can learn, because every sum overflows, nothing is saved.
small_net >small.net
for class in 0 1 2 3 4 5; do printf '3e38,%.0s' {1..20}; echo $class; done >huge.csv
exits 1 train small.net --data huge.csv --epochs 2 --out nothing.safetensors
says err "no model is saved"
[ -e nothing.safetensors ] && fail "a model that learned nothing was saved"

finish
