"""What ``ssl-export`` writes loads elsewhere, strictly, and computes the same; what cannot be is refused in a line."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from support import (
    foreign,
    small_models,  # noqa: F401  registers models
)
from support.forked import Forked
from support.helpers import TINY, hook_of, make_trainer
from support.marks import rest_is_slow
from support.modalities import Bag, token_dataset, vector_dataset

import sslcli
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig
from sslcli.data.base import Columns, CorruptSample, CorruptSamples, Subset
from sslcli.data.corrupt import READABLE, CorruptFlagged, CorruptReplaced
from sslcli.data.labelled import Labelled
from sslcli.data.ram_cache import RamCache
from sslcli.data.selection import drawn
from sslcli.data.synthetic import synthetic
from sslcli.encoders.mlp import MLP
from sslcli.encoders.text_bag import TextBag
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.errors import UserError
from sslcli.export import onnx as onnx_format
from sslcli.export.base import Source
from sslcli.export.onnx import Onnx
from sslcli.export.safetensors import Safetensors
from sslcli.export.torch_export import TorchExport
from sslcli.pretrained.model import Pretrained
from sslcli.training.checkpoints import Checkpoints
from sslcli.training.device import choose
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough

FOLDER = tempfile.TemporaryDirectory()  # noqa: SIM115  of the runs that several tests export, to the end
SMALL = ("dataset.size=32", "dataset.num_samples=40", "train.batch_size=4")


def made(run_dir, *overrides):
    """A run directory with one checkpoint, whose encoder's numbers are all drawn: as good as a trained one here."""
    return shutil.copytree(made_once(overrides), run_dir)


@functools.cache
def made_once(overrides):
    run_dir = Path(tempfile.mkdtemp(dir=FOLDER.name)) / "r"
    trainer = make_trainer(run_dir, *TINY, *SMALL, *overrides)
    foreign.settled(trainer.encoder)
    run_dir.mkdir(exist_ok=True)
    trainer.step = 3
    hook_of(trainer, Checkpoints).save(trainer)
    return run_dir


def code_of(folder):
    """The Python that the model card beside an export shows first: it loads the file and uses it."""
    (about,) = folder.glob("*model_card.md")
    return blocks_of(about)[0]


def loaded(folder):
    """What the first of these lines define, which load the file, and the lines that use it on ``batch``."""
    load, mark, use = code_of(folder).partition("# batch")
    names = {}
    exec(load, names)
    return names, mark + use


def blocks_of(card):
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


def timm_model(name, **options):
    return ("encoder=timm", f"encoder.name={name}", *(f"encoder.{key}={value}" for key, value in options.items()))


FAMILIES = {
    "a small stem": ("encoder=resnet18",),
    "a standard stem": ("encoder=resnet18", "encoder.stem=standard"),
    "GroupNorm": ("encoder=resnet18", "encoder.norm=layer"),
    "grey": ("encoder=resnet18", "dataset.channels=1"),
    "ViT": (*timm_model("vit_mini", patch_size=8),),
    "five channels": (*timm_model("vit_mini", patch_size=8), "dataset.channels=5", "views=none"),
    "ViT by its class token": (*timm_model("vit_mini", patch_size=8, pool="token"),),
    "Swin": (*timm_model("swin_mini"), "dataset.size=224"),
    "ConvNeXt": ("encoder=convnext_tiny",),
}
LOADED = {  # how many tensors of torchvision's class the file has, and which it has not
    "a small stem": (120, "2 missing (fc.bias, fc.weight)"),
    "a standard stem": (120, "2 missing (fc.bias, fc.weight)"),
    "GroupNorm": (60, "2 missing (fc.bias, fc.weight)"),
    "grey": (120, "2 missing (fc.bias, fc.weight)"),
    "ViT": (42, "2 missing (heads.head.bias, heads.head.weight)"),
    "five channels": (42, "2 missing (heads.head.bias, heads.head.weight)"),
    "ViT by its class token": (42, "2 missing (heads.head.bias, heads.head.weight)"),
    "Swin": (127, "2 missing (head.bias, head.weight)"),
    "ConvNeXt": (180, "2 missing (classifier.2.bias, classifier.2.weight)"),
}


