#!/usr/bin/env bash
# Tests of guest-toolchain.sh: each place where it looks, with fakes of rustc, rustup, cargo and Debian's tools on a PATH that
# has nothing else of the kind. Nothing is downloaded or compiled.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=build/testing.sh
. "$HERE/testing.sh"

TARGET=wasm32-unknown-unknown
PLAIN_TOOLS="awk bash cat chmod cp cut dirname env flock grep ln ls mkdir mktemp mv readlink rm sed sh sort tail tar timeout touch tr uname"

# Each case starts with its own home and a PATH of plain tools.
setup() {
    BOX=$(mktemp -d "$TESTING_DIR/case.XXXXXX")
    mkdir "$BOX/bin" "$BOX/home" "$BOX/plain"
    local tool
    for tool in $PLAIN_TOOLS; do ln -s "$(command -v "$tool")" "$BOX/plain/$tool"; done
    CACHE=$BOX/home/.cache/astrid/guest-toolchain
    touch "$BOX/log"
}

fake() { # path, program on standard input
    mkdir -p "${1%/*}"
    { echo '#!/bin/sh'; echo "BOX='$BOX'"; cat; } >"$1"
    chmod 755 "$1"
}

# A rustc whose standard library of the target is in a directory, or is not there.
fake_rustc() { # path libdir
    fake "$1" <<PROGRAM
case \$* in
*target-libdir*) echo '$2' ;;
-V) echo 'rustc 1.99.0 (fake)' ;;
-vV) echo 'commit-hash: 0123' ;;
*) echo "rustc \$*" >>"\$BOX/log" ;;
esac
PROGRAM
}

with_std() { # directory
    mkdir -p "$1"
    touch "$1/libstd-0123.rlib"
}

fake_rustup() { # exit status of `target add`
    fake "$BOX/bin/rustup" <<PROGRAM
echo "rustup \$*" >>"\$BOX/log"
case \$1 in
target) if [ $1 = 0 ]; then mkdir -p "\$BOX/rustup-lib" && touch "\$BOX/rustup-lib/libstd-1.rlib"; fi; exit $1 ;;
which) echo "\$BOX/rustup-rustc" ;;
esac
PROGRAM
    fake_rustc "$BOX/rustup-rustc" "$BOX/rustup-lib"
}

# Debian: package lists that have what is needed, packages that hold a fake compiler, and a cargo that "builds" std.
fake_debian() {
    fake "$BOX/bin/apt-get" <<'PROGRAM'
echo "apt-get $*" >>"$BOX/log"
case " $* " in
*" update "*) [ ! -e "$BOX/no-network" ] ;;
*" download "*)
    [ ! -e "$BOX/no-packages" ] || exit 100
    for word; do case $word in rustc-web | rust-web-src | lib* | lld-*) touch "${word}_1_amd64.deb" ;; esac; done ;;
esac
PROGRAM
    fake "$BOX/bin/sleep" <<'PROGRAM'
echo "sleep $*" >>"$BOX/log"
PROGRAM
    fake "$BOX/bin/apt-cache" <<'PROGRAM'
for last; do :; done
case " $* " in
*" --recurse "*) printf 'libllvm22\n  Depends: libedit2\nlibedit2\nlibc6\nlibgcc-s1\ngcc-12-base\n' ;;
*" depends "*)
    [ ! -e "$BOX/no-rustc-web" ] || exit 100
    case $last in
    rustc-web) printf 'rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\n' ;;
    libstd-rust-web-dev) printf '  Depends: libstd-rust-web-1.99\n' ;;
    libstd-rust-web-1.99) printf '  Depends: libllvm9\n  Depends: libllvm22\n' ;;
    esac ;;
*" show "*) [ ! -e "$BOX/other-lld" ] ;;
*" search "*) printf 'lld-9 - linker\nlld-19 - linker\n' ;;
esac
PROGRAM
    fake "$BOX/bin/dpkg-deb" <<'PROGRAM'
package=${2##*/}
root=$(mktemp -d "$BOX/deb.XXXXXX")
case $package in
rustc-web_*) mkdir -p "$root/usr/bin" && cp "$BOX/web-rustc" "$root/usr/bin/rustc" ;;
rust-web-src_*)
    mkdir -p "$root/usr/src/rustc-1.99.0/library/vendor" "$root/usr/src/rustc-1.99.0/compiler" "$root/usr/lib/rustlib/src"
    ln -s ../../../src/rustc-1.99.0 "$root/usr/lib/rustlib/src/rust" ;;
