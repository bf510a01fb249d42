# A trained net as C source: its classes are the net's, its self-test passes, and what it says is so.
source "$(dirname "$0")/testing.bash"

flags="-std=c99 -O1 -Wall -Wextra -Wpedantic -Werror"
small_net >small.net
exits 0 train small.net --data synthetic:20 --epochs 2 --quiet --out small.safetensors

exits 0 convert small.safetensors --out net.c
says out "int net_predict(const float *in, float *out)"
command="cc net.c net_test.c"
cc $flags -o net_test net.c net_test.c -lm && ./net_test >out || fail "the self-test"
says out passed

exits 0 convert small.safetensors --out eight.c --name tiny --int8 --data synthetic:20
says out "the same class"
command="cc eight.c eight_test.c"
cc $flags -o eight_test eight.c eight_test.c -lm && ./eight_test >out || fail "the self-test of eight bits"
says out "largest difference 0,"
grep -q "int tiny_run" eight.h || fail "no tiny_run"

# Refused, with nothing written.
printf 'input 3x4x4\nln: layernorm\n' >ln.net
exits 1 convert ln.net --out ln.c --int8 --data synthetic:3x4x4
says err "layernorm ln"
exits 1 convert small.safetensors --out ln.c --int8 --data synthetic:30
says err "20"
[ -e ln.c ] || [ -e ln.h ] || [ -e ln_test.c ] && fail "a file was left"

finish
