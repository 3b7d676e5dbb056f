"""Golden samples: three inputs with their features, beside an export, to compare a file with where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.selection import drawn
from sslcli.errors import UserError
from sslcli.export.base import SAMPLES, TOLERANCE, Lines, Source, samples
from sslcli.run_dir.files import write_atomically
from sslcli.run_dir.formatting import first_line

SUFFIX = ".golden.safetensors"
_MARK = {"written_by": "ssl-export"}


@dataclass(frozen=True)
class Golden:
    """Three raw samples, as a file's lines read them."""

    batch: Tensor  # (3, *shape): images as float32 in [0, 1] at the encoder's size, others as the dataset has them
    origin: str  # whose they are, in words

    def write(self, path: Path, source: Source) -> None:
        """Write ``batch``, and as ``features`` (3, D) what the run's own encoder computes of it."""
        with torch.no_grad():
            features = source.model(self.batch).float()
        content = save({"batch": self.batch.contiguous(), "features": features.contiguous()}, metadata=_MARK)
        write_atomically(path, lambda file: file.write(content), key="output")


def golden_samples(source: Source) -> Golden:
    """Return samples of the run's held-out data, or generated ones where these data cannot be read."""
    try:
        return _held_out(source)
    except (UserError, OSError) as error:
        return Golden(samples(source.field, SAMPLES), f"generated samples ({first_line(error)})")


def _held_out(source: Source) -> Golden:
    chosen, dataset = source.data()
    held_out = CorruptReplaced(dataset).held_out
    if held_out is None or len(held_out) < SAMPLES:
        raise UserError("the run's data has no held-out samples")
    columns = held_out.fetch(drawn(len(held_out), SAMPLES))
    return Golden(_as_input(source, columns), f"held-out samples of {chosen.name}")


def _as_input(source: Source, columns: Mapping[str, Tensor]) -> Tensor:
    """Return samples as raw input of the encoder: images at its size, in [0, 1] and in steps of 1 / 255."""
    column, name = source.field, source.model.views.field
    if column.is_ids:
        return columns[name]
    if column.kind != "image":
        return columns[name].float()
    x = source.model.views.evaluation_view(columns, name).x.float()
    if column.mean:
        x = x * torch.tensor(column.std)[:, None, None] + torch.tensor(column.mean)[:, None, None]
    return (255 * x.clamp(0, 1)).round() / 255 if column.is_pixels else x


def described(golden: Golden, path: Path, lines: Lines) -> list[str]:
    """Return the section of a model card on the samples at ``path``, with Python that follows ``lines.load``."""
    return [
        f"{path.name} holds `batch`, {SAMPLES} {golden.origin}, and `features`, what the run's encoder computes of "
        "them. After the lines that load the file:",
        "",
        "```python",
        f"from safetensors.{lines.array} import load_file",
        f"golden = load_file({str(path)!r})",
        'batch = golden["batch"]',
        *lines.use,
        'difference = abs(features - golden["features"]).max() / abs(golden["features"]).max()',
        f"assert difference < {TOLERANCE:g}",
        "```",
    ]


def is_golden(path: Path) -> bool:
    """Return whether a file of golden samples, written by this tool, is at ``path``.

    Raises:
        UserError: there is another file, which is not to be lost.
    """
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            mark = file.metadata() or {}
    except (SafetensorError, OSError):
        mark = {}
    if not _MARK.items() <= mark.items():
        raise UserError(f"output: {path} is not this tool's and would be overwritten. Choose another folder.")
    return True
