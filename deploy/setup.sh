# Sourced by demo.sh and test.sh: makes .venv and installs pacs-node into it, once. Does nothing where all is up to date.
# usage: . deploy/setup.sh; set_up run|test

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

# install_packages NAME…: Debian packages that are not there yet; services that come with them are not started
install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    can_install || { say "not installed (needs root):$missing"; return 1; }
    say "installing system packages:$missing"
    guard=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$guard" ]; then
        made=1
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
    fi
    result=0
    said=$(apt-get update -qq 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing 2>&1) || result=1
    if [ -n "$made" ]; then
        rm -f "$guard"
        trap - EXIT INT TERM
    fi
    [ $result = 0 ] || say "could not install:$missing
$(printf '%s\n' "$said" | tail -n 5)"
    return $result
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return 0; }
    done
    return 1
}

set_up() {
    extras=$1
    python=$(find_python) || {
        install_packages python3 python3-venv || die "Python 3.11 or newer is needed: install the packages python3 and python3-venv, then run this again"
        python=$(find_python) || die "Python 3.11 or newer is needed; this system has $(python3 --version 2>&1)"
    }
    "$python" -c 'import venv, ensurepip' 2>/dev/null || install_packages python3-venv || die "the Python module venv is missing: install the package python3-venv, then run this again"
    wanted="$extras $(cat pyproject.toml | cksum) $("$python" --version)"
    stamp=.venv/.set-up-$extras
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/pacs-node --version >/dev/null 2>&1 && return 0
    [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; "$python" -m venv .venv || die "cannot make .venv in $(pwd): is the folder writable?"; }
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    say "installing PyTorch and pacs-node into .venv (the first time this takes some minutes)"
    .venv/bin/python -m pip install -q 'torch==2.13.0' || die "PyTorch could not be installed: see pip's message above"
    if [ "$extras" = test ]; then target='.[test]'; else target='.'; fi
    .venv/bin/python -m pip install -q -e "$target" || die "pacs-node could not be installed: see pip's message above"
    printf '%s' "$wanted" >"$stamp"
}
