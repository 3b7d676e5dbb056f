"""Somebody's weights as a start: every layout of the table computes what its own model computes."""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib
import pickle
import re
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import brentq
from support import (
    foreign,
    small_models,  # noqa: F401  registers models
)
from support.foreign import Code, around, head, noise
from support.forked import Forked
from support.marks import rest_is_slow
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from sslcli.encoders.timm import Timm
from sslcli.errors import UserError
from sslcli.pretrained.load import load_weights
from sslcli.types import Field, Spec, View

COUNT = 60  # tensors of this ResNet and the filler, without counters


def encoder(name="resnet_mini", size=32, **options):
    torch.manual_seed(1)
    return Timm(Spec(image=Field("image", (3, size, size), torch.uint8)), name=name, **options).eval()


@torch.no_grad()
def same_features(ours, theirs, size=32):
    """The encoder's pooled features equal those of ``theirs(images)``."""
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(View(x, "image")).pooled, theirs(x), rtol=1e-4, atol=1e-4)


def saved(tmp_path, content, name="weights.pth", **options):
    torch.save(content, tmp_path / name, **options)
    return str(tmp_path / name)


RESNETS = {
    "torchvision_resnet": "ResNet",
    "moco_v2": "DistributedDataParallel, MoCo v1 or v2, ResNet",
    "moco_on_one_gpu": "MoCo v1 or v2, ResNet",
    "moco_v3_resnet": "DistributedDataParallel, MoCo v3, ResNet",
    "solo_learn": "solo-learn, ResNet",
    "lightly": "lightly, ResNet as nn.Sequential, ResNet",
    "lightly_dino": "lightly's DINO, ResNet",
    "lightly_own_resnet": "sslcli, lightly, lightly's ResNet as nn.Sequential, shortcuts by that name, ResNet",
    "simclr_in_fc": "under backbone., ResNet",
    "simclr_encoder_projector": "under encoder., ResNet",
    "simclr_f_g": "under f., ResNet as nn.Sequential without pooling, ResNet",
    "sup_contrast": "under encoder., DistributedDataParallel, shortcuts by that name, ResNet",
    "compiled": "torch.compile, ResNet",
}


@pytest.mark.parametrize("layout", RESNETS)
def test_every_layout_of_a_resnet_computes_the_same(tmp_path, layout):
    content, model = getattr(foreign, layout)()
    ours = encoder(stem="standard")
    report = load_weights(ours, saved(tmp_path, content))
    assert ", ".join(report.layouts) == RESNETS[layout]
    assert str(report).endswith(f": {COUNT} matched, 1 missing (filler), 0 unexpected")
    same_features(ours, model)


VITS = {
    "mae": "MAE, ViT",
    "moco_v3_vit": "DistributedDataParallel, MoCo v3, ViT",
    "dino": "DINO, ViT",
    "dino_backbone": "ViT",
    "dino_v2_chunked": "DINOv2, DINOv2's chunks of blocks, ViT",
    "torchvision_vit": "torchvision's ViT, ViT",
    "transformers_vit": "transformers' ViT, ViT",
    "transformers_5_vit": "transformers' ViT, ViT",
    "mmpretrain_vit": "under backbone., mmpretrain's ViT, ViT",
    "lightly_masked_vit": "under backbone.vit., torchvision's ViT, ViT",
}


