#!/usr/bin/env bash
# Finds a rustc that compiles capsules (wasm32-unknown-unknown with std), makes one where there is none, and prints its path.
#
#   export CAPSULE_RUSTC="$(build/guest-toolchain.sh)"
#
# The first of these is taken:
#   1. $CAPSULE_RUSTC. Who names a compiler wants that one, so if it lacks the target this is an error.
#   2. The rustc on PATH, if it has the target.
#   3. The private toolchain that an earlier run left in the cache.
#   4. rustup's, after `rustup target add`. CAPSULE_NO_RUSTUP=1 skips this: it changes the user's own toolchain.
#   5. A private toolchain, made from the packages of the Debian that this machine runs. They are downloaded and unpacked
#      in the cache; nothing is installed and no root is needed. About a minute, 140 MB of download, 0.5 GB of disk.
#
# The cache is ${XDG_CACHE_HOME:-~/.cache}/astrid/guest-toolchain, outside of any source tree, so that clones share it.
# Standard output has the path and nothing else; words go to standard error. Exit status 1: none could be had.
set -euo pipefail

TARGET=wasm32-unknown-unknown
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/astrid/guest-toolchain
# Counts up when step 5 changes what it makes, so that what an older script left is made anew.
RECIPE=1
# Seconds until rustup, which retries for long where its server cannot be reached, is given up.
RUSTUP_TIMEOUT_S=300
# Download, unpacked packages and the build of std together, at their peak.
NEEDED_KIB=$((2 * 1024 * 1024))

say() { printf 'guest toolchain: %s\n' "$*" >&2; }

die() { # what hint
    printf 'guest toolchain: error: %s\n' "$1" >&2
    printf 'guest toolchain: hint: %s\n' "$2" >&2
    exit 1
}

# Whether this rustc has a standard library for the target.
has_std() { # rustc
    local libdir
    libdir=$("$1" --print target-libdir --target "$TARGET" 2>/dev/null) || return 1
    compgen -G "$libdir/libstd-*.rlib" >/dev/null
}

found() { # rustc how
    say "$1 ($2)"
    printf '%s\n' "$1"
    exit 0
}

use_cached() {
    [ "$(cat "$CACHE/recipe" 2>/dev/null)" = "$RECIPE" ] || return 0
    if has_std "$CACHE/bin/rustc"; then found "$CACHE/bin/rustc" cached; fi
}

use_rustup() {
    if [ "${CAPSULE_NO_RUSTUP:-0}" = 1 ] || ! command -v rustup >/dev/null; then return 0; fi
    say "rustup target add $TARGET"
    if timeout "$RUSTUP_TIMEOUT_S" rustup target add "$TARGET" >&2; then
        local rustc
        rustc=$(rustup which rustc) || return 0
        if has_std "$rustc"; then found "$rustc" rustup; fi
    fi
    say "rustup could not add the target here"
}

# ---- step 5 ----------------------------------------------------------------------------------------------------------

# shellcheck source=build/apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

apt() { private_apt "$WORK/apt" "$@"; }

# The newest direct dependency of a package whose name matches; nothing when there is none, or no such package.
depends_on() { # package regex
    { apt apt-cache depends "$1" 2>/dev/null || true; } | sed -nE "s/^ *Depends: ($2)\$/\1/p" | sort -Vu | tail -n 1
}

download() { # packages...
    mkdir -p "$WORK/debs"
    local again
    for again in 10 30 ''; do
        (cd "$WORK/debs" && apt apt-get download "$@" >&2) && return
        # A mirror may refuse for a moment.
        [ -z "$again" ] || sleep "$again"
    done
    die "the packages could not be downloaded: $*" "see apt's words above"
}

unpack() { # debs...
    local deb
    for deb in "$@"; do
        case ${deb##*/} in
        # The whole compiler's source; std's part is enough.
        rust-web-src_*) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$ROOT" --wildcards './usr/src/rustc-*/library' './usr/lib/rustlib/src' ;;
        *) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$ROOT" --exclude './usr/share' ;;
        esac
        rm "$deb"
    done
    # Libraries of a Debian from before /lib became a link to /usr/lib.
    if [ -d "$ROOT/lib" ]; then
        cp -a "$ROOT/lib" "$ROOT/usr/"
        rm -r "${ROOT:?}/lib"
    fi
}

