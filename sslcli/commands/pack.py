"""Decode or gather a folder of pictures once, for many runs.

    python scripts/pack.py SOURCE DEST --to array --size 64          # then dataset=packed dataset.path=DEST
    python scripts/pack.py SOURCE DEST --to shards [--size 256]      # then dataset=shards dataset.path=DEST

SOURCE is what dataset.path is for dataset=images: a folder of any layout, or a text file with one path a line.

array: the centred squares at --size pixels as one uint8 array, exactly the pixels of dataset=images dataset.size=SIZE.

shards: WebDataset's tars, 000000012.jpg and 000000012.cls side by side, the class as the number that dataset=images
gives it. Without --size each picture is its file as it is, and nothing is lost. With it, a picture whose shorter side
is longer than SIZE is reduced to that, whole, so that crops can still be cut out of all of it, and encoded anew: a JPEG
as a JPEG of quality 95 without chroma subsampling; anything else, which may be a drawing or have been lossless, as PNG.
On two photographs at 256 px that JPEG is off by 1.1 and 1.6 of 255 levels on average and takes a third of the PNG's
bytes.

DEST appears when it is whole; until then it is DEST.part. Beside the data lie sources.txt, the file of each sample;
pack.json, with the names of the classes; and bad_samples.txt, what could not be read and is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from sslcli.data.pictures.decode import FORMATS, BadPicture, decode
from sslcli.data.pictures.file_index import Index, index
from sslcli.data.pictures.packed import FORMAT
from sslcli.data.workers import available_cpus, by_workers
from sslcli.errors import UserError
from sslcli.run_dir.files import sync_path

PIECE = 16  # pictures that a worker hands over at a time; it is at most four pieces ahead
SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # where it is not the format's name
Made = tuple[str, bytes]  # an extension and a content


# --- in the workers -----------------------------------------------------------------------------------


def pixels(path: str, size: int) -> Made:
    """The centred square, decoded."""
    return "", decode(path, size).numpy().tobytes()


def picture(path: str, size: int | None) -> Made:
    """A picture's file: as it is if it is not too large, or made smaller."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BadPicture(getattr(error, "strerror", None) or str(error)) from None
    whole = decode(content)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        kind = str(image.format)
    suffix = SUFFIXES.get(kind, kind.lower())
    height, width = whole.shape[1:]
    if size is None or min(height, width) <= size:
        return suffix, content
    factor = size / min(height, width)
    upright = Image.fromarray(whole.permute(1, 2, 0).numpy())
    small = upright.resize((round(width * factor), round(height * factor)), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    if suffix == "jpg":
        small.save(file, "JPEG", quality=95, subsampling=0)
        return "jpg", file.getvalue()
    small.save(file, "PNG")
    return "png", file.getvalue()


class Pieces(Dataset[list[Made | str]]):
    """The pictures of an index, a few at a time, each made or the reason why not."""

    def __init__(self, pictures: Index, make: Callable[[str], Made]) -> None:
        self.pictures, self.make = pictures, make

    def __len__(self) -> int:
        return -(-len(self.pictures) // PIECE)

    def __getitem__(self, number: int) -> list[Made | str]:
        stop = min((number + 1) * PIECE, len(self.pictures))
        return [self._one(i) for i in range(number * PIECE, stop)]

    def _one(self, i: int) -> Made | str:
        try:
            return self.make(self.pictures.source(i))
        except BadPicture as error:
            return str(error)


# --- in this process ----------------------------------------------------------------------------------


class Writer(Protocol):
    """Puts samples into a folder."""

    def add(self, number: int, label: int | None, made: Made) -> None:
        """Write the next sample."""

    def finish(self, count: int) -> None:
        """Complete what is written."""


class ArrayWriter:
    """images.npy, whose header tells the number of samples only in the end."""

    def __init__(self, folder: Path, size: int, held: ExitStack) -> None:
        self.size = size
        self.file = held.enter_context((folder / "images.npy").open("wb"))
        self.file.write(self._header(0))

    def _header(self, count: int) -> bytes:
        file = io.BytesIO()
        shape = (count, 3, self.size, self.size)
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.getvalue()  # numpy leaves room in it for a first number of any length

    def add(self, number: int, label: int | None, made: Made) -> None:
        self.file.write(made[1])

    def finish(self, count: int) -> None:
        header = self._header(count)
        assert len(header) == len(self._header(0))
        self.file.seek(0)
        self.file.write(header)
        sync(self.file)


class ShardWriter:
    """shard-000000.tar, shard-000001.tar, ..., each closed before ``limit`` bytes of pictures are passed."""

    def __init__(self, folder: Path, limit: float, held: ExitStack) -> None:
        self.folder, self.limit, self.held = folder, limit, held
        self.num_shards, self.room = 0, 0.0
        self.file: BinaryIO | None = None

    def add(self, number: int, label: int | None, made: Made) -> None:
        extension, content = made
        if self.file is None or len(content) > self.room:
            self._close()
            path = self.folder / f"shard-{self.num_shards:06d}.tar"
            self.file = self.held.enter_context(path.open("wb"))
            self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.num_shards, self.room = self.num_shards + 1, self.limit
        self.room -= len(content)
        self._member(f"{number:09d}.{extension}", content)
        if label is not None:
            self._member(f"{number:09d}.cls", b"%d" % label)

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.tar.addfile(member, io.BytesIO(content))

    def _close(self) -> None:
        if self.file is not None:
            self.tar.close()
            sync(self.file)
            self.file.close()

    def finish(self, count: int) -> None:
        self._close()


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        sync(file)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write(path, "".join(f"{line}\n" for line in lines).encode())


def made_in_order(pictures: Index, make: Callable[[str], Made], workers: int) -> Generator[Made | str]:
    pieces = Pieces(pictures, make)
    ready = by_workers(pieces, None, workers) if workers else (pieces[number] for number in range(len(pieces)))
    with tqdm(total=len(pictures), unit=" pictures", smoothing=0.05) as bar:
        for piece in ready:
            yield from piece
            bar.update(len(piece))


def fill(folder: Path, pictures: Index, ready: Iterable[Made | str], writer: Writer, about: dict[str, object]) -> int:
    """Write everything of a pack, pack.json last; the number of bad pictures."""
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
    if pictures.labels is not None and about["format"] == FORMAT:
        labels = io.BytesIO()
        np.save(labels, pictures.labels.numpy()[good])
        write(folder / "labels.npy", labels.getvalue())
    about |= {"samples": len(good), "bad": len(bad), "classes": pictures.classes(), "digest": digest.hexdigest()}
    write_lines(folder / "pack.json", [json.dumps(about, indent=1)])
    sync_path(folder)
    return len(bad)


def pack(source: str, dest: Path, to: str, size: int | None, workers: int, shard_size: float) -> None:
    if size is None and to == "array":
        raise UserError("--to array needs --size: pixels a side.")
    if (size is not None and size < 1) or workers < 0 or shard_size <= 0:
        raise UserError("--size and --shard-size must be positive, and --workers not negative.")
    if dest.exists() and not (dest.is_dir() and not any(dest.iterdir())):
        raise UserError(f"{dest} is there already. Give another DEST, or remove it.")
    pictures = index(source)
    part = dest.with_name(f"{dest.name}.part")
    try:
        part.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{part} is there: another pack is at work, or was killed. In that case remove it.") from None
    try:
        with ExitStack() as held:
            if to == "array":
                assert size is not None
                writer: Writer = ArrayWriter(part, size, held)
                make: Callable[[str], Made] = partial(pixels, size=size)
            else:
                writer = ShardWriter(part, shard_size * 1e6, held)
                make = partial(picture, size=size)
            ready = held.enter_context(closing(made_in_order(pictures, make, workers)))
            about: dict[str, object] = {"format": FORMAT if to == "array" else "WebDataset tars", "size": size}
            bad = fill(part, pictures, ready, writer, about)
        part.replace(dest)
        sync_path(dest.absolute().parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    bytes_written = sum(path.stat().st_size for path in dest.iterdir())
    left_out = f"; {bad:,} could not be read and are listed in {dest / 'bad_samples.txt'}" if bad else ""
    print(f"{len(pictures) - bad:,} pictures in {dest}, {bytes_written / 1e9:.2f} GB{left_out}")
    print(f"ssl-train dataset={'packed' if to == 'array' else 'shards'} dataset.path={dest}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("dest", type=Path)
    parser.add_argument("--to", choices=["array", "shards"], required=True)
    parser.add_argument("--size", type=int, help="pixels a side, or of the shorter side in shards")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="processes that decode")
    parser.add_argument("--shard-size", type=float, default=500, help="megabytes (default 500)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that DEST.part is removed
    try:
        pack(args.source, args.dest.expanduser(), args.to, args.size, args.workers, args.shard_size)
    except UserError as error:
        print(f"error: {str(error).replace('dataset.path', 'SOURCE')}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {args.dest} cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
