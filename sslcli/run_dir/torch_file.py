"""Reads zip files of ``torch.save``: seal and structure are checked first, and no code in them is run."""

from __future__ import annotations

import os
import pickletools
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch

from sslcli.errors import is_out_of_memory
from sslcli.run_dir.archive import BrokenArchive, ForeignArchive, Member, members
from sslcli.run_dir.seal import LENGTH, broken_seal

_PUT, _GET = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
_CONSTANTS = ("BINUNICODE", "GLOBAL", "BININT", "BININT1", "BININT2", "LONG1")
_ITEM_SIZES = {  # bytes of a number, by the name of the storage
    "Untyped": 1, "Bool": 1, "Byte": 1, "Char": 1, "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4,
    "Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16, "QInt8": 1, "QUInt8": 1, "QInt32": 4,
    "QUInt4x2": 1, "QUInt2x4": 1,
}  # fmt: skip


def load_archive(file: BinaryIO) -> Any:
    """Load the content of a zip file of ``torch.save`` to the CPU.

    Raises:
        BrokenArchive: the file is damaged.
        ForeignArchive: it is not a file of ``torch.save``.
        OSError, MemoryError: it cannot be read, or does not fit into memory.
        Exception: what torch raises for a whole file that it refuses, such as ``pickle.UnpicklingError``.
    """
    broken = broken_seal(file)
    if broken:
        raise BrokenArchive(broken)
    size = file.seek(0, os.SEEK_END) - (0 if broken is None else LENGTH)
    _check_storages(file, members(file, size))
    return load_unchecked(file)


def load_unchecked(file: BinaryIO) -> Any:
    """Load a file of ``torch.save`` before torch 1.6, which is no zip file and holds nothing to check it by."""
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a pickle protocol just before it raises
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError from None
            raise


def _check_storages(file: BinaryIO, found: list[Member]) -> None:
    """Check that the bytes of every tensor are there: torch would read on behind them."""
    root = found[0].name.partition("/")[0] if found else ""
    sizes = {member.name: member.size for member in found}
    pickled = next((member for member in found if member.name == f"{root}/data.pkl"), None)
    if pickled is None:
        raise ForeignArchive("it has no data.pkl, which files of torch.save have")
    file.seek(pickled.start)
    for key, size in _storages(file.read(pickled.size)):
        if sizes.get(f"{root}/data/{key}") != size:
            raise BrokenArchive(f"it lacks bytes of the tensor {key!r}")


def _storages(pickled: bytes) -> Iterator[tuple[str, int]]:
    """Yield key and number of bytes of each tensor in a pickle.

    ``torch.save`` writes ('storage', its kind, its key, its device, how many numbers) right where it is used, its parts
    as constants, or by the places where it wrote them before. A pickle that makes this tuple in another way is refused.
    """
    memo: dict[Any, tuple[str, Any]] = {}
    recent: deque[tuple[str, Any]] = deque([("", None)], maxlen=7)
    try:
        for code, argument, _ in pickletools.genops(pickled):
            if code.name in _PUT:
                memo[argument] = recent[-1]
            elif code.name in _GET:
                recent.append(constant if (constant := memo[argument])[0] in _CONSTANTS else ("", None))
            else:
                if code.name == "BINPERSID":
                    yield _storage(*recent)
                recent.append((code.name, argument))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ForeignArchive("its tensors are not as torch.save writes them") from None


def _storage(*written: tuple[str, Any]) -> tuple[str, int]:
    (mark, _), _, (_, kind), (_, key), _, (_, count), (end, _) = written
    if (mark, end) != ("MARK", "TUPLE") or not isinstance(key, str):
        raise ValueError("not as torch writes it")
    return key, count * _ITEM_SIZES[kind.rpartition(" ")[2].removesuffix("Storage")]
