"""How this process was started: alone, by torchrun, by srun, or by ``ssl-train device.num=...``. No torch."""

from __future__ import annotations

import os
import re
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sslcli.errors import UserError

PARENT, NAME = "SSLCLI_PARENT", "SSLCLI_START"  # what ``local`` sets: its pid, and a name for this start
JOBS = "SSLCLI_JOBS"  # what a sweep sets: how many of its jobs share this host at a time
PORTS = 8  # that rank 0 may take, from the first on


class LeftAlone(UserError):
    """Another process of the run has ended. The exit code is the lowest, as srun returns the highest: the cause's."""

    exit_code = 1

    def __init__(self) -> None:
        super().__init__("Another process of this run has ended; its own message says why.")


@dataclass(frozen=True)
class Start:
    """One of the ``size`` processes of a run, and how they find each other.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: its number among those of this host, which chooses its GPU.
        address: host name or address of rank 0.
        port: the first of the ports on which rank 0 may listen.
        name: of this start of the run. A process of another start, which may still be alive, has another one.
        by: the program that started the processes; empty for a process that was started alone.
        listens: whether a process of the run listens on the port; for torchrun its own process does.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0
    name: str = ""
    by: str = ""
    listens: bool = True

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Start:
        """Read torchrun's variables, else those of a Slurm step; a batch script of Slurm is one process.

        Raises:
            UserError: the variables contradict each other, or are no numbers.
        """
        if environ.get("WORLD_SIZE", "1") != "1" or "RANK" in environ:
            return _of_torchrun(environ)
        if "SLURM_STEP_ID" in environ and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            return _of_slurm(environ)
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    @property
    def has_parent(self) -> bool:
        """Whether ``ssl-train device.num=...`` started this process, and says what becomes of it."""
        return self.by == "ssl-train"

    @contextmanager
    def naming_this_rank(self) -> Iterator[None]:
        """Name the rank and its host in a UserError of this block, which may be one of this rank only."""
        try:
            yield
        except UserError as error:
            raise error if self.first else UserError(f"{self}: {error}") from None

    def __str__(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"


def sharing() -> int:
    """Return how many processes like this one share the machine: those of its run, times the jobs of its sweep."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * int(os.environ.get(JOBS, 1))


def available_cpus() -> int:
    """Return the CPUs that this process may use, divided by the number of those that share them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cpus // sharing())


def _of_torchrun(environ: Mapping[str, str]) -> Start:
    rank, size = _position(environ, "RANK", "WORLD_SIZE", "Start with torchrun, or unset both.")
    if size == 1:
        return Start(by="torchrun")
    if "MASTER_ADDR" not in environ or "MASTER_PORT" not in environ:
        raise UserError(f"WORLD_SIZE={size} is set, and not MASTER_ADDR and MASTER_PORT. Start with torchrun.")
    parent = environ.get(PARENT)
    return Start(
        rank,
        size,
        _number(environ, "LOCAL_RANK", str(rank)),
        environ["MASTER_ADDR"],
        _number(environ, "MASTER_PORT"),
        environ.get(NAME) or ".".join(environ.get(f"TORCHELASTIC_{key}", "") for key in ("RUN_ID", "RESTART_COUNT")),
        "ssl-train" if parent else "torchrun",
        environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
    )


def _of_slurm(environ: Mapping[str, str]) -> Start:
    rank, size = _position(environ, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Start with srun.")
    start = ".".join(environ.get(f"SLURM_{key}", "0") for key in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
    here = environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
    return Start(
        rank,
        size,
        _number(environ, "SLURM_LOCALID", "0"),
        environ.get("MASTER_ADDR") or ("localhost" if here else first_host(environ.get("SLURM_STEP_NODELIST", ""))),
        _number(environ, "MASTER_PORT", str(20000 + zlib.crc32(start.encode()) % 20000)),
        start,
        "srun",
    )


def first_host(hosts: str) -> str:
    """Return the first host of a list as Slurm writes it: ``n01`` of ``n[01-03,7],m2``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else "")


def _position(environ: Mapping[str, str], rank: str, size: str, advice: str) -> tuple[int, int]:
    for given, missing in ((rank, size), (size, rank)):
        if given in environ and missing not in environ:
            raise UserError(f"{given}={environ[given]} is set, and {missing} is not. {advice}")
    numbers = _number(environ, rank), _number(environ, size)
    if not 0 <= numbers[0] < numbers[1]:
        raise UserError(f"{rank}={numbers[0]} must be from 0 to {numbers[1] - 1}, for {size}={numbers[1]}. {advice}")
    return numbers


def _number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    text = environ.get(name, default)
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise UserError(f"{name}='{text}', in the environment, is not a whole number.")
    return int(text)
