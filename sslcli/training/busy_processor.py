"""Compares the time of training with the processor time, to tell that other work takes the processors."""

from __future__ import annotations

import time

import torch

from sslcli.run_dir.console import Console

SECONDS = 10.0  # of training before it is judged
LEAST = 0.7  # share of the time in which the training thread computes on a quiet machine: it is 0.95 and more


def advice(seconds: float, computing: float, threads: int) -> str | None:
    """Return a warning if the training thread computed in much less time than has passed.

    With several threads each waits for the slowest, so one that other work interrupts holds all of them up.

    Args:
        seconds: time of training on the CPU, without waits for data.
        computing: processor seconds of the training thread in it.
        threads: number of threads.
    """
    share = computing / max(seconds, 1e-9)
    if share >= LEAST:
        return None
    way = f" device.threads=1 may be faster than {threads}." if threads > 1 else ""
    return f"Training had a processor for {share:.0%} of the time: other work on this machine takes it.{way}"


class BusyProcessor:
    """Warns once if other work takes the processors from this process.

    Args:
        console: prints the warning.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = 0.0  # processor seconds of this thread at the last call
        self._seconds = self._computing = 0.0
        self._warm = self._told = False

    def start(self) -> None:
        """Begin to count; called in the thread that trains."""
        self._began, self._warm = time.thread_time(), False

    def judge(self, seconds: float) -> None:
        """Compare ``seconds`` of training since the last call with processor time; the first call is a warm-up."""
        began, self._began = self._began, time.thread_time()
        if self._warm:
            self._seconds += seconds
            self._computing += self._began - began
        self._warm = True
        if self._seconds < SECONDS or self._told:
            return
        text = advice(self._seconds, self._computing, torch.get_num_threads())
        if text is not None:
            self._told = True
            self._console.warn(text)