lld-*) mkdir -p "$root/usr/lib/llvm-22/bin" && touch "$root/usr/lib/llvm-22/bin/lld" ;;
libedit2_*) mkdir -p "$root/lib/x86_64-linux-gnu" && touch "$root/lib/x86_64-linux-gnu/libedit.so.2" ;;
*) mkdir -p "$root/usr/share/doc" "$root/usr/lib/x86_64-linux-gnu" && touch "$root/usr/share/doc/junk" ;;
esac
tar -c -C "$root" .
PROGRAM
    fake "$BOX/bin/ldd" <<'PROGRAM'
if [ -e "$BOX/lacks-libedit" ] && ! [ -e "${LD_LIBRARY_PATH%%:*}/libedit.so.2" ]; then printf '\tlibedit.so.2 => not found\n'; fi
PROGRAM
    fake "$BOX/bin/cargo" <<'PROGRAM'
echo "cargo $* RUSTC=$RUSTC FLAGS=$CARGO_ENCODED_RUSTFLAGS" >>"$BOX/log"
[ ! -e "$BOX/std-fails" ] || exit 101
deps=$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/deps
mkdir -p "$deps" && touch "$deps/libstd-1.rlib" "$deps/libsysroot_probe-1.rlib"
PROGRAM
    # The disk has room, however much the one of this machine has.
    fake "$BOX/bin/df" <<'PROGRAM'
free=4194304
[ ! -e "$BOX/no-room" ] || free=1048576
printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/fake 8388608 1 %s 1%% /\n' "$free"
PROGRAM
    fake_rustc "$BOX/web-rustc" "$CACHE/sysroot/lib/rustlib/$TARGET/lib"
}

run() { # environment assignments...
    STATUS=0
    OUT=$(env -i PATH="$BOX/bin:$BOX/plain" HOME="$BOX/home" "$@" bash "$HERE/guest-toolchain.sh" 2>"$BOX/err") || STATUS=$?
    ERR=$(cat "$BOX/err")
    LOG=$(cat "$BOX/log")
}

logged() { case $LOG in *"$1"*) ;; *) fail "the log lacks '$1': $LOG" ;; esac; }
not_logged() { case $LOG in *"$1"*) fail "the log has '$1': $LOG" ;; esac; }
says() { case $ERR in *"$1"*) ;; *) fail "standard error lacks '$1': $ERR" ;; esac; }
prints() { [ "$STATUS" = 0 ] && [ "$OUT" = "$1" ] || fail "expected $1, got '$OUT', exit status $STATUS: $ERR"; }
fails() { [ "$STATUS" = 1 ] && [ -z "$OUT" ] || fail "expected exit status 1 and no output, got '$OUT', exit status $STATUS"; }

test_the_named_compiler_wins() {
    setup
    with_std "$BOX/mine" && with_std "$BOX/lib"
    fake_rustc "$BOX/my-rustc" "$BOX/mine"
    fake_rustc "$BOX/bin/rustc" "$BOX/lib"
    run CAPSULE_RUSTC="$BOX/my-rustc"
    prints "$BOX/my-rustc"
}

test_a_named_compiler_without_the_target_is_an_error_and_not_replaced() {
    setup
    with_std "$BOX/lib"
    fake_rustc "$BOX/my-rustc" "$BOX/nothing"
    fake_rustc "$BOX/bin/rustc" "$BOX/lib"
    run CAPSULE_RUSTC="$BOX/my-rustc"
    fails
    says "CAPSULE_RUSTC is $BOX/my-rustc"
    says hint
}

test_the_installed_compiler_is_used_when_it_has_the_target() {
    setup
    with_std "$BOX/lib"
    fake_rustc "$BOX/bin/rustc" "$BOX/lib"
    fake_rustup 0
    run
    prints "$BOX/bin/rustc"
    not_logged rustup
}

test_the_cache_comes_before_rustup() {
    setup
    with_std "$BOX/lib"
    fake_rustc "$BOX/bin/rustc" "$BOX/nothing"
    fake_rustc "$CACHE/bin/rustc" "$BOX/lib"
    echo 1 >"$CACHE/recipe"
    fake_rustup 0
    run
    prints "$CACHE/bin/rustc"
    not_logged rustup
}

test_a_cache_of_another_recipe_or_without_std_is_not_used() {
    setup
    with_std "$BOX/lib"
    fake_rustc "$CACHE/bin/rustc" "$BOX/lib"
    echo 0 >"$CACHE/recipe"
    run
    fails
    echo 1 >"$CACHE/recipe"
    rm "$BOX/lib/libstd-0123.rlib"
    run
    fails
}

test_rustup_adds_the_target() {
    setup
    fake_rustc "$BOX/bin/rustc" "$BOX/nothing"
    fake_rustup 0
    fake_debian
    run
    prints "$BOX/rustup-rustc"
    logged "rustup target add $TARGET"
    not_logged apt-get
}

