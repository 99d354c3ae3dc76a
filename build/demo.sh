#!/usr/bin/env bash
# Astrid at work, for somebody who sees it for the first time: a daemon in a home of its own watches over programs, converts documents,
# and says what that cost. On a terminal it then stays until Ctrl-C; elsewhere it ends by itself. Nothing of it stays, however
# this ends. Run by `make run`; asks nothing.
set -euo pipefail

cd "$(dirname "$0")/.."
# Short: the path of a socket has room for a hundred bytes.
scratch=$(mktemp -d "/tmp/astrid-demo.XXXXXX")
export ASTRID_HOME=$scratch/home
# An idle limit of the caller's is not meant for this daemon.
unset ASTRID_IDLE_TIMEOUT_SECS
# Seconds that the daemon has for stopping by itself.
STOP_S=20
# Lines that are shown of a document, and of the log when something failed.
HEAD_LINES=14
LOG_LINES=20
# Looks, a fifth of a second apart, for a program that comes back.
LOOKS=100
astrid=$PWD/target/release/astrid

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold='' dim='' plain=''
fi

# Called once, whatever happens: by the end, by an error, by a signal.
finish() {
    local status=$? pid
    trap '' HUP INT TERM
    timeout "$STOP_S" "$astrid" stop >/dev/null 2>&1 || true
    # A daemon that ended took this file along; one that did not is known to nobody else.
    pid=$(cat "$ASTRID_HOME/run/pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    if [ "$status" != 0 ]; then
        printf '\nThe demonstration failed (exit status %d).\n' "$status" >&2
        if [ -s "$ASTRID_HOME/log/astrid.log" ]; then
            printf 'The end of the log of the daemon:\n' >&2
            tail -n "$LOG_LINES" "$ASTRID_HOME/log/astrid.log" >&2
        fi
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

# Words as they would have to be typed.
typed() {
    local word
    for word; do
        case $word in *[!a-zA-Z0-9_./:=@-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
}

run() { # astrid's arguments...
    printf '%s$ astrid%s%s\n' "$dim" "$(typed "$@")" "$plain"
    "$astrid" "$@"
}

# Converts a document and shows the beginning of what comes back.
convert() { # topic file
    local began ended lines
    printf '%s$ astrid request %s @%s%s\n' "$dim" "$1" "$2" "$plain"
    began=${EPOCHREALTIME/[.,]/}
    "$astrid" request "$1" "@$2" >"$scratch/text"
    ended=${EPOCHREALTIME/[.,]/}
    lines=$(wc -l <"$scratch/text")
    [ -s "$scratch/text" ] || { echo "$2 became nothing" >&2 && return 1; }
    head -n "$HEAD_LINES" "$scratch/text" | sed 's/^/    /'
    if [ "$lines" -gt "$HEAD_LINES" ]; then printf '    %s... and %d more lines%s\n' "$dim" $((lines - HEAD_LINES)) "$plain"; fi
    printf '%s%d bytes in, %d bytes of text back, %d ms%s\n\n' "$dim" \
        "$(wc -c <"$2")" "$(wc -c <"$scratch/text")" $(((ended - began) / 1000)) "$plain"
}

# Waits until a program was restarted and runs.
comes_back() { # name
    local look status
    for ((look = 0; look < LOOKS; look++)); do
        status=$("$astrid" process status "$1" --format json)
        if grep -q '"state": "running"' <<<"$status" && ! grep -q '"restarts": 0' <<<"$status"; then return 0; fi
        sleep 0.2
    done
    echo "$1 did not come back" >&2
    return 1
}

title 'A daemon, in a home that is gone when this is over'
run start

title 'Programs under supervision: one, and two copies of another'
mkdir "$scratch/work"
run process run clock --cwd "$scratch/work" -- /bin/sh -c 'echo "the clock starts" >&2; while date; do sleep 1; done'
# The variable is the program's.
# shellcheck disable=SC2016
run process run worker --instances 2 --cwd "$scratch/work" -- /bin/sh -c 'echo "this is worker $ASTRID_INSTANCE"; exec sleep 1000'
run process list

title 'One of them crashes, and comes back'
run process signal clock KILL
comes_back clock
run process list
run process why clock
run process logs clock -n 5
run process logs worker -n 5

title 'Documents go through its socket into a capsule, and come back as text'
convert tool.v1.text.markdown README.md
convert tool.v1.text.html examples/documents/page.html
convert tool.v1.text.pdf examples/documents/report.pdf

title 'What it did, and what that cost'
run status
echo
run capsule show text

# Somebody watches, and may want to look around.
if [ -t 0 ] && [ -t 1 ]; then
    title 'The daemon stays until Ctrl-C. In another terminal:'
    cat <<LOOK

    export PATH="$PWD/target/release:\$PATH" ASTRID_HOME=$ASTRID_HOME
    astrid process list
    astrid process stop worker
    astrid watch '>'

LOOK
    trap 'exit 0' INT
    # Ctrl-C reaches both, and whether the shell sees its own signal or the end of the command first is chance.
    status=0
    run process logs clock --follow || status=$?
    if [ "$status" = 130 ]; then status=0; fi
    exit "$status"
fi

title 'The end'
run process stop --all
run stop

cat <<NEXT

${bold}To try next${plain}, with a daemon that stays, in ~/.astrid:

    export PATH="$PWD/target/release:\$PATH"
    astrid start
    astrid process run web -- python3 -m http.server     # runs, and is kept running
    astrid process import Procfile                       # or pm2's ecosystem file
    astrid capsule list                                  # what is built in
    astrid request tool.v1.text.html @PAGE.html          # a page that you saved
    astrid watch 'astrid.v1.>'                           # what the kernel announces, until Ctrl-C
    astrid stop

README.md goes on from there: a tour of five minutes, and how to write a capsule.
NEXT
