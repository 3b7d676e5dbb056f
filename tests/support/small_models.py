"""Small models of the main families in timm's registry, for tests."""

from __future__ import annotations

from timm.models import generate_default_cfgs, register_model
from timm.models.beit import _create_beit
from timm.models.convnext import _create_convnext
from timm.models.resnet import BasicBlock, _create_resnet
from timm.models.swin_transformer import _create_swin_transformer
from timm.models.vision_transformer import _create_vision_transformer

PATCHES = {"input_size": (3, 224, 224), "first_conv": "patch_embed.proj", "fixed_input_size": True}
default_cfgs = generate_default_cfgs(
    {
        "resnet_mini": {"input_size": (3, 224, 224), "first_conv": "conv1", "classifier": "fc"},
        "vit_mini": PATCHES,
        "vit_relu_mini": PATCHES,
        "swin_mini": PATCHES,
        "beit_mini": PATCHES,
        "convnext_mini": {"input_size": (3, 224, 224), "first_conv": "stem.0", "classifier": "head.fc"},
    }
)


@register_model
def resnet_mini(pretrained=False, **options):
    return _create_resnet("resnet_mini", **{"block": BasicBlock, "layers": (1, 1, 1, 1), **options})


@register_model
def vit_mini(pretrained=False, **options):
    shape = {"patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return _create_vision_transformer("vit_mini", **{**shape, **options})


@register_model
def vit_relu_mini(pretrained=False, **options):
    """A model with the names and shapes of vit_mini that computes another function."""
    return vit_mini(act_layer="relu", **options)


@register_model
def swin_mini(pretrained=False, **options):
    shape = {"patch_size": 4, "window_size": 7, "embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    return _create_swin_transformer("swin_mini", **{**shape, **options})


@register_model
def beit_mini(pretrained=False, **options):
    shape = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "init_values": 0.1,
             "use_abs_pos_emb": False, "use_rel_pos_bias": True}  # fmt: skip
    return _create_beit("beit_mini", **{**shape, **options})


@register_model
def convnext_mini(pretrained=False, **options):
    return _create_convnext("convnext_mini", **{"depths": (1, 1, 2, 1), "dims": (8, 16, 32, 64), **options})
