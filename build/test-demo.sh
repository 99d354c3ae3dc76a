#!/usr/bin/env bash
# Tests of demo.sh with a fake binary: that it ends by itself, fails when something failed, and leaves nothing.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=build/testing.sh
. "$HERE/testing.sh"

setup() {
    BOX=$(mktemp -d "$TESTING_DIR/case.XXXXXX")
    mkdir -p "$BOX/build" "$BOX/target/release" "$BOX/examples/documents"
    cp "$HERE/demo.sh" "$BOX/build/"
    touch "$BOX/README.md" "$BOX/examples/documents/"{page.html,report.pdf}
    cat >"$BOX/target/release/astrid" <<PROGRAM
#!/bin/sh
echo "\$*" >>'$BOX/log'
echo "\$ASTRID_HOME" >'$BOX/home'
[ ! -e "$BOX/fail-\$1" ] || exit 1
case \$1 in
start)
    mkdir -p "\$ASTRID_HOME/run" "\$ASTRID_HOME/log"
    echo 'the last words' >"\$ASTRID_HOME/log/astrid.log"
    sleep 600 >/dev/null 2>&1 </dev/null &
    echo \$! >"\$ASTRID_HOME/run/pid"
    cp "\$ASTRID_HOME/run/pid" '$BOX/pid' ;;
process)
    case "\$2 \$3" in
    'status clock')
        restarts=0
        [ -e '$BOX/gone' ] || ! grep -q '^process signal clock' '$BOX/log' || restarts=1
        printf '{\n"state": "running",\n"restarts": %s\n}\n' "\$restarts" ;;
    'logs clock')
        case "\$*" in *--follow*)
            [ ! -e '$BOX/first' ] || kill -INT "\$\$"
            echo ready >'$BOX/fifo'
            exec sleep 60 ;;
        esac ;;
    esac ;;
request)
    [ ! -e '$BOX/hang' ] || { echo ready >'$BOX/fifo'; exec sleep 600; }
    [ ! -e '$BOX/empty' ] && seq 100 || true ;;
stop)
    [ -e '$BOX/stuck' ] || { kill "\$(cat "\$ASTRID_HOME/run/pid")"; rm "\$ASTRID_HOME/run/pid"; } ;;
esac
PROGRAM
    chmod 755 "$BOX/target/release/astrid"
}

run() {
    STATUS=0
    OUT=$(bash "$BOX/build/demo.sh" 2>&1 </dev/null) || STATUS=$?
}

nothing_stays() {
    local home pid looks=0
    home=$(cat "$BOX/home")
    pid=$(cat "$BOX/pid" 2>/dev/null || echo none)
    [ ! -e "${home%/home}" ] || fail "the home is still there"
    until is_gone "$pid"; do
        looks=$((looks + 1))
        [ "$looks" -lt 200 ] || fail "the daemon is still there"
        sleep 0.1
    done
}

# Waits until the command that stays runs. Opened for both, so that what never comes does not stop the test.
ready() {
    read -r -t 60 _ <>"$BOX/fifo" || fail "it does not get there"
}

# A process that was ended and that nobody has reaped yet is a zombie.
is_gone() {
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null || true) in '' | Z*) ;; *) return 1 ;; esac
}

test_it_shows_everything_and_ends() {
    setup
    run
    [ "$STATUS" = 0 ] || fail "exit status $STATUS: $OUT"
    local line
    for line in start 'process list' 'process signal clock KILL' 'process why clock' 'process stop --all' 'request tool.v1.text.markdown @README.md' 'request tool.v1.text.html @examples/documents/page.html' \
        'request tool.v1.text.pdf @examples/documents/report.pdf' status 'capsule show text' stop; do
        grep -qx -e "$line" "$BOX/log" || fail "it did not run: $line"
    done
    case $OUT in *'... and 86 more lines'*'To try next'*) ;; *) fail "$OUT" ;; esac
    case $OUT in *$'\e'*) fail "colours without a terminal" ;; esac
    ! grep -q -e --follow "$BOX/log" || fail "it stays without a terminal"
    nothing_stays
}

test_a_program_that_does_not_come_back_is_a_failure() {
    setup
    touch "$BOX/gone"
    sed -i 's/^LOOKS=.*/LOOKS=2/' "$BOX/build/demo.sh"
    run
    [ "$STATUS" = 1 ] || fail "exit status $STATUS"
    case $OUT in *'clock did not come back'*) ;; *) fail "$OUT" ;; esac
    nothing_stays
}

# With a terminal it stays until Ctrl-C, which is no failure.
test_on_a_terminal_it_stays_until_interrupted() {
    command -v script >/dev/null && env --default-signal=INT true 2>/dev/null || return 0
    setup
    mkfifo "$BOX/fifo" "$BOX/keys"
    local terminal status=0
    # What runs in the background ignores the interrupt, and so does all below it. The shell that `script` calls must not stay between: dash
    # would end by the interrupt itself.
    env --default-signal=INT script -qec "exec bash '$BOX/build/demo.sh'" /dev/null <"$BOX/keys" >"$BOX/out" 2>&1 &
    terminal=$!
    exec 9>"$BOX/keys"
    ready
    printf '\003' >&9
    wait "$terminal" || status=$?
    exec 9>&-
    [ "$status" = 0 ] || fail "exit status $status: $(cat "$BOX/out")"
    ! grep -qx 'process stop --all' "$BOX/log" || fail "it went on"
    nothing_stays
}

# Whether the shell sees its own signal or the end of the command first is chance.
test_the_command_may_be_interrupted_before_the_shell() {
    command -v script >/dev/null || return 0
    setup
    touch "$BOX/first"
    local status=0
    env --default-signal=INT script -qec "exec bash '$BOX/build/demo.sh'" /dev/null </dev/null >"$BOX/out" 2>&1 || status=$?
    [ "$status" = 0 ] || fail "exit status $status: $(cat "$BOX/out")"
    nothing_stays
}

test_a_failure_shows_the_log_and_leaves_nothing() {
    setup
    touch "$BOX/fail-status"
    run
    [ "$STATUS" = 1 ] || fail "exit status $STATUS"
    case $OUT in *'the last words'*) ;; *) fail "$OUT" ;; esac
    nothing_stays
}

test_no_text_is_a_failure() {
    setup
    touch "$BOX/empty"
    run
    [ "$STATUS" = 1 ] || fail "exit status $STATUS"
    nothing_stays
}

test_a_daemon_that_does_not_stop_is_ended() {
    setup
    touch "$BOX/stuck"
    run
    nothing_stays
}

test_a_signal_leaves_nothing() {
    setup
    touch "$BOX/hang"
    mkfifo "$BOX/fifo"
    local demo status=0
    setsid bash "$BOX/build/demo.sh" >/dev/null 2>&1 </dev/null &
    demo=$!
    ready
    # As a terminal does it: to everybody in the group.
    kill -TERM -- "-$demo"
    wait "$demo" || status=$?
    [ "$status" = 143 ] || fail "exit status $status"
    nothing_stays
}

run_tests