@pytest.mark.parametrize("family", rest_is_slow(FAMILIES, "a small stem", "ViT"))
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_state_dict_loads_strictly_into_the_librarys_own_class(run, tmp_path, family, library):
    """By the lines of the model card, executed here, on another batch than the command's own check."""
    made(tmp_path / "r", *FAMILIES[family])
    code, out, err = run("run=r", f"format={library}", "output=out/w.pth", command="export")
    assert code == 0, err
    lines = code_of(tmp_path / "out")
    assert all(f"  {line}" in out.splitlines() for line in lines.splitlines())  # the terminal shows the same
    assert "strict" not in lines  # which is torch's default
    if library == "torchvision":
        count, missing = LOADED[family]
        assert f"wrote out/w.pth: {count} tensors matched, {missing}, 0 unexpected; " in out
    else:
        assert "0 missing, 0 unexpected" in out
    encoder = sslcli.load("r")
    size = encoder.encoder.spec["image"].shape
    batch = torch.rand(5, *size, generator=torch.Generator().manual_seed(7))
    names, use = loaded(tmp_path / "out")
    scope = {**names, "batch": batch}
    with torch.no_grad():
        exec(use, scope)
        torch.testing.assert_close(scope["features"], encoder(batch), rtol=1e-4, atol=1e-4)
    assert type(scope["model"]).__module__.startswith(f"{library}.models")
    assert compared(tmp_path / "out", names)["batch"].shape == (3, *size)


@pytest.mark.slow
def test_other_lines_than_those_shown_would_not_do(run, tmp_path):
    """The small stem is not decoration: the library's plain model refuses the file, the plain pooling is another."""
    made(tmp_path / "r", "encoder=resnet18")
    assert run("run=r", "format=torchvision", "output=w.pth", command="export")[0] == 0
    lines = code_of(tmp_path).splitlines()
    (stem,) = (i for i, line in enumerate(lines) if line.startswith("model.conv1 ="))
    with pytest.raises(RuntimeError, match="size mismatch for conv1.weight"):
        exec("\n".join(lines[:stem] + lines[stem + 1 :]), {"batch": torch.rand(2, 3, 32, 32)})
    pooled = {}
    for which, kept in (("with", lines), ("without", [line for line in lines if "maxpool" not in line])):
        scope = {"batch": torch.ones(2, 3, 32, 32).tril()}
        exec("\n".join(kept), scope)
        pooled[which] = scope["features"]
    assert (pooled["with"] - pooled["without"]).abs().max() > 1e-2


@pytest.mark.slow
def test_the_printed_lines_run_where_nothing_else_is_imported(run, tmp_path):
    made(tmp_path / "r", *timm_model("test_vit", patch_size=8))
    assert run("run=r", "format=timm", command="export")[0] == 0
    batch = torch.rand(2, 3, 32, 32)
    torch.save(batch, tmp_path / "batch.pt")
    lines = code_of(tmp_path / "r" / "export" / "timm")
    code = f"import torch; batch = torch.load('batch.pt')\n{lines}\nassert 'sslcli' not in __import__('sys').modules\n"
    subprocess.run(
        [sys.executable, "-c", f"{code}torch.save(features.detach(), 'features.pt')"], cwd=tmp_path, check=True
    )
    with torch.no_grad():
        expected = sslcli.load("r")(batch)
    torch.testing.assert_close(torch.load(tmp_path / "features.pt"), expected, rtol=1e-4, atol=1e-4)


GRAPHS = {
    "convnet": ("encoder=convnet_small", "dataset.channels=1", "dataset.size=28"),
    "mlp": ("encoder=mlp",),
    "resnet": timm_model("resnet_mini"),
    "vit": timm_model("vit_mini"),
    "swin": timm_model("swin_mini"),
    "convnext": timm_model("convnext_mini"),
}
SUFFIX = {"onnx": "onnx", "torch_export": "pt2", "safetensors": "safetensors"}


