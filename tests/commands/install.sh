#!/bin/bash
# Installs into a temporary folder and builds a consumer against it, once through the CMake package and
# once through pkg-config.
set -euo pipefail
build=$1
consumer=$(cd "$(dirname "${BASH_SOURCE[0]}")/../consumer" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/installed" >/dev/null
# Moved after installing, so that no path of the installation is baked in.
mv "$work/installed" "$work/prefix"
cd "$work"

prefix/bin/evenkeel --version

cmake -G Ninja -S "$consumer" -B cmake-build -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DCMAKE_C_FLAGS="-std=c11 -Wall -Wextra -Wpedantic -Werror" >/dev/null
cmake --build cmake-build >/dev/null
cmake-build/consumer

package=$(dirname "$(find prefix -name evenkeel.pc)")
flags=$(PKG_CONFIG_PATH=$package pkg-config --cflags --libs evenkeel)
# shellcheck disable=SC2086 # the flags are words
cc -std=c11 -Wall -Wextra -Wpedantic -Werror -o pkg-config-consumer "$consumer/main.c" $flags
./pkg-config-consumer

# What the build was checked with must not become its users' flags.
if grep -rnE -e '-Wall|-Werror|-fsanitize|_GNU_SOURCE|evenkeel_flags' prefix/lib*/cmake "$package"; then
    echo "install.sh: build flags leak into the installed package" >&2
    exit 1
fi
