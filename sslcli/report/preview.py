"""A picture of the model's input: some samples, their views, and the masks of a masked objective."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from sslcli.components import Components
from sslcli.data.loader import Loader
from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.run_dir.files import write_atomically
from sslcli.types import Compute, Field

SAMPLES = 8
_CELL, _GAP, _TITLE = 112, 4, 16  # pixels
_HIDDEN_GRAY = 0.5
_FRAME = "#8b95a1"  # around each picture, as white ones lie on white


def write_preview(components: Components, compute: Compute, path: Path, *, seed: int) -> None:
    """Write a PNG of the first samples of step 0: a row for each sample, with a title above each column.

    Raises:
        UserError: the data are not images.
    """
    if not shows_pictures(components):
        raise UserError(f"preview: the column '{components.views.field}' holds no pictures of 1 or 3 channels to show.")
    picture = sheet(first_views(components, compute, seed=seed))
    write_atomically(path, lambda file: picture.save(file, "PNG"), key="preview")


def shows_pictures(components: Components) -> bool:
    """Return whether the run's views are pictures with 1 or 3 channels."""
    field = components.dataset.spec[components.views.field]
    return field.kind == "image" and field.shape[0] in (1, 3)


@torch.no_grad()
def first_views(components: Components, compute: Compute, *, seed: int) -> dict[str, Tensor]:
    """Return images, views and masked views of the first samples of step 0, by name, (B, C, H, W) in [0, 1]."""
    name = components.views.field
    field = components.dataset.spec[name]
    columns = first_samples(components, compute, seed)
    positions = np.arange(len(next(iter(columns.values()))))
    randomness = Randomness(seed, 0, positions, compute.device)
    views = components.views(columns, randomness)
    source = (
        columns[name] if name in columns else columns[f"{name}/0"]
    )  # crops made by workers: there is no whole image
    shown = {
        "image" if name in columns else "crop 1": pixels(components.views.evaluation_view({name: source}).x, field)
    }
    for k, view in enumerate(views):
        if view.field != name:  # a text, say
            continue
        shown[f"view {k + 1}"] = pixels(view.x, field)
        hidden = components.objective.hidden(view, randomness, k)
        if hidden is not None:
            shown[f"view {k + 1}, masked"] = masked_out(pixels(view.x, field), hidden)
    return shown


def first_samples(components: Components, compute: Compute, seed: int) -> dict[str, Tensor]:
    """Return the columns of the first samples of step 0; their order and crops do not depend on the batch size."""
    loader = Loader(
        components.dataset,
        batch_size=min(SAMPLES, len(components.dataset)),
        accumulate=1,
        seed=seed,
        workers=0,
        device=compute.device,
        crops=components.views.crops if components.dataset.cuts_crops else None,
    )
    return dict(next(loader.batches(0))[0])


def pixels(x: Tensor, field: Field) -> Tensor:
    """Convert normalised images to pixels in [0, 1], on the CPU; numbers of any range go from black to white."""
    x = x.float().cpu()
    if field.mean:
        x = x * torch.tensor(field.std)[:, None, None] + torch.tensor(field.mean)[:, None, None]
    if not field.is_pixels:
        low, high = x.min().clamp(max=0), x.max().clamp(min=1)
        x = (x - low) / (high - low)
    return x.clamp(0, 1)


def masked_out(pictures: Tensor, hidden: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) in [0, 1] with the hidden (B, H, W) pixels gray."""
    return pictures.masked_fill(hidden[:, None].cpu(), _HIDDEN_GRAY)


def sheet(columns: dict[str, Tensor]) -> Image.Image:
    """Draw columns of pictures (B, C, H, W) in [0, 1] next to each other, each under its name."""
    rows = len(next(iter(columns.values())))
    size = (len(columns) * (_CELL + _GAP) + _GAP, rows * (_CELL + _GAP) + _GAP + _TITLE)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for i, (name, pictures) in enumerate(columns.items()):
        left = _GAP + i * (_CELL + _GAP)
        draw.text((left, 2), name, fill="black")
        # Enlarge small pictures by nearest neighbour, so that pixels stay visible; reduce large ones by averaging.
        grow = max(pictures.shape[-2:]) <= _CELL
        fitted = F.interpolate(pictures, (_CELL, _CELL), mode="nearest") if grow else _shrunk(pictures)
        for j, pixels in enumerate(fitted.expand(-1, 3, -1, -1)):
            top = _TITLE + _GAP + j * (_CELL + _GAP)
            draw.rectangle((left - 1, top - 1, left + _CELL, top + _CELL), outline=_FRAME)
            bytes_ = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            canvas.paste(Image.fromarray(np.ascontiguousarray(bytes_)), (left, top))
    return canvas


def _shrunk(pictures: Tensor) -> Tensor:
    return F.interpolate(pictures, (_CELL, _CELL), mode="bilinear", antialias=True).clamp(0, 1)
