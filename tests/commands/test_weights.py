"""``weights=student|teacher``: the momentum copy in a checkpoint is evaluated, exported and loaded like the encoder."""

import json

import numpy as np
import pytest
import torch

import sslcli
from sslcli.errors import UserError

TINY = ("debug=tiny", "dataset.size=16", "dataset.num_samples=200", "device=cpu", "run_dir=r", "log.report=false")


def equal(module, state):
    mine = module.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[name], state[name]) for name in mine)


@pytest.mark.slow
def test_the_teacher_in_a_checkpoint_is_loaded_evaluated_and_exported(run, tmp_path):
    folder = tmp_path / "r"
    assert run(*TINY, "objective=joint_masked", "probe=none")[0] == 0  # its teacher belongs to one of two parts
    state = torch.load(next(folder.glob("checkpoints/step-*.pt")), weights_only=True)
    theirs = "parts.moco.teacher.encoder."
    teacher = {name.removeprefix(theirs): v for name, v in state["objective"].items() if name.startswith(theirs)}
    assert equal(sslcli.load(folder).encoder, state["encoder"])
    loaded = sslcli.load(folder, weights="teacher")
    assert equal(loaded.encoder, teacher) and not equal(loaded.encoder, state["encoder"])

    probe = ("run=r", "probe.max_samples=40")
    for weights in ("student", "teacher"):
        assert run(*probe, f"weights={weights}", command="eval")[0] == 0
        assert run("run=r", f"weights={weights}", command="export")[0] == 0
    found = json.loads((folder / "eval.json").read_text())["metrics"]
    assert found["knn_top1"]["weights"] == "student" and found["teacher"]["knn_top1"]["weights"] == "teacher"
    # The whitened and the raw baselines are those of the same samples; only the encoder is another.
    assert found["knn_top1"]["random_init"] == found["teacher"]["knn_top1"]["random_init"]
    for name, says, other in (
        ("safetensors", "student", "teacher/knn_top1"),
        ("safetensors-teacher", "teacher", "| knn_top1"),
    ):
        card = (folder / "export" / name / "model_card.md").read_text()
        assert f"- weights: the {says}'s" in card and other not in card
    file = folder / "export" / "safetensors-teacher" / "encoder.safetensors"
    assert equal(sslcli.load(file).encoder, teacher) and equal(sslcli.load(file, weights="teacher").encoder, teacher)
    with pytest.raises(UserError, match="this export holds the teacher's weights only"):
        sslcli.load(file, weights="student")

    table = ("format=embeddings", "format.table=numpy", "weights=teacher", "output=t.npy", "format.split=held_out")
    assert run("run=r", *table, command="export")[0] == 0
    from sslcli.data.synthetic import synthetic

    images = synthetic(num_samples=200, size=16).held_out
    with torch.no_grad():
        expected = loaded(images.fetch(torch.arange(40))["image"])
    np.testing.assert_allclose(np.load("t.npy")["vector"], expected, rtol=1e-4, atol=1e-4)


def test_a_run_without_a_teacher_says_so_in_one_line(run):
    assert run(*TINY, "probe=none")[0] == 0
    for command in ("eval", "export"):
        code, _, err = run("run=r", "weights=teacher", command=command)
        said = f"ssl-{command}: error: weights=teacher: the objective InfoNCE of this run has no teacher."
        assert code == 2 and err == f"{said} Use weights=student.\n"
    code, _, err = run("run=r", "weights=mean", command="eval")
    assert code == 2 and "weights=mean is neither student nor teacher" in err
