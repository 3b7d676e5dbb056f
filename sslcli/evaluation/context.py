"""What a probe measures: a trained encoder on a dataset, beside the same encoder without that training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.base import Dataset, balanced, with_label
from sslcli.encoders.base import Encoder
from sslcli.features import evaluating
from sslcli.randomness import Randomness
from sslcli.types import Compute, View
from sslcli.views.base import Views

Columns = Mapping[str, Tensor]
RAW_PIXELS = 32  # side that larger images are averaged down to where they are read as raw numbers


@dataclass
class ProbeContext:
    """An encoder as a probe meets it. Features are extracted once for all probes.

    Args:
        dataset: the training split, whose ``held_out`` part is queried.
        encoders: ``trained``, and by name what it is compared with: ``random_init``, its random initialisation,
            and, where the run began from given weights, ``start``; all on the device.
        views: the run's pipeline.
        compute: where to compute, and in which precision.
        pieces: the columns of the samples at an index (N,) of a dataset, in order, some at a time, on the device.
        copied: a copy of the encoder of that name, to be trained on, with a rate of stochastic depth where it has such.
        drops_paths: whether it has.
        seed: of everything that is drawn.
        budget: seconds that a probe may take, where its size is left to it.
        settled: the size that such a probe settled on before, to be taken again.
    """

    dataset: Dataset
    encoders: Mapping[str, Encoder]
    views: Views
    compute: Compute
    pieces: Callable[[Dataset, Tensor], Iterator[Columns]]
    copied: Callable[[str, float], Encoder]
    drops_paths: bool = False
    seed: int = 0
    budget: float = 15.0
    settled: int | None = None
    _features: dict[tuple[str, int, bytes], Tensor] = field(default_factory=dict, repr=False)

    @property
    def split(self) -> str:
        """Which samples are queried, in words."""
        return "train" if self.dataset.held_out is None else "held out"

    @property
    def queried(self) -> Dataset:
        """The samples to measure on: held out where there are such."""
        return self.dataset if self.dataset.held_out is None else self.dataset.held_out

    def labelled(self) -> tuple[Tensor, Tensor] | None:
        """See ``labels_of``."""
        return labels_of(self.dataset)

    def embed(self, name: str, dataset: Dataset, index: Tensor) -> Tensor:
        """(N, dim) float32 features on the CPU of the clean views of the samples at ``index`` (N,), in eval mode."""
        return embed(self.encoders[name], self.views, self.compute, self.pieces(dataset, index))

    def features(self, name: str, dataset: Dataset, index: Tensor) -> Tensor:
        """The same, extracted when first asked for and kept."""
        key = (name, id(dataset), index.numpy().tobytes())
        if key not in self._features:
            self._features[key] = self.embed(name, dataset, index)
        return self._features[key]

    def draw(self, dataset: Dataset, index: Tensor, number: int | None) -> dict[str, Tensor]:
        """One view of each sample, as float32 rows on the CPU: read by every encoder, and raw where it has geometry.

        Args:
            dataset: a split.
            index: (N,).
            number: of the random view; null is the clean one. Where views are columns, such as user and item,
                each has its turn.
        """
        found: dict[str, list[Tensor]] = {}
        start = 0
        for columns in self.pieces(dataset, index):
            count = len(next(iter(columns.values())))
            positions = index[start : start + count].numpy()
            start += count
            with torch.inference_mode(), self.compute.autocast():
                view = self._view(columns, positions, number)
                if not dataset.spec[view.field].vocab:
                    found.setdefault("raw_input", []).append(numbers(view.x).cpu())
            for name, encoder in self.encoders.items():
                found.setdefault(name, []).append(_read(encoder, view, self.compute))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _view(self, columns: Columns, positions: np.ndarray, number: int | None) -> View:
        if number is None:
            return self.views.evaluation_view(columns)
        return random_view(
            self.views, columns, Randomness(self.seed, -1 - number, positions, self.compute.device), number
        )


def random_view(views: Views, columns: Columns, randomness: Randomness, number: int) -> View:
    """One of the pipeline's random views: where they differ, or are columns such as user and item, each in turn."""
    made = views(columns, randomness)
    return made[number % (len(made) - views.num_local)]  # not the small views of multi-crop, which come last


def labels_of(dataset: Dataset) -> tuple[Tensor, Tensor] | None:
    """Labels of a training split and of its held-out part, -1 for none; None unless both have some."""
    held_out = dataset.held_out
    if dataset.labels is None or held_out is None or held_out.labels is None:
        return None
    labels, truth = dataset.labels, held_out.labels
    return (labels, truth) if len(with_label(labels)) and len(with_label(truth)) else None


def chosen(labels: Tensor, count: int | None) -> Tensor:
    """At most ``count`` samples that have a label, balanced over classes; all of them for null."""
    return balanced(labels, len(labels) if count is None else count)


def numbers(x: Tensor) -> Tensor:
    """Samples (B, ...) as float32 rows; images above 32 pixels are averaged down to 32, to bound memory."""
    if x.dim() == 4 and x.shape[-1] > RAW_PIXELS:
        x = F.interpolate(x.float(), size=(RAW_PIXELS, RAW_PIXELS), mode="area")
    return x.float().flatten(1)


def embed(encoder: Encoder, views: Views, compute: Compute, pieces: Iterator[Columns]) -> Tensor:
    """(N, dim) float32 features on the CPU of the clean views of what ``pieces`` yields, in eval mode."""
    parts = []
    for columns in pieces:
        with torch.inference_mode(), compute.autocast():
            view = views.evaluation_view(columns)
        parts.append(_read(encoder, view, compute))
    return torch.cat(parts)


@torch.inference_mode()
def _read(encoder: Encoder, view: View, compute: Compute) -> Tensor:
    with evaluating(encoder), compute.autocast():
        return encoder(view).pooled.float().cpu()
