# Data larger than memory: a set of 20 GB under a limit of 1 GB, files that change on the way, folders of images.
source "$(dirname "$0")/testing.bash" "$@"

# idx FILE COUNT RANK...: the header of a u8 IDX file
idx() {
    local file=$1 dim
    shift
    printf '\0\0\x08'"\\x$(printf %02x $#)" >"$file"
    for dim; do
        printf "\\x$(printf %02x $((dim >> 24)))\\x$(printf %02x $((dim >> 16 & 255)))"
        printf "\\x$(printf %02x $((dim >> 8 & 255)))\\x$(printf %02x $((dim & 255)))"
    done >>"$file"
}

cat >small.net <<'END'
input 3x64x64
maxpool 16
flatten
fc1: linear 4
bn1: batchnorm
     relu
fc2: linear 4
END

# 1,700,000 images of 12,288 bytes; the file system keeps no room for zeros.
idx big-x 1700000 3 64 64
idx big-y 1700000
if truncate -s $((20 + 1700000 * 12288)) big-x 2>/dev/null; then
    truncate -s $((8 + 1700000)) big-y
    train=(train small.net --data big-x,big-y --samples 256 --batch 32 --epochs 2 --threads 2 --out big.safetensors)
    limit=1000000
    # Sanitizers map terabytes for themselves; what is read is bounded all the same.
    (ulimit -v $limit && "$evenkeel" summary lenet-bn >/dev/null 2>&1) || limit=unlimited
    command="evenkeel ${train[*]}, under a limit of $limit KB"
    watch=()
    [ -x /usr/bin/time ] && watch=(/usr/bin/time -o peak -f %M)
    (ulimit -v $limit && "${watch[@]}" "$evenkeel" "${train[@]}" >out 2>err) || fail "20 GB did not train"
    says out "256 to train on"
    [ ! -s peak ] || echo "20 GB: at most $(cat peak) KB of memory"
    # Cut short between two runs: the header no longer fits.
    truncate -s 1000000000 big-x
    exits 1 "${train[@]}"
    says err "big-x"
    says err "cut short"
    rm -f big-x big-y
fi

# The same model from memory and from the file, which is cut short in a third run: its checkpoint stays.
idx x 600 3 64 64
idx y 600
yes 'some bytes that make up images' | head -c $((600 * 12288)) >>x
printf '\0\1\2\3%.0s' $(seq 150) >>y
common=(train small.net --data x,y --batch 50 --epochs 2 --valid 0.1)
exits 0 "${common[@]}" --out kept.safetensors --checkpoint kept
export EVENKEEL_DATA_MEMORY=0
exits 0 "${common[@]}" --out read.safetensors --checkpoint read
same kept.safetensors read.safetensors
exits 0 "${common[@]}" --threads 1 --accumulate 2 --batch 25 --out read.safetensors
EVENKEEL_DATA_MEMORY=1G exits 0 "${common[@]}" --threads 2 --accumulate 2 --batch 25 --out kept.safetensors
same kept.safetensors read.safetensors
exits 0 eval read.safetensors --data x,y
exits 0 recalibrate read.safetensors --data x,y --out recalibrated.safetensors
exits 0 audit read.safetensors --data x,y
EVENKEEL_DATA_MEMORY=lots exits 1 eval read.safetensors --data x,y
says err "EVENKEEL_DATA_MEMORY is 'lots'"

# A table.
for i in $(seq 400); do echo "$i,$((i * 7 % 31)),$((i % 3))"; done >t.csv
printf 'input 2\nlinear 8\nbatchnorm\nrelu\nlinear 3\n' >t.net
exits 0 train t.net --data t.csv --epochs 2 --out read.safetensors
EVENKEEL_DATA_MEMORY=1M exits 0 train t.net --data t.csv --epochs 2 --out kept.safetensors
same kept.safetensors read.safetensors
gzip -k t.csv
exits 1 train t.net --data t.csv.gz --epochs 2 --out read.safetensors
says err "unpack it with gunzip"

# A folder of images: 1x1 PNGs, black and white.
png() { printf '\x89PNG\r\n\x1a\n%b'"$1"'%b' '\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00\x3a\x7e\x9b\x55' '\0\0\0\0IEND\xae\x42\x60\x82'; }
black='\x00\x00\x00\x0a\x49\x44\x41\x54\x78\x9c\x63\x60\x00\x00\x00\x02\x00\x01\x48\xaf\xa4\x71' white='\x00\x00\x00\x0a\x49\x44\x41\x54\x78\x9c\x63\xf8\x0f\x00\x01\x01\x01\x00\xb1\x38\xf6\x14' # their IDAT chunks
mkdir -p images/black images/white
for i in $(seq 20); do
    png "$black" >"images/black/$i.png"
    png "$white" >"images/white/$i.png"
done
printf 'input 1x1x1\nflatten\nlinear 4\nbatchnorm\nrelu\nlinear 2\n' >one.net
exits 0 train one.net --data images --epochs 20 --batch 10 --out one.safetensors
if ! grep -q "no PNG support" err; then
    exits 0 predict one.safetensors images/white/1.png
    says out white
    exits 0 eval one.safetensors --data images
    # One that cannot be read stops it: one line, with its name, and nothing from a library.
    head -c 50 images/white/7.png >cut
    mv cut images/white/7.png
    exits 1 eval one.safetensors --data images
    says err "images/white/7.png"
    [ "$(wc -l <err)" = 1 ] || fail "more than one line of complaint"
    rm images/white/*
    exits 1 eval one.safetensors --data images
    says err "images/white has no images"
fi
finish
