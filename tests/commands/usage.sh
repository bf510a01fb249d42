# Wrong usage: exit 2, one sentence that says what was expected, and the nearest name where one is meant.
source "$(dirname "$0")/testing.bash"

wrong() { # TEXT ARGUMENTS
    local text=$1
    shift
    exits 2 "$@"
    silent out
    says err "evenkeel: $text"
    says err "See: evenkeel help"
}

wrong "a command is missing"
wrong "unknown command 'trian'; did you mean 'train'?" trian lenet-bn
wrong "unknown command '--verison'; did you mean '--version'?" --verison
wrong "unknown command 'xyzzy'" xyzzy
wrong "unknown command 'evla'; did you mean 'eval'?" help evla

wrong "NET is missing: evenkeel train NET --data DATA --out MODEL" train
wrong "--data DATA is missing" train lenet-bn --out m.safetensors
wrong "nothing would be kept: give --out MODEL" train lenet-bn --data synthetic
wrong "unexpected argument 'more'" summary lenet-bn more
wrong "--input x.npy is missing" run m.safetensors
wrong "FILE is missing" predict m.safetensors

train=(train lenet-bn --data synthetic --out m.safetensors)
wrong "unknown option '--eppochs'; did you mean '--epochs'?" "${train[@]}" --eppochs 3
wrong "unknown option '--check'; did you mean '--checkpoint'?" "${train[@]}" --check=a
wrong "train has no option '--frobnicate'" "${train[@]}" --frobnicate
wrong "train has no option '-e'" "${train[@]}" -e 3
wrong "--epochs expects a whole number from 1 to 1000000, not '0'" "${train[@]}" --epochs 0
wrong "--epochs expects a whole number from 1 to 1000000, not '3.5'" "${train[@]}" --epochs=3.5
wrong "--seed expects a whole number of at least 0, not '99999999999999999999'" "${train[@]}" --seed 99999999999999999999
wrong "--lr expects a number above 0, not '-1'" "${train[@]}" --lr -1
wrong "--lr expects a number above 0, not 'nan'" "${train[@]}" --lr nan
wrong "--lr needs a value: --lr RATE" "${train[@]}" --lr
wrong "--lr needs a value: --lr RATE" "${train[@]}" --lr --quiet
wrong "--valid expects a number from 0 to 0.9, not '1'" "${train[@]}" --valid 1
wrong "--optimizer expects one of sgd|adam|adamw, not 'sdg'" "${train[@]}" --optimizer sdg
wrong "--log expects a name, not ''" "${train[@]}" --log=
wrong "--json takes no value, but '1' was given" "${train[@]}" --json=1

wrong "--momentum and --nesterov belong to --optimizer sgd" "${train[@]}" --optimizer adam --momentum 0.9
wrong "--nesterov needs --momentum" "${train[@]}" --nesterov
wrong "--step-epochs and --lr-decay belong to --schedule step" "${train[@]}" --lr-decay 0.5
wrong "--checkpoint-steps needs --checkpoint FILE" "${train[@]}" --checkpoint-steps 5
wrong "--out and --checkpoint must be two files" "${train[@]}" --checkpoint m.safetensors
wrong "--log needs a file of its own" "${train[@]}" --log m.safetensors

[ "$(ls)" = "err
out" ] || fail "wrong usage left files behind: $(ls)"
# A word for --init that is nearly one of its words is not taken for a file.
exits 2 train lenet-bn --data synthetic --out m.safetensors --init kaming
says err "did you mean 'kaiming'?"

finish
