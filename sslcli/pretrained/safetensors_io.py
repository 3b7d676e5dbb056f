"""This tool's own safetensors files: an encoder's named tensors, and in the header the data to rebuild it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from sslcli.config.composed import TrainConfig, read, to_plain
from sslcli.config.upgrade import FORMAT, up_to_date
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.formats import with_kinds


def packed(module: nn.Module, header: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with all tensors of ``module`` and the text entries ``header``, as bytes."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    content: bytes = save(weights, metadata={"format": "pt", **(header or {})})
    return content


def write_weights(module: nn.Module, run_dir: Path, name: str) -> None:
    """Write all tensors of ``module`` to a safetensors file of a run, atomically."""
    content = packed(module)
    inside.write(run_dir, name, lambda file: file.write(content))


def export_header(state: Mapping[str, Any], weights: str) -> dict[str, str]:
    """Return the header from which a checkpoint's encoder can be rebuilt; safetensors stores text only."""
    return {
        "config": json.dumps(to_plain(state["config"])),
        "spec": json.dumps(state["spec"]),
        "step": str(state["step"]),
        "weights": weights,
        "written_in": str(FORMAT),
    }


def spec_of(path: Path) -> dict[str, Any] | None:
    """Return the plain columns in the header of an export of this tool; None if ``path`` is another file."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return json.loads(header["spec"]) if {"config", "spec"} <= header.keys() else None


def read_export(path: Path) -> dict[str, Any]:
    """Read the part of a checkpoint's state that ``format=safetensors`` writes: config, spec, step and encoder.

    Raises:
        UserError: the file does not exist, is damaged, or was not written by this tool.
    """
    if not path.is_file():
        raise UserError(f"run: there is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        encoder = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"run: {path} is cut short or not a safetensors file ({error}).") from None
    if not {"config", "spec", "step"} <= header.keys():
        raise UserError(f"run: {path} was not written by ssl-export format=safetensors: it cannot be rebuilt.")
    kept = {name: json.loads(header[name]) for name in ("config", "spec", "step")}
    return {
        **kept,
        "weights": header.get("weights", "student"),
        "spec": with_kinds(kept["spec"]),
        "config": read(up_to_date(kept["config"], int(header.get("written_in", 1))), TrainConfig),
        "encoder": encoder,
    }
