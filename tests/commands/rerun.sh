# A model says how it was trained, the same for equal runs, and the run can be repeated.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 2 --batch 256)

# record FILE: what a model says of its training.
record() {
    python3 -c 'import json, struct, sys
data = open(sys.argv[1], "rb").read()
header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
print(header["__metadata__"]["evenkeel.run"])' "$1"
}
# change FROM TO PYTHON: another model file, whose record is changed by statements on `record`.
change() {
    python3 -c 'import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + n])
record = json.loads(header["__metadata__"]["evenkeel.run"])
exec(sys.argv[3])
if record is None: del header["__metadata__"]["evenkeel.run"]
else: header["__metadata__"]["evenkeel.run"] = record if isinstance(record, str) else json.dumps(record)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + data[8 + n :])' "$@"
}

# The same run again, and its file too; other outputs and threads are not in it.
exits 0 "${train[@]}" --optimizer adamw --valid 0.25 --no-decay-norm --out a.safetensors --threads 1
exits 0 rerun a.safetensors --out b.safetensors --threads 2 --log b.jsonl --report b.html --metrics b.prom
says out "the same as a.safetensors, to the last bit of its 9 tensors"
says err "a.safetensors is repeated with the data synthetic:20"
same a.safetensors b.safetensors
exits 0 rerun b.safetensors --json --quiet
says out '"same":true'
for said in '"epochs":"2"' '"batch":"256"' '"optimizer":"adamw"' '"lr":"0.001"' '"weight-decay":"0.01"' '"seed":"1"' \
    '"valid":"0.25"' '"no-decay-norm":true' '"weights":"default"' '"version":"' '"machine":"' '"isa":"' \
    '"count":8000' '"shape":"20"' '"classes":10' '"sha256":"'; do
    record a.safetensors | grep -qF -- "$said" || fail "the record does not say: $said"
done
record a.safetensors | grep -qE 'threads|"out"|b.jsonl|quiet' && fail "the record says what does not matter"

# A model that is not the run's: said, exit code 1.
python3 - <<'END'
data = bytearray(open("a.safetensors", "rb").read())
data[-1] ^= 1
open("bent.safetensors", "wb").write(data)
END
exits 1 rerun bent.safetensors
says out "not the same as bent.safetensors: 1 of 9 tensors differ"
exits 1 rerun bent.safetensors --json
says out '"same":false,"tensors_that_differ":1'

# The command that does the same.
exits 0 rerun a.safetensors --dry-run --out c.safetensors
says out "evenkeel train a.safetensors --data synthetic:20 "
[ -e c.safetensors ] && fail "a dry run trained"
read -ra words <out
exits 0 "${words[@]:1}"
same a.safetensors c.safetensors
cp a.safetensors "it's a.safetensors"
exits 0 rerun "it's a.safetensors" --dry-run
says out "evenkeel train 'it'\\''s a.safetensors' --data"
exits 0 rerun a.safetensors --dry-run --json
says out '{"command":["evenkeel","train","a.safetensors","--data","synthetic:20",'

# A run that is stopped, here and there, has the record of the unbroken one, whatever --init says by then.
exits 0 "${train[@]}" --init xavier --epochs 4 --out whole.safetensors
exits 0 "${train[@]}" --init xavier --epochs 2 --out half.safetensors --checkpoint half.check
exits 0 "${train[@]}" --epochs 4 --out resumed.safetensors --resume half.check
same whole.safetensors resumed.safetensors
exits 0 rerun resumed.safetensors --quiet
# Where it went on elsewhere, both are named.
isa=$(record whole.safetensors | sed 's/.*"isa":"\([a-z0-9]*\)".*/\1/')
if [ "$isa" != baseline ]; then
    EVENKEEL_ISA=baseline exits 0 "${train[@]}" --init xavier --epochs 4 --out moved.safetensors --resume half.check
    record moved.safetensors | grep -q "\"isa\":\"$isa\".*\"isa\":\"baseline\"" || fail "the record lacks the first machine"
    exits 1 rerun moved.safetensors --quiet
    says err "it was interrupted, and went on elsewhere"
    says err "the instruction set was baseline then, and is $isa now"
fi
EVENKEEL_FUSE=off exits 0 "${train[@]}" --out unfused.safetensors
exits 1 rerun unfused.safetensors --quiet
says err "note: EVENKEEL_FUSE was off then, and is - now"
EVENKEEL_FUSE=off exits 0 rerun unfused.safetensors --quiet

# It is stopped and resumed as train is.
exits 0 rerun whole.safetensors --checkpoint again.check --out again.safetensors --quiet
exits 0 rerun whole.safetensors --resume again.check --quiet
says out "the same as whole.safetensors"

