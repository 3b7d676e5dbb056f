"""Folders of a split, such as train and val, right below the folder that the user gave."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sslcli.data.base import Notes
from sslcli.data.pictures.first_bytes import EXTENSIONS
from sslcli.data.split_names import TEST, TRAIN, VALIDATION, named_split
from sslcli.errors import UserError
from sslcli.run_dir.formatting import listed

_ALL = "dataset.split_folders=false reads all as one"
_NAMED = 5  # folders that are named


@dataclass(frozen=True)
class SplitFolders:
    """The folders of a split.

    Args:
        train: the folder of the training part.
        held_out: those of the test part and of the validation part, or of one of them.
        others: what else lies beside them: the names of folders, and the number of pictures.
    """

    train: Path
    held_out: tuple[Path, ...]
    others: tuple[str, ...]

    def notes(self, queried: Path | None) -> Notes:
        """Return which folders are read, and which are not, for the start lines.

        Args:
            queried: the folder of the held-out part; None if neither is.
        """
        read = f"{self.train.name} trains" + (f", {queried.name} is held out" if queried else "")
        unread = [*(part.name for part in self.held_out if part != queried), *self.others]
        left = f"; not read: {listed(unread, _NAMED)}" if unread else ""
        return (("split", f"{read}{left} ({_ALL})"),)


def find_split_folders(path: str) -> SplitFolders | None:
    """Return the folders of the parts right below ``path``; None unless one is named train and one test or validation.

    Raises:
        UserError: two folders are named after the same part, such as val and valid.
    """
    root = Path(path).expanduser()
    try:
        with os.scandir(root) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:  # a list of files, or nothing that can be read, of which the index tells
        return None
    folders = [name for name, is_folder in found if is_folder and not name.startswith(".")]
    parts = {part: [name for name in folders if named_split(name) == part] for part in (TRAIN, TEST, VALIDATION)}
    if not parts[TRAIN] or not (parts[TEST] or parts[VALIDATION]):
        return None
    for part, names in parts.items():
        if len(names) > 1:
            raise UserError(f"dataset.path: {root} holds {' and '.join(names)}, all for {part}. {_ALL}.")
    others = [name for name in folders if not named_split(name)]
    pictures = sum(Path(name).suffix.lower().encode() in EXTENSIONS for name, is_folder in found if not is_folder)
    others += [f"{pictures:,} picture{'s' * (pictures > 1)} beside them"] if pictures else []
    held_out = tuple(root / name for name in (*parts[TEST], *parts[VALIDATION]))
    return SplitFolders(root / parts[TRAIN][0], held_out, tuple(others))
