"""Load pretrained weights into an encoder, or raise an error that names the tensors that do not match."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import COUNTER
from sslcli.errors import UserError
from sslcli.pretrained.importers import KEY, read
from sslcli.pretrained.layout import Layout, Weights
from sslcli.pretrained.prefixes import LEAST, Found, find
from sslcli.run_dir.formatting import few

_KEYS = "encoder=... encoder.stem=standard"
_TABLE = ".relative_position_bias_table"


@dataclass
class LoadReport:
    """Which tensors of a file and of an encoder matched."""

    source: str
    layouts: list[str]
    matched: list[str]
    missing: list[str]  # in the encoder, and not in the file or of another shape there
    unexpected: list[str]  # in the file, and not in the encoder or of another shape there

    def __str__(self) -> str:
        known = f" ({', '.join(self.layouts)})" if self.layouts else ""
        return (
            f"{self.source}{known}: {len(self.matched)} matched, "
            f"{len(self.missing)} missing{few(self.missing)}, {len(self.unexpected)} unexpected{few(self.unexpected)}"
        )


def load_weights(encoder: Encoder, source: str) -> LoadReport:
    """Load ``source`` into ``encoder``.

    Args:
        encoder: at its random initialisation; changed in place.
        source: a file, a run, or ``timm:NAME``.

    Raises:
        UserError: ``source`` cannot be read, has several encoders that fit equally well, less than 95 % of the tensors
            of either side match, or a tensor has another shape: a stem or positions left at random would distort the
            input of all later layers.
    """
    ours = {name.removeprefix("model."): tensor for name, tensor in encoder.state_dict().items()}
    place = find(read(source), ours)
    if place.others:
        raise UserError(_ambiguous(source, place))
    _check_heads(encoder, place.layouts, source)
    found = {
        name: fitted(tensor, name, ours[name], encoder) if name in ours else tensor
        for name, tensor in place.weights.items()
    }
    matched = [name for name in ours if name in found and found[name].shape == ours[name].shape]
    report = LoadReport(
        source,
        [f"under {place.prefix}"] * bool(place.prefix) + [step.name for step in place.layouts],
        matched=[name for name in matched if not name.endswith(COUNTER)],
        missing=_without_counters(ours.keys() - set(matched)),
        unexpected=_without_counters(found.keys() - set(matched)),
    )
    count = len(report.matched)
    enough = count >= LEAST * (count + max(len(report.missing), len(report.unexpected)))
    if not enough or set(report.missing) & found.keys():
        raise UserError(_refusal(report, ours, found))
    with torch.no_grad():
        for name in matched:
            ours[name].copy_(found[name])
    return report


def fitted(tensor: Tensor, name: str, ours: Tensor, encoder: nn.Module) -> Tensor:
    """Resample positions to the shape of ``ours``, and add or drop axes of length 1; return other tensors unchanged."""
    if tensor.shape == ours.shape:
        return tensor
    if [n for n in tensor.shape if n > 1] == [n for n in ours.shape if n > 1]:
        return tensor.reshape(ours.shape)
    from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table  # a second's import that few runs need

    model: Any = getattr(encoder, "model", encoder)
    if name == "pos_embed" and tensor.dim() == 3 and tensor.shape[2] == ours.shape[2]:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        if math.isqrt(tensor.shape[1] - prefix) ** 2 == tensor.shape[1] - prefix:
            return resample_abs_pos_embed(tensor, model.patch_embed.grid_size, num_prefix_tokens=prefix)
    if name.endswith(_TABLE) and tensor.dim() == 2 and tensor.shape[1] == ours.shape[1]:
        window = model.get_submodule(name.removesuffix(_TABLE)).window_size
        extra = len(ours) - (2 * window[0] - 1) * (2 * window[1] - 1)
        if math.isqrt(len(tensor) - extra) ** 2 == len(tensor) - extra:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of an indexing in timm
                return resize_rel_pos_bias_table(tensor, window, ours.shape)
    return tensor


def _check_heads(encoder: Encoder, steps: Iterable[Layout], source: str) -> None:
    """Raise UserError for a ViT with another number of heads than in the project that trained the weights."""
    blocks = getattr(getattr(encoder, "model", None), "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        return
    ours = getattr(getattr(blocks[0], "attn", None), "num_heads", None)
    for step in steps:
        theirs = dict(step.num_heads).get(encoder.token_dim, ours)
        if theirs != ours:
            raise UserError(
                f"{KEY}: a ViT of width {encoder.token_dim} has {theirs} heads in {step.name} and {ours} here, which "
                f"no shape in {source} shows. Set encoder.num_heads={theirs}"
            )


def _ambiguous(source: str, place: Found) -> str:
    prefixes = [place.prefix or "no prefix", *place.others]
    return (
        f"{KEY}: {source} has {len(prefixes)} encoders that fit equally well: {', '.join(prefixes)}. Keep one of them: "
        f"torch.save({{k: v for k, v in weights.items() if k.startswith({prefixes[-1]!r})}}, 'weights.pth')"
    )


def _without_counters(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.endswith(COUNTER))


def _refusal(report: LoadReport, ours: Mapping[str, Tensor], found: Weights) -> str:
    total = len(report.matched) + len(report.missing)
    known = f" ({', '.join(report.layouts)})" if report.layouts else ""
    reshaped = [name for name in report.missing if name in found]
    sides = {
        "of another shape": [
            f"{name} is {_shape(found[name])} there and {_shape(ours[name])} here" for name in reshaped[:2]
        ],
        "only here": [name for name in report.missing if name not in found][:3],
        "only there": [name for name in report.unexpected if name not in ours][:3],
    }
    named = "; ".join(f"{side}: {', '.join(names)}" for side, names in sides.items() if names)
    return (
        f"{KEY}: {report.source}{known} is not of this encoder: {len(report.matched)} of its {total} tensors match, "
        f"{len(report.unexpected)} more are in the file ({named}).\n"
        "Choose the encoder that the weights are of, with its stem and norm: "
        + next((hint for name in reshaped if (hint := _hint(name, found[name], ours[name]))), _KEYS)
    )


def _hint(name: str, theirs: Tensor, ours: Tensor) -> str | None:
    """Return the config keys that would give a tensor the shape in the file; None if the shape does not tell."""
    if name == "pos_embed":
        return "encoder=timm encoder.name=..."
    if theirs.dim() != 4 or theirs.shape[:2] != ours.shape[:2]:
        return None
    size = theirs.shape[-1]
    if "patch_embed" in name:
        return f"encoder=... encoder.patch_size={size}"
    return f"encoder=... encoder.stem={'standard' if size > ours.shape[-1] else 'small'}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
