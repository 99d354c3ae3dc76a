"""What every measurement stands on: a scratch directory, programs that announce themselves, and a look at processes.

The measured programs are shell scripts that write their process id into a FIFO as the first thing they do. A start is
thereby seen within microseconds, without asking the supervisor, and in the same way for all of them. Nothing here knows
any of the supervisors.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Seconds after which something that should have happened is taken for broken.
PATIENCE_S = 30
# Seconds for what is left of a supervisor to die after SIGKILL.
SWEEP_S = 10
# Seconds without a start after which the command is looked at: it may have failed.
GLANCE_S = 0.2
# Characters of what a failed command printed that are shown: the end of it, where the reason is.
SAID_CHARS = 300
# Bytes that are written to the log, and the length of its lines.
LOG_BYTES = 200_000_000
LOG_LINE = b"2000-01-01T00:00:00.000Z INFO a line as programs write them, of a hundred bytes in all: 0123456789a\n"
# prctl(2): who lost its parent becomes a child of ours, so that nothing escapes the sweep.
PR_SET_CHILD_SUBREAPER = 36


class Broken(Exception):
    """A measurement that cannot be had, with the reason. It is reported as such, and never estimated."""


@dataclass(frozen=True)
class Job:
    """A program to be supervised, in the words that all supervisors share."""

    name: str
    script: Path
    instances: int = 1
    restart: bool = False
    stop_timeout_s: int = 10


class Bed:
    """The scratch directory, and the processes that came out of it."""

    def __init__(self):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Short: the path of a socket has room for a hundred bytes.
        self.root = Path(tempfile.mkdtemp(prefix="astrid-peers."))
        self.text = self.root / "text"
        self.text_lines = LOG_BYTES // len(LOG_LINE)
        self.text_bytes = self.text_lines * len(LOG_LINE)
        self.text.write_bytes(LOG_LINE * self.text_lines)
        self.announcements = self._fifo("announcements")
        # A FIFO from which nothing ever comes: who reads it is at rest, and costs one exec and not two.
        self.silence = self._fifo("silence")
        self._pending = b""
        # What the command that is running prints.
        self.said = self.root / "said"
        announce = f"echo $$ >{self.root}/announcements\n"
        rest = f"read _ <{self.root}/silence\n"
        self.quiet = self._script("quiet", announce + rest)
        self.stubborn = self._script("stubborn", "trap '' TERM INT\n" + announce + rest)
        self.noisy = self._script("noisy", announce + f"exec cat {self.text}\n")

    def _fifo(self, name):
        os.mkfifo(self.root / name)
        # Open for both, so that neither side ever waits for the other to come.
        return os.open(self.root / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _script(self, name, text):
        path = self.root / name
        path.write_text(text)
        return path

    def home(self, name):
        """An empty directory for a supervisor."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        return path

    def environment(self, **more):
        """What a supervisor finds in its environment: nothing of the caller's but where programs are."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", "NO_COLOR": "1", **more}

    def announced(self, count=1, command=None):
        """Waits until `count` programs have started, by this command if one is given; gives their process ids."""
        pids = []
        deadline = time.monotonic() + PATIENCE_S
        poll = select.poll()
        poll.register(self.announcements, select.POLLIN)
        while True:
            *lines, self._pending = self._pending.split(b"\n")
            pids += [int(line) for line in lines]
            if len(pids) >= count:
                return pids
            left = deadline - time.monotonic()
            if left <= 0:
                raise Broken(f"only {len(pids)} of {count} programs started within {PATIENCE_S} s")
            if poll.poll(min(left, GLANCE_S) * 1000):
                self._pending += os.read(self.announcements, 1 << 16)
            elif command:
                self.succeeded(command, 0)

    def succeeded(self, command, patience_s=PATIENCE_S):
        """Waits for a command; one that failed is the end of the measurement, one that is not done yet only if it had time."""
        what = " ".join(Path(word).name for word in command.args[:3])
        try:
            status = command.wait(patience_s)
        except subprocess.TimeoutExpired as late:
            if patience_s:
                raise Broken(f"`{what}` did not end within {patience_s} s") from late
            return
        if status != 0:
            said = " ".join(self.said.read_text(errors="replace").split())
            raise Broken(f"`{what}` ended with {status}: {said[-SAID_CHARS:]}")

    def sweep(self):
        """Kills what is left of a supervisor and its programs, and forgets what they announced."""
        deadline = time.monotonic() + SWEEP_S
        while left := descendants(os.getpid()):
            if time.monotonic() > deadline:
                raise Broken(f"{len(left)} processes survive SIGKILL")
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            reap()
            time.sleep(0.01)
        self._pending = b""
        try:
            while os.read(self.announcements, 1 << 16):
                pass
        except BlockingIOError:
            pass

    def close(self):
        """Leaves nothing behind."""
        self.sweep()
        shutil.rmtree(self.root, ignore_errors=True)


def run(arguments, **options):
    """Runs a command to its end; gives what it printed."""
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_S, **options
        )
    except subprocess.TimeoutExpired as late:
        raise Broken(f"{Path(arguments[0]).name} {arguments[1]} did not end within {PATIENCE_S} s") from late
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0:
        raise Broken(f"{Path(arguments[0]).name} {arguments[1]}: exit {done.returncode}: {said[-SAID_CHARS:]}")
    return said


def reap():
    """Collects every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def gone(pids, act):
    """Does `act`, and gives the milliseconds from then until all of these processes are dead."""
    watched = select.poll()
    handles = set()
    for pid in pids:
        handle = os.pidfd_open(pid)
        handles.add(handle)
        watched.register(handle, select.POLLIN)
    try:
        began = time.monotonic()
        act()
        while handles:
            left = began + PATIENCE_S - time.monotonic()
            if left <= 0:
                raise Broken(f"{len(handles)} of {len(pids)} programs still run after {PATIENCE_S} s")
            for handle, _ in watched.poll(left * 1000):
                watched.unregister(handle)
                os.close(handle)
                handles.remove(handle)
        return (time.monotonic() - began) * 1000
    finally:
        for handle in handles:
            os.close(handle)


def descendants(ancestor):
    """All processes below this one that have not been reaped."""
    children = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found, queue = [], [ancestor]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def cpu_ns(pids):
    """CPU time that these processes have used, threads that ended included, in nanoseconds by the scheduler's own clock."""
    # What clock_getcpuclockid(3) makes of a process id: inverted, above three bits that say "what the scheduler counts".
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def memory_bytes(pids):
    """Memory of these processes, what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def memory_peak_bytes(pid):
    """The most memory that a process has ever had (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise Broken("the kernel does not say how much memory a process had at most")