# Shared libraries that the unpacked compiler and linker need, and neither they nor this machine have.
missing_libraries() {
    LD_LIBRARY_PATH="$ROOT/usr/lib/$MULTIARCH" ldd "$ROOT/usr/bin/rustc" \
        "$ROOT/usr/lib/$MULTIARCH"/librustc_driver*.so "$ROOT"/usr/lib/llvm-*/bin/lld 2>/dev/null |
        sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u | tr '\n' ' '
}

fetch_packages() {
    local std lib llvm lld missing
    say "reading the package lists"
    # A source that cannot be reached is apt's complaint, and ours only if the packages are not found.
    apt apt-get update >&2 || true
    std=$(depends_on rustc-web libstd-rust-web-dev)
    lib=$(depends_on "${std:-none}" 'libstd-rust-web-[0-9.]+')
    llvm=$(depends_on "${lib:-none}" 'libllvm[0-9.]+')
    [ -n "$llvm" ] || die "this machine's package sources have no rustc-web whose dependencies are there too" "$HINT"
    lld=lld-${llvm#libllvm}
    if ! apt apt-cache show "$lld" >/dev/null 2>&1; then
        lld=$(apt apt-cache search --names-only '^lld-[0-9]+$' | cut -d ' ' -f 1 | sort -V | tail -n 1)
        [ -n "$lld" ] || die "this machine's package sources have no lld, the linker" "$HINT"
    fi
    say "downloading rustc-web $std $lib rust-web-src $llvm $lld"
    download rustc-web "$std" "$lib" rust-web-src "$llvm" "$lld"
    unpack "$WORK"/debs/*.deb
    missing=$(missing_libraries)
    if [ -n "$missing" ]; then
        say "this machine lacks $missing"
        # Libraries only, and never the C library: two of it in one process do not go together.
        apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances "$llvm" "$lld" | sed -nE 's/^(lib[a-z0-9.+-]+)$/\1/p' |
            grep -vxE 'libc6|libc-bin|libcrypt1|libgcc-s1|libllvm.*|libclang.*' | sort -u >"$WORK/libraries"
        # shellcheck disable=SC2046 # one argument a line is meant
        download $(cat "$WORK/libraries")
        unpack "$WORK"/debs/*.deb
        missing=$(missing_libraries)
        [ -z "$missing" ] || die "the compiler's packages lack the libraries $missing" "$HINT"
    fi
}

# Gives the unpacked packages the shape of a toolchain: bin/rustc beside sysroot/, movable as a whole.
assemble() {
    local host_bin
    mkdir -p "$NEW/bin"
    mv "$ROOT/usr" "$NEW/sysroot"
    # rustc finds its sysroot by its own place, but its libraries only by the loader's path.
    cat >"$NEW/bin/rustc" <<'WRAPPER'
#!/bin/sh
sysroot=$(dirname "$(dirname "$(readlink -f "$0")")")/sysroot
LD_LIBRARY_PATH=$(echo "$sysroot"/lib/*-linux-gnu)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$sysroot/bin/rustc" "$@"
WRAPPER
    chmod 755 "$NEW/bin/rustc"
    # The target links with a program of this name, which is lld deciding by its name what to be.
    host_bin=$NEW/sysroot/lib/rustlib/$HOST/bin
    mkdir -p "$host_bin"
    ln -sf "$(cd "$NEW/sysroot" && echo lib/llvm-*/bin/lld | sed 's:^lib/:../../../:')" "$host_bin/rust-lld"
}

