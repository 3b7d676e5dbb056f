"""Paths that a user writes in a config."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sslcli.config.choices import DatasetChoice
from sslcli.errors import UserError


def expand(path: str) -> Path:
    """Return the path with ``~`` replaced by the home folder.

    Raises:
        UserError: no file can have this name, or there is no such home folder.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError("it holds a NUL")
        return Path(path).expanduser()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path[:200]!r} is not a path: {str(error).rstrip('.')}.") from None


_BESIDE = ("split_from", "user_features", "item_features")  # keys of files beside the data


def located(dataset: DatasetChoice, folder: str | None) -> DatasetChoice:
    """Return a run's dataset with the paths by which its data are found from the current folder.

    Args:
        dataset: the run's dataset; its relative path is one from ``folder``.
        folder: the folder in which the run was started; None if that is not known.

    Raises:
        UserError: a relative path leads to data neither from here nor from ``folder``.
    """
    node = dataset.node if isinstance(dataset.node, dict) else {}
    beside = {key: node.get(key) for key in _BESIDE if folder is not None}
    found = {
        key: str(Path(folder or "") / path)
        for key, path in beside.items()
        if isinstance(path, str) and not expand(path).exists() and (Path(folder or "") / expand(path)).exists()
    }
    dataset = dataset.with_keys(**found) if found else dataset
    path = node.get("path")
    if folder is None or not isinstance(path, str) or "://" in path or expand(path).is_absolute():
        return dataset
    start = Path(re.split(r"[*?\[{]", path)[0])  # patterns such as DIR/{000..009}.tar have no path of their own
    if not start.exists() and (Path(folder) / start).exists():
        return dataset.with_keys(path=str(Path(folder) / path))
    if start.exists() or node.get("download"):
        return dataset
    raise UserError(
        f"dataset.path: {path} is neither in {Path.cwd()} nor in {folder}, where the run was started. "
        "Say where the data are now by dataset.path=..., or start the command in the folder that holds them."
    )
