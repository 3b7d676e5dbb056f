"""What two processes tell each other between steps."""

import functools
import os
import signal
import threading
import time

import pytest
import torch
from support.forked import Forked
from support.helpers import each_rank

from sslcli.distributed.ranks import Ranks, joined
from sslcli.distributed.start import Start
from sslcli.errors import UserError


def in_two(entry):
    """The outputs of two ranks that run ``entry``, a function of their ranks."""
    workers = [Forked(functools.partial(_one, entry), "ranks", environment=rank) for rank in each_rank()]
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    return said


def _one(entry):
    with joined(Start.read(), torch.device("cpu")) as ranks:
        entry(ranks)


def agree(ranks):
    print(ranks.highest(3 + ranks.rank), ranks.from_first({"rank": ranks.rank}), ranks.by_first(lambda: "done"))
    print(ranks.from_first(b""), len(ranks.from_first("x" * 100_000 * ranks.size)))


def test_the_first_decides_and_the_highest_counts():
    assert in_two(agree) == ["4 {'rank': 0} done\nb'' 200000\n"] * 2


def fail(ranks):
    def act():
        raise UserError(f"rank {ranks.rank} says why")

    with pytest.raises(UserError, match="rank 0 says why"):
        ranks.by_first(act)


def test_a_mistake_that_the_first_finds_is_raised_in_all():
    in_two(fail)


def test_who_waits_for_the_first_hears_signals(tmp_path):
    """Rank 0 goes on with its work only when rank 1, which waits for it, has handled a signal."""
    heard = tmp_path / "heard"

    def work():
        end = time.monotonic() + 20
        while not heard.exists():
            assert time.monotonic() < end, "the signal was not heard"
            time.sleep(0.01)

    def entry(ranks):
        if not ranks.first:
            signal.signal(signal.SIGUSR1, lambda *_: heard.touch())
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        ranks.by_first(work)

    in_two(entry)


def test_a_single_process_asks_nobody():
    assert (Ranks().highest(2), Ranks().from_first("x"), Ranks().by_first(lambda: 5)) == (2, "x", 5)
