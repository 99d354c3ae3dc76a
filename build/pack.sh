#!/usr/bin/env bash
# Packs capsules into a directory, which then has the bundles of these and nothing else.
#
#   build/pack.sh OUT CRATE...
#
# A file is replaced only when its bytes differ: the binary embeds the directory, and is linked again when a file in it
# has a new time. Run by make, which has written target/guest-rustc and built target/release/astrid before.
set -euo pipefail

cd "$(dirname "$0")/.."
out=$1
shift
new=target/pack/$(basename "$out").new
rm -rf "$new"
mkdir -p "$new" "$out"

CAPSULE_RUSTC=$(cat target/guest-rustc)
# The guests of all workspaces share their dependencies' builds.
CARGO_TARGET_DIR=$PWD/target/guest
export CAPSULE_RUSTC CARGO_TARGET_DIR

for crate; do
    printf 'pack %s\n' "$crate" >&2
    target/release/astrid capsule build "$crate" --release --out "$new"
done
for file in "$out"/*; do
    [ -e "$new/${file##*/}" ] || rm -rf "$file"
done
for file in "$new"/*; do
    [ -e "$file" ] || continue
    cmp -s "$file" "$out/${file##*/}" || mv "$file" "$out/"
done
rm -rf "$new"
