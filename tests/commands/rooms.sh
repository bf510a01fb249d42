# Dependencies point one way: no source includes a header of a room above its own (docs/design.md), and the
# command sees the public header alone.
source "$(dirname "$0")/testing.bash"

rooms=(core comm kernels norm ops graph ccode onnx formats data train lab) # from the lowest up
command="includes of the rooms"
cd "$project" || exit 1
for ((i = 0; i < ${#rooms[@]}; i++)); do
    [ -d "src/${rooms[i]}" ] || fail "there is no room src/${rooms[i]}"
    for room in "${rooms[@]:i+1}"; do
        upward=$(grep -rn "^#include \"$room/" "src/${rooms[i]}") && fail "upward: $upward"
    done
done
[ "$(find src -mindepth 1 -maxdepth 1 -type d | wc -l)" = ${#rooms[@]} ] || fail "a room is not in the list"
inside=$(grep -nE '^#include "[a-z]+/' cli/*) && fail "the command looks inside: $inside"

finish
