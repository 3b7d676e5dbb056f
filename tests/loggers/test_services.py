"""wandb and mlflow for real, offline: what they wrote is read back by their own readers."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from support.helpers import compose

from sslcli.commands.train import run

pytestmark = pytest.mark.services
FAST = (
    "dataset=synthetic", "dataset.num_samples=200", "dataset.size=16", "train.batch_size=16", "device=cpu",
    "device.threads=1", "log.every=1", "checkpoint.every=3", "log.report=false", "objective=simmim",
    "probe.every=3", "probe.share=null",
)  # fmt: skip


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """9 steps; as if killed after them and before its last checkpoint, the run goes on from step 6."""
    folder = tmp_path_factory.mktemp("logged") / "run"
    for _ in range(2):
        run(compose(*FAST, "logger=[wandb,mlflow]", "train.steps=9"), folder)
        if (folder / "checkpoints" / "step-00000009.pt").exists() and len(
            list(folder.glob("wandb/offline-run-*"))
        ) == 1:
            (folder / "checkpoints" / "step-00000009.pt").unlink()
            (folder / "result.json").unlink()
    return folder


def records(path):
    """The records of a .wandb file: LevelDB's log format after a head of 7 bytes, in blocks of 32 KiB."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, joined = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no record's head fits into the rest of the block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        joined += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield joined
            joined = b""


def sessions(folder):
    """What each offline file of wandb holds."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        yield [Record.FromString(data) for data in records(path)]


def test_wandb_has_every_line_under_one_id(logged):
    both = list(sessions(logged))
    assert len(both) == 2
    assert len({record.run.run_id for found in both for record in found if record.run.run_id}) == 1
    truth = {}
    for line in lines(logged):  # a step's log line and what was seen of it are one row
        truth.setdefault(line["step"], {}).update(line)
    for found, steps in zip(both, (range(1, 10), range(7, 10))):
        history = {}
        for record in found:
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            history.setdefault(record.history.step.num, {}).update(row)
        for step in steps:
            assert (step % 3 == 0) == ("probe/online_knn_top1" in truth[step])
            for key in {"loss", "lr", "epoch", "probe/online_knn_top1"} & truth[step].keys():
                assert history[step][key] == pytest.approx(truth[step][key], rel=1e-6)
    assert list(logged.glob("wandb/offline-run-*/files/media/images/reconstruction/*.png"))


def test_mlflow_has_every_step_once(logged):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{logged}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("sslcli").experiment_id])
    assert found.info.status == "FINISHED"
    truth, seen = ([line for line in lines(logged) if key in line] for key in ("loss", "probe/online_knn_top1"))
    for key in ("loss", "lr", "epoch"):
        history = sorted(client.get_metric_history(found.info.run_id, key), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == list(range(1, 10))
        assert [metric.value for metric in history] == pytest.approx([line[key] for line in truth], rel=1e-12)
    name = "probe/online_knn_top1"
    looks = sorted(client.get_metric_history(found.info.run_id, name), key=lambda metric: metric.step)
    assert [(look.step, look.value) for look in looks] == [(line["step"], line[name]) for line in seen]
    assert [look.step for look in looks] == [3, 6, 9]  # each beside the log line of its step
    result = json.loads((logged / "result.json").read_text())["metrics"]["knn_top1"]
    assert found.data.metrics["result/knn_top1"] == result["value"]
    assert found.data.metrics["result/knn_top1/random_init"] == result["random_init"]
    assert found.data.params["objective.mask_ratio"] == "0.6"
    pictures = sorted(logged.glob("mlflow/*/artifacts/reconstruction/target/*.png"))
    assert len(pictures) == 8 and all(np.asarray(Image.open(path)).std() > 1 for path in pictures)


def test_a_service_that_is_not_there_stops_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    options = ("logger=[wandb,mlflow]", "logger.wandb.mode=online", "logger.mlflow.tracking_uri=http://127.0.0.1:9")
    run(compose(*FAST, *options, "train.steps=2"), tmp_path / "r")
    err = capsys.readouterr().err
    assert err.count("warning: logger.wandb: ") == 1 and err.count("warning: logger.mlflow: ") == 1
    assert [line["step"] for line in lines(tmp_path / "r") if "loss" in line] == [1, 2]


def test_starting_afresh_is_another_run(tmp_path):
    for _ in range(2):
        run(compose(*FAST, "logger=wandb", "train.steps=2", "resume=never"), tmp_path / "r")
    now, before = (tmp_path / "r" / place / "wandb" / "id" for place in (".", "previous/1"))
    assert now.read_text() != before.read_text()
