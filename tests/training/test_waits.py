"""Waits for data that never come are ended by a signal, and the last step is saved."""

import os
import signal
import threading

import pytest
import torch
from support.helpers import TINY, compose, make_trainer, trainer_of

from sslcli import signals
from sslcli.components import build_components
from sslcli.data.base import Wrapper
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint


class Stalled(Wrapper):
    """Data that stall, or whose reader is killed, after nine batches: more than are read ahead."""

    def __init__(self, dataset, act):
        super().__init__(dataset)
        self.act, self.count, self.cuts_crops = act, 0, False

    def fetch(self, index):
        self.count += 1
        if self.count > 9:
            self.act()
        return self.dataset.fetch(index)


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in signals.HANDLED}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._pending = None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_a_wait_for_data_and_the_last_step_is_saved(tmp_path, handlers, workers):
    started, never = os.pipe(), os.pipe()

    def stall():
        os.write(started[1], b".")
        os.read(never[0], 1)

    def send():
        os.read(started[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)

    options = (*TINY, "train.steps=50", "checkpoint.every=1000")
    parts = build_components(compose("device=cpu", *options))
    parts.dataset = Stalled(parts.dataset, stall)
    trainer = make_trainer(tmp_path, *options, f"dataset.workers={workers}", parts=parts)
    threading.Thread(target=send).start()
    with pytest.raises(signals.Stopped, match="SIGTERM"):
        trainer.fit()
    assert checkpoint.load(checkpoint.steps(tmp_path)[0])["step"] == trainer.step > 0


def test_a_worker_that_dies_costs_no_step(tmp_path):
    options = (*TINY, "train.steps=50", "checkpoint.every=1000")
    parts = build_components(compose("device=cpu", *options))
    parts.dataset = Stalled(parts.dataset, lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer = trainer_of(compose("device=cpu", *options, "dataset.workers=1"), tmp_path, parts=parts)
    with pytest.raises(UserError, match="SIGKILL"):
        trainer.fit()
    assert checkpoint.load(checkpoint.steps(tmp_path)[0])["step"] == trainer.step > 0


def test_a_wait_with_grace_goes_on_for_that_time(handlers):
    with signals.deferred(), signals.waiting(grace=0.05):
        os.kill(os.getpid(), signal.SIGUSR1)
        reached = torch.ones(1)  # only the alarm ends the wait
        with pytest.raises(signals.Stopped, match="SIGUSR1"):
            signal.pause()
    assert reached and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_signal_from_before_a_wait_ends_it(handlers):
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(signals.Stopped, match="SIGUSR2"), signals.waiting():
            raise AssertionError("it would wait for ever")
