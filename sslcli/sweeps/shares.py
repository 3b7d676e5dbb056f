"""What each of several jobs at once gets of this host: GPUs, and CPU threads."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from sslcli.distributed.start import JOBS, available_cpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environ: Mapping[str, str], count: int) -> list[str]:
    """Return the names of the GPUs by which ``CUDA_VISIBLE_DEVICES`` chooses one.

    Args:
        environ: where that may have been set already; it counts up to the first name that is none, as for CUDA.
        count: the number of GPUs, if it has not.
    """
    if VISIBLE not in environ:
        return [str(number) for number in range(count)]
    names = environ[VISIBLE].split(",")
    is_name = [bool(re.fullmatch(r"\d+|(GPU|MIG)-\S+", name.strip())) for name in names]
    return [name.strip() for name in names[: [*is_name, False].index(False)]]


@dataclass(frozen=True)
class Wish:
    """What a job asks for by its config.

    Args:
        device: as of ``device.name``.
        ranks: processes of its run; 0 for one for each GPU.
        threads: CPU threads of each; None for its part of the CPUs.
    """

    device: str = "cpu"
    ranks: int = 1
    threads: int | None = None

    @classmethod
    def of(cls, config: DictConfig) -> Wish:
        """Read the device from the config of a job, which tells itself what is wrong with it."""
        name, num, threads = (
            OmegaConf.select(config, f"device.{key}", throw_on_resolution_failure=False)
            for key in ("name", "num", "threads")
        )
        return cls(str(name or "cpu"), 0 if num == "all" else num if isinstance(num, int) and num > 0 else 1, threads)

    @property
    def has_gpus(self) -> bool:
        """Whether its run takes the GPUs that it sees; ``cuda:1`` is one that the user has chosen."""
        return self.device in ("auto", "cuda")


@dataclass(frozen=True)
class Share:
    """What a job gets: GPUs, and the variables of its process."""

    gpus: Sequence[str]
    environment: Mapping[str, str]


class Host:
    """Gives jobs their shares of this host.

    Args:
        gpus: names of the GPUs.
        most: jobs at once; None for as many as there are GPUs for, or on CPUs one for each CPU.
        num_jobs: how many jobs there are.
    """

    def __init__(self, gpus: Sequence[str], most: int | None, num_jobs: int) -> None:
        self.gpus, self.most, self.num_jobs = gpus, most, num_jobs
        self._taken: Counter[str] = Counter(dict.fromkeys(gpus, 0))
        self._running = 0

    def take(self, wish: Wish) -> Share | None:
        """Return what a job gets, until it is given back; None if it must wait for another job to end.

        Of all GPUs it gets those that the fewest jobs have, and of these the first.
        """
        ranks = wish.ranks or max(1, len(self.gpus))
        chosen = self._chosen(wish, ranks)
        at_once = self._at_once(len(chosen))
        if self._running >= at_once or (self.most is None and any(self._taken[gpu] for gpu in chosen)):
            return None
        environment = {JOBS: str(at_once)}
        if wish.has_gpus and self.gpus:
            environment[VISIBLE] = ",".join(chosen)
        elif wish.device == "cpu":
            environment[VISIBLE] = ""
        if wish.threads is None and ranks == 1:  # what starts ranks divides the CPUs among them itself
            threads = max(1, available_cpus() // at_once)
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        self._running += 1
        self._taken.update(chosen)
        return Share(chosen, environment)

    def give_back(self, share: Share) -> None:
        """Take back what a job had that has ended."""
        self._running -= 1
        self._taken.subtract(share.gpus)

    def _chosen(self, wish: Wish, ranks: int) -> list[str]:
        if wish.has_gpus:
            return sorted(self.gpus, key=lambda gpu: self._taken[gpu])[:ranks]
        index = wish.device.removeprefix("cuda:")
        return [self.gpus[int(index)]] if index.isdecimal() and int(index) < len(self.gpus) else []

    def _at_once(self, num_gpus: int) -> int:
        if self.most is not None:
            return self.most
        return len(self.gpus) // num_gpus if num_gpus else min(self.num_jobs, available_cpus())
