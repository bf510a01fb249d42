# Models whose words are paths, source code, HTML and commands to a terminal: nothing beyond what was named is read or written, and what
# is made of them is what it should be.
source "$(dirname "$0")/testing.bash"

# safetensors FILE HEADER: with the data from stdin behind it.
safetensors() {
    local length=${#2}
    { printf "\\x$(printf %02x $((length % 256)))\\x$(printf %02x $((length / 256)))\0\0\0\0\0\0%s" "$2"; cat; } >"$1"
}

mkdir own outside
echo secret >outside/secret
net='input 2\n../../outside/a: linear 2\n'
safetensors own/label.safetensors "{\"__metadata__\":{\"evenkeel.net\":\"$net\"}}" </dev/null
exits 1 summary own/label.safetensors
says err "'/' cannot be in a label"

# Tensors that are called like files, and metadata that names some.
words='"../outside/a", "*/ #include \"../outside/secret\"", "</script><script>", "%s%n ??/"'
classes=$(sed 's/[\\"]/\\&/g' <<<"$words")
header="{\"__metadata__\":{\"evenkeel.net\":\"input 4\\nx: linear 4 bias=false\\nb: batchnorm\\n\",\"evenkeel.classes\":\"[$classes]\",
 \"checkpoint\":\"../outside/c\",\"evenkeel.train.checkpoint\":\"../outside/c\",\"out\":\"/../outside/c\",\"evenkeel.data\":\"../outside\"},
 \"x.weight\":{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,64]},
 \"b.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[64,80]},\"b.bias\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[80,96]},
 \"b.running_mean\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[96,112]},
 \"b.running_var\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[112,128]}EXTRA}"
zeros() { head -c "$1" /dev/zero; }
zeros 128 | safetensors own/m.safetensors "${header/EXTRA/}"
zeros 132 | safetensors own/extra.safetensors \
    "${header/EXTRA/,\"../outside/\\u001b[2J\\u009b1m\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[128,132]\}}"
printf '1,2,3,4,0\n4,3,2,1,1\n0,1,0,2,2\n1,1,0,2,3\n' >own/d.csv

before=$(ls -lR --full-time outside)
cd own || exit 1
exits 0 summary m.safetensors
exits 0 inspect m.safetensors
exits 1 audit m.safetensors
exits 0 eval m.safetensors --data d.csv
exits 0 train m.safetensors --data d.csv --epochs 1 --batch 2 --out t.safetensors --report t.html --quiet
exits 0 recalibrate t.safetensors --data d.csv --batch 2 --out r.safetensors
exits 0 fold r.safetensors --out f.safetensors
exits 0 convert f.safetensors --out f.onnx
exits 0 convert f.safetensors --out f.c
command="cc"
cc -std=c99 -Wall -Wextra -Wpedantic -Werror -o f f.c f_test.c -lm >out 2>err && ./f >out || fail "the C source"
exits 0 convert f.onnx --out g.safetensors
grep -q "<script><" t.html && fail "a class ends a script"

# What an error repeats of a file does nothing to a terminal.
exits 1 summary extra.safetensors
says err "../outside/"
grep -q "$(printf '[\033\302\233]')" err && fail "control characters reach the terminal"

cd ..
[ "$(ls -lR --full-time outside)" = "$before" ] || fail "something was changed outside"
find . -newer outside/secret -type f ! -path './own/*' ! -name out ! -name err ! -path ./outside/secret | grep . && fail "a file was left elsewhere"

finish