test_rustup_can_be_forbidden() {
    setup
    fake_rustup 0
    fake_debian
    run CAPSULE_NO_RUSTUP=1
    prints "$CACHE/bin/rustc"
    not_logged rustup
}

test_debian_is_asked_when_rustup_fails() {
    setup
    fake_rustc "$BOX/bin/rustc" "$BOX/nothing"
    fake_rustup 1
    fake_debian
    run
    prints "$CACHE/bin/rustc"
    says "rustup could not add the target"
}

test_debian_makes_a_toolchain_once() {
    setup
    fake_debian
    run XDG_CACHE_HOME="$BOX/home/.cache"
    prints "$CACHE/bin/rustc"
    logged "download rustc-web libstd-rust-web-dev libstd-rust-web-1.99 rust-web-src libllvm22 lld-22"
    logged "-Cembed-bitcode=yes"
    logged "--remap-path-prefix="
    logged "-Clto=fat"
    not_logged "install"
    [ "$(cat "$CACHE/recipe")" = 1 ] || fail "no recipe"
    [ -e "$CACHE/sysroot/lib/rustlib/$TARGET/lib/libstd-1.rlib" ] || fail "std is not in the sysroot"
    [ ! -e "$CACHE/sysroot/lib/rustlib/$TARGET/lib/libsysroot_probe-1.rlib" ] || fail "the probe is in the sysroot"
    [ -e "$CACHE/sysroot/lib/rustlib/$(uname -m)-unknown-linux-gnu/bin/rust-lld" ] || fail "the linker's link leads nowhere"
    [ ! -e "$CACHE/sysroot/share" ] && [ ! -e "$CACHE/sysroot/src" ] || fail "what is not needed was kept"
    [ "$(echo "$CACHE".new.*)" = "$CACHE.new.*" ] || fail "the work directory was left"
    : >"$BOX/log"
    run
    prints "$CACHE/bin/rustc"
    not_logged apt-get
    says cached
}

test_what_a_killed_run_left_is_removed() {
    setup
    fake_debian
    mkdir -p "$CACHE.new.77/work"
    run
    prints "$CACHE/bin/rustc"
    [ ! -e "$CACHE.new.77" ] || fail "the old work directory is still there"
}

test_unreachable_sources_do_not_matter_when_the_packages_are_known() {
    setup
    fake_debian
    touch "$BOX/no-network"
    run
    prints "$CACHE/bin/rustc"
}

test_another_linker_version_will_do() {
    setup
    fake_debian
    touch "$BOX/other-lld"
    run
    prints "$CACHE/bin/rustc"
    logged "libllvm22 lld-19"
}

test_libraries_that_the_machine_lacks_come_along_but_never_the_c_library() {
    setup
    fake_debian
    touch "$BOX/lacks-libedit"
    run
    case $(uname -m) in x86_64) prints "$CACHE/bin/rustc" ;; esac
    says "this machine lacks libedit.so.2"
    logged "download libedit2"
    not_logged libc6
}

test_a_full_disk_is_said_before_anything_is_fetched() {
    setup
    fake_debian
    touch "$BOX/no-room"
    run CAPSULE_NO_RUSTUP=1
    fails
    says "has 1024 MiB free, and making a toolchain takes 2048"
    says "make room"
    not_logged "apt-get"
}

test_no_packages_is_an_error_that_leaves_nothing() {
    setup
    fake_debian
    touch "$BOX/no-packages"
    run
    fails
    says "could not be downloaded"
    # A mirror that refuses for a moment is asked again.
    logged "sleep 10"
    logged "sleep 30"
    [ "$(echo "$CACHE"*)" = "$CACHE.lock" ] || fail "something was left: $(echo "$CACHE"*)"
}

test_sources_without_a_compiler_are_an_error() {
    setup
    fake_debian
    touch "$BOX/no-rustc-web"
    run
    fails
    says "no rustc-web"
    says "rustup target add"
}

test_std_that_does_not_build_is_an_error_that_leaves_nothing() {
    setup
    fake_debian
    touch "$BOX/std-fails"
    run
    fails
    says "std could not be built"
    [ ! -e "$CACHE" ] || fail "a half toolchain was left"
}

test_a_machine_that_is_no_debian_is_told_what_to_do() {
    setup
    fake_rustc "$BOX/bin/rustc" "$BOX/nothing"
    run
    fails
    says "without apt-get"
    says "rustup target add"
}

test_a_cache_that_cannot_be_made_is_an_error() {
    setup
    fake_debian
    touch "$BOX/file"
    run XDG_CACHE_HOME="$BOX/file"
    fails
    says "cannot be made"
}

run_tests
