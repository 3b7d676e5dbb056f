"""Packs the pictures of a folder once for many runs, decoded to an array or as files in tars."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from sslcli.config.quoting import override
from sslcli.data.pictures.decode import decode
from sslcli.data.pictures.file_index import Index, index
from sslcli.data.pictures.look import reading_for_all
from sslcli.data.pictures.opening import FORMATS, BadPicture
from sslcli.data.pictures.pack_json import ARRAY, PACK, TARS
from sslcli.data.pictures.pack_writers import ArrayWriter, Packed, ShardWriter, Writer, sync
from sslcli.data.pictures.png_chunks import pixels_only
from sslcli.data.pictures.reading import Reading
from sslcli.data.regular_files import read_regular
from sslcli.data.shared_memory import ReadAhead
from sslcli.data.split_names import named_split
from sslcli.data.workers import by_workers
from sslcli.distributed.start import available_cpus
from sslcli.errors import UserError
from sslcli.run_dir.files import sync_path

PIECE = 16  # pictures that a worker returns at a time; it reads at most four pieces ahead
SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # suffixes that differ from the name of the format


def pixels(path: str, size: int, reading: Reading) -> Packed:
    """Decode the centred square of a picture, resized to ``size``."""
    return "", decode(path, size, reading).numpy().tobytes()


def picture(path: str, size: int | None, reading: Reading) -> Packed:
    """Return the file of a picture, unchanged if its shorter side is at most ``size``, else resized and encoded again.

    Raises:
        BadPicture: the picture is corrupt.
    """
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        raise BadPicture(getattr(error, "strerror", None) or str(error)) from None
    decoded = decode(content, None, reading)
    with Image.open(io.BytesIO(pixels_only(io.BytesIO(content)) or content), formats=FORMATS) as image:
        kind = str(image.format)
    suffix = SUFFIXES.get(kind, kind.lower())
    height, width = decoded.shape[1:]
    if size is None or min(height, width) <= size:
        return suffix, content
    factor = size / min(height, width)
    upright = Image.fromarray(decoded.permute(1, 2, 0).numpy())
    small = upright.resize((round(width * factor), round(height * factor)), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    if suffix == "jpg":
        small.save(file, "JPEG", quality=95, subsampling=0)
        return "jpg", file.getvalue()
    small.save(file, "PNG")
    return "png", file.getvalue()


class Pieces(Dataset[list[Packed | str]]):
    """The pictures of an index in pieces of 16; each picture is packed, or is the reason why it cannot be."""

    def __init__(self, pictures: Index, make: Callable[[str], Packed]) -> None:
        self.pictures, self.make = pictures, make

    def __len__(self) -> int:
        return -(-len(self.pictures) // PIECE)

    def __getitem__(self, number: int) -> list[Packed | str]:
        stop = min((number + 1) * PIECE, len(self.pictures))
        return [self._one(i) for i in range(number * PIECE, stop)]

    def _one(self, i: int) -> Packed | str:
        try:
            return self.make(self.pictures.source(i))
        except BadPicture as error:
            return str(error)


def write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        sync(file)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write(path, "".join(f"{line}\n" for line in lines).encode())


def made_in_order(pictures: Index, make: Callable[[str], Packed], workers: int) -> Generator[Packed | str]:
    pieces = Pieces(pictures, make)
    here = (pieces[number] for number in range(len(pieces)))
    ready = by_workers(pieces, None, ReadAhead(workers)) if workers else here
    with tqdm(total=len(pictures), unit=" pictures", smoothing=0.05) as bar:
        for piece in ready:
            yield from piece
            bar.update(len(piece))


def fill(folder: Path, pictures: Index, ready: Iterable[Packed | str], writer: Writer, about: dict[str, object]) -> int:
    """Write all files of a pack, pack.json last; return the number of corrupt pictures.

    Raises:
        UserError: no picture can be read.
    """
    good: list[int] = []
    bad: list[str] = []
    digest = hashlib.sha256()
    for i, made in enumerate(ready):
        if isinstance(made, str):
            bad.append(f"{pictures.where(i)}\t{made}")
            continue
        label = None if pictures.labels is None else int(pictures.labels[i])
        writer.add(len(good), label, made)
        digest.update(f"{label} {len(made[1])} ".encode() + made[1])
        good.append(i)
    if not good:
        raise UserError(
            f"none of the {len(bad):,} pictures can be read, the first being {bad[0].replace(chr(9), ': ')}."
        )
    writer.finish(len(good))
    write_lines(folder / "sources.txt", map(pictures.where, good))
    if bad:
        write_lines(folder / "bad_samples.txt", bad)
    if pictures.labels is not None and about["format"] == ARRAY:
        labels = io.BytesIO()
        np.save(labels, pictures.labels.numpy()[good])
        write(folder / "labels.npy", labels.getvalue())
    about |= {"samples": len(good), "bad": len(bad), "classes": pictures.classes, "digest": digest.hexdigest()}
    write_lines(folder / PACK, [json.dumps(about, indent=1)])
    sync_path(folder)
    return len(bad)


def pack(source: str, dest: Path, to: str, size: int | None, workers: int | None, shard_size: float) -> None:
    if size is None and to == "array":
        raise UserError("--to array needs --size: pixels a side.")
    if (size is not None and size < 1) or (workers or 0) < 0 or shard_size <= 0:
        raise UserError("--size and --shard-size must be positive, and --workers not negative.")
    if dest.exists() and not (dest.is_dir() and not any(dest.iterdir())):
        raise UserError(f"{dest} is there already. Give another DEST, or remove it.")
    pictures = index(source)
    reading = reading_for_all(pictures)
    part = dest.with_name(f"{dest.name}.part")
    try:
        part.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{part} is there: another ssl-pack is running, or one was killed; then remove it.") from None
    try:
        with ExitStack() as held:
            if to == "array":
                assert size is not None
                writer: Writer = ArrayWriter(part, size, held)
                make: Callable[[str], Packed] = partial(pixels, size=size, reading=reading)
            else:
                writer = ShardWriter(part, shard_size * 1e6, held)
                make = partial(picture, size=size, reading=reading)
            ready = held.enter_context(
                closing(made_in_order(pictures, make, available_cpus() if workers is None else workers))
            )
            about: dict[str, object] = {"format": ARRAY if to == "array" else TARS, "size": size}
            about |= {} if reading.levels is None else {"range": reading.levels}
            bad = fill(part, pictures, ready, writer, about)
        part.replace(dest)
        sync_path(dest.absolute().parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    bytes_written = sum(path.stat().st_size for path in dest.iterdir())
    for name, text in pictures.notes:
        print(f"{name}: {text}")
    left_out = f"; {bad:,} could not be read and are listed in {dest / 'bad_samples.txt'}" if bad else ""
    parts = sorted(filter(named_split, os.listdir(source))) if Path(source).is_dir() else []  # noqa: PTH208
    if len(parts) > 1:
        print(
            f"split: {', '.join(parts)} are one set in this pack; pack one of them to keep the others out of training"
        )
    if reading.levels is not None and size is not None:
        print("integers of more than 8 bits: {:,.0f} is black, {:,.0f} is white".format(*reading.levels))
    print(f"{len(pictures) - bad:,} pictures in {dest}, {bytes_written / 1e9:.2f} GB{left_out}")
    print(f"ssl-train dataset={'packed' if to == 'array' else 'shards'} {override('dataset.path', dest)}")
