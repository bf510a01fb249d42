# The metrics of a run for Prometheus, read by a parser of the text format of its own.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 2 --batch 256)

cat >parse.py <<'END'
"""Reads the text format 0.0.4 strictly, and prints NAME{LABELS} VALUE for each series, labels sorted."""
import re, sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
text = open(sys.argv[1], encoding="utf-8").read()
assert text.endswith("\n"), "the last line has no end"
helped, typed, seen, family = set(), {}, set(), None
for line in text.split("\n")[:-1]:
    if line.startswith("# HELP "):
        name = re.fullmatch(rf"# HELP ({NAME}) \S.*", line).group(1)
        assert name not in helped, f"{name}: helped twice"
        helped.add(name)
        family = name
    elif line.startswith("# TYPE "):
        name, kind = re.fullmatch(rf"# TYPE ({NAME}) (gauge|counter)", line).groups()
        assert name == family and name not in typed, f"{name}: TYPE out of place"
        assert (kind == "counter") == name.endswith("_total"), f"{name}: {kind}"
        typed[name] = kind
    else:
        name, inside, value = re.fullmatch(rf"({NAME})\{{(.*)\}} (\S+)", line).groups()
        assert name == family and name in typed, f"{name}: outside its family"
        assert name.startswith("evenkeel_"), name
        labels, rest = {}, inside
        while rest:
            match = LABEL.match(rest)
            assert match, f"labels: {rest}"
            key, raw = match.group(1), match.group(2)
            assert key not in labels, f"label {key} twice"
            labels[key] = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m.group(1), m.group(1)), raw)
            rest = rest[match.end() :]
        float(value)
        series = (name, tuple(sorted(labels.items())))
        assert series not in seen, f"{series} twice"
        seen.add(series)
        assert typed[name] != "counter" or float(value) >= 0, line
        print(name + "{" + ",".join(f"{k}={v!r}" for k, v in sorted(labels.items())) + "} " + value)
# A family in OpenMetrics is named without _total: no gauge may have that name.
assert not {n[: -len("_total")] for n in typed if n.endswith("_total")} & set(typed), "a gauge is called as a counter"
END

parse() {
    command="parse.py $1"
    python3 parse.py "$1" >series 2>err || fail "$1 is no text for Prometheus"
}
has() { grep -qE -- "^$1\$" series || fail "the metrics do not say: $1"; }

exits 0 "${train[@]}" --out plain.safetensors
exits 0 "${train[@]}" --out a.safetensors --valid 0.25 --metrics run1.prom --checkpoint c --json
says out '"metrics":"run1.prom"'
parse run1.prom
has "evenkeel_build_info\{isa='[a-z0-9]+',run='run1',version='[0-9.]+'\} 1"
has "evenkeel_run_info\{data='synthetic:20',net='small.net',run='run1'\} 1"
has "evenkeel_training\{run='run1'\} 0"
has "evenkeel_epoch\{run='run1'\} 2"
has "evenkeel_planned_epochs\{run='run1'\} 2"
has "evenkeel_step\{run='run1'\} 48"
has "evenkeel_planned_steps\{run='run1'\} 48"
has "evenkeel_steps_total\{run='run1'\} 48"
has "evenkeel_samples_total\{run='run1'\} 12000"
has "evenkeel_skipped_steps_total\{run='run1'\} 0"
for phase in data forward backward update; do
    has "evenkeel_step_seconds_total\{phase='$phase',run='run1'\} [0-9.e-]+"
done
has "evenkeel_step_seconds_total\{phase='exchange',run='run1'\} 0"
for set in train valid test; do
    has "evenkeel_epoch_loss\{run='run1',set='$set'\} [0-9.]+"
    has "evenkeel_epoch_accuracy\{run='run1',set='$set'\} 0\.[0-9]+"
