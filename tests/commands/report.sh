# The report of a training run: what it holds, and that it cannot do harm. tests/commands/browser.sh looks at it.
source "$(dirname "$0")/testing.bash"
small_net >small.net
train=(train small.net --data synthetic:20 --epochs 2 --batch 256)

exits 0 "${train[@]}" --out plain.safetensors
exits 0 "${train[@]}" --out a.safetensors --report a.html --valid 0.25
says out "report: a.html"
for text in "<title>small.net on synthetic:20</title>" "522 parameters, input 20. sgd, learning rate 0.1, batch 256, seed 1." \
    "48 steps over 6,000 samples, 2 epochs." '"name":"train"' '"name":"valid"' '"name":"test"' \
    "bn1: inputs, before normalization" "bn1: outputs, after it" "bn1: gamma, the scale" "bn1: beta, the shift" \
    "bn1: running mean against the batch&#39;s" "bn1: running variance against the batch&#39;s" "how far gamma and beta moved"; do
    grep -qF -- "$text" a.html || fail "the report does not say: $text"
done
grep -qE "(src|href)=\"[^#d]" a.html && fail "the report asks for something outside it"
exits 0 "${train[@]}" --out b.safetensors --report b.html --json --quiet
says out '"report":"b.html"'
same plain.safetensors b.safetensors

# A net without batch normalization has the curves of its run.
printf 'input 20\nlinear 10\n' >plain.net
exits 0 train plain.net --data synthetic:20 --epochs 1 --out c.safetensors --report c.html
grep -qF "This net has none." c.html || fail "the report does not say that there is no BN"
grep -qF '"title">Loss<' c.html || fail "there is no loss"

# The reference engine has one too.
EVENKEEL_ISA=reference exits 0 train small.net --data synthetic:20 --epochs 1 --out r.safetensors --report r.html
grep -qF "bn1: outputs, after it" r.html || fail "the reference saw no BN"

# Found before training, by name or by trying.
exits 1 "${train[@]}" --out d.safetensors --report nowhere/d.html
says err "cannot write nowhere/d.html: No such file or directory"
exits 1 "${train[@]}" --out d.safetensors --report .
says err "cannot write .: it is a folder"
exits 2 "${train[@]}" --out d.safetensors --report d.safetensors
says err "--report needs a file of its own"
exits 2 "${train[@]}" --out d.safetensors --report d.html --log ./d.html
says err "--log needs a file of its own"
exits 2 "${train[@]}" --out d.safetensors --reprot d.html
says err "did you mean '--report'?"
[ -e d.safetensors ] && fail "it trained without its report"

# A disk that is full when all is done: the model is there, the old report too.
echo old >full.html
command="evenkeel ${train[*]} (full disk)"
(
    trap '' XFSZ
    ulimit -f 16
    "$evenkeel" "${train[@]}" --out e.safetensors --report full.html >out 2>err
)
[ $? = 1 ] || fail "a full disk was not reported by the exit code"
says err "evenkeel: cannot write"
same e.safetensors plain.safetensors
[ "$(cat full.html)" = old ] || fail "the old report is lost"

# Steps that were skipped are counted.
exits 0 train small.net --data synthetic:20 --epochs 1 --lr 1e38 --out f.safetensors --report f.html
grep -qF "Steps that changed nothing" f.html || fail "the report does not say that steps were skipped"
finish
