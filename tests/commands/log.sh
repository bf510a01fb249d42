# A log holds all that a report shows: the page made from it is the page made in the run, to the byte.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --batch 256)

# rebuilt NAME: the report of NAME.jsonl is NAME.html.
rebuilt() {
    exits 0 report "$1.jsonl" --out "$1.again.html"
    says out "report: $1.again.html"
    same "$1.html" "$1.again.html"
}
# both NAME OPTION...: trains with a log and a report, which must tell the same.
both() {
    local name=$1
    shift
    exits 0 "$@" --out "$name.safetensors" --log "$name.jsonl" --report "$name.html"
    rebuilt "$name"
}

both plain "${train[@]}" --epochs 2
both valid "${train[@]}" --epochs 3 --valid 0.25 --schedule cosine --warmup 1
both parts "${train[@]}" --epochs 1 --accumulate 2
both long "${train[@]}" --epochs 40 --batch 200 # more than 1000 steps, which are drawn in runs of two
exits 0 "${train[@]}" --epochs 2 --out bare.safetensors
same bare.safetensors plain.safetensors # a log changes nothing
printf 'input 20\nlinear 10\n' >none.net
both none train none.net --data synthetic:20 --epochs 1
printf 'input 20\nlinear 9\nf: batchnorm frozen=true\nrelu\nlinear 8\nu: batchnorm track=false scale=false\nlinear 10\n' >odd.net
both odd train odd.net --data synthetic:20 --epochs 1
both skip "${train[@]}" --epochs 1 --lr 1e38
exits 0 report plain.jsonl --out p.html --json
says out '{"log":"plain.jsonl","report":"p.html"}'

# What a run was stands in its first line; what it cost in bytes is known.
python3 - >said 2>err <<'END' || fail "the first line does not say all"
import json
start = json.loads(open("valid.jsonl").readline())
assert start["event"] == "start" and start["command"][1:3] == ["train", "small.net"], start["command"]
for key in "date version machine isa threads net run title about".split(): assert start[key], key
assert start["run"]["options"]["schedule"] == "cosine" and start["net"].startswith("input  20\n")
assert start["steps"] == 72 and start["train_count"] == 6000
lines = open("long.jsonl").read().split("\n")
steps = [line for line in lines if '"step"' in line and '"event":"step"' in line]
assert len(steps) == 1600 and max(map(len, steps)) < 80, max(map(len, steps))
assert all(line for line in lines[:-1]) and not lines[-1]
[json.loads(line) for line in lines[:-1]]
END

# One that is stopped.
"$evenkeel" "${train[@]}" --epochs 100000 --out stopped.safetensors --log stopped.jsonl --report stopped.html --quiet \
    >out 2>err &
run=$!
command="a run that is stopped"
for ((i = 0; i < 200; i++)); do
    [ -s stopped.jsonl ] && grep -q '"event":"epoch"' stopped.jsonl && break
    sleep 0.05
done
kill -TERM $run
wait $run
[ $? = 1 ] || fail "it did not stop"
rebuilt stopped

# One that was killed after step 70, with a checkpoint of step 64, in the middle of a line, and was resumed: it is shown as if it
# had not been, and goes on in the log after a line of its own.
pictures() { grep -E '"y":"(mean cross-entropy|share of samples|learning rate)"' "$1" | sed 's/.*<script[^>]*>//'; }
both whole "${train[@]}" --epochs 4
exits 0 "${train[@]}" --epochs 2 --out half.safetensors --checkpoint half.check
sed '/"event":"step","step":71,/q' whole.jsonl | head -c -20 >killed.jsonl
exits 0 "${train[@]}" --epochs 4 --out killed.safetensors --resume half.check --log killed.jsonl
[ "$(grep -c '"event":"start"' killed.jsonl)" = 2 ] || fail "there are not two starts"
[ "$(grep -c '"event":"step","step":70,' killed.jsonl)" = 2 ] || fail "step 70 was not done twice"
same whole.safetensors killed.safetensors
exits 0 report killed.jsonl --out killed.html
[ "$(pictures whole.html | wc -l)" = 3 ] || fail "there are not three pictures to compare"
diff <(pictures whole.html) <(pictures killed.html) >&2 || fail "the resumed run is shown in another way"
grep -qF "128 steps over 8,000 samples, 4 epochs." killed.html || fail "the resumed run is not one"
grep -q "Seen at [0-9]* steps" killed.html || fail "looks are missing"
# Under way, it ends in the middle of a line.
head -c 9000 whole.jsonl >now.jsonl
exits 0 report now.jsonl --out now.html
grep -q "It was stopped after step" now.html || fail "a part of a run is shown as the whole"

# No log of this kind, and logs that lie.
bad() { # TEXT of the error; the log comes on stdin
    cat >bad.jsonl
    exits 1 report bad.jsonl --out bad.html
    says err "$1"
    [ -e bad.html ] && fail "a report was made of it"
}
head -n 1 plain.jsonl >start
step() { echo "{\"event\":\"step\",\"step\":$1,\"loss\":1,\"lr\":1}"; }
bad "bad.jsonl: this is no log of evenkeel train --log" </dev/null
bad "no line of it says that a run starts" < <(step 1)
bad "bad.jsonl, line 1: this comes before any start" < <(step 1; cat start)
bad "bad.jsonl, line 3: a step is of step 3, which cannot follow step 1" < <(cat start; step 1; step 3)
bad "line 2: a step is of step 0" < <(cat start; step 0)
bad "line 2: this is not JSON" < <(cat start; echo '{'; step 1)
bad "line 2: this is no line of a log" < <(cat start; echo '{"event":"coffee"}')
bad "line 2: the run's start knows no batchnorm 'bn9'" < <(cat start; echo "{\"event\":\"look\",\"step\":1,\"layer\":\"bn9\",\"measures\":[$(printf '0,%.0s' {1..35})0]}")
bad "line 2: a look at a layer lacks measures" < <(cat start; echo '{"event":"look","step":1,"layer":"bn1","measures":[1]}')
bad "line 2: a look is of step 7, which cannot follow step 0" < <(cat start; echo "{\"event\":\"look\",\"step\":7,\"layer\":\"bn1\",\"measures\":[$(printf '0,%.0s' {1..35})0]}")
bad "a run cannot begin after step -5" < <(sed 's/"step":0/"step":-5/' start)
bad "a run cannot begin after step 0 of 9000000000000000000" < <(sed 's/"steps":64/"steps":9000000000000000000/' start)
bad "there cannot be a batchnorm 'bn1'" < <(sed 's/"batchnorms":\[\(.*\)\]/"batchnorms":[\1,\1]/' start)
exits 1 report nowhere.jsonl --out n.html
says err "cannot read the log nowhere.jsonl: No such file"
exits 2 report plain.jsonl --out ./plain.jsonl
says err "the report would replace its log"
exits 1 report plain.jsonl --out nowhere/n.html
says err "cannot write nowhere/n.html"
finish
