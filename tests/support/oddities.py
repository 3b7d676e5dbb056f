"""A folder with the irregularities of real picture folders: all formats and modes, odd names, links, damaged files."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".gif": "GIF", ".ppm": "PPM"}
NAMES = [
    b"with space.png", b"line\nbreak.png", b"tab\there.png", b"quote'\".png", "emoji \U0001f600.png".encode(),
    b"not utf-8 \xff\xfe.png", b"%percent%.PNG", b"-dash.Png", b"two.dots.png", b"back\\slash.png", b"#hash.png",
    "e\u0301 and \u00e9.png".encode(), b"$(echo).png", b"x" * 240 + b".png",
]  # fmt: skip


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 without sharp edges, so that lossy formats keep it."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    waves = [
        np.cos(2 * np.pi * (a * x + b * y + c)) for a, b, c in generator.uniform((-1.5, -1.5, 0), (1.5, 1.5, 1), (3, 3))
    ]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels that a camera stores with this EXIF orientation.

    The standard defines it by the visual positions of row 0 and column 0: 1 top left, 2 top right, 3 bottom right,
    4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    flipped = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright, 6: upright[:, ::-1], 7: upright[::-1, ::-1], 8: upright[::-1],
    }[orientation]  # fmt: skip
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if orientation > 4 else flipped)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def encoded(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def make(folder: Path, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """Fill ``folder``; return (pictures that can be read, files named like pictures that cannot be read), unsorted.

    All other files in it should be ignored: hidden files, other types, dangling links, loops.
    """
    good: list[Path] = []
    bad: list[Path] = []

    def put(name: str | bytes, data: bytes, listed: list[Path]) -> Path:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        listed.append(path)
        return path

    pixels = smooth(30, 40, seed)
    png = encoded(pixels, "PNG")
    for suffix, kind in FORMATS.items():
        data = encoded(pixels, kind)
        put(f"formats/plain{suffix}", data, good)
        put(f"formats/UPPER{suffix.upper()}", data, good)
        put(f"damaged/half{suffix}", data[: len(data) // 2], bad)
        put(f"damaged/start{suffix}", data[:12], bad)
        put(f"damaged/empty{suffix}", b"", bad)
        put(f"damaged/text{suffix}", b"<html>404</html>\n", bad)
    put("formats/really a png.jpg", png, good)
    put("formats/really a jpeg.png", encoded(pixels, "JPEG"), good)
    put("damaged/really an svg.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', bad)
    put("damaged/really an eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", bad)

    for mode in ("1", "L", "P", "LA", "RGBA"):
        put(f"modes/{mode}.png", encoded(pixels, "PNG", mode), good)
    for mode in ("L", "CMYK"):
        put(f"modes/{mode}.jpg", encoded(pixels, "JPEG", mode), good)
    put("modes/deep.png", encoded(pixels[..., 0].astype(np.uint16) * 257, "PNG"), good)
    put("modes/progressive.jpg", encoded(pixels, "JPEG", progressive=True), good)
    put("modes/moving.gif", encoded(pixels, "GIF", save_all=True, append_images=[Image.fromarray(255 - pixels)]), good)
    put("modes/thin.jpg", encoded(smooth(1, 300, seed), "JPEG"), good)
    put("modes/dot.png", encoded(smooth(2, 2, seed)[:1, :1], "PNG"), good)
    for orientation in range(1, 9):
        data = encoded(turned(pixels, orientation), "JPEG", exif=exif(orientation))
        put(f"turned/{orientation}.jpg", data, good)

    for k, name in enumerate(NAMES):
        try:
            put(b"names/" + name, encoded(smooth(9, 9, seed + k), "PNG"), good)
        except OSError:  # a file system that takes UTF-8 only
            continue
    put("deep/" + "down/" * 40 + "x.png", png, good)

    put(".hidden.png", png, [])
    put(".hidden folder/x.png", png, [])
    put("notes.txt", b"no picture", [])
    put("no extension", png, good)
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "linked.png").symlink_to(folder / "formats" / "plain.png")  # which comes before it
    outside = folder.parent / f"{folder.name} outside"
    outside.mkdir()
    (outside / "far.png").write_bytes(png)
    (folder / "a link").symlink_to(outside, target_is_directory=True)
    good.append(folder / "a link" / "far.png")
    return good, bad
