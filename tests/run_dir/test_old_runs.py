"""Runs that the version before the first change of format began: found by the same command, gone on with, and read.

``runs_of_format_1.tar.xz`` holds five of them, killed at step 4 of 8. They were made by commit 37474c0 with
``ssl-train`` and the options in ``COMMON`` and ``COMMANDS``.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from support.marks import rest_is_slow

import sslcli
from sslcli.run_dir import checkpoint

ARCHIVE = Path(__file__).with_name("runs_of_format_1.tar.xz")
COMMON = ("debug=tiny", "train.steps=8", "train.batch_size=16", "dataset.num_samples=60", "dataset.size=8",
          "encoder.width=2", "checkpoint.every=4", "checkpoint.keep=1", "log.every=2", "log.report=false",
          "train.precision=fp32", "device=cpu", "device.threads=1")  # fmt: skip
COMMANDS = {
    "infonce": ("objective=infonce", "objective.width=4", "objective.hidden_dim=4"),
    "moco": ("objective=moco", "objective.width=4", "objective.hidden_dim=4", "objective.queue=16"),
    "simmim": ("objective=simmim", "views=small"),  # the views of every objective then
    "joint": ("objective=joint", "objective.parts.infonce.width=4", "objective.parts.infonce.hidden_dim=4"),
    "byol": ("objective=byol", "objective.width=4", "objective.hidden_dim=4"),
}


@pytest.fixture
def old(run, tmp_path):
    """The old runs in the folder that commands start in, by objective."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return {path.name.partition("-")[0]: path for path in (tmp_path / "runs").iterdir()}


def last(folder):
    """What gradients have changed in the encoder of the newest checkpoint, in one vector."""
    encoder = checkpoint.newest(folder, print)[1]["encoder"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parts = [tensor for name, tensor in encoder.items() if not name.endswith(statistics)]
    return torch.cat([tensor.flatten().double() for tensor in parts])


@pytest.mark.parametrize("objective", rest_is_slow(COMMANDS, "infonce", "joint"))
def test_the_same_command_finds_an_old_run_and_goes_on(run, old, objective):
    before = last(old[objective])
    code, out, err = run(*COMMANDS[objective], *COMMON)
    name = old[objective].name
    assert code == 0, err
    assert f"resuming runs/{name} at step 4" in out and len(list(Path("runs").iterdir())) == 5
    lines = [json.loads(line) for line in (old[objective] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    code, out, _ = run(*COMMANDS[objective], *COMMON)
    assert code == 0 and f"runs/{name} is finished (8 steps)" in out
    run(*COMMANDS[objective], *COMMON, "run_dir=undisturbed")
    whole, continued = last(Path("undisturbed")), last(old[objective])
    # The first half was computed on another processor, and Adam makes much of rounding where a gradient is almost zero:
    # at most 0.22 of what the second half changes. Without the optimizer's state it is at least 0.72.
    assert (whole - continued).norm() < 0.45 * (continued - before).norm()


def test_every_command_reads_an_old_run(run, old):
    folder = f"runs/{old['infonce'].name}"
    for command, arguments in (("eval", ()), ("export", ("format=safetensors",)), ("report", ())):
        code, _, err = run(f"run={folder}", *arguments, command=command)
        assert code == 0, err
    trained = checkpoint.newest(old["infonce"], print)[1]["encoder"]
    for place in (folder, f"{folder}/export/safetensors/encoder.safetensors"):
        loaded = sslcli.load(place).encoder.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in trained.items())


def test_a_changed_default_is_that_of_its_time(old):
    """A yaml of one's own may leave out a key whose default has changed since: the run was made with the old one."""
    path = checkpoint.steps(old["infonce"])[0]
    state = torch.load(path, weights_only=True)
    for section, key in (("optimizer", "lr"), ("schedule", "warmup")):
        del state["config"][section][key]
    torch.save(state, path)
    config = checkpoint.load(path)["config"]
    assert config.optimizer.node["lr"] == 1e-3 and config.schedule.node["warmup"] == 0.05
    state["format"] = 2
    state["hooks"] = {}
    torch.save(state, path)
    assert "lr" not in checkpoint.load(path)["config"].optimizer.node
