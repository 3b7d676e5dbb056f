"""Tells whether a file is a picture: by its extension, or where this is not known, by its first bytes."""

from __future__ import annotations

import os
import re

from sslcli.data.regular_files import open_regular

EXTENSIONS = frozenset(b".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .pnm .avif".split())
# What lies beside pictures, often a file for each of them, and is no picture: these are not opened.
OTHERS = frozenset(
    b".txt .json .jsonl .xml .csv .tsv .md .html .htm .yaml .yml .toml .ini .cfg .log .py .sh .js .css .cls .caption "
    b".zip .tar .gz .xz .zst .bz2 .7z .rar .parquet .arrow .npy .npz .pt .pth .pkl .pickle .h5 .hdf5 .mat .db .sqlite "
    b".svg .pdf .eps .ps .mp4 .avi .mov .mkv .webm .mp3 .wav .flac .lock .doc .docx .xls .xlsx .tmp .part".split()
)
_STARTS = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF....WEBP"
    rb"|BM....\0\0\0\0"
    rb"|II[*+]\0|MM\0[*+]"  # TIFF
    rb"|P[1-6][ \t\r\n#]"  # PPM, PGM, PBM
    rb"|....ftypavi[fs]",
    re.DOTALL,
)
ENOUGH = 16  # bytes
_LONGEST = 10  # of an extension, with its dot


def extension_of(name: bytes) -> bytes:
    """Return the extension of a file's name in lower case with its dot; empty without one.

    What follows the last dot of ``v1.0 final draft`` is none.
    """
    stem, dot, last = name.rpartition(b".")  # a tenth of the time of os.path.splitext
    return dot + last.lower() if stem and len(last) < _LONGEST and b" " not in last else b""


def starts_a_picture(content: bytes) -> bool:
    """Whether a file with these first bytes, 16 or more, is a picture of a format that can be decoded."""
    return _STARTS.match(content) is not None


def is_picture(path: bytes) -> bool:
    """Whether a regular file begins as a picture does; False for a file that cannot be read."""
    try:
        with open_regular(os.fsdecode(path)) as file:
            return starts_a_picture(file.read(ENOUGH))
    except OSError:
        return False
