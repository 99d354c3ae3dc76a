#!/usr/bin/env bash
# Checks the units of etc/systemd as systemd reads them, with a program in the place of the one that is installed. Where there is no
# systemd-analyze, which is in Debian's package systemd, it says so and checks nothing. Run by `make lint`.
set -euo pipefail

cd "$(dirname "$0")/.."

if ! command -v systemd-analyze >/dev/null; then
    printf 'skipped: there is no systemd-analyze here\n'
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/units" "$scratch/bin" "$scratch/share/doc/astrid" "$scratch/home" "$scratch/run"
chmod 700 "$scratch/run"
printf '#!/bin/sh\n' >"$scratch/bin/astrid"
chmod 755 "$scratch/bin/astrid"
cp etc/astrid.toml "$scratch/share/doc/astrid/"
for unit in etc/systemd/*; do
    sed "s:@PREFIX@:$scratch:g" "$unit" >"$scratch/units/$(basename "$unit")"
done

# A unit with an unknown key is only warned about, so whatever is said is a failure. What systemd itself lacks on this machine
# (units that ours do not name, no manual pages) is not asked for.
said=$(HOME=$scratch/home XDG_RUNTIME_DIR=$scratch/run SYSTEMD_UNIT_PATH="$scratch/units:" \
    systemd-analyze verify --user --man=no --recursive-errors=no "$scratch"/units/* 2>&1) || {
    printf '%s\n' "$said" >&2
    exit 1
}
if [ -n "$said" ]; then
    printf '%s\n' "$said" >&2
    exit 1
fi
