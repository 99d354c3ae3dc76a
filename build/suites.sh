#!/usr/bin/env bash
# Runs every test suite to its end, whatever fails before, and adds up what they counted. Run by `make test`, which has built
# the binary and the capsules.
#
# The last line is "N passed, N failed". Exit status 0 means that all suites ended well and that there were tests at all.
set -euo pipefail

cd "$(dirname "$0")/.."
# With it, every trap of a guest that a test provokes captures a native backtrace, which takes longer than the test.
export RUST_BACKTRACE=0
words=$(mktemp)
trap 'rm -f "$words"' EXIT
passed=0
failed=0
table=

suite() { # name command...
    local name=$1 status=0 p f
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$words" || status=$?
    # cargo's lines, one for each test binary, and those of the scripts' tests.
    read -r p f < <(awk '
        /^test result: / { p += $4; f += $6 }
        /^[^ ]+: [0-9]+ passed, [0-9]+ failed$/ { p += $2; f += $4 }
        END { print p + 0, f + 0 }' "$words")
    # It did not compile, or was killed: a failure that no line counts.
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        printf '%s ended with exit status %d before it could count\n' "$name" "$status"
        f=1
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    table+=$(printf '%-28s %6d passed %6d failed' "$name" "$p" "$f")$'\n'
}

suite host cargo test --release --workspace --no-fail-fast
# The schema generator is not compiled into anything else.
suite schema cargo test --release -p astrid-wire --features schema manifest
# Optimised a little, since they parse megabytes, and with overflow checks, since what they parse is hostile.
export CARGO_PROFILE_DEV_OPT_LEVEL=1
suite guests cargo test --manifest-path capsules/Cargo.toml --workspace --target-dir target/guest --no-fail-fast
for script in build/test-*.sh; do
    suite "$(basename "$script" .sh)" "$script"
done

printf '\n%s\n%d passed, %d failed\n' "$table" "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
