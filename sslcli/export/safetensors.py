"""safetensors files with the encoder's own names, and the data to rebuild it in the header."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from sslcli.export.base import Checked, Format, Lines, Source, normalising, same_features
from sslcli.pretrained.safetensors_io import export_header, packed


class Safetensors(Format):
    """Any encoder, for ``sslcli.load(FILE)`` and ``encoder.weights=FILE``; any library can read the tensors."""

    suffix = ".safetensors"
    begins = rb".{8}\{"

    def write(self, source: Source, path: Path) -> None:
        path.write_bytes(packed(source.model.encoder, export_header(source.state, source.weights)))

    def lines(self, source: Source, path: Path) -> Lines:
        plugins = f", plugins={tuple(source.plugins)}" if source.plugins else ""
        return Lines(
            ["import sslcli", f"model = sslcli.load({str(path)!r}{plugins})"],
            [*normalising(source.field)[:-1], "features = model(batch)  # normalises by itself"],
        )

    def check(self, source: Source, path: Path) -> Checked:
        written, ours = load_file(path), source.model.encoder.state_dict()
        equal = [name for name in ours if name in written and torch.equal(written[name], ours[name])]
        missing, unexpected = sorted(ours.keys() - set(equal)), sorted(written.keys() - ours.keys())
        if missing or unexpected:
            raise RuntimeError(f"{path} does not hold what was written: {missing}, {unexpected}")
        return Checked(len(equal), [], [], same_features(source, self.lines(source, path)))
