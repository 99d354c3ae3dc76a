"""The supervisors, each behind the same few verbs.

`prepare` brings an empty one up, outside of what is measured. `define` writes a job's definition, also outside. `launch`
and `halt` run the command that a person would type. Settings are each supervisor's own defaults but for what a
measurement is about, and those are written out here for all to see.
"""

import json
import subprocess
import time
from pathlib import Path

from bed import PATIENCE_S, Broken, descendants, run

# Open files that a thousand programs with two pipes and two logs each need, with room.
FILES = 10_000
# Rotated files that are kept: enough that nothing of the measured text is thrown away before it is counted.
LOGS_KEPT = 100


class Peer:
    """What all of them have in common."""

    name = ""

    def __init__(self, bed):
        self.bed = bed
        self.home = bed.root
        self.environment = bed.environment()

    def command(self, *arguments):
        """Runs one of the supervisor's commands to its end."""
        return run(self.client + list(arguments), env=self.environment)

    def begin(self, *arguments):
        """Begins one of the supervisor's commands; what it prints is kept for the case that it fails."""
        with open(self.bed.said, "wb") as said:
            return subprocess.Popen(
                self.client + list(arguments), env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )


class Astrid(Peer):
    name = "astrid"

    def __init__(self, bed, binary):
        super().__init__(bed)
        self.client = [str(binary)]
        self.version = run([str(binary), "--version"]).split()[-1]

    def prepare(self):
        self.home = self.bed.home("a")
        self.environment = self.bed.environment(ASTRID_HOME=str(self.home))
        self.command("start")

    def define(self, job):
        # Keys that say how to restart are refused where nothing is restarted.
        restart = 'restart = "never"'
        if job.restart:
            restart = 'restart = "always"\nbackoff = { policy = "fixed", base = "0s" }\nmax_restarts = 1000'
        text = f"""
[[processes]]
name = "{job.name}"
command = "/bin/sh"
args = ["{job.script}"]
instances = {job.instances}
{restart}
stop = {{ timeout = "{job.stop_timeout_s}s" }}
log = {{ size = "10MiB", keep = {LOGS_KEPT} }}
"""
        (self.home / "jobs.toml").write_text(text)

    def launch(self):
        return self.begin("process", "apply", str(self.home / "jobs.toml"))

    def halt(self, job):
        return self.begin("process", "stop", job.name)

    def show(self):
        return self.command("process", "list")

    def logs(self, job):
        return self.home.glob(f"log/children/*/{job.name}-0.out.log*")

    def daemon(self):
        return int((self.home / "run/pid").read_text())

    def helpers(self, programs):
        """Guard and keeper: what is below the daemon and is not one of the programs."""
        return [pid for pid in descendants(self.daemon()) if pid not in programs]


class Supervisord(Peer):
    name = "supervisord"

    def __init__(self, bed, venv):
        super().__init__(bed)
        self.bin = Path(venv) / "bin"
        python = run([str(self.bin / "python"), "-c", "import platform; print(platform.python_version())"])
        self.version = f'{run([str(self.bin / "supervisord"), "--version"])} (Python {python})'

    def prepare(self):
        self.home = self.bed.home("s")
        config = self.home / "supervisord.conf"
        config.write_text(f"""
[unix_http_server]
file={self.home}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self.home}/socket
[supervisord]
logfile={self.home}/log
pidfile={self.home}/pid
childlogdir={self.home}
minfds={FILES}
[include]
files={self.home}/jobs.ini
""")
        self.client = [str(self.bin / "supervisorctl"), "-c", str(config)]
        run([str(self.bin / "supervisord"), "-c", str(config)], env=self.environment)
        deadline = time.monotonic() + PATIENCE_S
        while not (self.home / "pid").exists() or not (self.home / "socket").exists():
            if time.monotonic() > deadline:
                raise Broken("supervisord does not come up")
            time.sleep(0.02)

    def define(self, job):
        text = f"""
[program:{job.name}]
command=/bin/sh {job.script}
process_name=%(program_name)s-%(process_num)d
numprocs={job.instances}
autorestart={"true" if job.restart else "false"}
startsecs=0
stopwaitsecs={job.stop_timeout_s}
stdout_logfile={self.home}/{job.name}-%(process_num)d.out.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups={LOGS_KEPT}
stderr_logfile={self.home}/{job.name}-%(process_num)d.err.log
"""
        (self.home / "jobs.ini").write_text(text)

    def launch(self):
        return self.begin("update")

    def halt(self, job):
        return self.begin("stop", f"{job.name}:*")

    def show(self):
        return self.command("status")

    def logs(self, job):
        return self.home.glob(f"{job.name}-0.out.log*")

    def daemon(self):
        return int((self.home / "pid").read_text())

    def helpers(self, programs):
        return []


class Pm2(Peer):
    name = "pm2"

    def __init__(self, bed, folder):
        super().__init__(bed)
        folder = Path(folder) / "node_modules"
        self.client = [str(folder / ".bin/pm2")]
        version = json.loads((folder / "pm2/package.json").read_text())["version"]
        self.version = f'{version} (Node {run(["node", "--version"]).lstrip("v")})'

    def prepare(self):
        self.home = self.bed.home("p")
        self.environment = self.bed.environment(PM2_HOME=str(self.home))
        self.command("ping")

    def define(self, job):
        app = {
            "name": job.name,
            "script": "/bin/sh",
            "args": [str(job.script)],
            "interpreter": "none",
            "exec_mode": "fork",
            "instances": job.instances,
            "autorestart": job.restart,
            "max_restarts": 1000,
            "kill_timeout": job.stop_timeout_s * 1000,
        }
        (self.home / "jobs.json").write_text(json.dumps({"apps": [app]}))

    def launch(self):
        return self.begin("start", str(self.home / "jobs.json"))

    def halt(self, job):
        return self.begin("stop", job.name)

    def show(self):
        return self.command("list")

    def logs(self, job):
        return (self.home / "logs").glob(f"{job.name}-out*.log")

    def daemon(self):
        return int((self.home / "pm2.pid").read_text())

    def helpers(self, programs):
        return []
