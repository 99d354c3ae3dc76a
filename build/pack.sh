#!/usr/bin/env bash
# Packs capsules into a directory, which then has the bundles of these and nothing else.
#
#   build/pack.sh [--precompile] OUT CRATE...
#
# A file is replaced only when its bytes differ: the binary embeds the directory, and is linked again when a file in it
# has a new time. Run by make, which has written target/guest-rustc and built target/release/astrid before.
set -euo pipefail

cd "$(dirname "$0")/.."
options=()
if [ "$1" = --precompile ]; then
    options+=("$1")
    shift
fi
out=$1
shift
new=target/pack/$(basename "$out").new
rm -rf "$new"
mkdir -p "$new" "$out"

# Bytes of a guest's stack. The linker's own choice is a megabyte, which every new instance would pay for.
stack=65536
flags="-Clink-arg=-zstack-size=$stack"
# Where this was built is nobody's business, and two who build the same get the same. The variable is split at blanks.
for map in "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$PWD=/astrid"; do
    case $map in *[[:space:]]*) ;; *) flags+=" --remap-path-prefix=$map" ;; esac
done

CAPSULE_RUSTC=$(cat target/guest-rustc)
export CAPSULE_RUSTC
# These would replace the flags that follow; they are for the machine's own code.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=$flags
# All guests share their dependencies' builds.
export ASTRID_GUEST_TARGET=$PWD/target/guest

for crate; do
    target/release/astrid capsule build "$crate" "${options[@]}" --out "$new" >/dev/null
done
for file in "$out"/*; do
    [ -e "$new/${file##*/}" ] || rm -rf "$file"
done
for file in "$new"/*; do
    [ -e "$file" ] || continue
    cmp -s "$file" "$out/${file##*/}" || mv "$file" "$out/"
done
rm -rf "$new"