# Compiles std for the target once, from the source package, whose dependencies come along: no registry is asked.
build_std() {
    local probe=$WORK/probe source=$NEW/sysroot/lib/rustlib/src/rust real hash flags libdir
    real=$(readlink -f "$source")
    hash=$("$NEW/bin/rustc" -vV | sed -n 's/^commit-hash: //p')
    mkdir -p "$probe/src" "$probe/.cargo"
    echo '#![no_std]' >"$probe/src/lib.rs"
    cat >"$probe/Cargo.toml" <<'MANIFEST'
[package]
name = "sysroot-probe"
version = "0.0.0"
edition = "2021"

[workspace]

[profile.release]
opt-level = 3
codegen-units = 1
debug = 0
MANIFEST
    cat >"$probe/.cargo/config.toml" <<CONFIG
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "$real/library/vendor"
CONFIG
    # Bitcode, or a guest with lto = true does not link; the remaps, or paths of this machine end up in every guest.
    flags=$(printf '%s\037' -Cembed-bitcode=yes "--remap-path-prefix=$real=/rustc/$hash" "--remap-path-prefix=$source=/rustc/$hash")
    (
        cd "$probe"
        unset RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR RUSTC_WORKSPACE_WRAPPER MAKEFLAGS
        export CARGO_ENCODED_RUSTFLAGS=${flags%$'\037'} RUSTC_WRAPPER='' RUSTC_BOOTSTRAP=1
        export RUSTC=$NEW/bin/rustc CARGO_TARGET_DIR=$WORK/target
        cargo build --quiet --offline --release -Zbuild-std=std,panic_abort --target "$TARGET" >&2
    ) || die "std could not be built for $TARGET" "see cargo's words above; $HINT"
    libdir=$NEW/sysroot/lib/rustlib/$TARGET/lib
    mkdir -p "$libdir"
    cp "$WORK/target/$TARGET"/release/deps/lib*.rlib "$libdir/"
    rm -f "$libdir"/libsysroot_probe-*.rlib
    rm -rf "$NEW/sysroot/src" "$NEW/sysroot/lib/rustlib/src"
}

# Links a library that uses std the way a guest is linked.
prove() {
    cat >"$WORK/proof.rs" <<'PROOF'
#[unsafe(no_mangle)]
pub extern "C" fn digits(n: u32) -> usize {
    (0..n).map(|i| i.to_string().len()).sum()
}
PROOF
    "$NEW/bin/rustc" --edition 2024 --target "$TARGET" --crate-type cdylib -Copt-level=s -Clto=fat -Cembed-bitcode=yes \
        -Cpanic=abort -o "$WORK/proof.wasm" "$WORK/proof.rs" >&2 ||
        die "the toolchain that was made does not link a guest" "see its words above; $HINT"
}

make_private() {
    local tool free
    HINT="on a machine that reaches rustup's server, run: rustup target add $TARGET"
    for tool in apt-get apt-cache dpkg-deb; do
        command -v $tool >/dev/null ||
            die "no rustc here has the target $TARGET, and without $tool none can be made from Debian's packages" "$HINT"
    done
    for tool in cargo tar ldd flock; do
        command -v $tool >/dev/null || die "$tool is needed to make a toolchain and is not on PATH" "install it, or: $HINT"
    done
    MULTIARCH=$(uname -m)-linux-gnu
    HOST=$(uname -m)-unknown-linux-gnu
    mkdir -p "${CACHE%/*}" || die "${CACHE%/*} cannot be made" "set XDG_CACHE_HOME to a directory that can be written"
    # Two builds at once make one toolchain. The lock is let go when this process ends, however it ends.
    exec 9>"$CACHE.lock"
    if ! flock -n 9; then
        say "another build is making the toolchain; waiting for it"
        flock 9
    fi
    use_cached
    free=$(df -Pk "${CACHE%/*}" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$NEEDED_KIB" ] ||
        die "${CACHE%/*} has $((free / 1024)) MiB free, and making a toolchain takes $((NEEDED_KIB / 1024))" "make room, or set XDG_CACHE_HOME"
    # What a killed run left: nobody else works here while the lock is held.
    rm -rf "$CACHE".new.*
    NEW=$CACHE.new.$$
    WORK=$NEW/work
    ROOT=$WORK/root
    trap 'rm -rf "$NEW"' EXIT
    mkdir -p "$ROOT"
    fetch_packages
    assemble
    say "building std with $("$NEW/bin/rustc" -V)"
    build_std
    prove
    rm -rf "$WORK"
    echo "$RECIPE" >"$NEW/recipe"
    rm -rf "$CACHE"
    mv "$NEW" "$CACHE"
    found "$CACHE/bin/rustc" "made from Debian's packages"
}

if [ -n "${CAPSULE_RUSTC:-}" ]; then
    has_std "$CAPSULE_RUSTC" ||
        die "CAPSULE_RUSTC is $CAPSULE_RUSTC, which has no std for $TARGET" "unset it to have a compiler found or made"
    found "$CAPSULE_RUSTC" "named by CAPSULE_RUSTC"
fi
installed=$(command -v rustc || true)
if [ -n "$installed" ] && has_std "$installed"; then found "$installed" installed; fi
use_cached
use_rustup
make_private
