"""A real Slurm on this machine alone: its own key, configuration, ports and folder; nothing of it outlives `stop`."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
SYSTEM_PATHS = "/usr/sbin:/usr/bin"
CPUS = 8  # more than a small machine has: tests wait more than they compute

CONFIGURATION = """
ClusterName=alexnet-lab-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=20
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUS={cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def what_is_missing() -> list[str]:
    """The programs of Slurm and munge that this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:{SYSTEM_PATHS}") is None]


class OneNodeSlurm:
    """The daemons, and the commands that talk to them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**environment, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] = f"{environment['PATH']}:{SYSTEM_PATHS}"
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        text = CONFIGURATION.format(host=host, user=getpass.getuser(), folder=self.folder, cpus=CPUS, **ports)
        (self.folder / "slurm.conf").write_text(text)
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{name}={self.folder / file}" for name, file in (files | {"seed-file": "munge.seed"}).items()]
        self._daemon("munged", "--foreground", "--force", *options)
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        self._daemon("slurmd", "-D", "-f", self.environment["SLURM_CONF"], "-N", host)
        self._until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T").stdout, "an idle node")

    def stop(self) -> None:
        """End all jobs and then the daemons, the node's first."""
        self.run("scancel", "--full", f"--user={getpass.getuser()}")
        deadline = time.monotonic() + 40
        while self.run("squeue", "--noheader").stdout.strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def submit(self, script: str, *options: str, folder: Path) -> str:
        """The number of the job that a batch script has become."""
        path = self.folder / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        sent = self.run("sbatch", "--parsable", f"--chdir={folder}", *options, str(path))
        assert sent.returncode == 0, sent.stderr
        return sent.stdout.strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, ... as Slurm has it."""
        return self._property(job, "JobState")

    def restarts(self, job: str) -> int:
        return int(self._property(job, "Restarts"))

    def start_now(self, job: str) -> None:
        """Slurm lets a requeued job wait for two minutes.

        Its node refuses one ("already killed") that comes back within the whole second of its own end.
        """
        time.sleep(2)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def _property(self, job: str, name: str) -> str:
        words: list[str] = []
        deadline = time.monotonic() + 30
        while not words:  # a busy controller may leave a question without an answer
            asked = self.run("scontrol", "show", "job", job)
            words = asked.stdout.split()
            assert words or time.monotonic() < deadline, asked.stderr
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def _daemon(self, name: str, *options: str) -> None:
        program = shutil.which(name, path=self.environment["PATH"])
        assert program
        log = (self.folder / f"{name}.out").open("ab")
        self._daemons.append(
            subprocess.Popen([program, *options], env=self.environment, stdout=log, stderr=log, start_new_session=True)
        )

    def _until(self, condition, what: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.folder.glob("*.out"))
            assert time.monotonic() < deadline, f"no {what} within {seconds} s\n{logs}"
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
