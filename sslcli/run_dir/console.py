"""The output of a run: lines on stdout, warnings on stderr, both in ``train.log``; and a progress bar."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sslcli.config.secrets import shown
from sslcli.run_dir import inside

WARNING = "warning: "  # how a line with a warning begins, on stderr and in the log file
SECONDS = 0.5  # how long a phase may take before it gets a bar
SMOOTHING = 0.02  # weight of the newest of the steps, or tenths of a second, whose mean gives the remaining time


def progress(what: str, total: int, unit: str) -> Any:
    """Return a bar with the remaining time for a phase after the last step, on stderr; none where it is no terminal.

    Args:
        what: the name of the phase.
        total: how many units it has.
        unit: what is counted.
    """
    return tqdm(
        total=total, desc=what, unit=f" {unit}", unit_scale=True, leave=False, disable=None, delay=SECONDS,
        dynamic_ncols=True,
    )  # fmt: skip


class Console:
    """Prints the output of one run and, after ``log_to``, writes it to a file.

    Args:
        silent: print nothing, for the processes of a run other than rank 0.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._path: Path | None = None
        self._early: list[str] = []  # warnings that came before there was a log file
        self._bar: Any = None

    def log_to(self, path: Path) -> None:
        """From now on, also append lines and warnings to the file ``path``, and the warnings that came before."""
        self._path = path
        for text in self._early:
            self._log(text)
        self._early.clear()

    def line(self, text: str = "") -> None:
        """Print a line on stdout and append it to the log file."""
        if self._silent:
            return
        text = shown(text)
        with tqdm.external_write_mode(file=sys.stdout):
            print(text, flush=True)
        self._log(text)

    def warn(self, text: str) -> None:
        """Print a warning on stderr and append it to the log file."""
        if self._silent:
            return
        text = f"{WARNING}{shown(text)}"
        with tqdm.external_write_mode(file=sys.stderr):
            print(text, file=sys.stderr, flush=True)
        self._log(text) if self._path is not None else self._early.append(text)

    def _log(self, text: str) -> None:
        if self._path is not None:
            inside.append(self._path.parent, self._path.name, f"{text}\n".encode())

    def start_bar(self, total: int | None, done: int, samples: int) -> None:
        """Show a progress bar if stderr is a terminal.

        Args:
            total: number of steps of the run; None if it is not known.
            done: number of steps that are done already.
            samples: samples a step.
        """
        if sys.stderr.isatty() and not self._silent:
            known = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total is not None else " {elapsed}"
            self._bar = tqdm(
                total=None if total is None else total * samples,
                initial=done * samples,
                desc=_position(done, total),
                unit=" samples",
                unit_scale=True,
                bar_format="{desc} " + known + ", {rate_fmt}{postfix}",
                smoothing=SMOOTHING,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def advance(self, samples: int) -> None:
        """Move the progress bar by one step of ``samples`` samples."""
        if self._bar is not None:
            total = None if self._bar.total is None else self._bar.total // samples
            self._bar.set_description_str(_position(self._bar.n // samples + 1, total), refresh=False)
            self._bar.update(samples)

    def show(self, text: str) -> None:
        """Set the text at the end of the progress bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def stop_bar(self) -> None:
        """End the progress bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _position(step: int, total: int | None) -> str:
    return f"step {step}" if total is None else f"step {step}/{total}"