@pytest.mark.parametrize("family", rest_is_slow(GRAPHS, "mlp"))
@pytest.mark.parametrize(
    ("kind", "suffix"), [("onnx", "onnx"), ("torch_export", "pt2"), ("safetensors", "safetensors")]
)
def test_every_family_is_a_graph_for_batches_of_any_size(run, tmp_path, family, kind, suffix):
    made(tmp_path / "r", *GRAPHS[family])
    code, out, err = run("run=r", f"format={kind}", command="export")
    assert code == 0, err
    path = f"r/export/{kind}/encoder.{SUFFIX[kind]}"
    assert out.startswith(f"wrote {path}: ") and "0 unexpected" in out
    encoder = sslcli.load("r")
    names, use = loaded(tmp_path / "r" / "export" / kind)
    for size in (1, 7):
        batch = torch.rand(size, *next(iter(encoder.encoder.spec.values())).shape)
        scope = {**names, "batch": batch.numpy() if kind == "onnx" else batch}
        with torch.no_grad():
            exec(use, scope)
            expected = encoder(batch)
        torch.testing.assert_close(torch.as_tensor(scope["features"]), expected, rtol=1e-4, atol=1e-4)
    assert compared(tmp_path / "r" / "export" / kind, names)["batch"].shape == (3, *batch.shape[1:])


@pytest.mark.parametrize("kind", rest_is_slow(["onnx", "torch_export"], "torch_export"))
def test_preprocessing_can_be_part_of_the_graph(run, tmp_path, kind):
    made(tmp_path / "r", *timm_model("vit_mini", patch_size=16))
    assert run("run=r", f"format={kind}", "format.preprocessing=true", command="export")[0] == 0
    lines = code_of(tmp_path / "r" / "export" / kind)
    assert "x = batch" in lines.splitlines()
    batch = torch.rand(3, 3, 32, 32)
    scope = {"batch": batch.numpy() if kind == "onnx" else batch}
    with torch.no_grad():
        exec(lines, scope)
        expected = sslcli.load("r")(batch)
    torch.testing.assert_close(torch.as_tensor(scope["features"]), expected, rtol=1e-4, atol=1e-4)


def source(tmp_path, encoder, dataset):
    model = Pretrained(encoder, PassThrough(dataset.spec, dataset.spec, 1), dataset.spec)
    return Source(tmp_path, {"config": TrainConfig(), "step": 0}, model, choose("cpu", "fp32"), DatasetChoice())


@pytest.mark.parametrize("kind", rest_is_slow([Onnx, TorchExport], TorchExport))
def test_ids_and_vectors_are_exported_too(tmp_path, kind):
    """The format must not know the modality: it asks the spec for shape, ids and statistics."""
    tokens, vectors = token_dataset(), vector_dataset()
    tokens.spec = Spec(text=replace(tokens.spec["text"], pad=3))  # the graph leaves padding out as the encoder does
    for name, encoder, dataset in (("text", Bag(tokens.spec), tokens), ("vector", MLP(vectors.spec), vectors)):
        path = tmp_path / f"{name}{kind.suffix}"
        exported = source(tmp_path, foreign.settled(encoder), dataset)
        written = kind()
        written.write(exported, path)
        (first, *_) = written.lines(exported, path).use
        assert first.startswith("# batch: " + ("whole numbers" if name == "text" else "float32"))
        checked = written.check(exported, path)
        assert checked.unexpected == [] and checked.matched > 0


