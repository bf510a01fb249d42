# evenkeel convert: kinds of files, bare weights, and what must not be lost.
source "$(dirname "$0")/testing.bash"
small_net >small.net
exits 0 train small.net --data synthetic:20 --epochs 1 --quiet --out model.safetensors
head -c 160 /dev/urandom | npy x.npy '|u1' '8, 20'
exits 0 run model.safetensors --input x.npy --output wanted.npy

# Every kind of file; the endings say which.
exits 0 convert model.safetensors --out copy.safetensors
says out "model: copy.safetensors"
same model.safetensors copy.safetensors
for file in text.net text.txt; do
    exits 0 convert model.safetensors --out "$file"
    says out "net text: $file"
    exits 0 summary "$file"
done
same text.net text.txt
exits 0 convert model.safetensors --out model.onnx --json
says out '"format":"ONNX model","parameters":522,"notes":[]'
exits 0 convert lenet-bn --out lenet.net
says err "lenet-bn is a net text, so its parameters are random"

# Folded.
exits 0 convert model.safetensors --fold --out folded.onnx
says out "1 of 1 normalizations folded"
exits 0 convert model.safetensors --fold --out folded.safetensors --json
says out '"folded":1,"kept":0'
exits 0 convert folded.safetensors --out folded.net
if grep -q batchnorm folded.net; then fail "the normalization was not folded"; fi
exits 2 convert model.safetensors --fold --out ./model.safetensors
says err "can no longer be trained as before"

exits 2 convert model.safetensors --out model.onxx
says err "model.onxx ends in '.onxx'; did you mean '.onnx'?"
for file in model folder.onnx/model .safetensors/x; do
    exits 2 convert model.safetensors --out "$file"
    says err "must end in what it is to become, one of .safetensors, .onnx"
done
exits 1 convert model.safetensors --out nowhere/copy.safetensors
says err "cannot write nowhere/copy.safetensors"
exits 2 convert model.safetensors
says err "--out FILE is missing"
exits 1 convert model.safetensor --out copy.net
says err "there is no net or file 'model.safetensor'"

# Bare weights: here a whole model serves as such. By labels, and under PyTorch's numbers.
exits 0 convert model.safetensors --net small.net --out own.safetensors
exits 0 run own.safetensors --input x.npy --output got.npy
same wanted.npy got.npy
exits 0 convert model.safetensors --from pytorch --net small.net --out there.safetensors
says out "bn1.running_var"
exits 0 run there.safetensors --input x.npy --output got.npy
same wanted.npy got.npy
sed 's/^....//' small.net >unlabelled.net
sed -i '1s/.*/input 20/' unlabelled.net
exits 0 convert model.safetensors --from onnx --net unlabelled.net --out other.safetensors --json
says out '{"tensor":"linear2.weight","shape":[10,16],"source":"fc2.weight","source_shape":[10,16],"change":""}'
says out 'Further training only: running_var takes the biased variance, as ONNX does (unbiased=false)'
exits 0 run other.safetensors --input x.npy --output got.npy
same wanted.npy got.npy
exits 0 convert other.safetensors --out other.net
grep -q "batchnorm unbiased=false" other.net || fail "ONNX's convention is not in the net"
exits 0 convert model.safetensors --from pytorch --net small.net --eps 0.5 --momentum 0.3 --keep-eps --out kept.safetensors
says out "sqrt((v + eps)/(v + 0.5)) for it"
says out "momentum is 0.3"

# What does not fit is said, and nothing is written.
exits 1 convert model.safetensors --from keras --net small.net --out none.safetensors
says err "model.safetensors: fc1.weight is [16,20], and fc1.weight needs [20,16] in Keras's order"
exits 1 convert model.safetensors --from pytorch --net lenet-bn --out none.safetensors
says err "the file has no layer left that could be net.0 (conv)"
exits 1 convert small.net --from flax --net small.net --out none.safetensors
says err "small.net"
exits 1 convert model.safetensors --from pytorch --net nowhere --out none.safetensors
exits 2 convert model.safetensors --from keras --out none.safetensors
says err "--net says which net they are for"
exits 2 convert model.safetensors --keep-eps --out none.safetensors
says err "the conventions of --from, which is missing"
exits 2 convert model.safetensors --from kears --net small.net --out none.safetensors
says err "did you mean 'keras'?"
exits 2 convert model.safetensors --from keras --net small.net --eps 0 --out none.safetensors
[ -e none.safetensors ] && fail "something was written"

# Nothing that it is made from is lost.
cp model.safetensors bare.safetensors
cp small.net before.net
exits 2 convert bare.safetensors --net small.net --out ./bare.safetensors
says err "would be overwritten"
exits 2 convert bare.safetensors --net small.net --out ./small.net
exits 2 convert small.net --out ./small.net
says err "would be overwritten"
same small.net before.net
same bare.safetensors model.safetensors
exits 0 convert bare.safetensors --out bare.safetensors
same bare.safetensors model.safetensors
finish
