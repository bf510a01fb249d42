# evenkeel audit and recalibrate: a model that was badly trained is found out, the proposed command mends it, and
# then nothing is found; exit codes and answers tell what is wrong with a model from what is wrong with a call.
source "$(dirname "$0")/testing.bash"
set -m # so that commands in the background hear SIGINT
net() { printf 'input 20\nfc1: linear 32\nbn1: batchnorm%s\nrelu\nfc2: linear 32\nbn2: batchnorm%s\nrelu\nfc3: linear 10\n' "$1" "$1"; }
net "" >good.net
net " momentum=0.0003" >slow.net
exits 0 train good.net --data synthetic:20 --epochs 3 --schedule cosine --out good.safetensors
exits 0 train slow.net --data synthetic:20 --epochs 1 --batch 8 --lr 0.02 --out "slow one.safetensors"

# Healthy: 0, with and without data.
exits 0 audit good.safetensors
says out "nothing found; with --data the statistics are measured too"
silent err
exits 0 audit good.safetensors --data synthetic:20
says out "nothing found"
says out "2,000 samples, against 8,000 of the training data"
exits 0 audit good.safetensors --data synthetic:20 --json
grep -q '"healthy":true,"errors":0,"warnings":0,"notes":0,"findings":\[\]' out || fail "not healthy"
says out '"measured":{"count":2000,"reference_count":8000,"as_is":{"loss":'

# Sick: 1, named, and the command that is proposed, run as it stands, restores the accuracy.
exits 1 audit "slow one.safetensors"
says out "error: not-converged"
exits 1 audit "slow one.safetensors" --data synthetic:20 --report page.html
says out "report: page.html"
silent err
says out "error: not-converged"
says out "1000 batches at momentum 0.0003 leave (1-momentum)^batches = 74.1 % of the initial 0 and 1"
grep -q '<html' page.html || fail "there is no page"
grep -q 'not-converged' page.html || fail "the page lacks the finding"
mend=$(sed -n 's/^  mend: evenkeel //p' out)
[ "$mend" = "recalibrate 'slow one.safetensors' --data synthetic:20 --out mended.safetensors" ] || fail "proposed: $mend"
command="evenkeel $mend"
eval '"$evenkeel" '"$mend" >out 2>err || fail "the proposed command failed"
says out "2 batch normalizations have the statistics of 8,000 samples of synthetic:20"
exits 0 audit mended.safetensors --data synthetic:20
says out "nothing found"
exits 0 audit mended.safetensors
exits 1 audit "slow one.safetensors" --data synthetic:20 --json
silent err
grep -q '"healthy":false,"errors":2,"warnings":0' out || fail "not two errors"
says out '"severity":"error","code":"not-converged","layer":"bn'

# The page takes no other file's place.
cp good.safetensors before
exits 2 audit good.safetensors --report ./good.safetensors
says err "the model would be overwritten; name another file for --report"
same good.safetensors before

# Before and after, as JSON; the file may be the model itself.
cp "slow one.safetensors" own.safetensors
exits 0 recalibrate own.safetensors --data synthetic:20 --out own.safetensors --json
number() { sed "s/.*\"$1\":{\"loss\":[0-9.e-]*,\"accuracy\":\([0-9.]*\)}.*/\1/" out; }
awk "BEGIN { exit !($(number after) > $(number before) + 0.04) }" || fail "recalibration did not mend: $(cat out)"
same own.safetensors mended.safetensors
exits 0 recalibrate own.safetensors --data synthetic:20 --out blend.safetensors --blend 0.3 --split test --json
says out '"blend":0.3'

# Data without labels, a single array: no accuracy.
head -c 1600 /dev/urandom | od -An -v -tu1 -w20 | awk '{ for (i = 1; i <= NF; i++) printf "%c", 65 + $i % 26 }' | head -c 1600 | npy x.npy '|u1' '80, 20'
exits 0 recalibrate own.safetensors --data x.npy --out unlabelled.safetensors
says out "of 80 samples of x.npy"
grep -q accuracy out && fail "accuracy without labels"

# What fails, fails with one sentence and no answer, and leaves everything as it was.
fails() { # SENTENCE ARGUMENTS
    local sentence=$1
    shift
    exits 1 "$@"
    silent out
    says err "evenkeel: "
    says err "$sentence"
}
fails "there is no net or file 'nothing'" recalibrate nothing --data synthetic:20 --out m.safetensors
fails "nothing.safetensors" audit nothing.safetensors
fails "is a net text" audit good.net
fails "did you mean synthetic" audit good.safetensors --data synthetik
fails "items are 1x28x28, the net's input is 20" audit good.safetensors --data synthetic
fails "cannot write no/page.html" audit good.safetensors --data synthetic:20 --report no/page.html
fails "cannot write no/m.safetensors" recalibrate good.safetensors --data synthetic:20 --out no/m.safetensors
[ -e m.safetensors ] && fail "a model was written"
exits 2 audit
says err "MODEL is missing"
exits 2 audit good.safetensors --train synthetic:20
says err "--train needs --data"
cp good.safetensors before
exits 2 audit good.safetensors --report ./good.safetensors
says err "the model would be overwritten"
same good.safetensors before
cp x.npy before
exits 2 recalibrate good.safetensors --data x.npy --out x.npy
says err "the data would be overwritten"
exits 2 audit good.safetensors --data x.npy,y.npy --report x.npy
says err "the data would be overwritten"
exits 2 run good.safetensors --input x.npy --output x.npy
says err "--output needs a file of its own"
same x.npy before
cp good.net before
exits 2 recalibrate good.net --data synthetic:20 --out good.net
says err "the net text would be overwritten"
same good.net before
exits 2 audit good.safetensors --dta synthetic:20
says err "did you mean '--data'?"
exits 2 recalibrate good.safetensors --data synthetic:20
says err "--out MODEL is missing"
exits 2 recalibrate good.safetensors --data synthetic:20 --out m.safetensors --blend 0
says err "--blend expects a number above 0"

# Ctrl-C leaves the old file, and an audit that was stopped gives no answer. The signal is sent once it is listened for,
# into work that takes far longer than that on any machine.
exits 0 train resnet20 --data synthetic:3x32x32 --samples 64 --epochs 1 --out deep.safetensors
cp deep.safetensors kept.safetensors
stop() {
    command="evenkeel $* (SIGINT)"
    "$evenkeel" "$@" >out 2>err &
    local pid=$!
    until_it_listens $pid
    kill -INT $pid
    wait $pid
    local code=$?
    [ "$code" = 1 ] || fail "exit code $code, not 1"
    silent out
    says err "evenkeel: stopped on request; nothing was changed"
}
stop recalibrate deep.safetensors --data synthetic:3x32x32 --out deep.safetensors
same deep.safetensors kept.safetensors
stop audit deep.safetensors --data synthetic:3x32x32 --report stopped.html
[ -e stopped.html ] && fail "a page was written"
finish
