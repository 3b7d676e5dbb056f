"""Reads a list of pictures: a text file with one path a line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from sslcli.data.pictures.found import Found
from sslcli.data.pictures.paths import Paths, ranks_of
from sslcli.data.pictures.same_files import first_names, places_of
from sslcli.errors import UserError


def read_list(place: Path) -> Found:
    """Read a list of paths, one a line, relative to the list's folder, in the order of the file; skip blank lines.

    Raises:
        UserError: the file is not a text file, or lists no picture.
    """
    text = place.read_bytes()
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell's > writes
        text = text.decode("utf-16", "replace").encode()
    if b"\0" in text:
        raise UserError(f"dataset.path: {place} is neither a folder nor a text file with one path a line.")
    text = text.removeprefix(codecs.BOM_UTF8)
    lines = [line for line in (line.rstrip(b"\r") for line in text.split(b"\n")) if line.strip()]
    if not lines:
        raise UserError(f"dataset.path: {place} names no picture. Write one path a line into it.")
    root = os.fsencode(place.parent.absolute())
    paths = Paths.of(root, lines)
    folders = [os.path.normpath(os.path.join(root, os.path.dirname(line))) for line in lines]  # noqa: PTH118, PTH120
    common = os.path.join(os.path.commonpath(set(folders)), b"")  # noqa: PTH118
    tops = ranks_of(_top(folder, common) for folder in folders)
    parents = ranks_of(map(os.path.basename, folders))
    first = first_names(places_of(len(lines), paths.source), paths.source)
    return Found(paths, parents, tops, first, common)


def _top(folder: bytes, common: bytes) -> bytes:
    return folder[len(common) :].split(b"/")[0] or os.path.basename(common.rstrip(b"/"))  # noqa: PTH119
