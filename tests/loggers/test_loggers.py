"""Loggers, read back by the libraries they are for, and what they must never do: repeat a step, or stop a run."""

import csv
import io
import json
import shutil
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.forked import Forked
from support.helpers import compose, each_rank
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sslcli.cli import train
from sslcli.commands.train import run
from sslcli.config.choices import Choice
from sslcli.config.instantiate import allow
from sslcli.errors import UserError
from sslcli.loggers.base import Loggers
from sslcli.loggers.csv import CSV

FAST = (
    "dataset=synthetic", "dataset.num_samples=200", "dataset.size=16", "train.batch_size=16", "device=cpu",
    "device.threads=1", "log.every=1", "checkpoint.every=3", "checkpoint.keep=9", "probe=none", "log.report=false",
)  # fmt: skip


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(row, line):
    return {key: float(value) for key, value in row.items() if value != ""} == {k: float(v) for k, v in line.items()}


def killed_after(folder, step):
    """The directory as a kill leaves it that comes later than the checkpoint of ``step``."""
    for path in (folder / "checkpoints").glob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    (folder / "result.json").unlink()


def events(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A masked run of 7 steps with both loggers; killed after its step 7, it goes on from step 6 to step 9."""
    folder = tmp_path_factory.mktemp("logged") / "run"
    options = (*FAST, "objective=simmim", "logger=[csv,tensorboard]")
    run(compose(*options, "train.steps=7"), folder)
    shutil.copytree(folder, folder.with_name("before"))
    killed_after(folder, 6)
    run(compose(*options, "train.steps=9"), folder)
    return folder


def test_the_table_has_every_line_once(logged):
    for folder, steps in ((logged.with_name("before"), 7), (logged, 9)):
        assert [line["step"] for line in lines(folder)] == list(range(1, steps + 1))
        assert len(rows(folder)) == steps
        assert all(same(row, line) for row, line in zip(rows(folder), lines(folder)))


def test_a_table_that_is_asked_for_later_has_the_steps_before(tmp_path):
    run(compose(*FAST, "train.steps=2"), tmp_path / "r")
    assert not (tmp_path / "r" / "metrics.csv").exists()
    run(compose(*FAST, "train.steps=4", "logger=csv"), tmp_path / "r")  # a logger may change when a run goes on
    assert all(same(row, line) for row, line in zip(rows(tmp_path / "r"), lines(tmp_path / "r"), strict=True))
    run(compose(*FAST, "train.steps=5"), tmp_path / "r")
    assert len(rows(tmp_path / "r")) == 4


def test_a_key_that_comes_later_is_a_column(tmp_path):
    table = CSV()
    table.start({}, tmp_path, 0)
    written = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "probe/knn": 0.1}, {"step": 3, "loss": 1e-9}]
    for line in written:
        table.scalars(line["step"], line)
    found = rows(tmp_path)
    assert list(found[0]) == ["step", "loss", "probe/knn"]
    assert [row["probe/knn"] for row in found] == ["", "0.1", ""]
    assert all(same(row, line) for row, line in zip(found, written))


@pytest.mark.slow
def test_what_is_seen_while_training_is_logged_once(tmp_path):
    options = (*FAST, "logger=[csv,tensorboard]", "probe.every=2", "probe.share=null", "log.every=3")
    run(compose(*options, "train.steps=7"), tmp_path / "r")
    killed_after(tmp_path / "r", 3)
    run(compose(*options, "train.steps=8"), tmp_path / "r")
    written = lines(tmp_path / "r")
    assert [line["step"] for line in written if "probe/lidar" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in written if "loss" in line] == [3, 6, 8]
    assert all(same(row, line) for row, line in zip(rows(tmp_path / "r"), written, strict=True))
    read = events(tmp_path / "r")
    for key in ("probe/lidar", "probe/rankme", "loss"):
        expected = [(line["step"], np.float32(line[key])) for line in written if key in line]
        assert [(event.step, event.value) for event in read.Scalars(key)] == expected


def test_tensorboard_reads_every_scalar_once(logged):
    for folder in (logged.with_name("before"), logged):
        found = events(folder)
        for key in set(lines(folder)[0]) - {"step"}:
            read = [(event.step, event.value) for event in found.Scalars(key)]
            expected = [(line["step"], np.float32(line[key])) for line in lines(folder)]
            assert read == expected, key
        result = json.loads((folder / "result.json").read_text())["metrics"]
        for name, metric in result.items():
            assert found.Scalars(f"result/{name}")[-1].value == np.float32(metric["value"])
    assert len(list((logged / "tensorboard").glob("events*"))) == 2


def test_tensorboard_reads_pictures_and_the_embedding(logged):
    found = events(logged)
    views = ["views/image", "views/view 1", "views/view 1, masked"]
    made = [f"reconstruction/{name}" for name in ("input", "masked", "reconstruction", "target")]
    assert found.Tags()["images"] == views + made
    for tag in views + made:
        *_, image = found.Images(tag)
        assert image.step == (0 if tag in views else 9)
        assert Image.open(io.BytesIO(image.encoded_image_string)).size == (image.width, image.height)
        assert image.width == 8 * image.height  # eight side by side
    (folder,) = (logged / "tensorboard" / "00009").iterdir()
    vectors = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    labels = np.loadtxt(folder / "metadata.tsv")
    import sslcli
    from sslcli.components import build_dataset
    from sslcli.data.selection import balanced

    dataset = build_dataset(compose(*FAST)).held_out
    index = balanced(dataset.labels, 2000)
    with torch.no_grad():
        expected = sslcli.load(logged)(dataset.fetch(index)["image"])
    assert np.abs(vectors - expected.numpy()).max() < 0.05 * np.abs(vectors).max()  # trained in bf16, where there is
    assert labels.tolist() == dataset.labels[index].tolist()
    assert Image.open(folder / "sprite.png").size[0] >= 16 * 6


@pytest.fixture
def clumsy(tmp_path, monkeypatch):
    """A package of loggers that fail at every place where they can."""
    (tmp_path / "clumsypkg.py").write_text(
        "from sslcli.loggers.base import Logger\n\n\n"
        "class Clumsy(Logger):\n"
        "    takes_pictures = True\n\n"
        "    def __init__(self, *, fails: str) -> None:\n"
        "        self.fails = fails\n\n"
        + "".join(
            f"    def {name}(self, *given):\n        if self.fails == '{name}':\n"
            f"            raise ConnectionError('no network in {name}')\n\n"
            for name in ("start", "scalars", "pictures", "embedding", "finish")
        )
    )
    monkeypatch.chdir(tmp_path)
    allow(["clumsypkg"])
    yield lambda fails: {"_target_": "clumsypkg.Clumsy", "fails": fails}
    allow([])
    sys.modules.pop("clumsypkg", None)


@pytest.mark.parametrize("fails", ["start", "scalars", "pictures", "embedding", "finish"])
def test_a_logger_that_fails_is_told_of_once_and_stops_nothing(tmp_path, clumsy, capsys, fails):
    config = compose(*FAST, "train.steps=4", "logger=csv")
    config.plugins = ["clumsypkg"]
    config.logger = {"clumsy": Choice(clumsy(fails)), **config.logger}
    run(config, tmp_path / "r")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "clumsy" in line]
    assert len(warnings) == 1 and f"no network in {fails}" in warnings[0]
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 4
    assert len(rows(tmp_path / "r")) == 4


def test_a_table_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "r" / "metrics.csv").mkdir(parents=True)
    (tmp_path / "r" / "train.log").write_text("")
    run(compose(*FAST, "train.steps=4", "logger=csv"), tmp_path / "r")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "metrics.csv" in line]
    assert len(warnings) == 1 and "logger.csv" in warnings[0]
    assert len(lines(tmp_path / "r")) == 4


def test_a_missing_library_is_refused_before_anything_starts(tmp_path, monkeypatch):
    for package, extra in (("tensorboard", "tensorboard"), ("wandb", "wandb"), ("alembic", "mlflow")):
        with monkeypatch.context() as without:
            for name in ("mlflow", "sqlalchemy", "alembic"):
                without.setitem(sys.modules, name, None if name == package else sys)
            without.setitem(sys.modules, package, None)
            without.setattr("importlib.util.find_spec", lambda name: sys.modules.get(name))
            with pytest.raises(UserError, match=rf"logger\.{extra} needs {package}: pip install 'sslcli\[{extra}\]'"):
                run(compose(*FAST, "train.steps=1", f"logger={extra}"), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nothing_is_logged_after_the_end():
    seen = []

    class Listener(CSV):
        def start(self, *given):
            seen.append("start")

        def scalars(self, *given):
            seen.append("scalars")

        def finish(self, metrics):
            seen.append(dict(metrics))

    loggers = Loggers({"one": Listener()}, seen.append)
    loggers.scalars({"step": 1})
    loggers.finish({"knn": 1.0})
    loggers.finish({})
    loggers.scalars({"step": 2})
    assert seen == ["scalars", {"knn": 1.0}]


def test_no_logger_of_the_core_opens_a_connection(tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise AssertionError(f"a connection was opened: {given}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    run(compose(*FAST, "train.steps=2", "logger=[csv,tensorboard]"), tmp_path / "r")
    assert len(rows(tmp_path / "r")) == 2 and events(tmp_path / "r").Scalars("loss")[-1].step == 2


@pytest.mark.parametrize("choice, names", [("csv", ["csv"]), ("[csv,tensorboard]", ["csv", "tensorboard"]), ("[]", [])])
def test_loggers_are_chosen_by_name(choice, names):
    assert list(compose(f"logger={choice}").logger) == names


def test_a_logger_does_not_change_which_run_it_is():
    from sslcli.config.identity import settings

    assert settings(compose()) == settings(compose("logger=csv", "log.report=false"))


@pytest.mark.slow
def test_only_the_first_process_logs(tmp_path):
    layers = ("encoder.norm=layer", "objective.norm=layer")
    options = (*FAST, "train.steps=4", *layers, "logger=[csv,tensorboard]", f"run_dir={tmp_path / 'r'}")
    for worker in [Forked(train, "ssl-train", *options, environment=ranks) for ranks in each_rank()]:
        said, _ = worker.communicate()
        assert worker.returncode == 0, said
    assert [int(row["step"]) for row in rows(tmp_path / "r")] == [1, 2, 3, 4]
    assert len(list((tmp_path / "r" / "tensorboard").glob("events*"))) == 1
    assert [event.step for event in events(tmp_path / "r").Scalars("loss")] == [1, 2, 3, 4]
