#!/bin/bash
# Installs into a temporary folder and builds consumers in C and C++ against it, once through the CMake package and
# once through pkg-config; looks at the man pages and tries the completion.
set -euo pipefail
build=$1
consumer=$(cd "$(dirname "${BASH_SOURCE[0]}")/../consumer" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "install.sh: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }

cmake --install "$build" --prefix "$work/installed" >/dev/null
# Moved after installing, so that no path of the installation is baked in.
mv "$work/installed" "$work/prefix"
cd "$work"

prefix/bin/evenkeel --version

# --- consumers
strict=(-Wall -Wextra -Wpedantic -Werror)
cmake -G Ninja -S "$consumer" -B cmake-build -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DCMAKE_C_FLAGS="-std=c11 ${strict[*]}" -DCMAKE_CXX_FLAGS="-std=c++11 ${strict[*]}" >/dev/null
cmake --build cmake-build >/dev/null
cmake-build/consumer
[ ! -e cmake-build/consumer_cpp ] || cmake-build/consumer_cpp

package=$(dirname "$(find prefix -name evenkeel.pc)")
flags=$(PKG_CONFIG_PATH=$package pkg-config --cflags --libs evenkeel)
# shellcheck disable=SC2086 # the flags are words
cc -std=c11 "${strict[@]}" -o pkg-config-consumer "$consumer/main.c" $flags
./pkg-config-consumer
if have c++; then
    # shellcheck disable=SC2086
    c++ -std=c++11 "${strict[@]}" -o pkg-config-consumer-cpp "$consumer/main.cpp" $flags
    ./pkg-config-consumer-cpp
fi

# What the build was checked with must not become its users' flags.
if grep -rnE -e '-Wall|-Werror|-fsanitize|_GNU_SOURCE|evenkeel_flags' prefix/lib*/cmake "$package"; then
    fail "build flags leak into the installed package"
fi

# --- man pages: one for each command, without a warning of the typesetter, with every option
mapfile -t commands < <(prefix/bin/evenkeel help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ ${#commands[@]} -gt 9 ] || fail "the help lists ${#commands[@]} commands"
for name in evenkeel "${commands[@]/#/evenkeel-}"; do
    page=$(find prefix/share/man/man1 -name "$name.1" -o -name "$name.1.gz")
    [ -n "$page" ] || fail "there is no man page $name"
    case $page in *.gz) gzip -dc "$page" ;; *) cat "$page" ;; esac >page
    grep -q '^\.SH NAME' page || fail "$name has no name in its man page"
    have groff || continue
    warnings=$(LC_ALL=C.UTF-8 groff -ww -man -Kutf8 -Tutf8 -rLL=78n page 2>&1 >shown)
    [ -z "$warnings" ] || fail "$name.1: $warnings"
    [ "$name" = evenkeel ] && continue
    sed -i 's/.\x08//g; s/\x1b\[[0-9]*m//g' shown # bold and underlined
    for option in $("prefix/bin/evenkeel" help "${name#evenkeel-}" | grep -oE '^  --[a-z-]+'); do
        grep -qF -- "$option" shown || fail "$name.1 lacks $option"
    done
done

# --- completion
cat >complete.bash <<'END'
source prefix/share/bash-completion/completions/evenkeel
try() { # WORDS...: what the last word can become
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _evenkeel
    echo "${COMPREPLY[*]}"
}
try evenkeel rec
try evenkeel help insp
try evenkeel train --optimizer ad
try evenkeel train --optimizer=x --nest
try evenkeel summary lenet-
END
touch lenet-9.net
bash complete.bash >completed
diff - completed <<'END' || fail "the shell completes otherwise (< expected)"
recalibrate
inspect
adam adamw
--nesterov
lenet-9.net lenet-bn
END
have zsh && zsh -n prefix/share/zsh/*/_evenkeel
have fish && fish --no-execute prefix/share/fish/vendor_completions.d/evenkeel.fish
for shell in bash zsh fish; do prefix/bin/evenkeel completion $shell >/dev/null; done
if prefix/bin/evenkeel completion tcsh 2>/dev/null; then fail "there is no completion for tcsh"; fi
exit 0