done
has "evenkeel_loss\{run='run1'\} [0-9.]+"
has "evenkeel_learning_rate\{run='run1'\} 0.1"
has "evenkeel_images_per_second\{run='run1'\} [0-9.e+]+"
has "evenkeel_resident_memory_bytes\{run='run1'\} [0-9]+"
has "evenkeel_resident_memory_peak_bytes\{run='run1'\} [0-9]+"
has "evenkeel_threads\{run='run1'\} [0-9]+"
has "evenkeel_start_time_seconds\{run='run1'\} [0-9.]+"
has "evenkeel_last_checkpoint_time_seconds\{run='run1'\} [0-9.]+"
exits 0 "${train[@]}" --out b.safetensors --metrics run1.prom
same plain.safetensors b.safetensors # looking on changes nothing

# Labels say any name as it is.
name=$'q"u\\o\nte'
cp small.net "$name.net"
exits 0 train "$name.net" --data synthetic:20 --epochs 1 --out n.safetensors --metrics "$name.prom"
parse "$name.prom"
has "evenkeel_run_info\{data='synthetic:20',net='q\"u\\\\\\\\o\\\\nte.net',run='q\"u\\\\\\\\o\\\\nte'\} 1"

# Skipped steps, and a loss that is no number.
for class in 0 1 2 3 4 5; do printf '3e38,%.0s' {1..20}; echo $class; done >huge.csv
exits 1 train small.net --data huge.csv --epochs 2 --out nothing.safetensors --metrics huge.prom
parse huge.prom
has "evenkeel_skipped_steps_total\{run='huge'\} 2"
has "evenkeel_loss\{run='huge'\} (NaN|[+-]Inf)"
grep -q epoch_loss series && fail "there is no loss of an epoch"

# While it goes on it says so; a reader finds a whole file at any time; a resumed run counts its own steps.
"$evenkeel" train small.net --data synthetic:20 --epochs 100000 --batch 32 --out s.safetensors --checkpoint s.check \
    --metrics s.prom --quiet >out 2>err &
run=$!
command="a run under way"
for ((i = 0; i < 200; i++)); do
    [ -s s.prom ] && grep -q epoch_loss s.prom && break
    sleep 0.05
done
for ((i = 0; i < 5; i++)); do
    parse s.prom
    has "evenkeel_training\{run='s'\} 1"
done
kill -TERM $run
wait $run
[ $? = 1 ] || fail "it did not stop"
parse s.prom
has "evenkeel_training\{run='s'\} 0"
done=$(sed -n "s/^evenkeel_steps_total{run='s'} //p" series)
has "evenkeel_step\{run='s'\} $done"
[ "$(find . -name 's.prom.*' | wc -l)" = 0 ] || fail "a part of the metrics is left"

# Where it cannot be written any more that is said once, and training goes on to the same model.
mkdir gone
command="evenkeel ${train[*]} (the folder goes)"
"$evenkeel" "${train[@]}" --epochs 300 --out g.safetensors --metrics gone/m.prom --quiet >out 2>err &
run=$!
for ((i = 0; i < 200; i++)); do
    [ -s gone/m.prom ] && break
    sleep 0.02
done
mv gone elsewhere # at once, whatever is being written
wait $run || fail "metrics that cannot be written failed the run"
[ "$(grep -c 'note: cannot write the metrics gone/m.prom' err)" = 1 ] || fail "it is not said once"
[ -s g.safetensors ] || fail "the model is missing"
exits 1 "${train[@]}" --out d.safetensors --metrics nowhere/m.prom
says err "cannot write nowhere/m.prom: No such file or directory"
[ -e d.safetensors ] && fail "it trained without its metrics"
exits 2 "${train[@]}" --out d.safetensors --metrics d.safetensors
says err "--metrics needs a file of its own"
exits 2 "${train[@]}" --out d.safetensors --log d.jsonl --metrics ./d.jsonl
says err "--metrics needs a file of its own"
exits 2 "${train[@]}" --out d.safetensors --metrics small.net
says err "the net text would be overwritten"
finish