@pytest.mark.parametrize("kind", rest_is_slow([Onnx, TorchExport], TorchExport))
@pytest.mark.parametrize("encoder", [TextBag, TextTransformer])
def test_a_graph_of_texts_reads_any_number_of_any_length_and_no_padding(tmp_path, kind, encoder):
    field = replace(token_dataset(length=20).spec["text"], pad=3, mask=4, special=(1, 2))
    dataset = Columns(Spec(text=field), {"text": torch.ones(2, 20, dtype=torch.int64)})
    small = {"hidden_dim": 32, **({"depth": 2} if encoder is TextTransformer else {"bigrams": 64})}
    exported = source(tmp_path, foreign.settled(encoder(dataset.spec, **small)), dataset)
    path, written = tmp_path / f"texts{kind.suffix}", kind()
    written.write(exported, path)
    lines = written.lines(exported, path)
    assert lines.use[0] == "# batch: whole numbers of shape (B, T), T at most 20; 3 fills short texts up"
    names = {}
    exec("\n".join(lines.load), names)

    def features(batch):
        scope = {**names, "batch": batch.numpy() if lines.array == "numpy" else batch}
        exec("\n".join(lines.use), scope)
        return torch.as_tensor(scope["features"])

    generator = torch.Generator().manual_seed(0)
    for size, width in ((1, 20), (5, 7), (3, 16), (1, 1)):
        batch = torch.randint(5, 50, (size, width), generator=generator)
        batch[0, (width + 1) // 2 :] = 3
        with torch.no_grad():
            torch.testing.assert_close(features(batch), exported.model(batch), rtol=1e-5, atol=1e-5)
        wider = F.pad(batch, (0, 20 - width), value=3)
        torch.testing.assert_close(features(wider), features(batch), rtol=1e-5, atol=1e-5)


def test_onnx_refuses_what_one_file_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "_LIMIT", 1000)
    dataset = vector_dataset()
    with pytest.raises(UserError, match="a file holds 2 GB"):
        Onnx().write(source(tmp_path, MLP(dataset.spec), dataset), tmp_path / "w.onnx")


# Golden samples.


def held_out_pictures(size):
    """The pixels in [0, 1] of the run's golden samples, read and resized here."""
    held_out = synthetic(num_samples=40, size=32).held_out
    raw = held_out.fetch(drawn(len(held_out), 3))["image"].float() / 255
    return raw if size == 32 else F.interpolate(raw, (size, size), mode="bilinear", antialias=True)


def compared(folder, loaded_names):
    """Run the lines of the model card that compare a loaded file with the golden samples; return these."""
    (card,) = folder.glob("*model_card.md")
    _, compare = blocks_of(card)
    scope = dict(loaded_names)
    exec(compare, scope)
    return scope["golden"]


