#!/bin/bash
# Makes the Debian packages, has them checked by lintian, unpacks them and builds a consumer against what is in them.
set -euo pipefail
build=$(cd "$1" && pwd)
consumer=$(cd "$(dirname "${BASH_SOURCE[0]}")/../consumer" && pwd)
fail() { echo "packages.sh: $*" >&2; exit 1; }
for tool in dpkg-deb dpkg-shlibdeps strip; do
    command -v $tool >/dev/null || { echo "packages.sh: skipped, there is no $tool" >&2; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && cpack --config "$build/CPackConfig.cmake" -G DEB -B "$work/made" >log 2>&1) || { cat "$work/log" >&2; exit 1; }
command=$(echo "$work"/made/evenkeel_*.deb) library=$(echo "$work"/made/libevenkeel-dev_*.deb)
[ -f "$command" ] && [ -f "$library" ] || fail "there are no two packages: $(ls "$work/made")"

field() { dpkg-deb -f "$1" "$2"; }
depends=$(field "$command" Depends)
for package in libc6 libjansson4 zlib1g; do
    [[ $depends == *$package* ]] || fail "the command does not depend on $package: $depends"
done
[[ $depends != *-dev* ]] || fail "the command depends on what programs are built with: $depends"
[[ $(field "$library" Depends) == *libjansson-dev* ]] || fail "the library does not depend on libjansson-dev"
# The maintainer's address is whose packages they become: DEBEMAIL, when the build is configured.
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error \
        --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$command" "$library" || fail "lintian objects"
fi

dpkg-deb -x "$command" "$work/root"
dpkg-deb -x "$library" "$work/root"
"$work/root/usr/bin/evenkeel" summary lenet-bn >/dev/null
package=$(dirname "$(find "$work/root" -name evenkeel.pc)")
# shellcheck disable=SC2046 # the flags are words
cc -o "$work/program" "$consumer/main.c" $(PKG_CONFIG_PATH=$package pkg-config --cflags --libs evenkeel)
(cd "$work" && ./program)
