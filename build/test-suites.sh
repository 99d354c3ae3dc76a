#!/usr/bin/env bash
# Tests of suites.sh, in a tree that has a fake cargo and fake scripts.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=build/testing.sh
. "$HERE/testing.sh"

setup() { # program of cargo on standard input
    BOX=$(mktemp -d "$TESTING_DIR/case.XXXXXX")
    mkdir -p "$BOX/build" "$BOX/bin"
    cp "$HERE/suites.sh" "$BOX/build/"
    { echo '#!/bin/sh'; cat; } >"$BOX/bin/cargo"
    printf '#!/bin/sh\necho "test-one.sh: 3 passed, 0 failed"\n' >"$BOX/build/test-one.sh"
    chmod 755 "$BOX/bin/cargo" "$BOX/build/test-one.sh"
}

run() {
    STATUS=0
    OUT=$(PATH=$BOX/bin:$PATH bash "$BOX/build/suites.sh" 2>&1) || STATUS=$?
    LAST=${OUT##*$'\n'}
}

expect() { # status last-line
    [ "$STATUS" = "$1" ] || fail "exit status $STATUS, expected $1: $OUT"
    [ "$LAST" = "$2" ] || fail "the last line is '$LAST', expected '$2'"
}

test_counts_are_added_over_binaries_and_suites() {
    setup <<'CARGO'
echo 'test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s'
echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s'
CARGO
    run
    expect 0 "24 passed, 0 failed"
}

test_a_failure_is_counted_and_the_other_suites_still_run() {
    setup <<'CARGO'
case $* in
*capsules*) echo 'test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured' ;;
*) echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured'; exit 101 ;;
esac
CARGO
    run
    expect 1 "10 passed, 4 failed"
}

test_a_suite_that_does_not_compile_is_a_failure() {
    setup <<'CARGO'
case $* in *capsules*) echo 'error: could not compile'; exit 101 ;; esac
echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured'
CARGO
    run
    expect 1 "5 passed, 1 failed"
    case $OUT in *"guests ended with exit status 101 before it could count"*) ;; *) fail "not said: $OUT" ;; esac
}

test_no_test_at_all_is_a_failure() {
    setup <<'CARGO'
echo 'test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured'
CARGO
    printf '#!/bin/sh\n' >"$BOX/build/test-one.sh"
    run
    expect 1 "0 passed, 0 failed"
}

run_tests
