"""This tool's own safetensors files: an encoder's named tensors, and in the header the data to rebuild it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sslcli.config.composed import read, restored, to_plain
from sslcli.config.upgrade import FORMAT
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.files import readable
from sslcli.run_dir.fitted import Fitted
from sslcli.run_dir.formats import Trained, with_kinds
from sslcli.run_dir.formatting import first_line

_TEXTS = {"config", "spec", "step"}  # in the header of an export


def packed(module: nn.Module, header: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with all tensors of ``module`` and the text entries ``header``, as bytes."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    content: bytes = save(weights, metadata={"format": "pt", **(header or {})})
    return content


def write_weights(module: nn.Module, run_dir: Path, name: str) -> None:
    """Write all tensors of ``module`` to a safetensors file of a run, atomically."""
    inside.write_bytes(run_dir, name, packed(module))


def export_header(state: Mapping[str, Any], weights: str) -> dict[str, str]:
    """Return the header from which a checkpoint's encoder can be rebuilt; safetensors stores text only."""
    files = state["fitted"].files
    fitted = {"fitted": json.dumps({name: b64encode(files[name]).decode() for name in sorted(files)})} if files else {}
    return fitted | {
        "config": json.dumps(to_plain(state["config"])),
        "spec": json.dumps(state["spec"]),
        "step": str(state["step"]),
        "weights": weights,
        "written_in": str(FORMAT),
    }


def spec_of(path: Path) -> dict[str, Any] | None:
    """Return the plain columns in the header of an export of this tool; None if ``path`` is another file.

    Raises:
        UserError: the header is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return _content(path, header, {})["spec"] if header.keys() >= _TEXTS else None


def read_export(path: Path) -> dict[str, Any]:
    """Read the part of a checkpoint's state that ``format=safetensors`` writes: config, spec, step and encoder.

    Raises:
        UserError: the file does not exist, cannot be read, is damaged, or was not written by this tool.
    """
    header, encoder = read_safetensors(path, "run")
    if not header.keys() >= _TEXTS:
        raise UserError(f"run: {path} was not written by ssl-export format=safetensors: it cannot be rebuilt.")
    return _content(path, header, encoder)


def read_safetensors(path: Path, key: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the header and the tensors of a safetensors file.

    Args:
        path: the file.
        key: the config path that names it, for messages.

    Raises:
        UserError: the file does not exist, cannot be read, or is damaged.
    """
    try:
        with readable(path, key):
            path.open("rb").close()  # says why, where the library says only that it could not
            with safe_open(path, "pt") as file:
                header = dict(file.metadata() or {})
            return header, load_file(path)
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path}.") from None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{key}: {path} is cut short or not a safetensors file ({first_line(error)}).") from None


def _content(path: Path, header: Mapping[str, str], encoder: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the texts of a header mean, with the encoder's tensors."""
    try:
        found: dict[str, Any] = {name: json.loads(header[name]) for name in _TEXTS}
        found["config"] = restored(found["config"], int(header.get("written_in", 1)))
        found["spec"] = with_kinds(found["spec"])
        content = read({**found, "encoder": encoder, "weights": header.get("weights", "student")}, Trained)
        files = {name: b64decode(text, validate=True) for name, text in json.loads(header.get("fitted", "{}")).items()}
    except (UserError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"run: the header of {path} is not that of an export: {first_line(error)}") from None
    return {**vars(content), "fitted": Fitted(files, complete=True)}