# Data and weights from files in the model's folder.
mkdir inside outside
for i in 1 2 3 4 5 6 7 8; do echo "$i,$((i * i % 7)),$((i % 2))"; done >inside/data.csv
printf 'input 2\nlinear 2\n' >two.net
exits 0 train two.net --data inside/data.csv --epochs 1 --batch 4 --out inside/w.safetensors
exits 0 train two.net --data inside/data.csv --epochs 1 --batch 4 --init inside/w.safetensors --out inside/m.safetensors
exits 0 rerun inside/m.safetensors
says err "with the data inside/data.csv and the initial weights inside/w.safetensors"
exits 0 train inside/w.safetensors --data inside/data.csv --epochs 1 --batch 4 --out inside/on.safetensors
same inside/on.safetensors inside/m.safetensors
# Outside of it they must be named.
cp inside/m.safetensors outside/m.safetensors
exits 1 rerun outside/m.safetensors
says err "names inside/data.csv as its data, which does not lie in the model's folder: say that it is to be read, with --data"
exits 1 rerun outside/m.safetensors --data inside/data.csv
says err "names inside/w.safetensors as its initial weights, which does not lie in the model's folder"
exits 0 rerun outside/m.safetensors --data inside/data.csv --init inside/w.safetensors
ln -s ../inside/data.csv outside/data.csv
change inside/m.safetensors outside/link.safetensors 'record["options"]["data"] = "outside/data.csv"; record["weights"] = "default"; del record["weights_sha256"]'
exits 1 rerun outside/link.safetensors
says err "does not lie in the model's folder"
mkdir pictures # which without a size would be refused as it is there
for data in pictures pictures:1x2x2; do
    change inside/m.safetensors outside/pictures.safetensors \
        "record['options']['data'] = '$data'; record['weights'] = 'default'; del record['weights_sha256']"
    exits 1 rerun outside/pictures.safetensors
    says err "names pictures as its data, which does not lie in the model's folder"
done
# Changed or gone.
cp inside/w.safetensors kept.safetensors
cp inside/m.safetensors inside/w.safetensors
exits 1 rerun inside/m.safetensors --out no.safetensors
says err "inside/w.safetensors is not what inside/m.safetensors began as: its SHA-256 is $(sha256sum <inside/w.safetensors | cut -d ' ' -f 1), not $(sha256sum <kept.safetensors | cut -d ' ' -f 1)"
rm inside/w.safetensors
exits 1 rerun inside/m.safetensors --out no.safetensors
says err "say where it is now, with --init"
exits 0 rerun inside/m.safetensors --init kept.safetensors
echo "9,9,0" >>inside/data.csv
exits 1 rerun inside/m.safetensors --init kept.safetensors
says err "note: the train data is another: 8 samples of 2 then, 9 of 2 now"
sed -i '$d; 3s/^3/4/' inside/data.csv
exits 1 rerun inside/m.safetensors --init kept.safetensors
says err "note: the train data is another: 8 samples of 2 then, 8 of 2 now, with other content"
rm inside/data.csv
exits 1 rerun inside/m.safetensors --init kept.safetensors
says err "and that is not there (No such file or directory): say where it is now, with --data"
exits 1 rerun a.safetensors --init kept.safetensors
says err "began as --init default, not as a file"

# What was done to the model since.
exits 0 fold whole.safetensors --out folded.safetensors
exits 1 rerun folded.safetensors
says err "the net of folded.safetensors was changed after its training"
exits 0 recalibrate whole.safetensors --data synthetic:20 --out re.safetensors
exits 1 rerun re.safetensors --quiet
says err "re.safetensors was recalibrated after its training"
says out "bn1.running_mean first"
exits 0 convert whole.safetensors --out copy.safetensors
exits 0 rerun copy.safetensors --quiet

# Hostile records: nothing is written, nothing is read, no word reaches the terminal raw.
refused() {
    change a.safetensors hostile.safetensors "$1"
    exits 1 rerun hostile.safetensors --quiet
    says err "$2"
    grep -q $'\e' err && fail "an escape reached the terminal"
}
refused 'record = None' "does not say how it was trained"
refused 'record = "{"' "is damaged, or of another version"
refused 'record = "[" * 5000' "is damaged, or of another version"
refused 'record = {}' "is damaged, or of another version"
refused 'record["on"] = []' "is damaged, or of another version"
refused 'record["options"]["data"] = "\x1b[2J"' "is damaged, or of another version"
refused 'record["options"]["data"] = "\u009b2J"' "is damaged, or of another version"
refused 'record["options"]["\x1b[2J"] = "1"' "is damaged, or of another version"
refused 'record["options"]["out"] = "stolen"' "was trained with --out, which this version does not know so"
refused 'record["options"]["log"] = "stolen"' "was trained with --log, which this version does not know so"
refused 'record["options"]["threads"] = "2"' "was trained with --threads, which this version does not know so"
refused 'record["options"]["epochs"] = 2' "was trained with --epochs, which this version does not know so"
refused 'record["options"]["epochs"] = "0"' "--epochs expects a whole number from 1 to 1000000, not '0'"
refused 'record["options"]["nesterov"] = "yes"' "was trained with --nesterov, which"
refused 'record["options"]["data"] = "/etc/passwd"' "does not lie in the model's folder"
refused 'record["options"]["data"] = "synthetic:20/../../etc"' "say where it is now"
refused 'record["options"]["data"] = "hostile.safetensors,/etc/passwd"' "does not lie in the model's folder"
refused 'del record["options"]["data"]' "does not say what data"
refused 'record["weights"] = "/etc/passwd"' "does not say what its weights began as"
refused 'record["weights"] = "/etc/passwd"; record["weights_sha256"] = "0"' "does not lie in the model's folder"
[ -e stolen ] && fail "a model file made the program write"
change a.safetensors more.safetensors 'record["options"]["momentum"] = "0.9"'
exits 2 rerun more.safetensors
says err "--momentum and --nesterov belong to --optimizer sgd"

exits 1 rerun small.net
says err "small.net does not say how it was trained"
exits 2 rerun a.safetensors --out ./a.safetensors
says err "--out would replace the model that the new one is compared with"
exits 2 rerun a.safetensors --checkpoint a.safetensors
says err "--checkpoint would replace the model"
exits 1 rerun nothing.safetensors
says err "there is no net or file"
finish
