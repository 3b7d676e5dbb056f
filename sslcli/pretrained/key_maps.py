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

from collections.abc import Iterable, Mapping

from torch import Tensor

from sslcli.pretrained.layout import Layout, Weights, any_matches
from sslcli.pretrained.model_names import (
    CONSTANTS,
    MMPRETRAIN_VIT,
    RESNET,
    TORCHVISION_CONVNEXT,
    TORCHVISION_SWIN,
    TORCHVISION_VIT,
    TRANSFORMERS_VIT,
    joined_biases,
    shared_table,
)


def recognised(weights: Mapping[str, Tensor], encoder: Iterable[str]) -> tuple[Weights, list[Layout]]:
    """Return the encoder's tensors by timm's names, and the rows that were applied, outermost first.

    Args:
        weights: the tensors by the file's names.
        encoder: the names of the encoder's tensors.
    """
    found, steps, ours = dict(weights), [], list(encoder)
    # A prefix that the encoder's own names have must not be stripped.
    left = [row for row in LAYOUTS if any_matches(row.into, ours) and not (row.strip and row.recognises(ours))]
    while (row := next((row for row in left if row.recognises(found)), None)) is not None:
        found = row.apply(found)
        steps.append(row)
        left.remove(row)
    return found, steps


LAYOUTS: tuple[Layout, ...] = (
    # Wrappers around any model.
    Layout("torch.compile", (r"(.*\.)?_orig_mod\.",), rename=((r"\b_orig_mod\.", ""),)),
    Layout("FSDP", (r"(.*\.)?_fsdp_wrapped_module\.",), rename=((r"\b_fsdp_wrapped_module\.", ""),)),
    Layout(
        "activation checkpointing",
        (r"(.*\.)?_checkpoint_wrapped_module\.",),
        rename=((r"\b_checkpoint_wrapped_module\.", ""),),
    ),
    Layout("DistributedDataParallel", (r"module\.",), strip=r"module\."),
    Layout("sslcli", (r"model\.|trunk\.\d",), rename=((r"^model\.", ""),)),
    # Models whose own keys begin like those of a wrapper.
    TORCHVISION_VIT,
    TRANSFORMERS_VIT,
    # Modules in which methods keep their encoder.
    Layout("MoCo v1 or v2", (r"encoder_q\.",), strip=r"encoder_q\."),
    Layout("MoCo v3", (r"base_encoder\.",), strip=r"base_encoder\.", num_heads=((384, 12),)),
    Layout("MAE", (r"decoder_embed\.",), drop=(r"decoder_", r"mask_token$")),  # the decoder's mask token
    Layout("SimMIM", (r"encoder\.mask_token$", r"decoder\."), strip=r"encoder\."),
    Layout("DINOv2", (r"student\.backbone\.", r"teacher\.backbone\."), strip=r"teacher\.backbone\."),
    Layout("DINO", (r"backbone\.", r"head\.(mlp|last_layer)\b"), strip=r"backbone\."),
    Layout("lightly's DINO", (r"teacher_backbone\.",), strip=r"teacher_backbone\."),
    Layout("lightly", (r"backbone\.", r"(projection|prediction)_head\.|backbone_momentum\."), strip=r"backbone\."),
    Layout("solo-learn", (r"backbone\.", r"(momentum_)?(projector|classifier)\."), strip=r"backbone\."),
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
    MMPRETRAIN_VIT,
    Layout("DINOv2's chunks of blocks", (r"blocks\.0\.0\.",), rename=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),)),
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
