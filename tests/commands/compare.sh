# Comparing: every combination and seed a run, the answers, and going on after Ctrl-C.
source "$(dirname "$0")/testing.bash"
set -m # so that commands in the background hear SIGINT
small_net >small.net
compare=(compare small.net --data synthetic:20 --epochs 2 --batch 64 --samples 1000)

# The cross product, the last key fastest, in one table; what is said of it comes from it.
exits 0 "${compare[@]}" --vary norm=batch,none --vary lr=0.01,0.5 --quiet
silent err
says out "small.net on synthetic:20: 1,000 samples, 2 epochs, seed 1; accuracy on 2,000 test samples"
[ "$(awk '/^(batch|none) / { print $1, $2 }' out)" = $'batch 0.01\nbatch 0.5\nnone 0.01\nnone 0.5' ] || fail "not the four rows"
says out "norm   lr    final test acc  best test acc  train acc  train loss  seconds "
best=$(awk '/^(batch|none) / { print $3, "norm=" $1, "lr=" $2 }' out | sort -rn | head -n 1)
tr '\n' ' ' <out >line
says line "After 2 epochs ${best#* } has the highest test accuracy, ${best%% *}; the next is norm="
says line "Each was trained with one seed"

# A run is what train does with the same options.
exits 0 train small.net --data synthetic:20 --epochs 2 --batch 64 --samples 1000 --lr 0.5 --seed 3 --out m.safetensors --json
train=$(grep -o '"test_accuracy":[0-9.]*' out | tail -n 1)
exits 0 "${compare[@]}" --vary lr=0.5 --seed 2 --repeat 2 --json
grep -o '"seed":3,"outcome".*' out >third
says third "$train"

# Seeds: mean and deviation, each run in CSV and JSON with its curve.
exits 0 "${compare[@]}" --vary norm=batch,none,layer --repeat 3 --seed 5 --csv runs.csv --json --quiet --report page.html
silent err
[ "$(wc -l <out)" = 1 ] || fail "not one line of JSON"
[ "$(grep -o '"epoch":1,' out | wc -l)" = 9 ] || fail "there are not nine curves"
says out '"repeat":3,"seed":5,"train_count":1000,"measured_on":"test","measured_count":2000,'
says out '"vary":[{"key":"norm","values":["batch","none","layer"]}]'
says out '"outcome":"learned"'
says out '"stopped":false'
says out '"rows":[{"vary":{"norm":"batch"},"parameters":522,"net":"input'
[ "$(head -n 1 runs.csv)" = norm,seed,outcome,reason,final_test_accuracy,best_test_accuracy,best_epoch,train_accuracy,train_loss,epochs,skipped,seconds,images_per_second ] ||
    fail "the heading of the CSV: $(head -n 1 runs.csv)"
[ "$(cut -d , -f 1,2 runs.csv | tail -n +2 | tr '\n' ' ')" = "batch,5 batch,6 batch,7 none,5 none,6 none,7 layer,5 layer,6 layer,7 " ] ||
    fail "the runs of the CSV: $(cut -d , -f 1,2 runs.csv)"
awk -F , '$1 == "layer" { n++; s += $5; q += $5 * $5 } END { m = s / n; printf "\"final\":{\"mean\":%.5f %.5f\n", m, sqrt((q - n * m * m) / (n - 1)) }' runs.csv >spread
grep -o '"vary":{"norm":"layer"},"parameters.*' out | grep -o '"final":{"mean":[0-9.]*,"deviation":[0-9.]*' | head -n 1 |
    sed 's/,"deviation":/ /' | awk '{ split($1, a, ":"); printf "\"final\":{\"mean\":%.5f %.5f\n", a[3], $2 }' >told
same spread told
grep -q "<html" page.html || fail "page.html is no page"
grep -q "norm=layer" page.html || fail "page.html does not name norm=layer"

# Every key comes to its run: no two values train alike, with the one that is the net's own among them.
for vary in norm=batch,none,layer,group,instance,rms position=before,after activation=relu,sigmoid,tanh,silu,leakyrelu \
    width=1,0.5,2 dropout=0,0.3 momentum=0.1,0.5,none eps=1e-5,0.1 ghost=0,16 batch=64,32 lr=0.1,0.2 \
    optimizer=sgd,adam,adamw init=default,xavier,kaiming,0.01; do
    exits 0 compare small.net --data synthetic:20 --epochs 1 --batch 64 --samples 300 --quiet --csv keys.csv --vary $vary
    values=$(tail -n +2 keys.csv | wc -l) different=$(tail -n +2 keys.csv | cut -d , -f 5,8,9 | sort -u | wc -l)
    [ "$vary" = norm=batch,none,layer,group,instance,rms ] && values=$((values - 1)) # instance is layer on features
    [ "$values" = "$different" ] || fail "$vary: $different different runs of $values: $(cat keys.csv)"
