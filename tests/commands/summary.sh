# Summaries of nets.
source "$(dirname "$0")/testing.bash"

small_net >small.net
exits 0 summary small.net
silent err
sed '/^memory/d' out >stable && mv stable out
prints <<'END'
label  layer      output  parameters     multiply-adds
       input 20       20
fc1    linear 16      16         320  *            320
bn1    batchnorm      16          32
       relu           16
fc2    linear 10      10         170               160

parameters     522, and 32 running statistics
multiply-adds  480 a sample, forward
* its bias is redundant: the normalization that follows subtracts it again, so it is
  neither computed nor trained, and stands as zeros in the model file
END

# Branches are shown as a net text names them.
exits 0 summary resnet20
says out "add layer1.0 "
says out "conv 32 kernel=1 stride=2 bias=false from=layer1.2 "

exits 0 summary lenet-bn
says out "its bias is redundant"
exits 0 summary lenet
grep -q redundant out && fail "lenet has no redundant bias"

exits 0 summary small.net --json --batch 32
says out '"label":"fc1","op":"linear","options":"16","inputs":[0],"output":[16],"parameters":320,"buffers":0,'
says out '],"parameters":522,"buffers":32,"multiply_adds":480,"batch":32,'

# Memory is that of the batch asked for, and training takes more of it.
memory() { # BATCH: bytes to train, bytes to run
    exits 0 summary small.net --json --batch "$1"
    sed 's/.*"memory_training":\([0-9]*\),"memory_inference":\([0-9]*\),.*/\1 \2/' out
}
read -r train32 run32 < <(memory 32)
read -r train64 run64 < <(memory 64)
[ "$train64" -gt "$train32" ] && [ "$run64" -gt "$run32" ] && [ "$train32" -gt "$run32" ] ||
    fail "memory for 32 and 64: $train32 and $train64 to train, $run32 and $run64 to run"
exits 0 summary small.net --batch 64
says out "$(awk "BEGIN { printf \"%.1f KiB to train, %.1f KiB to run, at batch 64\", $train64 / 1024, $run64 / 1024 }")"

exits 1 summary lenet-nb
says err "evenkeel: "
says err "lenet-bn"
exits 1 summary nowhere/no.net
says err "nowhere/no.net"
printf 'input 4\nlinear 0\n' >bad.net
exits 1 summary bad.net
says err "bad.net:2:"

# An answer that cannot be written is a failure.
"$evenkeel" summary lenet-bn >/dev/full 2>err && fail "a full disk for the answer went unnoticed"
says err "cannot write the answer: No space left on device"
finish
