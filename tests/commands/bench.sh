# The times of a net's layers, and what they are held against.
source "$(dirname "$0")/testing.bash"

small_net >small.net
exits 0 bench small.net --seconds 0.1 --batch 32
silent err
says out "small.net, batch 32, sgd, "
for word in "label " "fwd ms" "fc1 " "batchnorm" "for loss and update" "training " "inference " " us" "BN tax " \
    "without its 1 batchnorm layer a step" "memory " "floors "; do
    says out "$word"
done

# json KEY: a number of the answer; above FIRST SECOND: the first is the larger
json() { sed "s/.*\"$1\":\([-0-9.e]*\)[,}].*/\1/" out; }
above() { awk "BEGIN { exit !($1 > $2) }"; }

exits 0 bench small.net --seconds 0.1 --batch 32 --optimizer adam --threads 1 --json
says out '"net":"small.net","batch":32,"optimizer":"adam","threads":1,'
[ "$(grep -o '"label":' out | wc -l)" = 5 ] || fail "not five layers"
for key in step_seconds training_images_per_second inference_seconds inference_images_per_second one_image_seconds \
    step_without_bn_seconds bn_tax memory_planned memory_peak fma_flops read_bytes_per_second copy_bytes_per_second; do
    above "$(json $key)" 0 || fail "$key is $(json $key)"
done

# 20x10 multiply-adds of 32 samples, forward and for the gradient of the weights, not for that of the data. Forward
# brings in 32x20 numbers and gives 32x10, backward takes in both again; 210 parameters are moved three times.
printf 'input 20\nfc: linear 10\n' >one.net
exits 0 bench one.net --seconds 0.05 --batch 32 --json
grep -qE '"label":"fc","op":"linear",[^}]*"flops":25600.0,"bytes":10200.0,' out || fail "the work of a linear layer"
grep -q bn_tax out && fail "a tax without BN"

exits 0 bench --seconds 0.01 --batch 16
says out "lenet-bn, batch 16, sgd, "

# The widest net's table fits a terminal of 100 columns.
exits 0 bench resnet20 --seconds 0.01 --batch 2
awk 'length > 100 { exit 1 }' out || fail "a line is longer than 100 columns"
says out "layer2.0.shortcut.1"
says out "without its 21 batchnorm layers"

# A net that cannot be trained is timed as it runs.
printf 'input 20\nlinear 3\nsoftmax\n' >soft.net
exits 0 bench soft.net --seconds 0.05
says out "soft.net, batch 128, inference, "
grep -qE "^training|BN tax|update" out && fail "training was measured"
exits 0 bench soft.net --seconds 0.05 --json
says out '"optimizer":null,'

# The net without BN, as a net text that can be used.
exits 0 bench small.net --without-bn
prints <<'END'
input  20
fc1:   linear 16
       relu
fc2:   linear 10
END
exits 0 bench resnet20 --without-bn
cp out plain.net
grep -q batchnorm plain.net && fail "a batchnorm is left"
exits 0 summary plain.net
exits 0 bench small.net --without-bn --json
says out '{"text":"input  20\nfc1:'

exits 0 bench --floors --threads 1
says out "GFLOP/s; in 256.0 MiB: read"
exits 0 bench --floors --threads 1 --json
says out '{"threads":1,"bytes":268435456,"fma_flops":'

exits 1 bench no-such-net
exits 2 bench --floors --without-bn
exits 2 bench small.net --seconds 0
exits 1 bench small.net --batch 1
says err "one value has no variance"
EVENKEEL_ISA=reference exits 1 bench small.net
says err "no times of layers"
finish
