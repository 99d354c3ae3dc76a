#!/usr/bin/env bash
# Tests of what the Makefile and pack.sh decide: what is packed, when, and what `make install` lays down. Cargo and the binary
# are fakes; make is real.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=build/testing.sh
. "$HERE/testing.sh"

setup() {
    BOX=$(mktemp -d "$TESTING_DIR/case.XXXXXX")
    TREE=$BOX/tree
    mkdir -p "$BOX/bin" "$TREE"/{build,etc/systemd,cli,kernel/src,sdk/wire,wit} "$TREE"/capsules/{one,two}/src "$TREE"/examples/hello
    cp "$HERE/../Makefile" "$TREE/"
    cp "$HERE/../etc/systemd/"* "$TREE/etc/systemd/"
    cp "$HERE/pack.sh" "$TREE/build/"
    touch "$TREE"/{Cargo.toml,Cargo.lock,LICENSE,etc/astrid.toml,etc/processes.toml,kernel/Cargo.toml,kernel/src/lib.rs,wit/bus.wit}
    touch "$TREE"/capsules/{one,two}/Capsule.toml "$TREE/examples/hello/Capsule.toml"
    echo 1 >"$TREE/capsules/one/src/lib.rs"
    program "$TREE/build/guest-toolchain.sh" <<PROGRAM
echo "\${FAKE_RUSTC:-$BOX/rustc}"
PROGRAM
    # As the real one does, cargo writes the binary anew when what is embedded in it changed.
    program "$BOX/bin/cargo" <<PROGRAM
echo "cargo \$*" >>"$BOX/log"
mkdir -p target/release && cp "$BOX/astrid" target/release/astrid
PROGRAM
    # A bundle is the capsule's source, so that it differs when that does.
    program "$BOX/astrid" <<PROGRAM
case "\$1 \$2" in
'capsule build')
    crate=\$3
    echo "pack \$crate \$CAPSULE_RUSTC \$ASTRID_GUEST_TARGET \$CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS" >>"$BOX/log"
    [ ! -e "$BOX/broken" ] || exit 1
    for out; do :; done
    cat "\$crate"/src/*.rs >"\$out/\${crate##*/}.capsule" 2>/dev/null || true
    case \$* in *--precompile*) echo code >"\$out/\${crate##*/}.cwasm" ;; esac ;;
completions*) echo "completions of \$2" ;;
esac
PROGRAM
    touch "$BOX/log"
}

program() { # path, program on standard input
    { echo '#!/bin/sh'; cat; } >"$1"
    chmod 755 "$1"
}

run() { # make's arguments...
    : >"$BOX/log"
    STATUS=0
    OUT=$(env -u MAKEFLAGS -u MAKELEVEL PATH="$BOX/bin:$PATH" make -C "$TREE" "$@" 2>&1) || STATUS=$?
    LOG=$(cat "$BOX/log")
}

# Makes a file newer than everything else, whatever the resolution of the file system's clock.
edit() { # file text
    echo "$2" >"$TREE/$1"
    touch -d '+2 seconds' "$TREE/$1"
}

age() { find "$TREE" -type f -exec touch -d '-1 hour' {} +; }
packed() { grep -c '^pack' "$BOX/log" || true; }
expect_packed() { [ "$(packed)" = "$1" ] || fail "packed $(packed) times, expected $1: $LOG $OUT"; }

test_the_binary_is_built_before_packing_and_linked_again_after() {
    setup
    run build
    [ "$STATUS" = 0 ] || fail "$OUT"
    [ "$(sed 's/ .*//' "$BOX/log" | tr '\n' ' ')" = "cargo pack pack cargo " ] || fail "$LOG"
    grep -q "pack capsules/one $BOX/rustc $TREE/target/guest" "$BOX/log" || fail "$LOG"
    grep -q "zstack-size=65536 --remap-path-prefix=.*=/cargo --remap-path-prefix=$TREE=/astrid" "$BOX/log" || fail "$LOG"
    [ "$(cat "$TREE/target/capsules/one.capsule")" = 1 ] || fail "no bundle"
    [ -e "$TREE/target/capsules/one.cwasm" ] || fail "no compiled code to embed"
}

