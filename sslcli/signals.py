"""SIGTERM, SIGINT, SIGUSR1 and SIGUSR2: at once where nothing can be lost, after the step while training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """A signal ended the run; not an Exception, so that nothing but the entry point catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.name = signal.Signals(signum).name
        self.exit_code = 130 if signum == signal.SIGINT else 75


_deferring = False
_pending: int | None = None


def install() -> None:
    """Handle the signals from now on: each raises Stopped, unless ``deferred`` holds it back."""
    global _pending
    _pending = None
    for signum in HANDLED:
        signal.signal(signum, _handle)


def ignore_in_worker(_: int) -> None:
    """For data workers: a signal to the whole process group must not kill them before the step is finished."""
    for signum in HANDLED:
        signal.signal(signum, signal.SIG_IGN)


def _handle(signum: int, _frame: FrameType | None) -> None:
    global _pending
    if not _deferring:
        _pending = signum  # should a library under way swallow the exception, training stops after its first step
        raise Stopped(signum)
    if signum == signal.SIGINT and _pending == signal.SIGINT:
        os._exit(130)  # the second Ctrl-C leaves at once
    _pending = signum


@contextmanager
def deferred() -> Iterator[None]:
    """Keep signals for ``raise_held`` while a step or a save must not be cut in two."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def pending() -> int:
    """The signal that has come since the last ``raise_held``, or 0."""
    return _pending or 0


def raise_held(signum: int) -> None:
    """Raise a signal that was held back; 0 raises nothing."""
    global _pending
    _pending = None
    if signum:
        raise Stopped(signum)
