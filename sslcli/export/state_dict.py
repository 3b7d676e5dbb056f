"""State dicts for another library's own class, with the lines of code that give it the shape of the run's encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.encoders.timm import Timm
from sslcli.errors import UserError
from sslcli.export.base import Checked, Format, Lines, Source, normalising, same_features, three_channels


@dataclass
class Target:
    """The other library's model."""

    imports: str
    create: str  # the expression that creates it, with its standard stem
    fresh: nn.Module  # the value of that expression, on the meta device: its modules and shapes, without numbers
    name_of: Callable[[str], str | None]  # from a name of its tensors to timm's; None for tensors that it computes
    classifier: str | None  # the module that is not in the file
    features: str  # an expression of ``model`` and {x}


class StateDict(Format):
    """A ``.pth`` file of plain tensors."""

    suffix = ".pth"
    begins = rb"PK\x03\x04|\x80"

    def target(self, encoder: Timm) -> Target:
        """Return the model that the state dict is for.

        Raises:
            UserError: the library has no model that computes the same.
        """
        raise NotImplementedError

    def weights(self, encoder: Timm, target: Target) -> dict[str, Tensor]:
        """Return the encoder's tensors under the names of the target."""
        raise NotImplementedError

    def write(self, source: Source, path: Path) -> None:
        encoder = timm_encoder(source)
        weights = self.weights(encoder, self.target(encoder))
        torch.save({name: tensor.contiguous() for name, tensor in weights.items()}, path)

    def lines(self, source: Source, path: Path) -> Lines:
        encoder = timm_encoder(source)
        target = self.target(encoder)
        no_head = [] if target.classifier is None else [f"model{_attribute(target.classifier)} = torch.nn.Identity()"]
        load = [
            *self.shaping(encoder, target),
            *(f"{line}  # the classifier, which is yours to train" for line in no_head),
            f"model.load_state_dict(torch.load({str(path)!r}, weights_only=True))",
            "model.eval()",
        ]
        column = source.field
        features = target.features.format(x=three_channels(column))
        return Lines(load, [*normalising(column), "with torch.inference_mode():", f"    features = {features}"])

    def shaping(self, encoder: Timm, target: Target) -> list[str]:
        """Return lines that create ``model`` with the run's shape."""
        return [
            "import torch",
            target.imports,
            f"model = {target.create}",
            *changed_modules(encoder.model, target.fresh, target.name_of),
        ]

    def shaped(self, encoder: Timm, target: Target) -> nn.Module:
        """Return the model that the lines of ``shaping`` create."""
        scope: dict[str, Any] = {}
        exec("\n".join(self.shaping(encoder, target)), scope)
        model: nn.Module = scope["model"]
        return model

    def check(self, source: Source, path: Path) -> Checked:
        encoder = timm_encoder(source)
        target = self.target(encoder)
        with torch.device("meta"):  # only the names are read
            theirs = set(self.shaped(encoder, target).state_dict())
        written = set(torch.load(path, weights_only=True))
        equal = same_features(source, self.lines(source, path))  # loads strictly, except the classifier
        return Checked(len(written & theirs), sorted(theirs - written), sorted(written - theirs), equal)


def timm_encoder(source: Source) -> Timm:
    """Return the run's encoder if it is a timm model.

    Raises:
        UserError: it is an encoder of this tool.
    """
    encoder = source.model.encoder
    if not isinstance(encoder, Timm):
        raise UserError(
            f"format: {type(encoder).__name__} is an encoder of this tool, which no other library has. "
            "Use format=safetensors, onnx or torch_export."
        )
    return encoder


def changed_modules(ours: nn.Module, fresh: nn.Module, name_of: Callable[[str], str | None]) -> list[str]:
    """Return lines that change ``fresh`` to the shape of ``ours``: another first convolution, no pooling after it."""
    lines = []
    for name, theirs in fresh.named_modules():
        if isinstance(theirs, nn.Conv2d):
            mine = ours.get_submodule((name_of(f"{name}.weight") or "").removesuffix(".weight"))
            assert isinstance(mine, nn.Conv2d)
            if _shape(mine) != _shape(theirs):
                lines.append(f"model{_attribute(name)} = torch.nn.{_conv(mine)}")
        elif isinstance(theirs, nn.MaxPool2d) and isinstance(getattr(ours, name, None), nn.Identity):
            lines.append(f"model{_attribute(name)} = torch.nn.Identity()")
    return lines


def _shape(conv: nn.Conv2d) -> tuple[object, ...]:
    return conv.in_channels, conv.kernel_size, conv.stride, conv.padding


def _conv(conv: nn.Conv2d) -> str:
    bias = "" if conv.bias is not None else ", bias=False"
    return (
        f"Conv2d({conv.in_channels}, {conv.out_channels}, {conv.kernel_size[0]}, stride={conv.stride[0]}, "
        f"padding={conv.padding[0]}{bias})"
    )


def _attribute(name: str) -> str:
    """Convert a module name to Python attributes: ``features.0.norm`` to ``.features[0].norm``."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))
