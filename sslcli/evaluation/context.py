"""The context of a probe: a trained encoder, its data, and the same encoder with other weights as baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.base import Dataset, with_label
from sslcli.data.buckets import by_length
from sslcli.data.selection import balanced
from sslcli.encoders.base import Encoder
from sslcli.evaluation.dropout import are_equal, dropping
from sslcli.evaluation.rows import Columns, counted, gathered
from sslcli.features import evaluating
from sslcli.randomness import Randomness, fold
from sslcli.types import Compute, Field, Similarity, View
from sslcli.views.base import Views

RAW_PIXELS = 32  # side to which larger images are averaged down for the raw-input baseline


@dataclass
class ProbeContext:
    """The encoders and data that a probe reads. Features are extracted once for all probes.

    Args:
        dataset: the training split; its ``held_out`` part has the query samples.
        encoders: ``trained`` and its baselines by name: ``random_init``, the random initialisation, and ``start``,
            the weights that the run began with, if they were given; all on the device.
        views: the run's pipeline of views.
        compute: device and precision.
        pieces: yields the columns of the samples at an index (N,) of a dataset, in order, in batches on the device.
        copied: returns a copy of the encoder of that name, for further training, with a rate of stochastic depth.
        drops_paths: whether the encoder has stochastic depth.
        seed: seed of all random numbers.
        budget: seconds that a probe may take if it chooses its own size.
        settled: the size that such a probe chose before, to be used again.
        raw_input: whether the input without any encoder is a baseline, too.
        similarity: how the objective compares pooled vectors.
        left_out: what probes did not measure, each with the reason, to be printed.
        notes: what else probes say beside their numbers, to be printed.
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
    raw_input: bool = True
    similarity: Similarity = "cosine"
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _views_are_equal: bool | None = field(default=None, repr=False)
    _features: dict[tuple[str, int, bytes, str], Tensor] = field(default_factory=dict, repr=False)

    @property
    def split(self) -> str:
        """The name of the split that the query samples belong to."""
        return "train" if self.dataset.held_out is None else "held out"

    @property
    def queried(self) -> Dataset:
        """The samples to measure on: held-out samples, or training samples if nothing is held out."""
        return self.dataset if self.dataset.held_out is None else self.dataset.held_out

    def leave_out(self, reason: str) -> None:
        """Record that there are too few samples for a measurement, which is then not replaced by another."""
        self.left_out.append(reason)

    def labelled(self) -> tuple[Tensor, Tensor] | None:
        """Return ``labels_of`` the dataset."""
        return labels_of(self.dataset)

    def embed(self, name: str, dataset: Dataset, index: Tensor, column: str | None = None) -> Tensor:
        """Return float32 features (N, dim), on the CPU, of clean views of the samples ``index`` (N,), in eval mode.

        They are of the column ``column``, by default that of the run's evaluation; ``reads`` must be true of it. Texts
        are read by their length, so that little of a batch is padding.
        """
        seen, usual = column, self.views.field
        places = by_length(dataset, index, column or usual)
        pieces = self.pieces(dataset, index if places is None else index[places])
        if column is not None and column not in (usual, *self.views.fields):
            pieces, seen = ({usual: piece[column]} for piece in pieces), None  # read as the column that it is like
        return embed(self.encoders[name], self.views, self.compute, pieces, len(index), name, seen, places)

    def features(self, name: str, dataset: Dataset, index: Tensor, column: str | None = None) -> Tensor:
        """Return the same as ``embed``, computed at the first call and kept."""
        key = (name, id(dataset), index.numpy().tobytes(), column or self.views.field)
        if key not in self._features:
            self._features[key] = self.embed(name, dataset, index, column)
        return self._features[key]

    def reads(self, column: str) -> bool:
        """Return whether the encoder reads a column: by a view of its own, or as that of the evaluation, if alike."""
        like, field = self.dataset.spec[column], self.dataset.spec[self.views.field]
        return column in self.views.fields or (like.kind, like.vocab, like.pad) == (field.kind, field.vocab, field.pad)

    def draw(self, dataset: Dataset, index: Tensor, number: int | None) -> dict[str, Tensor]:
        """Return one view of each sample as float32 rows (N, D) on the CPU: each encoder's features, and the raw input.

        Where the random views of a sample are equal, encoders keep their dropout, drawn anew for each view.

        Args:
            dataset: a split.
            index: (N,) positions of the samples.
            number: number of the random view; null is the clean view. Where views are columns, such as user and item,
                consecutive numbers give them in turn.
        """
        found: dict[str, list[Tensor]] = {}
        start = 0
        for columns in counted(self.pieces(dataset, index), "embedding views", len(index)):
            count = len(next(iter(columns.values())))
            positions = index[start : start + count].numpy()
            dropout = None
            if number is not None and self._by_dropout(columns, positions):
                dropout = fold(self.seed, "dropout", number, start)
            start += count
            with torch.inference_mode(), self.compute.autocast():
                view = self._view(columns, positions, number)
                column = dataset.spec[view.field]
                same = len(set(self.views.fields)) == 1  # rows of different columns do not compare
                if self.raw_input and same and not column.is_ids:
                    found.setdefault("raw_input", []).append(numbers(view.x, column).cpu())
            for name, encoder in self.encoders.items():
                found.setdefault(name, []).append(_read(encoder, view, self.compute, dropout))
        return {name: torch.cat(parts) for name, parts in found.items()}

    @property
    def kind_of_views(self) -> str:
        """What random views of a sample are, for a protocol; known once some were drawn."""
        return "passes with dropout" if self._views_are_equal else "random views"

    def nothing_differs(self, one: Tensor, two: Tensor) -> bool:
        """Return whether drawn rows of two views are equal because the views are, and there is no dropout."""
        return bool(self._views_are_equal) and torch.equal(one, two)

    def _by_dropout(self, columns: Columns, positions: np.ndarray) -> bool:
        """Return whether two random views of a sample are equal, as those of the first samples are."""
        if self._views_are_equal is None:
            self._views_are_equal = are_equal(*(self._view(columns, positions, number) for number in (0, 1)))
        return self._views_are_equal

    def _view(self, columns: Columns, positions: np.ndarray, number: int | None) -> View:
        if number is None:
            return self.views.evaluation_view(columns)
        return random_view(
            self.views, columns, Randomness(self.seed, -1 - number, positions, self.compute.device), number
        )


