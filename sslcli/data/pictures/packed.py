"""Pictures that ``ssl-pack`` has decoded to one size, in one array.

The folder holds ``images.npy``, uint8 (N, 3, S, S); ``labels.npy``, int64 (N,), if there are labels; ``sources.txt``,
the source file of each picture; and ``pack.json``, written last, with the format, the size and the classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.fingerprints import LIMIT, of_files
from sslcli.data.memory_map import MemoryMap
from sslcli.data.pictures import pack_json
from sslcli.data.pictures.reading import RGB
from sslcli.data.regular_files import open_regular
from sslcli.errors import UserError


def packed(*, path: str, holdout: float | None = None) -> Dataset:
    """Make a dataset of the folder ``path``, which ``ssl-pack --to array`` has written."""
    return with_held_out(Packed(Path(path).expanduser()), None, holdout)


class Packed(Dataset):
    """A dataset of pictures of one size in one array, which is mapped into memory."""

    def __init__(self, folder: Path) -> None:
        about = pack_json.about(folder, pack_json.ARRAY)
        self._labels = folder / "labels.npy"
        try:
            shape = (about["samples"], 3, about["size"], about["size"])
            self._images = MemoryMap(folder / "images.npy", shape, _offset(folder / "images.npy", shape))
            if about["classes"]:
                self.labels = torch.from_numpy(np.load(self._labels, allow_pickle=False))
                if self.labels.shape != shape[:1]:
                    raise ValueError(f"{len(self.labels):,} labels for {shape[0]:,} pictures")
            self._digest = str(about["digest"])
            levels = tuple(map(float, about.get("range", ())))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"dataset.path: {folder} is damaged ({error}). Pack it again.") from None
        self.classes = tuple(about["classes"])
        spec = RGB.spec(about["size"])
        self.spec = spec.having("image", replace(spec["image"], levels=levels))

    def __len__(self) -> int:
        return len(self._images)

    def fingerprint(self, limit: int = LIMIT) -> str:
        files = [self._images.path] + [self._labels] * (self.labels is not None)
        return f"{len(self)} packed pictures, {of_files(files, limit)}"

    def old_fingerprint(self) -> str:
        return f"{len(self)} packed pictures, names {self._digest}"

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return {"image": self._images.rows[index]}


def _offset(path: Path, shape: tuple[int, ...]) -> int:
    """Return the offset of the array's data; raise ValueError if the header is not that of uint8 with ``shape``."""
    with open_regular(path) as file:
        if npy.read_magic(file) != (1, 0) or npy.read_array_header_1_0(file) != (shape, False, np.dtype(np.uint8)):
            raise ValueError(f"{path.name} is not a uint8 array of {shape}")
        return file.tell()
