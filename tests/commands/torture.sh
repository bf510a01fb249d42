# Want of memory in the command: its allocations fail one after the other, alone or with all after it. It ends with an
# error and a sentence, or with the files that it always writes; never by a signal, and what was there stands. A second
# argument is how many allocations of each command are tried, of each kind ("all": all of them).
source "$(dirname "$0")/testing.bash"
preload=$(dirname "$evenkeel")/tests/libtorture_preload.so
[ -e "$preload" ] || exit 77 # sanitizers have a malloc of their own
some=${2:-8}
small_net >small.net
data=(--data synthetic:20 --threads 2)
train=(train small.net "${data[@]}" --samples 100 --epochs 2 --batch 20 --quiet)
exits 0 "${train[@]}" --out model.safetensors --checkpoint whole.checkpoint
exits 0 convert model.safetensors --out model.onnx
exits 0 "${train[@]}" --epochs 1 --out first.safetensors --checkpoint first.checkpoint
inputs=(small.net model.safetensors model.onnx first.checkpoint)
sha256sum "${inputs[@]}" >inputs
rounds=0

# tortured OUTPUT ARGUMENTS...: the file OUTPUT (-: none) is the same as without torture wherever the command says that
# all went well.
tortured() {
    local output=$1 count at each code
    shift
    rm -rf out.*
    command="evenkeel $*"
    TORTURE_COUNT=count LD_PRELOAD=$preload "$evenkeel" "$@" >out 2>err
    local well=$? # an audit that finds something ends with 1
    [ -s err ] && fail "it says something"
    [ $output = - ] || mv $output expected
    count=$(cat count)
    [ "$count" -gt 20 ] || fail "only $count allocations"
    each=$(($some == 0 || count <= some ? 1 : count / some))
    for kind in alone on; do
        for ((at = 1 + RANDOM % each; at <= count; at += each)); do
            rm -rf out.*
            cp first.checkpoint out.checkpoint
            command="evenkeel $* (allocation $at fails, $kind)"
            kind_variable=TORTURE_ALONE
            [ $kind = on ] && kind_variable=TORTURE_ON
            env $kind_variable=1 TORTURE_AT=$at LD_PRELOAD="$preload" "$evenkeel" "$@" >out 2>err
            code=$?
            rounds=$((rounds + 1))
            for left in *.unfinished*; do
                [ ! -e "$left" ] || fail "$left is left"
            done
            rm -f ./*.lock # of runs that ended at once; they are in nobody's way
            sha256sum --quiet -c inputs >&2 || fail "a file was changed"
            [ "$failures" -lt 5 ] || finish
            if [ $code = $well ] && [ $output != - ] && cmp -s $output expected; then
                continue
            elif [ $code = 0 ]; then
                [ $output = - ] || fail "it says that all went well, and $output is another"
            elif [ $code = 1 ] || [ $code = 2 ]; then
                [ -s err ] || fail "it fails without a word"
            else
                fail "exit code $code"
            fi
        done
    done
}

[ "$some" = all ] && some=0
tortured out.safetensors "${train[@]}" --resume first.checkpoint --checkpoint out.checkpoint --checkpoint-steps 2 \
    --log out.jsonl --report out.html --tensorboard out.events --json --out out.safetensors
tortured - eval model.safetensors "${data[@]}" --json
tortured out summary model.onnx
tortured out audit model.safetensors "${data[@]}" --samples 100 --json
tortured out.safetensors recalibrate model.safetensors "${data[@]}" --quiet --out out.safetensors
tortured out.safetensors convert model.onnx --out out.safetensors
tortured out.onnx convert model.safetensors --out out.onnx
tortured out.c convert model.safetensors --out out.c
tortured out.safetensors fold model.safetensors --quiet --out out.safetensors
echo "$rounds rounds"
finish
