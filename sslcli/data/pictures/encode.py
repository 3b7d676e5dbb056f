"""Pictures as ``data:`` addresses: small ones pixel by pixel, larger ones as photographs."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_EXACT = 64  # pixels a side up to which a picture is kept as it is
_LARGEST = 112  # to which others are shrunk, so that a page stays small


def address(picture: Tensor) -> str:
    """A picture (C, H, W) in [0, 1] with 1 or 3 channels as the ``src`` of an image."""
    kind = "PNG" if max(picture.shape[1:]) <= _EXACT else "JPEG"
    if max(picture.shape[1:]) > _LARGEST:
        scale = _LARGEST / max(picture.shape[1:])
        picture = F.interpolate(picture[None], scale_factor=scale, mode="bilinear", antialias=True)[0].clamp(0, 1)
    buffer = io.BytesIO()
    drawn(picture).save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 88}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drawn(picture: Tensor) -> Image.Image:
    """A picture (C, H, W) in [0, 1] with 1 or 3 channels, its pixels as they are."""
    bytes_ = (picture.float() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(bytes_[..., 0] if picture.shape[0] == 1 else bytes_))
