"""The measurements. Each begins with an empty supervisor and gives figures by name; raw ones are the limit of the machine."""

import os
import select
import signal
import statistics
import subprocess
import time

from bed import PATIENCE_S, Broken, Job, cpu_ns, gone, memory_bytes, memory_peak_bytes

MANY = 1000
CRASHES = 15
COMMANDS = 5
STUBBORN = 10
STUBBORN_TIMEOUT_S = 1
# Seconds between two crashes, so that each meets a supervisor at rest; not a divisor of anybody's timer.
CALM_S = 0.053
# Seconds for a supervisor to come to rest after many starts, and for how long it is then watched.
SETTLE_S = 2
WATCH_S = 10
# Seconds between two looks at the log, and after how many without a change the rest is taken for lost.
LOOK_S = 0.002
STALLED_S = 5


def median(values):
    return statistics.median(values)


def started(peer, job):
    """Defines a job, launches it and waits until it runs and the command has ended; gives milliseconds and process ids."""
    peer.define(job)
    began = time.monotonic()
    command = peer.launch()
    pids = peer.bed.announced(job.instances, command)
    took = (time.monotonic() - began) * 1000
    peer.bed.succeeded(command)
    return took, pids


def respawn(peer):
    """From SIGKILL until the next one's first words, with no delay configured; and what asking for a list costs."""
    job = Job("one", peer.bed.quiet, restart=True)
    _, [pid] = started(peer, job)
    lists = []
    for _ in range(COMMANDS):
        began = time.monotonic()
        peer.show()
        lists.append((time.monotonic() - began) * 1000)
    times = []
    for _ in range(CRASHES):
        time.sleep(CALM_S)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        [pid] = peer.bed.announced()
        times.append((time.monotonic() - began) * 1000)
    return {"respawn_ms": median(times), "list_ms": median(lists)}


def many(peer):
    """From the command until the last of many runs; then what they cost while nothing happens."""
    took, pids = started(peer, Job("many", peer.bed.quiet, instances=MANY))
    time.sleep(SETTLE_S)
    daemon = [peer.daemon(), *peer.helpers(set(pids))]
    before, began = cpu_ns(daemon), time.monotonic()
    time.sleep(WATCH_S)
    used, lasted = cpu_ns(daemon) - before, time.monotonic() - began
    return {
        "start_ms": took,
        "rest_percent": used / lasted / 1e7,
        "rest_bytes": memory_bytes(daemon),
        "processes": len(daemon),
    }


def logs(peer):
    """From a program's first words until all that it wrote is in its log."""
    job = Job("noisy", peer.bed.noisy)
    peer.define(job)
    command = peer.launch()
    peer.bed.announced(command=command)
    rate = peer.bed.text_bytes / written(lambda: peer.logs(job), peer.bed.text_bytes) / 1e6
    peak = memory_peak_bytes(peer.daemon())
    lines = sum(path.read_bytes().count(b"\n") for path in peer.logs(job))
    if lines != peer.bed.text_lines:
        raise Broken(f"{lines} of {peer.bed.text_lines} lines are in the log")
    peer.bed.succeeded(command)
    return {"log_mb_s": rate, "log_peak_bytes": peak}


def written(files, wanted):
    """Seconds until these files have that many bytes together. Seen twice: a look may fall into a rotation."""
    began = time.monotonic()
    size, changed = 0, began
    while True:
        last, size = size, 0
        for path in files():
            try:
                size += path.stat().st_size
            except FileNotFoundError:
                pass
        now = time.monotonic()
        if size != last:
            changed = now
        elif size == wanted:
            return changed - began
        elif now - changed > STALLED_S:
            raise Broken(f"{wanted - size:,} of {wanted:,} bytes that the program wrote before it ended never came into the log")
        time.sleep(LOOK_S)


def stop(peer):
    """From the command until all of a few programs that ignore the polite signal are dead."""
    job = Job("stubborn", peer.bed.stubborn, instances=STUBBORN, stop_timeout_s=STUBBORN_TIMEOUT_S)
    _, pids = started(peer, job)
    return {"stop_ms": gone(pids, lambda: peer.halt(job))}


MEASURES = [respawn, many, logs, stop]


class Raw:
    """What the machine gives to somebody who does nothing else: the limit."""

    name = "bare"

    def __init__(self, bed):
        self.bed = bed

    def _spawn(self):
        return os.posix_spawn("/bin/sh", ["sh", str(self.bed.quiet)], self.bed.environment())

    def respawn(self):
        pid = self._spawn()
        self.bed.announced()
        times = []
        for _ in range(CRASHES):
            time.sleep(CALM_S)
            handle = os.pidfd_open(pid)
            death = select.poll()
            death.register(handle, select.POLLIN)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            death.poll(PATIENCE_S * 1000)
            os.waitpid(pid, 0)
            os.close(handle)
            pid = self._spawn()
            self.bed.announced()
            times.append((time.monotonic() - began) * 1000)
        return {"respawn_ms": median(times)}

    def starts(self):
        began = time.monotonic()
        for _ in range(MANY):
            self._spawn()
        self.bed.announced(MANY)
        return {"start_ms": (time.monotonic() - began) * 1000}

    def logs(self):
        out = self.bed.root / "out"
        began = time.monotonic()
        run = subprocess.run(["sh", "-c", f"cat {self.bed.text} | cat >{out}"], check=False)
        took = time.monotonic() - began
        size = out.stat().st_size
        out.unlink()
        if run.returncode != 0 or size != self.bed.text_bytes:
            raise Broken("cat did not copy the text")
        return {"log_mb_s": size / took / 1e6}

    def stop(self):
        return {"stop_ms": STUBBORN_TIMEOUT_S * 1000}
