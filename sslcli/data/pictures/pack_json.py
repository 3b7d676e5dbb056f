"""``pack.json``, which ``ssl-pack`` writes last into a folder: format, size, number of samples, names of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sslcli.data.regular_files import read_regular
from sslcli.errors import UserError

PACK = "pack.json"
ARRAY = "sslcli packed pictures, version 1"
TARS = "WebDataset tars"


def about(folder: Path, expected: str) -> dict[str, Any]:
    """Read the file in ``folder``.

    Raises:
        UserError: it is missing, damaged, or not of the format ``expected``.
    """
    wanted = "Give the folder that ssl-pack wrote."
    try:
        found = json.loads(read_regular(folder / PACK))
    except FileNotFoundError:
        raise UserError(f"dataset.path: there is no pack.json in {folder}. {wanted}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"dataset.path: {folder / PACK} cannot be read ({error}). {wanted}") from None
    if not isinstance(found, dict) or found.get("format") != expected:
        raise UserError(f"dataset.path: {folder / PACK} is not of '{expected}'. {wanted}")
    return found