test_nothing_is_packed_when_nothing_changed() {
    setup
    run build capsules
    expect_packed 3
    run build capsules
    expect_packed 0
}

test_a_guests_source_has_the_capsules_packed_again() {
    setup
    run build
    age
    edit capsules/one/src/lib.rs 2
    run build
    expect_packed 2
    [ "$(cat "$TREE/target/capsules/one.capsule")" = 2 ] || fail "the bundle is the old one"
}

test_the_contract_the_sdk_and_the_packer_count_as_sources() {
    local file
    setup
    run build
    for file in wit/bus.wit kernel/src/lib.rs sdk/wire/lib.rs cli/main.rs Cargo.lock; do
        age
        edit "$file" new
        run build
        [ "$(packed)" = 2 ] || fail "$file does not count: $OUT"
    done
}

test_a_bundle_whose_bytes_are_the_same_keeps_its_time() {
    setup
    run build
    age
    local before after
    before=$(stat -c %Y "$TREE/target/capsules/one.capsule")
    edit wit/bus.wit new
    run build
    expect_packed 2
    after=$(stat -c %Y "$TREE/target/capsules/one.capsule")
    [ "$before" = "$after" ] || fail "the file was written again, so that the binary is linked again"
}

test_another_compiler_has_everything_packed_again() {
    setup
    run build
    age
    export FAKE_RUSTC=/other/rustc
    run build
    expect_packed 2
    grep -q /other/rustc "$BOX/log" || fail "$LOG"
}

test_a_capsule_that_is_gone_is_not_embedded_any_more() {
    setup
    run build
    age
    rm -r "$TREE/capsules/two"
    edit capsules/one/src/lib.rs 2
    run build
    [ ! -e "$TREE/target/capsules/two.capsule" ] || fail "the old bundle is still there"
}

test_examples_are_not_embedded() {
    setup
    run build
    [ ! -e "$TREE/target/examples" ] || fail "the examples were packed"
    run capsules
    [ -e "$TREE/target/examples/hello.capsule" ] || fail "the example was not packed: $OUT"
    [ ! -e "$TREE/target/capsules/hello.capsule" ] || fail "the example is among the built-in capsules"
}

test_a_capsule_that_does_not_build_fails_and_is_tried_again() {
    setup
    touch "$BOX/broken"
    run build
    [ "$STATUS" != 0 ] || fail "make succeeded"
    rm "$BOX/broken"
    run build
    [ "$STATUS" = 0 ] || fail "$OUT"
    expect_packed 2
}

test_bundles_that_were_deleted_are_made_again() {
    setup
    run build
    rm "$TREE"/target/capsules/*
    run build
    expect_packed 2
}

test_install_lays_everything_below_the_prefix() {
    setup
    run install DESTDIR="$BOX/root" PREFIX=/opt/astrid
    [ "$STATUS" = 0 ] || fail "$OUT"
    local root=$BOX/root/opt/astrid
    [ -x "$root/bin/astrid" ] || fail "no binary"
    grep -qx 'ExecStart=/opt/astrid/bin/astrid start --foreground' "$root/lib/systemd/user/astrid.service" || fail "no unit"
    [ -e "$root/lib/systemd/user/astrid-operator.socket" ] || fail "no unit of a socket"
    grep -rq '@PREFIX@' "$root/lib/systemd" && fail "a unit without its prefix"
    [ "$(cat "$root/share/zsh/site-functions/_astrid")" = "completions of zsh" ] || fail "no completions"
    [ -e "$root/share/doc/astrid/astrid.toml" ] && [ -e "$root/share/doc/astrid/processes.toml" ] || fail "no configuration"
}

test_help_is_what_make_says_alone() {
    setup
    run
    local target
    for target in run test bench lint capsules install clean; do
        grep -qE "^  $target +[A-Z]" <<<"$OUT" || fail "help lacks $target: $OUT"
    done
    [ -z "$LOG" ] || fail "something was built: $LOG"
}

run_tests
