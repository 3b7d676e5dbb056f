"""``encoder.weights`` in a run: when it is read, what it identifies, and the control that it adds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import small_models  # noqa: F401  registers models
from support.foreign import Code
from support.helpers import TINY, compose

from sslcli.components import build_components

NET = (*TINY, "device=cpu", "log.every=1", "log.report=false")
VIT = ("encoder=timm", "encoder.name=vit_mini", "encoder.norm=layer", "train.precision=fp32", *NET)


def names():
    """The names of all runs."""
    return [path.name for path in Path("runs").iterdir()]


def newest(run_dir):
    return torch.load(run_dir / "checkpoints" / (run_dir / "checkpoints" / "last").read_text().strip())


def test_a_run_starts_from_another_run_its_checkpoint_or_its_export(run, tmp_path):
    assert run(*NET, "seed=5", "run_dir=a")[0] == 0
    assert run("run=a", "output=a.safetensors", command="export")[0] == 0
    trained = newest(tmp_path / "a")["encoder"]
    for source in ("a", "a/checkpoints/step-00000003.pt", "a/checkpoints/last", "a.safetensors"):
        parts = build_components(compose(*NET, f"encoder.weights={source}"))
        assert str(parts.start) == f"{source} (sslcli): 16 matched, 0 missing, 0 unexpected"
        assert all(torch.equal(tensor, trained[name]) for name, tensor in parts.encoder.state_dict().items())


def test_a_teacher_is_a_copy_of_the_loaded_encoder(run, tmp_path):
    run(*NET, "seed=5", "run_dir=a")
    parts = build_components(compose(*NET, "objective=moco", "objective.queue=64", f"encoder.weights={tmp_path / 'a'}"))
    teacher = {name: t for name, t in parts.objective.state_dict().items() if name.endswith("trunk.0.weight")}
    assert len(teacher) == 1
    (kernel,) = teacher.values()
    assert torch.equal(kernel, newest(tmp_path / "a")["encoder"]["trunk.0.weight"])


@pytest.mark.slow
def test_the_run_says_what_it_started_from_and_goes_on_without_the_file(run, tmp_path):
    run(*NET, "seed=5", "run_dir=a")
    run("run=a", "output=w.safetensors", command="export")
    start = (*NET, "encoder.weights=w.safetensors", "probe=none")
    code, out, _ = run(*start, "run_dir=whole", "train.steps=6")
    assert code == 0
    line = "start     w.safetensors (sslcli): 16 matched, 0 missing, 0 unexpected"
    assert line in out.splitlines() and line in (tmp_path / "whole" / "train.log").read_text().splitlines()
    assert run(*start, "run_dir=b", "train.steps=6", "checkpoint.every=1", "schedule=constant")[0] == 0
    assert run(*start, "run_dir=c", "train.steps=4", "schedule=constant")[0] == 0
    (tmp_path / "w.safetensors").rename(tmp_path / "gone")
    assert run(*start, "run_dir=c", "train.steps=6", "schedule=constant")[0] == 0
    undisturbed, resumed = newest(tmp_path / "b")["encoder"], newest(tmp_path / "c")["encoder"]
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in undisturbed.items())
    assert run("run=c", command="eval")[0] == 0 and run("run=c", command="export")[0] == 0
    code, _, err = run(*start, "run_dir=c", "resume=never")
    assert code == 2 and "encoder.weights: there is no file or run w.safetensors" in err


@pytest.mark.slow
def test_other_weights_are_another_run_and_the_same_ones_elsewhere_are_not(run, tmp_path):
    for seed in (5, 6):
        assert run(*NET, f"seed={seed}", f"run_dir=from{seed}", "probe=none")[0] == 0
        assert run(f"run=from{seed}", f"output=w{seed}.safetensors", command="export")[0] == 0
    start = (*NET, "probe=none")
    shutil.copy("w5.safetensors", "one.safetensors")
    assert run(*start, "encoder.weights=one.safetensors")[0] == 0
    (name,) = names()
    code, out, _ = run(*start, "encoder.weights=w5.safetensors")
    assert code == 0 and f"{name} is finished (3 steps)" in out
    code, out, err = run(*start, "encoder.weights=w5.safetensors", "train.steps=4", f"run_dir=runs/{name}")
    assert code == 0 and f"resuming runs/{name} at step 3" in out, err
    code, _, err = run(*start, "encoder.weights=w6.safetensors", "train.steps=5", f"run_dir=runs/{name}")
    assert code == 2 and err.startswith("ssl-train: error: encoder.weights: ") and "resume=never" in err
    assert run(*start, "encoder.weights=w6.safetensors")[0] == 0 and len(names()) == 2
    (tmp_path / "w6.safetensors").unlink()
    code, out, _ = run(*start, "encoder.weights=w6.safetensors")
    assert code == 0 and "is finished (3 steps)" in out  # of the run with this very path
    code, _, err = run(*start, "encoder.weights=w6.safetensors", "seed=5")
    assert code == 2 and "encoder.weights: there is no file" in err and len(names()) == 2


def test_the_start_is_a_control_beside_the_random_one(run, tmp_path):
    """At learning rate 0 the trained encoder is the one that was loaded, so that its numbers are the control's."""
    run(*VIT, "seed=5", "run_dir=a", "optimizer.lr=0.1", "schedule=constant")
    assert run(*VIT, "encoder.weights=a", "run_dir=b", "optimizer.lr=0")[0] == 0
    result = json.loads((tmp_path / "b" / "result.json").read_text())["metrics"]
    for metric in result.values():
        assert metric["start"] == metric["value"] != metric["random_init"]
    plain = json.loads((tmp_path / "a" / "result.json").read_text())["metrics"]
    assert all("start" not in metric for metric in plain.values())
    assert run("run=b", command="eval")[0] == 0
    again = json.loads((tmp_path / "b" / "eval.json").read_text())["metrics"]
    assert {
        name: {k: v for k, v in metric.items() if k not in ("step", "weights")} for name, metric in again.items()
    } == {name: metric for name, metric in result.items() if name.startswith("knn")}
    assert again.keys() == {"knn_top1", "knn_whitened_top1", "knn_balanced_accuracy", "knn_macro_f1"}
    kept = load_file(tmp_path / "b" / "start.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in newest(tmp_path / "a")["encoder"].items())


def test_without_labels_rankme_has_the_control_too(run, tmp_path):
    run(*NET, "seed=5", "run_dir=a")
    assert run(*NET, "encoder.weights=a", "run_dir=b", "probe=none")[0] == 0
    metrics = json.loads((tmp_path / "b" / "result.json").read_text())["metrics"]
    assert "start" in metrics["rankme"] and "start" not in metrics["held_out_loss"]


def test_what_is_refused_ends_with_2_and_writes_nothing(run, tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": Code("touch ran")}, tmp_path / "bad.pth")
    for weights, said in (
        ("bad.pth", "it asks for posix.system"),
        ("nowhere.pth", "there is no file or run nowhere.pth"),
        ("5", "encoder.weights: 5 is not a text or null"),
        ("timm:resnet1", "timm has no model 'resnet1'"),
    ):
        code, _, err = run(*NET, f"encoder.weights={weights}", "run_dir=r")
        assert code == 2 and said in err and len(err.splitlines()) <= 2, err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_start_that_was_lost_is_no_control_of_the_run_that_took_its_place(run, tmp_path):
    run(*NET, "seed=5", "run_dir=a")
    assert run(*NET, "encoder.weights=a", "run_dir=b")[0] == 0
    shutil.rmtree(tmp_path / "b" / "checkpoints")  # as if the machine had died before the first of them
    (tmp_path / "b" / "result.json").unlink()
    assert run(*NET, "run_dir=b")[0] == 0
    metrics = json.loads((tmp_path / "b" / "result.json").read_text())["metrics"]
    assert metrics and not any("start" in metric for metric in metrics.values())
