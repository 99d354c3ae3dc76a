"""Measures Astrid beside other supervisors of programs, in one run and in turns, and writes the table. See build/peers.sh.

Rounds go on until there are enough or time is up; a figure is the median of its rounds. What a peer cannot do, or takes
too long for, is said where its figure would be.
"""

import argparse
import os
import platform
import resource
import signal
import statistics
import sys
import time
from pathlib import Path

import measures
import report
from bed import Bed, Broken
from measures import Raw
from peers import FILES, Astrid, Pm2, Supervisord

ROUNDS = 3
# Seconds after which no round begins that would, by the last one, not end in time.
TIME_S = 340


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--astrid", type=Path, required=True, help="the binary")
    arguments.add_argument("--supervisor", type=Path, help="a venv with supervisor in it")
    arguments.add_argument("--pm2", type=Path, help="a folder with pm2 in its node_modules")
    arguments.add_argument("--missing", action="append", default=[], help="NAME: why this peer could not be had")
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--out", type=Path, required=True, help="the file for the table")
    given = arguments.parse_args()
    allow_files()
    # The scratch directory and all processes go, also when somebody stops this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bed = Bed()
    try:
        peers = [Astrid(bed, given.astrid.resolve())]
        if given.supervisor:
            peers.append(Supervisord(bed, given.supervisor))
        if given.pm2:
            peers.append(Pm2(bed, given.pm2))
        outcome = Outcome()
        load = [os.getloadavg()[0]]
        rounds = all_rounds(bed, peers, given.rounds, outcome)
        load.append(os.getloadavg()[0])
    finally:
        bed.close()
    text = report.table(peers, outcome, given.missing, machine(), load, rounds)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(text)
    print(text)
    return 1 if any(peer == "astrid" for peer, _ in outcome.broken) else 0


class Outcome:
    """Figures by peer and name, and why some could not be had by peer and measurement; a list of each, for the rounds."""

    def __init__(self):
        self.figures = {}
        self.broken = {}

    def add(self, peer, figures):
        for name, value in figures.items():
            self.figures.setdefault((peer, name), []).append(value)

    def fail(self, peer, measure, reason):
        self.broken.setdefault((peer, measure), []).append(reason)

    def median(self, peer, name):
        values = self.figures.get((peer, name))
        return statistics.median(values) if values else None


def all_rounds(bed, peers, wanted, outcome):
    """All rounds; gives how many there were time for."""
    began = last = time.monotonic()
    for done in range(wanted):
        now = time.monotonic()
        if done and now - began + (now - last) > TIME_S:
            return done
        last = now
        one_round(bed, peers, done, outcome)
        print(f"round {done + 1}: {time.monotonic() - last:.0f} s, load {os.getloadavg()[0]:.2f}", file=sys.stderr)
    return wanted


def one_round(bed, peers, number, outcome):
    """Every measurement, with the peers in turns; who begins changes from round to round."""
    raw = Raw(bed)
    for measure, bare in zip(measures.MEASURES, (raw.respawn, raw.starts, raw.logs, raw.stop), strict=True):
        outcome.add(raw.name, bare())
        bed.sweep()
        for turn in range(len(peers)):
            peer = peers[(number + turn) % len(peers)]
            try:
                peer.prepare()
                figures = measure(peer)
                outcome.add(peer.name, figures)
                print(f"{peer.name:12} {measure.__name__:8} {rounded(figures)}", file=sys.stderr)
            except (Broken, OSError) as reason:
                outcome.fail(peer.name, measure.__name__, str(reason))
                print(f"{peer.name:12} {measure.__name__:8} failed: {reason}", file=sys.stderr)
            finally:
                bed.sweep()


def rounded(figures):
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def allow_files():
    """Everything that is measured inherits this: a thousand programs have thousands of pipes and logs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        sys.exit(f"{FILES} open files are needed, the limit is {hard}: see `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES) if soft != resource.RLIM_INFINITY else soft, hard))


def machine():
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    # What follows the version proper is a builder's own name for it.
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} cores ({model}), Linux {kernel}"


sys.exit(main())