def test_golden_samples_are_of_the_held_out_data(run, tmp_path):
    made(tmp_path / "r", "encoder=mlp")
    code, out, err = run("run=r", command="export")
    assert code == 0, err
    folder = tmp_path / "r" / "export" / "safetensors"
    path = "r/export/safetensors/encoder.golden.safetensors"
    assert f"compare it: {path} has 3 held-out samples of synthetic and their features" in out
    names, _ = loaded(folder)
    golden = compared(folder, names)
    torch.testing.assert_close(golden["batch"], held_out_pictures(32), atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(golden["features"], sslcli.load("r")(golden["batch"]))
    save_file({**golden, "features": golden["features"].flip(0)}, folder / "encoder.golden.safetensors")
    with pytest.raises(AssertionError):
        compared(folder, names)


def test_golden_samples_have_the_size_of_the_input(run, tmp_path):
    made(tmp_path / "r", *timm_model("vit_mini", patch_size=8, image_size=48))
    assert run("run=r", "output=w.safetensors", command="export")[0] == 0
    batch = load_file(tmp_path / "w.golden.safetensors")["batch"]
    assert (batch - held_out_pictures(48)).abs().max() <= 0.51 / 255  # in steps of 1 / 255
    torch.testing.assert_close(255 * batch, (255 * batch).round(), atol=1e-4, rtol=0)


def test_no_golden_samples_are_written_where_none_are_wanted(run, tmp_path):
    made(tmp_path / "r")
    assert run("run=r", "output=w.safetensors", command="export")[0] == 0
    code, out, _ = run("run=r", "output=w.safetensors", "golden=false", command="export")
    assert code == 0 and "removed w.golden.safetensors, which was of an earlier export" in out
    assert not (tmp_path / "w.golden.safetensors").exists()
    assert len(blocks_of(tmp_path / "w.model_card.md")) == 1
    save_file({"mine": torch.ones(1)}, tmp_path / "w.golden.safetensors")
    for golden in ("true", "false"):
        code, _, err = run("run=r", "output=w.safetensors", f"golden={golden}", command="export")
        assert code == 2 and "w.golden.safetensors is not this tool's and would be overwritten" in err
    assert load_file(tmp_path / "w.golden.safetensors").keys() == {"mine"}


@pytest.mark.parametrize("why", ["gone", "not held out"])
def test_without_held_out_data_golden_samples_are_generated(run, tmp_path, why):
    pictures(tmp_path / "data")
    (tmp_path / "data" / "ants" / "broken.png").unlink()
    holdout = "dataset.holdout=0" if why == "not held out" else "dataset.holdout=0.5"
    data = ("dataset=images", f"dataset.path={tmp_path}/data", "dataset.workers=0", "dataset.size=32", holdout)
    trainer = make_trainer(tmp_path / "r", *data, "train.batch_size=2", "train.steps=3")
    (tmp_path / "r").mkdir(exist_ok=True)
    hook_of(trainer, Checkpoints).save(trainer)
    if why == "gone":
        shutil.rmtree(tmp_path / "data")
    said = "dataset.path: there is no" if why == "gone" else "the run's data has no held-out samples"
    first = None
    for _ in range(2):
        code, out, err = run("run=r", "output=w.safetensors", command="export")
        assert code == 0 and f"has 3 generated samples ({said}" in out, (out, err)
        batch = load_file(tmp_path / "w.golden.safetensors")["batch"]
        assert batch.shape == (3, 3, 32, 32) and (first is None or torch.equal(batch, first))
        first = batch


# Nothing half written, nothing wrong in place.


@pytest.mark.parametrize("mistake", ["Zeros", "Dropped"])
def test_a_file_that_is_wrong_is_not_put_in_place(run, tmp_path, monkeypatch, mistake):
    made(tmp_path / "r", *timm_model("vit_mini", patch_size=16))
    (tmp_path / "out").mkdir()
    torch.save({"before": 1}, tmp_path / "out" / "w.pth")
    exits = []
    monkeypatch.setattr(sslcli.cli, "leave", lambda code: exits.append(code) or sys.exit(code))
    arguments = ("run=r", "output=out/w.pth", "plugins=[support]", f"format._target_=support.wrong_formats.{mistake}")
    code, out, err = run(*arguments, "format=timm", command="export")
    assert code == 1 and "Traceback" in err and out == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["w.pth"]
    assert torch.load(tmp_path / "out" / "w.pth") == {"before": 1}


def test_what_a_killed_export_left_is_swept_by_the_next_one(run, tmp_path):
    made(tmp_path / "r")

    def started():
        Safetensors.check = lambda self, source, path: os.kill(os.getpid(), signal.SIGKILL)
        sslcli.cli.export()

    assert Forked(started, "ssl-export", "run=r").wait() == -signal.SIGKILL
    folder = tmp_path / "r" / "export" / "safetensors"
    (left,) = folder.iterdir()
    assert left.name.startswith(".encoder.tmp")
    (folder / ".other.tmp.safetensors").write_bytes(b"")  # of somebody else's
    assert run("run=r", command="export")[0] == 0
    names = sorted(path.name for path in folder.iterdir())
    expected = [".other.tmp.safetensors", "encoder.golden.safetensors", "encoder.safetensors", "model_card.md"]
    assert names == expected


# What is refused.


@pytest.mark.slow
def test_what_no_other_library_has_is_refused(run, tmp_path):
    made(tmp_path / "own")
    made(tmp_path / "resnet", *timm_model("resnet_mini"))
    made(tmp_path / "swin", *timm_model("swin_mini"))  # 32 pixels: timm's last windows are smaller, torchvision pads
    made(tmp_path / "scaled", *timm_model("vit_mini", patch_size=16))
    (tmp_path / "thesis.safetensors").write_text("not weights")
    for run_dir, library, said in (
        ("own", "timm", "ConvNetSmall is an encoder of this tool, which no other library has. Use format=safetensors"),
        ("own", "torchvision", "ConvNetSmall is an encoder of this tool"),
        ("resnet", "torchvision", "torchvision has no resnet_mini; use format=timm."),
        ("swin", "torchvision", "is of another shape); use format=timm."),
        ("own", "onx", "format: there is no option 'onx'. Did you mean 'onnx'?"),
        ("own", "onnx format.opset=3", "Unknown key 'format.opset'"),
        ("own", "safetensors dataset=synthetic", "dataset: only format=embeddings and recommendations read data"),
        ("own", "safetensors output=own/checkpoints/last/x.safetensors", "cannot be written"),
        ("own", "safetensors output=thesis.safetensors", "thesis.safetensors is a file of another kind"),
        ("own", "safetensors output=own", "output: own must end in .safetensors"),
        ("own", "torch_export output=w.onnx", "output: w.onnx must end in .pt2"),
    ):
        code, out, err = run(f"run={run_dir}", *f"format={library}".split(), command="export")
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1 and not out, (library, err)


def test_a_model_that_is_like_torchvisions_in_names_only_is_refused(run, tmp_path):
    """The tensors all fit; only the numbers tell that torchvision's ViT computes something else."""
    made(tmp_path / "r", *timm_model("vit_relu_mini", patch_size=16))
    code, _, err = run("run=r", "format=torchvision", command="export")
    assert code == 2 and "is not this run's (features differ by" in err and "use format=timm" in err
    assert run("run=r", "format=timm", command="export")[0] == 0


def test_a_card_that_is_somebody_elses_is_not_written_over(run, tmp_path):
    made(tmp_path / "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "w.model_card.md").write_text("# mine\n")
    code, _, err = run("run=r", "output=mine/w.safetensors", command="export")
    assert code == 2 and "model_card.md is not this tool's" in err
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["w.model_card.md"]
    assert run("run=r", "output=w.safetensors", command="export")[0] == 0
    assert run("run=r", "output=w.safetensors", command="export")[0] == 0  # its own it writes again
    assert run("run=r", "output=v.safetensors", command="export")[0] == 0  # beside another, with a card of its own
    for name in ("v", "w"):
        assert f"{name}.safetensors" in (tmp_path / f"{name}.model_card.md").read_text()


def test_a_safetensors_file_of_somebody_elses_is_not_loaded(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="was not written by ssl-export"):
        sslcli.load(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match="cut short or not a safetensors file"):
        sslcli.load(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="there is no file"):
        sslcli.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("arguments", "needing", "module", "extra"),
    [
        ("format=onnx", "format=onnx", "onnxruntime", "onnx"),
        ("format=embeddings", "format.table=parquet", "pyarrow", "parquet"),
    ],
)
def test_a_missing_library_is_a_line_with_its_extra(run, monkeypatch, tmp_path, arguments, needing, module, extra):
    made(tmp_path / "r")
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run("run=r", arguments, command="export")
    assert code == 2
    assert err.splitlines() == [f"ssl-export: error: {needing} needs {module}: pip install 'sslcli[{extra}]'"]
    assert not [path for path in (tmp_path / "r" / "export").rglob("*") if path.is_file()]


# The card.


def test_the_card_says_what_it_is(run, tmp_path):
    options = (*TINY, "device=cpu", "probe.max_samples=100", "log.report=false")
    assert run(*options, "run_dir=first")[0] == 0
    assert run(*options, "encoder.weights=first", "run_dir=r", "objective.temperature=0.33")[0] == 0
    assert run("run=r", command="export")[0] == 0
    text = (tmp_path / "r" / "export" / "safetensors" / "model_card.md").read_text()
    metrics = json.loads((tmp_path / "r" / "result.json").read_text())["metrics"]
    for name, metric in metrics.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        scale, sign = (100, " %") if metric["unit"] == "share" else (1, "")
        error = metric["standard_error"] and float(f"{scale * metric['standard_error']:.1e}")  # to two digits
        places = max(0, 1 - math.floor(math.log10(error))) if error else 2 if sign else 4
        shown = f" ± {scale * metric['standard_error']:.{places}f}" if error else ""
        assert row.startswith(f"| {name} | {scale * metric['value']:.{places}f}{shown}{sign} |")
        assert metric["protocol"] in row
        for baseline in ("random_init", "start"):
            assert f"{baseline} {scale * metric[baseline]:.{places}f}{sign}" in row
    trained_on = torch.bincount(synthetic(num_samples=200, size=16).labels).tolist()
    classes = ", ".join(f"{label} ({count})" for label, count in enumerate(trained_on))
    for said in (
        "These weights are yours.", "MIT licence", "and of first, which it started from, are between you",
        "- shape of a sample: 3 x 16 x 16", "- mean: [0.5, 0.5, 0.5]", "- std: [0.25, 0.25, 0.25]",
        "bilinear, antialiased", "160 of 200 samples", "- objective: InfoNCE", "temperature: 0.33",
        "- encoder: ConvNetSmall, features of width 1024, started from first", f"timm {timm.__version__}",
        f"torch {torch.__version__}", "- length: 3 steps of 16 samples",
        f"- classes (label 0 first) and their training samples: {classes}", "- weights: the student's",
    ):  # fmt: skip
        assert said in text, said
    result = tmp_path / "r" / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "steps": 99}))
    assert run("run=r", command="export")[0] == 0
    assert "Nothing was measured at this step." in (tmp_path / "r/export/safetensors/model_card.md").read_text()


