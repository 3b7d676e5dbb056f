"""One table: how files of other projects name an encoder's tensors, and how these names become timm's.

A row recognises a file by the beginnings of its keys, strips the prefix of the encoder, drops the keys of other modules
and renames the rest. Rows are combined: a MoCo file has a ResNet in a module ``encoder_q``, perhaps wrapped in
DistributedDataParallel. So ``recognised`` starts again at the top after every row, and uses each row once.

The names are those in the projects' source code: facebookresearch's moco (main_lincls.py), moco-v3 (moco/builder.py),
mae (models_mae.py) and dino (main_dino.py); microsoft/SimMIM (models, utils.py); vturrisi/solo-learn (solo/methods);
lightly-ai/lightly (examples/pytorch); sthalles/SimCLR, Spijkervet/SimCLR, leftthomas/SimCLR, HobbitLong/SupContrast;
torchvision's and timm's models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One row. ``marks``, ``strip``, ``drop`` and ``into`` are regular expressions that match a key from its start.

    Args:
        name: name of the layout, for messages.
        marks: a file has this layout if each of these expressions matches one of its keys.
        strip: the prefix of the encoder's keys, which is removed; keys without it do not belong to the encoder.
        drop: keys, after stripping, that do not belong to the encoder either: heads, constants.
        rename: regular expressions and replacements, applied in order to the rest of each key.
        transform: a final change of the tensors.
        into: a key that the encoder must have for this row to be used; empty for no condition.
        num_heads: (width, heads) of this project's ViTs where they differ from timm's; shapes do not show the heads.
    """

    name: str
    marks: tuple[str, ...]
    strip: str = ""
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    transform: Callable[[Weights], Weights] = dict
    into: str = ""
    num_heads: tuple[tuple[int, int], ...] = ()

    def recognises(self, keys: Iterable[str]) -> bool:
        """Return whether these keys have this layout."""
        known = list(keys)
        return all(_any_matches(mark, known) for mark in self.marks)

    def renamed(self, key: str) -> str | None:
        """Return the new name of a key; None if the key does not belong to the encoder."""
        start = re.match(self.strip, key)
        if start is None:
            return None
        rest = key[start.end() :]
        if any(re.match(pattern, rest) for pattern in self.drop):
            return None
        for pattern, replacement in self.rename:
            rest = re.sub(pattern, replacement, rest)
        return rest

    def apply(self, weights: Mapping[str, Tensor]) -> Weights:
        """Return the encoder's tensors by their new names."""
        named = ((self.renamed(key), tensor) for key, tensor in weights.items())
        return self.transform({key: tensor for key, tensor in named if key is not None})


def recognised(weights: Mapping[str, Tensor], encoder: Iterable[str]) -> tuple[Weights, list[Layout]]:
    """Return the encoder's tensors by timm's names, and the rows that were applied, outermost first.

    Args:
        weights: the tensors by the file's names.
        encoder: the names of the encoder's tensors.
    """
    found, steps, ours = dict(weights), [], list(encoder)
    # A prefix that the encoder's own names have must not be stripped.
    left = [row for row in LAYOUTS if _any_matches(row.into, ours) and not (row.strip and row.recognises(ours))]
    while (row := next((row for row in left if row.recognises(found)), None)) is not None:
        found = row.apply(found)
        steps.append(row)
        left.remove(row)
    return found, steps


def _any_matches(pattern: str, keys: Iterable[str]) -> bool:
    return any(re.match(pattern, key) for key in keys)


def shared_table(weights: Weights) -> Weights:
    """Copy a relative position table that all blocks share to each block (SimMIM, ``remap_pretrained_keys_vit``)."""
    rest = dict(weights)
    table = rest.pop("rel_pos_bias.relative_position_bias_table")
    blocks = {key.split(".")[1] for key in rest if key.startswith("blocks.")}
    return rest | {f"blocks.{i}.attn.relative_position_bias_table": table for i in blocks}