def random_view(views: Views, columns: Columns, randomness: Randomness, number: int) -> View:
    """Return the pipeline's random view ``number``, counted modulo the number of full-size views."""
    made = views(columns, randomness)
    return made[number % (len(made) - views.num_local)]  # without the small views of multi-crop, which come last


def labels_of(dataset: Dataset) -> tuple[Tensor, Tensor] | None:
    """Return the labels of a training split and of its held-out part, -1 for none; None unless both have labels.

    Labels are names: they are numbered anew from 0 over both parts together, so that no memory depends on their size.
    Several labels a sample, (N, C) bool, stay as they are.
    """
    held_out = dataset.held_out
    if dataset.labels is None or held_out is None or held_out.labels is None:
        return None
    labels, truth = dataset.labels, held_out.labels
    if not len(with_label(labels)) or not len(with_label(truth)):
        return None
    if labels.dim() == 2:
        return labels, truth
    classes = torch.cat([labels, truth]).unique()
    classes = classes[classes >= 0]
    labels, truth = (torch.where(part < 0, -1, torch.searchsorted(classes, part)) for part in (labels, truth))
    return labels, truth


def chosen(labels: Tensor, count: int | None) -> Tensor:
    """Return positions of at most ``count`` labelled samples, balanced over classes; of all of them for None."""
    return balanced(labels, len(labels) if count is None else count)


def numbers(x: Tensor, field: Field) -> Tensor:
    """Return samples (B, ...) as float32 rows; images above 32 pixels are averaged down to 32, to limit memory."""
    if field.kind == "image" and x.shape[-1] > RAW_PIXELS:
        x = F.interpolate(x.float(), size=(RAW_PIXELS, RAW_PIXELS), mode="area")
    return x.float().flatten(1)


def embed(
    encoder: Encoder,
    views: Views,
    compute: Compute,
    pieces: Iterator[Columns],
    count: int,
    name: str = "samples",
    column: str | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """Return float32 features (N, dim), on the CPU, of clean views of the N samples in ``pieces``, in eval mode.

    A progress bar shows ``name`` and the remaining time. The views are of ``column``; None is that of the evaluation.
    Where ``places`` (N,) is given, it says where each sample's features belong.
    """

    def parts() -> Iterator[Tensor]:
        for columns in pieces:
            with torch.inference_mode(), compute.autocast():
                view = views.evaluation_view(columns, column) if column else views.evaluation_view(columns)
            yield _read(encoder, view, compute)

    return gathered(parts(), count, f"embedding {name}", places)


@torch.inference_mode()
def _read(encoder: Encoder, view: View, compute: Compute, dropout: int | None = None) -> Tensor:
    """Return pooled features in eval mode, or with dropout drawn from the seed ``dropout``."""
    mode = evaluating(encoder) if dropout is None else dropping(encoder, dropout, compute.device)
    with mode, compute.autocast():
        return encoder(view).pooled.float().cpu()
