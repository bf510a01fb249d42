# The experiments run, on data that takes no time, and docs/experiments.md has each with its output.
source "$(dirname "$0")/testing.bash"
document=$project/docs/experiments.md
export EVENKEEL=$evenkeel
seq 1 40000 | tr -d '\n' | head -c $((40 * 784)) | npy x.npy '|u1' '40, 1, 28, 28'
for ((i = 0; i < 40; i++)); do printf "\\x0$((i % 10))"; done | npy y.npy '|u1' '40,'
for script in "$project"/examples/experiments/*.sh; do
    name=$(basename "$script" .sh)
    [ "$name" = update ] && continue
    command="$name.sh x.npy,y.npy --samples 40 --epochs 1 --repeat 1 --quiet"
    sh "$script" x.npy,y.npy --samples 40 --epochs 1 --repeat 1 --quiet >out 2>err || fail "exit code $?"
    says out " on x.npy,y.npy: 40 samples, 1 epoch, seed 1"
    grep -qxF "\$ examples/experiments/$name.sh" "$document" || fail "docs/experiments.md lacks $name"
    # The same rows: the keys' values begin each.
    keys=$(sed -n 's/ *final .*//p' out | wc -w)
    rows() { awk -v keys="$keys" '/ final /{ on = 1; next } on && !NF { exit } on { for (i = 1; i <= keys; i++) printf "%s ", $i; print "" }'; }
    awk -v begin="\$ examples/experiments/$name.sh" '$0 == begin { on = 1 } /^```$/ { on = 0 } on' "$document" | rows >told
    rows <out >ran
    same told ran
done
finish
