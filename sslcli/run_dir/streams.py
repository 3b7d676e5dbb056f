"""The standard streams, made such that a reader that goes away, a closed one or a full disk never ends a command.

What is in them is written before a process leaves at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any, NoReturn


class _Lenient(io.FileIO):
    """A descriptor to which what cannot be written is dropped."""

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # the descriptor does not block, and is full
                select.select([], [self.fileno()], [])
            return written
        except OSError:
            return len(content)


def make_lenient() -> None:
    """Let writing to stdout and stderr never fail; closed ones become ``/dev/null``.

    A descriptor that stays closed would be given to the next file that is opened, which would then get what libraries
    print. Streams that a caller has replaced are left alone.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    for name, number in (("stdout", 1), ("stderr", 2)):
        now = getattr(sys, name)
        if now is None or now is getattr(sys, f"__{name}__"):
            setattr(sys, name, _stream(number, now))


def leave(code: int) -> NoReturn:
    """Exit at once, without waiting for data workers or for a library that is half imported."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _stream(number: int, now: io.TextIOWrapper | None) -> io.TextIOWrapper:
    writer = io.BufferedWriter(_Lenient(number, "w", closefd=False))
    encoding, by_line = ("utf-8", False) if now is None else (now.encoding, now.line_buffering)
    return io.TextIOWrapper(writer, encoding, "backslashreplace", line_buffering=by_line)