# Prefixes that no row of the table names, and what is beside the encoder.
PREFIXES = {
    "under 0., MoCo v1 or v2": lambda w: {**around(w, "encoder_q.0."), **head("encoder_q.1.mlp.", "0", "2"),
                                          **noise(w, "encoder_k.0."), "queue": torch.zeros(4, 8)},
    "under _forward_module., DistributedDataParallel": lambda w: around(w, "module._forward_module."),
    "under net.": lambda w: {"state_dict": {**around(w, "net."), **head("head.", "0", "2")}},
    "under image_encoder.": lambda w: {**around(w, "image_encoder."), **head("proj.", "0", "2")},
    "under 1.": lambda w: (3, w),
    "under trained.best.": lambda w: {"epoch": 3, "trained": {"best": w}, "rng": torch.get_rng_state()},
    "": lambda w: {"model_ema": w, "epoch": 3},
    "FSDP": lambda w: around(w, "_fsdp_wrapped_module."),
    "torch.compile, FSDP, activation checkpointing": lambda w: {
        name.replace("layer1.0.", "layer1._checkpoint_wrapped_module._orig_mod.0."): tensor
        for name, tensor in around(w, "_fsdp_wrapped_module.").items()
    },
    "DINOv2": lambda w: {"model": {**noise(w, "student.backbone."), **head("student.dino_head.mlp.", "0", "2"),
                                   **around(w, "teacher.backbone."), **head("teacher.dino_head.mlp.", "0", "2")}},
}  # fmt: skip


@pytest.mark.parametrize("layout", PREFIXES)
def test_any_prefix_is_found(tmp_path, layout):
    model, weights = foreign.resnet()
    ours = encoder(stem="standard")
    report = load_weights(ours, saved(tmp_path, PREFIXES[layout](weights)))
    assert ", ".join(report.layouts) == ", ".join(filter(None, (layout, "ResNet")))
    assert str(report).endswith(f": {COUNT} matched, 1 missing (filler), 0 unexpected")
    same_features(ours, model)


def test_a_module_with_two_names_is_one_encoder_and_two_modules_are_refused_with_both_names(tmp_path):
    model, weights = foreign.resnet()
    ours = encoder(stem="standard")
    shared = {**around(weights, "net."), **around(weights, "online_encoder.net.")}
    assert load_weights(ours, saved(tmp_path, shared)).layouts == ["under net.", "ResNet"]
    same_features(ours, model)
    two = saved(tmp_path, {**around(weights, "online_net.0."), **noise(weights, "target_net.0.")}, "byol.pth")
    with pytest.raises(UserError, match="fit equally well: online_net.0., target_net.0.") as caught:
        load_weights(ours, two)
    content = torch.load(two, weights_only=True)
    way_out = re.search(r"torch.save\((.*), 'weights.pth'\)", str(caught.value))[1]
    one = eval(way_out, {"weights": content})
    assert load_weights(encoder(stem="standard"), saved(tmp_path, one)).layouts == ["under target_net.0.", "ResNet"]


