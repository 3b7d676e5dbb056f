"""Steps of a run in processes of their own, whose memory is that of a run and of nothing before it.

``python -m sslcli.commands.fresh_process`` reads a ``Task`` from stdin and writes its cost to stdout; only this tool
starts it, so that both ends are its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sslcli.commands.build_trainer import make_trainer
from sslcli.components import Components, build_components
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.instantiate import allow
from sslcli.data.disk_cache import reading_only
from sslcli.errors import UserError, is_out_of_memory
from sslcli.run_dir.console import Console
from sslcli.run_dir.fitted import Fitted
from sslcli.training.device import choose, set_determinism, set_threads
from sslcli.training.plan_memory import Cost, Line, cost_of, divisors, through
from sslcli.types import Compute

_SMALL = 8, 64  # the smallest batches that are measured have so many samples
_FULL = "full"  # what is written if memory was


@dataclass(frozen=True)
class Task:
    """Steps to make.

    Args:
        config: that of the run, with its batch and micro-batches as they are to be measured.
        fitted: what is fitted on its data, by file.
        seconds: for about how long steps are timed.
    """

    config: TrainConfig
    fitted: dict[str, bytes]
    seconds: float


def in_fresh_process(task: Task) -> Cost | None:
    """Do a task in a process of its own; return None if memory was full.

    Raises:
        UserError: its steps cannot be made.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        pickle.dump(task, given)
        given.seek(0)
        command = [sys.executable, "-m", "sslcli.commands.fresh_process"]
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=errors) as process:
            try:
                out, _ = process.communicate()
            except BaseException:  # a signal to this process
                process.kill()
                raise
        if process.returncode == -signal.SIGKILL:  # by the kernel, when memory is full
            return None
        errors.seek(0)
        answer: Any = json.loads(out) if process.returncode == 0 else None
        if answer is None:
            told = errors.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"a process that measures steps ended with {process.returncode}:\n{told}")
    if answer == _FULL:
        return None
    if isinstance(answer, str):
        raise UserError(answer)
    return Cost(**answer)


@dataclass(frozen=True)
class Fresh:
    """Measures steps of a run.

    Args:
        config: its config, settled but for the number of micro-batches.
        components: its parts, of which nothing is used but what was fitted on the data, and their number.
        compute: its device and precision.
        threads: CPU threads of a process.
        make: does a task.
    """

    config: TrainConfig
    components: Components
    compute: Compute
    threads: int
    make: Callable[[Task], Cost | None] = in_fresh_process

    def cost(self, own: int, pieces: int = 1, *, seconds: float = 0.0) -> Cost | None:
        """Return the cost of a step of ``own`` samples in ``pieces`` micro-batches; None if memory was full.

        Raises:
            UserError: a step cannot be made.
        """
        config, train = self.config, self.config.train
        device = replace(config.device, name=str(self.compute.device), threads=self.threads, num=None)
        train = replace(train, batch_size=own, accumulate=pieces, precision=self.compute.precision)
        return self.make(Task(replace(config, train=train, device=device), self.components.fitted.files, seconds))

    def line(self, own: int) -> tuple[Line, Cost]:
        """Return memory as a function of the micro-batch, and the cost of the larger of the two that were measured.

        Args:
            own: samples of a step in this process, of which smaller parts are measured.

        Raises:
            UserError: not even the smallest batches fit.
        """
        most = len(self.components.dataset) // 2
        even = [n for n in divisors(own) if own % (2 * n) == 0 and _SMALL[0] <= n <= min(_SMALL[1], most)]
        small = max(even, default=max(1, min(_SMALL[0], most)))
        while True:
            low = self.cost(small)
            high = None if low is None else self.cost(2 * small)
            if low is not None and high is not None:
                return through(low, high), high
            if small < 4:
                raise UserError(f"train.batch_size: not even steps of {2 * small} samples fit into memory.")
            small //= 4 if low is None else 2


def measured(task: Task) -> Cost:
    """Build the parts of a run in this process, make its steps, and return their cost; nothing is written."""
    config = task.config
    allow(config.plugins)
    set_threads(config.device.threads)
    set_determinism(config.train.deterministic)
    compute = choose(config.device.name, config.train.precision)
    with reading_only(), tempfile.TemporaryDirectory() as elsewhere:  # where samples that cannot be read are listed
        components = build_components(config, afresh=False, fitted=Fitted(task.fitted, complete=True))
        trainer = make_trainer(config, components, compute, Path(elsewhere), Console(silent=True))
        trainer.hooks.clear()
        return cost_of(trainer, {"config": to_plain(config)}, seconds=task.seconds)


def main() -> None:
    """Do the task on stdin; write its cost, or why there is none, to stdout as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel ends this process rather than another
    answer: Any
    try:
        answer = asdict(measured(pickle.load(sys.stdin.buffer)))  # noqa: S301  written by the process that started this
    except Exception as error:
        if not is_out_of_memory(error) and not isinstance(error, UserError):
            raise
        answer = _FULL if is_out_of_memory(error) else str(error)
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
