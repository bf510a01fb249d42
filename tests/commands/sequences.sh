# Sequences of unequal lengths: trained, measured and run from files.
source "$(dirname "$0")/testing.bash"

# bytes COUNT SEED: the same ones each time.
bytes() { awk -v n="$1" -v s="$2" 'BEGIN { for (i = 0; i < n; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%c", 33 + int(s / 65536) % 90 } }'; }
# numbers N...: as bytes
numbers() { for n in "$@"; do printf '%b' "\\x$(printf %x "$n")"; done; }

cat >seq.net <<'END'
input 2x10
c:  conv1d 4 kernel=3 padding=1
n:  batchnorm
    relu
    maxpool 2
    globalavgpool
    flatten
l:  linear 3
END
bytes 240 1 | npy x.npy '|u1' '12, 2, 10'
numbers 0 1 2 0 1 2 0 1 2 0 1 2 | npy y.npy '|u1' '12,'
numbers 10 1 5 7 2 10 3 4 9 6 8 1 | npy lengths.npy '|u1' '12,'

exits 0 summary seq.net
says out "4x10"
exits 0 train seq.net --data x.npy,y.npy,lengths.npy --epochs 2 --batch 4 --out m.safetensors
exits 0 eval m.safetensors --data x.npy,y.npy,lengths.npy --json
says out '"count":12'
mkdir data
for part in train test; do
    for kind in x y lengths; do cp "$kind.npy" "data/${part}_$kind.npy"; done
done
exits 0 train seq.net --data data --epochs 2 --batch 4 --out n.safetensors
same_tensors m.safetensors n.safetensors

# What stands beyond a length does not matter; that it is beyond does.
exits 0 run m.safetensors --input x.npy --lengths lengths.npy --output a.npy
{ head -c 149 x.npy; printf '!!!!'; tail -c +154 x.npy; } >padding.npy # positions 1 and on of sample 1, whose length is 1
cmp -s x.npy padding.npy && fail "the padding was not changed"
exits 0 run m.safetensors --input padding.npy --lengths lengths.npy --output b.npy
same a.npy b.npy
exits 0 run m.safetensors --input x.npy --output whole.npy
cmp -s a.npy whole.npy && fail "the lengths change nothing"
exits 0 predict m.safetensors x.npy --lengths lengths.npy --index 1 --json
cp out with
exits 0 predict m.safetensors x.npy --index 1 --json
cmp -s out with && fail "predict does not look at the lengths"

zeros() { head -c "$1" /dev/zero; }
{ zeros 8; printf '\x00\x00\xc0\x7f%.0s' {1..8}; zeros 8; printf '\x00\x00\xc0\x7f%.0s' {1..8}; } | npy nan.npy '<f4' '1, 2, 10'
zeros 80 | npy zeros.npy '<f4' '1, 2, 10'
numbers 2 | npy two.npy '|u1' '1,'
exits 0 predict m.safetensors zeros.npy --lengths two.npy
cp out with
exits 0 predict m.safetensors nan.npy --lengths two.npy
same out with
exits 1 predict m.safetensors nan.npy
says err "nan.npy: item 0 holds a value that is not finite"

# The statistics that recalibrate measures are of the living positions alone.
exits 0 recalibrate m.safetensors --data x.npy,y.npy,lengths.npy --out r.safetensors
exits 0 run r.safetensors --input x.npy --lengths lengths.npy --output a.npy
exits 0 recalibrate m.safetensors --data padding.npy,y.npy,lengths.npy --out r2.safetensors
exits 0 run r2.safetensors --input x.npy --lengths lengths.npy --output b.npy
same a.npy b.npy

# Refusals, before anything is written.
exits 1 run m.safetensors --input x.npy --lengths y.npy --output none.npy
says err "y.npy: the length of sequence 0 is not a whole number from 1 to 10"
numbers 1 2 | npy two.npy '|u1' '2,'
exits 1 run m.safetensors --input x.npy --lengths two.npy --output none.npy
says err "two.npy has 2 lengths, but there are 12 sequences"
exits 1 predict m.safetensors x.npy --lengths two.npy
says err "two.npy has 2 lengths"
exits 1 train seq.net --data x.npy,y.npy,two.npy --epochs 1 --out none.safetensors
says err "two.npy has 2 lengths"
small_net >small.net
bytes 40 1 | npy features.npy '|u1' '2, 20'
exits 1 run small.net --input features.npy --lengths two.npy --output none.npy
says err "--lengths is for sequences, and small.net takes samples of 20, not CxL"
exits 1 predict small.net features.npy --lengths two.npy
says err "lengths are for sequences, and items are 20 here, not CxL"
# A sequence of one position is one value a channel: found before the first step, wherever it stands.
exits 1 train seq.net --data x.npy,y.npy,lengths.npy --epochs 1 --batch 1 --out none.safetensors
says err "n has one value a channel in this batch"
silent out
sed 's/batchnorm/batchnorm ghost=1/' seq.net >ghost.net
exits 1 train ghost.net --data x.npy,y.npy,lengths.npy --epochs 1 --batch 4 --out none.safetensors
says err "n has one value a channel in the ghost batch"
silent out
printf 'input 20\nlinear 3\n' >flat.net
exits 1 train flat.net --data x.npy,y.npy,lengths.npy --epochs 1 --out none.safetensors
says err "items are 2x10, sequences with lengths, the net's input is 20"
# docs/sequences.md shows what its example prints.
command="examples/sequences"
EVENKEEL_ISA=baseline "${evenkeel%/*}/examples/sequences" >out 2>err || fail "the example fails"
sed -n '/^\$ build.release.examples.sequences/,/^```$/p' "$project/docs/sequences.md" | sed '1d;$d' | prints
[ -e none.npy ] || [ -e none.safetensors ] && fail "something was written"
finish
