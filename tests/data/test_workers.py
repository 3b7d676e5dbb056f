"""Workers that cannot start, cannot send or die, each told in one line; and shared memory that is too small."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from sslcli.data.pictures.decode import BadPicture, decode
from sslcli.data.shared_memory import ReadAhead, that_fits
from sslcli.data.workers import by_workers
from sslcli.errors import UserError


class Items(Dataset):
    """Ten numbers; reading the fourth one does something else."""

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return self.act() if i == 3 else torch.tensor(i)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def left():
    os._exit(7)


def not_sendable():
    return torch.zeros(1), lambda: None


@pytest.mark.parametrize(
    "act, cause",
    [
        (killed, "was killed (SIGKILL)"),
        (left, "exit code 7"),
        (not_sendable, "could not send what it read ("),
    ],
)
def test_a_worker_that_fails_is_one_line_with_the_cause(act, cause, capfd):
    with pytest.raises(UserError) as caught:
        list(by_workers(Items(act), None, ReadAhead(2)))
    assert str(caught.value).startswith("dataset.workers=2: a data worker ") and cause in str(caught.value)
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""


def test_a_worker_that_cannot_start_is_one_line(monkeypatch):
    starts = []

    def fork():
        starts.append(1)
        if len(starts) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(UserError, match="cannot start .*Resource temporarily unavailable.*dataset.workers=0"):
        list(by_workers(Items(killed), None, ReadAhead(2)))


def test_a_mistake_in_a_dataset_keeps_its_traceback():
    def wrong():
        raise RuntimeError("of the dataset's own")

    with pytest.raises(RuntimeError, match="of the dataset's own"):
        list(by_workers(Items(wrong), None, ReadAhead(1)))


@pytest.mark.parametrize(
    "free, expected",
    [
        (100, ReadAhead(3, 4)),  # 90 may be used: 2 held + 3 x 4 are 14 items of 6
        (90, ReadAhead(2, 4)),  # 13 places
        (65, ReadAhead(1, 4)),
        (33, ReadAhead(1, 2)),
        (21, ReadAhead(1, 1)),
        (19, ReadAhead(0, 4)),
    ],
)
def test_workers_are_as_many_as_the_shared_memory_has_room_for(monkeypatch, free, expected):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_frsize=1))
    lines = []
    found = that_fits(3, 6, 2, lines.append)
    assert found.workers == expected.workers and (not found.workers or found == expected)
    assert bool(lines) == (found.workers < 3)


def test_a_pipe_in_place_of_a_picture_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadPicture, match="not a regular file"):
        decode(str(tmp_path / "a.png"))
