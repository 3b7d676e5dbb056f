"""``.pt2`` files of torch.export, which need torch, but not timm, this tool or the encoder's code."""

from __future__ import annotations

from pathlib import Path

import torch

from sslcli.export.base import Checked, Format, Lines, Source, same_features
from sslcli.export.graph import first_lines, read_tensors, traced


class TorchExport(Format):
    """Any encoder, for batches of any size.

    Args:
        preprocessing: whether the graph normalises its input; it then takes pixels in [0, 1].
    """

    suffix = ".pt2"
    begins = rb"PK\x03\x04"

    def __init__(self, *, preprocessing: bool = False) -> None:
        self.preprocessing = preprocessing

    def write(self, source: Source, path: Path) -> None:
        with path.open("wb") as file:
            torch.export.save(traced(source, preprocessing=self.preprocessing), file)

    def lines(self, source: Source, path: Path) -> Lines:
        return Lines(
            ["import torch", f"model = torch.export.load({str(path)!r}).module()"],
            [*first_lines(source, self.preprocessing), "with torch.inference_mode():", "    features = model(x)"],
        )

    def check(self, source: Source, path: Path) -> Checked:
        with path.open("rb") as file:
            read, unread = read_tensors(torch.export.load(file), source.model.encoder)
        return Checked(len(read), unread, [], same_features(source, self.lines(source, path)))