# Embeddings.


def pictures(folder, count=6):
    """Pictures in two folders, and one that is none."""
    for i in range(count):
        place = folder / ("ants" if i % 2 else "bees")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "ants" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")


@pytest.mark.parametrize("table", ["parquet", "numpy"])
def test_every_picture_of_a_folder_has_its_path_label_and_vector(run, tmp_path, table):
    made(tmp_path / "r")
    pictures(tmp_path / "data")
    data = ("dataset=images", "dataset.path=data", "dataset.size=32", "dataset.workers=0")
    code, out, err = run("run=r", "format=embeddings", f"format.table={table}", *data, command="export")
    assert code == 0, err
    assert f"6 samples matched, 1 missing ({tmp_path}/data/ants/broken.png), 0 unexpected" in out
    scope = {}
    exec(code_of(tmp_path / "r" / "export" / "embeddings"), scope)
    paths, labels, vectors = list(scope["paths"]), scope["labels"], np.array(scope["vectors"])
    classes = dict(zip(paths, scope["classes"]))
    assert sorted(paths) == sorted(str(path) for path in (tmp_path / "data").rglob("*.png"))
    assert vectors.dtype == np.float32 and vectors.shape == (7, 1024)
    encoder = sslcli.load("r")
    for path, label, vector in zip(paths, labels, vectors):
        assert label == ("/bees/" in path)  # numbered in the order of their names
        assert f"/{classes[path]}/" in path
        if "broken" in path:
            assert np.isnan(vector).all()
            continue
        image = torch.from_numpy(np.array(Image.open(path).crop((0, 4, 32, 36)))).permute(2, 0, 1)
        with torch.no_grad():
            for samples in (image[None], Image.open(path), [np.array(Image.open(path))]):
                np.testing.assert_allclose(vector, encoder(samples)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_the_runs_own_data_comes_by_default_in_order_and_in_pieces(run, tmp_path):
    made(tmp_path / "r", "dataset.num_samples=2000", "dataset.size=16")
    assert run("run=r", "format=embeddings", command="export")[0] == 0
    folder = tmp_path / "r" / "export" / "embeddings"
    table = pq.read_table(folder / "embeddings.parquet")
    split = np.array(table["split"].to_pylist())
    assert list(split) == ["train"] * 1600 + ["held_out"] * 400
    names = np.array(table["path"].to_pylist()).astype(int)
    assert sorted(names) == list(range(2000)) and (np.diff(names[:1600]) > 0).all()
    groups = pq.ParquetFile(folder / "embeddings.parquet").metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 512
    assert table["label"].null_count == 0 and set(table["label"].to_pylist()) == set(range(10))
    for part, count in (("train", 1600), ("held_out", 400)):
        options = (f"format.split={part}", "format.table=numpy", f"output={part}.npy")
        assert run("run=r", "format=embeddings", *options, command="export")[0] == 0
        array = np.load(tmp_path / f"{part}.npy", mmap_mode="r")
        assert len(array) == count and set(array["split"]) == {part}
        vectors = np.stack(table["vector"].to_numpy()[split == part])
        np.testing.assert_allclose(array["vector"], vectors, rtol=1e-5, atol=1e-5)


def test_data_that_the_encoder_would_read_wrongly_is_refused(run, tmp_path):
    made(tmp_path / "r")
    pictures(tmp_path / "data")
    for options, said in (
        (("dataset=synthetic", "dataset.channels=1"), "these data have image of shape [1, 32, 32]"),
        (("dataset=images", "dataset.path=data", "dataset.size=16"), "Set dataset.size=32"),
        (("dataset=synthetic", "dataset.holdout=0", "format.split=held_out"), "this data has no such part"),
        (("dataset=images", "dataset.path=nowhere"), "dataset.path"),
        (("format.split=half",), "format.split: 'half' is not one of both, train, held_out"),
        (("dataset.size=5",), "dataset"),
    ):
        code, _, err = run("run=r", "format=embeddings", *options, command="export")
        assert code == 2 and said in err and len(err.strip().splitlines()) <= 2, err
    assert not (tmp_path / "r" / "export" / "embeddings" / "embeddings.parquet").exists()


class Files(Columns):
    """Samples with names, of which some cannot be read."""

    def __init__(self, count=8, bad=(2, 5)):
        super().__init__(
            Spec(image=Field("image", (1, 2, 2), torch.uint8)),
            {"image": torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)},
            torch.arange(count) % 2,
        )
        self.bad = set(bad)

    def name_of(self, i):
        return f"file{i}"

    def fetch(self, index):
        rows = {row: CorruptSample(self.name_of(i), "broken") for row, i in enumerate(index.tolist()) if i in self.bad}
        if rows:
            raise CorruptSamples(rows)
        return super().fetch(index)


def test_wrappers_call_a_sample_by_its_own_name():
    files = Files()
    for wrapped in (CorruptReplaced(files), RamCache(files), Labelled(files, "label"), CorruptFlagged(files)):
        assert [wrapped.name_of(i) for i in range(8)] == [f"file{i}" for i in range(8)]
    some = Subset(files, torch.tensor([5, 0, 7]))
    assert [CorruptReplaced(some).name_of(i) for i in range(3)] == ["file5", "file0", "file7"]
    assert vector_dataset().name_of(3) == "3"


def test_marked_keeps_every_row_at_its_place():
    found = CorruptFlagged(Files()).fetch(torch.tensor([5, 1, 2, 7]))
    assert found[READABLE].tolist() == [False, True, False, True]
    assert found["image"][:, 0, 0, 0].tolist() == [0, 1, 0, 7]
    none = CorruptFlagged(Files()).fetch(torch.tensor([5, 2]))
    assert none["image"].shape == (2, 1, 2, 2) and not none[READABLE].any()
