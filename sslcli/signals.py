"""Handling of the signals that stop a command: while training after the current step, otherwise at once.

Python calls a handler only between two of its own instructions, and a large matrix product or a backward pass is one of
them. A thread of its own therefore answers a signal at once, with a line that says what will happen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GRACE = 10.0  # seconds for which a wait goes on after a signal, where breaking it off loses more than the wait


class Stopped(BaseException):
    """A signal stops the command. Not an Exception, so that only the entry point catches it.

    ``told`` says that another process has already printed what is to be said.
    """

    def __init__(self, signum: int, *, told: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.name = signal.Signals(signum).name
        self.exit_code = 130 if signum == signal.SIGINT else 75
        self.told = told
        self.saved = ""  # at which step training stopped, and where that is saved


def leave_early() -> None:
    """Until ``install``, let the signals that ask to stop leave with 75: importing libraries takes seconds.

    SIGINT keeps its own way, as do signals that the caller handles or ignores, such as SIGHUP under ``nohup``.
    """
    for signum in HANDLED:
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, _leave)


def _leave(signum: int, _frame: FrameType | None) -> None:
    program = os.path.basename(sys.argv[0] or "sslcli")  # noqa: PTH119
    text = f"{program}: stopped by {signal.Signals(signum).name}; nothing was changed\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
    os._exit(75)


_deferring = False
_terminal = 2  # the stream on which signals are answered
_pending: int | None = None
_of_launcher: dict[int, Callable[[int, FrameType | None], object]] = {}  # handlers that ours replaced in a sweep's job
_grace: float | None = None  # seconds that the present wait for data may go on after a signal; None outside a wait


def install(*, speaks: bool = True) -> None:
    """Install the handlers: from now on a signal raises Stopped, or is only recorded inside ``deferred``.

    SIGHUP stays ignored where it is, as under ``nohup``.

    Args:
        speaks: whether this process answers a signal by a line; of the processes of a run, one does.
    """
    global _pending
    _pending = None
    for signum in HANDLED:
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _handle)
    _answer_at_once(speaks)


def install_in_job(*, speaks: bool = True) -> None:
    """Install the handlers in the process that a sweep's launcher made for its jobs, and keep those of the launcher."""
    if signal.getsignal(signal.SIGTERM) is _handle:  # by an earlier job of this process
        return
    ours = (_leave, signal.default_int_handler)
    handlers = {signum: signal.getsignal(signum) for signum in HANDLED}
    _of_launcher.update({signum: act for signum, act in handlers.items() if callable(act) and act not in ours})
    install(speaks=speaks)


def hand_over(signum: int) -> None:
    """Let the launcher answer a signal that has stopped its job: submitit's handler puts the job into the queue again.

    Raises:
        SystemExit: it did.
        Exception: it did not, and why.
    """
    if signum in _of_launcher:
        _of_launcher[signum](signum, None)


def _answer_at_once(speaks: bool) -> None:
    """Start the thread that answers signals: Python's handler in C writes their numbers to a pipe, whatever runs."""
    import threading

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    program = os.path.basename(sys.argv[0] or "sslcli")  # noqa: PTH119
    break_line = "\n" * os.isatty(_terminal)  # after the progress bar and the ^C

    def answer() -> None:
        while number := os.read(reading, 1):
            if number[0] in HANDLED and speaks:
                name = signal.Signals(number[0]).name
                what = (
                    "stopping after this step, which is saved; Ctrl-C twice exits at once" if _deferring else "stopping"
                )
                with contextlib.suppress(OSError):
                    os.write(_terminal, f"{break_line}{program}: {name}: {what}\n".encode())

    threading.Thread(target=answer, name="signals", daemon=True).start()


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let ``handler`` have the signals inside this block, but for those that are ignored; it answers them itself."""
    answers = signal.set_wakeup_fd(-1)
    ours = [signum for signum in HANDLED if signal.getsignal(signum) is not signal.SIG_IGN]  # SIGHUP under nohup
    before = {signum: signal.signal(signum, handler) for signum in ours}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)
        signal.set_wakeup_fd(answers)


@contextmanager
def answering_on(descriptor: int) -> Iterator[None]:
    """Answer signals on another stream inside this block, in which stderr goes elsewhere."""
    global _terminal
    before, _terminal = _terminal, descriptor
    try:
        yield
    finally:
        _terminal = before


def ignore() -> None:
    """Ignore the signals, in a process that is leaving, and in a data worker, which the current step still needs."""
    signal.set_wakeup_fd(-1)
    for signum in HANDLED:
        signal.signal(signum, signal.SIG_IGN)


def _handle(signum: int, _frame: FrameType | None) -> None:
    global _pending
    repeated = signum == signal.SIGINT and _pending == signal.SIGINT
    _pending = signum  # if a library catches the exception, training stops after its first step
    if not _deferring:
        raise Stopped(signum)
    if repeated:
        os._exit(130)  # a second Ctrl-C exits at once
    if _grace is not None:
        _end_wait(_grace)


def _end_wait(grace: float) -> None:
    """End the wait for data, now or by an alarm when ``grace`` seconds are over.

    The alarm is repeated: an exception that is raised where Python ignores it, as in a finaliser, ends nothing.
    """
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, grace or 1, 1)
    if not grace:
        raise Stopped(pending())


def _alarm(_signum: int, _frame: FrameType | None) -> None:
    if _grace is not None:
        raise Stopped(pending())


@contextmanager
def deferred() -> Iterator[None]:
    """Only record signals inside this block, so that a step or a save is completed; see ``raise_held``."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


_terminal = 2  # the stream on which signals are answered


@contextmanager
def waiting(grace: float = 0.0) -> Iterator[None]:
    """Obey signals inside this block although they are ``deferred``, because what it waits for may never come.

    Args:
        grace: seconds for which the wait goes on after a signal.

    Raises:
        Stopped: a signal came in this block, or before it and was only recorded.
    """
    global _grace
    if not _deferring:  # every signal is obeyed at once
        yield
        return
    _grace = grace
    try:
        if _pending:
            _end_wait(grace)
        yield
    finally:
        _grace = None
        if _pending:
            signal.setitimer(signal.ITIMER_REAL, 0)


def record(signum: int) -> None:
    """Let training stop after this step as if a signal had come; from any thread."""
    global _pending
    _pending = signum


def pending() -> int:
    """Return the signal that was received since the last ``raise_held``, or 0."""
    return _pending or 0


def raise_held(signum: int) -> None:
    """Raise Stopped for a recorded signal, and forget it; 0 raises nothing."""
    global _pending
    _pending = None
    if signum:
        raise Stopped(signum)
