"""The idx files of MNIST (LeCun, Cortes and Burges 1998) and of datasets in the same format."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Columns
from sslcli.errors import UserError
from sslcli.types import Spec

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_splits(folder: Path, spec: Spec, classes: tuple[str, ...], advice: str) -> tuple[Columns, Columns]:
    """Read the train and test splits of 28 x 28 grey images from the four files in ``folder``, gzipped or not.

    Raises:
        UserError: a file is missing (the message ends with ``advice``), damaged, or of another dataset.
    """

    def split(prefix: str) -> Columns:
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte", advice)[:, None]
        labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", advice).long()
        if images.shape != (len(labels), 1, 28, 28):
            raise UserError(f"dataset.path: the {prefix} files in {folder} do not belong together. Fetch them again.")
        return Columns(spec, {"image": images}, labels, classes)

    return split("train"), split("t10k")


def find(folder: Path, name: str) -> Path | None:
    """Return the path of the idx file ``name``, gzipped or not; None if there is none."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(folder: Path, name: str, advice: str = "Set dataset.path to the folder that holds it.") -> Tensor:
    """Read a uint8 tensor from an idx file: two zero bytes, type 8, rank, big-endian sizes, then the data.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = find(folder, name)
    if path is None:
        raise UserError(f"dataset.path: there is no '{name}' in {folder}. {advice}")
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"dataset.path: {path} is damaged ({error}). Fetch it again.") from None
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    start = 4 + 4 * rank
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", rank, offset=4)) if len(raw) >= start else ()
    if not rank or len(shape) != rank or len(raw) != start + math.prod(shape):
        raise UserError(f"dataset.path: {path} is damaged or not an idx file. Fetch it again.")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).view(shape)
