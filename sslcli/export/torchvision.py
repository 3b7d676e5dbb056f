"""State dicts for torchvision's own classes, where they compute the same as timm's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslcli.encoders.timm import Timm
from sslcli.errors import UserError
from sslcli.export.base import Checked, Different, Source
from sslcli.export.state_dict import StateDict, Target, timm_encoder
from sslcli.pretrained.key_maps import RESNET, TORCHVISION_CONVNEXT, TORCHVISION_SWIN, TORCHVISION_VIT, Layout


@dataclass(frozen=True)
class Family:
    """An architecture that timm and torchvision both have."""

    kind: type[nn.Module]  # timm's class
    create: Callable[[Timm], str | None]  # the expression for torchvision's model of the same shape
    names: Layout  # from torchvision's names to timm's
    classifier: str  # torchvision's module of that name is not in the file
    features: str  # an expression for the mean over all positions


_MEAN = "[:, 1:].mean(1)"  # of a ViT's tokens, without the class token


class Torchvision(StateDict):
    """A state dict that loads strictly into torchvision's class without its classifier."""

    def target(self, encoder: Timm) -> Target:
        family = next((family for family in _FAMILIES if type(encoder.model) is family.kind), None)
        create = None if family is None else family.create(encoder)
        if family is None or create is None:
            raise UserError(f"format: torchvision has no {encoder.blueprint.name}; use format=timm.")
        with torch.device("meta"):
            fresh = eval(create, {"torch": torch, "torchvision": torchvision})
        return Target(
            imports="import torchvision",
            create=create,
            fresh=fresh,
            name_of=family.names.renamed,
            classifier=family.classifier,
            features=family.features.replace(_MEAN, "[:, 0]") if encoder.pools_token else family.features,
        )

    def weights(self, encoder: Timm, target: Target) -> dict[str, Tensor]:
        ours = dict(encoder.model.state_dict())
        written: dict[str, Tensor] = {}
        for name, theirs in self.shaped(encoder, target).state_dict().items():
            if name.startswith(f"{target.classifier}."):
                continue
            source = target.name_of(name)
            found = theirs if source is None else ours.pop(source, None)  # theirs is a table of indices
            if found is None or found.numel() != theirs.numel():
                raise _unlike(encoder, f"its {name} is of another shape")
            written[name] = found.reshape(theirs.shape)
        if ours:
            raise _unlike(encoder, f"it has no {next(iter(ours))}")
        return written

    def check(self, source: Source, path: Path) -> Checked:
        try:
            return super().check(source, path)
        except Different as error:
            raise _unlike(timm_encoder(source), str(error)) from None


def _unlike(encoder: Timm, why: str) -> UserError:
    return UserError(f"format: torchvision's {encoder.blueprint.name} is not this run's ({why}); use format=timm.")


def _resnet(encoder: Timm) -> str | None:
    norm = "norm_layer" in encoder.blueprint.options
    return _by_name(encoder, "norm_layer=lambda channels: torch.nn.GroupNorm(1, channels)" if norm else "")


def _by_name(encoder: Timm, options: str = "") -> str | None:
    name = encoder.blueprint.name
    known = torchvision.models.list_models(module=torchvision.models)
    return f"torchvision.models.{name}({options})" if name in known else None


def _vit(encoder: Timm) -> str:
    model: Any = encoder.model
    block = model.blocks[0]
    return (
        f"torchvision.models.VisionTransformer(image_size={model.patch_embed.img_size[0]}, "
        f"patch_size={model.patch_embed.patch_size[0]}, num_layers={len(model.blocks)}, "
        f"num_heads={block.attn.num_heads}, hidden_dim={model.embed_dim}, mlp_dim={block.mlp.fc1.out_features})"
    )


def _swin(encoder: Timm) -> str:
    model: Any = encoder.model
    window, patch = model.layers[0].blocks[0].attn.window_size, model.patch_embed.patch_size
    return (
        f"torchvision.models.SwinTransformer(patch_size={list(patch)}, embed_dim={model.embed_dim}, "
        f"depths={[len(layer.blocks) for layer in model.layers]}, "
        f"num_heads={[layer.blocks[0].attn.num_heads for layer in model.layers]}, window_size={list(window)})"
    )


_FAMILIES = (
    Family(ResNet, _resnet, RESNET, "fc", "model({x})"),
    Family(
        VisionTransformer,
        _vit,
        TORCHVISION_VIT,
        "heads",
        "model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), model._process_input({x})], 1))" + _MEAN,
    ),
    Family(SwinTransformer, _swin, TORCHVISION_SWIN, "head", "model({x})"),
    Family(ConvNeXt, _by_name, TORCHVISION_CONVNEXT, "classifier.2", "model.features({x}).mean((2, 3))"),
)
