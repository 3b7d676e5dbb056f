"""A Slurm of two nodes on this machine, in a temporary folder, without systemd and without accounting. Needs root."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "runuser")
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={control}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=10
MailProg=/bin/true
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=n1,n2 MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""
# Without accounting sacct does not answer, by which submitit learns that a job was killed: it would wait for ever.
SACCT = """#!{python}
import re, subprocess, sys
print("JobID|State|NodeList")
for job in [word for option, word in zip(sys.argv, sys.argv[1:]) if option == "-j"]:
    lines = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True).stdout.splitlines()
    for facts in [dict(re.findall(r"(\\w+)=(\\S+)", line)) for line in lines]:
        array = "ArrayTaskId" in facts
        name = facts["ArrayJobId"] + "_" + facts["ArrayTaskId"] if array else facts["JobId"]
        print(name, facts["JobState"], facts.get("NodeList", ""), sep="|")
"""


def missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm of one's own needs root"


class Slurm:
    """The nodes ``n1`` and ``n2`` of four CPUs each, and two partitions: ``urgent`` takes them from ``main``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def call(self, *command: str) -> str:
        """What a command prints on stdout."""
        return self.start(*command).communicate(timeout=120)[0]

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """A command that runs on."""
        streams = {"stdout": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, **streams)

    def sbatch(self, *words: str) -> str:
        """Submit a job; its number."""
        return self.call("sbatch", "--parsable", *words).strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, ..., and the number of its restarts."""
        facts = dict(re.findall(r"(\w+)=(\S+)", self.call("scontrol", "show", "job", "-o", job)))
        return f"{facts['JobState']} {facts['Restarts']}"

    def wait_for(self, job: str, state: str) -> None:
        until(lambda: self.state(job) == state)

    def kill_daemon(self, name: str) -> None:
        """End a daemon at once, as a machine that fails does; what it has started goes on."""
        os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGKILL)

    def up(self, node: str) -> None:
        """Start a node's daemon."""
        subprocess.run(["slurmd", "-N", node], env=self.environment, check=True)


def until(happened: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Slurm]:
    """Slurm in this block, on ports of its own."""
    slurm = Slurm(folder)
    with contextlib.ExitStack() as sockets:
        ports = [sockets.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(3)]
    numbers = dict(zip(("control", "first", "second"), ports))
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=socket.gethostname().split(".")[0], **numbers))
    (folder / "sacct").write_text(SACCT.format(python=sys.executable))
    (folder / "sacct").chmod(0o755)
    with _munge():
        subprocess.run(["slurmctld"], env=slurm.environment, check=True)
        try:
            slurm.up("n1")
            slurm.up("n2")
            until(lambda: slurm.call("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle", "idle"])
            yield slurm
        finally:
            slurm.call("scancel", "--user=root")
            with contextlib.suppress(AssertionError):
                until(lambda: not slurm.call("squeue", "-h", "-t", "R,CG"), 20)
            for file in folder.glob("*.pid"):
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(file.read_text()), signal.SIGTERM)


@contextlib.contextmanager
def _munge() -> Iterator[None]:
    """The daemon by which Slurm's processes trust each other, if it does not run already."""
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        yield
        return
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
    until(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, 20)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path("/run/munge/munged.pid").read_text()), signal.SIGTERM)
