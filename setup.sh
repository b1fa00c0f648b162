#!/usr/bin/env bash
# setup.sh - every package inferd needs from Debian or Ubuntu, in this one place.
#
#   ./setup.sh [GROUP...]    installs what is missing of these groups (default: build)
#   ./setup.sh --list GROUP  prints a group's packages
#
# Calls apt-get only when something is missing, as root or through sudo. "a|b" means whichever of
# the two this release has; the names are those of Debian 12 and 13, Ubuntu 22.04 and 24.04.
set -euo pipefail

packages() {
    case $1 in
    build) # compiler and the libraries' headers
        echo gcc g++ make libc6-dev libmicrohttpd-dev libjansson-dev libsentencepiece-dev \
            'libcurl4-openssl-dev|libcurl4-gnutls-dev' libssl-dev libpcre2-dev libutf8proc-dev \
            libxxhash-dev libcmocka-dev
        ;;
    runtime) # what a finished binary loads
        echo libstdc++6 'libmicrohttpd12t64|libmicrohttpd12' libjansson4 libsentencepiece0 \
            'libcurl4t64|libcurl4' 'libssl3t64|libssl3' ca-certificates libpcre2-8-0 \
            'libutf8proc3|libutf8proc2'
        ;;
    test) echo curl ca-certificates procps ;;
    python) echo python3 python3-venv ;;
    lint) echo cppcheck clang-tidy shellcheck ;;
    fuzz) echo clang ;;
    *)
        echo "setup.sh: unknown group '$1', it must be build, runtime, test, python, lint or fuzz" >&2
        exit 2
        ;;
    esac
}

# True when one of the alternatives "a|b" is installed.
installed() {
    local name
    for name in ${1//|/ }; do
        if dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed; then
            return 0
        fi
    done
    return 1
}

# Prints the alternative that this release has.
choose() {
    local name
    for name in ${1//|/ }; do
        if [ -n "$(apt-cache show --no-all-versions "$name" 2>/dev/null)" ]; then
            echo "$name"
            return
        fi
    done
    echo "setup.sh: this release has no package ${1//|/ or }" >&2
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        echo "setup.sh: not root, and there is no sudo; as root, run: ./setup.sh ${groups[*]}" >&2
        exit 1
    fi
}

apt() {
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

install_packages() {
    local chosen=() name
    # A mirror in the middle of its own update refuses for some seconds.
    apt update || { sleep 5 && apt update; } ||
        echo "setup.sh: apt-get update failed; trying with the lists that are here" >&2
    for name in "$@"; do
        name=$(choose "$name")
        chosen+=("$name")
    done
    echo "setup.sh: installing ${chosen[*]}"
    apt install -y --no-install-recommends "${chosen[@]}" >/dev/null
}

# A Python that can make virtual environments may come from elsewhere than a package.
python_works() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# The fuzzer's runtime is a package of its own in some releases, named after clang's version.
fuzzer_package() {
    local major
    compgen -G "$(clang -print-resource-dir)/lib/*/libclang_rt.fuzzer*.a" >/dev/null && return
    major=$(clang -dumpversion)
    echo "libclang-rt-${major%%.*}-dev|libclang-common-${major%%.*}-dev"
}

install_missing() {
    local missing=() name
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

if [ "${1:-}" = --list ]; then
    packages "${2:-build}"
    exit
fi
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(build)
wanted=()
for group in "${groups[@]}"; do
    if [ "$group" = python ] && python_works; then
        continue
    fi
    list=$(packages "$group")
    read -ra names <<<"$list"
    wanted+=("${names[@]}")
    if [ "$group" = test ] && ! python_works; then
        list=$(packages python)
        read -ra names <<<"$list"
        wanted+=("${names[@]}")
    fi
done
if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh knows Debian and Ubuntu only. Install what these packages hold: ${wanted[*]}" >&2
    echo "then run make with SETUP=true to skip this step." >&2
    exit 1
fi
install_missing "${wanted[@]}"
for group in "${groups[@]}"; do
    [ "$group" = fuzz ] || continue
    runtime=$(fuzzer_package)
    [ -z "$runtime" ] || install_missing "$runtime"
done