done
exits 0 "${compare[@]}" --vary norm=group,instance --vary position=after
says out "norm=group: groupnorm 8"

# What diverges and what learns nothing are rows with the reason.
exits 0 "${compare[@]}" --vary norm=none --vary lr=1e-9,0.1,1e9 --repeat 2 --csv fate.csv
[ "$(tail -n +2 fate.csv | cut -d , -f 2-4 | tr '\n' ' ')" = "1e-9,1,at chance 1e-9,2,at chance 0.1,1,learned 0.1,2,learned 1e9,1,diverged 1e9,2,diverged " ] ||
    fail "not the fates that were expected: $(cut -d , -f 2-5 fate.csv)"
says out "with norm=none on"
says out "No better than chance: lr=1e-9 (2 of 2 runs)"
says out "Diverged: lr=1e9 (2 of 2"
for class in 0 1 2 3 4 5; do printf '3e38,%.0s' {1..20}; echo $class; done >huge.csv
exits 0 compare small.net --data huge.csv --epochs 5 --vary norm=batch,none --json
[ "$(grep -o '"outcome":"diverged","reason":"the loss or a gradient was not finite in 1 of the 1 steps of epoch 1"' out | wc -l)" = 2 ] ||
    fail "two runs did not end with their first epoch"
says out '"measured_on":"training"'
says out "huge.csv has no test data"
exits 0 compare small.net --data huge.csv --epochs 1 --vary norm=batch,none
says out "No combination learned."

# Wrong keys, values and combinations are named before anything runs, and nothing is written.
wrong() { # TEXT ARGUMENTS
    local text=$1
    shift
    exits 2 "${compare[@]}" --csv never.csv --state never.state "$@"
    silent out
    says err "evenkeel: $text"
    [ -e never.csv ] || [ -e never.state ] && fail "files were made"
}
wrong "--vary KEY=V1,V2,... is missing"
wrong "--vary expects KEY=V1,V2,..., such as norm=batch,none, not 'norm'" --vary norm
wrong "--vary knows no 'nrom'; did you mean 'norm'?" --vary nrom=batch
wrong "--vary knows no 'colour'; evenkeel help compare lists" --vary colour=red
wrong "--vary norm=bacth: there is no norm 'bacth'; did you mean 'batch'?" --vary norm=bacth,none
wrong "--vary norm=batch,,none lacks a value" --vary norm=batch,,none
wrong "--vary norm=batch,batch has batch twice" --vary norm=batch,batch
wrong "norm is varied twice" --vary norm=batch --vary norm=none
wrong "--lr expects a number above 0, not 'fast'" --vary lr=fast
wrong "--optimizer expects one of sgd|adam|adamw, not 'adm'; did you mean 'adam'?" --vary optimizer=adm
wrong "there is no init 'xaver'; did you mean 'xavier'?" --vary init=xaver
wrong "init=-1: weights cannot have the deviation -1" --vary init=-1
wrong "--vary dropout=1: p of dropout must be a number from 0 to 0.999" --vary dropout=1
wrong "norm=none position=after is impossible: the net has no normalization that could be moved" \
    --vary norm=batch,none --vary position=after,before
wrong "norm=layer ghost=8 is impossible: the net has no batch normalization" --vary norm=batch,layer --vary ghost=8,0
wrong "batch=1 is impossible: bn1 has one value a channel" --vary batch=1,2
wrong "batch=2000 is impossible: 1000 training samples fill no batch of 2000" --vary batch=10,2000 --drop-last
says err "1 of 2 combinations cannot be, so none was run"
wrong "--momentum and --nesterov belong to --optimizer sgd" --vary optimizer=adam,adamw --momentum 0.9 --optimizer adam
wrong "ghost=16 is impossible: bn1 normalizes by ghost batches, which parts" --vary ghost=0,16 --accumulate 2
wrong "--seed is too large for so many seeds" --vary norm=batch --seed 9223372036854775807 --repeat 2
printf '%s\n' 1,2,0 2,1,1 1,1,0 >data.csv
cp data.csv before
for file in "--csv data.csv" "--report ./data.csv"; do
    # shellcheck disable=SC2086
    exits 2 compare small.net --data data.csv --vary norm=batch $file
    says err "the data would be overwritten"
