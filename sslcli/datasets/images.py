"""A folder of one's own pictures, labelled by their parent folders or not at all."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sslcli.datasets.base import Dataset, with_held_out
from sslcli.errors import UserError
from sslcli.types import Field, Spec

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def images(*, path: str, size: int = 64, holdout: float | None = None) -> Dataset:
    """Every picture below ``path``, decoded to ``size`` x ``size`` RGB.

    A label is the name of a picture's parent folder; pictures that all share one folder have none.
    """
    if size < 1:
        raise ValueError(f"size={size} must be at least 1 pixel")
    return with_held_out(ImageFolder(Path(path).expanduser(), size), None, holdout)


class ImageFolder(Dataset):
    """Pictures decoded on demand: the short side is resized to ``size``, then the centre is cut out."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.paths = _scan(root)
        self.size = size
        self.spec = Spec(image=Field(shape=(3, size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
        folders = [path.parent.name for path in self.paths]
        known = sorted(set(folders))
        if len(known) > 1:
            number = {folder: i for i, folder in enumerate(known)}
            self.labels = torch.tensor([number[folder] for folder in folders])

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        names = zlib.crc32("\n".join(str(path.relative_to(self.root)) for path in self.paths).encode())
        return f"{len(self)} pictures, names {names:08x}"

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return {"image": torch.stack([self._decode(self.paths[i]) for i in index.tolist()])}

    def _decode(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                image.draft("RGB", (self.size, self.size))  # JPEG: decode at a fraction of the size
                rgb = _to_rgb(ImageOps.exif_transpose(image))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"dataset.path: {path} cannot be read as a picture ({error}). Remove it.") from None
        fitted = ImageOps.fit(rgb, (self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _scan(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"dataset.path: there is no folder {root}.")
    try:
        with os.scandir(root):
            pass
    except PermissionError:
        raise UserError(f"dataset.path: {root} cannot be read: permission denied.") from None
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  a million Path objects take seconds
    ]
    if not found:
        raise UserError(f"dataset.path: no picture below {root}. Looked for {', '.join(sorted(EXTENSIONS))}.")
    return sorted(found)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel: keep the high byte, where PIL would clip
        image = Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