def joined_biases(weights: Weights) -> Weights:
    """Join the biases of queries and values to one of queries, keys and values, with zeros for the keys as in BEiT."""
    rest = dict(weights)
    for name in weights:
        if name.endswith(".q_bias"):
            attention = name.removesuffix(".q_bias")
            q, v = rest.pop(name), rest.pop(f"{attention}.v_bias")
            rest[f"{attention}.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return rest


# Buffers that a model computes when it is built.
CONSTANTS = (r".*relative_position_index$", r".*relative_coords_table$", r".*attn_mask$")

TORCHVISION_VIT = Layout(
    "torchvision's ViT",
    (r"encoder\.layers\.encoder_layer_0\.", r"conv_proj\."),
    drop=(r"heads\.",),
    rename=(
        (r"^class_token$", "cls_token"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_", "blocks."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),  # linear_1: before torchvision 0.14
        (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    ),
)
TORCHVISION_SWIN = Layout(
    "torchvision's Swin",
    (r"features\.1\.0\.attn\.relative_position_bias_table",),
    drop=(r"head\.", *CONSTANTS),
    rename=(
        (r"^features\.0\.0\.", "patch_embed.proj."),
        (r"^features\.0\.2\.", "patch_embed.norm."),
        *((rf"^features\.{2 * i + 1}\.", f"layers.{i}.blocks.") for i in range(4)),
        *((rf"^features\.{2 * i}\.", f"layers.{i}.downsample.") for i in range(1, 4)),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
    ),
)
TORCHVISION_CONVNEXT = Layout(
    "torchvision's ConvNeXt",
    (r"features\.1\.0\.layer_scale",),
    drop=(r"classifier\.2\.",),
    rename=(
        (r"^features\.0\.", "stem."),
        *((rf"^features\.{2 * i + 1}\.", f"stages.{i}.blocks.") for i in range(4)),
        *((rf"^features\.{2 * i}\.", f"stages.{i}.downsample.") for i in range(1, 4)),
        (r"^classifier\.0\.", "head.norm."),
        (r"\.layer_scale$", ".gamma"),
        (r"\.block\.0\.", ".conv_dw."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".mlp.fc1."),
        (r"\.block\.5\.", ".mlp.fc2."),
    ),
)
RESNET = Layout("ResNet", (r"conv1\.", r"layer1\.0\.conv1\."), drop=(r"(fc|linear)\.",))

LAYOUTS: tuple[Layout, ...] = (
    # Wrappers around any model.
    Layout("torch.compile", (r"(.*\.)?_orig_mod\.",), rename=((r"\b_orig_mod\.", ""),)),
    Layout("DistributedDataParallel", (r"module\.",), strip=r"module\."),
    Layout("sslcli", (r"model\.|trunk\.\d",), rename=((r"^model\.", ""),)),
    # Models whose own keys begin like those of a wrapper.
    TORCHVISION_VIT,
    # Modules in which methods keep their encoder.
    Layout("MoCo v1 or v2", (r"encoder_q\.",), strip=r"encoder_q\."),
    Layout("MoCo v3", (r"base_encoder\.",), strip=r"base_encoder\.", num_heads=((384, 12),)),
    Layout("MAE", (r"decoder_embed\.",), drop=(r"decoder_", r"mask_token$")),  # the decoder's mask token
    Layout("SimMIM", (r"encoder\.mask_token$", r"decoder\."), strip=r"encoder\."),
    Layout("DINO", (r"backbone\.", r"head\.(mlp|last_layer)\b"), strip=r"backbone\."),
    Layout("lightly's DINO", (r"teacher_backbone\.",), strip=r"teacher_backbone\."),
    Layout("lightly", (r"backbone\.", r"(projection|prediction)_head\.|backbone_momentum\."), strip=r"backbone\."),
    Layout("solo-learn", (r"backbone\.", r"(momentum_)?(projector|classifier)\."), strip=r"backbone\."),
    Layout("SimCLR (head in backbone.fc)", (r"backbone\.fc\.\d\.",), strip=r"backbone\."),
    Layout("SimCLR (encoder and projector)", (r"encoder\.", r"projector\."), strip=r"encoder\."),
    Layout("SupContrast", (r"encoder\.", r"head\."), strip=r"encoder\.(module\.)?"),
    Layout("SimCLR (f and g)", (r"f\.\d\.", r"g\.\d\."), strip=r"f\."),
    Layout("a module called backbone", (r"backbone\.",), strip=r"backbone\."),
    Layout("a module called encoder", (r"encoder\.",), strip=r"encoder\."),
    Layout("lightly's masked ViT", (r"vit\.",), rename=((r"^vit\.", ""),)),
    # A ResNet's children in an nn.Sequential: torchvision's ResNet with and without its pooling, and lightly's own.
    Layout(
        "ResNet as nn.Sequential",
        (r"0\.weight", r"4\.0\.conv1\.", r"7\.0\.conv1\."),
        rename=((r"^0\.", "conv1."), (r"^1\.", "bn1."), *((rf"^{i + 3}\.", f"layer{i}.") for i in range(1, 5))),
    ),
    Layout(
        "ResNet as nn.Sequential without pooling",
        (r"0\.weight", r"3\.0\.conv1\.", r"6\.0\.conv1\."),
        rename=((r"^0\.", "conv1."), (r"^1\.", "bn1."), *((rf"^{i + 2}\.", f"layer{i}.") for i in range(1, 5))),
    ),
    Layout(
        "lightly's ResNet as nn.Sequential",
        (r"0\.weight", r"2\.0\.conv1\.", r"5\.0\.conv1\."),
        rename=((r"^0\.", "conv1."), (r"^1\.", "bn1."), *((rf"^{i + 1}\.", f"layer{i}.") for i in range(1, 5))),
    ),
    Layout("shortcuts by that name", (r"layer\d\.\d\.shortcut\.",), rename=((r"\.shortcut\.", ".downsample."),)),
    # The models' own names.
    RESNET,
    TORCHVISION_SWIN,
    TORCHVISION_CONVNEXT,
    Layout(
        "Swin as published",  # it merges patches at the end of a stage, timm at the beginning of the next
        (r"layers\.0\.downsample\.",),
        rename=tuple((rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)),
    ),
    Layout("Swin", (r"layers\.0\.blocks\.0\.attn\.qkv\.",), drop=(r"head\.", *CONSTANTS)),
    Layout("ConvNeXt", (r"stages\.0\.blocks\.0\.conv_dw\.",), drop=(r"head\.fc\.",)),
    Layout("shared positions", (r"rel_pos_bias\.relative_position_bias_table",), transform=shared_table),
    Layout(
        "biases of q and v",
        (r"blocks\.0\.attn\.q_bias",),
        transform=joined_biases,
        into=r"blocks\.0\.attn\.qkv\.bias",
    ),
    Layout(
        "layer scale as gamma",
        (r"blocks\.0\.gamma_1",),
        rename=((r"\.gamma_(\d)$", r".ls\1.gamma"),),
        into=r"blocks\.0\.ls1\.gamma",
    ),
    Layout("ViT", (r"patch_embed\.proj\.", r"blocks\.0\.attn\.qkv\."), drop=(r"head\.", r"pre_logits\.", *CONSTANTS)),
)  # fmt: skip
