# Every command on an ONNX model, as on a model of our own.
source "$(dirname "$0")/testing.bash"
small_net >small.net
exits 0 train small.net --data synthetic:20 --epochs 2 --quiet --out model.safetensors
exits 0 convert model.safetensors --out model.onnx
head -c 160 /dev/urandom | npy x.npy '|u1' '8, 20'

exits 0 summary model.onnx
says out "ONNX, opset 17"
exits 0 inspect model.onnx
says out "running_var"
exits 0 run model.safetensors --input x.npy --output wanted.npy
exits 0 run model.onnx --input x.npy --output got.npy
same wanted.npy got.npy
exits 0 eval model.safetensors --data synthetic:20 --json
accuracy=$(grep -o '"accuracy":[0-9.]*' out)
exits 0 eval model.onnx --data synthetic:20 --json
says out "$accuracy"
exits 0 predict model.onnx x.npy --index 0
exits 0 audit model.onnx --data synthetic:20 --samples 500
says out "running statistics"
exits 0 audit model.onnx --json
says out '"count-zero"'
exits 0 recalibrate model.onnx --data synthetic:20 --quiet --out mended.onnx
exits 0 recalibrate model.onnx --data synthetic:20 --fast --quiet --out mended.safetensors
exits 0 fold model.onnx --quiet --out folded.onnx
exits 0 train model.onnx --data synthetic:20 --epochs 1 --quiet --out tuned.safetensors
exits 0 compare model.onnx --data synthetic:20 --vary norm=batch,none --epochs 1
exits 0 bench model.onnx --batch 16
exits 0 train small.net --data synthetic:20 --epochs 2 --quiet --out trained.onnx
exits 0 run trained.onnx --input x.npy --output got.npy
same wanted.npy got.npy
exits 2 train small.net --data synthetic:20 --out trained.c
cp model.onnx unnamed
exits 0 audit unnamed
exits 1 train small.net --init model.onnx --data synthetic:20 --out none.safetensors
says err "model.onnx is an ONNX model, which brings a net of its own: use it as the net, as in evenkeel train model.onnx"
[ -e none.safetensors ] && fail "something was written"

# Exported in training mode: the audit says so, and its command mends it.
sed 's/batchnorm/batchnorm track=false/' small.net >batch.net
exits 0 train batch.net --data synthetic:20 --epochs 1 --quiet --out batch.safetensors
exits 0 convert batch.safetensors --out batch.onnx
exits 1 audit batch.onnx
says out "evenkeel convert batch.onnx --bn inference --out mended.safetensors"
exits 0 convert batch.onnx --bn inference --out mended.safetensors
exits 0 convert mended.safetensors --out mended.net
if grep -q "track=false" mended.net; then fail "--bn inference left the batch's statistics"; fi

# One that ends in Softmax is trained on from what goes into that; its notes name it.
{ small_net; echo softmax; } >classifier.net
exits 0 convert classifier.net --out classifier.onnx
exits 1 train classifier.onnx --data synthetic:20 --out none.safetensors
says err "convert --output NAME"
exits 0 summary classifier.onnx
name=$(sed -n 's/.*convert --output \([^ ]*\) ends before it.*/\1/p' out)
[ -n "$name" ] || fail "no note names what goes into Softmax"
exits 0 convert classifier.onnx --output "$name" --out logits.safetensors
exits 0 train logits.safetensors --data synthetic:20 --epochs 1 --quiet --out tuned.safetensors
exits 0 inspect tuned.safetensors
exits 1 convert classifier.onnx --output elsewhere --out none.safetensors
says err "it has no output 'elsewhere', and no node gives it; its outputs are output"
finish
