"""One job of a command that Hydra configures: the only one, or one of a sweep. No torch."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sslcli import signals
from sslcli.commands.put_back import put_back
from sslcli.config.arguments import varying
from sslcli.config.secrets import shown
from sslcli.distributed.local import RanksFailed
from sslcli.distributed.start import Start
from sslcli.errors import StartAgain, UserError, described, for_user
from sslcli.run_dir.outcome import FAILED, OK, PRUNED, RUNNING, STOPPED, Outcome, write_outcome
from sslcli.run_dir.owner import Superseded
from sslcli.run_dir.result_json import result_line
from sslcli.run_dir.streams import leave, make_lenient
from sslcli.sweeps.job_folder import job_folder
from sslcli.sweeps.job_log import NAME as JOB_LOG
from sslcli.sweeps.job_log import output_to, running
from sslcli.sweeps.trial import Trial


class Job:
    """The task of one job. It stores exceptions instead of raising them: a sweep continues, Hydra prints nothing.

    A launcher may send it to another process, on another machine: what comes of it there reaches the sweep by a file.

    Args:
        task: gets the composed config and returns the value by which a sweeper compares jobs.
        program: the name of the command.
        arguments: the command line, without the program.
        has_log: whether what a job of a sweep prints goes to its folder, and only a line about it to the screen.
    """

    def __init__(
        self, task: Callable[[Any], Any], program: str, arguments: list[str], *, has_log: bool = False
    ) -> None:
        self.task, self.program, self.arguments, self.has_log = task, program, arguments, has_log
        self.failure: Exception | None = None  # of the only job, or the first of a sweep that is only planned
        self.is_plan = False  # whether this is a sweep that is only planned
        self.sweep = uuid.uuid4().hex  # tells this start of a sweep from others
        self._pid = os.getpid()
        self.__name__ = program  # hydra.main reads this attribute

    def __call__(self, config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        sys.argv = [self.program, *self.arguments]  # as they were given: a run writes down the command that resumes it
        self.is_plan = is_sweep(hydra) and bool(config.get("plan"))
        if is_sweep(hydra) and not self.is_plan:
            return self._of_sweep(config, hydra)
        try:
            return self.task(config)
        except Exception as raised:
            failure = for_user(raised)
            self.failure = self.failure or failure
            if self.is_plan:
                print(shown(f"{' '.join(varying(hydra.overrides.task, self.arguments))}  error: {failure}"), flush=True)
            return None

    def _of_sweep(self, config: Any, hydra: Any) -> Any:
        """Run the job and write its outcome; a signal ends the sweep only where that runs in this process."""
        folder = job_folder(hydra)
        first = Start.read().first
        given = [shown(text) for text in varying(hydra.overrides.task, self.arguments)]
        self._name = " ".join([f"job {folder.name}", *given])

        def write(outcome: str, message: str = "", exit_code: int = 0) -> None:
            if first:
                content = Outcome(outcome=outcome, message=shown(message), exit_code=exit_code, sweep=self.sweep)
                write_outcome(folder.parent, int(folder.name), content)

        elsewhere = os.getpid() != self._pid
        if elsewhere:
            make_lenient()
            usual = multiprocessing.get_all_start_methods()[0]  # that of joblib cannot start data workers
            multiprocessing.set_start_method(usual, force=True)
            signals.install_in_job(speaks=first)
        write(RUNNING)
        try:
            with self._apart(folder, elsewhere=elsewhere):
                value = self.task(config)
        except signals.Stopped as stop:
            write(STOPPED, stop.name, stop.exit_code)
            if not elsewhere:
                stop.saved = f"{self._name}: {stop.saved or f'stopped by {stop.name}'}"
                raise
            if first:
                self._say(f"{stop.saved or f'stopped by {stop.name}'}")
                put_back(stop.signum)
            return None
        except Superseded as raised:  # the newer start tells the sweep how the job ended
            self._say(raised)
            leave(raised.exit_code)
        except StartAgain as raised:
            write(STOPPED, *self._told(raised))
            return None
        except Exception as raised:
            write(FAILED, *self._told(raised))
            return None
        trial = Trial.of_environment()
        pruned = trial is not None and trial.was_pruned
        write(PRUNED if pruned else OK)
        if first:
            print(f"{self._name}: {PRUNED if pruned else result_line(folder)}", flush=True)
        return value

    @contextmanager
    def _apart(self, folder: Path, *, elsewhere: bool) -> Iterator[None]:
        """Let what the job prints go to its folder inside this block; an error is printed there, too."""
        with ExitStack() as held:
            if self.has_log:
                held.enter_context(nullcontext() if elsewhere else running(self._name, folder))
                held.enter_context(output_to(folder))
            held.enter_context(_telling(self.program, mistakes=self.has_log))
            yield

    def _say(self, text: object) -> None:
        print(f"{self.program}: {self._name}: {shown(text)}", file=sys.stderr, flush=True)

    def _told(self, raised: Exception) -> tuple[str, int]:
        """Print in a line why a job of a sweep failed; return its message and exit code."""
        failure = for_user(raised)
        if isinstance(failure, UserError):
            self._say(f"error: {failure}")
            return str(failure), failure.exit_code
        self._say(f"error: {described(failure)} (a bug, its traceback is in {JOB_LOG})")
        return described(failure), 1


@contextmanager
def _telling(program: str, *, mistakes: bool) -> Iterator[None]:
    """Print the traceback of a bug that ends this block and, where they have a place of their own, mistakes, too."""
    try:
        yield
    except Exception as raised:
        failure = for_user(raised)
        if not isinstance(failure, UserError):
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
        elif mistakes and not isinstance(failure, RanksFailed):  # which have told it
            print(shown(f"{program}: error: {failure}"), file=sys.stderr)
        raise


def is_sweep(hydra: Any) -> bool:
    """Whether Hydra runs this job as one of a sweep."""
    return hydra.mode is not None and hydra.mode.name == "MULTIRUN"
