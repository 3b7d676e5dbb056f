"""The EXIF orientation of a picture."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

ORIENTATION = 0x0112  # the EXIF tag
Window = tuple[int, int, int, int]  # top, left, height, width in pixels of the upright picture


@dataclass(frozen=True)
class Turn:
    """The transformation from a stored picture to the upright one: transpose or not, then flips."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> Turn:
        """Read the EXIF orientation, 1 to 8; with damaged EXIF data the picture is used as stored."""
        try:
            tag = image.getexif().get(ORIENTATION)
        except Exception:  # Pillow's parser fails in many ways, and the pixels may be intact
            tag = None
        return cls(tag in (5, 6, 7, 8), tag in (3, 4, 7, 8), tag in (2, 3, 6, 7))

    def stored(self, window: Window, height: int, width: int) -> Window:
        """Convert a window of the upright picture, of ``height`` x ``width``, to the window of the stored picture."""
        top, left, h, w = window
        top = height - top - h if self.upside_down else top
        left = width - left - w if self.mirrored else left
        return (left, top, w, h) if self.transposed else (top, left, h, w)

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return (size[1], size[0]) if self.transposed else (size[0], size[1])

    def upright(self, pixels: Tensor) -> Tensor:
        pixels = pixels.transpose(1, 2) if self.transposed else pixels
        flips = [dim for dim, flip in ((1, self.upside_down), (2, self.mirrored)) if flip]
        return pixels.flip(flips) if flips else pixels
