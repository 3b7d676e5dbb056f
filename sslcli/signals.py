"""Handling of SIGTERM, SIGINT, SIGUSR1 and SIGUSR2: while training after the current step, otherwise at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal stops the command. Not an Exception, so that only the entry point catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.name = signal.Signals(signum).name
        self.exit_code = 130 if signum == signal.SIGINT else 75


_deferring = False
_pending: int | None = None


def install() -> None:
    """Install the handlers: from now on a signal raises Stopped, or is only recorded inside ``deferred``."""
    global _pending
    _pending = None
    for signum in HANDLED:
        signal.signal(signum, _handle)


def ignore_in_worker(_: int) -> None:
    """Ignore the signals in a data worker: the training process still needs it to finish the current step."""
    for signum in HANDLED:
        signal.signal(signum, signal.SIG_IGN)


def _handle(signum: int, _frame: FrameType | None) -> None:
    global _pending
    if not _deferring:
        _pending = signum  # if a library catches the exception, training stops after its first step
        raise Stopped(signum)
    if signum == signal.SIGINT and _pending == signal.SIGINT:
        os._exit(130)  # a second Ctrl-C exits at once
    _pending = signum


@contextmanager
def deferred() -> Iterator[None]:
    """Only record signals inside this block, so that a step or a save is completed; see ``raise_held``."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def pending() -> int:
    """Return the signal that was received since the last ``raise_held``, or 0."""
    return _pending or 0


def raise_held(signum: int) -> None:
    """Raise Stopped for a recorded signal, and forget it; 0 raises nothing."""
    global _pending
    _pending = None
    if signum:
        raise Stopped(signum)
