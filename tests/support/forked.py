"""A command in a process of its own that does not start Python again: torch takes seconds to import, a fork none."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from tqdm import tqdm

# What most commands import: a fork of a process that has not done so needs two seconds for it, each time.
for name in ("timm", "torch._dynamo", "sslcli.commands.train", "sslcli.commands.evaluate", "sslcli.commands.export"):
    importlib.import_module(name)

# autograd looks for devices at the first backward pass of a process. If it found one that a test pretends to have, it
# would start threads, and no fork could compute gradients afterwards.
torch.ones(1, requires_grad=True).sum().backward()


class Forked:
    """A child of the tests' process that runs ``entry`` with these arguments; used like ``subprocess.Popen``.

    Its stdout and stderr go into one file, or stderr to an open file or terminal of one's own. It must be of a process
    that computes in one thread, as tests do. ``environment`` is added to that of the tests. It ends with the tests'
    process, whose pipes it has: whoever reads from these would wait as long as it lives.
    """

    def __init__(
        self,
        entry: Callable[[], Any],
        program: str,
        *arguments: str,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this object
        self._streams = {1: self._file.fileno(), 2: self._file.fileno() if stderr is None else stderr}
        self._environment = environment or {}
        self.returncode: int | None = None
        self._parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            self._become(entry, [program, *arguments])

    def _become(self, entry: Callable[[], Any], argv: list[str]) -> None:
        code = 1
        try:
            _end_with(self._parent)
            os.environ.update(self._environment)
            for stream, place in self._streams.items():
                os.dup2(place, stream)
            faulthandler.enable(self._streams[2])  # prints where it is if ``wait`` ends it
            sys.stdin = io.StringIO()
            sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
            sys.argv = argv
            os.environ.pop("HYDRA_FULL_ERROR", None)
            GlobalHydra.instance().clear()
            # The lock that it inherits is one for both: if it is killed while it has it, the tests wait for ever.
            tqdm.set_lock(threading.RLock())
            entry()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGABRT)
                os.waitpid(self.pid, 0)
                raise subprocess.TimeoutExpired(sys.argv, timeout, self.output())
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        self.wait(timeout)
        self._file.seek(0)
        return self._file.read().decode(), None

    def output(self) -> str:
        """What it has printed so far, read without moving the place where it writes."""
        return os.pread(self._file.fileno(), 1 << 20, 0).decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _end_with(parent: int) -> None:
    """Have Linux kill this process when its parent ends, also if that has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
