"""``pack.json``, which ``ssl-pack`` writes last into a folder: format, size, number of samples, names of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.data.regular_files import read_regular
from sslcli.errors import UserError
from sslcli.run_dir.json_files import JsonFile, loads

PACK = "pack.json"
ARRAY = "sslcli packed pictures, version 1"
TARS = "WebDataset tars"


@dataclass(kw_only=True)
class Pack(JsonFile):
    """The schema of the file."""

    format: str
    classes: list[str]
    samples: int
    size: int | None
    digest: str = ""
    range: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.size is not None and self.size < 1):
            raise ValueError(f"samples={self.samples} and size={self.size} are not both above 0")


def about(folder: Path, expected: str) -> dict[str, Any]:
    """Read the file in ``folder``.

    Raises:
        UserError: it is missing, damaged, or not of the format ``expected``.
    """
    wanted = "Give the folder that ssl-pack wrote."
    try:
        found = loads(read_regular(folder / PACK), Pack)
    except FileNotFoundError:
        raise UserError(f"dataset.path: there is no pack.json in {folder}. {wanted}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"dataset.path: {folder / PACK} cannot be read ({error}). {wanted}") from None
    if found["format"] != expected:
        raise UserError(f"dataset.path: {folder / PACK} is not of '{expected}'. {wanted}")
    return found
