"""``job.log``: what one job of a sweep prints, while the sweep shows one line of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from sslcli import signals
from sslcli.run_dir import inside

NAME = "job.log"


@contextmanager
def output_to(folder: Path) -> Iterator[None]:
    """Append stdout and stderr of this process, and of those that it starts, to ``job.log`` inside this block.

    Signals are answered where they were before: on the terminal.
    """
    with (
        inside.opened(folder, NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab") as file,
        os.fdopen(os.dup(file.fileno()), "w", buffering=1, errors="backslashreplace") as text,
        _streams() as before,
        redirect_stdout(text),
        redirect_stderr(text),
        signals.answering_on(before[2]),
    ):
        for stream in before:
            os.dup2(file.fileno(), stream)
        yield


@contextmanager
def _streams() -> Iterator[dict[int, int]]:
    """Yield copies of stdout and stderr, and put them back when the block ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {stream: os.dup(stream) for stream in (1, 2)}
    try:
        yield before
    finally:
        for stream, copy in before.items():
            os.dup2(copy, stream)
            os.close(copy)


@contextmanager
def running(name: str, folder: Path) -> Iterator[None]:
    """On a terminal, say inside this block which job runs and where its output is; a line that goes away again."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{name} ... its output: {folder / NAME}", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
