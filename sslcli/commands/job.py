"""One job of a command that Hydra configures: the only one, or one of a sweep. No torch."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslcli import signals
from sslcli.commands.put_back import put_back
from sslcli.config.secrets import shown
from sslcli.distributed.local import RanksFailed
from sslcli.distributed.start import Start
from sslcli.errors import StartAgain, UserError, described, for_user
from sslcli.run_dir.outcome import FAILED, OK, RUNNING, STOPPED, Outcome, write_outcome
from sslcli.run_dir.owner import Superseded
from sslcli.run_dir.streams import leave, make_lenient


class Job:
    """The task of one job. It stores exceptions instead of raising them: a sweep continues, Hydra prints nothing.

    A launcher may send it to another process, on another machine: what comes of it there reaches the sweep by a file.
    """

    def __init__(self, task: Callable[[Any], Any], program: str, arguments: list[str]) -> None:
        self.task, self.program, self.arguments = task, program, arguments
        self.failure: Exception | None = None  # of the only job
        self.sweep = uuid.uuid4().hex  # tells this start of a sweep from others
        self._pid = os.getpid()
        self.__name__ = program  # hydra.main reads this attribute

    def __call__(self, config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        sys.argv = [self.program, *self.arguments]  # as they were given: a run writes down the command that resumes it
        if is_sweep(hydra):
            return self._of_sweep(config, Path(hydra.sweep.dir), hydra.job.num)
        try:
            return self.task(config)
        except Exception as raised:
            self.failure = for_user(raised)
            return None

    def _of_sweep(self, config: Any, sweep_dir: Path, number: int) -> Any:
        """Run the job and write its outcome; a signal ends the sweep only where that runs in this process."""
        first = Start.read().first

        def write(outcome: str, message: str = "", exit_code: int = 0) -> None:
            if first:
                content = Outcome(outcome=outcome, message=shown(message), exit_code=exit_code, sweep=self.sweep)
                write_outcome(sweep_dir, number, content)

        elsewhere = os.getpid() != self._pid
        if elsewhere:
            make_lenient()
            usual = multiprocessing.get_all_start_methods()[0]  # that of joblib cannot start data workers
            multiprocessing.set_start_method(usual, force=True)
            signals.install_in_job(speaks=first)
        write(RUNNING)
        try:
            value = self.task(config)
        except signals.Stopped as stop:
            write(STOPPED, stop.name, stop.exit_code)
            if not elsewhere:
                raise
            if first:
                print(f"{self.program}: job {number}: {stop.saved or f'stopped by {stop.name}'}", file=sys.stderr)
                put_back(stop.signum)
            return None
        except Superseded as raised:  # the newer start tells the sweep how the job ended
            self._told(raised, number)
            leave(raised.exit_code)
        except StartAgain as raised:
            write(STOPPED, *self._told(raised, number))
            return None
        except Exception as raised:
            write(FAILED, *self._told(raised, number))
            return None
        write(OK)
        return value

    def _told(self, raised: Exception, number: int) -> tuple[str, int]:
        """Print an exception of a sweep's job; return its message and exit code."""
        failure = for_user(raised)
        if isinstance(failure, UserError):
            if not isinstance(failure, RanksFailed):  # which have told it
                print(shown(f"{self.program}: job {number}: error: {failure}"), file=sys.stderr)
            return str(failure), failure.exit_code
        print(shown(traceback.format_exc()), end="", file=sys.stderr)
        return described(failure), 1


def is_sweep(hydra: Any) -> bool:
    """Whether Hydra runs this job as one of a sweep."""
    return hydra.mode is not None and hydra.mode.name == "MULTIRUN"
