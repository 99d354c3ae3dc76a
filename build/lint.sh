#!/usr/bin/env bash
# Everything that is checked without running Astrid. Each check runs whatever the ones before found; exit status 1 when any
# failed. Run by `make lint`.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=build/tools.sh
. build/tools.sh

# Seconds for cargo-deny to get the advisories, which come from a server that not every machine reaches.
ADVISORIES_TIMEOUT_S=60
GUESTS=(--manifest-path capsules/Cargo.toml)
FUZZER=(--manifest-path tests/fuzz/Cargo.toml)
failed=()

check() { # name command...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

scripts() {
    need_shellcheck || return 1
    "$PROGRAM" --external-sources build/*.sh .ci/run
}

# Guests are checked as what they are, where the lints' compiler has their target; their logic also builds natively.
guest_clippy() {
    local libdir
    libdir=$(rustc --print target-libdir --target wasm32-unknown-unknown)
    if compgen -G "$libdir/libstd-*.rlib" >/dev/null; then
        cargo clippy "${GUESTS[@]}" --workspace --target-dir target/guest --target wasm32-unknown-unknown -- -D warnings || return 1
    fi
    cargo clippy "${GUESTS[@]}" --workspace --all-targets --target-dir target/guest -- -D warnings
}

deny() { # cargo arguments...
    need_cargo_deny || return 1
    "$PROGRAM" "$@" --all-features --config deny.toml check licenses bans sources
}

advisories() {
    need_cargo_deny || return 1
    if ! timeout "$ADVISORIES_TIMEOUT_S" "$PROGRAM" --config deny.toml fetch db >/dev/null 2>&1; then
        printf 'skipped: the database of advisories cannot be reached from here\n'
        return 0
    fi
    "$PROGRAM" --config deny.toml check advisories && "$PROGRAM" "${GUESTS[@]}" --config deny.toml check advisories
}

check 'format' cargo fmt --all --check
check 'format of guests' cargo fmt "${GUESTS[@]}" --all --check
check 'format of the fuzzer' cargo fmt "${FUZZER[@]}" --check
check 'scripts' scripts
check 'systemd units' build/check-units.sh
check 'licences, bans, sources' deny
check 'licences, bans, sources of guests' deny "${GUESTS[@]}"
check 'licences, bans, sources of the fuzzer' deny "${FUZZER[@]}"
check 'advisories' advisories
# In the profile that everything else is built in, so that what it builds is not built twice.
check 'tidy, WIT' cargo test --quiet --release -p astrid-tests --lib
check 'clippy' cargo clippy --release --workspace --all-targets -- -D warnings
check 'clippy of guests' guest_clippy
check 'clippy of the fuzzer' cargo clippy "${FUZZER[@]}" --target-dir target/fuzz -- -D warnings

if [ "${#failed[@]}" -gt 0 ]; then
    printf '\nlint failed:\n'
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
printf '\nlint passed\n'
