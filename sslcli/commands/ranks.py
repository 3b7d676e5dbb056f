"""``ssl-train device.num=N``: the command starts itself N times, as the ranks of one run.

It does not load torch, unless it counts GPUs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sslcli.config.arguments import SWEEP, key_of, overrides_of
from sslcli.config.composed import TrainConfig
from sslcli.config.quoting import for_hydra
from sslcli.distributed.local import run_ranks
from sslcli.distributed.start import Start, available_cpus
from sslcli.errors import UserError
from sslcli.run_dir.result_json import headline_value, read_result


def number_of_ranks(config: TrainConfig) -> int:
    """Return how many processes this command must start; 0 if it is itself the run's only one, or one of them.

    Raises:
        UserError: there are not as many GPUs, or other processes of the run are there already.
    """
    num = config.device.num
    start = Start.read()
    if num is None or start.has_parent or config.preview is not None or config.plan:
        return 0
    if start.size > 1:
        raise UserError(f"device.num={num}: {start.by} has started {start.size} processes already. Leave it out.")
    if num == 1:
        return 0
    name = config.device.name
    if name.startswith(("cuda:", "mps")):
        raise UserError(f"device.num={num}: {name} is one device. Use device=cuda or device=cpu.")
    return num if name == "cpu" and isinstance(num, int) else _of_gpus(num, name)


def _of_gpus(num: int | str, device: str) -> int:
    """Return the number of processes on a machine that may have GPUs; by ``device=auto`` they share CPUs if not."""
    import torch

    gpus = torch.cuda.device_count()
    if num == "all" and not gpus:
        raise UserError("device.num=all is one process for each GPU, and there is none here. Give a number.")
    num = gpus if num == "all" else int(num)
    if num > gpus and (gpus or device == "cuda"):
        raise UserError(f"device.num={num}: this machine has {gpus or 'no'} GPUs. Give at most {gpus}, or device=cpu.")
    return num if num > 1 else 0


def train_on_ranks(config: TrainConfig, num: int, sweep_run_dir: Path | None, overrides: Sequence[str]) -> float | None:
    """Start the ranks of one run, wait for them, and return the run's headline metric if it is a job of a sweep.

    Args:
        config: the config of the run.
        num: the number of ranks.
        sweep_run_dir: the folder of the job, if this is one of a sweep.
        overrides: those of the job.

    Raises:
        RanksFailed: a rank failed; the message has been printed.
        Stopped: a signal came, and the ranks have stopped.
    """
    command = [sys.executable, *sys.orig_argv[1:]]
    if sweep_run_dir is not None:
        flags = [word for word in sys.argv[1:] if word not in {*SWEEP, *overrides_of(sys.argv[1:])}]
        own = [word for word in overrides if key_of(word) != "run_dir"]
        command = [sys.executable, "-m", "sslcli", "train", *flags, *own, for_hydra("run_dir", sweep_run_dir)]
    run_ranks(command, num, config.device.threads or max(1, available_cpus() // num))
    result = read_result(sweep_run_dir) if sweep_run_dir is not None else None
    return headline_value(result) if result is not None else None
