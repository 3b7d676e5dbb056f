"""ONNX files, for onnxruntime (also in C++, JavaScript and on phones) and other runtimes."""

from __future__ import annotations

from pathlib import Path

import torch

from sslcli.errors import UserError
from sslcli.export.base import Checked, Format, Lines, Source, needed, same_features
from sslcli.export.graph import first_lines, read_tensors, traced

_LIMIT = 2**31  # largest size of a protobuf message in bytes


class Onnx(Format):
    """Any encoder, for batches of any size; the input is called ``x`` and the output ``features``.

    Args:
        preprocessing: whether the graph normalises its input; it then takes pixels in [0, 1].
    """

    suffix = ".onnx"
    begins = rb"\x08"

    def __init__(self, *, preprocessing: bool = False) -> None:
        self.preprocessing = preprocessing

    def write(self, source: Source, path: Path) -> None:
        needed("onnx", "onnxscript", "onnxruntime", extra="onnx", by="format=onnx")
        size = sum(tensor.nbytes for tensor in source.model.encoder.state_dict().values())
        if size >= _LIMIT:
            raise UserError(f"format=onnx: a file holds 2 GB, and this encoder has {size / 1e9:.1f}. Use torch_export.")
        program = traced(source, preprocessing=self.preprocessing)
        self._read, self._unread = read_tensors(program, source.model.encoder)
        exported = torch.onnx.export(
            program, input_names=["x"], output_names=["features"], dynamo=True, verbose=False, external_data=False
        )
        assert exported is not None
        path.write_bytes(exported.model_proto.SerializeToString())

    def lines(self, source: Source, path: Path) -> Lines:
        return Lines(
            ["import numpy as np", "import onnxruntime", f"session = onnxruntime.InferenceSession({str(path)!r})"],
            [
                *first_lines(source, self.preprocessing, "np.float32"),
                'features = session.run(["features"], {"x": x})[0]',
            ],
            array="numpy",
        )

    def check(self, source: Source, path: Path) -> Checked:
        import onnx

        onnx.checker.check_model(str(path))
        equal = same_features(source, self.lines(source, path))
        return Checked(len(self._read), self._unread, [], equal)
