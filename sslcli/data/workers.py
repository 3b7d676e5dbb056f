"""Worker processes that read data ahead: starting them, ending them, and telling why one of them failed."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import active_children, queues
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch.multiprocessing
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils.signal_handling import _remove_worker_pids
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from sslcli import signals
from sslcli.data.base import Dataset
from sslcli.data.shared_memory import ReadAhead
from sslcli.distributed.start import available_cpus
from sslcli.errors import UserError
from sslcli.run_dir.formatting import first_line


class _Stream(_MultiProcessingDataLoaderIter):
    """torch's stream of what workers send; it looks often whether they live, and can be left without their consent."""

    def _try_get_data(self, timeout: float = 0.2) -> tuple[bool, Any]:
        found: tuple[bool, Any] = super()._try_get_data(timeout)
        return found

    def abandon(self) -> None:
        """End the workers without asking them, as torch would: they may be stuck in a read that never returns."""
        _kill(self._workers)
        if self._worker_pids_set:
            _remove_worker_pids(id(self))
            self._worker_pids_set = False
        for index_queue in self._index_queues:
            index_queue.cancel_join_thread()
            index_queue.close()
        self._shutdown = True

    def __del__(self) -> None:
        if hasattr(self, "_workers_status"):  # else not all of its workers could start
            super().__del__()


def by_workers(
    items: TorchDataset[Any], order: Iterable[Any] | None, ahead: ReadAhead, *, pin: bool = False
) -> Iterator[Any]:
    """Yield ``items[key]`` for each key of ``order``, in order, read ahead by processes.

    If ``order`` is None, the keys are 0, 1, ... up to the length of ``items``. The processes start at the first item.

    Raises:
        UserError: a worker cannot start, cannot send what it read, or has died; the message says why.
    """
    last_words = torch.multiprocessing.get_context().SimpleQueue()
    stream = _started(items, order, ahead, pin, last_words)
    try:
        yield from stream
    except GeneratorExit:  # the caller needs no more; torch would wait 5 seconds for each worker that is stuck
        if not pin:  # else a thread that copies to pinned memory has to be told, which torch does
            stream.abandon()
        raise
    except (RuntimeError, OSError, EOFError) as error:
        if str(error).startswith("Caught "):  # the dataset's own error, with the traceback in the worker
            raise
        raise UserError(_failure(stream, last_words, error, ahead.workers)) from error
    except BaseException:
        stream.abandon()
        raise


def _started(
    items: TorchDataset[Any], order: Iterable[Any] | None, ahead: ReadAhead, pin: bool, last_words: Any
) -> _Stream:
    others = set(active_children())
    on_death = signal.getsignal(signal.SIGCHLD)
    loader: DataLoader[Any] = DataLoader(
        items,
        sampler=order,
        batch_size=None,
        pin_memory=pin,
        prefetch_factor=ahead.items,
        worker_init_fn=functools.partial(_begin, last_words),
        num_workers=ahead.workers,
    )
    try:
        stream = _Stream(loader)
    except (OSError, RuntimeError, MemoryError, pickle.PicklingError, AttributeError, TypeError) as error:
        _kill([child for child in active_children() if child not in others])
        raise UserError(
            f"dataset.workers={ahead.workers}: a data worker cannot start ({first_line(error)}). "
            "Give fewer, or dataset.workers=0, which reads in this process."
        ) from error
    # torch's handler raises an error wherever this process is, say in the middle of a save, when a worker dies. Without
    # it, the death is found while waiting for data.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, on_death)
    # Workers ignore SIGTERM, by which Python would end them on exit, so they are killed instead.
    weakref.finalize(stream, _kill, stream._workers)
    return stream


def _begin(last_words: Any, _: int) -> None:
    """Prepare a worker: it ends with this process only, and says why if it cannot send what it has read."""
    signals.ignore()
    set_death_signal = getattr(torch.multiprocessing, "_prctl_pr_set_pdeathsig", None)  # Linux only
    if set_death_signal is not None:
        set_death_signal(signal.SIGKILL)
    sys.excepthook = lambda *_: None  # what serves batches to a process that has gone has no one to tell
    # By default a batch that cannot be sent is dropped with a traceback, and the training process waits for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(functools.partial(_cannot_send, last_words))  # type: ignore[attr-defined]


def _cannot_send(last_words: Any, error: BaseException, _: Any) -> NoReturn:
    last_words.put(f"could not send what it read ({first_line(error)})")
    os._exit(1)


def _failure(stream: _Stream, last_words: Any, error: BaseException, workers: int) -> str:
    """Return what became of the workers, and what the user can do."""
    for process in stream._workers:
        process.join(0.2)  # the connection to one that dies breaks a moment before it is dead
    codes = [process.exitcode for process in stream._workers if process.exitcode]
    stream.abandon()
    if not last_words.empty():
        cause = last_words.get()
    elif not codes:
        cause = f"cannot be heard any more ({first_line(error)})"
    elif codes[0] == -signal.SIGKILL:
        cause = "was killed (SIGKILL), most often because the machine's or the container's memory is full"
    elif codes[0] == -signal.SIGBUS:
        cause = "has died (SIGBUS), most often because /dev/shm is full"
    elif codes[0] < 0:
        cause = f"has died ({signal.Signals(-codes[0]).name})"
    else:
        cause = f"has ended with exit code {codes[0]}"
    return f"dataset.workers={workers}: a data worker {cause}. Give fewer, or dataset.workers=0, or free what is full."


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def default_workers(dataset: Dataset) -> int:
    """Return 0 for a dataset in memory, else one worker for each available CPU but one, at least 1 and at most 16.

    One CPU is left for the training loop.
    """
    if dataset.in_memory:
        return 0
    return min(16, max(1, available_cpus() - 1))
