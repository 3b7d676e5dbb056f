"""Read the named tensors of a checkpoint of any project; code in the file is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from sslcli.config.paths import expand
from sslcli.data.fingerprints import of_many
from sslcli.errors import UserError
from sslcli.pretrained.safe_unpickle import skipping_settings
from sslcli.pretrained.safetensors_io import read_safetensors
from sslcli.run_dir import checkpoint
from sslcli.run_dir.archive import BrokenArchive, ForeignArchive, is_archive
from sslcli.run_dir.checkpoint import is_pointer, open_run
from sslcli.run_dir.files import readable
from sslcli.run_dir.torch_file import load_archive, load_unchecked

KEY = "encoder.weights"
# Keys under which checkpoints keep the state dict, in order of preference: DINO's teacher is better than its student.
_PLACES = ("encoder", "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "teacher",
           "student", "model", "module", "net", "weights", "classy_state_dict", "base_model", "trunk")  # fmt: skip


def read(source: str) -> dict[str, Tensor]:
    """Read the tensors of a file, a run, a folder of transformers, or timm's model ``timm:NAME``, to the CPU.

    Raises:
        UserError: the file does not exist, is damaged, is of another kind, or is a pickle that would run code.
    """
    if source.startswith("timm:"):
        from sslcli.pretrained.hub import from_timm

        return from_timm(source.removeprefix("timm:"))
    path = _in_folder(expand(source))
    if path.is_dir() or is_pointer(path):
        return _state_dict(open_run(source, KEY)[1], path)
    if not path.is_file():
        raise UserError(f"{KEY}: there is no file or run {path}.")
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path, KEY)[1]
        # transformers writes a layer on the first token, which encoders of text here do not have, into most folders
        return tensors if path == expand(source) else {name: t for name, t in tensors.items() if "pooler." not in name}
    return _state_dict(content_of(path), path)


def digest_of(source: str | None) -> str | None:
    """Return a quick digest of the file that ``encoder.weights`` names, of a run's newest one; None without weights.

    The names of timm's models are returned as they are.

    Raises:
        UserError: there is no such file or run.
    """
    if source is None or source.startswith("timm:"):
        return source
    path = _in_folder(expand(source))
    if path.is_dir():
        path = next(iter(checkpoint.steps(path)), path)
    elif is_pointer(path):
        path = path.with_name(path.read_text().strip())
    if not path.is_file():
        raise UserError(f"{KEY}: there is no file or run {path}.")
    return of_many(1, lambda _: str(path), b"", limit=0)


def _in_folder(path: Path) -> Path:
    """Return the file of weights in a folder that transformers wrote; any other path as it is."""
    file = path / "model.safetensors"
    return file if (path / "config.json").is_file() and file.is_file() else path


def content_of(path: Path) -> Any:
    """Read a file of ``torch.save``, with settings replaced by placeholders."""
    try:
        with readable(path, KEY), path.open("rb") as file, skipping_settings():
            return load_archive(file) if is_archive(file) else load_unchecked(file)
    except UserError:
        raise
    except BrokenArchive as error:
        raise UserError(f"{KEY}: {path} is cut short or damaged ({error}).") from None
    except ForeignArchive as error:
        raise UserError(f"{KEY}: {path} is not a file of torch.save ({error}).{_hint(path)}") from None
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
    return f"is cut short or not a file of torch.save.{_hint(path)}"


def _hint(path: Path) -> str:
    other = path.suffix in (".onnx", ".pt2", ".parquet", ".npy")  # exports for other programs
    return " Of exports, format=safetensors can be read again." if other else ""


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint, which may be nested a few levels deep."""
    while isinstance(content, Mapping):
        inner = next((content[place] for place in _PLACES if isinstance(content.get(place), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = dict(_named_tensors(content, ""))
    if tensors:
        return tensors
    raise UserError(f"{KEY}: {path} holds no tensors by name.")


def _named_tensors(content: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested mappings and sequences; the name of one has the names of what it is in before it."""
    if isinstance(content, Tensor) and prefix:
        yield prefix.removesuffix("."), content.detach()
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content))
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _named_tensors(value, f"{prefix}{name}.")
