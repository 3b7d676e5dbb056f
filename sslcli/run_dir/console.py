"""What a run says: plain lines on stdout and in ``train.log``, a progress bar and warnings on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sslcli.run_dir.files import writable


class Console:
    """The voice of one run; until it is given a file it only prints.

    Args:
        silent: for the processes of a run that leave the speaking to the first.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._path: Path | None = None
        self._bar: Any = None

    def log_to(self, path: Path) -> None:
        """Write what is said from now on to ``path`` too."""
        self._path = path

    def line(self, text: str = "") -> None:
        """A line of output."""
        if self._silent:
            return
        with tqdm.external_write_mode(file=sys.stdout):
            print(text, flush=True)
        if self._path is not None:
            with writable(self._path), self._path.open("a") as file:
                file.write(text + "\n")

    def warn(self, text: str) -> None:
        """A line on stderr."""
        if self._silent:
            return
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def start_bar(self, total: int | None, done: int, samples: int) -> None:
        """A progress bar over steps of ``samples`` samples, in 80 columns; shown on a terminal only."""
        if sys.stderr.isatty() and not self._silent:
            known = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total is not None else " {elapsed}"
            self._bar = tqdm(
                total=None if total is None else total * samples,
                initial=done * samples,
                desc=_position(done, total),
                unit=" samples",
                unit_scale=True,
                bar_format="{desc} " + known + ", {rate_fmt}{postfix}",
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def advance(self, samples: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            total = None if self._bar.total is None else self._bar.total // samples
            self._bar.set_description_str(_position(self._bar.n // samples + 1, total), refresh=False)
            self._bar.update(samples)

    def show(self, text: str) -> None:
        """The figures at the end of the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def stop_bar(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _position(step: int, total: int | None) -> str:
    return f"step {step}" if total is None else f"step {step}/{total}"
