# evenkeel fold: what is folded and what is not is said, the folded model does the same, and nothing is written where it
# does not.
source "$(dirname "$0")/testing.bash"
cat >some.net <<'NET'
input 3x8x8
in:    batchnorm
c1:    conv 6 kernel=3 padding=1 bias=false
b1:    batchnorm
       relu
b2:    batchnorm
       relu
       flatten
b3:    batchnorm
f:     linear 10
NET
exits 0 train some.net --data synthetic:3x8x8 --samples 200 --epochs 1 --out some.safetensors
exits 0 fold some.safetensors --out folded.safetensors --data synthetic:3x8x8
silent err
says out "some.safetensors: 3 of 4 normalizations folded"
grep -qE '^in +c1 +conv +the layer after, with a bias map ' out || fail "'in' is not in c1"
grep -qE '^b1 +c1 +conv +the layer before ' out || fail "'b1' is not in c1"
grep -qE '^b3 +f +linear +the layer after ' out || fail "'b3' is not in f"
says out "b2: it reads a relu, which has no weights, and a relu follows, which has"
for input in "random, 0 to 1" "random, normal" "the data" "in double"; do says out "$input"; done
says out "within the bound of 1.0e-04"
grep -qE '^accuracy +(0\.[0-9]+) +\1$' out || fail "the accuracy has changed"
exits 0 summary folded.safetensors
says out "c1.bias_map"
grep -q "b3" out && fail "b3 is still there"
exits 0 fold some.safetensors --out folded.onnx --json
says out '"folded":3,"kept":1,"bound":0.0001,'
says out '{"label":"in","op":"batchnorm","how":"after-map","into":"c1","error":'
says out '"input":"double","samples":4,'
[ -s folded.onnx ] || fail "there is no ONNX file"

# The same numbers through the files.
head -c 768 /dev/urandom | npy x.npy '|u1' '4, 3, 8, 8'
exits 0 run some.safetensors --input x.npy --output before.npy
exits 0 run folded.safetensors --input x.npy --output after.npy
exits 0 fold some.safetensors --out twice.safetensors --seed 2 --samples 3 --data x.npy --threads 2
says out "the data"
grep -q accuracy out && fail "accuracy without labels"
same folded.safetensors twice.safetensors

# A bound that does not hold: nothing is written.
exits 1 fold some.safetensors --out never.safetensors --bound 1e-12
silent out
says err "the folded net is not the same: on input "
says err "nothing was written"
[ -e never.safetensors ] && fail "a model was written"
cp folded.safetensors kept.safetensors
exits 1 fold some.safetensors --out kept.safetensors --bound 1e-12
same folded.safetensors kept.safetensors

# Wrong calls.
cp some.safetensors before.safetensors
exits 2 fold some.safetensors --out ./some.safetensors
says err "give --out a file of its own"
exits 2 fold some.safetensors --out net.c
says err "a model is a .safetensors or .onnx file, not net.c"
exits 2 fold some.safetensors --out f.safetensors --bound 0
says err "--bound expects a number above 0"
exits 2 fold some.safetensors --out f.safetensors --dta x.npy
says err "did you mean '--data'?"
exits 2 fold some.safetensors
says err "--out MODEL is missing"
exits 1 fold some.safetensors --out no/f.safetensors
says err "cannot write no/f.safetensors"
exits 1 fold some.safetensors --out f.safetensors --data synthetic
says err "items are 1x28x28, the net's input is 3x8x8"
exits 2 fold some.safetensors --out x.npy --data x.npy
says err "the data would be overwritten"
exits 2 fold some.net --out some.net
says err "the net text would be overwritten"
[ -e f.safetensors ] && fail "a model was written"
same some.safetensors before.safetensors

# One pass.
exits 0 recalibrate some.safetensors --data synthetic:3x8x8 --fast --out fast.safetensors --json
says out '"fast":true'
exits 0 recalibrate fast.safetensors --data synthetic:3x8x8 --fast --out fast.onnx
exits 2 recalibrate some.safetensors --data synthetic:3x8x8 --out fast.c
says err "not fast.c"
finish
