"""Compute the content of a report as tensors: views, reconstructions, nearest neighbours, patches and embedding."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.components import Components
from sslcli.data.base import Dataset
from sslcli.data.selection import balanced, drawn
from sslcli.encoders.base import Encoder
from sslcli.report.patches import Axes, patches
from sslcli.report.predictions import first_prediction
from sslcli.report.preview import first_views, masked_out, pixels, shows_pictures
from sslcli.report.texts import guesses, shows_texts, text_neighbours
from sslcli.report.visuals import Embedding, Masked, Nearest, Neighbours, Patches, Visuals
from sslcli.types import Compute, Field, Reconstruction

Embed = Callable[[Dataset, Tensor], Tensor]
ROWS = 8  # rows of pictures
NEIGHBOURS = 8
MAPPED = 2000  # samples on the map and in the spectrum
MEASURED = 256  # samples on which the reconstruction error is measured
THUMBNAIL = 32  # side in pixels
_LADDER = (64, 128, 256, 512, 1024, 2048, 4096, 8192)  # possible numbers of samples to embed
_RANGE = 2.5  # standard deviations from mid-gray to black and to white, for targets that are not pixels


@torch.no_grad()
def collect_visuals(
    components: Components,
    compute: Compute,
    *,
    embed: Embed,
    untrained: Embed,
    random_init: Encoder,
    axes: Axes,
    seed: int,
    budget: float,
    thumbnails: bool = False,
) -> Visuals:
    """Compute the content of the report of a trained model, in eval mode and without changing its state.

    Args:
        components: the trained components, on the device.
        compute: device and precision.
        embed: returns float32 features (N, D), on the CPU, of samples of a dataset by the trained encoder.
        untrained: returns the same by ``random_init``.
        random_init: the random initialisation of the encoder, on the device.
        axes: returns the largest principal components of rows.
        seed: seed of the views and masks.
        budget: seconds that embedding samples may take, approximately.
        thumbnails: make small pictures of the embedded samples.
    """
    shown = components.dataset.held_out or components.dataset
    count = _affordable(embed, shown, budget / 3)
    has_pictures, has_texts = shows_pictures(components), shows_texts(components)
    nearest = _nearest(components, shown, embed, count) if has_pictures or has_texts else None
    index = _spread(shown, min(count, MAPPED))
    embedding = Embedding(
        embed(shown, index),
        untrained(shown, index),
        None if shown.labels is None or shown.labels.dim() == 2 else shown.labels[index],
        shown.classes,
        _pictures(components, shown, index, compute, largest=THUMBNAIL) if has_pictures and thumbnails else None,
        shown is not components.dataset,
    )
    return Visuals(
        views=first_views(components, compute, seed=seed) if has_pictures else {},
        masked=_masked(components, shown, _spread(shown, min(count, MEASURED)), compute, seed)
        if has_pictures
        else None,
        neighbours=_neighbours(components, shown, nearest, compute) if has_pictures and nearest else None,
        patches=_patches(components, shown, random_init, compute, axes) if has_pictures else None,
        embedding=embedding,
        text_neighbours=text_neighbours(components, shown, nearest) if has_texts and nearest else None,
        guesses=guesses(components, shown, _spread(shown, ROWS), compute, seed) if has_texts else None,
    )


def _affordable(embed: Embed, dataset: Dataset, seconds: float) -> int:
    """Return how many samples can be embedded in ``seconds``, from a fixed list of numbers."""
    trial = torch.arange(min(32, len(dataset)))
    embed(dataset, trial)  # the first pass warms up
    start = time.perf_counter()
    embed(dataset, trial)
    per_sample = (time.perf_counter() - start) / len(trial)
    return max([n for n in _LADDER if n * per_sample <= seconds], default=_LADDER[0])


def _spread(dataset: Dataset, count: int) -> Tensor:
    """Return positions of ``count`` samples: balanced over classes if there are labels, else drawn at random."""
    return drawn(len(dataset), count) if dataset.labels is None else balanced(dataset.labels, count)


def _pictures(
    components: Components, dataset: Dataset, index: Tensor, compute: Compute, *, largest: int | None = None
) -> Tensor:
    """Return evaluation views (N, C, H, W) of samples in [0, 1], on the CPU, with at most ``largest`` pixels a side."""
    made = []
    for part in index.split(256):
        columns = {key: c.to(compute.device) for key, c in dataset.fetch(part).items()}
        x = pixels(components.views.evaluation_view(columns).x, dataset.spec[components.views.field])
        if largest is not None and max(x.shape[2:]) > largest:
            x = F.interpolate(x, scale_factor=largest / max(x.shape[2:]), mode="bilinear", antialias=True).clamp(0, 1)
        made.append(x)
    return torch.cat(made)


def _patches(
    components: Components, shown: Dataset, random_init: Encoder, compute: Compute, axes: Axes
) -> Patches | None:
    """Return a few pictures and the colours of their tokens, by the trained encoder and by random weights."""
    index = _spread(shown, ROWS)
    columns = {name: c.to(compute.device) for name, c in shown.fetch(index).items()}
    encoders = {"trained": components.encoder, "random init": random_init}
    pictures = _pictures(components, shown, index, compute)
    return patches(pictures, components.views.evaluation_view(columns), encoders, compute, axes)


def _masked(components: Components, shown: Dataset, index: Tensor, compute: Compute, seed: int) -> Masked | None:
    """Return the reconstructions of the first masked view of the samples at ``index``, with the masks of step 0."""
    found = first_prediction(components, shown, index, compute, seed, components.objective.reconstruction)
    if found is None:
        return None
    masked_view, made = found
    hidden = made.hidden[:, None].expand_as(made.target)
    view = pixels(masked_view.x, shown.spec[components.views.field])
    pictures = {
        "input": view,
        "masked": masked_out(view, made.hidden),
        **_completed(made, shown.spec[components.views.field]),
    }
    few = torch.linspace(0, len(index) - 1, min(ROWS, len(index))).long()
    return Masked(
        {name: picture[few] for name, picture in pictures.items()},
        made.relative,
        float((made.prediction - made.target)[hidden].abs().mean()),
        float(made.target[hidden].abs().mean()),
        len(index),
    )


def _completed(made: Reconstruction, field: Field) -> dict[str, Tensor]:
    """Return pictures of the reconstruction and of its target.

    If the target is the pixels, visible pixels are copied from it, as the prediction is not trained there. A normalised
    target has lost its local brightness and contrast. Adding the true ones to the prediction would reveal the target,
    so prediction and target are both shown normalised, with gray for the local mean.
    """
    if made.relative is None:
        joined = torch.where(made.hidden[:, None], made.prediction, made.target)
        return {"reconstruction": pixels(joined, field), "target": pixels(made.target, field)}
    hidden = made.hidden[:, None].cpu()
    gray = {"prediction": made.prediction, "target": made.target}
    return {name: (x.cpu() / (2 * _RANGE) + 0.5).clamp(0, 1).where(hidden, 0.5) for name, x in gray.items()}


def _nearest(components: Components, shown: Dataset, embed: Embed, count: int) -> Nearest | None:
    """Return the nearest training samples of a few held-out samples; None if nothing is held out."""
    dataset = components.dataset
    if shown is dataset:
        return None
    queries, bank = _spread(shown, ROWS), _spread(dataset, count)
    similarity = F.normalize(embed(shown, queries), dim=1) @ F.normalize(embed(dataset, bank), dim=1).T
    best, rows = similarity.topk(min(NEIGHBOURS, len(bank)))
    found = bank[rows]  # (Q, K)
    same = None
    if dataset.labels is not None and shown.labels is not None:
        theirs, ours = dataset.labels[found], shown.labels[queries][:, None]
        same = (theirs & ours).any(2) if theirs.dim() == 3 else theirs == ours  # of several labels, one in common
    return Nearest(queries, found, best, same, len(bank))


def _neighbours(components: Components, shown: Dataset, found: Nearest, compute: Compute) -> Neighbours:
    """Return the pictures of queries and of their nearest samples."""
    nearest = _pictures(components, components.dataset, found.rows.flatten(), compute)
    queries = _pictures(components, shown, found.queries, compute)
    return Neighbours(queries, nearest.unflatten(0, found.rows.shape), found)
