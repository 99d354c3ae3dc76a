"""The table: figures with their ratio to the best, what was compared, and what about it is not fair."""

from bed import LOG_BYTES, LOG_LINE
from measures import COMMANDS, CRASHES, MANY, SETTLE_S, STUBBORN, STUBBORN_TIMEOUT_S, WATCH_S

# (name of the figure, the measurement it comes from, text, goal, unit, better when smaller)
ROWS = [
    ("respawn_ms", "respawn", "crash to respawn, no delay", "5 ms", "ms", True),
    ("start_ms", "many", f"start of {MANY:,}", "3,000 ms", "ms", True),
    ("rest_percent", "many", f"{MANY:,} at rest: CPU, of a core", "1 %", "%", True),
    ("rest_bytes", "many", f"{MANY:,} at rest: memory", "-", "MB", True),
    ("log_mb_s", "logs", "output into the log", "500 MB/s", "MB/s", False),
    ("log_peak_bytes", "logs", "the same: most memory of the daemon", "-", "MB", True),
    ("stop_ms", "stop", f"stop of {STUBBORN} that ignore it", "-", "ms", True),
    ("list_ms", "respawn", "command that lists one program", "-", "ms", True),
]


def table(peers, outcome, missing, machine, load, rounds):
    names = ["bare", *(peer.name for peer in peers)]
    lines = [
        "# Astrid and its peers",
        "",
        "`make peers` measures Astrid beside other supervisors of programs, in one run and in turns, and writes this file.",
        "",
        f"- Machine: {machine}. Load average {load[0]:.2f} before and {load[1]:.2f} after.",
        f"- Versions: {', '.join(f'{peer.name} {peer.version}' for peer in peers)}.",
        f"- Figures are medians of {rounds} round{'s' if rounds != 1 else ''}; in brackets the ratio to the best supervisor, where 1 is the best.",
        "",
        f"| What | {' | '.join(names)} | Goal |",
        f"|---|{'---:|' * len(names)}---:|",
    ]
    lines += [row(peers, outcome, *each) for each in ROWS]
    for reason in missing:
        lines += ["", f"Not measured: {reason}."]
    for (peer, measure), reasons in outcome.broken.items():
        which = ", ".join(text for _, source, text, *_ in ROWS if source == measure)
        lines += ["", f"No figure of {peer} in {len(reasons)} of {rounds} rounds for: {which}. The last time: {reasons[-1]}."]
    return "\n".join(lines) + "\n" + notes(outcome)


def row(peers, outcome, figure, measure, text, goal, unit, smaller):
    found = {peer.name: outcome.median(peer.name, figure) for peer in peers}
    best = (min if smaller else max)((value for value in found.values() if value), default=None)
    cells = [shown(outcome.median("bare", figure), unit)]
    for name, value in found.items():
        if value is None:
            cells.append("no figure" if (name, measure) in outcome.broken else "-")
        else:
            cells.append(f"{shown(value, unit)} ({ratio(value / best if smaller else best / value)})")
    return f"| {text} | {' | '.join(cells)} | {goal} |"


def shown(value, unit):
    if value is None:
        return "-"
    if unit == "MB":
        value /= 1e6
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f} {unit}"


def ratio(value):
    """How many times the best; the best itself is 1, and so is what differs by less than is measured."""
    if value < 1.005:
        return "1"
    return f"{value:,.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 2 else f"{value:.2f}x"


def notes(outcome):
    helpers = outcome.median("astrid", "processes") or 0
    return f"""
## What is compared

The programs are shell scripts (`tests/peers/bed.py`) that first write their process id into a FIFO; the clock is one process that
reads it, the same for all. `bare` is that process doing the least that does the job, which is a yardstick and not a competitor.

- **Crash to respawn**: from `SIGKILL` to the first words of the next, median of {CRASHES} crashes 50 ms apart. Bare: wait for the death,
  `posix_spawn`.
- **Start of {MANY:,}**: from the command that brings a new definition to a supervisor that runs, until the last program has announced
  itself. Bare: `posix_spawn` in a loop, nothing connected.
- **At rest**: those programs, watched for {WATCH_S} s after {SETTLE_S} s of calm. CPU time by the scheduler's clock, memory as PSS, of the daemon
  and everything else that is not one of the programs (for Astrid {helpers:.0f} processes: daemon, guard and keeper).
- **Output into the log**: a program writes {LOG_BYTES // 1_000_000} MB in lines of {len(LOG_LINE)} bytes to its stdout; until all of it is in files, which are counted
  again after that. Bare: `cat TEXT | cat >FILE`, which is no limit: its pipe holds 64 KiB, and who has a larger one wakes up less often.
- **Stop**: the command for stopping {STUBBORN} programs that ignore the polite signal and have {STUBBORN_TIMEOUT_S} s, until the last is dead. Bare: the
  timeout itself.
- **List**: the command that a person types to see how one program is, median of {COMMANDS}.

## What is not fair

- Settings are the defaults but for those that a measurement is about (`tests/peers/peers.py`): no delay after a crash, no limit to
  crashes, {STUBBORN_TIMEOUT_S} s for stopping, and `startsecs=0` for supervisord, which otherwise takes a program that lived less than a second for
  one that failed to start, and waits.
- supervisord and pm2 only start a program. Astrid also gives it Landlock, no-new-privileges, a session and a subreaper of its own,
  for which there is one `exec` more in each start.
- supervisord looks at what ended once in a second, by design; with its delay there is nothing to be tuned. It also wakes up once a second
  at rest. pm2 has a check every 30 s, which a watch of {WATCH_S} s may or may not meet.
- Astrid's memory is that of a kernel with its capsules and the engine that runs them, whatever they do; those of the others are an interpreter's.
- supervisord and Astrid rotate the log every 10 MiB here; pm2 has no rotation of its own and writes one file, unrotated.
- `start`, `stop` and `list` include the start of the command itself: of Python, and of Node. That is what a person waits for.
- pm2 starts two programs at a time by default. It is made for Node programs; its cluster mode for them is not measured.
- Programs with little to do are the worst case for a supervisor's share of the cost; for large ones it hardly matters.

## The command

```sh
make peers                        # ASTRID_BIN=PATH measures another binary
```

Supervisors come from PyPI and npm, in fixed versions, into the cache directory; nothing is installed. Figures differ between
machines by a factor; the ratios are what counts.
"""