HARMLESS = {
    "a path": Path("/somewhere"),
    "an array": np.arange(3.0),
    "a random state": np.random.RandomState(0).get_state(),  # noqa: NPY002
    "a history": collections.deque([1.0]),
    "a time": datetime.datetime(2026, 1, 1),
    "settings": argparse.Namespace(out=Path("x"), seen=collections.deque([Path("y")])),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_objects_beside_the_tensors_are_passed_over(tmp_path, what):
    model, weights = foreign.resnet()
    ours = encoder(stem="standard")
    report = load_weights(ours, saved(tmp_path, {"model": weights, "beside": HARMLESS[what]}))
    assert len(report.matched) == COUNT
    same_features(ours, model)


def mean_of_patches(model):
    """The mean over the patch tokens, by the means of the model's own library."""
    if isinstance(model, timm.models.VisionTransformer):
        return lambda x: model.forward_features(x)[:, 1:].mean(1)

    def of_torchvision(x):
        tokens = torch.cat([model.class_token.expand(len(x), -1, -1), model._process_input(x)], 1)
        return model.encoder(tokens)[:, 1:].mean(1)

    return of_torchvision


@pytest.mark.parametrize("layout", VITS)
def test_every_layout_of_a_vit_computes_the_same(tmp_path, layout):
    content, model = getattr(foreign, layout)()
    ours = encoder("vit_mini", patch_size=4)
    report = load_weights(ours, saved(tmp_path, content))
    assert ", ".join(report.layouts) == VITS[layout]
    assert report.unexpected == [] and set(report.missing) <= {"mask_token"}
    same_features(ours, mean_of_patches(model))


def test_simmims_swin_computes_the_same_and_keeps_its_mask_token(tmp_path):
    model = foreign.settled(timm.create_model("swin_mini", img_size=64, patch_size=2, num_classes=0))
    content = foreign.simmim_swin(model)
    ours = encoder("swin_mini", 64, patch_size=2)
    report = load_weights(ours, saved(tmp_path, content))
    assert report.layouts == ["SimMIM", "Swin as published", "Swin"]
    assert report.missing == report.unexpected == []
    assert torch.equal(ours.mask_token, content["model"]["encoder.mask_token"].flatten())
    same_features(ours, model, 64)


def test_simmims_relative_positions_are_resized_geometrically(tmp_path):
    """Window 6 in pretraining at 192 pixels, 7 here: the published case."""
    model = foreign.settled(timm.create_model("swin_mini", img_size=192, window_size=6, num_classes=0))
    ours = encoder("swin_mini", 224)
    report = load_weights(ours, saved(tmp_path, foreign.simmim_swin(model)))
    assert report.missing == report.unexpected == []
    theirs = model.layers[1].blocks[1].attn.relative_position_bias_table.detach()
    table = ours.model.layers[1].blocks[1].attn.relative_position_bias_table
    assert theirs.shape == (121, 2) and table.shape == (169, 2)
    # Offsets of window 6 lie at 0, 1, 1 + q, 1 + q + q^2, ..., ending at 6 (SimMIM, utils.py).
    q = brentq(lambda q: sum(q**k for k in range(5)) - 6, 1.01, 1.5)
    offsets = np.cumsum([q**k for k in range(5)])
    places = np.concatenate([-offsets[::-1], [0], offsets])
    wanted = np.stack(np.meshgrid(np.arange(-6.0, 7), np.arange(-6.0, 7), indexing="ij"), -1)
    for one in range(2):
        values = theirs[:, one].reshape(11, 11).numpy()
        expected = RegularGridInterpolator((places, places), values, bounds_error=False, fill_value=None)(wanted)
        np.testing.assert_allclose(table[:, one].detach().numpy(), expected.reshape(-1), rtol=1e-3, atol=1e-4)


def test_simmims_vit_computes_the_same_in_a_model_with_relative_positions(tmp_path):
    model = foreign.settled(timm.create_model("beit_mini", img_size=32, num_classes=0))
    content = foreign.simmim_vit(model)  # before the comparison: it shares the table between the blocks
    ours = encoder("beit_mini", patch_size=4)
    report = load_weights(ours, saved(tmp_path, content))
    assert report.layouts == ["SimMIM", "shared positions", "ViT"]
    assert report.missing == ["fc_norm.bias", "fc_norm.weight"] and report.unexpected == []
    same_features(ours, lambda x: model.forward_features(x)[:, 1:].mean(1))


def test_a_vits_relative_positions_are_resized_but_for_those_of_the_class_token(tmp_path):
    model = foreign.settled(timm.create_model("beit_mini", img_size=24, num_classes=0))
    content = foreign.simmim_vit(model)
    ours = encoder("beit_mini", 32, patch_size=4)
    assert load_weights(ours, saved(tmp_path, content)).unexpected == []
    table = content["model"]["encoder.rel_pos_bias.relative_position_bias_table"]
    found = ours.model.blocks[2].attn.relative_position_bias_table
    assert table.shape == (11**2 + 3, 2) and found.shape == (15**2 + 3, 2)
    assert torch.equal(found[-3:], table[-3:])
    torch.testing.assert_close(found[15**2 // 2], table[11**2 // 2])  # no offset


def test_biases_of_q_and_v_become_those_of_a_vit_that_has_one(tmp_path):
    """A plain ViT's attention is BEiT's without relative positions, with k's bias at 0."""
    model, weights = foreign.vit()
    state = {}
    for name, tensor in weights.items():
        if name.endswith("qkv.bias"):
            q, k, v = tensor.chunk(3)
            k.zero_()
            state[name.replace("qkv.bias", "q_bias")], state[name.replace("qkv.bias", "v_bias")] = q, v
        else:
            state[name] = tensor
    ours = encoder("vit_mini", patch_size=4)
    assert load_weights(ours, saved(tmp_path, state)).missing == ["mask_token"]
    same_features(ours, mean_of_patches(model))
    foreign.vit.cache_clear()


def test_torchvisions_swin_computes_the_same(tmp_path):
    model = torchvision.models.SwinTransformer([4, 4], 24, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7])
    foreign.settled(model)
    ours = encoder("swin_mini", 224)
    report = load_weights(ours, saved(tmp_path, model.state_dict()))
    assert report.layouts == ["torchvision's Swin", "Swin"] and report.missing == ["mask_token"]
    model.head = nn.Identity()
    same_features(ours, model, 224)


def test_torchvisions_convnext_computes_the_same(tmp_path):
    widths = [(8, 16, 1), (16, 32, 1), (32, 64, 2), (64, None, 1)]
    model = torchvision.models.ConvNeXt([CNBlockConfig(*width) for width in widths])
    foreign.settled(model)
    ours = encoder("convnext_mini", 64, stem="standard")
    report = load_weights(ours, saved(tmp_path, model.state_dict()))
    assert report.layouts == ["torchvision's ConvNeXt", "ConvNeXt"] and report.missing == ["filler"]
    same_features(ours, lambda x: model.features(x).mean((2, 3)), 64)


def test_positions_are_resized_to_another_image(tmp_path):
    model, weights = foreign.vit()
    ours = encoder("vit_mini", 48, patch_size=4)
    assert load_weights(ours, saved(tmp_path, weights)).missing == ["mask_token"]
    expected = timm.layers.resample_abs_pos_embed(weights["pos_embed"], [12, 12], num_prefix_tokens=1)
    assert torch.equal(ours.model.pos_embed, expected)
    assert torch.equal(expected[:, 0], weights["pos_embed"][:, 0])  # the class token has no place


def test_batch_norm_counters_are_no_weights(tmp_path):
    """Files from before torch 0.4.1 have none; a fifth of a ResNet's tensors would seem to be missing."""
    model, weights = foreign.resnet()
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    ours = encoder(stem="standard")
    assert len(load_weights(ours, saved(tmp_path, old)).missing) == 1
    same_features(ours, model)


def test_safetensors_and_the_format_before_zip_are_read(tmp_path):
    model, weights = foreign.resnet()
    save_file(weights, tmp_path / "w.safetensors")
    for source in (str(tmp_path / "w.safetensors"), saved(tmp_path, weights, _use_new_zipfile_serialization=False)):
        ours = encoder(stem="standard")
        load_weights(ours, source)
        same_features(ours, model)


# What is refused, in one or two lines.


def refusal(ours, source):
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(UserError) as found:
        load_weights(ours, source)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    text = str(found.value)
    assert text.startswith("encoder.weights: ") and len(text.splitlines()) <= 2, text
    return text


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, zipped):
    content = {"state_dict": foreign.resnet()[1], "extra": Code(f"touch {tmp_path / 'ran'}")}
    source = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert "it asks for posix.system" in refusal(encoder(stem="standard"), source)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code(f"touch {tmp_path / 'ran'}")))
    refusal(encoder(stem="standard"), str(tmp_path / "plain.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_settings_object_cannot_bring_code_along(tmp_path):
    """The stand-ins for harmless classes keep nothing, and what is inside them is checked like the rest."""
    import argparse

    content = {"model": foreign.resnet()[1], "args": argparse.Namespace(hook=Code(f"touch {tmp_path / 'ran'}"))}
    assert "posix.system" in refusal(encoder(stem="standard"), saved(tmp_path, content))
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused_with_the_way_out(tmp_path):
    text = refusal(encoder(stem="standard"), saved(tmp_path, foreign.resnet()[0]))
    assert "it asks for torchvision.models.resnet.ResNet" in text and "state_dict()" in text


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share, zipped):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": foreign.resnet()[1]}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cut short" in refusal(encoder(stem="standard"), str(path))


def test_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(foreign.resnet()[1], path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert "damaged" in refusal(encoder(stem="standard"), str(path))


FOREIGN = {
    "page.pth": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "cut.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(FOREIGN[name])
    assert "cut short or not a" in refusal(encoder(stem="standard"), str(tmp_path / name))


def test_a_file_without_weights_is_refused(tmp_path):
    assert "holds no tensors by name" in refusal(encoder(), saved(tmp_path, {"epoch": 3, "optimizer": {"state": {}}}))
    assert "there is no file or run nowhere" in refusal(encoder(), "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no run with a checkpoint" in refusal(encoder(), str(tmp_path / "empty"))


def test_another_width_is_refused_with_names_and_shapes(tmp_path):
    wide = timm.create_model("vit_mini", img_size=32, patch_size=4, embed_dim=96, num_classes=0)
    text = refusal(encoder("vit_mini", patch_size=4), saved(tmp_path, wide.state_dict()))
    assert "0 of its 43 tensors match" in text
    assert "blocks.0.attn.proj.bias is 96 there and 48 here" in text
    assert "only here: mask_token" in text


def test_another_architecture_is_refused_with_names_of_both_sides(tmp_path):
    text = refusal(encoder("vit_mini", patch_size=4), saved(tmp_path, foreign.resnet()[1]))
    assert "only here: blocks.0.attn.proj.bias" in text and "only there: bn1.bias" in text


def test_weights_that_would_compute_something_else_are_refused(tmp_path):
    """All of the encoder's tensors are in the file, and so are many more: BatchNorm's into a GroupNorm net."""
    text = refusal(encoder(stem="standard", norm="layer"), saved(tmp_path, foreign.resnet()[1]))
    assert "24 more are in the file" in text and "bn1.running_mean" in text
    beit = timm.create_model("beit_mini", img_size=32, num_classes=0)
    ours = Timm(Spec(image=Field("image", (3, 32, 32), torch.uint8)), name="vit_mini", patch_size=4)
    assert "only there" in refusal(ours, saved(tmp_path, foreign.simmim_vit(beit)))


TV = torchvision.models
OTHER_SHAPES = {  # what is in the file, the encoder on small images, and the way out
    "resnet18": (lambda: TV.resnet18(), "resnet18", {}, "conv1.weight", {"stem": "standard"}),
    "resnet50": (lambda: TV.resnet50(), "resnet50", {}, "conv1.weight", {"stem": "standard"}),
    "small_stem": (lambda: foreign_small_stem(), "resnet18", {"stem": "standard"}, "conv1.weight", {"stem": "small"}),
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224"), "vit_tiny_patch16_224", {},
            "patch_embed.proj.weight", {"patch_size": 16}),
    "swin": (lambda: timm.create_model("swin_tiny_patch4_window7_224"), "swin_tiny_patch4_window7_224", {},
             "patch_embed.proj.weight", {"patch_size": 4}),
    "convnext": (lambda: TV.convnext_tiny(), "convnext_tiny", {}, "stem.0.weight", {"stem": "standard"}),
}  # fmt: skip


def foreign_small_stem():
    """ResNet-18 with the 3x3 stem that is usual for CIFAR."""
    model = torchvision.models.resnet18()
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return model


@pytest.mark.parametrize("case", rest_is_slow(OTHER_SHAPES, "resnet18", "vit"))
def test_a_stem_of_another_shape_is_refused_with_the_key_that_mends_it(tmp_path, case):
    """All else matches, 99 % of the tensors; a stem that stayed random would make nothing of it."""
    model, name, options, tensor, mended = OTHER_SHAPES[case]
    source = saved(tmp_path, model().state_dict())
    text = refusal(encoder(name, 64, **options), source)
    assert f"of another shape: {tensor} is " in text
    ((key, value),) = mended.items()
    assert text.endswith(f"encoder.{key}={value}")
    report = load_weights(encoder(name, 64, **mended), source)
    assert set(report.missing) <= {"filler", "mask_token"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit_tiny_distilled_patch16_224", {}),  # 198 positions: of two tokens more
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),  # 196
    ],
)
def test_positions_that_do_not_fit_are_refused(tmp_path, name, options):
    model = timm.create_model(name, **options)
    text = refusal(encoder("vit_tiny_patch16_224", 224), saved(tmp_path, model.state_dict()))
    assert "of another shape: pos_embed is 1x" in text and text.endswith("encoder=timm encoder.name=...")


def test_moco_v3s_small_vit_needs_its_twelve_heads(tmp_path):
    """timm's ViT-S has six heads, MoCo v3's twelve; all shapes are the same."""
    model = timm.create_model("vit_mini", img_size=32, embed_dim=384, num_heads=12, num_classes=0)
    foreign.settled(model)
    source = saved(tmp_path, {"state_dict": foreign.around(model.state_dict(), "module.base_encoder.")})
    name = "vit_small_patch16_224"
    with pytest.raises(UserError, match="encoder.num_heads=12"):
        load_weights(encoder(name, patch_size=4), source)
    with pytest.raises(UserError, match="tensors match"):  # of twelve blocks three are there: past the heads
        load_weights(encoder(name, patch_size=4, num_heads=12), source)


def from_timm(folder, name, **environment):
    """Start from ``timm:name`` in a process of its own, whose hub is ``folder``; its features are in features.pt."""

    def started():
        importlib.reload(huggingface_hub.constants)  # it reads the environment when it is imported
        ours = encoder(name.partition(".")[0], stem="standard")
        try:
            print(load_weights(ours, f"timm:{name}"))
        except UserError as error:
            print(error)
            sys.exit(1)
        torch.save(ours(View(torch.ones(1, 3, 32, 32), "image")).pooled, folder / "features.pt")

    process = Forked(started, "any", environment={"HF_HOME": str(folder), **environment})
    return process.communicate()[0], process.returncode


def test_timms_weights_come_from_its_hub(tmp_path):
    """Laid out as the hub's cache is, so that no network is needed."""
    name = "test_resnet.r160_in1k"
    model = foreign.settled(timm.create_model("test_resnet"))
    place = tmp_path / "hub" / f"models--timm--{name}"
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), place / "snapshots" / ("0" * 40) / "model.safetensors")
    said, code = from_timm(tmp_path, name, HF_HUB_OFFLINE="1")
    assert code == 0, said
    assert "1 missing (filler), 0 unexpected" in said
    with torch.no_grad():
        expected = model.forward_features(torch.ones(1, 3, 32, 32)).mean((2, 3))
    torch.testing.assert_close(torch.load(tmp_path / "features.pt").detach(), expected)


def test_timms_weights_without_a_network_are_refused_in_a_line(tmp_path):
    said, code = from_timm(tmp_path, "test_resnet.r160_in1k", HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens there
    assert code == 1
    assert said.splitlines() == [
        "encoder.weights: timm's weights test_resnet.r160_in1k cannot be fetched (its hub cannot be reached). "
        "Fetch the file where there is a network, and give its path."
    ]
    assert "timm has no model 'resnet1'" in refusal(encoder(), "timm:resnet1")
    assert "Did you mean 'resnet18.a1_in1k'?" in refusal(encoder(), "timm:resnet18.a1_in2k")
