"""Checkpoints that are whole and are not what this tool writes: each is refused in a line that names what is wrong."""

import copy

import pytest
import torch
from support.helpers import plain_state

from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.checkpoint import DamagedCheckpoint
from sslcli.run_dir.formats import upgrade

IMAGE = {"kind": "image", "shape": [3, 8, 8], "dtype": "uint8", "vocab": 0, "pad": None, "mask": None}
IMAGE |= {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


def valid():
    return copy.deepcopy({
        "format": 3,
        **plain_state(4, spec={"image": IMAGE}, encoder={"w": torch.zeros(2)}, seconds=1.5),
    })  # fmt: skip


VARIANTS = {  # the change, and what the message has to name
    "only a format": (lambda s: [s.pop(key) for key in [*s] if key != "format"], "config"),
    "no config": (lambda s: s.pop("config"), "config"),
    "no encoder": (lambda s: s.pop("encoder"), "encoder is missing"),
    "no columns": (lambda s: s.update(spec=None), "not a checkpoint"),
    "no environment": (lambda s: s.pop("environment"), "environment is missing"),
    "no seconds": (lambda s: s.pop("seconds"), "seconds is missing"),
    "no step": (lambda s: s.pop("step"), "step is missing"),
    "text as step": (lambda s: s.update(step="x"), "step: 'x' is not a whole number"),
    "a negative step": (lambda s: s.update(step=-5), "step=-5"),
    "a truth as step": (lambda s: s.update(step=True), "step: 'True'"),
    "a list as config": (lambda s: s.update(config=[1]), "config"),
    "a list as section": (lambda s: s["config"].update(train=[1]), "train"),
    "a list as part": (lambda s: s["config"].update(encoder=[1]), "config.encoder"),
    "a list of loggers": (lambda s: s["config"].update(logger=["csv"]), "logger"),
    "an unknown section": (lambda s: s["config"].update(extra={}), "extra"),
    "an unknown key": (lambda s: s["config"]["train"].update(stepz=1), "train.stepz"),
    "text as seed": (lambda s: s["config"].update(seed="evil"), "seed: 'evil' is not a whole number"),
    "text as plugins": (lambda s: s["config"].update(plugins="os"), "plugins"),
    "a list of columns": (lambda s: s.update(spec=[1]), "not a checkpoint"),
    "a column of another version": (lambda s: s["spec"]["image"].update(foo=1), "spec.image.*foo"),
    "text as shape": (lambda s: s["spec"]["image"].update(shape="abc"), "spec.image.shape"),
    "a kind of one's own": (lambda s: s["spec"]["image"].update(kind="sound"), "spec.image.kind"),
    "a dtype of one's own": (lambda s: s["spec"]["image"].update(dtype="load"), "spec.image.dtype"),
    "numbers as weights": (lambda s: s.update(encoder={"w": 1.0}), "encoder"),
    "a list of weights": (lambda s: s.update(encoder=[torch.zeros(2)]), "encoder"),
    "text as threads": (lambda s: s["environment"].update(threads="x"), "environment.threads"),
    "many threads": (lambda s: s["environment"].update(threads=10**9), "environment.threads"),
    "no threads": (lambda s: s["environment"].update(threads=0), "environment.threads"),
    "nan seconds": (lambda s: s.update(seconds=float("nan")), "seconds"),
    "endless seconds": (lambda s: s.update(seconds=float("inf")), "seconds"),
    "another length": (lambda s: s.update(length={"years": 1}), "length"),
    "hooks without names": (lambda s: s.update(hooks=[{}]), "not a checkpoint"),
    "a hook without state": (lambda s: s.update(hooks={"metric_lines": 3}), "hooks"),
    "online evaluation without state": (lambda s: s.update(hooks={"online_evaluation": 3}), "not a checkpoint"),
    "format 1 without anything": (lambda s: s.update(format=1, watch=3), "not a checkpoint"),
    "format 0": (lambda s: s.update(format=0), "not a checkpoint"),
    "a truth as format": (lambda s: s.update(format=True), "not a checkpoint"),
    "a newer format": (lambda s: s.update(format=99, version="\x1b]0;owned\x07\nline"), "written by sslcli"),
    "a newer format without a version": (lambda s: (s.update(format=99), s.pop("version")), "written by sslcli"),
}  # fmt: skip


def test_what_this_tool_writes_is_read():
    assert upgrade(valid())["step"] == 4 and upgrade(valid())["environment"] == {
        **valid()["environment"],
        "commit": None,
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_other_content_is_refused_in_a_line(tmp_path, name):
    change, named = VARIANTS[name]
    state = valid()
    change(state)
    path = tmp_path / "step-00000004.pt"
    torch.save(state, path)
    with pytest.raises(UserError, match=named) as refused:
        checkpoint.load(path)
    assert not isinstance(refused.value, DamagedCheckpoint)
    assert len(str(refused.value).splitlines()) == 1 and str(refused.value).isprintable()
