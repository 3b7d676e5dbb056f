"""Encodes pictures as ``data:`` URLs: small ones as PNG, larger ones as JPEG."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

EXACT = 64  # pixels a side up to which a picture is stored exactly, as PNG
_LARGEST = 112  # pixels a side to which larger pictures are reduced, so that pages stay small


def address(picture: Tensor) -> str:
    """Encode a picture (C, H, W) in [0, 1] with 1 or 3 channels as a ``data:`` URL, for the ``src`` of an image."""
    kind = "PNG" if max(picture.shape[1:]) <= EXACT else "JPEG"
    if max(picture.shape[1:]) > _LARGEST:
        scale = _LARGEST / max(picture.shape[1:])
        picture = F.interpolate(picture[None], scale_factor=scale, mode="bilinear", antialias=True)[0].clamp(0, 1)
    buffer = io.BytesIO()
    drawn(picture).save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 88}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drawn(picture: Tensor) -> Image.Image:
    """Convert a picture (C, H, W) in [0, 1] with 1 or 3 channels to an image of Pillow, without resizing."""
    values = (picture.float() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if picture.shape[0] == 1 else values))