done
same data.csv before
wrong "--state needs a file of its own" --vary norm=batch --csv never.state
exits 2 compare small.net --data synthetic:21 --vary norm=batch,none,layer
[ "$(grep -c "items are 21, the net's input is 20" err)" = 1 ] || fail "what is wrong with all is not said once"
exits 1 "${compare[@]}" --vary norm=batch --csv nowhere/x.csv
silent out
exits 1 "${compare[@]}" --vary norm=batch --report .
silent out
exits 1 "${compare[@]}" --vary norm=batch --state /dev/null
says err "cannot keep the state in /dev/null"

# Stopped in its midst, it goes on by the command that it names, and comes to the same.
many=(compare small.net --data synthetic:20 --epochs 2 --samples 4000 --vary norm=batch,none --vary lr=0.05,0.1,0.2,0.4,0.8
    --vary batch=16,32,64 --repeat 2)
facts() { cut -d , -f 1-12 "$1"; } # all but the times
exits 0 "${many[@]}" --csv unbroken.csv --quiet
mkdir "with space"
command="evenkeel ${many[*]} --state (SIGINT)"
"$evenkeel" "${many[@]}" --csv stopped.csv --state "with space/many.state" >out 2>err &
for _ in {1..2000}; do
    [ "$(wc -l 2>/dev/null <"with space/many.state" || echo 0)" -gt 3 ] && break
    sleep 0.01
done
kill -s INT $!
wait $!
code=$?
[ $code = 1 ] || fail "exit code $code, not 1"
says err "evenkeel: stopped after "
tr '\n' ' ' <out >line
grep -q "Stopped after [0-9]* of 60 runs\." line || fail "the answer does not tell that it is not all"
says out "not run"
lines=$(wc -l <"with space/many.state")
[ "$lines" -lt 61 ] || fail "it was not stopped"
[ "$(wc -l <stopped.csv)" = "$lines" ] || fail "the table and the state have not the same runs"
head -c 100 "with space/many.state" | tr -d '\n' >part && cat part >>"with space/many.state" # as if killed as it wrote
resume=$(sed -n '/^Go on with:$/{n;p;}' err)
echo "$resume" | grep -qF -- "--state 'with space/many.state'" || fail "no command to resume: $resume"
command=$resume
eval "$resume" >out 2>err || fail "the named command failed"
says err "with space/many.state has $((lines - 1)) of the runs already"
facts stopped.csv >resumed
facts unbroken.csv >whole
same resumed whole
[ "$(wc -l <"with space/many.state")" = 61 ] || fail "the state does not hold all runs"

# What is there is not run again, though more is asked for.
cp "with space/many.state" more.state
exits 0 "${many[@]}" --csv again.csv --state more.state --quiet
same again.csv stopped.csv
exits 0 "${many[@]}" --csv more.csv --state more.state --repeat 3 --quiet
[ "$(wc -l <more.state)" = 91 ] || fail "a third seed did not cost its 30 runs alone"
grep -vF ',3,' more.csv | cut -d , -f 1-4 | cmp -s - <(cut -d , -f 1-4 again.csv) || fail "the first two seeds are not as they were"

# A state of something else is refused and left as it is.
refused() { # TEXT STATE ARGUMENTS
    local text=$1 state=$2
    shift 2
    cp "$state" before
    exits 1 "${many[@]}" --state "$state" "$@"
    silent out
    says err "$text"
    same "$state" before
}
refused "more.state is of another comparison: its epochs is 2, not 3" more.state --epochs 3
refused "more.state is of another comparison: its data is \"synthetic:20\", not" more.state --data synthetic:4x5x1
refused "more.state is of another comparison: its lr is not given, not 0.3" more.state --lr 0.3
refused "more.state is of another comparison: its accumulate is not given, not 2" more.state --accumulate 2
sed 's/"seed":1,/"seed":-9223372036854775808,/' more.state >far.state # so far from this seed that it is none of these runs
exits 0 "${many[@]}" --state far.state --quiet
[ "$(wc -l <far.state)" -gt "$(wc -l <more.state)" ] || fail "runs of another seed were taken"
sed 's/linear 16/linear 12/' small.net >other.net
exits 1 compare other.net "${many[@]:2}" --state more.state
says err "more.state is of another comparison: its net is another"
refused "small.net.copy is not the state of a comparison" small.net.copy <<<"$(cp small.net small.net.copy)"
printf 'no line' >odd.state
refused "odd.state is not the state of a comparison" odd.state
{ head -n 1 more.state; echo '{"vary":[]}'; } >odd.state
refused "odd.state:2: not a run of a comparison" odd.state

# Without a state there is nothing to go on from.
command="evenkeel ${many[*]} (SIGINT)"
"$evenkeel" "${many[@]}" --repeat 100 >out 2>err &
until_it_listens $!
kill -s INT $!
wait $!
code=$?
[ $code = 1 ] || fail "exit code $code, not 1"
says err "Without --state FILE the comparison cannot be resumed."
says out "not run"

finish
