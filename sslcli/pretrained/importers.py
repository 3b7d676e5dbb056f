"""Read the named tensors of a checkpoint of any project; code in the file is never run."""

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
from sslcli.pretrained.safe_unpickle import skipping_settings
from sslcli.run_dir.checkpoint import is_pointer, open_run
from sslcli.run_dir.formatting import first_line

KEY = "encoder.weights"
# Keys under which checkpoints keep the state dict, in order of preference: DINO's teacher is better than its student.
_PLACES = ("encoder", "state_dict", "model_state_dict", "teacher", "student", "model", "module", "net", "weights",
           "classy_state_dict", "base_model", "trunk")  # fmt: skip


def read(source: str) -> dict[str, Tensor]:
    """Read the tensors of a file, of a run directory, or of timm's pretrained model ``timm:NAME``, to the CPU.

    Raises:
        UserError: the file does not exist, is damaged, is of another kind, or is a pickle that would run code.
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
    return _state_dict(content_of(path), path)


def content_of(path: Path) -> Any:
    """Read a file of ``torch.save``, with settings replaced by placeholders."""
    try:
        if zipfile.is_zipfile(path):  # torch may read a damaged archive without noticing, so check the checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise UserError(f"{KEY}: {path} is damaged ({damaged}).")
        with skipping_settings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a pickle protocol just before it raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises many kinds of errors for other files
        raise UserError(f"{KEY}: {path} {_refusal(error, path)}") from None


def _refusal(error: Exception, path: Path) -> str:
    """Return why a file cannot be read; of torch's message only the name of a refused class is of use to the user."""
    found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, UnpicklingError) else None
    if found:
        return (
            f"holds more than tensors: it asks for {found[1]}, and code in a file is never run. If you trust it, save "
            "its state dict alone: torch.save(model.state_dict(), 'weights.pth')"
        )
    other = path.suffix in (".onnx", ".pt2", ".parquet", ".npy")  # exports for other programs
    hint = " Of exports, format=safetensors can be read again." if other else ""
    return f"is cut short or not a file of torch.save.{hint}"


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint, which may be nested a few levels deep."""
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
