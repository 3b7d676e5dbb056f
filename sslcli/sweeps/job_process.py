"""A forked process that runs one job of a sweep. It does not import torch again, which takes as long as a small job."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from sslcli import signals
from sslcli.config.secrets import shown
from sslcli.distributed.local import end_with
from sslcli.errors import UserError, described, for_user
from sslcli.run_dir.streams import leave

_LARGEST = 4096  # bytes that a pipe takes at once, so that no process waits for the other one


class JobProcess:
    """A child of this process that calls ``run`` and sends back what it returns; used like ``subprocess.Popen``.

    It has a session of its own, because the Ctrl-C of a terminal reaches all processes of a session: it would come a
    second time from the sweep, at which training ends without a checkpoint.

    Args:
        run: what it calls.
        environment: variables that it changes.
    """

    def __init__(self, run: Callable[[], Any], environment: Mapping[str, str]) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.returncode: int | None = None
        self.returned: Any = None
        self.error = ""  # that ended it instead
        parent = os.getpid()
        sys.stdout.flush(), sys.stderr.flush()  # else the child prints it again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.HANDLED)  # the child obeys them when it is ready
        try:
            self.pid = os.fork()
            if not self.pid:
                _become(run, environment, writing, parent, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)

    def poll(self) -> int | None:
        """Return how it ended, as ``Popen`` does, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                self._read()
        return self.returncode

    def _read(self) -> None:
        content: dict[str, Any] = {}
        with suppress(BlockingIOError, ValueError):  # it was killed; one of its own processes may hold the pipe open
            content = json.loads(os.read(self._reading, _LARGEST))
        os.close(self._reading)
        self.returned, self.error = content.get("returned"), content.get("error", "")

    def wait(self) -> int:
        """Wait until it has ended."""
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)


def _become(
    run: Callable[[], Any], environment: Mapping[str, str], writing: int, parent: int, mask: Iterable[int]
) -> NoReturn:
    """In the child: call ``run``, send what came of it through the pipe, and leave."""
    code = 1
    content: dict[str, Any] = {}
    try:
        os.setsid()
        signals.install(speaks=False)  # the sweep answers a signal
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with(parent)
        with open(os.devnull) as nothing:  # noqa: PTH123  of several processes none can ask the terminal
            os.dup2(nothing.fileno(), 0)
        os.environ.update(environment)
        value = run()
        content = {"returned": float(value) if isinstance(value, (int, float)) else None}
        code = 0
    except signals.Stopped as stop:
        code = stop.exit_code
    except Exception as raised:
        failure = for_user(raised)
        if not isinstance(failure, UserError):
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
        text = str(failure) if isinstance(failure, UserError) else described(failure)
        content = {"error": text[: _LARGEST // 8]}  # escaped, it is longer
    os.write(writing, json.dumps(content).encode())
    leave(code)
