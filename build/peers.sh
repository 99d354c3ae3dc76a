#!/usr/bin/env bash
# Measures Astrid beside supervisord and pm2 and writes docs/peers.md. The peers are put into the cache, outside of the tree, in
# fixed versions, and stay there; one that cannot be had is named in the table as such. Run by `make peers`.
# ASTRID_BIN: the binary to measure instead of the one that was built here.
set -euo pipefail

cd "$(dirname "$0")/.."

PEERS=${XDG_CACHE_HOME:-$HOME/.cache}/astrid/peers
SUPERVISOR_VERSION=4.3.0
PM2_VERSION=7.0.4
OUT=docs/peers.md
astrid=${ASTRID_BIN:-target/release/astrid}

options=()

missing() { # name reason
    printf '%s: %s\n' "$1" "$2" >&2
    options+=(--missing "$1: $2")
}

# A folder is whole when it says so: its mark is made last.
need_supervisor() {
    local venv=$PEERS/supervisor-$SUPERVISOR_VERSION
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        mkdir -p "$PEERS"
        # Python's venv module is not on every machine that has Python.
        if ! python3 -m venv "$venv" >/dev/null 2>&1; then
            missing supervisord 'python3 has no venv module (on Debian: the package python3-venv)'
            return 0
        fi
        if ! "$venv/bin/pip" --quiet --disable-pip-version-check install "supervisor==$SUPERVISOR_VERSION"; then
            missing supervisord "supervisor $SUPERVISOR_VERSION could not be had from PyPI"
            return 0
        fi
        touch "$venv/complete"
    fi
    options+=(--supervisor "$venv")
}

need_pm2() {
    local folder=$PEERS/pm2-$PM2_VERSION program
    for program in node npm; do
        if ! command -v "$program" >/dev/null; then
            missing pm2 "there is no $program (on Debian: the packages nodejs and npm)"
            return 0
        fi
    done
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        if ! npm install --prefix "$folder" --no-audit --no-fund --no-update-notifier --loglevel=error "pm2@$PM2_VERSION" >&2; then
            missing pm2 "pm2 $PM2_VERSION could not be had from npm"
            return 0
        fi
        touch "$folder/complete"
    fi
    options+=(--pm2 "$folder")
}

if ! command -v python3 >/dev/null; then
    printf 'the measurements are a program for python3 (3.10 or newer), which is not there; install it with your package manager\n' >&2
    exit 1
fi
if [ ! -x "$astrid" ]; then
    printf 'there is no %s; build it first (make build), or set ASTRID_BIN\n' "$astrid" >&2
    exit 1
fi
need_supervisor
need_pm2
# Python would leave its compiled modules in the tree.
PYTHONDONTWRITEBYTECODE=1 python3 tests/peers --astrid "$astrid" --out "$OUT" "${options[@]}" "$@"
