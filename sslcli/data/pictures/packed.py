"""Pictures that ``scripts/pack.py`` has decoded to one size: a folder with one array, read by arithmetic.

The folder holds ``images.npy``, uint8 (N, 3, S, S); ``labels.npy``, int64 (N,), where there are labels;
``sources.txt``, the file that each came from; and ``pack.json``, written last, which says what it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.memory_map import Mapped
from sslcli.data.pictures.base import rgb
from sslcli.errors import UserError

FORMAT = "sslcli packed pictures, version 1"


def packed(*, path: str, holdout: float | None = None) -> Dataset:
    """The folder ``path`` that ``scripts/pack.py --to array`` has made."""
    return with_held_out(Packed(Path(path).expanduser()), None, holdout)


class Packed(Dataset):
    """Pictures of one size in one file, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        about = _about(folder)
        try:
            shape = (about["samples"], 3, about["size"], about["size"])
            self._images = Mapped(folder / "images.npy", shape, _offset(folder / "images.npy", shape))
            if about["classes"]:
                self.labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))
                if self.labels.shape != shape[:1]:
                    raise ValueError(f"{len(self.labels):,} labels for {shape[0]:,} pictures")
            self._digest = str(about["digest"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"dataset.path: {folder} is damaged ({error}). Pack it again.") from None
        self.classes: list[str] = about["classes"]  # by label
        self.spec = rgb(about["size"])

    def __len__(self) -> int:
        return len(self._images)

    def fingerprint(self) -> str:
        return f"{len(self)} packed pictures, names {self._digest}"

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return {"image": self._images.rows[index]}


def _about(folder: Path) -> dict[str, Any]:
    wanted = "Give the folder that ssl-pack wrote."
    try:
        about = json.loads((folder / "pack.json").read_bytes())
    except FileNotFoundError:
        raise UserError(f"dataset.path: there is no pack.json in {folder}. {wanted}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"dataset.path: {folder / 'pack.json'} cannot be read ({error}). {wanted}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"dataset.path: {folder / 'pack.json'} is not of '{FORMAT}'. {wanted}")
    return about


def _offset(path: Path, shape: tuple[int, ...]) -> int:
    """Where the array's bytes begin, after a header that must describe them."""
    with path.open("rb") as file:
        if npy.read_magic(file) != (1, 0) or npy.read_array_header_1_0(file) != (shape, False, np.dtype(np.uint8)):
            raise ValueError(f"{path.name} is not a uint8 array of {shape}")
        return file.tell()
