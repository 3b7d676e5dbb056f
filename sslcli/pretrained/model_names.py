"""Names of tensors in the models of torchvision, transformers and mmpretrain, and of timm's older versions.

The names are those in the source code of these libraries.
"""

from __future__ import annotations

import torch

from sslcli.pretrained.layout import Layout, Weights


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


def joined_attention(weights: Weights) -> Weights:
    """Join the projections to queries, keys and values, which are three layers, to the one of timm's ViT."""
    rest = dict(weights)
    for name in weights:
        if ".attn.query." in name:
            parts = (rest.pop(name.replace(".query.", f".{part}."), None) for part in ("query", "key", "value"))
            given = [part for part in parts if part is not None]
            rest[name.replace(".query.", ".qkv.")] = torch.cat(given)
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
TRANSFORMERS_VIT = Layout(
    "transformers' ViT",  # ViTModel, ViTMAE, Dinov2Model and classifiers with them; version 5 renamed modules
    (r"(\w+\.)?embeddings\.patch_embeddings\.projection\.", r"(\w+\.)?(encoder\.layer|layers)\.0\.attention\."),
    strip=r"(?!decoder)(\w+\.)??(?=(embeddings|encoder\.layer|layers|layernorm)\.)",
    drop=(r"embeddings\.mask_token$",),
    rename=(
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^(encoder\.layer|layers)\.", "blocks."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.q_proj\.", r".attn.query."),
        (r"\.attention\.k_proj\.", r".attn.key."),
        (r"\.attention\.v_proj\.", r".attn.value."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    ),
    transform=joined_attention,
)
MMPRETRAIN_VIT = Layout(
    "mmpretrain's ViT",
    (r"layers\.0\.ln1\.", r"patch_embed\.projection\."),
    drop=(r"head\.",),
    rename=(
        (r"^ln1\.", "norm."),
        (r"^layers\.(\d+)\.ln", r"blocks.\1.norm"),
        (r"^layers\.", "blocks."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
    ),
)
RESNET = Layout("ResNet", (r"conv1\.", r"layer1\.0\.conv1\."), drop=(r"(fc|linear)\.",))
