"""What happens around a step: the order of events, who may end a run, and what a hook remembers."""

import pytest
from support.helpers import TINY, make_trainer

from sslcli.run_dir import checkpoint
from sslcli.training.hooks import Hook


class Recorder(Hook):
    """Writes down every event; ends the run after some steps, if it is to."""

    def __init__(self, name, events, last_step=None):
        self.name, self.events, self.last_step, self.seen = name, events, last_step, 0

    def start(self, trainer):
        self.events.append((self.name, "start", trainer.step))

    def before_step(self, trainer, batch):
        assert len(batch) == trainer.loader.accumulate
        self.events.append((self.name, "before", trainer.step))

    def after_step(self, trainer):
        assert set(trainer.values) >= {"loss"}
        self.seen = trainer.step
        self.events.append((self.name, "after", trainer.step, trainer.reached_end))

    @property
    def ends_run(self):
        return self.last_step is not None and self.seen >= self.last_step

    def write(self, trainer):
        self.events.append((self.name, "write", trainer.step, trainer.ends))

    def end(self, trainer):
        self.events.append((self.name, "end", trainer.step))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state, trainer):
        self.seen = state["seen"]


@pytest.fixture
def events():
    return []


def with_recorders(trainer, *recorders):
    trainer.hooks[:0] = recorders
    return trainer


def test_every_hook_hears_of_a_step_before_any_writes(tmp_path, events):
    with_recorders(make_trainer(tmp_path, *TINY, "train.steps=2"), Recorder("a", events), Recorder("b", events)).fit()
    expected = [("a", "start", 0), ("b", "start", 0)]
    for step, last in ((1, False), (2, True)):
        expected += [("a", "before", step - 1), ("b", "before", step - 1)]
        expected += [("a", "after", step, last), ("b", "after", step, last)]
        expected += [("a", "write", step, last), ("b", "write", step, last)]
    assert events == [*expected, ("a", "end", 2), ("b", "end", 2)]


def test_a_hook_ends_the_run_and_the_others_know_when_they_write(tmp_path, events):
    """Although it stands last in the list; the checkpoint of that step is written."""
    trainer = make_trainer(tmp_path, *TINY, "train.steps=50")
    with_recorders(trainer, Recorder("a", events))
    trainer.hooks.append(Recorder("b", events, last_step=3))
    trainer.fit()
    assert [event for event in events if event[:2] == ("a", "write")] == [
        ("a", "write", 1, False), ("a", "write", 2, False), ("a", "write", 3, True)]  # fmt: skip
    assert trainer.done and not trainer.reached_end
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [3]


def test_a_hook_hears_of_the_end_when_a_step_fails(tmp_path, events):
    class Failing(Recorder):
        def write(self, trainer):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        with_recorders(make_trainer(tmp_path, *TINY), Failing("a", events)).fit()
    assert events[-1] == ("a", "end", 1)


def test_the_state_of_a_hook_stands_in_the_checkpoint_under_its_name(tmp_path, events):
    with_recorders(make_trainer(tmp_path, *TINY), Recorder("a", events)).fit()
    _, state = checkpoint.newest(tmp_path, print)
    assert state["hooks"]["a"] == {"seen": 3} and {"metric_lines", "online_evaluation"} < state["hooks"].keys()
    again = Recorder("a", [])
    with_recorders(make_trainer(tmp_path, *TINY), again).load_state_dict(state)
    assert again.seen == 3
