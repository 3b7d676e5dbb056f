"""The examples of CONTRIBUTING.md, as they stand there: each is written into a package of its own and run."""

import importlib
import json
import math
import re
import shlex
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sslcli
from sslcli.components import restore_components
from sslcli.config.instantiate import allow
from sslcli.data.synthetic import synthetic
from sslcli.evaluation.measure import dry_loss
from sslcli.run_dir.checkpoint import open_run
from sslcli.training.device import choose

ROOT = Path(__file__).parent.parent
QUICK = ("log.report=false", "device.threads=1")


def section(title: str) -> str:
    """The text under a heading."""
    parts = re.split(r"^### (.*)\n", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title]


def files(title: str) -> dict[str, str]:
    """The Python and yaml blocks of an example by the paths that stand before them."""
    return dict(re.findall(r"`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)```", section(title), re.DOTALL))


@pytest.fixture
def follow(run, tmp_path, monkeypatch):
    """Write an example's files and run its commands with more arguments; what the commands printed."""

    def call(title: str, *more: str) -> str:
        (tmp_path / "mypkg").mkdir()
        (tmp_path / "mypkg" / "__init__.py").write_text("")
        own = {path: text for path, text in files(title).items() if path.startswith("my")}
        shipped = [path for path in own if (ROOT / "conf" / Path(path).relative_to(Path(path).parts[0])).exists()]
        assert not shipped, "an option of this name is there, and is found first"
        for path, text in own.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        importlib.invalidate_caches()
        (block,) = re.findall(r"```bash\n(.*?)```", section(title), re.DOTALL)
        printed = ""
        for program, *arguments in map(shlex.split, block.splitlines()):
            if program == "python":
                exec(arguments[1], {})
                continue
            extra = (*QUICK, *more) if program == "ssl-train" else ()
            code, out, err = run(*arguments, *extra, command=program.removeprefix("ssl-"))
            assert code == 0, err
            printed += out
        return printed

    monkeypatch.syspath_prepend(str(tmp_path))  # before allow does, so that it is taken away again
    yield call
    allow([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        del sys.modules[name]


def metrics(run_dir: str) -> list[dict]:
    return [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]


def test_the_objective_trains_in_micro_batches(follow):
    printed = follow("Add an objective", "train.accumulate=4", "probe=none", "run_dir=r")
    assert "objective Align" in printed
    assert {"align", "uniform"} <= set(metrics("r")[-1])


@pytest.mark.slow
def test_the_dataset_yields_the_arrays_of_its_files(follow):
    printed = follow("Add a dataset", "run_dir=r", "train.steps=20", "train.batch_size=64")
    digits = load_digits()
    from mypkg.arrays import arrays

    dataset = arrays(path=".", holdout=0.0)
    index = torch.tensor([3, 1796, 5])
    expected = (15 * digits.images[[3, 1796, 5]]).astype(np.uint8)
    assert np.array_equal(dataset.fetch(index)["image"].numpy()[:, 0], expected)
    assert np.array_equal(dataset.labels.numpy(), digits.target)
    assert "1,438 training samples, 359 held out" in printed  # 80 and 20 % of 1,797
    assert 0.5 < json.loads(Path("r/result.json").read_text())["metrics"]["knn_top1"]["value"] <= 1


@pytest.mark.slow
def test_the_pairs_learn_that_they_belong_together(follow):
    printed = follow("Add a second column", "run_dir=r", "objective.norm=layer")
    assert "1,707 training samples, 90 held out" in printed  # 95 and 5 % of 1,797
    components = restore_components(open_run("r")[1], torch.device("cpu"))
    right = components.dataset.held_out.fetch(torch.arange(64))
    shuffled = {**right, "text": right["text"].roll(1, 0)}
    right_loss, shuffled_loss = (
        dry_loss(components, columns, choose("cpu", "fp32"), seed=0) for columns in (right, shuffled)
    )
    assert right_loss < math.log(64) < shuffled_loss


def test_a_folder_without_the_arrays_is_one_line(follow, run):
    follow("Add a dataset", "probe=none", "train.steps=1", "run_dir=r")
    code, _, err = run("dataset=arrays", "dataset.path=nowhere", "--config-dir", "my", "plugins=[mypkg]")
    assert code == 2 and err == "ssl-train: error: dataset: path: there is no images.npy in nowhere\n"


@pytest.mark.slow
def test_the_encoder_trains_with_views_and_with_masks(follow):
    printed = follow("Add an encoder", "probe=none", "train.steps=4")
    assert printed.count("encoder   ConvMixer") == 2 and "objective SimMIM" in printed


@pytest.mark.slow
def test_the_probe_is_a_loop_over_class_means(follow):
    printed = follow("Add a probe", "train.precision=fp32")
    encoder = sslcli.load("tiny")
    data = synthetic(num_samples=400)
    queried = data.held_out
    with torch.inference_mode():
        rows, asked = (
            encoder(part.fetch(torch.arange(len(part)))["image"]).double().numpy() for part in (data, queried)
        )
    rows, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, asked))
    right = 0
    for x, truth in zip(asked, queried.labels):
        cosines = []
        for label in range(10):
            mean = np.mean([row for row, of in zip(rows, data.labels) if of == label], axis=0)
            cosines.append(x @ mean / np.linalg.norm(mean))
        right += int(np.argmax(cosines) == truth)
    metric = json.loads(Path("tiny/eval.json").read_text())["metrics"]["centroid_top1"]
    assert metric["value"] == pytest.approx(right / len(asked))
    assert {"raw_input", "random_init"} <= set(metric) and "queries 80 held out" in metric["protocol"]
    assert "centroid_top1" in printed


def test_the_optimizer_is_the_one_that_is_shipped(follow):
    code, yaml = files("Add an optimizer").items()
    assert code[1] in (ROOT / code[0]).read_text()
    assert yaml[1] == (ROOT / yaml[0]).read_text()
    follow("Add an optimizer", "probe=none", "run_dir=r")
    assert len(metrics("r")) == 20


@pytest.mark.slow
def test_the_logger_has_every_line_once_after_going_on(follow, run):
    follow("Add a logger", "probe=none")
    with sqlite3.connect("logged/metrics.sqlite") as database:
        database.execute("INSERT INTO scalars VALUES (99, 'loss', 0)")  # as if the run had been killed after it
    database.close()
    code, _, err = run("debug=tiny", "logger=sqlite", "--config-dir", "my", "plugins=[mypkg]", "run_dir=logged",
                       "train.steps=30", "probe=none", *QUICK)  # fmt: skip
    assert code == 0, err
    database = sqlite3.connect("logged/metrics.sqlite")
    found = database.execute("SELECT step, name, value FROM scalars ORDER BY rowid").fetchall()
    database.close()
    lines = metrics("logged")
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert found == [(line["step"], name, value) for line in lines for name, value in line.items()]
