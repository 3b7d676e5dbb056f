"""From a path to tensors by name, whatever wrote the file; code in it is never run."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sslcli.config.paths import expand
from sslcli.errors import UserError
from sslcli.pretrained.safe_unpickle import passing_over_settings
from sslcli.run_dir.checkpoint import is_pointer, open_run
from sslcli.run_dir.formatting import first_line

KEY = "encoder.weights"
# Where checkpoints keep the state dict, the most wanted first: DINO's teacher is better than its student.
_PLACES = ("encoder", "state_dict", "model_state_dict", "teacher", "student", "model", "module", "net", "weights",
           "classy_state_dict", "base_model", "trunk")  # fmt: skip


def read(source: str) -> dict[str, Tensor]:
    """The tensors of a file, of a run directory, or of timm's pretrained model ``timm:NAME``, on the CPU.

    Raises:
        UserError: nothing there, damaged, of another kind, or a pickle that asks for code.
    """
    if source.startswith("timm:"):
        from sslcli.pretrained.hub import from_timm

        return from_timm(source.removeprefix("timm:"))
    path = expand(source)
    if path.is_dir() or is_pointer(path):
        return _state_dict(open_run(source, KEY)[1], path)
    if not path.is_file():
        raise UserError(f"{KEY}: there is no file or run {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{KEY}: {path} is cut short or not a safetensors file ({first_line(error)}).") from None
    return _state_dict(_load(path), path)


def _load(path: Path) -> Any:
    """What ``torch.save`` put into a file, settings passed over."""
    try:
        if zipfile.is_zipfile(path):  # torch reads what lies before the damage, so the sums are checked here
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise UserError(f"{KEY}: {path} is damaged ({damaged}).")
        with passing_over_settings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol, just before what is wrong is said
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch's readers fail in many ways on what is no such file
        raise UserError(f"{KEY}: {path} {_refusal(error, path)}") from None


def _refusal(error: Exception, path: Path) -> str:
    """Why a file is not opened; torch's words are of its own insides, but for what a pickle asks for."""
    found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, UnpicklingError) else None
    if found:
        return (
            f"holds more than tensors: it asks for {found[1]}, and code in a file is never run. If you trust it, save "
            "its state dict alone: torch.save(model.state_dict(), 'weights.pth')"
        )
    other = path.suffix in (".onnx", ".pt2", ".parquet", ".npy")  # exports, which are for other programs
    hint = " Of exports, format=safetensors can be read again." if other else ""
    return f"is cut short or not a file of torch.save.{hint}"


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name in a checkpoint, which may lie a few levels down."""
    while isinstance(content, Mapping):
        inner = next((content[place] for place in _PLACES if isinstance(content.get(place), Mapping)), None)
        if inner is None:
            break
        content = inner
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value.detach() for name, value in named if isinstance(value, Tensor)}
    if tensors:
        return tensors
    raise UserError(
        f"{KEY}: {path} holds no tensors by name. Looked for a state dict, alone or in {', '.join(_PLACES)}."
    )
