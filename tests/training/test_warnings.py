"""What a run warns of while it trains: a loss at chance, collapsed features, and a busy machine."""

import time
from pathlib import Path

import pytest
import torch
from support.helpers import TINY, compose, hook_of, make_trainer

from sslcli.commands.train import run
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.run_dir.records import read_run
from sslcli.training.busy_processor import BusyProcessor, advice
from sslcli.training.collapse_stop import CollapseStop
from sslcli.training.not_learning import at_chance

EVERY = ("log.every=1", "log.report=false", "probe=none", "device=cpu")


@pytest.mark.parametrize(
    "means, expected",
    [
        ({"loss": 6.20, "chance": 6.2364}, ["loss"]),  # 0.6 % better
        ({"loss": 6.30, "chance": 6.2364}, ["loss"]),  # worse than chance
        ({"loss": 6.10, "chance": 6.2364}, []),  # 2.2 % better
        ({"loss": 0.3}, []),  # an objective without a chance level
        ({"loss": 0.01, "chance": 0.0}, ["loss"]),
        ({"loss": -0.01, "chance": 0.0}, []),
        ({"loss": 5.0, "a": 1.0, "a/chance": 4.0, "b": 0.99, "b/chance": 1.0}, ["b"]),
        ({}, []),
    ],
)
def test_a_loss_at_its_chance_level_is_found(means, expected):
    assert list(at_chance(means)) == expected


def test_a_run_that_has_not_learned_says_so_in_its_log_and_with_a_way_out(tmp_path, capsys):
    config = compose(*TINY, *EVERY, "train.steps=30", "objective=simmim", "optimizer.lr=0")
    run(config, tmp_path / "r")
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "that of chance" in text]
    log = (tmp_path / "r" / "train.log").read_text().splitlines()
    assert log.count(line) == 1 and log.index(line) > log.index(next(text for text in log if "step 25/30" in text))
    assert line.startswith("warning: loss ") and "by step 25" in line and "Train longer, or lower optimizer.lr" in line
    assert read_run(tmp_path / "r").warnings.count(line.removeprefix("warning: ")) == 1


def test_a_run_of_a_few_steps_does_not(tmp_path, capsys):
    run(compose(*TINY, *EVERY, "train.steps=24", "optimizer.lr=0"), tmp_path / "r")
    assert "that of chance" not in capsys.readouterr().err


def test_a_run_that_learns_does_not(tmp_path, capsys):
    run(compose(*TINY, *EVERY, "train.steps=80", "objective=simmim"), tmp_path / "r")
    assert "that of chance" not in capsys.readouterr().err


def collapsed(run_dir):
    """A trainer of an encoder whose features are all the same, and stay so."""
    trainer = make_trainer(run_dir, *TINY, *EVERY, "train.steps=9", "optimizer.lr=0", "train.stop_on=collapse")
    with torch.no_grad():
        for parameter in trainer.encoder.parameters():
            parameter.zero_()
    return trainer


def test_a_collapsed_run_stops_and_stays_stopped(tmp_path, capsys):
    trainer = collapsed(tmp_path)
    trainer.fit()
    captured = capsys.readouterr()
    # the features were the same at steps 1 and 2; the step after that is the last
    assert trainer.step == 3 and trainer.done
    assert "stopped early at step 3: the features collapsed at 2 log lines in a row" in captured.out
    (line,) = [text for text in captured.err.splitlines() if text.startswith("warning: dimension_std")]
    assert "complete collapse" in line and "Lower optimizer.lr" in line
    again = collapsed(tmp_path)
    again.load_state_dict(checkpoint.newest(tmp_path, pytest.fail)[1])
    assert again.step == 3 and again.done


def test_a_healthy_run_goes_on_to_its_end(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, *EVERY, "train.steps=4", "train.stop_on=collapse")
    trainer.fit()
    assert trainer.step == 4 and not hook_of(trainer, CollapseStop).ends_run


def test_what_ends_a_run_does_not_change_its_bits(tmp_path):
    ends = []
    for number, more in enumerate(((), ("train.stop_on=collapse",))):
        (tmp_path / str(number)).mkdir()
        trainer = make_trainer(tmp_path / str(number), *TINY, *EVERY, *more)
        trainer.fit()
        ends.append(trainer.encoder.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_another_word_for_what_ends_a_run_is_refused():
    with pytest.raises(UserError, match="train.stop_on: there is no 'colapse'. Did you mean 'collapse'?"):
        compose("train.stop_on=colapse")


@pytest.mark.parametrize(
    "seconds, computing, threads, expected",
    [
        (10.0, 9.5, 2, None),
        (10.0, 7.0, 2, None),
        (
            10.0,
            1.2,
            2,
            "for 12% of the time: other work on this machine takes it. device.threads=1 may be faster than 2.",
        ),
        (10.0, 5.0, 1, "for 50% of the time: other work on this machine takes it."),
    ],
)
def test_a_busy_machine_is_told(seconds, computing, threads, expected):
    found = advice(seconds, computing, threads)
    assert found is None if expected is None else found.endswith(expected)


def test_waiting_for_the_processor_is_told_once_and_not_at_the_first_line(capsys):
    busy = BusyProcessor(Console())
    busy.start()
    told = []
    for _ in range(5):
        time.sleep(0.01)  # takes no processor time, as a thread that is not scheduled
        busy.judge(6.0)
        told.append(capsys.readouterr().err.count("Training had a processor for"))
    assert told == [0, 0, 1, 0, 0]


def test_a_warning_before_the_log_file_exists_is_written_into_it(tmp_path):
    console = Console()
    console.warn("early")
    Path(tmp_path / "train.log").write_bytes(b"")
    console.log_to(tmp_path / "train.log")
    console.warn("late")
    assert (tmp_path / "train.log").read_text() == "warning: early\nwarning: late\n"
