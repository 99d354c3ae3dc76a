# shellcheck shell=bash
# For tests of scripts, to be sourced: runs every function called test_*, each in a subshell, and counts.
#
# The last line is "N passed, N failed", which build/test.sh adds up. A test fails by calling `fail`, or by any command
# that fails where nobody looks at it.

TESTING_DIR=$(mktemp -d)
trap 'rm -rf "$TESTING_DIR"' EXIT

fail() { # why
    printf '    %s\n' "$*" >&2
    exit 1
}

run_tests() {
    local name passed=0 failed=0 status
    for name in $(compgen -A function test_); do
        # Not as a condition: that would switch `set -e` off within the test.
        set +e
        (
            set -e
            "$name"
        ) 2>"$TESTING_DIR/words"
        status=$?
        set -e
        if [ "$status" = 0 ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            printf 'FAILED %s\n' "$name"
            cat "$TESTING_DIR/words"
        fi
    done
    printf '%s: %d passed, %d failed\n' "$(basename "$0")" "$passed" "$failed"
    [ "$failed" = 0 ]
}
