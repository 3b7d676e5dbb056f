"""``eval.json``, written by several at once and of several steps, and who reads it: the card and the page."""

from __future__ import annotations

import functools
import json
import re
import time

import pytest
from support.forked import Forked
from support.helpers import percent

from sslcli.run_dir.eval_json import add_metrics
from sslcli.run_dir.result_json import headline_value, read_result

RUN = (
    "debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", "log.report=false",
    "checkpoint.every=10", "checkpoint.keep=9",
)  # fmt: skip
LINEAR = ("probe=linear", "probe.steps=20")
LINEAR_NAMES = ("linear_top1", "linear_balanced_accuracy", "linear_macro_f1")
KNN_NAMES = ("knn_top1", "knn_balanced_accuracy", "knn_macro_f1", "knn_whitened_top1")


def evaluated(folder):
    return json.loads((folder / "r" / "eval.json").read_text())


def card(folder):
    """The card's rows: cells by metric and file."""
    text = (folder / "r" / "export" / "safetensors" / "model_card.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {(row[0], row[-1]): row for row in rows[2:]}


def rows_of_page(folder):
    """The page's rows: name, value, baselines, protocol."""
    text = (folder / "r" / "report.html").read_text()
    rows = re.findall(r"<tr><td class=\"name\">.*?</tr>", text, re.DOTALL)
    return [[" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in row.split("</td>")[:-1]] for row in rows]


def add_twenty(folder, name):
    (folder / f"{name}.ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    for k in range(20):
        add_metrics(folder, {f"{name}_{k}": {"value": 0.5, "protocol": "p" * 20_000}}, step=1, dataset=None)


@pytest.mark.slow
def test_several_evaluations_at_once_lose_nothing(tmp_path):
    writers = [Forked(functools.partial(add_twenty, tmp_path, name), "any") for name in "abc"]
    while len([*tmp_path.glob("*.ready")]) < len(writers):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    while any(writer.poll() is None for writer in writers):  # whoever reads finds it whole
        if (tmp_path / "eval.json").is_file():
            json.loads((tmp_path / "eval.json").read_text())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    found = json.loads((tmp_path / "eval.json").read_text())["metrics"]
    assert found.keys() == {f"{name}_{k}" for name in "abc" for k in range(20)}


@pytest.fixture
def longer(run):
    """A run that was evaluated by one probe at step 10 and by another at step 20."""
    assert run(*RUN, "train.steps=10")[0] == 0
    assert run("run=r", *LINEAR, "seed=3", command="eval")[0] == 0
    assert run(*RUN, "train.steps=20")[0] == 0
    assert run("run=r", command="eval")[0] == 0


def test_the_card_has_what_was_measured_at_its_step_and_no_other(run, tmp_path, longer):
    assert {name: metric["step"] for name, metric in evaluated(tmp_path)["metrics"].items()} == {
        **dict.fromkeys(LINEAR_NAMES, 10), **dict.fromkeys(KNN_NAMES, 20)
    }  # fmt: skip
    assert run("run=r", command="export")[0] == 0
    both = {(name, file) for name in KNN_NAMES for file in ("result.json", "eval.json")}
    label_free = {(name, "result.json") for name in ("rankme", "alignment", "uniformity", "dimension_std")}
    assert card(tmp_path).keys() == both | label_free
    assert run("run=r/checkpoints/step-00000010.pt", command="export")[0] == 0
    rows = card(tmp_path)
    assert rows.keys() == {(name, "eval.json") for name in LINEAR_NAMES}
    row, metric = rows["linear_top1", "eval.json"], evaluated(tmp_path)["metrics"]["linear_top1"]
    error = (metric["value"] * (1 - metric["value"]) / 60) ** 0.5  # binomial, of 60 queries
    assert row[1] == f"{percent(metric['value'], error)} %"
    values = {name: percent(metric[name], error).partition(" ")[0] for name in ("raw_input", "random_init")}
    baselines = [f"{name} {value} %" for name, value in values.items()]
    assert sorted(row[2].split(", ")) == sorted(baselines)


@pytest.mark.slow
def test_the_page_says_of_each_evaluation_its_step_and_seed(run, tmp_path, longer):
    assert run("run=r", command="report")[0] == 0
    for name, metric in evaluated(tmp_path)["metrics"].items():
        said = f"{metric['protocol']}; step {metric['step']}, seed {metric['seed']}"
        assert any(row[3].endswith(f"; {said}") for row in rows_of_page(tmp_path) if row[0] == name)


@pytest.mark.slow
def test_another_checkpoint_than_the_newest_is_kept_apart(run, tmp_path):
    assert run(*RUN, "train.steps=20")[0] == 0
    assert run("run=r", command="eval")[0] == 0
    newest = evaluated(tmp_path)["metrics"]
    assert run("run=r/checkpoints/step-00000010.pt", command="eval")[0] == 0
    found = evaluated(tmp_path)["metrics"]
    older = found.pop("step-00000010")
    assert found == newest and {metric["step"] for metric in older.values()} == {10}
    assert older.keys() == newest.keys()
    assert run("run=r/checkpoints/last", command="eval")[0] == 0  # by its name, and still the newest
    assert evaluated(tmp_path)["metrics"] == {**newest, "step-00000010": older}
    other = ("dataset=synthetic", "dataset.size=16", "dataset.num_samples=200")
    assert run("run=r/checkpoints/step-00000010.pt", *other, command="eval")[0] == 0
    (name,) = evaluated(tmp_path)["datasets"]
    assert evaluated(tmp_path)["metrics"]["step-00000010"][name].keys() == newest.keys()
    assert run("run=r/checkpoints/step-00000010.pt", command="export")[0] == 0
    assert set(card(tmp_path)) == {
        (f"step-00000010/{place}{metric}", "eval.json") for place in ("", f"{name}/") for metric in newest
    }


def test_a_run_evaluated_on_other_data_is_exported_with_a_card(run, tmp_path):
    assert run(*RUN, "train.steps=10")[0] == 0
    other = ("dataset=synthetic", "dataset.size=16", "dataset.num_samples=200")
    assert run("run=r", *other, command="eval")[0] == 0
    code, _, err = run("run=r", command="export")
    assert code == 0, err
    (name,) = evaluated(tmp_path)["datasets"]
    metric = evaluated(tmp_path)["metrics"][name]["knn_top1"]
    row = card(tmp_path)[f"{name}/knn_top1", "eval.json"]
    assert row[1] == f"{percent(metric['value'], metric['standard_error'])} %" and row[3] == metric["protocol"]


@pytest.mark.slow
def test_a_run_that_is_not_finished_shows_what_was_evaluated(run, tmp_path):
    assert run(*RUN, "train.steps=10", "probe=none")[0] == 0
    assert run("run=r", command="eval")[0] == 0
    (tmp_path / "r" / "result.json").unlink()
    assert run("run=r", command="report")[0] == 0
    names = [row[0] for row in rows_of_page(tmp_path)]
    assert names == list(evaluated(tmp_path)["metrics"])
    text = (tmp_path / "r" / "report.html").read_text()
    assert 'href="#result"' in text and 'id="result"' in text and "Evaluated since" in text


def test_an_old_result_is_read_as_if_it_were_written_today(run, tmp_path):
    """Without units, directions, errors and headline, with the label-free metrics in a place of their own."""
    assert run(*RUN, "train.steps=10", "probe=none")[0] == 0
    metrics = {
        "finetune_top1": {"value": 0.5, "std": None, "random_init": 0.25, "protocol": "p"},
        "mi_floor": {"value": 1.5, "std": 0.5, "random_init": 0.25, "protocol": "q"},
        "knn_top1": {"value": 0.75, "std": None, "raw_input": 0.8, "random_init": 0.5, "protocol": "r"},
    }
    old = {
        "metrics": metrics,
        "quality": {"rankme": 12.5},
        "steps": 10,
        "seconds": 1.0,
        "seed": 0,
        "uses_labels": False,
    }
    (tmp_path / "r" / "result.json").write_text(json.dumps(old))
    assert run("run=r", command="report")[0] == 0
    assert rows_of_page(tmp_path) == [
        ["rankme", "12.5000", "", ""],
        ["finetune_top1", "50.00 %", "random_init 25.00 %", "+25.00 points against random_init; p"],
        ["mi_floor", "1.5000 nats, std 0.5000 nats", "random_init 0.2500 nats", "+1.2500 nats against random_init; q"],
        ["knn_top1", "75.00 %", "raw_input 80.00 % random_init 50.00 %", "−5.00 points against raw_input; r"],
    ]
    assert '<p class="kicker">knn_top1</p>' in (tmp_path / "r" / "report.html").read_text()
    result = read_result(tmp_path / "r")
    assert headline_value(result) == 0.75 and "quality" not in result
