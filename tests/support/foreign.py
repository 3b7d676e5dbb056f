"""Checkpoints as other projects write them, with their documented names, of models whose features can be computed.

Each function returns (the object for torch.save, the model with these weights). The names are those of
facebookresearch/moco, moco-v3, mae and dino, microsoft/SimMIM, solo-learn, lightly and the usual SimCLR repositories.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import types
from collections import OrderedDict
from functools import cache

import numpy as np
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn


def settled(model: nn.Module) -> nn.Module:
    """Fill all tensors of a model with random numbers, statistics and scales too, so that none is 0 or 1; eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() <= 1 and name.endswith(("running_var", "norm.weight", "norm1.weight", "norm2.weight")):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif tensor.dim() <= 1:
                tensor.add_(0.05 * noise)
            else:
                tensor.copy_(noise * (0.5 / max(1, tensor[0].numel()) ** 0.5))
    return model.eval()


def around(weights, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def noise(weights, prefix):
    """Return a second copy with other values, such as a momentum encoder."""
    return {f"{prefix}{name}": torch.zeros_like(tensor) for name, tensor in weights.items()}


def head(prefix, *layers, width=512):
    return {f"{prefix}{layer}.weight": torch.randn(8, width) for layer in layers}


@cache
def resnet():
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    model.fc = nn.Identity()
    settled(model)
    return model, model.state_dict()


def torchvision_resnet():
    model, weights = resnet()
    return {**weights, "fc.weight": torch.randn(9, 512), "fc.bias": torch.randn(9)}, model


def moco_v2():
    model, weights = resnet()
    state = {
        **around(weights, "module.encoder_q."), **head("module.encoder_q.fc.", "0", "2"),
        **noise(weights, "module.encoder_k."), **head("module.encoder_k.fc.", "0", "2"),
        "module.queue": torch.randn(128, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
    }  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict()
    return {"epoch": 200, "arch": "resnet50", "state_dict": OrderedDict(state), "optimizer": optimizer}, model


def moco_on_one_gpu():
    model, weights = resnet()
    return {
        "state_dict": {**around(weights, "encoder_q."), **noise(weights, "encoder_k."), "queue": torch.randn(8, 4)}
    }, model


def moco_v3_resnet():
    model, weights = resnet()
    state = {
        **around(weights, "module.base_encoder."), **head("module.base_encoder.fc.", "0", "3"),
        **noise(weights, "module.momentum_encoder."), **head("module.predictor.", "0", "3"),
    }  # fmt: skip
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "scaler": {"scale": 65536.0}}, model


def solo_learn():
    model, weights = resnet()
    state = {
        **around(weights, "backbone."), "classifier.weight": torch.randn(10, 512), "classifier.bias": torch.randn(10),
        **noise(weights, "momentum_backbone."), **head("projector.", "0", "3"), **head("momentum_projector.", "0"),
        "queue": torch.randn(2, 8, 4),
    }  # fmt: skip
    settings = OmegaConf.create(
        {"method": "mocov2plus", "backbone": {"name": "resnet18", "kwargs": {}}, "betas": [0.9, 1]}
    )
    return {
        "epoch": 9, "global_step": 90, "pytorch-lightning_version": "1.6.4", "state_dict": state,
        "callbacks": {"ModelCheckpoint": {"best_model_score": None}}, "hyper_parameters": settings,
    }, model  # fmt: skip


def lightly():
    model, weights = resnet()
    row = nn.Sequential(*list(model.children())[:-1]).state_dict()
    return {
        **around(row, "backbone."), **noise(row, "backbone_momentum."),
        **head("projection_head.layers.", "0", "2"), **head("projection_head_momentum.layers.", "0", "2"),
    }, model  # fmt: skip


def lightly_dino():
    model, weights = resnet()
    return {
        **noise(weights, "student_backbone."), **around(weights, "teacher_backbone."),
        **head("student_head.layers.", "0"), **head("teacher_head.layers.", "0"),
    }, model  # fmt: skip


def lightly_own_resnet():
    """lightly's ResNetGenerator has no pooling and no ReLU among its children, and names its shortcuts ``shortcut``."""
    model, weights = resnet()
    names = {"conv1": "0", "bn1": "1", "layer1": "2", "layer2": "3", "layer3": "4", "layer4": "5"}
    row = {re.sub(r"^(\w+)\.", lambda m: f"{names[m[1]]}.", name): t for name, t in weights.items()}
    row = {name.replace(".downsample.", ".shortcut."): tensor for name, tensor in row.items()}
    return {"state_dict": {**around(row, "model.backbone."), **head("model.projection_head.layers.", "0")}}, model


def simclr_in_fc():
    model, weights = resnet()
    return {
        "epoch": 100,
        "arch": "resnet18",
        "state_dict": around({**weights, **head("fc.", "0", "2")}, "backbone."),
    }, model


def simclr_encoder_projector():
    model, weights = resnet()
    return {**around(weights, "encoder."), **head("projector.", "0", "2")}, model


def simclr_f_g():
    model, _ = resnet()
    row = nn.Sequential(*(m for m in model.children() if not isinstance(m, (nn.Linear, nn.MaxPool2d)))).state_dict()
    return {**around(row, "f."), **head("g.", "0", "3")}, model


def sup_contrast():
    model, weights = resnet()
    named = {name.replace(".downsample.", ".shortcut."): tensor for name, tensor in weights.items()}
    settings = argparse.Namespace(model="resnet18", temp=0.07, rate=np.float64(0.1))
    return {
        "opt": settings,
        "model": {**around(named, "encoder.module."), **head("head.", "0", "2")},
        "epoch": 3,
    }, model


def compiled():
    model, weights = resnet()
    return around(weights, "_orig_mod."), model


@cache
def vit():
    model = settled(timm.create_model("vit_mini", img_size=32, patch_size=4, num_classes=0))
    return model, model.state_dict()


def mae():
    model, weights = vit()
    state = {
        **weights, "mask_token": torch.randn(1, 1, 96), "decoder_embed.weight": torch.randn(96, 48),
        "decoder_pos_embed": torch.randn(1, 65, 96), "decoder_blocks.0.norm1.weight": torch.randn(96),
        "decoder_norm.weight": torch.randn(96), "decoder_pred.weight": torch.randn(48, 96),
    }  # fmt: skip
    return {"model": state, "epoch": 799, "scaler": {}, "args": argparse.Namespace(model="mae_vit", lr=1e-4)}, model


def moco_v3_vit():
    model, weights = vit()
    state = {
        **around(weights, "module.base_encoder."), **head("module.base_encoder.head.", "0", "3", width=48),
        **noise(weights, "module.momentum_encoder."), **head("module.predictor.", "0", "3"),
    }  # fmt: skip
    return {"epoch": 300, "arch": "vit_base", "state_dict": state}, model


def dino():
    model, weights = vit()
    ends = {"head.mlp.0.weight": torch.randn(8, 48), "head.last_layer.weight_g": torch.randn(8, 1)}
    return {
        "student": around({**noise(weights, "backbone."), **ends}, "module."),
        "teacher": {**around(weights, "backbone."), **ends},
        "epoch": 100, "args": argparse.Namespace(arch="vit_tiny"), "dino_loss": {"center": torch.randn(1, 8)},
    }, model  # fmt: skip


def dino_backbone():
    model, weights = vit()
    return weights, model


def renamed(weights, *pairs):
    """Return the weights under names in which these pieces are replaced, in order."""
    named = {}
    for name, tensor in weights.items():
        for piece, other in pairs:
            name = re.sub(piece, other, name)
        named[name] = tensor
    return named


def dino_v2_chunked():
    """facebookresearch/dinov2 with ``block_chunks``: blocks keep their number within a chunk."""
    model, weights = vit()
    chunked = renamed(weights, (r"^blocks\.(\d+)\.", r"blocks.0.\1."))
    return {"model": {**noise(chunked, "student.backbone."), **around(chunked, "teacher.backbone.")}}, model


def transformers_vit():
    """``ViTForImageClassification``."""
    model, weights = vit()
    split = {}
    for name, tensor in weights.items():
        parts = tensor.chunk(3) if ".qkv." in name else ()
        split.update({name.replace(".qkv.", f".{part}."): t for part, t in zip(("query", "key", "value"), parts)})
        split.update({} if parts else {name: tensor})
    named = renamed(
        split, (r"^blocks\.", "encoder.layer."), (r"\.norm1\.", ".layernorm_before."), (r"^norm\.", "layernorm."),
        (r"\.norm2\.", ".layernorm_after."), (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.", ".attention.attention."), (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."), (r"^cls_token$", "embeddings.cls_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    )  # fmt: skip
    return {**around(named, "vit."), "classifier.weight": torch.randn(9, 48)}, model


def transformers_5_vit():
    """The same as version 5 names it in memory."""
    weights, model = transformers_vit()
    return renamed(
        weights, (r"\.encoder\.layer\.", ".layers."), (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.attention\.attention\.(q|k|v)\w+\.", r".attention.\1_proj."), (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ), model  # fmt: skip


def mmpretrain_vit():
    """``VisionTransformer`` of mmpretrain, in a classifier."""
    model, weights = vit()
    named = renamed(
        weights, (r"^norm\.", "ln1."), (r"^blocks\.(\d+)\.norm", r"layers.\1.ln"), (r"^blocks\.", "layers."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."), (r"\.mlp\.fc2\.", ".ffn.layers.1."),
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
    )  # fmt: skip
    return {"state_dict": {**around(named, "backbone."), "head.fc.weight": torch.randn(9, 48)}, "meta": {}}, model


def torchvision_vit():
    model = torchvision.models.VisionTransformer(32, 4, 3, 3, 48, 192)
    settled(model)
    return model.state_dict(), model


def lightly_masked_vit():
    weights, model = torchvision_vit()
    return {
        **around(weights, "backbone.vit."),
        "backbone.mask_token": torch.randn(1, 1, 48),
        "decoder.weight": torch.randn(48, 48),
    }, model


def yacs_config(**values):
    """A yacs CfgNode as SimMIM pickles it: a dict with attributes, of a class that readers cannot import."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    sys.modules["yacs"] = sys.modules["yacs.config"] = module
    node = CfgNode(values, MODEL=CfgNode(TYPE="swin"))
    node.__dict__["__immutable__"] = True
    return node


def simmim_vit(model):
    """SimMIM's ViT shares one table of relative positions between its blocks and has no other positions."""
    table = model.blocks[0].attn.relative_position_bias_table
    for block in model.blocks:
        block.attn.relative_position_bias_table = table
    weights = {
        k: t
        for k, t in model.state_dict().items()
        if not k.endswith("relative_position_bias_table") and "fc_norm" not in k
    }
    state = {
        **around(weights, "encoder."), "encoder.mask_token": torch.randn(1, 1, 24),
        "encoder.rel_pos_bias.relative_position_bias_table": table.detach(),
        "encoder.rel_pos_bias.relative_position_index": torch.zeros(17, 17),
        "decoder.0.weight": torch.randn(48, 24, 1, 1),
    }  # fmt: skip
    return {"model": state, "epoch": 799, "max_accuracy": 0.0, "config": yacs_config(AMP_OPT_LEVEL="O1")}


def simmim_swin(model):
    """Microsoft's Swin merges patches at the end of a stage, and keeps its buffers."""
    weights = {}
    for name, tensor in model.state_dict().items():
        found = re.match(r"layers\.(\d)\.downsample\.", name)
        weights[re.sub(r"^layers\.\d", f"layers.{int(found[1]) - 1}", name) if found else name] = tensor
    weights["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    width = model.patch_embed.proj.out_channels
    state = {
        **around(weights, "encoder."),
        "encoder.mask_token": torch.randn(1, 1, width),
        "decoder.0.weight": torch.randn(8, 768, 1, 1),
    }
    return {"model": state, "config": yacs_config(), "epoch": 99}


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)
